//! The audit of an Engine's door: its socket, its network, SSH, its options, what runs, and its versions.
//!
//! Read-only, through a connection of its own. A fact that cannot be read is reported as unknown, never assumed to be
//! good or bad. Knows nothing of daemons or terminals. docs/audit.md lists the checks.

mod answers;
mod checks;
mod containers;
mod facts;
mod finding;
mod report;
mod rule;
mod rules;
mod sarif;
mod versions;

use crate::config::{self, DEFAULT_SOCKET, IgnoredCheck, Target};
use crate::ssh::Prompter;
use crate::{host, text};

pub use finding::{Evidence, Finding};
pub use report::{Outcome, Report};
pub use rule::{Rule, Severity};
pub use rules::RULES;
pub use sarif::document as sarif;

/// Checks that the names in `audit.ignore` are names of checks.
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
    let reason = format!("`{}` in `audit.ignore` is not a check; {nearest}", text::shown(&unknown.check));
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
        let state =
            passed_over(rule.judge(&facts), target.audit_ignore.iter().find(|ignored| ignored.check == rule.id));
        let remedy = rule.remedy.replace("SOCKET", &socket);
        Outcome { rule, state, remedy }
    };
    let outcomes: Vec<Outcome> = RULES.iter().map(outcome).collect();
    let lost: u32 = outcomes.iter().filter(|outcome| outcome.is_found()).map(|o| o.rule.severity.weight()).sum();
    let score = 100_u32.saturating_sub(lost);
    Ok(Report { host: target.address(), score, versions_as_of: versions::AS_OF, outcomes })
}

fn passed_over(state: Finding, ignored: Option<&IgnoredCheck>) -> Finding {
    match (state, ignored) {
        (Finding::Found(evidence), Some(ignored)) => Finding::Ignored { reason: ignored.reason.clone(), evidence },
        (state, _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The facts known without an Engine's answer: the login and this machine's environment.
    const OURS: [&str; 5] = ["ssh-root", "ssh-host-key", "ssh-algorithms", "ssh-quantum", "content-trust"];

    #[test]
    fn every_check_has_an_answer_even_where_nothing_is_known() {
        let facts = facts::Facts::default();
        for rule in RULES.iter().filter(|rule| !OURS.contains(&rule.id)) {
            assert!(matches!(rule.judge(&facts), Finding::Unknown(_)), "{}", rule.id);
        }
        let ids: std::collections::BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
        assert!(!ids.contains("no-such-check"));
    }
}
