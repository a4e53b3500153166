//! Options of a TCP connection, and what the kernel tells of one.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::sock_diag;

/// Limits the wait for acknowledgements: then the connection is lost (TCP_USER_TIMEOUT in tcp(7)).
pub fn limit_silence(stream: impl AsFd, limit: Duration) {
    // Without this option only the detection takes longer.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX));
}

/// Acknowledges what arrives on one connection at once, and not up to 40 ms later (TCP_QUICKACK in tcp(7)).
///
/// The system sends a packet for it, and on loopback receives it as well: so much time, that on a thread that calls
/// [`acknowledge_due`] it is done when nothing else is left to do.
#[derive(Debug)]
pub struct Acknowledger(Option<Arc<Due>>);

#[derive(Debug)]
struct Due {
    socket: OwnedFd,
    /// Is it in a thread's list?
    is_listed: AtomicBool,
}

thread_local! {
    /// What this thread has still to acknowledge. None: it never calls [`acknowledge_due`].
    static DUE: RefCell<Option<Vec<Arc<Due>>>> = const { RefCell::new(None) };
}

impl Acknowledger {
    /// For this connection. It has a descriptor of its own; without one left nothing is acknowledged early.
    pub fn of(stream: impl AsFd) -> Self {
        let socket = stream.as_fd().try_clone_to_owned().ok();
        Self(socket.map(|socket| Arc::new(Due { socket, is_listed: AtomicBool::new(false) })))
    }

    /// Acknowledges what was read. It does not last: to be called after each read.
    pub fn acknowledge(&self) {
        let Some(due) = &self.0 else { return };
        let is_listed = DUE.with_borrow_mut(|list| match list {
            Some(list) if !due.is_listed.swap(true, Relaxed) => {
                list.push(due.clone());
                true
            }
            // Unknown here, or read twice without a pause.
            _ => false,
        });
        if !is_listed {
            due.acknowledge();
        }
    }
}

impl Due {
    fn acknowledge(&self) {
        // Without this option only the peer's next small packet is late.
        let _ = rustix::net::sockopt::set_tcp_quickack(&self.socket, true);
    }
}

/// Acknowledges what this thread has read and not acknowledged yet. To be called before each of its pauses.
pub fn acknowledge_due() {
    DUE.with_borrow_mut(|list| {
        for due in list.get_or_insert_default().drain(..) {
            due.is_listed.store(false, Relaxed);
            due.acknowledge();
        }
    });
}

/// Whether the peer's system has acknowledged all that was sent from our end, `ours`, to `theirs`. False if the system
/// does not tell.
pub fn is_acknowledged(ours: SocketAddr, theirs: SocketAddr) -> bool {
    let found = sock_diag::find(ours, theirs);
    found.is_ok_and(|found| found.is_some_and(|found| found.unacknowledged == 0))
}
