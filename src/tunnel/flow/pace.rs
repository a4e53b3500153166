//! Decides whether a flow with a slow client continues to read from its connection.
//!
//! A flow that takes nothing from its channel stalls its whole SSH connection (docs/architecture.md, "the trap"). That
//! is right if nothing else uses the connection, and wrong otherwise:
//!
//! ```text
//! connection    kept for the client     the client    then
//! its alone     any                     any           it is left unread; each ROUND a sign of life is sent
//! shared        below half the bound    any           it is read
//! shared        above half              moves         it is read, waiting for the client up to PACE for 32 KiB
//! shared        above half              stands        it is read
//! shared        the bound               any           makes room within GRACE, or is reset
//! ```
//! Pure decisions: independent of channels, files and the clock.

use std::time::Duration;

use tokio::time::Instant;

/// How often an unread connection is read for a moment, to send the server a sign of life. A server with
/// `ClientAliveInterval 1` and `ClientAliveCountMax 2` gives up after 3 s.
const ROUND: Duration = Duration::from_secs(1);
/// Longest wait for a client that makes progress, for each [`PIECE`] bytes: 1.6 MB/s.
const PACE: Duration = Duration::from_millis(20);
const PIECE: usize = 32 << 10;
/// Longest wait at the limit, and so the longest delay that one client causes to others at a time.
const GRACE: Duration = Duration::from_secs(1);
/// A client that takes fewer bytes than this in one to two [`WINDOW`]s makes no progress.
const MOVING: usize = 256 << 10;
const WINDOW: Duration = Duration::from_secs(1);

/// The input of a decision.
#[derive(Debug, Clone, Copy)]
pub(in crate::tunnel) struct Pressure {
    /// Whether memory is full, or bytes are stored beyond it.
    pub(in crate::tunnel) full: bool,
    /// Whether the connection is used by anything else.
    pub(in crate::tunnel) shared: bool,
    /// Whether the flow has bytes to send.
    pub(in crate::tunnel) sending: bool,
    /// Whether more than half of the spill limit is used.
    pub(in crate::tunnel) past_half: bool,
    /// Whether the spill limit is reached.
    pub(in crate::tunnel) at_limit: bool,
}

/// The next step of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Step {
    /// Read the next piece.
    Read,
    /// Begin to send a sign of life, and read pieces until it is sent.
    Round,
    /// Read nothing until this time, or until something changes.
    Wait(Option<Instant>),
    /// Reset the flow: others have waited long enough.
    Reset,
}

/// The state between decisions.
#[derive(Debug)]
pub(in crate::tunnel) struct Pace {
    /// Since when the connection is unread.
    held: Option<Instant>,
    /// Pieces that may still be read before the sign of life is sent.
    round: Option<usize>,
    at_limit: Option<Instant>,
    /// What came last: until when it is waited for, and the part of it that the client has not made room for yet, in
    /// bytes.
    last: (Instant, usize),
    /// Bytes taken by the client: start of the window, bytes in it, bytes in the previous window.
    window: (Instant, usize, usize),
}

impl Pace {
    pub(in crate::tunnel) fn new(now: Instant) -> Self {
        Self { held: None, round: None, at_limit: None, last: (now, 0), window: (now, 0, 0) }
    }

    /// The client has taken all that was full.
    pub(in crate::tunnel) fn keeps_up(&mut self) {
        (self.held, self.round, self.at_limit) = (None, None, None);
    }

    pub(in crate::tunnel) fn step(&mut self, now: Instant, pressure: Pressure) -> Step {
        if !pressure.at_limit || !pressure.shared {
            self.at_limit = None;
        }
        if !pressure.full {
            self.keeps_up();
            return Step::Read;
        }
        if pressure.shared || pressure.sending {
            self.held = None;
            return self.beside_others(now, pressure);
        }
        if pressure.at_limit {
            return Step::Wait(None);
        }
        if self.round.is_some() {
            return Step::Read;
        }
        let due = *self.held.get_or_insert(now) + ROUND;
        if now < due { Step::Wait(Some(due)) } else { Step::Round }
    }

    fn beside_others(&mut self, now: Instant, pressure: Pressure) -> Step {
        if pressure.at_limit {
            if !pressure.shared {
                return Step::Wait(None);
            }
            let end = *self.at_limit.get_or_insert(now) + GRACE;
            return if now < end { Step::Wait(Some(end)) } else { Step::Reset };
        }
        let (until, owed) = self.last;
        if pressure.past_half && owed > 0 && now < until && self.moves(now) {
            return Step::Wait(Some(until));
        }
        Step::Read
    }

    /// A sign of life is being sent; at most `pieces` are read meanwhile.
    pub(in crate::tunnel) fn round_begins(&mut self, pieces: usize) {
        self.round = Some(pieces);
    }

    pub(in crate::tunnel) fn round_ends(&mut self, now: Instant) {
        (self.round, self.held) = (None, Some(now));
    }

    /// Records a piece from the host. Returns whether it was the last one of a round.
    pub(in crate::tunnel) fn received(&mut self, now: Instant, bytes: usize) -> bool {
        self.last = (now + PACE * u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX), bytes);
        match &mut self.round {
            Some(left) if *left > 1 => {
                *left -= 1;
                false
            }
            round => round.is_some(),
        }
    }

    pub(in crate::tunnel) fn taken(&mut self, now: Instant, bytes: usize) {
        self.turn(now);
        self.window.1 += bytes;
        self.last.1 = self.last.1.saturating_sub(bytes);
    }

    fn turn(&mut self, now: Instant) {
        let (since, bytes, _) = self.window;
        let age = now.saturating_duration_since(since);
        if age >= WINDOW {
            self.window = (now, 0, if age < 2 * WINDOW { bytes } else { 0 });
        }
    }

    fn moves(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.window.1 + self.window.2 >= MOVING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Pressure = Pressure { full: true, shared: false, sending: false, past_half: false, at_limit: false };
    const SHARED: Pressure = Pressure { shared: true, ..ALONE };

    fn later(now: &mut Instant, by: Duration) -> Instant {
        *now += by;
        *now
    }

    #[tokio::test]
    async fn alone_it_holds_up_and_sends_a_sign_of_life_each_round() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.step(now, Pressure { full: false, ..SHARED }), Step::Read);
        for _ in 0..3 {
            assert_eq!(pace.step(now, ALONE), Step::Wait(Some(now + ROUND)));
            assert_eq!(pace.step(later(&mut now, ROUND), ALONE), Step::Round);
            pace.round_begins(2);
            assert_eq!(pace.step(now, ALONE), Step::Read);
            assert!(!pace.received(now, 1));
            assert_eq!(pace.step(now, ALONE), Step::Read);
            assert!(pace.received(now, 1), "as many as were allowed");
            pace.round_ends(now);
        }
        // A client that takes a byte now and then makes no difference.
        pace.taken(now, 1);
        assert_eq!(pace.step(now, ALONE), Step::Wait(Some(now + ROUND)));
        // Alone at the limit, it stalls its connection.
        assert_eq!(pace.step(later(&mut now, ROUND), Pressure { at_limit: true, ..ALONE }), Step::Wait(None));
        assert_eq!(pace.step(later(&mut now, 9 * GRACE), Pressure { at_limit: true, ..ALONE }), Step::Wait(None));
    }

    #[tokio::test]
    async fn beside_others_it_reads_and_waits_for_a_client_that_moves_only() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.step(now, ALONE), Step::Wait(Some(now + ROUND)));
        assert_eq!(pace.step(now, SHARED), Step::Read, "at once, when another one comes");
        assert_eq!(pace.step(now, Pressure { sending: true, ..ALONE }), Step::Read, "or its own bytes have to go out");
        let past_half = Pressure { past_half: true, ..SHARED };
        pace.received(now, 32 << 10);
        assert_eq!(pace.step(now, past_half), Step::Read, "one that stands is not waited for");
        pace.taken(now, MOVING);
        pace.received(now, 32 << 10);
        assert_eq!(pace.step(now, SHARED), Step::Read, "not before half of the bound");
        assert_eq!(pace.step(now, past_half), Step::Wait(Some(now + PACE)));
        pace.taken(now, 32 << 10);
        assert_eq!(pace.step(now, past_half), Step::Read, "it has made up for the last piece");
        pace.received(now, 32 << 10);
        assert_eq!(pace.step(later(&mut now, PACE), past_half), Step::Read, "not for longer");
        pace.received(now, 4 * PIECE);
        assert_eq!(pace.step(later(&mut now, PACE), past_half), Step::Wait(Some(now + 3 * PACE)), "in proportion");
        pace.received(later(&mut now, 3 * WINDOW), 32 << 10);
        assert_eq!(pace.step(now, past_half), Step::Read, "it has stopped moving");
    }

    #[tokio::test]
    async fn at_the_bound_it_makes_room_or_is_reset() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let full = Pressure { past_half: true, at_limit: true, ..SHARED };
        for _ in 0..3 {
            assert_eq!(pace.step(now, full), Step::Wait(Some(now + GRACE)));
            later(&mut now, GRACE / 2);
            assert!(matches!(pace.step(now, full), Step::Wait(_)));
            assert_eq!(pace.step(now, Pressure { at_limit: false, ..full }), Step::Read, "it made room");
        }
        assert!(matches!(pace.step(now, full), Step::Wait(_)));
        assert_eq!(pace.step(later(&mut now, GRACE), full), Step::Reset);
    }
}
