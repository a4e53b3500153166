//! How a channel is closed.

use std::time::Duration;

use crate::ssh::{Channel, ChannelReader, ChannelWriter, Received};

/// How long the host may take to close a channel whose client is gone, before we close it.
/// Usually the Engine sees the end and closes at once.
const LINGER: Duration = Duration::from_secs(5);

/// Most bytes that are still taken from the host meanwhile. One that goes on sending does not close by
/// itself.
const MOST_LINGERING: usize = 256 << 10;

/// Closes a channel that carries no flow.
pub(in crate::tunnel) async fn let_go(channel: Channel) {
    let (reader, writer) = channel.split();
    hang_up(reader, writer, true).await;
}

/// Closes a channel, best by having the host close it: a channel that we close first leaves a few KB behind
/// in russh 0.65, and a session on the server counts until it has ended there (MaxSessions).
pub(super) async fn hang_up(mut reader: ChannelReader, writer: ChannelWriter, politely: bool) {
    let mut closed = politely && linger(&mut reader, &writer, MOST_LINGERING).await;
    if !closed && writer.terminate().await {
        // What a command had written before it ended comes first, however much that is.
        closed = linger(&mut reader, &writer, usize::MAX).await;
    }
    // First the reader: one that nobody reads would hold the whole connection up.
    drop(reader);
    if closed {
        writer.closed();
    } else {
        writer.close().await;
    }
}

/// Lets the host close the channel: it has had its EOF, or gets it now. True where it did, before `room` bytes
/// more had come.
async fn linger(reader: &mut ChannelReader, writer: &ChannelWriter, mut room: usize) -> bool {
    let ending = async {
        let _ = writer.eof().await;
        loop {
            match reader.receive_rest().await {
                Received::Data(data) if data.len() < room => room -= data.len(),
                Received::Eof => {}
                Received::Data(_) => return false,
                Received::Closed => return true,
            }
        }
    };
    tokio::time::timeout(LINGER, ending).await.unwrap_or(false)
}
