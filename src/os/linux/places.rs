//! Paths and directories.

use std::io;
use std::path::{Path, PathBuf};

/// Bytes that fit into `sun_path` beside the final NUL, of 108 in all (unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// The directory for temporary files that all of a user's processes agree on: `$TMPDIR` is not the same for all of them.
pub fn temporary_dir() -> PathBuf {
    "/tmp".into()
}

/// A file's name as it is: ssh has no names for this system's directories.
pub fn expanded(name: &str) -> String {
    name.to_owned()
}

/// The directory for temporary files that outlive a restart, on disk.
pub fn shared_temporary_dir() -> Option<PathBuf> {
    Some("/var/tmp".into())
}

/// Checks that files in `dir` are on this machine's disk: not in memory (tmpfs), and not on NFS, which gives an unlinked
/// file a name.
///
/// # Errors
/// If they are not, or what the system says.
pub fn check_on_disk(dir: &Path) -> io::Result<()> {
    // linux/magic.h: TMPFS, RAMFS, NFS.
    const NOT: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x6969];
    let kind = rustix::fs::statfs(dir)?.f_type;
    // The type's width differs between architectures; the magic numbers have 32 bits.
    if NOT.iter().any(|not| i128::from(*not) == i128::from(kind)) {
        return Err(io::Error::other("it is in memory or on a network"));
    }
    Ok(())
}
