//! Options of a TCP connection, and what the kernel tells of one.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use super::sock_diag;

/// Limits the wait for acknowledgements: then the connection is lost (TCP_USER_TIMEOUT in tcp(7)).
pub fn limit_silence(stream: impl AsFd, limit: Duration) {
    // Without this option only the detection takes longer.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX));
}

/// Acknowledges what has arrived now, and not up to 40 ms later (TCP_QUICKACK in tcp(7)). It does not last.
pub fn acknowledge_now(stream: impl AsFd) {
    // Without this option only the peer's next small packet is late.
    let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
}

/// Whether the peer's system has acknowledged all that was sent from our end, `ours`, to `theirs`. False if the system
/// does not tell.
pub fn is_acknowledged(ours: SocketAddr, theirs: SocketAddr) -> bool {
    let found = sock_diag::find(ours, theirs);
    found.is_ok_and(|found| found.is_some_and(|found| found.unacknowledged == 0))
}
