//! Whose a client on the loopback is: by the process that has its end of the connection (GetExtendedTcpTable).

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{system, user};
use crate::os::whose::Whose;

/// The process whose connection `client` is.
pub fn process_of(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    system::tcp_process(client, server).ok().flatten().filter(|pid| *pid > 0)
}

/// Whether the system tells users' clients apart: it does so by the user of a client's process.
///
/// # Errors
/// What to say where it does not.
pub fn are_told_apart() -> io::Result<()> {
    if user::id().0.is_empty() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the system does not tell this process's user"));
    }
    Ok(())
}

/// Whose the client is. A process that we may not even look at is another user's.
///
/// # Errors
/// From the system.
pub fn whose(stream: &TcpStream) -> io::Result<Whose> {
    match system::tcp_process(stream.peer_addr()?, stream.local_addr()?)? {
        None | Some(0) => Ok(Whose::Unknown),
        Some(pid) => match system::user_of(pid) {
            Ok(sid) if sid == user::id().0 => Ok(Whose::ThisUsers),
            _ => Ok(Whose::AnotherUsers),
        },
    }
}
