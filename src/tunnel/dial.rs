//! The purpose of a flow, and the interface ([`Dial`]) through which the guard and the published ports open one. They
//! know nothing of connections, placement or supervision.

use std::sync::Arc;

use tokio::net::UnixStream;

use super::client::peer::Who;
use super::counters::Counters;
use crate::config::Target;

/// Where a flow leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    /// To the Engine.
    ToEngine,
    /// To a TCP port, as the host sees it.
    ToPort {
        /// Address there.
        host: String,
        /// Port there.
        port: u16,
    },
}

/// How much may go over a flow, which decides where it is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// Not known: what goes over it is not read, or is no operation that is known.
    #[default]
    Unknown,
    /// A question with an answer that is bounded, and fits into memory whether its client takes it or not.
    Short,
    /// Without a bound, in one direction at least.
    Streaming,
}

/// What a flow is for.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    /// Where it leads.
    pub(super) leads: Leads,
    /// Does it serve a client? Such a flow is counted, and bound to the host and guard that its client connected to.
    /// The tunnel's own flows only listen, and are cut when their connection is held up.
    pub(super) is_clients: bool,
    /// The client, where a guard is between it and the Engine.
    pub(super) behind_guard: Option<Who>,
    /// The counters of its published port.
    pub(super) counters: Option<Arc<Counters>>,
    /// How much may go over it.
    pub(super) kind: Kind,
}

impl Purpose {
    /// A client's flow to the Engine, without a guard.
    pub(super) fn client() -> Self {
        Self { leads: Leads::ToEngine, is_clients: true, behind_guard: None, counters: None, kind: Kind::Unknown }
    }

    /// A client's flow to the Engine, behind a guard.
    pub(super) fn guarded(who: Who) -> Self {
        Self { behind_guard: Some(who), ..Self::client() }
    }

    /// The tunnel's own flow to the Engine.
    pub(super) fn listening() -> Self {
        Self { is_clients: false, ..Self::client() }
    }

    /// A client's flow to a published port.
    pub(super) fn port(host: String, port: u16, counters: Arc<Counters>) -> Self {
        Self { leads: Leads::ToPort { host, port }, counters: Some(counters), ..Self::client() }
    }

    /// Does it serve a client of the Engine?
    pub(super) fn is_clients_to_engine(&self) -> bool {
        self.is_clients && self.is_to_engine()
    }

    /// Does it lead to the Engine?
    pub(super) fn is_to_engine(&self) -> bool {
        self.leads == Leads::ToEngine
    }
}

/// What guard and ports need of the tunnel.
pub(super) trait Dial: Send + Sync {
    /// Opens a flow, placed like any other, and returns a stream to its end.
    ///
    /// # Errors
    /// The system has no more sockets.
    fn dial(self: Arc<Self>, purpose: Purpose) -> std::io::Result<UnixStream>;

    /// The settings in force.
    fn target(&self) -> Arc<Target>;

    /// The last failure, for people; None where there is none.
    fn last_error(&self) -> Option<String>;
}
