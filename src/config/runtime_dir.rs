//! The runtime directory, which holds the tunnels' sockets and locks: one place that finds it, for reading as
//! for writing, and checks that no other user created it.
//!
//! Whoever creates the directory can put a fake control socket there and receive passphrases. In `/tmp` that could be
//! any user who knows our uid and is first.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::os::places::temporary_dir;
use crate::os::private::{self, Unsafe};

/// The runtime directory, which may not be there yet. If it is, it is ours alone, and so is the way to it.
///
/// # Errors
/// [`Error::RuntimeDir`] where others could have made it or could change it, [`Error::File`].
pub fn runtime_dir() -> Result<PathBuf, Error> {
    let dir = private::runtime_dir(temporary_dir());
    check(&dir)?;
    Ok(dir)
}

/// The runtime directory, created for this user only if it is missing.
///
/// # Errors
/// As [`runtime_dir`].
pub(crate) fn prepare_runtime_dir() -> Result<PathBuf, Error> {
    let dir = runtime_dir()?;
    match private::create_dir(&dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(Error::File { action: "create", path: dir, source }),
    }
    check(&dir)?;
    Ok(dir)
}

fn check(dir: &Path) -> Result<(), Error> {
    private::check_dir(dir).map_err(|problem| match problem {
        Unsafe::Because(reason) => Error::RuntimeDir { path: dir.into(), reason },
        Unsafe::File { action, path, source } => Error::File { action, path, source },
    })
}

/// Can nobody but us and root put another endpoint in the place of the one at `path`, while a tunnel is up or before?
///
/// # Errors
/// [`Error::LocalPlace`], [`Error::File`].
pub(crate) fn check_socket_place(path: &Path) -> Result<(), Error> {
    private::check_place(path).map_err(|problem| match problem {
        Unsafe::Because(reason) => Error::LocalPlace { path: path.into(), reason },
        Unsafe::File { action, path, source } => Error::File { action, path, source },
    })
}
