//! The other end of a Unix socket.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::LocalPeerPid};

use crate::os::unix::peer::Peer;

/// By getpeereid(3), and LOCAL_PEERPID (sys/un.h) for the process.
pub(in crate::os) fn peer_of(stream: &impl AsFd) -> io::Result<Peer> {
    let (uid, _) = nix::unistd::getpeereid(stream)?;
    let pid = getsockopt(stream, LocalPeerPid).ok().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid > 0);
    Ok(Peer { uid: uid.as_raw(), pid })
}
