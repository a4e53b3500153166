//! A target under examination: what its stages have found so far, and the checks that they make.

use std::sync::Arc;
use std::time::Duration;

use super::check::{Check, Verdict};
use crate::config::Target;
use crate::failure;
use crate::host::{self, HostProbe};
use crate::ssh::{Connection, Prompter};

/// Longest time for each small step.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Why a stage behind the login has nothing to look at. (None is begun without one.)
pub(super) const NO_LOGIN: &str = "nobody is logged in";

/// What a stage does with the rest of its checks.
pub(super) enum Stage {
    /// All checks were made.
    Complete,
    /// The remaining checks do not apply, for this reason.
    Skips(&'static str),
}

pub(super) struct Examination<'a> {
    pub(super) target: &'a Target,
    pub(super) prompter: &'a Prompter,
    /// From the login on.
    pub(super) connection: Option<Arc<Connection>>,
    /// From the look at the host on, where the login runs commands.
    pub(super) probe: Option<HostProbe>,
    on_check: &'a mut dyn FnMut(Check),
    /// The checks of the present stage that are still to be made.
    left: &'static [&'static str],
}

impl<'a> Examination<'a> {
    pub(super) fn new(target: &'a Target, prompter: &'a Prompter, on_check: &'a mut dyn FnMut(Check)) -> Self {
        Self { target, prompter, connection: None, probe: None, on_check, left: &[] }
    }

    /// A stage begins that makes these checks, in this order.
    pub(super) fn begin(&mut self, checks: &'static [&'static str]) {
        self.left = checks;
    }

    /// The next check of this stage.
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

    /// Skips the checks that this stage has not made.
    pub(super) fn skip_left(&mut self, why: &str) {
        while !self.left.is_empty() {
            self.add(Verdict::Skipped, None, why, None);
        }
    }
}
