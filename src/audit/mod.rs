//! The audit of an Engine's door: its socket, its network, SSH, its options, what runs, and its versions.
//!
//! Looks only, through a connection of its own. What cannot be seen is said to be unknown, never taken to
//! be good or bad. Knows nothing of daemons or terminals. docs/audit.md lists the checks.

mod answers;
mod checks;
mod containers;
mod facts;
mod rules;
mod sarif;
mod versions;

use std::fmt;

use serde::Serialize;

use crate::config::{self, DEFAULT_SOCKET, IgnoredCheck, Target};
use crate::ssh::Prompter;
use crate::{host, text};

pub use rules::{RULES, Rule, Severity};

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "detail", rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Passed,
    /// Not as it should be; what was seen.
    Found(Vec<Evidence>),
    /// Found, but the configuration says to pass it over (`audit.ignore`).
    Ignored {
        /// Why, in the user's words.
        reason: Option<String>,
        /// What was seen.
        evidence: Vec<Evidence>,
    },
    /// Not to be seen; why not.
    Unknown(String),
}

impl State {
    fn found(evidence: impl IntoIterator<Item = String>) -> Self {
        Self::Found(evidence.into_iter().map(|line| Evidence { container: None, text: text::shown(&line) }).collect())
    }

    fn unknown(why: &str) -> Self {
        Self::Unknown(text::shown(why))
    }
}

/// What was seen, fit to be shown: an Engine names its containers, paths and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The container that it is about.
    pub container: Option<String>,
    /// What; empty where the check says it all.
    pub text: String,
}

impl Evidence {
    fn of(container: &str, details: &str) -> Self {
        Self { container: Some(text::shown(container)), text: text::shown(details) }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.container {
            Some(container) if self.text.is_empty() => f.write_str(container),
            Some(container) => write!(f, "{container}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Serialize for Evidence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
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

/// Holds the names in `audit.ignore` against those of the checks.
///
/// # Errors
/// [`config::Error::Setting`] of one that is no check, with the nearest one.
pub fn check_ignored(target: &Target) -> Result<(), config::Error> {
    let Some(unknown) = target.audit_ignore.iter().find(|ignored| RULES.iter().all(|rule| rule.id != ignored.check))
    else {
        return Ok(());
    };
    let nearest = config::nearest(&unknown.check, RULES.iter().map(|rule| rule.id));
    let nearest = nearest.map_or_else(|| "docs/audit.md lists them".into(), |name| format!("did you mean `{name}`?"));
    let reason = format!("`{}` in `audit.ignore` is no check; {nearest}", text::shown(&unknown.check));
    Err(config::Error::Setting { name: unknown.place.clone().unwrap_or_else(|| target.name.to_string()), reason })
}

/// Connects, looks and judges.
///
/// # Errors
/// Why the Engine was not reached.
pub async fn audit(target: &Target, prompter: &Prompter) -> Result<Report, host::Error> {
    let facts = facts::gather(target, prompter).await?;
    let socket = facts.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
    let outcome = |rule: &'static Rule| {
        let state = checks::judge(rule.id, &facts).unwrap_or_else(|| State::unknown("not checked"));
        let state = passed_over(state, target.audit_ignore.iter().find(|ignored| ignored.check == rule.id));
        let remedy = rule.remedy.replace("SOCKET", &socket);
        Outcome { rule, state, remedy }
    };
    let outcomes: Vec<Outcome> = RULES.iter().map(outcome).collect();
    let lost: u32 = outcomes.iter().filter(|outcome| outcome.is_found()).map(|o| o.rule.severity.weight()).sum();
    let score = 100_u32.saturating_sub(lost);
    Ok(Report { host: target.address(), score, versions_as_of: versions::AS_OF, outcomes })
}

fn passed_over(state: State, ignored: Option<&IgnoredCheck>) -> State {
    match (state, ignored) {
        (State::Found(evidence), Some(ignored)) => State::Ignored { reason: ignored.reason.clone(), evidence },
        (state, _) => state,
    }
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
