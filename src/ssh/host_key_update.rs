//! UpdateHostKeys (ssh_config(5)): which of a host's announced keys are added to known_hosts, and which old ones are
//! removed. Follows `client_input_hostkeys` in OpenSSH's clientloop.c, but is stricter about removals: then every
//! announced key has to be proved, and the key used in this connection must be among them.

use russh::keys::ssh_key::known_hosts::Marker;
use russh::keys::{Algorithm, PublicKey};

use super::confirm::confirm;
use super::host_key::{Verifier, fingerprint_and_type};
use super::identity::{Identity, TrustedBy};
use super::known_hosts::{self, KnownKey, Spoken};
use super::prompter::{Prompter, Question};
use crate::config::{Algorithms, UpdateHostKeys};

/// Limit of announced keys; hosts have a handful.
const MOST_KEYS: usize = 16;

/// A change of known_hosts.
#[derive(Debug)]
pub(super) struct Update {
    /// Announced keys that are not known yet.
    pub(super) new: Vec<PublicKey>,
    /// Known keys that were not announced.
    pub(super) old: Vec<KnownKey>,
    /// Keys that the host has to prove it holds.
    pub(super) to_prove: Vec<PublicKey>,
}

impl Update {
    /// The update for the announced keys; None if nothing changes or nothing may change.
    pub(super) fn of(verifier: &Verifier, announced: Vec<PublicKey>) -> Option<Self> {
        let ssh = &verifier.target.ssh;
        let trust = verifier.trust()?;
        let may_teach = matches!(trust.by, TrustedBy::UsersFile | TrustedBy::Person);
        if verifier.looks_only
            || ssh.update_host_keys == UpdateHostKeys::No
            || !may_teach
            || announced.len() > MOST_KEYS
        {
            return None;
        }
        let announced: Vec<PublicKey> = announced
            .into_iter()
            .filter(|key| is_wanted(key, &ssh.host_key_algorithms) && verifier.is_good(key))
            .collect();
        let has = |key: &PublicKey| announced.iter().any(|announced| announced.key_data() == key.key_data());
        let lines = known_hosts::all_lines(&verifier.name, &ssh.user_known_hosts);
        let (of_it, of_others): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.of != Spoken::Others);
        let left = |why: &str| {
            tracing::info!("{} announced its host keys; known_hosts is unchanged: {why}", verifier.name);
            None
        };
        let known = |key: &PublicKey| of_it.iter().any(|line| line.known.key.key_data() == key.key_data());
        let new: Vec<PublicKey> = announced.iter().filter(|key| !known(key)).cloned().collect();
        let old: Vec<KnownKey> =
            of_it.iter().filter(|line| !has(&line.known.key)).map(|line| line.known.clone()).collect();
        if new.is_empty() && old.is_empty() {
            return None;
        }
        if of_it.iter().any(|line| line.of == Spoken::Complex || line.known.marker.is_some()) {
            return left("a line for it has a marker, a pattern or several names");
        }
        if of_others.iter().any(|line| has(&line.known.key)) {
            return left("one of the keys is known under another name, too");
        }
        let is_old = |key: &PublicKey| old.iter().any(|known| known.key.key_data() == key.key_data());
        if of_others.iter().any(|line| line.known.marker != Some(Marker::Revoked) && is_old(&line.known.key)) {
            return left("a key that it no longer has is known under another name, too");
        }
        if !old.is_empty() && !announced.iter().any(|key| Identity::of_key(key) == trust.key) {
            return left("the key that it has shown is not among them");
        }
        let to_prove = if old.is_empty() { new.clone() } else { announced };
        Some(Self { new, old, to_prove })
    }

    /// Asks the user, under `UpdateHostKeys ask`. False without a yes.
    pub(super) async fn is_agreed_to(&self, verifier: &Verifier, prompter: &Prompter) -> bool {
        let question = Question::UpdatedHostKeys {
            host: verifier.name.clone(),
            new: self.new.iter().map(fingerprint_and_type).collect(),
            old: self.old.iter().map(|known| fingerprint_and_type(&known.key)).collect(),
        };
        let read = |answer: &str| match answer.to_ascii_lowercase().as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        confirm(prompter, &question, read).await == Some(true)
    }

    /// Writes the update to known_hosts, after all keys were proved. A failure is only logged.
    pub(super) fn make(&self, verifier: &Verifier) {
        self.new.iter().for_each(|key| verifier.remember(key));
        let mut files: Vec<_> = self.old.iter().map(|known| &known.file).collect();
        files.dedup();
        let old: Vec<&PublicKey> = self.old.iter().map(|known| &known.key).collect();
        for file in files {
            match known_hosts::remove(file, &verifier.name, &old) {
                Ok(removed) => tracing::info!(
                    "removed {removed} keys that {} no longer has from {} (before: {0}.old)",
                    verifier.name,
                    file.display()
                ),
                Err(e) => tracing::warn!("could not remove old keys from {}: {e}", file.display()),
            }
        }
    }
}

/// Whether HostKeyAlgorithms lists the key's type.
fn is_wanted(key: &PublicKey, algorithms: &Algorithms) -> bool {
    let Algorithms::Exactly(names) = algorithms else { return true };
    let has = |name: &str| names.iter().any(|listed| listed == name);
    match key.algorithm() {
        Algorithm::Rsa { .. } => has("rsa-sha2-256") || has("rsa-sha2-512"),
        other => has(other.as_ref()),
    }
}
