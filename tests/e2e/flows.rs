//! Flows: each direction ends by itself, cuts look cut, refusals are counted.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::lab::{Lab, connect, remote, run, wait_for};

/// A tunnel `lab` to a server with this behaviour; the local socket.
fn tunnel_to(lab: &Lab, behaviour: impl Fn(UnixStream) + Send + Sync + Clone + 'static) -> PathBuf {
    let path = lab.path("remote/x.sock");
    remote::serve(&path, behaviour);
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
    lab.socket("lab")
}

fn flows_end(lab: &Lab) -> serde_json::Value {
    wait_for("all flows to end", || Some(lab.status("lab")).filter(|status| status["flows_open"] == 0))
}

#[test]
fn the_end_of_what_a_client_sends_arrives_and_the_answer_still_comes() {
    let lab = Lab::new("");
    // Answers with the count of what came, once that has ended.
    let socket = tunnel_to(&lab, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).unwrap();
    });
    for size in [0, 1, 100_000, 5_000_000] {
        let mut client = connect(&socket);
        client.write_all(&vec![b'x'; size + 1]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("{size} bytes"));
    }
    assert_eq!(flows_end(&lab)["flows_failed"], 0);
}

#[test]
fn half_a_request_and_an_end_arrive_as_they_are() {
    let lab = Lab::new("");
    let socket = tunnel_to(&lab, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    for text in ["POST", "HEAD /_ping HTTP/1.1\r\nHost:", "QUIT /\r\n"] {
        let mut client = connect(&socket);
        client.write_all(text.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        // The server keeps the first byte for itself.
        assert_eq!(answer, text[1..]);
    }
    assert_eq!(flows_end(&lab)["flows_failed"], 0);
}

#[test]
fn a_client_that_has_ended_its_side_reads_to_a_clean_end() {
    let lab = Lab::new("");
    let (release, released) = std::sync::mpsc::channel();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    // As the Engine does at the end of `docker exec`: both directions have ended, but it still holds on.
    let socket = tunnel_to(&lab, move |mut stream| {
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.write_all(&[b'.'; 3000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = released.lock().unwrap().recv();
    });
    for _ in 0..20 {
        let mut client = connect(&socket);
        client.write_all(b"xquestion").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 3000);
        release.send(()).unwrap();
    }
    assert_eq!(flows_end(&lab)["flows_failed"], 0);
}

#[test]
fn the_end_of_what_the_host_sends_arrives_and_it_still_reads() {
    let lab = Lab::new("");
    let (heard, hears) = std::sync::mpsc::channel();
    let socket = tunnel_to(&lab, move |mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        heard.send(all).unwrap();
    });
    let mut client = connect(&socket);
    client.write_all(b"x").unwrap();
    let mut greeting = String::new();
    client.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "hello");
    client.write_all(b"still here").unwrap();
    drop(client);
    assert_eq!(hears.recv_timeout(crate::lab::PATIENCE).unwrap(), "still here");
    assert_eq!(flows_end(&lab)["flows_failed"], 0);
}

#[test]
fn a_cut_download_looks_cut() {
    let lab = Lab::new("");
    let socket = tunnel_to(&lab, |mut stream| {
        stream.write_all(b"the first half").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let mut client = connect(&socket);
    client.write_all(b"x").unwrap();
    let mut half = [0; 14];
    client.read_exact(&mut half).unwrap();
    lab.sshd.cut_sessions();
    let error = client.read(&mut [0]).expect_err("a cut is no end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(flows_end(&lab)["flows_failed"], 1);
}

#[test]
fn a_client_that_goes_away_is_heard_of_on_the_host() {
    let lab = Lab::new("");
    let (heard, hears) = std::sync::mpsc::channel();
    let socket = tunnel_to(&lab, move |mut stream| {
        // Sends until nobody listens any more.
        while stream.write_all(&[0; 4096]).is_ok() {}
        heard.send(()).unwrap();
    });
    let mut client = connect(&socket);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 100_000]).unwrap();
    drop(client);
    hears.recv_timeout(crate::lab::PATIENCE).unwrap();
    flows_end(&lab);
}

#[test]
fn a_refused_flow_closes_its_client_counts_and_leaves_the_tunnel_up() {
    let lab = Lab::new("");
    let socket = tunnel_to(&lab, |_| {});
    // The first flow gets the channel that was opened for it beforehand.
    wait_for("the spare channel", || (lab.status("lab")["connections"][0]["spare"] == true).then_some(()));
    std::fs::remove_file(lab.path("remote/x.sock")).unwrap();
    let mut first = connect(&socket);
    first.write_all(b"x").unwrap();
    assert!(matches!(first.read(&mut [0]), Ok(0)), "this server ends it");
    drop(first);
    for _ in 0..3 {
        let mut client = connect(&socket);
        let _ = client.write_all(b"x");
        assert!(!matches!(client.read(&mut [0]), Ok(1..)), "closed at once");
    }
    let status = flows_end(&lab);
    assert_eq!((&status["state"], &status["flows_failed"]), (&"up".into(), &3.into()));
}

#[test]
fn flows_leave_no_descriptors_behind() {
    let lab = Lab::new("");
    // A further connection has descriptors of its own.
    lab.allow_one_connection();
    let socket = tunnel_to(&lab, |mut stream| {
        let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
    });
    let descriptors = || {
        let pid = &lab.status("lab")["pid"];
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    };
    let echo = |client: &mut UnixStream| {
        // The first byte only chooses the behaviour.
        client.write_all(b"xping").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    };
    echo(&mut connect(&socket));
    flows_end(&lab);
    let before = descriptors();
    for round in 0..4 {
        let mut clients: Vec<_> = (0..50).map(|_| connect(&socket)).collect();
        clients.iter_mut().for_each(echo);
        if round % 2 == 0 {
            clients.iter().for_each(|client| client.shutdown(Shutdown::Write).unwrap());
        }
        drop(clients);
        flows_end(&lab);
    }
    wait_for("the descriptors to go", || (descriptors() <= before).then_some(()));
}

#[test]
fn down_lets_a_busy_flow_finish_and_does_not_wait_for_a_quiet_one() {
    let lab = Lab::new("");
    let socket = tunnel_to(&lab, |mut stream| {
        let mut which = [0];
        stream.read_exact(&mut which).unwrap();
        if which == *b"b" {
            // Two seconds of steady work.
            for _ in 0..40 {
                stream.write_all(&[b'.'; 1000]).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        } else {
            let _ = stream.read(&mut which);
        }
    });
    let mut quiet = connect(&socket);
    quiet.write_all(b"xq").unwrap();
    let mut busy = connect(&socket);
    busy.write_all(b"xb").unwrap();
    busy.read_exact(&mut [0]).unwrap();
    let down = std::thread::scope(|scope| {
        let down = scope.spawn(|| run(&mut lab.dtunnel(["down", "lab"])));
        let mut rest = Vec::new();
        busy.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 39_999, "all of it, in spite of down");
        down.join().unwrap()
    });
    drop(down);
    assert!(!matches!(quiet.read(&mut [0]), Ok(1..)));
    assert_eq!(lab.runtime_files(), [""; 0]);
}

/// As of an Engine that thousands ask at once. A client of a plain socket waits then (connect(2)), and so does one here.
#[test]
fn a_full_backlog_is_waited_for_where_the_engine_took_others_just_before() {
    let lab = Lab::new("");
    let socket = lab.path("remote/x.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // One may wait.
    rustix::net::listen(&listener, 0).unwrap();
    let gate: Arc<Mutex<()>> = Arc::default();
    let opened = gate.clone();
    std::thread::spawn(move || {
        loop {
            drop(opened.lock().unwrap());
            let (stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || remote::answer_ping_or(stream, |mut stream| drop(stream.write_all(b"y"))));
        }
    });
    lab.ok(&["up", "lab", "--remote", socket.to_str().unwrap()]);
    let ask = || {
        let mut client = connect(&lab.socket("lab"));
        client.write_all(b"x").map(|()| client)
    };
    let answered = |client: std::io::Result<UnixStream>| client.and_then(|mut client| client.read_exact(&mut [0]));
    let refused = || std::fs::read_to_string(lab.path("sshd.log")).unwrap().matches("temporarily unavailable").count();
    // On a machine that is too busy, it was too long before.
    let waited = (0..20).any(|_| {
        wait_for("an answer", || answered(ask()).ok());
        let (before, closed) = (refused(), gate.lock().unwrap());
        let clients: Vec<_> = (0..6).map(|_| ask()).collect();
        wait_for("a full backlog", || (refused() > before).then_some(()));
        drop(closed);
        clients.into_iter().all(|client| answered(client).is_ok())
    });
    assert!(waited, "{}", lab.log("lab"));
}

/// Clients who want more than there is do not keep the tunnel from its owner.
#[test]
fn descriptors_are_left_for_who_ends_the_tunnel() {
    const LIMIT: usize = 200;
    let lab = Lab::new("");
    let socket = lab.path("remote/x.sock");
    remote::serve(&socket, remote::echo);
    let mut up = std::process::Command::new("sh");
    lab.set_env(&mut up);
    up.args(["-c", &format!("ulimit -n {LIMIT}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_dtunnel"), "up", "lab"]);
    run(up.arg("--remote").arg(&socket));
    let mut clients: Vec<UnixStream> = (0..LIMIT).map(|_| connect(&lab.socket("lab"))).collect();
    wait_for("the limit", || lab.log("lab").contains("flows at once").then_some(()));
    let open = lab.status("lab")["flows_open"].as_u64().unwrap();
    assert!(open < LIMIT as u64 && open > LIMIT as u64 / 2, "{open}");
    // Those that wait are served once others have gone.
    let mut last = clients.pop().unwrap();
    drop(clients);
    last.write_all(b"xy").unwrap();
    last.read_exact(&mut [0]).unwrap();
    lab.ok(&["down", "lab"]);
}
