//! Files below an open directory, reached without following a symbolic link, whatever others rename meanwhile.
//!
//! A path is walked one component at a time with O_NOFOLLOW, as openat2(2) does with RESOLVE_NO_SYMLINKS on Linux only.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Dir,
    Link,
    /// A socket, a device or a FIFO.
    Other,
}

/// What lstat(2) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970.
    pub mtime: i64,
    /// Last change of content or attributes, which nobody can set, in nanoseconds since 1970.
    pub ctime: i64,
    /// Permission bits, 0 to 0o777.
    pub mode: u16,
}

/// A directory that is open, wherever it is moved.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// Can directories of this system be mounted into containers of another host?
pub const ARE_MOUNTED: bool = true;

/// A name of the system from its bytes.
///
/// # Errors
/// Where names are not bytes.
pub fn name_of(bytes: &[u8]) -> io::Result<OsString> {
    Ok(OsString::from_vec(bytes.to_vec()))
}

/// A name's bytes.
///
/// # Errors
/// Where names are not bytes.
pub fn bytes_of(name: &OsStr) -> io::Result<Vec<u8>> {
    Ok(name.as_bytes().to_vec())
}

/// What tells a file from another one with the same path, as `stat -c '%i %s %Y %Z'` says it.
pub fn marks(meta: &std::fs::Metadata) -> String {
    format!("{} {} {} {}", meta.ino(), meta.size(), meta.mtime(), meta.ctime())
}

/// What is known of a file that is open, or of a name.
pub fn seen(meta: &std::fs::Metadata) -> Seen {
    let kind = match meta.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Dir,
        kind if kind.is_symlink() => Kind::Link,
        _ => Kind::Other,
    };
    let mtime = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
    let ctime = meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec());
    Seen { kind, size: meta.len(), mtime, ctime, mode: u16::try_from(meta.mode() & 0o777).unwrap_or_default() }
}

/// Gives an open file its permission bits, 0 to 0o777.
///
/// # Errors
/// From the system.
pub fn set_mode(file: &File, mode: u16) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode.into()))
}

impl Dir {
    /// Opens the directory at `path`, whose own parents may be links.
    ///
    /// # Errors
    /// From the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, DIRECTORY, Mode::empty())?))
    }

    /// Opens the directory `name` of this one.
    ///
    /// # Errors
    /// From the system; ENOTDIR or ELOOP if it is a link.
    pub fn enter(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty())?))
    }

    /// Another handle of the same directory.
    ///
    /// # Errors
    /// From the system.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// What has the name `name`; None if nothing.
    ///
    /// # Errors
    /// From the system.
    pub fn look(&self, name: &[u8]) -> io::Result<Option<Seen>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(of_stat(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// A link's target.
    ///
    /// # Errors
    /// From the system.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// From the system, and if it is no regular file.
    pub fn read(&self, name: &[u8]) -> io::Result<File> {
        // A FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("no regular file")),
        }
    }

    /// Creates a file that only this user can read, which must not be there yet.
    ///
    /// # Errors
    /// From the system.
    pub fn create(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Creates a directory that only this user can enter.
    ///
    /// # Errors
    /// From the system.
    pub fn create_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, name, Mode::RWXU)?)
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// From the system.
    pub fn create_link(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    /// Renames within this directory if nothing has the new name.
    ///
    /// # Errors
    /// From the system; [`io::ErrorKind::AlreadyExists`].
    pub fn rename_new(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE) {
            Err(e) if lacks(e) => match self.look(to)? {
                None => self.rename(from, to),
                Some(_) => Err(Errno::EXIST.into()),
            },
            result => Ok(result?),
        }
    }

    /// Lets two names change places. None if the file system cannot.
    ///
    /// # Errors
    /// From the system.
    pub fn exchange(&self, one: &[u8], other: &[u8]) -> io::Result<Option<()>> {
        match rustix::fs::renameat_with(&self.0, one, &self.0, other, RenameFlags::EXCHANGE) {
            Err(e) if lacks(e) => Ok(None),
            result => Ok(Some(result?)),
        }
    }

    /// Renames within this directory, over what has the new name.
    ///
    /// # Errors
    /// From the system.
    pub fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a name that is no directory's.
    ///
    /// # Errors
    /// From the system.
    pub fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// From the system; [`io::ErrorKind::DirectoryNotEmpty`].
    pub fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Gives this directory its permission bits, 0 to 0o777.
    ///
    /// # Errors
    /// From the system.
    pub fn set_mode(&self, mode: u16) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, raw_mode(mode))?)
    }

    /// Writes all of the directory's file system to the disk (syncfs(2)).
    ///
    /// # Errors
    /// From the system.
    #[cfg(target_os = "linux")]
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }

    /// Has all file systems written to the disk (sync(2)); macOS has no call for one of them.
    ///
    /// # Errors
    /// None.
    #[cfg(not(target_os = "linux"))]
    pub fn sync_all(&self) -> io::Result<()> {
        rustix::fs::sync();
        Ok(())
    }

    /// The names in this directory, without `.` and `..`.
    ///
    /// # Errors
    /// From the system.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// Whether the file system or the system has no such rename.
fn lacks(e: Errno) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP].contains(&e)
}

/// A number whose type is another one on each system. 0 for what it cannot be.
fn number<A, B: TryFrom<A> + Default>(number: A) -> B {
    B::try_from(number).unwrap_or_default()
}

fn raw_mode(mode: u16) -> Mode {
    Mode::from_raw_mode(number(mode))
}

fn of_stat(stat: &Stat) -> Seen {
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => Kind::File,
        rustix::fs::FileType::Directory => Kind::Dir,
        rustix::fs::FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    };
    let nanoseconds = number::<_, i64>(stat.st_mtime_nsec);
    let of_change = number::<_, i64>(stat.st_ctime_nsec);
    Seen {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        ctime: stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(of_change),
        mode: number(stat.st_mode & 0o777),
    }
}
