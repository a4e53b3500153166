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
        (&["-F", "none"], "-F is unset, not none"),
        (&["--remember"], "remember is false, not true"),
    ];
    for (options, difference) in cases {
        // Nor does what could take effect beside it.
        let stderr = lab.fails(1, &[&["up", "lab", "--ports"], options].concat());
        assert!(stderr.contains(difference) && stderr.contains("ports is false, not true"), "{options:?}: {stderr}");
        assert!(stderr.contains("dtunnel down lab"), "{stderr}");
    }
    assert_eq!(lab.status("lab")["settings"]["ports"], false);
    let held = format!("unix:{}", lab.socket("lab").display());
    lab.ok(&["up", "lab", "--local", &held, "--remote", lab.remote_socket().to_str().unwrap()]);
}

/// A lab with a profile for its Engine, and what writes that profile anew.
fn profiled(text: &str) -> Option<(Lab, impl Fn(&Lab, &str))> {
    let lab = Lab::with_engine()?;
    let write = |lab: &Lab, text: &str| {
        lab.write_config(&format!(
            "ssh_config = {:?}\n[profiles.lab]\nremote = {:?}\n{text}\n",
            lab.path("ssh_config"),
            lab.remote_socket()
        ));
    };
    write(&lab, text);
    lab.ok(&["up", "lab"]);
    Some((lab, write))
}

#[test]
fn options_that_can_take_effect_while_it_runs_do() {
    let Some((lab, _)) = profiled("") else { return };
    let pid = lab.status("lab")["pid"].clone();
    assert!(lab.status("lab")["ports"].is_null());
    let output = lab.run(&["up", "lab", "--ports"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stderr.contains("ports is true now") && stdout.contains("0 ports here"), "{stdout}{stderr}");
    assert!(lab.status("lab")["ports"].is_array());
    // Without the option it stays as it is, and a restart keeps to it.
    assert!(lab.ok(&["up", "lab"]).contains("0 ports here"));
    assert!(lab.ok(&["restart", "lab"]).contains("0 ports here"));
    lab.ok(&["down", "lab"]);
    lab.ok(&["up", "lab"]);
    let lazy = lab.run(&["up", "lab", "--lazy"]);
    assert!(String::from_utf8_lossy(&lazy.stderr).contains("lazy is true now"), "{lazy:?}");
    assert!(String::from_utf8_lossy(&lazy.stdout).contains("lazy)"), "{lazy:?}");
    assert!(lab.ok(&["status"]).contains("lab: lazy"));
    assert_ne!(lab.status("lab")["pid"], pid);
}

#[test]
fn a_profile_that_has_changed_is_said_to_and_up_takes_on_what_cuts_nothing() {
    let Some((lab, profile)) = profiled("wait = \"20s\"") else { return };
    let pid = lab.status("lab")["pid"].clone();
    assert_eq!(lab.said_status("lab")["changed"], serde_json::json!([]));
    let settings = [
        ("wait", "\"1m\"", "20s"),
        ("drain", "\"1s\"", "unset"),
        ("max_connections", "2", "unset"),
        ("spill", "0", "unset"),
        ("connect_timeout", "\"7s\"", "unset"),
        ("idle_timeout", "\"1h\"", "unset"),
        ("ports", "true", "unset"),
        ("ports_fallback", "true", "unset"),
        ("ports_address", "\"127.0.0.2\"", "unset"),
        ("keepalive", "\"3s\"", "unset"),
        ("keepalive_count", "5", "unset"),
    ];
    let text: String = settings.iter().map(|(name, value, _)| format!("{name} = {value}\n")).collect();
    profile(&lab, &text);
    let (said, status) = (lab.ok(&["status"]), lab.said_status("lab"));
    assert!(said.contains("lab: its configuration has changed: "), "{said}");
    assert!(said.contains("(dtunnel reload lab)"), "{said}");
    for (name, value, before) in settings {
        let value = value.trim_matches('"');
        assert!(said.contains(&format!("{name} is {before}, not {value}")), "{said}");
        let difference = serde_json::json!({"setting": name, "running": before, "wanted": value, "takes": "up"});
        assert!(status["changed"].as_array().unwrap().contains(&difference), "{difference}: {status}");
    }
    // Who only passes by does not mind, and changes nothing.
    lab.ok(&["exec", "lab", "true"]);
    assert!(lab.status("lab")["ports"].is_null());
    let mut stream = lab.docker("lab", &["events"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("a flow", || (lab.status("lab")["flows_open"] == 1).then_some(()));
    let output = lab.run(&["up", "lab"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("wait is 1m now"), "{output:?}");
    let status = lab.said_status("lab");
    assert_eq!((&status["changed"], &status["pid"]), (&serde_json::json!([]), &pid), "{status}");
    assert_eq!(status["settings"]["said"]["keepalive"], "3s");
    assert!(status["ports"].is_array());
    // A keepalive is a connection's: there is a new one, and flows of before stay on theirs.
    assert!(lab.log("lab").contains("new flows go over a connection with the new settings"));
    assert_eq!(stream.try_wait().unwrap(), None);
    stream.kill().unwrap();
    stream.wait().unwrap();
    // And back.
    profile(&lab, "");
    let output = lab.run(&["up", "lab"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("wait is unset now"), "{output:?}");
    assert!(lab.status("lab")["ports"].is_null());
}

#[test]
fn a_tunnel_becomes_lazy_and_stops_being_so_while_it_runs() {
    let Some((lab, profile)) = profiled("") else { return };
    profile(&lab, "lazy = true\nidle_timeout = \"200ms\"");
    lab.ok(&["up", "lab"]);
    wait_for("it to be idle", || (lab.state() == "idle").then_some(()));
    profile(&lab, "idle_timeout = \"200ms\"");
    assert!(lab.ok(&["up", "lab"]).contains("already up"));
    assert_eq!(lab.state(), "up");
}

#[test]
fn what_only_a_reload_or_restart_takes_on_fails_and_names_it() {
    let Some((lab, profile)) = profiled("") else { return };
    let key = lab.path("user").display().to_string();
    for (text, difference, command) in [
        (format!("identity_files = [{key:?}]"), "identity_files is unset, not", "dtunnel reload lab"),
        ("jump = \"none\"".into(), "jump is unset, not none", "dtunnel reload lab"),
        ("access = \"read-only\"".into(), "access is full, not read-only", "dtunnel reload lab"),
        ("local = \"tcp:127.0.0.1:0\"".into(), "local is unset, not tcp:127.0.0.1:0", "dtunnel restart lab"),
    ] {
        // What could be taken on beside it is not: all or none.
        profile(&lab, &format!("{text}\nwait = \"1m\""));
        let stderr = lab.fails(1, &["up", "lab"]);
        assert!(stderr.contains(difference) && stderr.contains("wait is unset, not 1m"), "{stderr}");
        assert!(stderr.contains(command), "{stderr}");
        assert!(lab.ok(&["status"]).contains(difference));
        assert!(lab.status("lab")["settings"]["said"]["wait"].is_null());
        let command: Vec<&str> = command.split(' ').skip(1).collect();
        lab.ok(&command);
        wait_for("the new settings", || lab.run(&["up", "lab"]).status.success().then_some(()));
        profile(&lab, "");
        lab.ok(&["restart", "lab"]);
    }
    // One that leads nowhere.
    profile(&lab, "keepalive = \"3s\"");
    lab.write_ssh_config("");
    let ssh_config = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    let nowhere = ssh_config.lines().map(|line| if line.trim().starts_with("Port ") { "  Port 1" } else { line });
    std::fs::write(lab.path("ssh_config"), nowhere.collect::<Vec<_>>().join("\n")).unwrap();
    let stderr = lab.fails(1, &["up", "lab"]);
    assert!(stderr.contains("keepalive is unset, not 3s") && stderr.contains("cannot connect"), "{stderr}");
    run(&mut lab.docker("lab", &["version"]));
}

#[test]
fn a_file_that_is_named_is_not_passed_over_by_a_tunnel_that_was_started_with_another() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_config("");
    let [one, other] = ["ssh_config", "other_ssh_config"].map(|name| lab.path(name).display().to_string());
    std::fs::copy(&one, &other).unwrap();
    lab.ok(&["-F", &one, "up", "lab", "--remote", lab.remote_socket().to_str().unwrap()]);
    for command in [
        &["exec", "lab", "true"][..],
        &["env", "lab"],
        &["env", "--up", "lab"],
        &["up", "lab"],
        &["reload", "lab"],
        &["restart", "lab"],
    ] {
        for file in [other.as_str(), "none"] {
            let output = lab.run(&[&["-F", file], command].concat());
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{file} {command:?}: {stderr}");
            assert!(stderr.contains(&format!("-F is {one}, not {file}")), "{file} {command:?}: {stderr}");
        }
        assert!(lab.run(&[&["-F", &one], command].concat()).status.success(), "{command:?}");
    }
    std::fs::write(lab.path("other.toml"), "").unwrap();
    let other = lab.path("other.toml").display().to_string();
    for command in ["reload", "restart"] {
        let stderr = lab.fails(1, &["--config", &other, command, "lab"]);
        assert!(stderr.contains("--config is") && stderr.contains("other.toml"), "{stderr}");
    }
    assert_eq!(lab.state(), "up");
}

#[test]
fn an_endpoint_that_takes_a_restart_is_not_claimed_after_a_reload() {
    let Some((lab, profile)) = profiled("") else { return };
    profile(&lab, "local = \"tcp:127.0.0.1:0\"\nwait = \"1m\"");
    for _ in 0..2 {
        let stderr = lab.fails(1, &["reload", "lab"]);
        assert!(stderr.contains("needs a restart; everything else was applied"), "{stderr}");
        assert_eq!(lab.status("lab")["settings"]["said"]["wait"], "1m");
        let stderr = lab.fails(1, &["up", "lab"]);
        assert!(stderr.contains("local is unset, not tcp:127.0.0.1:0"), "{stderr}");
        assert!(lab.ok(&["status"]).contains("local is unset"));
    }
    profile(&lab, "wait = \"1m\"");
    lab.ok(&["reload", "lab"]);
    assert!(lab.ok(&["up", "lab"]).contains("already up"));
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

/// Does a request that changes something reach the Engine?
fn is_open(lab: &Lab) -> bool {
    let output = lab.docker("lab", &["rm", "nothing"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("No such container") != stderr.contains("refused by the guard"), "{stderr}");
    stderr.contains("No such container")
}

#[test]
fn a_guard_that_is_asked_for_holds_at_once_and_reload_tells_what_does_not() {
    let Some((lab, profile)) = profiled("") else { return };
    for elsewhere in ["jump = \"root@127.0.0.1:1\"", "identity_files = [\"/nowhere\"]"] {
        profile(&lab, &format!("access = \"read-only\"\n{elsewhere}"));
        let output = lab.run(&["reload", "lab"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains("keeping the old settings: "), "{stderr}");
        assert!(!is_open(&lab), "{elsewhere}");
        assert_eq!(lab.status("lab")["settings"]["access"]["policies"][0], "read-only");
        // Nobody who passes by goes on with what leads elsewhere by now.
        for command in [&["env", "lab"][..], &["exec", "lab", "true"], &["env", "--up", "lab"]] {
            let output = lab.run(command);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(
                !output.status.success() && stderr.contains("is already up with other settings: "),
                "{command:?}: {stderr}"
            );
        }
        profile(&lab, "");
        lab.ok(&["reload", "lab"]);
        assert!(is_open(&lab));
        lab.ok(&["env", "lab"]);
    }
}

#[test]
fn a_profile_that_is_gone_takes_no_guard_with_it() {
    let Some((lab, _)) = profiled("access = \"read-only\"") else { return };
    let config = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    let ssh_config = format!("ssh_config = {:?}\n", lab.path("ssh_config"));
    for text in [ssh_config.as_str(), ""] {
        lab.write_config(text);
        let stderr = lab.fails(2, &["reload", "lab"]);
        assert!(stderr.contains("no longer has a profile named lab"), "{stderr}");
        // The name may be another host's by now.
        for command in [&["up", "lab"][..], &["env", "lab"], &["env", "--up", "lab"], &["exec", "lab", "true"]] {
            let output = lab.run(command);
            let stderr = String::from_utf8(output.stderr).unwrap();
            let told =
                stderr.contains("its profile is known to the tunnel only") && stderr.contains("dtunnel down lab");
            assert!(!output.status.success() && told, "{command:?}: {stderr}");
        }
        assert!(lab.ok(&["status"]).contains("(dtunnel down lab)"));
        assert!(!lab.run(&["restart", "lab"]).status.success());
        let pid = lab.status("lab")["pid"].to_string();
        run(Command::new("kill").args(["-HUP", &pid]));
        wait_for("the log's word", || lab.log("lab").contains("no longer has a profile").then_some(()));
        assert!(!is_open(&lab));
        lab.write_config(&config);
        lab.ok(&["reload", "lab"]);
    }
}
