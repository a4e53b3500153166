//! Unix sockets of this machine: connecting within bounds, and who is at the other end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

pub use super::peer::Peer;

/// Connects to the socket at `path`.
///
/// connect(2) blocks without limit while the listener's backlog (listen(2)) is full, as with a stopped process. On
/// Linux it keeps to SO_SNDTIMEO (unix(7) does not say so; `unix_stream_connect` in the kernel does); other systems
/// refuse such a connection at once.
///
/// # Errors
/// What the system says: NotFound and ConnectionRefused where nobody listens, TimedOut after `limit`.
pub fn connect_within(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(limit))?;
    socket.connect(&SockAddr::unix(path)?).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, "the program that listens there accepts no connections")
        }
        _ => e,
    })?;
    socket.set_write_timeout(None)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Who made the connection, or accepts those on its socket (SO_PEERCRED in unix(7); getpeereid(3) on other systems).
///
/// # Errors
/// What the system says.
pub fn peer(stream: &impl AsFd) -> io::Result<Peer> {
    super::peer_of(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_accepts_nobody_is_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        let connect = || connect_within(&path, Duration::from_millis(20));
        assert_eq!(connect().expect_err("absent").kind(), io::ErrorKind::NotFound);
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        listener.bind(&SockAddr::unix(&path).expect("a path")).expect("bound");
        assert_eq!(connect().expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
        listener.listen(1).expect("listening");
        let mut waiting = Vec::new();
        let error = loop {
            match connect() {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "the program that listens there accepts no connections");
        assert!(!waiting.is_empty() && waiting.len() < 100);
    }

    #[test]
    fn both_ends_of_a_pair_are_ours() {
        let (one, _two) = UnixStream::pair().expect("a pair");
        let found = peer(&one).expect("known");
        assert_eq!(found.uid, rustix::process::getuid().as_raw());
        assert!(found.is_this_user());
        let others = Peer { uid: found.uid + 1, pid: None };
        assert!(!others.is_this_user());
        assert!(found.pid.is_none_or(|pid| pid == std::process::id()));
    }
}
