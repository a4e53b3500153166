//! The local endpoint: private from its creation, removed at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use super::error_answer::{answer, error_body};
use crate::config::{LocalEndpoint, check_socket_place};
use crate::os::inherited::{self, Inherited};
use crate::os::local::{self, SocketFile, bind_private};
use crate::os::local_stream::LocalStream;
use crate::os::{Whose, tcp_clients, tcp_listener, user};
use crate::sync::lock;
use crate::tunnel::client::turned_away::TurnedAway;
use crate::tunnel::error::Error;

/// Pause after a failed accept, most likely for lack of file descriptors.
pub(in crate::tunnel) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limit of clients that wait to be accepted. The system may have a lower one (net.core.somaxconn).
pub(in crate::tunnel) const BACKLOG: u32 = 1024;

/// Limit of clients of other users that are answered with a 403 at a time; more are closed without an answer.
const MOST_TURNED_AWAY: usize = 16;
/// Time limit of such an answer.
const TURNING_AWAY: Duration = Duration::from_secs(2);
/// Limit of bytes read of their requests.
const MOST_UNREAD: u64 = 64 << 10;

/// The open local endpoint. Dropping it closes it and removes its socket file.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    endpoint: LocalEndpoint,
    /// Tasks that answer clients of other users; aborted with the listener.
    answering: Mutex<JoinSet<()>>,
    turned_away: TurnedAway,
}

#[derive(Debug)]
enum Kind {
    /// None if the service manager owns the socket file.
    Local {
        listener: local::Listener,
        _file: Option<SocketFile>,
    },
    Tcp(TcpListener),
}

impl Listener {
    fn new(kind: Kind, endpoint: LocalEndpoint) -> Self {
        Self { kind, endpoint, answering: Mutex::default(), turned_away: TurnedAway::new("") }
    }

    /// Opens the endpoint. Replaces a stale socket file, but no socket on which a program listens and no other file.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn bind(endpoint: &LocalEndpoint) -> Result<Self, Error> {
        let failed = |source| Error::Listen { endpoint: endpoint.clone(), source };
        match endpoint {
            LocalEndpoint::Unix(path) => {
                check_socket_place(path).map_err(|e| failed(io::Error::other(e)))?;
                let (listener, file) = bind_private(path).map_err(failed)?;
                let listener = local::Listener::from_std(listener).map_err(failed)?;
                Ok(Self::new(Kind::Local { listener, _file: Some(file) }, endpoint.clone()))
            }
            LocalEndpoint::Tcp(address) => {
                tcp_clients::are_told_apart().map_err(failed)?;
                let listener = bind_tcp(*address).map_err(failed)?;
                let endpoint = LocalEndpoint::Tcp(listener.local_addr().map_err(failed)?);
                Ok(Self::new(Kind::Tcp(listener), endpoint))
            }
        }
    }

    /// Takes over an endpoint opened by a service manager (sd_listen_fds(3)), which keeps the socket file.
    ///
    /// # Errors
    /// [`Error::Listen`], also for a TCP port that others can reach.
    pub fn inherit(inherited: Inherited, expected: &LocalEndpoint) -> Result<Self, Error> {
        let failed = |source| Error::Listen { endpoint: expected.clone(), source };
        match inherited {
            Inherited::Local(listener) => {
                let (path, listener) = inherited::adopt(listener).map_err(failed)?;
                check_socket_place(&path).map_err(|e| failed(io::Error::other(e)))?;
                Ok(Self::new(Kind::Local { listener, _file: None }, LocalEndpoint::Unix(path)))
            }
            Inherited::Tcp(listener) => {
                tcp_clients::are_told_apart().map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                if !address.ip().is_loopback() {
                    let reason = format!("others can reach {address}, which the service manager passed");
                    return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, reason)));
                }
                let listener = TcpListener::from_std(listener).map_err(failed)?;
                Ok(Self::new(Kind::Tcp(listener), LocalEndpoint::Tcp(address)))
            }
        }
    }

    /// The endpoint. A TCP port of 0 is replaced by the assigned one.
    pub fn endpoint(&self) -> &LocalEndpoint {
        &self.endpoint
    }

    /// The paths by which a program may name its socket; none if it has none.
    pub(in crate::tunnel) fn paths(&self) -> Vec<String> {
        let LocalEndpoint::Unix(path) = &self.endpoint else { return Vec::new() };
        let resolved = path.canonicalize().ok().filter(|resolved| resolved != path);
        [path.clone()].into_iter().chain(resolved).filter_map(|path| path.to_str().map(str::to_owned)).collect()
    }

    /// Returns the next client of this user, and rejects those of others. Cancel safe.
    pub(in crate::tunnel) async fn accept(&self) -> LocalStream {
        loop {
            match self.try_accept().await {
                Ok(Ok(stream)) => return stream,
                Ok(Err(whose)) => self.turned_away.add(whose),
                Err(e) => {
                    tracing::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The inner error is that the next client is not this user's.
    async fn try_accept(&self) -> io::Result<Result<LocalStream, Whose>> {
        match &self.kind {
            Kind::Local { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                if local::peer(&stream)?.is_this_user() {
                    return LocalStream::local(stream).map(Ok);
                }
                self.turn_away(stream);
                Ok(Err(Whose::AnotherUsers))
            }
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let whose = tcp_clients::whose(&stream)?;
                match whose {
                    Whose::ThisUsers => return LocalStream::tcp(stream).map(Ok),
                    Whose::AnotherUsers => self.turn_away(stream),
                    // It is gone.
                    Whose::Unknown => {}
                }
                Ok(Err(whose))
            }
        }
    }
}

impl Listener {
    /// Answers a client of another user with the reason, in a separate task, if it speaks HTTP.
    fn turn_away(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let mut clients = lock(&self.answering);
        while clients.try_join_next().is_some() {}
        if clients.len() < MOST_TURNED_AWAY {
            clients.spawn(async move {
                // Failures are ignored: the client is rejected in any case.
                let _ = tokio::time::timeout(TURNING_AWAY, refuse(stream)).await;
            });
        }
    }
}

/// Answers a request with 403. Reads the whole request: a socket closed with unread bytes resets the connection, and
/// the answer would be lost.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut head = Vec::new();
    let mut reader = BufReader::new(&mut stream).take(MOST_UNREAD);
    loop {
        let before = head.len();
        let read = reader.read_until(b'\n', &mut head).await?;
        if read == 0 {
            return Ok(());
        }
        if matches!(&head[before..], b"\r\n" | b"\n") {
            break;
        }
    }
    let uid = user::id();
    let message = format!("this tunnel of dtunnel belongs to uid {uid} and serves no other user, root included");
    let body = if head.starts_with(b"HEAD ") { String::new() } else { error_body(&message) };
    stream.write_all(answer("403 Forbidden", &body, true).as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(MOST_UNREAD), &mut tokio::io::sink()).await.map(drop)
}

/// Listens at this address.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    claim_tcp(address)?.listen(BACKLOG)
}

/// Takes this address without listening at it yet. An IPv6 address is for IPv6 only, `::` too: the IPv4 address of the
/// same number is taken or left by itself.
pub(in crate::tunnel) fn claim_tcp(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            SockRef::from(&socket).set_only_v6(true)?;
            socket
        }
    };
    tcp_listener::claim_alone(&socket)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::fs;
    #[cfg(unix)]
    use std::os::unix::fs::MetadataExt;
    #[cfg(unix)]
    use std::os::unix::net::UnixListener as StdUnixListener;

    #[cfg(unix)]
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.sock");
        drop(StdUnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a stale socket stays behind");
        let endpoint = LocalEndpoint::Unix(path.clone());
        let listener = Listener::bind(&endpoint).expect("replaced");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
        assert!(matches!(Listener::bind(&endpoint), Err(Error::Listen { .. })), "somebody listens");
        drop(listener);
        assert!(!path.exists(), "removed at the end");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(Listener::bind(&endpoint), Err(Error::Listen { .. })), "a file is no socket");
        assert_eq!(fs::read(&path).expect("there"), b"precious");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_socket_that_somebody_replaced_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.sock");
        let listener = Listener::bind(&LocalEndpoint::Unix(path.clone())).expect("bound");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "another's").expect("written");
        drop(listener);
        assert!(path.exists());
    }
}
