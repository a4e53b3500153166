//! Requests under a guard: read strictly, decided on by their heads, and sent only after that.
//!
//! ```text
//!   Between ── a head ──┬─► Ready        what is sent follows from the verdict
//!                       ├─► Judging ──┬─► Ready
//!                       │             ▼
//!                       └─────────► Refused ──┬─► Between     its body was dropped
//!                                             ▼
//!   an answer behind which nothing may come ─► Over
//!   a body that cannot be read ──────────────► Broken
//! ```
//!
//! Nothing is ever passed on blindly, but behind an upgrade that the guard has granted and the Engine has confirmed. What
//! comes behind a request waits for its answer.

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use tokio::time::Instant;

use super::{Early, Exchange, FromClient, POLICED_TIME, Phase, State};
use crate::sync::lock;
use crate::tunnel::api::answer::{Answer, Progress, Seen};
use crate::tunnel::api::ping::is_cli_ping;
use crate::tunnel::api::request::Request;
use crate::tunnel::guard::{
    Body, ByHead, Content, Head, Makes, Pass, Passed, Police, Refusal, Refused, Rest, head_end, read_head,
};

/// Limit of a head, in bytes. The longest known header holds the credentials of all registries.
pub(super) const MAX_HEAD: usize = 48 << 10;
/// Limit of bytes that wait behind a request, and for an upgrade to be granted. No more is read then.
pub(super) const MAX_BEHIND: usize = 64 << 10;
/// The refusal of a head that arrived only in part before the time limit.
const TOO_LATE: Refusal = "its head did not come within a minute";
/// The refusal of a body that arrived only in part before the time limit.
const BODY_TOO_LATE: Refusal = "its body did not come within a minute";

/// A request that is to be judged.
#[derive(Debug)]
pub(in crate::tunnel) struct Asked {
    pub(in crate::tunnel) pass: Pass,
    pub(in crate::tunnel) head: Head,
    bytes: Bytes,
    /// Its body, where that is looked at.
    pub(in crate::tunnel) body: Option<Bytes>,
}

/// A request that does not pass.
#[derive(Debug)]
pub(in crate::tunnel) struct Rejected {
    pub(in crate::tunnel) refused: Refused,
    /// Its head, where that could be read.
    pub(in crate::tunnel) head: Option<Head>,
}

/// What is known of a request under a guard.
#[derive(Debug, Default)]
pub(super) struct Policed {
    /// What came behind the request.
    behind: BytesMut,
    asked: Option<Box<Asked>>,
    /// Its body so far, where that is looked at, and its limit.
    body: Option<(BytesMut, usize)>,
    rejected: Option<Rejected>,
    /// Has the answer ended before its request?
    is_answered: bool,
    /// What its success creates.
    makes: Option<Makes>,
    /// Is a client to be told that its body is awaited?
    is_awaited: bool,
    /// Why what is on its way cannot go on.
    broken: Option<(StatusCode, Refusal)>,
    /// Has the host sent what answers nothing? Its channel is used no more.
    is_stray: bool,
    /// Has the client ended its direction?
    is_ended: bool,
    /// When the head, or the body that is looked at, began to come.
    since: Option<Instant>,
    /// The head of a request that was sent.
    head: Option<Head>,
    /// The head of this connection's last request, as it came and as it was read. A client that repeats it, as clients of a
    /// kept connection do, is decided on anew, but not read anew.
    known: Option<Box<Known>>,
}

#[derive(Debug)]
struct Known {
    bytes: Bytes,
    body: Body,
    /// None while its request is under way.
    head: Option<Head>,
    /// How it was written for the Engine, with this target.
    written: Option<(String, Bytes)>,
    /// How it was answered.
    seen: Option<Seen>,
}

impl Policed {
    /// What its success creates.
    pub(super) fn makes(&self) -> Option<Makes> {
        self.makes
    }

    /// Whether the answer has ended before its request.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }
}

impl Exchange {
    /// Whether there is a guard.
    pub(in crate::tunnel) fn is_policed(&self) -> bool {
        self.police.is_some()
    }

    /// The request that is to be judged, once its body is here as far as that is looked at.
    pub(in crate::tunnel) fn to_be_judged(&self) -> Option<Asked> {
        let mut state = lock(&self.state);
        let is_here = state.phase == Phase::Judging && (state.policed.body.is_none() || state.request.rest.has_ended());
        let mut asked = *state.policed.asked.take_if(|_| is_here)?;
        asked.body = state.policed.body.take().map(|(body, _)| body.freeze());
        Some(asked)
    }

    /// Makes a request that was judged ready to be sent, or refuses it.
    pub(in crate::tunnel) fn judged(&self, asked: Asked, verdict: Result<Passed, Refused>) {
        let mut state = lock(&self.state);
        let Passed { target, body, makes } = match verdict {
            Ok(passed) => passed,
            Err(refused) => return state.reject(refused, Some(asked.head)),
        };
        let was_looked_at = asked.body.is_some();
        let content = match &body {
            _ if !was_looked_at => Content::Same,
            Some(body) => Content::New(body.len()),
            None => Content::None,
        };
        let written = asked.head.written(&asked.bytes, &target, content);
        agrees_with_another_reader(&written, &asked.head.method, &target);
        state.pending = written.as_slice().into();
        state.pending.extend_from_slice(&body.unwrap_or_default());
        state.policed.makes = makes;
        state.policed.head = Some(asked.head);
        state.becomes_ready(&target);
        state.take_behind();
    }

    /// Whether a client waits for `100 Continue` before it sends a body that is looked at. Told once.
    pub(in crate::tunnel) fn awaits_body(&self) -> bool {
        std::mem::take(&mut lock(&self.state).policed.is_awaited)
    }

    /// The request that does not pass. Told once.
    pub(in crate::tunnel) fn rejected(&self) -> Option<Rejected> {
        let mut state = lock(&self.state);
        state.policed.rejected.take()
    }

    /// The head of a request that has found no place.
    pub(in crate::tunnel) fn take_head(&self) -> Option<Head> {
        lock(&self.state).policed.head.take()
    }

    /// Whether the body of the request has ended.
    pub(in crate::tunnel) fn body_has_ended(&self) -> bool {
        lock(&self.state).request.rest.has_ended()
    }

    /// The client has been answered; another request may follow.
    pub(in crate::tunnel) fn goes_on(&self) {
        let mut state = lock(&self.state);
        state.next_request(Early::No, self.police.as_deref());
    }

    /// Whether the client must leave its channel now; and if so, whether nothing is under way on that.
    pub(in crate::tunnel) fn must_leave(&self) -> Option<bool> {
        self.police.as_ref()?;
        let state = lock(&self.state);
        match state.phase {
            Phase::Judging | Phase::Refused => Some(!state.policed.is_stray),
            Phase::Over | Phase::Broken => Some(false),
            Phase::Between | Phase::Ready => state.policed.is_stray.then_some(false),
            _ => None,
        }
    }

    /// The client has left its channel.
    pub(in crate::tunnel) fn has_left(&self) {
        lock(&self.state).policed.is_stray = false;
    }

    /// Whether no more requests may come.
    pub(in crate::tunnel) fn has_finished(&self) -> bool {
        lock(&self.state).phase == Phase::Over
    }

    /// The channel was lost. Whether the client's connection goes on all the same: its request can have another channel, or
    /// it is told that there is no answer.
    pub(in crate::tunnel) fn outlives_channel(&self) -> bool {
        self.survives() || self.tells_unanswered()
    }

    /// The Engine has left a request without any answer. True if the client is told so.
    pub(in crate::tunnel) fn tells_unanswered(&self) -> bool {
        let mut state = lock(&self.state);
        let is_unanswered = state.phase == Phase::Ready || state.phase == Phase::Asked && !state.answered;
        let is_told = self.police.is_some() && is_unanswered;
        if is_told {
            let head = state.policed.head.take();
            state.reject((StatusCode::BAD_GATEWAY, "the Engine did not answer: the connection was cut".into()), head);
        }
        is_told
    }

    /// Why what is on its way cannot go on, and whether any of the answer has arrived.
    pub(in crate::tunnel) fn broken(&self) -> Option<(StatusCode, Refusal, bool)> {
        let state = lock(&self.state);
        let (status, refusal) = state.policed.broken.filter(|_| state.phase == Phase::Broken)?;
        Some((status, refusal, state.answered))
    }

    /// Whether so much waits that no more is to be read.
    pub(in crate::tunnel) fn is_full(&self) -> bool {
        self.police.is_some() && lock(&self.state).policed.behind.len() >= MAX_BEHIND
    }

    /// What the client has sent behind a request for an upgrade that has been granted now.
    pub(in crate::tunnel) fn take_held(&self) -> Option<Bytes> {
        self.police.as_ref()?;
        let mut state = lock(&self.state);
        let is_held = state.phase == Phase::Blind && !state.pending.is_empty();
        is_held.then(|| state.pending.split().freeze())
    }

    /// Whether a whole request has been sent, and is not answered.
    pub(in crate::tunnel) fn is_asked_whole(&self) -> bool {
        let state = lock(&self.state);
        state.phase == Phase::Asked && state.request.rest.has_ended()
    }

    /// Whether the Engine is not to hear that the client sends no more. It would end what it is doing, while the client
    /// waits for the answer.
    pub(in crate::tunnel) fn keeps_end(&self) -> bool {
        self.police.is_some() && self.is_asked_whole()
    }
}

impl State {
    /// Takes what has come from a client.
    pub(super) fn policed_sent(&mut self, police: &dyn Police, data: Bytes) -> FromClient {
        match self.phase {
            Phase::Blind => FromClient::Pass(data),
            Phase::Over | Phase::Broken => FromClient::Wait,
            Phase::Between => {
                let before = self.pending.len();
                self.pending.extend_from_slice(&data);
                self.policed_gather(police, before);
                self.stand()
            }
            Phase::Asked => {
                let body = self.take(data);
                let was_complete = self.policed.is_answered && self.request.rest.has_ended();
                if was_complete && self.phase == Phase::Asked {
                    self.next_request(Early::No, Some(police));
                }
                if body.is_empty() { self.stand() } else { FromClient::Pass(body) }
            }
            Phase::Judging | Phase::Refused | Phase::Ready | Phase::Holding | Phase::BlindReady => {
                self.policed.behind.extend_from_slice(&data);
                self.take_behind();
                self.stand()
            }
        }
    }

    fn stand(&self) -> FromClient {
        if self.phase == Phase::Between { FromClient::Wait } else { FromClient::Ready }
    }

    /// The part of this data that belongs to the request. The rest waits behind it.
    fn take(&mut self, mut data: Bytes) -> Bytes {
        if !self.policed.behind.is_empty() {
            self.policed.behind.extend_from_slice(&data);
            data = self.policed.behind.split().freeze();
        }
        let mut used = 0;
        while used < data.len() && !self.request.rest.has_ended() {
            match self.request.rest.feed(&data[used..]) {
                Ok(more) => used += more,
                Err(refusal) => {
                    self.policed.broken = Some((StatusCode::BAD_REQUEST, refusal));
                    self.phase = Phase::Broken;
                    return Bytes::new();
                }
            }
        }
        self.policed.behind.extend_from_slice(&data[used..]);
        data.truncate(used);
        data
    }

    /// Takes what waits, as far as it belongs to a request that is not on its way.
    fn take_behind(&mut self) {
        match self.phase {
            Phase::Judging if self.policed.body.is_some() => self.take_judged_body(),
            // The rest of its body follows when it has been judged.
            Phase::Judging => {}
            Phase::Ready => {
                let body = self.take(Bytes::new());
                self.pending.extend_from_slice(&body);
                self.unless_broken();
            }
            Phase::Refused => {
                self.take(Bytes::new());
                // It is refused all the same.
                if self.phase == Phase::Broken {
                    (self.phase, self.policed.behind) = (Phase::Refused, BytesMut::new());
                }
            }
            _ => {}
        }
    }

    /// Takes a body without its framing.
    fn take_judged_body(&mut self) {
        let Some((mut body, most)) = self.policed.body.take() else { return };
        let data = self.policed.behind.split().freeze();
        let mut used = 0;
        let mut refusal = None;
        while used < data.len() && !self.request.rest.has_ended() && refusal.is_none() {
            let is_data = self.request.rest.is_data();
            match self.request.rest.feed(&data[used..]) {
                Ok(more) => {
                    if is_data {
                        body.extend_from_slice(&data[used..used + more]);
                    }
                    used += more;
                    refusal = (body.len() > most).then_some("length limit exceeded");
                }
                Err(broken) => refusal = Some(broken),
            }
        }
        self.policed.behind.extend_from_slice(&data[used..]);
        self.policed.body = Some((body, most));
        if let Some(refusal) = refusal {
            self.refuse_body(refusal);
        }
    }

    fn refuse_body(&mut self, refusal: Refusal) {
        let head = self.policed.asked.take().map(|asked| asked.head);
        self.reject((StatusCode::BAD_REQUEST, format!("its body cannot be judged: {refusal}")), head);
    }

    /// A request of which nothing was sent is refused where its body cannot be read.
    fn unless_broken(&mut self) {
        if self.phase == Phase::Broken
            && let Some((status, refusal)) = self.policed.broken
        {
            let head = self.policed.head.take();
            self.reject((status, refusal.into()), head);
        }
    }

    fn reject(&mut self, refused: Refused, head: Option<Head>) {
        self.phase = Phase::Refused;
        self.pending.clear();
        self.policed.rejected = Some(Rejected { refused, head });
    }

    fn becomes_ready(&mut self, target: &str) {
        self.phase = Phase::Ready;
        target.clone_into(&mut self.request.line.target);
    }

    /// When the rest of what has begun to come is overdue.
    pub(super) fn policed_until(&self) -> Option<Instant> {
        let is_awaited = match self.phase {
            Phase::Between => !self.pending.is_empty(),
            Phase::Judging => self.policed.body.is_some() && !self.request.rest.has_ended(),
            _ => false,
        };
        self.policed.since.filter(|_| is_awaited).map(|since| since + POLICED_TIME)
    }

    /// Looks for a request in the pending data, of which `before` bytes were searched earlier.
    fn policed_gather(&mut self, police: &dyn Police, before: usize) {
        self.policed.since.get_or_insert_with(Instant::now);
        let Some(end) = head_end(&self.pending, before).filter(|end| *end <= MAX_HEAD) else {
            let is_bare = |at: &usize| self.pending[*at] == b'\n' && (*at == 0 || self.pending[at - 1] != b'\r');
            if self.pending.len() >= MAX_HEAD {
                self.reject((StatusCode::BAD_REQUEST, "its head is too large".into()), None);
            } else if (before..self.pending.len()).any(|at| is_bare(&at)) {
                // Its end would be waited for in vain.
                self.reject((StatusCode::BAD_REQUEST, "a line of its head does not end as it should".into()), None);
            }
            return;
        };
        let mut pending = std::mem::take(&mut self.pending);
        self.policed.behind = pending.split_off(end);
        let known = self.policed.known.as_mut().filter(|known| known.bytes == pending);
        let known =
            known.and_then(|known| Some((known.bytes.clone(), known.head.take()?, known.body, known.seen.take())));
        let is_repeat = known.is_some();
        let (bytes, head, body, seen) = match known {
            Some(known) => known,
            None => match read_head(&pending) {
                Ok((head, body)) => {
                    let bytes = pending.freeze();
                    let known = Known { bytes: bytes.clone(), body, head: None, written: None, seen: None };
                    self.policed.known = Some(Box::new(known));
                    (bytes, head, body, None)
                }
                Err(refusal) => return self.reject((StatusCode::BAD_REQUEST, refusal.into()), None),
            },
        };
        *self.request = Request { is_repeat, seen, ..Request::of(&head, body) };
        self.request.is_ping = self.policed.behind.is_empty() && is_cli_ping(&bytes);
        match police.decide(&head) {
            Err(refused) => self.reject(refused, Some(head)),
            Ok(ByHead::Send(target)) => {
                self.pending = self.as_written(&head, &bytes, &target);
                self.becomes_ready(&target);
                self.policed.head = Some(head);
            }
            Ok(ByHead::Judge(pass, most)) => {
                self.phase = Phase::Judging;
                self.policed.since = Some(Instant::now());
                self.policed.is_awaited = most.is_some() && head.expects;
                self.policed.body = most.map(|most| (BytesMut::new(), most));
                self.policed.asked = Some(Box::new(Asked { pass, head, bytes, body: None }));
                // Nobody waits for a body that is too large.
                if let (Rest::Length(length), Some(most)) = (&self.request.rest, most)
                    && *length > most as u64
                {
                    return self.refuse_body("length limit exceeded");
                }
            }
        }
        self.take_behind();
    }

    /// A head as the Engine gets it, with the body that it has.
    fn as_written(&mut self, head: &Head, bytes: &Bytes, target: &str) -> BytesMut {
        let known = self.policed.known.as_mut().filter(|known| known.bytes == bytes);
        if let Some((_, written)) =
            known.as_ref().and_then(|known| known.written.as_ref().filter(|(to, _)| to == target))
        {
            return written.as_ref().into();
        }
        let written = Bytes::from(head.written(bytes, target, Content::Same));
        agrees_with_another_reader(&written, &head.method, target);
        let pending = written.as_ref().into();
        if let Some(known) = known {
            known.written = Some((target.to_owned(), written));
        }
        pending
    }

    /// Keeps of an answered request what serves one that repeats it.
    pub(super) fn policed_keep(&mut self) {
        if let Some(known) = &mut self.policed.known {
            (known.head, known.seen) = (self.policed.head.take(), self.request.seen.take());
        }
    }

    /// Goes on with what follows a request that has been answered.
    pub(super) fn policed_next(&mut self, police: &dyn Police) {
        let Policed { behind, is_stray, is_ended, known, .. } = std::mem::take(&mut self.policed);
        self.policed = Policed { is_stray, is_ended, known, ..Policed::default() };
        if !behind.is_empty() {
            self.pending = behind;
            self.policed_gather(police, 0);
        }
        if is_ended {
            self.policed_ended();
        }
    }

    /// The client sends no more. What waits behind its request is answered all the same.
    pub(super) fn policed_ended(&mut self) {
        self.policed.is_ended = true;
        match self.phase {
            // Half a head asks nothing.
            Phase::Between => self.phase = Phase::Over,
            Phase::Judging if self.policed.body.is_some() && !self.request.rest.has_ended() => {
                self.refuse_body("it has no end");
            }
            _ => {}
        }
    }

    /// Is this the whole answer to the request, and one that was seen before?
    pub(super) fn is_answered_as_before(&self, data: &[u8]) -> bool {
        let is_awaited = self.phase == Phase::Asked && !self.answered && self.request.rest.has_ended();
        let answer = self.answer.as_ref().filter(|_| is_awaited);
        answer.zip(self.request.seen.as_ref()).is_some_and(|(answer, seen)| answer.is_repetition(seen, data))
    }

    /// The guard hears of an answer as far as it has been read.
    pub(super) fn policed_heard(&mut self, progress: Progress, answer: Option<&Answer>, police: &dyn Police) {
        if let Some(head) = answer.and_then(Answer::head) {
            police.answered(head);
        }
        if let (Some(made), Some(answer)) = (self.policed.makes, answer.filter(|answer| answer.status() == Some(201))) {
            police.made(made, answer.body());
        }
        self.policed_answered(progress, police);
    }

    /// An answer has come to its end, or its end will not be known.
    fn policed_answered(&mut self, progress: Progress, police: &dyn Police) {
        let broken = |refusal| Some((StatusCode::BAD_GATEWAY, refusal));
        let upgrades = self.policed.head.as_ref().is_some_and(Head::upgrades);
        match progress {
            Progress::Switched if upgrades => {
                self.phase = Phase::Blind;
                self.pending = self.policed.behind.split();
            }
            Progress::Switched => {
                (self.phase, self.policed.broken) = (Phase::Broken, broken("the Engine switched protocols unasked"));
            }
            Progress::Invalid => {
                (self.phase, self.policed.broken) = (Phase::Broken, broken("the Engine's answer cannot be read"));
            }
            Progress::Complete | Progress::Surplus(_) if !self.request.last && !upgrades => {
                if self.request.rest.has_ended() {
                    self.next_request(Early::No, Some(police));
                } else {
                    // What is left of the request passes first.
                    self.policed.is_answered = true;
                }
                self.policed.is_stray |= progress != Progress::Complete;
            }
            Progress::Complete | Progress::Surplus(_) | Progress::Last => self.phase = Phase::Over,
            // What is left of the request passes, and nothing else.
            Progress::UntilClose | Progress::More => {}
        }
    }

    /// Data has come from the host that answers nothing.
    pub(super) fn answers_nothing(&mut self) {
        self.policed.is_stray = true;
    }

    /// The client has ended its direction. Whether its connection is over.
    pub(super) fn policed_is_over(&mut self) -> bool {
        self.policed_ended();
        self.phase == Phase::Over
    }

    /// The rest of a head or of a body has not come in time.
    pub(super) fn policed_overdue(&mut self) {
        let (why, head) = match self.phase {
            Phase::Judging => (BODY_TOO_LATE, self.policed.asked.take().map(|asked| asked.head)),
            _ => (TOO_LATE, None),
        };
        self.reject((StatusCode::REQUEST_TIMEOUT, why.into()), head);
    }
}

/// In debug builds another reader of HTTP is asked what is sent: whoever reads it must see the same request.
fn agrees_with_another_reader(written: &[u8], method: &str, target: &str) {
    if cfg!(debug_assertions) {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        let read = request.parse(written);
        assert_eq!(read, Ok(httparse::Status::Complete(written.len())), "another reader sees another head");
        assert_eq!((request.method, request.path), (Some(method), Some(target)), "another reader sees another request");
    }
}

#[cfg(test)]
mod tests;
