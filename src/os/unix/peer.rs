//! The other end of a Unix socket.

use super::user;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The effective user.
    pub uid: user::Id,
    /// The process, where the system tells it: one outside of our PID namespace has no number here.
    pub pid: Option<u32>,
}

impl Peer {
    /// Whether that is the user of this process.
    pub fn is_this_user(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }
}
