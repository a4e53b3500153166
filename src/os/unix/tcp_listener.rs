//! TCP sockets that listen.

use std::io;

use tokio::net::TcpSocket;

/// Sees to it that connections of an earlier listener that are not over do not keep the address (tcp(7), TIME_WAIT). Another
/// listener keeps it.
///
/// # Errors
/// From the system.
pub fn claim_alone(socket: &TcpSocket) -> io::Result<()> {
    socket.set_reuseaddr(true)
}

/// Whether the error is that this machine has no addresses of a family, as one without IPv6.
pub fn is_family_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Whether the error is that something has the address.
pub fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}
