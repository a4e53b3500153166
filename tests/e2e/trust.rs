//! Trusting hosts: certificates, several keys, orders, other servers.

use std::process::Command;

use crate::lab::pty::Person;
use crate::lab::{Lab, run, wait_for};

/// A lab whose sshd shows a host certificate signed by the authority `ca`; `ADDRESS` is the host's.
fn with_host_certificate(options: &[&str]) -> Option<Lab> {
    let mut lab = Lab::with_engine()?;
    lab.keygen("ca", "ed25519", "");
    let options: Vec<String> = options.iter().map(|option| option.replace("ADDRESS", &lab.sshd.address)).collect();
    let options = options.iter().map(String::as_str);
    lab.certify("ca", "host", &["-h"].into_iter().chain(options).collect::<Vec<_>>());
    lab.reconfigure("HostCertificate {dir}/host-cert.pub");
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    Some(lab)
}

pub fn trust(lab: &Lab, lines: &[(&str, &str)]) {
    let line = |(patterns, key): &(&str, &str)| {
        format!("{patterns} {}", std::fs::read_to_string(lab.path(&format!("{key}.pub"))).unwrap())
    };
    std::fs::write(lab.path("known_hosts"), lines.iter().map(line).collect::<String>()).unwrap();
}

#[test]
fn a_host_certificate_of_a_known_authority_is_trusted() {
    for principals in ["ADDRESS", "elsewhere,ADDRESS"] {
        let Some(lab) = with_host_certificate(&["-n", principals]) else { return };
        lab.fails(5, &["up", "lab"]);
        trust(&lab, &[("@cert-authority *", "ca")]);
        lab.up_and_down();
        trust(&lab, &[("@cert-authority *.example.com", "ca")]);
        lab.fails(5, &["up", "lab"]);
    }
}

#[test]
fn a_host_certificate_that_is_not_good_enough_is_only_a_key() {
    let bad: [&[&str]; 4] = [
        &["-n", "elsewhere"],
        // A name, and no pattern.
        &["-n", "198.18.*,198.19.*"],
        &["-n", "ADDRESS", "-V", "20200101:20200102"],
        &["-n", "ADDRESS", "-O", "critical:x=y"],
    ];
    for options in bad {
        let Some(lab) = with_host_certificate(options) else { return };
        trust(&lab, &[("@cert-authority *", "ca")]);
        let stderr = lab.fails(5, &["up", "lab"]);
        assert!(stderr.contains("is not known"), "{options:?}: {stderr}");
        assert!(lab.log("lab").contains("certificate of") && lab.log("lab").contains("was not accepted"));
        // The plain key may still be known.
        trust(&lab, &[("@cert-authority *", "ca"), (&lab.sshd.name(), "host")]);
        lab.up_and_down();
    }
}

#[test]
fn a_revoked_authority_or_key_is_not_trusted() {
    let Some(lab) = with_host_certificate(&["-n", "ADDRESS"]) else { return };
    trust(&lab, &[("@cert-authority *", "ca"), ("@revoked *", "ca")]);
    lab.fails(5, &["up", "lab"]);
    trust(&lab, &[("@cert-authority *", "ca"), ("@revoked *", "host")]);
    assert!(lab.fails(5, &["up", "lab"]).contains("marked as revoked"));
    // By itself, too: ssh asks for the certificate, and so do we. Nothing is written down.
    for policy in ["accept-new", "no", "ask"] {
        lab.write_ssh_config(&format!("  StrictHostKeyChecking {policy}\n"));
        trust(&lab, &[("@revoked *", "ca")]);
        let before = std::fs::read_to_string(lab.path("known_hosts")).unwrap();
        assert!(lab.fails(5, &["up", "lab"]).contains("marked as revoked"), "{policy}");
        assert_eq!(std::fs::read_to_string(lab.path("known_hosts")).unwrap(), before, "{policy}");
    }
}

#[test]
fn revoked_host_keys_are_read_from_a_list_and_what_cannot_be_read_revokes_all() {
    let Some(lab) = with_host_certificate(&["-n", "ADDRESS"]) else { return };
    trust(&lab, &[("@cert-authority *", "ca")]);
    let public = |key: &str| std::fs::read_to_string(lab.path(&format!("{key}.pub"))).unwrap();
    let list = lab.path("revoked");
    lab.write_ssh_config(&format!("  StrictHostKeyChecking yes\n  RevokedHostKeys {}\n", list.display()));
    assert!(lab.fails(5, &["up", "lab"]).contains("cannot be read"), "a file that is missing");
    for revoked in ["host", "ca"] {
        std::fs::write(&list, format!("# stolen\n\n{}", public(revoked))).unwrap();
        let stderr = lab.fails(5, &["up", "lab"]);
        assert!(stderr.contains("marked as revoked") && stderr.contains(list.to_str().unwrap()), "{stderr}");
    }
    std::fs::write(&list, "nonsense\n").unwrap();
    assert!(lab.fails(5, &["up", "lab"]).contains("line 1"));
    std::fs::remove_file(&list).unwrap();
    // Key revocation lists: of the key, of the authority, of the certificate by its id; of others; and a broken one.
    std::fs::write(lab.path("by-id"), "id: the-id\n").unwrap();
    let revoke = |what: &[&str]| {
        let _ = std::fs::remove_file(&list);
        run(Command::new("ssh-keygen").current_dir(lab.dir.path()).args(["-q", "-k", "-f", "revoked"]).args(what));
    };
    for what in [&["host.pub"][..], &["ca.pub"], &["-s", "ca.pub", "by-id"]] {
        revoke(what);
        assert!(lab.fails(5, &["up", "lab"]).contains("marked as revoked"), "{what:?}");
    }
    revoke(&["user.pub"]);
    lab.up_and_down();
    let whole = std::fs::read(&list).unwrap();
    std::fs::write(&list, &whole[..whole.len() - 1]).unwrap();
    assert!(lab.fails(5, &["up", "lab"]).contains("cut short"));
    std::fs::write(&list, public("user")).unwrap();
    lab.up_and_down();
}

#[test]
fn a_revocation_that_cannot_be_read_lets_no_key_pass() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_ssh_config("  StrictHostKeyChecking accept-new\n");
    let (file, key) = (lab.path("known_hosts"), std::fs::read_to_string(lab.path("host.pub")).unwrap());
    let key = key.trim_end();
    let fails = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let said = lab.fails(5, &["up", "lab"]);
        assert!(std::fs::read(&file).unwrap() == text.as_bytes(), "nothing was added");
        said
    };
    // Behind more than is read.
    let comments = format!("# {}\n", "x".repeat(1 << 20)).repeat(33);
    let said = fails(&format!("{comments}@revoked * {key}\n"));
    assert!(said.contains("known_hosts has more than 33554432 bytes"), "{said}");
    // ssh reads a line up to the NUL.
    assert!(fails(&format!("@revoked * {key}\0\n")).contains("marked as revoked"));
    let said = fails(&format!("# c\n@revoked * {}\n", &key[..60]));
    assert!(said.contains("known_hosts:2 begins with @revoked and has no key that can be read"), "{said}");
    std::fs::write(&file, format!("@revoked elsewhere {}\n", &key[..60])).unwrap();
    lab.up_and_down();
}

#[test]
fn what_is_set_for_a_hop_counts_for_the_hop() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.keygen("other", "ed25519", "");
    let (port, user) = (lab.sshd.port, crate::lab::whoami());
    let through = |settings: &str| {
        lab.write_ssh_config("");
        let rest = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
        let hosts = format!(
            "Host lab\n  ProxyJump hop\nHost hop\n  HostName {}\n  Port {port}\n  User {user}\n{settings}\n",
            lab.sshd.address
        );
        std::fs::write(lab.path("ssh_config"), hosts + &rest).unwrap();
    };
    through("");
    lab.up_and_down();
    through(&format!("  RevokedHostKeys {}", lab.path("host.pub").display()));
    assert!(lab.fails(5, &["up", "lab"]).contains("marked as revoked"));
    through("  RevokedHostKeys /nonexistent");
    lab.fails(5, &["up", "lab"]);
    through("  KnownHostsCommand /bin/true");
    assert!(lab.fails(5, &["up", "lab"]).contains("KnownHostsCommand"));
    // A changed key of the hop's, and a hop that is not to be asked about.
    through("  HostKeyAlias the-hop\n  StrictHostKeyChecking no");
    let known = std::fs::read_to_string(lab.path("known_hosts")).unwrap();
    let other = std::fs::read_to_string(lab.path("other.pub")).unwrap();
    std::fs::write(lab.path("known_hosts"), format!("{known}the-hop {other}")).unwrap();
    assert!(lab.fails(5, &["up", "lab"]).contains("CHANGED"));
    through("  VerifyHostKeyDNS yes");
    lab.up_and_down();
    assert!(lab.log("lab").contains("`verifyhostkeydns` for hop"), "{}", lab.log("lab"));
}

#[test]
fn a_host_behind_a_known_hosts_command_is_not_trusted() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.up_and_down();
    lab.write_ssh_config("  KnownHostsCommand /bin/true\n");
    let stderr = lab.fails(5, &["up", "lab", "--carrier", "native"]);
    assert!(stderr.contains("KnownHostsCommand"), "{stderr}");
}

#[test]
fn the_known_one_of_several_host_keys_is_asked_for() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.keygen("host_rsa", "rsa", "");
    lab.keygen("host_ecdsa", "ecdsa", "");
    lab.reconfigure("HostKey {dir}/host_rsa\nHostKey {dir}/host_ecdsa");
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    let name = lab.sshd.name();
    for known in ["host_rsa", "host_ecdsa", "host"] {
        trust(&lab, &[(&name, known)]);
        lab.up_and_down();
    }
    // As ssh: with accept-new or no, too, which would otherwise take whatever comes first.
    for policy in ["accept-new", "no", "ask"] {
        lab.write_ssh_config(&format!("  StrictHostKeyChecking {policy}\n"));
        trust(&lab, &[(&name, "host_rsa")]);
        lab.up_and_down();
    }
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    // As ssh: a host on another port may be known by its plain name; an alias is looked up as it is.
    trust(&lab, &[(&lab.sshd.address, "host")]);
    lab.up_and_down();
    trust(&lab, &[("the-alias", "host_ecdsa")]);
    lab.fails(5, &["up", "lab"]);
    lab.write_ssh_config("  StrictHostKeyChecking yes\n  HostKeyAlias the-alias\n");
    lab.up_and_down();
}

#[test]
fn a_server_that_only_has_rsa_signs_with_sha_2() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.keygen_with("host", "", &["-t", "rsa"]);
    lab.sshd.start_again();
    lab.up_and_down();
    lab.reconfigure("HostKeyAlgorithms ssh-rsa");
    let stderr = lab.fails(6, &["up", "lab"]);
    assert!(stderr.contains("no type of host key in common"), "SHA-1 is not offered: {stderr}");
    lab.write_ssh_config("  HostKeyAlgorithms +ssh-rsa\n");
    lab.up_and_down();
}

#[test]
fn dropbear_is_a_server_too() {
    let Some(lab) = Lab::with_engine() else { return };
    let key = lab.path("dropbear_key");
    run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&key));
    // It reads authorized_keys in the account's home only.
    lab.host().run(&format!(
        "umask 077; mkdir ~root/.ssh; cp {}/user.pub ~root/.ssh/authorized_keys",
        lab.dir.path().display()
    ));
    let address = &lab.sshd.address;
    let words = ["dropbear", "-F", "-E", "-s", "-P", "/run/dropbear.pid", "-p", &format!("{address}:2222"), "-r"];
    let _dropbear = lab.host().serve(&[&words[..], &[key.to_str().unwrap()]].concat());
    lab.host().until_it_listens(2222);
    // dropbear forwards no sockets: a command on the host stands in.
    let target = format!("root@{address}:2222");
    lab.ok(&["up", &target]);
    assert_eq!(lab.status(&target)["transport"], "exec: docker system dial-stdio");
    lab.ok(&["down", &target]);
    // And through it, to a server that has.
    let (ssh_config, socket) = (lab.path("ssh_config"), lab.remote_socket());
    lab.write_config(&format!(
        "ssh_config = {ssh_config:?}\n[profiles.far]\nhost = \"lab\"\nremote = {socket:?}\njump = {target:?}\n"
    ));
    lab.ok(&["up", "far"]);
    run(&mut lab.docker("far", &["ps"]));
}

#[test]
fn rotated_keys_of_a_trusted_host_are_learnt() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.keygen("host_new", "ed25519", "");
    lab.reconfigure("HostKey {dir}/host\nHostKey {dir}/host_new");
    let known = || std::fs::read_to_string(lab.path("known_hosts")).unwrap_or_default();
    // Off, as it is by default with a known_hosts file of one's own.
    lab.up_and_down();
    assert_eq!(known().lines().count(), 1);
    lab.write_ssh_config("  UpdateHostKeys yes\n");
    lab.keygen("host_rsa", "rsa", "");
    lab.reconfigure("HostKey {dir}/host\nHostKey {dir}/host_rsa");
    let known = || std::fs::read_to_string(lab.path("known_hosts")).unwrap_or_default();
    lab.ok(&["up", "lab"]);
    wait_for("the new key", || known().contains("ssh-rsa").then_some(()));
    lab.ok(&["down", "lab"]);
    // The old key is gone: the new one is trusted.
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    std::fs::rename(lab.path("host_rsa"), lab.path("host")).unwrap();
    lab.sshd.configure("");
    lab.sshd.start_again();
    lab.up_and_down();
}

/// A world whose server has the keys `host` and `second`; there is a key `gone` as well.
fn with_two_keys() -> Option<Lab> {
    let mut lab = Lab::with_engine()?;
    for (name, kind) in [("second", "ecdsa"), ("gone", "rsa"), ("ca", "ed25519")] {
        lab.keygen(name, kind, "");
    }
    lab.reconfigure("HostKey {dir}/second");
    Some(lab)
}

/// Writes known_hosts: names (`NAME` is the server's) and keys.
fn know(lab: &Lab, lines: &[(&str, &str)]) {
    let name = lab.sshd.name();
    let line = |(names, key): &(&str, &str)| {
        let key = std::fs::read_to_string(lab.path(&format!("{key}.pub"))).unwrap();
        let key = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
        format!("{} {key}\n", names.replace("NAME", &name))
    };
    let text: String = lines.iter().map(line).collect();
    std::fs::write(lab.path("known_hosts"), format!("# mine\n{text}")).unwrap();
}

fn known(lab: &Lab) -> Vec<String> {
    let text = std::fs::read_to_string(lab.path("known_hosts")).unwrap_or_default();
    text.lines().map(Into::into).collect()
}

#[test]
fn keys_that_a_host_has_no_more_are_forgotten_as_by_ssh() {
    let Some(lab) = with_two_keys() else { return };
    lab.write_ssh_config("  UpdateHostKeys yes\n");
    let cases: [(&[(&str, &str)], bool); 9] = [
        (&[("NAME", "host")], true),
        (&[("NAME", "gone"), ("NAME", "host"), ("elsewhere", "ca")], true),
        (&[("NAME", "host"), ("NAME,10.0.0.7", "gone"), ("NAME", "second")], true),
        (&[("NAME", "host"), ("NAME", "second")], false),
        // Written by hand, marked, or another's, too: it is left as it is.
        (&[("NAME", "host"), ("NAME,a,b", "gone")], false),
        (&[("NAME", "host"), ("[198.*]:*", "gone")], false),
        (&[("NAME", "host"), ("NAME", "gone"), ("elsewhere", "gone")], false),
        (&[("NAME", "host"), ("NAME", "gone"), ("elsewhere", "second")], false),
        (&[("NAME", "host"), ("NAME", "gone"), ("@cert-authority NAME", "ca")], false),
    ];
    for (lines, changes) in cases {
        know(&lab, lines);
        let before = known(&lab);
        // ssh does not wait for the proofs.
        let mut ssh = Command::new("ssh");
        lab.set_env(&mut ssh);
        run(ssh.arg("-F").arg(lab.path("ssh_config")).args(["-o", "BatchMode=yes", "lab", "sleep 1"]));
        let by_ssh = known(&lab);
        assert_eq!(by_ssh != before, changes, "{lines:?}: {by_ssh:?}");
        know(&lab, lines);
        let _ = std::fs::remove_file(lab.path("home/.local/state/dtunnel/lab.log"));
        lab.ok(&["up", "lab"]);
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        if changes {
            let wanted = sorted(by_ssh);
            wait_for(&format!("{wanted:?}"), || (sorted(known(&lab)) == wanted).then_some(()));
        } else if lines.len() > 2 || lines[1].1 != "second" {
            wait_for("the decision", || lab.log("lab").contains("known_hosts is unchanged").then_some(()));
        }
        lab.ok(&["down", "lab"]);
        assert_eq!(known(&lab) != before, changes, "{lines:?}");
    }
    assert!(known(&lab)[0] == "# mine" && lab.path("known_hosts.old").exists());
}

#[test]
fn a_person_is_asked_whether_keys_may_be_changed() {
    let Some(lab) = with_two_keys() else { return };
    lab.write_ssh_config("  UpdateHostKeys ask\n");
    know(&lab, &[("NAME", "host"), ("NAME", "gone")]);
    let before = known(&lab);
    let up = format!("{} up lab", env!("CARGO_BIN_EXE_dtunnel"));
    for (answer, changes) in [("no", false), ("yes", true)] {
        let mut person = Person::types(&lab, &up);
        person.sees("New: ECDSA SHA256:");
        person.sees("Not in use any more: RSA SHA256:");
        person.sees("Accept updated host keys (yes/no)? ");
        person.presses(&format!("{answer}\n"));
        let (status, screen) = person.leaves();
        assert!(status.success(), "{screen}");
        assert_eq!(known(&lab) != before, changes, "{answer}: {:?}", known(&lab));
        lab.ok(&["down", "lab"]);
    }
    let names: Vec<_> = known(&lab).iter().map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect();
    assert_eq!(names, ["mine", "ssh-ed25519", "ecdsa-sha2-nistp256"]);
    // Where nobody can be asked nothing is changed, and nothing fails.
    know(&lab, &[("NAME", "host"), ("NAME", "gone")]);
    let mut command = Command::new("setsid");
    lab.set_env(&mut command);
    run(command.args(["--wait", env!("CARGO_BIN_EXE_dtunnel"), "up", "lab"]));
    assert!(lab.log("lab").contains("nobody said yes") && known(&lab) == before, "{}", lab.log("lab"));
}
