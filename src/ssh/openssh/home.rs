//! The private directory of a master: its control socket, and where it asks its questions.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::config::prepare_runtime_dir;
use crate::os::places::MAX_SOCKET_PATH;
use crate::os::programs::own_program;
use crate::os::{mux, private};
use crate::ssh::error::Error;
use crate::sync::lock;

const PREFIX: &str = "ssh-";
/// In the directory for temporary files, where the runtime directory's path is too long.
const PREFIX_ELSEWHERE: &str = "dtunnel-ssh-";
/// The name by which ssh runs this program to have a question answered, see `askpass`.
pub(super) const ASKPASS: &str = "dtunnel-askpass";
/// The socket where that program finds the daemon, beside it.
pub(super) const QUESTIONS: &str = "ask";
const LOCK: &str = "lock";

/// The directories of this process.
static HOMES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes what is left of the directories of this process, which ends. (Its masters end with it.)
pub(in crate::ssh) fn remove_homes() {
    for dir in std::mem::take(&mut *lock(&HOMES)) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// The directory, which goes with this.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    /// Locked for as long as its process lives. None at the end: Windows removes no open file.
    lock: Option<File>,
}

impl Home {
    /// Makes one in the runtime directory, and removes those of processes that were killed.
    pub(super) fn new() -> Result<Self, Error> {
        let runtime = prepare_runtime_dir()?;
        let made = if fits(&runtime) {
            sweep(&runtime, PREFIX);
            Self::within(&runtime, PREFIX)
        } else {
            let shared = std::env::temp_dir();
            sweep(&shared, PREFIX_ELSEWHERE);
            Self::within(&shared, PREFIX_ELSEWHERE)
        };
        made.map_err(|source| Error::OpenSshStart { source })
    }

    fn within(base: &Path, prefix: &str) -> io::Result<Self> {
        let random = fastrand::u64(..);
        // Made, and not found: nobody else has made it.
        let dir = base.join(format!("{prefix}{random:016x}"));
        private::create_dir(&dir)?;
        lock(&HOMES).push(dir.clone());
        let file = File::create_new(dir.join(LOCK))?;
        file.lock()?;
        let home = Self { dir, lock: Some(file) };
        mux::link(&own_program()?, &home.askpass())?;
        Ok(home)
    }

    /// The master's control socket.
    pub(super) fn control(&self) -> PathBuf {
        self.dir.join("c")
    }

    /// Where a master listens, the one with this number.
    pub(super) fn listens(&self, number: usize) -> PathBuf {
        self.dir.join(format!("l{number}"))
    }

    /// The program that ssh runs with a question.
    pub(super) fn askpass(&self) -> PathBuf {
        self.dir.join(ASKPASS)
    }

    /// Where that program finds the daemon.
    pub(super) fn questions(&self) -> PathBuf {
        self.dir.join(QUESTIONS)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.lock.take());
        let _ = fs::remove_dir_all(&self.dir);
        lock(&HOMES).retain(|dir| *dir != self.dir);
    }
}

/// Does the path of a control socket below `base` fit into `sun_path`? While ssh makes it, it is 17 bytes longer.
fn fits(base: &Path) -> bool {
    let control = base.as_os_str().len() + "/".len() + PREFIX.len() + 16 + "/c".len();
    control + 17 <= MAX_SOCKET_PATH
}

/// Removes the directories of ours whose process has ended without removing them.
fn sweep(base: &Path, prefix: &str) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let dir = entry.path();
        let is_ours = fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir() && private::is_mine(&meta));
        if !is_ours || !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // One that is just being made has no lock yet.
        let Ok(lock) = File::open(dir.join(LOCK)) else { continue };
        if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_has_left_is_swept_and_no_other() {
        let runtime = tempfile::tempdir().expect("a directory");
        let kept = Home::within(runtime.path(), PREFIX).expect("made");
        let mut left = Home::within(runtime.path(), PREFIX).expect("made");
        let dir = left.dir.clone();
        // As the kernel does with what a killed process has locked.
        drop(left.lock.take());
        std::mem::forget(left);
        sweep(runtime.path(), PREFIX);
        assert!(kept.dir.exists() && !dir.exists());
        assert!(fits(Path::new("/run/user/1000/dtunnel")) && !fits(Path::new(&"x".repeat(70))));
        let dir = kept.dir.clone();
        drop(kept);
        assert!(!dir.exists());
    }
}
