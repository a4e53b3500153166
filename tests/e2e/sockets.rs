//! The Engine's socket in containers, for those who know only the tunnel's: on a host that is really far, where the
//! tunnel's socket does not exist.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::Value;

use crate::lab::engine::IMAGE;
use crate::lab::{Lab, connect, run, wait_for};

fn bind_of(lab: &Lab, container: &str) -> String {
    let format = "{{range .HostConfig.Binds}}{{.}}{{end}}{{range .HostConfig.Mounts}}{{.Source}}{{end}}";
    run(&mut lab.engine.as_ref().unwrap().docker(&["inspect", "--format", format, container])).trim().into()
}

#[test]
fn a_container_that_is_given_the_tunnels_socket_gets_the_engines() {
    for guard in ["", "access = \"containers\"\n"] {
        let Some(lab) = Lab::with_engine() else { return };
        lab.write_profile(lab.remote_socket(), guard);
        lab.ok(&["up", "lab"]);
        containers_get_the_engines(&lab);
    }
}

fn containers_get_the_engines(lab: &Lab) {
    let (ours, theirs) = (lab.socket("lab").display().to_string(), lab.remote_socket().display().to_string());
    let (bind, mount) = (format!("{ours}:/s:ro"), format!("type=bind,source={ours},target=/s"));
    for (option, value, expected) in [("-v", &bind, format!("{theirs}:/s:ro")), ("--mount", &mount, theirs.clone())] {
        let id = run(&mut lab.docker("lab", &["create", option, value, IMAGE, "ls", "-l", "/s"]));
        let id = id.trim();
        assert_eq!(bind_of(lab, id), expected);
        let output = run(&mut lab.docker("lab", &["start", "--attach", id]));
        assert!(output.starts_with('s'), "{output}");
        run(&mut lab.docker("lab", &["rm", id]));
    }
    // Without the layer it is as it ever was: a directory that nobody wants.
    let before = lab.host().run(&format!("ls -d {ours} 2>&1 || true"));
    assert!(before.contains("No such file"), "{before}");
    // docker-py keeps its connection: the request is not the first one on it.
    let mut client = connect(&lab.socket("lab"));
    // A body that is too large to be read passes as it is.
    for (label, expected) in [(0, &theirs), (0, &theirs), (2 << 20, &ours)] {
        let label = "x".repeat(label);
        let bind = format!("\"HostConfig\":{{\"Binds\":[\"{ours}:/s\"]}}");
        let body = format!("{{\"Image\":\"{IMAGE}\",\"Labels\":{{\"l\":\"{label}\"}},{bind}}}");
        let head = "POST /v1.40/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n";
        write!(client, "{head}Content-Length: {}\r\n\r\n", body.len()).unwrap();
        client.write_all(body.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let id = answer.split("\"Id\":\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(bind_of(lab, id), format!("{expected}:/s"));
    }
}

#[test]
fn where_the_engines_socket_is_not_known_the_request_is_refused_with_the_reason() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_profile(format!("command:socat STDIO UNIX:{}", lab.remote_socket().display()), "");
    lab.ok(&["up", "lab"]);
    let bind = format!("{}:/s", lab.socket("lab").display());
    let output = lab.docker("lab", &["create", "-v", &bind, IMAGE]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("does not know the path of its socket on the host"), "{said}");
    run(&mut lab.docker("lab", &["create", "-v", "/tmp:/s", IMAGE]));
    let environment: Value = serde_json::from_str(&lab.ok(&["env", "lab", "--shell", "json"])).unwrap();
    assert!(environment["TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE"].is_null(), "{environment}");
}

/// The image of testcontainers' reaper, made on the spot.
pub fn import_reaper(lab: &Lab) {
    let dir = lab.path("reaper");
    std::fs::create_dir_all(&dir).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/reaper.rs");
    run(Command::new("rustc")
        .args(["--edition", "2024", "-C", "target-feature=+crt-static", "-o"])
        .arg(dir.join("reaper"))
        .arg(source));
    // The library for Python, and the one for Node.
    for version in ["0.8.1", "0.11.0"] {
        let name = format!("testcontainers/ryuk:{version}");
        lab.engine.as_ref().unwrap().import(&dir, &["--change", "CMD [\"/reaper\"]", "-", &name]);
    }
}

/// Waits until no container is left.
pub fn until_nothing_runs(lab: &Lab) {
    let all = || run(&mut lab.engine.as_ref().unwrap().docker(&["ps", "--all", "--quiet"]));
    wait_for("the reaper to reap", || all().trim().is_empty().then_some(()));
}
