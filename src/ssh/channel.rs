//! An SSH channel to a socket, a port or a command on the host (RFC 4254 sections 5 to 7; PROTOCOL section 2.4 of
//! OpenSSH for `direct-streamlocal@openssh.com`).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelOpenFailure};
use tokio::time::Instant;

use super::endpoint::{Endpoint, LeadsTo};
use super::half::{Gone, ReadHalf, WriteHalf};
use super::openssh::flow::{Reading, Writing};
use super::preamble::Preamble;
use crate::text;

/// How long the end of a command's output is held back to wait for its exit status, so that a failed command is not
/// taken for a finished one. A command usually exits right after its output ends, unless it still reads.
const ENDING: Duration = Duration::from_secs(1);
/// Limits for a command's standard error: lines shown, and bytes kept.
const MOST_LINES: usize = 3;
const MAX_STDERR: usize = 2048;

/// An open channel. Reading and writing are independent and end independently. Dropping the channel closes it (russh
/// would leave it open on the server until the connection ends).
#[derive(Debug)]
pub struct Channel {
    /// None once the channel was split or made a stream.
    inner: Option<Inner>,
    leads_to: LeadsTo,
}

#[derive(Debug)]
pub(super) enum Inner {
    Whole(russh::Channel<Msg>),
    /// Split before, and put together again.
    Halves(ChannelReader, ChannelWriter),
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(Inner::Whole(inner)) = self.inner.take() {
            drop(Self::halves(inner, self.leads_to));
        }
    }
}

/// A message from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Data from the remote end.
    Data(Bytes),
    /// The remote end will send no more data, but still reads.
    Eof,
    /// The remote end has closed the channel. Without an [`Received::Eof`] before it, the stream was truncated.
    Closed,
    /// The connection was lost, and the channel with it.
    Lost,
}

/// The server did not open the channel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server refused. OpenSSH sends `ConnectFailed` for prohibited forwarding, a missing socket
    /// and denied permission alike.
    #[error("the server refused to open {endpoint}: {reason}")]
    Refused {
        /// The channel's endpoint.
        endpoint: String,
        /// The reason from the server (RFC 4254 section 5.1).
        reason: String,
        /// The kind of the reason.
        kind: Refusal,
    },
    /// The connection was lost before the answer.
    #[error("the connection was lost while a channel was being opened")]
    Lost,
}

/// Why a server refuses a channel (RFC 4254 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It never forwards to this kind of endpoint.
    Prohibited,
    /// It could not connect to the endpoint, as far as it says.
    ConnectFailed,
    /// It has no room, or gives a reason of its own.
    Other,
}

impl OpenError {
    /// Whether the server never forwards to this kind of endpoint. OpenSSH reports that for TCP ports only.
    pub fn is_prohibited(&self) -> bool {
        matches!(self, Self::Refused { kind: Refusal::Prohibited, .. })
    }

    /// Whether the server could not connect to the endpoint, as far as it says.
    pub fn is_connect_failed(&self) -> bool {
        matches!(self, Self::Refused { kind: Refusal::ConnectFailed, .. })
    }

    pub(super) fn new(endpoint: &Endpoint, error: russh::Error) -> Self {
        let russh::Error::ChannelOpenFailure(reason) = error else { return Self::Lost };
        let kind = match reason {
            ChannelOpenFailure::AdministrativelyProhibited | ChannelOpenFailure::UnknownChannelType => {
                Refusal::Prohibited
            }
            ChannelOpenFailure::ConnectFailed => Refusal::ConnectFailed,
            _ => Refusal::Other,
        };
        let reason = match reason {
            ChannelOpenFailure::AdministrativelyProhibited => "administratively prohibited".into(),
            ChannelOpenFailure::ConnectFailed => "connect failed".into(),
            ChannelOpenFailure::UnknownChannelType => "unknown channel type".into(),
            ChannelOpenFailure::ResourceShortage => "resource shortage".into(),
            other => format!("{other:?}"),
        };
        Self::Refused { endpoint: endpoint.to_string(), reason, kind }
    }
}

impl Channel {
    pub(super) fn new(inner: russh::Channel<Msg>, leads_to: LeadsTo) -> Self {
        Self { inner: Some(Inner::Whole(inner)), leads_to }
    }

    /// One that a master carries.
    pub(super) fn of_master(reading: Reading, writing: Writing, leads_to: LeadsTo) -> Self {
        let (read, write) = (ReadHalf::Masters(Box::new(reading)), WriteHalf::Masters(writing));
        let (reader, writer) = Self::of_halves(read, write, leads_to);
        Self { inner: Some(Inner::Halves(reader, writer)), leads_to }
    }

    /// Puts the halves of a channel together that carries on: neither side has ended its direction.
    pub fn join(reader: ChannelReader, writer: ChannelWriter) -> Self {
        let leads_to = if writer.is_command { LeadsTo::Command { is_marked: false } } else { LeadsTo::Socket };
        Self { inner: Some(Inner::Halves(reader, writer)), leads_to }
    }

    fn halves(inner: russh::Channel<Msg>, leads_to: LeadsTo) -> (ChannelReader, ChannelWriter) {
        let (read, write) = inner.split();
        Self::of_halves(ReadHalf::Own(read), WriteHalf::Own(write), leads_to)
    }

    fn of_halves(read: ReadHalf, write: WriteHalf, leads_to: LeadsTo) -> (ChannelReader, ChannelWriter) {
        let is_command = leads_to.is_command();
        let command = is_command.then(|| Command { preamble: leads_to.preamble(), ..Command::default() });
        let ended = AtomicBool::new(false);
        let writer = ChannelWriter { inner: Some(write), is_command, ended };
        (ChannelReader { inner: read, command }, writer)
    }

    /// Waits until the server sends anything, even EOF or close. For channels on which nothing is under way; the
    /// channel cannot be used afterwards. Cancel safe; also reports messages that arrived before the call.
    pub async fn touched(&mut self) {
        // Unconstrained: a task that has used up its budget would be told that no message is there.
        let inner = match &mut self.inner {
            None => return,
            Some(Inner::Halves(reader, _)) => {
                tokio::task::unconstrained(reader.receive()).await;
                return;
            }
            Some(Inner::Whole(inner)) => inner,
        };
        loop {
            // Unconstrained: a task that has used up its budget would be told that no message is available.
            let message = tokio::task::unconstrained(inner.wait()).await;
            if matches!(message, None | Some(ChannelMsg::Data { .. } | ChannelMsg::Eof | ChannelMsg::Close)) {
                return;
            }
        }
    }

    /// Splits the channel into its two directions.
    pub fn split(mut self) -> (ChannelReader, ChannelWriter) {
        match self.inner.take() {
            Some(Inner::Whole(inner)) => Self::halves(inner, self.leads_to),
            Some(Inner::Halves(reader, writer)) => (reader, writer),
            None => unreachable!("only what consumes the channel takes it"),
        }
    }

    /// Closes both directions at once.
    pub async fn close(self) {
        self.split().1.close().await;
    }

    /// What it is carried by: the channel whole, or its halves, and what it leads to.
    pub(super) fn into_inner(mut self) -> (Inner, LeadsTo) {
        match self.inner.take() {
            Some(inner) => (inner, self.leads_to),
            None => unreachable!("only what consumes the channel takes it"),
        }
    }
}

/// The receiving half of a channel.
#[derive(Debug)]
pub struct ChannelReader {
    inner: ReadHalf,
    /// None if the channel leads to a socket.
    command: Option<Command>,
}

/// The known state of the command at the other end.
#[derive(Debug, Default)]
struct Command {
    /// When its output ended.
    ended: Option<Instant>,
    /// Whether the end of output was reported to the caller.
    told: bool,
    /// Its exit status, once it has one; 128 for a signal.
    status: Option<u32>,
    stderr: Vec<u8>,
    /// Until its output begins.
    preamble: Option<Preamble>,
}

impl Command {
    /// Whether the ended output is a regular end or the command failed. None if not known yet.
    fn verdict(&mut self) -> Option<Received> {
        match (self.ended, self.status) {
            _ if self.told => None,
            (Some(_), Some(0)) => {
                self.told = true;
                Some(Received::Eof)
            }
            (_, Some(status)) if status != 0 => Some(Received::Closed),
            _ => None,
        }
    }
}

impl ChannelReader {
    /// Returns the next message. After [`Received::Closed`] or [`Received::Lost`] there is nothing more. Cancel safe.
    ///
    /// If nobody calls this, up to `channel_buffer_size` messages wait here; then the whole connection stalls
    /// (docs/architecture.md, "the trap").
    pub async fn receive(&mut self) -> Received {
        loop {
            let held = self.command.as_ref().filter(|command| !command.told).and_then(|command| command.ended);
            let message = match held {
                None => self.inner.wait().await,
                Some(ended) => match tokio::time::timeout_at(ended + ENDING, self.inner.wait()).await {
                    Ok(message) => message,
                    Err(_) => {
                        // The command is still running and reads; only its output has ended.
                        self.command.iter_mut().for_each(|command| command.told = true);
                        return Received::Eof;
                    }
                },
            };
            let verdict = match (message, &mut self.command) {
                (Some(ChannelMsg::Data { data }), Some(Command { preamble: preamble @ Some(_), .. })) => {
                    let passes = preamble.as_mut().and_then(|preamble| preamble.pass(&data));
                    if passes.is_some() {
                        *preamble = None;
                    }
                    passes.filter(|passes| !passes.is_empty()).map(Received::Data)
                }
                (Some(ChannelMsg::Data { data }), _) => return Received::Data(data),
                (Some(ChannelMsg::Close), _) => return Received::Closed,
                (None, _) => return Received::Lost,
                (Some(ChannelMsg::Eof), None) => return Received::Eof,
                (Some(ChannelMsg::Eof), Some(command)) => {
                    command.ended.get_or_insert_with(Instant::now);
                    command.verdict()
                }
                (Some(ChannelMsg::ExitStatus { exit_status }), Some(command)) => {
                    command.status = Some(exit_status);
                    command.verdict()
                }
                (Some(ChannelMsg::ExitSignal { .. }), Some(command)) => {
                    command.status = Some(128);
                    command.verdict()
                }
                (Some(ChannelMsg::ExtendedData { data, .. }), Some(command)) => {
                    // The cause of a failure is in the last bytes.
                    command.stderr.extend_from_slice(&data);
                    let old = command.stderr.len().saturating_sub(MAX_STDERR);
                    command.stderr.drain(..old);
                    None
                }
                // The server refused to run the command.
                (Some(ChannelMsg::Failure), Some(_)) => Some(Received::Closed),
                (Some(_), _) => None,
            };
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
    }

    /// As [`ChannelReader::receive`], but a failed command is not reported as [`Received::Closed`]: for callers that
    /// wait until the server has released the channel.
    pub async fn receive_rest(&mut self) -> Received {
        loop {
            match self.inner.wait().await {
                Some(ChannelMsg::Data { data }) => return Received::Data(data),
                Some(ChannelMsg::Close) => return Received::Closed,
                None => return Received::Lost,
                Some(ChannelMsg::Eof) => return Received::Eof,
                Some(_) => {}
            }
        }
    }

    /// The command's exit status, if known.
    pub(super) fn status(&self) -> Option<u32> {
        self.command.as_ref().and_then(|command| command.status)
    }

    /// The last lines of the command's standard error, joined into one line.
    pub(super) fn stderr(&self) -> String {
        self.command
            .as_ref()
            .map(|command| text::last_lines(&String::from_utf8_lossy(&command.stderr), MOST_LINES).join("; "))
            .unwrap_or_default()
    }

    /// The message about a failed command; None if it has not failed.
    pub fn complaint(&self) -> Option<String> {
        let status = self.status().filter(|status| *status != 0)?;
        Some(format!("the command on the host ended with {status}: {}", self.stderr()))
    }
}

/// The sending half of a channel. Dropping it closes the channel.
#[derive(Debug)]
pub struct ChannelWriter {
    /// None once the channel is closed.
    inner: Option<WriteHalf>,
    is_command: bool,
    /// Whether EOF was sent.
    ended: AtomicBool,
}

impl Drop for ChannelWriter {
    fn drop(&mut self) {
        if let (Some(inner), Ok(runtime)) = (self.inner.take(), tokio::runtime::Handle::try_current()) {
            let is_command = self.is_command;
            runtime.spawn(async move { close(inner, is_command).await });
        }
    }
}

async fn close(inner: WriteHalf, is_command: bool) {
    if is_command {
        // A server does not end a command when its channel closes (RFC 4254 section 6.9).
        inner.terminate().await;
    }
    inner.close().await;
}

impl ChannelWriter {
    /// Sends `data`, waiting for the server's window.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.inner.as_ref().ok_or(Gone)?.send(data).await
    }

    /// Sends EOF; receiving continues (RFC 4254 section 5.3). Later calls do nothing.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn eof(&self) -> Result<(), Gone> {
        if self.ended.swap(true, Relaxed) {
            return Ok(());
        }
        self.inner.as_ref().ok_or(Gone)?.eof().await
    }

    /// Sends SIGTERM to the command. Returns whether the channel runs a command.
    pub async fn terminate(&self) -> bool {
        if let Some(inner) = self.inner.as_ref().filter(|_| self.is_command) {
            inner.terminate().await;
        }
        self.is_command
    }

    /// Closes both directions at once, and ends a command as well. A channel that is already closed is no error.
    pub async fn close(mut self) {
        if let Some(inner) = self.inner.take() {
            close(inner, self.is_command).await;
        }
    }

    /// Drops the writer after the server has closed the channel, without closing it again.
    pub fn closed(mut self) {
        self.inner = None;
    }
}
