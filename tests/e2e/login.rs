//! Logging in and trusting hosts: keys, agent, passphrases, host keys.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::lab::pty::Person;
use crate::lab::{Lab, run, set_mode, wait_for};

fn up() -> String {
    format!("{} up lab", env!("CARGO_BIN_EXE_dtunnel"))
}

#[test]
fn keys_of_every_kind_log_in() {
    let Some(lab) = Lab::with_engine() else { return };
    let kinds: [&[&str]; 8] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa"],
        // PKCS#1, SEC1 and PKCS#8 in PEM.
        &["-t", "rsa", "-m", "PEM"],
        &["-t", "ecdsa", "-m", "PKCS8"],
        &["-t", "rsa", "-m", "PKCS8"],
    ];
    for kind in kinds {
        lab.keygen_with("user", "", kind);
        lab.authorize("user");
        lab.up_and_down();
    }
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    assert!(!log.contains("ssh-rsa"), "RSA signs with SHA-2: {log}");
}

#[test]
fn a_key_of_the_agent_logs_in() {
    let Some(lab) = Lab::with_engine() else { return };
    let (_agent, socket) = (lab.agent(), lab.path("agent"));
    lab.keygen("agents", "ed25519", "");
    lab.authorize("agents");
    lab.agent_add("agents");
    std::fs::remove_file(lab.path("agents")).unwrap();
    // The config names a key that is not accepted; the agent's is offered only without IdentitiesOnly.
    let up = |args: &[&str]| lab.dtunnel(args).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert_eq!(up(&["up", "lab"]).status.code(), Some(4), "IdentitiesOnly yes");
    lab.write_ssh_config("  IdentitiesOnly no\n");
    assert!(up(&["up", "lab"]).status.success());
}

#[test]
fn a_security_key_of_the_agent_logs_in() {
    let Some(lab) = Lab::with_engine() else { return };
    for kind in ["ed25519", "ecdsa"] {
        lab.keygen("inside", kind, "");
        let _ = std::fs::remove_file(lab.path("agent"));
        let line = crate::lab::security_key::agent(&lab.path("agent"), &lab.path("inside"));
        std::fs::write(lab.path("authorized_keys"), &line).unwrap();
        // Named by its public half, as ssh-keygen leaves it beside the handle; then not named at all.
        std::fs::write(lab.path("user.pub"), &line).unwrap();
        let _ = std::fs::remove_file(lab.path("user"));
        for identities_only in ["yes", "no"] {
            lab.write_ssh_config(&format!("  IdentitiesOnly {identities_only}\n"));
            let output = lab.dtunnel(["up", "lab"]).env("SSH_AUTH_SOCK", lab.path("agent")).output().unwrap();
            crate::lab::succeeded(&output);
            lab.ok(&["down", "lab"]);
            std::fs::remove_file(lab.path("user.pub"))
                .or_else(|e| if identities_only == "no" { Ok(()) } else { Err(e) })
                .unwrap();
        }
    }
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    assert!(log.contains("ED25519-SK") && log.contains("ECDSA-SK"), "{log}");
}

#[test]
fn a_passphrase_is_asked_on_the_terminal_and_is_nowhere_else() {
    let Some(lab) = Lab::with_engine() else { return };
    let secret = "correct horse battery";
    lab.keygen("user", "ed25519", secret);
    lab.authorize("user");
    let mut person = Person::types(&lab, &up());
    person.sees("Enter passphrase for key");
    person.presses("wrong\n");
    person.sees("please try again");
    person.presses(&format!("x\u{7f}{secret}\n"));
    let (status, screen) = person.leaves();
    assert!(status.success() && screen.contains("lab is up"), "{screen}");
    assert!(!screen.contains(secret), "not shown while typed: {screen}");
    let pid = lab.status("lab")["pid"].to_string();
    for place in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{place}")).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(secret), "in {place}");
    }
    assert!(!lab.log("lab").contains(secret), "in the log");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().rev().take(3).collect::<Vec<_>>(), ["bytes", "0", "0"], "no core dumps");
    // Unlocked once, the daemon can log in again by itself.
    lab.sshd.cut_sessions();
    run(&mut lab.docker("lab", &["ps"]));
}

#[test]
fn ctrl_c_at_a_hidden_prompt_ends_up_and_leaves_the_terminal_as_it_was() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.keygen("user", "ed25519", "secret");
    lab.authorize("user");
    let mut person = Person::types(&lab, &format!("cd $HOME; stty > before; {}; echo rc=$?; stty > after", up()));
    person.sees("Enter passphrase for key");
    person.presses("\u{3}");
    let (_, screen) = person.leaves();
    assert!(screen.contains("rc=130"), "{screen}");
    wait_for("the daemon's end", || lab.runtime_files().is_empty().then_some(()));
    let stty = |name: &str| std::fs::read_to_string(lab.path("home").join(name)).unwrap();
    assert_eq!(stty("before"), stty("after"));
}

#[test]
fn without_a_terminal_a_passphrase_is_no_endless_wait() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.keygen("user", "ed25519", "secret");
    lab.authorize("user");
    let mut command = Command::new("setsid");
    lab.set_env(&mut command);
    let output = command.args(["--wait", env!("CARGO_BIN_EXE_dtunnel"), "up", "lab"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("the passphrase of") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn an_unknown_host_key_is_asked_about_and_remembered() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_ssh_config("  StrictHostKeyChecking ask\n  HashKnownHosts yes\n");
    let fingerprint = run(Command::new("ssh-keygen").arg("-lf").arg(lab.path("host.pub")));
    let fingerprint = fingerprint.split(' ').nth(1).unwrap().to_owned();
    let mut person = Person::types(&lab, &up());
    person.sees(&fingerprint);
    person.presses("no\n");
    let (status, screen) = person.leaves();
    assert_eq!(status.code(), Some(5), "{screen}");
    assert!(screen.contains("it was not accepted") && !screen.contains("in a terminal to be asked"), "{screen}");
    assert!(!lab.path("known_hosts").exists());
    let mut person = Person::types(&lab, &up());
    person.sees("(yes/no/[fingerprint])?");
    person.presses(&format!("{fingerprint}\n"));
    let (status, screen) = person.leaves();
    assert!(status.success(), "{screen}");
    let known = std::fs::read_to_string(lab.path("known_hosts")).unwrap();
    assert!(known.starts_with("|1|") && known.contains("ssh-ed25519"), "{known}");
    // ssh itself finds it.
    let name = lab.sshd.name();
    run(Command::new("ssh-keygen").args(["-F", &name, "-f"]).arg(lab.path("known_hosts")));
    // Known now: nobody is asked.
    lab.ok(&["down", "lab"]);
    lab.ok(&["up", "lab"]);
}

/// The daemon's question comes before its starter, on a busy machine, has said that it has a terminal.
#[test]
fn a_question_waits_for_the_starter_to_say_that_it_can_answer() {
    for interactive in [true, false] {
        let lab = Lab::new("LogLevel DEBUG1\n");
        lab.write_ssh_config("  StrictHostKeyChecking ask\n");
        let (mut starter, end) = UnixStream::pair().unwrap();
        let mut daemon = lab.dtunnel(["daemon", "--timeout", "90s", "--", "lab"]);
        let mut daemon = daemon.stdin(OwnedFd::from(end)).stderr(Stdio::null()).spawn().unwrap();
        let sshd_log = || std::fs::read_to_string(lab.path("sshd.log")).unwrap_or_default();
        wait_for("the host key to be shown", || sshd_log().contains("expecting SSH2_MSG_NEWKEYS").then_some(()));
        // The daemon is at work meanwhile, and comes to its question.
        (0..30).for_each(|_| drop(lab.status("lab")));
        writeln!(starter, r#"{{"op":"watch","interactive":{interactive},"limit_ms":null}}"#).unwrap();
        let mut events = BufReader::new(starter.try_clone().unwrap()).lines().map(Result::unwrap);
        let told = events.find(|line| line.contains(r#""prompt""#) || line.contains(r#""failed""#)).unwrap();
        assert_eq!(told.contains("key_type"), interactive, "{told}");
        drop((starter, events));
        let ended = wait_for("the daemon's end", || daemon.try_wait().unwrap());
        assert_eq!(ended.code(), Some(if interactive { 0 } else { 5 }), "{told}");
    }
}

#[test]
fn an_unknown_host_key_without_a_terminal_is_refused() {
    let lab = Lab::new("");
    lab.write_ssh_config("  StrictHostKeyChecking ask\n");
    let mut command = Command::new("setsid");
    lab.set_env(&mut command);
    let output = command.args(["--wait", env!("CARGO_BIN_EXE_dtunnel"), "up", "lab"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn a_changed_or_revoked_host_key_is_refused_and_nothing_is_sent() {
    let lab = Lab::new("");
    lab.keygen("other", "ed25519", "");
    let key = |name: &str| std::fs::read_to_string(lab.path(name)).unwrap();
    let name = lab.sshd.name();
    std::fs::write(lab.path("known_hosts"), format!("# old\n{name} {}", key("other.pub"))).unwrap();
    let stderr = lab.fails(5, &["up", "lab"]);
    assert!(stderr.contains("CHANGED") && stderr.contains("known_hosts:2"), "{stderr}");
    assert!(stderr.contains("ssh-keygen -f"), "how to mend it: {stderr}");
    std::fs::write(lab.path("known_hosts"), format!("{name} {}\n@revoked * {}", key("host.pub"), key("host.pub")))
        .unwrap();
    assert!(lab.fails(5, &["up", "lab"]).contains("marked as revoked"));
    let log = std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    assert!(!log.contains("Failed") && !log.contains("Accepted"), "no login was tried: {log}");
}

#[test]
fn a_key_that_is_not_accepted_or_that_others_may_read_ends_with_4() {
    let lab = Lab::new("");
    lab.keygen("other", "ed25519", "");
    lab.authorize("other");
    let stderr = lab.fails(4, &["up", "lab"]);
    assert!(stderr.contains("/user") && stderr.contains("the server accepts publickey"), "{stderr}");
    lab.authorize("user");
    set_mode(&lab.path("user"), 0o644);
    lab.fails(4, &["up", "lab"]);
    assert!(lab.log("lab").contains("others may read it (mode 0644)"), "{}", lab.log("lab"));
}

#[test]
fn a_chain_of_jumps_and_a_proxy_command_lead_to_the_host() {
    let Some(lab) = Lab::with_engine() else { return };
    let (ssh_config, socket) = (lab.path("ssh_config"), lab.remote_socket());
    lab.write_config(&format!(
        "ssh_config = {ssh_config:?}\n[defaults]\nremote = {socket:?}\n\
         [profiles.far]\nhost = \"lab\"\njump = [\"lab2\", \"lab3\"]\n[profiles.lost]\nhost = \"lab\"\njump = \"lab2\"\nport = 1\n"
    ));
    lab.ok(&["up", "far"]);
    run(&mut lab.docker("far", &["ps"]));
    assert_eq!(lab.sshd.sessions().len(), 3, "each hop is a session of its own");
    lab.ok(&["down", "far"]);
    wait_for("all hops to end", || lab.sshd.sessions().is_empty().then_some(()));
    let stderr = lab.fails(6, &["up", "lost"]);
    assert!(stderr.contains(&format!("the jump host {0} cannot reach {0} port 1", lab.sshd.address)), "{stderr}");
    lab.write_ssh_config("  ProxyCommand nc %h %p\n");
    lab.ok(&["up", "lab"]);
    run(&mut lab.docker("lab", &["ps"]));
    lab.ok(&["down", "lab"]);
    // A hop with its own settings, and its own way.
    wait_for("the session to end", || lab.sshd.sessions().is_empty().then_some(()));
    lab.write_ssh_config("  ServerAliveInterval 7\nHost lab\n  ProxyJump lab2\nHost lab2\n  ProxyJump lab3\nHost *\n");
    lab.ok(&["up", "lab"]);
    run(&mut lab.docker("lab", &["ps"]));
    assert_eq!(lab.sshd.sessions().len(), 3, "the nearest hop is reached through its own");
    lab.ok(&["down", "lab"]);
    // ssh_config in circles.
    lab.write_ssh_config("  ServerAliveInterval 7\nHost lab lab2\n  ProxyJump lab2\nHost *\n");
    lab.ok(&["up", "lab"]);
}

#[test]
fn keys_of_every_form_can_have_a_passphrase() {
    let Some(lab) = Lab::with_engine() else { return };
    for form in ["RFC4716", "PKCS8", "PEM"] {
        lab.keygen_with("user", "secret", &["-t", "rsa", "-m", form]);
        lab.authorize("user");
        let mut person = Person::types(&lab, &up());
        person.sees("Enter passphrase for key");
        person.presses("secret\n");
        let (status, screen) = person.leaves();
        assert!(status.success(), "{form}: {screen}");
        lab.ok(&["down", "lab"]);
    }
}

#[test]
fn three_wrong_passphrases_end_with_4() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.keygen("user", "ed25519", "secret");
    lab.authorize("user");
    let mut person = Person::types(&lab, &up());
    for times in 1..=3 {
        wait_for("the next question", || (person.screen().matches("Enter passphrase").count() == times).then_some(()));
        person.presses("wrong\n");
    }
    let (status, screen) = person.leaves();
    assert_eq!(status.code(), Some(4), "{screen}");
}

#[test]
fn a_user_certificate_logs_in_from_a_file_and_from_the_agent() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.keygen("ca", "ed25519", "");
    lab.reconfigure("TrustedUserCAKeys {dir}/ca.pub");
    std::fs::write(lab.path("authorized_keys"), "").unwrap();
    lab.fails(4, &["up", "lab"]);
    let me = crate::lab::whoami();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        lab.keygen("user", kind, "");
        lab.certify("ca", "user", &["-n", &me]);
        lab.up_and_down();
    }
    // CertificateFile, anywhere.
    std::fs::rename(lab.path("user-cert.pub"), lab.path("elsewhere")).unwrap();
    lab.fails(4, &["up", "lab"]);
    lab.write_ssh_config(&format!("  CertificateFile {}\n", lab.path("elsewhere").display()));
    lab.up_and_down();
    // The agent has the key, the file the certificate; then the agent has both and there is no file.
    let _agent = lab.agent();
    let up = || lab.dtunnel(["up", "lab"]).env("SSH_AUTH_SOCK", lab.path("agent")).output().unwrap();
    lab.agent_add("user");
    std::fs::rename(lab.path("user"), lab.path("hidden")).unwrap();
    assert!(up().status.success());
    lab.ok(&["down", "lab"]);
    std::fs::rename(lab.path("hidden"), lab.path("user")).unwrap();
    std::fs::rename(lab.path("elsewhere"), lab.path("user-cert.pub")).unwrap();
    lab.agent_add("user");
    for file in ["user", "user.pub", "user-cert.pub"] {
        std::fs::remove_file(lab.path(file)).unwrap();
    }
    lab.write_ssh_config("  IdentitiesOnly no\n");
    assert!(up().status.success());
    lab.ok(&["down", "lab"]);
}

#[test]
fn a_user_certificate_that_has_expired_ends_with_4() {
    let mut lab = Lab::new("");
    lab.keygen("ca", "ed25519", "");
    lab.reconfigure("TrustedUserCAKeys {dir}/ca.pub");
    std::fs::write(lab.path("authorized_keys"), "").unwrap();
    lab.certify("ca", "user", &["-n", &crate::lab::whoami(), "-V", "20200101:20200102"]);
    assert!(lab.fails(4, &["up", "lab"]).contains("with certificate `the-id`"));
}

#[test]
fn a_full_agent_does_not_trip_maxauthtries_where_the_key_is_named() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.reconfigure("MaxAuthTries 2");
    let _agent = lab.agent();
    for i in 0..10 {
        lab.keygen(&format!("k{i}"), "ed25519", "");
        lab.agent_add(&format!("k{i}"));
    }
    let up = || lab.dtunnel(["up", "lab"]).env("SSH_AUTH_SOCK", lab.path("agent")).output().unwrap();
    assert!(up().status.success(), "IdentitiesOnly yes");
    lab.ok(&["down", "lab"]);
    lab.agent_add("user");
    lab.write_ssh_config("  IdentitiesOnly no\n");
    assert!(up().status.success(), "the named key of the agent goes first");
    lab.ok(&["down", "lab"]);
    let text = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    let text: Vec<&str> = text.lines().filter(|line| !line.contains("IdentityFile")).collect();
    std::fs::write(lab.path("ssh_config"), text.join("\n") + "\n  IdentityFile none\n").unwrap();
    let output = up();
    assert_eq!(output.status.code(), Some(4));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("closed the connection during login") && stderr.contains("IdentitiesOnly"), "{stderr}");
}

#[test]
fn two_keys_in_a_row_where_the_server_wants_both() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.reconfigure("AuthenticationMethods publickey,publickey");
    lab.fails(4, &["up", "lab"]);
    lab.keygen("second", "ed25519", "");
    let both = ["user.pub", "second.pub"].map(|name| std::fs::read_to_string(lab.path(name)).unwrap()).concat();
    std::fs::write(lab.path("authorized_keys"), both).unwrap();
    lab.write_ssh_config(&format!("  IdentityFile {}\n", lab.path("second").display()));
    lab.up_and_down();
}

#[test]
fn a_corrupt_key_and_an_agent_that_hangs_do_not_stop_the_others() {
    let Some(lab) = Lab::with_engine() else { return };
    std::fs::write(lab.path("corrupt"), "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n").unwrap();
    set_mode(&lab.path("corrupt"), 0o600);
    let _hangs = std::os::unix::net::UnixListener::bind(lab.path("hangs")).unwrap();
    lab.write_ssh_config(&format!(
        "  IdentityFile {}\n  IdentityAgent {}\n",
        lab.path("corrupt").display(),
        lab.path("hangs").display()
    ));
    lab.ok(&["up", "lab"]);
    assert!(lab.log("lab").contains("does not answer"), "{}", lab.log("lab"));
    assert!(lab.log("lab").contains("corrupt"), "{}", lab.log("lab"));
}

#[test]
fn without_a_terminal_ssh_askpass_is_asked() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.keygen("user", "ed25519", "secret");
    lab.authorize("user");
    std::fs::write(lab.path("askpass"), "#!/bin/sh\necho \"$1\" > \"$HOME/asked\"\necho secret\n").unwrap();
    set_mode(&lab.path("askpass"), 0o755);
    let mut command = Command::new("setsid");
    lab.set_env(&mut command);
    command.args(["--wait", env!("CARGO_BIN_EXE_dtunnel"), "up", "lab"]).env("SSH_ASKPASS", lab.path("askpass"));
    assert_eq!(command.output().unwrap().status.code(), Some(4), "no display, not asked");
    run(command.env("DISPLAY", ":0"));
    assert!(std::fs::read_to_string(lab.path("home/asked")).unwrap().contains("Enter passphrase for key"));
}

#[test]
fn a_key_that_was_of_use_is_added_to_the_agent_where_that_is_wanted() {
    let Some(lab) = Lab::with_engine() else { return };
    let _agent = lab.agent();
    let listed = || {
        let output = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", lab.path("agent")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let up = || {
        let output = lab.dtunnel(["up", "lab"]).env("SSH_AUTH_SOCK", lab.path("agent")).output().unwrap();
        lab.ok(&["down", "lab"]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (value, added) in [("no", false), ("ask", false), ("1h", true), ("yes", true)] {
        lab.write_ssh_config(&format!("  AddKeysToAgent {value}\n"));
        let (ok, stderr) = up();
        assert!(ok, "{value}: {stderr}");
        assert_eq!(listed().contains("ED25519"), added, "{value}: {}", listed());
        assert_eq!(stderr.contains("`addkeystoagent`"), value == "ask", "{stderr}");
    }
    // Now the agent has it, and the file is not needed.
    std::fs::remove_file(lab.path("user")).unwrap();
    assert!(up().0);
}

#[test]
fn a_host_is_reached_over_ipv6() {
    let Some(mut lab) = Lab::with_engine() else { return };
    let address = lab.host().address6.clone().unwrap();
    lab.reconfigure(&format!("ListenAddress {address}"));
    let port = lab.sshd.port;
    lab.ok(&["up", &format!("{}@[{address}]:{port}", crate::lab::whoami())]);
    assert!(lab.ok(&["status"]).contains(&address));
    lab.ok(&["down", "--all"]);
}

#[test]
fn a_proxy_command_hears_of_its_end_and_does_not_outlive_it() {
    let Some(lab) = Lab::with_engine() else { return };
    let home = lab.path("home");
    // In memory: a busy disk may take longer to create a file than a program has.
    let marks = tempfile::tempdir_in("/dev/shm").unwrap();
    let mark = marks.path().join("cleaned");
    // It carries the connection in the background, as only then dash looks at signals at once. It does not end with the
    // connection, which may be over before the signal comes, unless it is told to.
    let program = "#!/bin/sh\necho $$ >> $HOME/pids\ntrap \"$1\" HUP\n\
        exec 3<&0; nc $2 $3 <&3 & wait $!\nwhile [ -z \"$4\" ]; do sleep 0.1; done\n";
    std::fs::write(lab.path("proxy"), program).unwrap();
    set_mode(&lab.path("proxy"), 0o755);
    let all_are_gone = || {
        let pids = std::fs::read_to_string(home.join("pids")).unwrap();
        pids.lines().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    };
    // Who cleans up gets the time, who does not listen is ended all the same, and who needs long is ended on the way.
    for (trap, cleaned) in [("sleep 0.3; echo cleaned; exit", true), (":", false), ("", false), ("sleep 60", false)] {
        let trap = trap.replace("echo cleaned", &format!("echo > {}", mark.display()));
        lab.write_ssh_config(&format!("  ProxyCommand {} '{trap}' %h %p\n", lab.path("proxy").display()));
        lab.ok(&["up", "lab"]);
        run(&mut lab.docker("lab", &["ps"]));
        lab.ok(&["down", "lab"]);
        assert_eq!((mark.exists(), all_are_gone()), (cleaned, true), "{trap}");
        let _ = std::fs::remove_file(&mark);
    }
    // One that brings nothing, and one whose `up` is given up.
    lab.write_ssh_config(&format!(
        "  ProxyCommand {} 'touch {0}.cleaned; exit' 127.0.0.1 1 over\n",
        lab.path("proxy").display()
    ));
    lab.fails(6, &["up", "lab"]);
    lab.write_ssh_config(&format!(
        "  ProxyCommand sh -c 'trap \"echo > {}; exit\" HUP; echo $$ >> $HOME/pids; echo > $HOME/ready; sleep 100 & wait'\n",
        mark.display()
    ));
    let mut up = lab.dtunnel(["up", "lab"]).spawn().unwrap();
    wait_for("the proxy command", || home.join("ready").exists().then_some(()));
    run(Command::new("kill").args(["-INT", &up.id().to_string()]));
    up.wait().unwrap();
    wait_for("the daemon's end", || lab.runtime_files().is_empty().then_some(()));
    wait_for("the proxy command's end", || all_are_gone().then_some(()));
    assert!(mark.exists());
}
