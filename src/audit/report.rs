//! The report of an audit.

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
    /// The remedy, with this host's names filled in.
    #[serde(skip)]
    pub remedy: String,
}

/// The report of an audit.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `user@host:port`.
    pub host: String,
    /// 100 minus the weights of the findings: 25 for critical, 10 for high, 4 for medium, 1 for low.
    pub score: u32,
    /// The date of the table of versions.
    pub versions_as_of: &'static str,
    /// One outcome per check.
    pub outcomes: Vec<Outcome>,
}

impl Outcome {
    /// Whether this is a finding.
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
