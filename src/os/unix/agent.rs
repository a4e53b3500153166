//! The ssh-agent: where it is, and a connection to it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::connect_within;

pub use tokio::net::UnixStream as Stream;

/// What `doctor` says where there is none.
pub const NONE: &str = "no ssh-agent (SSH_AUTH_SOCK is not set)";

/// The socket of this process's ssh-agent (`$SSH_AUTH_SOCK`).
pub fn own() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()).map(PathBuf::from)
}

/// Connects to the agent at `address`.
///
/// # Errors
/// From the system.
pub async fn connect(address: &Path) -> io::Result<Stream> {
    Stream::connect(address).await
}

/// Whether an agent accepts a connection at `address` within `limit`.
///
/// # Errors
/// Why it does not.
pub fn answers(address: &Path, limit: Duration) -> io::Result<()> {
    connect_within(address, limit).map(drop)
}
