//! Why a tunnel did not come up.

use std::time::Duration;

use crate::config::LocalEndpoint;
use crate::failure::{self, Failure};
use crate::host::{self, Class};
use crate::ssh;

/// Why a tunnel did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The local endpoint could not be opened.
    #[error("cannot listen on {}", .endpoint.docker_host())]
    Listen {
        /// The endpoint.
        endpoint: LocalEndpoint,
        /// The system's error, or an earlier configuration error.
        source: std::io::Error,
    },
    /// The Engine was not reached.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The system refused a thread or descriptors for a connection.
    #[error("cannot start a connection")]
    System(#[source] std::io::Error),
    /// The settings name an operation that the guard does not know.
    #[error("{name}: {reason}")]
    Access {
        /// The tunnel's name.
        name: String,
        /// The operation, and why it is not accepted.
        reason: String,
    },
    /// The tunnel was not up within the limit.
    #[error("{host} was not ready within {} (while {step})", humantime::format_duration(*.limit))]
    Timeout {
        /// `user@host:port`.
        host: String,
        /// The limit, `up --timeout`.
        limit: Duration,
        /// The step in progress.
        step: ssh::Step,
    },
}

/// The configuration error inside, if any.
fn config_error(source: &std::io::Error) -> Option<&crate::config::Error> {
    source.get_ref()?.downcast_ref()
}

impl From<ssh::Error> for Error {
    fn from(error: ssh::Error) -> Self {
        Self::Host(error.into())
    }
}

impl Error {
    /// The class of this failure.
    pub fn class(&self) -> Class {
        match self {
            Self::Host(error) => error.class(),
            Self::Access { .. } => Class::Config,
            Self::Timeout { step: ssh::Step::Engine, .. } => Class::Engine,
            // A server that is silent during the login hangs; it would report a refusal.
            Self::Timeout { step: ssh::Step::Confirming, .. } => Class::Auth,
            Self::Timeout { step: ssh::Step::HostKey, .. } => Class::HostKey,
            Self::Timeout { .. } => Class::Unreachable,
            Self::Listen { .. } | Self::System(_) => Class::Other,
        }
    }

    /// The error and its causes, as one line.
    pub fn with_causes(&self) -> String {
        failure::with_causes(self)
    }

    /// The server's refusal before its greeting, if that is the error. The server may be busy, and accept later.
    pub(super) fn turned_away(&self) -> Option<ssh::TurnedAway> {
        match self {
            Self::Host(host::Error::Ssh(ssh::Error::TurnedAway { why, .. })) => Some(*why),
            _ => None,
        }
    }

    /// Whether the attempt failed before the host was reached.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Host(host::Error::Ssh(error)) if error.is_unreached())
    }

    /// Whether a later attempt can succeed without the user's action.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Host(error) => error.may_pass(),
            Self::Timeout { .. } | Self::System(_) => true,
            Self::Listen { .. } | Self::Access { .. } => false,
        }
    }

    /// The action to take, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Listen { endpoint: LocalEndpoint::Tcp(_), .. } => "choose another port, or 0 for any free one".into(),
            Self::Listen { source, .. } if config_error(source).is_some() => return config_error(source)?.hint(),
            Self::Listen { .. } => "choose another path with --local unix:PATH".into(),
            Self::Host(error) => return error.hint(),
            Self::System(_) => "are memory, threads or open files (`ulimit -a`) used up?".into(),
            Self::Access { .. } => "docs/security.md lists the operations and their names".into(),
            Self::Timeout { .. } => "give it more time with --timeout".into(),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(error.class().into(), &error, error.hint())
    }
}
