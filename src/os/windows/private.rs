//! Files and directories that are this user's alone: those below the profile directory, whose access control list Windows
//! makes for the user, the system and the administrators, and which new files inherit. The lists are not read here.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

pub use crate::os::trust::{NotTrusted, Unsafe};

/// Creates a directory, with the access of the one above, and those above that are missing.
///
/// # Errors
/// From the system.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above)?;
    }
    fs::create_dir(dir)
}

/// Creates a directory, and those above that are missing. No error if it is there.
///
/// # Errors
/// From the system.
pub fn create_dirs(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// Nothing: a new file has the access of its directory.
pub fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Nothing: a new file has the access of its directory.
pub fn as_is<'a>(options: &'a mut OpenOptions, _: &Path) -> &'a mut OpenOptions {
    options
}

/// A file in `dir` that the system deletes with its last handle.
///
/// # Errors
/// From the system.
pub fn temporary_file(dir: &Path) -> io::Result<File> {
    tempfile::tempfile_in(dir)
}

/// True: whose a file is is not read.
pub fn is_mine(_: &Metadata) -> bool {
    true
}

/// None: who may read a file is not read. (Windows' own ssh refuses a key that others may read.)
pub fn readable_by_others(_: &Metadata) -> Option<String> {
    None
}

/// Trusts the file: who may write it is not read.
///
/// # Errors
/// None.
pub fn check_file(_: &File, _: &Path) -> io::Result<Result<(), NotTrusted>> {
    Ok(Ok(()))
}

/// Where the runtime directory is: below `%LOCALAPPDATA%`, which is in the user's profile directory.
pub fn runtime_dir(temporary: PathBuf) -> PathBuf {
    let local = std::env::var_os("LOCALAPPDATA").map(PathBuf::from).filter(|dir| dir.is_absolute());
    local.unwrap_or(temporary).join("dtunnel").join("run")
}

/// Is the directory, if it is there, a real one, and no link to another place?
///
/// # Errors
/// Why it is not safe.
pub fn check_dir(dir: &Path) -> Result<(), Unsafe> {
    match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Unsafe::Because("it is not a directory, or a symbolic link".into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Unsafe::File { action: "open", path: dir.into(), source }),
    }
}

/// Nothing to check: a pipe's name is taken by whoever is first, and while we have it nobody else can make an instance of it.
///
/// # Errors
/// None.
pub fn check_place(_: &Path) -> Result<(), Unsafe> {
    Ok(())
}
