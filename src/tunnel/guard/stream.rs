//! A client's connection as read by hyper: through [`Framing`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::framing::Framing;
use super::head::Head;
use super::refusal::Refusal;
use crate::sync::lock;
use crate::tunnel::client::stream::LocalStream;

/// Limit of a read, in bytes.
const MAX_READ: usize = 32 << 10;
/// Time limit of a head from its first byte on, as in nginx (client_header_timeout). A connection without a started
/// request may stay open: SDKs keep idle ones, and so does the Engine.
const HEAD_TIME: Duration = Duration::from_secs(60);

/// The reader's state of a connection, shared by hyper's side and the judge.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading(Arc<Mutex<Framing>>);

impl Reading {
    fn with<T>(&self, work: impl FnOnce(&mut Framing) -> T) -> T {
        work(&mut lock(&self.0))
    }

    /// See [`Framing::take_seen`].
    pub(super) fn take_seen(&self) -> Option<Result<Head, Refusal>> {
        self.with(Framing::take_seen)
    }

    /// See [`Framing::broken`].
    pub(super) fn broken(&self) -> Option<Refusal> {
        self.with(|framing| framing.broken())
    }

    /// See [`Framing::held`].
    pub(super) fn held(&self) -> Vec<u8> {
        self.with(Framing::held)
    }
}

/// Receives the connection when hyper drops it.
pub(super) type Returned = Arc<Mutex<Option<LocalStream>>>;

/// The connection.
#[derive(Debug)]
pub(super) struct Framed {
    /// None after it was taken back.
    inner: Option<LocalStream>,
    returned: Returned,
    reading: Reading,
    /// Accepted bytes that hyper has not read yet.
    ready: Vec<u8>,
    taken: usize,
    /// Ends the wait for the rest of a head.
    late: Option<Pin<Box<Sleep>>>,
}

impl Framed {
    pub(super) fn new(inner: LocalStream, reading: Reading, returned: Returned) -> Self {
        Self { inner: Some(inner), returned, reading, ready: Vec::new(), taken: 0, late: None }
    }

    /// The connection itself, after hyper has finished with it.
    ///
    /// # Errors
    /// It was already taken.
    pub(super) fn into_inner(mut self) -> io::Result<LocalStream> {
        self.inner.take().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn stream(&mut self) -> io::Result<&mut LocalStream> {
        self.inner.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Framed {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            *lock(&self.returned) = Some(inner);
        }
    }
}

impl AsyncRead for Framed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let rest = &this.ready[this.taken..];
            if !rest.is_empty() {
                let size = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..size]);
                this.taken += size;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.taken = 0;
            // Reported only here, so that earlier requests are answered.
            if let Some(refusal) = this.reading.broken() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
            }
            if this.reading.with(|framing| framing.is_over()) {
                // No more is read; the answer ends the connection.
                return Poll::Pending;
            }
            if let Some(late) = &mut this.late
                && late.as_mut().poll(cx).is_ready()
            {
                this.late = None;
                let ready = &mut this.ready;
                this.reading.with(|framing| framing.head_is_late(ready));
                continue;
            }
            let mut bytes = [0; MAX_READ];
            let mut input = ReadBuf::new(&mut bytes);
            ready!(this.stream()?.poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let ready = &mut this.ready;
            // The refusal is reported later; see above and `Framing::broken`.
            let _ = this.reading.with(|framing| framing.feed(input.filled(), ready));
            // Accepted bytes ended before the head that has begun now.
            if !this.reading.with(|framing| framing.is_in_head()) {
                this.late = None;
            } else if this.late.is_none() || !this.ready.is_empty() {
                this.late = Some(Box::pin(sleep(HEAD_TIME)));
            }
        }
    }
}

impl AsyncWrite for Framed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream()?.shutdown_write())
    }
}

#[cfg(test)]
mod tests {
    use super::super::refusal::TOO_LATE;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    fn framed() -> (Framed, Reading, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let reading = Reading::default();
        (Framed::new(LocalStream::unix(ours), reading.clone(), Returned::default()), reading, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_waited_for_a_minute_from_its_first_byte() {
        for pause in [Duration::from_secs(3600), Duration::from_secs(7)] {
            let (mut framed, reading, mut client) = framed();
            // The time does not run before the first byte, nor for an earlier request.
            client.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
            let mut buffer = [0; 4096];
            let size = framed.read(&mut buffer).await.expect("read");
            assert!(buffer[..size].starts_with(b"GET /_ping "));
            assert!(reading.take_seen().expect("seen").is_ok());
            let idle = tokio::time::timeout(Duration::from_secs(86_400), framed.read(&mut buffer)).await;
            assert!(idle.is_err(), "an idle connection was ended");
            let begun = Instant::now();
            let dribbling = async {
                for _ in 0..100 {
                    client.write_all(b"G").await.expect("sent");
                    tokio::time::sleep(pause).await;
                }
            };
            let size = tokio::select! {
                size = framed.read(&mut buffer) => size.expect("read"),
                () = dribbling => panic!("it was waited for for ever"),
            };
            assert!(buffer[..size].starts_with(b"GET / HTTP/1.1\r\nhost: refused"));
            assert_eq!(reading.take_seen().expect("seen").expect_err("refused"), TOO_LATE);
            let waited = begun.elapsed();
            assert!(waited >= HEAD_TIME && waited < HEAD_TIME + Duration::from_secs(1), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_complete_in_time_passes_and_its_body_may_take_long() {
        let (mut framed, _reading, mut client) = framed();
        let sending = async {
            for piece in ["POST /build HTTP/1.1\r\nHost: x\r\n", "Content-Length: 2\r\n\r\n"] {
                client.write_all(piece.as_bytes()).await.expect("sent");
                tokio::time::sleep(Duration::from_secs(50)).await;
            }
            for piece in [b"a", b"b"] {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                client.write_all(piece).await.expect("sent");
            }
            client.shutdown().await.expect("ended");
        };
        let mut all = Vec::new();
        let (read, ()) = tokio::join!(framed.read_to_end(&mut all), sending);
        read.expect("read");
        assert!(all.ends_with(b"\r\n\r\nab"), "{}", String::from_utf8_lossy(&all));
    }
}
