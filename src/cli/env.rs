//! `dtunnel env`.

use clap::Args;

use super::shell::{Change, Shell};
use super::up::bring_up_quietly;
use super::{Global, not_up, output};
use crate::config::{self, TunnelName, runtime_dir};
use crate::daemon::{self, ExitCode, Failure, Found};

/// What would make docker go elsewhere, or speak TLS to a socket.
pub(super) const FIGHTING: [&str; 3] = ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];

#[derive(Debug, Args)]
pub(super) struct EnvArgs {
    /// The tunnel
    #[arg(value_name = "TARGET", add = super::completions::targets(), required_unless_present = "unset")]
    target: Option<String>,
    /// The shell to write for; guessed where not given
    #[arg(long, value_name = "SHELL")]
    shell: Option<Shell>,
    /// Print what takes DOCKER_HOST away again
    #[arg(long, conflicts_with = "up")]
    unset: bool,
    /// Bring the tunnel up first
    #[arg(long)]
    up: bool,
    /// With --up: how long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: config::Duration,
}

pub(super) fn env(global: &Global, args: &EnvArgs) -> Result<(), Failure> {
    let shell = args.shell.unwrap_or_else(Shell::guess);
    let Some(target) = args.target.as_ref().filter(|_| !args.unset) else {
        return output::print(&shell.script(&[Change::Clear("DOCKER_HOST")]));
    };
    let host = if args.up {
        let config = global.config()?;
        bring_up_quietly(global, &config, target, args.timeout)?.status.local
    } else {
        let config = global.config()?;
        let name = TunnelName::of_target(target, &config)?;
        match daemon::find(&runtime_dir()?, &name)? {
            Found::Running(status) => match status.state {
                // A tunnel that is reconnecting keeps its socket, and its clients wait.
                crate::tunnel::State::Up | crate::tunnel::State::Idle | crate::tunnel::State::Reconnecting => {
                    status.local
                }
                _ => return Err(not_up(target, &name, &config)),
            },
            Found::Down => return Err(not_up(target, &name, &config)),
            Found::Unwell(error) => return Err(super::down::unwell(&error)),
        }
    };
    let host = host.unwrap_or_default();
    if host.contains(char::is_control) {
        // A socket that a service manager has passed on can be anywhere; not each shell could be told.
        return Err(Failure::new(ExitCode::Other, format!("the endpoint {host:?} holds control characters")));
    }
    let mut changes = vec![Change::Set("DOCKER_HOST", &host)];
    changes.extend(FIGHTING.map(Change::Clear));
    output::print(&shell.script(&changes))
}
