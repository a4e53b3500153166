//! A guard's refusal arrives, whatever the client is still sending: by the real CLI, and byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::lab::engine::IMAGE;
use crate::lab::{Lab, connect, remote, run};

/// Sizes of bodies: less and more than what sockets, the guard and Go's server take before they answer.
const SIZES: [usize; 6] = [1, 4_000, 70_000, 300_000, 2_000_000, 30_000_000];

fn lab(engine: impl Fn(UnixStream) + Send + Sync + Clone + 'static, profile: &str) -> Lab {
    let lab = Lab::new("");
    let socket = lab.path("remote/engine.sock");
    remote::serve_all(&socket, engine);
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {socket:?}\n{profile}\n",
        lab.path("ssh_config")
    ));
    lab.ok(&["up", "lab"]);
    lab
}

/// Sends all of a request before it reads, as Python's clients do. What is received until the end, which must
/// not be a reset.
#[track_caller]
fn sent_and_read(stream: &mut (impl Read + Write), head: &str, body: &[u8]) -> String {
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap_or_else(|e| panic!("{head}: the body of {} bytes was not taken: {e}", body.len()));
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap_or_else(|e| panic!("{head}: {e}"));
    String::from_utf8(received).unwrap()
}

fn chunks(body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in body.chunks(60_000) {
        all.extend(format!("{:x}\r\n", piece.len()).bytes());
        all.extend(piece);
        all.extend(b"\r\n");
    }
    all.extend(b"0\r\n\r\n");
    all
}

/// The five ways of a refusal: not allowed, not known, not one meaning, a bad body, and no Engine.
#[test]
fn each_refusal_arrives_at_a_client_that_sends_first() {
    for tcp in [false, true] {
        let local = if tcp { "local = \"tcp:127.0.0.1:0\"" } else { "" };
        // The Engine goes away without a word.
        let lab = lab(drop, &format!("access = [\"containers\"]\n{local}"));
        let address = lab.status("lab")["local"].as_str().unwrap().replace("tcp://", "");
        let ask = |head: &str, body: &[u8]| match tcp {
            true => sent_and_read(&mut TcpStream::connect(&address).unwrap(), head, body),
            false => sent_and_read(&mut connect(&lab.socket("lab")), head, body),
        };
        for size in SIZES {
            let body = vec![b'x'; size];
            let close = "Host: localhost\r\nConnection: close\r\n";
            for (line, code) in [
                ("POST /build?t=a HTTP/1.1", "403"),
                ("POST /v1.23/images/load HTTP/1.1", "403"),
                ("PUT /nothing HTTP/1.1", "403"),
                ("POST /build//x HTTP/1.1", "400"),
                ("PUT /containers/a/archive?path=/ HTTP/1.1", "502"),
            ] {
                for chunked in [false, true] {
                    let (length, body) = match chunked {
                        false => (format!("Content-Length: {size}"), body.clone()),
                        true => ("Transfer-Encoding: chunked".to_owned(), chunks(&body)),
                    };
                    let answer = ask(&format!("{line}\r\n{close}{length}\r\n\r\n"), &body);
                    assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{line} {size} {chunked}: {answer}");
                    assert!(answer.contains("{\"message\":\"dtunnel: "), "{line} {size}: {answer}");
                }
            }
            // Chunks that are none, after some that are.
            let mut bad = chunks(&body);
            bad.truncate(bad.len() - 5);
            bad.extend(b"zz\r\n");
            bad.extend(&body);
            for (line, code) in [("PUT /containers/a/archive?path=/ HTTP/1.1", "400"), ("POST /build HTTP/1.1", "403")]
            {
                let answer = ask(&format!("{line}\r\n{close}Transfer-Encoding: chunked\r\n\r\n"), &bad);
                // The Engine of this test may have gone before the chunks went wrong.
                let gone = code == "400" && answer.starts_with("HTTP/1.1 502 ");
                assert!(gone || answer.starts_with(&format!("HTTP/1.1 {code} ")), "{line} {size}: {answer}");
            }
        }
    }
}

/// An answer to HEAD has no body (RFC 9110 section 9.3.2), also where there is no Engine to answer.
#[test]
fn who_asks_for_a_head_gets_no_body_where_the_engine_is_gone() {
    let lab = lab(drop, "access = [\"containers\"]");
    std::fs::remove_file(lab.path("remote/engine.sock")).unwrap();
    for (method, has_body) in [("HEAD", false), ("GET", true)] {
        let head = format!("{method} /containers/a/archive?path=/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = sent_and_read(&mut connect(&lab.socket("lab")), &head, b"");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method}: {answer}"));
        assert!(head.starts_with("HTTP/1.1 502 "), "{answer}");
        assert_eq!(!body.is_empty(), has_body, "{answer}");
    }
}

/// Who waits for a word before a body gets the refusal instead, and is not asked for the body.
#[test]
fn who_waits_to_be_asked_for_a_body_is_refused_at_once() {
    let lab = lab(drop, "access = \"read-only\"");
    for line in ["POST /build HTTP/1.1", "POST //build HTTP/1.1"] {
        let mut stream = connect(&lab.socket("lab"));
        let head = format!("{line}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
        assert!(!answer.contains("100 Continue"), "{answer}");
    }
}

/// The Engine answers early as well, and closes while a client is sending.
#[test]
fn an_early_answer_of_the_engine_arrives() {
    let early = |mut stream: UnixStream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let body = "{\"message\":\"No such container: a\"}\n";
        let _ = stream
            .write_all(format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    };
    let lab = lab(early, "access = [\"containers\", \"build\"]");
    for turn in 0..40 {
        let size = SIZES[turn % SIZES.len()];
        let head = format!(
            "PUT /containers/a/archive?path=/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        );
        let answer = sent_and_read(&mut connect(&lab.socket("lab")), &head, &vec![b'x'; size]);
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("No such container"), "{turn} {size}: {answer}");
    }
}

/// The small body of a refused request is read, so that the next one is answered on the same connection.
#[test]
fn a_small_refused_request_does_not_end_the_connection() {
    let lab = lab(drop, "access = \"read-only\"");
    let mut stream = connect(&lab.socket("lab"));
    for _ in 0..20 {
        // In two pieces, as most clients write them.
        stream.write_all(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n").unwrap();
        stream.write_all(b"{\"Image\":\"a\"}\n").unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"}\n") {
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 403 "));
    }
}

/// About one in eight ended in `write: broken pipe`.
#[test]
fn the_cli_prints_every_refusal() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {:?}\naccess = \"read-only\"\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    lab.ok(&["up", "lab"]);
    let id = run(&mut lab.engine.as_ref().unwrap().docker(&["create", IMAGE]));
    let id = id.trim();
    let contexts: Vec<PathBuf> = [1_000, 300_000, 20_000_000]
        .into_iter()
        .map(|size| {
            let context = lab.path(&format!("context-{size}"));
            std::fs::create_dir(&context).unwrap();
            std::fs::write(context.join("Dockerfile"), format!("FROM {IMAGE}\n")).unwrap();
            std::fs::write(context.join("data"), vec![b'x'; size]).unwrap();
            context
        })
        .collect();
    let into = format!("{id}:/tmp");
    for turn in 0..60 {
        let context = contexts[turn % contexts.len()].to_str().unwrap();
        let data = format!("{context}/data");
        for (args, reason) in [
            (&["build", context][..], "build.build is not allowed here"),
            (&["load", "-i", &data], "images.load is not allowed here"),
            (&["import", &data], "images.import is not allowed here"),
            (&["cp", &data, &into], "is not allowed here"),
            (&["create", IMAGE], "containers.create is not allowed here"),
        ] {
            let output = lab.docker("lab", args).env("DOCKER_BUILDKIT", "0").output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && stderr.contains(reason), "{turn} {args:?}: {stderr}");
        }
        // `docker cp` asks before it sends: this sends.
        let url = format!("http://docker/containers/{id}/archive?path=/tmp");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--unix-socket"]).arg(lab.socket("lab")).args(["-T", &data, &url]);
        let output = curl.stdin(Stdio::null()).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains("containers.copy is not allowed here"), "{turn}: {stdout} {output:?}");
    }
    run(&mut lab.engine.as_ref().unwrap().docker(&["rm", id]));
}
