//! What is in the way is said, by whoever knows it: keys that were not used, programs on the way, the server.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::lab::pty::Person;
use crate::lab::{Lab, set_mode, wait_for};

/// A lab whose ssh_config names these identity files, in the lab's directory.
fn with_keys(names: &[&str], sshd: &str) -> Lab {
    let lab = Lab::new(sshd);
    write_keys(&lab, names);
    lab
}

fn write_keys(lab: &Lab, names: &[&str]) {
    lab.write_ssh_config("");
    let text = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    let own = format!("  IdentityFile {}\n", lab.path("user").display());
    let files: String = names.iter().map(|name| format!("  IdentityFile {}\n", lab.path(name).display())).collect();
    std::fs::write(lab.path("ssh_config"), text.replace(&own, &files)).unwrap();
}

#[test]
fn a_key_that_others_may_read_is_named_with_the_line_to_type() {
    let lab = with_keys(&["user"], "");
    set_mode(&lab.path("user"), 0o644);
    let stderr = lab.fails(4, &["up", "lab"]);
    let key = lab.path("user").display().to_string();
    assert!(stderr.contains(&format!("skipped {key}: others may read it (mode 0644)")), "{stderr}");
    assert!(stderr.contains(&format!("hint: chmod 600 {key}\n")), "{stderr}");
    // doctor says the same.
    let output = lab.run(&["doctor", "lab"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("others may read it (mode 0644)") && text.contains(&format!("→ chmod 600 {key}")), "{text}");
}

#[test]
fn keys_that_are_not_there_or_closed_or_refused_are_named() {
    let lab = with_keys(&["missing", "closed", "other"], "");
    lab.keygen("closed", "ed25519", "a passphrase");
    lab.authorize("closed");
    lab.keygen("other", "ed25519", "");
    let stderr = lab.fails(4, &["up", "lab"]);
    let path = |name: &str| lab.path(name).display().to_string();
    assert!(stderr.contains(&format!("skipped {}: there is no such file", path("missing"))), "{stderr}");
    assert!(stderr.contains(&format!("the passphrase of {} is needed", path("closed"))), "{stderr}");
    assert!(stderr.contains(&format!("the server refused {}", path("other"))), "{stderr}");
    assert!(!stderr.contains("was tried"), "{stderr}");
    // A key that is in nobody's authorized_keys.
    write_keys(&lab, &["other"]);
    let stderr = lab.fails(4, &["up", "lab"]);
    let (port, me) = (lab.sshd.port, crate::lab::whoami());
    let line = format!("ssh-copy-id -i {}.pub -p {port} {me}@{}", path("other"), lab.sshd.address);
    assert!(stderr.contains(&line), "{stderr}");
    // An agent that is named and not there.
    lab.write_ssh_config(&format!("  IdentityAgent {}\n", path("no-agent")));
    lab.authorize("other");
    let stderr = lab.fails(4, &["up", "lab"]);
    assert!(stderr.contains(&format!("skipped the ssh-agent at {}", path("no-agent"))), "{stderr}");
    // The files that ssh looks for by itself need not be there.
    let text = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    std::fs::write(
        lab.path("ssh_config"),
        text.replace(&format!("  IdentityFile {}/user\n", lab.dir.path().display()), ""),
    )
    .unwrap();
    let stderr = lab.fails(4, &["up", "lab"]);
    assert!(!stderr.contains("id_rsa"), "{stderr}");
}

#[test]
fn at_a_terminal_the_keys_are_told_before_a_password_is_asked_for() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.set_password("secret");
    lab.reconfigure("PasswordAuthentication yes\nPermitRootLogin yes\n");
    set_mode(&lab.path("user"), 0o640);
    let mut person = Person::types(&lab, &format!("{} up lab", env!("CARGO_BIN_EXE_dtunnel")));
    person.sees("password: ");
    let screen = person.screen();
    let told = format!("skipped {0}: others may read it (mode 0640); chmod 600 {0}", lab.path("user").display());
    assert!(screen.contains(&told), "{screen}");
    person.presses("secret\n");
    assert!(person.leaves().0.success());
}

#[test]
fn what_a_proxy_command_says_is_in_the_error_and_the_log() {
    let lab = Lab::new("");
    for (command, code, how, said) in [
        ("no-such-program --to %h", 6, "ended with status 127", "no-such-program"),
        (
            "sh -c 'echo first >&2; echo your session has expired >&2; exit 3'",
            6,
            "ended with status 3",
            "your session has expired",
        ),
        // Bounded, and safe.
        (
            "sh -c 'seq 100000 >&2; printf \"\\033[2Jlog in again\\n\" >&2; exit 1'",
            6,
            "ended with status 1",
            "[2Jlog in again",
        ),
    ] {
        lab.write_ssh_config(&format!("  ProxyCommand {command}\n"));
        let stderr = lab.fails(code, &["up", "lab"]);
        assert!(stderr.contains(how) && stderr.contains(said), "{stderr}");
        assert!(stderr.len() < 6000 && !stderr.contains('\u{1b}'), "{stderr}");
        assert!(!stderr.contains("is it an SSH server"), "{stderr}");
        assert!(lab.log("lab").contains(said), "{}", lab.log("lab"));
    }
}

#[test]
fn a_login_page_is_shown_while_it_is_waited_for() {
    let lab = Lab::new("");
    lab.write_ssh_config(
        "  ProxyCommand sh -c 'echo to log in visit https://sso.example/device >&2; exec sleep 600'\n",
    );
    let mut person = Person::types(&lab, &format!("{} up lab --timeout 60s", env!("CARGO_BIN_EXE_dtunnel")));
    person.sees("to log in visit https://sso.example/device");
    // And to doctor.
    let mut child = lab.dtunnel(["doctor", "lab"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let (mut stderr, mut text) = (child.stderr.take().unwrap(), String::new());
    let mut buffer = [0; 1024];
    wait_for("the page", || {
        let read = stderr.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        text.contains("https://sso.example/device").then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn without_a_common_algorithm_both_lists_are_told() {
    let lab = Lab::new("KexAlgorithms diffie-hellman-group14-sha1");
    let stderr = lab.fails(6, &["up", "lab"]);
    assert!(stderr.contains("no key exchange in common"), "{stderr}");
    assert!(stderr.contains("the server offers diffie-hellman-group14-sha1"), "{stderr}");
    assert!(stderr.contains("dtunnel offers mlkem768x25519-sha256, "), "{stderr}");
    assert!(stderr.contains("`KexAlgorithms +diffie-hellman-group14-sha1`"), "{stderr}");
}

#[test]
fn an_http_server_on_the_port_is_said_to_be_one() {
    let lab = Lab::new("");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // As real ones do, it speaks only when it is spoken to.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut line = [0; 64];
                let _ = stream.read(&mut line);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n");
            });
        }
    });
    let target = format!("u@127.0.0.1:{port}");
    let said = format!("an HTTP server answers on 127.0.0.1 port {port}, not an SSH server");
    let stderr = lab.fails(6, &["up", &target]);
    assert!(stderr.contains(&said) && stderr.contains("hint: name the SSH server's port"), "{stderr}");
}

#[test]
fn doctor_shows_the_key_exchange_of_a_login_that_failed() {
    let lab = Lab::new("");
    lab.keygen("other", "ed25519", "");
    lab.authorize("other");
    let output = lab.run(&["doctor", "lab", "--json"]);
    assert_eq!(output.status.code(), Some(4));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let detail = |id: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == id).unwrap()["detail"].as_str().unwrap().to_owned()
    };
    assert!(detail("key-exchange").contains("25519") && detail("key-exchange").contains("gcm"), "{report:#}");
    assert_eq!(detail("host-key"), "ssh-ed25519, trusted");
    assert!(detail("login").contains("the server refused"), "{report:#}");
}

/// A hole in the path: what is small passes, what is large does not, and nobody says so.
#[test]
fn large_packets_that_are_lost_after_the_greeting_are_named_with_the_test_to_make() {
    let Some(lab) = Lab::far() else { return };
    let (path, address) = (lab.path("ssh_config"), lab.sshd.address.clone());
    lab.write_config(&format!("ssh_config = {path:?}\n[defaults]\nconnect_timeout = \"2s\"\n"));
    let up = ["up", "lab", "--remote", "/nonexistent/docker.sock"];
    let filter = |action: &str, chain: &str| {
        lab.host().run(&format!("iptables -w {action} {chain} -p tcp -m length --length 600:65535 -j DROP"));
    };
    let proxy = format!("  ProxyCommand nc {address} {}\n", lab.sshd.port);
    for (chain, options) in [("OUTPUT", ""), ("INPUT", ""), ("OUTPUT", &proxy)] {
        lab.write_ssh_config(options);
        filter("-A", chain);
        let stderr = lab.fails(6, &up);
        assert!(stderr.contains("did not answer within 2s (SSH key exchange, after its greeting)"), "{stderr}");
        assert!(stderr.contains(&format!("`ping -M do -s 1472 {address}`")), "{stderr}");
        filter("-D", chain);
        // The way is in order, and the Engine is not there.
        lab.fails(7, &up);
    }
    // Whoever is only silent is no such hole.
    lab.write_ssh_config("");
    lab.sshd.signal("-STOP");
    let stderr = lab.fails(6, &up);
    lab.sshd.signal("-CONT");
    assert!(stderr.contains("(SSH handshake)"), "{stderr}");
}
