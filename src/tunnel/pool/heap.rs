//! Memory goes back to the system once many flows have ended, and not sooner.
//!
//! glibc keeps what is freed between things that live on: 4000 flows at once left 70 MB behind, of which 5 were in use. Yet
//! it gives back each freed packet at the end of its heap, and takes new pages for the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

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
        keep();
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
        let heap = self.clone();
        runtime.spawn(async move {
            tokio::time::sleep(SETTLED).await;
            heap.due.store(false, Relaxed);
            heap.peak.store(heap.open.load(Relaxed), Relaxed);
            // Some milliseconds for 100 MB.
            drop(tokio::task::spawn_blocking(give_back));
        });
    }

    fn half_ended(&self, open: usize) -> bool {
        let peak = self.peak.load(Relaxed);
        peak >= MANY && open <= peak / 2
    }
}

/// Has glibc keep up to 4 MB at the end of each heap for the next packets, and take memory for things of up to 1 MB from
/// there (M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in mallopt(3); both are 128 KiB otherwise). With two heaps in place of
/// eight a processor (M_ARENA_MAX) less is left between things that live on, and of what the ends keep.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep() {
    const TRIM_THRESHOLD: i32 = 4 << 20;
    const MMAP_THRESHOLD: i32 = 1 << 20;
    const HEAPS: i32 = 2;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        #[expect(unsafe_code, reason = "mallopt(3) is to be had in no other way")]
        // SAFETY: mallopt(3) has no preconditions, and takes glibc's locks. Where it fails, the defaults stay.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
            libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        }
    });
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    #[expect(unsafe_code, reason = "malloc_trim(3) is to be had in no other way")]
    // SAFETY: malloc_trim(3) has no preconditions, takes glibc's locks, and frees only unused memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep() {}

/// Other allocators give memory back themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

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
