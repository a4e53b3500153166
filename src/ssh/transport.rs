//! The TCP connection under an SSH connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::error::{Error, TurnedAway};
use crate::config::{AddressFamily, SshSettings, Target};
use crate::os;
use crate::sync::lock;
use crate::text;

/// Head start of an address before the next one is tried (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Pause between connection attempts, as in ssh.
const ATTEMPTS_PAUSE: Duration = Duration::from_secs(1);

/// Connects to the first of the host's addresses that accepts. Repeated as set by ConnectionAttempts.
///
/// # Errors
/// [`Error::Resolve`], [`Error::Connect`].
pub(super) async fn tcp(target: &Target) -> Result<(BufReader<Tcp>, Greeting), Error> {
    let ssh = &target.ssh;
    let mut attempt = 1;
    loop {
        match tcp_once(ssh).await {
            Ok((stream, round_trip)) => {
                // As long as keepalives may go unanswered: on a dead link with a full send buffer they would not even be
                // sent.
                if let Some(limit) = target.silence() {
                    os::tcp::limit_silence(&stream, limit);
                }
                let greeting = Greeting::default();
                let acknowledger = os::tcp::Acknowledger::of(&stream);
                let stream = Tcp { stream, acknowledger, round_trip, burst: 0, greeting: Some(greeting.clone()) };
                return Ok((BufReader::with_capacity(READ_BUFFER, stream), greeting));
            }
            Err(error) if attempt >= ssh.connection_attempts => return Err(error),
            Err(error) => tracing::info!("{error}; trying again"),
        }
        attempt += 1;
        tokio::time::sleep(ATTEMPTS_PAUSE).await;
    }
}

/// The first bytes received from the server.
#[derive(Clone, Default)]
pub(super) struct Greeting(Arc<Mutex<Vec<u8>>>);

impl Greeting {
    /// The error if the server has sent no identification line (RFC 4253 section 4.2); None if it has.
    pub(super) fn refusal(&self, host: &str, port: u16) -> Option<Error> {
        let text = lock(&self.0);
        (!text.windows(4).any(|part| part == b"SSH-")).then(|| no_greeting(host, port, &text))
    }

    fn note(&self, bytes: &[u8]) {
        let mut text = lock(&self.0);
        let room = MAX_GREETING - text.len();
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// The error for a server that sent `said` in place of an SSH identification line.
pub(crate) fn no_greeting(host: &str, port: u16, said: &[u8]) -> Error {
    let what = match said {
        [b'H', b'T', b'T', b'P', b'/', ..] => Some("an HTTP server"),
        // A TLS record: alert or handshake, version 3.x (RFC 8446 section 5.1).
        [0x15 | 0x16, 3, ..] => Some("a TLS server"),
        [b'2', b'2', b'0', b' ' | b'-', ..] => Some("a mail or FTP server"),
        [b'*', b' ', b'O', b'K', ..] | [b'+', b'O', b'K', ..] => Some("a mail server"),
        [b'R', b'F', b'B', b' ', ..] => Some("a VNC server"),
        _ => None,
    };
    let (host, message) = (host.to_owned(), text::shown_at_most(&String::from_utf8_lossy(said), MAX_GREETING));
    if let Some(what) = what {
        let message = if said.is_ascii() { message } else { String::new() };
        return Error::NotSsh { host, port, what, message };
    }
    // The text of sshd (MAXSTARTUPS in sshd.c).
    let why = match message.as_str() {
        "" => TurnedAway::Silent,
        words if words.contains("Exceeded MaxStartups") => TurnedAway::TooBusy,
        _ => TurnedAway::Other,
    };
    Error::TurnedAway { host, message, why }
}

/// Returns the connection and the duration of the successful attempt.
async fn tcp_once(ssh: &SshSettings) -> Result<(TcpStream, Duration), Error> {
    let (host, port) = (&ssh.host_name, ssh.port);
    let resolve = |source| Error::Resolve { host: host.clone(), source };
    let wanted = |address: &SocketAddr| match ssh.address_family {
        AddressFamily::Any => true,
        AddressFamily::Inet => address.is_ipv4(),
        AddressFamily::Inet6 => address.is_ipv6(),
    };
    let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(resolve)?;
    let mut addresses: Vec<SocketAddr> = found.filter(wanted).collect();
    let failed = |source| Error::Connect { host: host.clone(), port, source };
    let mut from = None;
    if let Some(bind) = &ssh.bind_address {
        let mut own = tokio::net::lookup_host((bind.as_str(), 0)).await.map_err(failed)?;
        from = own.next();
        // A BindAddress can connect only to its own address family.
        addresses.retain(|address| from.is_none_or(|from| from.is_ipv4() == address.is_ipv4()));
    }
    let (stream, round_trip) = race(interleave(addresses), from).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok((stream, round_trip))
}

async fn connect(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<(TcpStream, Duration)> {
    let began = Instant::now();
    let stream = match from {
        None => TcpStream::connect(to).await?,
        Some(from) => {
            let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind(from)?;
            socket.connect(to).await?
        }
    };
    Ok((stream, began.elapsed()))
}

/// Alternates between the address families, beginning with that of the resolver's first choice (RFC 8305 section 4).
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut a, mut b): (VecDeque<_>, VecDeque<_>) = addresses.into_iter().partition(|x| x.is_ipv6() == first_is_v6);
    let mut mixed = VecDeque::new();
    while !(a.is_empty() && b.is_empty()) {
        mixed.extend(a.pop_front());
        mixed.extend(b.pop_front());
    }
    mixed
}

/// Starts a connection attempt to each address in turn, each a little later than the previous one. The
/// first success cancels the others.
async fn race(mut addresses: VecDeque<SocketAddr>, from: Option<SocketAddr>) -> io::Result<(TcpStream, Duration)> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    let mut attempts = JoinSet::new();
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.spawn(connect(address, from));
        }
        tokio::select! {
            joined = attempts.join_next() => match joined {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(e))) => last = e,
                Some(Err(e)) => last = io::Error::other(e),
                None => return Err(last),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if !addresses.is_empty() => {}
        }
    }
}

/// A TCP connection that acknowledges small packets at once and yields to other tasks.
///
/// sshd leaves Nagle's algorithm on: its next small packet waits for the acknowledgement of the previous one, which
/// would come 40 ms late. Acknowledging at once does not last, and is requested again after each small read.
///
/// A session that always finds more to read would occupy the thread for as long as tokio allows, which with 32 KiB
/// packets is some 4 MB of decryption. Another connection would wait that long for a single byte.
pub(super) struct Tcp {
    stream: TcpStream,
    acknowledger: os::tcp::Acknowledger,
    /// The duration of the connection attempt.
    round_trip: Duration,
    /// Filled by the first read.
    greeting: Option<Greeting>,
    /// Bytes read since the task last yielded.
    burst: usize,
}

impl Tcp {
    /// The duration of the TCP handshake (RFC 9293 section 3.5).
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// The local and the remote address.
    pub(super) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Some((canonical(self.stream.local_addr().ok()?), canonical(self.stream.peer_addr().ok()?)))
    }
}

/// Limit of stored bytes of a server's first data.
const MAX_GREETING: usize = 256;
/// Bytes per read from the system. russh reads each packet in two pieces.
const READ_BUFFER: usize = 128 << 10;
/// Reads of at least this many bytes are bulk data, whose acknowledgement is not urgent.
const BULK: usize = 16 << 10;
/// Bytes read in a row before the task yields: about 0.3 ms of work.
const BURST: usize = 256 << 10;

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.burst >= BURST {
            self.burst = 0;
            // A thread that always has something to read may not pause for long.
            os::pauses::without_pause();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0
            && let Some(greeting) = self.greeting.take()
        {
            greeting.note(&buf.filled()[before..]);
        }
        self.burst = if polled.is_ready() { self.burst + read } else { 0 };
        if polled.is_ready() && read < BULK {
            self.acknowledger.acknowledge();
        }
        polled
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns() {
        let parse =
            |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|a| a.parse().expect("an address")).collect() };
        let mixed = interleave(parse(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]));
        assert_eq!(Vec::from(mixed), parse(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]));
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_stop_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let here = listener.local_addr().expect("its address");
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let refused = closed.local_addr().expect("its address");
        drop(closed);
        let (stream, _) = race(VecDeque::from([refused, here]), None).await.expect("the second one accepts");
        assert_eq!(stream.peer_addr().expect("a peer"), here);
        let error = race(VecDeque::from([refused]), None).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
