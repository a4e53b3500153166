//! RevokedHostKeys files (ssh_config(5)): keys that no host may use any more.
//!
//! Reads plain lists of public keys and key revocation lists (ssh-keygen(1), "KEY REVOCATION LISTS"). A missing or
//! broken file makes every key untrusted, as with ssh, since the unreadable part may revoke it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};

use super::krl;

/// Size limit of a file, in bytes.
const MAX_FILE: u64 = 32 << 20;

/// Whether the list in `file` holds a host's key, its certificate, or the key of the authority that signed that.
///
/// # Errors
/// Why the list cannot be read, as text that follows the file's name.
pub(super) fn lists(file: &Path, key: &KeyData, certificate: Option<&Certificate>) -> Result<bool, String> {
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|opened| opened.take(MAX_FILE + 1).read_to_end(&mut bytes));
    opened.map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("has more than {MAX_FILE} bytes"));
    }
    read(&bytes, key, certificate)
}

fn read(bytes: &[u8], key: &KeyData, certificate: Option<&Certificate>) -> Result<bool, String> {
    if bytes.starts_with(krl::MAGIC) {
        return krl::revokes(bytes, key, certificate);
    }
    let text = str::from_utf8(bytes).map_err(|_| "is no list of public keys")?;
    let mut found = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let listed: PublicKey = line.parse().map_err(|e| format!("line {}: {e}", index + 1))?;
        let listed = listed.key_data();
        found |= listed == key || certificate.is_some_and(|certificate| listed == certificate.signature_key());
    }
    Ok(found)
}

/// Looks for a host's key in a list with any content. For fuzzing.
#[cfg(fuzzing)]
pub fn read_revoked_keys(bytes: &[u8]) {
    const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIDjO3YXqF29AH1OVyXPT0P/mgQ1bkaYpQ+47KlY703isAAAAIE9wmlJDkGlFA3NdH+sLSuipZGJwj9YLiYIMmk3KekeuAAAAAAAAAEYAAAACAAAAA29uZQAAAAgAAAAEaG9zdAAAAAAAAAAA//////////8AAAAAAAAAAAAAAAAAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIBYbwYaYpPsfGr7xEjr32GXfREN96FusK6pTxr7b0wk5AAAAUwAAAAtzc2gtZWQyNTUxOQAAAEDXrrnkb8wn1RT4SsgodA+t7sW0PQTr4obb49k2EyYb0pSg6o0/PaYzzj8+GrXce+/jxY/5D7smN+LZTJv/+V0H";
    let certificate = Certificate::from_openssh(CERTIFICATE).expect("a certificate");
    let alone = read(bytes, certificate.public_key(), None);
    let certified = read(bytes, certificate.public_key(), Some(&certificate));
    assert_eq!(alone.is_err(), certified.is_err(), "a list is good or bad, whoever looks");
    assert!(alone != Ok(true) || certified == Ok(true), "a certificate does not make a revoked key good");
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
            lists(file.path(), key.key_data(), None)
        };
        assert_eq!(lists(&format!("# stolen\n\n  {KEY} a comment\n")), Ok(true));
        assert_eq!(lists(&format!("{OTHER}\n")), Ok(false));
        assert_eq!(lists(""), Ok(false));
        assert!(lists(&format!("{KEY}\nnonsense\n")).is_err());
        assert!(lists("SSHKRL\n\0\0\0\0\u{1}").expect_err("unread").contains("cut short"));
        assert!(super::lists(Path::new("/nonexistent"), key.key_data(), None).is_err());
    }
}
