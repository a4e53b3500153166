//! OpenSSH's real server, on a far host or on a loopback port of this machine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use super::host::Host;
use super::keeper::{Keeper, child_of};
use super::{run, wait_for};

pub struct Sshd {
    pub port: u16,
    /// Where it listens.
    pub address: String,
    dir: PathBuf,
    keeper: Option<Keeper>,
    /// Where it runs; on this machine where there is none.
    host: Option<Arc<Host>>,
}

impl Sshd {
    /// Starts a server whose keys and configuration are in `dir`.
    pub fn start(dir: &Path, options: &str, host: Option<Arc<Host>>) -> Self {
        let host_key = dir.join("host");
        if !host_key.exists() {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host_key));
        }
        let address = host.as_ref().map_or("127.0.0.1", |host| &host.address).into();
        let mut sshd = Self { port: free_port(), address, dir: dir.into(), keeper: None, host };
        sshd.configure(options);
        sshd.start_again();
        sshd
    }

    /// What known_hosts calls it.
    pub fn name(&self) -> String {
        format!("[{}]:{}", self.address, self.port)
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

    /// Sends a signal to the server and all its sessions.
    pub fn signal(&self, signal: &str) {
        let all = [vec![self.pid()], self.sessions()].concat();
        // A session may have ended by itself.
        let _ = Command::new("kill").arg(signal).args(all).status();
    }

    /// Sends a signal to the sessions only.
    pub fn signal_sessions(&self, signal: &str) {
        let _ = Command::new("kill").arg(signal).args(self.sessions()).status();
    }

    /// Ends the server and all its sessions.
    pub fn stop(&mut self) {
        let process = self.process();
        if let Some(keeper) = self.keeper.take() {
            keeper.end_with(process);
        }
    }

    /// Starts it on the same port.
    pub fn start_again(&mut self) {
        self.stop();
        let (config, log) = (self.dir.join("sshd_config"), self.dir.join("sshd.log"));
        let sshd = ["/usr/sbin/sshd", "-D", "-f", config.to_str().unwrap(), "-E", log.to_str().unwrap()];
        let _ = std::fs::remove_file(self.dir.join("sshd.pid"));
        self.keeper = Some(match &self.host {
            // The first process of one more PID namespace: its sessions end with it, those that have just begun, too.
            Some(host) => host.serve(&[&["unshare", "--pid", "--fork"][..], &sshd].concat()),
            None => {
                if super::is_root() {
                    std::fs::create_dir_all("/run/sshd").unwrap();
                }
                Keeper::start(&sshd, "")
            }
        });
        self.until_it_listens();
    }

    /// sshd writes its pid once it listens. (Asking the port instead may, by chance, connect it to itself.)
    fn until_it_listens(&self) {
        wait_for("sshd", || std::fs::read_to_string(self.dir.join("sshd.pid")).ok()?.ends_with('\n').then_some(()));
    }

    /// Its process, as this machine counts.
    fn pid(&self) -> String {
        self.process().expect("a server that runs").to_string()
    }

    fn process(&self) -> Option<u32> {
        let started = self.keeper.as_ref().and_then(Keeper::pid)?;
        // On a host: nsenter, unshare, sshd.
        let steps = if self.host.is_some() { 2 } else { 0 };
        (0..steps).try_fold(started, |pid, _| child_of(pid))
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
        // What a session has left running is the server's child, too, on a host.
        let is_session = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("sshd"))
        };
        children.split_whitespace().filter(is_session).map(Into::into).collect()
    }
}

/// A port that was free a moment ago, and another one each time. It is none that the system gives to whoever asks for any
/// port, or connects.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 10_000) as u16;
    let numbers = || Some(10_000 + (first + NEXT.fetch_add(1, Relaxed)) % 10_000);
    std::iter::from_fn(numbers).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
