//! What a flow is for, and how those who need one ask for it: the guard, the published ports. They know nothing of
//! connections, of where a flow is placed, or of how a tunnel is kept up.

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

/// What a flow is for.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    /// Where it leads.
    pub(super) leads: Leads,
    /// Is it a client's? It is counted then, and bound to the host and the guard that its client came to. Our own ones only
    /// listen: they are cut where their connection is held up.
    pub(super) is_clients: bool,
    /// Who asks, where a guard stands between the client and the Engine.
    pub(super) behind_guard: Option<Who>,
    /// Further counters of it: those of its port.
    pub(super) counters: Option<Arc<Counters>>,
}

impl Purpose {
    /// A client's, to the Engine; what it sends is not looked at.
    pub(super) fn client() -> Self {
        Self { leads: Leads::ToEngine, is_clients: true, behind_guard: None, counters: None }
    }

    /// A client's, to the Engine, whose requests a guard has let pass.
    pub(super) fn guarded(who: Who) -> Self {
        Self { behind_guard: Some(who), ..Self::client() }
    }

    /// Ours, to the Engine.
    pub(super) fn listening() -> Self {
        Self { is_clients: false, ..Self::client() }
    }

    /// A client's, to a published port.
    pub(super) fn port(host: String, port: u16, counters: Arc<Counters>) -> Self {
        Self { leads: Leads::ToPort { host, port }, counters: Some(counters), ..Self::client() }
    }

    /// Is it a client's, to the Engine?
    pub(super) fn is_clients_to_engine(&self) -> bool {
        self.is_clients && self.is_to_engine()
    }

    /// Does it lead to the Engine?
    pub(super) fn is_to_engine(&self) -> bool {
        self.leads == Leads::ToEngine
    }
}

/// What those who need a flow may ask of a tunnel.
pub(super) trait Dial: Send + Sync {
    /// A stream to the other end of a flow, which is placed as all are.
    ///
    /// # Errors
    /// Where the system has no more sockets.
    fn dial(self: Arc<Self>, purpose: Purpose) -> std::io::Result<UnixStream>;

    /// Where the tunnel leads now.
    fn target(&self) -> Arc<Target>;

    /// What went wrong last, for people; None where all is right.
    fn last_error(&self) -> Option<String>;
}
