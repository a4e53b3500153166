//! A tunnel's lock: an flock(2) held for the daemon's life, so that any end of the process releases it. The lock, not a
//! pid or socket file, decides which process runs the tunnel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// The held lock. Dropping it removes the file and releases the lock.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock; None if another process holds it.
    ///
    /// # Errors
    /// From the system.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
            // The previous holder may have removed the file between open and flock.
            let ours = file.metadata()?;
            if fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
                // The process id is for the user: other processes cannot see who holds the lock.
                let _ = file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id()));
                return Ok(Some(Self { path: path.into(), _file: file }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while locked, so that no other process has this file locked.
        let _ = fs::remove_file(&self.path);
    }
}
