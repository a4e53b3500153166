//! `dtunnel exec`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use super::Global;
use super::env::FIGHTING;
use super::up::bring_up_quietly;
use crate::config;
use crate::daemon::{ExitCode, Failure};

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// The tunnel; brought up if it is not
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: String,
    /// How long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: config::Duration,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the command: its exit code and the signals to it are its own affair then.
pub(super) fn exec(global: &Global, args: &ExecArgs) -> Result<(), Failure> {
    let up = global.config().and_then(|config| bring_up_quietly(global, &config, &args.target, args.timeout));
    let up = up.map_err(|failure| Failure { exit: ExitCode::NoTunnel, ..failure })?;
    // clap leaves a `--` that follows the target among the words of the command.
    let words = match args.command.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => &args.command,
    };
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::new(ExitCode::Usage, "no command was given"));
    };
    let mut command = Command::new(program);
    command.args(arguments).env("DOCKER_HOST", up.status.local.unwrap_or_default());
    for name in FIGHTING {
        command.env_remove(name);
    }
    let error = command.exec();
    let exit = if error.kind() == io::ErrorKind::NotFound { ExitCode::NotFound } else { ExitCode::CannotRun };
    Err(Failure::new(exit, format!("cannot run `{}`: {error}", program.to_string_lossy())))
}
