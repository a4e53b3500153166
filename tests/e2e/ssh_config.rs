//! What ssh_config says is obeyed, or named where it is not.

use crate::lab::{Lab, run};

#[test]
fn algorithms_compression_and_addresses_are_obeyed() {
    let Some(mut lab) = Lab::with_engine() else { return };
    for (server, client) in [
        ("Ciphers aes128-cbc", "Ciphers +aes128-cbc"),
        ("KexAlgorithms diffie-hellman-group14-sha1", "KexAlgorithms +diffie-hellman-group14-sha1"),
        ("Ciphers aes256-ctr\nMACs hmac-sha1", "MACs hmac-sha1"),
        ("PubkeyAcceptedAlgorithms ssh-ed25519", "PubkeyAcceptedAlgorithms ssh-ed25519"),
    ] {
        lab.reconfigure(server);
        lab.write_ssh_config("");
        if !server.starts_with("Pubkey") {
            let stderr = lab.fails(6, &["up", "lab"]);
            assert!(stderr.contains(" in common: the server offers "), "{server}: {stderr}");
        }
        lab.write_ssh_config(&format!("  {client}\n"));
        lab.up_and_down();
    }
    lab.reconfigure("");
    let bind = format!("BindAddress {}", lab.host().near);
    for line in ["Compression yes", "AddressFamily inet", &bind, "ConnectionAttempts 2"] {
        lab.write_ssh_config(&format!("  {line}\n"));
        lab.ok(&["up", "lab"]);
        // Enough to fill windows and dictionaries.
        run(&mut lab.docker("lab", &["save", "-o", lab.path("image.tar").to_str().unwrap(), crate::lab::engine::IMAGE]));
        lab.ok(&["down", "lab"]);
    }
    lab.write_ssh_config("  AddressFamily inet6\n");
    lab.fails(6, &["up", "lab"]);
}

#[test]
fn methods_can_be_chosen_and_ruled_out() {
    let lab = Lab::new("");
    lab.write_ssh_config("  PreferredAuthentications password\n");
    let offered = |stderr: &str| stderr.contains(&format!("refused {}/user", lab.dir.path().display()));
    let stderr = lab.fails(4, &["up", "lab"]);
    assert!(!offered(&stderr), "the key is not offered: {stderr}");
    lab.write_ssh_config("  PubkeyAcceptedAlgorithms rsa-sha2-512\n");
    let stderr = lab.fails(4, &["up", "lab"]);
    assert!(!offered(&stderr), "the key is not offered: {stderr}");
    // It is where nothing rules it out, and then said to have been.
    lab.write_ssh_config("");
    lab.keygen("other", "ed25519", "");
    lab.authorize("other");
    let stderr = lab.fails(4, &["up", "lab"]);
    assert!(offered(&stderr), "{stderr}");
}

#[test]
fn a_list_of_nothing_we_have_and_a_broken_file_end_with_2() {
    let lab = Lab::new("");
    lab.write_ssh_config("  MACs umac-64@openssh.com\n");
    assert!(lab.fails(2, &["up", "lab"]).contains("none of the MACs"));
    lab.write_ssh_config("  Frobnicate yes\n");
    let stderr = lab.fails(2, &["up", "lab"]);
    assert!(stderr.contains("ssh could not resolve `lab`") && stderr.to_lowercase().contains("frobnicate"), "{stderr}");
}

#[test]
fn what_is_not_obeyed_is_named_in_a_warning() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_ssh_config("  VerifyHostKeyDNS yes\n  CertificateFile /nowhere/%T\n");
    let output = lab.run(&["up", "lab", "--carrier", "native"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("warning: lab: ssh_config sets `verifyhostkeydns`"), "{stderr}");
    assert!(stderr.contains("warning: lab: ssh_config has the token `%T` in `certificatefile`"), "{stderr}");
}

#[test]
fn without_an_ssh_binary_the_file_is_read_all_the_same() {
    let Some(lab) = Lab::with_engine() else { return };
    let up = || lab.dtunnel(["up", "lab"]).env("PATH", lab.path("home")).output().unwrap();
    let output = up();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.ok(&["down", "lab"]);
    // What would be the machine's ssh's to obey is nobody's here.
    lab.write_ssh_config("  VerifyHostKeyDNS yes\n");
    let output = up();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("ssh_config sets `verifyhostkeydns`"), "{stderr}");
    lab.ok(&["down", "lab"]);
    lab.write_ssh_config("Match all\n  User nobody\n");
    let output = up();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("uses Match"), "{stderr}");
}
