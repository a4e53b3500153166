//! Whose a client on the loopback is: not known. The kernel's table of connections (`net.inet.tcp.pcblist_n` in
//! sysctl(3)) has the users, but no stable layout.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::os::whose::Whose;

/// Nothing to check: no client's user is known ([`whose`]).
///
/// # Errors
/// None.
pub fn are_told_apart() -> io::Result<()> {
    Ok(())
}

/// Every client counts as this user's (docs/security.md).
///
/// # Errors
/// None.
pub fn whose(_: &TcpStream) -> io::Result<Whose> {
    Ok(Whose::ThisUsers)
}

/// None: not known.
pub fn process_of(_: SocketAddr, _: SocketAddr) -> Option<u32> {
    None
}
