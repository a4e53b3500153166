//! Published ports, from a real Engine in a network of its own to this machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

use crate::lab::engine::IMAGE;
use crate::lab::pty::Person;
use crate::lab::{Lab, connect, is_root, run, skip, succeeded, wait_for};
use crate::sockets;

/// Held by tests whose Engines choose ports themselves: each begins at the same one, and here there is one of it.
static CHOSEN_BY_ENGINES: Mutex<()> = Mutex::new(());

/// Tests run side by side on this machine's loopback: each has ports of its own.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ephemeral ports, and apart from those of another run.
    let base = 12_000 + u16::try_from(std::process::id() % 40).unwrap() * 500;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 500;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A web server that says its name.
const SERVE: &str = "mkdir -p /www; echo \"$0\" > /www/index.html; exec httpd -f -p 80 -h /www";

/// Starts one on the host; its id.
fn serve(lab: &Lab, name: &str, options: &[&str]) -> String {
    let engine = lab.engine.as_ref().unwrap();
    let args = [&["run", "--detach", "--name", name], options, &[IMAGE, "sh", "-c", SERVE, name]].concat();
    run(&mut engine.docker(&args)).trim().into()
}

fn on_host(lab: &Lab, args: &[&str]) -> String {
    run(&mut lab.engine.as_ref().unwrap().docker(args))
}

fn curl(url: &str) -> Output {
    Command::new("curl").args(["-s", "-m", "10", url]).output().unwrap()
}

/// What the port says, as soon as it says something.
#[track_caller]
fn answer(url: &str) -> String {
    wait_for(&format!("an answer at {url}"), || {
        let output = curl(url);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    })
}

#[track_caller]
fn until_refused(port: u16) {
    wait_for("the port to be gone", || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
}

fn mappings(lab: &Lab) -> Vec<Value> {
    serde_json::from_str(&lab.ok(&["ports", "lab", "--json"])).unwrap()
}

/// The mapping of `container`, over IPv4 where there are two.
fn mapping(lab: &Lab, container: &str) -> Option<Value> {
    mappings(lab)
        .into_iter()
        .find(|m| m["container"] == container && !m["remote_address"].as_str().unwrap().contains(':'))
}

#[track_caller]
fn until_open(lab: &Lab, container: &str) -> Value {
    wait_for("the mapping", || mapping(lab, container).filter(|m| m["state"] == "open"))
}

fn lab(profile: &str) -> Option<Lab> {
    lab_with(profile, &[])
}

/// With these options of its Engine.
fn lab_with(profile: &str, options: &[&str]) -> Option<Lab> {
    let lab = Lab::with_own_engine("", options)?;
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nremote = {:?}\n[profiles.lab]\n{profile}\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    Some(lab)
}

#[test]
fn ports_come_with_their_containers_and_go_with_them() {
    let _alone = CHOSEN_BY_ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = lab("") else { return };
    let [before, after, second, loopback, given, udp] = std::array::from_fn(|_| port());
    serve(&lab, "before", &["-p", &format!("{before}:80")]);
    lab.ok(&["up", "lab", "--ports"]);
    assert_eq!(answer(&format!("http://127.0.0.1:{before}/")), "before\n");
    assert_eq!(answer(&format!("http://[::1]:{before}/")), "before\n");

    let begun = Instant::now();
    serve(&lab, "after", &["-p", &format!("{after}:80"), "-p", &format!("{second}:80")]);
    let started = begun.elapsed();
    assert_eq!(answer(&format!("http://localhost:{after}/")), "after\n");
    eprintln!("docker run took {started:?}, the port was there after {:?}", begun.elapsed());
    assert_eq!(answer(&format!("http://localhost:{second}/")), "after\n");

    // Addresses of the host's own, and what cannot be carried.
    serve(&lab, "loopback", &["-p", &format!("127.0.0.1:{loopback}:80")]);
    assert_eq!(answer(&format!("http://127.0.0.1:{loopback}/")), "loopback\n");
    serve(&lab, "given", &["-p", &format!("{}:{given}:80", lab.sshd.address)]);
    assert_eq!(answer(&format!("http://127.0.0.1:{given}/")), "given\n");
    serve(&lab, "udp", &["-p", &format!("{udp}:53/udp")]);
    serve(&lab, "host", &["--network", "host"]);
    serve(&lab, "random", &["--expose", "80", "-P"]);
    let random = until_open(&lab, "random");
    assert_eq!(answer(&format!("http://{}/", random["local"].as_str().unwrap())), "random\n");
    let of_udp = wait_for("the udp port", || mapping(&lab, "udp"));
    assert_eq!(of_udp["state"], "not-forwarded");
    assert_eq!(wait_for("the host's", || mapping(&lab, "host"))["state"], "host-network");
    let table = lab.ok(&["ports", "lab"]);
    assert!(table.contains("SSH does not carry UDP") && table.contains("on the host's own network"), "{table}");
    let counted = mapping(&lab, "given").unwrap();
    assert!(counted["bytes_in"].as_u64() > Some(0) && counted["bytes_out"].as_u64() > Some(0), "{counted}");

    // Renamed, restarted, stopped, removed.
    on_host(&lab, &["rename", "after", "renamed"]);
    until_open(&lab, "renamed");
    on_host(&lab, &["restart", "-t", "0", "renamed"]);
    assert_eq!(answer(&format!("http://localhost:{after}/")), "after\n");
    on_host(&lab, &["stop", "-t", "0", "renamed"]);
    until_refused(after);
    on_host(&lab, &["start", "renamed"]);
    assert_eq!(answer(&format!("http://localhost:{after}/")), "after\n");
    on_host(&lab, &["rm", "-f", "renamed"]);
    until_refused(after);
    assert_eq!(answer(&format!("http://localhost:{before}/")), "before\n", "the others stay");
    lab.ok(&["down", "lab"]);
    until_refused(before);
}

#[test]
fn ports_are_there_when_docker_answers_and_free_when_it_says_that_they_are() {
    for profile in ["ports = true", "ports = true\naccess = \"containers\""] {
        let Some(lab) = lab(profile) else { return };
        lab.ok(&["up", "lab"]);
        ports_are_there_in_time(&lab);
    }
}

fn ports_are_there_in_time(lab: &Lab) {
    for round in 0..10 {
        let port = port();
        let publish = format!("{port}:80");
        let command = ["run", "--detach", "--name", "prompt", "--publish", &publish, IMAGE, "sleep", "600"];
        run(&mut lab.docker("lab", &command));
        TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("started, round {round}: {e}"));
        run(&mut lab.docker("lab", &["restart", "--time", "0", "prompt"]));
        TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("restarted, round {round}: {e}"));
        run(&mut lab.docker("lab", &["rm", "--force", "prompt"]));
        TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|e| panic!("removed, round {round}: {e}"));
    }
}

#[test]
fn a_reload_does_not_let_an_answer_go_early() {
    let Some(lab) = lab("ports = true") else { return };
    lab.ok(&["up", "lab"]);
    let is_over = AtomicBool::new(false);
    /// Ends the reloads, also where the test fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                lab.ok(&["reload", "lab"]);
            }
        });
        let _over = Over(&is_over);
        ports_are_there_in_time(&lab);
    });
}

#[test]
fn a_request_with_a_whole_uri_is_held_like_others() {
    let Some(lab) = lab("ports = true") else { return };
    lab.ok(&["up", "lab"]);
    let port = port();
    let publish = format!("{port}:80");
    run(&mut lab.docker("lab", &["create", "--name", "raw", "--publish", &publish, IMAGE, "sleep", "600"]));
    for (action, is_open) in [("start", true), ("kill", false), ("restart", true), ("stop?t=0", false)] {
        let mut client = connect(&lab.socket("lab"));
        let request =
            format!("POST http://x/v1.41/containers/raw/{action} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), is_open, "{action}");
    }
}

#[test]
fn many_ports_of_a_container_that_is_removed_are_all_free_again() {
    let Some(lab) = lab("ports = true") else { return };
    lab.ok(&["up", "lab"]);
    // Above those that `port` gives to other tests, which may release them for a moment.
    let begins = (0..9).map(|block| 32_000 + (u16::try_from(std::process::id() % 9).unwrap() + block) % 9 * 80);
    let first = begins
        .into_iter()
        .find(|first| (*first..first + 80).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .unwrap();
    let publish = format!("{first}-{}:1000-1079", first + 79);
    let command = ["run", "--detach", "--name", "many", "--publish", &publish, IMAGE, "sleep", "600"];
    run(&mut lab.docker("lab", &command));
    let open = || mappings(&lab).iter().filter(|m| m["state"] == "open").count();
    // Both addresses of each, where the Engine publishes both.
    wait_for("the ports", || (open() >= 80 && open() % 80 == 0).then_some(()));
    run(&mut lab.docker("lab", &["rm", "--force", "many"]));
    wait_for("the ports to be gone", || mappings(&lab).is_empty().then_some(()));
    (first..first + 80).for_each(|port| drop(TcpListener::bind(("127.0.0.1", port)).unwrap()));
}

#[test]
fn localhost_is_one_service_or_none() {
    let Some(lab) = lab("ports = true") else { return };
    let port = port();
    let other = TcpListener::bind(("::1", port)).unwrap();
    serve(&lab, "web", &["-p", &format!("{port}:80")]);
    lab.ok(&["up", "lab"]);
    let refused = wait_for("the mapping", || mapping(&lab, "web").filter(|m| m["state"] == "taken"));
    let reason = refused["reason"].as_str().unwrap();
    assert_eq!(reason, format!("[::1]:{port} is taken on this machine; both addresses of a port open together"));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(lab.log("lab").contains(reason), "{}", lab.log("lab"));
    drop(other);
    assert_eq!(answer(&format!("http://127.0.0.1:{port}/")), "web\n");
    assert_eq!(answer(&format!("http://[::1]:{port}/")), "web\n");
    // Loopback addresses of their own are no matter.
    let own = self::port();
    serve(&lab, "exact", &["-p", &format!("127.0.0.7:{own}:80")]);
    serve(&lab, "second", &["-p", "127.0.0.8:80:80"]);
    assert_eq!(answer("http://127.0.0.8/"), "second\n");
    assert_eq!(answer(&format!("http://127.0.0.7:{own}/")), "exact\n");
    assert_eq!(answer(&format!("http://localhost:{port}/")), "web\n");
}

#[test]
fn a_port_that_cannot_be_had_is_said_and_another_one_taken_if_wanted() {
    let Some(lab) = lab("ports = true") else { return };
    let taken = port();
    let other = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    serve(&lab, "web", &["-p", &format!("0.0.0.0:{taken}:80")]);
    lab.ok(&["up", "lab"]);
    let refused = wait_for("the mapping", || mapping(&lab, "web").filter(|m| m["state"] == "taken"));
    assert_eq!(refused["local"], Value::Null);
    let status = lab.ok(&["status", "lab"]);
    assert!(status.contains(&format!("port {taken} of web: 127.0.0.1:{taken} is taken on this machine")), "{status}");
    // Once it is free it is taken, without anything happening on the host.
    drop(other);
    assert_eq!(answer(&format!("http://127.0.0.1:{taken}/")), "web\n");
    lab.ok(&["down", "lab"]);

    let other = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let before = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    lab.write_config(&format!("{before}ports_fallback = true\n"));
    lab.ok(&["up", "lab"]);
    let local = until_open(&lab, "web")["local"].as_str().unwrap().to_owned();
    assert_ne!(local, format!("127.0.0.1:{taken}"));
    assert_eq!(answer(&format!("http://{local}/")), "web\n");
    let why = format!("127.0.0.1:{taken} was taken on this machine when this port was opened");
    assert_eq!(mapping(&lab, "web").unwrap()["reason"], why.as_str());
    // Without a fallback it has its own number or none.
    lab.write_config(&before);
    lab.ok(&["reload", "lab"]);
    wait_for("the mapping", || mapping(&lab, "web").filter(|m| m["state"] == "taken"));
    drop(other);
    assert_eq!(answer(&format!("http://127.0.0.1:{taken}/")), "web\n");
    assert_eq!(mapping(&lab, "web").unwrap()["reason"], Value::Null);
}

#[test]
fn a_container_without_its_port_is_stopped_again_where_that_is_wanted() {
    for guard in ["", "\naccess = \"containers\""] {
        let Some(lab) = lab(&format!("ports = true\nports_conflict = \"refuse\"{guard}")) else { return };
        lab.ok(&["up", "lab"]);
        let port = port();
        let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let publish = format!("{port}:80");
        let command = ["run", "--detach", "--name", "web", "--publish", &publish, IMAGE, "sleep", "600"];
        let output = lab.docker("lab", &command).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        let why = format!("port is already allocated (127.0.0.1:{port} is taken on this machine)");
        assert!(said.contains(&why), "{said}");
        assert_eq!(on_host(&lab, &["inspect", "--format", "{{.State.Running}}", "web"]), "false\n");
        assert!(lab.log("lab").contains("stopping container"), "{}", lab.log("lab"));
        // What somebody else starts is not stopped, nor by a client who starts it once more.
        on_host(&lab, &["start", "web"]);
        wait_for("the mapping", || mapping(&lab, "web").filter(|m| m["state"] == "taken"));
        run(&mut lab.docker("lab", &["start", "web"]));
        assert_eq!(on_host(&lab, &["inspect", "--format", "{{.State.Running}}", "web"]), "true\n");
        // One whose name is the beginning of its id is another one.
        let id = on_host(&lab, &["inspect", "--format", "{{.Id}}", "web"]);
        on_host(&lab, &["create", "--name", &id[..4], IMAGE, "sleep", "600"]);
        let start = |name: &str| {
            let start = format!("http://x/containers/{name}/start");
            let status = ["--silent", "--max-time", "60", "--output", "/dev/null", "--write-out", "%{http_code}"];
            let mut curl = Command::new("curl");
            curl.args(status).args(["-X", "POST", "-H", "Connection: close", &start, "--unix-socket"]);
            run(curl.arg(lab.socket("lab")))
        };
        assert_eq!(start(&id[..4]), "204");
        assert_eq!(on_host(&lab, &["inspect", "--format", "{{.State.Running}}", "web"]), "true\n");
        // The answer to a client's last request says the truth, too.
        on_host(&lab, &["kill", "web"]);
        assert_eq!(start("web"), "500");
        // Nor does it take the place of the next one, where the client does not wait for it.
        let started = || on_host(&lab, &["inspect", "--format", "{{.State.StartedAt}}", "web"]);
        for _ in 0..5 {
            let before = started();
            let mut impatient = connect(&lab.socket("lab"));
            impatient.write_all(b"POST /containers/web/start HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            wait_for("its start", || (started() != before).then_some(()));
            impatient.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut said = String::new();
            impatient.read_to_string(&mut said).unwrap();
            assert!(said.contains("HTTP/1.1 200 ") && said.ends_with("OK"), "{said}");
            // Where it asked before the answer began, nothing is read any more, and nothing is stopped.
            if !said.starts_with("HTTP/1.1 500 ") {
                assert!(said.starts_with("HTTP/1.1 204 "), "{said}");
                on_host(&lab, &["kill", "web"]);
            }
        }
        assert_eq!(on_host(&lab, &["inspect", "--format", "{{.State.Running}}", "web"]), "false\n");
        drop(other);
        run(&mut lab.docker("lab", &["restart", "--time", "0", "web"]));
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

#[test]
fn a_privileged_port_is_said_to_be_one() {
    let Some(lab) = lab("ports = true") else { return };
    serve(&lab, "web", &["-p", "0.0.0.0:81:80"]);
    let mut up = Command::new("setpriv");
    lab.set_env(&mut up);
    up.args(["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", env!("CARGO_BIN_EXE_dtunnel")]);
    run(up.args(["up", "lab"]));
    let refused = wait_for("the mapping", || mapping(&lab, "web").filter(|m| m["state"] == "privileged"));
    assert_eq!(refused["reason"], "127.0.0.1:81 needs root or CAP_NET_BIND_SERVICE");
}

#[test]
fn rules_choose_and_people_are_asked() {
    let [first, second] = std::array::from_fn(|_| port());
    let Some(lab) = lab(&format!("ports = [\"web-*\", \"!web-secret\", \"{second}\"]")) else { return };
    serve(&lab, "web-1", &["-p", &format!("{first}:80")]);
    serve(&lab, "web-secret", &["-p", "80"]);
    serve(&lab, "db", &["-p", &format!("{second}:80")]);
    lab.ok(&["up", "lab"]);
    until_open(&lab, "web-1");
    until_open(&lab, "db");
    assert_eq!(mapping(&lab, "web-secret"), None);
    lab.ok(&["down", "lab"]);

    let text = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    let ports = text.lines().find(|line| line.starts_with("ports")).unwrap();
    lab.write_config(&text.replace(ports, "ports = \"ask\""));
    lab.ok(&["up", "lab"]);
    wait_for("the mappings", || mapping(&lab, "web-1").filter(|m| m["state"] == "waiting"));
    until_refused(first);
    let dtunnel = env!("CARGO_BIN_EXE_dtunnel");
    let mut person = Person::types(&lab, &format!("{dtunnel} ports lab"));
    for _ in 0..3 {
        person.sees("bring port ");
        let screen = person.screen();
        let question = screen.rsplit("bring port ").next().unwrap().to_owned();
        let asked = screen.matches("[y/N]").count();
        person.presses(if question.contains("web-1") { "y\n" } else { "\n" });
        wait_for("the next question", || {
            let screen = person.screen();
            (screen.matches("[y/N]").count() > asked || screen.contains("CONTAINER")).then_some(())
        });
    }
    assert!(person.leaves().0.success());
    assert_eq!(answer(&format!("http://127.0.0.1:{first}/")), "web-1\n");
    until_refused(second);
    lab.ok(&["ports", "lab", "--open", "all"]);
    assert_eq!(answer(&format!("http://127.0.0.1:{second}/")), "db\n");
}

#[test]
fn consent_is_for_a_container_and_may_come_before_it() {
    let Some(lab) = lab("ports = \"ask\"") else { return };
    let [first, second] = std::array::from_fn(|_| port());
    lab.ok(&["up", "lab"]);
    let output = lab.run(&["ports", "lab", "--open", &first.to_string()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let expected = format!("no container publishes a TCP port {first} now; it opens for the first one that does");
    assert!(said.contains(&expected), "{said}");
    serve(&lab, "early", &["-p", &format!("{first}:80")]);
    assert_eq!(answer(&format!("http://127.0.0.1:{first}/")), "early\n");
    on_host(&lab, &["restart", "-t", "0", "early"]);
    assert_eq!(answer(&format!("http://127.0.0.1:{first}/")), "early\n", "it keeps the consent");
    on_host(&lab, &["rm", "-f", "early"]);
    serve(&lab, "next", &["-p", &format!("{first}:80")]);
    wait_for("the next one to wait", || mapping(&lab, "next").filter(|m| m["state"] == "waiting"));
    until_refused(first);

    // Where nothing waits for consent.
    let text = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    lab.write_config(&text.replace("\"ask\"", "true"));
    lab.ok(&["reload", "lab"]);
    assert_eq!(answer(&format!("http://127.0.0.1:{first}/")), "next\n");
    let said = lab.fails(1, &["ports", "lab", "--open", &second.to_string()]);
    assert!(said.contains(&format!("no container publishes a TCP port {second}, or `ports` leaves it out")), "{said}");
    lab.write_config(&text.replace("\"ask\"", "false"));
    lab.ok(&["reload", "lab"]);
    let said = lab.fails(1, &["ports", "lab", "--open", "all"]);
    assert!(said.contains("this tunnel forwards no ports"), "{said}");
}

#[test]
fn what_changed_while_the_host_was_away_is_made_up_for() {
    let Some(mut lab) = lab("ports = true\nkeepalive = \"500ms\"") else { return };
    let [gone, new, stays] = std::array::from_fn(|_| port());
    serve(&lab, "gone", &["-p", &format!("{gone}:80")]);
    serve(&lab, "stays", &["-p", &format!("{stays}:80")]);
    lab.ok(&["up", "lab"]);
    answer(&format!("http://127.0.0.1:{gone}/"));
    lab.sshd.stop();
    wait_for("the loss to be noticed", || (lab.state() == "reconnecting").then_some(()));
    on_host(&lab, &["rm", "-f", "gone"]);
    serve(&lab, "new", &["-p", &format!("{new}:80")]);
    lab.sshd.start_again();
    assert_eq!(answer(&format!("http://127.0.0.1:{new}/")), "new\n");
    assert_eq!(answer(&format!("http://127.0.0.1:{stays}/")), "stays\n");
    until_refused(gone);
}

#[test]
fn the_events_move_to_another_connection_when_theirs_is_held_up() {
    let Some(lab) = lab("ports = true") else { return };
    lab.ok(&["up", "lab"]);
    wait_for("the events", || (lab.status("lab")["connections"][0]["bytes_in"].as_u64() > Some(0)).then_some(()));
    // One that asks for much and reads nothing holds up the first connection, which has the events.
    let engine = lab.engine.as_ref().unwrap();
    run(&mut engine.docker(&["run", "--name", "much", IMAGE, "sh", "-c", "seq 3000000"]));
    let mut stalled = connect(&lab.socket("lab"));
    stalled.write_all(b"GET /containers/much/logs?stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    wait_for("the stall", || {
        let status = lab.status("lab");
        status["connections"].as_array().unwrap().iter().any(|c| c["stalled"] == 1).then_some(())
    });
    let new = port();
    let begun = Instant::now();
    serve(&lab, "new", &["-p", &format!("{new}:80")]);
    assert_eq!(answer(&format!("http://127.0.0.1:{new}/")), "new\n");
    eprintln!("beside a held-up connection the port was there after {:?}", begun.elapsed());
    let mut some = [0; 1000];
    assert!(stalled.read(&mut some).unwrap() > 0, "it is still there for its client");
}

#[test]
fn where_ports_are_not_forwarded_a_command_carries_them() {
    let Some(mut lab) = lab("ports = true") else { return };
    let [web, late] = std::array::from_fn(|_| port());
    serve(&lab, "web", &["-p", &format!("{web}:80")]);
    lab.reconfigure("AllowTcpForwarding no");
    lab.ok(&["up", "lab"]);
    assert!(lab.status("lab")["transport"].as_str().unwrap().starts_with("exec"));
    assert_eq!(answer(&format!("http://127.0.0.1:{web}/")), "web\n");
    assert_eq!(answer(&format!("http://[::1]:{web}/")), "web\n");
    serve(&lab, "late", &["-p", &format!("{late}:80")]);
    assert_eq!(answer(&format!("http://127.0.0.1:{late}/")), "late\n");
    // A body that takes both directions, and their ends.
    let mut stream = TcpStream::connect(("127.0.0.1", web)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("web\n"), "{text}");
}

/// `docker-compose` as Debian ships it.
fn compose(lab: &Lab, file: &str, args: &[&str]) -> Output {
    let mut compose = Command::new("docker-compose");
    lab.set_env(&mut compose);
    compose.args(["-p", "lab", "-f", lab.path(file).to_str().unwrap()]).args(args);
    compose.env("DOCKER_HOST", format!("unix://{}", lab.socket("lab").display())).output().unwrap()
}

#[test]
fn compose_projects_of_two_and_of_twelve_services() {
    let Some(lab) = lab("ports = true") else { return };
    lab.ok(&["up", "lab"]);
    let service = |name: &str, port: u16| {
        let command = SERVE.replace("\"$0\"", name);
        format!("  {name}:\n    image: {IMAGE}\n    command: [sh, -c, '{command}']\n    ports: ['{port}:80']\n")
    };
    for count in [2, 12] {
        let ports: Vec<(String, u16)> = (0..count).map(|i| (format!("s{i}"), port())).collect();
        let services: String = ports.iter().map(|(name, port)| service(name, *port)).collect();
        std::fs::write(lab.path("compose.yml"), format!("version: '3'\nservices:\n{services}")).unwrap();
        succeeded(&compose(&lab, "compose.yml", &["up", "-d"]));
        for (name, port) in &ports {
            assert_eq!(answer(&format!("http://localhost:{port}/")), format!("{name}\n"));
        }
        succeeded(&compose(&lab, "compose.yml", &["down", "-t", "0"]));
        ports.iter().for_each(|(_, port)| until_refused(*port));
    }
}

#[test]
fn testcontainers_works_with_its_defaults_and_its_reaper_reaps() {
    let _alone = CHOSEN_BY_ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = lab("ports = true") else { return };
    let at = |path: &str| format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let python = [at("target/testcontainers/bin/python"), at("tests/clients/with_testcontainers.py")];
    let node = ["node".into(), at("target/testcontainers-node/with_testcontainers.mjs")];
    if ![&python[0], &node[1]].into_iter().all(|path| std::path::Path::new(path).exists()) {
        return skip("testcontainers (scripts/test installs it) is missing");
    }
    sockets::import_reaper(&lab);
    lab.ok(&["up", "lab"]);
    let socket = lab.socket("lab").display().to_string();
    // As `env` has it, and by somebody who only sets DOCKER_HOST.
    let environment = lab.ok(&["env", "lab", "--shell", "json"]);
    let environment: Value = serde_json::from_str(&environment).unwrap();
    let place = environment["TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE"].as_str().unwrap();
    assert_eq!(place, lab.remote_socket().display().to_string());
    let runs = [
        (&python, Some(place), "leave"),
        (&python, None, "leave"),
        (&python, None, ""),
        (&node, Some(place), ""),
        (&node, None, ""),
    ];
    for (program, place, ends) in runs {
        let mut test = Command::new(&program[0]);
        lab.set_env(&mut test);
        test.arg(&program[1]).args([IMAGE, ends]);
        // Where this machine is a container itself, it would look for the ports on the Engine's bridge.
        test.env("TESTCONTAINERS_CONNECTION_MODE", "docker_host").env("TESTCONTAINERS_HOST_OVERRIDE", "localhost");
        test.env("DOCKER_HOST", format!("unix://{socket}"));
        if let Some(place) = place {
            test.env("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", place);
        }
        let output = run(&mut test);
        assert!(output.ends_with("all is well\n"), "{output}");
        sockets::until_nothing_runs(&lab);
    }
    let left = lab.host().run(&format!("ls -d {socket} 2>&1 || true"));
    assert!(left.contains("No such file"), "{left}");
}

#[test]
fn ports_and_guard_follow_the_configuration_at_sighup() {
    let Some(lab) = lab("ports = false") else { return };
    let web = port();
    serve(&lab, "web", &["-p", &format!("{web}:80")]);
    lab.ok(&["up", "lab"]);
    let before = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    let reload = |text: &str| {
        lab.write_config(text);
        let pid = lab.status("lab")["pid"].to_string();
        run(Command::new("kill").args(["-HUP", &pid]));
    };
    reload(&before.replace("ports = false", "ports = true\naccess = \"read-only\""));
    assert_eq!(answer(&format!("http://127.0.0.1:{web}/")), "web\n");
    let stop = |lab: &Lab| lab.docker("lab", &["stop", "-t", "0", "web"]).output().unwrap();
    assert!(String::from_utf8_lossy(&stop(&lab).stderr).contains("containers.stop is not allowed here"));
    // What cannot be used changes nothing.
    reload(&before.replace("ports = false", "ports = true\naccess = \"read-only\"\nallow = [\"nothing\"]"));
    wait_for("the word in the log", || lab.log("lab").contains("`nothing` in `allow`").then_some(()));
    assert!(!stop(&lab).status.success());
    reload(&before);
    until_refused(web);
    assert_eq!(lab.status("lab")["ports"], Value::Null);
    succeeded(&stop(&lab));
}

#[test]
fn another_local_address_is_used_where_the_profile_says_so() {
    let Some(lab) = lab("ports = true\nports_address = \"127.0.0.5\"") else { return };
    let [everywhere, given] = std::array::from_fn(|_| port());
    serve(&lab, "web", &["-p", &format!("{everywhere}:80"), "-p", &format!("{}:{given}:80", lab.sshd.address)]);
    lab.ok(&["up", "lab"]);
    assert_eq!(answer(&format!("http://127.0.0.5:{everywhere}/")), "web\n");
    assert_eq!(answer(&format!("http://127.0.0.1:{given}/")), "web\n");
    until_refused(everywhere);
    // One that others can reach is warned of.
    let text = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    lab.write_config(&text.replace("127.0.0.5", "192.0.2.99"));
    lab.ok(&["down", "lab"]);
    let output = lab.run(&["up", "lab"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("published ports are opened on 192.0.2.99, where others can reach them"), "{stderr}");
    let failed = wait_for("the mapping", || {
        mappings(&lab).into_iter().find(|m| m["remote_port"] == everywhere && m["state"] == "failed")
    });
    assert!(failed["reason"].as_str().unwrap().contains("cannot be opened"), "{failed}");
}

/// The remote host chooses the names that rules are held against.
#[test]
fn a_rule_with_many_stars_does_not_stop_the_tunnel() {
    let Some(lab) = lab("ports = [\"*a*a*a*a*a*a*a*b\", \"web\"]") else { return };
    let [long, web] = std::array::from_fn(|_| port());
    serve(&lab, &"a".repeat(200), &["-p", &format!("{long}:80")]);
    serve(&lab, "web", &["-p", &format!("{web}:80")]);
    lab.ok(&["up", "lab"]);
    assert_eq!(answer(&format!("http://127.0.0.1:{web}/")), "web\n");
}

#[test]
fn ports_of_a_swarms_services_come_and_go() {
    let Some(lab) = lab("ports = true") else { return };
    on_host(&lab, &["swarm", "init", "--advertise-addr", &lab.sshd.address]);
    lab.ok(&["up", "lab"]);
    let port = port();
    let command =
        ["service", "create", "--detach", "--name", "web", "--publish", &format!("{port}:80"), IMAGE, "sleep", "600"];
    on_host(&lab, &command);
    let found = until_open(&lab, "web");
    assert_eq!((&found["remote_port"], &found["local"]), (&port.into(), &format!("127.0.0.1:{port}").into()));
    on_host(&lab, &["service", "rm", "web"]);
    until_refused(port);
}

/// A server that notes what each connection has sent before its end: the first line, and how many bytes.
const NOTES: &str = r#"
import signal, socketserver, sys
class Note(socketserver.BaseRequestHandler):
    def handle(self):
        all = b"".join(iter(lambda: self.request.recv(65536), b""))
        with open(sys.argv[1], "a") as notes:
            notes.write("%s %d\n" % (all.split(b"\n")[0].decode(), len(all)))
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 1000
signal.signal(signal.SIGTERM, signal.SIG_DFL)
Server(("0.0.0.0", 80), Note).serve_forever()
"#;

/// Makes 100 connections to the port given, each of which sends `name` in a line and `size` bytes, and closes at once.
const SENDS_AND_CLOSES: &str = r#"
import socket, sys
port, name, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for i in range(100):
    s = socket.socket()
    s.connect(("127.0.0.1", port))
    try:
        s.sendall(name.encode() + b"\n" + b"b" * size)
    except OSError:
        pass # It was turned away before that.
    s.close()
"#;

/// Does this kernel remember the users of closed sockets? (6.17 and later.)
fn kernel_remembers() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
    numbers >= vec![6, 17]
}

#[test]
fn who_sends_and_closes_at_once_is_heard_and_another_user_is_not() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let Some(lab) = lab("ports = true") else { return };
    let port = port();
    let notes = lab.path("notes");
    std::fs::write(&notes, "").unwrap();
    // An address of the host's own: the kernel leads to it, and not docker's proxy, which loses what is sent like this.
    let publish = format!("{}:{port}:80", lab.sshd.address);
    on_host(&lab, &["run", "--detach", "--name", "notes", "-p", &publish, IMAGE, "sleep", "600"]);
    let pid = on_host(&lab, &["inspect", "--format", "{{.State.Pid}}", "notes"]);
    let enter = ["nsenter", "--net", "--target", pid.trim()];
    let _server = lab.host().serve(&[&enter[..], &["/usr/bin/python3", "-c", NOTES, notes.to_str().unwrap()]].concat());
    lab.ok(&["up", "lab"]);
    until_open(&lab, "notes");
    let arrived = |line: &str| std::fs::read_to_string(&notes).unwrap().lines().filter(|noted| *noted == line).count();
    let send = |who: &[&str], name: &str, size: usize| {
        let (port, size) = (port.to_string(), size.to_string());
        let program = [who, &["/usr/bin/python3", "-c", SENDS_AND_CLOSES, &port, name, &size]].concat();
        run(Command::new(program[0]).args(&program[1..]));
    };
    wait_for("the server", || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"ready\n").and_then(|()| stream.shutdown(std::net::Shutdown::Write)).ok()?;
        let _ = stream.read(&mut [0]);
        (arrived("ready 6") > 0).then_some(())
    });
    for other in ["1", "65534"] {
        send(&["setpriv", "--reuid", other, "--regid", other, "--clear-groups"], "others", 0);
    }
    let mut markers = 0;
    let mut taken = || {
        // Behind all that came before it.
        markers += 1;
        let mut marker = TcpStream::connect(("127.0.0.1", port)).unwrap();
        marker.write_all(b"marker\n").unwrap();
        marker.shutdown(std::net::Shutdown::Write).unwrap();
        wait_for("the marker", || (arrived("marker 7") == markers).then_some(()));
        lab.status("lab")["flows_total"].as_u64().unwrap()
    };
    // The last one is more than fits the receive buffer.
    for (name, size) in [("small", 0), ("large", 5000), ("larger", 300_000)] {
        let mut ours = 0;
        // On a machine that is too busy the kernel forgets some of them first.
        wait_for("a round in which most are taken", || {
            let before = taken();
            send(&["env"], name, size);
            let now = taken() - before - 1;
            ours += usize::try_from(now).unwrap();
            (now >= 50 || !kernel_remembers()).then_some(())
        });
        let line = format!("{name} {}", name.len() + 1 + size);
        wait_for("what they sent", || (arrived(&line) == ours).then_some(()));
    }
    assert!(!std::fs::read_to_string(&notes).unwrap().contains("others"));
    let log = lab.log("lab");
    let turned_away: Vec<&str> = log.lines().filter(|line| line.contains("turned away")).collect();
    assert!((1..=10).contains(&turned_away.len()), "{log}");
}
