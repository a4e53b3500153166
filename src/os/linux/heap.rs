//! The heap, where it is glibc's: other allocators (musl's) return memory themselves.

/// Has glibc keep up to 4 MB at the end of each heap for the next packets, and take memory for things of up to 1 MB from
/// there (M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in mallopt(3); both are 128 KiB otherwise). With two heaps in place of
/// eight a processor (M_ARENA_MAX) less is left between things that live on, and of what the ends keep.
pub fn keep() {
    #[cfg(target_env = "gnu")]
    {
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
}

/// Returns unused memory to the system. Blocks: some milliseconds for 100 MB.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "malloc_trim(3) is to be had in no other way")]
    // SAFETY: malloc_trim(3) has no preconditions, takes glibc's locks, and frees only unused memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
