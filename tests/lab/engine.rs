//! A real dockerd of our own, beside the machine's: own data, own bridge, own socket.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::keeper::Keeper;
use super::{is_root, run, skip, wait_for};

/// The image every test can use: busybox, and nothing else.
pub const IMAGE: &str = "lab:1";

/// The Engine that is running now, if any; tests that run side by side share it.
static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// How many Engines this process has started.
static TURN: AtomicU32 = AtomicU32::new(0);

pub struct Engine {
    dir: PathBuf,
    bridge: String,
    /// The network namespace it is in, if not the machine's own.
    namespace: Option<String>,
    /// Options of its own.
    options: Vec<String>,
    /// The last one first: the first one also removes what is left.
    keepers: Mutex<Vec<Keeper>>,
}

impl Engine {
    /// The running Engine, or a new one. None where none can be started.
    pub fn shared() -> Option<Arc<Self>> {
        let missing = [("root", is_root()), ("dockerd", Path::new("/usr/sbin/dockerd").exists())];
        if let Some((what, _)) = missing.iter().find(|(_, there)| !there) {
            skip(&format!("an Engine needs {what}"));
            return None;
        }
        // A test that failed while it held the lock has not broken the Engine.
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(engine) = shared.upgrade() {
            return Some(engine);
        }
        let engine = Arc::new(Self::start(None, &[]));
        *shared = Arc::downgrade(&engine);
        Some(engine)
    }

    /// One that no other test uses. Needs root.
    pub fn alone() -> Self {
        Self::start(None, &[])
    }

    /// One with these options.
    pub fn with(options: &[&str]) -> Self {
        Self::start(None, options)
    }

    /// One at the far end of a link: what it publishes is published there.
    pub fn behind(link: &super::link::Link) -> Self {
        Self::behind_with(link, &[])
    }

    /// The same with these options.
    pub fn behind_with(link: &super::link::Link, options: &[&str]) -> Self {
        Self::start(Some(&link.namespace), options)
    }

    /// Ends it and starts it again, with all it has.
    pub fn restart(&self) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).unwrap();
        run(Command::new("kill").arg(pid.trim()));
        wait_for("its end", || (!self.dir.join("pid").exists()).then_some(()));
        let keeper = self.dockerd("");
        self.keepers.lock().unwrap().push(keeper);
        self.until_it_answers();
    }

    fn until_it_answers(&self) {
        wait_for("dockerd", || self.docker(&["version"]).output().ok().filter(|o| o.status.success()));
    }

    fn start(namespace: Option<&str>, options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("dte").tempdir_in("/tmp").unwrap().keep();
        // Named and numbered by process and turn: neither two test runs nor an Engine that is still
        // ending and its successor may share a bridge.
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let bridge = format!("dtl{}-{turn}", std::process::id());
        let subnet = (std::process::id() + turn) % 250 + 1;
        let ip = |words: &[&str]| {
            let mut ip = Command::new("ip");
            ip.args(namespace.iter().flat_map(|name| ["-n", name]));
            run(ip.args(words))
        };
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", &format!("172.29.{subnet}.1/24"), "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        let at = namespace.map(|name| format!("-n {name}")).unwrap_or_default();
        let clean_up = format!("ip {at} link del {bridge}; rm -rf '{}'", dir.display());
        let options = options.iter().map(ToString::to_string).collect();
        let engine = Self { dir, bridge, namespace: namespace.map(Into::into), options, keepers: Mutex::default() };
        let keeper = engine.dockerd(&clean_up);
        engine.keepers.lock().unwrap().push(keeper);
        engine.until_it_answers();
        engine.import_image();
        engine
    }

    fn dockerd(&self, clean_up: &str) -> Keeper {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let host = format!("unix://{}", self.socket().display());
        let (data, exec, pid) = (at("data"), at("exec"), at("pid"));
        // `ip netns exec` would hide the control groups, for it mounts /sys anew.
        let namespace = self.namespace.as_ref().map(|name| format!("--net=/run/netns/{name}"));
        let namespace = namespace.iter().flat_map(|name| ["nsenter", name]);
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
            &self.bridge,
            "--group",
            "root",
            // The machine's firewall is none of ours; the lab needs no network beyond itself.
            "--iptables=false",
            "--ip6tables=false",
        ];
        let command: Vec<&str> = namespace.chain(own).chain(self.options.iter().map(String::as_str)).collect();
        Keeper::start(&command, clean_up)
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

    /// The docker CLI on the Engine's own socket.
    pub fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.args(args).env("DOCKER_HOST", format!("unix://{}", self.socket().display())).env("HOME", &self.dir);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut keepers = self.keepers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while keepers.pop().is_some() {}
    }
}
