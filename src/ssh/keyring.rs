//! The system's keyring: secrets that the user asked to have kept.
//!
//! Secret Service on Linux desktops, Keychain on macOS; on a Linux without a session bus the
//! kernel's own keyring (keyrings(7)), which keeps secrets until the machine restarts. Never
//! required: if the keyring fails, people are asked instead.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use keyring_core::Entry;

use super::host_key::known_name;
use super::prompter::Secret;
use crate::config::{self, Leg, Target};
use crate::os;

/// The name under which dtunnel's secrets are kept.
const SERVICE: &str = "dtunnel";
/// Longest wait for a keyring while logging in: a locked one may be asking its owner at a screen
/// that nobody looks at.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait where a person asked for it, and may have to unlock the keyring first.
const PATIENCE_WITH_A_PERSON: Duration = Duration::from_secs(60);

/// What is kept in the keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The passphrase of a private key.
    Passphrase(PathBuf),
    /// A password, by user, the host's name in known_hosts, and the route to it.
    Password(String),
    /// The password of `user@HostName`, as older versions stored it without the route. Never used: it could be another
    /// host's.
    OldPassword(String),
}

impl Kept {
    /// The password for a target. It is stored under the properties that tell hosts apart: the name by which its key is
    /// known (HostKeyAlias, or `[host]:port`), and the route, since behind another jump host the same address is
    /// another host.
    ///
    /// # Errors
    /// [`config::Error::NoHome`].
    pub fn password_for(target: &Target, leg: &Leg) -> Result<Self, config::Error> {
        let way = target.way(leg)?.map(|way| format!(" through {way}")).unwrap_or_default();
        Ok(Self::Password(format!("{}@{}{way}", target.ssh.user, known_name(target))))
    }

    fn name(&self) -> String {
        match self {
            Self::Passphrase(file) => format!("passphrase:{}", file.display()),
            Self::Password(place) => format!("password-for:{place}"),
            Self::OldPassword(account) => format!("password:{account}"),
        }
    }
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passphrase(file) => write!(f, "passphrase of {}", file.display()),
            Self::Password(place) => write!(f, "password of {place}"),
            Self::OldPassword(account) => write!(f, "password of {account} (of an older dtunnel, not used any more)"),
        }
    }
}

/// The keyring cannot be used: absent, locked, or it refused.
#[derive(Debug, thiserror::Error)]
#[error("the system keyring cannot be used: {0}")]
pub struct KeyringError(String);

/// Puts a secret into the keyring, in place of the one before.
///
/// # Errors
/// [`KeyringError`].
pub fn keep(kept: &Kept, secret: &Secret) -> Result<(), KeyringError> {
    let (kept, secret) = (kept.clone(), secret.clone());
    within_patience(move || entry(&kept)?.set_password(secret.reveal()).map_err(unusable))
}

/// The secret, if one is kept.
///
/// # Errors
/// [`KeyringError`].
pub fn fetch(kept: &Kept) -> Result<Option<Secret>, KeyringError> {
    let kept = kept.clone();
    within_patience(move || read(&kept))
}

fn read(kept: &Kept) -> Result<Option<Secret>, KeyringError> {
    match entry(kept)?.get_password() {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(keyring_core::Error::NoEntry) => Ok(None),
        Err(e) => Err(unusable(e)),
    }
}

/// Removes a secret. False where none was kept.
///
/// # Errors
/// [`KeyringError`].
pub fn forget(kept: &Kept) -> Result<bool, KeyringError> {
    let kept = kept.clone();
    within_patience(move || match entry(&kept)?.delete_credential() {
        Ok(()) => Ok(true),
        Err(keyring_core::Error::NoEntry) => Ok(false),
        Err(e) => Err(unusable(e)),
    })
}

/// Asks the keyring on a thread of its own: what hangs there is left behind.
fn within_patience<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, KeyringError> + Send + 'static,
) -> Result<T, KeyringError> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(ask()));
    receiver.recv_timeout(PATIENCE_WITH_A_PERSON).unwrap_or_else(|_| {
        Err(KeyringError(format!("it did not answer within {} s", PATIENCE_WITH_A_PERSON.as_secs())))
    })
}

/// The secret, while logging in: what cannot be had is only logged.
pub(super) async fn fetch_while_logging_in(kept: Kept) -> Option<Secret> {
    let what = kept.to_string();
    let fetching = tokio::task::spawn_blocking(move || read(&kept));
    match tokio::time::timeout(PATIENCE, fetching).await {
        Ok(Ok(Ok(secret))) => secret,
        Ok(Ok(Err(e))) => {
            tracing::info!("{what}: {e}");
            None
        }
        Ok(Err(_)) => None,
        Err(_) => {
            tracing::warn!("{what}: the system keyring does not answer; is it locked?");
            None
        }
    }
}

/// Keeps a secret, while logging in. That it could not be kept is said in the log; false then.
pub(super) async fn keep_while_logging_in(kept: Kept, secret: Secret) -> bool {
    let keeping = tokio::task::spawn_blocking(move || match keep(&kept, &secret) {
        Ok(()) => {
            tracing::info!("kept the {kept} in the system keyring");
            true
        }
        Err(e) => {
            tracing::warn!("did not keep the {kept}: {e}");
            false
        }
    });
    keeping.await.unwrap_or(false)
}

fn unusable(error: keyring_core::Error) -> KeyringError {
    KeyringError(error.to_string())
}

fn entry(kept: &Kept) -> Result<Entry, KeyringError> {
    os::keyring::entry(SERVICE, &kept.name()).map_err(KeyringError)
}
