//! Other people's clients under `no-privileged`: whole sessions of docker-py and compose. (docker_java.rs has
//! docker-java's; docs/security.md lists what of their own suites is refused, and why.)

use std::process::Command;

use crate::guard::guard;
use crate::lab::{Lab, run};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

fn guarded(lab: Lab, allowed_bind: &str) -> Lab {
    let access = "access = [\"containers\", \"build\", \"no-privileged\"]";
    guard(lab, &format!("{access}\nallowed_binds = [{allowed_bind:?}]"))
}

#[test]
fn docker_py_works_whole_without_privileges() {
    let Some(lab) = Lab::with_engine() else { return };
    let lab = guarded(lab, "/nowhere");
    let mut command = Command::new("/usr/bin/python3");
    lab.set_env(&mut command);
    command.arg(format!("{CLIENTS}/docker_py.py")).args([crate::lab::engine::IMAGE, "more"]);
    let output = run(command.env("DOCKER_HOST", format!("unix://{}", lab.socket("lab").display())));
    assert!(output.ends_with("all is well\n"), "{output}");
}

#[test]
fn compose_works_whole_without_privileges() {
    let Some(lab) = Lab::with_engine() else { return };
    let project = lab.path("remote/compose");
    run(Command::new("cp").args(["-r", &format!("{CLIENTS}/compose")]).arg(&project));
    let lab = guarded(lab, &format!("{}/", project.display()));
    let name = format!("c{}", std::process::id());
    let compose = |words: &str| {
        let mut command = Command::new("/usr/bin/docker-compose");
        lab.set_env(&mut command);
        command.current_dir(&project).args(words.split(' ')).env("COMPOSE_PROJECT_NAME", &name);
        command.env("DOCKER_HOST", format!("unix://{}", lab.socket("lab").display()));
        run(command.envs([("COMPOSE_DOCKER_CLI_BUILD", "0"), ("DOCKER_BUILDKIT", "0")]))
    };
    for (words, said) in [
        ("build", "Successfully built"),
        ("up -d", ""),
        ("ps", "web_1"),
        ("exec -T web cat /shared/file /www/index.html", "shared\nhello\n"),
        ("exec -T beside cat /word /shared/file", "built\nshared\n"),
        ("run --rm worker echo once", "once"),
        ("logs web", ""),
        ("top", "sleep 600"),
        ("images", "lab-compose"),
        ("port web 8080", "127.0.0.1:"),
        ("up -d --scale worker=2", ""),
        ("restart worker", ""),
        ("pause worker", ""),
        ("unpause worker", ""),
        ("stop worker", ""),
        ("start worker", ""),
        ("up -d --force-recreate", ""),
        ("kill worker", ""),
        ("rm -f worker", ""),
        ("down -v --rmi local", ""),
    ] {
        let output = compose(words);
        assert!(output.contains(said), "{words}: {output}");
    }
    assert!(!lab.log("lab").contains("refused "), "{}", lab.log("lab"));
}
