//! A client's connection as hyper reads it: through [`Framing`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Framing, Head, Refusal};
use crate::tunnel::local::LocalStream;
use crate::tunnel::pool::lock;

/// Most bytes read at once.
const MAX_READ: usize = 32 << 10;

/// What was read of a connection, for hyper's side and for the one that judges.
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

    /// See [`Framing::held`].
    pub(super) fn held(&self) -> Vec<u8> {
        self.with(Framing::held)
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Framed {
    inner: LocalStream,
    reading: Reading,
    /// Let through, and not taken yet.
    ready: Vec<u8>,
    taken: usize,
}

impl Framed {
    pub(super) fn new(inner: LocalStream, reading: Reading) -> Self {
        Self { inner, reading, ready: Vec::new(), taken: 0 }
    }

    /// The connection itself, once hyper is done with it.
    pub(super) fn into_inner(self) -> LocalStream {
        self.inner
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
            if this.reading.with(|framing| framing.is_over()) {
                // Nothing is read any more; the answer ends the connection.
                return Poll::Pending;
            }
            let mut bytes = [0; MAX_READ];
            let mut input = ReadBuf::new(&mut bytes);
            ready!(this.inner.poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let ready = &mut this.ready;
            let read = this.reading.with(|framing| framing.feed(input.filled(), ready));
            read.map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal))?;
        }
    }
}

impl AsyncWrite for Framed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner.shutdown_write())
    }
}
