//! `dtunnel completions`, and the answers to the shells' completion requests.

use std::ffi::OsStr;

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use super::ui;
use crate::config::{self, ConfigFile, Profile};
use crate::failure::{ExitCode, Failure};

/// The environment variable with which a shell's script requests completions.
const VARIABLE: &str = "COMPLETE";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
}

/// Answers a shell's completion request and exits, if there is one.
pub(super) fn complete(commands: fn() -> clap::Command) {
    CompleteEnv::with_factory(commands).var(VARIABLE).complete();
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let other = |e: String| Failure::new(ExitCode::Other, e);
    let name = args.shell.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let shells = Shells::builtins();
    let shell = shells.completer(&name).ok_or_else(|| other(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    let written = shell.write_registration(VARIABLE, "dtunnel", "dtunnel", "dtunnel", &mut script);
    written.map_err(|e| other(e.to_string()))?;
    let script = String::from_utf8_lossy(&script);
    ui::print(&if let Shell::Zsh = args.shell { fit_for_fpath(&script) } else { script.into_owned() })
}

/// zsh loads a file from $fpath at the first Tab and runs it for that Tab: then the script must complete at once. When
/// sourced, as by `source <(dtunnel completions zsh)`, it must only register the function.
fn fit_for_fpath(script: &str) -> String {
    let Some((functions, registration)) = script.trim_end().rsplit_once('\n') else { return script.into() };
    let function = registration.split_ascii_whitespace().nth(1).unwrap_or_default();
    format!(
        "{functions}\nif [[ $funcstack[1] == _dtunnel ]]; then\n    {function} \"$@\"\nelse\n    {registration}\nfi\n"
    )
}

/// Completes a TARGET: profiles, tunnels that are up, and hosts of ssh_config.
pub(super) fn targets() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let config = configuration();
        let mut candidates = of_profiles(&config);
        let up = super::targets::running().into_iter().map(|name| (name.to_string(), "a tunnel".to_owned()));
        // Completion does not report errors in ssh_config.
        let hosts = config::ssh_hosts(None, &config).unwrap_or_default();
        let hosts = hosts.into_iter().map(|host| (host, "Host of ssh_config".to_owned()));
        for (name, help) in up.chain(hosts) {
            if !candidates.iter().any(|(known, _)| *known == name) {
                candidates.push((name, help));
            }
        }
        fitting(candidates, begun)
    })
}

/// Completes a TARGET for a command about running tunnels, which come first.
pub(super) fn running() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let mut candidates: Vec<_> =
            super::targets::running().iter().map(|name| (name.to_string(), "a tunnel that is up".to_owned())).collect();
        for profile in of_profiles(&configuration()) {
            if !candidates.iter().any(|(known, _)| *known == profile.0) {
                candidates.push(profile);
            }
        }
        fitting(candidates, begun)
    })
}

/// Completes the name of a profile.
pub(super) fn profiles() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| fitting(of_profiles(&configuration()), begun))
}

/// The configuration; the default one if the file cannot be read.
fn configuration() -> ConfigFile {
    let named = std::env::var_os("DTUNNEL_CONFIG").filter(|path| !path.is_empty()).map(Into::into);
    let path = named.or_else(|| config::config_path().ok());
    path.and_then(|path| ConfigFile::load(&path, false).ok()).unwrap_or_default()
}

fn of_profiles(config: &ConfigFile) -> Vec<(String, String)> {
    let help = |name: &str, profile: &Profile| match (&profile.description, &profile.host) {
        (Some(description), _) => description.clone(),
        (None, Some(host)) => format!("a profile, {host}"),
        (None, None) => format!("a profile, {name}"),
    };
    config.profiles.iter().map(|(name, profile)| (name.clone(), help(name, profile))).collect()
}

fn fitting(candidates: Vec<(String, String)>, begun: &OsStr) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    let fitting = candidates.into_iter().filter(|(name, _)| name.starts_with(&*begun));
    fitting.map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into()))).collect()
}
