//! Re-executes this program as the daemon.
//!
//! The daemon's first control connection is the one to this process (`os::background`). So the daemon can report a failure from its start, and no client waits for a socket file to appear. If this end closes before the
//! tunnel is up, however this process ends (Ctrl-C, SIGKILL), the daemon ends and cleans up.

use std::ffi::OsString;
use std::io;
use std::process::Child;

use super::client::{ClientError, ControlClient};
use crate::os::background;

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

/// Starts `dtunnel` with the arguments `args` (which must lead to [`super::run`]) and returns the connection to it.
///
/// # Errors
/// Any [`SpawnError`].
pub fn spawn(args: &[OsString]) -> Result<(ControlClient, Child), SpawnError> {
    let (ours, child) = background::start(args)?;
    Ok((ControlClient::over(ours)?, child))
}
