//! TCP sockets that listen.

use std::io;

use tokio::net::TcpSocket;

use super::system;

/// Sees to it that nobody else can listen at the same address (SO_EXCLUSIVEADDRUSE): SO_REUSEADDR, which other systems want
/// for an address that was just given up, would allow that on Windows.
///
/// # Errors
/// From the system.
pub fn claim_alone(socket: &TcpSocket) -> io::Result<()> {
    system::claim_alone(socket)
}

/// Whether the error is that this machine has no addresses of a family (WSAEAFNOSUPPORT).
pub fn is_family_absent(error: &io::Error) -> bool {
    const WSAEAFNOSUPPORT: i32 = 10_047;
    error.raw_os_error() == Some(WSAEAFNOSUPPORT)
}

/// Whether the error is that something has the address: a socket, or Windows for a range of ports (WSAEACCES; `netsh int ipv4
/// show excludedportrange tcp`). No port needs a privilege.
pub fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}
