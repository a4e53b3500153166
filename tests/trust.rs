//! Trusting hosts: certificates, several keys, orders, other servers.

use std::cell::Cell;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::lab::keeper::Keeper;
use crate::lab::{Lab, is_root, run, skip, wait_for};

/// A lab whose sshd shows a host certificate signed by the authority `ca`.
fn with_host_certificate(options: &[&str]) -> Option<Lab> {
    let mut lab = Lab::with_engine()?;
    lab.keygen("ca", "ed25519", "");
    lab.certify("ca", "host", &[&["-h"], options].concat());
    lab.reconfigure("HostCertificate {dir}/host-cert.pub");
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    Some(lab)
}

fn trust(lab: &Lab, lines: &[(&str, &str)]) {
    let line = |(patterns, key): &(&str, &str)| {
        format!("{patterns} {}", std::fs::read_to_string(lab.path(&format!("{key}.pub"))).unwrap())
    };
    std::fs::write(lab.path("known_hosts"), lines.iter().map(line).collect::<String>()).unwrap();
}

#[test]
fn a_host_certificate_of_a_known_authority_is_trusted() {
    for principals in ["127.0.0.1", "127.0.*", "elsewhere,127.0.0.1"] {
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
    let bad: [&[&str]; 3] = [
        &["-n", "elsewhere"],
        &["-n", "127.0.0.1", "-V", "20200101:20200102"],
        &["-n", "127.0.0.1", "-O", "critical:x=y"],
    ];
    for options in bad {
        let Some(lab) = with_host_certificate(options) else { return };
        trust(&lab, &[("@cert-authority *", "ca")]);
        let stderr = lab.fails(5, &["up", "lab"]);
        assert!(stderr.contains("is not known"), "{options:?}: {stderr}");
        assert!(lab.log("lab").contains("certificate of") && lab.log("lab").contains("was not accepted"));
        // The plain key may still be known.
        trust(&lab, &[("@cert-authority *", "ca"), (&format!("[127.0.0.1]:{}", lab.sshd.port), "host")]);
        lab.up_and_down();
    }
}

#[test]
fn a_revoked_authority_or_key_is_not_trusted() {
    let Some(lab) = with_host_certificate(&["-n", "127.0.0.1"]) else { return };
    trust(&lab, &[("@cert-authority *", "ca"), ("@revoked *", "ca")]);
    lab.fails(5, &["up", "lab"]);
    trust(&lab, &[("@cert-authority *", "ca"), ("@revoked *", "host")]);
    assert!(lab.fails(5, &["up", "lab"]).contains("marked as revoked"));
}

#[test]
fn the_known_one_of_several_host_keys_is_asked_for() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.keygen("host_rsa", "rsa", "");
    lab.keygen("host_ecdsa", "ecdsa", "");
    lab.reconfigure("HostKey {dir}/host_rsa\nHostKey {dir}/host_ecdsa");
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    let name = format!("[127.0.0.1]:{}", lab.sshd.port);
    for known in ["host_rsa", "host_ecdsa", "host"] {
        trust(&lab, &[(&name, known)]);
        lab.up_and_down();
    }
    // As ssh: a host on another port may be known by its plain name; an alias is looked up as it is.
    trust(&lab, &[("127.0.0.1", "host")]);
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
    assert!(stderr.contains("No common"), "SHA-1 is not offered: {stderr}");
    lab.write_ssh_config("  HostKeyAlgorithms +ssh-rsa\n");
    lab.up_and_down();
}

#[test]
fn dropbear_is_a_server_too() {
    if !is_root() {
        return skip("dropbear logs in other users than itself only as root");
    }
    let Some(lab) = Lab::with_engine() else { return };
    let (key, port) = (lab.path("dropbear_key"), crate::lab::sshd::free_port());
    run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&key));
    // It reads authorized_keys in the account's home only; a mount of its own hides the real one.
    let home = lab.path("home");
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    crate::lab::set_mode(&home, 0o700);
    crate::lab::set_mode(&home.join(".ssh"), 0o700);
    std::fs::copy(lab.path("user.pub"), home.join(".ssh/authorized_keys")).unwrap();
    crate::lab::set_mode(&home.join(".ssh/authorized_keys"), 0o600);
    let script = format!(
        "mount --bind {} /root && exec dropbear -F -E -s -p 127.0.0.1:{port} -r {} -P {}",
        home.display(),
        key.display(),
        lab.path("dropbear.pid").display()
    );
    let _dropbear = Keeper::start(&["unshare", "--mount", "sh", "-c", &script], "");
    wait_for("dropbear", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    // dropbear forwards no sockets: a command on the host stands in.
    let target = format!("root@127.0.0.1:{port}");
    lab.ok(&["up", &target]);
    assert_eq!(lab.status(&target)["transport"], "exec: docker system dial-stdio");
    lab.ok(&["down", &target]);
    // And through it, to a server that has.
    let (ssh_config, socket) = (lab.path("ssh_config"), lab.remote_socket());
    lab.write_config(&format!(
        "ssh_config = {ssh_config:?}\n[profiles.far]\nhost = \"lab\"\nremote = {socket:?}\njump = \"root@127.0.0.1:{port}\"\n"
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

/// Lines over the names and keys of this world, right and wrong ones alike.
fn known_hosts_lines(port: u16) -> impl Strategy<Value = Vec<(String, String)>> {
    let patterns = [
        format!("[127.0.0.1]:{port}"),
        "127.0.0.1".into(),
        format!("[127.0.*]:{port}"),
        "[127.0.0.1]:1".into(),
        "*".into(),
        format!("*,![127.0.0.1]:{port}"),
        format!("elsewhere,[127.0.0.?]:{port}"),
        "elsewhere".into(),
    ];
    let marker = prop_oneof![5 => Just(""), 2 => Just("@cert-authority "), 1 => Just("@revoked ")];
    let keys = prop_oneof![3 => Just("host"), 3 => Just("host_rsa"), 2 => Just("host_ecdsa"), 2 => Just("ca"),
                           1 => Just("other"), 1 => Just("other_rsa")];
    let line = (marker, prop::sample::select(patterns.to_vec()), keys)
        .prop_map(|(marker, pattern, key)| (format!("{marker}{pattern}"), key.to_owned()));
    prop::collection::vec(line, 0..5)
}

#[test]
fn the_verdict_on_a_host_is_that_of_ssh() {
    let mut lab = Lab::new("");
    for (key, kind) in
        [("host_rsa", "rsa"), ("host_ecdsa", "ecdsa"), ("other", "ed25519"), ("other_rsa", "rsa"), ("ca", "ed25519")]
    {
        lab.keygen(key, kind, "");
    }
    lab.certify("ca", "host", &["-h", "-n", "127.0.0.1"]);
    lab.reconfigure("HostKey {dir}/host_rsa\nHostKey {dir}/host_ecdsa\nHostCertificate {dir}/host-cert.pub");
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    let verdicts = [const { Cell::new(0) }; 2];
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let result = runner.run(&known_hosts_lines(lab.sshd.port), |lines| {
        let lines: Vec<(&str, &str)> = lines.iter().map(|(pattern, key)| (&pattern[..], &key[..])).collect();
        trust(&lab, &lines);
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(lab.path("ssh_config")).args(["-o", "BatchMode=yes", "lab", "true"]);
        let output = ssh.output().unwrap();
        let ssh_trusts = output.status.success();
        let verdict = &verdicts[usize::from(ssh_trusts)];
        verdict.set(verdict.get() + 1);
        // Without an Engine: the host key refused, or all well up to there.
        let code = lab.run(&["up", "lab"]).status.code();
        prop_assert_eq!(code, Some(if ssh_trusts { 7 } else { 5 }), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
    assert!(verdicts.iter().all(|count| count.get() >= 5), "both verdicts: {verdicts:?}");
}
