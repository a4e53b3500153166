//! A named pipe's end: the server's or a client's.
//!
//! The pipe is one of messages that are read as bytes, as Docker's own pipes are: an empty message ends a direction, and
//! the other one goes on. (The convention of go-winio, with which docker's CLI and Engine speak; Windows has no half-close
//! for pipes.)

use std::fs::OpenOptions;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::OwnedHandle;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer};

use super::system;

/// All instances of the pipe are in use: the server is about to make another one (winerror.h).
const BUSY: i32 = 231;
/// Pause between two attempts to open such a pipe.
const PAUSE: Duration = Duration::from_millis(5);
/// FILE_FLAG_OVERLAPPED, and SECURITY_SQOS_PRESENT with SECURITY_IDENTIFICATION: the server may know, but not be, the client
/// (CreateFileW).
const FLAGS: u32 = 0x4000_0000 | 0x0010_0000 | 0x0001_0000;

/// An end, registered with a runtime.
#[derive(Debug)]
pub(super) enum Pipe {
    Server(NamedPipeServer),
    Client(NamedPipeClient),
}

/// Each method of both kinds of ends.
macro_rules! both {
    ($pipe:expr, $end:ident => $call:expr) => {
        match $pipe {
            Pipe::Server($end) => $call,
            Pipe::Client($end) => $call,
        }
    };
}
pub(super) use both;

impl Pipe {
    /// The next bytes, of which there are none where the direction or the pipe has ended.
    pub(super) async fn read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            both!(self, end => end.readable().await)?;
            match both!(self, end => end.try_read_buf(buffer)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Writes some of `data`, as one message.
    pub(super) async fn write(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            match both!(self, end => end.try_write(data)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => both!(self, end => end.writable().await)?,
                written => return written,
            }
        }
    }

    /// Ends this end's direction.
    pub(super) async fn end(&self) -> io::Result<()> {
        self.write(&[]).await.map(drop)
    }

    /// Whether the other end was closed.
    pub(super) fn is_other_end_closed(&self) -> bool {
        both!(self, end => system::is_other_end_closed(end))
    }

    /// The process at the other end.
    pub(super) fn process(&self) -> Option<u32> {
        let found = match self {
            Self::Server(end) => system::client_process(end),
            Self::Client(end) => system::server_process(end),
        };
        found.ok().filter(|pid| *pid > 0)
    }
}

/// Opens a client's end of the pipe `name`, which may be busy for at most `limit`. Blocks.
pub(super) fn open(name: &Path, limit: Duration) -> io::Result<OwnedHandle> {
    let until = Instant::now() + limit;
    loop {
        match OpenOptions::new().read(true).write(true).custom_flags(FLAGS).open(name) {
            Ok(file) => return Ok(file.into()),
            Err(e) if e.raw_os_error() != Some(BUSY) => return Err(e),
            Err(_) if Instant::now() >= until => {
                let why = "the program that listens there accepts no connections";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
