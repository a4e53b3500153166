//! Errors of reaching an Engine on a host.

use crate::failure::{ExitCode, Failure};
use crate::{engine, ssh};

/// Why an Engine on a host was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no SSH connection.
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    /// The host was reached, but its server did not open the Engine's socket.
    #[error("reached {host}, but not its Docker Engine{}", instead(.said))]
    Forwarding {
        /// `user@host:port`.
        host: String,
        /// The Engine's socket on the host.
        socket: String,
        user: String,
        /// The output of a fixed command on the host, if the probe did not run; may be empty.
        said: String,
        /// The server's error.
        source: ssh::OpenError,
    },
    /// The host was reached, and the probe found the obstacle.
    #[error("reached {host}, but {obstacle}")]
    Obstacle {
        /// `user@host:port`.
        host: String,
        obstacle: Obstacle,
    },
    /// The socket was opened, but the program that listens there does not answer as an Engine.
    #[error("reached {socket} on {host}, but no Docker Engine answered there")]
    Engine {
        /// `user@host:port`.
        host: String,
        /// The Engine's socket on the host.
        socket: String,
        source: engine::Error,
    },
}

/// The obstacle to an Engine on a host that was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// No socket of an Engine.
    #[error("there is no Docker socket at {}", .looked.join(", "))]
    NoSocket {
        /// The paths searched.
        looked: Vec<String>,
        /// Whether the docker CLI is installed there.
        docker_installed: bool,
    },
    /// The socket exists, but this login may not use it.
    #[error("{user} may not use {socket} ({listing})")]
    Permission {
        socket: String,
        /// Its mode, owner and group.
        listing: String,
        user: String,
        /// Whether the user was added to the group `docker` after this login began.
        new_login: bool,
    },
    /// The socket exists, but the server does not forward and the host has no bridge tool.
    #[error("its SSH server does not forward to {socket}")]
    Prohibited { socket: String },
    /// The socket exists, but no process answers there.
    #[error("nothing answers at {socket}: {said}")]
    NotListening {
        socket: String,
        /// The error messages of the tools tried.
        said: String,
    },
    /// The command that should connect to the Engine failed.
    #[error("`{command}` failed there: {said}")]
    Command { command: String, said: String },
}

impl Obstacle {
    fn hint(&self) -> String {
        match self {
            Self::NoSocket { docker_installed: true, .. } => {
                "Docker is installed there, so its Engine is not running: `sudo systemctl start docker` on the host \
                 (or name another socket with --remote)"
                    .into()
            }
            Self::NoSocket { .. } => {
                "is Docker or Podman installed there? with another socket, name it with --remote /path/to.sock; for Podman: \
                 `systemctl --user enable --now podman.socket` on the host"
                    .into()
            }
            Self::Permission { user, new_login: true, .. } => format!(
                "{user} is in the group `docker`, but not in this login: end all of {user}'s sessions on the host \
                 (an ssh ControlMaster is one) and log in again"
            ),
            Self::Permission { user, socket, .. } => format!(
                "on the host: `sudo usermod -aG docker {user}`, if the group of {socket} is docker (its members are as \
                 powerful as root); it takes a new login"
            ),
            Self::Prohibited { .. } => {
                "in the host's sshd_config: `AllowStreamLocalForwarding yes` and `AllowTcpForwarding yes`, no DisableForwarding; \
                 in authorized_keys no `restrict` without `port-forwarding`. Or install docker's CLI or socat there, \
                 which dtunnel can use instead"
                    .into()
            }
            Self::NotListening { .. } => {
                "is the Engine running? `sudo systemctl status docker` on the host tells; a socket file alone may be left over".into()
            }
            Self::Command { .. } => "try the command on the host, by ssh".into(),
        }
    }
}

fn instead(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!("; it runs no commands for this login: {said}") }
}

/// The class of a failure, for programs that get only its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The host cannot be reached.
    Unreachable,
    /// Its host key was refused.
    HostKey,
    /// The login was refused, or needs a terminal.
    Auth,
    /// A setting is wrong.
    Config,
    /// The host was reached, but not its Engine.
    Engine,
    /// A failure on this machine.
    Other,
}

impl Error {
    /// The class of this failure.
    pub fn class(&self) -> Class {
        match self {
            Self::Ssh(error) => match error.kind() {
                ssh::Kind::Unreachable => Class::Unreachable,
                ssh::Kind::HostKey => Class::HostKey,
                ssh::Kind::Auth => Class::Auth,
                ssh::Kind::Config => Class::Config,
            },
            Self::Forwarding { .. } | Self::Obstacle { .. } | Self::Engine { .. } => Class::Engine,
        }
    }

    /// Whether a later attempt can succeed without the user's action.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Ssh(error) => error.may_pass(),
            Self::Forwarding { .. } | Self::Obstacle { .. } | Self::Engine { .. } => true,
        }
    }

    /// The action to take, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Ssh(error) => return error.hint(),
            // OpenSSH sends the same error for all of these (docs/architecture.md, "Facts about sshd").
            Self::Forwarding { socket, user, .. } => format!(
                "sshd does not say which, so look at each: is Docker running there ({socket} present)? may {user} use it \
                 (`ls -l {socket}`; being in the group `docker` takes a new login)? does sshd_config permit it \
                 (AllowStreamLocalForwarding yes, AllowTcpForwarding yes, no DisableForwarding)?"
            ),
            Self::Engine { source: engine::Error::Timeout(_), .. } => {
                "the Engine hangs or is still starting: `docker info` on the host tells more".into()
            }
            Self::Obstacle { obstacle, .. } => obstacle.hint(),
            Self::Engine { .. } => "is --remote the socket of a Docker Engine?".into(),
        })
    }
}

impl From<Class> for ExitCode {
    fn from(class: Class) -> Self {
        match class {
            Class::Unreachable => Self::Unreachable,
            Class::HostKey => Self::HostKey,
            Class::Auth => Self::Auth,
            Class::Config => Self::Usage,
            Class::Engine => Self::Engine,
            Class::Other => Self::Other,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(error.class().into(), &error, error.hint())
    }
}
