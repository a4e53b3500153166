//! Host identities, and why a host is trusted. `host_key` determines them; stored passwords are bound to them.

use std::fmt;

use russh::keys::{HashAlg, PublicKey};

/// Identifies a host: its key, or the authority that signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(String);

impl Identity {
    pub(super) fn of_key(key: &PublicKey) -> Self {
        Self(fingerprint(key))
    }

    pub(super) fn of_authority(key: &PublicKey) -> Self {
        Self(format!("CA {}", fingerprint(key)))
    }

    /// Reads a stored identity. Invalid text matches no host.
    pub(super) fn written(text: &str) -> Self {
        Self(text.into())
    }
}

/// Formats as `SHA256:…` or `CA SHA256:…`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a host is trusted.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    /// The identity of its key.
    pub(super) key: Identity,
    /// The authority of its certificate, if that is why it is trusted.
    pub(super) authority: Option<Identity>,
    pub(super) by: TrustedBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrustedBy {
    /// A plain key in the user's files: the host may announce its other keys.
    UsersFile,
    /// Another entry known before.
    Known,
    /// The user, asked during this connection.
    Person,
    /// No check: StrictHostKeyChecking accepts new keys.
    Nobody,
}

impl Trust {
    /// The identity that a password is stored for: the authority if there is one, since a host
    /// with certificates gets new keys.
    pub(super) fn identity(&self) -> &Identity {
        self.authority.as_ref().unwrap_or(&self.key)
    }

    /// Whether it is one of `hosts`.
    pub(super) fn is_one_of(&self, hosts: &[Identity]) -> bool {
        hosts.contains(&self.key) || self.authority.as_ref().is_some_and(|authority| hosts.contains(authority))
    }
}

/// The key's fingerprint as `SHA256:…`, in ssh's format.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
