//! `dtunnel up`, and the daemon it starts.

use super::arguments::{DaemonArgs, UpArgs, options};
use super::bring_up::{Clock, For, Up, Watched, bring_up, watch, with_name_hint};
use super::global::Global;
use super::progress::Progress;
use super::shell::Shell;
use super::ui::ui;
use super::{asked, mounts, output, targets};
use crate::config::{ConfigFile, LocalEndpoint, TunnelName};
use crate::daemon::{self, ControlClient, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::os::local::BlockingStream;
use crate::os::{background, held_signals, inherited};
use crate::shell_word::shell_word;
use crate::tunnel::State;

pub(super) fn up(global: &Global, args: &UpArgs) -> Result<(), Failure> {
    let config = global.config()?;
    let profiles = || config.profiles.keys().cloned().collect::<Vec<_>>();
    let targets = match args.targets.as_slice() {
        [] if !args.all => return Err(targets::none_given("up", "every profile", &profiles())),
        [] => profiles(),
        given => {
            // An invalid target is kept as it is, and fails on its own.
            let name = |target: &String| TunnelName::of_target(target, &config).map_err(|_| target.clone());
            let named = given.iter().map(|target| (target.clone(), name(target))).collect();
            targets::each_once(named).into_iter().map(|(target, _)| target).collect()
        }
    };
    if let Some(local) = &args.tunnel.local {
        LocalEndpoint::parse(local)?;
        if targets.len() > 1 {
            return Err(Failure::new(ExitCode::Usage, "--local can serve one target only"));
        }
    }
    if targets.is_empty() {
        ui().note("there are no profiles; `dtunnel profile add NAME [user@]host` makes one");
        return ui().done::<[TunnelStatus; 0]>(&[], String::new);
    }
    if args.foreground {
        let [target] = targets.as_slice() else {
            return Err(Failure::new(ExitCode::Usage, "--foreground can serve one target only"));
        };
        return foreground(global, args, target, &config);
    }
    let progress = Progress::new();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = targets
            .iter()
            .map(|target| scope.spawn(|| bring_up(global, &config, target, &args.tunnel, For::ItsOwnSake, &progress)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    report(&targets, results)
}

pub(super) fn panicked() -> Failure {
    Failure::new(ExitCode::Other, "dtunnel itself failed; please report this")
}

pub(super) fn report(targets: &[String], results: Vec<Result<Up, Failure>>) -> Result<(), Failure> {
    let several = targets.len() > 1;
    let (mut statuses, mut text) = (Vec::new(), String::new());
    let mut failures = Vec::new();
    for (target, result) in targets.iter().zip(results) {
        match result {
            Ok(up) => {
                text += &announcement(target, &up, several);
                statuses.push(up.status);
            }
            Err(mut failure) => {
                if several {
                    failure.message = format!("{target}: {}", failure.message);
                }
                failures.push(failure);
            }
        }
    }
    ui().done(&statuses, || text)?;
    // The caller prints the last failure. Its exit code is the process's, unless the failures' codes differ.
    let Some(mut last) = failures.pop() else { return Ok(()) };
    for failure in &failures {
        ui().error(failure);
        if failure.exit != last.exit {
            last.exit = ExitCode::Other;
        }
    }
    Err(last)
}

/// Reports that a tunnel is up, and how to use it. With several tunnels: one line each.
fn announcement(target: &str, up: &Up, several: bool) -> String {
    let status = &up.status;
    let address = status.address().map(|address| address.to_string()).unwrap_or_default();
    let engine = status.engine.as_ref().map(|engine| format!(", Engine {}", engine.version)).unwrap_or_default();
    let state = if status.state == State::Idle { "ready, and connects on first use" } else { "up" };
    let already = if up.already { format!("already {state}") } else { state.into() };
    let access = status.access.as_ref().map(|access| format!(", {access}")).unwrap_or_default();
    let more: String = asked::besides_guard(status).into_iter().map(|word| format!(", {word}")).collect();
    let mut text = format!("{} {target} is {already}{access} ({address}{engine}{more})\n", output::check());
    if !several {
        text += &format!("  {}\n", Shell::guess().invitation(target));
    }
    text
}

/// Runs the daemon in this process, and watches it from this thread.
fn foreground(global: &Global, args: &UpArgs, target: &str, config: &ConfigFile) -> Result<(), Failure> {
    let other = |e: std::io::Error| Failure::new(ExitCode::Other, e.to_string());
    let (ours, theirs) = BlockingStream::pair().map_err(other)?;
    let options = options(global, target, &args.tunnel, true)?;
    let inherited = inherited::take().map_err(other)?;
    held_signals::leave_to_tunnel();
    std::thread::scope(|scope| {
        let daemon = scope.spawn(move || daemon::run(&options, theirs, inherited));
        let watched = ControlClient::over(ours).map_err(Failure::from).and_then(|mut client| {
            let clock = Clock::OfDaemon(args.tunnel.timeout.0);
            let watched = watch(&mut client, target, &Progress::new(), clock)?;
            if let Watched::Up(status) = &watched {
                mounts::warn_if_in_vain(&mut client, target, status)?;
            }
            Ok((watched, client))
        });
        let announced = match watched {
            Ok((Watched::Up(status), _)) => {
                let up = Up { status: *status, already: false };
                ui().done(&[&up.status], || announcement(target, &up, false))
            }
            Ok((Watched::Busy, _)) => Err(Failure::new(ExitCode::Other, format!("{target} is already up"))
                .hint(format!("take it down first: dtunnel down {}", shell_word(target)))),
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        let ended = daemon.join().unwrap_or_else(|_| Err(panicked()));
        ended.map_err(|failure| with_name_hint(failure, target, config)).and(announced)
    })
}

/// Runs the background process.
pub(super) fn daemon(global: &Global, args: &DaemonArgs) -> Result<(), Failure> {
    let parent = background::starter().map_err(|_| {
        Failure::new(ExitCode::Usage, "this is the background process of `dtunnel up`, not for use by hand")
    })?;
    let mut options = options(global, &args.target, &args.tunnel, false)?;
    options.config_named = args.config_named;
    daemon::run(&options, parent, None)
}
