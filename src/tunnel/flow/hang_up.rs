//! Closes channels.

use std::time::Duration;

use crate::ssh::{Channel, ChannelReader, ChannelWriter, Received};

/// How long the host may take to close a channel whose client is gone, before dtunnel closes it.
/// Usually the Engine sees the end and closes at once.
const LINGER: Duration = Duration::from_secs(5);

/// Limit of bytes read from the host meanwhile: a host that continues to send does not close the channel on its own.
const MOST_LINGERING: usize = 256 << 10;

/// Closes a channel that carries no flow.
pub(in crate::tunnel) async fn let_go(channel: Channel) {
    let (reader, writer) = channel.split();
    hang_up(reader, writer, true).await;
}

/// Closes a channel; preferably the host closes it first: russh 0.65 keeps a few KB of a channel that dtunnel closes
/// first, and a session counts on the server until it has ended there (MaxSessions).
pub(super) async fn hang_up(mut reader: ChannelReader, writer: ChannelWriter, politely: bool) {
    let mut closed = politely && linger(&mut reader, &writer, MOST_LINGERING).await;
    if !closed && writer.terminate().await {
        // The output that a command has written before its end is read first, without a limit.
        closed = linger(&mut reader, &writer, usize::MAX).await;
    }
    // The reader first: an unread channel would stall the whole connection.
    drop(reader);
    if closed {
        writer.closed();
    } else {
        writer.close().await;
    }
}

/// Sends EOF, if not sent before, and waits for the host to close the channel. False after
/// [`LINGER`], or `room` more bytes.
async fn linger(reader: &mut ChannelReader, writer: &ChannelWriter, mut room: usize) -> bool {
    let ending = async {
        let _ = writer.eof().await;
        loop {
            match reader.receive_rest().await {
                Received::Data(data) if data.len() < room => room -= data.len(),
                Received::Eof => {}
                Received::Data(_) => return false,
                Received::Closed | Received::Lost => return true,
            }
        }
    };
    tokio::time::timeout(LINGER, ending).await.unwrap_or(false)
}
