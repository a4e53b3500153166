//! What a master of the machine's ssh (ControlMaster in ssh_config(5)) is spoken to with: Unix sockets, pipes, and
//! descriptors that are handed over (SCM_RIGHTS in unix(7)).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown};
use tokio::io::Interest;

pub use std::os::unix::net::UnixStream as BlockingStream;
pub use tokio::net::unix::pipe::{Receiver, Sender};
pub use tokio::net::unix::{OwnedReadHalf as ReadHalf, OwnedWriteHalf as WriteHalf};
pub use tokio::net::{UnixListener as Listener, UnixStream as Stream};

/// An end of a pipe, before it is used or handed over.
pub type Descriptor = OwnedFd;

/// Whether this system's ssh can be a master.
///
/// # Errors
/// What to say where it cannot.
pub fn check() -> io::Result<()> {
    Ok(())
}

/// A pipe: the end to read from, and the one to write to. Programs that are started do not get them.
///
/// # Errors
/// From the system.
pub fn pipe() -> io::Result<(Descriptor, Descriptor)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), writer.into()))
}

/// Reads from this end of a pipe, on the current runtime.
///
/// # Errors
/// From the system.
pub fn receiver(pipe: Descriptor) -> io::Result<Receiver> {
    Receiver::from_owned_fd(pipe)
}

/// Writes to this end of a pipe, on the current runtime.
///
/// # Errors
/// From the system.
pub fn sender(pipe: Descriptor) -> io::Result<Sender> {
    Sender::from_owned_fd(pipe)
}

/// Whether this user's process is at the other end.
///
/// # Errors
/// From the system.
pub fn is_own(stream: &Stream) -> io::Result<bool> {
    Ok(super::local::peer(stream)?.is_this_user())
}

/// Hands over one descriptor, beside one byte (`mm_send_fd` in OpenSSH's monitor_fdpass.c).
///
/// # Errors
/// From the system.
pub async fn send_descriptor(stream: &Stream, descriptor: &Descriptor) -> io::Result<()> {
    let descriptors = [descriptor.as_fd()];
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        // No flag is needed against SIGPIPE, which Rust's programs ignore; not every system has one.
        rustix::net::sendmsg(stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
        Ok(())
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// Ends both directions of a connection, whoever else holds it.
pub fn shut_down(stream: &Stream) {
    let _ = rustix::net::shutdown(stream, Shutdown::Both);
}

/// Makes `link` another name of the program at `path`.
///
/// # Errors
/// From the system.
pub fn link(path: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(path, link)
}
