//! A channel as a plain byte stream, for dtunnel's own HTTP requests.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, Channel, ChannelReader, ChannelWriter, Received};
use super::preamble::Preamble;

/// A channel that is read and written as a stream. It reports a truncated stream as an ordinary end; flows use
/// [`Channel::split`].
pub struct ChannelStream {
    inner: Inner,
    /// Until the output of a command begins.
    preamble: Option<Preamble>,
    /// What came with its beginning.
    begun: Bytes,
}

/// Most bytes on the way between the halves of a channel and who uses them as a stream.
const ON_THE_WAY: usize = 64 << 10;

enum Inner {
    Whole(russh::ChannelStream<Msg>),
    /// What the two halves of a channel are joined to.
    Halves(DuplexStream, #[expect(dead_code, reason = "it ends with the stream")] AbortOnDropHandle<io::Result<()>>),
}

impl From<Channel> for ChannelStream {
    fn from(channel: Channel) -> Self {
        match channel.into_inner() {
            (channel::Inner::Whole(inner), leads_to) => {
                let inner = Inner::Whole(inner.into_stream());
                Self { inner, preamble: leads_to.preamble(), begun: Bytes::new() }
            }
            // They see to the beginning of a command's output themselves.
            (channel::Inner::Halves(reader, writer), _) => {
                let (stream, other) = tokio::io::duplex(ON_THE_WAY);
                let carried = AbortOnDropHandle::new(tokio::spawn(carry(reader, writer, other)));
                Self { inner: Inner::Halves(stream, carried), preamble: None, begun: Bytes::new() }
            }
        }
    }
}

/// Carries what is read and written to a channel and from it. Dropping this closes the channel.
async fn carry(mut reader: ChannelReader, writer: ChannelWriter, stream: DuplexStream) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let inwards = async {
        while let Received::Data(data) = reader.receive().await {
            to.write_all(&data).await?;
        }
        to.shutdown().await
    };
    let outwards = async {
        let mut data = BytesMut::new();
        while from.read_buf(&mut data).await? > 0 {
            writer.send(data.split().freeze()).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        writer.eof().await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    };
    let (inwards, outwards) = tokio::join!(inwards, outwards);
    inwards.and(outwards)
}

impl AsyncRead for Inner {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Whole(inner) => Pin::new(inner).poll_read(cx, buf),
            Self::Halves(inner, _) => Pin::new(inner).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Inner {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Whole(inner) => Pin::new(inner).poll_write(cx, data),
            Self::Halves(inner, _) => Pin::new(inner).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Whole(inner) => Pin::new(inner).poll_flush(cx),
            Self::Halves(inner, _) => Pin::new(inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Whole(inner) => Pin::new(inner).poll_shutdown(cx),
            Self::Halves(inner, _) => Pin::new(inner).poll_shutdown(cx),
        }
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
