//! `dtunnel exec` and `dtunnel shell`: runs a command, or the user's shell, with docker pointed to a tunnel.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::process::Command;

use clap::Args;

use super::bring_up::bring_up_quietly;
use super::env::Environment;
use super::global::Global;
use super::shell::Change;
use super::targets::Chosen;
use super::ui::ui;
use crate::config::{self};
use crate::daemon::TunnelStatus;
use crate::failure::{ExitCode, Failure};
use crate::os::{files, programs, search_path};
use crate::shell_word::shell_word;

#[derive(Debug, Args)]
#[command(override_usage = "dtunnel exec [OPTIONS] [TARGET] [--] [COMMAND]...")]
pub(super) struct ExecArgs {
    /// The tunnel, brought up if it is not, then the command and its arguments. Without a target, as in
    /// `exec -- docker ps`, the default one; without a command your shell
    #[arg(value_name = "TARGET [COMMAND]", trailing_var_arg = true, allow_hyphen_values = true, add = super::completions::targets())]
    words: Vec<OsString>,
    /// How long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::global::duration)]
    timeout: config::Duration,
}

/// `exec -- COMMAND` omits the target. clap drops this `--`, so it is doubled: the second becomes the first of `words`.
pub(super) fn keep_first_marker(words: Vec<OsString>) -> Vec<OsString> {
    let Some(exec) = super::words::command_at(&words).filter(|at| words[*at] == "exec") else { return words };
    let marker = super::words::next_word(&words, exec + 1).filter(|at| words[*at] == "--");
    let Some(at) = marker else { return words };
    [&words[..at], &[OsString::from("--")], &words[at..]].concat()
}

#[derive(Debug, Args)]
pub(super) struct ShellArgs {
    /// The tunnel, brought up if it is not [default: DTUNNEL_TARGET, `default` of the configuration, or the only profile]
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: Option<String>,
    /// How long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::global::duration)]
    timeout: config::Duration,
}

pub(super) fn shell(global: &Global, args: &ShellArgs) -> Result<(), Failure> {
    let (chosen, status) = bring_up(global, args.target.as_deref(), args.timeout, |_| Ok(()))?;
    start_shell(&chosen, status)
}

/// Replaces this process by the command (exec), which then gets the signals and sets the exit code.
pub(super) fn exec(global: &Global, args: &ExecArgs) -> Result<(), Failure> {
    let (given, words) = match args.words.split_first() {
        Some((marker, words)) if marker == "--" => (None, words),
        Some((target, words)) => (Some(target.to_string_lossy()), words),
        None => (None, args.words.as_slice()),
    };
    // clap keeps a `--` that follows the target in the command's words.
    let (marked, words) = match words.split_first() {
        Some((first, rest)) if first == "--" => (true, rest),
        _ => (false, words),
    };
    let is_meant = |chosen: &Chosen| match &given {
        Some(_) if !marked => forgotten_target(global, chosen, words),
        _ => Ok(()),
    };
    let (chosen, status) = bring_up(global, given.as_deref(), args.timeout, is_meant)?;
    let Some((program, arguments)) = words.split_first() else { return start_shell(&chosen, status) };
    become_command(
        Command::new(programs::found(program)).args(arguments),
        program,
        &Environment::new(&chosen.target, status),
    )
}

/// Brings the tunnel up. A failure has its own exit code, since the command was not run.
fn bring_up(
    global: &Global,
    given: Option<&str>,
    timeout: config::Duration,
    is_meant: impl FnOnce(&Chosen) -> Result<(), Failure>,
) -> Result<(Chosen, TunnelStatus), Failure> {
    let up = global.choose(given).and_then(|chosen| {
        is_meant(&chosen)?;
        let status = bring_up_quietly(global, &chosen.config, &chosen.target, timeout)?.status;
        Ok((chosen, status))
    });
    up.map_err(|failure| Failure { exit: ExitCode::NoTunnel, ..failure })
}

/// Detects `exec docker ps`: the target is missing and the first word is a program.
fn forgotten_target(global: &Global, chosen: &Chosen, words: &[OsString]) -> Result<(), Failure> {
    let target = &chosen.target;
    if target.contains(['@', ':']) || !is_program(target) {
        return Ok(());
    }
    if global.unknown(target, &chosen.name, &chosen.config).is_none() {
        return Ok(());
    }
    let words: String = words.iter().map(|word| format!(" {}", shell_word(&word.to_string_lossy()))).collect();
    Err(Failure::new(ExitCode::NoTunnel, format!("`{target}` is a program, not a known target: the target is missing"))
        .hint(format!("dtunnel exec TARGET -- {target}{words}")))
}

/// Whether PATH holds this program.
fn is_program(name: &str) -> bool {
    search_path::places_of(name).any(|path| files::is_program(&path))
}

fn start_shell(chosen: &Chosen, status: TunnelStatus) -> Result<(), Failure> {
    let shell = programs::shell();
    let access = status.access.as_ref().map(|access| format!(", {access}")).unwrap_or_default();
    let address = status.address().map(|address| address.to_string()).unwrap_or_default();
    if io::stdin().is_terminal() {
        ui().note(&format!("docker uses {} in this shell ({address}{access}); `exit` leaves", chosen.target));
    }
    become_command(&mut Command::new(&shell), &shell, &Environment::new(&chosen.target, status))
}

fn become_command(command: &mut Command, program: &OsStr, environment: &Environment) -> Result<(), Failure> {
    for change in environment.changes() {
        match change {
            Change::Set(name, value) => command.env(name, value),
            Change::Clear(name) => command.env_remove(name),
        };
    }
    let error = programs::become_program(command);
    let exit = if error.kind() == io::ErrorKind::NotFound { ExitCode::NotFound } else { ExitCode::CannotRun };
    let failure = Failure::new(exit, format!("cannot run `{}`: {error}", program.to_string_lossy()));
    Err(match program.to_string_lossy().starts_with('-') {
        true => failure.hint("what follows TARGET is the command; options of dtunnel's own go before TARGET"),
        false => failure,
    })
}
