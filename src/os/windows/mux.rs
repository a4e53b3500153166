//! What a master of the machine's ssh would be spoken to with. Windows' ssh has no masters (ControlMaster): it cannot listen
//! at a Unix socket, nor be handed descriptors. So all of this refuses, and the types have no values.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

fn refused<T>() -> io::Result<T> {
    let why =
        "Windows' ssh cannot carry a tunnel: it has no ControlMaster. dtunnel's own SSH can (`carrier = \"native\"`)";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// An end of a pipe: never there.
#[derive(Debug)]
pub struct Descriptor(Infallible);
/// A connection: never there.
#[derive(Debug)]
pub struct Stream(Infallible);
/// A connection that blocks: never there.
#[derive(Debug)]
pub struct BlockingStream(Infallible);
/// A listener: never there.
#[derive(Debug)]
pub struct Listener(Infallible);
/// Reads from a pipe: never there.
#[derive(Debug)]
pub struct Receiver(Infallible);
/// Writes to a pipe: never there.
#[derive(Debug)]
pub struct Sender(Infallible);
/// Reads from a connection: never there.
#[derive(Debug)]
pub struct ReadHalf(Infallible);
/// Writes to a connection: never there.
#[derive(Debug)]
pub struct WriteHalf(Infallible);

/// Whether this system's ssh can be a master: it cannot.
///
/// # Errors
/// That it cannot.
pub fn check() -> io::Result<()> {
    refused()
}

/// Refuses.
///
/// # Errors
/// Always.
pub fn pipe() -> io::Result<(Descriptor, Descriptor)> {
    refused()
}

/// Never called.
///
/// # Errors
/// None.
pub fn receiver(pipe: Descriptor) -> io::Result<Receiver> {
    match pipe.0 {}
}

/// Never called.
///
/// # Errors
/// None.
pub fn sender(pipe: Descriptor) -> io::Result<Sender> {
    match pipe.0 {}
}

/// Never called.
///
/// # Errors
/// None.
pub fn is_own(stream: &Stream) -> io::Result<bool> {
    match stream.0 {}
}

/// Never called.
///
/// # Errors
/// None.
pub async fn send_descriptor(stream: &Stream, _: &Descriptor) -> io::Result<()> {
    match stream.0 {}
}

/// Never called.
pub fn shut_down(stream: &Stream) {
    match stream.0 {}
}

/// Refuses.
///
/// # Errors
/// Always.
pub fn link(_: &Path, _: &Path) -> io::Result<()> {
    refused()
}

impl Listener {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn bind(_: &Path) -> io::Result<Self> {
        refused()
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub async fn accept(&self) -> io::Result<(Stream, ())> {
        match self.0 {}
    }
}

impl BlockingStream {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn connect(_: impl AsRef<Path>) -> io::Result<Self> {
        refused()
    }
}

impl Read for BlockingStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Write for BlockingStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

/// What a reader has: never called.
macro_rules! reads {
    ($($kind:ty),*) => {
        $(impl $kind {
            /// Never called.
            ///
            /// # Errors
            /// None.
            pub async fn readable(&self) -> io::Result<()> {
                match self.0 {}
            }

            /// Never called.
            ///
            /// # Errors
            /// None.
            pub fn try_read_buf(&self, _: &mut BytesMut) -> io::Result<usize> {
                match self.0 {}
            }
        })*
    };
}

/// What a writer has: never called.
macro_rules! writes {
    ($($kind:ty),*) => {
        $(impl $kind {
            /// Never called.
            ///
            /// # Errors
            /// None.
            pub async fn writable(&self) -> io::Result<()> {
                match self.0 {}
            }

            /// Never called.
            ///
            /// # Errors
            /// None.
            pub fn try_write(&self, _: &[u8]) -> io::Result<usize> {
                match self.0 {}
            }
        })*
    };
}

reads!(Stream, Receiver, ReadHalf);
writes!(Stream, Sender, WriteHalf);

impl Stream {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub async fn connect(_: &Path) -> io::Result<Self> {
        refused()
    }

    /// Never called.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self.0 {}
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
