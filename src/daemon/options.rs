//! The options of a daemon.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Overrides;

/// The options that a daemon is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The target, as on the command line.
    pub target: String,
    pub config: PathBuf,
    /// Whether the user named the configuration file.
    pub config_named: bool,
    /// `-F`, `--local`, `--remote`, `--lazy`.
    pub overrides: Overrides,
    pub timeout: Duration,
    /// Number of `-v` options.
    pub verbose: u8,
    /// Runs in the foreground and, with `-v`, logs to the terminal as well.
    pub foreground: bool,
}
