//! Writes and reads the arguments of `up` and of the daemon that `up` starts.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use super::global::Global;
use crate::config::{self, Overrides};
use crate::daemon;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// The targets to bring up, side by side: profiles, [user@]host[:port], Hosts of ssh_config, or
    /// ssh://[user@]host[:port][/path/to.sock]
    #[arg(value_name = "TARGET", add = super::completions::targets(), conflicts_with = "all")]
    pub(super) targets: Vec<String>,
    /// Bring all profiles up
    #[arg(long)]
    pub(super) all: bool,
    /// Return when docker can be used, which is what `up` does; for those who are used to `docker compose up -d`
    #[arg(short, long, hide = true, conflicts_with = "foreground")]
    detach: bool,
    /// Stay in the foreground until Ctrl-C, for service managers and containers
    #[arg(long)]
    pub(super) foreground: bool,
    /// Print the tunnels' status as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) tunnel: TunnelArgs,
}

/// What a single tunnel is told; the daemon has the same options.
#[derive(Debug, Clone, Args)]
pub(super) struct TunnelArgs {
    /// The local endpoint: unix:PATH or tcp:127.0.0.1:PORT (port 0: any free one)
    #[arg(long, value_name = "ENDPOINT")]
    pub(super) local: Option<String>,
    /// The Engine on the host: auto, a socket's path, tcp:ADDRESS:PORT or command:… [default: the path of an ssh:// TARGET,
    /// else auto]
    #[arg(long, value_name = "ENDPOINT")]
    pub(super) remote: Option<String>,
    /// The SSH that carries the tunnel: dtunnel's own (native), the machine's (openssh), or what is needed [default: auto]
    #[arg(long, value_name = "auto|native|openssh")]
    pub(super) carrier: Option<config::CarrierSetting>,
    /// Connect on first use, and disconnect when idle
    #[arg(long)]
    pub(super) lazy: bool,
    /// Forward the TCP ports that containers publish to this machine's loopback
    #[arg(long)]
    pub(super) ports: bool,
    /// Let containers mount directories of this machine: copies on the host are kept in step
    #[arg(long)]
    pub(super) mounts: bool,
    /// Serve only requests that neither change nor reach into the host
    #[arg(long)]
    pub(super) read_only: bool,
    /// Keep the passphrases and passwords you are asked for in the system keyring
    #[arg(long)]
    pub(super) remember: bool,
    /// How long to wait until docker can be used, not counting your answers to questions
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::global::duration)]
    pub(super) timeout: config::Duration,
}

#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    pub(super) target: String,
    #[arg(long)]
    pub(super) config_named: bool,
    #[command(flatten)]
    pub(super) tunnel: TunnelArgs,
}

impl TunnelArgs {
    /// Default arguments with this time-out, for commands that bring a tunnel up as a side effect.
    pub(super) fn on_the_way(timeout: config::Duration) -> Self {
        Self {
            local: None,
            remote: None,
            carrier: None,
            lazy: false,
            ports: false,
            mounts: false,
            read_only: false,
            remember: false,
            timeout,
        }
    }
}

/// The daemon's command line. It holds no secrets.
pub(super) fn daemon_args(global: &Global, target: &str, args: &TunnelArgs) -> Result<Vec<OsString>, Failure> {
    let (config, named) = global.config_path()?;
    let mut list: Vec<OsString> = vec!["daemon".into(), "--config".into(), config.into()];
    if named {
        list.push("--config-named".into());
    }
    if let Some(file) = global.ssh_config() {
        list.extend(["-F".into(), file.into()]);
    }
    for _ in 0..global.verbose {
        list.push("-v".into());
    }
    if let Some(local) = &args.local {
        list.extend(["--local".into(), local.into()]);
    }
    if let Some(remote) = &args.remote {
        list.extend(["--remote".into(), remote.into()]);
    }
    if let Some(carrier) = args.carrier {
        list.extend(["--carrier".into(), carrier.to_string().into()]);
    }
    let flags = [
        ("--lazy", args.lazy),
        ("--ports", args.ports),
        ("--mounts", args.mounts),
        ("--read-only", args.read_only),
        ("--remember", args.remember),
    ];
    list.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| OsString::from(flag)));
    list.extend(["--timeout".into(), args.timeout.to_string().into(), "--".into(), target.into()]);
    Ok(list)
}

pub(super) fn options(
    global: &Global,
    target: &str,
    args: &TunnelArgs,
    foreground: bool,
) -> Result<daemon::Options, Failure> {
    let (config, config_named) = global.config_path()?;
    Ok(daemon::Options {
        target: target.into(),
        config,
        config_named,
        overrides: overrides(global, args),
        timeout: args.timeout.0,
        verbose: global.verbose,
        foreground,
    })
}

pub(super) fn overrides(global: &Global, args: &TunnelArgs) -> Overrides {
    Overrides {
        ssh_config: global.ssh_config(),
        local: args.local.clone(),
        remote: args.remote.clone(),
        carrier: args.carrier,
        lazy: args.lazy,
        remember: args.remember,
        ports: args.ports,
        mounts: args.mounts,
        access_read_only: args.read_only,
    }
}

/// A command line by which a tunnel was started.
#[derive(Debug, Parser)]
struct Started {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    #[command(alias = "start")]
    Up(UpArgs),
    Daemon(DaemonArgs),
}

impl Started {
    fn read(arguments: &[String]) -> Option<Self> {
        Self::try_parse_from(std::iter::once("dtunnel").chain(arguments.iter().map(String::as_str))).ok()
    }
}

/// The options of the daemon or `up --foreground` with this command line. None for any other command line.
pub(super) fn started_as(arguments: &[String]) -> Option<daemon::Options> {
    let Started { global, what } = Started::read(arguments)?;
    match what {
        What::Daemon(DaemonArgs { target, config_named, tunnel }) => {
            let options = options(&global, &target, &tunnel, false).ok()?;
            Some(daemon::Options { config_named, ..options })
        }
        What::Up(UpArgs { targets, foreground: true, tunnel, .. }) => {
            options(&global, targets.first()?, &tunnel, true).ok()
        }
        What::Up(_) => None,
    }
}

/// Parses a daemon's command line, so that the daemon can be started again. None for a tunnel in the foreground.
pub(super) fn daemon_started_as(arguments: &[String]) -> Option<(Global, DaemonArgs)> {
    let Started { mut global, what } = Started::read(arguments)?;
    let What::Daemon(args) = what else { return None };
    if !args.config_named {
        global.config = None;
    }
    Some((global, args))
}
