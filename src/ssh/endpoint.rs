//! What a channel leads to on the host.

use std::fmt;

use super::preamble::Preamble;

/// The remote endpoint of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Streamlocal(String),
    /// A TCP port, as the host sees it (RFC 4254 section 7.2).
    Tcp {
        host: String,
        port: u16,
    },
    /// Standard input and output of a command (RFC 4254 section 6.5).
    Command {
        name: String,
        /// The command line, for the remote login shell.
        command: String,
        /// Whether its output begins with [`BEGIN`](super::BEGIN).
        is_marked: bool,
    },
    /// A subsystem by its name, such as `sftp` (RFC 4254 section 6.5).
    Subsystem(&'static str),
}

impl Endpoint {
    /// Whether a channel to this endpoint starts a command on the host.
    pub fn is_command(&self) -> bool {
        matches!(self, Self::Command { .. } | Self::Subsystem(_))
    }

    /// The command `true`.
    pub(super) fn of_true() -> Self {
        Self::Command { name: "true".into(), command: "true".into(), is_marked: false }
    }

    pub(super) fn leads_to(&self) -> LeadsTo {
        match self {
            Self::Streamlocal(_) | Self::Tcp { .. } => LeadsTo::Socket,
            Self::Command { is_marked, .. } => LeadsTo::Command { is_marked: *is_marked },
            Self::Subsystem(_) => LeadsTo::Command { is_marked: false },
        }
    }
}

/// What is at the other end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeadsTo {
    Socket,
    Command {
        /// Whether its output begins with [`BEGIN`](super::BEGIN).
        is_marked: bool,
    },
}

impl LeadsTo {
    pub(super) fn is_command(self) -> bool {
        self != Self::Socket
    }

    pub(super) fn preamble(self) -> Option<Preamble> {
        (self == Self::Command { is_marked: true }).then(Preamble::default)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streamlocal(path) => f.write_str(path),
            Self::Tcp { host, port } => write!(f, "{host} port {port}"),
            Self::Command { name, .. } => write!(f, "`{name}`"),
            Self::Subsystem(name) => write!(f, "the subsystem {name}"),
        }
    }
}
