//! Notes when the server was last heard, and whether it has greeted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::error::Phase;

/// The time of a connection's last byte from its server.
#[derive(Debug, Clone)]
pub(super) struct LastHeard {
    began: Instant,
    /// Milliseconds after `began`.
    at: Arc<AtomicU64>,
    /// Has its identification line come (RFC 4253 section 4.2)? Sought in its first bytes.
    has_greeted: Arc<AtomicBool>,
}

impl LastHeard {
    pub(super) fn now() -> Self {
        Self { began: Instant::now(), at: Arc::default(), has_greeted: Arc::default() }
    }

    /// The time since then.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.at.load(Relaxed)))
    }

    /// What a handshake without an end waits for.
    pub(super) fn handshake(&self) -> Phase {
        if self.has_greeted.load(Relaxed) { Phase::KeyExchange } else { Phase::Handshake }
    }

    fn heard(&self, bytes: &[u8]) {
        if !self.has_greeted.load(Relaxed) && bytes.windows(4).any(|part| part == b"SSH-") {
            self.has_greeted.store(true, Relaxed);
        }
        self.note();
    }

    /// The server was heard now.
    pub(super) fn note(&self) {
        self.at.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// A connection whose bytes from the server are noted, and change nothing.
pub(super) struct Heard<S> {
    pub(super) stream: S,
    pub(super) last: LastHeard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.last.heard(&buf.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_noted_and_what_goes_is_not() {
        let (ours, mut servers) = tokio::io::duplex(64);
        let last = LastHeard::now();
        let mut heard = Heard { stream: ours, last: last.clone() };
        tokio::time::advance(Duration::from_secs(5)).await;
        heard.write_all(b"hello").await.expect("room");
        assert_eq!(last.elapsed(), Duration::from_secs(5));
        servers.write_all(b"hello").await.expect("room");
        heard.read_exact(&mut [0; 5]).await.expect("bytes");
        assert_eq!(last.elapsed(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((last.elapsed(), last.handshake()), (Duration::from_secs(2), Phase::Handshake));
        servers.write_all(b"\r\nSSH-2.0-x\r\n").await.expect("room");
        heard.read_exact(&mut [0; 13]).await.expect("bytes");
        assert_eq!(last.handshake(), Phase::KeyExchange);
    }
}
