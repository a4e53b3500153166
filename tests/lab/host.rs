//! A host that is really far: network, mount, UTS and PID namespaces of its own, a /run, accounts and a home of its own.
//! None of its ports is this machine's, and none of its paths below /run, root's home or the lab's `run` and `home`. Needs
//! root.
//!
//! All hosts of a test process are plugged into one switch in a namespace of its own, to which this machine has one
//! interface: so that hosts come and go without a change of this machine's addresses and routes, which each dtunnel on it
//! notices (`src/tunnel/uptime/network.rs`).

use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::keeper::{Keeper, World};
use super::{is_root, run, succeeded, wait_for};

/// A host's /run, before anything is put there. Root's home is in it.
const RUN: &str =
    "mount -t tmpfs -o mode=755 none /run; mkdir -p /run/sshd /run/user/0 /run/lock; mkdir -m 700 /run/root";

pub struct Host {
    pub address: String,
    /// This machine's address towards it.
    pub near: String,
    /// None at a link of its own.
    pub address6: Option<String>,
    /// This machine's interface to it, where it is not plugged into the switch.
    link: Option<String>,
    world: World,
}

impl Host {
    /// Why there can be none, where there can be none.
    pub fn impossible() -> Option<&'static str> {
        static POSSIBLE: OnceLock<bool> = OnceLock::new();
        let possible = || {
            let mut attempt = Command::new("unshare");
            attempt.args(["--net", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/run"]);
            attempt.output().is_ok_and(|output| output.status.success())
        };
        if !is_root() {
            return Some("a host of its own needs root");
        }
        (!*POSSIBLE.get_or_init(possible)).then_some("a host of its own needs namespaces, which cannot be made here")
    }

    /// A host whose accounts are kept in `dir`; `clean_up` is a shell script for when all of it has ended.
    pub fn new(dir: &Path, clean_up: &str) -> Self {
        let (network, turn) = (Network::get(), turn());
        let (address, address6) = (network.switched(2 + turn % 500), network.switched6(2 + turn));
        let world = world(dir, clean_up);
        let port = format!("p{turn}");
        batch(
            network.switch.enter_network(),
            &[
                format!("link add {port} type veth peer name far netns {}", world.pid),
                format!("link set {port} master switch up"),
            ],
        );
        batch(
            world.enter_network(),
            &[
                format!("addr add {address}/23 dev far"),
                format!("addr add {address6}/64 dev far nodad"),
                "link set lo up".into(),
                "link set far up".into(),
            ],
        );
        Self { address, near: network.switched(1), address6: Some(address6), link: None, world }
    }

    /// A host at a link of its own, at whose near end this machine can have another address.
    pub fn with_own_link(dir: &Path, clean_up: &str) -> Self {
        let (network, turn) = (Network::get(), turn());
        let (near, address) = (network.linked(turn, 1), network.linked(turn, 2));
        let interface = format!("dtv{}-{turn}", std::process::id());
        let world = world(dir, clean_up);
        batch(
            Vec::new(),
            &[
                format!("link add {interface} type veth peer name far netns {}", world.pid),
                format!("addr add {near}/29 dev {interface}"),
                format!("link set {interface} up"),
            ],
        );
        batch(
            world.enter_network(),
            &[format!("addr add {address}/29 dev far"), "link set lo up".into(), "link set far up".into()],
        );
        Self { address, near, address6: None, link: Some(interface), world }
    }

    /// The words that make a command one of the host's.
    pub fn enter(&self) -> Vec<String> {
        self.world.enter()
    }

    /// Runs a shell script on the host, which must succeed.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let enter = self.enter();
        run(Command::new(&enter[0]).args(&enter[1..]).args(["sh", "-ec", script]))
    }

    /// Starts a server on the host.
    pub fn serve(&self, server: &[&str]) -> Keeper {
        let enter = self.enter();
        let words: Vec<&str> = enter.iter().map(String::as_str).chain(server.iter().copied()).collect();
        Keeper::start(&words, "")
    }

    /// Waits until something listens on a TCP port of the host.
    #[track_caller]
    pub fn until_it_listens(&self, port: u16) {
        // State 0A is LISTEN (proc_pid_net(5)).
        let line = format!(":{port:04X} 00000000:0000 0A ");
        let table = format!("/proc/{}/net/tcp", self.world.pid);
        wait_for("a server on the host", || std::fs::read_to_string(&table).unwrap().contains(&line).then_some(()));
    }

    /// Runs commands of ip(8) on the host.
    pub fn ip(&self, commands: &[String]) {
        batch(self.world.enter_network(), commands);
    }

    /// Gives the host an empty /run, and runs a shell script.
    #[track_caller]
    pub fn new_run(&self, script: &str) {
        self.run(&format!("{RUN}; {script}"));
    }

    /// From now on every packet is lost, without a word.
    pub fn cut(&self) {
        self.rule("-A");
    }

    pub fn restore(&self) {
        self.rule("-D");
    }

    fn rule(&self, action: &str) {
        self.run(&format!("for chain in INPUT OUTPUT; do iptables -w {action} $chain -j DROP; done"));
    }

    /// This machine gets another address on the host's own link, as in another network.
    pub fn change_address(&self) {
        let interface = self.link.as_ref().expect("a link of its own");
        let far: Ipv4Addr = self.address.parse().unwrap();
        let [before, after] = [u32::from(far) - 1, u32::from(far) + 1].map(Ipv4Addr::from);
        batch(
            Vec::new(),
            &[format!("addr del {before}/29 dev {interface}"), format!("addr add {after}/29 dev {interface}")],
        );
    }
}

/// Hosts are counted.
fn turn() -> u32 {
    static TURN: AtomicU32 = AtomicU32::new(0);
    TURN.fetch_add(1, Ordering::Relaxed)
}

/// The world of a host, without a network.
fn world(dir: &Path, clean_up: &str) -> World {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let others: String =
        passwd.lines().filter(|line| !line.starts_with("root:")).map(|line| format!("{line}\n")).collect();
    std::fs::write(dir.join("passwd"), format!("root:x:0:0:root:/run/root:/bin/sh\n{others}")).unwrap();
    std::fs::write(dir.join("shadow"), shadow("*")).unwrap();
    let at = dir.display();
    let hidden = ["run", "home"].map(|name| dir.join(name)).into_iter().filter(|path| path.is_dir());
    let hide: String = hidden.map(|path| format!("mount -t tmpfs none {}; ", path.display())).collect();
    let accounts = format!("mount --bind {at}/passwd /etc/passwd; mount --bind {at}/shadow /etc/shadow");
    World::start(&format!("hostname far; {RUN}; {hide}{accounts}"), clean_up)
}

/// The host's /etc/shadow, with root's hash.
fn shadow(hash: &str) -> String {
    format!("root:{hash}:19000:0:99999:7:::\n")
}

/// Gives root a password on the host whose accounts are in `dir`. It takes effect at the next login.
pub fn set_password(dir: &Path, password: &str) {
    let hash = run(Command::new("openssl").args(["passwd", "-6", password]));
    // Written in place: the host has this very file mounted.
    std::fs::write(dir.join("shadow"), shadow(hash.trim())).unwrap();
}

/// Runs commands of ip(8).
#[track_caller]
fn batch(enter: Vec<String>, commands: &[String]) {
    let words = [&enter[..], &["ip".into(), "-batch".into(), "-".into()]].concat();
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), (commands.join("\n") + "\n").as_bytes()).unwrap();
    succeeded(&child.wait_with_output().unwrap());
}

/// The network of this test process: a block of addresses, and the switch.
///
/// 198.18.0.0/15 and 2001:2::/48 are set aside for tests (RFC 2544, RFC 5180). A block has 1024 addresses, of which the
/// first half is the switch's and the other half that of links of their own.
struct Network {
    block: u32,
    switch: World,
    /// Its name shows other test processes that the block is taken.
    _claim: UnixListener,
}

impl Network {
    const BLOCKS: u32 = 128;

    fn get() -> &'static Self {
        static NETWORK: OnceLock<Network> = OnceLock::new();
        NETWORK.get_or_init(Self::new)
    }

    fn new() -> Self {
        // Abstract names are the network namespace's, as addresses are, and go with the process. Not all processes begin
        // with the same block: interfaces of one that was killed may be there for some moments more.
        let claim = |block: u32| {
            let name = SocketAddr::from_abstract_name(format!("dtunnel-lab-{block}")).unwrap();
            Some((block, UnixListener::bind_addr(&name).ok()?))
        };
        let first = std::process::id();
        let (block, claim) = (first..first + Self::BLOCKS)
            .find_map(|block| claim(block % Self::BLOCKS))
            .expect("a free block of addresses");
        let switch = World::start("", "");
        let network = Self { block, switch, _claim: claim };
        let (interface, near, near6) =
            (format!("dtl{}", std::process::id()), network.switched(1), network.switched6(1));
        batch(
            network.switch.enter_network(),
            &["link add switch type bridge mcast_snooping 0".into(), "link set switch up".into()],
        );
        batch(
            Vec::new(),
            &[
                format!("link add {interface} type veth peer name near netns {}", network.switch.pid),
                format!("addr add {near}/23 dev {interface}"),
                format!("addr add {near6}/64 dev {interface} nodad"),
                format!("link set {interface} up"),
            ],
        );
        batch(network.switch.enter_network(), &["link set near master switch up".into()]);
        network
    }

    /// An address at the switch.
    fn switched(&self, number: u32) -> String {
        address(self.block * 1024 + number)
    }

    fn switched6(&self, number: u32) -> String {
        format!("2001:2:0:{:x}::{number:x}", self.block)
    }

    /// An address of a link, of which each has eight.
    fn linked(&self, link: u32, number: u32) -> String {
        address(self.block * 1024 + 512 + link % 64 * 8 + number)
    }
}

/// An address in 198.18.0.0/15.
fn address(number: u32) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number).to_string()
}
