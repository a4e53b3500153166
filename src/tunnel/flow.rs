//! One local connection and the SSH channel that carries it.
//!
//! ```text
//!             local end          remote end
//!   open ───────────────► local half-closed ──┐
//!     │                                       ├──► done: both ends were seen, channel closed
//!     └─────────────────► remote half-closed ─┘
//!   any state ── an error, or a close without an end ──► cut: both sides are reset
//!   any state ── the client is gone ──► lingering: the host hears of the end, and closes
//! ```
//!
//! Each direction ends by itself: the end of the client's stream travels as EOF, the host's as a
//! shutdown (RFC 4254 section 5.3). docker's attach, exec and `run -i` depend on it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::backlog::Backlog;
use super::counters::Counters;
use super::local::LocalStream;
use super::pool::{Lease, Stall};
use crate::ssh::{Channel, ChannelReader, ChannelWriter, Received};

/// How long the host may take to close a channel whose client is gone, before we close it.
/// Usually the Engine sees the end and closes at once.
const LINGER: Duration = Duration::from_secs(5);

/// Most bytes that are still taken from the host meanwhile. One that goes on sending does not close by
/// itself.
const MOST_LINGERING: usize = 256 << 10;

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both directions were ended by those who used them.
    Done,
    /// The client closed its side altogether.
    ClientGone,
    /// The host or the connection cut it; the client has seen a reset.
    Cut,
}

/// Carries bytes both ways until the flow ends.
pub(super) async fn carry(local: LocalStream, channel: Channel, counters: &[&Counters], lease: &Lease) -> End {
    let (mut reader, writer) = channel.split();
    // Has the client been told that the host has ended its direction?
    let told = AtomicBool::new(false);
    let end = {
        let out = outwards(&local, &writer, counters, &told);
        let back = inwards(&local, &mut reader, counters, lease, &told);
        tokio::pin!(out, back);
        let mut out_done = false;
        loop {
            tokio::select! {
                result = &mut back => break result,
                () = lease.broken() => break End::Cut,
                end = &mut out, if !out_done => match end {
                    Some(end) => break end,
                    None => out_done = true,
                },
            }
        }
    };
    match end {
        End::Done => local.finish(),
        End::ClientGone => {
            drop(local);
            linger(&mut reader, &writer).await;
        }
        End::Cut => local.reset(),
    }
    if let Some(complaint) = reader.complaint() {
        tracing::warn!("{complaint}");
    }
    // First the reader: one that nobody reads would hold the whole connection up.
    drop(reader);
    if end != End::Done {
        writer.close().await;
    }
    end
}

/// Closes a channel that carries no flow.
pub(super) async fn let_go(channel: Channel) {
    let (mut reader, writer) = channel.split();
    linger(&mut reader, &writer).await;
    drop(reader);
    writer.close().await;
}

/// From the client to the host. Ends with None once the host has heard of the end, unless the
/// client turns out to be gone altogether. (Once both directions have ended, a client that still
/// reads looks just like one that is gone; then nothing is left to be cut.)
async fn outwards(
    local: &LocalStream,
    writer: &ChannelWriter,
    counters: &[&Counters],
    told: &AtomicBool,
) -> Option<End> {
    loop {
        match local.read().await {
            Ok(data) if data.is_empty() => break,
            Ok(data) => {
                let size = data.len();
                if writer.send(data).await.is_err() {
                    return Some(End::Cut);
                }
                counters.iter().for_each(|c| c.sent(size));
            }
            Err(_) => return Some(End::ClientGone),
        }
    }
    if writer.eof().await.is_err() {
        return Some(End::Cut);
    }
    let gone = local.gone().await.is_ok() && !told.load(Relaxed);
    gone.then_some(End::ClientGone)
}

/// From the host to the client. What the client does not take at once waits in a bounded backlog;
/// while that is full nothing is taken from the host, which holds the whole connection up.
async fn inwards(
    local: &LocalStream,
    reader: &mut ChannelReader,
    counters: &[&Counters],
    lease: &Lease,
    told: &AtomicBool,
) -> End {
    let mut backlog = Backlog::default();
    let mut stall: Option<Stall<'_>> = None;
    // What came last: Eof ends the direction once the backlog is out, Closed after it the flow.
    let (mut ended, mut closed) = (false, false);
    loop {
        if backlog.is_empty() {
            if ended && !told.swap(true, Relaxed) && local.shutdown_write().is_err() {
                return End::ClientGone;
            }
            if closed {
                return End::Done;
            }
        }
        if backlog.is_full() && stall.is_none() {
            stall = Some(lease.stall());
        } else if stall.is_some() && backlog.has_room() {
            stall = None;
        }
        tokio::select! {
            biased;
            written = local.write_some(backlog.front()), if !backlog.is_empty() => {
                let Ok(written) = written else { return End::ClientGone };
                backlog.advance(written);
                counters.iter().for_each(|c| c.received(written));
            }
            received = reader.receive(), if stall.is_none() && !closed => match received {
                Received::Data(data) => backlog.push(data),
                Received::Eof => ended = true,
                Received::Closed if ended => closed = true,
                Received::Closed => return End::Cut,
            },
        }
    }
}

/// Lets the host close the channel of a client that is gone: it has had its EOF, or gets it now.
/// (A channel that we close first leaves a few KB behind in russh 0.65, so this is worth a wait.)
async fn linger(reader: &mut ChannelReader, writer: &ChannelWriter) {
    let ending = async {
        let _ = writer.eof().await;
        let mut room = MOST_LINGERING;
        loop {
            match reader.receive().await {
                Received::Data(data) if data.len() < room => room -= data.len(),
                Received::Eof => {}
                Received::Data(_) | Received::Closed => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, ending).await;
}
