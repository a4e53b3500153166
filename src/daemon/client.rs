//! Talks to a daemon, without an async runtime: commands start fast.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::protocol::{Event, MAX_EVENT, MAX_LINE, PROTOCOL, Request, TunnelStatus};
use crate::config::{RuntimeFiles, TunnelName};
use crate::failure::{ExitCode, Failure};
use crate::os::local::{self, BlockingStream, connect_within};
use crate::os::user;

/// Longest wait for a daemon's answer. The daemon answers at once, but the machine may be very busy.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many warnings are kept while a question is open: a ProxyCommand or server may print any number of lines.
const MAX_KEPT: usize = 20;

/// Why communication with a daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke.
    #[error("the tunnel's daemon does not answer: {0}")]
    Broken(#[from] io::Error),
    /// The daemon did not answer, or did not read, in time.
    #[error("the tunnel's daemon{} does not answer in time", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Silent {
        /// The daemon's process id, if the system tells it.
        pid: Option<u32>,
    },
    /// A process of another user listens there.
    #[error("the control socket is served by a process of uid {uid}, not by one of yours")]
    Stranger {
        /// The other user's id.
        uid: user::Id,
    },
    /// The answer is not of this protocol.
    #[error("the tunnel's daemon sent something unexpected: {0}")]
    Protocol(String),
    /// The daemon is of another version, whose protocol differs.
    #[error("the tunnel was started by dtunnel {version}, which speaks another protocol")]
    Version { version: String, pid: u32 },
}

impl ClientError {
    /// The daemon's process id, if known.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Silent { pid } => *pid,
            Self::Version { pid, .. } => Some(*pid),
            Self::Broken(_) | Self::Stranger { .. } | Self::Protocol(_) => None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Self::new(ExitCode::Other, error.to_string());
        match error {
            ClientError::Version { pid, .. } => {
                failure.hint(format!("end it with `kill {pid}`, then bring it up again"))
            }
            ClientError::Silent { pid: Some(pid) } => failure.hint(format!(
                "it may be stopped, or this machine very busy: `kill -CONT {pid}` resumes it, `kill -9 {pid}` ends it"
            )),
            ClientError::Stranger { .. } => failure.hint("that user could read your passphrases: ask them what it is"),
            _ => failure.hint("`dtunnel status` shows the tunnels, `dtunnel logs TARGET` what they did"),
        }
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct ControlClient {
    stream: BufReader<BlockingStream>,
    /// Events that were read while a question was open, for later calls of [`ControlClient::receive`].
    kept: VecDeque<Event>,
    /// The process id at the other end, if the system tells it.
    peer: Option<u32>,
}

impl ControlClient {
    /// Connects to the control socket at `path`. None if no process listens there.
    ///
    /// # Errors
    /// Each of [`ClientError`].
    pub fn connect(path: &Path) -> Result<Option<Self>, ClientError> {
        match connect_within(path, ANSWER_TIMEOUT) {
            Ok(stream) => Self::over(stream).map(Some),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes over a stream to a daemon: checks that the process there is this user's, then reads its hello.
    ///
    /// # Errors
    /// Each of [`ClientError`].
    pub fn over(stream: BlockingStream) -> Result<Self, ClientError> {
        let peer = check_peer(&stream)?;
        // A daemon that no longer reads (SIGSTOP) must not block us, either.
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut client = Self { stream: BufReader::new(stream), kept: VecDeque::new(), peer };
        match client.receive_soon()? {
            Some(Event::Hello { protocol: PROTOCOL, .. }) => {}
            Some(Event::Hello { version, pid, .. }) => return Err(ClientError::Version { version, pid }),
            Some(other) => return Err(ClientError::Protocol(format!("{other:?}"))),
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
        Ok(client)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        // May hold a password: overwritten afterwards, and allocated in full, since a growing buffer would leave
        // copies.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
        serde_json::to_writer(&mut *line, request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|e| self.broken(e))
    }

    /// The next event, which a working daemon sends at once. None at the end of the connection.
    ///
    /// # Errors
    /// [`ClientError::Broken`], [`ClientError::Protocol`].
    pub fn receive_soon(&mut self) -> Result<Option<Event>, ClientError> {
        self.receive(Duration::ZERO)
    }

    /// The same for a request on which the daemon may work for `busy` before it answers.
    ///
    /// # Errors
    /// As [`ControlClient::receive_soon`].
    pub fn receive(&mut self, busy: Duration) -> Result<Option<Event>, ClientError> {
        match self.kept.pop_front() {
            Some(event) => Ok(Some(event)),
            None => self.read(busy),
        }
    }

    fn read(&mut self, busy: Duration) -> Result<Option<Event>, ClientError> {
        self.stream.get_ref().set_read_timeout(Some(busy.saturating_add(ANSWER_TIMEOUT)))?;
        let mut line = String::new();
        let mut bounded = (&mut self.stream).take(MAX_EVENT as u64);
        match bounded.read_line(&mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(self.broken(e)),
        }
        serde_json::from_str(&line).map(Some).map_err(|e| ClientError::Protocol(e.to_string()))
    }

    fn broken(&self, error: io::Error) -> ClientError {
        match error.kind() {
            // SO_RCVTIMEO, SO_SNDTIMEO (socket(7)).
            io::ErrorKind::WouldBlock => ClientError::Silent { pid: self.peer },
            _ => error.into(),
        }
    }

    /// Is the question `id` over? To be called when [`ControlClient::has_news`] is true or [`ControlClient::news`] is readable. Other
    /// events stay for [`ControlClient::receive`].
    ///
    /// # Errors
    /// As [`ControlClient::receive`].
    pub fn is_over(&mut self, id: u64) -> Result<bool, ClientError> {
        match self.read(Duration::ZERO)? {
            Some(Event::PromptOver { id: over }) => Ok(over == id),
            // Progress events are not worth keeping.
            Some(Event::Step { .. }) => Ok(false),
            Some(warning @ Event::Warning { .. }) => {
                if self.kept.len() >= MAX_KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back(warning);
                Ok(false)
            }
            // The event ends the wait, and the question with it.
            other => {
                self.kept.extend(other);
                Ok(true)
            }
        }
    }

    /// Are there buffered bytes that were not parsed yet?
    pub fn has_news(&self) -> bool {
        !self.stream.buffer().is_empty()
    }

    /// The connection, which becomes readable when an event arrives.
    pub fn news(&self) -> &BlockingStream {
        self.stream.get_ref()
    }

    /// The tunnel's status.
    ///
    /// # Errors
    /// Each of [`ClientError`].
    pub fn status(&mut self) -> Result<TunnelStatus, ClientError> {
        self.ask_status(&Request::Status)
    }

    /// Sends a request that is answered with the tunnel's status.
    ///
    /// # Errors
    /// Each of [`ClientError`].
    pub fn ask_status(&mut self, request: &Request) -> Result<TunnelStatus, ClientError> {
        self.send(request)?;
        match self.receive_soon()? {
            Some(Event::Status { status }) => Ok(*status),
            Some(other) => Err(ClientError::Protocol(format!("{other:?}"))),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// Checks that the other end is this user's; returns its process id, if the system tells it.
fn check_peer(stream: &BlockingStream) -> Result<Option<u32>, ClientError> {
    let peer = local::peer(stream)?;
    if peer.is_this_user() { Ok(peer.pid) } else { Err(ClientError::Stranger { uid: peer.uid }) }
}

/// The state of a tunnel's daemon, as seen from its control socket.
#[derive(Debug)]
pub enum Found {
    Down,
    /// A daemon runs, with this status.
    Running(Box<TunnelStatus>),
    /// A daemon that gives no sensible answer.
    Unwell(ClientError),
}

/// Looks for the tunnel `name` in the runtime directory `dir`.
///
/// # Errors
/// [`crate::config::Error::SocketPath`].
pub fn find(dir: &Path, name: &TunnelName) -> Result<Found, crate::config::Error> {
    let files = RuntimeFiles::new(dir, name)?;
    let found = ControlClient::connect(&files.control).and_then(|client| client.map(|mut c| c.status()).transpose());
    Ok(match found {
        Ok(None) => Found::Down,
        Ok(Some(status)) => Found::Running(Box::new(status)),
        Err(e) => Found::Unwell(e),
    })
}

/// The names that have a control socket in the runtime directory, sorted; some may be stale.
pub fn list(dir: &Path) -> Vec<TunnelName> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<TunnelName> =
        entries.filter_map(|entry| TunnelName::of_file(entry.file_name().to_str()?, local::MARK)).collect();
    names.sort();
    names
}
