//! Re-executes this program as the daemon.
//!
//! The daemon's first control connection is its standard input, one end of a socket pair made here: the daemon can
//! report a failure from its first moment on, and nobody waits for a socket file to appear. If this end closes before
//! the tunnel is up, however this process ends (Ctrl-C, SIGKILL), the daemon gives up and leaves nothing behind.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::client::{ClientError, ControlClient};

/// Why the daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system refused to start a process.
    #[error("cannot start the tunnel's daemon: {0}")]
    Io(#[from] io::Error),
    /// The process started, but does not answer as a daemon of this version.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Starts `dtunnel` with the arguments `args` (which must lead to [`super::run`]) and returns the
/// connection to it.
///
/// # Errors
/// Each of [`SpawnError`].
pub fn spawn(args: &[OsString]) -> Result<(ControlClient, Child), SpawnError> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((ControlClient::over(ours)?, child))
}

/// In the daemon: takes the connection to its parent over from standard input, which becomes the
/// null device.
///
/// # Errors
/// If standard input is not a Unix socket, as when a person starts the daemon by hand.
pub fn parent_connection() -> io::Result<UnixStream> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.peer_addr()?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(stream)
}
