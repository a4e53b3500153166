//! A channel as a plain byte stream, for dtunnel's own HTTP requests.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::preamble::Preamble;

/// A channel that is read and written as a stream. It reports a truncated stream as an ordinary end; flows use
/// [`Channel::split`](super::Channel::split).
pub struct ChannelStream {
    inner: russh::ChannelStream<Msg>,
    /// Until the output of a command begins.
    preamble: Option<Preamble>,
    /// What came with its beginning.
    begun: Bytes,
}

impl ChannelStream {
    pub(super) fn new(inner: russh::ChannelStream<Msg>, preamble: Option<Preamble>) -> Self {
        Self { inner, preamble, begun: Bytes::new() }
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while let Some(preamble) = &mut this.preamble {
            let mut piece = [0; 1024];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(begun) = preamble.pass(piece.filled()) {
                (this.begun, this.preamble) = (begun, None);
            }
        }
        if this.begun.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let size = this.begun.len().min(buf.remaining());
        buf.put_slice(&this.begun[..size]);
        this.begun.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
