//! A channel as a plain byte stream, for dtunnel's own HTTP requests.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_util::either::Either;
use tokio_util::task::AbortOnDropHandle;

use super::channel::{self, Channel, ChannelReader, ChannelWriter, Received};
use super::preamble::Preamble;

/// A channel that is read and written as a stream. It reports a truncated stream as an ordinary end; flows use
/// [`Channel::split`].
pub struct ChannelStream {
    /// The channel whole, or what its two halves are joined to.
    inner: Either<russh::ChannelStream<Msg>, DuplexStream>,
    /// What joins them; it ends with the stream.
    _carried: Option<AbortOnDropHandle<io::Result<()>>>,
    /// Until the output of a command begins.
    preamble: Option<Preamble>,
    /// What came with its beginning.
    begun: Bytes,
}

/// Most bytes on the way between the halves of a channel and who uses them as a stream.
const ON_THE_WAY: usize = 64 << 10;

impl From<Channel> for ChannelStream {
    fn from(channel: Channel) -> Self {
        match channel.into_inner() {
            (channel::Inner::Whole(inner), leads_to) => {
                let inner = Either::Left(inner.into_stream());
                Self { inner, _carried: None, preamble: leads_to.preamble(), begun: Bytes::new() }
            }
            // They see to the beginning of a command's output themselves.
            (channel::Inner::Halves(reader, writer), _) => {
                let (stream, other) = tokio::io::duplex(ON_THE_WAY);
                let carried = AbortOnDropHandle::new(tokio::spawn(carry(reader, writer, other)));
                Self { inner: Either::Right(stream), _carried: Some(carried), preamble: None, begun: Bytes::new() }
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
