//! Commands that come to a standstill: no byte in either direction.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted<'a, S> {
    pub(super) stream: S,
    pub(super) moved: &'a AtomicU64,
}

impl<S> Counted<'_, S> {
    fn count(&self, bytes: usize) {
        self.moved.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.count(buffer.filled().len() - before);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &result {
            self.count(*written);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Waits for `work` as long as something moves: it is given up after `limit` to twice `limit` without.
///
/// # Errors
/// Of the work; [`io::ErrorKind::TimedOut`].
pub(super) async fn while_moving<T>(
    limit: Duration,
    moved: &AtomicU64,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut work = std::pin::pin!(work);
    let mut last = moved.load(Ordering::Relaxed);
    loop {
        if let Ok(result) = tokio::time::timeout(limit, &mut work).await {
            return result;
        }
        let now = moved.load(Ordering::Relaxed);
        if now == last {
            let text = format!("no byte has come or gone for {} s", limit.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        last = now;
    }
}
