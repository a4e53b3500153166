//! Files: what identifies one, whether it is a program, reading and writing at a position.

use std::fs::{File, Metadata};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What tells a file from the one that takes its name: when it was created.
pub fn identity(meta: &Metadata) -> u64 {
    meta.creation_time()
}

/// Whether there is a file at `path`.
pub fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Where the program `name` may be in the directory `dir` of PATH, the first first: with one of the endings of `%PATHEXT%`.
pub(in crate::os) fn programs_named(dir: &Path, name: &str) -> Vec<PathBuf> {
    let set = std::env::var("PATHEXT").ok().filter(|endings| !endings.is_empty());
    let endings = set.unwrap_or_else(|| ".COM;.EXE;.BAT;.CMD".into());
    let with_ending = endings.split(';').map(|ending| dir.join(format!("{name}{}", ending.to_ascii_lowercase())));
    match Path::new(name).extension() {
        Some(_) => std::iter::once(dir.join(name)).chain(with_ending).collect(),
        None => with_ending.collect(),
    }
}

/// Makes a directory, and those above it that are missing, which others may look into.
///
/// # Errors
/// The system's.
pub fn create_open_dirs(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)
}

/// Writes all of `data` at `position`, in bytes.
///
/// # Errors
/// From the system.
pub fn write_all_at(file: &File, mut data: &[u8], mut position: u64) -> io::Result<()> {
    while !data.is_empty() {
        match file.seek_write(data, position)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => (data, position) = (&data[written..], position + written as u64),
        }
    }
    Ok(())
}

/// Fills `data` from `position` on, in bytes.
///
/// # Errors
/// From the system; [`io::ErrorKind::UnexpectedEof`] where the file ends before.
pub fn read_exact_at(file: &File, mut data: &mut [u8], mut position: u64) -> io::Result<()> {
    while !data.is_empty() {
        match file.seek_read(data, position)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => (data, position) = (&mut data[read..], position + read as u64),
        }
    }
    Ok(())
}
