//! A stream that can always be read, even if the peer does not accept written data.
//!
//! russh's session reads nothing while it waits for a write. If the stream is a channel of another session (a jump),
//! or a ProxyCommand that does one thing at a time, the other side may wait for dtunnel to read before it accepts
//! more: a deadlock as soon as much data flows in both directions. So data that is not accepted at once waits in this
//! buffer and is written while the session reads. The server's windows limit the unread data, and so the buffer: 2
//! MiB per channel with OpenSSH.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Limit of the buffer, in bytes. Beyond it, writing waits.
const MOST: usize = 64 << 20;

/// The stream with its write buffer.
#[derive(Debug)]
pub(super) struct Uncoupled<S> {
    inner: S,
    waiting: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Uncoupled<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, waiting: BytesMut::new() }
    }

    /// Writes as much of the buffer as the stream accepts.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        // Frees the memory after a burst.
        self.waiting = BytesMut::new();
        Pin::new(&mut self.inner).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Uncoupled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty()
            && let Poll::Ready(Err(error)) = self.poll_push(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Uncoupled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiting.is_empty()
            && let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write(cx, data)
        {
            return Poll::Ready(written);
        }
        if self.waiting.len() >= MOST {
            ready!(self.poll_push(cx))?;
        }
        self.waiting.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_push(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The rest is written while the session reads.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_push(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Two ends that both write much data before they read.
    #[tokio::test]
    async fn writing_much_does_not_wait_for_the_other_side_to_read() {
        let (one, other) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let talk = async |stream| {
            let mut stream = Uncoupled::new(stream);
            stream.write_all(&sent).await.expect("written");
            stream.flush().await.expect("flushed");
            let mut all = vec![0; sent.len()];
            stream.read_exact(&mut all).await.expect("read");
            stream.shutdown().await.expect("all is out");
            all
        };
        let (a, b) = tokio::join!(talk(one), talk(other));
        assert!(a == sent && b == sent);
    }
}
