//! `dtunnel env`, and the variables that point a shell's docker to a tunnel.

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::{Args, ValueEnum};

use super::asked;
use super::bring_up::bring_up_quietly;
use super::global::Global;
use super::shell::{Change, Shell};
use super::targets::{self, Chosen, not_up};
use super::ui;
use crate::config;
use crate::daemon::{self, Found, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::tunnel::State;

/// Variables that make docker use another endpoint, or TLS on a socket.
const FIGHTING: [&str; 3] = ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];
/// Variables that dtunnel sets, for docker and for shell prompts.
const OURS: [&str; 3] = ["DOCKER_HOST", "DTUNNEL", "DTUNNEL_ACCESS"];
/// The socket that testcontainers gives its containers: the one on the Engine's host.
const SOCKET_OVERRIDE: &str = "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE";

#[derive(Debug, Args)]
pub(super) struct EnvArgs {
    /// The tunnel [default: DTUNNEL_TARGET, `default` of the configuration, or the only profile]
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: Option<String>,
    /// The shell to write for; guessed where not given
    #[arg(long, value_name = "SHELL")]
    shell: Option<Shell>,
    /// Print the commands that unset DOCKER_HOST
    #[arg(long, conflicts_with = "up")]
    unset: bool,
    /// Bring the tunnel up first
    #[arg(long)]
    up: bool,
    /// With --up: how long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::global::duration)]
    timeout: config::Duration,
}

/// The variables that point docker to a tunnel.
#[derive(Debug)]
pub(super) struct Environment {
    host: String,
    target: String,
    access: String,
    /// The path of the Engine's socket on the host, if it has one that is known.
    socket: Option<String>,
}

impl Environment {
    pub(super) fn new(target: &str, status: TunnelStatus) -> Self {
        Self {
            host: status.local.unwrap_or_default(),
            target: target.into(),
            access: status.access.unwrap_or_else(|| "full".into()),
            socket: status.remote.filter(|remote| remote.starts_with('/')),
        }
    }

    pub(super) fn changes(&self) -> Vec<Change<'_>> {
        let values = [&self.host, &self.target, &self.access];
        let ours = OURS.into_iter().zip(values).map(|(name, value)| Change::Set(name, value));
        let socket = match &self.socket {
            Some(path) => Change::Set(SOCKET_OVERRIDE, path),
            None => Change::Clear(SOCKET_OVERRIDE),
        };
        ours.chain([socket]).chain(FIGHTING.map(Change::Clear)).collect()
    }
}

pub(super) fn env(global: &Global, args: &EnvArgs) -> Result<(), Failure> {
    let shell = args.shell.unwrap_or_else(Shell::guess);
    // On any failure: a shell that evaluates no output would keep its previous host.
    ui::if_it_fails(shell.failure());
    if args.unset {
        let cleared: Vec<Change<'_>> = OURS.into_iter().chain([SOCKET_OVERRIDE]).map(Change::Clear).collect();
        return ui::print(&shell.script(&cleared));
    }
    let chosen = global.choose(args.target.as_deref())?;
    let status = if args.up {
        bring_up_quietly(global, &chosen.config, &chosen.target, args.timeout)?.status
    } else {
        usable(global, &chosen)?
    };
    let environment = Environment::new(&chosen.target, status);
    if environment.host.contains(char::is_control) {
        // A socket from a service manager can have any path; some shells cannot quote control characters.
        let host = &environment.host;
        return Err(Failure::new(ExitCode::Other, format!("the endpoint {host:?} holds control characters")));
    }
    ui::print(&shell.script(&environment.changes()))
}

/// The status of a tunnel whose socket can be used.
fn usable(global: &Global, chosen: &Chosen) -> Result<TunnelStatus, Failure> {
    match daemon::find(&targets::runtime()?, &chosen.name)? {
        // A tunnel that is reconnecting keeps its socket, and its clients wait.
        Found::Running(status) if matches!(status.state, State::Up | State::Idle | State::Reconnecting) => {
            asked::holds_in_passing(global, chosen, &status)?;
            Ok(*status)
        }
        Found::Running(_) | Found::Down => Err(not_up(&chosen.target, &chosen.name, &chosen.config)),
        Found::Unwell(error) => Err(error.into()),
    }
}

/// Prints a failing word for a shell that evaluates the output, if the command line is invalid and may be one of `env`.
pub(super) fn refuse_to_be_evaluated(words: &[OsString], commands: &clap::Command) {
    if !(means_env(words, commands) || is_piped_as_text(words) && names_no_command(words, commands)) {
        return;
    }
    let mut rest = words.iter().map(|word| word.to_string_lossy());
    let mut shell = None;
    while let Some(word) = rest.next() {
        let named =
            if word == "--shell" { rest.next() } else { word.strip_prefix("--shell=").map(|s| s.to_owned().into()) };
        shell = named.and_then(|name| Shell::from_str(&name, false).ok()).or(shell);
    }
    let _ = ui::print(shell.unwrap_or_else(Shell::guess).failure());
}

/// Is the command unknown? Without a failing word `eval "$(dtunnel export p)"` would keep the shell's previous host.
fn names_no_command(words: &[OsString], commands: &clap::Command) -> bool {
    let at = super::words::next_word(words, 1).map(|at| if words[at] == "--" { at + 1 } else { at });
    let word = at.and_then(|at| words.get(at)).map(|word| word.to_string_lossy());
    word.is_some_and(|word| word != "help" && commands.find_subcommand(&*word).is_none())
}

/// Whether standard output may be read by a shell: it is no terminal, and JSON was not requested. Other
/// readers must check the exit code.
fn is_piped_as_text(words: &[OsString]) -> bool {
    !std::io::stdout().is_terminal() && !words.iter().any(|word| word == "--json")
}

/// Whether an invalid command line may be one of `env`, whose output is evaluated. Includes misspelt commands, and
/// `env` taken for an option's value, as in `dtunnel --config env TARGET`.
fn means_env(words: &[OsString], commands: &clap::Command) -> bool {
    let command = super::words::command_at(words).map(|at| words[at].to_string_lossy());
    if let Some(word) = command.filter(|word| commands.find_subcommand(&**word).is_some()) {
        return word == "env";
    }
    let words = words.iter().skip(1).map(|word| word.to_string_lossy());
    let first = words.clone().find(|word| !word.starts_with('-'));
    // One typing error: a wrong, missing or extra letter, or two letters swapped.
    first.is_some_and(|word| strsim::osa_distance(&word.to_lowercase(), "env") <= 1)
        || words.into_iter().any(|w| w == "env")
}
