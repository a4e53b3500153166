//! Which logins run commands as they are asked for.
//!
//! A login may have a command forced on it (`command=` in authorized_keys, ForceCommand in sshd_config), which would run in
//! place of any other; a client cannot tell beforehand. What the probe finds out is therefore noted, one small file a
//! login, in the state directory. It never expires: a login that begins to run something else is forgotten when dtunnel
//! next runs a command there.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::logins_dir;
use crate::ssh::Connection;

/// Do commands run as asked with this login, as far as is known?
pub fn run_as_asked(connection: &Connection) -> bool {
    logins_dir().is_ok_and(|dir| is_noted(&dir, connection.account()))
}

/// Notes whether they do. If it cannot be noted, the login counts as unknown.
pub fn note(connection: &Connection, as_asked: bool) {
    let Ok(dir) = logins_dir() else { return };
    let noted = if as_asked { add(&dir, connection.account()) } else { remove(&dir, connection.account()) };
    if let Err(e) = noted {
        tracing::info!("cannot note in {} how commands run on the host: {e}", dir.display());
    }
}

/// The file's name is a digest: the account's name may have any characters.
fn file(dir: &Path, account: &str) -> PathBuf {
    let digest: String = Sha256::digest(account).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    dir.join(digest)
}

fn is_noted(dir: &Path, account: &str) -> bool {
    fs::read_to_string(file(dir, account)).is_ok_and(|text| text.trim_end() == account)
}

fn add(dir: &Path, account: &str) -> io::Result<()> {
    if is_noted(dir, account) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    fs::write(file(dir, account), format!("{account}\n"))
}

fn remove(dir: &Path, account: &str) -> io::Result<()> {
    match fs::remove_file(file(dir, account)) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_noted_and_forgotten_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("state/logins");
        let (one, other) =
            ("me@h:22, host key SHA256:a, login by SHA256:b", "me@h:22, host key SHA256:a, login by SHA256:c");
        assert!(!is_noted(&dir, one));
        remove(&dir, one).expect("nothing to remove");
        for _ in 0..2 {
            add(&dir, one).expect("noted");
        }
        assert!(is_noted(&dir, one) && !is_noted(&dir, other));
        remove(&dir, other).expect("nothing to remove");
        assert!(is_noted(&dir, one));
        remove(&dir, one).expect("removed");
        assert!(!is_noted(&dir, one));
    }
}
