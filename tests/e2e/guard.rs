//! The guard: what it lets through and what not, against a table of all operations and a list of tricks;
//! and with the real CLI and a real Engine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use crate::lab::engine::IMAGE;
use crate::lab::remote;
use crate::lab::{Lab, connect, run, succeeded, wait_for};

/// What has arrived on the host.
#[derive(Default)]
struct Record {
    /// Every byte, of whatever connection.
    bytes: Vec<u8>,
    /// The first line of each request.
    lines: Vec<String>,
}

type Arrived = Arc<Mutex<Record>>;

/// A tunnel with this profile to a server that keeps what arrives and answers each head with 200. (An
/// Engine would not tell what it has seen, and would do what it is told.)
fn recorded(profile: &str) -> (Lab, Arrived) {
    let lab = Lab::new("");
    let arrived = Arrived::default();
    let record = arrived.clone();
    let socket = lab.path("remote/engine.sock");
    remote::serve_all(&socket, move |stream| keep(stream, &record));
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {socket:?}\n{profile}\n",
        lab.path("ssh_config")
    ));
    lab.ok(&["up", "lab"]);
    (lab, arrived)
}

/// The id of the one container and the one exec that there are.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Naive on purpose: an empty line ends a head, and a length says how much follows.
fn keep(mut stream: UnixStream, arrived: &Arrived) {
    let inspect = format!("{{\"Id\":\"{ID}\",\"HostConfig\":{{}},\"ContainerID\":\"{ID}\"}}");
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{inspect}", inspect.len());
    let mut last = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        arrived.lock().unwrap().bytes.push(byte[0]);
        last.push(byte[0]);
        if !last.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut last)).into_owned();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        arrived.lock().unwrap().bytes.extend(body);
        let line = head.lines().next().unwrap_or_default().to_owned();
        arrived.lock().unwrap().lines.push(line);
        let end = if head.starts_with("HEAD") { answer.len() - inspect.len() } else { answer.len() };
        if stream.write_all(&answer.as_bytes()[..end]).is_err() {
            return;
        }
    }
}

/// The status codes of all answers to what is sent, until the guard closes or has answered `most`.
fn answers(stream: &mut (impl Read + Write), request: &[u8], most: usize) -> Vec<u16> {
    // A guard that has refused the beginning may not wait for the rest.
    let _ = stream.write_all(request);
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let codes = codes(&received);
        if codes.len() >= most {
            return codes;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return codes,
            Ok(n) => received.extend_from_slice(&buffer[..n]),
        }
    }
}

fn codes(received: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(received);
    let heads = ["HTTP/1.0 ", "HTTP/1.1 "].into_iter().flat_map(|version| text.match_indices(version));
    let heads = heads.filter(|(at, _)| text[*at..].contains("\r\n\r\n"));
    heads.map(|(at, _)| text[at + 9..at + 12].parse().unwrap()).collect()
}

/// A line of the table of operations: method, path, and the verdicts of the four policies.
fn operations() -> Vec<(String, String, [bool; 4])> {
    let lines = include_str!("../guard/operations.txt").lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[0].into(), words[1].into(), std::array::from_fn(|i| words[2 + i] == "yes"))
    };
    lines.map(row).collect()
}

fn request(method: &str, path: &str) -> String {
    let name = if path.contains("/volumes/") { "some-volume" } else { "reg.example:5000/some/image:tag" };
    let id = if path.contains("/containers/") || path.contains("/exec/") { ID } else { "some_thing.1-x" };
    let path = path.replace("{id}", id).replace("{name}", name);
    let body = if matches!(method, "POST" | "PUT") { "Content-Length: 2\r\n\r\n{}" } else { "\r\n" };
    format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n{body}")
}

#[test]
fn every_operation_of_the_api_under_every_policy() {
    let operations = operations();
    assert_eq!(operations.len(), 114);
    for (at, policy) in ["read-only", "containers", "build", "no-privileged"].into_iter().enumerate() {
        let (lab, arrived) = recorded(&format!("access = {policy:?}"));
        // Once on connections of their own, and once on one that is used again and again.
        let mut reused = connect(&lab.socket("lab"));
        // Under no-privileged the Engine is asked once what the container has that is used.
        for path in ["/containers/{id}/start", "/exec/{id}/start"] {
            answers(&mut connect(&lab.socket("lab")), request("POST", path).as_bytes(), 1);
        }
        for (method, path, verdicts) in &operations {
            let expected = if verdicts[at] { 200 } else { 403 };
            for prefix in ["", "/v1.41"] {
                let request = request(method, &format!("{prefix}{path}"));
                let what = format!("{policy}: {method} {prefix}{path}");
                for reuse in [false, true] {
                    arrived.lock().unwrap().lines.clear();
                    let codes = match reuse {
                        true => answers(&mut reused, request.as_bytes(), 1),
                        false => answers(&mut connect(&lab.socket("lab")), request.as_bytes(), 1),
                    };
                    assert_eq!(codes, [expected], "{what}");
                    let line = request.lines().next().unwrap().to_owned();
                    let expected = if expected == 200 { vec![line.clone()] } else { Vec::new() };
                    // Under no-privileged it is asked first whose Engine it is, once a connection.
                    let mut lines = arrived.lock().unwrap().lines.clone();
                    lines.retain(|asked| !asked.starts_with("GET /_ping") || *asked == line);
                    assert_eq!(lines, expected, "{what}");
                }
            }
        }
        // Pipelined: the answers come in order.
        let safe = |method: &str| matches!(method, "GET" | "DELETE");
        let piped: Vec<_> = operations.iter().filter(|(method, ..)| safe(method)).collect();
        let all: String = piped.iter().map(|(method, path, _)| request(method, path)).collect();
        let expected: Vec<u16> = piped.iter().map(|(.., verdicts)| if verdicts[at] { 200 } else { 403 }).collect();
        assert_eq!(answers(&mut connect(&lab.socket("lab")), all.as_bytes(), expected.len()), expected, "{policy}");
    }
}

/// `\r\n` and `\xff` of the list of tricks as bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, c == '\\') {
            (_, true) => match rest.next().unwrap() {
                'r' => bytes.push(b'\r'),
                'n' => bytes.push(b'\n'),
                't' => bytes.push(b'\t'),
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                other => bytes.push(other as u8),
            },
            (c, false) => bytes.push(c as u8),
        }
    }
    bytes
}

#[test]
fn tricks_do_not_get_past() {
    let (lab, arrived) = recorded("access = \"read-only\"");
    let tricks: Vec<&str> = include_str!("../guard/tricks.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert!(tricks.len() >= 200, "{}", tricks.len());
    for trick in tricks {
        let fields: Vec<&str> = trick.splitn(3, '\t').collect();
        let expected: Vec<u16> = fields[0].split(' ').map(|code| code.parse().unwrap()).collect();
        arrived.lock().unwrap().bytes.clear();
        let codes = answers(&mut connect(&lab.socket("lab")), &unescaped(fields[2]), expected.len());
        assert_eq!(codes, expected, "{}: {}", fields[1], fields[2]);
        // Of all that was sent only the pings have arrived.
        let arrived = String::from_utf8_lossy(&arrived.lock().unwrap().bytes).into_owned();
        let pings = expected.iter().filter(|code| **code == 200).count();
        assert!(pings > 0 || arrived.is_empty(), "{trick}: {arrived}");
        assert_eq!(arrived.matches(" HTTP/1.").count(), pings, "{trick}: {arrived}");
        assert_eq!(arrived.matches("GET /_ping HTTP/1.").count(), pings, "{trick}: {arrived}");
    }
    // Heads without end are not waited for for ever.
    let mut long = b"GET /info HTTP/1.1\r\nHost: x\r\n".to_vec();
    long.extend(b"A: ".iter().chain(&[b'x'; 60_000]));
    assert_eq!(answers(&mut connect(&lab.socket("lab")), &long, 1), [400]);
    let many = format!("GET /info HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: x\r\n".repeat(120));
    assert_eq!(answers(&mut connect(&lab.socket("lab")), many.as_bytes(), 1), [400]);
}

/// What real clients send, as it arrives: decoded once, without what is about the connection only.
#[test]
fn what_clients_send_passes_in_one_form() {
    let (lab, arrived) = recorded("access = [\"containers\", \"build\"]");
    let digest = "a@sha256:0123";
    for (request, expected) in [
        // docker-java
        ("GET /images/testcontainers%2Fryuk:0.5.1/json", "GET /images/testcontainers/ryuk:0.5.1/json".to_owned()),
        // docker-py
        ("GET /v1.41/images/a%40sha256%3A0123/json", format!("GET /v1.41/images/{digest}/json")),
        ("GET /images/%5B::1%5D:5000/x/json", "GET /images/[::1]:5000/x/json".into()),
        ("GET /images/[::1]:5000/x/json", "GET /images/[::1]:5000/x/json".into()),
        ("GET /networks/", "GET /networks".into()),
        ("GET /v1.41/%63ontainers/json", "GET /v1.41/containers/json".into()),
        ("GET /v1.41/networks/?filters={}", "GET /v1.41/networks?filters=%7B%7D".into()),
        (
            r#"GET /containers/json?filters={"status":["running"]}"#,
            "GET /containers/json?filters=%7B%22status%22%3A%5B%22running%22%5D%7D".into(),
        ),
        // dockerode sends the fields of the body in the query as well, and what is meant for itself
        (
            "POST /containers/create?Image=a&name=b&HostConfig=%7B%7D&abortSignal=",
            "POST /containers/create?name=b".into(),
        ),
    ] {
        let body = if request.starts_with("POST") { "Content-Length: 2\r\n\r\n{}" } else { "\r\n" };
        arrived.lock().unwrap().lines.clear();
        let sent = format!("{request} HTTP/1.1\r\nHost: docker\r\n{body}");
        assert_eq!(answers(&mut connect(&lab.socket("lab")), sent.as_bytes(), 1), [200], "{request}");
        assert_eq!(arrived.lock().unwrap().lines, [format!("{expected} HTTP/1.1")]);
    }
    // What is about the client's connection does not arrive, nor a form's type where there is no form.
    arrived.lock().unwrap().bytes.clear();
    let hops = "Connection: Upgrade, HTTP2-Settings, TE\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nTE: trailers\r\n\
        Keep-Alive: 5\r\nProxy-Connection: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n";
    let sent = format!("POST /containers/a/kill?signal=9 HTTP/1.1\r\nHost: docker\r\n{hops}\r\n");
    assert_eq!(answers(&mut connect(&lab.socket("lab")), sent.as_bytes(), 1), [200]);
    let head = String::from_utf8(arrived.lock().unwrap().bytes.clone()).unwrap();
    assert_eq!(
        head.to_lowercase(),
        "post /containers/a/kill?signal=9 http/1.1\r\nhost: docker\r\ncontent-length: 0\r\n\r\n"
    );
}

/// docker-java sends `null`, dockerode its parameters once more.
#[test]
fn a_body_arrives_where_there_is_one_to_be() {
    let (lab, arrived) = recorded("access = [\"containers\", \"build\"]");
    let send = |path: &str, body: &str| {
        arrived.lock().unwrap().bytes.clear();
        let head = format!("POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let codes = answers(&mut connect(&lab.socket("lab")), request.as_bytes(), 1);
        (codes, String::from_utf8(arrived.lock().unwrap().bytes.clone()).unwrap())
    };
    for (path, body) in [
        ("/containers/a/start", "{}"),
        ("/containers/a/start", "null"),
        ("/v1.24/containers/a/stop?t=1", r#"{"t":1}"#),
        ("/images/create?fromImage=a", r#"{"fromImage":"a"}"#),
        ("/containers/a/kill", "\"\""),
    ] {
        let (codes, bytes) = send(path, body);
        assert_eq!(codes, [200], "{path} {body}");
        let expected = format!("post {path} http/1.1\r\nhost: docker\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(bytes.to_lowercase(), expected.to_lowercase());
    }
    for path in ["/v1.24/containers/a/start", "/containers/a/start"] {
        let (codes, bytes) = send(path, r#"{"Binds":["/:/host"],"Privileged":true}"#);
        assert_eq!((codes, bytes.as_str()), (vec![403], ""), "{path}");
    }
    let (codes, bytes) = send("/containers/a/stop", &"x".repeat(2 << 20));
    assert_eq!((codes, bytes.as_str()), (vec![400], ""));
    // It arrives behind its head, which is answered already.
    assert_eq!(send("/networks/create", "{\"Name\":\"a\"}").0, [200]);
    wait_for("the body", || arrived.lock().unwrap().bytes.ends_with(b"{\"Name\":\"a\"}").then_some(()));
}

#[test]
fn over_tcp_browsers_and_foreign_names_are_refused() {
    let (lab, _) = recorded("access = \"read-only\"\nlocal = \"tcp:127.0.0.1:0\"");
    let local = lab.status("lab")["local"].as_str().unwrap().replace("tcp://", "");
    let port = local.rsplit(':').next().unwrap().to_owned();
    for (headers, expected) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        ("Host: localhost\r\n".into(), 200),
        ("Host: [::1]:1\r\n".into(), 200),
        ("Host: rebound.example\r\n".into(), 403),
        (format!("Host: rebound.example:{port}\r\n"), 403),
        ("Host: \r\n".into(), 403),
        ("Host: localhost\r\nOrigin: http://localhost\r\n".into(), 403),
        ("Host: localhost\r\nOrigin: null\r\n".into(), 403),
    ] {
        let mut stream = TcpStream::connect(&local).unwrap();
        let request = format!("GET /info HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(answers(&mut stream, request.as_bytes(), 1), [expected], "{headers:?}");
    }
    wait_for("the process in the log", || {
        lab.log("lab").contains(&format!("(pid {}, ", std::process::id())).then_some(())
    });
}

pub fn guarded(profile: &str) -> Option<Lab> {
    Some(guard(Lab::with_engine()?, profile))
}

/// Brings a tunnel with this profile up.
pub fn guard(lab: Lab, profile: &str) -> Lab {
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nremote = {:?}\n[profiles.lab]\n{profile}\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    lab.ok(&["up", "lab"]);
    lab
}

#[track_caller]
pub fn refused(output: &Output, reason: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it was let through");
    assert!(stderr.contains(reason), "{stderr}");
}

#[test]
fn the_cli_reads_and_prints_what_it_is_refused() {
    let Some(lab) = guarded("") else { return };
    lab.ok(&["down", "lab"]);
    lab.ok(&["up", "lab", "--read-only"]);
    let engine = lab.engine.as_ref().unwrap();
    let id = run(&mut engine.docker(&["run", "-d", IMAGE, "sh", "-c", "seq 100000; sleep 600"]));
    let id = id.trim();
    for args in [
        &["version"][..],
        &["ps", "-a"],
        &["info"],
        &["images"],
        &["inspect", id],
        &["top", id],
        &["stats", "--no-stream", id],
        &["system", "df"],
        &["history", IMAGE],
        &["network", "ls"],
        &["volume", "ls"],
        &["events", "--since", "1s", "--until", "0s"],
    ] {
        run(&mut lab.docker("lab", args));
    }
    wait_for("the whole log", || (run(&mut lab.docker("lab", &["logs", id])).lines().count() == 100_000).then_some(()));
    let output = lab.docker("lab", &["run", "--rm", IMAGE, "true"]).output().unwrap();
    refused(
        &output,
        "Error response from daemon: dtunnel: refused by the guard of this tunnel (read-only): containers.create is not allowed here",
    );
    refused(&lab.docker("lab", &["rm", "-f", id]).output().unwrap(), "containers.delete is not allowed here");
    refused(&lab.docker("lab", &["exec", id, "true"]).output().unwrap(), "containers.exec is not allowed here");
    refused(&lab.docker("lab", &["cp", &format!("{id}:/bin/sh"), "-"]).output().unwrap(), "containers.archive");
    let log = lab.log("lab");
    assert!(log.contains("refused POST /v1.41/containers/create for docker (pid "), "{log}");
    assert!(log.contains("allowed GET /v1.41/containers/json for docker (pid "), "{log}");

    // Those who follow are shown, and gone with their client.
    let mut follow = lab.docker("lab", &["logs", "-f", id]).stdout(Stdio::null()).spawn().unwrap();
    let shown = wait_for("the request", || {
        let logs = |request: &serde_json::Value| request["path"].as_str().is_some_and(|path| path.ends_with("/logs"));
        lab.status("lab")["requests"].as_array().and_then(|all| all.iter().find(|request| logs(request)).cloned())
    });
    assert_eq!((&shown["command"], &shown["pid"]), (&"docker".into(), &follow.id().into()), "{shown}");
    assert_eq!(shown["path"], format!("/v1.41/containers/{id}/logs"));
    follow.kill().unwrap();
    follow.wait().unwrap();
    wait_for("its end", || {
        let status = lab.status("lab");
        (status["requests"] == serde_json::json!([]) && status["flows_open"] == 0).then_some(())
    });
    run(&mut engine.docker(&["rm", "-f", id]));
}

#[test]
fn what_is_allowed_by_name_may_be_done() {
    let Some(lab) = guarded("access = \"read-only\"\nallow = [\"containers.archive\"]") else { return };
    let engine = lab.engine.as_ref().unwrap();
    let id = run(&mut engine.docker(&["create", IMAGE]));
    let copied = lab.docker("lab", &["cp", &format!("{}:/bin/sh", id.trim()), "-"]).output().unwrap();
    succeeded(&copied);
    assert!(copied.stdout.len() > 512);
    refused(&lab.docker("lab", &["start", id.trim()]).output().unwrap(), "containers.start");
    run(&mut engine.docker(&["rm", "-f", id.trim()]));
    lab.ok(&["down", "lab"]);
    let text = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    let typo = text.replace("containers.archive", "container.archive");
    // Where nothing is limited, too: it would be found out on the day of the limit.
    for text in [&typo, &typo.replace("\"read-only\"", "\"full\"")] {
        lab.write_config(text);
        let stderr = lab.fails(2, &["up", "lab"]);
        assert!(
            stderr.contains(
                "`container.archive` in `allow` is not an operation of the Engine; did you mean `containers.archive`?"
            ),
            "{stderr}"
        );
    }
}

#[test]
fn containers_without_privileges_work_whole() {
    let Some(lab) = guarded("access = [\"containers\", \"build\", \"no-privileged\"]\nallowed_binds = [\"/tmp\"]")
    else {
        return;
    };
    let docker = |args: &[&str]| lab.docker("lab", args);
    assert_eq!(run(&mut docker(&["run", "--rm", "-v", "/tmp:/host-tmp", IMAGE, "echo", "hello"])), "hello\n");
    // A hijacked connection, half-closed.
    let mut child = docker(&["run", "--rm", "-i", IMAGE, "sh", "-c", "wc -c; echo done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..50 {
        stdin.write_all(&[b'x'; 100_000]).unwrap();
    }
    drop(stdin);
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), "5000000\ndone\n");
    let id = run(&mut docker(&["run", "-d", IMAGE, "sleep", "600"]));
    let exec = docker(&["exec", id.trim(), "sh", "-c", "echo out; echo err >&2; exit 3"]).output().unwrap();
    assert_eq!((exec.status.code(), exec.stdout, exec.stderr), (Some(3), b"out\n".to_vec(), b"err\n".to_vec()));
    std::fs::create_dir(lab.path("context")).unwrap();
    std::fs::write(lab.path("context/Dockerfile"), format!("FROM {IMAGE}\nRUN echo built > /x\n")).unwrap();
    let context = lab.path("context");
    let mut build = docker(&["build", "--network", "none", "-t", "guarded:1", context.to_str().unwrap()]);
    run(build.env("DOCKER_BUILDKIT", "0"));
    let host = docker(&["build", "--network", "host", context.to_str().unwrap()]).env("DOCKER_BUILDKIT", "0").output();
    refused(&host.unwrap(), "networkmode host is not allowed");
    for (options, reason) in [
        (&["--privileged"][..], "Privileged is not allowed"),
        (&["--network", "host"], "HostConfig.NetworkMode host is not allowed"),
        (&["--pid", "host"], "HostConfig.PidMode host is not allowed"),
        (&["-v", "/:/host"], "the host's / is not among allowed_binds"),
        (&["-v", "/tmp/x:/x"], "the host's /tmp/x is not among allowed_binds"),
        (&["--mount", "type=bind,source=/etc,target=/x"], "the host's /etc is not among allowed_binds"),
        (&["--cap-add", "SYS_ADMIN"], "HostConfig.CapAdd[0] SYS_ADMIN is not allowed"),
        (&["--device", "/dev/null"], "Devices is not allowed"),
        (&["--security-opt", "seccomp=unconfined"], "HostConfig.SecurityOpt[0] seccomp=unconfined is not allowed"),
    ] {
        let args = [&["run", "--rm"], options, &[IMAGE, "true"]].concat();
        refused(&docker(&args).output().unwrap(), reason);
    }
    refused(&docker(&["exec", "--privileged", id.trim(), "true"]).output().unwrap(), "Privileged is not allowed");
    let bind = ["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/etc", "evil"];
    refused(&docker(&bind).output().unwrap(), "the host's /etc is not among allowed_binds");
    run(&mut docker(&["rm", "-f", id.trim()]));
    run(&mut docker(&["rmi", "guarded:1"]));
}

#[test]
fn a_client_that_has_ended_what_it_sends_gets_its_answers_and_one_that_is_gone_keeps_no_flow() {
    let Some(lab) = guarded("access = [\"containers\"]") else { return };
    let id = run(&mut lab.docker("lab", &["run", "-d", IMAGE, "sleep", "600"]));
    let wait = format!("POST /v1.41/containers/{}/wait HTTP/1.1\r\nHost: docker\r\n\r\n", id.trim());
    let asks = |request: &str| {
        let mut client = connect(&lab.socket("lab"));
        client.write_all(request.as_bytes()).unwrap();
        client
    };
    let refused = "DELETE /v1.41/images/x HTTP/1.1\r\nHost: docker\r\n\r\n";
    for (request, answer) in [
        ("GET /v1.41/containers/json HTTP/1.1\r\nHost: docker\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
        (refused, "HTTP/1.1 403 Forbidden\r\n"),
        (&wait, "HTTP/1.1 200 OK\r\n"),
    ] {
        let mut client = asks(request);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        if request == wait {
            wait_for("its flow", || (lab.status("lab")["flows_open"] == 1).then_some(()));
            run(&mut lab.docker("lab", &["kill", id.trim()]));
        }
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        assert!(all.starts_with(answer), "{request}: {all}");
    }
    // Pipelined, too: each is answered.
    let mut client = asks(&"GET /v1.41/version HTTP/1.1\r\nHost: docker\r\n\r\n".repeat(3));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{all}");
    // Nothing comes there until something happens.
    let silent = run(&mut lab.docker("lab", &["run", "-d", "-i", IMAGE, "sleep", "600"]));
    let attach = format!(
        "POST /v1.41/containers/{}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\n\r\n",
        silent.trim()
    );
    wait_for("no flow", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    for half_closed in [false, true] {
        let clients: Vec<UnixStream> = (0..5).map(|_| asks(&attach)).collect();
        for mut client in clients {
            let mut status = [0; 12];
            client.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 101");
            if half_closed {
                client.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
        wait_for("the flows' end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    }
    run(&mut lab.docker("lab", &["rm", "-f", silent.trim()]));
    for half_closed in [false, true] {
        let client = asks("GET /v1.41/events HTTP/1.1\r\nHost: docker\r\n\r\n");
        wait_for("its flow", || (lab.status("lab")["flows_open"] == 1).then_some(()));
        if half_closed {
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        drop(client);
        wait_for("the flow's end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    }
    run(&mut lab.docker("lab", &["rm", id.trim()]));
}

/// Health checks of load balancers and monitors: one answer, by the end of the connection, without chunks.
#[test]
fn http_1_0_is_answered_by_its_own_rules() {
    let Some(lab) = guarded("access = \"read-only\"") else { return };
    // The Engine answers each of these in chunks, or might.
    for path in ["/_ping", "/info", "/v1.41/images/json", "/events?since=1&until=2"] {
        for headers in ["", "Host: localhost\r\n", "Connection: keep-alive\r\n"] {
            let mut stream = connect(&lab.socket("lab"));
            stream.write_all(format!("GET {path} HTTP/1.0\r\n{headers}\r\n").as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{path}: {answer}");
            assert!(!answer.to_lowercase().contains("transfer-encoding"), "{path}: {answer}");
            assert!(path != "/_ping" || answer.ends_with("\r\n\r\nOK"), "{answer}");
        }
    }
    let mut stream = connect(&lab.socket("lab"));
    stream.write_all(b"POST /containers/create HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 403 ") && answer.contains("containers.create is not allowed here"),
        "{answer}"
    );
}

/// The host's ps runs as root, and would show more than command lines.
#[test]
fn top_shows_no_environments() {
    let Some(lab) = guarded("access = \"read-only\"") else { return };
    let engine = lab.engine.as_ref().unwrap();
    let id = run(&mut engine.docker(&["run", "-d", "-e", "SECRET=hunter2", IMAGE, "sleep", "600"]));
    let id = id.trim();
    let top = |args: &[&str]| lab.docker("lab", &[&["top", id], args].concat()).output().unwrap();
    for args in [&[][..], &["-ef"], &["aux"], &["-aux"], &["-eo", "pid,args"], &["auxf"], &["aux", "--sort=-%mem"]] {
        let shown = succeeded(&top(args));
        assert!(shown.contains("sleep 600") && !shown.contains("hunter2"), "{args:?}: {shown}");
    }
    for args in [&["axeww"][..], &["-auxe"], &["aux", "e"]] {
        let through_engine = run(&mut engine.docker(&[&["top", id], args].concat()));
        assert!(through_engine.contains("hunter2"), "{args:?} is harmless: {through_engine}");
        refused(&top(args), "in ps_args is not known to be harmless");
    }
    run(&mut engine.docker(&["rm", "-f", id]));
}

/// A whole session over one connection that is used again, as SDKs do.
#[test]
fn docker_py_under_the_policies_it_needs() {
    let Some(lab) = guarded("access = [\"containers\", \"build\"]") else { return };
    let mut command = Command::new("/usr/bin/python3");
    lab.set_env(&mut command);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/docker_py.py")).arg(IMAGE);
    let output = run(command.env("DOCKER_HOST", format!("unix://{}", lab.socket("lab").display())));
    assert!(output.ends_with("all is well\n"), "{output}");
}
