//! Adds and removes lines of a file; the other lines stay unchanged.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use russh::keys::ssh_key::known_hosts::HostPatterns;
use sha1::Sha1;

use super::entries::{MAX_FILE, entry, is_plain_name};
use super::{Spoken, spoken};
use crate::os::private;

/// Removes the lines of `name` that have one of `keys` from `file`, and returns their number. The previous file is kept
/// as `FILE.old`, as with ssh.
///
/// # Errors
/// Any I/O error.
pub(in crate::ssh) fn remove(file: &Path, name: &str, keys: &[&PublicKey]) -> io::Result<usize> {
    // Writes through a symbolic link, so that the link stays.
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
    // Created with mode 0600.
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

/// Adds a line for `name` to `file`, which is created with mode 0600 (and its directory with 0700) if missing. One
/// write with O_APPEND, so that two processes never mix their lines.
///
/// # Errors
/// Any I/O error; InvalidInput if the name would be a pattern or several names.
pub(in crate::ssh) fn append(file: &Path, name: &str, hashed: bool, key: &PublicKey) -> io::Result<()> {
    let plain = match name.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
        Some((host, port)) => is_plain_name(host) && port.parse::<u16>().is_ok(),
        None => is_plain_name(name),
    };
    if !plain {
        let message = "known_hosts would read its name as a pattern or a list";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    write_line(file, name, hashed, key)
}

pub(super) fn write_line(file: &Path, name: &str, hashed: bool, key: &PublicKey) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        private::create_dirs(dir)?;
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
    let mut options = OpenOptions::new();
    let mut file = private::private(options.read(true).append(true).create(true)).open(file)?;
    // A last line without a newline must not run into the new one.
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

/// A salt of 20 bytes for a hashed name, as ssh uses. It need not be secret, only unique.
fn random_salt() -> io::Result<[u8; 20]> {
    let mut salt = [0; 20];
    getrandom::fill(&mut salt)?;
    Ok(salt)
}
