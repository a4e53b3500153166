//! `dtunnel config`.

use clap::Subcommand;
use serde::Serialize;

use super::global::{Global, WayArgs};
use super::output;
use super::ui::ui;
use crate::config::ConfigFile;
use crate::failure::{ExitCode, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the file: its syntax, every key and value, and each profile with its ssh_config
    Check {
        /// Print a JSON object, for programs
        #[arg(long)]
        json: bool,
    },
}

impl ConfigCommand {
    pub(super) fn json(&self) -> bool {
        let Self::Check { json } = self;
        *json
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: &'a std::path::Path,
    ok: bool,
    profiles: Vec<Checked<'a>>,
}

#[derive(Debug, Serialize)]
struct Checked<'a> {
    name: &'a str,
    error: Option<Failure>,
    warnings: Vec<String>,
}

pub(super) fn config(global: &Global, command: &ConfigCommand) -> Result<(), Failure> {
    let ConfigCommand::Check { .. } = command;
    let config = global.config()?;
    let checked: Vec<Checked<'_>> = config.profiles.keys().map(|name| check(global, &config, name)).collect();
    let faults = checked.iter().filter(|profile| profile.error.is_some()).count();
    let report = Report { file: &config.path, ok: faults == 0, profiles: checked };
    ui().result(&report, || text(&report))?;
    match faults {
        0 => Ok(()),
        1 => Err(Failure::new(ExitCode::Usage, format!("{}: 1 profile cannot be used", config.path.display()))),
        many => {
            Err(Failure::new(ExitCode::Usage, format!("{}: {many} profiles cannot be used", config.path.display())))
        }
    }
}

fn text(report: &Report<'_>) -> String {
    for profile in &report.profiles {
        profile.warnings.iter().for_each(|warning| ui().warning(&format!("{}: {warning}", profile.name)));
        if let Some(failure) = &profile.error {
            ui().error(failure);
        }
    }
    if !report.ok {
        return String::new();
    }
    let count = match report.profiles.len() {
        1 => "1 profile".into(),
        number => format!("{number} profiles"),
    };
    let there = if report.file.exists() { "" } else { " (there is no such file yet)" };
    format!("{} {}: {count}, no faults{there}\n", output::check(), report.file.display())
}

fn check<'a>(global: &Global, config: &ConfigFile, name: &'a str) -> Checked<'a> {
    match global.resolved(name, config, &WayArgs::default()) {
        Ok(target) => Checked { name, error: None, warnings: target.warnings() },
        Err(failure) => Checked { name, error: Some(failure), warnings: Vec::new() },
    }
}
