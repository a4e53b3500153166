//! What follows from a failure: the exit code, and whether to try again.

use super::{Error, Phase};

/// What kind of failure this is: decides the exit code and whether time can cure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host cannot be reached; may pass.
    Unreachable,
    /// The host key was refused; stays until somebody acts.
    HostKey,
    /// The login was refused or needs a person; stays until somebody acts.
    Auth,
    /// A setting is wrong; stays until somebody acts.
    Config,
}

impl Error {
    /// Did the attempt fail before the host was reached?
    pub fn is_unreached(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => true,
            Self::Timeout { step, .. } => matches!(step, Phase::Resolution | Phase::Tcp),
            _ => false,
        }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ProxyCommand { .. }
            | Self::Jump { .. }
            | Self::Timeout { .. }
            | Self::Handshake { .. }
            | Self::TurnedAway { .. }
            | Self::NotSsh { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::Proxy { .. }
            | Self::Lost { .. } => Kind::Unreachable,
            Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostKeyUncheckable { .. }
            | Self::HostKeyUnknown { .. } => Kind::HostKey,
            Self::Auth { .. } | Self::AuthClosed { .. } | Self::NeedsPerson { .. } | Self::PasswordExpired { .. } => {
                Kind::Auth
            }
            Self::Config(_) | Self::NoAlgorithm { .. } => Kind::Config,
        }
    }

    /// Can a later attempt succeed without a change by the user?
    pub fn may_pass(&self) -> bool {
        self.kind() == Kind::Unreachable || matches!(self, Self::AuthClosed { is_said: false, .. })
    }
}
