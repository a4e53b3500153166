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

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::hang_up::hang_up;
use super::pace::{Pace, Pressure, Step};
use super::send_buffer::SendBuffer;
use crate::ssh::{Channel, ChannelReader, ChannelWriter, Received};
use crate::tunnel::client::peer::Who;
use crate::tunnel::client::stream::LocalStream;
use crate::tunnel::counters::Counters;
use crate::tunnel::pool::{Lease, Stall};

/// Pause before the first sign of life that asks for an answer, and by how much later pauses grow. Each answer
/// costs what TCP and the server hold back, 5 to 40 MB as measured on a busy machine: some 25 of them in 10
/// minutes stay below the 1 GiB that may be kept.
const FIRST_ANSWERED: Duration = Duration::from_secs(10);
const LAST_ANSWERED: Duration = Duration::from_secs(30);

/// Most pieces that are taken until a sign of life is on its way or answered, where the connection is
/// otherwise left unread. TCP and the server hold back some 8 MB, which may be in pieces of a few bytes.
const MOST_OF_A_ROUND: usize = 1 << 20;

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tunnel) enum End {
    /// Client and host have each ended their direction.
    Done,
    /// The client closed both directions.
    ClientGone,
    /// The host or the connection cut it; the client has seen a reset.
    Cut,
    /// The client did not read, others needed its connection, and the spill limit was reached. The client has seen a
    /// reset. Holds its name and the limit, for people.
    TooSlow(String),
}

impl End {
    /// Did the client see a reset?
    pub(in crate::tunnel) fn is_cut(&self) -> bool {
        matches!(self, Self::Cut | Self::TooSlow(_))
    }
}

/// State that the two directions share.
#[derive(Debug, Default)]
struct Shared {
    /// Has the client been told that the host has ended its direction?
    told: AtomicBool,
    /// Has the host closed the channel? All its bytes have arrived; the connection is no longer needed.
    complete: AtomicBool,
    /// Do bytes of the client wait to be sent?
    sending: AtomicBool,
    /// Bumped when that changes.
    changed: Notify,
}

impl Shared {
    fn set_sending(&self, sending: bool) {
        self.sending.store(sending, Relaxed);
        self.changed.notify_one();
    }
}

/// Carries bytes both ways until the flow ends. `spill` limits the bytes kept on disk for its client. `on_behalf` names
/// the client where a guard holds `local` for it.
pub(in crate::tunnel) async fn carry(
    local: LocalStream,
    channel: Channel,
    counters: &[&Counters],
    lease: &Lease,
    spill: u64,
    on_behalf: Option<&Who>,
) -> End {
    let (mut reader, writer) = channel.split();
    let shared = Shared::default();
    let end = {
        let out = outwards(&local, &writer, counters, &shared);
        let back = Inwards::new(&local, counters, lease, &shared, spill, on_behalf);
        let back = back.run(&mut reader);
        tokio::pin!(out, back);
        let mut out_done = false;
        loop {
            tokio::select! {
                result = &mut back => break result,
                () = lease.broken(), if !shared.complete.load(Relaxed) => break End::Cut,
                end = &mut out, if !out_done => match end {
                    // All of the host's bytes have arrived, and still go to the client.
                    Some(End::Cut) if shared.complete.load(Relaxed) => out_done = true,
                    Some(end) => break end,
                    None => out_done = true,
                },
            }
        }
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
        hang_up(reader, writer, end == End::ClientGone).await;
    }
    end
}

/// From the client to the host. Ends with None once EOF was sent, unless the client closes both directions. (Once both
/// directions have ended, a client that still
/// reads looks just like one that is gone; then nothing is left to be cut.)
async fn outwards(local: &LocalStream, writer: &ChannelWriter, counters: &[&Counters], shared: &Shared) -> Option<End> {
    loop {
        match local.read().await {
            Ok(data) if data.is_empty() => break,
            Ok(data) => {
                let size = data.len();
                shared.set_sending(true);
                let sent = writer.send(data).await;
                shared.set_sending(false);
                if sent.is_err() {
                    return Some(End::Cut);
                }
                counters.iter().for_each(|c| c.sent(size));
            }
            Err(_) => return Some(End::ClientGone),
        }
    }
    shared.set_sending(true);
    let sent = writer.eof().await;
    shared.set_sending(false);
    if sent.is_err() {
        return Some(End::Cut);
    }
    let gone = local.gone().await.is_ok() && !shared.told.load(Relaxed);
    gone.then_some(End::ClientGone)
}

/// From the host to the client. Bytes that the client does not take at once are buffered; [`Pace`] decides whether to
/// read more from the host meanwhile.
struct Inwards<'a> {
    local: &'a LocalStream,
    on_behalf: Option<&'a Who>,
    counters: &'a [&'a Counters],
    lease: &'a Lease,
    shared: &'a Shared,
    buffer: SendBuffer,
    pace: Pace,
    stall: Option<Stall<'a>>,
    /// While the connection is left unread: when a sign of life last asked for an answer, and the pause until the next.
    answered: Option<(Instant, Duration)>,
    /// A sign of life that is being sent.
    round: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    /// Has the host ended its direction? The client's side is ended once the buffer is empty.
    ended: bool,
    closed: bool,
}

impl<'a> Inwards<'a> {
    fn new(
        local: &'a LocalStream,
        counters: &'a [&'a Counters],
        lease: &'a Lease,
        shared: &'a Shared,
        spill: u64,
        on_behalf: Option<&'a Who>,
    ) -> Self {
        let (buffer, pace) = (SendBuffer::new(spill), Pace::new(Instant::now()));
        Self {
            local,
            on_behalf,
            counters,
            lease,
            shared,
            buffer,
            pace,
            stall: None,
            answered: None,
            round: None,
            ended: false,
            closed: false,
        }
    }

    async fn run(mut self, reader: &mut ChannelReader) -> End {
        let mut users = self.lease.users();
        loop {
            if self.buffer.is_empty() {
                if self.ended && !self.shared.told.swap(true, Relaxed) && self.local.shutdown_write().is_err() {
                    return End::ClientGone;
                }
                if self.closed {
                    return End::Done;
                }
            }
            let step = self.step();
            if step == Step::Reset {
                let (who, reason) = (self.who(), self.buffer.limit_reason());
                let who = who.await;
                return End::TooSlow(format!("{who} did not read while others needed its SSH connection; {reason}"));
            }
            let until = match step {
                Step::Wait(until) => until,
                _ => None,
            };
            let reads = matches!(step, Step::Read | Step::Round) && !self.closed && !self.buffer.is_behind();
            let (full, front) = (self.stall.is_some(), self.buffer.front());
            tokio::select! {
                // Not biased: both directions get their turns.
                written = self.local.write_some(&front), if !front.is_empty() => {
                    let Ok(written) = written else { return End::ClientGone };
                    self.buffer.advance(written);
                    self.counters.iter().for_each(|c| c.received(written));
                    if full {
                        self.pace.taken(Instant::now(), written);
                    }
                }
                received = reader.receive(), if reads => match received {
                    Received::Data(data) => {
                        self.lease.pooled.has_received(data.len());
                        let last = full && self.pace.received(Instant::now(), data.len());
                        self.buffer.push(data);
                        if self.round.is_some() && (self.round_is_done().await || last) {
                            self.round_ends();
                        }
                    }
                    Received::Eof => self.ended = true,
                    Received::Closed if self.ended => self.complete(),
                    Received::Closed => return End::Cut,
                },
                stored = self.buffer.disk(), if self.buffer.needs_disk() => if let Err(error) = stored {
                    let who = self.who().await;
                    return End::TooSlow(format!("{who} did not read, and its data on disk is lost: {error}"));
                },
                () = until_done(&mut self.round) => self.round_ends(),
                _ = users.changed(), if full => {}
                () = self.shared.changed.notified(), if full => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// The client.
    fn who(&self) -> impl Future<Output = Who> + 'a {
        let (local, on_behalf) = (self.local, self.on_behalf.cloned());
        async move {
            match on_behalf {
                Some(who) => who,
                None => Who::of(local).await,
            }
        }
    }

    /// Asks [`Pace`] what to do now, and tells the pool where the client does not keep up.
    fn step(&mut self) -> Step {
        if !self.closed && self.buffer.is_full() && self.stall.is_none() {
            self.stall = Some(self.lease.stall());
        } else if self.stall.is_some() && (self.closed || self.buffer.has_room()) {
            (self.stall, self.round) = (None, None);
        }
        self.lease.keeps(self.buffer.spilled());
        let pressure = Pressure {
            full: self.stall.is_some(),
            shared: self.lease.is_shared(),
            sending: self.shared.sending.load(Relaxed),
            past_half: self.buffer.is_past_half(),
            at_limit: self.buffer.is_at_limit(),
        };
        if pressure.shared || !pressure.full {
            self.answered = None;
        }
        let step = self.pace.step(Instant::now(), pressure);
        if step == Step::Round {
            self.pace.round_begins(MOST_OF_A_ROUND);
            // An answered one, now and then, reads all that the server had sent before it.
            let answered = self.answered.is_none_or(|(when, pause)| when.elapsed() >= pause);
            if answered {
                let pause = self.answered.map_or(FIRST_ANSWERED, |(_, pause)| (pause * 3 / 2).min(LAST_ANSWERED));
                self.answered = Some((Instant::now(), pause));
            }
            self.round = Some(Box::pin(self.lease.pooled.carrier.connection.show_life(answered)));
        }
        step
    }

    /// Yields to the session after each piece, so that it takes no more pieces than needed.
    async fn round_is_done(&mut self) -> bool {
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            () = until_done(&mut self.round) => true,
            () = std::future::ready(()) => false,
        }
    }

    fn round_ends(&mut self) {
        self.round = None;
        self.pace.round_ends(Instant::now());
    }

    /// All of the host's bytes have arrived. The flow may go on, but no longer needs its connection.
    fn complete(&mut self) {
        self.closed = true;
        self.shared.complete.store(true, Relaxed);
        self.lease.leave();
    }
}

async fn until_done(work: &mut Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>>) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
