//! Lets a flow wait until the published ports were listed again.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
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
    /// Whether a task lists the ports, or soon will.
    is_watched: AtomicBool,
    /// Whether it stops containers of which a local port is taken.
    refuses: AtomicBool,
    /// The containers whose start waits.
    starting: Mutex<Vec<Arc<Started>>>,
}

/// A container that a client has started.
#[derive(Debug)]
struct Started {
    /// As the client named it.
    name: String,
    /// Why it was stopped again.
    why: OnceLock<String>,
}

/// A start that waits, for as long as its client does.
struct Starting<'a> {
    looks: &'a Looks,
    started: Arc<Started>,
}

impl<'a> Starting<'a> {
    fn of(looks: &'a Looks, name: &str) -> Self {
        let started = Arc::new(Started { name: name.to_owned(), why: OnceLock::new() });
        lock(&looks.starting).push(started.clone());
        Self { looks, started }
    }

    fn why(&self) -> Option<String> {
        self.started.why.get().cloned()
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        lock(&self.looks.starting).retain(|other| !Arc::ptr_eq(other, &self.started));
    }
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
        let starting = starts.map(|name| Starting::of(self, name));
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
        starting?.why()
    }

    /// Registers the task that lists the ports. Where another one takes its place, as at a reload, flows wait for that
    /// one's listing.
    pub(super) fn watch(&self, refuses: bool) -> Watch<'_> {
        self.is_watched.store(true, Relaxed);
        self.refuses.store(refuses, Relaxed);
        Watch { looks: self, wanted: self.wanted.subscribe(), has_looked: false }
    }

    /// Releases all waiting flows: no task lists the ports.
    pub(super) fn release(&self) {
        self.is_watched.store(false, Relaxed);
        self.done.send_replace(*self.wanted.borrow());
    }
}

/// The task that lists the ports.
pub(super) struct Watch<'a> {
    looks: &'a Looks,
    wanted: watch::Receiver<u64>,
    has_looked: bool,
}

impl Watch<'_> {
    /// The number of the listing that begins now.
    pub(super) fn begins(&mut self) -> u64 {
        *self.wanted.borrow_and_update()
    }

    /// The containers whose start waits, as their clients named them.
    pub(super) fn starting(&self) -> Vec<String> {
        lock(&self.looks.starting).iter().map(|started| started.name.clone()).collect()
    }

    /// Records that a container was stopped again.
    pub(super) fn refuse(&self, name: &str, why: &str) {
        for started in lock(&self.looks.starting).iter().filter(|started| started.name == name) {
            let _ = started.why.set(why.to_owned());
        }
    }

    pub(super) fn done(&mut self, look: u64) {
        self.has_looked = true;
        self.looks.done.send_replace(look);
    }

    /// The task has failed, and will be tried again. Flows wait on if it has listed the ports before.
    pub(super) fn failed(&self) {
        if !self.has_looked {
            self.looks.release();
        }
    }

    /// Waits until another listing is wanted.
    pub(super) async fn wanted(&mut self) {
        // Cannot fail: the sender is in `looks`.
        let _ = self.wanted.changed().await;
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
        let leaves = tokio::time::timeout(Duration::from_millis(10), looks.once_more(Some("web"))).await;
        assert!(leaves.is_err(), "nobody looks");
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
        looks.release();
        let begun = Instant::now();
        waiting.await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody looks any more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_over_looks_for_those_that_wait() {
        let looks = Looks::default();
        let mut before = looks.watch(false);
        let look = before.begins();
        before.done(look);
        let waiting = looks.once_more(None);
        tokio::pin!(waiting);
        let still_waits = async |waiting: &mut std::pin::Pin<&mut _>| {
            tokio::time::timeout(Duration::from_millis(10), waiting).await.is_err()
        };
        assert!(still_waits(&mut waiting).await);
        // The connection with the Engine's events is lost; the settings change.
        before.failed();
        drop(before);
        assert!(still_waits(&mut waiting).await);
        let late = looks.once_more(None);
        tokio::pin!(late);
        assert!(still_waits(&mut late).await, "it waits, too");
        let mut after = looks.watch(false);
        let look = after.begins();
        assert!(still_waits(&mut waiting).await);
        let begun = Instant::now();
        after.done(look);
        tokio::join!(waiting, late);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // An Engine that does not answer keeps nobody waiting.
        let fails = looks.watch(false);
        let waiting = looks.once_more(None);
        tokio::pin!(waiting);
        assert!(still_waits(&mut waiting).await);
        fails.failed();
        let begun = Instant::now();
        waiting.await;
        looks.once_more(None).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
