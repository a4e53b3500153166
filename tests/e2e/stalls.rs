//! No flow can stall another: clients that do not read, hosts that do not read, several at once.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::lab::{Lab, connect, remote, wait_for};

/// Bytes of one download or upload: far more than all that can wait on the way.
const SIZE: usize = 48 << 20;
/// Most that a stalled flow may cost dtunnel in memory: its backlog (4 MiB) and the queue of its
/// channel (100 messages of at most 32 KiB), and as much again for what their buffers waste.
const MEMORY_PER_STALL: u64 = 15 << 20;

/// What the far end has done and may do.
#[derive(Default)]
struct Far {
    sent: AtomicU64,
    may_read: AtomicBool,
}

/// A tunnel to a server that reads one letter: `E` echoes, `D` sends [`SIZE`] bytes, `U` reads what
/// comes once it may, and answers with the digest.
fn tunnel(lab: &Lab) -> Arc<Far> {
    let far = Arc::new(Far::default());
    let shared = far.clone();
    let path = lab.path("remote/x.sock");
    remote::serve(&path, move |mut stream| {
        let mut order = [0];
        if stream.read_exact(&mut order).is_err() {
            return;
        }
        match order[0] {
            b'E' => remote::echo(stream),
            b'D' => {
                for piece in pieces() {
                    if stream.write_all(&piece).is_err() {
                        return;
                    }
                    shared.sent.fetch_add(piece.len() as u64, SeqCst);
                }
            }
            _ => {
                wait_for("leave to read", || shared.may_read.load(SeqCst).then_some(()));
                let digest = digest_of(&mut stream);
                let _ = stream.write_all(&digest.to_be_bytes());
            }
        }
    });
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
    far
}

/// [`SIZE`] bytes, no two pieces alike.
fn pieces() -> impl Iterator<Item = Vec<u8>> {
    (0..SIZE / 65536).map(|at| (0..65536 / 8).flat_map(|i| mix((at * 8192 + i) as u64).to_le_bytes()).collect())
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    n ^ (n >> 29)
}

/// FNV-1a over words, and the length.
fn digest(hash: u64, piece: &[u8]) -> u64 {
    piece.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn digest_of(stream: &mut UnixStream) -> u64 {
    rest_of(stream, 0xcbf2_9ce4_8422_2325)
}

fn rest_of(stream: &mut UnixStream, mut hash: u64) -> u64 {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return hash,
            n => hash = digest(hash, &buffer[..n]),
        }
    }
}

fn right_digest() -> u64 {
    pieces().fold(0xcbf2_9ce4_8422_2325, |hash, piece| digest(hash, &piece))
}

fn flow(lab: &Lab, order: u8) -> UnixStream {
    let mut stream = connect(&lab.socket("lab"));
    // The first byte is only for the server to know that this is no ping.
    stream.write_all(&[b'x', order]).unwrap();
    stream
}

fn echo(stream: &mut UnixStream) -> Duration {
    let begun = Instant::now();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).expect("an echo");
    begun.elapsed()
}

/// A flow that has a connection to itself: the next ones go elsewhere.
fn open_flow_apart(lab: &Lab) -> UnixStream {
    let mut open = flow(lab, b'E');
    echo(&mut open);
    let second = flow(lab, b'E');
    wait_for("a second connection", || (lab.status("lab")["connections"].as_array().unwrap().len() > 1).then_some(()));
    drop(second);
    wait_for("the second flow to end", || (lab.status("lab")["flows_open"] == 1).then_some(()));
    open
}

/// The median time of a new flow and its first echo, of 20.
fn new_flows(lab: &Lab) -> Duration {
    let one = || {
        let begun = Instant::now();
        echo(&mut flow(lab, b'E'));
        begun.elapsed()
    };
    let mut times: Vec<_> = (0..20).map(|_| one()).collect();
    times.sort();
    times[10]
}

/// Memory of the daemon in bytes, without the pages of the program's file that were touched.
fn memory(lab: &Lab) -> u64 {
    let pid = &lab.status("lab")["pid"];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Waits until the far end sends no more, though it would like to, but for what is read for the signs of life;
/// how much it has sent.
fn paused(lab: &Lab, far: &Far) -> u64 {
    let mut last = u64::MAX;
    wait_for("the sender to be paused", || {
        let sent = far.sent.load(SeqCst);
        // A few round trips of other flows go by between two looks.
        new_flows(lab);
        let connections = lab.status("lab")["connections"].clone();
        let stalled = connections.as_array().unwrap().iter().filter(|c| c["stalled"].as_u64() > Some(0)).count();
        let grown = sent - std::mem::replace(&mut last, sent).min(sent);
        (stalled > 0 && sent > 0 && grown < stalled as u64 * (1 << 20)).then_some(sent)
    })
}

#[test]
fn clients_that_do_not_read_stall_nobody_else() {
    let right = right_digest();
    for stalls in [1, 8] {
        let lab = Lab::new("");
        let far = tunnel(&lab);
        let (idle, before) = (new_flows(&lab), memory(&lab));
        let mut open = open_flow_apart(&lab);
        let mut stalled: Vec<_> = (0..stalls).map(|_| flow(&lab, b'D')).collect();
        wait_for("all to be stalled", || {
            let connections = lab.status("lab")["connections"].clone();
            let stalled: u64 = connections.as_array().unwrap().iter().filter_map(|c| c["stalled"].as_u64()).sum();
            (stalled == stalls as u64).then_some(())
        });
        let sent = if stalls == 1 { paused(&lab, &far) } else { far.sent.load(SeqCst) };
        let beside = new_flows(&lab);
        assert!(lab.status("lab")["connections"].as_array().unwrap().iter().any(|c| c["stalled"].as_u64() > Some(0)));
        if stalls == 1 {
            // Of several, those that share a connection are kept on disk instead.
            // But for what is read for the signs of life.
            assert!(sent < (SIZE / 4 * 3) as u64, "the sender is really paused: {sent} bytes");
        }
        let after = memory(&lab);
        assert!(after < before + stalls as u64 * MEMORY_PER_STALL, "{before} and {after} bytes of memory");
        println!(
            "{stalls} stalled: new flow {beside:?}, idle {idle:?}; {} MB sent; {} MB of memory, idle {} MB",
            sent >> 20,
            after >> 20,
            before >> 20
        );
        if stalls == 1 {
            println!("{stalls} stalled: echo on an open flow {:?}", echo(&mut open));
        }
        let readers: Vec<_> =
            stalled.drain(..).map(|mut stream| std::thread::spawn(move || digest_of(&mut stream))).collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), right, "every byte arrives");
        }
        drop(open);
        wait_for("all flows to end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
        assert_eq!(lab.status("lab")["flows_failed"], 0);
    }
}

#[test]
fn a_host_that_does_not_read_stalls_nobody_else() {
    let lab = Lab::new("");
    let far = tunnel(&lab);
    let right = right_digest();
    let written = Arc::new(AtomicU64::new(0));
    let uploads: Vec<_> = (0..8)
        .map(|_| {
            let (mut stream, written) = (flow(&lab, b'U'), written.clone());
            std::thread::spawn(move || {
                for piece in pieces() {
                    stream.write_all(&piece).unwrap();
                    written.fetch_add(piece.len() as u64, SeqCst);
                }
                stream.shutdown(Shutdown::Write).unwrap();
                let mut digest = [0; 8];
                stream.read_exact(&mut digest).unwrap();
                u64::from_be_bytes(digest)
            })
        })
        .collect();
    let mut last = 0;
    wait_for("the uploads to be held up", || {
        let now = written.load(SeqCst);
        new_flows(&lab);
        (std::mem::replace(&mut last, now) == now && now > 0).then_some(())
    });
    assert!(last < 4 * SIZE as u64, "{last} bytes were taken");
    println!("8 uploads held up at {} MB, {} MB of memory", last >> 20, memory(&lab) >> 20);
    far.may_read.store(true, SeqCst);
    for upload in uploads {
        assert_eq!(upload.join().unwrap(), right);
    }
}

/// The one connection there is: held up by a reader that is alone on it, and by nobody once another comes.
#[test]
fn a_single_connection_goes_on_for_others_and_goes_down_at_once() {
    let lab = Lab::new("");
    lab.allow_one_connection();
    let far = tunnel(&lab);
    let connection = || lab.status("lab")["connections"][0].clone();
    let mut stalled = flow(&lab, b'D');
    wait_for("the stall", || (connection()["stalled"] == 1).then_some(()));
    let mut last = 0;
    wait_for("the sender to be paused", || {
        let sent = far.sent.load(SeqCst);
        (std::mem::replace(&mut last, sent) == sent).then_some(())
    });
    assert!(last < SIZE as u64 / 2, "alone it is really paused: {last} bytes");
    let mut beside = flow(&lab, b'E');
    echo(&mut beside);
    wait_for("the rest to be kept", || (far.sent.load(SeqCst) == SIZE as u64).then_some(()));
    echo(&mut beside);
    assert!(connection()["spilled"].as_u64() > Some(SIZE as u64 / 4), "{}", connection());
    assert_eq!(lab.status("lab")["connections"].as_array().unwrap().len(), 1);
    assert_eq!(digest_of(&mut stalled), right_digest());
    wait_for("nothing to be kept", || (connection()["spilled"] == 0 && connection()["stalled"] == 0).then_some(()));
    echo(&mut beside);
    let _stalled = flow(&lab, b'D');
    wait_for("the stall", || (connection()["stalled"] == 1).then_some(()));
    lab.ok(&["down", "lab"]);
    assert_eq!(lab.runtime_files(), [""; 0]);
}

/// Readers that stop, uploads, and one connection for all of them: the uploads end, and then every reader gets
/// every byte.
#[test]
fn readers_that_stop_beside_uploads_stop_nobody_and_lose_nothing() {
    for one_connection in [true, false] {
        let lab = Lab::new("");
        if one_connection {
            lab.allow_one_connection();
        }
        let far = tunnel(&lab);
        far.may_read.store(true, SeqCst);
        let right = right_digest();
        let stopped: Vec<_> = (0..8).map(|_| flow(&lab, b'D')).collect();
        let uploads: Vec<_> = (0..8).map(|_| flow(&lab, b'U')).map(|s| std::thread::spawn(|| upload(s))).collect();
        for upload in uploads {
            assert_eq!(upload.join().unwrap(), right);
        }
        let memory = memory(&lab);
        assert!(memory < 300 << 20, "{} MB of memory", memory >> 20);
        let readers: Vec<_> =
            stopped.into_iter().map(|mut stream| std::thread::spawn(move || digest_of(&mut stream))).collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), right, "every byte arrives");
        }
        assert_eq!(lab.status("lab")["flows_failed"], 0);
    }
}

/// Much in both directions at once, through a hop whose own session has windows too.
#[test]
fn both_directions_at_once_through_a_jump_host_do_not_wait_for_one_another() {
    let lab = Lab::new("");
    let remote = lab.path("remote/x.sock");
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.far]\nhost = \"lab2\"\njump = \"lab\"\nmax_connections = 1\nremote = {remote:?}\n",
        lab.path("ssh_config")
    ));
    let far = tunnel(&lab);
    far.may_read.store(true, SeqCst);
    lab.ok(&["up", "far"]);
    let right = right_digest();
    let open = |order: u8| {
        let mut stream = connect(&lab.socket("far"));
        stream.write_all(&[b'x', order]).unwrap();
        stream
    };
    let downloads: Vec<_> =
        (0..3).map(|_| open(b'D')).map(|mut s| std::thread::spawn(move || digest_of(&mut s))).collect();
    let uploads: Vec<_> = (0..3).map(|_| open(b'U')).map(|s| std::thread::spawn(|| upload(s))).collect();
    for flow in downloads.into_iter().chain(uploads) {
        assert_eq!(flow.join().unwrap(), right);
    }
}

/// Sends all, and the digest that comes back.
fn upload(mut stream: UnixStream) -> u64 {
    for piece in pieces() {
        stream.write_all(&piece).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut digest = [0; 8];
    stream.read_exact(&mut digest).unwrap();
    u64::from_be_bytes(digest)
}

/// A lab with one connection and so much on disk for each client.
fn lab_with_spill(spill: &str) -> Lab {
    let lab = Lab::new("");
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nmax_connections = 1\nspill = {spill}\n",
        lab.path("ssh_config")
    ));
    lab
}

#[test]
fn at_the_bound_the_one_that_does_not_read_is_reset_and_no_other() {
    for spill in ["0", "\"2MiB\""] {
        let lab = lab_with_spill(spill);
        tunnel(&lab);
        let mut beside = flow(&lab, b'E');
        echo(&mut beside);
        let mut stopped = flow(&lab, b'D');
        wait_for("the reset", || (lab.status("lab")["flows_failed"] == 1).then_some(()));
        echo(&mut beside);
        let mut all = Vec::new();
        let error = stopped.read_to_end(&mut all).expect_err("a cut is no end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let why = lab.status("lab")["last_reset"].as_str().unwrap().to_owned();
        for text in [&why, &lab.log("lab"), &lab.ok(&["status"])] {
            assert!(text.contains("did not read while others needed its SSH connection"), "{text}");
            assert!(text.contains("spill"), "{text}");
        }
        // One that reads is served, however little is kept for it.
        assert_eq!(digest_of(&mut flow(&lab, b'D')), right_digest());
        assert_eq!(lab.status("lab")["connections"][0]["spilled"], 0);
    }
}

/// What is kept has no name, and is this user's only: a killed process leaves nothing.
#[test]
fn what_is_kept_on_disk_goes_with_the_process() {
    let lab = lab_with_spill("\"1GiB\"");
    tunnel(&lab);
    let mut beside = flow(&lab, b'E');
    echo(&mut beside);
    let _stopped = flow(&lab, b'D');
    wait_for("much to be kept", || {
        (lab.status("lab")["connections"][0]["spilled"].as_u64() > Some(SIZE as u64 / 4)).then_some(())
    });
    let pid = lab.status("lab")["pid"].to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let files: Vec<_> = open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let cache = lab.path("home/.cache/dtunnel");
    let kept = files.iter().filter(|file| file.to_string_lossy().ends_with("(deleted)"));
    let kept: Vec<_> = kept.filter(|file| file.starts_with(&cache) || file.starts_with("/var/tmp")).collect();
    assert_eq!(kept.len(), 1, "{files:?}");
    crate::lab::run(std::process::Command::new("kill").args(["-9", &pid]));
    wait_for("its end", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    assert_eq!(std::fs::read_dir(&cache).into_iter().flatten().count(), 0);
    assert!(!kept[0].exists());
}

/// The same with pieces of a few bytes, as logs have them, of which little is read at a time.
#[test]
fn a_reader_of_short_lines_that_pauses_goes_on_unhurt() {
    let lab = Lab::new("ClientAliveInterval 1\nClientAliveCountMax 3");
    lab.allow_one_connection();
    let path = lab.path("remote/x.sock");
    remote::serve(&path, |mut stream| {
        let line = [b'.'; 60];
        while stream.write_all(&line).is_ok() {}
    });
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
    let mut stopped = connect(&lab.socket("lab"));
    stopped.write_all(b"x").unwrap();
    wait_for("the stall", || (lab.status("lab")["connections"][0]["stalled"] == 1).then_some(()));
    let begun = Instant::now();
    wait_for("four times as long as the server waits", || (begun.elapsed() > Duration::from_secs(16)).then_some(()));
    // More than can have waited on this side of the server.
    let mut buffer = vec![0; 1 << 16];
    let mut left: usize = 64 << 20;
    while left > 0 {
        let read = stopped.read(&mut buffer).expect("no cut");
        assert!(read > 0 && buffer[..read].iter().all(|byte| *byte == b'.'));
        left = left.saturating_sub(read);
    }
    assert_eq!(lab.status("lab")["flows_failed"], 0);
}

/// A client that stops, alone and beside one that is quiet, on a server that wants signs of life: neither is cut.
#[test]
fn a_reader_that_pauses_for_longer_than_the_server_waits_goes_on_unhurt() {
    for alone in [true, false] {
        let lab = Lab::new("ClientAliveInterval 1\nClientAliveCountMax 3");
        lab.allow_one_connection();
        let far = tunnel(&lab);
        let mut quiet = (!alone).then(|| flow(&lab, b'E'));
        quiet.iter_mut().for_each(|quiet| assert!(echo(quiet) > Duration::ZERO));
        let mut stopped = flow(&lab, b'D');
        stopped.read_exact(&mut [0; 1]).unwrap();
        let begun = Instant::now();
        wait_for("three times as long as the server waits", || {
            (begun.elapsed() > Duration::from_secs(12)).then_some(())
        });
        if alone {
            assert!(far.sent.load(SeqCst) < SIZE as u64, "it was really held up");
        }
        assert_eq!(lab.status("lab")["flows_failed"], 0, "{}", lab.log("lab"));
        assert_eq!(lab.status("lab")["connections"].as_array().unwrap().len(), 1);
        let mut rest = stopped.try_clone().unwrap();
        let first = [pieces().next().unwrap()[0]];
        assert_eq!(rest_of(&mut rest, digest(0xcbf2_9ce4_8422_2325, &first)), right_digest());
        quiet.iter_mut().for_each(|quiet| assert!(echo(quiet) > Duration::ZERO));
        assert_eq!(lab.status("lab")["flows_failed"], 0, "{}", lab.log("lab"));
    }
}

#[test]
fn connections_grow_with_the_flows_and_one_that_is_lost_does_not_hurt_the_others() {
    let lab = Lab::new("");
    tunnel(&lab);
    let connections = || lab.status("lab")["connections"].as_array().unwrap().clone();
    assert_eq!(connections().len(), 1, "one is enough for one");
    // Each on the connection that is free by then.
    let mut flows = Vec::new();
    for count in 1..=4 {
        flows.push(flow(&lab, b'E'));
        echo(flows.last_mut().unwrap());
        let _wish = flow(&lab, b'E');
        wait_for("one more connection", || (connections().len() > count.min(3)).then_some(()));
    }
    assert_eq!(connections().len(), 4, "{:?}", connections());
    wait_for("the round-trip times", || connections().iter().all(|c| c["rtt_ms"].as_f64() > Some(0.0)).then_some(()));
    // The server's own process for one of them ends.
    let session = lab.sshd.sessions().pop().unwrap();
    crate::lab::run(std::process::Command::new("kill").args(["-9", &session]));
    wait_for("the loss", || (connections().len() == 3).then_some(()));
    let alive = flows.iter_mut().filter_map(|flow| {
        flow.write_all(b"x").ok()?;
        flow.read_exact(&mut [0]).ok()
    });
    assert!(alive.count() >= 3, "only one connection's flows are cut");
    assert_eq!(lab.status("lab")["state"], "up");
    new_flows(&lab);
}

/// Keepalives of our own do not end a connection that is left unread.
#[test]
fn a_long_stall_outlives_our_keepalives() {
    let lab = Lab::new("");
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nkeepalive = \"1s\"\nkeepalive_count = 1\n",
        lab.path("ssh_config")
    ));
    let far = tunnel(&lab);
    let mut open = open_flow_apart(&lab);
    let mut stalled = flow(&lab, b'D');
    paused(&lab, &far);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        new_flows(&lab);
    }
    assert_eq!(digest_of(&mut stalled), right_digest(), "four keepalives were due, and nobody minded");
    echo(&mut open);
}

/// The allocator would keep 20 MB and more of it, in pieces between what lives on.
#[test]
fn the_memory_of_many_flows_goes_back_when_they_have_ended() {
    const FLOWS: usize = 1000;
    // Two descriptors a flow here, and two in sshd, which inherits the limit.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.unwrap_or(u64::MAX).min(10_000));
    setrlimit(Resource::Nofile, limit).unwrap();
    let lab = Lab::new("");
    let _far = tunnel(&lab);
    echo(&mut flow(&lab, b'E'));
    let before = memory(&lab);
    let mut flows: Vec<_> = (0..FLOWS).map(|_| flow(&lab, b'E')).collect();
    for flow in &mut flows {
        echo(flow);
    }
    let most = memory(&lab);
    assert!(most > before + (4 << 20), "{before} bytes, then {most}: so many cost something");
    drop(flows);
    wait_for("the flows to end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    // The further connections that a busy machine made keep half a megabyte each, for a minute.
    let half = before + (most - before) / 2;
    wait_for("the memory to be given back", || (memory(&lab) < half).then_some(()));
}
