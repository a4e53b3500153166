//! The channel that is open before it is wanted: used, never when it is stale, never for long.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lab::{Lab, connect, remote, wait_for};

/// A server that echoes, and counts.
#[derive(Default)]
struct Far {
    /// Connections ever accepted, and open now; pings are not among them.
    accepted: AtomicUsize,
    open: AtomicUsize,
    streams: Mutex<Vec<UnixStream>>,
}

impl Far {
    /// Ends every connection there is.
    fn close_all(&self) {
        wait_for("all to be closed", || {
            self.streams.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
            (self.open.load(SeqCst) == 0).then_some(())
        });
    }
}

fn tunnel(lab: &Lab) -> Arc<Far> {
    tunnel_to(lab, None)
}

/// A tunnel to a far end that closes what is idle for so long.
fn tunnel_to(lab: &Lab, patience: Option<Duration>) -> Arc<Far> {
    let far = Arc::new(Far::default());
    let shared = far.clone();
    let path = lab.path("remote/x.sock");
    remote::serve_all(&path, move |mut stream| {
        shared.accepted.fetch_add(1, SeqCst);
        shared.open.fetch_add(1, SeqCst);
        shared.streams.lock().unwrap().push(stream.try_clone().unwrap());
        stream.set_read_timeout(patience).unwrap();
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
        let _ = stream.shutdown(Shutdown::Both);
        shared.open.fetch_sub(1, SeqCst);
    });
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
    far
}

fn echo(lab: &Lab) {
    let mut stream = connect(&lab.socket("lab"));
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// Waits until nothing but one spare channel is open, at both ends.
fn spare(lab: &Lab, far: &Far) {
    wait_for("a spare channel", || {
        let there = far.open.load(SeqCst) == 1;
        (there && lab.status("lab")["connections"][0]["spare"] == true).then_some(())
    });
}

#[test]
fn a_spare_channel_serves_the_next_flow_and_a_stale_one_never_does() {
    let lab = Lab::new("");
    // A single connection, so that it is known which flow gets which channel.
    lab.allow_one_connection();
    let far = tunnel(&lab);
    // The first flow has one, too.
    spare(&lab, &far);
    assert_eq!(far.accepted.load(SeqCst), 1);
    for _ in 0..4 {
        let before = far.accepted.load(SeqCst);
        // The far end has the connection already; only the next spare one is new.
        echo(&lab);
        wait_for("the next", || (far.accepted.load(SeqCst) > before).then_some(()));
        spare(&lab, &far);
        assert_eq!(far.accepted.load(SeqCst), before + 1);
        // The Engine closes it: the next flow is opened anew, and leaves another spare.
        far.close_all();
        wait_for("the spare to be let go", || (lab.status("lab")["connections"][0]["spare"] == false).then_some(()));
        echo(&lab);
        wait_for("the next", || (far.accepted.load(SeqCst) == before + 3).then_some(()));
        spare(&lab, &far);
    }
    assert_eq!(lab.status("lab")["flows_failed"], 0);
    lab.ok(&["down", "lab"]);
    wait_for("all to be closed", || (far.open.load(SeqCst) == 0).then_some(()));
}

#[test]
fn after_a_minute_of_rest_the_first_flow_has_a_spare_channel_still() {
    let lab = Lab::new("");
    let far = tunnel(&lab);
    spare(&lab, &far);
    let begun = Instant::now();
    wait_for("a minute", || {
        assert_eq!(far.open.load(SeqCst), 1, "the spare channel is gone");
        (begun.elapsed() > Duration::from_secs(65)).then_some(())
    });
    assert_eq!(lab.status("lab")["connections"].as_array().unwrap().len(), 1);
    assert_eq!(far.accepted.load(SeqCst), 1);
    echo(&lab);
    // The next one.
    wait_for("the next", || (far.accepted.load(SeqCst) == 2).then_some(()));
}

/// A far end that closes what is idle: each spare channel that it ends is closed, and costs the server nothing.
#[test]
fn spare_channels_that_the_far_end_closes_leave_no_descriptors_on_the_server() {
    let lab = Lab::new("");
    lab.allow_one_connection();
    // Long enough for a flow on a busy machine not to look idle.
    let far = tunnel_to(&lab, Some(Duration::from_millis(500)));
    let descriptors = || -> usize {
        let of = |pid: &String| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        lab.sshd.sessions().iter().map(of).sum()
    };
    let request = || {
        let before = far.accepted.load(SeqCst);
        echo(&lab);
        // The flow's own channel, and then the next spare one.
        wait_for("a spare channel, and its end", || {
            let ended = far.accepted.load(SeqCst) == before + 2 && far.open.load(SeqCst) == 0;
            (ended && lab.status("lab")["connections"][0]["spare"] == false).then_some(())
        });
    };
    wait_for("the first spare channel, and its end", || {
        (far.accepted.load(SeqCst) == 1 && far.open.load(SeqCst) == 0).then_some(())
    });
    request();
    let before = descriptors();
    for _ in 0..20 {
        request();
    }
    wait_for("the descriptors to go", || (descriptors() <= before).then_some(()));
}
