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
/// Flows left open from which on the rest of many leaves little behind.
const FEW: usize = 16;
/// Pause before memory is given back, and before it is again as long as further flows have ended: a flow's memory is free
/// a while after its end.
const SETTLED: Duration = Duration::from_secs(1);

/// Counts flows, to know when to give memory back.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Heap {
    open: AtomicUsize,
    /// Most at once since memory was last given back.
    peak: AtomicUsize,
    /// Flows that were still open when memory was last given back.
    left: AtomicUsize,
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
            let mut still = usize::MAX;
            loop {
                tokio::time::sleep(SETTLED).await;
                let open = ours.gives_back();
                // Some milliseconds for 100 MB.
                drop(tokio::task::spawn_blocking(heap::give_back));
                if open >= still {
                    break;
                }
                still = open;
            }
            ours.due.store(false, Relaxed);
        });
    }

    fn half_ended(&self, open: usize) -> bool {
        let half_of = |most: &AtomicUsize, many| {
            let most = most.load(Relaxed);
            most >= many && open <= most / 2
        };
        // The rest of many may end one by one, on a busy machine.
        half_of(&self.peak, MANY) || half_of(&self.left, FEW)
    }

    /// Notes that memory is given back now. Returns the number of open flows.
    fn gives_back(&self) -> usize {
        let open = self.open.load(Relaxed);
        self.peak.store(open, Relaxed);
        self.left.store(open, Relaxed);
        open
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
            heap.open.fetch_sub(1, Relaxed);
            assert_eq!(heap.half_ended(left), left <= MANY / 2, "{left}");
        }
        // The rest that was open then counts, also if it is less than many.
        (0..MANY - 1).for_each(|_| heap.flow_begins());
        assert_eq!(heap.gives_back(), MANY - 1);
        assert!(!heap.half_ended(MANY / 2) && heap.half_ended(MANY / 2 - 1));
        let few = Heap::default();
        (1..MANY).for_each(|_| few.flow_begins());
        assert!(!few.half_ended(0));
    }
}
