//! Why a tunnel did not come up.

use std::time::Duration;

use crate::config::LocalEndpoint;
use crate::{engine, ssh};

/// Why a tunnel did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The local endpoint could not be opened.
    #[error("cannot listen on {}", .endpoint.docker_host())]
    Listen {
        /// The endpoint.
        endpoint: LocalEndpoint,
        /// What the system said, or why we did not even try.
        source: std::io::Error,
    },
    /// There is no SSH connection.
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    /// The host was reached, but its server did not open the Engine's socket.
    #[error("reached {host}, but not its Docker Engine")]
    Forwarding {
        /// `user@host:port`.
        host: String,
        /// The Engine's socket on the host.
        socket: String,
        /// The login name there.
        user: String,
        /// What the server said.
        source: ssh::OpenError,
    },
    /// The socket was opened, but what listens there does not answer as an Engine does.
    #[error("reached {socket} on {host}, but no Docker Engine answered there")]
    Engine {
        /// `user@host:port`.
        host: String,
        /// The Engine's socket on the host.
        socket: String,
        /// What went wrong.
        source: engine::Error,
    },
    /// The system would not give what a connection needs.
    #[error("cannot start a connection")]
    System(#[source] std::io::Error),
    /// The time for coming up is over.
    #[error("not ready within {} (while {step})", humantime::format_duration(*.limit))]
    Timeout {
        /// The limit, `up --timeout`.
        limit: Duration,
        /// What was being done.
        step: ssh::Step,
    },
}

impl Error {
    /// Is this for time to cure, so that trying again makes sense?
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Ssh(error) => error.kind() == ssh::Kind::Unreachable,
            Self::Timeout { .. } | Self::System(_) | Self::Forwarding { .. } | Self::Engine { .. } => true,
            Self::Listen { .. } => false,
        }
    }

    /// What to do about it, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Listen { endpoint: LocalEndpoint::Tcp(_), .. } => "choose another port, or 0 for any free one".into(),
            Self::Listen { .. } => "choose another path with --local unix:PATH".into(),
            Self::Ssh(error) => return error.hint(),
            // OpenSSH answers all of these alike (docs/architecture.md, "Facts about sshd").
            Self::Forwarding { socket, user, .. } => format!(
                "sshd does not say which, so look at each: is Docker running there ({socket} present)? may {user} use it \
                 (`ls -l {socket}`; being in the group `docker` takes a new login)? does sshd_config permit it \
                 (AllowStreamLocalForwarding yes, AllowTcpForwarding yes, no DisableForwarding)?"
            ),
            Self::Engine { source: engine::Error::Timeout(_), .. } => {
                "the Engine hangs or is still starting: `docker info` on the host tells more".into()
            }
            Self::Engine { .. } => "is --remote-socket the socket of a Docker Engine?".into(),
            Self::System(_) => "are memory, threads or open files (`ulimit -a`) used up?".into(),
            Self::Timeout { .. } => "give it more time with --timeout".into(),
        })
    }
}
