//! Each request finds its own way: a client's connection outlives the SSH connections that its requests went over.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::lab::{Lab, answers, connect, remote, wait_for};

const INFO: &[u8] = b"GET /info HTTP/1.1\r\nHost: docker\r\n\r\n";
const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";

/// The answer to `request`, up to the OK at the end of its body; an error where it was cut or ended.
fn ask(client: &mut UnixStream, request: &[u8]) -> std::io::Result<String> {
    client.write_all(request)?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") || !answer.ends_with(b"OK") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn a_thousand_clients_between_requests_do_not_notice_a_lost_connection() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    for guard in ["", "access = \"read-only\"\n"] {
        let Some(lab) = Lab::with_engine() else { return };
        lab.write_profile(lab.remote_socket(), guard);
        lab.ok(&["up", "lab"]);
        a_thousand_clients_notice_nothing(&lab);
    }
}

fn a_thousand_clients_notice_nothing(lab: &Lab) {
    let mut clients: Vec<UnixStream> = (0..1000).map(|_| connect(&lab.socket("lab"))).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let answer = ask(client, PING).unwrap_or_else(|e| panic!("client {number} in round {round}: {e}"));
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
        // Who asks nothing is no flow of any connection.
        let idle = |status: serde_json::Value| {
            let connections = status["connections"].as_array().unwrap();
            connections.iter().all(|connection| connection["flows"] == 0).then_some(status["flows_open"].clone())
        };
        assert_eq!(wait_for("all to be idle", || idle(lab.status("lab"))), 1000);
        lab.sshd.cut_sessions();
    }
    drop(clients);
    wait_for("all to be gone", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    assert_eq!(lab.status("lab")["flows_failed"], 0, "{}", lab.log("lab"));
}

/// A server that takes requests, answers none of them on its first connection, and all on later ones.
fn silent_once(lab: &Lab) -> Arc<Mutex<Vec<String>>> {
    let (connections, asked) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Vec<String>>>::default());
    let seen = asked.clone();
    let path = lab.path("remote/x.sock");
    remote::serve_all(&path, move |mut stream| {
        let mut request = vec![0; 4096];
        // A spare channel without a request does not count.
        let mut turn = None;
        while let Ok(size @ 1..) = stream.read(&mut request) {
            let asked = String::from_utf8_lossy(&request[..size]).into_owned();
            seen.lock().unwrap().push(asked.clone());
            let number = *turn.get_or_insert_with(|| connections.fetch_add(1, Relaxed));
            if number > 0 || asked.contains("/_ping") {
                let head = "HTTP/1.1 200 OK\r\nServer: Docker/20.10.0 (lab)\r\nApi-Version: 1.41\r\n";
                let _ = stream.write_all(format!("{head}Content-Length: 2\r\n\r\nOK").as_bytes());
            }
        }
    });
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
    asked
}

#[test]
fn a_question_without_an_answer_is_asked_again_and_a_command_never() {
    for (method, again) in [("GET", true), ("HEAD", true), ("POST", false), ("DELETE", false)] {
        let lab = Lab::new("");
        let asked = silent_once(&lab);
        let mut client = connect(&lab.socket("lab"));
        let line = format!("{method} /containers/x/json HTTP/1.1\r\nHost: docker\r\n\r\n");
        client.write_all(line.as_bytes()).unwrap();
        wait_for("the request", || asked.lock().unwrap().contains(&line).then_some(()));
        lab.sshd.cut_sessions();
        let mut answer = [0; 8];
        let read = client.read_exact(&mut answer);
        assert_eq!(read.is_ok(), again, "{method}: {read:?}");
        assert_eq!(asked.lock().unwrap().iter().filter(|request| **request == line).count(), 1 + usize::from(again));
    }
}

#[test]
fn a_client_that_asks_nothing_is_let_go_where_the_tunnel_leads_elsewhere_and_one_that_asks_is_cut() {
    let lab = Lab::new("");
    for name in ["first", "second"] {
        answers::serve(&lab.path(&format!("remote/{name}")), move |_| Some(format!("{name} OK")));
    }
    let lead_to = |name: &str, more: &str| lab.write_profile(lab.path(&format!("remote/{name}")), more);
    lead_to("first", "");
    lab.ok(&["up", "lab"]);
    for more in ["", "access = \"read-only\"\n"] {
        lead_to("first", "");
        lab.ok(&["reload", "lab"]);
        let mut client = connect(&lab.socket("lab"));
        let answer = ask(&mut client, INFO).unwrap();
        assert!(answer.contains("first"), "{answer}");
        // To another Engine, or past a guard.
        lead_to(if more.is_empty() { "second" } else { "first" }, more);
        lab.ok(&["reload", "lab"]);
        let answer = ask(&mut client, INFO);
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[test]
fn without_the_layer_a_client_is_bound_to_its_channel() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_profile(lab.remote_socket(), "api = false\n");
    lab.ok(&["up", "lab"]);
    let mut client = connect(&lab.socket("lab"));
    ask(&mut client, PING).unwrap();
    lab.sshd.cut_sessions();
    assert!(ask(&mut client, PING).and_then(|_| ask(&mut client, PING)).is_err());
}

#[test]
fn a_lazy_tunnel_goes_idle_under_a_client_that_asks_nothing_and_serves_its_next_request() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_profile(lab.remote_socket(), "lazy = true\nidle_timeout = \"1s\"\n");
    lab.ok(&["up", "lab"]);
    let mut client = connect(&lab.socket("lab"));
    for _ in 0..2 {
        let answer = ask(&mut client, PING).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        wait_for("it to be idle", || (lab.state() == "idle").then_some(()));
    }
    assert_eq!(lab.status("lab")["flows_open"], 1);
}

/// An Engine that answers everything with `answer`, and notes what it was asked, with the number of the connection.
fn recording(lab: &Lab, answer: &Arc<Mutex<String>>) -> Arc<Mutex<Vec<(usize, String)>>> {
    recording_under(lab, answer, "")
}

/// As [`recording`], with these lines in the profile.
fn recording_under(lab: &Lab, answer: &Arc<Mutex<String>>, more: &str) -> Arc<Mutex<Vec<(usize, String)>>> {
    let (connections, asked) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Vec<_>>>::default());
    let (seen, answer) = (asked.clone(), answer.clone());
    remote::serve_all(&lab.path("remote/x.sock"), move |mut stream| {
        let mut request = vec![0; 4096];
        let number = connections.fetch_add(1, Relaxed);
        while let Ok(size @ 1..) = stream.read(&mut request) {
            let asked = String::from_utf8_lossy(&request[..size]).into_owned();
            let body = if asked.starts_with("HEAD") { "" } else { "OK" };
            seen.lock().unwrap().push((number, asked));
            let text = format!("{}{body}", answer.lock().unwrap());
            let _ = stream.write_all(text.as_bytes());
        }
    });
    lab.write_profile(lab.path("remote/x.sock"), more);
    lab.ok(&["up", "lab"]);
    asked
}

fn well() -> Arc<Mutex<String>> {
    let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nBuilder-Version: 2\r\nOstype: linux\r\nSwarm: inactive\r\n";
    let rest = "Server: Docker/20.10.0 (lab)\r\nContent-Length: 2\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\n\r\n";
    Arc::new(Mutex::new(format!("{head}{rest}")))
}

fn ping_of(agent: &str) -> String {
    format!("HEAD /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: {agent}\r\n\r\n")
}

/// The head of the answer to this ping.
fn ping(client: &mut UnixStream, agent: &str) -> std::io::Result<String> {
    client.write_all(ping_of(agent).as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const CLI: &str = "Docker-Client/20.10.24 (linux)";

fn pings(asked: &Mutex<Vec<(usize, String)>>) -> usize {
    asked.lock().unwrap().iter().filter(|(_, request)| *request == ping_of(CLI)).count()
}

#[test]
fn the_ping_of_a_docker_command_is_answered_from_the_last_answer_and_nobody_elses_is() {
    for guard in ["", "access = \"read-only\"\n"] {
        pings_are_answered_early(guard);
    }
}

fn pings_are_answered_early(guard: &str) {
    let (lab, answer) = (Lab::new(""), well());
    let asked = recording_under(&lab, &answer, guard);
    let first = ping(&mut connect(&lab.socket("lab")), CLI).unwrap();
    assert!(first.contains("Builder-Version: 2") && first.contains("Date: Mon, 02 Jan 2006"), "{first}");
    // Known from now on; the client asks on, on the same connection.
    let mut client = connect(&lab.socket("lab"));
    let early = ping(&mut client, CLI).unwrap();
    let without_date = |head: &str| head.lines().filter(|line| !line.starts_with("Date: ")).collect::<String>();
    assert_eq!(without_date(&early), without_date(&first));
    assert!(early.contains("\r\nDate: ") && !early.contains("2006"), "{early}");
    assert_eq!(pings(&asked), 1);
    assert!(ask(&mut client, INFO).unwrap().ends_with("OK"));
    // A second ping on a connection is no command's first one.
    ping(&mut client, CLI).unwrap();
    assert_eq!(pings(&asked), 2);
    // Who wants to know whether the Engine is well hears it from the Engine.
    ping(&mut connect(&lab.socket("lab")), "docker-sdk-python/7.1.0").unwrap();
    assert!(asked.lock().unwrap().iter().any(|(_, request)| request.contains("docker-sdk-python")));
    let before = pings(&asked);
    // After an outage the Engine may be another one.
    lab.sshd.cut_sessions();
    // Its last connection is what counts: there may be two by now.
    wait_for("the outage's end", || (lab.log("lab").matches("connected to ").count() > 1).then_some(()));
    ping(&mut connect(&lab.socket("lab")), CLI).unwrap();
    assert_eq!(pings(&asked), before + 1);
    // And where it is not wanted, each is asked.
    lab.write_profile(lab.path("remote/x.sock"), &format!("{guard}eager_ping = false\n"));
    lab.ok(&["reload", "lab"]);
    (0..3).for_each(|_| drop(ping(&mut connect(&lab.socket("lab")), CLI).unwrap()));
    assert_eq!(pings(&asked), before + 4);
}

#[test]
fn who_was_told_that_the_engine_is_well_is_cut_once_it_is_not() {
    let (lab, answer) = (Lab::new(""), well());
    let asked = recording(&lab, &answer);
    ping(&mut connect(&lab.socket("lab")), CLI).unwrap();
    // One that has asked on has had the Engine's own word.
    let mut asks = connect(&lab.socket("lab"));
    ping(&mut asks, CLI).unwrap();
    ask(&mut asks, INFO).unwrap();
    *answer.lock().unwrap() = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n".into();
    let mut told = Vec::new();
    wait_for("the Engine's word", || {
        let mut client = connect(&lab.socket("lab"));
        if ping(&mut client, CLI).ok()?.starts_with("HTTP/1.1 200") {
            told.push(client);
            return None;
        }
        Some(())
    });
    assert!(!told.is_empty(), "none was answered early");
    for client in &mut told {
        let end = client.read(&mut [0]);
        assert!(end.is_err(), "{end:?}");
    }
    assert!(pings(&asked) > 1);
    assert!(ask(&mut asks, INFO).unwrap().starts_with("HTTP/1.1 500"));
}

#[test]
fn the_channel_of_a_command_that_is_over_serves_the_next_command_and_nothing_that_is_no_request() {
    let (lab, answer) = (Lab::new(""), well());
    let asked = recording(&lab, &answer);
    let last = || asked.lock().unwrap().last().unwrap().0;
    let mut numbers = Vec::new();
    for _ in 0..5 {
        ask(&mut connect(&lab.socket("lab")), INFO).unwrap();
        numbers.push(last());
        let is_idle = || lab.status("lab")["flows_open"] == 0;
        wait_for("its end", || is_idle().then_some(()));
        wait_for("the channel", || (lab.status("lab")["connections"][0]["spare"] == true).then_some(()));
    }
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    let mut other = connect(&lab.socket("lab"));
    other.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    other.read_exact(&mut [0; 8]).unwrap();
    assert_ne!(last(), numbers[0]);
    assert_eq!(lab.status("lab")["flows_failed"], 0);
}

#[test]
fn a_request_whose_client_leaves_at_once_arrives() {
    let (lab, answer) = (Lab::new(""), well());
    let asked = recording(&lab, &answer);
    let posts = || asked.lock().unwrap().iter().filter(|(_, request)| request.starts_with("POST /volumes")).count();
    for _ in 0..50 {
        let mut client = connect(&lab.socket("lab"));
        client.write_all(b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    }
    wait_for("all of them", || (posts() == 50).then_some(()));
}

#[test]
fn a_command_gets_a_new_channel_and_a_question_one_that_is_there() {
    let (lab, answer) = (Lab::new(""), well());
    let asked = recording(&lab, &answer);
    let last = || asked.lock().unwrap().last().unwrap().0;
    let idle = || wait_for("its end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    ask(&mut connect(&lab.socket("lab")), INFO).unwrap();
    let first = last();
    idle();
    ask(&mut connect(&lab.socket("lab")), b"POST /containers/prune HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_ne!(last(), first);
    idle();
    ask(&mut connect(&lab.socket("lab")), INFO).unwrap();
    assert_eq!(last(), first);
}

#[test]
fn an_end_that_the_engine_makes_is_seen_as_over_a_plain_socket() {
    let lab = Lab::new("");
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = asked.clone();
    remote::serve_all(&lab.path("remote/x.sock"), move |mut stream| {
        let mut request = vec![0; 4096];
        let size = stream.read(&mut request).unwrap_or_default();
        let request = String::from_utf8_lossy(&request[..size]).into_owned();
        let head = "HTTP/1.1 200 OK\r\nServer: Docker/20.10.0 (lab)\r\nApi-Version: 1.41\r\n";
        if !request.contains("/nothing") {
            let _ = stream.write_all(format!("{head}Content-Length: 2\r\n\r\nOK").as_bytes());
        }
        seen.lock().unwrap().push(request);
    });
    lab.ok(&["up", "lab", "--remote", lab.path("remote/x.sock").to_str().unwrap()]);
    for (path, expected) in [("/nothing", ""), ("/info", "OK")] {
        let mut client = connect(&lab.socket("lab"));
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(expected) && answer.is_empty() == expected.is_empty(), "{answer}");
        assert_eq!(asked.lock().unwrap().iter().filter(|request| request.contains(path)).count(), 1, "{path}");
    }
}

#[test]
fn after_an_answer_that_the_engine_is_unwell_nobody_is_told_otherwise() {
    let (lab, answer) = (Lab::new(""), well());
    let asked = recording(&lab, &answer);
    let mut client = connect(&lab.socket("lab"));
    ping(&mut client, CLI).unwrap();
    ping(&mut connect(&lab.socket("lab")), CLI).unwrap();
    assert_eq!(pings(&asked), 1);
    let unwell = "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
    *answer.lock().unwrap() = unwell.into();
    assert!(ping(&mut client, CLI).unwrap().starts_with("HTTP/1.1 500"));
    assert!(ping(&mut connect(&lab.socket("lab")), CLI).unwrap().starts_with("HTTP/1.1 500"));
}

#[test]
fn requests_in_progress_are_shown_and_those_that_are_over_are_logged() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab", "-v"]);
    let mut client = connect(&lab.socket("lab"));
    client.write_all(b"GET /v1.40/events?filters={} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let shown = || lab.status("lab")["requests"].as_array().unwrap().first().cloned();
    let request = wait_for("the request", shown);
    assert_eq!((&request["method"], &request["path"]), (&"GET".into(), &"/v1.40/events".into()));
    assert_eq!(request["pid"], std::process::id());
    assert!(request["since"].as_str().unwrap().ends_with('Z') && request["command"].is_string(), "{request}");
    drop(client);
    wait_for("its end", || (lab.status("lab")["requests"] == serde_json::json!([])).then_some(()));
    let mut client = connect(&lab.socket("lab"));
    ask(&mut client, b"GET /_ping?secret HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    wait_for("the log", || lab.log("lab").contains("GET /_ping: 200 in ").then_some(()));
    assert!(!lab.log("lab").contains("secret"));
    assert_eq!(lab.status("lab")["requests"], serde_json::json!([]), "it asks nothing now");
}
