//! One SSH channel to a socket on the host (RFC 4254 section 5; PROTOCOL section 2.4 of OpenSSH
//! for `direct-streamlocal@openssh.com`).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelOpenFailure};

/// An open channel. Reading and writing go on independently, as do their ends.
#[derive(Debug)]
pub struct Channel {
    inner: russh::Channel<Msg>,
}

/// What came from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes of the remote end.
    Data(Bytes),
    /// The remote end will send no more, but still reads.
    Eof,
    /// The channel is closed, or its connection lost. Without an [`Received::Eof`] before it, the
    /// stream was cut.
    Closed,
}

/// The server did not open the channel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It refused. OpenSSH says `ConnectFailed` for all of: forwarding is prohibited, the socket is
    /// missing, permission is denied.
    #[error("the server refused to open {path}: {reason}")]
    Refused {
        /// The socket on the host.
        path: String,
        /// The reason, RFC 4254 section 5.1.
        reason: String,
    },
    /// The connection was lost meanwhile.
    #[error("the connection was lost while a channel was being opened")]
    Lost,
}

impl OpenError {
    pub(super) fn new(path: &str, error: russh::Error) -> Self {
        let russh::Error::ChannelOpenFailure(reason) = error else { return Self::Lost };
        let reason = match reason {
            ChannelOpenFailure::AdministrativelyProhibited => "administratively prohibited".into(),
            ChannelOpenFailure::ConnectFailed => "connect failed".into(),
            ChannelOpenFailure::UnknownChannelType => "unknown channel type".into(),
            ChannelOpenFailure::ResourceShortage => "resource shortage".into(),
            other => format!("{other:?}"),
        };
        Self::Refused { path: path.into(), reason }
    }
}

/// A channel as a plain byte stream, for HTTP requests of our own. It cannot tell a cut from an
/// end; flows use [`Channel::split`].
pub type ChannelStream = russh::ChannelStream<Msg>;

impl Channel {
    pub(super) fn new(inner: russh::Channel<Msg>) -> Self {
        Self { inner }
    }

    /// Has nothing at all come from the server, not even an end? Looks at what is there and does
    /// not wait. For channels that nothing was sent on yet; where it says no, the channel is of no
    /// use.
    pub async fn is_untouched(&mut self) -> bool {
        loop {
            let message = tokio::select! {
                biased;
                // Unconstrained: a task that has used up its turn would be told that nothing is there.
                message = tokio::task::unconstrained(self.inner.wait()) => message,
                () = std::future::ready(()) => return true,
            };
            if matches!(message, None | Some(ChannelMsg::Data { .. } | ChannelMsg::Eof | ChannelMsg::Close)) {
                return false;
            }
        }
    }

    /// The two directions.
    pub fn split(self) -> (ChannelReader, ChannelWriter) {
        let (read, write) = self.inner.split();
        (ChannelReader { inner: read }, ChannelWriter { inner: write, ended: AtomicBool::new(false) })
    }

    /// See [`ChannelStream`]. The channel is closed when the stream is dropped.
    pub fn into_stream(self) -> ChannelStream {
        self.inner.into_stream()
    }
}

/// What the server sends.
#[derive(Debug)]
pub struct ChannelReader {
    inner: russh::ChannelReadHalf,
}

impl ChannelReader {
    /// The next piece. After [`Received::Closed`] there is nothing more. Cancel safe.
    ///
    /// While nobody calls this, at most `channel_buffer_size` pieces wait here; then the whole
    /// connection stands still (docs/architecture.md, "the trap").
    pub async fn receive(&mut self) -> Received {
        loop {
            match self.inner.wait().await {
                Some(ChannelMsg::Data { data }) => return Received::Data(data),
                Some(ChannelMsg::Eof) => return Received::Eof,
                Some(ChannelMsg::Close) | None => return Received::Closed,
                Some(_) => {}
            }
        }
    }
}

/// What we send.
#[derive(Debug)]
pub struct ChannelWriter {
    inner: russh::ChannelWriteHalf<Msg>,
    /// Has EOF been sent?
    ended: AtomicBool,
}

/// The channel or its connection is gone.
#[derive(Debug, thiserror::Error)]
#[error("the channel is gone")]
pub struct Gone;

impl ChannelWriter {
    /// Sends `data`, waiting for the server's window.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.inner.data_bytes(data).await.map_err(|_| Gone)
    }

    /// Tells the server that no more will be sent; receiving goes on (RFC 4254 section 5.3). Once
    /// is enough: later calls do nothing.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn eof(&self) -> Result<(), Gone> {
        if self.ended.swap(true, Relaxed) {
            return Ok(());
        }
        self.inner.eof().await.map_err(|_| Gone)
    }

    /// Ends both directions at once. No error: a channel that is gone is closed.
    pub async fn close(&self) {
        let _ = self.inner.close().await;
    }
}
