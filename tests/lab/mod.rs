//! The laboratory: real sshd, real Engine, and a home directory of its own for dtunnel.
//!
//! Each lab has a [`Host`] of its own, which is far: a port, a path or a process of this machine is never the host's by
//! accident. The Engine that tests share is on one more. Without root there are no such hosts: sshd is on this machine's
//! loopback then, and tests that need more are skipped.
//!
//! Nothing here touches the machine's own Docker, ssh configuration, agent, keyring or home. All
//! servers run under a [`Keeper`](keeper::Keeper), so that they end and leave nothing when the test does, however
//! that happens.

pub mod answers;
pub mod engine;
pub mod host;
pub mod keeper;
pub mod keyboard;
pub mod pty;
pub mod remote;
pub mod security_key;
pub mod sshd;

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use engine::Engine;
use host::Host;
use sshd::Sshd;

/// Longest wait for anything that is waited for by condition.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a program in a kernel's keyring that nobody else has. The persistent one, to which keys are linked, is one a user
/// in a user namespace (persistent-keyring(7)): so in a namespace of its own.
pub const KERNELS_KEYRING: [&str; 6] = ["unshare", "--user", "--map-root-user", "keyctl", "session", "-"];

/// One test's world.
pub struct Lab {
    pub sshd: Sshd,
    pub engine: Option<Arc<Engine>>,
    host: Option<Arc<Host>>,
    pub dir: tempfile::TempDir,
}

impl Lab {
    /// A world with an SSH server and an Engine. None, with a word why, where no Engine can be
    /// started; under CI=true that is a failure.
    pub fn with_engine() -> Option<Self> {
        let engine = Engine::shared()?;
        let mut lab = Self::new("");
        lab.engine = Some(engine);
        Some(lab)
    }

    /// A world with an SSH server that has these lines in its sshd_config. Its host is far where that can be.
    pub fn new(sshd_options: &str) -> Self {
        let dir = new_dir();
        let host = Host::impossible().is_none().then(|| Host::new(dir.path(), &clean_up(dir.path())));
        Self::on(dir, host, sshd_options)
    }

    /// A world whose SSH server is on this machine's loopback, for what is otherwise there.
    pub fn near() -> Self {
        Self::on(new_dir(), None, "")
    }

    /// A world whose host is far. None where there can be none.
    pub fn far() -> Option<Self> {
        if let Some(why) = Host::impossible() {
            skip(why);
            return None;
        }
        Some(Self::new(""))
    }

    /// The same, at a link of its own.
    pub fn over_own_link() -> Option<Self> {
        if let Some(why) = Host::impossible() {
            skip(why);
            return None;
        }
        let dir = new_dir();
        let host = Host::with_own_link(dir.path(), &clean_up(dir.path()));
        Some(Self::on(dir, Some(host), ""))
    }

    /// A world whose Engine is on the same host as its SSH server, and has these options.
    pub fn with_own_engine(sshd_options: &str, options: &[&str]) -> Option<Self> {
        if !Engine::can_be_had() {
            return None;
        }
        let mut lab = Self::new(sshd_options);
        lab.engine = Some(Arc::new(Engine::on(lab.host.as_ref().unwrap(), options)));
        Some(lab)
    }

    fn on(dir: tempfile::TempDir, host: Option<Host>, sshd_options: &str) -> Self {
        let host = host.map(Arc::new);
        let sshd = Sshd::start(dir.path(), sshd_options, host.clone());
        let lab = Self { sshd, engine: None, host, dir };
        lab.keygen("user", "ed25519", "");
        lab.authorize("user");
        lab.write_ssh_config("");
        lab
    }

    /// The far host, without which a test has been skipped before.
    pub fn host(&self) -> &Arc<Host> {
        self.host.as_ref().expect("a far host")
    }

    /// Another server on the same host, whose keys and configuration are in `dir`.
    pub fn another_sshd(&self, dir: &Path, options: &str) -> Sshd {
        Sshd::start(dir, options, self.host.clone())
    }

    /// Gives root a password on the host.
    pub fn set_password(&self, password: &str) {
        assert!(self.host.is_some(), "a password of this machine's is not to be changed");
        host::set_password(self.dir.path(), password);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes the key pair `name`, `name.pub`.
    pub fn keygen(&self, name: &str, kind: &str, passphrase: &str) {
        self.keygen_with(name, passphrase, &["-t", kind]);
    }

    /// The same with ssh-keygen's own options.
    pub fn keygen_with(&self, name: &str, passphrase: &str, options: &[&str]) {
        let path = self.path(name);
        loop {
            let _ = std::fs::remove_file(&path);
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-q", "-N", passphrase, "-C", name]).args(options).arg("-f").arg(&path));
            // Of the P-256 keys one of 256 has a number of 31 bytes, which the crate ssh-key takes for a fault.
            let read = russh::keys::PrivateKey::from_openssh(std::fs::read(&path).unwrap());
            if !read.is_err_and(|e| e.to_string().contains("length invalid")) {
                return;
            }
        }
    }

    /// Signs `key.pub` with the certificate authority `ca`: `key-cert.pub`.
    pub fn certify(&self, ca: &str, key: &str, options: &[&str]) {
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-s"]).arg(self.path(ca)).args(["-I", "the-id"]).args(options);
        run(sign.arg(self.path(&format!("{key}.pub"))));
    }

    /// An ssh-agent of its own; the socket is `agent`.
    pub fn agent(&self) -> keeper::Keeper {
        let socket = self.path("agent");
        let agent = keeper::Keeper::start(&["ssh-agent", "-D", "-a", socket.to_str().unwrap()], "");
        until_served(&socket);
        agent
    }

    /// Gives the agent a key (and its certificate).
    pub fn agent_add(&self, key: &str) {
        run(Command::new("ssh-add").arg("-q").arg(self.path(key)).env("SSH_AUTH_SOCK", self.path("agent")));
    }

    /// Has the server work with other options.
    pub fn reconfigure(&mut self, options: &str) {
        let options = options.replace("{dir}", &self.dir.path().display().to_string());
        self.sshd.configure(&options);
        self.sshd.start_again();
    }

    /// `up` and `down` of `lab`, which must succeed.
    #[track_caller]
    pub fn up_and_down(&self) {
        self.ok(&["up", "lab"]);
        self.ok(&["down", "lab"]);
    }

    /// Lets the key `name` log in, and no other.
    pub fn authorize(&self, name: &str) {
        std::fs::copy(self.path(&format!("{name}.pub")), self.path("authorized_keys")).unwrap();
    }

    /// The ssh_config of the lab's user: Host `lab` is the lab's sshd.
    pub fn write_ssh_config(&self, more: &str) {
        let dir = self.dir.path().display();
        let (address, port, user) = (&self.sshd.address, self.sshd.port, whoami());
        let text = format!(
            "Host lab lab2 lab3\n  HostName {address}\n  Port {port}\n  User {user}\nHost *\n{more}\n  IdentityFile {dir}/user\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile {dir}/known_hosts\n  GlobalKnownHostsFile none\n  \
             StrictHostKeyChecking accept-new\n"
        );
        std::fs::write(self.path("ssh_config"), text).unwrap();
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    /// The configuration that names the lab's Engine.
    pub fn write_config_of_engine(&self) {
        let mut text = format!("ssh_config = {:?}\n", self.path("ssh_config"));
        if let Some(engine) = &self.engine {
            text += &format!("[defaults]\nremote = {:?}\n", engine.socket());
        }
        self.write_config(&text);
    }

    /// The configuration with the profile `lab`: its Engine's socket, and more lines.
    pub fn write_profile(&self, remote: impl AsRef<OsStr>, more: &str) {
        let (ssh_config, remote) = (self.path("ssh_config"), remote.as_ref());
        self.write_config(&format!("ssh_config = {ssh_config:?}\n[profiles.lab]\nremote = {remote:?}\n{more}"));
    }

    /// The Engine's socket on "the host".
    pub fn remote_socket(&self) -> PathBuf {
        self.engine.as_ref().unwrap().socket()
    }

    /// `dtunnel` in this world, its environment cleared of the machine's.
    pub fn dtunnel<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dtunnel"));
        command.args(args).stdin(Stdio::null());
        self.set_env(&mut command);
        command
    }

    pub fn set_env(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("DTUNNEL_CONFIG", self.path("config.toml"))
            .env("SHELL", "/bin/sh")
            .env("LC_ALL", "C.UTF-8");
        if !self.path("config.toml").exists() {
            self.write_config_of_engine();
        }
    }

    /// Runs `dtunnel` to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.dtunnel(args).output().unwrap()
    }

    /// Runs `dtunnel`, which must succeed; its standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        succeeded(&self.run(args))
    }

    /// Runs `dtunnel`, which must end with `code`; its standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        stderr
    }

    /// The status of one tunnel, as JSON: of its daemon, if it has one that answers. (A process for each look would be most
    /// of what tests compute, since they look until something has happened.)
    #[track_caller]
    pub fn status(&self, target: &str) -> Value {
        self.daemons_status(target).unwrap_or_else(|| self.said_status(target))
    }

    fn daemons_status(&self, target: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.path(&format!("run/dtunnel/{target}.ctl"))).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        std::io::Write::write_all(&mut stream, b"{\"op\":\"status\"}\n").ok()?;
        let events = std::io::BufRead::lines(std::io::BufReader::new(stream));
        let mut events = events.map_while(Result::ok).filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        events.find(|event| event["event"] == "status").map(|mut event| event["status"].take())
    }

    /// The status of one tunnel as the command says it, which also compares it with the configuration.
    #[track_caller]
    pub fn said_status(&self, target: &str) -> Value {
        let output = self.run(&["status", "--json", target]);
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        all[0].clone()
    }

    /// The state of the tunnel `lab`.
    #[track_caller]
    pub fn state(&self) -> String {
        self.status("lab")["state"].as_str().unwrap_or_default().into()
    }

    /// Lets tunnels have one SSH connection.
    pub fn allow_one_connection(&self) {
        self.write_config(&format!("ssh_config = {:?}\n[defaults]\nmax_connections = 1\n", self.path("ssh_config")));
    }

    /// The files in dtunnel's runtime directory.
    pub fn runtime_files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("run/dtunnel")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The tunnel's socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.path(&format!("run/dtunnel/{name}.sock"))
    }

    /// The tunnel's log.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("home/.local/state/dtunnel/{name}.log"))).unwrap_or_default()
    }

    /// The docker CLI through the tunnel `name`.
    pub fn docker(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.args(args);
        self.set_env(&mut command);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket(name).display())).stdin(Stdio::null());
        command
    }
}

/// Another user of this machine, with a home, the lab's key and a program of their own.
pub struct AnotherUser<'a> {
    lab: &'a Lab,
    uid: String,
    pub home: PathBuf,
}

impl Lab {
    /// The user with this uid, whose ssh_config leads `lab` to the lab's host. Needs root.
    pub fn another_user(&self, uid: &str) -> AnotherUser<'_> {
        let home = self.path(&format!("home-of-{uid}"));
        for dir in [&home, &home.join("run")] {
            std::fs::create_dir(dir).unwrap();
            set_mode(dir, 0o700);
        }
        set_mode(self.dir.path(), 0o755);
        std::fs::copy(env!("CARGO_BIN_EXE_dtunnel"), self.path("dtunnel")).unwrap();
        std::fs::copy(self.path("user"), home.join("user")).unwrap();
        let (address, port) = (&self.sshd.address, self.sshd.port);
        let ssh_config = format!(
            "Host lab\n  HostName {address}\n  Port {port}\n  IdentityFile {}\n  UserKnownHostsFile {}\n  StrictHostKeyChecking \
             accept-new\n",
            home.join("user").display(),
            home.join("known_hosts").display()
        );
        std::fs::write(home.join("ssh_config"), ssh_config).unwrap();
        std::fs::write(home.join("config.toml"), format!("ssh_config = {:?}\n", home.join("ssh_config"))).unwrap();
        run(Command::new("chown").args(["-R", uid]).arg(&home));
        AnotherUser { lab: self, uid: uid.into(), home }
    }
}

impl AnotherUser<'_> {
    /// `dtunnel` as this user.
    pub fn dtunnel(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        self.lab.set_env(&mut command);
        command.args(["--reuid", &self.uid, "--regid", &self.uid, "--clear-groups"]).arg(self.lab.path("dtunnel"));
        command.args(args).env("HOME", &self.home).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.home.join("run")).env("DTUNNEL_CONFIG", self.home.join("config.toml"));
        command
    }
}

/// Lines of a tunnel's log that a failed test shows.
const LINES_OF_A_FAILURE: usize = 40;

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in std::fs::read_dir(self.path("home/.local/state/dtunnel")).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let from = lines.len().saturating_sub(LINES_OF_A_FAILURE);
                eprintln!("the end of {}:\n{}", log.path().display(), lines[from..].join("\n"));
            }
        }
        // Tests that ended their daemons in other ways have none left here.
        let _ = self.dtunnel(["down", "--all", "-q"]).output();
    }
}

/// A directory with a short path: sockets go below it.
fn new_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("dtl").tempdir_in("/tmp").unwrap();
    for sub in ["run", "home", "remote"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    set_mode(&dir.path().join("run"), 0o700);
    dir
}

/// What is left where the test process was killed: its daemons, which are this machine's, and its files.
fn clean_up(dir: &Path) -> String {
    let (dir, program) = (dir.display(), env!("CARGO_BIN_EXE_dtunnel"));
    format!(
        "for control in {dir}/run/dtunnel/*.ctl; do [ -e $control ] && DTUNNEL_CONFIG={dir}/config.toml HOME={dir}/home \
         XDG_RUNTIME_DIR={dir}/run '{program}' down --all -q; done; rm -rf {dir}"
    )
}

/// A client of a Unix socket that does not wait for ever.
#[track_caller]
pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub fn whoami() -> String {
    succeeded(&Command::new("id").arg("-un").output().unwrap()).trim().into()
}

pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn run(command: &mut Command) -> String {
    succeeded(&command.output().unwrap())
}

/// Waits until somebody listens: a socket's file is there before.
#[track_caller]
pub fn until_served(socket: &Path) {
    wait_for("a listener", || UnixStream::connect(socket).ok().map(drop));
}

/// Waits until `condition` gives something. The only way in which tests wait.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        // Many look at once, some of them by a process each.
        std::thread::sleep((begun.elapsed() / 20).clamp(Duration::from_millis(5), Duration::from_millis(50)));
    }
}

/// A test that cannot run here says so, here and in the list that `scripts/test` prints. Under CI=true, where everything
/// must run, it fails.
pub fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot run under CI=true: {why}");
    eprintln!("SKIPPED: {why}");
    let thread = std::thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    // One write, so that tests side by side do not mix their lines.
    let mut list = std::fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
    std::io::Write::write_all(&mut list, line.as_bytes()).unwrap();
}
