//! Processes: this one's memory and signals, its parent, other processes' names.

/// Nothing to do: only root, or a debugger that the system's owner has allowed, may read another process's memory
/// (`task_for_pid`). Core dumps are forbidden by their limit (setrlimit(2)).
pub fn keep_memory_private() {}

/// False if the parent, whose process id is `parent`, has ended before. The system does not end a process with its parent:
/// one whose parent was killed goes on until its connection ends.
pub fn end_with_parent(parent: &str) -> bool {
    rustix::process::getppid().is_some_and(|pid| pid.to_string() == parent)
}

/// None: proc_name(3) has no safe interface.
pub fn name_of(_: u32) -> Option<String> {
    None
}

/// None: sigaction(2) has no safe interface. What was started by nohup(1) ends with SIGHUP.
pub fn ignored_signals() -> u64 {
    0
}
