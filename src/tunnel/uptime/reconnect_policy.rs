//! The pauses between attempts while there is no connection.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, with_jitter};
use crate::ssh;
use crate::tunnel::error::Error;

/// Pauses between attempts that reach the server: the first, and the longest. Each is twice the previous one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pause while the host is not reached at all: two packets per second are a negligible load, and a host that
/// answers again is noticed soon.
const KNOCK_PAUSE: Duration = Duration::from_millis(500);
/// After this time such a host is treated like any other.
const KNOCKING: Duration = Duration::from_secs(300);
/// Time limit of TCP meanwhile. The system itself would retry a silent host after 1, 3 and 7 s.
const KNOCK_LIMIT: Duration = Duration::from_secs(2);
/// One in this many attempts gets the full `connect_timeout`, for slow links.
const PATIENT: u32 = 4;
/// How often the first `up` retries a server that closes the connection without a message.
const SILENT_TRIES: u32 = 3;

/// Decides when to try again, during one period without a connection.
#[derive(Debug)]
pub(super) struct ReconnectPolicy {
    begun: Instant,
    attempts: u32,
    pauses: Backoff,
    /// The last failure that was logged.
    told: String,
}

impl ReconnectPolicy {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            attempts: 0,
            pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            told: String::new(),
        }
    }

    /// Time limit of TCP in the next attempt; `full` is the configured one.
    pub(super) fn tcp_limit(&mut self, full: Duration) -> Duration {
        self.attempts += 1;
        let knocks = self.begun.elapsed() < KNOCKING && !self.attempts.is_multiple_of(PATIENT);
        if knocks { full.min(KNOCK_LIMIT) } else { full }
    }

    /// The pause after `error`. Up to half of it is random, so that many tunnels do not reconnect at the same time.
    pub(super) fn pause(&mut self, error: &Error) -> Duration {
        if error.is_unreached() && self.begun.elapsed() < KNOCKING {
            return with_jitter(KNOCK_PAUSE);
        }
        with_jitter(self.pauses.pause())
    }

    /// Starts over with short pauses.
    pub(super) fn reset(&mut self) {
        *self = Self { told: std::mem::take(&mut self.told), ..Self::new() };
    }

    /// Whether the first `up` tries again as well: until its time-out for a server that reports it is too busy,
    /// [`SILENT_TRIES`] times for a silent one.
    pub(super) fn retries_first(&mut self, error: &Error) -> bool {
        self.attempts += 1;
        match error.turned_away() {
            Some(ssh::TurnedAway::TooBusy) => true,
            Some(ssh::TurnedAway::Silent | ssh::TurnedAway::Other) => self.attempts <= SILENT_TRIES,
            None => false,
        }
    }

    /// Whether this failure differs from the last one logged.
    pub(super) fn is_news(&mut self, text: &str) -> bool {
        let news = self.told != text;
        if news {
            self.told = text.into();
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Error {
        let source = std::io::ErrorKind::ConnectionRefused.into();
        ssh::Error::Connect { host: "h".into(), port: 22, source }.into()
    }

    fn busy() -> Error {
        ssh::Error::TurnedAway {
            host: "h".into(),
            message: "Exceeded MaxStartups".into(),
            why: ssh::TurnedAway::TooBusy,
        }
        .into()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_where_the_server_is_reached_and_stay_short_where_it_is_not() {
        let mut policy = ReconnectPolicy::new();
        let within =
            |pause: Duration, most: Duration| assert!(pause <= most && pause >= most / 2, "{pause:?} of {most:?}");
        for most in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            within(policy.pause(&busy()), Duration::from_millis(most));
            within(policy.pause(&refused()), KNOCK_PAUSE);
        }
        tokio::time::advance(KNOCKING).await;
        within(policy.pause(&refused()), LONGEST_PAUSE);
        policy.reset();
        within(policy.pause(&busy()), FIRST_PAUSE);
    }
}
