//! Protects this process's memory from other processes.

/// Prevents other processes of this user from reading this one's memory (ptrace(2), /proc/PID/mem), and the system from
/// writing a core dump of it (PR_SET_DUMPABLE in prctl(2)). Programs that it runs do not inherit this. Linux only.
pub fn keep_memory_private() {
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!("other processes of this user can read this one's memory: {e}");
    }
}
