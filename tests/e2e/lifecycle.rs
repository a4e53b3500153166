//! up, status, env, exec, logs, down, against a real sshd and a real Engine.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use crate::lab::{Lab, is_root, run, skip, wait_for, whoami};

#[test]
fn up_returns_when_docker_can_be_used_and_down_leaves_nothing() {
    let Some(lab) = Lab::with_engine() else { return };
    let said = lab.ok(&["up", "lab"]);
    assert!(said.contains("lab is up") && said.trim_end().ends_with("eval \"$(dtunnel env lab)\""), "{said}");
    let socket = lab.socket("lab");
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert!(run(&mut lab.docker("lab", &["version"])).contains("Server"));
    assert!(lab.ok(&["up", "lab"]).contains("already up"));
    let log = lab.ok(&["logs", "lab", "--lines", "50"]);
    assert!(log.contains("connected to"), "{log}");
    lab.ok(&["down", "lab"]);
    assert_eq!(lab.runtime_files(), [""; 0]);
    lab.ok(&["down", "lab"]);
    wait_for("the session's end on the host", || lab.sshd.sessions().is_empty().then_some(()));
}

#[test]
fn status_has_every_documented_field() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    run(&mut lab.docker("lab", &["ps"]));
    let status = wait_for("the flow's end", || Some(lab.status("lab")).filter(|s| s["flows_open"] == 0));
    assert_eq!((&status["name"], &status["state"]), (&"lab".into(), &"up".into()));
    assert_eq!((&status["host"], &status["port"]), (&lab.sshd.address.as_str().into(), &lab.sshd.port.into()));
    assert_eq!(status["user"], whoami());
    assert_eq!(status["local"], format!("unix://{}", lab.socket("lab").display()));
    assert_eq!(status["remote"], lab.remote_socket().display().to_string());
    assert_eq!(status["transport"], "streamlocal");
    assert_eq!(status["connections"].as_array().unwrap().len(), 1);
    assert!(status["flows_total"].as_u64().unwrap() >= 1);
    assert!(status["bytes_in"].as_u64().unwrap() > 100 && status["bytes_out"].as_u64().unwrap() > 50);
    assert!(humantime::parse_rfc3339(status["since"].as_str().unwrap()).is_ok());
    assert!(status["engine"]["version"].is_string() && status["engine"]["api_version"].is_string());
    assert!(status["last_error"].is_null());
    assert!(status["pid"].is_u64());
    let table = lab.ok(&["ls"]);
    assert!(table.starts_with("NAME") && table.contains("lab ") && table.contains(" up "), "{table}");
}

#[test]
fn a_target_needs_no_profile() {
    let Some(lab) = Lab::with_engine() else { return };
    let address = format!("{}@{}:{}", whoami(), lab.sshd.address, lab.sshd.port);
    let url = format!("ssh://{address}");
    lab.ok(&["up", &url]);
    assert!(lab.ok(&["up", &address]).contains("already up"), "two ways to write one target");
    assert_eq!(lab.status(&url)["name"], format!("{}@{}+{}", whoami(), lab.sshd.address, lab.sshd.port));
    lab.ok(&["down", &address]);
    lab.fails(3, &["status", &url]);
}

#[test]
fn profiles_come_up_side_by_side_and_one_that_fails_does_not_stop_the_others() {
    let Some(lab) = Lab::with_engine() else { return };
    let (ssh_config, socket) = (lab.path("ssh_config"), lab.remote_socket());
    lab.write_config(&format!(
        "ssh_config = {ssh_config:?}\n[defaults]\nremote = {socket:?}\n[profiles.a]\nhost = \"lab\"\n\
         [profiles.b]\nhost = \"lab\"\n[profiles.c]\nhost = \"lab\"\nremote = \"/nonexistent.sock\"\n"
    ));
    let output = lab.run(&["up", "--all"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: c: reached"), "{output:?}");
    assert_eq!((&lab.status("a")["state"], &lab.status("b")["state"]), (&"up".into(), &"up".into()));
    run(&mut lab.docker("a", &["ps"]));
    run(&mut lab.docker("b", &["ps"]));
    lab.ok(&["down", "--all"]);
    assert_eq!(lab.runtime_files(), [""; 0]);
}

#[test]
fn two_ups_of_one_target_at_once_make_one_tunnel() {
    let Some(lab) = Lab::with_engine() else { return };
    let mut ups: Vec<_> =
        (0..4).map(|_| lab.dtunnel(["up", "lab", "--json"]).stdout(Stdio::piped()).spawn().unwrap()).collect();
    let mut pids = Vec::new();
    for up in ups.drain(..) {
        let output = up.wait_with_output().unwrap();
        assert!(output.status.success());
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        pids.push(status[0]["pid"].as_u64().unwrap());
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "{pids:?}");
}

#[test]
fn env_prints_what_a_shell_can_eval() {
    let Some(lab) = Lab::with_engine() else { return };
    let mut shell = Command::new("sh");
    lab.set_env(&mut shell);
    let script = format!(
        "eval \"$({0} env lab --up)\" && /usr/bin/docker version --format '{{{{.Server.Version}}}}' && echo \"<$DOCKER_CONTEXT>\" && \
         eval \"$({0} env --unset)\" && echo \"<$DOCKER_HOST>\"",
        env!("CARGO_BIN_EXE_dtunnel")
    );
    let output = run(shell.env("DOCKER_CONTEXT", "elsewhere").args(["-c", &script]));
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with(|c: char| c.is_ascii_digit()), "{output}");
    assert_eq!(lines[1..], ["<>", "<>"]);
}

#[test]
fn exec_passes_the_exit_code_and_the_environment() {
    let Some(lab) = Lab::with_engine() else { return };
    let output =
        lab.ok(&["exec", "lab", "--", "sh", "-c", "echo $DOCKER_HOST; /usr/bin/docker ps -q --filter name=nobodys"]);
    assert_eq!(output.trim(), format!("unix://{}", lab.socket("lab").display()));
    lab.fails(42, &["exec", "lab", "sh", "-c", "exit 42"]);
    lab.fails(127, &["exec", "lab", "no-such-program"]);
    lab.fails(126, &["exec", "lab", "/etc/passwd"]);
    lab.fails(125, &["exec", "lab@127.0.0.1:1", "true"]);
    // It becomes the command: a signal goes to nobody else.
    let mut sleep = lab.dtunnel(["exec", "lab", "sleep", "60"]).spawn().unwrap();
    let comm = format!("/proc/{}/comm", sleep.id());
    wait_for("the command", || std::fs::read_to_string(&comm).ok().filter(|comm| comm == "sleep\n"));
    run(Command::new("kill").arg(sleep.id().to_string()));
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(sleep.wait().unwrap().signal(), Some(15));
}

#[test]
fn a_killed_daemon_is_replaced_without_cleaning_up_by_hand() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    let pid = lab.status("lab")["pid"].to_string();
    run(Command::new("kill").args(["-9", &pid]));
    wait_for("its end", || (lab.status("lab")["state"] == "down").then_some(()));
    assert!(lab.socket("lab").exists(), "a killed process removes nothing");
    lab.ok(&["up", "lab"]);
    assert_ne!(lab.status("lab")["pid"].to_string(), pid);
    run(&mut lab.docker("lab", &["ps"]));
}

#[test]
fn sigterm_ends_a_tunnel_as_down_does() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    run(Command::new("kill").arg(lab.status("lab")["pid"].to_string()));
    wait_for("its files to go", || lab.runtime_files().is_empty().then_some(()));
}

#[test]
fn foreground_is_the_same_tunnel_in_one_process() {
    let Some(lab) = Lab::with_engine() else { return };
    let mut up = lab.dtunnel(["up", "lab", "--foreground"]).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the tunnel", || (lab.status("lab")["state"] == "up").then_some(()));
    assert_eq!(lab.status("lab")["pid"], up.id());
    run(&mut lab.docker("lab", &["ps"]));
    assert!(lab.fails(1, &["up", "lab", "--foreground"]).contains("already up"));
    run(Command::new("kill").args(["-INT", &up.id().to_string()]));
    assert!(up.wait().unwrap().success());
    assert_eq!(lab.runtime_files(), [""; 0]);
}

#[test]
fn ctrl_c_while_coming_up_leaves_nothing_behind() {
    // A server that accepts and says nothing keeps `up` waiting.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::new("");
    for signal in ["-INT", "-KILL"] {
        let target = format!("u@127.0.0.1:{}", silent.local_addr().unwrap().port());
        let mut up = lab.dtunnel(["up", &target]).spawn().unwrap();
        let (_connection, _) = silent.accept().unwrap();
        assert_eq!(lab.runtime_files().len(), 3, "{:?}", lab.runtime_files());
        assert_eq!(lab.status(&target)["state"], "starting");
        run(Command::new("kill").args([signal, &up.id().to_string()]));
        up.wait().unwrap();
        wait_for("the daemon to notice", || lab.runtime_files().is_empty().then_some(()));
    }
}

#[test]
fn the_local_endpoint_can_be_a_loopback_port() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab", "--local", "tcp:127.0.0.1:0"]);
    let local = lab.status("lab")["local"].as_str().unwrap().to_owned();
    assert!(local.starts_with("tcp://127.0.0.1:") && !local.ends_with(":0"), "{local}");
    let mut docker = lab.docker("lab", &["ps"]);
    run(docker.env("DOCKER_HOST", &local));
}

#[test]
fn callers_of_another_uid_are_refused() {
    if !is_root() {
        return skip("becoming another user needs root");
    }
    let Some(lab) = Lab::with_engine() else { return };
    // Let the other user as far as the socket itself: only its own check is left.
    lab.ok(&["up", "lab", "--local", &format!("unix:{}", lab.path("open.sock").display())]);
    lab.ok(&["up", "lab2", "--local", "tcp:127.0.0.1:0"]);
    crate::lab::set_mode(lab.dir.path(), 0o755);
    crate::lab::set_mode(&lab.path("open.sock"), 0o666);
    let tcp = lab.status("lab2")["local"].as_str().unwrap().to_owned();
    for host in [format!("unix://{}", lab.path("open.sock").display()), tcp] {
        let docker = |user: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "/usr/bin/docker", "version"]);
            command.env("DOCKER_HOST", &host).env("HOME", "/nonexistent").output().unwrap()
        };
        assert!(docker("0").status.success(), "{host}");
        let turned_away = docker("65534");
        assert!(!turned_away.status.success(), "{host}");
        // It is told why, each time.
        let said = String::from_utf8_lossy(&turned_away.stderr).into_owned();
        assert!(said.contains("this tunnel of dtunnel belongs to uid 0 and serves no other user"), "{host}: {said}");
    }
    assert!(lab.log("lab").contains("turned away a client of another user"));
    assert!(lab.log("lab2").contains("turned away a client of another user"));
}

#[test]
fn a_socket_path_in_use_or_too_long_is_refused() {
    let Some(lab) = Lab::with_engine() else { return };
    let path = lab.path("mine.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let local = format!("unix:{}", path.display());
    assert!(lab.fails(1, &["up", "lab", "--local", &local]).contains("another program listens there"));
    let long = format!("unix:/{}", "x".repeat(120));
    assert!(lab.fails(2, &["up", "lab", "--local", &long]).contains("this system allows"));
    assert_eq!(lab.runtime_files(), [""; 0]);
}
