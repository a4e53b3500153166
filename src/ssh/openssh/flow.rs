//! A stream or a command that a master carries: what a channel of our own connection is otherwise.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::ChannelMsg;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mux::{Closer, Control, Refused, connect_in_turn};
use super::process::Said;
use crate::os::mux;
use crate::ssh::endpoint::Endpoint;
use crate::ssh::heard::LastHeard;
use crate::sync::lock;

/// How soon a stream ends that the host has refused, where nobody else tells.
const REFUSAL: Duration = Duration::from_secs(5);
/// Most bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Opens a stream to `endpoint` through the master at `path`, over pipes. Its answer is waited for, however long the caller
/// waits.
pub(super) async fn open(
    path: PathBuf,
    endpoint: Endpoint,
    over: CancellationToken,
    heard: LastHeard,
) -> Result<(Reading, Writing), Refused> {
    tokio::spawn(async move {
        let mut control = Control::connect(&path).await?;
        let (stdin, input) = mux::pipe()?;
        let (output, stdout) = mux::pipe()?;
        let mut errors = None;
        match &endpoint {
            Endpoint::Streamlocal(path) => control.forward(path, None, stdin, stdout).await?,
            Endpoint::Tcp { host, port } => control.forward(host, Some(*port), stdin, stdout).await?,
            Endpoint::Command { command, .. } => {
                let (read, stderr) = mux::pipe()?;
                errors = Some(receiver(read)?);
                control.session(command, false, [stdin, stdout, stderr]).await?;
            }
            Endpoint::Subsystem(name) => {
                let (read, stderr) = mux::pipe()?;
                errors = Some(receiver(read)?);
                control.session(name, true, [stdin, stdout, stderr]).await?;
            }
        }
        heard.note();
        let input = Sink::Pipe(mux::sender(input)?);
        let writing = Writing::new(input, Some(control.closer()));
        Ok((Reading::new(receiver(output)?, errors, control, None, &writing, over, heard), writing))
    })
    .await
    .unwrap_or(Err(Refused::Gone))
}

/// Connects to the socket `here`, at which the master at `path` listens for who wants to reach one on the host. `doubt` tells
/// a refusal of the host's from an end.
pub(super) async fn connect(
    here: &Path,
    path: &Path,
    over: CancellationToken,
    heard: LastHeard,
    doubt: Doubt,
) -> Result<(Reading, Writing), Refused> {
    let control = Control::connect(path).await?;
    let (output, input) = connect_in_turn(here).await?.into_split();
    let writing = Writing::new(Sink::Socket(input), None);
    Ok((Reading::new(Source::Socket(output), None, control, Some(doubt), &writing, over, heard), writing))
}

/// Whether the host has refused a stream: where a master listens for it, that looks like an end.
pub(super) struct Doubt {
    pub(super) since: Instant,
    /// How many streams a master of our own says that the host has refused, now and before.
    pub(super) refusals: Option<(Arc<Mutex<Said>>, usize)>,
    /// Set where the host has refused one.
    pub(super) is_refused: Arc<AtomicBool>,
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubt").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Doubt {
    /// Was this stream refused, which ended before its first byte?
    fn is_refusal(&self) -> bool {
        let is_refusal = match &self.refusals {
            Some((said, before)) => lock(said).refusals > *before,
            None => self.since.elapsed() < REFUSAL,
        };
        if is_refusal {
            self.is_refused.store(true, Relaxed);
        }
        is_refusal
    }
}

fn receiver(pipe: mux::Descriptor) -> io::Result<Source> {
    Ok(Source::Pipe(mux::receiver(pipe)?))
}

#[derive(Debug)]
enum Source {
    Pipe(mux::Receiver),
    Socket(mux::ReadHalf),
}

impl Source {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.readable().await,
            Self::Socket(socket) => socket.readable().await,
        }
    }

    fn try_read_buf(&self, data: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_read_buf(data),
            Self::Socket(socket) => socket.try_read_buf(data),
        }
    }
}

#[derive(Debug)]
enum Sink {
    Pipe(mux::Sender),
    Socket(mux::WriteHalf),
}

impl Sink {
    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.writable().await,
            Self::Socket(socket) => socket.writable().await,
        }
    }

    fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_write(data),
            Self::Socket(socket) => socket.try_write(data),
        }
    }
}

/// How far the host has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It has sent nothing yet.
    Silent,
    /// It may send more.
    Sends,
    /// The stream has ended, perhaps before its first byte: because the host has ended its direction, or because the
    /// master has ended.
    HasEnded { is_silent: bool },
    /// The host has ended its direction.
    Told,
    /// Nothing more comes.
    Over,
}

/// The receiving half.
#[derive(Debug)]
pub(in crate::ssh) struct Reading {
    output: Option<Source>,
    /// A command's standard error.
    errors: Option<Source>,
    control: Control,
    /// Where the master does not tell over that connection what becomes of the stream.
    doubt: Option<Doubt>,
    /// Has the other direction ended?
    other_ended: CancellationToken,
    /// Has the connection been given up? A master that goes on says nothing of it.
    over: CancellationToken,
    step: Step,
    heard: LastHeard,
}

impl Reading {
    fn new(
        output: Source,
        errors: Option<Source>,
        control: Control,
        doubt: Option<Doubt>,
        writing: &Writing,
        over: CancellationToken,
        heard: LastHeard,
    ) -> Self {
        let (output, other_ended) = (Some(output), writing.ended.clone());
        Self { output, errors, control, doubt, other_ended, over, step: Step::Silent, heard }
    }

    pub(super) fn doubt_from_now(&mut self, doubt: Doubt) {
        self.doubt = Some(doubt);
    }

    /// Has the stream ended, with nothing under way?
    pub(super) async fn has_ended(&mut self) -> bool {
        let Some(source) = &self.output else { return true };
        tokio::select! {
            biased;
            _ = source.readable() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// The next message, in the words of our own connections. None: the master has ended, or nothing more comes. Cancel
    /// safe.
    pub(in crate::ssh) async fn wait(&mut self) -> Option<ChannelMsg> {
        let over = self.over.clone();
        tokio::select! {
            biased;
            message = self.next() => message,
            () = over.cancelled() => None,
        }
    }

    async fn next(&mut self) -> Option<ChannelMsg> {
        loop {
            match self.step {
                Step::Silent | Step::Sends => {
                    let message = tokio::select! {
                        data = read(&mut self.output) => data.map(|data| ChannelMsg::Data { data }),
                        data = read(&mut self.errors), if self.errors.is_some() => {
                            data.map(|data| ChannelMsg::ExtendedData { data, ext: 1 })
                        }
                    };
                    if message.is_some() {
                        self.step = Step::Sends;
                        self.heard.note();
                        return message;
                    }
                    if self.output.is_none() {
                        self.step = Step::HasEnded { is_silent: self.step == Step::Silent };
                    }
                }
                Step::HasEnded { is_silent } => {
                    // By its answer the master has said what it has to say.
                    let is_alive = self.control.alive_check().await.is_ok();
                    let is_refusal = is_silent && self.doubt.as_ref().is_some_and(Doubt::is_refusal);
                    self.step = if is_alive && !is_refusal { Step::Told } else { Step::Over };
                    return is_alive.then_some(if is_refusal { ChannelMsg::Close } else { ChannelMsg::Eof });
                }
                Step::Told => {
                    while self.errors.is_some() {
                        if let Some(data) = read(&mut self.errors).await {
                            return Some(ChannelMsg::ExtendedData { data, ext: 1 });
                        }
                    }
                    if self.doubt.is_some() {
                        self.other_ended.cancelled().await;
                    } else if let Some(exit_status) = self.control.exit_status().await {
                        return Some(ChannelMsg::ExitStatus { exit_status });
                    }
                    self.step = Step::Over;
                    return Some(ChannelMsg::Close);
                }
                Step::Over => return None,
            }
        }
    }
}

/// The next bytes. None at the end of the stream, which is then taken away.
async fn read(from: &mut Option<Source>) -> Option<Bytes> {
    let source = from.as_mut()?;
    loop {
        let mut data = BytesMut::new();
        if source.readable().await.is_ok() {
            data.reserve(PIECE);
            match source.try_read_buf(&mut data) {
                Ok(1..) => return Some(data.freeze()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(0) | Err(_) => {}
            }
        }
        *from = None;
        return None;
    }
}

/// The sending half.
#[derive(Debug)]
pub(in crate::ssh) struct Writing {
    /// None once the direction is ended.
    input: Mutex<Option<Arc<Sink>>>,
    ended: CancellationToken,
    closer: Option<Closer>,
}

impl Writing {
    fn new(input: Sink, closer: Option<Closer>) -> Self {
        Self { input: Mutex::new(Some(Arc::new(input))), ended: CancellationToken::new(), closer }
    }

    /// Sends `data`. Waits for ever once the host or the master reads no more: what the host has sent before tells how the
    /// stream ends.
    ///
    /// # Errors
    /// After the end of the direction.
    pub(in crate::ssh) async fn send(&self, data: Bytes) -> io::Result<()> {
        let input = lock(&self.input).clone().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut rest = &data[..];
        while !rest.is_empty() {
            // An error is the next call's to tell.
            let _ = input.writable().await;
            match input.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.ended.cancel();
                    std::future::pending().await
                }
            }
        }
        Ok(())
    }

    /// Ends the direction.
    pub(in crate::ssh) fn eof(&self) {
        *lock(&self.input) = None;
        self.ended.cancel();
    }

    /// Ends both directions, and a command's input with them.
    pub(in crate::ssh) fn close(&self) {
        self.eof();
        if let Some(closer) = &self.closer {
            closer.close();
        }
    }
}
