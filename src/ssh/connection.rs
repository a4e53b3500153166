//! An authenticated connection, whatever carries it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::carrier::{self, Carried, Carrier, Choice};
use super::channel::{Channel, OpenError, Received};
use super::context::ConnectContext;
use super::endpoint::Endpoint;
use super::error::{Error, Kind};
use super::native::Native;
use super::negotiated::{Login, Negotiated};
use super::openssh::OpenSsh;
use crate::config::Target;

/// Longest time that the server counts a session after its end: dtunnel's shell wrapper may take 2 s (`host/exec.rs`).
const ENDING_SESSION: Duration = Duration::from_secs(3);
/// Pause before a refused command is tried again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Longest time for `true`.
const TRUE: Duration = Duration::from_secs(5);
/// Limit for the stored output of a command, in bytes.
const MAX_OUTPUT: usize = 64 << 10;

/// An authenticated connection.
#[derive(Debug)]
pub struct Connection {
    by: By,
    carried: Carried,
    sends_at_once: AtomicBool,
}

#[derive(Debug)]
enum By {
    Native(Native),
    OpenSsh(OpenSsh),
}

impl Connection {
    /// Connects, checks the host key and logs in, by what `target` asks for or what suits it.
    ///
    /// # Errors
    /// Any [`Error`]. Each step takes at most `target.connect_timeout`, not counting the
    /// time for questions to the user.
    pub async fn establish(target: &Target, context: &ConnectContext) -> Result<Self, Error> {
        if context.may_share
            && carrier::may_share(target)
            && let Some(found) = OpenSsh::found(target).await
        {
            let why = Some("its connection was there (ControlPath)".into());
            return Ok(Self::new(By::OpenSsh(found), Carried { by: Carrier::Shared, why, is_first: false }));
        }
        let error = match carrier::choose(target, context.openssh_first) {
            Choice::OpenSsh { why, is_first } => return Self::openssh(target, context, why, is_first).await,
            Choice::Native => return Self::native(target, context).await,
            Choice::NativeFirst => match Self::native(target, context).await {
                Ok(made) => return Ok(made),
                Err(error) => error,
            },
        };
        let Some(why) = carrier::after(&error) else { return Err(error) };
        tracing::info!("{error}");
        match Self::openssh(target, context, why, true).await {
            // Ours tells more.
            Err(refused @ Error::OpenSsh { kind: Kind::Auth, .. }) => {
                tracing::info!("{refused}");
                Err(error.without_missing())
            }
            result => result,
        }
    }

    fn new(by: By, carried: Carried) -> Self {
        Self { by, carried, sends_at_once: AtomicBool::new(false) }
    }

    async fn native(target: &Target, context: &ConnectContext) -> Result<Self, Error> {
        let carried = Carried { by: Carrier::Native, why: None, is_first: false };
        Ok(Self::new(By::Native(Native::establish(target, context).await?), carried))
    }

    async fn openssh(target: &Target, context: &ConnectContext, why: String, is_first: bool) -> Result<Self, Error> {
        tracing::info!("the machine's ssh carries this tunnel: {why}");
        let made = OpenSsh::start(target, context).await?;
        Ok(Self::new(By::OpenSsh(made), Carried { by: Carrier::OpenSsh, why: Some(why), is_first }))
    }

    /// What carries it.
    pub fn carried(&self) -> &Carried {
        &self.carried
    }

    /// Does each of its channels have a flow control of its own, so that no flow can hold another one up?
    pub fn flows_are_apart(&self) -> bool {
        self.carried.by != Carrier::Native
    }

    /// Is it somebody else's, who may want to end it once nothing is under way?
    pub fn is_shared(&self) -> bool {
        self.carried.by == Carrier::Shared
    }

    /// Opens a channel to `endpoint` on the host. If the caller is cancelled, the channel is
    /// closed as soon as it is open.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, endpoint: &Endpoint) -> Result<Channel, OpenError> {
        match &self.by {
            By::Native(native) => native.open(endpoint).await,
            By::OpenSsh(openssh) => openssh.open(endpoint).await,
        }
    }

    /// As [`Connection::open`]; a refused command is retried for a while. A server with MaxSessions still counts a
    /// session that has just ended, and does not announce when it stops counting it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_in_turn(&self, endpoint: &Endpoint) -> Result<Channel, OpenError> {
        let begun = Instant::now();
        loop {
            match self.open(endpoint).await {
                Err(OpenError::Refused { .. }) if endpoint.is_command() && begun.elapsed() < ENDING_SESSION => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                result => return result,
            }
        }
    }

    /// Runs `command` in the remote login shell, with `input` as its standard input, and waits for its end. Stores
    /// at most 64 KiB of its output.
    ///
    /// # Errors
    /// [`OpenError`]. A command that exceeds `limit` is ended, and its status is unknown.
    pub async fn run(&self, command: &str, input: &str, limit: Duration) -> Result<Output, OpenError> {
        let endpoint = Endpoint::Command { name: command.into(), command: command.into(), is_marked: false };
        let (mut reader, writer) = self.open_in_turn(&endpoint).await?.split();
        let mut stdout = Vec::new();
        let running = async {
            if !input.is_empty() && writer.send(input.to_owned().into()).await.is_err() {
                return;
            }
            let _ = writer.eof().await;
            loop {
                match reader.receive().await {
                    Received::Data(data) => {
                        let room = MAX_OUTPUT - stdout.len();
                        stdout.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    Received::Eof => {}
                    Received::Closed | Received::Lost => return,
                }
            }
        };
        let _ = tokio::time::timeout(limit, running).await;
        let (status, stderr) = (reader.status(), reader.stderr());
        // The reader first: an unread channel would stall the whole connection.
        drop(reader);
        writer.close().await;
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        Ok(Output { status, stdout, stderr })
    }

    /// Runs `true` in a session of its own, within 5 s: sshd then sends without delay (`ssh/command.rs`). Tells whether a
    /// command ran.
    pub async fn run_true(&self) -> bool {
        let ran = match &self.by {
            By::Native(native) => native.run_true().await,
            By::OpenSsh(_) => self.run("true", "", TRUE).await.is_ok_and(|output| output.status == Some(0)),
        };
        self.sends_at_once.store(ran, Relaxed);
        ran
    }

    /// Whether the server is known to send without delay.
    pub fn sends_at_once(&self) -> bool {
        self.sends_at_once.load(Relaxed)
    }

    /// The algorithms negotiated with the server. None: the machine's ssh has done that.
    pub fn negotiated(&self) -> Option<Negotiated> {
        match &self.by {
            By::Native(native) => Some(native.negotiated()),
            By::OpenSsh(_) => None,
        }
    }

    /// The methods tried and offered during the login.
    pub fn login(&self) -> &Login {
        match &self.by {
            By::Native(native) => native.login(),
            By::OpenSsh(openssh) => openssh.login(),
        }
    }

    /// The time since the server's last byte, as far as it is known.
    pub fn last_heard(&self) -> Duration {
        match &self.by {
            By::Native(native) => native.last_heard(),
            By::OpenSsh(openssh) => openssh.last_heard(),
        }
    }

    /// Whether the peer's TCP stack has acknowledged all data sent (RFC 9293 section 3.4). If so, the network path
    /// works, and the server itself is slow to answer. False if the system does not report it.
    pub fn is_acknowledged(&self) -> bool {
        match &self.by {
            By::Native(native) => native.is_acknowledged(),
            By::OpenSsh(_) => false,
        }
    }

    /// Asks the server for a sign of life and waits for it. False if the connection is lost.
    pub async fn ping(&self) -> bool {
        match &self.by {
            By::Native(native) => native.ping().await,
            By::OpenSsh(openssh) => openssh.ping().await,
        }
    }

    /// Sends a sign of life. Returns once it is sent or, with `answered`, once the answer has arrived.
    pub async fn show_life(&self, answered: bool) {
        // The machine's ssh is read whatever its flows do.
        if let By::Native(native) = &self.by {
            native.show_life(answered).await;
        }
    }

    /// Adds further host keys that the server announces and proves, and removes those it no longer has
    /// (`hostkeys-00@openssh.com`, PROTOCOL section 2.5 of OpenSSH); the machine's ssh does that itself. Never returns.
    pub async fn learn_host_keys<T>(&self) -> T {
        match &self.by {
            By::Native(native) => native.learn_host_keys().await,
            By::OpenSsh(_) => std::future::pending().await,
        }
    }

    /// Waits for the end of the connection and returns its reason, if known.
    pub async fn ended(&self) -> Error {
        match &self.by {
            By::Native(native) => native.ended().await,
            By::OpenSsh(openssh) => openssh.ended().await,
        }
    }

    /// The error for a connection closed because the server no longer answers.
    pub fn silent(&self) -> Error {
        let host = match &self.by {
            By::Native(native) => native.host(),
            By::OpenSsh(openssh) => openssh.host(),
        };
        Error::Lost { host: host.into(), message: "it no longer answers".into() }
    }

    /// Ends the connection, or leaves one that was there before.
    pub async fn disconnect(&self) {
        match &self.by {
            By::Native(native) => native.disconnect().await,
            By::OpenSsh(openssh) => openssh.disconnect().await,
        }
    }
}

/// The result of a command on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status, if known.
    pub status: Option<u32>,
    pub stdout: String,
    /// The last lines of its standard error, joined into one line.
    pub stderr: String,
}
