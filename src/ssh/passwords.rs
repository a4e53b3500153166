//! Passwords stored in this process's memory and in the system keyring, each with the host keys that it was given for.
//!
//! A key in known_hosts does not prove that its host is the one that a password was stored for: with
//! `StrictHostKeyChecking accept-new` and an empty file, an attacker in between is recorded at the first connection and
//! known at the second. So a password is sent only to the keys (or the authority) that it was given for, and to keys
//! that such a host has proved to be its own (UpdateHostKeys).

use std::sync::{Arc, Mutex};

use russh::keys::PublicKey;

use super::identity::{Identity, Trust};
use super::keyring::{self, Kept, KeyringError};
use super::known_hosts::KnownKey;
use super::prompter::Secret;
use crate::sync::lock;

/// The first line of a keyring entry that lists its hosts. A password is a single line, so it cannot be mistaken for
/// one.
const BEGINNING: &str = "dtunnel-password-1\n";
/// Most hosts of an entry; the most recent ones are kept.
const MOST_HOSTS: usize = 16;

/// A password and the hosts that it is for. An entry of an older dtunnel, or one stored when no key was known, has no
/// hosts: its password is offered to no server.
pub struct Bound {
    pub(super) password: Secret,
    pub(super) hosts: Vec<Identity>,
}

impl Bound {
    /// A password for `hosts`.
    pub fn new(password: Secret, hosts: Vec<Identity>) -> Self {
        Self { password, hosts }
    }

    /// Adds a host, in place of the oldest one where there are many.
    pub(super) fn add(&mut self, host: &Identity) {
        if self.hosts.contains(host) {
            return;
        }
        if self.hosts.len() == MOST_HOSTS {
            self.hosts.remove(0);
        }
        self.hosts.push(host.clone());
    }

    /// The form in the keyring: one host a line, an empty line, the password.
    fn to_text(&self) -> Secret {
        let head: String = self.hosts.iter().map(|host| format!("{host}\n")).collect();
        let password = self.password.reveal();
        // Allocated in full: a growing buffer would leave copies behind.
        let mut text = String::with_capacity(BEGINNING.len() + head.len() + 1 + password.len());
        [BEGINNING, &head, "\n", password].iter().for_each(|part| text.push_str(part));
        Secret::new(text)
    }

    fn from_text(text: Secret) -> Self {
        let parts = text.reveal().strip_prefix(BEGINNING).and_then(|rest| match rest.strip_prefix('\n') {
            Some(password) => Some(("", password)),
            None => rest.split_once("\n\n"),
        });
        let Some((hosts, password)) = parts else { return Self::new(text, Vec::new()) };
        let hosts = hosts.lines().map(Identity::written).collect();
        Self::new(Secret::new(password.into()), hosts)
    }
}

/// Puts a password into the keyring, in place of the one before.
///
/// # Errors
/// [`KeyringError`].
pub fn keep_password(kept: &Kept, bound: &Bound) -> Result<(), KeyringError> {
    keyring::keep(kept, &bound.to_text())
}

/// The stored password for a login.
pub(super) enum Found {
    /// A password stored for this host's key.
    Fits(Bound),
    /// A password stored for other host keys, or for none.
    Unfit {
        hosts: Vec<Identity>,
        /// The password, if it came from the keyring.
        kept: Option<Secret>,
    },
    Nothing,
}

/// The passwords of one run.
#[derive(Clone, Default)]
pub(super) struct Passwords {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Those that a server has accepted, by [`Kept::Password`].
    accepted: Vec<(Kept, Bound)>,
    /// Passwords already read from the keyring: a wrong one would be wrong the next time, too.
    offered: Vec<Kept>,
    /// Passwords that are in the keyring, as far as this run knows.
    in_keyring: Vec<Kept>,
}

impl Passwords {
    /// The password for a host, from memory or from the keyring, each once. A password in memory is removed from it.
    pub(super) async fn find(&self, kept: &Kept, trust: &Trust) -> Found {
        let (in_memory, offered) = self.with(|state| {
            let fits = |(whose, bound): &(Kept, Bound)| whose == kept && trust.is_one_of(&bound.hosts);
            let fitting = state.accepted.iter().position(fits).map(|at| state.accepted.swap_remove(at).1);
            (fitting, state.offered.contains(kept))
        });
        if let Some(bound) = in_memory {
            return Found::Fits(bound);
        }
        if !offered && let Some(text) = keyring::fetch_while_logging_in(kept.clone()).await {
            let bound = Bound::from_text(text);
            if !trust.is_one_of(&bound.hosts) {
                return Found::Unfit { hosts: bound.hosts, kept: Some(bound.password) };
            }
            self.with(|state| {
                state.offered.push(kept.clone());
                state.in_keyring.push(kept.clone());
            });
            return Found::Fits(bound);
        }
        self.with(|state| {
            let of_others = state.accepted.iter().find(|(whose, _)| whose == kept);
            of_others.map_or(Found::Nothing, |(_, bound)| Found::Unfit { hosts: bound.hosts.clone(), kept: None })
        })
    }

    /// Keeps a password for the next login there.
    pub(super) fn put(&self, kept: Kept, bound: Bound) {
        self.with(|state| {
            state.accepted.retain(|(whose, _)| *whose != kept);
            state.accepted.push((kept, bound));
        });
    }

    /// Stores a password in the keyring. A failure is only logged.
    pub(super) async fn keep(&self, kept: &Kept, bound: &Bound) {
        if store(kept, bound.to_text()).await {
            self.with(|state| state.in_keyring.push(kept.clone()));
        }
    }

    /// The host has proved that it has the `new` keys and no longer has the `old` ones: adds the former to its stored
    /// passwords, and removes the latter.
    pub(super) async fn learnt(&self, kept: &Kept, trust: &Trust, new: &[PublicKey], old: &[KnownKey]) {
        let add = |bound: &mut Bound| {
            let is_for_it = trust.is_one_of(&bound.hosts);
            if is_for_it {
                bound.hosts.retain(|host| !old.iter().any(|known| Identity::of_key(&known.key) == *host));
                new.iter().for_each(|key| bound.add(&Identity::of_key(key)));
            }
            is_for_it
        };
        let is_in_keyring = self.with(|state| {
            let own = state.accepted.iter_mut().filter(|(whose, _)| whose == kept);
            own.for_each(|(_, bound)| {
                add(bound);
            });
            state.in_keyring.contains(kept)
        });
        if is_in_keyring && let Some(text) = keyring::fetch_while_logging_in(kept.clone()).await {
            let mut bound = Bound::from_text(text);
            if add(&mut bound) {
                store(kept, bound.to_text()).await;
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut lock(&self.state))
    }
}

async fn store(kept: &Kept, text: Secret) -> bool {
    keyring::keep_while_logging_in(kept.clone(), text).await
}

#[cfg(test)]
mod tests {
    use super::super::identity::TrustedBy;
    use super::*;

    fn host(text: &str) -> Identity {
        Identity::written(text)
    }

    #[test]
    fn what_is_in_the_keyring_is_read_as_it_was_written() {
        for hosts in [&[][..], &["SHA256:a"], &["SHA256:a", "CA SHA256:b"]] {
            for password in ["", "secret", "\nodd", "a\n\nb"] {
                let hosts: Vec<_> = hosts.iter().map(|text| host(text)).collect();
                let text = Bound::new(Secret::new(password.into()), hosts.clone()).to_text();
                let read = Bound::from_text(text);
                assert_eq!((read.password.reveal(), read.hosts), (password, hosts));
            }
        }
    }

    #[test]
    fn an_entry_of_an_older_dtunnel_is_for_no_host() {
        for text in ["secret", "", "dtunnel-password-1", "dtunnel-password-1\nSHA256:a", "dtunnel-password-2\nx\n\ny"] {
            let read = Bound::from_text(Secret::new(text.into()));
            assert_eq!((read.password.reveal(), read.hosts.len()), (text, 0));
        }
    }

    #[test]
    fn an_entry_is_for_a_key_or_for_an_authority_and_for_a_bounded_number() {
        let trust = |key: &str, authority: Option<&str>| Trust {
            key: host(key),
            authority: authority.map(host),
            by: TrustedBy::Known,
        };
        let hosts = [host("SHA256:a"), host("CA SHA256:b")];
        assert!(trust("SHA256:a", None).is_one_of(&hosts));
        assert!(trust("SHA256:new", Some("CA SHA256:b")).is_one_of(&hosts));
        assert!(
            !trust("SHA256:b", None).is_one_of(&hosts) && !trust("SHA256:c", Some("CA SHA256:a")).is_one_of(&hosts)
        );
        let mut bound = Bound::new(Secret::default(), Vec::new());
        (0..20).for_each(|number| bound.add(&host(&number.to_string())));
        assert_eq!((bound.hosts.len(), &bound.hosts[0]), (MOST_HOSTS, &host("4")));
    }
}
