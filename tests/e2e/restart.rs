//! restart and reload.

use std::process::{Command, Stdio};

use crate::lab::{Lab, run, wait_for};

#[test]
fn a_restarted_tunnel_has_the_options_of_its_up() {
    let lab = Lab::new("");
    let local = format!("unix:{}", lab.path("mine.sock").display());
    lab.ok(&["up", "lab", "--lazy", "--read-only", "--local", &local]);
    let before = lab.status("lab");
    let said = lab.ok(&["restart", "lab"]);
    assert!(said.contains("✔ lab is ready"), "{said}");
    let after = lab.status("lab");
    assert_ne!(before["pid"], after["pid"]);
    for field in ["local", "access", "state", "arguments"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!((&after["access"], &after["state"]), (&"read-only".into(), &"idle".into()));
    // All of them; and one that is not up comes up.
    lab.ok(&["up", "lab2", "--lazy"]);
    assert_eq!(lab.ok(&["restart", "--all"]).lines().count(), 2);
    lab.ok(&["down", "lab2"]);
    lab.write_config(&format!("ssh_config = {:?}\n[defaults]\nlazy = true\n", lab.path("ssh_config")));
    assert!(lab.ok(&["restart", "lab2"]).contains("lab2 is ready"));
}

#[test]
fn a_tunnel_in_the_foreground_is_its_owners_to_restart() {
    let lab = Lab::new("");
    let mut up = lab.dtunnel(["up", "lab", "--lazy", "--foreground"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the tunnel", || (lab.status("lab")["state"] == "idle").then_some(()));
    let stderr = lab.fails(1, &["restart", "lab"]);
    assert!(stderr.contains("lab runs in the foreground"), "{stderr}");
    assert_eq!(lab.status("lab")["pid"], up.id());
    lab.ok(&["reload", "lab"]);
    lab.ok(&["down", "lab"]);
    assert!(up.wait().unwrap().success());
}

#[test]
fn a_reload_takes_on_what_can_change_and_names_what_cannot() {
    let lab = Lab::new("");
    let configure = |text: &str| {
        lab.write_config(&format!(
            "ssh_config = {:?}\n[profiles.p]\nhost = \"lab\"\nlazy = true\n{text}",
            lab.path("ssh_config")
        ));
    };
    configure("");
    lab.ok(&["up", "p"]);
    assert!(lab.status("p")["access"].is_null());
    configure("access = \"read-only\"\n");
    let output = lab.run(&["reload", "p"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("p has read its configuration again"));
    assert_eq!(lab.status("p")["access"], "read-only");
    configure("access = \"readonly\"\n");
    let stderr = lab.fails(2, &["reload", "p"]);
    assert!(stderr.contains("p: keeping the old settings: ") && stderr.contains("config.toml:5:"), "{stderr}");
    assert_eq!(lab.status("p")["access"], "read-only", "a broken file opens nothing");
    configure(&format!("access = \"build\"\nlocal = \"{}\"\n", lab.path("other.sock").display()));
    let stderr = lab.fails(1, &["reload", "p"]);
    assert!(stderr.contains("needs a restart") && stderr.contains("dtunnel restart p"), "{stderr}");
    lab.ok(&["restart", "p"]);
    let status = lab.status("p");
    assert_eq!(status["local"], format!("unix://{}", lab.path("other.sock").display()));
    assert_eq!(status["access"], "build");
    // As with the signal.
    configure("access = \"containers\"\n");
    run(std::process::Command::new("kill").args(["-HUP", &status["pid"].to_string()]));
    wait_for("the reload", || (lab.status("p")["access"] == "containers").then_some(()));
    assert_eq!(lab.run(&["reload", "p2"]).status.code(), Some(3));
}

#[test]
fn all_that_are_up_are_meant_and_each_once() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab", "lab"]);
    lab.ok(&["up", "lab2"]);
    let pid = lab.status("lab2")["pid"].to_string();
    run(Command::new("kill").args(["-9", &pid]));
    wait_for("its end", || (lab.status("lab2")["state"] == "down").then_some(()));
    for command in ["reload", "restart"] {
        let told: serde_json::Value = serde_json::from_str(&lab.ok(&[command, "--all", "--json"])).unwrap();
        assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
        let told: serde_json::Value = serde_json::from_str(&lab.ok(&[command, "lab", "lab", "--json"])).unwrap();
        assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
    }
    let told: serde_json::Value = serde_json::from_str(&lab.ok(&["down", "lab", "lab", "--json"])).unwrap();
    assert_eq!(told.as_array().unwrap().len(), 1, "{told}");
}
