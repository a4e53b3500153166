//! Pauses that double, up to a maximum.

use std::time::Duration;

/// The pauses between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `first`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause; the one after it is twice as long.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Up to half of a pause is random, so that many waiters do not retry at once.
pub fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_millis(900));
        let pauses: Vec<u128> = (0..4).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [250, 500, 900, 900]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 250);
    }

    #[test]
    fn chance_takes_at_most_half() {
        let pause = Duration::from_secs(1);
        let pauses: std::collections::HashSet<_> = (0..100).map(|_| with_jitter(pause)).collect();
        assert!(pauses.len() > 50 && pauses.iter().all(|some| *some <= pause && *some >= pause / 2));
    }
}
