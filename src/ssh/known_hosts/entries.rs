//! Reads the lines of a file and matches host names.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns};
use sha1::Sha1;

use crate::glob;

/// Largest known_hosts file that is read, in bytes; a large company's has a few MB. If a file
/// is larger, no host is trusted.
pub(super) const MAX_FILE: u64 = 32 << 20;

/// A line that begins with `@revoked`, and is not a known_hosts line.
pub(super) struct BrokenRevocation(pub(super) String);

/// Reads a file line by line.
///
/// # Errors
/// Why the file cannot be read to its end, as text that follows its name. A file that cannot be
/// opened counts as empty, as for ssh.
pub(super) fn for_each_entry(
    file: &Path,
    mut visit: impl FnMut(usize, Result<Entry, BrokenRevocation>),
) -> Result<(), String> {
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

/// Whether a line with invalid content may be about `name`, judging by its second field.
pub(super) fn may_speak_of(line: &str, name: &str) -> bool {
    let patterns = line.split_whitespace().nth(1).and_then(|patterns| patterns.parse().ok());
    patterns.is_none_or(|patterns| matches(&patterns, name))
}

/// Parses a line; None for an empty line or a comment.
pub(super) fn entry(line: &str) -> Option<Result<Entry, russh::keys::ssh_key::Error>> {
    // ssh reads lines as C strings, which end at a NUL.
    let line = line.split('\0').next().unwrap_or_default();
    // ssh splits the fields at any run of blanks and tabs.
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty() && !line.starts_with('#')).then(|| Entry::from_str(&line))
}

/// Whether the first field of a line matches `name` (lower case, with `[name]:port` for a port other than 22). A
/// matching negated pattern excludes the line, whatever else matches.
pub(super) fn matches(patterns: &HostPatterns, name: &str) -> bool {
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

/// The host's name in known_hosts: `host`, or `[host]:port` for a port other than 22.
pub(in crate::ssh) fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// Whether a line with this name would match this host only (`check_host_key` in OpenSSH's sshconnect.c: "Don't ever
/// try to write an invalid name to a known hosts file").
pub(in crate::ssh) fn is_plain_name(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@?*#[]|'\"\\,!".contains(c);
    !name.is_empty() && !name.contains(odd)
}
