//! Re-executes this program as the daemon.
//!
//! The daemon's first control connection is its standard input, one end of a socket pair made
//! here: there is no moment in which the daemon runs and nobody could be told why it fails, and
//! no waiting for a socket file to appear. If this end closes before the tunnel is up, however we
//! end (Ctrl-C, SIGKILL), the daemon gives up and leaves nothing behind.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::client::{Client, ClientError};

/// Why the daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system would not.
    #[error("cannot start the tunnel's daemon: {0}")]
    Io(#[from] io::Error),
    /// It started, but is not what it should be.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Starts `dtunnel` with the arguments `args` (which must lead to [`super::run`]) and returns the
/// connection to it.
///
/// # Errors
/// Each of [`SpawnError`].
pub fn spawn(args: &[OsString]) -> Result<(Client, Child), SpawnError> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((Client::over(ours)?, child))
}

/// In the daemon: takes the connection to its parent over from standard input, which becomes the
/// null device.
///
/// # Errors
/// Where standard input is no Unix socket, as when a person starts the daemon by hand.
pub fn parent_connection() -> io::Result<UnixStream> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.peer_addr()?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(stream)
}
