//! The effect of a failure: its exit code, and whether dtunnel tries again.

use super::{Error, Phase};

/// The kind of a failure: decides its exit code and whether dtunnel tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host cannot be reached; a later attempt may succeed.
    Unreachable,
    /// The host key was refused; needs the user's action.
    HostKey,
    /// The login was refused or needs a terminal; needs the user's action.
    Auth,
    /// A setting is wrong; needs the user's action.
    Config,
}

impl Error {
    /// Whether the attempt failed before the host was reached.
    pub fn is_unreached(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => true,
            Self::Timeout { step, .. } => matches!(step, Phase::Resolution | Phase::Tcp),
            _ => false,
        }
    }

    /// The kind of this failure.
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
            | Self::OpenSshStart { .. }
            | Self::Lost { .. } => Kind::Unreachable,
            Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostKeyUncheckable { .. }
            | Self::HostKeyUnknown { .. } => Kind::HostKey,
            Self::Auth { .. } | Self::AuthClosed { .. } | Self::NeedsPerson { .. } | Self::PasswordExpired { .. } => {
                Kind::Auth
            }
            Self::OpenSsh { kind, .. } => *kind,
            Self::Config(_) | Self::NoAlgorithm { .. } => Kind::Config,
        }
    }

    /// Whether a later attempt can succeed without the user's action.
    pub fn may_pass(&self) -> bool {
        self.kind() == Kind::Unreachable || matches!(self, Self::AuthClosed { is_said: false, .. })
    }
}
