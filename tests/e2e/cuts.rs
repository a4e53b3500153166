//! Under a guard the counters and `status` say of a client what really happened: a guard stands between it and the flow
//! that carries it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::lab::{Lab, connect, remote, wait_for};

/// An Engine's answers: `ping` at once, a log that goes on for ever (`quiet` and `loud`), an attached stream that
/// echoes.
fn answer(mut stream: UnixStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let head: Vec<String> =
            reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let Some(line) = head.first() else { return };
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nline\r\n";
        if line.contains("/quiet/logs") {
            stream.write_all(chunked.as_bytes()).unwrap();
            let _ = reader.read(&mut [0]);
            return;
        } else if line.contains("/loud/logs") {
            stream.write_all(chunked.as_bytes()).unwrap();
            let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while stream.write_all(piece.as_bytes()).is_ok() {}
            return;
        } else if line.contains("/attach") {
            let upgraded = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            stream.write_all(upgraded.as_bytes()).unwrap();
            return remote::echo(stream);
        }
        let pong = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/0.0.0 (lab)\r\nContent-Length: 2\r\n\r\nOK";
        if stream.write_all(pong.as_bytes()).is_err() {
            return;
        }
    }
}

fn guarded(settings: &str) -> Lab {
    let lab = Lab::new("");
    let socket = lab.path("remote/engine.sock");
    remote::serve_all(&socket, answer);
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {socket:?}\naccess = \"containers\"\n{settings}\n",
        lab.path("ssh_config")
    ));
    lab.ok(&["up", "lab"]);
    lab
}

/// Asks, and reads until `end` has come.
fn asks(lab: &Lab, request: &str, end: &str) -> UnixStream {
    let mut stream = connect(&lab.socket("lab"));
    go_on(&mut stream, request, end);
    stream
}

fn go_on(stream: &mut UnixStream, request: &str, end: &str) {
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: docker\r\n").as_bytes()).unwrap();
    let upgrade = if request.contains("attach") { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
    stream.write_all(format!("{upgrade}\r\n").as_bytes()).unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&answer).ends_with(end) {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
}

const LOGS: &str = "GET /containers/quiet/logs?follow=1";
const ATTACH: &str = "POST /containers/x/attach?stream=1";

fn failed(lab: &Lab) -> u64 {
    lab.status("lab")["flows_failed"].as_u64().unwrap()
}

#[test]
fn a_cut_answer_or_stream_is_a_failed_flow_and_nothing_else_is() {
    let lab = guarded("");
    // Those who have what they wanted, or go away, have not failed.
    let mut idle = asks(&lab, "GET /_ping", "OK");
    drop(asks(&lab, LOGS, "line\r\n"));
    drop(asks(&lab, ATTACH, "\r\n\r\n"));
    let mut ended = asks(&lab, ATTACH, "\r\n\r\n");
    ended.shutdown(std::net::Shutdown::Write).unwrap();
    ended.read_to_end(&mut Vec::new()).unwrap();
    wait_for("their ends", || (lab.status("lab")["flows_open"] == 1).then_some(()));
    assert_eq!(failed(&lab), 0);
    let mut logs = asks(&lab, LOGS, "line\r\n");
    let mut attached = asks(&lab, ATTACH, "\r\n\r\n");
    lab.sshd.cut_sessions();
    let mut rest = Vec::new();
    let _ = logs.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut is no end");
    let _ = attached.read_to_end(&mut rest);
    wait_for("both", || (failed(&lab) == 2).then_some(()));
    // A connection on which nothing was asked is used again.
    wait_for("the tunnel", || (lab.state() == "up").then_some(()));
    go_on(&mut idle, "GET /_ping", "OK");
    drop(idle);
    wait_for("its end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    assert_eq!(failed(&lab), 2);
}

#[test]
fn who_was_reset_is_named_and_not_the_guard() {
    let lab = guarded("max_connections = 1\nspill = 0");
    let beside = asks(&lab, ATTACH, "\r\n\r\n");
    let mut stopped = asks(&lab, "GET /containers/loud/logs?follow=1", "line\r\n");
    let why = wait_for("the reset", || lab.status("lab")["last_reset"].as_str().map(str::to_owned));
    let me = format!("(pid {}, ", std::process::id());
    assert!(why.contains(&me) && why.contains("did not read while others needed"), "{why}");
    let _ = stopped.read_to_end(&mut Vec::new());
    wait_for("the failure", || (failed(&lab) == 1).then_some(()));
    drop(beside);
}
