//! The options common to all commands, and their value formats.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::config::{
    self, CarrierSetting, ConfigFile, Overrides, RuntimeFiles, Target, TunnelName, resolve, runtime_dir,
};
use crate::failure::Failure;

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Use this configuration file instead of the default one (`dtunnel profile path`) or that of DTUNNEL_CONFIG
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(super) config: Option<PathBuf>,
    /// Read this ssh_config instead of your own, as ssh's -F; `none` reads none
    #[arg(short = 'F', global = true, value_name = "FILE", help_heading = "Global options")]
    pub(super) ssh_config: Option<PathBuf>,
    /// Print more; with `up`, log more as well
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub(super) verbose: u8,
    /// Print only errors and the result
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub(super) quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub(super) color: Color,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Global {
    /// The configuration file, and whether the user named it.
    pub(super) fn config_path(&self) -> Result<(PathBuf, bool), Failure> {
        // An empty variable counts as unset, as for ssh and docker.
        let of_environment = || std::env::var_os("DTUNNEL_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        match self.config.clone().or_else(of_environment) {
            Some(path) => Ok((absolute(&path), true)),
            None => Ok((config::config_path()?, false)),
        }
    }

    pub(super) fn config(&self) -> Result<ConfigFile, Failure> {
        let (path, named) = self.config_path()?;
        Ok(ConfigFile::load(&path, named)?)
    }

    /// Resolves a TARGET with these options, as `up` would.
    pub(super) fn resolved(&self, target: &str, config: &ConfigFile, way: &WayArgs) -> Result<Target, Failure> {
        let files = RuntimeFiles::new(&runtime_dir()?, &TunnelName::of_target(target, config)?)?;
        let WayArgs { remote, carrier } = way.clone();
        let overrides = Overrides { ssh_config: self.ssh_config(), remote, carrier, ..Overrides::default() };
        Ok(resolve(target, config, &overrides, &files.socket)?)
    }

    /// The `-F` file as an absolute path, for a process with another working directory; `none` stays.
    pub(super) fn ssh_config(&self) -> Option<PathBuf> {
        self.ssh_config.as_ref().map(|path| if path.as_os_str() == "none" { path.clone() } else { absolute(path) })
    }
}

/// How a command that only looks gets to the Engine, as for `up`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct WayArgs {
    /// The Engine on the host, as for `up`
    #[arg(long, value_name = "ENDPOINT")]
    pub(super) remote: Option<String>,
    /// The SSH that is used, as for `up`
    #[arg(long, value_name = "auto|native|openssh")]
    pub(super) carrier: Option<CarrierSetting>,
}

pub(super) fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Parses a duration from the command line. A bare number is in seconds.
pub(super) fn duration(text: &str) -> Result<config::Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(config::Duration(std::time::Duration::from_secs(seconds))),
        Err(_) => text.parse(),
    }
}
