//! Where dtunnel keeps its files. (For the runtime directory: `runtime_dir.rs`.)

use std::path::{Path, PathBuf};

use directories::{BaseDirs, ProjectDirs};

use super::{Error, TunnelName};
use crate::os::local;
use crate::os::places::{MAX_SOCKET_PATH, expanded, shared_temporary_dir};
use crate::os::user;

/// The directories of this user.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The user's home directory ($HOME, else the passwd entry's).
    pub home: PathBuf,
}

impl Paths {
    /// Finds the user's directories.
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn new() -> Result<Self, Error> {
        Ok(Self { home: BaseDirs::new().ok_or(Error::NoHome)?.home_dir().to_path_buf() })
    }

    /// `path` with a leading `~` or `~/` replaced by the home directory, `~user/` by that user's.
    pub fn expand_home(&self, path: &str) -> PathBuf {
        match path.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with(['/', std::path::MAIN_SEPARATOR]) => {
                self.home.join(rest.trim_start_matches(['/', std::path::MAIN_SEPARATOR]))
            }
            Some(rest) => {
                let (user, below) = rest.split_once('/').unwrap_or((rest, ""));
                user::home_of(user).map_or_else(|| PathBuf::from(path), |home| home.join(below))
            }
            _ => expanded(path).into(),
        }
    }
}

fn project() -> Result<ProjectDirs, Error> {
    ProjectDirs::from("", "", "dtunnel").ok_or(Error::NoHome)
}

/// The configuration file when no other is named: `config.toml` in the platform's configuration
/// directory (`$XDG_CONFIG_HOME/dtunnel` on Linux).
///
/// # Errors
/// [`Error::NoHome`].
pub fn config_path() -> Result<PathBuf, Error> {
    Ok(project()?.config_dir().join("config.toml"))
}

/// A tunnel's log: `NAME.log` in the platform's state directory (`$XDG_STATE_HOME/dtunnel` on
/// Linux; the local data directory where the platform has none).
///
/// # Errors
/// [`Error::NoHome`].
pub fn log_path(name: &TunnelName) -> Result<PathBuf, Error> {
    Ok(state_dir()?.join(format!("{name}.log")))
}

/// What is known of a tunnel's mounted directories: `mounts/NAME`, beside its log.
///
/// # Errors
/// [`Error::NoHome`].
pub fn mounts_dir(name: &TunnelName) -> Result<PathBuf, Error> {
    Ok(state_dir()?.join("mounts").join(name.as_str()))
}

fn state_dir() -> Result<PathBuf, Error> {
    let project = project()?;
    Ok(project.state_dir().unwrap_or_else(|| project.data_local_dir()).to_owned())
}

/// Where a tunnel's Engine was found last: `NAME.route`, beside its log.
///
/// # Errors
/// [`Error::NoHome`].
pub fn route_path(name: &TunnelName) -> Result<PathBuf, Error> {
    Ok(log_path(name)?.with_file_name(format!("{name}.route")))
}

/// Where a temporary file on disk may be, best first: the cache directory (`$XDG_CACHE_HOME/dtunnel` on
/// Linux), the state directory, `/var/tmp`. Not `/tmp`, which is memory on many systems.
pub(crate) fn spill_dirs() -> Vec<PathBuf> {
    let project = project().ok();
    let own = project.iter().flat_map(|p| [Some(p.cache_dir()), p.state_dir()]).flatten().map(Path::to_path_buf);
    own.chain(shared_temporary_dir()).collect()
}

/// The files of one tunnel in the runtime directory.
#[derive(Debug, Clone)]
pub struct RuntimeFiles {
    /// The Docker endpoint, unless the profile or `--local` puts it elsewhere.
    pub socket: PathBuf,
    pub control: PathBuf,
    /// The lock, held with flock(2) for the daemon's life.
    pub lock: PathBuf,
}

impl RuntimeFiles {
    /// The files of the tunnel `name` in `dir`.
    ///
    /// # Errors
    /// [`Error::SocketPath`] where a socket's path would be too long.
    pub fn new(dir: &Path, name: &TunnelName) -> Result<Self, Error> {
        let files = Self {
            socket: local::endpoint_of(dir, name.as_str()),
            control: local::control_of(dir, name.as_str()),
            lock: dir.join(format!("{name}.lock")),
        };
        check_socket_path(&files.socket)?;
        Ok(files)
    }
}

/// Does `path` fit into `sun_path`?
///
/// # Errors
/// [`Error::SocketPath`] where it does not.
pub(super) fn check_socket_path(path: &Path) -> Result<(), Error> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH { Err(Error::SocketPath { path: path.into(), length }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_those_of_the_users_who_are_named() {
        let paths = Paths { home: "/home/me".into() };
        let root = user::home_of("root").expect("root");
        for (path, expanded) in [("~", "/home/me".into()), ("~/a", "/home/me/a".into()), ("~root/a", root.join("a"))] {
            assert_eq!(paths.expand_home(path), expanded);
        }
        assert_eq!(paths.expand_home("~nobody-has-this-name/a"), PathBuf::from("~nobody-has-this-name/a"));
    }

    #[test]
    fn a_socket_path_that_does_not_fit_is_refused_before_it_is_used() {
        let dir = PathBuf::from(format!("/{}", "d".repeat(MAX_SOCKET_PATH - 6)));
        let short = TunnelName::of_profile("a").expect("a name");
        assert!(matches!(RuntimeFiles::new(&dir, &short), Err(Error::SocketPath { .. })));
        assert!(RuntimeFiles::new(Path::new("/run"), &short).is_ok());
    }
}
