//! From what the user wrote (a target, a profile, ssh_config) to a resolved [`Target`].
//!
//! Pure: reads files and asks `ssh -G`, but opens no network connection and needs no async runtime. It knows nothing of
//! SSH sessions, tunnels or the daemon, and imports only `failure`, `text`, `glob` and such.

mod access;
mod allowed;
mod carrier;
mod edit;
mod file;
mod keys;
mod leg;
mod local;
mod mounts;
mod name;
mod nearest;
mod paths;
mod ports;
mod remote;
mod resolve;
mod runtime_dir;
mod said;
mod settings;
mod size;
mod ssh_config;
mod target;
mod trusted_file;
mod values;

pub use access::{Access, AccessSetting, Policy};
pub use carrier::{CarrierSetting, has_ssh};
pub(crate) use edit::replace_file;
pub use edit::{NewProfile, add_profile, remove_profile};
pub use file::{ConfigFile, Defaults, Profile};
pub use leg::Leg;
pub use local::LocalEndpoint;
pub use mounts::{Mounts, MountsSetting, OF_HOST};
pub use name::{Destination, TunnelName, is_profile_name};
pub use nearest::nearest;
pub(crate) use paths::spill_dirs;
pub use paths::{Paths, RuntimeFiles, config_path, log_path, mounts_dir, route_path};
pub use ports::{PortRule, Ports, PortsConflict, PortsSetting};
pub use remote::{DEFAULT_SOCKET, Remote, is_same_socket};
pub use resolve::{Overrides, resolve};
pub use runtime_dir::runtime_dir;
pub(crate) use runtime_dir::{check_socket_place, prepare_runtime_dir};
pub use said::{Said, Takes};
pub use settings::{Difference, Settings, Wanted};
pub use size::Size;
#[cfg(fuzzing)]
pub use ssh_config::read_ssh_answer;
pub use ssh_config::{
    AddToAgent, AddressFamily, Algorithms, HostKeyPolicy, IdentityAgent, MissingMethod, Proxy, SshConfigSource,
    SshSettings, UpdateHostKeys, quoted_path, ssh_hosts,
};
pub use target::{IgnoredCheck, Target};

pub use values::{AuditSetting, Duration, Ignore, Jump};

use std::path::PathBuf;

use crate::failure::{ExitCode, Failure};
use crate::os::places::MAX_SOCKET_PATH;

/// Why a target could not be resolved. The user can fix each of these: a bad argument, a
/// bad file, a directory that is not safe to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration file exists but could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// "read", "write", "create" …
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// The configuration file is not TOML, or a value has the wrong type or is out of range.
    #[error("{path}:{line}:{column}: {message}")]
    Syntax {
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        message: String,
    },
    /// A key that this version does not know.
    #[error("{path}:{line}:{column}: unknown key `{key}` in {section}")]
    UnknownKey {
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        key: String,
        /// `[defaults]`, `[profiles.NAME]` or "the top level".
        section: String,
        /// The known key with the most similar spelling.
        nearest: Option<String>,
    },
    /// A setting's value has the right type, but is invalid for another reason.
    #[error("{place}: `{key}`: {error}")]
    At {
        /// `FILE:LINE:COLUMN` of its value.
        place: String,
        key: String,
        error: Box<Error>,
    },
    /// A TARGET that is neither a profile name nor `[user@]host[:port]` nor `ssh://…`.
    #[error("`{input}` is not a target: {reason}")]
    Target { input: String, reason: &'static str },
    /// A profile name that cannot be used.
    #[error(
        "`{name}` is not a profile name: letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or digit"
    )]
    ProfileName { name: String },
    /// `profile add` of a name that is there already.
    #[error("profile `{name}` already exists in {path}")]
    ProfileExists { name: String, path: PathBuf },
    /// `profile remove` or `show` of a name that is not there.
    #[error("no profile is named `{name}` in {path}")]
    NoProfile {
        name: String,
        path: PathBuf,
        /// The profile with the most similar name.
        nearest: Option<String>,
    },
    /// A local endpoint that is not `unix:PATH` or `tcp:LOOPBACK:PORT`.
    #[error("`{input}` is not a local endpoint: {reason}")]
    Local { input: String, reason: &'static str },
    /// A local socket in whose place others could put their own.
    #[error("a socket at {path} would not be private: {reason}")]
    LocalPlace {
        path: PathBuf,
        /// What is wrong with its directory, or one above.
        reason: String,
    },
    /// An invalid remote endpoint.
    #[error("`{input}` is not a remote endpoint: {reason}")]
    Remote { input: String, reason: &'static str },
    /// Settings of a profile that do not go together.
    #[error("{name}: {reason}")]
    Setting { name: String, reason: String },
    /// A Unix socket path that does not fit into `sun_path` (unix(7)).
    #[error("the socket path {path} has {length} bytes; this system allows {MAX_SOCKET_PATH}")]
    SocketPath {
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Other users could change the runtime directory.
    #[error("the runtime directory {path} is not safe to use: {reason}")]
    RuntimeDir { path: PathBuf, reason: String },
    /// A file that may hold commands could have been written by others.
    #[error("{path} is not trusted: {reason}")]
    NotTrusted {
        path: PathBuf,
        reason: String,
        /// What to type.
        remedy: String,
    },
    /// Neither HOME nor the passwd entry names a home directory.
    #[error("this account has no home directory")]
    NoHome,
    /// `ssh -G` refused the user's ssh_config.
    #[error("ssh could not resolve `{host}`: {message}")]
    SshConfig {
        host: String,
        /// ssh's own words (its standard error).
        message: String,
    },
}

impl Error {
    /// What to do about it, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownKey { nearest: Some(key), .. } => format!("did you mean `{key}`?"),
            Self::UnknownKey { .. } => "docs/configuration.md lists the keys".into(),
            Self::At { error, .. } => return error.hint(),
            Self::Target { .. } => {
                "give a profile name, [user@]host[:port], ssh://[user@]host[:port], or a Host of your ssh_config".into()
            }
            Self::NoProfile { nearest: Some(name), .. } => format!("did you mean `{name}`?"),
            Self::NoProfile { .. } => "`dtunnel profile list` shows the profiles".into(),
            Self::ProfileExists { name, .. } => {
                format!("`dtunnel profile edit` changes it, `dtunnel profile remove {name}` removes it")
            }
            Self::Local { .. } => {
                format!("for example --local {} or --local tcp:127.0.0.1:2375", crate::os::local::EXAMPLE)
            }
            Self::Remote { .. } => "for example auto, /run/user/1000/docker.sock or tcp:127.0.0.1:2375".into(),
            Self::SocketPath { .. } => {
                "set XDG_RUNTIME_DIR to a shorter directory, use a shorter profile name, or give --local unix:PATH"
                    .into()
            }
            Self::LocalPlace { .. } => {
                "choose a directory that only you can write: mkdir -m 700 ~/.docker-sockets".into()
            }
            Self::RuntimeDir { .. } => {
                "set XDG_RUNTIME_DIR to a directory that only you can enter: export XDG_RUNTIME_DIR=$(mktemp -d)".into()
            }
            Self::NotTrusted { remedy, .. } => remedy.clone(),
            Self::NoHome => "set HOME".into(),
            Self::SshConfig { .. } => "fix your ssh_config, or leave it out with `-F none`".into(),
            Self::File { .. } | Self::Syntax { .. } | Self::ProfileName { .. } | Self::Setting { .. } => return None,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error {
            Error::File { .. } | Error::RuntimeDir { .. } | Error::NoHome => ExitCode::Other,
            _ => ExitCode::Usage,
        };
        Self::of(exit, &error, error.hint())
    }
}
