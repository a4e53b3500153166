//! An accepted connection: read, written, closed or reset.
//!
//! A truncated download must look truncated. TCP has a reset for that. A Unix socket's peer sees a reset (ECONNRESET)
//! only if the other end is closed with unread bytes in its receive queue (not in unix(7), but `unix_release_sock` in
//! Linux does it). So the last byte of the client's data is forwarded but left in the receive queue until more
//! arrives: closing then resets, and [`LocalStream::finish`] takes the byte out first. On systems other than Linux
//! such a reset looks like a regular end.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::{Errno, dup, ioctl_fionread};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, Shutdown, recv, recvmsg, send, shutdown, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::local::Stream;
use super::readiness::registered;
use crate::os::peer_of;

/// Limit of a read, in bytes. Two of a channel's 32 KiB packets: larger reads would only wait
/// longer for the server's window.
const MAX_READ: usize = 64 << 10;
/// Limit of what is read by looking first, in bytes.
const SHORT: usize = 2 << 10;

/// A local client's connection.
#[derive(Debug)]
pub struct LocalStream(Kind);

#[derive(Debug)]
enum Kind {
    /// Over the local endpoint.
    Unix {
        /// Tells only what can be read: a Unix socket tells whenever its peer has read that it can be written to, which
        /// is after each small answer.
        stream: AsyncFd<OwnedFd>,
        /// Tells what can be written, once a write had to wait.
        writable: OnceLock<Box<AsyncFd<OwnedFd>>>,
        /// Whether the first byte of the receive queue was already returned. Written only by the one reader.
        held: AtomicBool,
    },
    Tcp(TcpStream),
}

impl LocalStream {
    /// Wraps a connection to the local endpoint.
    ///
    /// # Errors
    /// The system's error, most likely for lack of memory.
    pub fn local(stream: Stream) -> io::Result<Self> {
        Self::unix(stream.into_std()?.into(), AtomicBool::new(false))
    }

    fn unix(stream: OwnedFd, held: AtomicBool) -> io::Result<Self> {
        let stream = registered(stream, Interest::READABLE)?;
        Ok(Self(Kind::Unix { stream, writable: OnceLock::new(), held }))
    }

    /// Wraps a TCP connection and turns Nagle's algorithm off.
    ///
    /// # Errors
    /// The system's error.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(Kind::Tcp(stream)))
    }

    /// Registers the stream with the current runtime.
    ///
    /// # Errors
    /// The system's error, most likely for lack of descriptors or memory.
    pub fn move_here(self) -> io::Result<Self> {
        match self.0 {
            Kind::Unix { stream, held, .. } => Self::unix(stream.into_inner(), held),
            Kind::Tcp(stream) => Ok(Self(Kind::Tcp(TcpStream::from_std(stream.into_std()?)?))),
        }
    }

    /// Whether it came over TCP.
    pub fn is_tcp(&self) -> bool {
        matches!(self.0, Kind::Tcp(_))
    }

    /// The process id of the client, where the system tells it. Not over TCP.
    pub fn peer_pid(&self) -> Option<u32> {
        let Kind::Unix { stream, .. } = &self.0 else { return None };
        peer_of(stream).ok()?.pid
    }

    /// The addresses of client and server; None where it is not TCP.
    pub fn tcp_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Kind::Tcp(stream) = &self.0 else { return None };
        Some((stream.peer_addr().ok()?, stream.local_addr().ok()?))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Unix { stream, .. } => stream.as_fd(),
            Kind::Tcp(stream) => stream.as_fd(),
        }
    }

    /// The next bytes; empty at the end of the stream. Cancel safe; one reader at a time.
    pub async fn read(&self) -> io::Result<Bytes> {
        match &self.0 {
            Kind::Tcp(stream) => loop {
                stream.readable().await?;
                let mut buffer = Vec::with_capacity(MAX_READ);
                match stream.try_read_buf(&mut buffer) {
                    Ok(_) => return Ok(buffer.into()),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            },
            Kind::Unix { stream, held, .. } => loop {
                let mut ready = stream.readable().await?;
                // The end is checked before the queue is read: after the end no more bytes arrive.
                let ended = ready.ready().is_read_closed();
                let read = read_all_but_one(stream.as_fd(), held, ended);
                // Where nothing is left the next `readable` waits for a change, without asking the system once more.
                if matches!(read, Ok(None | Some((_, true)))) {
                    ready.clear_ready();
                }
                if let Some((bytes, _)) = read? {
                    return Ok(bytes);
                }
            },
        }
    }

    /// Writes what the system takes now of `data`, which is not empty.
    ///
    /// # Errors
    /// The system's error, or WouldBlock.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        let written = match &self.0 {
            Kind::Unix { stream, writable, .. } => {
                let write = || Ok(send(stream, data, SendFlags::empty())?);
                match writable.get() {
                    Some(writable) => writable.try_io(Interest::WRITABLE, |_| write()),
                    None => write(),
                }
            }
            Kind::Tcp(stream) => stream.try_write(data),
        };
        if matches!(written, Ok(0)) { Err(io::ErrorKind::WriteZero.into()) } else { written }
    }

    /// Writes at least one byte of `data`, which is not empty. Cancel safe.
    pub async fn write_some(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            match self.try_write(data) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.until_writable().await?,
                written => return written,
            }
        }
    }

    /// Waits until a write that was refused may be tried again.
    async fn until_writable(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(stream) => stream.writable().await,
            Kind::Unix { stream, writable, .. } => match writable.get() {
                Some(writable) => writable.writable().await.map(|mut ready| ready.retain_ready()),
                // What is registered now is told how it is now.
                None => {
                    let second = Box::new(registered(dup(stream)?, Interest::WRITABLE)?);
                    writable.get_or_init(|| second);
                    Ok(())
                }
            },
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

    /// Waits until the client has closed both directions.
    ///
    /// # Errors
    /// The system's error, most likely for lack of descriptors.
    pub async fn gone(&self) -> io::Result<()> {
        match &self.0 {
            // That both directions are closed is told with whatever was asked for (EPOLLHUP in epoll_ctl(2)).
            Kind::Unix { stream, .. } if cfg!(target_os = "linux") => closed(stream).await,
            // By a second descriptor: clearing its readiness must not affect a writer. On the heap: a client's task has no
            // memory for it.
            _ => Box::pin(async { closed(&registered(dup(self.fd())?, Interest::WRITABLE)?).await }).await,
        }
    }

    /// Closes after a regular end of both directions.
    pub fn finish(self) {
        if let Kind::Unix { stream, held, .. } = &self.0
            && held.load(Relaxed)
        {
            let _ = recv(stream, &mut [0_u8; 1], RecvFlags::DONTWAIT);
        }
    }

    /// Closes so that the client sees a reset. On a Unix socket that requires that the client has sent any data.
    pub fn reset(self) {
        if let Kind::Tcp(stream) = &self.0 {
            let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

/// Waits until the client has closed both directions of this descriptor, which has no writer.
async fn closed(watched: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = watched.ready(Interest::WRITABLE).await?;
        if ready.ready().is_write_closed() {
            return Ok(());
        }
        // The next one waits for a change.
        ready.clear_ready();
    }
}

/// Reads the queue but leaves the last byte there; see the module's comment. Tells whether that was all there was. None:
/// there is nothing new in the queue.
fn read_all_but_one(fd: BorrowedFd<'_>, held: &AtomicBool, ended: bool) -> io::Result<Option<(Bytes, bool)>> {
    let old = usize::from(held.load(Relaxed));
    // Most of what clients send is short: then this tells how much there is, and has it.
    let mut buffer = [0; SHORT];
    let mut pieces = [IoSliceMut::new(&mut buffer)];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (queued, is_all) = match recvmsg(fd, &mut pieces, &mut RecvAncillaryBuffer::default(), flags) {
        Err(Errno::AGAIN) => (0, true),
        // A look ends behind bytes that came with descriptors (unix(7)), which nobody here takes.
        looked => looked.map(|looked| (looked.bytes, !looked.flags.contains(ReturnFlags::CTRUNC)))?,
    };
    if (queued == SHORT || !is_all)
        && let Some(read) = read_many(fd, held)?
    {
        return Ok(Some(read));
    }
    if queued <= old {
        if !ended {
            return Ok(None);
        }
        // A reset is not an end. A dtunnel peer also resets in this way.
        return sockopt::socket_error(fd)?.map(|()| Some((Bytes::new(), false))).map_err(Into::into);
    }
    if queued > 1 {
        // The same bytes once more.
        recv(fd, &mut buffer[..queued - 1], RecvFlags::DONTWAIT)?;
    }
    held.store(true, Relaxed);
    // No larger than it is: it may wait for its channel, beside thousands of others.
    Ok(Some((Bytes::copy_from_slice(&buffer[old..queued]), true)))
}

/// As [`read_all_but_one`], where there is something.
fn read_many(fd: BorrowedFd<'_>, held: &AtomicBool) -> io::Result<Option<(Bytes, bool)>> {
    loop {
        let queued = usize::try_from(ioctl_fionread(fd)?).unwrap_or(usize::MAX);
        let old = usize::from(held.load(Relaxed));
        if queued <= old {
            return Ok(None);
        }
        let more_than_fits = queued > MAX_READ;
        let take = if more_than_fits { MAX_READ } else { queued - 1 };
        let mut buffer = vec![0; take + 1];
        let (read, _) = if take > 0 { recv(fd, &mut buffer[..take], RecvFlags::DONTWAIT)? } else { (0, 0) };
        if more_than_fits || read < take {
            // The rest of the queue suffices for a reset.
            held.store(false, Relaxed);
            buffer.truncate(read);
            if read > old {
                return Ok(Some((Bytes::from(buffer).slice(old..), false)));
            }
            continue;
        }
        recv(fd, &mut buffer[take..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        held.store(true, Relaxed);
        return Ok(Some((Bytes::from(buffer).slice(old..), true)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Client;

    fn pair() -> (LocalStream, Client) {
        let (ours, theirs) = Stream::pair().expect("a pair");
        let theirs = theirs.into_std().expect("std");
        theirs.set_nonblocking(false).expect("blocking");
        (LocalStream::local(ours).expect("registered"), theirs)
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

    #[tokio::test]
    async fn a_client_that_reads_late_gets_all() {
        let (local, mut client) = pair();
        let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let written = local.try_write(&data).expect("room for some");
        assert!(written < data.len());
        let refused = local.try_write(&data[written..]).expect_err("full");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let all = data.clone();
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; all.len()];
            client.read_exact(&mut read).expect("all of it");
            assert!(read == all);
            client
        });
        local.write_all(&data[written..]).await.expect("written");
        drop(reader.join().expect("joined"));
        local.gone().await.expect("gone");
    }

    #[tokio::test]
    async fn descriptors_that_a_client_sends_change_nothing() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
        use std::io::IoSlice;
        let (local, client) = pair();
        let stdin = std::io::stdin();
        let descriptors = [stdin.as_fd()];
        let mut received = Vec::new();
        for piece in [&b"a"[..], b"b", b"cd", b"e"] {
            let mut space = [std::mem::MaybeUninit::uninit(); 64];
            let mut with = SendAncillaryBuffer::new(&mut space);
            assert!(with.push(SendAncillaryMessage::ScmRights(&descriptors)));
            sendmsg(&client, &[IoSlice::new(piece)], &mut with, SendFlags::empty()).expect("sent");
        }
        while received.len() < 5 {
            received.extend(read_some(&local).await);
        }
        assert_eq!(received, b"abcde");
        drop(client);
        assert!(read_some(&local).await.is_empty());
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
                let (ours, theirs) = Stream::pair().expect("a pair");
                let [ours, theirs] = [ours, theirs].map(|stream| LocalStream::local(stream).expect("registered"));
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
