//! A real dockerd of our own on a far host: own data, own bridge, own socket.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use super::host::Host;
use super::keeper::{Keeper, child_of};
use super::{run, skip, wait_for};

/// The image every test can use: busybox, and nothing else.
pub const IMAGE: &str = "lab:1";

/// The Engine that is running now, if any; tests that run side by side share it.
static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

pub struct Engine {
    dir: PathBuf,
    /// Options of its own.
    options: Vec<String>,
    /// Ends it; before the host, where that is its own.
    keeper: Mutex<Option<Keeper>>,
    host: Arc<Host>,
    /// Removes what it leaves in the file system.
    _files: Option<Keeper>,
}

impl Engine {
    /// The running Engine, or a new one. None where none can be started.
    pub fn shared() -> Option<Arc<Self>> {
        Self::can_be_had().then(Self::share)
    }

    /// Can there be any? Where not, the test is skipped.
    pub fn can_be_had() -> bool {
        let missing = (!Path::new("/usr/sbin/dockerd").exists()).then_some("an Engine needs dockerd");
        let why = Host::impossible().or(missing);
        why.iter().for_each(|why| skip(why));
        why.is_none()
    }

    fn share() -> Arc<Self> {
        // A test that failed while it held the lock has not broken the Engine.
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(engine) = shared.upgrade() {
            return engine;
        }
        let engine = Arc::new(Self::alone());
        *shared = Arc::downgrade(&engine);
        engine
    }

    /// One that no other test uses. Needs root.
    pub fn alone() -> Self {
        Self::with(&[])
    }

    /// One with these options, on a host of its own.
    pub fn with(options: &[&str]) -> Self {
        let dir = new_dir();
        let host = Host::new(&dir, &clean_up(&dir));
        Self::start(dir, Arc::new(host), None, options)
    }

    /// One on the lab's host: what it publishes is published there.
    pub fn on(host: &Arc<Host>, options: &[&str]) -> Self {
        let dir = new_dir();
        let files = Keeper::at_the_end(&clean_up(&dir));
        Self::start(dir, host.clone(), Some(files), options)
    }

    /// Ends it and starts it again, with all it has.
    pub fn restart(&self) {
        let mut keeper = self.keeper.lock().unwrap();
        if let Some(before) = keeper.take() {
            // nsenter, dockerd.
            let process = before.pid().and_then(child_of);
            before.end_with(process);
        }
        *keeper = Some(self.dockerd());
        self.until_it_answers();
    }

    fn until_it_answers(&self) {
        wait_for("dockerd", || self.docker(&["version"]).output().ok().filter(|o| o.status.success()));
    }

    fn start(dir: PathBuf, host: Arc<Host>, files: Option<Keeper>, options: &[&str]) -> Self {
        let bridge = ["link add lab type bridge", "addr add 172.29.0.1/24 dev lab", "link set lab up"];
        host.ip(&bridge.map(Into::into));
        // The ports that it chooses itself are opened on this machine, too: outside of what this machine chooses from.
        let first = 61_000 + std::process::id() % 4 * 1000;
        host.run(&format!("echo {first} {} > /proc/sys/net/ipv4/ip_local_port_range", first + 999));
        let options = options.iter().map(ToString::to_string).collect();
        let engine = Self { dir, options, keeper: Mutex::default(), host, _files: files };
        *engine.keeper.lock().unwrap() = Some(engine.dockerd());
        engine.until_it_answers();
        engine.import_image();
        engine
    }

    fn dockerd(&self) -> Keeper {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let host = format!("unix://{}", self.socket().display());
        let (data, exec, pid) = (at("data"), at("exec"), at("pid"));
        let own = [
            "/usr/sbin/dockerd",
            "--data-root",
            &data,
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
            "-H",
            &host,
            "--bridge",
            "lab",
            "--group",
            "root",
            // The lab needs no network beyond itself.
            "--iptables=false",
            "--ip6tables=false",
        ];
        let command: Vec<&str> = own.into_iter().chain(self.options.iter().map(String::as_str)).collect();
        self.host.serve(&command)
    }

    /// Makes the image from Debian's static busybox.
    fn import_image(&self) {
        let root = self.dir.join("image");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for tool in [
            "sh",
            "cat",
            "echo",
            "true",
            "sleep",
            "stty",
            "sha256sum",
            "dd",
            "seq",
            "head",
            "wc",
            "ls",
            "printf",
            "httpd",
            "nc",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        self.import(&root, &["--change", "CMD [\"/bin/sh\"]", "-", IMAGE]);
    }

    /// `docker import` of a directory's contents.
    pub fn import(&self, dir: &Path, args: &[&str]) {
        let mut tar = Command::new("tar").arg("-C").arg(dir).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
        run(self.docker(&["import"]).args(args).stdin(tar.stdout.take().unwrap()));
        assert!(tar.wait().unwrap().success());
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// The host it is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The docker CLI on the Engine's own socket.
    pub fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).env("HOME", &self.dir);
        command.stdin(Stdio::null());
        command
    }
}

fn new_dir() -> PathBuf {
    tempfile::Builder::new().prefix("dte").tempdir_in("/tmp").unwrap().keep()
}

/// Containers that were running leave control groups, which are the machine's.
fn clean_up(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "for container in {dir}/data/containers/*; do test -d $container || continue; \
         find /sys/fs/cgroup -depth -type d -path \"*/${{container##*/}}*\" -exec rmdir {{}} +; done; rm -rf {dir}"
    )
}
