//! The command line: one file a command. Only this module prints.
//!
//! Arguments are declared here and in the commands' files; what they mean is the other modules'.

mod audit;
mod completions;
mod context;
mod doctor;
mod down;
mod env;
mod exec;
mod import;
mod logs;
mod output;
mod ports;
mod profile;
mod prompt;
mod secret;
mod service;
mod shell;
mod status;
mod top;
mod up;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, ConfigFile, Overrides, RuntimeFiles, Target, TunnelName, resolve, runtime_dir};
use crate::daemon::Failure;

pub use completions::complete;
pub use output::print_failure;

/// The Docker Engine of a remote host as a private local socket, over SSH.
#[derive(Debug, Parser)]
#[command(
    name = "dtunnel",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "A TARGET is a profile, [user@]host[:port], ssh://[user@]host[:port], or a Host of your ssh_config.\n\n\
                  Exit codes: 0 done, 1 other failure, 2 usage or configuration, 3 the tunnel is not up,\n\
                  4 authentication failed, 5 host key refused, 6 host unreachable, 7 host reached, Engine not."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Global {
    /// Use this configuration file instead of the default one (`dtunnel profile path`)
    #[arg(long, global = true, value_name = "FILE", env = "DTUNNEL_CONFIG", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// Read this ssh_config instead of your own, as ssh's -F; `none` reads none
    #[arg(short = 'F', global = true, value_name = "FILE", help_heading = "Global options")]
    ssh_config: Option<PathBuf>,
    /// Say more; with `up`, log more as well
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
    /// Say nothing but errors and what was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    color: Color,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring tunnels up, in the background, and return when docker can be used
    Up(up::UpArgs),
    /// Take tunnels down; one that is not up is fine
    Down(down::DownArgs),
    /// Show the tunnels that are up, or the named ones
    #[command(visible_alias = "ls")]
    Status(status::StatusArgs),
    /// Follow the tunnels on a full screen
    Top(top::TopArgs),
    /// Show the ports that containers publish, and what of them is on this machine
    Ports(ports::PortsArgs),
    /// Print what to eval so that docker uses a tunnel: eval "$(dtunnel env TARGET)"
    Env(env::EnvArgs),
    /// Run a command with DOCKER_HOST set, bringing the tunnel up if needed
    Exec(exec::ExecArgs),
    /// Try every step from a target to its Engine, and say what is in the way
    Doctor(doctor::DoctorArgs),
    /// Look for what is unsafe about a host's Engine, its door and what runs there
    Audit(audit::AuditArgs),
    /// Show a tunnel's log
    Logs(logs::LogsArgs),
    /// Named hosts in the configuration file
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// docker's contexts for tunnels, which buildx, compose and IDEs read
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Passphrases and passwords in the system keyring
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Tunnels as user services, under systemd or launchd
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Print the script by which a shell completes commands, profiles and hosts
    Completions(completions::CompletionsArgs),
    /// The background process of `up`
    #[command(hide = true)]
    Daemon(up::DaemonArgs),
}

/// Runs what the command line says.
///
/// # Errors
/// What failed, with its exit code; [`print_failure`] shows it.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    output::set_color(global.color);
    // Any of them may come to ask for a passphrase, or find one in the keyring.
    crate::ssh::keep_memory_private();
    match command {
        Command::Up(args) => up::up(&global, &args),
        Command::Down(args) => down::down(&global, &args),
        Command::Status(args) => status::status(&global, &args),
        Command::Top(args) => top::top(&global, &args),
        Command::Ports(args) => ports::ports(&global, &args),
        Command::Env(args) => env::env(&global, &args),
        Command::Exec(args) => exec::exec(&global, &args),
        Command::Doctor(args) => doctor::doctor(&global, &args),
        Command::Audit(args) => audit::audit(&global, &args),
        Command::Logs(args) => logs::logs(&global, &args),
        Command::Profile(command) => profile::profile(&global, command),
        Command::Context(command) => context::context(&global, &command),
        Command::Secret(command) => secret::secret(&global, &command),
        Command::Service(command) => service::service(&global, &command),
        Command::Completions(args) => completions::completions(&args),
        Command::Daemon(args) => up::daemon(&global, &args),
    }
}

impl Global {
    /// The configuration file, and whether the user named it.
    fn config_path(&self) -> Result<(PathBuf, bool), Failure> {
        match &self.config {
            Some(path) => Ok((absolute(path), true)),
            None => Ok((config::config_path()?, false)),
        }
    }

    fn config(&self) -> Result<ConfigFile, Failure> {
        let (path, named) = self.config_path()?;
        Ok(ConfigFile::load(&path, named)?)
    }

    /// What a TARGET stands for, as `up` would take it with this `--remote`.
    fn resolved(&self, target: &str, config: &ConfigFile, remote: Option<String>) -> Result<Target, Failure> {
        let files = RuntimeFiles::new(&runtime_dir()?, &TunnelName::of_target(target, config)?)?;
        let overrides = Overrides { ssh_config: self.ssh_config(), remote, ..Overrides::default() };
        Ok(resolve(target, config, &overrides, &files.socket)?)
    }

    /// `-F`, fit for a process with another working directory.
    fn ssh_config(&self) -> Option<PathBuf> {
        self.ssh_config.as_ref().map(|path| if path.as_os_str() == "none" { path.clone() } else { absolute(path) })
    }
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The named targets, or all profiles.
fn targets_or_all(given: &[String], all: bool, config: &ConfigFile) -> Vec<String> {
    if all { config.profiles.keys().cloned().collect() } else { given.to_vec() }
}

/// "did you mean …?" for a target that is no profile but is written much like one.
fn nearest_profile(target: &str, config: &ConfigFile) -> Option<String> {
    if config.profiles.contains_key(target) {
        return None;
    }
    config.nearest_profile(target).map(|name| format!("no profile is named `{target}`; did you mean `{name}`?"))
}

/// The failure of a command that needs a tunnel which is not up.
fn not_up(target: &str, name: &TunnelName, config: &ConfigFile) -> Failure {
    let hint = nearest_profile(target, config).unwrap_or_else(|| format!("bring it up with: dtunnel up {target}"));
    Failure::new(crate::daemon::ExitCode::NotUp, format!("{name} is not up")).hint(hint)
}
