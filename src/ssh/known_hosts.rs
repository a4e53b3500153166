//! known_hosts files, as sshd(8) describes them under "SSH_KNOWN_HOSTS FILE FORMAT".

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

use super::identity::Identity;
use crate::glob;

/// Largest known_hosts file that is read, in bytes; a large company's has a few MB. With a larger one no host is trusted.
const MAX_FILE: u64 = 32 << 20;

/// A line that speaks of the host.
#[derive(Debug, Clone)]
pub(super) struct KnownKey {
    pub(super) file: PathBuf,
    /// 1-based.
    pub(super) line: usize,
    pub(super) marker: Option<Marker>,
    pub(super) key: PublicKey,
}

/// What the files say of a key.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// It is the host's key.
    Known,
    /// No key is known.
    Unknown,
    /// Other keys are known, of whatever type, and not this one.
    Changed(KnownKey),
}

/// What known_hosts files say of one name.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    keys: Vec<KnownKey>,
    /// What could not be read of them, and may revoke any key.
    unread: Option<String>,
}

impl KnownKeys {
    /// Reads all lines of `files` that speak of `name`. Files that do not exist and lines that
    /// cannot be read are passed over, as ssh does; those that may revoke a key are not ([`Self::unread`]).
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

    /// Why the files cannot say whether a key of the name is revoked, where they cannot.
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

    /// What a host of the name is recognised by, without what is revoked.
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

    /// What is known of the plain key `key`, as `check_hostkeys_by_key_or_type` in OpenSSH's hostfile.c: a
    /// match wins over a mismatch, and a known key of *any* type that is not this one makes it a changed
    /// key. Otherwise somebody in between would only have to show a key of another type to be taken for a
    /// new host.
    pub(super) fn check(&self, key: &PublicKey) -> Verdict {
        let plain = || self.keys.iter().filter(|known| known.marker.is_none());
        if plain().any(|known| known.key.key_data() == key.key_data()) {
            return Verdict::Known;
        }
        let of_its_type = plain().find(|known| known.key.algorithm() == key.algorithm());
        match of_its_type.or_else(|| plain().next()) {
            Some(known) => Verdict::Changed(known.clone()),
            None => Verdict::Unknown,
        }
    }
}

/// Whom a line speaks of.
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

/// All lines of `files`, as seen from `name`. Of a file that is too large none: with it, no host is trusted.
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

/// Takes the lines of `name` that have one of `keys` out of `file`; how many. The file of before is `FILE.old`, as with
/// ssh.
///
/// # Errors
/// What the system said.
pub(super) fn remove(file: &Path, name: &str, keys: &[&PublicKey]) -> io::Result<usize> {
    // A link to a file elsewhere stays one.
    let file = &file.canonicalize()?;
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    let goes = |line: &[u8]| {
        entry(&String::from_utf8_lossy(line)).and_then(Result::ok).is_some_and(|entry| {
            let is_it = keys.iter().any(|key| key.key_data() == entry.public_key().key_data());
            is_it && entry.marker().is_none() && spoken(entry.host_patterns(), name) == Spoken::Host
        })
    };
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let kept: Vec<&[u8]> = lines.iter().copied().filter(|line| !goes(line)).collect();
    let removed = lines.len() - kept.len();
    if removed == 0 {
        return Ok(0);
    }
    let dir = file.parent().unwrap_or(Path::new("/"));
    // Made with mode 0600.
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    new.write_all(&kept.concat())?;
    new.as_file().sync_all()?;
    let mut old = file.as_os_str().to_owned();
    old.push(".old");
    match std::fs::remove_file(&old) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => std::fs::hard_link(file, &old)?,
    }
    new.persist(file)?;
    Ok(removed)
}

/// Names other than `name` under which `key` is known, as `names (file:line)`; hashed ones cannot
/// be named.
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
pub fn read_known_hosts(file: &Path, name: &str) {
    let files = [file.to_path_buf()];
    let known = KnownKeys::of(name, &files);
    for found in &known.keys {
        let known_somehow = match found.marker {
            None => matches!(known.check(&found.key), Verdict::Known),
            Some(Marker::Revoked) => known.revoked(&[found.key.key_data()]).is_some(),
            Some(Marker::CertAuthority) => known.authorities().any(|key| key == &found.key),
        };
        assert!(known_somehow, "a line that was found is known");
        let _ = other_names(&found.key, &files);
    }
    let _ = (known.key_types(), known.authorities().count(), known.has_revoked());
    // A line that is the host's speaks of its name, so that it was found.
    let own = all_lines(name, &files).into_iter().filter(|line| line.of != Spoken::Others).count();
    assert_eq!(own, known.keys.len());
}

/// A line that begins with `@revoked`, and is not a known_hosts line.
struct BrokenRevocation(String);

/// Reads a file line by line.
///
/// # Errors
/// Why it cannot be read whole, in words that follow its name. One that cannot be opened has nothing in it, as for ssh.
fn for_each_entry(file: &Path, mut visit: impl FnMut(usize, Result<Entry, BrokenRevocation>)) -> Result<(), String> {
    let Ok(opened) = File::open(file) else { return Ok(()) };
    let mut bytes = Vec::new();
    match opened.take(MAX_FILE + 1).read_to_end(&mut bytes) {
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Ok(()),
        Err(e) => return Err(format!("cannot be read: {e}")),
        Ok(_) if bytes.len() as u64 > MAX_FILE => return Err(format!("has more than {MAX_FILE} bytes")),
        Ok(_) => {}
    }
    for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        match entry(line) {
            None => {}
            Some(Ok(entry)) => visit(index + 1, Ok(entry)),
            Some(Err(_)) => {
                tracing::debug!("{}:{}: not a known_hosts line", file.display(), index + 1);
                if line.trim_start().starts_with("@revoked") {
                    visit(index + 1, Err(BrokenRevocation(line.into())));
                }
            }
        }
    }
    Ok(())
}

/// Can a line that cannot be read be meant for `name`, by its second field?
fn may_speak_of(line: &str, name: &str) -> bool {
    let patterns = line.split_whitespace().nth(1).and_then(|patterns| patterns.parse().ok());
    patterns.is_none_or(|patterns| matches(&patterns, name))
}

/// What a line says; None where it is empty or a comment.
fn entry(line: &str) -> Option<Result<Entry, russh::keys::ssh_key::Error>> {
    // For ssh, a string of C, a NUL is its end.
    let line = line.split('\0').next().unwrap_or_default();
    // ssh splits the fields at any run of blanks and tabs.
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty() && !line.starts_with('#')).then(|| Entry::from_str(&line))
}

/// Does a line's first field speak of `name`? (Lower case, with `[name]:port` where the port is not
/// 22.) A negated pattern that matches rules the line out, whatever else matches.
fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mac| mac.chain_update(name).verify_slice(hash).is_ok())
        }
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                match pattern.strip_prefix('!') {
                    Some(negated) if glob::matches(&negated.to_ascii_lowercase(), name) => return false,
                    Some(_) => {}
                    None => found |= glob::matches(&pattern.to_ascii_lowercase(), name),
                }
            }
            found
        }
    }
}

/// The name a host is looked up and written under: `host`, or `[host]:port`.
pub(super) fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// May a line speak of a host of this name, and of no other? (`check_host_key` in OpenSSH's sshconnect.c:
/// "Don't ever try to write an invalid name to a known hosts file".)
pub(super) fn is_plain_name(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@?*#[]|'\"\\,!".contains(c);
    !name.is_empty() && !name.contains(odd)
}

/// Adds a line for `name` to `file`, which is created with mode 0600 (and its directory with 0700)
/// if it is missing. One write with O_APPEND, so that two processes never mix their lines.
///
/// # Errors
/// What the system said; InvalidInput where a line could not speak of `name` alone.
pub(super) fn append(file: &Path, name: &str, hashed: bool, key: &PublicKey) -> io::Result<()> {
    let plain = match name.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
        Some((host, port)) => is_plain_name(host) && port.parse::<u16>().is_ok(),
        None => is_plain_name(name),
    };
    if !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "its name would have a meaning of its own there"));
    }
    write_line(file, name, hashed, key)
}

fn write_line(file: &Path, name: &str, hashed: bool, key: &PublicKey) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let patterns = if hashed {
        let salt: [u8; 20] = random_salt()?;
        let mac = Hmac::<Sha1>::new_from_slice(&salt).map_err(io::Error::other)?;
        HostPatterns::HashedName { salt: salt.to_vec(), hash: mac.chain_update(name).finalize().into_bytes().into() }
    } else {
        HostPatterns::Patterns(vec![name.into()])
    };
    let mut key = key.clone();
    key.set_comment("");
    let key = key.to_openssh().map_err(io::Error::other)?;
    let mut line = format!("{} {}\n", patterns.to_string(), key.trim_end());
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    // A last line without its newline must not swallow ours.
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.insert(0, '\n');
        }
    }
    file.write_all(line.as_bytes())
}

/// 20 bytes as ssh uses for a hashed name's salt. Not a secret, only to be unlike every other.
fn random_salt() -> io::Result<[u8; 20]> {
    let mut salt = [0; 20];
    getrandom::fill(&mut salt)?;
    Ok(salt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn key(text: &str) -> PublicKey {
        text.parse().expect("a key")
    }

    fn check(contents: &str, name: &str, with: &str) -> Verdict {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), contents).expect("written");
        KnownKeys::of(name, &[file.path().into()]).check(&key(with))
    }

    #[test]
    fn a_key_is_known_unknown_changed_or_revoked() {
        assert!(matches!(check(&format!("host {KEY}\n"), "host", KEY), Verdict::Known));
        assert!(matches!(check(&format!("other {KEY}\n"), "host", KEY), Verdict::Unknown));
        let Verdict::Changed(known) = check(&format!("# c\nhost {OTHER}\n"), "host", KEY) else {
            panic!("not changed")
        };
        assert_eq!(known.line, 2);
        let both = format!("host {OTHER}\nhost {KEY}\n");
        assert!(matches!(check(&both, "host", KEY), Verdict::Known), "a second key of the type is fine");
        let of_another_type = format!("host {ECDSA}\n");
        assert!(matches!(check(&of_another_type, "host", KEY), Verdict::Changed(KnownKey { line: 1, .. })));
        let marked = format!("@cert-authority * {OTHER}\n@revoked * {ECDSA}\n");
        assert!(matches!(check(&marked, "host", KEY), Verdict::Unknown), "only plain keys are the host's");
    }

    #[test]
    fn a_key_is_revoked_by_itself_or_with_its_authority() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("host {KEY}\n@revoked * {KEY}\n")).expect("written");
        let known = KnownKeys::of("host", &[file.path().into()]);
        let (bad, good) = (key(KEY), key(OTHER));
        assert_eq!(known.revoked(&[bad.key_data()]).map(|known| known.line), Some(2));
        assert_eq!(known.revoked(&[good.key_data(), bad.key_data()]).map(|known| known.line), Some(2));
        assert!(known.revoked(&[good.key_data()]).is_none());
    }

    #[test]
    fn what_may_revoke_a_key_is_read_or_nothing_is_trusted() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let known = |text: &str| {
            std::fs::write(file.path(), text).expect("written");
            KnownKeys::of("host", &[file.path().into()])
        };
        let bad = key(KEY);
        // A NUL ends a line for ssh.
        for text in [format!("@revoked * {KEY}\0\n"), format!("@revoked * {KEY}\0 \0rest\n")] {
            assert!(known(&text).revoked(&[bad.key_data()]).is_some(), "{text:?}");
        }
        let half = &KEY[..KEY.len() - 9];
        for text in [
            "@revoked",
            "@revoked\t*",
            "@revoked * ssh-ed25519",
            &format!(" @revoked h?st {half}"),
            "@revoked |1|x y z",
        ] {
            let known = known(&format!("host {KEY}\n{text}\n"));
            let unread = known.unread().unwrap_or_else(|| panic!("{text:?}"));
            assert!(unread.contains(":2 begins with @revoked"), "{unread}");
        }
        // Of a type that no host is asked for: it is read, and revokes nothing of ours.
        let dsa = "ssh-dss AAAAB3NzaC1kc3MAAACBALy1DE9jEY+YjlFmLYzQH6DfXE1J0fGHjW6YKVpKLJ/0kvaAoySLnorv7AOIlSpAwshUL2Gmbeud6t8SIbPWy7TBqAHMjd/CGKxPa4bCG03vDhkswNW4iGurQ4EeCHJdM0MiZQO36rmlWeqhxDJ5IaR7yn6DtTMetIyKpCQvZ0D1AAAAFQDGNf6Tj6fW+EGDeJ8bKs6IAhm/KQAAAIBMK37TxrYrdQ3WP39L1snSY+kJfSJ6kHwwTJhvDXbWvo7n0rYAQix7/uwxoKsaMcfETkAaQ7JFXm3aiUhG2kb/JKmMGQeVR+ptR7dPG+imHI0SymNewljmLdvrrSQWgT/GXTqTEPS3aZKUuYI6vIGsTdLeCRtpYZnkMFwIplUx+gAAAIEAoz222gr010xkQbpT3fZp0da3zw+TGZ0LPMT4hSozEIKJ4prXldR0TW0gB/PGgw9NwDutvAAHcHbKUhXJSbj6fl2jCuMRNUcjgDiXzrTzQhbLvLe3yaXxo6C1S/q9cpvvzfqHEI8qkR4V9YGiddVjp6pOV3IPjYmQDshXj+kHfDA=";
        for text in [
            format!("@revoked * {dsa}"),
            format!("@revoked other {half}"),
            format!("@revoked *,!host {half}"),
            "nonsense".into(),
        ] {
            assert_eq!(known(&text).unread(), None, "{text:?}");
        }
        file.as_file().set_len(MAX_FILE + 1).expect("as large");
        let known = KnownKeys::of("host", &[file.path().into()]);
        assert!(known.unread().is_some_and(|reason| reason.ends_with("has more than 33554432 bytes")));
        assert_eq!(KnownKeys::of("host", &["/nonexistent".into(), "/".into()]).unread(), None, "as for ssh");
    }

    #[test]
    fn a_name_with_a_meaning_of_its_own_is_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        for name in ["*", "ho?t", "a,b", "!a", "a b", "a\nb", "@revoked", "|1|x", "", "[*]:22", "[a]:b"] {
            assert!(append(&file, name, false, &key(KEY)).is_err(), "{name:?}");
        }
        for name in ["host", "[host]:22", "fe80::1%eth0", "[fe80::1]:2222"] {
            append(&file, name, false, &key(KEY)).expect("written");
        }
    }

    #[test]
    fn patterns_are_matched_as_ssh_does() {
        let matches = |patterns: &str, name: &str| super::matches(&patterns.parse().expect("patterns"), name);
        assert!(matches("*.example.com,!bad.example.com", "a.example.com"));
        assert!(!matches("*.example.com,!bad.example.com", "bad.example.com"));
        assert!(matches("[h?st]:2222", "[host]:2222"));
        assert!(!matches("host", "[host]:2222"));
        assert!(matches("HOST", "host"));
        assert!(!matches("ho*t", "hose"));
        assert!(matches("*a*b*", "xxaxxbxx"));
    }

    #[test]
    fn a_name_written_plain_or_hashed_is_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        for hashed in [false, true] {
            let file = dir.path().join(format!("new/{hashed}"));
            append(&file, "[host]:2222", hashed, &key(KEY)).expect("written");
            std::fs::write(&file, std::fs::read_to_string(&file).expect("read").trim_end()).expect("written");
            append(&file, "second", hashed, &key(OTHER)).expect("written after a line without its newline");
            let known = |name: &str, k: &str| KnownKeys::of(name, std::slice::from_ref(&file)).check(&key(k));
            assert!(matches!(known("[host]:2222", KEY), Verdict::Known));
            assert!(matches!(known("second", OTHER), Verdict::Known));
            assert!(matches!(known("host", KEY), Verdict::Unknown));
            assert_eq!(std::fs::read_to_string(&file).expect("read").contains("second"), !hashed);
        }
    }

    #[test]
    fn lines_are_taken_out_and_the_others_stay_as_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("known_hosts"), dir.path().join("link"));
        let before = [
            b"# \xff\nhost   ".to_vec(),
            format!("{KEY} mine\nhost {OTHER}\n*,host {KEY}\n@revoked host {KEY}\nelsewhere {KEY}\r\n").into_bytes(),
            format!("broken\nhost,10.0.0.1 {KEY}").into_bytes(),
        ]
        .concat();
        std::fs::write(&file, &before).expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert_eq!(remove(&link, "nobody", &[&key(KEY)]).expect("read"), 0);
        assert!(!dir.path().join("known_hosts.old").exists());
        assert_eq!(remove(&link, "host", &[&key(KEY), &key(ECDSA)]).expect("removed"), 2);
        let after = [
            b"# \xff\n".to_vec(),
            format!("host {OTHER}\n*,host {KEY}\n@revoked host {KEY}\nelsewhere {KEY}\r\nbroken\n").into_bytes(),
        ]
        .concat();
        assert_eq!(std::fs::read(&file).expect("read"), after);
        assert_eq!(std::fs::read(dir.path().join("known_hosts.old")).expect("kept"), before);
        assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink(), "a link stays one");
    }

    fn names() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "host",
            "HOST",
            "hos",
            "[host]:2222",
            "[host]:22",
            "a.example.com",
            "b.example.com",
            "10.0.0.1",
        ])
        .prop_map(Into::into)
    }

    /// A first field: names, patterns and negations.
    fn field() -> impl Strategy<Value = String> {
        let pattern = prop_oneof![
            names(),
            prop::sample::select(vec![
                "*",
                "h*t",
                "h?st",
                "*.example.com",
                "a.*",
                "[*]:2222",
                "10.0.0.?",
                "**t",
                "*?*"
            ])
            .prop_map(String::from),
        ];
        let item = (prop::bool::weighted(0.2), pattern).prop_map(|(not, p)| if not { format!("!{p}") } else { p });
        prop::collection::vec(item, 1..4).prop_map(|items| items.join(","))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        /// Against ssh-keygen(1): which lines speak of a name.
        #[test]
        fn the_lines_found_are_those_that_ssh_keygen_finds(
            lines in prop::collection::vec((prop::sample::select(vec!["", "@cert-authority ", "@revoked ", "# ", "\t"]), field(), any::<bool>()), 0..8),
            name in names(),
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("known_hosts");
            for (marker, field, hashed) in &lines {
                if *hashed {
                    write_line(&file, &field.to_ascii_lowercase(), true, &key(KEY)).expect("written");
                } else {
                    let mut file = OpenOptions::new().append(true).create(true).open(&file).expect("opened");
                    writeln!(file, "{marker}{field}  {KEY} comment").expect("written");
                }
            }
            let _ = OpenOptions::new().append(true).create(true).open(&file).expect("opened");
            let name = name.to_ascii_lowercase();
            let output = std::process::Command::new("ssh-keygen").arg("-F").arg(&name).arg("-f").arg(&file).output();
            let output = String::from_utf8(output.expect("ssh-keygen").stdout).expect("text");
            let found: Vec<usize> = output
                .lines()
                .filter_map(|line| line.strip_prefix("# Host ")?.split_once(": line ")?.1.split(' ').next()?.parse().ok())
                .collect();
            let ours: Vec<usize> = KnownKeys::of(&name, &[file]).keys.iter().map(|known| known.line).collect();
            prop_assert_eq!(ours, found, "{}", output);
        }
    }
}
