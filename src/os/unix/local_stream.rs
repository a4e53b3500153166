//! An accepted connection: read, written, closed or reset.
//!
//! A truncated download must look truncated. TCP has a reset for that. A Unix socket's peer sees a reset (ECONNRESET)
//! only if the other end is closed with unread bytes in its receive queue (not in unix(7), but `unix_release_sock` in
//! Linux does it). So the last byte of the client's data is forwarded but left in the receive queue until more
//! arrives: closing then resets, and [`LocalStream::finish`] takes the byte out first. On systems other than Linux
//! such a reset looks like a regular end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::{dup, ioctl_fionread};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown, sockopt};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// Limit of a read, in bytes. Two of a channel's 32 KiB packets: larger reads would only wait
/// longer for the server's window.
const MAX_READ: usize = 64 << 10;

/// A local client's connection.
#[derive(Debug)]
pub enum LocalStream {
    /// Over the local endpoint.
    Unix {
        /// The socket.
        stream: UnixStream,
        /// Whether the first byte of the receive queue was already returned. Written only by the one reader.
        held: AtomicBool,
    },
    /// Over TCP.
    Tcp(TcpStream),
}

impl LocalStream {
    /// Wraps a connection to the local endpoint.
    pub fn local(stream: UnixStream) -> Self {
        Self::Unix { stream, held: AtomicBool::new(false) }
    }

    /// Wraps a TCP connection and turns Nagle's algorithm off.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Registers the stream with the current runtime.
    ///
    /// # Errors
    /// The system's error, most likely for lack of descriptors or memory.
    pub fn move_here(self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix { stream, held } => Self::Unix { stream: UnixStream::from_std(stream.into_std()?)?, held },
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
        })
    }

    /// Whether it came over TCP.
    pub fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// The process id of the client, where the system tells it. Not over TCP.
    pub fn peer_pid(&self) -> Option<u32> {
        let Self::Unix { stream, .. } = self else { return None };
        stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok())
    }

    /// The addresses of client and server; None where it is not TCP.
    pub fn tcp_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Self::Tcp(stream) = self else { return None };
        Some((stream.peer_addr().ok()?, stream.local_addr().ok()?))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { stream, .. } => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }

    /// The next bytes; empty at the end of the stream. Cancel safe; one reader at a time.
    pub async fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::Tcp(stream) => loop {
                stream.readable().await?;
                let mut buffer = Vec::with_capacity(MAX_READ);
                match stream.try_read_buf(&mut buffer) {
                    Ok(_) => return Ok(buffer.into()),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            },
            Self::Unix { stream, held } => loop {
                let ready = stream.ready(Interest::READABLE).await?;
                // The end is checked before the queue is read: after the end no more bytes arrive.
                let ended = ready.is_read_closed();
                let mut read = Ok(None);
                let _ = stream.try_io(Interest::READABLE, || {
                    read = read_all_but_one(stream.as_fd(), held, ended);
                    // Where nothing is left the next `ready` waits for a change, without asking the system once more.
                    let may_have_more = matches!(read, Ok(Some((_, false))) | Err(_));
                    if may_have_more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
                });
                match read {
                    Ok(Some((bytes, _))) => return Ok(bytes),
                    Ok(None) => {}
                    Err(e) => return Err(e),
                }
            },
        }
    }

    /// Writes at least one byte of `data`, which is not empty. Cancel safe.
    pub async fn write_some(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            let written = match self {
                Self::Unix { stream, .. } => stream.try_write(data),
                Self::Tcp(stream) => stream.try_write(data),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self {
                    Self::Unix { stream, .. } => stream.writable().await?,
                    Self::Tcp(stream) => stream.writable().await?,
                },
                Err(e) => return Err(e),
            }
        }
    }

    /// Writes all of `data`.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written = self.write_some(data).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Closes the sending direction; receiving continues.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(shutdown(self.fd(), Shutdown::Write)?)
    }

    /// Waits until the client has closed both directions. Uses a second descriptor, since clearing its
    /// readiness must not affect a writer.
    pub async fn gone(&self) -> io::Result<()> {
        self.watched()?.gone().await
    }

    /// A handle that sees the client's end while another task owns the stream.
    ///
    /// # Errors
    /// The system's error, most likely for lack of descriptors.
    pub fn watched(&self) -> io::Result<Watched> {
        // Only its readiness is used, so any socket family fits.
        Ok(Watched(UnixStream::from_std(dup(self.fd())?.into())?))
    }

    /// Closes after a regular end of both directions.
    pub fn finish(self) {
        if let Self::Unix { stream, held } = &self
            && held.load(Relaxed)
        {
            let _ = recv(stream, &mut [0_u8; 1], RecvFlags::DONTWAIT);
        }
    }

    /// Closes so that the client sees a reset. On a Unix socket that requires that the client has sent any data.
    pub fn reset(self) {
        if let Self::Tcp(stream) = &self {
            let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

/// A second descriptor of a connection.
pub struct Watched(UnixStream);

impl Watched {
    /// As [`LocalStream::gone`].
    pub async fn gone(&self) -> io::Result<()> {
        loop {
            if self.0.ready(Interest::WRITABLE).await?.is_write_closed() {
                return Ok(());
            }
            // No data is written: this makes the next `ready` wait for a change.
            let _ = self.0.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// Reads the queue but leaves the last byte there; see the module's comment. Tells whether that was all there was. None:
/// there is nothing new in the queue.
fn read_all_but_one(fd: BorrowedFd<'_>, held: &AtomicBool, ended: bool) -> io::Result<Option<(Bytes, bool)>> {
    let queued = usize::try_from(ioctl_fionread(fd)?).unwrap_or(usize::MAX);
    let old = usize::from(held.load(Relaxed));
    if queued <= old {
        if !ended {
            return Ok(None);
        }
        // A reset is not an end. A dtunnel peer also resets in this way.
        return sockopt::socket_error(fd)?.map(|()| Some((Bytes::new(), false))).map_err(Into::into);
    }
    let more_than_fits = queued > MAX_READ;
    let take = if more_than_fits { MAX_READ } else { queued - 1 };
    let mut buffer = vec![0; take + 1];
    if take > 0 {
        let (read, _) = recv(fd, &mut buffer[..take], RecvFlags::DONTWAIT)?;
        if more_than_fits || read < take {
            // The rest of the queue suffices for a reset.
            held.store(false, Relaxed);
            buffer.truncate(read);
            return Ok(Some((Bytes::from(buffer).slice(old..), false)));
        }
    }
    recv(fd, &mut buffer[take..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    held.store(true, Relaxed);
    Ok(Some((Bytes::from(buffer).slice(old..), true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Client;

    fn pair() -> (LocalStream, Client) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let theirs = theirs.into_std().expect("std");
        theirs.set_nonblocking(false).expect("blocking");
        (LocalStream::local(ours), theirs)
    }

    async fn read_some(local: &LocalStream) -> Vec<u8> {
        local.read().await.expect("readable").to_vec()
    }

    #[tokio::test]
    async fn every_byte_arrives_once_whatever_the_sizes() {
        let (local, mut client) = pair();
        let sizes = [1, 1, 2, 3, 70_000, 1, MAX_READ, MAX_READ + 1, 200_000, 5];
        let data: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let writer = std::thread::spawn(move || {
            let mut rest = sent.as_slice();
            for size in sizes {
                client.write_all(&rest[..size]).expect("written");
                rest = &rest[size..];
            }
            client.shutdown(std::net::Shutdown::Write).expect("ended");
            client
        });
        let mut received = Vec::new();
        loop {
            let piece = read_some(&local).await;
            if piece.is_empty() {
                break;
            }
            received.extend(piece);
        }
        assert!(received == data, "{} of {} bytes, or other ones", received.len(), data.len());
        assert!(read_some(&local).await.is_empty(), "the end stays the end");
        drop(writer.join().expect("joined"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_reset_is_seen_as_one_and_an_end_as_an_end() {
        for half_closed in [false, true] {
            for cut in [true, false] {
                let (local, mut client) = pair();
                client.write_all(b"GET").expect("written");
                assert_eq!(read_some(&local).await, b"GET");
                if half_closed {
                    client.shutdown(std::net::Shutdown::Write).expect("ended");
                    assert!(read_some(&local).await.is_empty());
                }
                assert_eq!(local.write_some(b"data").await.expect("written"), 4);
                if cut {
                    local.reset()
                } else {
                    local.finish()
                }
                let mut received = Vec::new();
                let result = client.read_to_end(&mut received);
                assert_eq!(received, b"data", "what was sent before arrives");
                assert_eq!(result.is_err(), cut, "half_closed {half_closed}: {result:?}");
            }
        }
    }

    /// As between a guard and its client's flow.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_cut_at_the_far_end_of_a_pair_is_no_end() {
        for data in [&b""[..], b"some"] {
            for cut in [true, false] {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                let (ours, theirs) = (LocalStream::local(ours), LocalStream::local(theirs));
                assert_eq!(ours.write_some(b"GET").await.expect("written"), 3);
                assert_eq!(read_some(&theirs).await, b"GET");
                if !data.is_empty() {
                    assert_eq!(theirs.write_some(data).await.expect("written"), data.len());
                    assert_eq!(read_some(&ours).await, data);
                }
                if cut {
                    theirs.reset()
                } else {
                    theirs.finish()
                }
                let read = ours.read().await;
                assert_eq!(read.is_err(), cut, "{read:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_only_stops_sending_is_not_gone() {
        let (local, client) = pair();
        client.shutdown(std::net::Shutdown::Write).expect("ended");
        assert!(read_some(&local).await.is_empty());
        let gone = local.gone();
        tokio::pin!(gone);
        for _ in 0..10 {
            tokio::select! {
                biased;
                _ = &mut gone => panic!("half-closed is not gone"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(client);
        gone.await.expect("gone");
    }
}
