//! Every step from a target to its Engine, tried one by one, each with its time and a verdict.
//!
//! Changes nothing, here or there: no key is learnt, no socket made, no tunnel touched. Knows nothing
//! of daemons or terminals; whoever asks is handed each [`Check`] as it is done.

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

/// The checks that a stage makes, in order, and what makes them.
struct Row {
    checks: &'static [&'static str],
    run: for<'e, 'a> fn(&'e mut Examination<'a>) -> Running<'e>,
}

type Running<'e> = Pin<Box<dyn Future<Output = Result<Stage, host::Error>> + 'e>>;

/// All of them, in order. The local end is looked at last, whatever came of these.
const STAGES: [Row; 6] = [
    Row { checks: &["target"], run: |e| Box::pin(way::describe(e)) },
    Row { checks: &["resolve", "tcp", "greeting"], run: |e| Box::pin(way::reach(e)) },
    // One attempt of the SSH library's makes all three.
    Row { checks: &["key-exchange", "host-key", "login"], run: |e| Box::pin(login::log_in(e)) },
    Row { checks: &["host"], run: |e| Box::pin(remote::look_around(e)) },
    Row { checks: &["forwarding"], run: |e| Box::pin(remote::forwarding(e)) },
    Row { checks: &["engine", "clock"], run: |e| Box::pin(engine::ask(e)) },
];

/// Looks at this machine alone: whether tunnels can be made here.
pub fn examine_machine(on_check: &mut dyn FnMut(Check)) {
    local::check_machine(on_check);
}

/// Tries all stages. `tunnel` is the local endpoint of the target's tunnel, where one runs.
///
/// # Errors
/// Why the first step failed that did.
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
