//! What is asked of a tunnel that is up already holds, or is refused.

use std::process::Command;

use crate::lab::{Lab, run, wait_for};

#[test]
fn read_only_on_a_tunnel_that_is_up_without_it_fails_and_says_what_to_do() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    for options in [&["--read-only"][..], &["--read-only", "-q"], &["--read-only", "--json"]] {
        let output = lab.run(&[&["up", "lab"], options].concat());
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{options:?}: {stderr}");
        assert!(stderr.contains("access is full, not read-only"), "{stderr}");
        assert!(stderr.contains("dtunnel down lab"), "{stderr}");
        assert!(!stdout.contains('✔'), "{stdout}");
    }
    assert!(lab.status("lab")["access"].is_null());
    lab.ok(&["down", "lab"]);
    lab.ok(&["up", "lab", "--read-only"]);
    assert!(lab.ok(&["up", "lab", "--read-only"]).contains("already up"));
    assert_eq!(lab.status("lab")["settings"]["access"]["policies"][0], "read-only");
    // The other way round, too: what was asked for is a tunnel that can do everything.
    assert!(lab.fails(1, &["up", "lab"]).contains("access is read-only, not full"));
    // Who only passes by gets less than it may, and no more.
    lab.ok(&["exec", "lab", "true"]);
    lab.ok(&["env", "--up", "lab"]);
}

#[test]
fn a_profile_that_demands_a_guard_since_is_not_served_without_it() {
    let Some(lab) = Lab::with_engine() else { return };
    let profile = |text: &str| {
        lab.write_config(&format!(
            "ssh_config = {:?}\n[profiles.lab]\nremote = {:?}\n{text}\n",
            lab.path("ssh_config"),
            lab.remote_socket()
        ));
    };
    profile("");
    lab.ok(&["up", "lab"]);
    let changes = [
        ("access = \"read-only\"", "access is full, not read-only"),
        ("access = [\"containers\", \"no-privileged\"]", "access is read-only, not containers, no-privileged"),
        (
            "access = [\"containers\", \"no-privileged\"]\nallow = [\"images.push\"]",
            "access is containers, no-privileged, not containers, no-privileged; allow: images.push",
        ),
        (
            "access = [\"containers\", \"no-privileged\"]\nallowed_binds = [\"/srv\"]",
            "not containers, no-privileged; allowed_binds: /srv",
        ),
        ("", "not full"),
    ];
    for (text, difference) in changes {
        profile(text);
        let stderr = lab.fails(1, &["up", "lab"]);
        assert!(stderr.contains(difference), "{text}: {stderr}");
        // It is narrower than the profile where it is read-only, and than one that demands nothing.
        let passes = text.is_empty() || difference.contains("access is read-only");
        for (code, args) in [(125, &["exec", "lab", "true"][..]), (1, &["env", "--up", "lab"])] {
            let output = lab.run(args);
            assert_eq!(output.status.code(), Some(if passes { 0 } else { code }), "{text}: {output:?}");
        }
        // Reading the configuration again is another way to get it.
        run(Command::new("kill").args(["-HUP", &lab.status("lab")["pid"].to_string()]));
        wait_for("the new access", || lab.run(&["up", "lab"]).status.success().then_some(()));
    }
}

#[test]
fn an_option_that_cannot_take_effect_is_refused() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    let other = lab.path("other.sock").display().to_string();
    let cases: [(&[&str], &str); 4] = [
        (&["--local", &format!("unix:{other}")], "local is unix://"),
        (&["--remote", &other], "remote is "),
        (&["--lazy"], "lazy is false, not true"),
        (&["--ports"], "ports is false, not true"),
    ];
    for (options, difference) in cases {
        let stderr = lab.fails(1, &[&["up", "lab"], options].concat());
        assert!(stderr.contains(difference), "{options:?}: {stderr}");
    }
    let held = format!("unix:{}", lab.socket("lab").display());
    lab.ok(&["up", "lab", "--local", &held, "--remote", lab.remote_socket().to_str().unwrap()]);
}

#[test]
fn settings_that_lead_nowhere_change_neither_guard_nor_name_of_what_is_there() {
    let Some(lab) = Lab::with_engine() else { return };
    let profile = |text: &str| {
        lab.write_config(&format!(
            "ssh_config = {:?}\n[profiles.p]\nremote = {:?}\n{text}\n",
            lab.path("ssh_config"),
            lab.remote_socket()
        ));
    };
    profile("host = \"lab\"\naccess = \"read-only\"");
    lab.ok(&["up", "p"]);
    let before = lab.status("p");
    // Nobody listens at port 1.
    profile("host = \"127.0.0.1\"\nport = 1");
    run(Command::new("kill").args(["-HUP", &before["pid"].to_string()]));
    wait_for("its attempt", || lab.log("p").contains("no connection with the new settings").then_some(()));
    let output = lab.docker("p", &["rm", "nothing"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("refused by the guard of this tunnel (read-only)"), "{stderr}");
    let after = lab.status("p");
    for what in ["state", "host", "port", "user", "access", "settings"] {
        assert_eq!(after[what], before[what], "{what}");
    }
    // Whoever asks for what the profile says now is not served by the host of before.
    for command in [&["up", "p"][..], &["exec", "p", "true"], &["env", "--up", "p"]] {
        let output = lab.run(command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("host is lab, not 127.0.0.1:1"), "{command:?}: {stderr}");
    }
    // Settings that lead somewhere come into force with their connection.
    profile("host = \"lab2\"\naccess = \"containers\"");
    lab.ok(&["reload", "p"]);
    wait_for("the new settings", || (lab.status("p")["access"] == "containers").then_some(()));
    assert!(lab.ok(&["up", "p"]).contains("already up"));
}

#[test]
fn a_changed_host_key_is_told_as_such_whenever_it_is_noticed() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    lab.sshd.stop();
    lab.keygen("host", "ed25519", "");
    lab.sshd.start_again();
    wait_for("its failure", || (lab.state() == "failed").then_some(()));
    for command in [&["up", "lab"][..], &["env", "--up", "lab"]] {
        let stderr = lab.fails(5, command);
        assert!(stderr.contains("CHANGED"), "{stderr}");
    }
}
