//! `dtunnel status`.

use std::time::SystemTime;

use clap::Args;

use super::{Global, output};
use crate::config::{TunnelName, runtime_dir};
use crate::daemon::{self, ExitCode, Failure, Found, TunnelStatus};
use crate::tunnel::State;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Tunnels to show; all that are up where none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Print a JSON array, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn status(global: &Global, args: &StatusArgs) -> Result<(), Failure> {
    let dir = runtime_dir();
    let names: Vec<TunnelName> = if args.targets.is_empty() {
        daemon::list(&dir)
    } else {
        let config = global.config()?;
        let named = args.targets.iter().map(|target| Ok(TunnelName::of_target(target, &config)?));
        named.collect::<Result<_, Failure>>()?
    };
    // Side by side: one that hangs must not hold the others up.
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| (name, scope.spawn(|| daemon::find(&dir, name)))).collect();
        threads.into_iter().filter_map(|(name, thread)| Some((name, thread.join().ok()?))).collect()
    });
    let mut statuses = Vec::new();
    for (name, found) in found {
        match found? {
            Found::Running(status) => statuses.push(*status),
            // A stale control socket is not a tunnel, unless it was asked for.
            Found::Down if args.targets.is_empty() => {}
            Found::Down => statuses.push(TunnelStatus::down(name.as_str())),
            Found::Unwell(error) => {
                let last_error = Some(error.to_string());
                statuses.push(TunnelStatus { state: State::Failed, last_error, ..TunnelStatus::down(name.as_str()) });
            }
        }
    }
    if args.json {
        output::print_json(&statuses)?;
    } else if statuses.is_empty() {
        if !global.quiet {
            output::note("no tunnels are up");
        }
    } else {
        table(&statuses)?;
    }
    let not_up = statuses.iter().filter(|status| !status.state.is_usable());
    let not_up: Vec<&str> = not_up.map(|status| status.name.as_str()).collect();
    if args.targets.is_empty() || not_up.is_empty() {
        return Ok(());
    }
    let are = if not_up.len() == 1 { "is" } else { "are" };
    Err(Failure::new(ExitCode::NotUp, format!("{} {are} not up", not_up.join(", "))))
}

fn table(statuses: &[TunnelStatus]) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = statuses.iter().map(row).collect();
    output::print_table(&["NAME", "STATE", "HOST", "SOCKET", "SINCE", "FLOWS", "IN", "OUT", "ENGINE"], &rows)?;
    for status in statuses {
        if let Some(error) = &status.last_error {
            output::print(&format!("{}: {error}\n", status.name))?;
        }
        if let Some(access) = &status.access {
            output::print(&format!("{}: guarded ({access})\n", status.name))?;
        }
        for port in status.ports.iter().flatten().filter(|port| port.state.is_trouble()) {
            let reason = port.reason.as_deref().unwrap_or_default();
            output::print(&format!("{}: port {} of {}: {reason}\n", status.name, port.remote_port, port.container))?;
        }
    }
    Ok(())
}

fn row(status: &TunnelStatus) -> Vec<String> {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let host = status.host.as_ref().map(|host| {
        let user = status.user.as_deref().unwrap_or_default();
        let port = status.port.filter(|port| *port != 22).map(|port| format!(":{port}")).unwrap_or_default();
        format!("{user}@{host}{port}")
    });
    let since = status.since.as_ref().and_then(|since| humantime::parse_rfc3339(since).ok());
    let age = since.and_then(|since| SystemTime::now().duration_since(since).ok()).map(output::span);
    vec![
        status.name.clone(),
        status.state.to_string(),
        known(host),
        known(status.local.as_ref().map(|local| local.trim_start_matches("unix://").into())),
        known(age),
        status.flows_open.to_string(),
        output::bytes(status.bytes_in),
        output::bytes(status.bytes_out),
        known(status.engine.as_ref().map(|engine| engine.version.clone())),
    ]
}
