//! The purpose of a flow, and the interface ([`Dial`]) through which the guard and the published ports open one. They
//! are independent of connections, placement and supervision.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::client::peer::Who;
use super::counters::Counters;
use crate::os::local;

/// The destination of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    /// To the Engine.
    Engine,
    /// To a TCP port, as the host sees it.
    Port {
        /// Address there.
        host: String,
        /// Port there.
        port: u16,
    },
    /// To the standard input and output of `sh -c` with this script.
    Command(Arc<str>),
    /// To the host's SFTP server.
    Sftp,
}

/// The amount of data on a flow, which decides its placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    /// Unknown: the data is not read, or belongs to no known operation.
    #[default]
    Unknown,
    /// A request with a bounded answer, which fits into memory even if the client does not read it.
    Short,
    /// Unbounded, in one direction at least.
    Streaming,
}

/// The purpose of a flow.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    /// The destination.
    pub(super) leads: Leads,
    /// Whether it serves a client. Such a flow is counted, and bound to the host and guard that its client connected
    /// to. The tunnel's own flows only listen, and are cut if they stall their connection.
    pub(super) is_clients: bool,
    /// The client, if a guard is between it and the Engine.
    pub(super) behind_guard: Option<Who>,
    /// The counters of its published port.
    pub(super) counters: Option<Arc<Counters>>,
    /// The amount of data.
    pub(super) kind: Kind,
}

impl Purpose {
    /// A client's flow to the Engine, without a guard.
    pub(super) fn client() -> Self {
        Self { leads: Leads::Engine, is_clients: true, behind_guard: None, counters: None, kind: Kind::Unknown }
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
        Self { leads: Leads::Port { host, port }, counters: Some(counters), ..Self::client() }
    }

    /// A flow for a client of the Engine, to a script on its host.
    pub(super) fn script(script: &str) -> Self {
        Self { leads: Leads::Command(script.into()), kind: Kind::Streaming, ..Self::client() }
    }

    /// The same, to the host's SFTP server.
    pub(super) fn sftp() -> Self {
        Self { leads: Leads::Sftp, kind: Kind::Streaming, ..Self::client() }
    }

    /// Whether it serves a client of the Engine.
    pub(super) fn is_clients_to_engine(&self) -> bool {
        self.is_clients && self.is_to_engine()
    }

    /// Whether it leads to the Engine.
    pub(super) fn is_to_engine(&self) -> bool {
        self.leads == Leads::Engine
    }
}

/// The tunnel's interface for the guard and the published ports.
pub(super) trait Dial: Send + Sync {
    /// Opens a flow, placed like any other, and returns a stream to its local end.
    ///
    /// # Errors
    /// The system is out of sockets.
    fn dial(self: Arc<Self>, purpose: Purpose) -> std::io::Result<local::Stream>;

    /// Since when the tunnel has been in its state.
    fn up_since(&self) -> SystemTime;

    /// The tunnel's own socket in a body that gives a container binds: replaced by the Engine's socket on its host.
    ///
    /// # Errors
    /// What to say where that is not known.
    fn with_engines_socket(&self, body: Bytes) -> Result<Bytes, String>;

    /// A body that gives a container binds, with mirrors on the host in place of directories of this machine, which are
    /// filled first.
    ///
    /// # Errors
    /// Why one cannot be had.
    fn with_mirrors(&self, body: Bytes) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send + '_>>;

    /// The last failure, as text; None if there is none.
    fn last_error(&self) -> Option<String>;
}
