//! A link to a network namespace of its own: two virtual interfaces, which can be cut and given other
//! addresses. Nothing outside the two ends is touched. Needs root.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::keeper::Keeper;
use super::{is_root, run, skip};

static TURN: AtomicU32 = AtomicU32::new(0);

pub struct Link {
    pub namespace: String,
    /// The far end's address.
    pub far: String,
    /// The interface at this end.
    interface: String,
    subnet: String,
    _keeper: Keeper,
}

impl Link {
    /// None where there can be none.
    pub fn new() -> Option<Self> {
        if !is_root() {
            skip("network namespaces need root");
            return None;
        }
        let turn = TURN.fetch_add(1, Ordering::Relaxed);
        let (pid, id) = (std::process::id(), std::process::id() % 200);
        let (namespace, interface) = (format!("dtl{pid}-{turn}"), format!("dtv{pid}-{turn}"));
        let subnet = format!("10.{}.{turn}", id + 30);
        let keeper = Keeper::at_the_end(&format!("ip link del {interface}; ip netns del {namespace}"));
        let link = Self { far: format!("{subnet}.2"), namespace, interface, subnet, _keeper: keeper };
        let ip = |words: &str| drop(run(Command::new("ip").args(words.split(' '))));
        ip(&format!("netns add {}", link.namespace));
        ip(&format!("link add {} type veth peer name far netns {}", link.interface, link.namespace));
        ip(&format!("addr add {}.1/24 dev {}", link.subnet, link.interface));
        ip(&format!("link set {} up", link.interface));
        ip(&format!("-n {} addr add {}/24 dev far", link.namespace, link.far));
        ip(&format!("-n {} link set far up", link.namespace));
        ip(&format!("-n {} link set lo up", link.namespace));
        Some(link)
    }

    fn rule(&self, action: &str) {
        for chain in ["INPUT", "OUTPUT"] {
            let words = ["netns", "exec", &self.namespace, "iptables", "-w", action, chain, "-j", "DROP"];
            run(Command::new("ip").args(words));
        }
    }

    /// From now on every packet is lost, without a word.
    pub fn cut(&self) {
        self.rule("-A");
    }

    pub fn restore(&self) {
        self.rule("-D");
    }

    /// This machine gets another address on the link, as in another network.
    pub fn change_address(&self) {
        for (action, host) in [("del", 1), ("add", 77)] {
            let address = format!("{}.{host}/24", self.subnet);
            run(Command::new("ip").args(["addr", action, &address, "dev", &self.interface]));
        }
    }
}
