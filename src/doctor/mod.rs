//! Checks every step from a target to its Engine, each with its time and a verdict.
//!
//! Read-only on both machines: stores no host key, creates no socket, touches no tunnel. Independent of daemons and
//! terminals; the caller receives each [`Check`] when it is done.

mod check;
mod engine;
mod examination;
mod local;
mod login;
mod remote;
mod way;

use std::pin::Pin;

use crate::config::Target;
use crate::host;
use crate::ssh::Prompter;
pub use check::{Check, Verdict};
use examination::{Examination, Stage};

/// A stage: its checks in order, and the function that runs them.
struct Row {
    checks: &'static [&'static str],
    run: for<'e, 'a> fn(&'e mut Examination<'a>) -> Running<'e>,
}

type Running<'e> = Pin<Box<dyn Future<Output = Result<Stage, host::Error>> + 'e>>;

/// All stages, in order. The local endpoint is checked last, whatever their result.
const STAGES: [Row; 6] = [
    Row { checks: &["target"], run: |e| Box::pin(way::describe(e)) },
    Row { checks: &["resolve", "tcp", "greeting"], run: |e| Box::pin(way::reach(e)) },
    // One attempt of the SSH library covers all three.
    Row { checks: &["key-exchange", "host-key", "login"], run: |e| Box::pin(login::log_in(e)) },
    Row { checks: &["host"], run: |e| Box::pin(remote::look_around(e)) },
    Row { checks: &["forwarding"], run: |e| Box::pin(remote::forwarding(e)) },
    Row { checks: &["engine", "clock"], run: |e| Box::pin(engine::ask(e)) },
];

/// Checks whether this machine can run tunnels, without a target.
pub fn examine_machine(on_check: &mut dyn FnMut(Check)) {
    local::check_machine(on_check);
}

/// Runs all stages. `tunnel` is the local endpoint of the target's tunnel, if it runs.
///
/// # Errors
/// The failure of the first stage that failed.
pub async fn examine(
    target: &Target,
    tunnel: Option<&str>,
    prompter: &Prompter,
    on_check: &mut dyn FnMut(Check),
) -> Result<(), host::Error> {
    let result = run_all(Examination::new(target, prompter, on_check)).await;
    on_check(local::check(target, tunnel));
    result
}

async fn run_all(mut examination: Examination<'_>) -> Result<(), host::Error> {
    let mut result = Ok(());
    for stage in &STAGES {
        examination.begin(stage.checks);
        if result.is_ok() {
            match (stage.run)(&mut examination).await {
                Ok(Stage::Complete) => {}
                Ok(Stage::Skips(why)) => examination.skip_left(why),
                Err(error) => {
                    examination.fail(&error);
                    result = Err(error);
                }
            }
        }
        examination.skip_left("a step before it failed");
    }
    result
}
