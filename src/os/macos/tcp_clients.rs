//! Whose a client on the loopback is: not known. The kernel's table of connections (`net.inet.tcp.pcblist_n` in
//! sysctl(3)) has the users, but no stable layout.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::os::whose::Whose;

/// They are not: no client's user is known, and the Engine is root on its host.
///
/// # Errors
/// What to say of that.
pub fn are_told_apart() -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "macOS does not tell this user's TCP clients from those of other users: use a Unix socket",
    ))
}

/// Every client of a published port counts as this user's (docs/security.md).
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
