//! Private endpoints on this machine: Unix sockets that only this user may open, connecting to one within bounds, and who
//! is at the other end.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

pub use std::os::unix::net::{UnixListener as BlockingListener, UnixStream as BlockingStream};
pub use tokio::net::unix::{OwnedReadHalf as ReadHalf, OwnedWriteHalf as WriteHalf};
pub use tokio::net::{UnixListener as Listener, UnixStream as Stream};

pub use super::peer::Peer;
use super::user;

/// Time limit of connecting to a program that may listen where this one is to listen.
const CONNECTING: Duration = Duration::from_secs(1);

/// The words before a path in a configuration, and in `DOCKER_HOST`.
pub const SCHEME: &str = "unix";

/// What to say of an endpoint that is none.
pub const NEITHER: &str = "it is neither unix:PATH, an absolute path nor tcp:ADDRESS:PORT";

/// An example of an endpoint's path.
pub const EXAMPLE: &str = "unix:/home/me/docker.sock";

/// Where a tunnel's endpoint for docker is, in the runtime directory `dir`.
pub fn endpoint_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

/// Where a tunnel's control endpoint is, in the runtime directory `dir`.
pub fn control_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.ctl"))
}

/// The end of the name of a file in the runtime directory that a tunnel has.
pub const MARK: &str = ".ctl";

/// A path as `DOCKER_HOST` wants it.
pub fn docker_host(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// The path in `text`, which followed the scheme `unix:`: one with `//` is an URL's.
///
/// # Errors
/// What is wrong with it.
pub fn path_in(text: &str) -> Result<PathBuf, &'static str> {
    let path = text.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(text);
    if path.chars().any(char::is_control) {
        return Err("the path holds control characters");
    }
    // Clients read it out of a URL. Go's net/url refuses `%` without two digits, and java.net.URI takes it with
    // them for another character; docker-py takes what is behind `?` and `#` for no part of the path.
    if path.contains(['%', '?', '#']) {
        return Err("Docker's clients could not find it: %, ? and # have a meaning in unix:// addresses");
    }
    let path = PathBuf::from(path);
    if !path.is_absolute() || path.file_name().is_none() {
        return Err("the path is not absolute");
    }
    Ok(path)
}

/// Connects to the socket at `path`.
///
/// connect(2) blocks without limit while the listener's backlog (listen(2)) is full, as with a stopped process. On
/// Linux it keeps to SO_SNDTIMEO (unix(7) does not say so; `unix_stream_connect` in the kernel does); other systems
/// refuse such a connection at once.
///
/// # Errors
/// What the system says: NotFound and ConnectionRefused where nobody listens, TimedOut after `limit`.
pub fn connect_within(path: &Path, limit: Duration) -> io::Result<BlockingStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(limit))?;
    socket.connect(&SockAddr::unix(path)?).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, "the program that listens there accepts no connections")
        }
        _ => e,
    })?;
    socket.set_write_timeout(None)?;
    Ok(BlockingStream::from(OwnedFd::from(socket)))
}

/// Who made the connection, or accepts those on its socket (SO_PEERCRED in unix(7); getpeereid(3) on other systems).
///
/// # Errors
/// What the system says.
pub fn peer(stream: &impl AsFd) -> io::Result<Peer> {
    crate::os::peer_of(stream)
}

/// A socket file created by dtunnel. Dropping it removes the file, unless another has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(meta) = fs::symlink_metadata(&self.path)
            && (meta.dev(), meta.ino()) == (self.device, self.inode)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a Unix socket that has mode 0600 from its creation.
///
/// # Errors
/// AddrInUse if a program listens there, AlreadyExists if the file is not a socket.
pub fn bind_private(path: &Path) -> io::Result<(BlockingListener, SocketFile)> {
    remove_stale(path)?;
    // The process's umask sets a new socket's mode (unix(7)); a chmod afterwards would leave a window.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = BlockingListener::bind(path);
    rustix::process::umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    let meta = fs::symlink_metadata(path)?;
    Ok((listener, SocketFile { path: path.into(), device: meta.dev(), inode: meta.ino() }))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
    }
    match connect_within(path, CONNECTING) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() != io::ErrorKind::TimedOut => Err(e),
        Ok(_) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
}

/// What is at the place of an endpoint.
#[derive(Debug)]
pub enum Place {
    /// Nothing.
    Free,
    /// Something else, that is not to be replaced.
    Foreign,
    /// The socket of this other user.
    OfUser(user::Id),
    /// One at which a program listens: its name and process id are found by the connection.
    Listens(BlockingStream),
    /// One at which a program listens that accepts no connections.
    Busy,
    /// One that a program has left behind.
    LeftOver,
}

/// Looks at the place of an endpoint; a program that listens there has `limit` to accept a connection.
pub fn look(path: &Path, limit: Duration) -> Place {
    let Ok(meta) = fs::symlink_metadata(path) else { return Place::Free };
    if !meta.file_type().is_socket() {
        return Place::Foreign;
    }
    if meta.uid() != user::id() {
        return Place::OfUser(meta.uid());
    }
    match connect_within(path, limit) {
        Ok(stream) => Place::Listens(stream),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Place::Busy,
        Err(_) => Place::LeftOver,
    }
}

/// The mode of the endpoint at `path`, if it was changed so that others may open it.
pub fn open_to_others(path: &Path) -> Option<u32> {
    let meta = fs::symlink_metadata(path).ok()?;
    (meta.mode() & 0o077 != 0).then(|| meta.mode() & 0o7777)
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
        let (one, _two) = BlockingStream::pair().expect("a pair");
        let found = peer(&one).expect("known");
        assert_eq!(found.uid, rustix::process::getuid().as_raw());
        assert!(found.is_this_user());
        let others = Peer { uid: found.uid + 1, pid: None };
        assert!(!others.is_this_user());
        assert!(found.pid.is_none_or(|pid| pid == std::process::id()));
    }
}
