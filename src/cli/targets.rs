//! Finds the tunnel that a command means: the TARGET or the default one, with suggestions for unknown names.

use std::path::PathBuf;

use super::global::Global;
use super::ui::ui;
use crate::config::{self, ConfigFile, RuntimeFiles, TunnelName, runtime_dir};
use crate::daemon::{self, ControlClient};
use crate::failure::{ExitCode, Failure};
use crate::shell_word::shell_word;

/// The environment variable that names the default target of a shell or a directory.
pub(super) const VARIABLE: &str = "DTUNNEL_TARGET";

/// A tunnel that a command is about.
#[derive(Debug)]
pub(super) struct Chosen {
    /// As typed on the command line.
    pub(super) target: String,
    pub(super) name: TunnelName,
    pub(super) config: ConfigFile,
}

impl Global {
    /// The tunnel of `given`, or of the default target.
    ///
    /// # Errors
    /// There is no target and no default, or the configuration is broken. A broken one is only
    /// a warning if the tunnel runs.
    pub(super) fn choose(&self, given: Option<&str>) -> Result<Chosen, Failure> {
        let read = self.config();
        let target = match (given.map(str::to_owned).or_else(of_environment), &read) {
            (Some(target), _) => target,
            (None, Ok(config)) => of_configuration(config)?,
            (None, Err(failure)) => return Err(failure.clone()),
        };
        let config = in_spite_of_faults(read, std::slice::from_ref(&target))?;
        let name = named(&target, &config)?;
        Ok(Chosen { target, name, config })
    }

    /// The daemon of the target that is given.
    ///
    /// # Errors
    /// As [`Global::choose`]; it is not up.
    pub(super) fn connect(&self, given: &str) -> Result<ControlClient, Failure> {
        let Chosen { target, name, config } = self.choose(Some(given))?;
        let files = RuntimeFiles::new(&runtime()?, &name)?;
        let not_up = || self.unknown(&target, &name, &config).unwrap_or_else(|| not_up(&target, &name, &config));
        ControlClient::connect(&files.control)?.ok_or_else(not_up)
    }

    /// The tunnels of `targets`, each once, with its target as typed.
    ///
    /// # Errors
    /// As [`Global::choose`].
    pub(super) fn choose_all(&self, targets: &[String]) -> Result<(ConfigFile, Vec<(String, TunnelName)>), Failure> {
        let config = in_spite_of_faults(self.config(), targets)?;
        let chosen: Result<Vec<_>, Failure> =
            targets.iter().map(|target| Ok((target.clone(), named(target, &config)?))).collect();
        Ok((config, each_once(chosen?)))
    }

    /// The failure for an unknown `target`: no profile, no tunnel that runs or ran, no Host of ssh_config.
    pub(super) fn unknown(&self, target: &str, name: &TunnelName, config: &ConfigFile) -> Option<Failure> {
        if config.profiles.contains_key(target) || running().contains(name) {
            return None;
        }
        if config::log_path(name).is_ok_and(|log| log.exists()) {
            return None;
        }
        // Errors in ssh_config are reported when connecting.
        let hosts = config::ssh_hosts(self.ssh_config().as_deref(), config).unwrap_or_default();
        if hosts.iter().any(|host| host == target) {
            return None;
        }
        let known: Vec<String> =
            config.profiles.keys().cloned().chain(running().iter().map(ToString::to_string)).chain(hosts).collect();
        let failure = Failure::new(ExitCode::NotUp, format!("`{target}` is neither a profile nor a tunnel"));
        Some(match config::nearest(target, known.iter().map(String::as_str)) {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint("`dtunnel status` shows the tunnels, `dtunnel profile list` the profiles"),
        })
    }
}

/// Removes duplicate tunnels; the first target of each is kept.
pub(super) fn each_once<Name: PartialEq>(named: Vec<(String, Name)>) -> Vec<(String, Name)> {
    let mut once: Vec<(String, Name)> = Vec::new();
    for (target, name) in named {
        if once.iter().all(|(_, other)| *other != name) {
            once.push((target, name));
        }
    }
    once
}

/// The tunnel of a target. A running tunnel's own name, as shown by `status`, is accepted as well.
fn named(target: &str, config: &ConfigFile) -> Result<TunnelName, Failure> {
    match running().into_iter().find(|name| name.as_str() == target) {
        Some(name) => Ok(name),
        None => Ok(TunnelName::of_target(target, config)?),
    }
}

/// The configuration. A broken one is replaced by the default one if every target runs, so that running tunnels stay
/// reachable: a profile's tunnel has the profile's name, which suffices to find it.
fn in_spite_of_faults(read: Result<ConfigFile, Failure>, targets: &[String]) -> Result<ConfigFile, Failure> {
    let failure = match read {
        Ok(config) => return Ok(config),
        Err(failure) => failure,
    };
    let none = ConfigFile::default();
    let up = running();
    let runs = |target: &String| named(target, &none).is_ok_and(|name| up.contains(&name));
    if targets.is_empty() || !targets.iter().all(runs) {
        return Err(failure);
    }
    let causes: String = failure.causes.iter().map(|cause| format!(": {cause}")).collect();
    ui().warning(&format!("continuing without the configuration: {}{causes}", failure.message));
    Ok(none)
}

/// The runtime directory, which holds the tunnels' sockets.
pub(super) fn runtime() -> Result<PathBuf, Failure> {
    Ok(runtime_dir()?)
}

/// The tunnels that run, and those whose daemon was killed.
pub(super) fn running() -> Vec<TunnelName> {
    runtime().map(|dir| daemon::list(&dir)).unwrap_or_default()
}

/// The default target of the environment.
pub(super) fn of_environment() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|target| !target.is_empty())
}

/// The default target of the configuration, or its only profile.
fn of_configuration(config: &ConfigFile) -> Result<String, Failure> {
    let mut profiles = config.profiles.keys();
    match (&config.default, profiles.next(), profiles.next()) {
        (Some(default), ..) => Ok(default.clone()),
        (None, Some(only), None) => Ok(only.clone()),
        _ => Err(Failure::new(ExitCode::Usage, "no target was given, and there is no default one")
            .hint(format!("name one, set {VARIABLE}, or `default = \"NAME\"` in {}", config.path.display()))),
    }
}

/// The default target, if there is one.
pub(super) fn default_target(global: &Global) -> Option<String> {
    of_environment().or_else(|| of_configuration(&global.config().ok()?).ok())
}

/// The default target, if set explicitly. The only profile does not count.
pub(super) fn set_default(config: &ConfigFile) -> Option<String> {
    of_environment().or_else(|| config.default.clone())
}

/// The failure of a command without TARGET that needs `--all` to mean all tunnels.
pub(super) fn none_given(command: &str, all: &str, some: &[String]) -> Failure {
    let list = match some {
        [] => String::new(),
        some => format!(": {}", some.join(", ")),
    };
    Failure::new(ExitCode::Usage, format!("no target was given; `dtunnel {command} --all` takes {all}{list}"))
        .hint(format!("dtunnel {command} TARGET…"))
}

/// "did you mean …?" for a target that is no profile but resembles one.
pub(super) fn nearest_profile(target: &str, config: &ConfigFile) -> Option<String> {
    if config.profiles.contains_key(target) {
        return None;
    }
    config.nearest_profile(target).map(|name| format!("no profile is named `{target}`; did you mean `{name}`?"))
}

/// The failure of a command that needs a tunnel which is not up.
pub(super) fn not_up(target: &str, name: &TunnelName, config: &ConfigFile) -> Failure {
    let bring_up = || format!("bring it up with: dtunnel up {}", shell_word(target));
    let hint = nearest_profile(target, config).unwrap_or_else(bring_up);
    Failure::new(ExitCode::NotUp, format!("{name} is not up")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::each_once;

    #[test]
    fn a_tunnel_that_is_named_twice_is_one_by_its_first_name() {
        let named = [("prod-1", 1), ("root@prod-1", 2), ("p", 1), ("prod-1", 1)];
        let once = each_once(named.map(|(target, name)| (target.to_owned(), name)).to_vec());
        assert_eq!(once, [("prod-1".to_owned(), 1), ("root@prod-1".to_owned(), 2)]);
    }
}
