//! Files: what identifies one, whether it is a program, reading and writing at a position.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
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
