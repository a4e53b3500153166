//! OpenSSH's real server on a free loopback port.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::keeper::Keeper;
use super::{run, wait_for};

pub struct Sshd {
    pub port: u16,
    /// Where it listens.
    pub address: String,
    /// The network namespace it lives in; the machine's own where there is none.
    namespace: Option<String>,
    dir: PathBuf,
    keeper: Option<Keeper>,
    /// What a shell does first, in a mount namespace that only the server sees (needs root).
    world: Vec<String>,
}

impl Sshd {
    /// Starts a server whose keys and configuration are in `dir`.
    pub fn start(dir: &Path, options: &str) -> Self {
        let host_key = dir.join("host");
        if !host_key.exists() {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key));
        }
        let mut sshd = Self {
            port: free_port(),
            address: "127.0.0.1".into(),
            namespace: None,
            dir: dir.into(),
            keeper: None,
            world: Vec::new(),
        };
        sshd.configure(options);
        sshd.start_again();
        sshd
    }

    /// Writes sshd_config; sshd uses the first value of a keyword, so `options` come first.
    pub fn configure(&self, options: &str) {
        let dir = self.dir.display();
        // The one keyword of which the last value counts.
        let startups = if options.contains("MaxStartups") { "" } else { "MaxStartups 100\n" };
        let text = format!(
            "{startups}{options}\nPort {}\nListenAddress {}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized_keys\n\
             StrictModes no\nUsePAM no\nPidFile {dir}/sshd.pid\nPasswordAuthentication no\n",
            self.port, self.address
        );
        std::fs::write(self.dir.join("sshd_config"), text).unwrap();
    }

    /// Gives root a password, in a passwd and shadow of the server's own (a mount that only it
    /// sees; needs root).
    pub fn set_password(&mut self, password: &str) {
        let hash = run(Command::new("openssl").args(["passwd", "-6", password]));
        std::fs::copy("/etc/passwd", self.dir.join("passwd")).unwrap();
        std::fs::write(self.dir.join("shadow"), format!("root:{}:19000:0:99999:7:::\n", hash.trim())).unwrap();
        let dir = self.dir.display();
        self.world.push(format!("mount --bind {dir}/passwd /etc/passwd && mount --bind {dir}/shadow /etc/shadow"));
    }

    /// Gives the server's host a /run of its own, in which `script` is run at each start.
    pub fn own_run(&mut self, script: &str) {
        self.world = vec!["mount -t tmpfs none /run && mkdir -p /run/sshd /run/user/0".into(), script.into()];
    }

    /// Moves the server to the far end of a link.
    pub fn move_to(&mut self, link: &super::link::Link) {
        self.stop();
        (self.address, self.namespace) = (link.far.clone(), Some(link.namespace.clone()));
        self.configure("");
        self.start_again();
    }

    /// Sends a signal to the server and all its sessions.
    pub fn signal(&self, signal: &str) {
        let all = [vec![self.pid()], self.sessions()].concat();
        // A session may have ended by itself.
        let _ = Command::new("kill").arg(signal).args(all).status();
    }

    /// Ends the server and all its sessions.
    pub fn stop(&mut self) {
        self.keeper = None;
    }

    /// Starts it on the same port.
    pub fn start_again(&mut self) {
        self.stop();
        if super::is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let (config, log) = (self.dir.join("sshd_config"), self.dir.join("sshd.log"));
        let (config, log) = (config.to_str().unwrap(), log.to_str().unwrap());
        let world = [self.world.as_slice(), &["exec \"$@\"".into()]].concat().join(" && ");
        let sshd = ["/usr/sbin/sshd", "-D", "-f", config, "-E", log];
        let hidden = ["unshare", "--mount", "sh", "-c", &world, "sh"];
        let server = if !self.world.is_empty() { [&hidden[..], &sshd[..]].concat() } else { sshd.to_vec() };
        let away: Vec<&str> = self.namespace.iter().flat_map(|name| ["ip", "netns", "exec", name]).collect();
        let server = [&away[..], &server[..]].concat();
        let _ = std::fs::remove_file(self.dir.join("sshd.pid"));
        self.keeper = Some(Keeper::start(&server, ""));
        // Written once it listens. (Asking the port instead may, by chance, connect it to itself.)
        self.pid();
    }

    fn pid(&self) -> String {
        wait_for("sshd", || std::fs::read_to_string(self.dir.join("sshd.pid")).ok()?.strip_suffix('\n').map(Into::into))
    }

    /// Ends the sessions but not the server.
    pub fn cut_sessions(&self) {
        for session in self.sessions() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-9", &session]).output();
        }
    }

    /// The processes of the sessions.
    pub fn sessions(&self) -> Vec<String> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().map(Into::into).collect()
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
