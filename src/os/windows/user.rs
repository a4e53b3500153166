//! This process's user, and others.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::system;

/// A user's security identifier (SID), as text: `S-1-5-21-…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(pub(super) String);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The user of this process. One whose system does not tell it is nobody, for whom no pipe is made.
pub fn id() -> Id {
    static ID: OnceLock<Id> = OnceLock::new();
    ID.get_or_init(|| Id(system::user_of(std::process::id()).unwrap_or_default())).clone()
}

/// The user's name (`%USERNAME%`).
pub fn name() -> Option<String> {
    std::env::var("USERNAME").ok().filter(|name| !name.is_empty())
}

/// None: another user's profile directory is not looked up.
pub fn home_of(_: &str) -> Option<PathBuf> {
    None
}

/// This machine's name (`%COMPUTERNAME%`).
pub fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// False: Windows keeps its tickets itself, and dtunnel has no GSSAPI.
pub fn has_default_ticket_cache() -> bool {
    false
}
