//! `dtunnel context`: manages docker contexts for tunnels through the docker CLI.

use std::process::{Command, Stdio};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::global::{Global, WayArgs};
use super::targets::{self, nearest_profile};
use super::ui::ui;
use crate::config::{LocalEndpoint, TunnelName};
use crate::daemon::{self, Found};
use crate::failure::{ExitCode, Failure};
use crate::shell_word::shell_word;

/// Prefix of the description of contexts that dtunnel created and may change or remove.
const OURS: &str = "dtunnel: ";

#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// Make a docker context that leads to a tunnel
    Create(ContextArgs),
    /// Remove the context of a tunnel; the tunnel stays
    #[command(visible_alias = "rm")]
    Remove(ContextArgs),
    /// Have docker use a tunnel from now on; creates its context if needed
    Use(ContextArgs),
}

#[derive(Debug, Args)]
pub(super) struct ContextArgs {
    /// The tunnel
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: String,
    /// Print a JSON object, for programs: the `context`, its `host`, and whether it is `current`
    #[arg(long)]
    json: bool,
}

impl ContextCommand {
    pub(super) fn json(&self) -> bool {
        let (Self::Create(args) | Self::Remove(args) | Self::Use(args)) = self;
        args.json
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Shown {
    context: String,
    /// Its endpoint; None once it was removed.
    host: Option<String>,
    /// Whether it is docker's current context.
    current: bool,
}

/// A context, from `docker context inspect`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Context {
    pub(super) name: String,
    metadata: Metadata,
    endpoints: Endpoints,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Metadata {
    description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Endpoint {
    host: String,
}

impl Context {
    pub(super) fn host(&self) -> &str {
        &self.endpoints.docker.host
    }

    /// Whether dtunnel created it.
    pub(super) fn is_ours(&self) -> bool {
        self.metadata.description.starts_with(OURS)
    }
}

pub(super) fn context(global: &Global, command: &ContextCommand) -> Result<(), Failure> {
    let name = match command {
        ContextCommand::Create(ContextArgs { target, .. }) => {
            let name = create(global, target)?;
            ui().note(&format!("docker's context `{name}` leads to {target}; use it with: docker --context {name} …"));
            name
        }
        ContextCommand::Remove(ContextArgs { target, .. }) => remove(global, target)?,
        ContextCommand::Use(ContextArgs { target, .. }) => {
            let name = create(global, target)?;
            docker(&["context", "use", &name])?;
            ui().note(&format!("docker uses {target} from now on; back with: docker context use default"));
            for variable in ["DOCKER_HOST", "DOCKER_CONTEXT"] {
                if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
                    ui().warning(&format!(
                        "{variable} is set in this shell and wins over the context: unset {variable}"
                    ));
                }
            }
            name
        }
    };
    ui().for_programs(|| {
        let host = existing(&name)?.map(|context| context.host().to_owned());
        let current = is_current(&name)?;
        Ok(Shown { context: name, host, current })
    })
}

/// Creates or updates the context, and returns its name.
fn create(global: &Global, target: &str) -> Result<String, Failure> {
    let (tunnel, host, up) = endpoint(global, target)?;
    let name = name_of(&tunnel);
    let (description, host) = (format!("{OURS}{target}"), format!("host={host}"));
    match existing(&name)? {
        Some(context) if !context.is_ours() => {
            return Err(Failure::new(
                ExitCode::Other,
                format!("docker has a context `{name}` that dtunnel did not create"),
            )
            .hint(format!("`docker context inspect {name}` shows it; remove it, or rename the profile")));
        }
        Some(context) if format!("host={}", context.host()) == host => {}
        Some(_) => drop(docker(&["context", "update", &name, "--description", &description, "--docker", &host])?),
        None => drop(docker(&["context", "create", &name, "--description", &description, "--docker", &host])?),
    }
    if !up {
        ui().note(&format!("{tunnel} is not up; bring it up with: dtunnel up {}", shell_word(target)));
    }
    Ok(name)
}

/// Removes the context, and returns its name.
fn remove(global: &Global, target: &str) -> Result<String, Failure> {
    let name = name_of(&TunnelName::of_target(target, &global.config()?)?);
    match existing(&name)? {
        None => ui().note(&format!("docker has no context `{name}`")),
        Some(context) if !context.is_ours() => {
            return Err(Failure::new(
                ExitCode::Other,
                format!("docker has a context `{name}` that dtunnel did not create"),
            )
            .hint(format!("`docker context rm {name}` removes it anyway")));
        }
        Some(_) => {
            if is_current(&name)? {
                docker(&["context", "use", "default"])?;
                ui().note("docker uses its context `default` again");
            }
            docker(&["context", "rm", &name])?;
            ui().note(&format!("removed docker's context `{name}`"));
        }
    }
    Ok(name)
}

/// Whether it is docker's current context. Older CLIs have no `context show`.
fn is_current(name: &str) -> Result<bool, Failure> {
    let list = docker(&["context", "ls", "--format", "{{.Current}} {{.Name}}"])?;
    Ok(list.lines().any(|line| line == format!("true {name}")))
}

/// The tunnel, its local endpoint, and whether it is up.
fn endpoint(global: &Global, target: &str) -> Result<(TunnelName, String, bool), Failure> {
    let config = global.config()?;
    let name = TunnelName::of_target(target, &config)?;
    if let Found::Running(status) = daemon::find(&targets::runtime()?, &name)?
        && let Some(local) = status.local
    {
        return Ok((name, local, status.state.is_usable()));
    }
    if let Some(hint) = nearest_profile(target, &config) {
        return Err(Failure::new(ExitCode::Usage, format!("{name} is neither a profile nor up")).hint(hint));
    }
    match global.resolved(target, &config, &WayArgs::default())?.local {
        LocalEndpoint::Tcp(address) if address.port() == 0 => {
            Err(Failure::new(ExitCode::NotUp, format!("{name} uses any free port, which is known only once it is up"))
                .hint(format!("bring it up with: dtunnel up {target}")))
        }
        local => Ok((name, local.docker_host(), false)),
    }
}

/// A context name for the tunnel: docker allows only some characters.
fn name_of(tunnel: &TunnelName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.+-".contains(c) { c } else { '-' };
    let name: String = tunnel.as_str().chars().map(plain).collect();
    // docker requires two characters and reserves `default`.
    if name.len() < 2 || name == "default" { format!("dtunnel-{name}") } else { name }
}

/// The context of this name, if it exists.
fn existing(name: &str) -> Result<Option<Context>, Failure> {
    Ok(all()?.into_iter().find(|context| context.name == name))
}

/// Every context that docker has.
///
/// # Errors
/// There is no docker CLI, or it failed.
pub(super) fn all() -> Result<Vec<Context>, Failure> {
    let names = docker(&["context", "ls", "--quiet"])?;
    let names: Vec<&str> = names.lines().filter(|name| !name.is_empty() && *name != "default").collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let text = docker(&[&["context", "inspect"], names.as_slice()].concat())?;
    serde_json::from_str(&text)
        .map_err(|e| Failure::new(ExitCode::Other, format!("docker's contexts cannot be read: {e}")))
}

/// Runs the docker CLI and returns its standard output.
fn docker(args: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("docker");
    // A context is stored for all shells, so this shell's variables must not affect it.
    command.args(args).env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").stdin(Stdio::null());
    let output = command.output().map_err(|e| {
        Failure::new(ExitCode::Other, format!("cannot run docker: {e}"))
            .hint("contexts need the docker CLI: install it")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(ExitCode::Other, format!("`docker {}` failed: {said}", args.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_that_docker_takes_them() {
        for (target, name) in
            [("prod-1", "prod-1"), ("p", "dtunnel-p"), ("me@host:2222", "me-host+2222"), ("default", "dtunnel-default")]
        {
            let config = crate::config::ConfigFile::default();
            let tunnel = TunnelName::of_target(target, &config).expect("a target");
            assert_eq!(name_of(&tunnel), name, "{tunnel}");
        }
    }
}
