//! One client's connection: a request, its answer, and the next request.
//!
//! ```text
//!                    its head is here          it is placed
//!   Between ───────────────────────► Ready ───────────────────► Asked ──┐
//!      ▲                                                                │
//!      └──────────────── request and answer have both ended ────────────┘
//!   any state ── what is not understood, or has no certain end ──► Blind
//! ```
//!
//! `Holding` comes before `Ready` where the body is read, too. What is to be sent blindly is `BlindReady` first. Under a
//! guard it goes by other rules: [`policed`].
//!
//! In `Between` and `Ready` no part of a request is at the host and no part of an answer is pending: the client's
//! connection is bound to no channel.

mod policed;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::{Answer, Keeps, Progress};
use super::ping::{self, Pings, Told};
use super::request::{Line, Reading, Request};
use crate::sync::lock;
use crate::tunnel::binds::{self, Bind, Wanted};
use crate::tunnel::dial::Kind;
use crate::tunnel::guard::{Effect, Police};

pub(in crate::tunnel) use policed::Rejected;

/// How long the rest of a head is waited for. An incomplete head is then passed on unchanged.
const HEAD_TIME: Duration = Duration::from_secs(1);
/// How long more of a body that is looked at is waited for. What there is of it is then passed on unchanged.
const BODY_TIME: Duration = Duration::from_secs(10);
/// As these two, under a guard, as in nginx (client_header_timeout). Between two requests a connection may stay open:
/// SDKs keep idle ones, and so does the Engine.
const POLICED_TIME: Duration = Duration::from_secs(60);
/// At the end of a head.
const END: &[u8] = b"\r\n\r\n";
/// Limit of the answer about a created object that is read, in bytes.
const MAX_MADE: usize = 64 << 10;
/// How often a request without an answer is sent again.
const MOST_REPEATS: u32 = 2;

/// A request has changed which ports are published, or may have ended what writes to mounted directories.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tunnel) struct Changed {
    /// What it may have changed.
    pub(in crate::tunnel) effect: Effect,
    /// The container that it names, as the client does.
    pub(in crate::tunnel) container: Option<String>,
    /// Whether it has started that.
    pub(in crate::tunnel) starts: bool,
    /// Whether its answer ends with this data, and the client has sent all of it.
    pub(in crate::tunnel) is_answered: bool,
}

/// What a request is about to do, as far as the host is prepared for it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tunnel) enum Prepares {
    /// Give a container these binds.
    Create(Vec<Bind>),
    /// Start the container that its client calls so.
    Start(String),
    /// Run a command in that.
    Exec(String),
}

/// What to do with data from the host.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tunnel) struct FromHost {
    /// How many bytes of it the client gets.
    pub(in crate::tunnel) passes: usize,
    /// It reports the success of a request with such an effect. Told once.
    pub(in crate::tunnel) changed: Option<Changed>,
}

/// What to do with data from the client.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tunnel) enum FromClient {
    /// Send it on: it belongs to the request in progress.
    Pass(Bytes),
    /// Wait for more data.
    Wait,
    /// Place the pending data on a channel; see [`Exchange::ready`].
    Ready,
}

/// The state of one client's connection. The lock is held only while one piece is read.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Exchange {
    state: Mutex<State>,
    /// What is known of the Engine's answer to pings.
    pings: Arc<Pings>,
    /// The binds of containers that are not passed on as they are.
    wanted: Wanted,
    /// Decides on its requests, where there is a guard.
    police: Option<Arc<dyn Police>>,
    /// Notified when the client is to be cut, and when it has had more than an early answer.
    cut: Notify,
    more: Notify,
    /// Notified when what the client has sent goes on without its sending more.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Data from the client that belongs to the next request.
    pending: BytesMut,
    /// Boxed, because it changes places with `asked` at each request.
    request: Box<Request>,
    /// The last question that may be sent again. A client that repeats it, as clients of a kept connection do, is not read
    /// anew. Never under a guard.
    asked: Option<Box<Request>>,
    /// The answer to the request.
    answer: Option<Answer>,
    /// Whether any part of the answer has arrived.
    answered: bool,
    repeats: u32,
    /// Was there a request before this one?
    is_later: bool,
    /// What the client has had of the Engine.
    early: Early,
    policed: policed::Policed,
}

/// What a client has had that was answered early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Early {
    /// It was not, or has had other answers since.
    #[default]
    No,
    /// Nothing but that answer.
    Told,
    /// That is not true any more, and the client is to be cut.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Between,
    /// The head is here; its body is read, because it may name paths of this machine.
    Holding,
    Ready,
    Asked,
    /// The pending data must be placed like a request.
    BlindReady,
    Blind,
    /// Its head is here, and it is to be judged.
    Judging,
    /// It does not pass.
    Refused,
    /// No more requests may come.
    Over,
    /// Part of it was sent, and the rest cannot be read.
    Broken,
}

impl Exchange {
    /// Of a tunnel that wants these binds of containers, and perhaps has a guard.
    pub(in crate::tunnel) fn new(pings: Arc<Pings>, wanted: Wanted, police: Option<Arc<dyn Police>>) -> Self {
        Self { pings, wanted, police, ..Self::default() }
    }

    /// Does what is ready wait for the host to be prepared for it: does it give a container a path of this machine, or run
    /// something in one that may have such?
    pub(in crate::tunnel) fn is_to_be_prepared(&self) -> bool {
        let state = lock(&self.state);
        let request = &state.request;
        let runs = self.wanted.all && !request.is_prepared && (request.starts || request.runs);
        state.phase == Phase::Ready && (runs || !request.binds.is_empty())
    }

    /// What it is about to do.
    pub(in crate::tunnel) fn to_be_prepared(&self) -> Prepares {
        let request = &lock(&self.state).request;
        match &request.container {
            Some(container) if request.starts => Prepares::Start(container.clone()),
            Some(container) if request.runs => Prepares::Exec(container.clone()),
            _ => Prepares::Create(request.binds.clone()),
        }
    }

    /// The host is prepared for it, and the container gets these paths there in place of those.
    pub(in crate::tunnel) fn prepared(&self, others: &[(Bind, String)]) {
        let mut state = lock(&self.state);
        state.request.is_prepared = true;
        let found = std::mem::take(&mut state.request.binds);
        if found.is_empty() {
            return;
        }
        let Some(at) = state.request.body.take() else { return };
        let body = binds::replaced(&state.pending[at.clone()], others);
        let head = binds::with_length(&state.pending[..at.start], body.len());
        state.pending = BytesMut::from(&[head, body].concat()[..]);
    }

    /// The request that is in progress, if it could be read.
    pub(in crate::tunnel) fn in_progress(&self) -> Option<Line> {
        let state = lock(&self.state);
        let is_asked = matches!(state.phase, Phase::Asked | Phase::Blind) && !state.request.is_new();
        is_asked.then(|| state.request.line.clone())
    }

    /// Is what is ready the ping of a docker command, with which its connection begins, and nothing else?
    pub(in crate::tunnel) fn is_first_ping(&self) -> bool {
        let state = lock(&self.state);
        state.phase == Phase::Ready && state.request.is_ping && !state.is_later
    }

    /// What is ready has been answered without the Engine. Returns what was asked.
    pub(in crate::tunnel) fn answer_early(self: &Arc<Self>, early: &ping::Early) -> Bytes {
        let mut state = lock(&self.state);
        let question = state.pending.split().freeze();
        state.next_request(Early::Told, self.police.as_deref());
        drop(state);
        self.pings.told(self.clone(), early.as_of);
        question
    }

    /// Waits until the client has had more than an early answer.
    pub(in crate::tunnel) async fn has_more(&self) {
        while self.is_told() {
            self.more.notified().await;
        }
    }

    /// May it come to that?
    pub(in crate::tunnel) fn may_be_cut(&self) -> bool {
        lock(&self.state).early != Early::No
    }

    fn is_cut(&self) -> bool {
        lock(&self.state).early == Early::Cut
    }

    /// Waits until the client is to be cut.
    pub(in crate::tunnel) async fn cut(&self) {
        while !self.is_cut() {
            self.cut.notified().await;
        }
    }

    /// Takes what has come from the client.
    pub(in crate::tunnel) fn client_sent(&self, data: Bytes) -> FromClient {
        let mut state = lock(&self.state);
        if let Some(police) = &self.police {
            return state.policed_sent(police.as_ref(), data);
        }
        match state.phase {
            Phase::Blind => FromClient::Pass(data),
            Phase::Judging | Phase::Refused | Phase::Over | Phase::Broken => FromClient::Wait,
            Phase::Asked => {
                // A second request after the first one, or an invalid body: both are passed on unchanged.
                if !state.request.rest.takes_all(&data) {
                    state.phase = Phase::Blind;
                }
                FromClient::Pass(data)
            }
            Phase::Between => {
                let before = state.pending.len();
                state.pending.extend_from_slice(&data);
                let gathered = state.gather(before);
                if state.phase == Phase::Holding { state.look_at_body(&self.wanted) } else { gathered }
            }
            Phase::Holding => {
                if !state.request.rest.takes_all(&data) {
                    state.phase = Phase::BlindReady;
                }
                state.pending.extend_from_slice(&data);
                state.look_at_body(&self.wanted)
            }
            Phase::Ready | Phase::BlindReady => {
                if !state.request.rest.takes_all(&data) {
                    state.phase = Phase::BlindReady;
                }
                state.pending.extend_from_slice(&data);
                FromClient::Ready
            }
        }
    }

    /// Whether anything but the client's next data may matter to it: [`Self::overdue`] or [`Self::news`].
    pub(in crate::tunnel) fn awaits(&self) -> bool {
        let state = lock(&self.state);
        self.police.is_some() || !state.pending.is_empty()
    }

    /// Waits until the rest of a started head, or of a body that is looked at, is overdue. The data received so far is
    /// then ready.
    pub(in crate::tunnel) async fn overdue(&self) {
        let until = {
            let state = lock(&self.state);
            match state.phase {
                _ if self.police.is_some() => state.policed_until(),
                Phase::Between if !state.pending.is_empty() => Some(Instant::now() + HEAD_TIME),
                Phase::Holding => Some(Instant::now() + BODY_TIME),
                _ => None,
            }
        };
        let Some(until) = until else { return std::future::pending().await };
        tokio::time::sleep_until(until).await;
        let mut state = lock(&self.state);
        match self.police.is_some() {
            true => state.policed_overdue(),
            false => state.phase = Phase::BlindReady,
        }
    }

    /// Waits until something that was sent earlier goes on.
    pub(in crate::tunnel) async fn news(&self) {
        self.news.notified().await;
    }

    /// Does this data from the host pass as it is, whatever follows from it? Then it may go to the client before it is
    /// [recorded](Self::host_sent).
    pub(in crate::tunnel) fn passes_at_once(&self, data: &[u8]) -> bool {
        let state = lock(&self.state);
        let changes_nothing = state.request.effect == Effect::None || state.request.is_told;
        state.early == Early::No && changes_nothing && (self.police.is_none() || state.is_answered_as_before(data))
    }

    /// Records data from the host.
    pub(in crate::tunnel) fn host_sent(&self, data: &[u8]) -> FromHost {
        let mut state = lock(&self.state);
        if state.early == Early::Told {
            state.early = Early::No;
            self.more.notify_one();
        }
        state.request.line.received += data.len() as u64;
        let mut heard = FromHost { passes: data.len(), changed: None };
        if state.phase == Phase::Blind {
            return heard;
        }
        if self.police.is_some() && (state.phase != Phase::Asked || state.policed.is_answered()) {
            state.answers_nothing();
            self.news.notify_one();
            return FromHost { passes: 0, ..heard };
        }
        let was_answered = std::mem::replace(&mut state.answered, true);
        let is_asked = state.phase == Phase::Asked;
        let State { answer, request, .. } = &mut *state;
        let progress = match answer.as_mut().filter(|_| is_asked) {
            Some(answer) if was_answered => answer.feed(data),
            Some(answer) => answer.feed_first(data, request.seen.as_ref()),
            // No request is in progress, or its answer ends with the connection.
            None => Progress::UntilClose,
        };
        let is_done = state.answer.as_ref().is_some_and(Answer::is_done);
        let effect = Some(state.request.effect).filter(|_| !state.request.is_told).unwrap_or_default();
        // The head of the answer to a wait comes at once.
        let is_told = effect != Effect::Waited || progress != Progress::More || was_answered || !data.ends_with(END);
        if is_done && is_told && effect != Effect::None {
            let status = state.answer.as_ref().and_then(Answer::status);
            state.request.is_told = true;
            // A 304 says that the container ran already (`ContainerStart` in the Engine's API).
            let starts = state.request.starts && status != Some(304);
            let is_answered = matches!(progress, Progress::Complete | Progress::Last) && state.request.rest.has_ended();
            let container = state.request.container.clone();
            heard.changed = Some(Changed { effect, container, starts, is_answered });
        }
        if progress == Progress::More {
            return heard;
        }
        let (is_ping, generation) = (std::mem::take(&mut state.request.is_ping), state.request.generation);
        let answer = state.answer.take();
        let goes_on = progress == Progress::Complete && !state.request.last && state.request.rest.has_ended();
        if matches!(progress, Progress::Complete | Progress::Last | Progress::Surplus(_)) {
            if tracing::enabled!(tracing::Level::DEBUG) {
                state.request.line.log(answer.as_ref().and_then(Answer::status));
            }
            if self.police.is_some() || !goes_on {
                state.request.line = Line::default();
            }
        }
        if progress == Progress::Complete
            && let Some(answer) = answer.as_ref().filter(|_| state.request.is_repeat && !was_answered)
        {
            state.request.is_answered_by(answer, data);
        }
        if let Some(police) = &self.police {
            state.policed_heard(progress, answer.as_ref(), police.as_ref());
            if let Progress::Surplus(passes) = progress {
                heard.passes = passes;
            }
            if state.phase == Phase::Broken {
                (heard.passes, state.answered) = (0, was_answered);
            }
            if state.phase != Phase::Asked {
                self.news.notify_one();
            }
        } else if goes_on {
            state.next_request(Early::No, None);
        } else if state.pending.is_empty() {
            state.phase = Phase::Blind;
        } else {
            // What the client has begun is still to be sent.
            state.phase = Phase::BlindReady;
        }
        // Whoever holds the lock of the pings may wait for this one.
        drop(state);
        if is_ping {
            let head = answer.as_ref().and_then(Answer::head).filter(|_| progress == Progress::Complete);
            self.pings.heard(generation, head);
        }
        heard
    }

    /// The kind of the pending data if it is ready to be placed; none of it was sent yet.
    pub(in crate::tunnel) fn ready(&self) -> Option<Kind> {
        let state = lock(&self.state);
        match state.phase {
            Phase::Ready => Some(state.request.kind),
            Phase::BlindReady => Some(Kind::Unknown),
            _ => None,
        }
    }

    /// Marks the pending data as placed, and returns it for sending.
    pub(in crate::tunnel) fn begin(&self) -> Bytes {
        let generation = self.pings.generation();
        let mut state = lock(&self.state);
        let pending = state.pending.split().freeze();
        match state.phase {
            Phase::Ready => {
                state.phase = Phase::Asked;
                let is_made = state.policed.makes().is_some();
                let keeps = Keeps {
                    head: state.request.is_ping || self.police.is_some(),
                    body: if is_made { MAX_MADE } else { 0 },
                    last: self.police.is_some() || state.request.starts,
                };
                state.answer = Some(Answer::new(state.request.is_head, keeps));
                state.answered = false;
                state.request.generation = generation;
                state.request.line.since = SystemTime::now();
                if state.request.repeatable.is_some() {
                    state.request.repeatable = Some(pending.clone());
                }
            }
            Phase::BlindReady => state.phase = Phase::Blind,
            _ => {}
        }
        pending
    }

    /// Whether the last request was answered and no other one has begun. The client's connection
    /// is then bound to no channel.
    pub(in crate::tunnel) fn is_between(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Between | Phase::Holding)
    }

    /// Is what is ready a question that may be sent again (RFC 9110 section 9.2.2), and was not yet?
    pub(in crate::tunnel) fn is_question(&self) -> bool {
        let state = lock(&self.state);
        state.phase == Phase::Ready && state.request.repeatable.is_some() && state.repeats == 0
    }

    /// The client has ended its direction. True if no request is in progress, so that the connection is over. An
    /// incomplete head becomes ready, and is passed on unchanged.
    pub(in crate::tunnel) fn is_over(&self) -> bool {
        let mut state = lock(&self.state);
        if self.police.is_some() {
            return state.policed_is_over();
        }
        if !matches!(state.phase, Phase::Between | Phase::Holding) {
            return false;
        }
        if !state.pending.is_empty() {
            state.phase = Phase::BlindReady;
        }
        state.pending.is_empty()
    }

    /// The client sends no more data: a request in progress ends with its channel.
    pub(in crate::tunnel) fn client_ended(&self) {
        let mut state = lock(&self.state);
        if self.police.is_some() {
            return state.policed_ended();
        }
        if state.phase != Phase::Asked {
            state.phase = Phase::Blind;
        }
        state.request.last = true;
    }

    /// The channel was lost. Returns true if the connection can continue: no request is in progress, or it is safe,
    /// still unanswered, and may be sent again (RFC 9110 section 9.2.2).
    pub(in crate::tunnel) fn survives(&self) -> bool {
        let mut state = lock(&self.state);
        if state.phase != Phase::Asked || state.answered || state.repeats >= MOST_REPEATS {
            return !matches!(state.phase, Phase::Asked | Phase::Blind | Phase::Broken);
        }
        let Some(whole) = state.request.repeatable.clone() else { return false };
        state.pending = BytesMut::from(&whole[..]);
        state.phase = Phase::Ready;
        state.repeats += 1;
        true
    }

    /// The Engine has ended a channel on which the request that is ready was to be sent. True if the request is to have
    /// another channel, as often as one is sent again: some Engine may close whatever it accepts.
    pub(in crate::tunnel) fn moves_unsent(&self) -> bool {
        let mut state = lock(&self.state);
        let moves = state.phase == Phase::Ready && state.repeats < MOST_REPEATS;
        if moves {
            state.repeats += 1;
        }
        moves
    }
}

impl Told for Exchange {
    fn is_told(&self) -> bool {
        lock(&self.state).early == Early::Told
    }

    fn cut_if_told(&self) {
        let mut state = lock(&self.state);
        if state.early == Early::Told {
            state.early = Early::Cut;
            self.cut.notify_one();
        }
    }
}

impl State {
    /// The request has been answered, and another one may come.
    fn next_request(&mut self, early: Early, police: Option<&dyn Police>) {
        if police.is_some() {
            self.policed_keep();
        } else if self.request.may_be_repeated() {
            std::mem::swap(&mut self.request, self.asked.get_or_insert_default());
        }
        // Of one that is repeated, the one before it has come back, which is new still.
        if police.is_some() || !self.request.is_new() {
            *self.request = Request::default();
        }
        (self.phase, self.pending, self.answer) = (Phase::Between, BytesMut::new(), None);
        (self.answered, self.repeats, self.is_later, self.early) = (false, 0, true, early);
        if let Some(police) = police {
            self.policed_next(police);
        }
    }

    /// Looks for binds in a body that is whole.
    fn look_at_body(&mut self, wanted: &Wanted) -> FromClient {
        if self.phase == Phase::Holding && !self.request.rest.has_ended() {
            return FromClient::Wait;
        }
        if let (Phase::Holding, Some(at)) = (self.phase, self.request.body.clone()) {
            self.request.binds = wanted.find(&self.pending[at]);
            self.phase = Phase::Ready;
        }
        FromClient::Ready
    }

    /// Looks for a request in the pending data, of which `before` bytes were searched earlier.
    fn gather(&mut self, before: usize) -> FromClient {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.is_repeated_by(&self.pending)) {
            std::mem::swap(&mut self.request, asked);
            self.request.becomes_new();
            self.phase = Phase::Ready;
            return FromClient::Ready;
        }
        match Request::read(&self.pending, before) {
            Reading::More => return FromClient::Wait,
            Reading::Other => self.phase = Phase::BlindReady,
            Reading::Request(request) => {
                self.phase = if request.body.is_some() { Phase::Holding } else { Phase::Ready };
                self.request = request;
            }
        }
        FromClient::Ready
    }
}

#[cfg(test)]
mod tests;
