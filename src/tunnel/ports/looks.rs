//! Lets a flow wait until the published ports were listed again.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

/// Longest delay of the answer to a request that changes ports.
const HELD: Duration = Duration::from_secs(1);

/// Numbers the listings of the ports: the last one wanted, and the last one done.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Looks {
    wanted: watch::Sender<u64>,
    done: watch::Sender<u64>,
    /// Whether a task lists the ports.
    is_watched: AtomicBool,
}

impl Looks {
    /// Requests a new listing of the ports and waits until it is applied, at most [`HELD`]. Returns
    /// at once if no task lists them.
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

    /// Registers the task that lists the ports, for as long as the returned value lives.
    pub(super) fn watch(&self) -> Watch<'_> {
        self.is_watched.store(true, Relaxed);
        Watch { looks: self, wanted: self.wanted.subscribe() }
    }
}

/// The task that lists the ports.
pub(super) struct Watch<'a> {
    looks: &'a Looks,
    wanted: watch::Receiver<u64>,
}

impl Watch<'_> {
    /// The number of the listing that begins now.
    pub(super) fn begins(&mut self) -> u64 {
        *self.wanted.borrow_and_update()
    }

    pub(super) fn done(&self, look: u64) {
        self.looks.done.send_replace(look);
    }

    /// Waits until another listing is wanted.
    pub(super) async fn wanted(&mut self) {
        // Cannot fail: the sender is in `looks`.
        let _ = self.wanted.changed().await;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.looks.is_watched.store(false, Relaxed);
        // Releases all waiting flows.
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
