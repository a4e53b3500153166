//! The steps of making a connection.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::negotiated::Negotiated;

/// A step of making a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Reading profile and ssh_config.
    Resolving,
    /// TCP connection and key exchange.
    Connecting,
    /// Host key verification.
    HostKey,
    Authenticating,
    /// Waiting for an agent's signature, which may need its owner's consent or a touch.
    Confirming,
    /// Waiting for the Engine's first answer.
    Engine,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolving => "resolving",
            Self::Connecting => "connecting",
            Self::HostKey => "checking the host key",
            Self::Authenticating => "authenticating",
            Self::Confirming => "waiting for the ssh-agent: confirm there, or touch your key",
            Self::Engine => "asking the Engine",
        })
    }
}

/// An event while a connection is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// This step has begun.
    Step(Step),
    /// The key exchange is done, with these algorithms.
    Agreed(Negotiated),
}

/// The callback that receives the events.
pub(crate) type OnStep = Arc<dyn Fn(News) + Send + Sync>;
