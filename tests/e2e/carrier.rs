//! The machine's ssh as what carries a tunnel: ways to log in that only it has, connections of it that are there, its end.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::lab::keeper::Keeper;
use crate::lab::pty::Person;
use crate::lab::{Lab, connect, is_root, remote, run, skip, wait_for};

/// Its flows lead to a server that echoes.
fn echoes(more: &str) -> Lab {
    let lab = Lab::new("");
    remote::serve(&lab.path("remote/x.sock"), remote::echo);
    lab.write_profile(lab.path("remote/x.sock"), more);
    lab
}

fn echo(lab: &Lab) -> UnixStream {
    let mut stream = connect(&lab.socket("lab"));
    // The server takes the first byte as the word what this is.
    stream.write_all(b"xy").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

fn carrier(lab: &Lab) -> String {
    lab.status("lab")["carrier"].as_str().unwrap_or_default().into()
}

/// The processes of ssh whose control sockets are in this lab.
fn masters(lab: &Lab) -> Vec<String> {
    let marker = format!("ControlPath={}/", lab.path("run").display());
    let is_master = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&marker)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| pid.parse::<u32>().is_ok()).filter(is_master).collect()
}

/// What is in the runtime directory beside the tunnel's own files.
fn homes(lab: &Lab) -> Vec<String> {
    lab.runtime_files().into_iter().filter(|name| name.starts_with("ssh-")).collect()
}

fn kill(pid: &str, signal: &str) {
    run(Command::new("kill").args([signal, pid]));
}

#[test]
fn docker_works_over_the_machines_ssh_and_nothing_is_left_of_it() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_profile(lab.remote_socket(), "carrier = \"openssh\"\n");
    lab.ok(&["up", "lab"]);
    let status = lab.status("lab");
    assert_eq!((&status["carrier"], &status["transport"]), (&"openssh".into(), &"streamlocal".into()), "{status}");
    let mut command = Command::new("/usr/bin/python3");
    lab.set_env(&mut command);
    let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/docker_py.py");
    command.args([suite, crate::lab::engine::IMAGE, "more"]);
    let output = run(command.env("DOCKER_HOST", format!("unix://{}", lab.socket("lab").display())));
    assert!(output.ends_with("all is well\n"), "{output}");
    // Both directions end by themselves, and the exit status arrives.
    let image = crate::lab::engine::IMAGE;
    let mut cat = lab.docker("lab", &["run", "-i", "--rm", image, "sh", "-c", "cat; exit 3"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(&[b'x'; 300_000]).unwrap();
    let output = cat.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 300_000));
    let by_ssh = |args: &[&str]| lab.ok(args).contains("by the machine's ssh: it is set");
    assert!(by_ssh(&["doctor", "lab"]) && !by_ssh(&["doctor", "lab", "--carrier", "native"]));
    assert_eq!((masters(&lab).len(), homes(&lab).len()), (1, 1));
    lab.ok(&["down", "lab"]);
    assert_eq!((masters(&lab).len(), homes(&lab).len()), (0, 0));
    wait_for("the server's sessions to end", || lab.sshd.sessions().is_empty().then_some(()));
}

#[test]
fn where_sockets_are_not_forwarded_a_command_carries_its_flows() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.reconfigure("AllowStreamLocalForwarding no");
    lab.write_profile(lab.remote_socket(), "carrier = \"openssh\"\n");
    lab.ok(&["up", "lab"]);
    assert!(lab.status("lab")["transport"].as_str().unwrap().starts_with("exec: "), "{}", lab.status("lab"));
    let image = crate::lab::engine::IMAGE;
    let output = lab.docker("lab", &["run", "--rm", image, "echo", "hello"]).output().unwrap();
    assert_eq!(output.stdout, b"hello\n", "{output:?}");
}

#[test]
fn a_cut_looks_cut_and_the_tunnel_comes_up_again() {
    let lab = echoes("carrier = \"openssh\"\nkeepalive = \"1s\"\n");
    lab.ok(&["up", "lab"]);
    let connected = || lab.log("lab").matches(" connected to ").count();
    // The master killed, the server's session killed, the server silent, the link cut.
    let cuts = if is_root() { 4 } else { 3 };
    for (cut, times) in (0..cuts).zip(2..) {
        let mut stream = echo(&lab);
        match cut {
            0 => kill(&masters(&lab)[0], "-9"),
            1 => lab.sshd.cut_sessions(),
            2 => lab.sshd.signal("-STOP"),
            _ => lab.host().cut(),
        }
        let error = stream.read(&mut [0]).expect_err("a cut is no end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{cut}");
        match cut {
            2 => lab.sshd.signal("-CONT"),
            3 => lab.host().restore(),
            _ => {}
        }
        wait_for("another connection", || (connected() >= times).then_some(()));
        drop(echo(&lab));
        wait_for("the one before to be gone", || (masters(&lab).len() == 1 && homes(&lab).len() == 1).then_some(()));
    }
    assert_eq!(lab.status("lab")["flows_failed"], cuts);
}

#[test]
fn a_master_ends_with_its_daemon_however_that_ends() {
    let lab = echoes("carrier = \"openssh\"\n");
    lab.ok(&["up", "lab"]);
    kill(&lab.status("lab")["pid"].to_string(), "-9");
    wait_for("the master to end", || masters(&lab).is_empty().then_some(()));
    wait_for("the server's sessions to end", || lab.sshd.sessions().is_empty().then_some(()));
    assert_eq!(homes(&lab).len(), 1, "nobody was left to remove it");
    lab.ok(&["up", "lab"]);
    assert_eq!(homes(&lab).len(), 1, "it was swept");
}

/// OpenSSH has flow control for each channel.
#[test]
fn a_client_that_does_not_read_stalls_nobody_else() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let lab = Lab::new("");
    remote::serve(&lab.path("remote/x.sock"), |mut stream| {
        let mut kind = [0];
        stream.read_exact(&mut kind).unwrap();
        if kind == *b"e" {
            return remote::echo(stream);
        }
        while stream.write_all(&[0; 1 << 16]).is_ok() {
            SENT.fetch_add(1 << 16, SeqCst);
        }
    });
    lab.write_profile(lab.path("remote/x.sock"), "carrier = \"openssh\"\nspill = 0\n");
    lab.ok(&["up", "lab"]);
    let mut loud = connect(&lab.socket("lab"));
    loud.write_all(b"xl").unwrap();
    // Until nothing moves any more.
    let mut before = 0;
    wait_for("the flow to be full", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = SENT.load(SeqCst);
        (now > 0 && std::mem::replace(&mut before, now) == now).then_some(())
    });
    for _ in 0..3 {
        let mut other = connect(&lab.socket("lab"));
        other.write_all(b"xey").unwrap();
        let mut answer = [0];
        other.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"y");
    }
    let status = lab.status("lab");
    assert_eq!(status["connections"].as_array().unwrap().len(), 1, "one connection is enough");
    assert_eq!(status["connections"][0]["spilled"], 0);
    // And it has lost nothing.
    let mut piece = vec![0; 1 << 16];
    let mut read = 0;
    while read < before {
        read += loud.read(&mut piece).unwrap();
    }
}

/// `up` typed by a person, with one answer.
fn person_answers(lab: &Lab, question: &str, answer: &str) -> String {
    let mut person = Person::types(lab, &format!("{} up lab", env!("CARGO_BIN_EXE_dtunnel")));
    person.sees(question);
    person.presses(&format!("{answer}\n"));
    let (status, screen) = person.leaves();
    assert!(status.success() && !screen.contains(answer), "{screen}");
    screen
}

#[test]
fn ssh_asks_its_questions_through_ours() {
    let lab = echoes("carrier = \"openssh\"\n");
    lab.keygen("user", "ed25519", "a-passphrase");
    lab.authorize("user");
    person_answers(&lab, "Enter passphrase for key", "a-passphrase");
    lab.ok(&["down", "lab"]);
    // With nobody there, what was asked is named.
    let said = lab.fails(4, &["up", "lab"]);
    assert!(said.contains("Enter passphrase for key") && said.contains("in a terminal"), "{said}");
    let log = lab.log("lab");
    assert!(!log.contains("a-passphrase"), "{log}");
}

#[test]
fn what_ssh_says_of_a_failure_is_told_with_our_exit_codes() {
    let mut lab = echoes("carrier = \"openssh\"\n");
    for policy in ["yes", "ask"] {
        lab.write_ssh_config(&format!("  StrictHostKeyChecking {policy}"));
        let said = lab.fails(5, &["up", "lab"]);
        assert!(said.contains("Host key verification failed"), "{policy}: {said}");
    }
    lab.write_ssh_config("");
    lab.keygen("other", "ed25519", "");
    std::fs::rename(lab.path("other"), lab.path("user")).unwrap();
    std::fs::rename(lab.path("other.pub"), lab.path("user.pub")).unwrap();
    let said = lab.fails(4, &["up", "lab"]);
    assert!(said.contains("Permission denied"), "{said}");
    lab.sshd.stop();
    let said = lab.fails(6, &["up", "lab", "--timeout", "5s"]);
    assert!(said.contains("Connection refused"), "{said}");
    assert_eq!((masters(&lab).len(), homes(&lab).len()), (0, 0));
}

#[test]
fn a_connection_of_ssh_that_is_there_is_used_without_another_login() {
    let Some(mut lab) = Lab::far() else { return };
    remote::serve(&lab.path("remote/x.sock"), remote::echo);
    lab.write_profile(lab.path("remote/x.sock"), "");
    lab.set_password("secret");
    lab.reconfigure(
        "KbdInteractiveAuthentication yes\nUsePAM yes\nPermitRootLogin yes\nAuthenticationMethods keyboard-interactive",
    );
    lab.write_ssh_config(&format!("  ControlPath {}/%n-%p", lab.path("home").display()));
    let ssh = format!("ssh -F {} -M -N lab", lab.path("ssh_config").display());
    let mut master = Person::types(&lab, &ssh);
    master.sees("Password: ");
    master.presses("secret\n");
    let path = lab.path("home").join(format!("lab-{}", lab.sshd.port));
    wait_for("the master", || path.exists().then_some(()));
    lab.ok(&["up", "lab"]);
    let status = lab.status("lab");
    assert_eq!(status["carrier"], "shared", "{status}");
    assert!(status["carrier_reason"].as_str().unwrap().contains("ControlPath"), "{status}");
    let mut stream = echo(&lab);
    let sessions = lab.sshd.sessions().len();
    assert_eq!(sessions, 1);
    // It is people's: it outlives the tunnel.
    lab.ok(&["down", "lab"]);
    assert!(stream.read(&mut [0]).is_err());
    assert_eq!(homes(&lab).len(), 0);
    lab.ok(&["up", "lab"]);
    let mut stream = echo(&lab);
    // When it goes, its flows are cut, and the tunnel needs a person, as its own login does.
    run(Command::new("ssh").arg("-F").arg(lab.path("ssh_config")).args(["-O", "exit", "lab"]));
    master.leaves();
    assert_eq!(stream.read(&mut [0]).expect_err("cut").kind(), ErrorKind::ConnectionReset);
    let failed = wait_for("the failure", || Some(lab.status("lab")).filter(|status| status["state"] == "failed"));
    assert!(failed["last_error"].as_str().unwrap().contains("needs you"), "{failed}");
    // `native` leaves it alone.
    lab.ok(&["down", "lab"]);
    let said = lab.fails(4, &["up", "lab", "--carrier", "native"]);
    assert!(said.contains("there is no terminal"), "{said}");
}

#[test]
fn a_command_that_knows_hosts_is_run_by_ssh() {
    let lab = echoes("");
    let host = std::fs::read_to_string(lab.path("host.pub")).unwrap();
    std::fs::write(lab.path("known"), format!("{} {host}", lab.sshd.name())).unwrap();
    let more = |file: &str| {
        format!(
            "  KnownHostsCommand /bin/cat {}\n  UserKnownHostsFile none\n  StrictHostKeyChecking yes\n",
            lab.path(file).display()
        )
    };
    lab.write_ssh_config(&more("known"));
    lab.fails(5, &["up", "lab", "--carrier", "native"]);
    lab.ok(&["up", "lab"]);
    let status = lab.status("lab");
    assert_eq!(status["carrier"], "openssh");
    assert!(status["carrier_reason"].as_str().unwrap().contains("knownhostscommand"), "{status}");
    drop(echo(&lab));
    lab.ok(&["down", "lab"]);
    std::fs::write(lab.path("nothing"), "").unwrap();
    lab.write_ssh_config(&more("nothing"));
    lab.fails(5, &["up", "lab"]);
}

/// A realm of Kerberos on this machine, with a ticket for root and a key for the host.
fn realm(lab: &Lab) -> Keeper {
    let port = crate::lab::sshd::free_port();
    let at = |name: &str| lab.path(name).display().to_string();
    std::fs::write(
        lab.path("krb5.conf"),
        format!(
            "[libdefaults]\ndefault_realm = LAB.TEST\ndns_lookup_kdc = false\ndns_canonicalize_hostname = false\nrdns = false\n\
             udp_preference_limit = 1\n[realms]\nLAB.TEST = {{\n kdc = 127.0.0.1:{port}\n}}\n"
        ),
    )
    .unwrap();
    std::fs::write(
        lab.path("kdc.conf"),
        format!(
            "[kdcdefaults]\nkdc_listen = 127.0.0.1:{port}\nkdc_tcp_listen = 127.0.0.1:{port}\n[realms]\nLAB.TEST = {{\n \
             database_name = {}\n key_stash_file = {}\n acl_file = {}\n}}\n[logging]\nkdc = FILE:{}\n",
            at("principals"),
            at("stash"),
            at("acl"),
            at("kdc.log")
        ),
    )
    .unwrap();
    let of_realm = |program: &str| {
        let mut command = Command::new(program);
        command.env("KRB5_CONFIG", at("krb5.conf")).env("KRB5_KDC_PROFILE", at("kdc.conf"));
        command.env("KRB5CCNAME", format!("FILE:{}", at("ticket")));
        command
    };
    run(of_realm("/usr/sbin/kdb5_util").args(["create", "-s", "-P", "master", "-r", "LAB.TEST"]));
    let host = format!("host/{}", lab.sshd.address);
    for query in [
        "addprinc -pw secret root".into(),
        format!("addprinc -randkey {host}"),
        format!("ktadd -k {} {host}", at("keytab")),
    ] {
        run(of_realm("/usr/sbin/kadmin.local").args(["-q", &query]));
    }
    let variables = [format!("KRB5_CONFIG={}", at("krb5.conf")), format!("KRB5_KDC_PROFILE={}", at("kdc.conf"))];
    let kdc = Keeper::start(&["env", &variables[0], &variables[1], "/usr/sbin/krb5kdc", "-n"], "");
    wait_for("the ticket", || {
        let mut kinit =
            of_realm("/usr/bin/kinit").arg("root").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        kinit.stdin.take().unwrap().write_all(b"secret\n").unwrap();
        kinit.wait().unwrap().success().then_some(())
    });
    kdc
}

/// Gives the host an /etc of its own, to which a shell script may add.
fn etc(lab: &Lab, script: &str) {
    let etc = lab.path("etc");
    lab.host().run(&format!("mkdir -p {0}; cp -a /etc/. {0}; {script}; mount --bind {0} /etc", etc.display()));
}

#[test]
fn a_ticket_of_kerberos_logs_in() {
    let Some(mut lab) = Lab::far() else { return };
    remote::serve(&lab.path("remote/x.sock"), remote::echo);
    lab.write_profile(lab.path("remote/x.sock"), "");
    let _kdc = realm(&lab);
    let dir = lab.dir.path().display().to_string();
    etc(&lab, &format!("cp {dir}/keytab {dir}/etc/krb5.keytab; cp {dir}/krb5.conf {dir}/etc/krb5.conf"));
    lab.reconfigure("GSSAPIAuthentication yes\nGSSAPIStrictAcceptorCheck no\nAuthenticationMethods gssapi-with-mic");
    lab.write_ssh_config("  GSSAPIAuthentication yes");
    let up = |more: &[&str]| {
        let mut command = lab.dtunnel([&["up", "lab"], more].concat());
        command.env("KRB5_CONFIG", lab.path("krb5.conf"));
        command.env("KRB5CCNAME", format!("FILE:{dir}/ticket")).output().unwrap()
    };
    let native = up(&["--carrier", "native"]);
    assert_eq!(native.status.code(), Some(4), "{}", String::from_utf8_lossy(&native.stderr));
    assert!(String::from_utf8_lossy(&native.stderr).contains("GSSAPIAuthentication"));
    let auto = up(&[]);
    assert!(auto.status.success(), "{}", String::from_utf8_lossy(&auto.stderr));
    let status = lab.status("lab");
    assert_eq!(status["carrier"], "openssh");
    assert!(status["carrier_reason"].as_str().unwrap().contains("GSSAPIAuthentication"), "{status}");
    drop(echo(&lab));
    // What was of use is tried first next time, and dtunnel's own login not again.
    let tries = || lab.log("lab").matches("could not log in").count();
    let before = tries();
    lab.ok(&["down", "lab"]);
    assert!(up(&[]).status.success());
    assert_eq!(tries(), before);
}

#[test]
fn a_host_that_trusts_this_machine_lets_in() {
    let Some(mut lab) = Lab::far() else { return };
    remote::serve(&lab.path("remote/x.sock"), remote::echo);
    lab.write_profile(lab.path("remote/x.sock"), "");
    lab.keygen("machine", "ed25519", "");
    let dir = lab.dir.path().display().to_string();
    let machine = std::fs::read_to_string(lab.path("machine.pub")).unwrap();
    let key = machine.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let name = run(&mut Command::new("hostname"));
    let name = name.trim();
    // The host knows this machine, and root there trusts it.
    etc(&lab, &format!("echo '{name},{name}. {key}' > {dir}/etc/ssh/ssh_known_hosts"));
    lab.host().run(&format!(
        "mkdir -p /run/root; printf '%s root\\n' {name} {name}. > /run/root/.shosts; chmod 600 /run/root/.shosts"
    ));
    lab.reconfigure("HostbasedAuthentication yes\nHostbasedUsesNameFromPacketOnly yes\nIgnoreRhosts no\nAuthenticationMethods hostbased");
    lab.write_ssh_config("  HostbasedAuthentication yes\n  EnableSSHKeysign yes");
    // ssh-keysign signs with this machine's key: one of its own /etc for this tunnel.
    let script = format!(
        "mkdir {dir}/own; cp -a /etc/. {dir}/own; cp {dir}/machine {dir}/own/ssh/ssh_host_ed25519_key; \
         cp {dir}/machine.pub {dir}/own/ssh/ssh_host_ed25519_key.pub; rm -f {dir}/own/ssh/ssh_host_[re][sc]*; \
         echo 'EnableSSHKeysign yes' > {dir}/own/ssh/ssh_config; mount --bind {dir}/own /etc; exec \"$@\""
    );
    let up = |carrier: &str| {
        let mut command = Command::new("unshare");
        lab.set_env(&mut command);
        let program = env!("CARGO_BIN_EXE_dtunnel");
        command.args([
            "-m",
            "sh",
            "-ec",
            &script.replace("mkdir", "mkdir -p"),
            "sh",
            program,
            "up",
            "lab",
            "--carrier",
            carrier,
        ]);
        command.output().unwrap()
    };
    assert_eq!(up("native").status.code(), Some(4));
    let auto = up("auto");
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    assert!(auto.status.success(), "{}\n{log}", String::from_utf8_lossy(&auto.stderr));
    assert_eq!(carrier(&lab), "openssh");
    drop(echo(&lab));
}

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

#[test]
fn a_key_on_a_token_logs_in_after_its_pin() {
    if !is_root() || !Path::new(SOFTHSM).exists() {
        return skip("a token takes softhsm2");
    }
    let lab = echoes("");
    std::fs::create_dir(lab.path("tokens")).unwrap();
    let conf = lab.path("home/.config/softhsm2");
    std::fs::create_dir_all(&conf).unwrap();
    std::fs::write(conf.join("softhsm2.conf"), format!("directories.tokendir = {}\n", lab.path("tokens").display()))
        .unwrap();
    let of_token = |program: &str| {
        let mut command = Command::new(program);
        lab.set_env(&mut command);
        command
    };
    run(of_token("softhsm2-util").args([
        "--init-token",
        "--free",
        "--label",
        "lab",
        "--so-pin",
        "87654321",
        "--pin",
        "1234-5678",
    ]));
    run(of_token("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
        .arg(lab.path("rsa.pem")));
    run(of_token("softhsm2-util")
        .args(["--token", "lab", "--pin", "1234-5678", "--label", "key", "--id", "01", "--import"])
        .arg(lab.path("rsa.pem")));
    let public = run(of_token("ssh-keygen").args(["-D", SOFTHSM]));
    std::fs::write(lab.path("authorized_keys"), public).unwrap();
    lab.write_ssh_config(&format!("  PKCS11Provider {SOFTHSM}\n  IdentitiesOnly no"));
    assert!(lab.fails(4, &["up", "lab", "--carrier", "native"]).contains("PKCS11Provider"));
    person_answers(&lab, "Enter PIN for", "1234-5678");
    assert_eq!(carrier(&lab), "openssh");
    drop(echo(&lab));
}

#[test]
fn ctrl_c_while_ssh_logs_in_leaves_nothing_behind() {
    // A server that accepts and says nothing keeps `up` waiting.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::new("");
    for signal in ["-INT", "-KILL"] {
        let target = format!("u@127.0.0.1:{}", silent.local_addr().unwrap().port());
        let mut up = lab.dtunnel(["up", &target, "--carrier", "openssh"]).spawn().unwrap();
        let (_connection, _) = silent.accept().unwrap();
        assert_eq!((masters(&lab).len(), homes(&lab).len()), (1, 1));
        kill(&up.id().to_string(), signal);
        up.wait().unwrap();
        wait_for("the daemon to notice", || lab.runtime_files().is_empty().then_some(()));
        wait_for("ssh to end", || masters(&lab).is_empty().then_some(()));
    }
}

/// The processes that have this word in their command lines.
fn running(word: &str) -> usize {
    let lines = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[test]
fn what_ssh_has_started_on_its_way_ends_with_it() {
    let lab = Lab::new("");
    // A number that nobody else sleeps for.
    let seconds = format!("86{:05}", std::process::id() % 100_000);
    lab.write_ssh_config(&format!("  ProxyCommand sh -c 'sleep {seconds}; true'\n"));
    let word = format!("sleep {seconds}");
    lab.fails(6, &["up", "lab", "--carrier", "openssh", "--timeout", "1s"]);
    wait_for("it to end", || (running(&word) == 0).then_some(()));
    let mut up = lab.dtunnel(["up", "lab", "--carrier", "openssh"]).spawn().unwrap();
    wait_for("it to run", || (running(&word) > 0).then_some(()));
    kill(&up.id().to_string(), "-INT");
    up.wait().unwrap();
    wait_for("it to end", || (running(&word) == 0).then_some(()));
}

#[test]
fn an_ssh_that_is_to_go_into_the_background_stays() {
    let lab = echoes("carrier = \"openssh\"\n");
    lab.write_ssh_config("  ForkAfterAuthentication yes\n  SessionType none");
    lab.ok(&["up", "lab"]);
    drop(echo(&lab));
    lab.ok(&["down", "lab"]);
    assert!(masters(&lab).is_empty());
}

/// Whose processes keep their memory private: what others of the same user may do with them is less than what root may.
#[test]
fn whoever_is_not_root_has_ssh_log_in_and_ask_too() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    const NOBODY: &str = "65534";
    let lab = Lab::new("");
    let socket = lab.path("remote/x.sock");
    remote::serve(&socket, remote::echo);
    let other = lab.another_user(NOBODY);
    let up = || {
        let arguments = ["up", "root@lab", "--carrier", "openssh", "--remote", socket.to_str().unwrap()];
        other.dtunnel(&arguments).output().unwrap()
    };
    let output = up();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(other.dtunnel(&["down", "root@lab"]).output().unwrap().status.success());
    // Its question arrives.
    run(Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "a-passphrase", "-P", "", "-f"])
        .arg(other.home.join("user")));
    let output = up();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(4) && said.contains("Enter passphrase for key"), "{said}");
}

/// A lab whose connections of ssh are shared; its flows lead to a server that echoes.
fn shares(more: &str) -> Option<Lab> {
    let lab = Lab::far()?;
    remote::serve(&lab.path("remote/x.sock"), remote::echo);
    lab.write_profile(lab.path("remote/x.sock"), more);
    lab.write_ssh_config(&format!("  ControlPath {}/%n", lab.path("home").display()));
    Some(lab)
}

/// A connection of ssh that is shared, and a tunnel that uses it.
fn master(lab: &Lab, words: &[&str]) -> Child {
    let mut command = Command::new("ssh");
    lab.set_env(&mut command);
    let master =
        command.arg("-F").arg(lab.path("ssh_config")).arg("-M").args(words).stdin(Stdio::piped()).spawn().unwrap();
    wait_for("the master", || lab.path("home").join("lab").exists().then_some(()));
    lab.ok(&["up", "lab"]);
    assert_eq!(carrier(lab), "shared");
    master
}

#[test]
fn a_connection_of_ssh_that_is_not_shared_any_more_is_left() {
    let Some(lab) = shares("") else { return };
    let ssh = |words: &[&str]| {
        let mut command = Command::new("ssh");
        lab.set_env(&mut command);
        run(command.arg("-F").arg(lab.path("ssh_config")).args(words));
    };
    ssh(&["-M", "-N", "-f", "lab"]);
    lab.ok(&["up", "lab"]);
    assert_eq!(carrier(&lab), "shared");
    let mut stream = echo(&lab);
    ssh(&["-O", "stop", "lab"]);
    // What is under way goes on, to its end.
    stream.write_all(b"z").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    // The next one finds out.
    wait_for("its own login", || {
        let _ = connect(&lab.socket("lab")).write_all(b"x");
        (carrier(&lab) == "native").then_some(())
    });
    drop(echo(&lab));
}

#[test]
fn a_connection_of_ssh_that_is_frozen_does_not_hold_down_up() {
    let Some(lab) = shares("") else { return };
    let mut master = master(&lab, &["-N", "lab"]);
    kill(&master.id().to_string(), "-STOP");
    lab.ok(&["down", "lab"]);
    assert_eq!(lab.runtime_files(), [""; 0]);
    // And the next tunnel does without it.
    lab.ok(&["up", "lab"]);
    assert_eq!(carrier(&lab), "native");
    master.kill().unwrap();
    master.wait().unwrap();
}

#[test]
fn a_shell_whose_connection_is_shared_ends_when_nothing_is_under_way() {
    let Some(lab) = shares("") else { return };
    let mut shell = master(&lab, &["lab", "cat"]);
    drop(echo(&lab));
    wait_for("the flow to end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
    drop(shell.stdin.take());
    wait_for("the shell to end", || shell.try_wait().unwrap());
    // Its own login follows.
    wait_for("a flow", || {
        let mut stream = connect(&lab.socket("lab"));
        (stream.write_all(b"xy").is_ok() && stream.read_exact(&mut [0]).is_ok()).then_some(())
    });
    assert_eq!(carrier(&lab), "native");
}

#[test]
fn a_long_runtime_directory_is_no_hindrance() {
    let lab = echoes("carrier = \"openssh\"\n");
    let long = lab.path(&"r".repeat(72 - lab.dir.path().as_os_str().len()));
    std::fs::create_dir(&long).unwrap();
    crate::lab::set_mode(&long, 0o700);
    let dtunnel = |args: &[&str]| {
        let output = lab.dtunnel(args).env("XDG_RUNTIME_DIR", &long).env("TMPDIR", lab.path("home")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    dtunnel(&["up", "lab"]);
    let elsewhere = || {
        let entries = std::fs::read_dir(lab.path("home")).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("dtunnel-ssh-")).count()
    };
    assert_eq!(elsewhere(), 1);
    dtunnel(&["down", "lab"]);
    assert_eq!(elsewhere(), 0);
}

/// Its link is gone, and nobody has told it: as after sleep, in another network.
#[test]
fn a_connection_of_ssh_whose_link_is_dead_is_given_up_and_not_taken_again() {
    let Some(lab) = shares("keepalive = \"1s\"\nkeepalive_count = 1\n") else { return };
    let mut master = master(&lab, &["-N", "lab"]);
    let mut stream = echo(&lab);
    // The server's side of that connection only.
    lab.sshd.signal_sessions("-STOP");
    let error = stream.read(&mut [0]).expect_err("a cut is no end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    wait_for("its own login", || (carrier(&lab) == "native" && lab.state() == "up").then_some(()));
    drop(echo(&lab));
    lab.ok(&["down", "lab"]);
    // And a new tunnel finds it as dead.
    lab.ok(&["up", "lab"]);
    assert_eq!(carrier(&lab), "native");
    master.kill().unwrap();
    master.wait().unwrap();
}
