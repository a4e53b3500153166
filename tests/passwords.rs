//! Whose password it is: never another host's, and never one's whose key was taken as it came.

use std::process::Command;

use crate::lab::{Lab, is_root, set_mode, skip, wait_for};

/// A lab whose server takes root's password `secret` only, and a program that answers with it and notes what
/// it was asked.
fn lab() -> Option<Lab> {
    if !is_root() {
        skip("passwords of the lab's own need root");
        return None;
    }
    let mut lab = Lab::with_engine()?;
    lab.sshd.set_password("secret");
    lab.reconfigure(PASSWORDS);
    std::fs::write(lab.path("askpass"), "#!/bin/sh\necho \"$1\" >> \"$HOME/asked\"\necho secret\n").unwrap();
    set_mode(&lab.path("askpass"), 0o755);
    Some(lab)
}

const PASSWORDS: &str = "PasswordAuthentication yes\nPermitRootLogin yes\nPubkeyAuthentication no";

/// `dtunnel` with somebody who answers.
fn asked(lab: &Lab, args: &[&str]) -> Command {
    let mut command = lab.dtunnel(args);
    command.env("SSH_ASKPASS", lab.path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
    command
}

/// The questions for passwords that were asked so far, without what was told before them.
fn questions(lab: &Lab) -> Vec<String> {
    let text = std::fs::read_to_string(lab.path("home/asked")).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).filter(|line| line.ends_with("password:")).collect()
}

/// How often a password came to the server.
fn passwords_sent(lab: &Lab) -> usize {
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    log.matches("Accepted password").count() + log.matches("Failed password").count()
}

#[test]
fn the_password_of_a_hop_is_not_offered_to_the_host_behind_it() {
    let Some(lab) = lab() else { return };
    // The same account at the same address, once straight and once behind itself: two hosts, for all one knows.
    let port = lab.sshd.port;
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nremote = {:?}\n[profiles.far]\nhost = \"root@127.0.0.1:{port}\"\n\
         jump = \"root@127.0.0.1:{port}\"\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    crate::lab::succeeded(&asked(&lab, &["up", "far"]).output().unwrap());
    let question = "root@127.0.0.1's password:";
    assert_eq!(questions(&lab), [question, question], "each by itself");
    // Both are remembered by then, each for its place.
    lab.sshd.cut_sessions();
    wait_for("another login", || (passwords_sent(&lab) >= 3).then_some(()));
    wait_for("the tunnel", || (lab.status("far")["state"] == "up").then_some(()));
    assert_eq!(questions(&lab).len(), 2);
}

/// A shell in a session keyring of its own, with `dtunnel` and `$ASK dtunnel`.
fn with_keyring(lab: &Lab, text: &str) -> String {
    let mut command = Command::new("keyctl");
    lab.set_env(&mut command);
    let ask = format!("env SSH_ASKPASS={} SSH_ASKPASS_REQUIRE=force", lab.path("askpass").display());
    let text = format!("ASK='{ask}'; DTUNNEL={}\n{text}", env!("CARGO_BIN_EXE_dtunnel"));
    crate::lab::run(command.args(["session", "-", "setsid", "--wait", "sh", "-c", &text]))
}

#[test]
fn a_kept_password_is_not_offered_to_a_host_whose_key_was_accepted_just_now() {
    let Some(lab) = lab() else { return };
    for policy in ["accept-new", "no"] {
        lab.write_ssh_config(&format!("  StrictHostKeyChecking {policy}\n"));
        let _ = std::fs::remove_file(lab.path("known_hosts"));
        let before = passwords_sent(&lab);
        let said = with_keyring(
            &lab,
            "$ASK $DTUNNEL secret set lab --password -q
             $DTUNNEL secret list lab
             $DTUNNEL up lab -q 2>/dev/null; echo $?
             $DTUNNEL up lab -q; echo $?
             $DTUNNEL down lab -q",
        );
        let place = format!("password of root@[127.0.0.1]:{}", lab.sshd.port);
        // The key is known by the second time.
        assert_eq!(said.lines().collect::<Vec<_>>(), [place.as_str(), "4", "0"], "{policy}: {}", lab.log("lab"));
        assert_eq!(passwords_sent(&lab) - before, 1, "{policy}: only the second time");
    }
    assert!(lab.log("lab").contains("the host's key is new"), "{}", lab.log("lab"));
}

#[test]
fn a_kept_password_is_for_the_name_and_the_way_that_it_was_kept_for() {
    let Some(lab) = lab() else { return };
    let port = lab.sshd.port;
    lab.write_ssh_config("");
    let rest = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    let hosts = "Host one\n  HostKeyAlias customer-one\nHost two\n  HostKeyAlias customer-two\nHost far\n  ProxyJump one\n\
                 Host command\n  ProxyCommand nc %h %p\n";
    let own = format!("Host one two far command\n  HostName 127.0.0.1\n  Port {port}\n  User root\n");
    std::fs::write(lab.path("ssh_config"), format!("{hosts}{own}{rest}")).unwrap();
    let said = with_keyring(
        &lab,
        "for name in one far command; do $ASK $DTUNNEL secret set $name --password -q; done
         for name in one two far command; do echo $name: $($DTUNNEL secret list -q $name); done
         for name in one far command; do $DTUNNEL secret forget -q $name; done
         for name in one far command; do echo $name: $($DTUNNEL secret list -q $name); done",
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "one: password of root@customer-one");
    assert_eq!(lines[1], "two:");
    assert_eq!(lines[2], format!("far: password of root@[127.0.0.1]:{port} through one"));
    assert!(lines[3].starts_with(&format!("command: password of root@[127.0.0.1]:{port} through a ProxyCommand (")));
    assert_eq!(lines[4..], ["one:", "far:", "command:"]);
}

/// A host that is thrown away has no known key: what it got once is for that very key.
#[test]
fn a_password_in_memory_is_not_for_another_key_of_a_host_that_is_not_known() {
    let Some(mut lab) = lab() else { return };
    lab.write_ssh_config("  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n");
    crate::lab::succeeded(&asked(&lab, &["up", "lab"]).output().unwrap());
    lab.sshd.cut_sessions();
    wait_for("another login", || (passwords_sent(&lab) == 2).then_some(()));
    wait_for("the tunnel", || (lab.state() == "up").then_some(()));
    lab.sshd.stop();
    lab.keygen("host", "ed25519", "");
    lab.sshd.start_again();
    wait_for("the failure", || (lab.state() == "failed").then_some(()));
    assert_eq!(passwords_sent(&lab), 2, "nothing went to the other one");
    assert_eq!(questions(&lab).len(), 1);
}
