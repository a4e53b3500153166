//! `dtunnel profile`.

use std::collections::BTreeMap;
use std::process::Command;

use clap::{Args, Subcommand};

use super::global::Global;
use super::import::{self, ImportArgs, as_toml};
use super::output;
use super::ui::{self, ui};
use crate::config::{
    self, AccessSetting, ConfigFile, Destination, Jump, LocalEndpoint, MountsSetting, NewProfile, Policy, PortsSetting,
    Profile, Remote,
};
use crate::failure::{ExitCode, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// List the profiles
    #[command(visible_alias = "ls")]
    List {
        /// Print a JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what the file says of a profile
    Show {
        /// Its name
        #[arg(add = super::completions::profiles())]
        name: String,
        /// Print a JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Add a profile
    Add(Box<AddArgs>),
    /// Make profiles from docker's ssh:// contexts and DOCKER_HOST, or from Hosts of ssh_config
    Import(ImportArgs),
    /// Remove a profile; a tunnel that is up stays up
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        #[arg(add = super::completions::profiles())]
        name: String,
    },
    /// Open the file in $VISUAL or $EDITOR, and check it afterwards
    Edit,
    /// Print where the file is
    Path,
}

impl ProfileCommand {
    pub(super) fn json(&self) -> bool {
        matches!(self, Self::List { json: true } | Self::Show { json: true, .. })
    }
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Its name: letters, digits, `.`, `_` and `-`
    name: String,
    /// Where it goes: [user@]host[:port], a Host of your ssh_config, or ssh://[user@]host[:port][/path/to.sock], whose
    /// path names the Engine's socket on the host
    destination: String,
    /// A private key to log in with; may be given several times
    #[arg(short, long = "identity-file", value_name = "FILE")]
    identity_files: Vec<String>,
    /// A host to go through, [user@]host[:port]; several times for a chain, nearest first
    #[arg(short = 'J', long, value_name = "HOST")]
    jump: Vec<String>,
    /// The local endpoint: unix:PATH or tcp:127.0.0.1:PORT
    #[arg(long, value_name = "ENDPOINT")]
    local: Option<String>,
    /// The Engine on the host: auto, a socket's path, tcp:ADDRESS:PORT or command:…
    #[arg(long, value_name = "ENDPOINT")]
    remote: Option<String>,
    /// Send a keepalive after this long without data from the server
    #[arg(long, value_name = "DURATION", value_parser = super::global::duration)]
    keepalive: Option<config::Duration>,
    /// Longest time for TCP and for the SSH key exchange, each
    #[arg(long, value_name = "DURATION", value_parser = super::global::duration)]
    connect_timeout: Option<config::Duration>,
    /// Serve only requests that neither change nor reach into the host: `access = "read-only"`
    #[arg(long)]
    read_only: bool,
    /// Forward the TCP ports that containers publish to this machine's loopback: `ports = true`
    #[arg(long)]
    ports: bool,
    /// Let containers mount directories below the home directory: `mounts = true`
    #[arg(long)]
    mounts: bool,
    /// Connect on first use, and disconnect when idle: `lazy = true`
    #[arg(long, conflicts_with = "ports")]
    lazy: bool,
    /// A description for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

pub(super) fn profile(global: &Global, command: ProfileCommand) -> Result<(), Failure> {
    let (path, _) = global.config_path()?;
    match command {
        ProfileCommand::List { .. } => list(&global.config()?),
        ProfileCommand::Show { name, .. } => {
            let config = global.config()?;
            let profile = config.profile(&name)?;
            let toml = as_toml(&name, profile)?;
            ui().result(profile, || toml)
        }
        ProfileCommand::Add(args) => {
            let name = args.name.clone();
            let profile = new_profile(*args)?;
            config::add_profile(&path, &NewProfile { name: name.clone(), profile })?;
            ui().note(&format!("added `{name}` to {}; bring it up with: dtunnel up {name}", path.display()));
            Ok(())
        }
        ProfileCommand::Import(args) => import::import(global, &args),
        ProfileCommand::Remove { name } => {
            config::remove_profile(&path, &name)?;
            ui().note(&format!("removed `{name}` from {}", path.display()));
            Ok(())
        }
        ProfileCommand::Edit => edit(&path),
        ProfileCommand::Path => ui::print(&format!("{}\n", path.display())),
    }
}

fn list(config: &ConfigFile) -> Result<(), Failure> {
    ui().result(&config.profiles, || match config.profiles.is_empty() {
        true => {
            ui().note(&format!("there are no profiles in {}", config.path.display()));
            String::new()
        }
        false => table(&config.profiles),
    })
}

fn table(profiles: &BTreeMap<String, Profile>) -> String {
    let row = |(name, profile): (&String, &Profile)| {
        let destination = Destination {
            user: profile.user.clone(),
            host: profile.host.clone().unwrap_or_else(|| name.clone()),
            port: profile.port,
        };
        vec![name.clone(), destination.to_string(), profile.description.clone().unwrap_or_default()]
    };
    let rows: Vec<_> = profiles.iter().map(row).collect();
    output::table(&["NAME", "HOST", "DESCRIPTION"], &rows, output::width())
}

fn new_profile(args: AddArgs) -> Result<Profile, Failure> {
    let (destination, socket) = Destination::parse_with_socket(&args.destination)?;
    let remote = args.remote.or(socket);
    for hop in args.jump.iter().filter(|hop| *hop != "none") {
        Destination::parse(hop)?;
    }
    if let Some(local) = &args.local {
        LocalEndpoint::parse(local)?;
    }
    if let Some(remote) = &remote {
        Remote::parse(remote)?;
    }
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Ok(Profile {
        host: Some(destination.host),
        user: destination.user,
        port: destination.port,
        identity_files: some(args.identity_files),
        jump: match args.jump.as_slice() {
            [] => None,
            [hop] => Some(Jump::One(hop.clone())),
            _ => Some(Jump::Chain(args.jump)),
        },
        local: args.local,
        remote,
        keepalive: args.keepalive,
        connect_timeout: args.connect_timeout,
        access: args.read_only.then_some(AccessSetting::One(Policy::ReadOnly)),
        ports: args.ports.then_some(PortsSetting::All(true)),
        mounts: args.mounts.then_some(MountsSetting::Home(true)),
        lazy: args.lazy.then_some(true),
        description: args.description,
        ..Profile::default()
    })
}

fn edit(path: &std::path::Path) -> Result<(), Failure> {
    let other = |message: String| Failure::new(ExitCode::Other, message);
    let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| other(format!("cannot create {}: {e}", dir.display())))?;
    }
    // The editor's setting may hold options, so a shell splits it, as for git.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path).status();
    let status = status.map_err(|e| other(format!("cannot run {editor}: {e}")))?;
    if !status.success() {
        return Err(other(format!("{editor} ended with {status}")));
    }
    ConfigFile::load(path, false)?;
    Ok(())
}
