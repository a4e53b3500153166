//! The state of an examination: the results of its stages so far, and its checks.

use std::sync::Arc;
use std::time::Duration;

use super::check::{Check, Verdict};
use crate::config::Target;
use crate::failure;
use crate::host::{self, HostProbe};
use crate::ssh::{Connection, Prompter};

/// Time limit of each small step.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Why a stage after the login has nothing to check. Not reached: such a stage needs a login.
pub(super) const NO_LOGIN: &str = "nobody is logged in";

/// How a stage treats its remaining checks.
pub(super) enum Stage {
    /// All checks were made.
    Complete,
    /// The remaining checks do not apply, for this reason.
    Skips(&'static str),
}

pub(super) struct Examination<'a> {
    pub(super) target: &'a Target,
    pub(super) prompter: &'a Prompter,
    /// Set by the login.
    pub(super) connection: Option<Arc<Connection>>,
    /// Set by the host's check, if the login runs commands.
    pub(super) probe: Option<HostProbe>,
    on_check: &'a mut dyn FnMut(Check),
    /// The current stage's remaining checks.
    left: &'static [&'static str],
}

impl<'a> Examination<'a> {
    pub(super) fn new(target: &'a Target, prompter: &'a Prompter, on_check: &'a mut dyn FnMut(Check)) -> Self {
        Self { target, prompter, connection: None, probe: None, on_check, left: &[] }
    }

    /// Begins a stage with these checks, in this order.
    pub(super) fn begin(&mut self, checks: &'static [&'static str]) {
        self.left = checks;
    }

    /// How many checks of the stage have no result yet.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    /// Adds the result of the stage's next check.
    pub(super) fn add(
        &mut self,
        verdict: Verdict,
        time: Option<Duration>,
        detail: impl Into<String>,
        remedy: Option<String>,
    ) {
        let Some((id, left)) = self.left.split_first() else { return };
        self.left = left;
        let ms = time.map(|time| (time.as_secs_f64() * 1e5).round() / 100.0);
        (self.on_check)(Check { id, verdict, ms, detail: detail.into(), remedy });
    }

    pub(super) fn ok(&mut self, time: Duration, detail: impl Into<String>) {
        self.add(Verdict::Ok, Some(time), detail, None);
    }

    pub(super) fn fail(&mut self, error: &host::Error) {
        self.add(Verdict::Failed, None, failure::with_causes(error), error.hint());
    }

    /// Skips the stage's remaining checks.
    pub(super) fn skip_left(&mut self, why: &str) {
        while !self.left.is_empty() {
            self.add(Verdict::Skipped, None, why, None);
        }
    }
}
