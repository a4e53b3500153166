//! `dtunnel completions`, and the answers to the shells' completion requests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;

use super::shell;
use super::ui::{self, ui};
use crate::config::{self, ConfigFile, Paths, Profile};
use crate::failure::{ExitCode, Failure};

/// The environment variable with which a shell's script requests completions.
const VARIABLE: &str = "COMPLETE";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell [default with --install: yours]
    #[arg(required_unless_present = "install")]
    shell: Option<Shell>,
    /// Write the script where the shell looks for it, and say what is left to do
    #[arg(long)]
    install: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
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
    if args.install {
        return install(args.shell);
    }
    // clap requires the shell without --install.
    args.shell.map_or(Ok(()), |shell| ui::print(&script(shell)?))
}

/// The script that requests completions from this program.
fn script(shell: Shell) -> Result<String, Failure> {
    let other = |e: String| Failure::new(ExitCode::Other, e);
    let name = shell.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let shells = Shells::builtins();
    let completer = shells.completer(&name).ok_or_else(|| other(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, "dtunnel", "dtunnel", "dtunnel", &mut script);
    written.map_err(|e| other(e.to_string()))?;
    let script = String::from_utf8_lossy(&script);
    Ok(if let Shell::Zsh = shell { fit_for_fpath(&script) } else { script.into_owned() })
}

/// Where a user's script for a shell is, and what the user has to do besides.
#[derive(Debug, PartialEq)]
struct Place {
    path: PathBuf,
    /// Empty where the shell finds the file by itself.
    to_do: &'static str,
}

fn install(shell: Option<Shell>) -> Result<(), Failure> {
    let unknown = || {
        Failure::new(ExitCode::Usage, "there are no completions for your shell")
            .hint("name another: dtunnel completions --install bash")
    };
    let shell = shell.or_else(|| Shell::of(shell::Shell::guess())).ok_or_else(unknown)?;
    let script = script(shell)?;
    let home = home()?;
    let place = place(shell, &home, |name| std::env::var_os(name).map(PathBuf::from)).ok_or_else(|| {
        Failure::new(ExitCode::Usage, "PowerShell reads no directory of completions")
            .hint("add this line to $PROFILE: dtunnel completions powershell | Out-String | Invoke-Expression")
    })?;
    write(&place.path, &script)?;
    ui().note(&format!("wrote {}", place.path.display()));
    if !place.to_do.is_empty() {
        ui().note(place.to_do);
    }
    Ok(())
}

/// The user's place for the script of a shell; none for PowerShell, which has no directory for them.
fn place(shell: Shell, home: &Path, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Place> {
    // The XDG base directory specification: a relative path is to be ignored.
    let dir = |name, default: &str| variable(name).filter(|path| path.is_absolute()).unwrap_or(home.join(default));
    let config = dir("XDG_CONFIG_HOME", ".config");
    let (path, to_do) = match shell {
        // bash-completion(7): loaded at the first Tab after the command's name.
        Shell::Bash => {
            let data = dir("XDG_DATA_HOME", ".local/share").join("bash-completion");
            let user = variable("BASH_COMPLETION_USER_DIR").filter(|path| path.is_absolute()).unwrap_or(data);
            (user.join("completions/dtunnel"), "new shells have it, where the package bash-completion is installed")
        }
        // zsh reads no directory of a user's own until its $fpath names it.
        Shell::Zsh => (
            variable("ZDOTDIR").filter(|path| path.is_absolute()).unwrap_or(home.into()).join(".zfunc/_dtunnel"),
            "to ~/.zshrc, if it is not there: fpath=(${ZDOTDIR:-$HOME}/.zfunc $fpath); autoload -Uz compinit; compinit",
        ),
        Shell::Fish => (config.join("fish/completions/dtunnel.fish"), ""),
        Shell::Elvish => (
            config.join("elvish/lib/dtunnel-completions.elv"),
            "to rc.elv, if it is not there: use dtunnel-completions",
        ),
        Shell::Powershell => return None,
    };
    Some(Place { path, to_do })
}

fn home() -> Result<PathBuf, Failure> {
    Paths::new().map(|paths| paths.home).map_err(|e| Failure::new(ExitCode::Other, e.to_string()))
}

/// The directory of the user's data files: $XDG_DATA_HOME, or ~/.local/share on every system, as `man` has it.
pub(super) fn data_home() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.map_or_else(|| Ok(home()?.join(".local/share")), Ok)
}

/// Writes a file for the user's programs; its directory is made if it is missing.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = made.and_then(|()| std::fs::write(path, text));
    written.map_err(|e| Failure::new(ExitCode::Other, format!("cannot write {}: {e}", path.display())))
}

impl Shell {
    /// None for a shell without completions, and for what is no shell.
    fn of(shell: shell::Shell) -> Option<Self> {
        Some(match shell {
            shell::Shell::Bash => Self::Bash,
            shell::Shell::Zsh => Self::Zsh,
            shell::Shell::Fish => Self::Fish,
            shell::Shell::Elvish => Self::Elvish,
            shell::Shell::Powershell => Self::Powershell,
            _ => return None,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(shell: Shell, set: &[(&str, &str)]) -> String {
        let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| PathBuf::from(value));
        place(shell, Path::new("/home/ann"), variable).expect("a place").path.display().to_string()
    }

    #[test]
    fn scripts_go_where_each_shell_looks_for_the_users_own() {
        assert_eq!(path(Shell::Bash, &[]), "/home/ann/.local/share/bash-completion/completions/dtunnel");
        assert_eq!(path(Shell::Zsh, &[]), "/home/ann/.zfunc/_dtunnel");
        assert_eq!(path(Shell::Fish, &[]), "/home/ann/.config/fish/completions/dtunnel.fish");
        assert_eq!(path(Shell::Elvish, &[]), "/home/ann/.config/elvish/lib/dtunnel-completions.elv");
        assert_eq!(place(Shell::Powershell, Path::new("/home/ann"), |_| None), None);
    }

    #[test]
    fn variables_move_them_and_relative_paths_are_ignored() {
        let bash = "BASH_COMPLETION_USER_DIR";
        assert_eq!(path(Shell::Bash, &[("XDG_DATA_HOME", "/d")]), "/d/bash-completion/completions/dtunnel");
        assert_eq!(path(Shell::Bash, &[("XDG_DATA_HOME", "/d"), (bash, "/b")]), "/b/completions/dtunnel");
        assert_eq!(path(Shell::Zsh, &[("ZDOTDIR", "/z")]), "/z/.zfunc/_dtunnel");
        assert_eq!(path(Shell::Fish, &[("XDG_CONFIG_HOME", "c")]), "/home/ann/.config/fish/completions/dtunnel.fish");
    }

    #[test]
    fn a_written_script_replaces_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b/_dtunnel");
        for text in ["old and longer", "new"] {
            write(&path, text).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "new");
        let failure = write(&path.join("c"), "").expect_err("it is below a file");
        assert!(failure.message.starts_with("cannot write "), "{}", failure.message);
    }
}
