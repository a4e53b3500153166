//! An accepted connection: read, written, closed or reset.
//!
//! A truncated download must look truncated. TCP has a reset for that. A pipe's server can disconnect its client, who then
//! gets an error in place of an end; what the client has not read by then is lost. An end is an empty message (`pipe`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::local::Stream;
use super::pipe::Pipe;

/// Limit of a read, in bytes. Two of a channel's 32 KiB packets: larger reads would only wait
/// longer for the server's window.
const MAX_READ: usize = 64 << 10;
/// How often it is looked whether a client has gone: a pipe does not tell while something is unread.
const LOOK: Duration = Duration::from_millis(250);

/// A local client's connection.
#[derive(Debug)]
pub struct LocalStream(Kind);

#[derive(Debug)]
enum Kind {
    Pipe(Connected),
    Tcp(TcpStream),
}

/// A pipe that is cut when this is dropped, unless it was finished.
#[derive(Debug)]
struct Connected {
    pipe: Arc<Pipe>,
    read_ended: AtomicBool,
    write_ended: AtomicBool,
    finished: AtomicBool,
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Pipe::Server(server) = &*self.pipe
            && !self.finished.load(Relaxed)
        {
            let _ = server.disconnect();
        }
    }
}

impl Connected {
    /// Sends the end after what is under way.
    fn end(&self) {
        if !self.write_ended.swap(true, Relaxed) {
            let pipe = self.pipe.clone();
            // Sent at once where nothing is under way.
            tokio::spawn(async move { pipe.end().await });
        }
    }
}

impl LocalStream {
    /// Wraps a connection to the local endpoint.
    ///
    /// # Errors
    /// None.
    pub fn local(stream: Stream) -> io::Result<Self> {
        let flag = || AtomicBool::new(false);
        let pipe = Arc::new(stream.into_pipe());
        Ok(Self(Kind::Pipe(Connected { pipe, read_ended: flag(), write_ended: flag(), finished: flag() })))
    }

    /// Wraps a TCP connection and turns Nagle's algorithm off.
    ///
    /// # Errors
    /// From the system.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(Kind::Tcp(stream)))
    }

    /// Registers a TCP stream with the current runtime. A pipe stays with the runtime that has accepted it, and can be used
    /// from any other.
    ///
    /// # Errors
    /// The system's error, most likely for lack of memory.
    pub fn move_here(self) -> io::Result<Self> {
        Ok(match self.0 {
            Kind::Tcp(stream) => Self(Kind::Tcp(TcpStream::from_std(stream.into_std()?)?)),
            pipe @ Kind::Pipe(_) => Self(pipe),
        })
    }

    /// Whether it came over TCP.
    pub fn is_tcp(&self) -> bool {
        matches!(self.0, Kind::Tcp(_))
    }

    /// The process id of the client, where the system tells it. Not over TCP.
    pub fn peer_pid(&self) -> Option<u32> {
        match &self.0 {
            Kind::Pipe(connected) => connected.pipe.process(),
            Kind::Tcp(_) => None,
        }
    }

    /// The addresses of client and server; None where it is not TCP.
    pub fn tcp_ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Kind::Tcp(stream) = &self.0 else { return None };
        Some((stream.peer_addr().ok()?, stream.local_addr().ok()?))
    }

    /// The next bytes; empty at the end of the stream. Cancel safe; one reader at a time.
    ///
    /// # Errors
    /// From the system: the connection was cut.
    pub async fn read(&self) -> io::Result<Bytes> {
        let mut buffer = Vec::with_capacity(MAX_READ);
        match &self.0 {
            Kind::Pipe(connected) => {
                if !connected.read_ended.load(Relaxed) && connected.pipe.read_buf(&mut buffer).await? == 0 {
                    connected.read_ended.store(true, Relaxed);
                }
            }
            Kind::Tcp(stream) => loop {
                stream.readable().await?;
                match stream.try_read_buf(&mut buffer) {
                    Ok(_) => break,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            },
        }
        Ok(buffer.into())
    }

    /// Writes what the system takes now of `data`, which is not empty. A pipe takes nothing in this way.
    ///
    /// # Errors
    /// The system's error, or WouldBlock.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Kind::Pipe(_) => Err(io::ErrorKind::WouldBlock.into()),
            Kind::Tcp(stream) => match stream.try_write(data) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                written => written,
            },
        }
    }

    /// Writes at least one byte of `data`, which is not empty. Cancel safe.
    ///
    /// # Errors
    /// From the system.
    pub async fn write_some(&self, data: &[u8]) -> io::Result<usize> {
        let stream = match &self.0 {
            Kind::Pipe(connected) => return connected.pipe.write(data).await,
            Kind::Tcp(stream) => stream,
        };
        loop {
            match self.try_write(data) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
                written => return written,
            }
        }
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// From the system.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written = self.write_some(data).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Closes the sending direction; receiving continues.
    ///
    /// # Errors
    /// From the system.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Pipe(connected) => connected.end(),
            Kind::Tcp(stream) => SockRef::from(stream).shutdown(std::net::Shutdown::Write)?,
        }
        Ok(())
    }

    /// Waits until the client has closed both directions. Of a TCP connection it is seen when it is written to, and not
    /// here: Windows tells it to nobody who does not read.
    ///
    /// # Errors
    /// None.
    pub async fn gone(&self) -> io::Result<()> {
        let Kind::Pipe(connected) = &self.0 else { return std::future::pending().await };
        while !connected.pipe.is_other_end_closed() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Closes after a regular end of both directions.
    pub fn finish(self) {
        if let Kind::Pipe(connected) = &self.0 {
            connected.finished.store(true, Relaxed);
            connected.end();
        }
    }

    /// Closes so that the client sees a reset.
    pub fn reset(self) {
        if let Kind::Tcp(stream) = &self.0 {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (LocalStream, LocalStream) {
        let (ours, theirs) = Stream::pair().expect("a pair");
        (LocalStream::local(ours).expect("a stream"), LocalStream::local(theirs).expect("a stream"))
    }

    #[tokio::test]
    async fn every_byte_arrives_once_and_each_direction_ends_by_itself() {
        let (client, server) = pair();
        let data: Vec<u8> = (0..500_000_usize).map(|i| (i % 251) as u8).collect();
        let sending = async {
            for piece in data.chunks(70_001) {
                client.write_all(piece).await.expect("written");
            }
            client.shutdown_write().expect("ended");
            let answer = client.read().await.expect("read");
            assert_eq!(answer, b"answer"[..]);
            assert!(client.read().await.expect("read").is_empty(), "an end");
        };
        let receiving = async {
            let mut received = Vec::new();
            loop {
                match server.read().await.expect("read") {
                    piece if piece.is_empty() => break,
                    piece => received.extend(piece),
                }
            }
            assert!(received == data, "{} of {} bytes", received.len(), data.len());
            assert!(server.read().await.expect("read").is_empty(), "the end stays the end");
            server.write_all(b"answer").await.expect("written");
            server.finish();
        };
        tokio::join!(sending, receiving);
    }

    #[tokio::test]
    async fn a_cut_is_no_end() {
        for cut in [true, false] {
            let (client, server) = pair();
            client.write_all(b"GET").await.expect("written");
            assert_eq!(server.read().await.expect("read"), b"GET"[..]);
            if cut {
                server.reset();
            } else {
                server.finish();
            }
            let read = client.read().await;
            assert_eq!(read.is_err(), cut, "{read:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_only_stops_sending_is_not_gone() {
        let (client, server) = pair();
        client.shutdown_write().expect("ended");
        assert!(server.read().await.expect("read").is_empty());
        assert!(tokio::time::timeout(4 * LOOK, server.gone()).await.is_err(), "half-closed is not gone");
        drop(client);
        tokio::time::timeout(8 * LOOK, server.gone()).await.expect("gone").expect("seen");
    }
}
