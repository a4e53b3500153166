//! Living on a machine: lazy tunnels, new settings while running, service managers, and what runs out.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};

use crate::lab::keeper::Keeper;
use crate::lab::{Lab, PATIENCE, connect, is_root, remote, run, skip, wait_for};

/// A far end that echoes; the option that leads to it.
fn echo_server(lab: &Lab) -> String {
    let path = lab.path("remote/x.sock");
    remote::serve(&path, remote::echo);
    path.display().to_string()
}

fn echo_on(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])
}

fn echo(lab: &Lab) -> std::io::Result<()> {
    let mut stream = connect(&lab.socket("lab"));
    // The first byte only chooses (lab/remote.rs).
    stream.write_all(b"x")?;
    echo_on(&mut stream)
}

fn until_state(lab: &Lab, wanted: &str) {
    wait_for(&format!("the state {wanted}"), || (lab.state() == wanted).then_some(()));
}

#[test]
fn a_lazy_tunnel_connects_on_first_use_and_leaves_when_unused() {
    let mut lab = Lab::new("");
    let remote = echo_server(&lab);
    let ssh_config = lab.path("ssh_config");
    lab.write_config(&format!(
        "ssh_config = {ssh_config:?}\n[profiles.lab]\nremote = {remote:?}\nlazy = true\nidle_timeout = \"1s\"\n"
    ));
    let said = lab.ok(&["up", "lab"]);
    assert!(said.contains("connects on first use"), "{said}");
    assert!(lab.ok(&["up", "lab"]).contains("already ready"));
    assert_eq!(lab.state(), "idle");
    assert!(lab.sshd.sessions().is_empty(), "nobody has connected");
    for _ in 0..2 {
        echo(&lab).unwrap();
        assert_eq!(lab.state(), "up");
        until_state(&lab, "idle");
        wait_for("the session to end", || lab.sshd.sessions().is_empty().then_some(()));
    }
    // A flow in use is not idle, however quiet.
    let mut stream = connect(&lab.socket("lab"));
    stream.write_all(b"x").unwrap();
    echo_on(&mut stream).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(lab.state(), "up");
    echo_on(&mut stream).unwrap();
    drop(stream);
    until_state(&lab, "idle");
    // Without a flow a lost host is not missed; with one it is waited for.
    lab.sshd.stop();
    assert_eq!(lab.state(), "idle");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| echo(&lab));
        wait_for("the flow", || (lab.state() == "reconnecting").then_some(()));
        drop(waiting);
    });
}

#[test]
fn a_lazy_tunnel_that_needs_a_person_says_so_and_up_asks() {
    let lab = Lab::new("");
    let remote = echo_server(&lab);
    lab.keygen("locked", "ed25519", "secret");
    lab.authorize("locked");
    let (ssh_config, key) = (lab.path("ssh_config"), lab.path("locked"));
    lab.write_config(&format!(
        "ssh_config = {ssh_config:?}\n[profiles.lab]\nremote = {remote:?}\nlazy = true\nidentity_files = [{key:?}]\n"
    ));
    lab.ok(&["up", "lab"]);
    assert!(echo(&lab).is_err());
    until_state(&lab, "failed");
    let error = lab.status("lab")["last_error"].to_string();
    assert!(error.contains("needs you: run dtunnel up lab"), "{error}");
}

#[test]
fn new_settings_take_effect_at_sighup_and_streams_go_on() {
    let mut lab = Lab::new("");
    let remote = echo_server(&lab);
    let config = |lab: &Lab, more: &str| lab.write_profile(&remote, more);
    config(&lab, "");
    lab.ok(&["up", "lab"]);
    let mut stream = connect(&lab.socket("lab"));
    stream.write_all(b"x").unwrap();
    echo_on(&mut stream).unwrap();
    let pid = lab.status("lab")["pid"].to_string();
    let hang_up = || drop(run(Command::new("kill").args(["-HUP", &pid])));
    // Nonsense changes nothing.
    config(&lab, "nonsense = 1\n");
    hang_up();
    wait_for("the log's word", || lab.log("lab").contains("keeping the old settings").then_some(()));
    echo(&lab).unwrap();
    // Another port of the same server, reached with another key.
    lab.keygen("other", "ed25519", "");
    let both = ["user", "other"].map(|name| std::fs::read_to_string(lab.path(&format!("{name}.pub"))).unwrap());
    std::fs::write(lab.path("authorized_keys"), both.concat()).unwrap();
    config(&lab, &format!("identity_files = [{:?}]\n", lab.path("other")));
    hang_up();
    wait_for("the new connection", || lab.log("lab").contains("with the new settings").then_some(()));
    echo(&lab).unwrap();
    echo_on(&mut stream).unwrap();
    wait_for("two sessions", || (lab.sshd.sessions().len() == 2).then_some(()));
    drop(stream);
    wait_for("the old session to end", || (lab.sshd.sessions().len() == 1).then_some(()));
    // Settings that lead nowhere: the tunnel stays, and says so.
    config(&lab, "port = 1\n");
    hang_up();
    wait_for("the log's word", || lab.log("lab").contains("no connection with the new settings").then_some(()));
    echo(&lab).unwrap();
    assert_eq!(lab.state(), "up");
    lab.sshd.stop();
}

#[test]
fn a_full_disk_or_a_log_that_cannot_be_written_stops_nothing() {
    if !is_root() {
        return skip("a small file system needs root");
    }
    let lab = Lab::new("");
    let remote = echo_server(&lab);
    let state_dir = lab.path("home/.local/state/dtunnel");
    std::fs::create_dir_all(&state_dir).unwrap();
    let dir = state_dir.to_str().unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none", dir]));
    let unmount = Keeper::at_the_end(&format!("umount {dir}"));
    let _ = std::fs::write(state_dir.join("filler"), vec![0; 1 << 20]);
    lab.ok(&["up", "lab", "-v", "--remote", &remote]);
    (0..50).for_each(|_| echo(&lab).unwrap());
    assert!(lab.log("lab").len() < 70_000);
    // Room again: the log goes on.
    std::fs::remove_file(state_dir.join("filler")).unwrap();
    echo(&lab).unwrap();
    wait_for("the log", || lab.log("lab").contains("a flow ended").then_some(()));
    lab.ok(&["down", "lab"]);
    drop(unmount);
}

#[test]
fn without_descriptors_accepting_pauses_and_goes_on() {
    let lab = Lab::new("");
    let remote = echo_server(&lab);
    let limited = format!("ulimit -n 64; exec {} up lab --foreground --remote {remote}", env!("CARGO_BIN_EXE_dtunnel"));
    let mut shell = Command::new("sh");
    lab.set_env(&mut shell);
    let mut up = shell.args(["-c", &limited]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    until_state(&lab, "up");
    let mut first = connect(&lab.socket("lab"));
    first.write_all(b"x").unwrap();
    echo_on(&mut first).unwrap();
    let crowd: Vec<_> = (0..100).map(|_| connect(&lab.socket("lab"))).collect();
    wait_for("the log's word", || lab.log("lab").contains("cannot accept a connection").then_some(()));
    // Those that are there live on.
    (0..20).for_each(|_| echo_on(&mut first).unwrap());
    drop(crowd);
    wait_for("a flow", || echo(&lab).ok());
    assert_eq!(lab.state(), "up");
    run(Command::new("kill").arg(up.id().to_string()));
    assert!(up.wait().unwrap().success());
}

/// What comes to a service manager's notification socket.
struct Manager(UnixDatagram);

impl Manager {
    fn new(lab: &Lab) -> Self {
        let socket = UnixDatagram::bind(lab.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn hears(&self, text: &str) {
        let mut buffer = [0; 4096];
        let mut all = String::new();
        while !all.contains(text) {
            let size = self.0.recv(&mut buffer).unwrap_or_else(|e| panic!("no {text:?} came, only {all:?}: {e}"));
            all += &String::from_utf8_lossy(&buffer[..size]);
        }
    }
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_how_it_goes_and_when_it_ends() {
    let mut lab = Lab::new("");
    let remote = echo_server(&lab);
    let manager = Manager::new(&lab);
    let mut command = lab.dtunnel(["up", "lab", "--foreground", "--quiet", "--remote", &remote]);
    let mut up = command.env("NOTIFY_SOCKET", lab.path("notify")).stdout(Stdio::null()).spawn().unwrap();
    manager.hears("READY=1");
    echo(&lab).unwrap();
    lab.sshd.stop();
    // Which reason it hears is a race: that the connection was lost may be passed over for what the next attempt met.
    manager.hears("STATUS=reconnecting: ");
    lab.sshd.start_again();
    manager.hears("STATUS=up: Engine");
    run(Command::new("kill").arg(up.id().to_string()));
    manager.hears("STOPPING=1");
    assert!(up.wait().unwrap().success());
}

#[test]
fn a_socket_that_is_passed_on_is_served_and_left_to_its_owner() {
    let lab = Lab::new("");
    let remote = echo_server(&lab);
    let path = lab.path("passed.sock");
    let program = env!("CARGO_BIN_EXE_dtunnel");
    let mut activate = Command::new("systemd-socket-activate");
    lab.set_env(&mut activate);
    let names = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DTUNNEL_CONFIG"];
    activate.args(names.iter().flat_map(|name| ["-E", name]));
    activate.arg("-l").arg(&path).args([program, "up", "lab", "--foreground", "--quiet", "--remote", &remote]);
    let mut child = activate.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The first client starts it, and is served. (The file is there a moment before anybody listens.)
    let mut client = wait_for("the socket", || UnixStream::connect(&path).ok());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"x").unwrap();
    echo_on(&mut client).unwrap();
    assert_eq!(lab.status("lab")["local"], format!("unix://{}", path.display()));
    lab.ok(&["down", "lab"]);
    child.wait().unwrap();
    assert!(path.exists(), "the file is the manager's");
}

#[test]
fn a_service_is_written_as_systemd_understands_it_and_removed() {
    let lab = Lab::new("");
    let service = |args: &[&str]| {
        let mut command = lab.dtunnel([&["service"][..], args].concat());
        // No service manager of this machine is to hear of it.
        let bin = lab.path("bin");
        let output = command.env("PATH", &bin).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    std::fs::create_dir(lab.path("bin")).unwrap();
    lab.write_config(&format!("ssh_config = {:?}\n[profiles.lab]\nport = 2\n", lab.path("ssh_config")));
    let units = lab.path("home/.config/systemd/user");
    let (unit, socket) = (units.join("dtunnel-lab.service"), units.join("dtunnel-lab.socket"));
    let said = service(&["install", "lab"]);
    assert!(said.contains("systemctl --user enable --now dtunnel-lab.service"), "{said}");
    assert!(!socket.exists());
    service(&["install", "--socket", "lab"]);
    for file in [&unit, &socket] {
        let mut verify = Command::new("systemd-analyze");
        lab.set_env(&mut verify);
        let verified = verify.args(["verify", "--user", "--man=no"]).arg(file).output().unwrap();
        let complaints = String::from_utf8_lossy(&verified.stderr);
        let ours: Vec<_> = complaints.lines().filter(|line| line.contains("dtunnel-lab")).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
    service(&["uninstall", "lab"]);
    assert!(!unit.exists() && !socket.exists());
    assert!(service(&["uninstall", "lab"]).contains("has no service"));
}

// ---- doctor

fn doctor(lab: &Lab, code: i32, args: &[&str]) -> serde_json::Value {
    let output = lab.run(&[&["doctor", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The verdicts, `id=verdict`.
fn verdicts(report: &serde_json::Value) -> Vec<String> {
    let of =
        |check: &serde_json::Value| format!("{}={}", check["id"].as_str().unwrap(), check["verdict"].as_str().unwrap());
    report["checks"].as_array().unwrap().iter().map(of).collect()
}

fn check<'a>(report: &'a serde_json::Value, id: &str) -> &'a serde_json::Value {
    report["checks"].as_array().unwrap().iter().find(|check| check["id"] == id).unwrap()
}

#[test]
fn doctor_finds_a_healthy_host_healthy_and_changes_nothing() {
    let Some(lab) = Lab::with_engine() else { return };
    // Known, so that nothing has to be learnt.
    lab.up_and_down();
    let files =
        |lab: &Lab| run(Command::new("find").arg(lab.dir.path()).args(["-newer", lab.path("mark").to_str().unwrap()]));
    std::fs::write(lab.path("mark"), "").unwrap();
    let report = doctor(&lab, 0, &["lab"]);
    assert!(report["ok"].as_bool().unwrap());
    let ids = "target resolve tcp greeting key-exchange host-key login host forwarding engine clock local";
    let all: Vec<String> = ids.split(' ').map(|id| format!("{id}=ok")).collect();
    // Debian 12's sshd is older than strict key exchange, or not: a word, no failure.
    let seen: Vec<String> =
        verdicts(&report).iter().map(|v| v.replace("key-exchange=warning", "key-exchange=ok")).collect();
    assert_eq!(seen, all, "{report:#}");
    let kex = check(&report, "key-exchange")["detail"].as_str().unwrap();
    assert!(kex.contains("25519") && kex.contains("gcm"), "{kex}");
    assert!(check(&report, "engine")["detail"].as_str().unwrap().contains("streamlocal"));
    let changed = files(&lab);
    let ours: Vec<_> = changed
        .lines()
        .filter(|line| !line.contains("sshd.log") && !line.ends_with(lab.dir.path().to_str().unwrap()))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    // For people, and while the tunnel is up.
    lab.ok(&["up", "lab"]);
    let text = lab.ok(&["doctor", "lab"]);
    assert!(text.contains("the tunnel is up") && text.lines().count() >= 12, "{text}");
}

#[test]
fn doctor_names_the_first_step_that_fails_and_the_line_to_write() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.write_ssh_config("  StrictHostKeyChecking ask");
    let report = doctor(&lab, 5, &["lab"]);
    assert_eq!(check(&report, "host-key")["verdict"], "failed", "{report:#}");
    assert_eq!(check(&report, "login")["verdict"], "skipped");
    assert!(!lab.path("known_hosts").exists(), "it learns nothing");
    lab.write_ssh_config("");
    lab.up_and_down();

    lab.reconfigure("AllowStreamLocalForwarding no");
    let report = doctor(&lab, 0, &["lab"]);
    let forwarding = check(&report, "forwarding");
    assert_eq!(forwarding["verdict"], "warning", "{report:#}");
    assert!(forwarding["remedy"].as_str().unwrap().contains("`AllowStreamLocalForwarding yes`"), "{forwarding}");
    assert!(check(&report, "engine")["detail"].as_str().unwrap().contains("exec: docker system dial-stdio"));
    lab.reconfigure("AllowTcpForwarding no");
    let report = doctor(&lab, 0, &["lab"]);
    assert!(
        check(&report, "forwarding")["remedy"].as_str().unwrap().contains("`AllowTcpForwarding yes`"),
        "{report:#}"
    );

    lab.reconfigure("");
    let report = doctor(&lab, 7, &["lab", "--remote", "/nonexistent.sock"]);
    assert_eq!(check(&report, "engine")["verdict"], "failed", "{report:#}");
    lab.keygen("other", "ed25519", "");
    lab.authorize("other");
    let report = doctor(&lab, 4, &["lab"]);
    assert_eq!(
        (&check(&report, "host-key")["verdict"], &check(&report, "login")["verdict"]),
        (&"ok".into(), &"failed".into())
    );
    lab.sshd.stop();
    let report = doctor(&lab, 6, &["lab"]);
    assert_eq!(
        (&check(&report, "resolve")["verdict"], &check(&report, "tcp")["verdict"]),
        (&"ok".into(), &"failed".into())
    );
    let report = doctor(&lab, 6, &["no-such-host.invalid"]);
    assert_eq!(check(&report, "resolve")["verdict"], "failed");
}

#[test]
fn doctor_tells_the_tunnel_from_another_program_that_listens_in_its_place() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.up_and_down();
    std::fs::create_dir_all(lab.path("run/dtunnel")).unwrap();
    let text = |code| {
        let output = lab.run(&["doctor", "lab"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let stranger = std::os::unix::net::UnixListener::bind(lab.socket("lab")).unwrap();
    let said = text(1);
    assert!(said.contains("another program (") && !said.contains("the tunnel is up"), "{said}");
    assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
    assert!(said.trim_end().ends_with("its local endpoint cannot be used."), "{said}");
    drop(stranger);
    assert!(text(0).contains("was left over"));
    lab.ok(&["up", "lab"]);
    let said = text(0);
    assert!(said.contains("the tunnel is up") && said.contains("docker can use lab"), "{said}");
    // On a port, too: with another program there, and with the tunnel itself.
    lab.ok(&["down", "lab"]);
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let local = format!("tcp:{}", stranger.local_addr().unwrap());
    let config = format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {:?}\nlocal = {local:?}\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    );
    lab.write_config(&config);
    assert!(text(1).contains("cannot be used"));
    drop(stranger);
    lab.ok(&["up", "lab"]);
    assert!(text(0).contains("the tunnel is up"));
}

#[test]
fn doctor_without_a_target_looks_at_this_machine() {
    let lab = Lab::new("");
    let report = doctor(&lab, 0, &[]);
    let ids: Vec<&str> = report["checks"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["runtime", "ssh", "agent", "docker", "environment", "config"]);
    assert!(report["summary"].as_str().unwrap().contains("this machine is ready"), "{report:#}");
    lab.write_config("[profiles.a]\nhots = 1\n");
    let mut command = lab.dtunnel(["doctor"]);
    let output = command.env("SSH_AUTH_SOCK", "/nonexistent/agent").env("DOCKER_CONTEXT", "other").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for said in ["unknown key `hots`", "/nonexistent/agent, where no agent answers", "DOCKER_CONTEXT set"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(text.trim_end().ends_with("this machine is not ready for tunnels: config."), "{text}");
}

/// As in a container that somebody entered: the session, and whoever is outside, have no numbers in its PID namespace.
#[test]
fn a_pid_namespace_that_was_entered_from_outside_is_a_machine_as_any_other() {
    if !is_root() {
        return skip("a PID namespace needs root");
    }
    let lab = Lab::new("");
    let remote = lab.path("remote/x.sock");
    crate::lab::answers::serve(&remote, |_| Some(r#"{"Version":"27.0.0","ApiVersion":"1.41"}"#.into()));
    lab.write_config(&format!("ssh_config = {:?}\n[defaults]\nremote = {remote:?}\n", lab.path("ssh_config")));
    let entered = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "sh", "-euc", script, env!("CARGO_BIN_EXE_dtunnel")]);
        lab.set_env(&mut command);
        run(command.stdin(Stdio::null()))
    };
    lab.ok(&["up", "lab"]);
    let said = entered("$0 status lab; $0 up lab; $0 env lab; $0 doctor; $0 down lab");
    assert!(said.contains("unset DOCKER_CONTEXT") && said.contains("this machine is ready"), "{said}");
    assert_eq!(lab.runtime_files(), [""; 0], "{said}");
    let _stranger = std::os::unix::net::UnixListener::bind(lab.socket("lab")).unwrap();
    let said = entered("$0 doctor lab || test $? = 1");
    assert!(said.contains("another program listens on"), "{said}");
    let said = entered("$0 up lab2; $0 status; $0 down --all");
    assert!(said.contains("lab2"), "{said}");
}

/// An Engine chooses its version, and the names of its containers.
#[test]
fn a_hostile_engine_writes_no_lines_into_our_reports() {
    let lab = Lab::new("");
    let engine = lab.path("remote/x.sock");
    let version = r#"{"Version":"1\n\u2714 login          1.0 ms  all is well\u202e\u001b[2J","ApiVersion":"1\u2028.41","Os":"\u200blinux","Arch":"\u0085amd64"}"#;
    let listed = r#"[{"Id":"0123456789abcdef","Names":["/web\n\u2714 all\u202e"],"Ports":[],"HostConfig":{"NetworkMode":"host"}}]"#;
    let inspected = r#"{"Name":"/web\n\u2714 all\u202e","HostConfig":{"Privileged":true,"CapAdd":["X\r\u2714 fine"]}}"#;
    let info = r#"{"ServerVersion":"27.0.0\n\u2714 x","LoggingDriver":"json-file\n"}"#;
    crate::lab::answers::serve(&engine, move |path| {
        let answer = match path.split('?').next().unwrap() {
            "/version" => version,
            "/info" => info,
            "/containers/json" => listed,
            path if path.starts_with("/containers/") => inspected,
            _ => return None,
        };
        Some(answer.into())
    });
    let remote = engine.to_str().unwrap();
    lab.ok(&["up", "lab", "--remote", remote]);
    let mut said = Vec::new();
    for command in [["doctor", "lab", "--remote", remote], ["audit", "lab", "--remote", remote]] {
        let text = lab.ok(&command);
        assert!(!text.contains(['\u{202e}', '\u{1b}', '\u{200b}', '\u{2028}', '\u{85}', '\r']), "{text:?}");
        said.push(text);
    }
    // One mark a check, and the sentence at the end.
    let marks = said[0].lines().filter(|line| line.starts_with('✔')).count();
    let known = ["target", "resolve", "tcp", "greeting", "key-exchange", "host-key", "login", "host", "forwarding"];
    assert!(marks <= known.len() + 4, "{}", said[0]);
    assert_eq!(said[0].matches("\n✔ login").count(), 1, "{}", said[0]);
    assert!(said[1].contains("container web ✔ all\n") && said[1].contains("X ✔ fine"), "{}", said[1]);
    assert!(!said[1].lines().any(|line| line.starts_with('✔')), "{}", said[1]);
}
