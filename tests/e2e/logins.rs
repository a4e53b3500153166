//! Logins as they are on hosts: their shells, what these print, forced commands, other users' servers, agents that move.

use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::keeper::Keeper;
use crate::lab::{Lab, connect, remote, run, set_mode, skip, wait_for};

/// Has root's logins on the host run this shell; `more` are further lines of passwd(5).
fn shell(lab: &Lab, shell: &str, more: &str) {
    let before = std::fs::read_to_string(lab.path("passwd")).unwrap();
    let others: String =
        before.lines().filter(|line| !line.starts_with("root:")).map(|line| format!("{line}\n")).collect();
    // Written in place: the host has this very file mounted.
    std::fs::write(lab.path("passwd"), format!("root:x:0:0:root:/run/root:{shell}\n{others}{more}")).unwrap();
}

#[test]
fn commands_of_the_host_run_in_any_login_shell() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.reconfigure("DisableForwarding yes");
    let command = format!(
        "command:printf '%s' 'it''s!' >&2; exec docker -H 'unix://{}' system dial-stdio",
        lab.remote_socket().display()
    );
    for name in ["bash", "zsh", "fish", "tcsh", "elvish", "xonsh"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap();
        if !found.status.success() {
            skip(&format!("no {name}"));
            continue;
        }
        shell(&lab, String::from_utf8(found.stdout).unwrap().trim(), "");
        for remote in [&[][..], &["--remote", &command]] {
            lab.ok(&[&["up", "lab"], remote].concat());
            let transport = lab.status("lab")["transport"].as_str().unwrap().to_owned();
            assert!(transport.starts_with("exec: "), "{name}: {transport}");
            run(&mut lab.docker("lab", &["version"]));
            lab.ok(&["down", "lab"]);
        }
    }
}

#[test]
fn what_a_login_prints_is_no_part_of_what_its_commands_say() {
    let Some(mut lab) = Lab::with_engine() else { return };
    shell(&lab, "/bin/bash", "");
    std::fs::write(lab.path("noise"), "echo 'Welcome to far!'; seq 3000\n").unwrap();
    lab.reconfigure("DisableForwarding yes\nSetEnv BASH_ENV={dir}/noise");
    for remote in
        ["auto".to_owned(), format!("command:docker -H unix://{} system dial-stdio", lab.remote_socket().display())]
    {
        let of = if remote == "auto" { vec![] } else { vec!["--remote", &remote] };
        lab.ok(&[&["up", "lab"][..], &of].concat());
        run(&mut lab.docker("lab", &["version"]));
        lab.ok(&["down", "lab"]);
    }
}

#[test]
fn a_forced_command_that_leads_to_the_engine_is_found() {
    let Some(lab) = Lab::with_engine() else { return };
    let keys = lab.path("authorized_keys");
    let key = std::fs::read_to_string(&keys).unwrap();
    let command = format!("docker -H unix://{} system dial-stdio", lab.remote_socket().display());
    std::fs::write(&keys, format!("restrict,command=\"{command}\" {key}")).unwrap();
    lab.write_config(&format!("ssh_config = {:?}\n", lab.path("ssh_config")));
    for _ in 0..2 {
        lab.ok(&["up", "lab"]);
        assert_eq!(lab.status("lab")["transport"], "exec: docker system dial-stdio");
        run(&mut lab.docker("lab", &["version"]));
        lab.ok(&["down", "lab"]);
    }
}

/// An SSH server that keeps its session's privileges, at the far host's port 2222, with the login `dev`; and an echo server
/// that takes the Engine's place. Returns the login's address and its tunnel's name.
fn dropbear(lab: &Lab) -> (String, String, Keeper) {
    let address = lab.sshd.address.clone();
    let (key, socket) = (lab.path("dropbear_key"), lab.path("remote/x.sock"));
    run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&key));
    remote::serve(&socket, remote::echo);
    set_mode(&socket, 0o666);
    for dir in [lab.dir.path(), &lab.path("remote")] {
        set_mode(dir, 0o755);
    }
    shell(lab, "/bin/sh", "dev:x:1234:1234::/run/dev:/bin/sh\n");
    lab.host().run(&format!(
        "mkdir -p /run/dev/.ssh; cp {}/user.pub /run/dev/.ssh/authorized_keys; chmod 700 /run/dev /run/dev/.ssh; \
         chown -R 1234:1234 /run/dev",
        lab.dir.path().display()
    ));
    let words = ["dropbear", "-F", "-E", "-s", "-P", "/run/dropbear.pid", "-p", &format!("{address}:2222"), "-r"];
    let serving = lab.host().serve(&[&words[..], &[key.to_str().unwrap()]].concat());
    lab.host().until_it_listens(2222);
    let target = format!("dev@{address}:2222");
    lab.ok(&["up", &target, "--remote", socket.to_str().unwrap()]);
    (target, format!("dev@{address}+2222"), serving)
}

#[test]
fn a_login_whose_server_is_roots_keeps_its_commands_and_leaves_none() {
    let Some(lab) = Lab::far() else { return };
    let (target, name, _dropbear) = dropbear(&lab);
    let mut client = connect(&lab.socket(&name));
    // The first byte tells the server that this is no ping.
    client.write_all(b"x").unwrap();
    // Longer than the watch's pause.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap_or_else(|e| panic!("after {:?}: {e}; {}", begun.elapsed(), lab.log(&name)));
    }
    lab.ok(&["down", &target]);
    let left = || lab.host().run("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '").contains("dial-stdio");
    wait_for("the command's end", || (!left()).then_some(()));
}

/// Dropbear closes a session that waits for its command whenever another command ends.
#[test]
fn commands_that_end_do_not_take_those_that_begin_with_them() {
    let Some(lab) = Lab::far() else { return };
    let (_, name, _dropbear) = dropbear(&lab);
    let flows = || {
        for flow in 0..15 {
            let mut client = connect(&lab.socket(&name));
            client.write_all(b"xy").unwrap();
            client.read_exact(&mut [0]).unwrap_or_else(|e| panic!("flow {flow}: {e}; {}", lab.log(&name)));
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(flows)).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn the_agent_of_whoever_brings_it_up_again_is_used() {
    let lab = Lab::new("");
    let socket = lab.path("remote/x.sock");
    remote::serve(&socket, remote::echo);
    let at = |name: &str| lab.path(name);
    std::fs::rename(at("user"), at("only-in-the-agent")).unwrap();
    set_mode(&at("only-in-the-agent"), 0o600);
    let up = |agent: &str| {
        let mut up = lab.dtunnel(["up", "lab", "--remote", socket.to_str().unwrap()]);
        up.env("SSH_AUTH_SOCK", at(agent)).output().unwrap()
    };
    let first = lab.agent();
    lab.agent_add("only-in-the-agent");
    assert!(up("agent").status.success());
    // The login ends, and with it its agent; the next one has another one at another place.
    drop(first);
    std::fs::rename(at("agent"), at("old-agent")).ok();
    lab.sshd.cut_sessions();
    let _second = lab.agent();
    std::fs::rename(at("agent"), at("new-agent")).unwrap();
    run(Command::new("ssh-add").arg("-q").arg(at("only-in-the-agent")).env("SSH_AUTH_SOCK", at("new-agent")));
    let again = up("new-agent");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
fn an_account_without_a_password_needs_none() {
    let Some(mut lab) = Lab::far() else { return };
    let socket = lab.path("remote/x.sock");
    remote::serve(&socket, remote::echo);
    std::fs::write(lab.path("shadow"), "root::19000:0:99999:7:::\n").unwrap();
    std::fs::write(lab.path("authorized_keys"), "").unwrap();
    lab.reconfigure("PermitEmptyPasswords yes\nPasswordAuthentication yes\nPermitRootLogin yes\nUsePAM no");
    lab.ok(&["up", "lab", "--remote", socket.to_str().unwrap()]);
}

#[test]
fn a_url_names_the_engines_socket_too() {
    let Some(lab) = Lab::with_engine() else { return };
    let engine = lab.remote_socket();
    lab.write_config(&format!("ssh_config = {:?}\n", lab.path("ssh_config")));
    let url = format!("ssh://lab{}", engine.display());
    lab.ok(&["up", &url]);
    assert_eq!(lab.status(&url)["remote"], engine.to_str().unwrap());
}

#[test]
fn a_uid_without_a_name_can_log_in_as_somebody() {
    if !crate::lab::is_root() {
        return skip("being somebody else needs root");
    }
    const NAMELESS: &str = "54321";
    let lab = Lab::new("");
    let other = lab.another_user(NAMELESS);
    let socket = lab.path("remote/x.sock");
    remote::serve(&socket, remote::echo);
    let dtunnel = |args: &[&str]| other.dtunnel(args).env_remove("USER").env_remove("LOGNAME").output().unwrap();
    let up = |target: &str| dtunnel(&["up", target, "--remote", socket.to_str().unwrap()]);
    let nobody = up("lab");
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert!(said.contains("no name for your uid"), "{said}");
    let root = up("root@lab");
    assert!(root.status.success(), "{}", String::from_utf8_lossy(&root.stderr));
    assert!(dtunnel(&["down", "root@lab"]).status.success());
}

/// Those of the login's current docker context, and of Docker Desktop and its like.
#[test]
fn an_engine_of_the_logins_own_is_found() {
    for (script, path) in [
        ("docker context create mine --docker host=unix://$ENGINE; docker context use mine", "$ENGINE"),
        ("mkdir -p ~/.docker/run; ln -s $ENGINE ~/.docker/run/docker.sock", "/run/root/.docker/run/docker.sock"),
        (
            "mkdir -p ~/.colima/default; ln -s $ENGINE ~/.colima/default/docker.sock",
            "/run/root/.colima/default/docker.sock",
        ),
    ] {
        let Some(lab) = Lab::with_engine() else { return };
        let engine = lab.remote_socket();
        let engine = engine.to_str().unwrap();
        lab.host().run(&format!("export HOME=/run/root; {}", script.replace("$ENGINE", engine)));
        lab.write_config(&format!("ssh_config = {:?}\n", lab.path("ssh_config")));
        lab.ok(&["up", "lab"]);
        assert_eq!(lab.status("lab")["remote"], path.replace("$ENGINE", engine), "{script}");
    }
}

#[test]
fn a_host_on_loopback_may_have_any_key_where_that_is_said() {
    let lab = Lab::near();
    let socket = lab.path("remote/x.sock");
    remote::serve(&socket, remote::echo);
    let up = ["up", "lab", "--remote", socket.to_str().unwrap()];
    lab.write_ssh_config("  StrictHostKeyChecking yes\n");
    lab.fails(5, &up);
    for (more, is_trusted) in [("  HostKeyAlias other\n", false), ("", true)] {
        lab.write_ssh_config(&format!("  StrictHostKeyChecking yes\n  NoHostAuthenticationForLocalhost yes\n{more}"));
        assert_eq!(lab.run(&up).status.success(), is_trusted, "{more}");
    }
    assert!(!lab.path("known_hosts").exists(), "nothing is learnt");
}

#[test]
fn a_certificate_may_be_named_where_its_key_is_in_the_agent() {
    let mut lab = Lab::new("");
    let socket = lab.path("remote/x.sock");
    remote::serve(&socket, remote::echo);
    lab.keygen("ca", "ed25519", "");
    lab.reconfigure("TrustedUserCAKeys {dir}/ca.pub");
    std::fs::write(lab.path("authorized_keys"), "").unwrap();
    lab.keygen("worker", "ed25519", "");
    lab.certify("ca", "worker", &["-n", &crate::lab::whoami()]);
    let _agent = lab.agent();
    std::fs::rename(lab.path("worker-cert.pub"), lab.path("named-cert.pub")).unwrap();
    lab.agent_add("worker");
    lab.write_ssh_config(&format!("  IdentityFile {}\n", lab.path("named-cert.pub").display()));
    let mut up = lab.dtunnel(["up", "lab", "--remote", socket.to_str().unwrap()]);
    let output = up.env("SSH_AUTH_SOCK", lab.path("agent")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
