//! `dtunnel down`.

use std::time::Duration;

use clap::Args;

use super::{Global, nearest_profile, output};
use crate::config::{ConfigFile, RuntimeFiles, TunnelName, runtime_dir};
use crate::daemon::{self, Client, ClientError, Event, ExitCode, Failure, Request};

/// How long a daemon that does not tell its `drain` may let flows finish.
const UNTOLD: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// What to take down
    #[arg(value_name = "TARGET", add = super::completions::targets(), required_unless_present = "all", conflicts_with = "all")]
    targets: Vec<String>,
    /// Take all tunnels down
    #[arg(long)]
    all: bool,
}

pub(super) fn down(global: &Global, args: &DownArgs) -> Result<(), Failure> {
    // With --all a configuration file that is broken must not keep anything up.
    let config = if args.all { ConfigFile::default() } else { global.config()? };
    let names: Vec<(String, TunnelName)> = if args.all {
        daemon::list(&runtime_dir()?).into_iter().map(|name| (name.to_string(), name)).collect()
    } else {
        let named = args.targets.iter().map(|target| Ok((target.clone(), TunnelName::of_target(target, &config)?)));
        named.collect::<Result<_, Failure>>()?
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .iter()
            .map(|(target, name)| scope.spawn(|| take_down(global, &config, target, name, args.all)))
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut failures: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
    let last = failures.pop();
    failures.iter().for_each(output::print_failure);
    last.map_or(Ok(()), Err)
}

fn take_down(global: &Global, config: &ConfigFile, target: &str, name: &TunnelName, all: bool) -> Result<(), Failure> {
    let say = |message: String| {
        if !global.quiet {
            output::note(&message)
        }
    };
    let files = RuntimeFiles::new(&runtime_dir()?, name)?;
    let Some(mut client) = Client::connect(&files.control).map_err(|e| unwell(&e))? else {
        // What a killed daemon left is replaced by the next `up`; whoever asks for it to go
        // expects it gone. The sockets only: nobody listens there.
        for stale in [&files.socket, &files.control] {
            let _ = std::fs::remove_file(stale);
        }
        if !all {
            let meant = nearest_profile(target, config).map(|hint| format!(" ({hint})")).unwrap_or_default();
            say(format!("{target} is not up{meant}"));
        }
        return Ok(());
    };
    client.send(&Request::Down).map_err(|e| unwell(&e))?;
    let mut ending = UNTOLD;
    loop {
        match client.receive(ending) {
            Ok(Some(Event::Draining { flows, limit_ms })) => {
                ending = limit_ms.map_or(ending, Duration::from_millis);
                if flows == 0 {
                    continue;
                }
                say(format!("{target}: letting {flows} open {} finish", if flows == 1 { "flow" } else { "flows" }));
            }
            Ok(Some(Event::Stopped) | None) => break,
            Ok(Some(_)) => {}
            Err(e) => return Err(unwell(&e)),
        }
    }
    say(format!("{target} is down"));
    Ok(())
}

/// A daemon that does not do its part.
pub(super) fn unwell(error: &ClientError) -> Failure {
    let failure = Failure::new(ExitCode::Other, error.to_string());
    match error {
        ClientError::Version { pid, .. } => failure.hint(format!("end it with `kill {pid}`, then bring it up again")),
        ClientError::Stranger { .. } => failure.hint("whoever it is could hear your passphrases: ask them"),
        _ => failure.hint("`dtunnel status` shows the tunnels, `dtunnel logs TARGET` what they did"),
    }
}
