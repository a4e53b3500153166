//! A tunnel's lock: a file that is opened for one process alone, and that the system deletes with that process. The lock
//! decides which process runs the tunnel.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;

/// The held lock. Dropping it removes the file and releases the lock.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; None if another process holds it.
    ///
    /// # Errors
    /// From the system.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        // winnt.h, fileapi.h, winerror.h
        const GENERIC_READ_WRITE_DELETE: u32 = 0x8000_0000 | 0x4000_0000 | 0x0001_0000;
        const SHARE_READ_DELETE: u32 = 1 | 4;
        const DELETE_ON_CLOSE: u32 = 0x0400_0000;
        /// ERROR_SHARING_VIOLATION; ERROR_ACCESS_DENIED is a file that is just being deleted.
        const HELD: [Option<i32>; 2] = [Some(32), Some(5)];
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .access_mode(GENERIC_READ_WRITE_DELETE)
            .share_mode(SHARE_READ_DELETE)
            .custom_flags(DELETE_ON_CLOSE)
            .open(path);
        let file = match opened {
            Err(e) if HELD.contains(&e.raw_os_error()) && path.exists() => return Ok(None),
            opened => opened?,
        };
        // The process id is for the user.
        let _ = file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id()));
        Ok(Some(Self { _file: file }))
    }
}
