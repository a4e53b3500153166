//! Memory goes back to the system once many flows have ended, and not sooner.
//!
//! glibc keeps what is freed between things that live on: 4000 flows at once left 70 MB behind, of which 5 were in use. Yet
//! it gives back each freed packet at the end of its heap, and takes new pages for the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::os::heap;

/// Flows at once from which on memory is given back; fewer leave little behind.
const MANY: usize = 250;
/// Pause before memory is given back: ending flows have freed theirs by then.
const SETTLED: Duration = Duration::from_secs(1);

/// Counts flows, to know when to give memory back.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Heap {
    open: AtomicUsize,
    /// Most at once since memory was last given back.
    peak: AtomicUsize,
    due: AtomicBool,
}

impl Heap {
    pub(in crate::tunnel) fn new() -> Arc<Self> {
        heap::keep();
        Arc::default()
    }

    pub(in crate::tunnel) fn flow_begins(&self) {
        self.peak.fetch_max(self.open.fetch_add(1, Relaxed) + 1, Relaxed);
    }

    pub(in crate::tunnel) fn flow_ends(self: &Arc<Self>) {
        let open = self.open.fetch_sub(1, Relaxed) - 1;
        if !self.half_ended(open) || self.due.swap(true, Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let ours = self.clone();
        runtime.spawn(async move {
            tokio::time::sleep(SETTLED).await;
            ours.due.store(false, Relaxed);
            ours.peak.store(ours.open.load(Relaxed), Relaxed);
            // Some milliseconds for 100 MB.
            drop(tokio::task::spawn_blocking(heap::give_back));
        });
    }

    fn half_ended(&self, open: usize) -> bool {
        let peak = self.peak.load(Relaxed);
        peak >= MANY && open <= peak / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_half_of_many_have_ended() {
        let heap = Arc::new(Heap::default());
        (0..MANY).for_each(|_| heap.flow_begins());
        for left in (0..MANY).rev() {
            assert_eq!(heap.half_ended(left), left <= MANY / 2, "{left}");
        }
        let few = Heap::default();
        (1..MANY).for_each(|_| few.flow_begins());
        assert!(!few.half_ended(0));
    }
}
