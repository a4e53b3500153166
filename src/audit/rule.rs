//! A check: its severity, and how it is decided.

use serde::Serialize;

use super::containers::{self, Look};
use super::facts::Facts;
use super::finding::Finding;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth doing.
    Low,
    /// Makes an attack easier, or its damage larger.
    Medium,
    /// A way to root on the host for whoever is in a container, or near one.
    High,
    /// A way to root on the host for whoever is on its network, or logged in there.
    Critical,
}

impl Severity {
    /// Every one, the worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// What a finding takes from the score.
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
    /// Its name, which stays the same from version to version.
    pub id: &'static str,
    /// What is wrong where it finds something.
    pub title: &'static str,
    pub severity: Severity,
    /// Its number in the CIS Docker Benchmark 1.6.0.
    pub cis: Option<&'static str>,
    /// What to do, to be pasted where it can be.
    pub remedy: &'static str,
    /// What answers it.
    #[serde(skip)]
    pub(super) check: Check,
}

/// How a check is decided.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    /// From all facts together.
    Engine(fn(&Facts) -> Finding),
    /// From each inspected container.
    EachContainer(Look),
}

impl Rule {
    /// Answers the check.
    pub(super) fn judge(&self, facts: &Facts) -> Finding {
        match self.check {
            Check::Engine(judge) => judge(facts),
            Check::EachContainer(look) => containers::each(facts, look),
        }
    }
}
