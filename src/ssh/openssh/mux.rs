//! The control connection to a master: OpenSSH's multiplexing protocol (PROTOCOL.mux), version 4.
//!
//! Only what a tunnel needs: is the master alive, a forwarded stream, a command. The library for this protocol
//! (openssh-mux-client) has no forwarded streams. Streams and commands get pipes of their own; the master carries them.
//!
//! An opening is never given up before its answer: a master ends with all it carries when the server confirms a channel that
//! it has forgotten meanwhile.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use crate::os::mux::{self, Descriptor, Stream};

/// Message types (PROTOCOL.mux, section 11).
const HELLO: u32 = 0x0000_0001;
const NEW_SESSION: u32 = 0x1000_0002;
const ALIVE_CHECK: u32 = 0x1000_0004;
const OPEN_FORWARD: u32 = 0x1000_0006;
const CLOSE_FORWARD: u32 = 0x1000_0007;
const NEW_STDIO_FORWARD: u32 = 0x1000_0008;
const OK: u32 = 0x8000_0001;
const PERMISSION_DENIED: u32 = 0x8000_0002;
const FAILURE: u32 = 0x8000_0003;
const EXIT_MESSAGE: u32 = 0x8000_0004;
const ALIVE: u32 = 0x8000_0005;
const SESSION_OPENED: u32 = 0x8000_0006;
const VERSION: u32 = 4;
/// In place of a port: the host's name is the path of a socket (PORT_STREAMLOCAL in misc.h).
const OF_A_SOCKET: u32 = 0xffff_fffe;
/// Of a forward: this machine listens.
const LOCAL: u32 = 1;
/// No escape character for a session.
const NO_ESCAPE: u32 = 0xffff_ffff;
/// Longest message that is read, in bytes.
const MAX_MESSAGE: u32 = 64 << 10;
/// Longest wait for a master that is there to answer.
const CHECK: Duration = Duration::from_secs(2);
/// Longest wait for a place in the master's queue, which holds 64 or 128, and the pause between two attempts.
const QUEUE: Duration = Duration::from_secs(10);
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// A control connection.
#[derive(Debug)]
pub(super) struct Control {
    stream: Arc<Stream>,
    /// The beginning of the next message.
    read: BytesMut,
    /// What was told of a command's end meanwhile.
    exit: Option<u32>,
}

/// Why a master opened nothing.
#[derive(Debug)]
pub(super) enum Refused {
    /// In its words.
    Said(String),
    /// It is gone.
    Gone,
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Control {
    /// Connects to the master's socket at `path`.
    ///
    /// # Errors
    /// From the system; [`io::ErrorKind::PermissionDenied`] where the socket is another user's.
    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        let stream = connect_in_turn(path).await?;
        if !mux::is_own(&stream)? {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut control = Self { stream: Arc::new(stream), read: BytesMut::new(), exit: None };
        control.send(&Message::new(HELLO).u32(VERSION)).await?;
        Ok(control)
    }

    /// Waits for a sign of life from the master. Cancel safe.
    ///
    /// # Errors
    /// From the system, once it is gone.
    pub(super) async fn alive_check(&mut self) -> io::Result<()> {
        self.send(&Message::new(ALIVE_CHECK).u32(0)).await?;
        while self.answer().await?.kind != ALIVE {}
        Ok(())
    }

    /// Opens a stream to `host` and `port`, or to the socket at the path `host` where there is no port. The master reads
    /// from `stdin` and writes to `stdout`. Waits for the server's answer.
    pub(super) async fn forward(
        &mut self,
        host: &str,
        port: Option<u16>,
        stdin: Descriptor,
        stdout: Descriptor,
    ) -> Result<(), Refused> {
        let port = port.map_or(OF_A_SOCKET, u32::from);
        self.send(&Message::new(NEW_STDIO_FORWARD).u32(0).text("").text(host).u32(port)).await?;
        self.opened(&[stdin, stdout]).await
    }

    /// Has the master listen at the socket `here` for who wants to reach the one at `there` on the host, or no more.
    pub(super) async fn listen(&mut self, begins: bool, here: &str, there: &str) -> Result<(), Refused> {
        let request = Message::new(if begins { OPEN_FORWARD } else { CLOSE_FORWARD }).u32(0).u32(LOCAL);
        let request = request.text(here).u32(OF_A_SOCKET).text(there).u32(OF_A_SOCKET);
        self.send(&request).await?;
        self.granted(OK).await
    }

    /// Runs a command in a session, or has one with a subsystem of this name. Waits for the server's answer.
    pub(super) async fn session(
        &mut self,
        command: &str,
        is_subsystem: bool,
        streams: [Descriptor; 3],
    ) -> Result<(), Refused> {
        let ([tty, x11, agent], subsystem) = ([0; 3], u32::from(is_subsystem));
        let request = Message::new(NEW_SESSION).u32(0).text("").u32(tty).u32(x11).u32(agent).u32(subsystem);
        self.send(&request.u32(NO_ESCAPE).text("").text(command)).await?;
        self.opened(&streams).await
    }

    /// Hands the streams over, and waits for the answer.
    async fn opened(&mut self, streams: &[Descriptor]) -> Result<(), Refused> {
        for stream in streams {
            mux::send_descriptor(&self.stream, stream).await?;
        }
        self.granted(SESSION_OPENED).await
    }

    async fn granted(&mut self, by: u32) -> Result<(), Refused> {
        let mut answer = self.answer().await?;
        let _of_request = answer.u32()?;
        match answer.kind {
            kind if kind == by => Ok(()),
            FAILURE | PERMISSION_DENIED => Err(Refused::Said(answer.text()?)),
            _ => Err(Refused::Gone),
        }
    }

    /// Waits until a command has ended, and returns its exit status. None: the master has closed the connection. Cancel
    /// safe.
    pub(super) async fn exit_status(&mut self) -> Option<u32> {
        loop {
            if let Some(status) = self.exit.take() {
                return Some(status);
            }
            let message = self.receive().await.ok()?;
            self.note_exit(message);
        }
    }

    fn note_exit(&mut self, mut message: Reply) {
        if message.kind == EXIT_MESSAGE {
            let _of_session = message.u32();
            self.exit = message.u32().ok();
        }
    }

    /// What ends this connection, and with it what was opened on it.
    pub(super) fn closer(&self) -> Closer {
        Closer(self.stream.clone())
    }

    /// The answer to the last request.
    async fn answer(&mut self) -> io::Result<Reply> {
        loop {
            let mut message = self.receive().await?;
            match message.kind {
                HELLO => {
                    if message.u32()? != VERSION {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                }
                EXIT_MESSAGE => self.note_exit(message),
                _ => return Ok(message),
            }
        }
    }

    async fn send(&mut self, message: &Message) -> io::Result<()> {
        let size = u32::try_from(message.bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let bytes = [&size.to_be_bytes()[..], &message.bytes].concat();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The next message. Cancel safe.
    async fn receive(&mut self) -> io::Result<Reply> {
        loop {
            if let Some(size) = self.read.first_chunk().map(|size| u32::from_be_bytes(*size)) {
                if size > MAX_MESSAGE {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.read.len() >= size as usize + 4 {
                    self.read.advance(4);
                    let mut reply = Reply { kind: 0, rest: self.read.split_to(size as usize).freeze() };
                    reply.kind = reply.u32()?;
                    return Ok(reply);
                }
            }
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
    }
}

/// Connects to a socket of a master's, whose queue may be full.
pub(super) async fn connect_in_turn(path: &Path) -> io::Result<Stream> {
    let until = Instant::now() + QUEUE;
    loop {
        match Stream::connect(path).await {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                tokio::time::sleep(QUEUE_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Ends a control connection.
#[derive(Debug)]
pub(super) struct Closer(Arc<Stream>);

impl Closer {
    /// The master then closes what was opened on the connection.
    pub(super) fn close(&self) {
        // One that the master has closed is no error.
        mux::shut_down(&self.0);
    }
}

/// Does the master at `path` answer?
pub(super) async fn answers(path: &Path) -> bool {
    let check = async { Control::connect(path).await?.alive_check().await };
    matches!(tokio::time::timeout(CHECK, check).await, Ok(Ok(_)))
}

/// A message to the master, without its length: numbers and texts (RFC 4251 section 5).
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u32) -> Self {
        Self { bytes: Vec::new() }.u32(kind)
    }

    fn u32(mut self, number: u32) -> Self {
        self.bytes.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn text(self, text: &str) -> Self {
        // Host names, paths and commands are far shorter than 4 GiB.
        let mut message = self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        message.bytes.extend_from_slice(text.as_bytes());
        message
    }
}

/// A message of the master's.
#[derive(Debug)]
struct Reply {
    kind: u32,
    rest: Bytes,
}

impl Reply {
    fn u32(&mut self) -> io::Result<u32> {
        self.rest.try_get_u32().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn text(&mut self) -> io::Result<String> {
        let size = self.u32()? as usize;
        if size > self.rest.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(String::from_utf8_lossy(&self.rest.split_to(size)).into_owned())
    }
}
