//! Options of a TCP connection, and what the system tells of one. Those that exist have no safe interface.

use std::net::SocketAddr;
use std::os::windows::io::AsSocket;
use std::time::Duration;

/// Nothing is set: the detection of a dead link takes longer while data waits to be sent.
pub fn limit_silence(_: impl AsSocket, _: Duration) {}

/// Nothing to set: the system decides by itself when to delay an acknowledgement.
#[derive(Debug)]
pub struct Acknowledger;

impl Acknowledger {
    /// For this connection.
    pub fn of(_: impl AsSocket) -> Self {
        Self
    }

    /// Nothing to do.
    pub fn acknowledge(&self) {}
}

/// False: not known.
pub fn is_acknowledged(_: SocketAddr, _: SocketAddr) -> bool {
    false
}
