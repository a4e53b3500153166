//! Paths and directories.

use std::io;
use std::path::{Path, PathBuf};

/// Characters of a pipe's name, all in all (CreateNamedPipeW).
pub const MAX_SOCKET_PATH: usize = 256;

/// The user's own directory for temporary files.
pub fn temporary_dir() -> PathBuf {
    std::env::temp_dir()
}

/// A file's name with `__PROGRAMDATA__` replaced, which Windows' ssh has for `%ProgramData%`.
pub fn expanded(name: &str) -> String {
    match name.strip_prefix("__PROGRAMDATA__") {
        Some(rest) => std::env::var("ProgramData").unwrap_or_default() + rest,
        None => name.to_owned(),
    }
}

/// None: the user's own directories are on disk.
pub fn shared_temporary_dir() -> Option<PathBuf> {
    None
}

/// Nothing to check: no directory is in memory, and a deleted file has no name on a network drive, either.
///
/// # Errors
/// None.
pub fn check_on_disk(_: &Path) -> io::Result<()> {
    Ok(())
}
