//! The definition of a check: its severity, texts and function.

use serde::Serialize;

use super::containers::{self, Look};
use super::facts::Facts;
use super::finding::Finding;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// An improvement worth making.
    Low,
    /// Makes an attack easier, or its damage larger.
    Medium,
    /// A way to root on the host for an attacker in a container or next to one.
    High,
    /// A way to root on the host for an attacker on its network or logged in there.
    Critical,
}

impl Severity {
    /// All severities, the highest first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// The points that a finding subtracts from the score.
    pub(super) fn weight(self) -> u32 {
        match self {
            Self::Critical => 25,
            Self::High => 10,
            Self::Medium => 4,
            Self::Low => 1,
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

/// A check.
#[derive(Debug, Serialize)]
pub struct Rule {
    /// Its name, stable across versions.
    pub id: &'static str,
    /// The finding, in a few words.
    pub title: &'static str,
    pub severity: Severity,
    /// Its number in the CIS Docker Benchmark 1.6.0.
    pub cis: Option<&'static str>,
    /// The remedy; a command line where possible.
    pub remedy: &'static str,
    /// The function that runs the check.
    #[serde(skip)]
    pub(super) check: Check,
}

/// The input of a check.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    /// All facts at once.
    Engine(fn(&Facts) -> Finding),
    /// Each inspected container in turn.
    EachContainer(Look),
}

impl Rule {
    /// Runs the check.
    pub(super) fn judge(&self, facts: &Facts) -> Finding {
        match self.check {
            Check::Engine(judge) => judge(facts),
            Check::EachContainer(look) => containers::each(facts, look),
        }
    }
}
