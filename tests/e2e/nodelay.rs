//! `server_nodelay`: one command after each login, so that the host's sshd sends without delay, where it is asked for.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::lab::{Lab, connect, remote, wait_for};

/// Does the server send at once on each of its connections from this machine?
fn sends_at_once(lab: &Lab) -> bool {
    let sockets: Vec<bool> = lab.sshd.sessions().iter().flat_map(|pid| tcp_nodelay(pid)).collect();
    assert!(!sockets.is_empty(), "a session has its connection");
    sockets.into_iter().all(|nodelay| nodelay)
}

/// Of each TCP socket of a process: is TCP_NODELAY set?
fn tcp_nodelay(pid: &str) -> Vec<bool> {
    let process = Pid::from_raw(pid.parse().unwrap()).unwrap();
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return Vec::new() };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let numbers = files.filter_map(|file| file.file_name().to_str()?.parse().ok());
    let sockets = numbers.filter_map(|number| pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()).ok());
    sockets.filter_map(|socket| rustix::net::sockopt::tcp_nodelay(&socket).ok()).collect()
}

/// A lab whose host has a server that echoes in the Engine's place; root's login is the one that is tried.
fn lab(sshd_options: &str, setting: &str) -> Option<Lab> {
    let mut lab = Lab::far()?;
    lab.reconfigure(&format!("LogLevel VERBOSE\n{sshd_options}"));
    remote::serve(&lab.path("remote/x.sock"), remote::echo);
    set(&lab, setting);
    Some(lab)
}

fn set(lab: &Lab, setting: &str) {
    lab.write_profile(lab.path("remote/x.sock"), setting);
}

fn echo(lab: &Lab) {
    let mut stream = connect(&lab.socket("lab"));
    // The server takes the first byte as the word what this is.
    stream.write_all(b"x").unwrap();
    for byte in b"yz" {
        stream.write_all(&[*byte]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
}

/// The lines of sshd's log about commands.
fn sessions(lab: &Lab) -> Vec<String> {
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    log.lines().filter(|line| line.contains("Starting session: ")).map(Into::into).collect()
}

/// Has the login run this, whatever is asked for. Returns the file to which each run adds a line.
fn force(lab: &Lab, command: &str) -> PathBuf {
    let keys = lab.path("authorized_keys");
    let key = std::fs::read_to_string(lab.path("user.pub")).unwrap();
    let runs = lab.path("runs");
    let _ = std::fs::remove_file(&runs);
    std::fs::write(&keys, format!("command=\"echo run >> {}; {command}\" {key}", runs.display())).unwrap();
    runs
}

fn count(runs: &PathBuf) -> usize {
    std::fs::read_to_string(runs).map_or(0, |text| text.lines().count())
}

/// A connection in place of the one there is.
fn reconnect(lab: &Lab) {
    // The sessions and the state do not tell: a loss may not have been noticed yet, and a further connection be there.
    let connected = || lab.log("lab").matches(" connected to ").count();
    let before = connected();
    lab.sshd.cut_sessions();
    wait_for("another connection", || (connected() > before).then_some(()));
    echo(lab);
}

#[test]
fn with_true_the_server_sends_at_once_after_each_login_and_with_false_it_does_not() {
    for (options, terminal) in [("", true), ("PermitTTY no", false)] {
        let Some(lab) = lab(options, "server_nodelay = false\n") else { return };
        lab.ok(&["up", "lab"]);
        echo(&lab);
        assert!(!sends_at_once(&lab) && sessions(&lab).is_empty());
        // A setting that changes holds for the connection that is there.
        set(&lab, "server_nodelay = true\n");
        lab.ok(&["up", "lab"]);
        wait_for("the option", || sends_at_once(&lab).then_some(()));
        assert_eq!(sessions(&lab).len(), 1);
        assert_eq!(sessions(&lab)[0].contains("command on pts"), terminal, "{:?}", sessions(&lab));
        reconnect(&lab);
        wait_for("the option", || sends_at_once(&lab).then_some(()));
        assert_eq!(sessions(&lab).len(), 2);
        lab.ok(&["down", "lab"]);
    }
}

/// A command that is forced on the login would run in place of `true`.
#[test]
fn unless_it_is_asked_for_no_command_runs_whatever_doctor_has_seen() {
    let Some(lab) = lab("", "") else { return };
    lab.ok(&["up", "lab"]);
    lab.run(&["doctor", "lab"]);
    let before = sessions(&lab).len();
    assert!(before > 0, "doctor runs commands");
    let runs = force(&lab, "true");
    reconnect(&lab);
    lab.ok(&["reload", "lab"]);
    echo(&lab);
    lab.ok(&["down", "lab"]);
    lab.up_and_down();
    assert_eq!((count(&runs), sessions(&lab).len()), (0, before));
    set(&lab, "server_nodelay = true\n");
    lab.ok(&["up", "lab"]);
    wait_for("the command", || (count(&runs) == 1).then_some(()));
    wait_for("the option", || sends_at_once(&lab).then_some(()));
}

#[test]
fn a_login_that_runs_no_commands_is_said() {
    let Some(lab) = lab("MaxSessions 0", "server_nodelay = true\n") else { return };
    lab.ok(&["up", "lab"]);
    wait_for("a word", || lab.log("lab").contains("server_nodelay has no effect").then_some(()));
    echo(&lab);
}
