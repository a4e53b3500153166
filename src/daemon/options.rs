//! The options that a daemon is started with.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Overrides;

/// A daemon's options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The target, as on the command line.
    pub target: String,
    pub config: PathBuf,
    /// Did the user name that file?
    pub config_named: bool,
    /// `-F`, `--local`, `--remote`, `--lazy`.
    pub overrides: Overrides,
    pub timeout: Duration,
    /// `-v`, how often.
    pub verbose: u8,
    /// Stay a child of the terminal, and log there as well.
    pub foreground: bool,
}
