//! What a service manager passes to this process, and is told of it (sd_notify(3), sd_listen_fds(3)).

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::local::{BlockingListener, Listener};

/// A listening socket that a service manager passed to this process.
#[derive(Debug)]
pub enum Inherited {
    /// A local socket.
    Local(BlockingListener),
    /// A TCP port.
    Tcp(TcpListener),
}

/// The listening socket passed by a service manager, if any. Must be called while the process has one thread, since it
/// removes the environment variables.
///
/// # Errors
/// The passed socket is not usable.
pub fn take() -> io::Result<Option<Inherited>> {
    if std::env::var_os("LISTEN_FDS").is_none() {
        return Ok(None);
    }
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => match passed.take_unix_listener(0) {
            Ok(listener) => Ok(listener.map(Inherited::Local)),
            Err(_) => Ok(passed.take_tcp_listener(0)?.map(Inherited::Tcp)),
        },
        more => {
            let message = format!("the service manager passed {more} sockets; one is expected");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

/// The path of a local socket that was passed, and its listener on the current runtime.
///
/// # Errors
/// From the system; it has no path.
pub fn adopt(listener: BlockingListener) -> io::Result<(PathBuf, Listener)> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?.to_path_buf();
    Ok((path, Listener::from_std(listener)?))
}

/// Tells the service manager this process's state in words, and whether it is ready.
///
/// # Errors
/// It cannot be told.
pub fn tell(text: &str, is_ready: bool) -> io::Result<()> {
    let mut states = vec![NotifyState::Status(text)];
    if is_ready {
        states.push(NotifyState::Ready);
    }
    sd_notify::notify(&states)
}

/// Tells the service manager that this process is about to end.
pub fn tell_stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
