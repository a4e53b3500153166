//! This process's user, and others.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// A user's number.
pub type Id = u32;

/// The real user of this process.
pub fn id() -> Id {
    rustix::process::getuid().as_raw()
}

/// The user's name by passwd(5), as for ssh, else by the environment.
pub fn name() -> Option<String> {
    let entry = User::from_uid(Uid::current()).ok().flatten().map(|user| user.name);
    entry.or_else(|| std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok())
}

/// The home directory of the user with this name, by passwd(5).
pub fn home_of(name: &str) -> Option<PathBuf> {
    User::from_name(name).ok().flatten().map(|user| user.dir)
}

/// This machine's name, as uname(2) has it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether a Kerberos ticket cache is at MIT's default path.
pub fn has_default_ticket_cache() -> bool {
    Path::new(&format!("/tmp/krb5cc_{}", id())).exists()
}
