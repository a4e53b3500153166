//! `dtunnel up`, and the daemon it starts.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::prompt::{self, Asker, NoAnswer};
use super::{Cli, Command, Global, asked, nearest_profile, output, targets};
use crate::config::{
    self, ConfigFile, Difference, LocalEndpoint, Overrides, RuntimeFiles, Settings, Takes, TunnelName, Wanted,
    log_path, runtime_dir,
};
use crate::daemon::{self, Client, ClientError, Event, Request, SpawnError, Trouble, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::shell_word::shell_word;
use crate::ssh::{Question, Secret};
use crate::sync::lock;
use crate::tunnel::State;

/// How long a daemon that holds the lock may take to open its control socket.
const STARTING: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// What to bring up; several come up side by side
    #[arg(value_name = "TARGET", add = super::completions::targets(), conflicts_with = "all")]
    targets: Vec<String>,
    /// Bring all profiles up
    #[arg(long)]
    all: bool,
    /// Return when docker can be used, which is what `up` does; for those who are used to `docker compose up -d`
    #[arg(short, long, hide = true, conflicts_with = "foreground")]
    detach: bool,
    /// Stay in the foreground until Ctrl-C, for service managers and containers
    #[arg(long)]
    foreground: bool,
    /// Print the tunnels' status as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    tunnel: TunnelArgs,
}

/// What a single tunnel is told; the daemon has the same options.
#[derive(Debug, Clone, Args)]
struct TunnelArgs {
    /// The local endpoint: unix:PATH or tcp:127.0.0.1:PORT (port 0: any free one)
    #[arg(long, value_name = "ENDPOINT")]
    local: Option<String>,
    /// The Engine on the host: auto, a socket's path, tcp:ADDRESS:PORT or command:… [default: auto]
    #[arg(long, value_name = "ENDPOINT")]
    remote: Option<String>,
    /// Connect on first use, and close what is not used for a while
    #[arg(long)]
    lazy: bool,
    /// Bring the TCP ports that containers publish to this machine's loopback
    #[arg(long)]
    ports: bool,
    /// Serve only requests that neither change nor reach into the host
    #[arg(long)]
    read_only: bool,
    /// Keep the passphrases and passwords you are asked for in the system keyring
    #[arg(long)]
    remember: bool,
    /// How long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::duration)]
    timeout: config::Duration,
}

#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    target: String,
    #[arg(long)]
    config_named: bool,
    #[command(flatten)]
    tunnel: TunnelArgs,
}

impl TunnelArgs {
    /// Those of commands that bring a tunnel up on the way.
    fn on_the_way(timeout: config::Duration) -> Self {
        Self { local: None, remote: None, lazy: false, ports: false, read_only: false, remember: false, timeout }
    }
}

pub(super) fn up(global: &Global, args: &UpArgs) -> Result<(), Failure> {
    let config = global.config()?;
    let profiles = || config.profiles.keys().cloned().collect::<Vec<_>>();
    let targets = match args.targets.as_slice() {
        [] if !args.all => return Err(targets::none_given("up", "every profile", &profiles())),
        [] => profiles(),
        given => given.to_vec(),
    };
    if let Some(local) = &args.tunnel.local {
        LocalEndpoint::parse(local)?;
        if targets.len() > 1 {
            return Err(Failure::new(ExitCode::Usage, "--local can serve one target only"));
        }
    }
    if targets.is_empty() {
        output::note("there are no profiles; `dtunnel profile add NAME [user@]host` makes one");
        return if args.json { output::print_json::<[TunnelStatus; 0]>(&[]) } else { Ok(()) };
    }
    if args.foreground {
        let [target] = targets.as_slice() else {
            return Err(Failure::new(ExitCode::Usage, "--foreground can serve one target only"));
        };
        return foreground(global, args, target, &config);
    }
    let progress = Progress::new(global, !args.json);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = targets
            .iter()
            .map(|target| scope.spawn(|| bring_up(global, &config, target, &args.tunnel, For::ItsOwnSake, &progress)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    report(args.json, &targets, results)
}

pub(super) fn panicked() -> Failure {
    Failure::new(ExitCode::Other, "dtunnel itself failed; please report this")
}

/// A tunnel that is up.
pub(super) struct Up {
    pub(super) status: TunnelStatus,
    already: bool,
}

pub(super) fn report(json: bool, targets: &[String], results: Vec<Result<Up, Failure>>) -> Result<(), Failure> {
    let several = targets.len() > 1;
    let mut statuses = Vec::new();
    let mut failures = Vec::new();
    for (target, result) in targets.iter().zip(results) {
        match result {
            Ok(up) => {
                if !json {
                    announce(target, &up, several)?;
                }
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
    if json {
        output::print_json(&statuses)?;
    }
    // The last failure is the caller's to print; its code is the program's unless they differ.
    let Some(mut last) = failures.pop() else { return Ok(()) };
    for failure in &failures {
        output::print_error(failure);
        if failure.exit != last.exit {
            last.exit = ExitCode::Other;
        }
    }
    Err(last)
}

/// Says that a tunnel is up, and how to use it; of several each is a line.
fn announce(target: &str, up: &Up, several: bool) -> Result<(), Failure> {
    if output::is_quiet() {
        return Ok(());
    }
    let status = &up.status;
    let address = status.address().map(|address| address.to_string()).unwrap_or_default();
    let engine = status.engine.as_ref().map(|engine| format!(", Engine {}", engine.version)).unwrap_or_default();
    let state = if status.state == State::Idle { "ready, and connects on first use" } else { "up" };
    let already = if up.already { format!("already {state}") } else { state.into() };
    let access = status.access.as_ref().map(|access| format!(", {access}")).unwrap_or_default();
    let more: String = asked::besides_guard(status).into_iter().map(|word| format!(", {word}")).collect();
    let mut text = format!("{} {target} is {already}{access} ({address}{engine}{more})\n", output::check());
    if !several {
        text += &format!("  eval \"$(dtunnel env {})\"\n", shell_word(target));
    }
    output::print(&text)
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

/// What a tunnel is brought up for.
#[derive(Clone, Copy)]
enum For {
    /// `up` itself: all that it says is to hold.
    ItsOwnSake,
    /// A command that only passes by.
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

/// What a daemon was told at its start.
pub(super) fn started_as(arguments: &[String]) -> Option<daemon::Options> {
    let words = std::iter::once("dtunnel").chain(arguments.iter().map(String::as_str));
    let Cli { global, command } = Cli::try_parse_from(words).ok()?;
    match command {
        Command::Daemon(DaemonArgs { target, config_named, tunnel }) => {
            let options = options(&global, &target, &tunnel, false).ok()?;
            Some(daemon::Options { config_named, ..options })
        }
        Command::Up(UpArgs { targets, foreground: true, tunnel, .. }) => {
            options(&global, targets.first()?, &tunnel, true).ok()
        }
        _ => None,
    }
}

/// How a tunnel was started, which starts it again.
pub(super) struct Start {
    global: Global,
    args: DaemonArgs,
}

/// Reads the words that a daemon was started with. None for a tunnel in the foreground.
pub(super) fn start_of(arguments: &[String]) -> Option<Start> {
    let words = std::iter::once("dtunnel").chain(arguments.iter().map(String::as_str));
    let Cli { mut global, command } = Cli::try_parse_from(words).ok()?;
    let Command::Daemon(args) = command else { return None };
    if !args.config_named {
        global.config = None;
    }
    Some(Start { global, args })
}

impl Start {
    /// Can it be started again, as far as that can be said while it runs? One that has a profile needs it.
    pub(super) fn check(&self, has_profile: bool) -> Result<(), Failure> {
        let config = self.global.config()?;
        if has_profile {
            // Without it, it would come up without its guard as well.
            config.profile(&self.args.target)?;
        }
        self.global.resolved(&self.args.target, &config, self.args.tunnel.remote.clone()).map(drop)
    }

    pub(super) fn bring_up(self, timeout: config::Duration, progress: &Progress) -> Result<Up, Failure> {
        let Self { global, args } = self;
        let tunnel = TunnelArgs { timeout, ..args.tunnel };
        bring_up(&global, &global.config()?, &args.target, &tunnel, For::ItsOwnSake, progress)
    }
}

/// Brings a tunnel up for a command that needs one, saying nothing where all goes well.
pub(super) fn bring_up_quietly(
    global: &Global,
    config: &ConfigFile,
    target: &str,
    timeout: config::Duration,
) -> Result<Up, Failure> {
    let progress = Progress::new(global, true);
    bring_up(global, config, target, &TunnelArgs::on_the_way(timeout), For::AnotherCommand, &progress)
}

fn bring_up(
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
    let begun = Instant::now();
    loop {
        if let Some(mut client) = Client::connect(&files.control).map_err(|e| unwell(&e))? {
            let status = client.status().map_err(|e| unwell(&e))?;
            let different = status.settings.as_ref().map(|running| purpose.differences(&wanted, running));
            let different = different.unwrap_or_default();
            if different.iter().any(|difference| difference.takes != Takes::Up) {
                return Err(asked::not_as_asked(target, &different));
            }
            if status.state.is_usable() {
                if different.is_empty() {
                    return Ok(Up { status, already: true });
                }
                let options = Request::Reload { lazy: args.lazy, ports: args.ports };
                asked::take_on(&mut client, target, &wanted, &different, options, args.timeout.0)?;
                // It may have to connect for that.
                continue;
            }
            // Somebody else is bringing it up, or it has lost its connection: wait along.
            match watch(&mut client, target, progress, Clock::Ours(args.timeout.0))? {
                Watched::Up(status) if different.is_empty() => return Ok(Up { status: *status, already: true }),
                Watched::Up(_) => continue,
                Watched::Busy => {}
                Watched::Failed(failure) => return Err(with_name_hint(failure, target, config)),
                Watched::Gone => {}
            }
        } else {
            // Its end is not waited for: what it leaves is gone before it tells why it ends.
            let (mut client, _) = daemon::spawn(&daemon_args(global, target, args)?).map_err(cannot_spawn)?;
            match watch(&mut client, target, progress, Clock::OfDaemon(args.timeout.0))? {
                Watched::Up(status) => return Ok(Up { status: *status, already: false }),
                // The other daemon has the lock, but no control socket yet.
                Watched::Busy => {}
                Watched::Failed(failure) => return Err(with_name_hint(failure, target, config)),
                Watched::Gone => {
                    let log = log_path(&name)?;
                    return Err(Failure::new(ExitCode::Other, format!("the daemon of {name} ended before it was up"))
                        .hint(format!("its last words are in {}", log.display())));
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

/// A name that has no address may be a profile's, misspelt.
pub(super) fn with_name_hint(failure: Failure, target: &str, config: &ConfigFile) -> Failure {
    match nearest_profile(target, config) {
        Some(hint) if failure.exit == ExitCode::Unreachable => failure.hint(hint),
        _ => failure,
    }
}

pub(super) fn unwell(error: &ClientError) -> Failure {
    super::down::unwell(error)
}

fn cannot_spawn(error: SpawnError) -> Failure {
    Failure::new(ExitCode::Other, error.to_string())
}

/// The arguments of the daemon: those that decide what it does, none that is a secret.
fn daemon_args(global: &Global, target: &str, args: &TunnelArgs) -> Result<Vec<OsString>, Failure> {
    let (config, named) = global.config_path()?;
    let mut list: Vec<OsString> = vec!["daemon".into(), "--config".into(), config.into()];
    if named {
        list.push("--config-named".into());
    }
    if let Some(file) = global.ssh_config() {
        list.extend(["-F".into(), file.into()]);
    }
    for _ in 0..global.verbose {
        list.push("-v".into());
    }
    if let Some(local) = &args.local {
        list.extend(["--local".into(), local.into()]);
    }
    if let Some(remote) = &args.remote {
        list.extend(["--remote".into(), remote.into()]);
    }
    let flags = [
        ("--lazy", args.lazy),
        ("--ports", args.ports),
        ("--read-only", args.read_only),
        ("--remember", args.remember),
    ];
    list.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| OsString::from(flag)));
    list.extend(["--timeout".into(), args.timeout.to_string().into(), "--".into(), target.into()]);
    Ok(list)
}

/// How watching a daemon ended.
enum Watched {
    Up(Box<TunnelStatus>),
    Failed(Failure),
    /// Another daemon has the tunnel.
    Busy,
    /// The daemon ended without a word.
    Gone,
}

/// Whose clock ends the wait for a tunnel.
#[derive(Clone, Copy)]
enum Clock {
    /// Our own: it was there before us, and has no time-out of its own while it reconnects.
    Ours(Duration),
    /// The daemon's, which was told this limit when it was started.
    OfDaemon(Duration),
}

/// Follows a daemon until its tunnel is up or has failed, or the time is over, and asks the person what it
/// asks.
fn watch(client: &mut Client, target: &str, progress: &Progress, clock: Clock) -> Result<Watched, Failure> {
    let mut line = progress.line(target);
    let (limit_ms, silence) = match clock {
        Clock::Ours(limit) => (Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)), limit),
        Clock::OfDaemon(limit) => (None, limit),
    };
    let broken = |e: ClientError| unwell(&e);
    // A daemon that fails at once may be gone before it reads this; its reason is still there.
    let _ = client.send(&Request::Watch { interactive: prompt::is_interactive(), limit_ms });
    loop {
        // It keeps the time, for it knows of questions at other terminals; that it stands still is for us to see.
        match client.receive(silence).map_err(broken)? {
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
                    // As if the signal had come: the daemon sees us go and leaves nothing behind.
                    Err(NoAnswer::Interrupted) => output::interrupted(),
                };
                client.send(&Request::Answer { id, answer }).map_err(broken)?;
            }
            Some(Event::Hello { .. } | Event::Draining { .. } | Event::Reloaded { .. } | Event::PromptOver { .. }) => {}
            Some(Event::Stopped) | None => return Ok(Watched::Gone),
        }
    }
}

/// What people see while they wait: a spinner a target, on a terminal.
pub(super) struct Progress {
    spinners: Option<MultiProgress>,
    verbose: bool,
    /// One question at a time.
    asking: Mutex<()>,
}

impl Progress {
    pub(super) fn new(global: &Global, wanted: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let verbose = global.verbose > 0;
        let spin = wanted && terminal && !global.quiet && !verbose;
        Self { spinners: spin.then(MultiProgress::new), verbose, asking: Mutex::new(()) }
    }

    fn line(&self, target: &str) -> Line {
        let spinner = self.spinners.as_ref().map(|all| {
            let bar = all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_message(format!("{target}: resolving"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Line { spinner, verbose: self.verbose, told: None }
    }

    fn warn(&self, target: &str, message: &str) {
        let say = || output::warning(&format!("{target}: {message}"));
        match &self.spinners {
            Some(spinners) => spinners.suspend(say),
            None => say(),
        }
    }

    /// What a program on the way to the host says to whoever waits.
    fn tell(&self, target: &str, message: &str) {
        let say = || output::said(&format!("{target}: {message}"));
        match &self.spinners {
            Some(spinners) => spinners.suspend(say),
            None => say(),
        }
    }

    fn ask(&self, question: &Question, asker: Option<&mut Asker<'_>>) -> Result<Secret, NoAnswer> {
        let _one = lock(&self.asking);
        match &self.spinners {
            Some(spinners) => spinners.suspend(|| prompt::ask(question, asker)),
            None => prompt::ask(question, asker),
        }
    }
}

/// One target's line; gone from the screen when dropped.
struct Line {
    spinner: Option<ProgressBar>,
    verbose: bool,
    /// What was said last, where there is no spinner.
    told: Option<(String, Option<String>)>,
}

impl Line {
    fn step(&mut self, target: &str, step: &str, trouble: Option<&Trouble>) {
        // Short, with the cause first of what may be cut off: a narrow terminal shows one line.
        let doing = match trouble {
            None => step.to_owned(),
            Some(Trouble { message, next_ms: None }) => format!("{step} again: {message}"),
            Some(Trouble { message, next_ms: Some(ms) }) => {
                format!("trying again in {} s: {message}", ms.div_ceil(1000))
            }
        };
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{target}: {doing}"));
            return;
        }
        // The same step is told again as a sign of life.
        let told = (step.to_owned(), trouble.map(|trouble| trouble.message.clone()));
        if self.verbose && self.told.as_ref() != Some(&told) {
            output::note(&format!("{target}: {doing}"));
            self.told = Some(told);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// The same daemon in this very process, and its watcher in a thread.
fn foreground(global: &Global, args: &UpArgs, target: &str, config: &ConfigFile) -> Result<(), Failure> {
    let other = |e: std::io::Error| Failure::new(ExitCode::Other, e.to_string());
    let (ours, theirs) = UnixStream::pair().map_err(other)?;
    let options = options(global, target, &args.tunnel, true)?;
    let inherited = daemon::inherited().map_err(other)?;
    super::signals::leave_to_tunnel();
    std::thread::scope(|scope| {
        let daemon = scope.spawn(move || daemon::run(&options, theirs, inherited));
        let watched = Client::over(ours).map_err(|e| unwell(&e)).and_then(|mut client| {
            let clock = Clock::OfDaemon(args.tunnel.timeout.0);
            let watched = watch(&mut client, target, &Progress::new(global, !args.json), clock)?;
            Ok((watched, client))
        });
        let announced = match watched {
            Ok((Watched::Up(status), _)) if args.json => output::print_json(&[status]),
            Ok((Watched::Up(status), _)) => announce(target, &Up { status: *status, already: false }, false),
            Ok((Watched::Busy, _)) => Err(Failure::new(ExitCode::Other, format!("{target} is already up"))
                .hint(format!("take it down first: dtunnel down {}", shell_word(target)))),
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        let ended = daemon.join().unwrap_or_else(|_| Err(panicked()));
        ended.map_err(|failure| with_name_hint(failure, target, config)).and(announced)
    })
}

fn options(global: &Global, target: &str, args: &TunnelArgs, foreground: bool) -> Result<daemon::Options, Failure> {
    let (config, config_named) = global.config_path()?;
    Ok(daemon::Options {
        target: target.into(),
        config,
        config_named,
        overrides: overrides(global, args),
        timeout: args.timeout.0,
        verbose: global.verbose,
        foreground,
    })
}

fn overrides(global: &Global, args: &TunnelArgs) -> Overrides {
    Overrides {
        ssh_config: global.ssh_config(),
        local: args.local.clone(),
        remote: args.remote.clone(),
        lazy: args.lazy,
        remember: args.remember,
        ports: args.ports,
        access_read_only: args.read_only,
    }
}

/// The background process.
pub(super) fn daemon(global: &Global, args: &DaemonArgs) -> Result<(), Failure> {
    let parent = daemon::parent_connection().map_err(|_| {
        Failure::new(ExitCode::Usage, "this is the background process of `dtunnel up`, not for use by hand")
    })?;
    let mut options = options(global, &args.target, &args.tunnel, false)?;
    options.config_named = args.config_named;
    daemon::run(&options, parent, None)
}
