//! From the host to the client.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::carriage::{Carriage, End, Shared};
use super::pace::{Pace, Pressure, Step};
use super::send_buffer::SendBuffer;
use crate::os::local_stream::LocalStream;
use crate::ssh::{ChannelReader, Received};
use crate::tunnel::api::{Exchange, FromHost};
use crate::tunnel::client::error_answer::{answer, error_body};
use crate::tunnel::client::peer::Who;
use crate::tunnel::pool::Stall;
use crate::tunnel::pool::connection::Carrier;

/// Pause before the first sign of life that asks for an answer, and by how much later pauses grow. Each answer
/// costs what TCP and the server hold back, 5 to 40 MB as measured on a busy machine: some 25 of them in 10
/// minutes stay below the 1 GiB that may be kept.
const FIRST_ANSWERED: Duration = Duration::from_secs(10);
const LAST_ANSWERED: Duration = Duration::from_secs(30);

/// Most pieces that are taken until a sign of life is on its way or answered, where the connection is
/// otherwise left unread. TCP and the server hold back some 8 MB, which may be in pieces of a few bytes.
const MOST_OF_A_ROUND: usize = 1 << 20;

/// Limit of what a client gets where it arrives, in bytes.
const SMALL: usize = 4 << 10;

/// From the host to the client. Bytes that the client does not take at once are buffered; [`Pace`] decides whether to
/// read more from the host meanwhile.
pub(super) struct Inwards<'a> {
    local: &'a LocalStream,
    carriage: &'a Carriage<'a>,
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
    pub(super) fn new(local: &'a LocalStream, carriage: &'a Carriage<'a>, shared: &'a Shared) -> Self {
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
    pub(super) async fn run(&mut self, reader: &mut ChannelReader) -> Option<End> {
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
                    Received::Data(mut data) => {
                        self.carriage.lease.pooled.has_received(data.len());
                        let mut passed = None;
                        if let Some(exchange) = self.carriage.exchange {
                            // The client need not wait for what follows from it.
                            let is_early = data.len() <= SMALL && exchange.passes_at_once(&data);
                            passed = is_early.then(|| self.pass_on(data.clone()));
                            self.hear(exchange, &mut data);
                        }
                        let last = full && self.pace.received(Instant::now(), data.len());
                        if passed.unwrap_or_else(|| self.pass_on(data)).is_err() {
                            return Some(End::ClientGone);
                        }
                        if self.round.is_some() && (self.round_is_done().await || last) {
                            self.round_ends();
                        }
                    }
                    // The client hears nothing of it: its next request gets another channel.
                    end if !self.ended
                        && (self.goes_on(&end) || self.carriage.exchange.is_some_and(Exchange::tells_unanswered)) =>
                    {
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
                    self.shared.holding.store(false, Relaxed);
                    self.shared.released.notify_one();
                    if let Some(why) = why.filter(|_| self.is_whole) {
                        self.buffer = SendBuffer::new(self.carriage.spill);
                        // The request was undone.
                        let closes = !self.carriage.exchange.is_some_and(Exchange::is_between);
                        self.buffer.push(answer("500 Internal Server Error", &error_body(&why), closes).into());
                    }
                }
                () = either(&mut users, &self.shared.changed), if full => {}
                () = set(&self.shared.leaving), if !leaving => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Gives the client what it takes at once, and keeps the rest. The error is that it is gone.
    fn pass_on(&mut self, mut data: Bytes) -> io::Result<()> {
        if (1..=SMALL).contains(&data.len()) && self.buffer.is_empty() && self.held.is_none() {
            match self.local.try_write(&data) {
                Ok(written) => {
                    data.advance(written);
                    self.carriage.counters.iter().for_each(|c| c.received(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                gone => return gone.map(drop),
            }
        }
        if !data.is_empty() {
            self.buffer.push(data);
        }
        Ok(())
    }

    /// Has the client's requests hear what the host has sent, and keeps of it what the client gets.
    fn hear(&mut self, exchange: &Exchange, data: &mut Bytes) {
        let FromHost { passes, changed } = exchange.host_sent(data);
        data.truncate(passes);
        if let Some(changed) = changed {
            self.is_whole = self.buffer.is_empty() && changed.is_answered;
            self.shared.holding.store(true, Relaxed);
            let follow_up = self.carriage.follow_up;
            self.held = Some(Box::pin(async move { follow_up.on(&changed).await }));
        }
        if let Some(is_clean) = exchange.must_leave() {
            self.shared.is_clean.store(is_clean, Relaxed);
            self.shared.leaving.store(true, Relaxed);
        }
    }

    /// Does the client's connection survive this end of its channel? The loss of the SSH connection, if no request is in
    /// progress that cannot be sent again. An end that the Engine made, if its request has not been sent, or can be sent
    /// again and the channel carried another one before: the Engine may have closed what was idle (RFC 9112 section 9.3.1).
    fn goes_on(&self, end: &Received) -> bool {
        let Some(exchange) = self.carriage.exchange else { return false };
        let is_used = || self.carriage.is_used || self.shared.requests.load(Relaxed) > 1;
        (*end == Received::Lost || is_used() && !exchange.is_between()) && exchange.survives()
            || exchange.moves_unsent()
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
        // Whatever is left unread holds up this flow only.
        let is_apart = self.carriage.lease.pooled.carrier.flows_are_apart();
        if is_apart && self.stall.is_some() {
            return Step::Wait(None);
        }
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
        if !pressure.full {
            // Without a look at the clock, of which there is one for each piece.
            self.pace.keeps_up();
            return Step::Read;
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

async fn until_done<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Waits until the number of users changes, or what the other direction does. On the heap, as the waits below: most flows
/// never need them.
async fn either(users: &mut watch::Receiver<usize>, changed: &Notify) {
    Box::pin(async {
        tokio::select! {
            _ = users.changed() => {}
            () = changed.notified() => {}
        }
    })
    .await;
}

/// Waits until this is set. It wakes nobody: whoever sets it goes on with the same task.
async fn set(flag: &AtomicBool) {
    std::future::poll_fn(|_| if flag.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }).await;
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => Box::pin(tokio::time::sleep_until(time)).await,
        None => std::future::pending().await,
    }
}
