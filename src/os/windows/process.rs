//! Processes: this one's memory, its parent, other processes' names.

use std::path::Path;

use super::system;

/// Nothing to do: Windows lets a user's processes read each other's memory, and has no switch for one's own.
pub fn keep_memory_private() {}

/// False: no process is started for that ([`crate::os::mux::check`]).
pub fn end_with_parent(_: &str) -> bool {
    false
}

/// The name of a process's program, without `.exe` and arguments, which may hold secrets.
pub fn name_of(pid: u32) -> Option<String> {
    let path = system::program_of(pid).ok()?;
    Some(Path::new(&path).file_stem()?.to_string_lossy().into_owned())
}
