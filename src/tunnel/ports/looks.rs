//! Lets a flow wait until the published ports were listed again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

use crate::sync::lock;

/// Longest delay of the answer to a request that changes ports.
const HELD: Duration = Duration::from_secs(1);
/// Longest delay of the answer to the start of a container that may have to be stopped again.
const REFUSING: Duration = Duration::from_secs(5);

/// Numbers the listings of the ports: the last one wanted, and the last one done.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Looks {
    wanted: watch::Sender<u64>,
    done: watch::Sender<u64>,
    /// Whether a task lists the ports.
    is_watched: AtomicBool,
    /// Whether it stops containers of which a local port is taken.
    refuses: AtomicBool,
    /// The containers whose start waits, as their clients named them, each with why it was stopped again.
    starting: Mutex<Vec<(String, Option<String>)>>,
}

impl Looks {
    /// Requests a new listing of the ports and waits until it is applied, at most [`HELD`]. Returns
    /// at once if no task lists them. `starts` names the container that was started; the reason is returned if
    /// it was stopped again.
    pub(in crate::tunnel) async fn once_more(&self, starts: Option<&str>) -> Option<String> {
        if !self.is_watched.load(Relaxed) {
            return None;
        }
        let starts = starts.filter(|_| self.refuses.load(Relaxed));
        lock(&self.starting).extend(starts.map(|name| (name.to_owned(), None)));
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        let limit = if starts.is_some() { REFUSING } else { HELD };
        let mut done = self.done.subscribe();
        if tokio::time::timeout(limit, done.wait_for(|done| *done >= number)).await.is_err() {
            tracing::debug!("the ports were not looked at within {limit:?}");
        }
        let mut starting = lock(&self.starting);
        let at = starting.iter().position(|(name, _)| Some(name.as_str()) == starts)?;
        starting.swap_remove(at).1
    }

    /// Registers the task that lists the ports, for as long as the returned value lives.
    pub(super) fn watch(&self, refuses: bool) -> Watch<'_> {
        self.is_watched.store(true, Relaxed);
        self.refuses.store(refuses, Relaxed);
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

    /// The containers whose start waits, as their clients named them.
    pub(super) fn starting(&self) -> Vec<String> {
        lock(&self.looks.starting).iter().map(|(name, _)| name.clone()).collect()
    }

    /// Records that a container was stopped again.
    pub(super) fn refuse(&self, name: &str, why: &str) {
        let mut starting = lock(&self.looks.starting);
        starting.iter_mut().filter(|(other, _)| other == name).for_each(|(_, said)| *said = Some(why.to_owned()));
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
    async fn a_start_hears_why_its_container_was_stopped_again_and_no_other_one() {
        let looks = Looks::default();
        let mut watch = looks.watch(true);
        let both = async { tokio::join!(looks.once_more(Some("web")), looks.once_more(Some("db"))) };
        let looking = async {
            watch.wanted().await;
            let look = watch.begins();
            watch.starting().iter().filter(|name| *name == "web").for_each(|name| watch.refuse(name, "taken"));
            watch.done(look);
        };
        let (said, ()) = tokio::join!(both, looking);
        assert_eq!(said, (Some("taken".into()), None));
        assert!(watch.starting().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_began_before_does_not_count_and_nobody_waits_for_long() {
        let looks = Looks::default();
        let begun = Instant::now();
        looks.once_more(None).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody looks");
        let mut watch = looks.watch(false);
        let before = watch.begins();
        let waiting = looks.once_more(None);
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
        looks.once_more(None).await;
        assert_eq!(begun.elapsed(), HELD);
        let waiting = looks.once_more(None);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
        drop(watch);
        let begun = Instant::now();
        waiting.await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody looks any more");
    }
}
