//! `dtunnel doctor`.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::global::{Global, WayArgs};
use super::targets::{self, nearest_profile};
use super::ui::ui;
use super::{output, prompt};
use crate::config::{self, ConfigFile, runtime_dir};
use crate::daemon::{self, Found};
use crate::doctor::{self, Check, Verdict};
use crate::failure::{ExitCode, Failure};
use crate::text;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The target to check; nothing is changed, neither here nor on the host [default: the default target, or
    /// this machine only]
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: Option<String>,
    #[command(flatten)]
    way: WayArgs,
    /// Print the checks as JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    target: Option<&'a str>,
    ok: bool,
    summary: String,
    checks: Vec<Check>,
}

pub(super) fn doctor(global: &Global, args: &DoctorArgs) -> Result<(), Failure> {
    let mut checks = Vec::new();
    let mut printed = Ok(());
    let mut on_check = |check: Check| {
        if printed.is_ok() {
            printed = ui().part(|| line(&check));
        }
        checks.push(check);
    };
    let target = args.target.clone().or_else(|| targets::default_target(global));
    let result = match &target {
        None => {
            doctor::examine_machine(&mut on_check);
            let (path, named) = global.config_path()?;
            on_check(of_config(&path, ConfigFile::load(&path, named)));
            Ok(())
        }
        Some(name) => {
            let config = global.config()?;
            let target = global.resolved(name, &config, &args.way)?;
            // Only the tunnel's own daemon can tell that the listener at the local endpoint is this tunnel.
            let running = match daemon::find(&runtime_dir()?, &target.name)? {
                Found::Running(status) => status.local,
                Found::Down | Found::Unwell(_) => None,
            };
            prompt::while_answering(async |prompter| {
                doctor::examine(&target, running.as_deref(), prompter, &mut on_check).await
            })?
            .map_err(|error| {
                let failure = Failure::from(error);
                // The check's own lines hold the remedy. Here: the verdict, and a hint for a misspelt name.
                let hint = nearest_profile(name, &config).filter(|_| failure.exit == ExitCode::Unreachable);
                Failure { causes: Vec::new(), hint, ..failure }
            })
        }
    };
    printed?;
    let failed: Vec<&str> = of(&checks, Verdict::Failed);
    let (ok, summary) = (result.is_ok() && failed.is_empty(), summary(target.as_deref(), &checks));
    let report = Report { target: target.as_deref(), ok, summary, checks };
    ui().result(&report, || {
        format!("{} {}\n", if ok { output::check() } else { output::mark_failure() }, report.summary)
    })?;
    match result {
        Ok(()) if ok => Ok(()),
        Ok(()) => Err(Failure::new(ExitCode::Other, "this machine is not ready for a tunnel; see the lines above")),
        Err(failure) => Err(failure),
    }
}

/// The configuration file as one of the checks.
fn of_config(path: &Path, loaded: Result<ConfigFile, config::Error>) -> Check {
    let (verdict, detail, remedy) = match loaded {
        Ok(config) if !path.exists() => {
            (Verdict::Ok, format!("{} does not exist, and is optional", config.path.display()), None)
        }
        Ok(config) => (Verdict::Ok, format!("{}: {} profiles", path.display(), config.profiles.len()), None),
        Err(error) => (Verdict::Failed, error.to_string(), error.hint()),
    };
    Check { id: "config", verdict, ms: None, detail, remedy }
}

fn of(checks: &[Check], verdict: Verdict) -> Vec<&'static str> {
    checks.iter().filter(|check| check.verdict == verdict).map(|check| check.id).collect()
}

/// The report's summary line.
pub(super) fn summary(target: Option<&str>, checks: &[Check]) -> String {
    let what = target.map_or("this machine".into(), text::shown);
    match (of(checks, Verdict::Failed).as_slice(), of(checks, Verdict::Warning).as_slice()) {
        ([], []) if target.is_some() => format!("docker can use {what}: every step works."),
        ([], warnings) if target.is_some() => {
            format!("docker can use {what}, with warnings: {}.", warnings.join(", "))
        }
        ([], []) => format!("{what} is ready for tunnels."),
        ([], warnings) => {
            format!("{what} is ready for tunnels, with warnings: {}.", warnings.join(", "))
        }
        (["local"], _) => format!("{what} can be reached, but its local endpoint cannot be used."),
        (failed, _) if target.is_some() => {
            format!("docker cannot use {what}: the step that failed is {}.", failed.join(", "))
        }
        (failed, _) => format!("{what} is not ready for tunnels: {}.", failed.join(", ")),
    }
}

pub(super) fn line(check: &Check) -> String {
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
