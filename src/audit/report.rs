//! An audit's report.

use serde::Serialize;

use super::finding::Finding;
use super::rule::{Rule, Severity};

/// A check and its result.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    #[serde(flatten)]
    pub rule: &'static Rule,
    #[serde(flatten)]
    pub state: Finding,
    /// What to do, with this host's own names.
    #[serde(skip)]
    pub remedy: String,
}

/// An audit.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `user@host:port`.
    pub host: String,
    /// 100, less what the findings weigh: 25 a critical one, 10, 4 and 1.
    pub score: u32,
    /// The date of the table of versions.
    pub versions_as_of: &'static str,
    /// One for each check.
    pub outcomes: Vec<Outcome>,
}

impl Outcome {
    /// Are there findings?
    pub fn is_found(&self) -> bool {
        matches!(self.state, Finding::Found(_))
    }
}

impl Report {
    /// Findings, the worst first.
    pub fn findings(&self) -> impl Iterator<Item = &Outcome> {
        Severity::ALL
            .into_iter()
            .flat_map(|severity| self.outcomes.iter().filter(move |o| o.is_found() && o.rule.severity == severity))
    }
}
