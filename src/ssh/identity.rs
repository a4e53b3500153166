//! Which host this is, and how it came to be trusted: what `host_key` finds out, and kept passwords are bound to.

use std::fmt;

use russh::keys::{HashAlg, PublicKey};

/// What tells a host from every other one: its key, or the authority that signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(String);

impl Identity {
    pub(super) fn of_key(key: &PublicKey) -> Self {
        Self(fingerprint(key))
    }

    pub(super) fn of_authority(key: &PublicKey) -> Self {
        Self(format!("CA {}", fingerprint(key)))
    }

    /// One that was written down. Whatever it says: an unknown one is no host's.
    pub(super) fn written(text: &str) -> Self {
        Self(text.into())
    }
}

/// `SHA256:…`, or `CA SHA256:…`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a host came to be trusted.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    /// Of its key.
    pub(super) key: Identity,
    /// The authority for whose signature it is trusted, if that is why.
    pub(super) authority: Option<Identity>,
    pub(super) by: TrustedBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrustedBy {
    /// A plain key of its own in the user's files: it may tell of its others.
    UsersFile,
    /// Something else that was known before.
    Known,
    /// A person who was asked just now.
    Person,
    /// Nobody: StrictHostKeyChecking lets new keys pass.
    Nobody,
}

impl Trust {
    /// What a password that is given to this host is for: the authority where there is one, since a host with
    /// certificates gets new keys.
    pub(super) fn identity(&self) -> &Identity {
        self.authority.as_ref().unwrap_or(&self.key)
    }

    /// Is this one of `hosts`?
    pub(super) fn is_one_of(&self, hosts: &[Identity]) -> bool {
        hosts.contains(&self.key) || self.authority.as_ref().is_some_and(|authority| hosts.contains(authority))
    }
}

/// `SHA256:…`, as ssh shows it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
