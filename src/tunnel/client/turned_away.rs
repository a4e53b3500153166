//! The log's lines about clients that were turned away: one at once, then one a minute with their number. Anybody on the
//! machine can make as many as they like.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::os::Whose;
use crate::sync::lock;

/// Pause between lines.
const PAUSE: Duration = Duration::from_secs(60);

/// The clients of one or more listeners that were turned away.
#[derive(Debug)]
pub(in crate::tunnel) struct TurnedAway {
    /// Where they were turned away from; empty, or with a blank before it.
    from: &'static str,
    tally: Arc<Mutex<Tally>>,
    /// The task that logs their number, for as long as there are any.
    counting: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug, Default)]
struct Tally {
    /// A line was logged less than [`PAUSE`] ago.
    is_counting: bool,
    counted: Counted,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counted {
    of_others: u64,
    unknown: u64,
}

impl Counted {
    fn of(whose: Whose) -> Self {
        match whose {
            Whose::ThisUsers => Self::default(),
            Whose::AnotherUsers => Self { of_others: 1, unknown: 0 },
            Whose::Unknown => Self { of_others: 0, unknown: 1 },
        }
    }

    fn log(self, from: &str) {
        let Self { of_others, unknown } = self;
        match of_others {
            0 => {}
            1 => tracing::warn!("turned away a client of another user{from}"),
            _ => tracing::warn!("turned away {of_others} clients of other users{from} within a minute"),
        }
        match unknown {
            0 => {}
            1 => tracing::warn!(
                "turned away a client{from} that had closed before its owner could be looked up: what it sent is lost"
            ),
            _ => tracing::warn!(
                "turned away {unknown} clients{from} within a minute that had closed before their owners could be looked \
                 up: what they sent is lost"
            ),
        }
    }
}

impl Tally {
    /// Counts a client. Returns whether it is to be logged now.
    fn add(&mut self, client: Counted) -> bool {
        if self.is_counting {
            self.counted.of_others += client.of_others;
            self.counted.unknown += client.unknown;
        }
        !std::mem::replace(&mut self.is_counting, true)
    }

    /// Those that were counted in a pause; none ends the counting.
    fn take(&mut self) -> Option<Counted> {
        let counted = std::mem::take(&mut self.counted);
        self.is_counting = counted != Counted::default();
        self.is_counting.then_some(counted)
    }
}

impl TurnedAway {
    pub(in crate::tunnel) fn new(from: &'static str) -> Self {
        Self { from, tally: Arc::default(), counting: Mutex::default() }
    }

    /// Logs a client that is turned away, now or with others.
    pub(in crate::tunnel) fn add(&self, whose: Whose) {
        let client = Counted::of(whose);
        if !lock(&self.tally).add(client) {
            return;
        }
        let (from, tally) = (self.from, self.tally.clone());
        client.log(from);
        *lock(&self.counting) = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(PAUSE).await;
                let counted = lock(&tally).take();
                match counted {
                    Some(counted) => counted.log(from),
                    None => return,
                }
            }
        })));
    }
}

impl Drop for TurnedAway {
    fn drop(&mut self) {
        lock(&self.tally).counted.log(self.from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_client_is_logged_at_once_and_others_with_their_number() {
        let mut tally = Tally::default();
        let (other, unknown) = (Counted::of(Whose::AnotherUsers), Counted::of(Whose::Unknown));
        assert!(tally.add(unknown), "at once");
        assert!([other, unknown, unknown].into_iter().all(|client| !tally.add(client)));
        assert_eq!(tally.take(), Some(Counted { of_others: 1, unknown: 2 }));
        assert!(!tally.add(other), "a line was just logged");
        assert_eq!(tally.take(), Some(other));
        assert_eq!(tally.take(), None);
        assert!(tally.add(other), "after a quiet minute");
    }
}
