//! Paths and directories.

use std::io;
use std::path::{Path, PathBuf};

/// Bytes that fit into `sun_path` beside the final NUL, of 104 in all (unix(4)).
pub const MAX_SOCKET_PATH: usize = 103;

/// The user's own directory for temporary files: `$TMPDIR`, which the system sets (`/var/folders/…/T/`, some 49 bytes),
/// else what it would be (`_CS_DARWIN_USER_TEMP_DIR` in confstr(3)).
pub fn temporary_dir() -> PathBuf {
    std::env::temp_dir()
}

/// A file's name as it is: ssh has no names for this system's directories.
pub fn expanded(name: &str) -> String {
    name.to_owned()
}

/// The directory for temporary files that outlive a restart, on disk.
pub fn shared_temporary_dir() -> Option<PathBuf> {
    Some("/var/tmp".into())
}

/// Checks that files in `dir` are on this machine's disk, and not on a network (MNT_LOCAL in statfs(2)), where an unlinked
/// file may keep a name.
///
/// # Errors
/// If they are not, or what the system says.
pub fn check_on_disk(dir: &Path) -> io::Result<()> {
    /// sys/mount.h
    const MNT_LOCAL: u32 = 0x1000;
    if rustix::fs::statfs(dir)?.f_flags & MNT_LOCAL == 0 {
        return Err(io::Error::other("it is on a network"));
    }
    Ok(())
}
