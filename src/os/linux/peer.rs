//! The other end of a Unix socket.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::os::unix::peer::Peer;

/// By SO_PEERCRED (unix(7)). Not by rustix, whose process numbers cannot be 0.
pub(in crate::os) fn peer_of(stream: &impl AsFd) -> io::Result<Peer> {
    let found = getsockopt(stream, PeerCredentials)?;
    let pid = u32::try_from(found.pid()).ok().filter(|&pid| pid > 0);
    Ok(Peer { uid: found.uid(), pid })
}
