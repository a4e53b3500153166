//! Options of a TCP connection, and what the kernel tells of one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::sock_diag;
use crate::os::pauses::{self, AtPause};

/// Limits the wait for acknowledgements: then the connection is lost (TCP_USER_TIMEOUT in tcp(7)).
pub fn limit_silence(stream: impl AsFd, limit: Duration) {
    // Without this option only the detection takes longer.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX));
}

/// Acknowledges what arrives on one connection at once, and not up to 40 ms later (TCP_QUICKACK in tcp(7)).
///
/// The system sends a packet for it, and on loopback receives it as well: that takes so much time that it waits for the
/// thread's next pause, if it pauses before the next read.
#[derive(Debug)]
pub struct Acknowledger(Option<Arc<Connection>>);

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    /// Does a thread acknowledge it when it pauses?
    is_due: AtomicBool,
}

impl Acknowledger {
    /// For this connection. It has a descriptor of its own; without one left nothing is acknowledged early.
    pub fn of(stream: impl AsFd) -> Self {
        let socket = stream.as_fd().try_clone_to_owned().ok();
        Self(socket.map(|socket| Arc::new(Connection { socket, is_due: AtomicBool::new(false) })))
    }

    /// Acknowledges what was read. It does not last: to be called after each read.
    pub fn acknowledge(&self) {
        let Some(connection) = &self.0 else { return };
        if connection.is_due.swap(true, Relaxed) {
            // Twice without a pause: the other end may wait for it.
            connection.acknowledge();
        } else if !pauses::put_off(connection) {
            connection.do_now();
        }
    }
}

impl Connection {
    fn acknowledge(&self) {
        // Without this option only the peer's next small packet is late.
        let _ = rustix::net::sockopt::set_tcp_quickack(&self.socket, true);
    }
}

impl AtPause for Connection {
    fn do_now(&self) {
        self.is_due.store(false, Relaxed);
        self.acknowledge();
    }
}

/// Whether the peer's system has acknowledged all that was sent from our end, `ours`, to `theirs`. False if the system
/// does not tell.
pub fn is_acknowledged(ours: SocketAddr, theirs: SocketAddr) -> bool {
    let found = sock_diag::find(ours, theirs);
    found.is_ok_and(|found| found.is_some_and(|found| found.unacknowledged == 0))
}
