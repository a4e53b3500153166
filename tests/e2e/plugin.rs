//! `docker dtunnel …`, with the real docker CLI.

use std::process::Command;

use crate::lab::{Lab, run};

/// The docker CLI of the lab's user, whose plugins are `docker-dtunnel` alone; DOCKER_HOST is that of the tunnel to be.
fn docker(lab: &Lab, args: &[&str]) -> Command {
    let plugins = lab.path("home/.docker/cli-plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    let plugin = plugins.join("docker-dtunnel");
    if !plugin.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dtunnel"), plugin).unwrap();
    }
    lab.docker("lab", args)
}

#[test]
fn docker_runs_dtunnel_as_its_plugin() {
    let lab = Lab::with_engine().unwrap_or_else(|| Lab::new(""));
    // docker names a plugin whose metadata it does not accept as invalid, and runs none of that kind.
    let listed = run(&mut docker(&lab, &["--help"]));
    let line = listed.lines().find(|line| line.trim_start().starts_with("dtunnel*"));
    let line = line.unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("The Docker Engine of a remote host") && line.contains("The dtunnel developers"), "{line}");

    let own = lab.ok(&["--version"]);
    assert_eq!(run(&mut docker(&lab, &["dtunnel", "--version"])), own);
    assert!(run(&mut docker(&lab, &["dtunnel", "--help"])).contains("Usage: dtunnel "));
    assert!(run(&mut docker(&lab, &["help", "dtunnel"])).contains("Usage: dtunnel "));

    run(&mut docker(&lab, &["dtunnel", "up", "lab"]));
    let status = run(&mut docker(&lab, &["dtunnel", "status", "--json"]));
    assert!(status.contains("\"lab\""), "{status}");
    assert_eq!(status.matches("\"name\"").count(), 1, "{status}");
    run(&mut docker(&lab, &["dtunnel", "restart", "lab"]));
    if let Some(engine) = &lab.engine {
        assert!(run(&mut docker(&lab, &["version"])).contains("Server"));
        let through =
            run(&mut docker(&lab, &["dtunnel", "exec", "lab", "--", "docker", "info", "--format", "{{.ID}}"]));
        assert_eq!(through, run(&mut engine.docker(&["info", "--format", "{{.ID}}"])));
    }
    run(&mut docker(&lab, &["dtunnel", "down", "lab"]));
}

#[test]
fn exit_codes_arrive_and_dockers_options_are_refused() {
    let lab = Lab::new("");
    let code = |args: &[&str]| {
        let output = docker(&lab, args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, _) = code(&["dtunnel", "status", "lab"]);
    assert_eq!(status, Some(3));
    let (status, stderr) = code(&["--log-level", "debug", "dtunnel", "status"]);
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("--log-level is docker's option: dtunnel does not use it"), "{stderr}");
    assert!(stderr.contains("hint: options come after the name: docker dtunnel --help"), "{stderr}");
}
