//! docker's contexts, made for tunnels and read for profiles, with the real docker CLI.

use std::process::Command;

use crate::lab::pty::Person;
use crate::lab::{Lab, run, succeeded};

/// The docker CLI of the lab's user, without DOCKER_HOST. Whatever it is to do about contexts, it asks the Engine of the default
/// one first, which is this machine's: so it does not see its /run.
fn docker(lab: &Lab, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    lab.set_env(&mut command);
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$@\"", "sh"]);
    command.arg("/usr/bin/docker").args(args);
    command
}

fn current(lab: &Lab) -> String {
    run(&mut docker(lab, &["context", "ls", "--format", "{{if .Current}}{{.Name}}{{end}}"])).trim().into()
}

#[test]
fn docker_follows_a_context_to_a_tunnel_and_back() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    lab.ok(&["context", "create", "lab"]);
    lab.ok(&["context", "create", "lab"]);
    assert!(run(&mut docker(&lab, &["--context", "lab", "version"])).contains("Server"));
    assert_eq!(current(&lab), "default");
    lab.ok(&["context", "use", "lab"]);
    assert_eq!(current(&lab), "lab");
    // Neither DOCKER_HOST nor an option: this is how compose, buildx and IDEs find it.
    let through = run(&mut docker(&lab, &["info", "--format", "{{.ID}}"]));
    let direct = run(&mut lab.engine.as_ref().unwrap().docker(&["info", "--format", "{{.ID}}"]));
    assert_eq!(through, direct);
    let mut shadowed = lab.dtunnel(["context", "use", "lab"]);
    let output = shadowed.env("DOCKER_HOST", "unix:///nowhere").output().unwrap();
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("DOCKER_HOST is set in this shell and wins"));
    // Another endpoint: the context is brought up to date.
    lab.ok(&["down", "lab"]);
    lab.ok(&["up", "lab", "--local", &format!("unix:{}", lab.path("other.sock").display())]);
    lab.ok(&["context", "create", "lab"]);
    assert_eq!(run(&mut docker(&lab, &["info", "--format", "{{.ID}}"])), direct);
    lab.ok(&["context", "remove", "lab"]);
    assert_eq!(current(&lab), "default");
    lab.ok(&["context", "remove", "lab"]);
}

#[test]
fn what_others_have_made_is_left_alone() {
    let lab = Lab::new("");
    run(&mut docker(&lab, &["context", "create", "lab", "--docker", "host=unix:///somewhere"]));
    for args in [["context", "create", "lab"], ["context", "use", "lab"], ["context", "remove", "lab"]] {
        let stderr = lab.fails(1, &args);
        assert!(stderr.contains("docker has a context `lab` that dtunnel did not create"), "{stderr}");
    }
    let kept = run(&mut docker(&lab, &["context", "inspect", "lab"]));
    assert!(kept.contains("unix:///somewhere"), "{kept}");
    lab.write_config("[profiles.prod-1]\n");
    let stderr = lab.fails(2, &["context", "use", "prod-9"]);
    assert!(stderr.contains("did you mean `prod-1`?"), "{stderr}");
    let mut without = lab.dtunnel(["context", "create", "lab2"]);
    let output = without.env("PATH", "/nonexistent").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cannot run docker") && stderr.contains("install it"), "{stderr}");
}

#[test]
fn hosts_that_are_named_already_become_profiles() {
    let lab = Lab::new("");
    run(&mut docker(&lab, &["context", "create", "prod", "--docker", "host=ssh://ann@prod.example:2222"]));
    run(&mut docker(&lab, &["context", "create", "here", "--docker", "host=unix:///somewhere"]));
    let import = |args: &[&str]| {
        let mut import = lab.dtunnel([&["profile", "import"], args].concat());
        import.env("DOCKER_HOST", "ssh://bob@env.example/run/user/7/docker.sock");
        import
    };
    // The Hosts of ssh_config are targets as they are.
    assert!(!run(&mut import(&["--dry-run"])).contains("[profiles.lab]"));
    let everywhere = ["--dry-run", "--from", "contexts", "--from", "docker-host", "--from", "ssh-config"];
    let shown = run(&mut import(&everywhere));
    let before = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    for part in [
        "[profiles.prod]",
        "host = \"prod.example\"",
        "[profiles.\"env.example\"]",
        "[profiles.lab]",
        "[profiles.lab3]",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("here"), "{shown}");
    // Nobody to ask, then a person who says no, then yes.
    assert_eq!(import(&[]).output().unwrap().status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(lab.path("config.toml")).unwrap(), before);
    let dtunnel = env!("CARGO_BIN_EXE_dtunnel");
    for (answer, written) in [("n\n", false), ("y\n", true)] {
        let mut person = Person::types(&lab, &format!("{dtunnel} profile import prod"));
        person.sees("write 1 profile to ");
        person.presses(answer);
        assert!(person.leaves().0.success());
        assert_eq!(std::fs::read_to_string(lab.path("config.toml")).unwrap().contains("prod.example"), written);
    }
    let show = lab.ok(&["profile", "show", "prod"]);
    assert!(show.contains("user = \"ann\"") && show.contains("port = 2222"), "{show}");
    run(&mut import(&["--yes"]));
    assert!(lab.ok(&["profile", "show", "env.example"]).contains("remote = \"/run/user/7/docker.sock\""));
    let again = import(&["--yes"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(stderr.contains("everything that could be imported is a profile already"), "{stderr}");
    let stderr = lab.fails(2, &["profile", "import", "prodd"]);
    assert!(stderr.contains("there is nothing named `prodd` to import"), "{stderr}");
}
