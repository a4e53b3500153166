//! `dtunnel status`.

use std::io::Write;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::global::Global;
use super::ui::ui;
use super::{asked, output, targets};
use crate::config::{self, TunnelName};
use crate::daemon::{self, Found, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::tunnel::State;

/// Default interval of `--watch`.
const EVERY: Duration = Duration::from_secs(2);
/// Minimum interval of `--watch`.
const SHORTEST: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Tunnels to show [default: those that are up, and the default target]
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// Print a JSON array, for programs
    #[arg(long)]
    pub(super) json: bool,
    /// Print a line for each tunnel every INTERVAL, 2 s if not given, until Ctrl-C
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true, value_parser = super::global::duration)]
    #[allow(clippy::option_option, reason = "given or not, with a value or not")]
    watch: Option<Option<config::Duration>>,
}

pub(super) fn status(global: &Global, args: &StatusArgs) -> Result<(), Failure> {
    let (mut given, mut interval) = (args.targets.clone(), args.watch.map(|value| value.map(|duration| duration.0)));
    // `--watch 1` gives an interval, not a target, as in watch(1) and ping(8).
    if let (Some(None), [first, ..]) = (interval, given.as_slice())
        && let Ok(duration) = super::global::duration(first)
    {
        interval = Some(Some(duration.0));
        given.remove(0);
    }
    let (named, default) = if given.is_empty() {
        // Running tunnels are shown even if the configuration is broken.
        (Vec::new(), default(global))
    } else {
        (global.choose_all(&given)?.1.into_iter().map(|(_, name)| name).collect(), None)
    };
    if let Some(interval) = interval {
        if interval.is_some_and(|interval| interval < SHORTEST) {
            return Err(Failure::new(ExitCode::Usage, "--watch takes 100ms at least"));
        }
        return watch(&named, interval.unwrap_or(EVERY));
    }
    let statuses = wanted(&named, default.as_ref())?;
    ui().result(&statuses, || match statuses.is_empty() {
        true => {
            ui().note("no tunnels are up");
            String::new()
        }
        false => table(&statuses, output::width()),
    })?;
    // The tunnels named on the command line, or the default one.
    let asked_for = |status: &&TunnelStatus| {
        !named.is_empty() || default.as_ref().is_some_and(|default| default.as_str() == status.name)
    };
    let not_up = statuses.iter().filter(asked_for).filter(|status| !status.state.is_usable());
    let not_up: Vec<&str> = not_up.map(|status| status.name.as_str()).collect();
    if not_up.is_empty() {
        return Ok(());
    }
    let are = if not_up.len() == 1 { "is" } else { "are" };
    Err(Failure::new(ExitCode::NotUp, format!("{} {are} not up", not_up.join(", "))))
}

/// The default target, if set explicitly.
fn default(global: &Global) -> Option<TunnelName> {
    let config = global.config().unwrap_or_default();
    targets::set_default(&config).and_then(|target| TunnelName::of_target(&target, &config).ok())
}

/// The named tunnels, or all running ones and the default one.
fn wanted(named: &[TunnelName], default: Option<&TunnelName>) -> Result<Vec<TunnelStatus>, Failure> {
    if !named.is_empty() {
        return ask(named);
    }
    let mut names = targets::running();
    names.extend(default.filter(|default| !names.contains(default)).cloned());
    let mut statuses = ask(&names)?;
    // A stale control socket is shown only if it is the default target's.
    statuses
        .retain(|status| status.state != State::Down || default.is_some_and(|default| default.as_str() == status.name));
    Ok(statuses)
}

/// Asks the daemons in parallel: one that hangs must not delay the others.
///
/// # Errors
/// A name is too long for a socket, or the runtime directory is not ours alone.
pub(super) fn ask(names: &[TunnelName]) -> Result<Vec<TunnelStatus>, Failure> {
    let dir = targets::runtime()?;
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| (name, scope.spawn(|| daemon::find(&dir, name)))).collect();
        threads.into_iter().filter_map(|(name, thread)| Some((name, thread.join().ok()?))).collect()
    });
    let mut statuses = Vec::new();
    for (name, found) in found {
        statuses.push(match found? {
            Found::Running(mut status) => {
                status.changed = asked::changed_since(&status);
                *status
            }
            Found::Down => TunnelStatus::down(name.as_str()),
            Found::Unwell(error) => {
                let pid = error.pid();
                let Failure { message, hint, .. } = error.into();
                let last_error = Some(hint.into_iter().fold(message, |message, hint| format!("{message}; {hint}")));
                TunnelStatus { state: State::Failed, last_error, pid, ..TunnelStatus::down(name.as_str()) }
            }
        });
    }
    Ok(statuses)
}

/// Prints status lines for logs, pipes and simple terminals. Ends when the reader closes the pipe.
fn watch(named: &[TunnelName], interval: Duration) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    loop {
        let statuses = wanted(named, None)?;
        let text = ui().line(&statuses, || statuses.iter().map(line).collect())?;
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => std::thread::sleep(interval),
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => {
                return Err(Failure::new(ExitCode::Other, format!("cannot write to standard output: {e}")));
            }
        }
    }
}

/// One tunnel's status line.
fn line(status: &TunnelStatus) -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let time = status.round_trip_ms().map(|ms| format!(" rtt={ms:.1}ms")).unwrap_or_default();
    let error = status.last_error.as_ref().map(|error| format!(" error={error:?}")).unwrap_or_default();
    format!(
        "{now} {} {} connections={} flows={} in={} out={}{time}{error}\n",
        status.name,
        status.state,
        status.connections.len(),
        status.flows_open,
        status.bytes_in,
        status.bytes_out
    )
}

pub(super) fn table(statuses: &[TunnelStatus], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = statuses.iter().map(row).collect();
    let header = ["NAME", "STATE", "HOST", "SOCKET", "SINCE", "FLOWS", "IN", "OUT", "ENGINE"];
    let mut text = output::states(&header, &rows, width, |row| statuses[row].state);
    for status in statuses {
        if let Some(error) = &status.last_error {
            text += &format!("{}: {error}\n", status.name);
        }
        if let Some(reset) = &status.last_reset {
            text += &format!("{}: {reset}\n", status.name);
        }
        let guard = status.access.as_ref().map(|access| format!("guarded ({access})"));
        let carrier = status.carrier_reason.as_ref().map(|why| format!("carried by the machine's ssh ({why})"));
        let holds: Vec<String> = guard.into_iter().chain(carrier).chain(asked::besides_guard(status)).collect();
        if !holds.is_empty() {
            text += &format!("{}: {}\n", status.name, holds.join("; "));
        }
        if let Some(changed) = asked::changed(status) {
            text += &format!("{}: {changed}\n", status.name);
        }
        for port in status.ports.iter().flatten().filter(|port| port.state.is_trouble()) {
            let reason = port.reason.as_deref().unwrap_or_default();
            text += &format!("{}: port {} of {}: {reason}\n", status.name, port.remote_port, port.container);
        }
        for mount in status.mounts.iter().flatten().filter(|mount| mount.state.is_trouble()) {
            text += &format!(
                "{}: {} is not in step: `dtunnel mounts {0}` has details\n",
                status.name,
                mount.path.display()
            );
        }
    }
    text
}

fn row(status: &TunnelStatus) -> Vec<String> {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let since = status.since.as_ref().and_then(|since| humantime::parse_rfc3339(since).ok());
    let age = since.and_then(|since| SystemTime::now().duration_since(since).ok()).map(output::span);
    vec![
        status.name.clone(),
        status.state.to_string(),
        known(status.short_address()),
        known(status.local.as_ref().map(|local| local.trim_start_matches("unix://").into())),
        known(age),
        status.flows_open.to_string(),
        output::bytes(status.bytes_in),
        output::bytes(status.bytes_out),
        known(status.engine.as_ref().map(|engine| engine.version.clone())),
    ]
}
