//! RevokedHostKeys files (ssh_config(5)): keys that are no host's any more.
//!
//! Plain lists of public keys are read. A key revocation list (ssh-keygen(1), "KEY REVOCATION LISTS") is not:
//! like a file that is missing or broken it makes every key untrustworthy, as with ssh, since what cannot be
//! read may be what revokes it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use russh::keys::PublicKey;
use russh::keys::ssh_key::public::KeyData;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 32 << 20;
/// How a key revocation list begins (PROTOCOL.krl of OpenSSH).
const KRL: &[u8] = b"SSHKRL\n\0";

/// Does the list in `file` hold one of `keys`: a host's, or that of the authority that signed it?
///
/// # Errors
/// Why the list cannot be read, in words that follow the file's name.
pub(super) fn lists(file: &Path, keys: &[&KeyData]) -> Result<bool, String> {
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|opened| opened.take(MAX_FILE + 1).read_to_end(&mut bytes));
    opened.map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("has more than {MAX_FILE} bytes"));
    }
    if bytes.starts_with(KRL) {
        return Err("is a key revocation list (KRL), which dtunnel does not read; a list of public keys is read".into());
    }
    let text = str::from_utf8(&bytes).map_err(|_| "is no list of public keys")?;
    let mut found = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key: PublicKey = line.parse().map_err(|e| format!("line {}: {e}", index + 1))?;
        found |= keys.contains(&key.key_data());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        let key: PublicKey = KEY.parse().expect("a key");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let lists = |contents: &str| {
            std::fs::write(file.path(), contents).expect("written");
            lists(file.path(), &[key.key_data()])
        };
        assert_eq!(lists(&format!("# stolen\n\n  {KEY} a comment\n")), Ok(true));
        assert_eq!(lists(&format!("{OTHER}\n")), Ok(false));
        assert_eq!(lists(""), Ok(false));
        assert!(lists(&format!("{KEY}\nnonsense\n")).is_err());
        assert!(lists("SSHKRL\n\0\0\0\0\u{1}").expect_err("unread").contains("KRL"));
        assert!(super::lists(Path::new("/nonexistent"), &[key.key_data()]).is_err());
    }
}
