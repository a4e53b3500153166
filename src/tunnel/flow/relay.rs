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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::hang_up::hang_up;
use super::pace::{Pace, Pressure, Step};
use super::send_buffer::SendBuffer;
use crate::ssh::{Channel, ChannelReader, ChannelWriter, Received};
use crate::tunnel::api::{Changed, Exchange, FromClient};
use crate::tunnel::client::error_answer::{answer, error_body};
use crate::tunnel::client::peer::Who;
use crate::tunnel::client::stream::LocalStream;
use crate::tunnel::counters::Counters;
use crate::tunnel::pool::{Lease, Stall};
use crate::tunnel::ports::Looks;

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

/// What became of a client on one channel.
#[derive(Debug)]
pub(in crate::tunnel) enum Outcome {
    /// Its connection is over.
    Ended(End),
    /// It goes on elsewhere, or waits for its next request: the channel is not needed any more.
    Free(LocalStream, Left),
}

/// The channel of a client that has left it.
#[derive(Debug)]
pub(in crate::tunnel) struct Left {
    pub(in crate::tunnel) channel: Channel,
    /// Is nothing under way on it, so that another client's requests may follow?
    pub(in crate::tunnel) is_free: bool,
}

/// What a flow is carried with.
#[derive(Clone, Copy)]
pub(in crate::tunnel) struct Carriage<'a> {
    /// Who counts its bytes.
    pub(in crate::tunnel) counters: &'a [&'a Counters],
    pub(in crate::tunnel) lease: &'a Lease,
    /// Most bytes that are kept on disk for the client.
    pub(in crate::tunnel) spill: u64,
    /// On whose behalf the local connection was opened, where that is somebody else than who holds it.
    pub(in crate::tunnel) on_behalf: Option<&'a Who>,
    /// The client's requests, where they are read along. None: blind.
    pub(in crate::tunnel) exchange: Option<&'a Exchange>,
    /// Is the channel a command on the host, of which the server allows so many? It counts even while its client asks nothing.
    pub(in crate::tunnel) is_command: bool,
    /// Has the channel carried another client's requests?
    pub(in crate::tunnel) is_used: bool,
    /// Where answers to requests that change published ports wait for these.
    pub(in crate::tunnel) looks: &'a Looks,
    /// May the client's next request go on here, as far as the settings are concerned?
    pub(in crate::tunnel) may_stay: &'a (dyn Fn() -> bool + Sync),
}

/// How the client's direction ended.
enum Outward {
    /// The flow ends with it.
    Ends(End),
    /// The host has heard of the end.
    Told,
    /// The next request goes on another connection.
    Elsewhere,
}

/// What the two directions know of one another.
#[derive(Debug, Default)]
struct Shared {
    /// Does the client leave this channel, once it has all that came over it?
    leaving: AtomicBool,
    /// Notified when it does.
    left: Notify,
    /// How many requests have begun on it?
    requests: AtomicUsize,
    /// Has its client ended with nothing under way?
    is_over: AtomicBool,
    /// Has the host ended its direction?
    host_ended: AtomicBool,
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

/// Carries bytes both ways until the flow ends, or the client needs this channel no more.
pub(in crate::tunnel) async fn carry(local: LocalStream, channel: Channel, carriage: Carriage<'_>) -> Outcome {
    let (mut reader, writer) = channel.split();
    let shared = Shared::default();
    // None: the client is free.
    let end = {
        let out = outwards(&local, &writer, carriage, &shared);
        let back = Inwards::new(&local, carriage, &shared);
        let back = back.run(&mut reader);
        tokio::pin!(out, back);
        let (mut out_done, mut leaving) = (false, false);
        let may_be_cut = carriage.exchange.is_some_and(Exchange::may_be_cut);
        loop {
            tokio::select! {
                result = &mut back => break result,
                () = carriage.lease.broken(), if !shared.complete.load(Relaxed) && !leaving => {
                    if !carriage.exchange.is_some_and(Exchange::survives) {
                        break Some(End::Cut);
                    }
                    leaving = true;
                }
                () = until_cut(carriage.exchange), if may_be_cut => break Some(End::Cut),
                () = carriage.lease.outstays(), if carriage.exchange.is_some() && !leaving => leaving = true,
                end = &mut out, if !out_done => match end {
                    // What the host has sent is here, and goes to the client all the same.
                    Outward::Ends(End::Cut) if shared.complete.load(Relaxed) => out_done = true,
                    Outward::Ends(End::Cut) if carriage.exchange.is_some_and(Exchange::survives) => {
                        (out_done, leaving) = (true, true);
                    }
                    Outward::Ends(end) => break Some(end),
                    Outward::Elsewhere => (out_done, leaving) = (true, true),
                    Outward::Told => out_done = true,
                },
            }
            if leaving {
                // What is here already goes to the client first.
                shared.leaving.store(true, Relaxed);
                shared.left.notify_one();
            }
        }
    };
    let Some(end) = end else {
        let is_free = shared.is_over.load(Relaxed) && !shared.host_ended.load(Relaxed) && !carriage.is_command;
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
        hang_up(reader, writer, end == End::ClientGone).await;
    }
    Outcome::Ended(end)
}

/// From the client to the host. Once both directions have ended, a client that still reads looks just like one that is gone;
/// then nothing is left to be cut.
async fn outwards(local: &LocalStream, writer: &ChannelWriter, carriage: Carriage<'_>, shared: &Shared) -> Outward {
    loop {
        if shared.leaving.load(Relaxed) {
            return Outward::Elsewhere;
        }
        let data = match carriage.exchange.and_then(Exchange::ready) {
            Some(kind) => {
                // A request: the first one on this channel has been placed here.
                let is_to_be_changed = carriage.exchange.is_some_and(Exchange::names_our_socket);
                if is_to_be_changed || !((carriage.may_stay)() && carriage.lease.takes(kind)) {
                    return Outward::Elsewhere;
                }
                shared.requests.fetch_add(1, Relaxed);
                carriage.exchange.map(Exchange::begin).unwrap_or_default()
            }
            None => match read(local, carriage.exchange).await {
                None => continue,
                // It has ended with nothing under way: no end of the channel's can matter to it.
                Some(Ok(data)) if data.is_empty() && carriage.exchange.is_some_and(Exchange::is_over) => {
                    shared.is_over.store(true, Relaxed);
                    return Outward::Elsewhere;
                }
                Some(Ok(data)) if data.is_empty() && carriage.exchange.and_then(Exchange::ready).is_some() => continue,
                Some(Ok(data)) if data.is_empty() => break,
                Some(Ok(data)) => match carriage.exchange.map(|exchange| exchange.client_sent(data.clone())) {
                    None => data,
                    Some(FromClient::Pass(data)) => data,
                    Some(FromClient::Wait | FromClient::Ready) => continue,
                },
                Some(Err(_)) => return Outward::Ends(End::ClientGone),
            },
        };
        let size = data.len();
        shared.set_sending(true);
        let sent = writer.send(data).await;
        shared.set_sending(false);
        if sent.is_err() {
            return Outward::Ends(End::Cut);
        }
        carriage.counters.iter().for_each(|c| c.sent(size));
    }
    carriage.exchange.into_iter().for_each(Exchange::client_ended);
    shared.set_sending(true);
    let sent = writer.eof().await;
    shared.set_sending(false);
    if sent.is_err() {
        return Outward::Ends(End::Cut);
    }
    let gone = local.gone().await.is_ok() && !shared.told.load(Relaxed);
    if gone { Outward::Ends(End::ClientGone) } else { Outward::Told }
}

/// What comes next from the client. None: no more is waited for.
async fn read(local: &LocalStream, exchange: Option<&Exchange>) -> Option<std::io::Result<bytes::Bytes>> {
    let Some(exchange) = exchange else { return Some(local.read().await) };
    tokio::select! {
        read = local.read() => Some(read),
        () = exchange.overdue() => None,
    }
}

/// From the host to the client. Bytes that the client does not take at once are buffered; [`Pace`] decides whether to
/// read more from the host meanwhile.
struct Inwards<'a> {
    local: &'a LocalStream,
    carriage: Carriage<'a>,
    shared: &'a Shared,
    buffer: SendBuffer,
    pace: Pace,
    stall: Option<Stall<'a>>,
    /// While the connection is left unread: when a sign of life last asked for an answer, and the pause until the next.
    answered: Option<(Instant, Duration)>,
    /// A sign of life that is being sent.
    round: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    /// What the client's answer waits for.
    held: Option<Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>>,
    /// Is the held answer whole, with nothing of it sent yet?
    is_whole: bool,
    /// Has the host ended its direction? The client's side is ended once the buffer is empty.
    ended: bool,
    closed: bool,
}

impl<'a> Inwards<'a> {
    fn new(local: &'a LocalStream, carriage: Carriage<'a>, shared: &'a Shared) -> Self {
        Self {
            local,
            carriage,
            shared,
            buffer: SendBuffer::new(carriage.spill),
            pace: Pace::new(Instant::now()),
            stall: None,
            answered: None,
            round: None,
            held: None,
            is_whole: false,
            ended: false,
            closed: false,
        }
    }

    /// How the flow ends. None: the client needs the channel no more.
    async fn run(mut self, reader: &mut ChannelReader) -> Option<End> {
        let mut users = self.carriage.lease.users();
        loop {
            let leaves = self.shared.leaving.load(Relaxed);
            if leaves {
                self.carriage.lease.park();
            }
            if self.buffer.is_empty() {
                if leaves {
                    return None;
                }
                if !self.carriage.is_command && self.carriage.exchange.is_some_and(Exchange::is_between) {
                    self.carriage.lease.park();
                    if self.carriage.lease.pooled.is_ending() {
                        return None;
                    }
                }
                if self.ended && !self.shared.told.swap(true, Relaxed) && self.local.shutdown_write().is_err() {
                    return Some(End::ClientGone);
                }
                if self.closed {
                    return Some(End::Done);
                }
            }
            let step = self.step();
            if step == Step::Reset {
                let (who, reason) = (self.who(), self.buffer.limit_reason());
                let who = who.await;
                return Some(End::TooSlow(format!(
                    "{who} did not read while others needed its SSH connection; {reason}"
                )));
            }
            let until = match step {
                Step::Wait(until) => until,
                _ => None,
            };
            let leaving = self.shared.leaving.load(Relaxed);
            let reads =
                matches!(step, Step::Read | Step::Round) && !self.closed && !leaving && !self.buffer.is_behind();
            let (full, front) = (self.stall.is_some(), self.buffer.front());
            tokio::select! {
                // Not biased: both directions get their turns.
                written = self.local.write_some(&front), if !front.is_empty() && self.held.is_none() => {
                    let Ok(written) = written else { return Some(End::ClientGone) };
                    self.buffer.advance(written);
                    self.carriage.counters.iter().for_each(|c| c.received(written));
                    if full {
                        self.pace.taken(Instant::now(), written);
                    }
                }
                received = reader.receive(), if reads => match received {
                    Received::Data(data) => {
                        self.carriage.lease.pooled.has_received(data.len());
                        if let Some(Changed { starts }) = self.carriage.exchange.and_then(|e| e.host_sent(&data)) {
                            self.is_whole = self.buffer.is_empty() && self.carriage.exchange.is_some_and(Exchange::is_between);
                            let looks = self.carriage.looks;
                            self.held = Some(Box::pin(async move { looks.once_more(starts.as_deref()).await }));
                        }
                        let last = full && self.pace.received(Instant::now(), data.len());
                        self.buffer.push(data);
                        if self.round.is_some() && (self.round_is_done().await || last) {
                            self.round_ends();
                        }
                    }
                    // The client hears nothing of it: its next request gets another channel.
                    end if !self.ended && self.goes_on(&end) => {
                        self.shared.host_ended.store(true, Relaxed);
                        self.shared.leaving.store(true, Relaxed);
                    }
                    Received::Eof => {
                        self.shared.host_ended.store(true, Relaxed);
                        self.ended = true;
                    }
                    Received::Closed | Received::Lost if self.ended => self.complete(),
                    Received::Closed | Received::Lost => return Some(End::Cut),
                },
                stored = self.buffer.disk(), if self.buffer.needs_disk() => if let Err(error) = stored {
                    let who = self.who().await;
                    return Some(End::TooSlow(format!("{who} did not read, and its data on disk is lost: {error}")));
                },
                () = until_done(&mut self.round) => self.round_ends(),
                why = until_done(&mut self.held) => {
                    self.held = None;
                    if let Some(why) = why.filter(|_| self.is_whole) {
                        self.buffer = SendBuffer::new(self.carriage.spill);
                        // The request was undone.
                        self.buffer.push(answer("500 Internal Server Error", &error_body(&why), false).into());
                    }
                }
                _ = users.changed(), if full => {}
                () = self.shared.changed.notified(), if full => {}
                () = self.shared.left.notified(), if self.carriage.exchange.is_some() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Does the client's connection survive this end of its channel? The loss of the SSH connection, if no request is in
    /// progress that cannot be sent again. An end that the Engine made, only if such a request is in progress and the
    /// channel carried another one before: then the Engine may have closed what was idle (RFC 9112 section 9.3.1).
    fn goes_on(&self, end: &Received) -> bool {
        let Some(exchange) = self.carriage.exchange else { return false };
        let is_used = || self.carriage.is_used || self.shared.requests.load(Relaxed) > 1;
        (*end == Received::Lost || is_used() && !exchange.is_between()) && exchange.survives()
    }

    /// The client.
    fn who(&self) -> impl Future<Output = Who> + 'a {
        let (local, on_behalf) = (self.local, self.carriage.on_behalf.cloned());
        async move {
            match on_behalf {
                Some(who) => who,
                None => Who::of(local).await,
            }
        }
    }

    /// Asks [`Pace`] what to do now, and tells the pool where the client does not keep up.
    fn step(&mut self) -> Step {
        let complete = self.closed || self.shared.leaving.load(Relaxed);
        if !complete && self.buffer.is_full() && self.stall.is_none() {
            self.stall = Some(self.carriage.lease.stall());
        } else if self.stall.is_some() && (complete || self.buffer.has_room()) {
            (self.stall, self.round) = (None, None);
        }
        self.carriage.lease.keeps(self.buffer.spilled());
        let pressure = Pressure {
            full: self.stall.is_some(),
            shared: self.carriage.lease.is_shared(),
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
            self.round = Some(Box::pin(self.carriage.lease.pooled.carrier.connection.show_life(answered)));
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
        self.carriage.lease.leave();
    }
}

async fn until_cut(exchange: Option<&Exchange>) {
    match exchange {
        Some(exchange) => exchange.cut().await,
        None => std::future::pending().await,
    }
}

async fn until_done<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
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
