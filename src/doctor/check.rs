//! The result of one of the doctor's checks.

use serde::Serialize;

/// The verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// The check passed, with a note for the user.
    Warning,
    /// The reason why there is no tunnel.
    Failed,
    /// Not run: an earlier check failed, or it does not apply.
    Skipped,
}

/// A check and its result.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// A short name, stable across versions.
    pub id: &'static str,
    pub verdict: Verdict,
    /// Its duration in milliseconds; None if it was not run.
    pub ms: Option<f64>,
    pub detail: String,
    /// The remedy, if there is one.
    pub remedy: Option<String>,
}
