//! `dtunnel config`.

use clap::Subcommand;
use serde::Serialize;

use super::global::Global;
use super::output;
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
    let ConfigCommand::Check { json } = command;
    let config = global.config()?;
    let checked: Vec<Checked<'_>> = config.profiles.keys().map(|name| check(global, &config, name)).collect();
    let faults = checked.iter().filter(|profile| profile.error.is_some()).count();
    if *json {
        output::print_json(&Report { file: &config.path, ok: faults == 0, profiles: checked })?;
    } else {
        for profile in &checked {
            profile.warnings.iter().for_each(|warning| output::warning(&format!("{}: {warning}", profile.name)));
            if let Some(failure) = &profile.error {
                output::print_error(failure);
            }
        }
        let count = |number| if number == 1 { "1 profile".into() } else { format!("{number} profiles") };
        if faults == 0 {
            let there = if config.path.exists() { "" } else { " (there is no such file yet)" };
            output::print(&format!(
                "{} {}: {}, no faults{there}\n",
                output::check(),
                config.path.display(),
                count(checked.len())
            ))?;
        }
    }
    match faults {
        0 => Ok(()),
        1 => Err(Failure::new(ExitCode::Usage, format!("{}: 1 profile cannot be used", config.path.display()))),
        many => {
            Err(Failure::new(ExitCode::Usage, format!("{}: {many} profiles cannot be used", config.path.display())))
        }
    }
}

fn check<'a>(global: &Global, config: &ConfigFile, name: &'a str) -> Checked<'a> {
    match global.resolved(name, config, None) {
        Ok(target) => Checked { name, error: None, warnings: target.warnings() },
        Err(failure) => Checked { name, error: Some(failure), warnings: Vec::new() },
    }
}
