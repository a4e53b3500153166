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

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;

use super::carriage::{Carriage, End, Left, Outcome, Shared};
use super::hang_up::hang_up;
use super::inwards::Inwards;
use super::outwards::{Outward, outwards};
use crate::os::local_stream::LocalStream;
use crate::ssh::Channel;
use crate::tunnel::api::Exchange;

/// Carries bytes both ways until the flow ends, or the client needs this channel no more.
pub(in crate::tunnel) fn carry<'a>(
    local: LocalStream,
    channel: Channel,
    carriage: &'a Carriage<'a>,
) -> impl Future<Output = Outcome> + Send + 'a {
    let (mut reader, writer) = channel.split();
    // What an async block takes has one place in the task; an argument of an async function has two.
    async move {
        let shared = Shared::default();
        // None: the client is free.
        let end = {
            // Pinned where they are made: a future that is moved takes its place twice in the task, for as long as it runs.
            let mut out = pin!(outwards(&local, &writer, carriage, &shared));
            let mut inwards = Inwards::new(&local, carriage, &shared);
            let mut back = pin!(inwards.run(&mut reader));
            let (mut out_done, mut leaving) = (false, false);
            let may_be_cut = carriage.exchange.is_some_and(Exchange::may_be_cut);
            loop {
                tokio::select! {
                    result = &mut back => break result,
                    () = carriage.lease.broken(), if !shared.complete.load(Relaxed) && !leaving => {
                        if !carriage.exchange.is_some_and(Exchange::outlives_channel) {
                            break Some(End::Cut);
                        }
                        leaving = true;
                    }
                    () = until_cut(carriage.exchange), if may_be_cut => break Some(End::Cut),
                    () = carriage.lease.outstays(), if carriage.exchange.is_some() && !leaving => leaving = true,
                    end = &mut out, if !out_done => match end {
                        // What the host has sent is here, and goes to the client all the same.
                        Outward::Ends(End::Cut) if shared.complete.load(Relaxed) => out_done = true,
                        Outward::Ends(End::Cut) if carriage.exchange.is_some_and(Exchange::outlives_channel) => {
                            (out_done, leaving) = (true, true);
                        }
                        Outward::Ends(end) => break Some(end),
                        Outward::Elsewhere => (out_done, leaving) = (true, true),
                        Outward::Told => out_done = true,
                    },
                }
                if leaving {
                    // What is here already goes to the client first. The direction from the host is looked at next, and sees it.
                    shared.leaving.store(true, Relaxed);
                }
            }
        };
        let Some(end) = end else {
            let is_free = shared.is_clean.load(Relaxed) && !shared.host_ended.load(Relaxed) && !carriage.is_command;
            return Outcome::Free(local, Left { channel: Channel::join(reader, writer), is_free });
        };
        match end {
            End::Done => local.finish(),
            End::ClientGone => drop(local),
            End::Cut | End::TooSlow(_) => local.reset(),
        }
        if let Some(complaint) = reader.complaint() {
            tracing::warn!("{complaint}");
        }
        if shared.complete.load(Relaxed) {
            writer.closed();
        } else {
            // On the heap, so that it takes no memory while bytes flow.
            Box::pin(hang_up(reader, writer, end == End::ClientGone)).await;
        }
        Outcome::Ended(end)
    }
}

async fn until_cut(exchange: Option<&Exchange>) {
    match exchange {
        Some(exchange) => exchange.cut().await,
        None => std::future::pending().await,
    }
}
