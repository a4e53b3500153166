//! The command line: one file per command. Only this module prints.
//!
//! Arguments are declared here and in the commands' files; other modules implement their effects.

mod arguments;
mod asked;
mod audit;
mod bring_up;
mod completions;
mod configuration;
mod context;
mod doctor;
mod down;
mod env;
mod examples;
mod exec;
mod global;
mod import;
mod logs;
mod man;
mod mounts;
mod output;
mod plugin;
mod ports;
mod profile;
mod progress;
mod prompt;
mod restart;
mod secret;
mod service;
mod shell;
mod status;
mod targets;
mod top;
mod ui;
mod up;
mod version;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::failure::Failure;

pub use examples::examples;
use global::Global;

/// The Docker Engine of a remote host as a private local socket, over SSH.
#[derive(Debug, Parser)]
#[command(
    name = "dtunnel",
    version = version::LINE,
    max_term_width = 100,
    after_help = "A TARGET is a profile, [user@]host[:port], a Host of your ssh_config, or\n\
                  ssh://[user@]host[:port][/path/to.sock], where a path names the Engine's socket on the host.\n\n\
                  Exit codes: 0 done, 1 other failure, 2 usage or configuration, 3 the tunnel is not up,\n\
                  4 authentication failed, 5 host key refused, 6 host unreachable, 7 host reached, Engine not."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring tunnels up, in the background, and return when docker can be used
    #[command(visible_alias = "start")]
    Up(arguments::UpArgs),
    /// Take tunnels down; one that is not up is fine
    #[command(visible_alias = "stop")]
    Down(down::DownArgs),
    /// Take tunnels down and bring them up again, with the same options
    Restart(restart::RestartArgs),
    /// Have running tunnels read the configuration again, without interrupting open flows
    Reload(restart::ReloadArgs),
    /// Show the tunnels that are up, or the named ones
    #[command(visible_aliases = ["ls", "ps", "list"])]
    Status(status::StatusArgs),
    /// Follow the tunnels on a full screen
    Top(top::TopArgs),
    /// Show the ports that containers publish, and where they are on this machine
    Ports(ports::PortsArgs),
    /// Show the directories of this machine that containers mount, and how far they are in step
    Mounts(mounts::MountsArgs),
    /// Print what to eval so that docker uses a tunnel: eval "$(dtunnel env TARGET)"
    Env(env::EnvArgs),
    /// Run a command with DOCKER_HOST set; brings the tunnel up if needed
    Exec(exec::ExecArgs),
    /// Start your shell with DOCKER_HOST set; brings the tunnel up if needed
    Shell(exec::ShellArgs),
    /// Try every step from a target to its Engine, and say which one fails
    Doctor(doctor::DoctorArgs),
    /// Find what is unsafe about a host's Engine, the access to it and its containers
    Audit(audit::AuditArgs),
    /// Show a tunnel's log
    Logs(logs::LogsArgs),
    /// Named hosts in the configuration file
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// The configuration file itself
    #[command(subcommand)]
    Config(configuration::ConfigCommand),
    /// docker's contexts for tunnels, which buildx, compose and IDEs read
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Passphrases and passwords in the system keyring
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Tunnels as user services, under systemd or launchd
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Print the shell script that completes commands, profiles and hosts, or install it
    Completions(completions::CompletionsArgs),
    /// Print the manual page of a command, or write them all
    Man(man::ManArgs),
    /// Print the version, with the commit, its date and the platform
    Version(version::VersionArgs),
    /// The background process of `up`
    #[command(hide = true)]
    Daemon(arguments::DaemonArgs),
}

/// The commands that shells and prompts run all the time. Their arguments are built without those of all others, which
/// would take longer than the rest of what they do.
#[derive(Debug, Parser)]
struct Quick {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: QuickCommand,
}

#[derive(Debug, Subcommand)]
enum QuickCommand {
    Env(env::EnvArgs),
    #[command(aliases = ["ls", "ps", "list"])]
    Status(status::StatusArgs),
}

impl From<Quick> for Cli {
    fn from(Quick { global, command }: Quick) -> Self {
        let command = match command {
            QuickCommand::Env(args) => Command::Env(args),
            QuickCommand::Status(args) => Command::Status(args),
        };
        Self { global, command }
    }
}

impl Command {
    /// Whether its output is JSON, errors and warnings included.
    fn json(&self) -> bool {
        match self {
            Self::Up(args) => args.json,
            Self::Down(args) => args.json,
            Self::Restart(args) => args.json,
            Self::Reload(args) => args.json,
            Self::Status(args) => args.json,
            Self::Ports(args) => args.json,
            Self::Mounts(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Audit(args) => args.json || args.sarif,
            Self::Profile(command) => command.json(),
            Self::Config(command) => command.json(),
            Self::Context(command) => command.json(),
            Self::Secret(command) => command.json(),
            Self::Version(args) => args.json,
            Self::Env(_) | Self::Exec(_) | Self::Shell(_) | Self::Logs(_) | Self::Top(_) | Self::Service(_) => false,
            Self::Completions(_) | Self::Man(_) | Self::Daemon(_) => false,
        }
    }
}

/// The command line's definition, with the examples of each command's `--help`.
pub fn command() -> clap::Command {
    examples::attach(Cli::command(), "")
}

/// Answers a shell's completion request and exits, if there is one.
pub fn complete() {
    completions::complete(command);
}

/// Answers docker if it started this program as its plugin `docker-dtunnel`. None for any other start.
pub fn answer_as_plugin() -> Option<ExitCode> {
    plugin::answer()
}

/// Parses the command line.
///
/// # Errors
/// The exit code, after the usage error, the help or the version was printed.
pub fn parse() -> Result<Cli, ExitCode> {
    let words = exec::keep_first_marker(std::env::args_os().collect());
    // Whatever else is there, an error and a question for help too, is for the complete command line.
    if let Ok(quick) = Quick::try_parse_from(&words) {
        return Ok(quick.into());
    }
    let read = command().try_get_matches_from(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    read.map_err(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        ui::Ui::of_words(&words).usage_error(&error);
        env::refuse_to_be_evaluated(&words, &command());
        ExitCode::from(crate::failure::ExitCode::Usage as u8)
    })
}

/// Runs the parsed command; prints its failure.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { global, command } = cli;
    ui::Ui::decide(&global, command.json());
    // Any command may ask for a passphrase, or read one from the keyring.
    crate::os::process::keep_memory_private();
    match dispatch(&global, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui::ui().failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn dispatch(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::up(global, &args),
        Command::Down(args) => down::down(global, &args),
        Command::Restart(args) => restart::restart(global, &args),
        Command::Reload(args) => restart::reload(global, &args),
        Command::Status(args) => status::status(global, &args),
        Command::Top(args) => top::top(global, &args),
        Command::Ports(args) => ports::ports(global, &args),
        Command::Mounts(args) => mounts::mounts(global, &args),
        Command::Env(args) => env::env(global, &args),
        Command::Exec(args) => exec::exec(global, &args),
        Command::Shell(args) => exec::shell(global, &args),
        Command::Doctor(args) => doctor::doctor(global, &args),
        Command::Audit(args) => audit::audit(global, &args),
        Command::Logs(args) => logs::logs(global, &args),
        Command::Profile(command) => profile::profile(global, command),
        Command::Config(command) => configuration::config(global, &command),
        Command::Context(command) => context::context(global, &command),
        Command::Secret(command) => secret::secret(global, &command),
        Command::Service(command) => service::service(global, &command),
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args),
        Command::Version(_) => version::version(),
        Command::Daemon(args) => up::daemon(global, &args),
    }
}

#[cfg(test)]
mod tests;
