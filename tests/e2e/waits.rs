//! Every wait ends: for a tunnel that does not come back, for a daemon that stands still, for clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;

use crate::lab::pty::Person;
use crate::lab::{Lab, connect, remote, run, wait_for};

/// A tunnel that has lost its host.
fn reconnecting() -> Lab {
    let mut lab = Lab::new("");
    let engine = lab.path("remote/x.sock");
    remote::serve(&engine, remote::echo);
    lab.ok(&["up", "lab", "--remote", engine.to_str().unwrap()]);
    lab.sshd.stop();
    wait_for("the loss to be seen and tried", || {
        let status = lab.status("lab");
        let told = status["last_error"].as_str().is_some_and(|error| error.contains("cannot connect"));
        assert_ne!(status["state"], "failed", "another test's server has the port: {status}");
        (status["state"] == "reconnecting" && told).then_some(())
    });
    lab
}

#[test]
fn a_tunnel_that_does_not_come_back_ends_up_exec_and_env_in_time_with_the_cause() {
    let lab = reconnecting();
    let stderr = lab.fails(6, &["up", "lab", "--timeout", "1s"]);
    assert!(stderr.contains("lab is reconnecting, and was not up within 1s"), "{stderr}");
    assert!(stderr.contains(&format!("caused by: cannot connect to {} port", lab.sshd.address)), "{stderr}");
    assert!(stderr.contains("hint: the host is there, but nothing listens"), "{stderr}");
    let stderr = lab.fails(125, &["exec", "--timeout", "1s", "lab", "true"]);
    assert!(stderr.contains(&format!("cannot connect to {} port", lab.sshd.address)), "{stderr}");
    let stderr = lab.fails(6, &["env", "--up", "--timeout", "1s", "lab"]);
    assert!(stderr.contains(&format!("cannot connect to {} port", lab.sshd.address)), "{stderr}");
    assert_eq!(lab.state(), "reconnecting", "it goes on trying");
}

#[test]
fn whoever_waits_sees_why_and_when_it_is_tried_again() {
    let lab = reconnecting();
    let up = format!("{} up lab --timeout 20s", env!("CARGO_BIN_EXE_dtunnel"));
    let mut person = Person::types(&lab, &up);
    person.sees(&format!("trying again in 1 s: cannot connect to {} port", lab.sshd.address));
    drop(person);
    // From a script, with -v: once, not at every sign of life.
    let output = lab.run(&["up", "-v", "lab", "--timeout", "4s"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{stderr}");
    assert!(stderr.matches("cannot connect").count() <= 4, "{stderr}");
}

/// The process of a daemon.
fn daemon_of(lab: &Lab) -> String {
    lab.status("lab")["pid"].to_string()
}

fn is_gone(pid: &str) -> Option<()> {
    // A zombie of ours is gone as well.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    (stat.is_empty() || stat.contains(") Z ")).then_some(())
}

#[test]
fn the_end_of_a_daemon_waits_for_no_client() {
    let lab = Lab::new("");
    let engine = lab.path("remote/x.sock");
    remote::serve(&engine, remote::echo);
    lab.ok(&["up", "lab", "--remote", engine.to_str().unwrap()]);
    let pid = daemon_of(&lab);
    // One that has nothing to ask, and stays; as `top` would.
    let mut idle = connect(&lab.path("run/dtunnel/lab.ctl"));
    idle.write_all(b"{\"op\":\"status\"}\n").unwrap();
    let mut events = BufReader::new(idle.try_clone().unwrap()).lines();
    assert!(events.next().unwrap().unwrap().contains("hello"));
    assert!(events.next().unwrap().unwrap().contains("status"));
    lab.ok(&["down", "lab"]);
    wait_for("its end", || is_gone(&pid));
    let log = lab.log("lab");
    assert!(log.contains("ended") && !log.contains("last event"), "{log}");
    assert!(events.next().is_none_or(|line| line.is_err()), "the daemon has closed it");
}

/// One that is taken down still serves the flows that end. It is no tunnel for whoever wants one now.
#[test]
fn up_beside_a_down_that_waits_for_flows_gives_a_new_tunnel() {
    let lab = Lab::new("");
    let engine = lab.path("remote/x.sock");
    remote::serve(&engine, remote::echo);
    let up = ["up", "lab", "--remote", engine.to_str().unwrap()];
    lab.ok(&up);
    let pid = daemon_of(&lab);
    let mut busy = connect(&lab.socket("lab"));
    let sending = std::thread::spawn(move || {
        busy.write_all(b"E").unwrap();
        let mut byte = [0];
        while busy.write_all(&byte).is_ok() && busy.read_exact(&mut byte).is_ok() {}
    });
    wait_for("the flow to move bytes", || (lab.status("lab")["bytes_in"].as_u64() > Some(100)).then_some(()));
    let mut down = connect(&lab.path("run/dtunnel/lab.ctl"));
    down.write_all(b"{\"op\":\"down\"}\n").unwrap();
    let mut events = BufReader::new(down).lines().map(Result::unwrap);
    assert!(events.any(|event| event.contains("draining")));
    assert_eq!(lab.status("lab")["ending"], true);
    let said = lab.ok(&up);
    assert!(said.contains("lab is up") && !said.contains("already"), "{said}");
    assert_ne!(daemon_of(&lab), pid);
    assert_eq!(lab.state(), "up");
    assert!(events.any(|event| event.contains("stopped")));
    sending.join().unwrap();
}

/// The starter of a daemon that fails and the daemon do not wait for each other.
#[test]
fn a_failing_up_takes_no_longer_than_its_failure() {
    let mut lab = Lab::new("");
    lab.sshd.stop();
    // A profile's log is kept.
    let port = lab.sshd.port;
    lab.write_config(&format!("[profiles.lab]\nhost = {:?}\nport = {port}\n", lab.sshd.address));
    let config = lab.path("");
    let config = config.to_str().unwrap();
    let daemons = || {
        let of = |entry: std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (line.contains(" daemon ") && line.contains(config)).then_some(())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).count()
    };
    lab.fails(6, &["up", "lab"]);
    wait_for("the daemon's end", || (daemons() == 0).then_some(()));
    let log = lab.log("lab");
    assert!(log.contains("cannot connect") && !log.contains("last event"), "{log}");
}

#[test]
fn a_daemon_that_stands_still_is_said_to_and_keeps_nobody() {
    let lab = Lab::new("");
    let engine = lab.path("remote/x.sock");
    remote::serve(&engine, remote::echo);
    lab.ok(&["up", "lab", "--remote", engine.to_str().unwrap()]);
    let pid = daemon_of(&lab);
    run(Command::new("kill").args(["-STOP", &pid]));
    let waiting: Vec<_> = [vec!["up", "lab", "--timeout", "1s"], vec!["down", "lab"]]
        .into_iter()
        .map(|args| lab.dtunnel(args).stderr(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    for child in waiting {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let told = stderr.contains(&format!("(process {pid}) does not answer in time"));
        assert!(output.status.code() == Some(1) && told && stderr.contains(&format!("kill -9 {pid}")), "{stderr}");
    }
    assert_eq!(lab.said_status("lab")["pid"].to_string(), pid);
    run(Command::new("kill").args(["-CONT", &pid]));
    lab.ok(&["down", "lab"]);
}

#[test]
fn a_command_in_ssh_config_that_hangs_is_given_up_and_holds_up_no_tunnel() {
    let lab = Lab::new("");
    let engine = lab.path("remote/x.sock");
    remote::serve(&engine, remote::echo);
    lab.ok(&["up", "lab", "--remote", engine.to_str().unwrap()]);
    let dir = lab.dir.path().display();
    let hangs = format!("Match exec \"touch {dir}/asked; until [ -e {dir}/over ]; do sleep 0.1; done\"\n");
    let ssh_config = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    std::fs::write(lab.path("ssh_config"), hangs + &ssh_config).unwrap();
    let commands = || {
        let of = |entry: std::fs::DirEntry| {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            line.contains(&format!("{dir}/over")).then_some(())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).count()
    };
    let mut client = connect(&lab.socket("lab"));
    client.write_all(b"xa").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let config = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    lab.write_config(&format!("{config}[defaults]\naccess = \"read-only\"\n"));
    let reload = lab.dtunnel(["reload", "lab"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the command", || lab.path("asked").exists().then_some(()));
    // A guard that is asked for does not wait for it, and whoever uses the tunnel does not notice.
    wait_for("the guard", || (lab.status("lab")["access"] == "read-only").then_some(()));
    client.write_all(b"there?").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"there?");
    let output = reload.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("does a command of a `Match exec` hang?"), "{stderr}");
    assert!(stderr.contains("keeping the old settings"), "{stderr}");
    let stderr = lab.fails(2, &["up", "lab2", "--timeout", "1s"]);
    assert!(stderr.contains("does a command of a `Match exec` hang?"), "{stderr}");
    wait_for("its end", || (commands() == 0).then_some(()));
}

#[test]
fn a_configuration_that_cannot_be_read_to_its_end_is_said_so() {
    let lab = Lab::new("");
    lab.write_config("");
    std::fs::remove_file(lab.path("config.toml")).unwrap();
    run(Command::new("mkfifo").arg("-m600").arg(lab.path("config.toml")));
    let stderr = lab.fails(1, &["up", "lab"]);
    assert!(stderr.contains("config.toml") && stderr.contains("could not be read within 10 s"), "{stderr}");
    std::fs::remove_file(lab.path("config.toml")).unwrap();
}

#[test]
fn a_host_that_falls_silent_during_the_login_is_one_that_cannot_be_reached() {
    let lab = Lab::new("");
    // The key exchange comes through, and nothing of what comes then.
    let ssh_config = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    let proxy = "Host lab\n  ProxyCommand sh -c 'nc %h %p | head -c 1600; sleep 100 & wait'\n";
    std::fs::write(lab.path("ssh_config"), format!("{proxy}{ssh_config}")).unwrap();
    let stderr = lab.fails(6, &["up", "lab", "--timeout", "5s"]);
    let address = format!("{}@{}:{}", crate::lab::whoami(), lab.sshd.address, lab.sshd.port);
    assert!(stderr.contains(&format!("{address} was not ready within 5s")), "{stderr}");
}
