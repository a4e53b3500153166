//! New settings that lead to another host, while something is still under way to the one before: nothing of that is used.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use crate::lab::{Lab, connect, remote, wait_for};

/// Two accounts of one host, each with a server that answers with its name. On the way to the first one stands a gate.
struct Two {
    lab: Lab,
    /// Who was asked something, beside pings.
    asked: Arc<Mutex<Vec<&'static str>>>,
}

impl Two {
    fn new() -> Self {
        let lab = Lab::new("");
        let asked = Arc::<Mutex<Vec<_>>>::default();
        for name in ["first", "second"] {
            let asked = asked.clone();
            remote::serve(&lab.path(&format!("remote/{name}")), move |mut stream| {
                asked.lock().unwrap().push(name);
                let _ = stream.write_all(name.as_bytes());
                // It stays until its client goes.
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
        let gate = format!(
            "sh -c 'touch {0}/asked; until [ -e {0}/open ]; do sleep 0.05; done; exec nc %h %p'",
            lab.dir.path().display()
        );
        lab.write_ssh_config("");
        let config = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
        let gated = format!("Host lab\n  ProxyCommand {gate}\n{config}");
        std::fs::write(lab.path("ssh_config"), gated).unwrap();
        let two = Self { lab, asked };
        two.leads_to("lab", "first");
        two
    }

    fn leads_to(&self, host: &str, socket: &str) {
        let (ssh_config, remote) = (self.lab.path("ssh_config"), self.lab.path(&format!("remote/{socket}")));
        self.lab.write_config(&format!(
            "ssh_config = {ssh_config:?}\n[profiles.p]\nhost = \"{host}\"\nremote = {remote:?}\nwait = \"60s\"\n"
        ));
    }

    fn open(&self, is_open: bool) {
        let _ = std::fs::remove_file(self.lab.path("asked"));
        if is_open {
            std::fs::write(self.lab.path("open"), "").unwrap();
        } else {
            std::fs::remove_file(self.lab.path("open")).unwrap();
        }
    }

    fn until_somebody_is_at_the_gate(&self) {
        wait_for("somebody at the gate", || self.lab.path("asked").exists().then_some(()));
    }

    fn begins(&self, args: &[&str]) -> Child {
        self.lab.dtunnel(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What a client gets that asks for something; nothing where it is cut.
    fn answer(mut client: UnixStream) -> String {
        let mut all = [0; 6];
        match client.read(&mut all) {
            Ok(size) => String::from_utf8_lossy(&all[..size]).into_owned(),
            Err(_) => String::new(),
        }
    }

    fn asks(&self) -> UnixStream {
        let mut client = connect(&self.lab.socket("p"));
        client.write_all(b"POST /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        client
    }

    fn leads_to_the_second_only(&self) {
        assert_eq!(self.lab.status("p")["state"], "up");
        assert_eq!(Self::answer(self.asks()), "second");
        assert!(!self.asked.lock().unwrap().contains(&"first"));
    }
}

#[test]
fn a_login_to_the_host_of_before_that_is_under_way_is_not_used() {
    let two = Two::new();
    let mut up = two.begins(&["up", "p"]);
    two.until_somebody_is_at_the_gate();
    two.leads_to("lab2", "second");
    two.lab.ok(&["reload", "p"]);
    two.open(true);
    assert!(up.wait().unwrap().success());
    two.leads_to_the_second_only();
}

#[test]
fn a_request_that_waits_for_the_host_of_before_is_not_carried_out_on_the_next_one() {
    let two = Two::new();
    two.open(true);
    two.lab.ok(&["up", "p"]);
    two.open(false);
    two.lab.sshd.cut_sessions();
    two.until_somebody_is_at_the_gate();
    let waits = two.asks();
    wait_for("it to wait", || (two.lab.status("p")["flows_open"] == 1).then_some(()));
    two.leads_to("lab2", "second");
    two.lab.ok(&["reload", "p"]);
    two.open(true);
    assert_eq!(Two::answer(waits), "");
    assert!(two.asked.lock().unwrap().is_empty());
    two.leads_to_the_second_only();
}

#[test]
fn a_further_connection_to_the_host_of_before_that_is_under_way_is_not_used() {
    let two = Two::new();
    two.open(true);
    two.lab.ok(&["up", "p"]);
    two.open(false);
    // More than one connection is to carry.
    let clients: Vec<UnixStream> = (0..40).map(|_| two.asks()).collect();
    two.until_somebody_is_at_the_gate();
    two.leads_to("lab2", "second");
    two.lab.ok(&["reload", "p"]);
    drop(clients);
    two.asked.lock().unwrap().clear();
    two.open(true);
    for _ in 0..50 {
        two.leads_to_the_second_only();
    }
}
