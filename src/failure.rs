//! A failure as people see it, fit to travel from the daemon to the terminal: what, why, what to do, and the exit code.
//!
//! Each kind of error says for itself how it becomes one, where it is defined.

use serde::{Deserialize, Serialize};

/// An error and its sources, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The exit codes of the program (docs/guide.md, "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ExitCode {
    /// Anything that has no code of its own.
    Other = 1,
    /// A wrong command line or configuration.
    Usage = 2,
    /// The tunnel is not up.
    NotUp = 3,
    /// Nobody could log in.
    Auth = 4,
    /// The host key was refused.
    HostKey = 5,
    /// The host cannot be reached.
    Unreachable = 6,
    /// The host was reached, its Engine was not.
    Engine = 7,
    /// `exec` found no tunnel to run its command in (docker's own custom).
    NoTunnel = 125,
    /// `exec` found its command but could not run it.
    CannotRun = 126,
    /// `exec` did not find its command.
    NotFound = 127,
}

/// What failed, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub exit: ExitCode,
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What the flow does next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without causes.
    pub fn new(exit: ExitCode, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error with all its sources.
    pub fn of(exit: ExitCode, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Self { exit, message: error.to_string(), causes, hint }
    }
}
