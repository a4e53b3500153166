//! What goes wrong is told apart: reason, hint, exit code, within the time-out.

use std::io::Write;
use std::net::TcpListener;

use crate::lab::sshd::free_port;
use crate::lab::{Lab, answers, is_root, skip, wait_for};

#[test]
fn a_name_without_an_address_ends_with_6_and_suggests_the_profile() {
    let lab = Lab::new("");
    let ssh_config = lab.path("ssh_config");
    lab.write_config(&format!("ssh_config = {ssh_config:?}\n[profiles.prod-1]\n"));
    let stderr = lab.fails(6, &["up", "prod1.invalid"]);
    assert!(stderr.contains("cannot resolve the host name `prod1.invalid`"), "{stderr}");
    assert!(stderr.contains("did you mean `prod-1`?"), "{stderr}");
}

#[test]
fn a_port_where_nobody_listens_ends_with_6() {
    let lab = Lab::new("");
    let stderr = lab.fails(6, &["up", &format!("u@127.0.0.1:{}", free_port())]);
    assert!(stderr.contains("cannot connect to 127.0.0.1 port") && stderr.contains("is sshd running"), "{stderr}");
    assert_eq!(lab.runtime_files(), [""; 0]);
}

#[test]
fn a_server_that_is_no_ssh_server_ends_with_6_in_time() {
    let lab = Lab::new("");
    let servers: [fn(std::net::TcpStream); 3] = [
        // Says nothing, for ever.
        std::mem::forget,
        // Speaks another protocol.
        |mut stream| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        // Garbage without end.
        |mut stream| {
            drop(stream.write_all(b"SSH-2.0-x\r\n"));
            while stream.write_all(&[0xff; 4096]).is_ok() {}
        },
    ];
    for server in servers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("u@127.0.0.1:{}", listener.local_addr().unwrap().port());
        std::thread::spawn(move || listener.incoming().flatten().for_each(server));
        let stderr = lab.fails(6, &["up", &target, "--timeout", "2s"]);
        assert!(stderr.contains("error: "), "{stderr}");
    }
}

#[test]
fn what_answers_but_is_no_engine_ends_with_7() {
    let lab = Lab::new("");
    let path = lab.path("remote/x.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n");
        }
    });
    let stderr = lab.fails(7, &["up", "lab", "--remote", path.to_str().unwrap()]);
    assert!(stderr.contains("no Docker Engine answered there"), "{stderr}");
}

#[test]
fn an_engine_that_hangs_ends_with_7_in_time() {
    let lab = Lab::new("");
    let path = lab.path("remote/x.sock");
    let _hangs = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let stderr = lab.fails(7, &["up", "lab", "--remote", path.to_str().unwrap(), "--timeout", "2s"]);
    assert!(stderr.contains("asking the Engine"), "{stderr}");
}

#[test]
fn a_lost_connection_is_made_again_and_the_socket_stays() {
    let Some(mut lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    let inode = |lab: &Lab| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(lab.socket("lab")).unwrap());
    let before = inode(&lab);
    lab.sshd.stop();
    wait_for("the loss to be seen", || (lab.status("lab")["state"] == "reconnecting").then_some(()));
    wait_for("its cause", || lab.status("lab")["last_error"].is_string().then_some(()));
    // A client that comes meanwhile waits, and is served.
    let docker = lab.docker("lab", &["ps"]).spawn().unwrap();
    lab.sshd.start_again();
    assert!(docker.wait_with_output().unwrap().status.success());
    // It may have been served a moment before that is told.
    wait_for("the tunnel to be up", || (lab.status("lab")["state"] == "up").then_some(()));
    assert_eq!(inode(&lab), before);
}

#[test]
fn a_login_that_is_refused_later_stops_the_attempts_and_up_tries_again() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    lab.keygen("other", "ed25519", "");
    lab.authorize("other");
    lab.sshd.cut_sessions();
    wait_for("the tunnel to fail", || (lab.status("lab")["state"] == "failed").then_some(()));
    assert!(lab.fails(3, &["up", "lab"]).contains("could not log in"));
    lab.authorize("user");
    lab.ok(&["up", "lab"]);
    assert_eq!(lab.status("lab")["state"], "up");
}

/// A cut looks alike wherever it falls: only what the server says itself is a refusal.
#[test]
fn a_line_that_is_cut_during_a_login_is_made_again() {
    if !is_root() {
        return skip("sshd runs AuthorizedKeysCommand as root only");
    }
    let mut lab = Lab::new("");
    lab.reconfigure(
        "AuthorizedKeysFile none\nAuthorizedKeysCommand /bin/sh {dir}/keys.sh {dir}\nAuthorizedKeysCommandUser root",
    );
    let remote = lab.path("remote/x.sock");
    answers::serve(&remote, |_| Some("{}".into()));
    // The keys are told when there is a file `open`.
    let keys = "touch $1/asked; until [ -e $1/open ]; do sleep 0.05; done; cat $1/authorized_keys\n";
    std::fs::write(lab.path("keys.sh"), keys).unwrap();
    let gate = lab.path("open");
    std::fs::write(&gate, "").unwrap();
    lab.ok(&["up", "lab", "--remote", remote.to_str().unwrap()]);
    std::fs::remove_file(&gate).unwrap();
    std::fs::remove_file(lab.path("asked")).unwrap();
    lab.sshd.cut_sessions();
    wait_for("a login", || lab.path("asked").exists().then_some(()));
    lab.sshd.cut_sessions();
    std::fs::write(&gate, "").unwrap();
    let state = wait_for("what comes of it", || Some(lab.state()).filter(|state| state != "reconnecting"));
    assert_eq!(state, "up", "{}", lab.status("lab"));
}
