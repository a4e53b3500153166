//! The fault matrix: what is lost comes back, what was cut looks cut, nothing is left. Each row prints
//! its numbers (`--nocapture` shows them).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::lab::{Lab, PATIENCE, is_root, remote, run, skip, wait_for};

/// Bytes of one answer under load.
const ANSWER: usize = 3 << 20;

/// A tunnel to a server that answers one letter: `E` echoes the rest, `A` sends [`ANSWER`] bytes and
/// ends, `S` sends without end.
fn tunnel(lab: &Lab) {
    let path = lab.path("remote/x.sock");
    remote::serve(&path, |mut stream| {
        let mut order = [0];
        if stream.read_exact(&mut order).is_err() {
            return;
        }
        match &order {
            b"E" => remote::echo(stream),
            b"A" => drop(stream.write_all(&answer())),
            _ => while stream.write_all(&[b'.'; 4096]).is_ok() {},
        }
    });
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
}

fn answer() -> Vec<u8> {
    (0..ANSWER / 4).flat_map(|i| (i as u32).wrapping_mul(0x9E37_79B9).to_le_bytes()).collect()
}

fn ask(lab: &Lab, order: u8) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(lab.socket("lab"))?;
    stream.set_read_timeout(Some(PATIENCE * 3))?;
    stream.write_all(&[b'x', order])?;
    Ok(stream)
}

fn echo(lab: &Lab) -> std::io::Result<()> {
    echoing(lab).map(drop)
}

/// A flow that is open and idle. (One that is still being opened is opened elsewhere when its connection
/// is lost, and not cut.)
fn echoing(lab: &Lab) -> std::io::Result<UnixStream> {
    let mut stream = ask(lab, b'E')?;
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// A flow that has data under way.
fn streaming(lab: &Lab) -> UnixStream {
    let mut stream = ask(lab, b'S').unwrap();
    stream.read_exact(&mut [0; 100_000]).unwrap();
    stream
}

/// It was cut, visibly: not one end of file.
fn cut(mut stream: UnixStream) {
    let mut buffer = [0; 65536];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(e) => break Some(e.kind()),
        }
    };
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
}

/// Waits as long as it takes, within reason.
fn seconds_until(what: &str, condition: impl Fn() -> bool) -> f64 {
    let begun = Instant::now();
    wait_for(what, || condition().then_some(()));
    begun.elapsed().as_secs_f64()
}

fn until_state(lab: &Lab, wanted: &str) -> f64 {
    seconds_until(&format!("the state {wanted}"), || lab.state() == wanted)
}

fn row(name: &str, numbers: &str) {
    println!("FAULT {name}: {numbers}");
}

#[test]
fn sshd_killed_and_back() {
    let mut lab = Lab::new("");
    tunnel(&lab);
    let stream = streaming(&lab);
    let begun = Instant::now();
    lab.sshd.stop();
    cut(stream);
    let visible = begun.elapsed().as_secs_f64();
    let noticed = until_state(&lab, "reconnecting");
    lab.sshd.start_again();
    let usable = seconds_until("a flow", || echo(&lab).is_ok());
    row(
        "sshd killed and back",
        &format!("cut seen after {visible:.2} s, noticed {noticed:.2} s later, usable {usable:.2} s after it was back"),
    );
}

#[test]
fn sshd_gone_for_a_minute() {
    let mut lab = Lab::new("");
    tunnel(&lab);
    lab.sshd.stop();
    until_state(&lab, "reconnecting");
    std::thread::sleep(Duration::from_secs(60));
    lab.sshd.start_again();
    let usable = seconds_until("a flow", || echo(&lab).is_ok());
    row("server reboot, sshd gone 60 s", &format!("usable {usable:.2} s after it was back"));
}

#[test]
fn sshd_frozen_for_a_minute() {
    let lab = Lab::new("");
    tunnel(&lab);
    let begun = Instant::now();
    lab.sshd.signal("-STOP");
    let noticed = until_state(&lab, "reconnecting");
    std::thread::sleep(Duration::from_secs(60).saturating_sub(begun.elapsed()));
    lab.sshd.signal("-CONT");
    let usable = seconds_until("a flow", || echo(&lab).is_ok());
    row("sshd frozen 60 s", &format!("noticed after {noticed:.2} s, usable {usable:.2} s after it went on"));
}

/// As ssh, for which it may stall without end.
#[test]
fn a_stream_survives_a_host_that_stalls_for_a_while() {
    let lab = Lab::new("");
    tunnel(&lab);
    let mut stream = echoing(&lab).unwrap();
    lab.sshd.signal("-STOP");
    // The length of the fault.
    std::thread::sleep(Duration::from_secs(20));
    assert!(lab.log("lab").contains("flows are open, so it has 30 s"), "{}", lab.log("lab"));
    lab.sshd.signal("-CONT");
    stream.write_all(b"e").unwrap();
    stream.read_exact(&mut [0]).expect("the flow goes on");
    assert_eq!((lab.status("lab")["flows_failed"].clone(), lab.state().as_str()), (0.into(), "up"));
    drop(stream);
    wait_for("no flow", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    // An idle tunnel has nothing to lose.
    lab.sshd.signal("-STOP");
    let noticed = until_state(&lab, "reconnecting");
    lab.sshd.signal("-CONT");
    assert!(noticed < 20.0, "{noticed}");
    row("sshd frozen 20 s under a stream", &format!("the stream went on; idle, noticed after {noticed:.2} s"));
}

/// A setting of the user's for keepalives holds with flows open, too.
#[test]
fn a_keepalive_of_the_users_ends_a_stream_in_its_time() {
    let lab = Lab::new("");
    let path = lab.path("ssh_config");
    lab.write_config(&format!("ssh_config = {path:?}\n[defaults]\nkeepalive = \"1s\"\n"));
    tunnel(&lab);
    let stream = echoing(&lab).unwrap();
    let begun = Instant::now();
    lab.sshd.signal("-STOP");
    cut(stream);
    let noticed = begun.elapsed().as_secs_f64();
    lab.sshd.signal("-CONT");
    assert!(noticed < 10.0, "{noticed}");
}

#[test]
fn the_link_cut_silently_and_restored() {
    let Some(lab) = Lab::far() else { return };
    tunnel(&lab);
    let streams = [echoing(&lab).unwrap(), streaming(&lab)];
    lab.host().cut();
    let noticed = until_state(&lab, "reconnecting");
    streams.into_iter().for_each(cut);
    std::thread::scope(|scope| {
        // Comes while there is no connection, and waits for it.
        let waiting = scope.spawn(|| echo(&lab));
        wait_for("the flow", || (lab.status("lab")["flows_open"] == 1).then_some(()));
        let begun = Instant::now();
        lab.host().restore();
        waiting.join().unwrap().unwrap();
        let usable = begun.elapsed().as_secs_f64();
        row("link cut silently", &format!("noticed after {noticed:.2} s, usable {usable:.2} s after it was back"));
    });
}

#[test]
fn the_link_cut_silently_under_upload() {
    let Some(lab) = Lab::far() else { return };
    tunnel(&lab);
    // What waits to be sent must not hide that nothing is answered.
    let mut stream = echoing(&lab).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let pump = std::thread::spawn(move || while writer.write_all(&[b'u'; 65536]).is_ok() {});
    let mut reader = stream.try_clone().unwrap();
    reader.read_exact(&mut [0; 10_000]).unwrap();
    lab.host().cut();
    let noticed = until_state(&lab, "reconnecting");
    let _ = stream.read(&mut [0]);
    pump.join().unwrap();
    lab.host().restore();
    let usable = seconds_until("a flow", || echo(&lab).is_ok());
    row(
        "link cut silently under upload",
        &format!("noticed after {noticed:.2} s, usable {usable:.2} s after it was back"),
    );
}

#[test]
fn the_link_flapping_under_load() {
    let Some(lab) = Lab::far() else { return };
    tunnel(&lab);
    let right = answer();
    let (going, whole, cut) = (AtomicBool::new(true), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while going.load(SeqCst) {
                    let mut all = Vec::new();
                    match ask(&lab, b'A').and_then(|mut stream| stream.read_to_end(&mut all)) {
                        Ok(_) => {
                            assert!(all == right, "{} bytes, and no error", all.len());
                            whole.fetch_add(1, SeqCst);
                        }
                        Err(_) => drop(cut.fetch_add(1, SeqCst)),
                    }
                }
            });
        }
        for turn in 0..20 {
            lab.host().cut();
            std::thread::sleep(Duration::from_millis(50 + 10 * turn));
            if turn % 4 == 0 {
                lab.sshd.cut_sessions();
            }
            lab.host().restore();
            let before = whole.load(SeqCst);
            wait_for("an answer", || (whole.load(SeqCst) > before).then_some(()));
        }
        going.store(false, SeqCst);
    });
    let (whole, cut) = (whole.load(SeqCst), cut.load(SeqCst));
    row("link flapping 20 times under load", &format!("{whole} answers whole, {cut} visibly cut, 0 short"));
    assert_eq!(lab.state(), "up");
}

#[test]
fn the_host_key_changed_while_away() {
    let mut lab = Lab::new("");
    tunnel(&lab);
    let old = lab.path("host.old");
    lab.sshd.stop();
    std::fs::rename(lab.path("host"), &old).unwrap();
    lab.keygen("host", "ed25519", "");
    lab.sshd.start_again();
    let failed = until_state(&lab, "failed");
    let error = lab.status("lab")["last_error"].to_string();
    assert!(error.contains("CHANGED") && error.contains("run dtunnel up lab"), "{error}");
    assert!(echo(&lab).is_err(), "a flow ends at once");
    std::fs::rename(&old, lab.path("host")).unwrap();
    lab.sshd.start_again();
    lab.ok(&["up", "lab"]);
    echo(&lab).unwrap();
    row("host key changed while away", &format!("failed after {failed:.2} s, up again when asked"));
}

#[test]
fn a_login_revoked_while_away_is_not_tried_again_and_again() {
    for at_once in [true, false] {
        login_revoked(at_once);
    }
}

/// The server is back at once, so that already the first attempt is refused; or only later.
fn login_revoked(at_once: bool) {
    let mut lab = Lab::new("");
    tunnel(&lab);
    lab.keygen("other", "ed25519", "");
    if at_once {
        lab.authorize("other");
        lab.sshd.cut_sessions();
    } else {
        lab.sshd.stop();
        lab.authorize("other");
        lab.sshd.start_again();
    }
    let failed = until_state(&lab, "failed");
    // Long enough for several attempts, if there were any.
    std::thread::sleep(Duration::from_secs(3));
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    let attempts = log.matches("[preauth]").count();
    assert!(attempts <= 1, "{log}{}", lab.log("lab"));
    lab.authorize("user");
    lab.ok(&["up", "lab"]);
    echo(&lab).unwrap();
    row("login revoked while away", &format!("failed after {failed:.2} s and {attempts} attempt, up again when asked"));
}

#[test]
fn the_address_changed() {
    let Some(lab) = Lab::over_own_link() else { return };
    tunnel(&lab);
    let stream = echoing(&lab).unwrap();
    let begun = Instant::now();
    lab.host().change_address();
    cut(stream);
    let noticed = begun.elapsed().as_secs_f64();
    let usable = seconds_until("a flow", || echo(&lab).is_ok());
    assert!(lab.log("lab").contains("the network has changed"), "{}", lab.log("lab"));
    row("address changed", &format!("noticed after {noticed:.2} s, usable {usable:.2} s later"));
}

/// A flow that is being opened on a connection that has died goes elsewhere as soon as there is anything else:
/// nothing of it was sent. (Keepalives, which would end it in the end, are far off here.)
#[test]
fn a_flow_that_is_being_opened_leaves_a_connection_that_is_given_up() {
    let Some(lab) = Lab::over_own_link() else { return };
    let path = lab.path("ssh_config");
    lab.write_config(&format!("ssh_config = {path:?}\n[defaults]\nkeepalive = \"60s\"\n"));
    tunnel(&lab);
    echo(&lab).unwrap();
    lab.host().change_address();
    // Before the tunnel knows, the channel that is kept for the next flow looks as good as ever.
    crate::lab::wait_for("the change to be seen", || lab.log("lab").contains("the network has changed").then_some(()));
    let mut client = ask(&lab, b'E').unwrap();
    client.write_all(b"e").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut [0]).expect("an answer long before the keepalives' end");
    assert_eq!(lab.status("lab")["flows_failed"], 0);
}

/// To the time that it is: the clock is set, which is what waking up looks like. False where it may not be.
fn set_clock() -> bool {
    Command::new("sh").args(["-c", "date -s \"@$(date +%s.%N)\""]).output().unwrap().status.success()
}

/// Its system acknowledges what is sent: the way there is in order.
#[test]
fn a_host_that_is_too_busy_to_answer_is_not_given_up_at_a_change() {
    let lab = Lab::new("");
    let path = lab.path("ssh_config");
    lab.write_config(&format!("ssh_config = {path:?}\n[defaults]\nkeepalive = \"60s\"\n"));
    tunnel(&lab);
    let mut stream = echoing(&lab).unwrap();
    lab.sshd.signal("-STOP");
    let is_set = set_clock();
    if is_set {
        let acknowledged = "does not answer, but acknowledges";
        let given_up = || lab.state() != "up";
        wait_for("the verdict", || (given_up() || lab.log("lab").contains(acknowledged)).then_some(()));
    }
    lab.sshd.signal("-CONT");
    if !is_set {
        return skip("setting the clock takes a privilege");
    }
    stream.write_all(b"e").unwrap();
    stream.read_exact(&mut [0]).expect("the flow goes on");
    assert_eq!(lab.status("lab")["flows_failed"], 0);
}

#[test]
fn a_clock_that_jumps_costs_nothing() {
    let lab = Lab::new("");
    tunnel(&lab);
    let stream = streaming(&lab);
    if !set_clock() {
        return skip("setting the clock takes a privilege");
    }
    let noticed = seconds_until("the log's word", || lab.log("lab").contains("the clock was set"));
    echo(&lab).unwrap();
    drop(stream);
    assert_eq!((lab.status("lab")["flows_failed"].clone(), lab.state().as_str()), (0.into(), "up"));
    row("clock jump", &format!("noticed after {noticed:.2} s, nothing lost"));
}

#[test]
fn a_client_killed_in_the_middle_leaves_nothing() {
    let lab = Lab::new("");
    tunnel(&lab);
    echo(&lab).unwrap();
    // The only flow is then each client's.
    wait_for("its end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    let begun = Instant::now();
    for _ in 0..20 {
        let script = format!("(printf xS; sleep 60) | nc -U {} >/dev/null", lab.socket("lab").display());
        let mut client = Command::new("setsid").args(["sh", "-c", &script]).spawn().unwrap();
        wait_for("the flow", || (lab.status("lab")["flows_open"] != 0).then_some(()));
        run(Command::new("kill").args(["-9", "--", &format!("-{}", client.id())]));
        client.wait().unwrap();
        wait_for("its end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    }
    row(
        "local client killed mid-stream, 20 times",
        &format!("{:.2} s in all, no flow left", begun.elapsed().as_secs_f64()),
    );
}

#[test]
fn half_open_clients_by_the_hundred_hold_up_nobody() {
    let lab = Lab::new("");
    tunnel(&lab);
    echo(&lab).unwrap();
    let pid = lab.status("lab")["pid"].to_string();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = descriptors();
    let clients: Vec<_> = (0..500)
        .map(|turn| {
            let client = UnixStream::connect(lab.socket("lab")).unwrap();
            if turn % 2 == 0 {
                client.shutdown(std::net::Shutdown::Write).unwrap();
            }
            client
        })
        .collect();
    let served = seconds_until("a flow", || echo(&lab).is_ok());
    let most = descriptors();
    drop(clients);
    wait_for("them to go", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    // Further connections, made for the many, have some of their own until they are unused for a minute.
    let connections = || lab.status("lab")["connections"].as_array().unwrap().len();
    let back = seconds_until("the descriptors", || descriptors() <= before + 10 * (connections() - 1));
    row(
        "500 half-open clients",
        &format!("another one served in {served:.2} s; {before} descriptors, {most}, back after {back:.2} s"),
    );
}

#[test]
fn a_daemon_killed_under_load_and_up_again() {
    let lab = Lab::new("");
    tunnel(&lab);
    // Each is read from its beginning on: one that is not holds its connection up, and the next one with it.
    let readers = [(); 2].map(|()| {
        let mut stream = streaming(&lab);
        std::thread::spawn(move || while matches!(stream.read(&mut [0; 65536]), Ok(1..)) {})
    });
    run(Command::new("kill").args(["-9", &lab.status("lab")["pid"].to_string()]));
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    wait_for("the server's sessions to end", || lab.sshd.sessions().is_empty().then_some(()));
    let begun = Instant::now();
    lab.ok(&["up", "lab", "--remote", lab.path("remote/x.sock").to_str().unwrap()]);
    echo(&lab).unwrap();
    row("daemon SIGKILLed under load", &format!("up again in {:.2} s, no session left", begun.elapsed().as_secs_f64()));
}

#[test]
fn an_engine_that_restarts_under_streams() {
    if !is_root() {
        return skip("an Engine needs root");
    }
    let engine = crate::lab::engine::Engine::alone();
    let mut lab = Lab::new("");
    lab.engine = Some(std::sync::Arc::new(engine));
    lab.ok(&["up", "lab"]);
    let mut events = lab.docker("lab", &["events"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the stream", || (lab.status("lab")["flows_open"] != 0).then_some(()));
    let begun = Instant::now();
    lab.engine.as_ref().unwrap().restart();
    let taken = begun.elapsed().as_secs_f64();
    wait_for("the stream's end", || events.try_wait().unwrap());
    let usable = seconds_until("docker ps", || lab.docker("lab", &["ps"]).output().unwrap().status.success());
    assert_eq!(lab.state(), "up");
    row("dockerd restarted under streams", &format!("down for {taken:.2} s, docker ps {usable:.2} s after"));
}

/// Many at once, against a server that only lets very few log in at a time (MaxStartups; its default is
/// 10:30:100).
#[test]
fn two_hundred_tunnels_to_one_server_come_up_together_and_again() {
    const TUNNELS: usize = 200;
    let mut lab = Lab::new("");
    let path = lab.path("remote/x.sock");
    remote::serve(&path, |_| {});
    lab.reconfigure("MaxStartups 2:30:6");
    let profiles: String = (0..TUNNELS).map(|at| format!("[profiles.p{at}]\nhost = \"lab\"\n")).collect();
    let ssh_config = lab.path("ssh_config");
    lab.write_config(&format!(
        "ssh_config = {ssh_config:?}\n[defaults]\nremote = {path:?}\nmax_connections = 1\n{profiles}"
    ));
    let up = |lab: &Lab| {
        let output = lab.run(&["status", "--json"]);
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        all.as_array().unwrap().iter().filter(|status| status["state"] == "up").count()
    };
    let begun = Instant::now();
    lab.ok(&["up", "--all", "--timeout", "120s"]);
    let first = begun.elapsed().as_secs_f64();
    assert_eq!(up(&lab), TUNNELS);
    lab.sshd.stop();
    wait_for("all to notice", || (up(&lab) == 0).then_some(()));
    lab.sshd.start_again();
    let begun = Instant::now();
    while up(&lab) < TUNNELS {
        assert!(begun.elapsed() < PATIENCE * 4, "{} of {TUNNELS} are up again", up(&lab));
        std::thread::sleep(Duration::from_millis(100));
    }
    let again = begun.elapsed().as_secs_f64();
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    let turned_away = log.matches("MaxStartups").count();
    row(
        "200 tunnels to one sshd",
        &format!("up in {first:.1} s, again in {again:.1} s; the log has MaxStartups {turned_away} times"),
    );
    lab.ok(&["down", "--all", "-q"]);
}

/// Mixed load with random cuts. Short here, as long as DTUNNEL_SOAK says (seconds) by `scripts/soak`.
#[test]
fn mixed_load_with_random_cuts() {
    let length = std::env::var("DTUNNEL_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let mut lab = Lab::new("");
    tunnel(&lab);
    echo(&lab).unwrap();
    let right = answer();
    let pid = lab.status("lab")["pid"].to_string();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let before = memory();
    let going = AtomicBool::new(true);
    let (whole, errors, echoes, cuts) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for worker in 0..6_u64 {
            let (lab, right, going) = (&lab, &right, &going);
            let (whole, errors, echoes) = (&whole, &errors, &echoes);
            scope.spawn(move || {
                let mut chance = worker + 1;
                while going.load(SeqCst) {
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    if (chance >> 33) % 3 == 0 {
                        let mut all = Vec::new();
                        match ask(lab, b'A').and_then(|mut stream| stream.read_to_end(&mut all)) {
                            Ok(_) => {
                                assert!(all == *right, "{} bytes, and no error", all.len());
                                whole.fetch_add(1, SeqCst);
                            }
                            Err(_) => drop(errors.fetch_add(1, SeqCst)),
                        }
                    } else {
                        let counter = if echo(lab).is_ok() { echoes } else { errors };
                        counter.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let begun = Instant::now();
        let mut turn = 0_u64;
        while begun.elapsed() < Duration::from_secs(length) {
            turn += 1;
            std::thread::sleep(Duration::from_millis(200 + (turn * 7919) % 1500));
            lab.sshd.cut_sessions();
            cuts.fetch_add(1, SeqCst);
        }
        going.store(false, SeqCst);
    });
    wait_for("all flows to end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    // The last cut may not be noticed yet.
    wait_for("a flow", || echo(&lab).ok());
    let after = memory();
    row(
        "mixed load with random cuts",
        &format!(
            "{length} s, {} cuts: {} answers whole, {} echoes, {} visible errors, 0 short; RSS {before} MiB, {after} MiB",
            cuts.load(SeqCst),
            whole.load(SeqCst),
            echoes.load(SeqCst),
            errors.load(SeqCst)
        ),
    );
    lab.ok(&["down", "lab"]);
    wait_for("the server's sessions to end", || lab.sshd.sessions().is_empty().then_some(()));
    lab.sshd.stop();
}
