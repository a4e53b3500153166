//! The ssh-agent: where it is, and a connection to it. OpenSSH's listens at a pipe, Pageant has a way of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pageant::PageantStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::windows::named_pipe::NamedPipeClient;

use super::pipe;
use super::system;

/// What `doctor` says where there is none.
pub const NONE: &str = "no ssh-agent (SSH_AUTH_SOCK is not set, and neither OpenSSH's agent nor Pageant runs)";

/// The pipe of Windows' OpenSSH agent (ssh-agent in PowerShell/openssh-portable).
const OPENSSH: &str = r"\\.\pipe\openssh-ssh-agent";
/// Stands for Pageant in place of a pipe. No pipe has this name.
const PAGEANT: &str = r"\\.\pageant";
/// Time limit of opening a pipe of which all instances are in use.
const BUSY: Duration = Duration::from_secs(2);

/// A connection to an agent.
pub enum Stream {
    /// Over a pipe.
    Pipe(NamedPipeClient),
    /// To Pageant.
    Pageant(PageantStream),
}

/// This process's ssh-agent: the one that `%SSH_AUTH_SOCK%` names, else OpenSSH's if it runs, else Pageant if it does.
pub fn own() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("SSH_AUTH_SOCK").filter(|pipe| !pipe.is_empty()) {
        return Some(set.into());
    }
    if answers(Path::new(OPENSSH), Duration::ZERO).is_ok() {
        return Some(OPENSSH.into());
    }
    pageant::wmmessage::is_pageant_running().then(|| PAGEANT.into())
}

/// Connects to the agent at `address`.
///
/// # Errors
/// From the system.
pub async fn connect(address: &Path) -> io::Result<Stream> {
    if address == Path::new(PAGEANT) {
        return PageantStream::new().await.map(Stream::Pageant).map_err(io::Error::other);
    }
    let address = address.to_path_buf();
    let handle = tokio::task::spawn_blocking(move || pipe::open(&address, BUSY)).await.map_err(io::Error::other)??;
    system::client(handle).map(Stream::Pipe)
}

/// Whether an agent accepts a connection at `address` within `limit`.
///
/// # Errors
/// Why it does not.
pub fn answers(address: &Path, limit: Duration) -> io::Result<()> {
    if address == Path::new(PAGEANT) {
        return pageant::wmmessage::is_pageant_running().then_some(()).ok_or_else(|| io::ErrorKind::NotFound.into());
    }
    match pipe::open(address, limit) {
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Ok(()),
        opened => opened.map(drop),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Pageant(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Pipe(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Pageant(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(stream) => Pin::new(stream).poll_flush(cx),
            Self::Pageant(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Pipe(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Pageant(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
