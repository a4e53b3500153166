//! Where dtunnel keeps its files, and that nobody else can reach them.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use directories::{BaseDirs, ProjectDirs};

use super::{Error, TunnelName};

/// Bytes that fit into `sun_path` beside the final NUL: unix(7) gives 108 in all on Linux, 104 on
/// macOS and the BSDs.
pub const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

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

    /// `path` with a leading `~` or `~/` replaced by the home directory.
    pub fn expand_home(&self, path: &str) -> PathBuf {
        match path.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(path),
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
    let project = project()?;
    let dir = project.state_dir().unwrap_or_else(|| project.data_local_dir());
    Ok(dir.join(format!("{name}.log")))
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
    own.chain(["/var/tmp".into()]).collect()
}

/// The runtime directory, not created: `$XDG_RUNTIME_DIR/dtunnel`, else `dtunnel-UID` in the
/// temporary directory.
pub fn runtime_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => PathBuf::from(dir).join("dtunnel"),
        None => std::env::temp_dir().join(format!("dtunnel-{}", rustix::process::getuid().as_raw())),
    }
}

/// The files of one tunnel in the runtime directory.
#[derive(Debug, Clone)]
pub struct RuntimeFiles {
    /// The Docker endpoint, unless the profile or `--local` puts it elsewhere.
    pub socket: PathBuf,
    /// The control socket.
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
            socket: dir.join(format!("{name}.sock")),
            control: dir.join(format!("{name}.ctl")),
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

/// Creates the runtime directory with mode 0700 if it is missing, and checks that it is a real
/// directory of this user's that nobody else can enter. A symbolic link is refused: in a shared
/// temporary directory it could lead anywhere.
///
/// # Errors
/// [`Error::RuntimeDir`], [`Error::File`].
pub(crate) fn prepare_runtime_dir(dir: &Path) -> Result<(), Error> {
    let failed = |action, source| Error::File { action, path: dir.into(), source };
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed("create", e)),
    }
    check_runtime_dir(dir)
}

/// Is the runtime directory, if it is there, ours alone?
///
/// # Errors
/// [`Error::RuntimeDir`], [`Error::File`].
pub fn check_runtime_dir(dir: &Path) -> Result<(), Error> {
    let failed = |action, source| Error::File { action, path: dir.into(), source };
    let no_follow = (rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW).bits();
    let unsafe_dir = |reason: String| Error::RuntimeDir { path: dir.into(), reason };
    let opened = OpenOptions::new().read(true).custom_flags(no_follow.cast_signed()).open(dir);
    let meta = match opened.and_then(|handle| handle.metadata()) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A symbolic link is ENOTDIR on Linux and ELOOP elsewhere (open(2), O_NOFOLLOW).
        Err(e)
            if e.kind() == io::ErrorKind::NotADirectory
                || e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) =>
        {
            return Err(unsafe_dir("it is not a directory, or a symbolic link".into()));
        }
        Err(e) => return Err(failed("open", e)),
    };
    let me = rustix::process::getuid().as_raw();
    if meta.uid() != me {
        return Err(unsafe_dir(format!("it belongs to uid {}, not to you (uid {me})", meta.uid())));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(unsafe_dir(format!("others may enter it (mode {:04o})", meta.mode() & 0o7777)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_fresh_runtime_directory_is_private() {
        let tmp = tempfile::tempdir().expect("a directory");
        let dir = tmp.path().join("run");
        prepare_runtime_dir(&dir).expect("created");
        assert_eq!(std::fs::metadata(&dir).expect("meta").mode() & 0o7777, 0o700);
        prepare_runtime_dir(&dir).expect("used again");
    }

    #[test]
    fn a_symbolic_link_an_open_directory_and_a_file_are_refused() {
        let tmp = tempfile::tempdir().expect("a directory");
        let real = tmp.path().join("real");
        prepare_runtime_dir(&real).expect("created");
        let link = tmp.path().join("link");
        symlink(&real, &link).expect("a link");
        assert!(matches!(prepare_runtime_dir(&link), Err(Error::RuntimeDir { .. })));
        std::fs::set_permissions(&real, PermissionsExt::from_mode(0o755)).expect("chmod");
        assert!(matches!(prepare_runtime_dir(&real), Err(Error::RuntimeDir { .. })));
        let file = tmp.path().join("file");
        std::fs::write(&file, "").expect("a file");
        assert!(matches!(prepare_runtime_dir(&file), Err(Error::RuntimeDir { .. })));
    }

    #[test]
    fn a_socket_path_that_does_not_fit_is_refused_before_it_is_used() {
        let dir = PathBuf::from(format!("/{}", "d".repeat(MAX_SOCKET_PATH - 6)));
        let short = TunnelName::of_profile("a").expect("a name");
        assert!(matches!(RuntimeFiles::new(&dir, &short), Err(Error::SocketPath { .. })));
        assert!(RuntimeFiles::new(Path::new("/run"), &short).is_ok());
    }
}
