//! Who waits for the published ports to be looked at once more.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

/// Longest time for which the answer to a request that changes ports is held.
const HELD: Duration = Duration::from_secs(1);

/// Looks at the list of ports, by number: those that are wanted, and those that are done.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Looks {
    wanted: watch::Sender<u64>,
    done: watch::Sender<u64>,
    /// Does anybody look?
    is_watched: AtomicBool,
}

impl Looks {
    /// Waits until the list has been asked for, from now on, and what is on it is here; within bounds. At once where nobody
    /// looks at it.
    pub(in crate::tunnel) async fn once_more(&self) {
        if !self.is_watched.load(Relaxed) {
            return;
        }
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        let mut done = self.done.subscribe();
        if tokio::time::timeout(HELD, done.wait_for(|done| *done >= number)).await.is_err() {
            tracing::debug!("the ports were not looked at within {HELD:?}");
        }
    }

    /// Looks, as long as what this returns lives.
    pub(super) fn watch(&self) -> Watch<'_> {
        self.is_watched.store(true, Relaxed);
        Watch { looks: self, wanted: self.wanted.subscribe() }
    }
}

/// One who looks.
pub(super) struct Watch<'a> {
    looks: &'a Looks,
    wanted: watch::Receiver<u64>,
}

impl Watch<'_> {
    /// The look that begins now.
    pub(super) fn begins(&mut self) -> u64 {
        *self.wanted.borrow_and_update()
    }

    pub(super) fn done(&self, look: u64) {
        self.looks.done.send_replace(look);
    }

    /// Waits until another look is wanted.
    pub(super) async fn wanted(&mut self) {
        // Never an error: what is looked at for is there.
        let _ = self.wanted.changed().await;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.looks.is_watched.store(false, Relaxed);
        // Nobody waits in vain.
        self.looks.done.send_replace(*self.looks.wanted.borrow());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_began_before_does_not_count_and_nobody_waits_for_long() {
        let looks = Looks::default();
        let begun = Instant::now();
        looks.once_more().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody looks");
        let mut watch = looks.watch();
        let before = watch.begins();
        let waiting = looks.once_more();
        tokio::pin!(waiting);
        let done = tokio::time::timeout(Duration::from_millis(10), &mut waiting).await;
        assert!(done.is_err(), "not looked at yet");
        watch.done(before);
        let done = tokio::time::timeout(Duration::from_millis(10), &mut waiting).await;
        assert!(done.is_err(), "that look began before");
        watch.wanted().await;
        let look = watch.begins();
        watch.done(look);
        waiting.await;
        let begun = Instant::now();
        looks.once_more().await;
        assert_eq!(begun.elapsed(), HELD);
        let waiting = looks.once_more();
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
        drop(watch);
        let begun = Instant::now();
        waiting.await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody looks any more");
    }
}
