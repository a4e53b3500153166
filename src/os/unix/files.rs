//! Files: what identifies one, whether it is a program, reading and writing at a position.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What tells a file from the one that takes its name: its inode.
pub fn identity(meta: &Metadata) -> u64 {
    meta.ino()
}

/// Whether there is a program at `path`, which may be executed.
pub fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

/// Where the program `name` may be in the directory `dir` of PATH, the first first.
pub(in crate::os) fn programs_named(dir: &Path, name: &str) -> Vec<PathBuf> {
    vec![dir.join(name)]
}

/// Makes a directory, and those above it that are missing, which others may look into.
///
/// # Errors
/// The system's.
pub fn create_open_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|above| !above.exists()).collect();
    for dir in missing.into_iter().rev() {
        std::fs::create_dir(dir)?;
        // Whatever the umask of this process is.
        std::fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Writes all of `data` at `position`, in bytes.
///
/// # Errors
/// From the system.
pub fn write_all_at(file: &File, data: &[u8], position: u64) -> io::Result<()> {
    file.write_all_at(data, position)
}

/// Fills `data` from `position` on, in bytes.
///
/// # Errors
/// From the system; [`io::ErrorKind::UnexpectedEof`] where the file ends before.
pub fn read_exact_at(file: &File, data: &mut [u8], position: u64) -> io::Result<()> {
    file.read_exact_at(data, position)
}
