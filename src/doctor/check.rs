//! A step of the doctor, and its verdict.

use serde::Serialize;

/// The verdict on a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// The step works, but the user should know something.
    Warning,
    /// This is why there is no tunnel.
    Failed,
    /// Not tried, because a step before it failed or it does not apply.
    Skipped,
}

/// One step, tried.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// A short name that stays the same from version to version.
    pub id: &'static str,
    pub verdict: Verdict,
    /// How long it took, in milliseconds; None where it was not tried.
    pub ms: Option<f64>,
    pub detail: String,
    /// What to do, where there is something to do.
    pub remedy: Option<String>,
}
