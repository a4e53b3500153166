//! A client's connection as hyper reads it: through [`Framing`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Framing, Refusal};
use super::head::Head;
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

    /// See [`Framing::broken`].
    pub(super) fn broken(&self) -> Option<Refusal> {
        self.with(|framing| framing.broken())
    }

    /// See [`Framing::held`].
    pub(super) fn held(&self) -> Vec<u8> {
        self.with(Framing::held)
    }
}

/// Where the connection is put when hyper lets go of it.
pub(super) type Returned = Arc<Mutex<Option<LocalStream>>>;

/// The connection.
#[derive(Debug)]
pub(super) struct Framed {
    /// None once it was taken back.
    inner: Option<LocalStream>,
    returned: Returned,
    reading: Reading,
    /// Let through, and not taken yet.
    ready: Vec<u8>,
    taken: usize,
}

impl Framed {
    pub(super) fn new(inner: LocalStream, reading: Reading, returned: Returned) -> Self {
        Self { inner: Some(inner), returned, reading, ready: Vec::new(), taken: 0 }
    }

    /// The connection itself, once hyper is done with it.
    ///
    /// # Errors
    /// It was taken already.
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
            // Said only now, so that what came before it is answered.
            if let Some(refusal) = this.reading.broken() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
            }
            if this.reading.with(|framing| framing.is_over()) {
                // Nothing is read any more; the answer ends the connection.
                return Poll::Pending;
            }
            let mut bytes = [0; MAX_READ];
            let mut input = ReadBuf::new(&mut bytes);
            ready!(this.stream()?.poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let ready = &mut this.ready;
            // What it refuses stays to be seen, see above and `Framing::broken`.
            let _ = this.reading.with(|framing| framing.feed(input.filled(), ready));
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
