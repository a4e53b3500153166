//! Hosts that are not like the README's: other sockets, servers that forward nothing, logins that may
//! not use the Engine.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, connect, remote, run, set_mode, succeeded, wait_for};

/// A world with an Engine, whose host has it where `script` puts it: `$ENGINE` is its socket.
fn host(script: &str) -> Option<Lab> {
    let lab = Lab::with_engine()?;
    let engine = lab.remote_socket();
    lab.host().run(&script.replace("$ENGINE", engine.to_str().unwrap()));
    lab.write_config(&format!("ssh_config = {:?}\n", lab.path("ssh_config")));
    Some(lab)
}

/// The processes of this machine whose command line has `text`, dtunnel's own apart.
fn processes(text: &str) -> Vec<String> {
    let of = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(text) && !line.starts_with(env!("CARGO_BIN_EXE_dtunnel")))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

fn nothing_is_left(text: &str) {
    wait_for(&format!("the commands on the host to end: {:?}", processes(text)), || {
        processes(text).is_empty().then_some(())
    });
}

/// Has the host's logins find these programs and no others.
fn programs(lab: &mut Lab, names: &[&str], options: &str) {
    let bin = lab.path("bin");
    let _ = std::fs::remove_dir_all(&bin);
    std::fs::create_dir(&bin).unwrap();
    for name in [&["sh", "id", "ls", "grep", "getent", "sleep", "cat", "awk"], names].concat() {
        let found = run(Command::new("sh").args(["-c", &format!("command -v {name}")]));
        match found.starts_with("/usr/local/") {
            true => drop(std::fs::copy(found.trim(), bin.join(name)).unwrap()),
            false => std::os::unix::fs::symlink(found.trim(), bin.join(name)).unwrap(),
        }
    }
    // Where programs are looked for besides.
    lab.host().run("mountpoint -q /usr/local/bin || mount -t tmpfs none /usr/local/bin");
    lab.sshd.configure(&format!("SetEnv PATH={}\n{options}", bin.display()));
    lab.sshd.start_again();
}

#[test]
fn the_engine_is_found_wherever_it_is_and_remembered() {
    for (script, path) in [
        ("ln -s $ENGINE /run/docker.sock", "/var/run/docker.sock"),
        ("ln -s $ENGINE /run/user/0/docker.sock", "/run/user/0/docker.sock"),
        ("mkdir /run/podman && ln -s $ENGINE /run/podman/podman.sock", "/run/podman/podman.sock"),
        ("mkdir /run/user/0/podman && ln -s $ENGINE /run/user/0/podman/podman.sock", "/run/user/0/podman/podman.sock"),
    ] {
        let Some(lab) = host(script) else { return };
        for _ in 0..2 {
            lab.ok(&["up", "lab"]);
            let status = lab.status("lab");
            assert_eq!((&status["remote"], &status["transport"]), (&path.into(), &"streamlocal".into()));
            run(&mut lab.docker("lab", &["version"]));
            lab.ok(&["down", "lab"]);
        }
        if !path.starts_with("/var") {
            let kept = std::fs::read_to_string(lab.path("home/.local/state/dtunnel/lab.route")).unwrap();
            assert_eq!(kept, format!("streamlocal:{path}\n"));
        }
    }
}

#[test]
fn an_engine_that_has_moved_is_found_again() {
    let Some(lab) = host("ln -s $ENGINE /run/user/0/docker.sock") else { return };
    lab.up_and_down();
    let engine = lab.remote_socket();
    lab.host().new_run(&format!("ln -s {} /run/docker.sock", engine.display()));
    lab.ok(&["up", "lab"]);
    assert_eq!(lab.status("lab")["remote"], "/var/run/docker.sock");
}

#[test]
fn where_nobody_can_look_around_likely_places_are_tried() {
    let Some(lab) = host("mkdir /run/podman && ln -s $ENGINE /run/podman/podman.sock") else { return };
    let keys = lab.path("authorized_keys");
    let key = std::fs::read_to_string(&keys).unwrap();
    std::fs::write(&keys, format!("restrict,port-forwarding,command=\"/bin/false\" {key}")).unwrap();
    lab.ok(&["up", "lab"]);
    assert_eq!(lab.status("lab")["remote"], "/run/podman/podman.sock");
}

#[test]
fn a_tcp_port_and_a_command_of_the_host_lead_to_its_engine() {
    let Some(lab) = Lab::with_engine() else { return };
    let engine = lab.remote_socket();
    let listen = "TCP-LISTEN:2375,bind=127.0.0.1,fork,reuseaddr";
    let _server = lab.host().serve(&["socat", listen, &format!("UNIX-CONNECT:{}", engine.display())]);
    lab.host().until_it_listens(2375);
    let tcp = "tcp:127.0.0.1:2375".to_owned();
    let command = format!("command:cd / && exec docker -H unix://{} system dial-stdio", engine.display());
    for (remote, transport) in [(&tcp, "direct-tcpip"), (&command, "exec: ")] {
        lab.ok(&["up", "lab", "--remote", remote]);
        let status = lab.status("lab");
        assert_eq!(status["remote"], remote.as_str());
        assert!(status["transport"].as_str().unwrap().starts_with(transport), "{status}");
        run(&mut lab.docker("lab", &["version"]));
        lab.ok(&["down", "lab"]);
    }
    let stderr = lab.fails(7, &["up", "lab", "--remote", "command:echo no such luck >&2; exit 3"]);
    assert!(stderr.contains("no such luck"), "{stderr}");
}

#[test]
fn where_nothing_is_forwarded_commands_of_the_host_stand_in() {
    for refusal in ["AllowStreamLocalForwarding no", "AllowTcpForwarding no", "DisableForwarding yes"] {
        let Some(mut lab) = Lab::with_engine() else { return };
        lab.reconfigure(refusal);
        lab.ok(&["up", "lab"]);
        assert_eq!(lab.status("lab")["transport"], "exec: docker system dial-stdio", "{refusal}");
        let engine = lab.remote_socket();
        let mut cat = lab.docker("lab", &["run", "--rm", "-i", "--net=none", crate::lab::engine::IMAGE, "cat"]);
        let mut child = cat.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"to the end").unwrap();
        assert_eq!(succeeded(&child.wait_with_output().unwrap()), "to the end", "{refusal}");
        lab.ok(&["down", "lab"]);
        nothing_is_left(&format!("{} system dial-stdio", engine.display()));
        // Forwarding is preferred as soon as there is any.
        lab.reconfigure("");
        lab.ok(&["up", "lab"]);
        assert_eq!(lab.status("lab")["transport"], "streamlocal");
    }
}

/// A lab whose server forwards nothing, a tunnel through `tool`, and its far end: it sends back what it
/// gets, once that has ended; of `u` it takes no end.
fn bridged(tool: &str, options: &str) -> (Lab, String) {
    let mut lab = Lab::new("");
    let path = lab.path("remote/x.sock");
    programs(&mut lab, &[tool], &format!("DisableForwarding yes\n{options}"));
    remote::serve(&path, |mut stream| {
        let (mut first, mut all) = ([0], Vec::new());
        stream.read_exact(&mut first).unwrap();
        if first == *b"u" {
            while stream.write_all(&[b'.'; 4096]).is_ok() {}
            return;
        }
        stream.read_to_end(&mut all).unwrap();
        let _ = stream.write_all(&all);
    });
    let path = path.to_str().unwrap().to_owned();
    lab.ok(&["up", "lab", "--remote", &path]);
    (lab, path)
}

fn ask(lab: &Lab, size: usize) {
    let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    let mut client = connect(&lab.socket("lab"));
    std::thread::scope(|scope| {
        let mut writer = client.try_clone().unwrap();
        let data = &data;
        scope.spawn(move || {
            writer.write_all(b"xe").unwrap();
            writer.write_all(data).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer == *data, "{} of {size} bytes, or other ones", answer.len());
    });
}

#[test]
fn each_bridge_carries_ends_both_ways_shows_cuts_and_leaves_nothing() {
    for tool in ["docker", "socat", "nc"] {
        let (mut lab, path) = bridged(tool, "");
        let transport = lab.status("lab")["transport"].as_str().unwrap().to_owned();
        assert!(transport.starts_with(&format!("exec: {tool}")), "{transport}");
        [0, 1, 3_000_000].into_iter().for_each(|size| ask(&lab, size));
        // One that is ended on the host in the middle.
        let endless = |lab: &Lab| {
            let mut client = connect(&lab.socket("lab"));
            client.write_all(b"xu").unwrap();
            client.read_exact(&mut [0; 100_000]).unwrap();
            client
        };
        let mut client = endless(&lab);
        let of_flow = |text: &str| {
            let pids = run(Command::new("pgrep").args(["-f", text]));
            pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let own = std::process::id().to_string();
        for pid in of_flow(&format!("^({tool}|[^ ]*/{tool}) .*{path}")) {
            assert_ne!(pid, own);
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
        assert!(client.read_to_end(&mut Vec::new()).is_err(), "{tool}: a cut looks cut");
        // The client goes away, the session is cut, the daemon is killed: nothing stays.
        drop(endless(&lab));
        nothing_is_left(&path);
        let mut client = endless(&lab);
        lab.sshd.cut_sessions();
        assert!(client.read_to_end(&mut Vec::new()).is_err(), "{tool}: a cut looks cut");
        nothing_is_left(&path);
        wait_for("the tunnel", || (lab.status("lab")["state"] == "up").then_some(()));
        let client = endless(&lab);
        run(Command::new("kill").args(["-9", &lab.status("lab")["pid"].to_string()]));
        nothing_is_left(&path);
        drop(client);
        lab.sshd.stop();
    }
}

#[test]
fn more_flows_than_the_server_lets_a_connection_have_go_over_others_or_wait() {
    let (lab, path) = bridged("socat", "MaxSessions 2");
    std::thread::scope(|scope| (0..12).for_each(|_| drop(scope.spawn(|| ask(&lab, 100_000)))));
    let status = lab.status("lab");
    assert_eq!(status["flows_failed"], 0, "{status}");
    assert!(status["connections"].as_array().unwrap().len() > 1, "{status}");
    lab.ok(&["down", "lab"]);
    nothing_is_left(&path);
}

#[test]
fn what_is_in_the_way_is_told_apart() {
    let Some(mut lab) = host("true") else { return };
    programs(&mut lab, &["docker", "socat"], "");
    let stderr = lab.fails(7, &["up", "lab"]);
    assert!(stderr.contains("no Docker socket") && stderr.contains("systemctl start docker"), "{stderr}");
    programs(&mut lab, &[], "");
    let stderr = lab.fails(7, &["up", "lab"]);
    assert!(stderr.contains("is Docker or Podman installed there?"), "{stderr}");
    let stderr = lab.fails(7, &["up", "lab", "--remote", "/run/other.sock"]);
    assert!(stderr.contains("no Docker socket at /run/other.sock"), "{stderr}");

    // A socket that somebody left behind.
    let stale = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/docker.sock\")'";
    lab.host().run(stale);
    programs(&mut lab, &["socat"], "");
    let stderr = lab.fails(7, &["up", "lab"]);
    assert!(stderr.contains("nothing answers at /var/run/docker.sock") && stderr.contains("refused"), "{stderr}");

    // The server forwards nothing, and there is nothing to stand in.
    let engine = lab.remote_socket();
    lab.host().new_run(&format!("ln -s {} /run/docker.sock", engine.display()));
    programs(&mut lab, &[], "AllowStreamLocalForwarding no");
    let stderr = lab.fails(7, &["up", "lab"]);
    assert!(stderr.contains("does not forward") && stderr.contains("AllowStreamLocalForwarding yes"), "{stderr}");

    // Not even that can be asked.
    let keys = lab.path("authorized_keys");
    let key = std::fs::read_to_string(&keys).unwrap();
    std::fs::write(&keys, format!("restrict {key}")).unwrap();
    let stderr = lab.fails(7, &["up", "lab", "--remote", "/run/docker.sock"]);
    assert!(stderr.contains("sshd_config"), "{stderr}");
}

/// As after a host's start: nobody listens yet when the tunnel first asks, and somebody does when a tool does.
#[test]
fn an_engine_that_starts_meanwhile_needs_no_tool() {
    let stale = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/docker.sock\")'";
    let Some(mut lab) = host(stale) else { return };
    programs(&mut lab, &["socat"], "");
    let (engine, tool) = (lab.remote_socket(), lab.path("bin/socat"));
    let begins = format!("/bin/ln -s {} /run/new && /bin/mv /run/new /run/docker.sock", engine.display());
    std::fs::remove_file(&tool).unwrap();
    std::fs::write(&tool, format!("#!/bin/sh\n{begins}\nexec /usr/bin/socat \"$@\"\n")).unwrap();
    set_mode(&tool, 0o755);
    lab.ok(&["up", "lab"]);
    assert_eq!(lab.status("lab")["transport"], "streamlocal", "{}", lab.log("lab"));
    run(&mut lab.docker("lab", &["version"]));
}

#[test]
fn a_login_that_may_not_use_the_socket_is_told_what_to_do() {
    let Some(lab) = host("true") else { return };
    let accounts = |groups: &str| {
        format!(
            "(echo root:x:0:0:root:/root:/bin/sh; echo sshd:x:65530:65534::/run/sshd:/usr/sbin/nologin; \
             echo guest:x:65533:65533::/:/bin/sh) >/run/passwd && mount --bind /run/passwd /etc/passwd && \
             (echo root:x:0:; echo guest:x:65533:; echo {groups}) >/run/group && mount --bind /run/group /etc/group && \
             (echo root:*:19000::::::; echo guest:*:19000::::::) >/run/shadow && mount --bind /run/shadow /etc/shadow && \
             python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/run/docker.sock\")' && \
             chmod 660 /run/docker.sock && chown root:999 /run/docker.sock"
        )
    };
    set_mode(lab.dir.path(), 0o755);
    set_mode(&lab.path("authorized_keys"), 0o644);
    let target = format!("guest@{}:{}", lab.sshd.address, lab.sshd.port);
    lab.host().run(&accounts("docker:x:999:"));
    let stderr = lab.fails(7, &["up", &target]);
    assert!(stderr.contains("guest may not use /var/run/docker.sock (srw-rw---- root docker)"), "{stderr}");
    assert!(stderr.contains("usermod -aG docker guest"), "{stderr}");
}

#[test]
fn an_engine_that_restarts_is_used_again_and_its_socket_may_be_another() {
    let lab = Lab::new("");
    let path = lab.path("remote/x.sock");
    let answer = |mut stream: UnixStream| drop(stream.write_all(b"hello"));
    remote::serve(&path, answer);
    lab.ok(&["up", "lab", "--remote", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    let hello = |lab: &Lab| {
        let mut client = connect(&lab.socket("lab"));
        let _ = client.write_all(b"x");
        let mut text = String::new();
        let _ = client.read_to_string(&mut text);
        text
    };
    wait_for("flows to be refused", || hello(&lab).is_empty().then_some(()));
    let status = lab.status("lab");
    assert!(status["last_error"].as_str().is_some_and(|e| e.contains("refused to open")), "{status}");
    remote::serve(&path, answer);
    assert_eq!(hello(&lab), "hello");
    assert_eq!(lab.status("lab")["last_error"], serde_json::Value::Null);
    assert!(Path::new(&lab.socket("lab")).exists());
}

/// A server that allows one session at a time, and a session counts until it has ended there: flows wait for
/// their turn, and none is refused.
#[test]
fn where_one_command_may_run_at_a_time_flows_take_turns() {
    let (lab, path) = bridged("socat", "MaxSessions 1");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..18).for_each(|n| ask(&lab, 1000 * n)));
        }
    });
    assert_eq!(lab.status("lab")["flows_failed"], 0, "{}", lab.log("lab"));
    lab.ok(&["down", "lab"]);
    nothing_is_left(&path);
}
