//! `dtunnel profile import`: creates profiles from docker contexts, DOCKER_HOST and ssh_config.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use clap::{Args, ValueEnum};

use super::global::Global;
use super::ui::{self, ui};
use super::{context, prompt};
use crate::config::{self, ConfigFile, Destination, NewProfile, Profile, is_profile_name};
use crate::failure::{ExitCode, Failure};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Import these only, by the names that the profiles will have
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Where to look [default: contexts and docker-host; a Host of ssh_config needs no profile]
    #[arg(long, value_name = "SOURCE")]
    from: Vec<Source>,
    /// Write without asking
    #[arg(short, long)]
    yes: bool,
    /// Show only what would be written
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// docker's contexts that lead to ssh:// hosts
    Contexts,
    /// DOCKER_HOST, where it is ssh://…
    DockerHost,
    /// Hosts of ssh_config
    SshConfig,
}

pub(super) fn import(global: &Global, args: &ImportArgs) -> Result<(), Failure> {
    let config = global.config()?;
    let (path, _) = global.config_path()?;
    let mut found = find(global, args, &config)?;
    if let Some(missing) = args.names.iter().find(|name| !found.contains_key(*name)) {
        let failure = Failure::new(ExitCode::Usage, format!("there is nothing named `{missing}` to import"));
        let nearest = config::nearest(missing, found.keys().map(String::as_str));
        let hosts = config::ssh_hosts(global.ssh_config().as_deref(), &config).unwrap_or_default();
        return Err(match nearest {
            _ if hosts.contains(missing) => failure.hint(format!(
                "it is a Host of ssh_config, which needs no profile; `--from ssh-config {missing}` makes one"
            )),
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint("`dtunnel profile import --dry-run` shows what there is"),
        });
    }
    found.retain(|name, _| args.names.is_empty() || args.names.contains(name));
    if found.is_empty() {
        ui().note("everything that could be imported is a profile already");
        return Ok(());
    }
    for (name, profile) in &found {
        ui::print(&(as_toml(name, profile)? + "\n"))?;
    }
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(ExitCode::Usage, "there is no terminal to ask at")
                .hint("`--yes` writes them without asking, `--dry-run` shows them only"));
        }
        if !prompt::confirm(&format!("write {} to {}?", count(found.len()), path.display()))? {
            ui().note("nothing was written");
            return Ok(());
        }
    }
    let written = found.len();
    for (name, profile) in found {
        config::add_profile(&path, &NewProfile { name, profile })?;
    }
    ui().note(&format!("added {} to {}", count(written), path.display()));
    Ok(())
}

fn count(profiles: usize) -> String {
    if profiles == 1 { "1 profile".into() } else { format!("{profiles} profiles") }
}

/// Importable profiles by name, without existing ones. The first source with a name wins.
fn find(global: &Global, args: &ImportArgs, config: &ConfigFile) -> Result<BTreeMap<String, Profile>, Failure> {
    let by_default = |source| args.from.is_empty() && source != Source::SshConfig;
    let wanted = |source| by_default(source) || args.from.contains(&source);
    let mut found = BTreeMap::new();
    let mut add = |name: String, profile: Profile| {
        if is_profile_name(&name) && !config.profiles.contains_key(&name) {
            found.entry(name).or_insert(profile);
        }
    };
    if wanted(Source::Contexts) {
        // A missing docker CLI matters only if `--from contexts` was given.
        let contexts = match context::all() {
            Err(failure) if args.from.contains(&Source::Contexts) => return Err(failure),
            contexts => contexts.unwrap_or_default(),
        };
        for context in contexts.into_iter().filter(|context| !context.is_ours()) {
            if let Some(profile) = of_url(context.host(), &format!("docker's context {}", context.name)) {
                add(context.name, profile);
            }
        }
    }
    if wanted(Source::DockerHost)
        && let Ok(url) = std::env::var("DOCKER_HOST")
        && let Some(profile) = of_url(&url, "DOCKER_HOST")
    {
        add(profile.host.clone().unwrap_or_default(), profile);
    }
    if wanted(Source::SshConfig) {
        for host in config::ssh_hosts(global.ssh_config().as_deref(), config)? {
            let description = Some("Host of ssh_config".into());
            add(host.clone(), Profile { host: Some(host), description, ..Profile::default() });
        }
    }
    Ok(found)
}

/// A profile for an `ssh://` URL, read as the docker CLI does: a path names the socket. None for other URLs.
fn of_url(url: &str, description: &str) -> Option<Profile> {
    let (destination, socket) = url.starts_with("ssh://").then(|| Destination::parse_with_socket(url).ok())??;
    Some(Profile {
        host: Some(destination.host),
        user: destination.user,
        port: destination.port,
        remote: socket,
        description: Some(description.into()),
        ..Profile::default()
    })
}

/// A profile as it is written to the configuration file.
pub(super) fn as_toml(name: &str, profile: &Profile) -> Result<String, Failure> {
    let text = toml_edit::ser::to_string(profile).map_err(|e| Failure::new(ExitCode::Other, e.to_string()))?;
    Ok(format!("[profiles.{}]\n{text}", toml_edit::Key::new(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_profiles() {
        let profile = of_url("ssh://me@host.example:2222/run/user/1/docker.sock", "x").expect("a profile");
        assert_eq!(
            (profile.user.as_deref(), profile.host.as_deref(), profile.port),
            (Some("me"), Some("host.example"), Some(2222))
        );
        assert_eq!(profile.remote.as_deref(), Some("/run/user/1/docker.sock"));
        assert_eq!(of_url("ssh://host/", "x").expect("a profile").remote, None);
        let gateway = of_url("ssh://me%40example.com%3Adb@gate", "x").expect("a profile");
        assert_eq!((gateway.user.as_deref(), gateway.host.as_deref()), (Some("me@example.com:db"), Some("gate")));
        for other in ["unix:///var/run/docker.sock", "tcp://host:2375", "ssh://", "ssh://-oProxyCommand=x"] {
            assert_eq!(of_url(other, "x"), None, "{other}");
        }
    }
}
