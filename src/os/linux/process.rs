//! Processes: this one's memory and signals, its parent, other processes' names.

use rustix::process::{DumpableBehavior, Signal};

/// Prevents other processes of this user from reading this one's memory (ptrace(2), /proc/PID/mem), and the system from
/// writing a core dump of it (PR_SET_DUMPABLE in prctl(2)). Programs that it runs do not inherit this.
pub fn keep_memory_private() {
    if let Err(e) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("other processes of this user can read this one's memory: {e}");
    }
}

/// Has the kernel end this process, and the program that it becomes, with its parent (PR_SET_PDEATHSIG, prctl(2)). False
/// if that cannot be, or if the parent, whose process id is `parent`, has ended before.
pub fn end_with_parent(parent: &str) -> bool {
    let set = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    set.is_ok() && rustix::process::getppid().is_some_and(|pid| pid.to_string() == parent)
}

/// The name of a process's program, without arguments, which may hold secrets. As the program gave it: text from outside.
pub fn name_of(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.strip_suffix('\n').map(str::to_owned).unwrap_or(name))
}

/// The signals that this process was started to ignore, as by nohup(1): a bit mask, signal 1 lowest
/// (proc_pid_status(5)).
pub fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
