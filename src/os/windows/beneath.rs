//! Files below an open directory: not on Windows, where no directory is mounted into containers of a remote host.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir,
    Link,
    Other,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970.
    pub mtime: i64,
    /// Last change of content or attributes: not known.
    pub ctime: i64,
    /// Permission bits, 0 to 0o777.
    pub mode: u16,
}

/// A directory: there is none.
#[derive(Debug)]
pub struct Dir(std::convert::Infallible);

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Can directories of this system be mounted into containers of another host?
pub const ARE_MOUNTED: bool = false;

/// A name of the system from its bytes.
///
/// # Errors
/// Always: names are not bytes.
pub fn name_of(_: &[u8]) -> io::Result<OsString> {
    unsupported()
}

/// A name's bytes.
///
/// # Errors
/// Always: names are not bytes.
pub fn bytes_of(_: &OsStr) -> io::Result<Vec<u8>> {
    unsupported()
}

/// What tells a file from another one with the same path: nothing that a host would say.
pub fn marks(_: &std::fs::Metadata) -> String {
    String::new()
}

/// What is known of a file: nothing that could be carried.
pub fn seen(meta: &std::fs::Metadata) -> Seen {
    Seen { kind: Kind::Other, size: meta.len(), mtime: 0, ctime: 0, mode: 0 }
}

/// Gives an open file its permission bits.
///
/// # Errors
/// Always.
pub fn set_mode(_: &File, _: u16) -> io::Result<()> {
    unsupported()
}

impl Dir {
    /// Opens a directory.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: &Path) -> io::Result<Self> {
        unsupported()
    }

    /// Opens the directory of that name.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn enter(&self, _: &[u8]) -> io::Result<Self> {
        match self.0 {}
    }

    /// Another handle of the same directory.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn again(&self) -> io::Result<Self> {
        match self.0 {}
    }

    /// What has the name.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn look(&self, _: &[u8]) -> io::Result<Option<Seen>> {
        match self.0 {}
    }

    /// A link's target.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        match self.0 {}
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn read(&self, _: &[u8]) -> io::Result<File> {
        match self.0 {}
    }

    /// Creates a file.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn create(&self, _: &[u8]) -> io::Result<File> {
        match self.0 {}
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn create_dir(&self, _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn create_link(&self, _: &[u8], _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    /// Renames to a free name.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn rename_new(&self, _: &[u8], _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    /// Lets two names change places.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn exchange(&self, _: &[u8], _: &[u8]) -> io::Result<Option<()>> {
        match self.0 {}
    }

    /// Renames.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn rename(&self, _: &[u8], _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    /// Removes a name.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn remove(&self, _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn remove_dir(&self, _: &[u8]) -> io::Result<()> {
        match self.0 {}
    }

    /// Gives this directory its permission bits.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn set_mode(&self, _: u16) -> io::Result<()> {
        match self.0 {}
    }

    /// Writes all of the file system to the disk.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn sync_all(&self) -> io::Result<()> {
        match self.0 {}
    }

    /// The names in this directory.
    ///
    /// # Errors
    /// None: there is no directory.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        match self.0 {}
    }
}
