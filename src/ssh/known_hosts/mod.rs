//! known_hosts files, as sshd(8) describes them under "SSH_KNOWN_HOSTS FILE FORMAT".

mod edit;
mod entries;

use std::path::PathBuf;

use russh::keys::ssh_key::known_hosts::{HostPatterns, Marker};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};

use super::identity::Identity;
use entries::{BrokenRevocation, for_each_entry, matches, may_speak_of};

pub(super) use edit::{append, remove};
pub(super) use entries::{is_plain_name, lookup_name};

/// A line that speaks of the host.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    pub(super) file: PathBuf,
    /// 1-based.
    pub(super) line: usize,
    pub(super) marker: Option<Marker>,
    pub(super) key: PublicKey,
}

/// The verdict of the known_hosts files on a key.
#[derive(Debug, Clone)]
pub(super) enum HostKeyVerdict {
    /// It is the host's key.
    Known,
    /// No key is known.
    Unknown,
    /// Other keys are known, of whatever type, and not this one.
    Changed(KnownKey),
}

/// The entries of known_hosts files for one name.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    keys: Vec<KnownKey>,
    /// Why parts of the files could not be read; such a part may revoke any key.
    unread: Option<String>,
}

impl KnownKeys {
    /// Reads all lines of `files` that speak of `name`. Files that do not exist and lines with invalid content are
    /// skipped, as ssh does, except those that may revoke a key ([`Self::unread`]).
    pub(super) fn of(name: &str, files: &[PathBuf]) -> Self {
        let (mut known, mut unread) = (Vec::new(), None);
        for file in files {
            let read = for_each_entry(file, |line, read| match read {
                Ok(entry) if matches(entry.host_patterns(), name) => known.push(KnownKey {
                    file: file.clone(),
                    line,
                    marker: entry.marker().copied(),
                    key: entry.public_key().clone(),
                }),
                Err(BrokenRevocation(text)) if may_speak_of(&text, name) => {
                    let place = format!("{}:{line}", file.display());
                    unread.get_or_insert(format!("{place} begins with @revoked and has no key that can be read"));
                }
                Ok(_) | Err(_) => {}
            });
            if let Err(reason) = read {
                unread.get_or_insert(format!("{} {reason}", file.display()));
            }
        }
        Self { keys: known, unread }
    }

    /// Why the files cannot tell whether a key of the name is revoked; None if they can.
    pub(super) fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// The types of the plain keys known, without those that are revoked.
    pub(super) fn key_types(&self) -> Vec<Algorithm> {
        self.keys.iter().filter(|known| known.marker.is_none()).map(|known| known.key.algorithm()).collect()
    }

    /// The certificate authorities of the name. (Whether one is revoked, [`Self::revoked`] says.)
    pub(super) fn authorities(&self) -> impl Iterator<Item = &PublicKey> {
        let marked = |known: &&KnownKey| known.marker == Some(Marker::CertAuthority);
        self.keys.iter().filter(marked).map(|known| &known.key)
    }

    /// The keys and authorities that identify a host of the name, without the revoked ones.
    pub(super) fn identities(&self) -> Vec<Identity> {
        let valid = self.keys.iter().filter(|known| self.revoked(&[known.key.key_data()]).is_none());
        let identity = |known: &KnownKey| match known.marker {
            None => Some(Identity::of_key(&known.key)),
            Some(Marker::CertAuthority) => Some(Identity::of_authority(&known.key)),
            Some(Marker::Revoked) => None,
        };
        let mut found: Vec<Identity> = Vec::new();
        for identity in valid.filter_map(identity) {
            if !found.contains(&identity) {
                found.push(identity);
            }
        }
        found
    }

    /// Is any key of the name revoked?
    pub(super) fn has_revoked(&self) -> bool {
        self.keys.iter().any(|known| known.marker == Some(Marker::Revoked))
    }

    /// The line that revokes one of `keys`: a host's, or that of the authority that signed it.
    pub(super) fn revoked(&self, keys: &[&KeyData]) -> Option<&KnownKey> {
        let mut marked = self.keys.iter().filter(|known| known.marker == Some(Marker::Revoked));
        marked.find(|known| keys.contains(&known.key.key_data()))
    }

    /// What is known of the plain key `key`, as `check_hostkeys_by_key_or_type` in OpenSSH's hostfile.c: a match wins
    /// over a mismatch, and if other keys of *any* type are known, this one counts as changed. Otherwise an attacker in
    /// between would only have to show a key of another type to be taken for a new host.
    pub(super) fn check(&self, key: &PublicKey) -> HostKeyVerdict {
        let plain = || self.keys.iter().filter(|known| known.marker.is_none());
        if plain().any(|known| known.key.key_data() == key.key_data()) {
            return HostKeyVerdict::Known;
        }
        let of_its_type = plain().find(|known| known.key.algorithm() == key.algorithm());
        match of_its_type.or_else(|| plain().next()) {
            Some(known) => HostKeyVerdict::Changed(known.clone()),
            None => HostKeyVerdict::Unknown,
        }
    }
}

/// The hosts that a line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// The host: under its name, or that and one more, as ssh writes them.
    Host,
    /// The host, in a pattern or a longer list, which somebody wrote by hand.
    Complex,
    /// Others only.
    Others,
}

/// A line of a file.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) known: KnownKey,
    pub(super) of: Spoken,
}

/// All lines of `files`, as seen from `name`. None of a file that is too large: no host is trusted then.
pub(super) fn all_lines(name: &str, files: &[PathBuf]) -> Vec<Line> {
    let mut lines = Vec::new();
    for file in files {
        let _ = for_each_entry(file, |line, read| {
            let Ok(entry) = read else { return };
            let (marker, key) = (entry.marker().copied(), entry.public_key().clone());
            let known = KnownKey { file: file.clone(), line, marker, key };
            lines.push(Line { known, of: spoken(entry.host_patterns(), name) });
        });
    }
    lines
}

/// See `hostspec_is_complex` in OpenSSH's clientloop.c.
fn spoken(patterns: &HostPatterns, name: &str) -> Spoken {
    match patterns {
        patterns if !matches(patterns, name) => Spoken::Others,
        HostPatterns::Patterns(names) if names.len() > 2 || names.iter().any(|name| name.contains(['*', '?', '!'])) => {
            Spoken::Complex
        }
        _ => Spoken::Host,
    }
}

/// Names other than `name` under which `key` is known, as `names (file:line)`; hashed names cannot be shown.
pub(super) fn other_names(key: &PublicKey, files: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for file in files {
        let _ = for_each_entry(file, |line, read| {
            let Ok(entry) = read else { return };
            if entry.marker().is_none() && entry.public_key().key_data() == key.key_data() {
                let name = match entry.host_patterns() {
                    HostPatterns::Patterns(patterns) => patterns.join(","),
                    HostPatterns::HashedName { .. } => "[hashed name]".into(),
                };
                names.push(format!("{name} ({}:{line})", file.display()));
            }
        });
    }
    names
}

/// Reads a file for a name, whatever is in it. For fuzzing.
#[cfg(fuzzing)]
pub fn read_known_hosts(file: &std::path::Path, name: &str) {
    let files = [file.to_path_buf()];
    let known = KnownKeys::of(name, &files);
    for found in &known.keys {
        let known_somehow = match found.marker {
            None => matches!(known.check(&found.key), HostKeyVerdict::Known),
            Some(Marker::Revoked) => known.revoked(&[found.key.key_data()]).is_some(),
            Some(Marker::CertAuthority) => known.authorities().any(|key| key == &found.key),
        };
        assert!(known_somehow, "a line that was found is known");
        let _ = other_names(&found.key, &files);
    }
    let _ = (known.key_types(), known.authorities().count(), known.has_revoked());
    // A line for the host names it, so it was found.
    let own = all_lines(name, &files).into_iter().filter(|line| line.of != Spoken::Others).count();
    assert_eq!(own, known.keys.len());
}

#[cfg(test)]
mod tests;
