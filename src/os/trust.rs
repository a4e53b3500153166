//! Why what should be this user's alone is not.

use std::io;
use std::path::PathBuf;

/// Why something is not ours alone.
#[derive(Debug)]
pub enum Unsafe {
    /// In words.
    Because(String),
    /// It could not be found out.
    File {
        /// "open", "create" …
        action: &'static str,
        /// What was to be opened.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Why a file is not trusted.
#[derive(Debug)]
pub struct NotTrusted {
    /// In words.
    pub reason: String,
    /// What to do if what is in it is the user's: a command.
    pub remedy: String,
}
