//! `dtunnel doctor`.

use clap::Args;
use serde::Serialize;

use super::{Global, nearest_profile, output, prompt};
use crate::daemon::{ExitCode, Failure};
use crate::doctor::{self, Check, Verdict};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// What to look into; nothing is changed, here or there
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: String,
    /// The Engine on the host, as for `up`
    #[arg(long, value_name = "ENDPOINT")]
    remote: Option<String>,
    /// Print the checks as JSON, for programs
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    target: &'a str,
    ok: bool,
    checks: Vec<Check>,
}

pub(super) fn doctor(global: &Global, args: &DoctorArgs) -> Result<(), Failure> {
    let config = global.config()?;
    let target = global.resolved(&args.target, &config, args.remote.clone())?;
    let mut checks = Vec::new();
    let mut printed = Ok(());
    let mut on_check = |check: Check| {
        if !args.json && printed.is_ok() {
            printed = output::print(&line(&check));
        }
        checks.push(check);
    };
    let result = prompt::while_answering(async |prompter| doctor::examine(&target, prompter, &mut on_check).await)?;
    printed?;
    let ok = result.is_ok() && checks.iter().all(|check| check.verdict != Verdict::Failed);
    if args.json {
        output::print_json(&Report { target: &args.target, ok, checks })?;
    }
    match result {
        Ok(()) if ok => Ok(()),
        Ok(()) => Err(Failure::new(ExitCode::Other, "the local endpoint cannot be used")),
        Err(error) => {
            let failure = Failure::from(error);
            // What to do is in the check's lines; here only the verdict, and a name that was misspelt.
            let hint = nearest_profile(&args.target, &config).filter(|_| failure.exit == ExitCode::Unreachable);
            Err(Failure { causes: Vec::new(), hint, ..failure })
        }
    }
}

fn line(check: &Check) -> String {
    let time = check.ms.map_or_else(String::new, |ms| format!("{ms:.1} ms"));
    let mark = match check.verdict {
        Verdict::Ok => output::check(),
        Verdict::Warning => output::mark_warning(),
        Verdict::Failed => output::mark_failure(),
        Verdict::Skipped => "-".into(),
    };
    let mut text = format!("{mark} {:<12} {time:>10}  {}\n", check.id, check.detail);
    if let Some(remedy) = check.remedy.as_ref().filter(|_| check.verdict != Verdict::Ok) {
        text += &format!("                            → {remedy}\n");
    }
    text
}
