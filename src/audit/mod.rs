//! The audit of an Engine's door: its socket, its network, SSH, its options, what runs, and its versions.
//!
//! Looks only, through a connection of its own. What cannot be seen is said to be unknown, never taken to
//! be good or bad. Knows nothing of daemons or terminals. docs/audit.md lists the checks.

mod checks;
mod facts;
mod rules;
mod sarif;
mod versions;

use serde::Serialize;

use crate::config::Target;
use crate::ssh::Prompter;
use crate::tunnel;

pub use rules::{RULES, Rule, Severity};

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "detail", rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Passed,
    /// Not as it should be; what was seen.
    Found(Vec<String>),
    /// Not to be seen; why not.
    Unknown(String),
}

/// A check and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The check.
    #[serde(flatten)]
    pub rule: &'static Rule,
    /// What came of it.
    #[serde(flatten)]
    pub state: State,
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
    /// The date of what is known of versions.
    pub versions_as_of: &'static str,
    /// One for each check.
    pub outcomes: Vec<Outcome>,
}

/// Connects, looks and judges.
///
/// # Errors
/// Why the Engine was not reached.
pub async fn audit(target: &Target, prompter: &Prompter) -> Result<Report, tunnel::Error> {
    let facts = facts::gather(target, prompter).await?;
    let socket = facts.socket.clone().unwrap_or_else(|| "/var/run/docker.sock".into());
    let outcome = |rule: &'static Rule| {
        let state = checks::judge(rule.id, &facts).unwrap_or_else(|| State::Unknown("not checked".into()));
        let remedy = rule.remedy.replace("SOCKET", &socket);
        Outcome { rule, state, remedy }
    };
    let outcomes: Vec<Outcome> = RULES.iter().map(outcome).collect();
    let lost: u32 = outcomes.iter().filter(|outcome| outcome.is_found()).map(|o| o.rule.severity.weight()).sum();
    let score = 100_u32.saturating_sub(lost);
    Ok(Report { host: target.address(), score, versions_as_of: versions::AS_OF, outcomes })
}

impl Outcome {
    /// Is something not as it should be?
    pub fn is_found(&self) -> bool {
        matches!(self.state, State::Found(_))
    }
}

impl Report {
    /// Findings, the worst first.
    pub fn findings(&self) -> impl Iterator<Item = &Outcome> {
        Severity::ALL
            .into_iter()
            .flat_map(|severity| self.outcomes.iter().filter(move |o| o.is_found() && o.rule.severity == severity))
    }

    /// As SARIF 2.1.0.
    pub fn sarif(&self) -> serde_json::Value {
        sarif::document(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_an_answer_even_where_nothing_is_known() {
        let facts = facts::Facts::default();
        for rule in RULES {
            assert!(checks::judge(rule.id, &facts).is_some(), "{}", rule.id);
        }
        assert_eq!(checks::judge("no-such-check", &facts), None);
    }
}
