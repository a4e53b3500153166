//! A step of the doctor's, and what came of it.

use serde::Serialize;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It works, but there is something to know.
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
