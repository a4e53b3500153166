//! `dtunnel down`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::global::Global;
use super::targets;
use super::ui::ui;
use crate::config::{ConfigFile, RuntimeFiles, TunnelName};
use crate::daemon::{ControlClient, Event, Request};
use crate::failure::Failure;

/// How long flows may take to finish where an older daemon does not report its `drain`.
const UNTOLD: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// The tunnels to take down
    #[arg(value_name = "TARGET", add = super::completions::running(), conflicts_with = "all")]
    targets: Vec<String>,
    /// Take all tunnels down
    #[arg(long)]
    all: bool,
    /// Print a JSON array, for programs: each tunnel's `name`, and whether it `was_up`
    #[arg(long)]
    pub(super) json: bool,
}

/// What `--json` prints of each.
#[derive(Debug, Serialize)]
struct Taken {
    name: String,
    was_up: bool,
}

pub(super) fn down(global: &Global, args: &DownArgs) -> Result<(), Failure> {
    let (config, tunnels) = if args.all {
        // A configuration file that is broken must not keep anything up.
        targets::runtime()?;
        (ConfigFile::default(), targets::running().into_iter().map(|name| (name.to_string(), name)).collect())
    } else if args.targets.is_empty() {
        let up: Vec<String> = targets::running().iter().map(ToString::to_string).collect();
        return Err(targets::none_given("down", "down every one that is up", &up));
    } else {
        global.choose_all(&args.targets)?
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = tunnels
            .iter()
            .map(|(target, name)| {
                let config = &config;
                scope.spawn(move || match take_down(target, name, true)? {
                    false if args.all => Ok(Taken { name: name.to_string(), was_up: false }),
                    false => match global.unknown(target, name, config) {
                        Some(failure) => Err(failure),
                        None => {
                            ui().note(&format!("{target} is not up"));
                            Ok(Taken { name: name.to_string(), was_up: false })
                        }
                    },
                    true => Ok(Taken { name: name.to_string(), was_up: true }),
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let (taken, mut failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    ui().done(&taken.into_iter().flatten().collect::<Vec<_>>(), String::new)?;
    let last = failures.pop();
    failures.iter().filter_map(|failure| failure.as_ref().err()).for_each(|failure| ui().error(failure));
    last.map_or(Ok(()), |last| last.map(drop))
}

/// Takes a tunnel down, and says so if `aloud`; false where it was not up.
pub(super) fn take_down(target: &str, name: &TunnelName, aloud: bool) -> Result<bool, Failure> {
    let files = RuntimeFiles::new(&targets::runtime()?, name)?;
    let Some(mut client) = ControlClient::connect(&files.control)? else {
        // What a killed daemon left is replaced by the next `up`; whoever asks for it to go
        // expects it gone. The sockets only: nobody listens there.
        for stale in [&files.socket, &files.control] {
            let _ = std::fs::remove_file(stale);
        }
        return Ok(false);
    };
    client.send(&Request::Down)?;
    let mut ending = UNTOLD;
    loop {
        match client.receive(ending) {
            Ok(Some(Event::Draining { flows, limit_ms })) => {
                ending = limit_ms.map_or(ending, Duration::from_millis);
                if flows == 0 {
                    continue;
                }
                let flows = if flows == 1 { "1 open flow".into() } else { format!("{flows} open flows") };
                ui().note(&format!("{target}: waiting for {flows} to finish"));
            }
            Ok(Some(Event::Stopped) | None) => break,
            Ok(Some(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if aloud {
        ui().note(&format!("{target} is down"));
    }
    Ok(true)
}
