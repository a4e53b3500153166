//! TCP sockets that listen.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpSocket;

/// Sees to it that connections of an earlier listener that are not over do not keep the address (tcp(7), TIME_WAIT). Another
/// listener keeps it.
///
/// # Errors
/// From the system.
pub fn claim_alone(socket: &TcpSocket) -> io::Result<()> {
    socket.set_reuseaddr(true)
}

/// Has the system refuse clients from now on, before the listener is closed.
pub fn stop(listener: &impl AsFd) {
    let _ = shutdown(listener, Shutdown::Both);
}

/// Whether the error is that this machine has no addresses of a family, as one without IPv6.
pub fn is_family_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Whether the error is that something has the address.
pub fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}
