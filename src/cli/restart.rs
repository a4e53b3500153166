//! `dtunnel restart` and `dtunnel reload`.

use clap::Args;
use serde::Serialize;

use super::asked;
use super::bring_up::{Start, Up, bring_up_plainly};
use super::down::take_down;
use super::global::Global;
use super::progress::Progress;
use super::targets::{self, not_up};
use super::ui::ui;
use super::up;
use crate::config::{self, ConfigFile, RuntimeFiles, TunnelName};
use crate::daemon::{self, Added, ControlClient, Event, Found, Request};
use crate::failure::{ExitCode, Failure};

#[derive(Debug, Args)]
pub(super) struct RestartArgs {
    /// The tunnels to restart, each with the options of its `up`
    #[arg(value_name = "TARGET", add = super::completions::running(), conflicts_with = "all")]
    targets: Vec<String>,
    /// Restart all tunnels that are up
    #[arg(long)]
    all: bool,
    /// How long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::global::duration)]
    timeout: config::Duration,
    /// Print the tunnels' status as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// The tunnels to reload: what can change while they run changes at once
    #[arg(value_name = "TARGET", add = super::completions::running(), conflicts_with = "all")]
    targets: Vec<String>,
    /// All tunnels that are up
    #[arg(long)]
    all: bool,
    /// Print a JSON array, for programs: each tunnel's `name` and its `warnings`
    #[arg(long)]
    pub(super) json: bool,
}

/// The tunnels to act on, with their targets as typed.
fn meant(
    global: &Global,
    command: &str,
    given: &[String],
    all: bool,
) -> Result<(ConfigFile, Vec<(String, TunnelName)>), Failure> {
    targets::runtime()?;
    let up = targets::running();
    let names = || up.iter().map(ToString::to_string).collect::<Vec<_>>();
    if all {
        let dir = targets::runtime()?;
        // A killed daemon leaves its sockets behind.
        let is_up = |name: &TunnelName| !matches!(daemon::find(&dir, name), Ok(Found::Down));
        return Ok((
            ConfigFile::default(),
            names().into_iter().zip(up.clone()).filter(|(_, name)| is_up(name)).collect(),
        ));
    }
    if given.is_empty() {
        return Err(targets::none_given(command, "every one that is up", &names()));
    }
    let (config, tunnels) = global.choose_all(given)?;
    for (target, name) in &tunnels {
        if let Some(failure) = global.unknown(target, name, &config) {
            return Err(failure);
        }
    }
    Ok((config, tunnels))
}

pub(super) fn restart(global: &Global, args: &RestartArgs) -> Result<(), Failure> {
    let (config, tunnels) = meant(global, "restart", &args.targets, args.all)?;
    let progress = Progress::new();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = tunnels
            .iter()
            .map(|(target, name)| scope.spawn(|| again(global, &config, target, name, args.timeout, &progress)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(up::panicked()))).collect()
    });
    let targets: Vec<String> = tunnels.into_iter().map(|(target, _)| target).collect();
    up::report(&targets, results)
}

fn again(
    global: &Global,
    config: &ConfigFile,
    target: &str,
    name: &TunnelName,
    timeout: config::Duration,
    progress: &Progress,
) -> Result<Up, Failure> {
    let status = match daemon::find(&targets::runtime()?, name)? {
        Found::Running(status) => status,
        Found::Down => return bring_up_plainly(global, config, target, timeout, progress),
        Found::Unwell(error) => return Err(error.into()),
    };
    asked::has_these_files(global, target, &status)?;
    // A tunnel that could not be started again is left running.
    let start = Start::of(&status.arguments).ok_or_else(|| {
        Failure::new(ExitCode::Other, format!("{target} runs in the foreground, so dtunnel cannot start it again"))
            .hint("if it is a service: systemctl --user restart; otherwise end it and start it as before")
    })?;
    start.check(status.settings.as_ref().is_some_and(|settings| settings.has_profile))?;
    take_down(target, name, false)?;
    start.bring_up(timeout, progress)
}

/// One element of the `--json` output of `reload`.
#[derive(Debug, Serialize)]
struct Reloaded {
    name: String,
    warnings: Vec<String>,
}

pub(super) fn reload(global: &Global, args: &ReloadArgs) -> Result<(), Failure> {
    let (config, tunnels) = meant(global, "reload", &args.targets, args.all)?;
    let mut reloaded = Vec::new();
    let mut failures = Vec::new();
    for (target, name) in &tunnels {
        match reload_one(global, &config, target, name) {
            Ok(warnings) => {
                warnings.iter().for_each(|warning| ui().warning(&format!("{target}: {warning}")));
                ui().note(&format!("{target} has read its configuration again"));
                reloaded.push(Reloaded { name: name.to_string(), warnings });
            }
            Err(failure) => failures.push(failure),
        }
    }
    ui().done(&reloaded, String::new)?;
    let last = failures.pop();
    failures.iter().for_each(|failure| ui().error(failure));
    last.map_or(Ok(()), Err)
}

fn reload_one(global: &Global, config: &ConfigFile, target: &str, name: &TunnelName) -> Result<Vec<String>, Failure> {
    let files = RuntimeFiles::new(&targets::runtime()?, name)?;
    let Some(mut client) = ControlClient::connect(&files.control)? else {
        return Err(not_up(target, name, config));
    };
    asked::has_these_files(global, target, &client.status()?)?;
    client.send(&Request::Reload(Added::default()))?;
    match client.receive(daemon::CONNECTING)? {
        Some(Event::Reloaded { warnings }) => Ok(warnings),
        Some(Event::Failed { failure }) => {
            Err(Failure { message: format!("{target}: {}", failure.message), ..failure })
        }
        _ => Err(Failure::new(ExitCode::Other, format!("{target} did not say whether it has read its configuration"))),
    }
}
