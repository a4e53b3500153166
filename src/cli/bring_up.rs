//! Brings a tunnel up, or waits for one that is coming up, and answers its daemon's questions from the terminal.

use std::time::{Duration, Instant};

use super::arguments::{DaemonArgs, TunnelArgs, daemon_args, daemon_started_as, overrides};
use super::global::{Global, WayArgs};
use super::progress::Progress;
use super::prompt::{self, Asker, NoAnswer};
use super::targets::nearest_profile;
use super::{asked, mounts, ui};
use crate::config::{
    self, ConfigFile, Difference, RuntimeFiles, Settings, Takes, TunnelName, Wanted, log_path, runtime_dir,
};
use crate::daemon::{self, Added, ControlClient, Event, Request, SpawnError, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::ssh::own_agent;

/// How long a daemon that holds the lock may take to open its control socket.
const STARTING: Duration = Duration::from_secs(2);
/// The interval between attempts to connect to it.
const LOOK: Duration = Duration::from_millis(10);

/// A tunnel that is up.
pub(super) struct Up {
    pub(super) status: TunnelStatus,
    pub(super) already: bool,
}

/// Brings a tunnel up as `up` without options does.
pub(super) fn bring_up_plainly(
    global: &Global,
    config: &ConfigFile,
    target: &str,
    timeout: config::Duration,
    progress: &Progress,
) -> Result<Up, Failure> {
    bring_up(global, config, target, &TunnelArgs::on_the_way(timeout), For::ItsOwnSake, progress)
}

/// Which command brings a tunnel up.
#[derive(Clone, Copy)]
pub(super) enum For {
    /// `up`: the tunnel must have all its settings.
    ItsOwnSake,
    /// A command that uses the tunnel, such as `exec`.
    AnotherCommand,
}

impl For {
    fn differences(self, wanted: &Wanted, running: &Settings) -> Vec<Difference> {
        match self {
            Self::ItsOwnSake => wanted.differences(running),
            Self::AnotherCommand => wanted.differences_in_passing(running),
        }
    }
}

/// The command line that starts a tunnel again.
pub(super) struct Start {
    global: Global,
    args: DaemonArgs,
}

impl Start {
    /// Parses a daemon's command line. None for a tunnel in the foreground.
    pub(super) fn of(arguments: &[String]) -> Option<Self> {
        daemon_started_as(arguments).map(|(global, args)| Self { global, args })
    }

    /// Checks, before the tunnel is taken down, that it can be started again: a profile's tunnel needs its profile.
    pub(super) fn check(&self, has_profile: bool) -> Result<(), Failure> {
        let config = self.global.config()?;
        if has_profile {
            // Without its profile the tunnel would come up without its guard.
            config.profile(&self.args.target)?;
        }
        let way = WayArgs { remote: self.args.tunnel.remote.clone(), carrier: self.args.tunnel.carrier };
        self.global.resolved(&self.args.target, &config, &way).map(drop)
    }

    pub(super) fn bring_up(self, timeout: config::Duration, progress: &Progress) -> Result<Up, Failure> {
        let Self { global, args } = self;
        let tunnel = TunnelArgs { timeout, ..args.tunnel };
        bring_up(&global, &global.config()?, &args.target, &tunnel, For::ItsOwnSake, progress)
    }
}

/// Brings a tunnel up for a command that needs one; prints nothing on success.
pub(super) fn bring_up_quietly(
    global: &Global,
    config: &ConfigFile,
    target: &str,
    timeout: config::Duration,
) -> Result<Up, Failure> {
    let progress = Progress::new();
    bring_up(global, config, target, &TunnelArgs::on_the_way(timeout), For::AnotherCommand, &progress)
}

pub(super) fn bring_up(
    global: &Global,
    config: &ConfigFile,
    target: &str,
    args: &TunnelArgs,
    purpose: For,
    progress: &Progress,
) -> Result<Up, Failure> {
    let wanted = Wanted::of(target, config, &overrides(global, args))?;
    let name = TunnelName::of_target(target, config)?;
    let files = RuntimeFiles::new(&runtime_dir()?, &name)?;
    let mut begun = Instant::now();
    loop {
        if let Some(mut client) = ControlClient::connect(&files.control)? {
            let status = client.status()?;
            // Nothing of one that ends matters to the next.
            let running = status.settings.as_ref().filter(|_| !status.ending);
            let different = running.map(|running| purpose.differences(&wanted, running)).unwrap_or_default();
            if different.iter().any(|difference| difference.takes != Takes::Up) {
                return Err(asked::not_as_asked(target, &different));
            }
            if status.state.is_usable() && !status.ending {
                if different.is_empty() {
                    mounts::warn_if_in_vain(&mut client, target, &status)?;
                    return Ok(Up { status, already: true });
                }
                let options = Request::Reload(Added { lazy: args.lazy, ports: args.ports, mounts: args.mounts });
                asked::take_on(&mut client, target, &wanted, &different, options, args.timeout.0)?;
                // The reload may require a connection first.
                continue;
            }
            // Another client is bringing it up, or it is reconnecting: wait as well. Or it ends: wait for that.
            match watch(&mut client, target, progress, Clock::Ours(args.timeout.0))? {
                Watched::Up(status) if different.is_empty() => return Ok(Up { status: *status, already: true }),
                Watched::Up(_) => continue,
                Watched::Busy => {}
                Watched::Failed(failure) => return Err(with_name_hint(failure, target, config)),
                // The next one is waited for as long.
                Watched::Gone => begun = Instant::now(),
            }
        } else {
            // No wait for the old daemon's end: it cleans up before it reports its reason.
            let (mut client, _) = daemon::spawn(&daemon_args(global, target, args)?).map_err(cannot_spawn)?;
            match watch(&mut client, target, progress, Clock::OfDaemon(args.timeout.0))? {
                Watched::Up(status) => {
                    mounts::warn_if_in_vain(&mut client, target, &status)?;
                    return Ok(Up { status: *status, already: false });
                }
                // The other daemon has the lock, but no control socket yet.
                Watched::Busy => {}
                Watched::Failed(failure) => return Err(with_name_hint(failure, target, config)),
                Watched::Gone => {
                    let log = log_path(&name)?;
                    return Err(Failure::new(ExitCode::Other, format!("the daemon of {name} ended before it was up"))
                        .hint(format!("its log is {}", log.display())));
                }
            }
        }
        if begun.elapsed() > STARTING {
            let holder = std::fs::read_to_string(&files.lock).unwrap_or_default();
            let holder = holder.trim().parse::<u32>().map_or_else(|_| "PID".into(), |pid| pid.to_string());
            return Err(Failure::new(ExitCode::Other, format!("{name} is held by a process that does not answer"))
                .hint(format!("end it with `kill {holder}` (its lock is {}), then try again", files.lock.display())));
        }
        std::thread::sleep(LOOK);
    }
}

/// Adds a hint if the host was not reached and the target resembles a profile's name.
pub(super) fn with_name_hint(failure: Failure, target: &str, config: &ConfigFile) -> Failure {
    match nearest_profile(target, config) {
        Some(hint) if failure.exit == ExitCode::Unreachable => failure.hint(hint),
        _ => failure,
    }
}

fn cannot_spawn(error: SpawnError) -> Failure {
    Failure::new(ExitCode::Other, error.to_string())
}

/// How watching a daemon ended.
pub(super) enum Watched {
    Up(Box<TunnelStatus>),
    Failed(Failure),
    /// Another daemon has the tunnel.
    Busy,
    /// The daemon ended and sent no reason.
    Gone,
}

/// Whether the client or the daemon limits the wait for a tunnel.
#[derive(Clone, Copy)]
pub(super) enum Clock {
    /// The client: a tunnel that ran before has no time-out while it reconnects.
    Ours(Duration),
    /// The daemon, which got this limit on its command line.
    OfDaemon(Duration),
}

/// Follows a daemon until its tunnel is up, has failed or the limit has passed. Answers
/// its questions from the terminal.
pub(super) fn watch(
    client: &mut ControlClient,
    target: &str,
    progress: &Progress,
    clock: Clock,
) -> Result<Watched, Failure> {
    let mut line = progress.line(target);
    let (limit_ms, silence) = match clock {
        Clock::Ours(limit) => (Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)), limit),
        Clock::OfDaemon(limit) => (None, limit),
    };
    // A daemon that fails at once may exit before it reads this; its reason can still be received.
    let agent = own_agent().and_then(|socket| socket.to_str().map(str::to_owned));
    let _ = client.send(&Request::Watch { interactive: prompt::is_interactive(), limit_ms, agent });
    loop {
        // The daemon applies the limit because it knows of questions at other terminals. The client's limit only
        // catches a daemon that stalls.
        match client.receive(silence)? {
            Some(Event::Status { status }) => return Ok(Watched::Up(status)),
            Some(Event::Failed { failure }) => return Ok(Watched::Failed(failure)),
            Some(Event::AlreadyRunning) => return Ok(Watched::Busy),
            Some(Event::Step { step, trouble }) => line.step(target, &step.to_string(), trouble.as_ref()),
            Some(Event::Warning { message, said: false }) => progress.warn(target, &message),
            Some(Event::Warning { message, said: true }) => progress.tell(target, &message),
            Some(Event::Prompt { id, question }) => {
                let answer = match progress.ask(&question, Some(&mut Asker { client: &mut *client, id })) {
                    Ok(answer) => Some(answer),
                    Err(NoAnswer::NoTerminal) => None,
                    Err(NoAnswer::Over) => continue,
                    // As on SIGINT: the daemon sees the connection close and cleans up.
                    Err(NoAnswer::Interrupted) => ui::interrupted(),
                };
                client.send(&Request::Answer { id, answer })?;
            }
            Some(Event::Draining { .. }) => line.step(target, "waiting for the tunnel that is being taken down", None),
            Some(Event::Hello { .. } | Event::Reloaded { .. } | Event::PromptOver { .. } | Event::Mounts { .. }) => {}
            Some(Event::Stopped) | None => return Ok(Watched::Gone),
        }
    }
}
