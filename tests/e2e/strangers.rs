//! Other users of the machine: what they put in our way, and what they try at our endpoints. (Needs root, to be
//! somebody else.)

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use crate::lab::{Lab, is_root, remote, run, set_mode, skip};

/// Somebody else: `nobody`.
const OTHER: &str = "65534";

/// Runs a shell script in which `/tmp` and `/run/user` are empty and nobody's but its own, `$LAB` is the lab, and
/// `as_other` runs a command as somebody else. `fake DIR` has that somebody serve `DIR/lab.ctl` as a tunnel
/// that answers every question, and note what it hears in `/tmp/heard`.
fn script(lab: &Lab, text: &str) -> Output {
    let fake = r#"#!/bin/sh
        echo '{"event":"hello","protocol":PROTOCOL,"version":"0","pid":1}'
        while read -r line; do
            printf '%s\n' "$line" >> /tmp/heard
            case $line in
            *status*) echo '{"event":"status","status":{"name":"lab","state":"up","since":null,"host":"h","user":"u","port":22,
                "local":"unix:///tmp/evil.sock","remote":"/r","transport":"streamlocal","connections":[],"flows_open":0,
                "flows_total":0,"flows_failed":0,"bytes_in":0,"bytes_out":0,"engine":null,"last_error":null,"pid":1}}' | tr -d '\n'; echo;;
            *watch*) echo '{"event":"prompt","id":1,"question":{"ask":"passphrase","file":"/root/.ssh/id","again":false}}';;
            *down*) echo '{"event":"stopped"}';;
            esac
        done"#;
    let fake = fake.replace("PROTOCOL", &dtunnel::daemon::PROTOCOL.to_string());
    std::fs::write(lab.path("fake"), fake).unwrap();
    std::fs::write(lab.path("askpass"), "#!/bin/sh\necho secret\n").unwrap();
    for program in ["fake", "askpass"] {
        set_mode(&lab.path(program), 0o755);
    }
    let prelude = r#"set -e
        mount --make-rprivate /
        mount --bind "$LAB" /mnt; mount -t tmpfs -o mode=1777 none /tmp; mkdir -p "$LAB"; mount --bind /mnt "$LAB"
        chmod 755 "$LAB"; [ ! -d /run/user ] || mount -t tmpfs -o mode=755 none /run/user
        as_other() { setpriv --reuid=OTHER --regid=OTHER --clear-groups -- "$@"; }
        fake() {
            setpriv --reuid=OTHER --regid=OTHER --clear-groups -- \
                socat "UNIX-LISTEN:$1/lab.ctl,fork" "EXEC:$LAB/fake" > /dev/null 2>&1 & fake=$!; trap 'kill $fake' EXIT
            while [ ! -S "$1/lab.ctl" ]; do sleep 0.01; done
        }
        try() { echo "$1:"; "$DTUNNEL" "$@" 2>&1 && echo "exit 0" || echo "exit $?"; }
        "#;
    let mut command = Command::new("unshare");
    lab.set_env(&mut command);
    command
        .env_remove("XDG_RUNTIME_DIR")
        .env("LAB", lab.dir.path())
        .env("DTUNNEL", env!("CARGO_BIN_EXE_dtunnel"))
        .env("SSH_ASKPASS", lab.path("askpass"))
        .env("SSH_ASKPASS_REQUIRE", "force");
    let text = prelude.replace("OTHER", OTHER) + text;
    command.args(["--mount", "sh", "-c", &text]).output().unwrap()
}

fn said(output: &Output) -> String {
    crate::lab::succeeded(output) + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_runtime_directory_that_somebody_else_made_is_not_believed() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let lab = Lab::new("");
    let output = script(
        &lab,
        r#"as_other mkdir -m 755 /tmp/dtunnel-0; fake /tmp/dtunnel-0
           try env lab; try up lab; try status; try status lab; try down lab; try down --all; try exec lab true; try ports lab
           [ ! -e /tmp/heard ] || { echo "he heard:"; cat /tmp/heard; }"#,
    );
    let said = said(&output);
    assert!(!said.contains("he heard") && !said.contains("evil"), "{said}");
    let refusals =
        said.matches("/tmp/dtunnel-0 is not safe to use: it belongs to uid 65534, not to you (uid 0)").count();
    assert_eq!((refusals, said.matches("exit 1\n").count() + said.matches("exit 125\n").count()), (8, 8), "{said}");
    assert!(said.contains("hint: set XDG_RUNTIME_DIR"), "{said}");
}

#[test]
fn a_link_and_a_directory_that_others_may_change_are_not_believed() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let lab = Lab::new("");
    let output = script(
        &lab,
        r#"as_other mkdir /tmp/his; as_other ln -s /tmp/his /tmp/dtunnel-0; try env lab; rm /tmp/dtunnel-0
           mkdir -m 777 /tmp/open; mkdir -m 700 /tmp/open/run; export XDG_RUNTIME_DIR=/tmp/open/run; try env lab"#,
    );
    let said = said(&output);
    assert!(said.contains("it is not a directory, or a symbolic link"), "{said}");
    assert!(said.contains("/tmp/open may be changed by others (mode 0777)"), "{said}");
    assert_eq!(said.matches("exit 1\n").count(), 2, "{said}");
}

#[test]
fn a_local_socket_is_opened_only_where_nobody_else_can_put_another() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let lab = Lab::new("");
    // Lazy tunnels, which connect nowhere. What is asked for on the command line, and by a profile.
    let output = script(
        &lab,
        r#"at() { try up lab --lazy --local "$1"; "$DTUNNEL" down --all -q; }
           as_other mkdir -m 755 /tmp/his; at unix:/tmp/his/x.sock
           mkdir -m 770 /tmp/ours; at /tmp/ours/x.sock; chmod 1777 /tmp/ours; at /tmp/ours/x.sock
           as_other mkdir -m 755 /tmp/his/in; chown 0 /tmp/his/in; at /tmp/his/in/x.sock
           mkdir /tmp/mine; as_other ln -s /tmp/mine /tmp/link; at /tmp/link/x.sock
           at /tmp/x.sock
           printf 'ssh_config = "none"\n[profiles.lab]\nlazy = true\nlocal = "/tmp/x.sock"\n' > /tmp/config
           DTUNNEL_CONFIG=/tmp/config try up lab
           [ -z "$(find /tmp -name x.sock)" ] && echo none was opened
           chmod 755 /tmp/ours; at /tmp/ours/x.sock; mkdir /tmp/mine/in; at /tmp/mine/in/x.sock
           try up lab --lazy --local '/tmp/mine/a%41'; try up lab --lazy --local '/tmp/mine/a#b'"#,
    );
    let said = said(&output);
    assert!(said.contains("none was opened\n"), "{said}");
    let refused = |what: &str| said.matches(&format!("would not be private: {what}")).count();
    assert_eq!(refused("/tmp/his belongs to uid 65534, neither to you (uid 0) nor to root"), 2, "{said}");
    assert_eq!(refused("/tmp/ours may be written by others (mode 0770)"), 0, "{said}");
    assert_eq!(refused("/tmp/ours may be changed by others (mode 0770)"), 1, "{said}");
    assert_eq!(refused("/tmp/ours may be written by others (mode 1777)"), 1, "{said}");
    assert_eq!(refused("/tmp/link belongs to uid 65534"), 1, "{said}");
    assert_eq!(refused("/tmp may be written by others (mode 1777)"), 2, "{said}");
    assert_eq!(said.matches("hint: choose a directory that only you can write").count(), 7, "{said}");
    assert_eq!((said.matches("exit 1\n").count(), said.matches("exit 0\n").count()), (7, 2), "{said}");
    assert_eq!(said.matches("exit 2\n").count(), 2, "{said}");
}

/// A link of ours leads to one of his, and that back to a directory of ours: he can turn it elsewhere whenever he likes.
#[test]
fn a_link_of_somebody_elses_in_the_middle_of_the_way_is_not_followed() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let lab = Lab::new("");
    let output = script(
        &lab,
        r#"mkdir -m 755 /tmp/mine; mkdir -m 700 /tmp/mine/real; as_other mkdir -m 755 /tmp/his
           ln -s /tmp/his/link /tmp/mine/link; as_other ln -s /tmp/mine/real /tmp/his/link
           try up lab --lazy --local unix:/tmp/mine/link/x.sock
           ln -s ../his/../mine/real /tmp/mine/through; try up lab --lazy --local unix:/tmp/mine/through/x.sock
           as_other ln -s /tmp/mine/real /tmp/sticky; ln -s /tmp/sticky /tmp/mine/other
           try up lab --lazy --local unix:/tmp/mine/other/x.sock
           for link in link through other; do export XDG_RUNTIME_DIR=/tmp/mine/$link; try status; try env lab; done
           [ -z "$(find /tmp/mine/real -mindepth 1)" ] && echo nothing is there
           ln -s real /tmp/mine/own; export XDG_RUNTIME_DIR=/tmp/mine/own; try up lab --lazy --local /tmp/mine/own/x.sock
           "$DTUNNEL" down --all -q"#,
    );
    let said = said(&output);
    let refused = |what: &str| said.matches(&format!("{what} belongs to uid 65534, neither to you (uid 0)")).count();
    assert_eq!((refused("/tmp/his"), refused("/tmp/sticky")), (6, 3), "{said}");
    assert!(said.contains("nothing is there\n"), "{said}");
    assert_eq!((said.matches("exit 1\n").count(), said.matches("exit 0\n").count()), (9, 1), "{said}");
}

#[test]
fn the_runtime_directory_of_another_user_is_passed_over_and_ones_own_is_found() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let lab = Lab::new("");
    // As after `sudo -E`; then with a directory of one's own; then where only one's own socket is somebody else's.
    let output = script(
        &lab,
        r#"as_other mkdir -p -m 755 /tmp/his/dtunnel; fake /tmp/his/dtunnel
           export XDG_RUNTIME_DIR=/tmp/his; try env lab; try status
           mkdir -m 700 -p /run/user; mkdir -m 700 /run/user/0
           "$DTUNNEL" service install lab --socket --print | grep ListenStream
           kill $fake; mkdir -m 777 /run/user/0/dtunnel; chmod 755 /run/user/0; fake /run/user/0/dtunnel
           chmod 700 /run/user/0 /run/user/0/dtunnel; try env lab; try up lab; try down lab
           [ ! -e /tmp/heard ] || { echo "he heard:"; cat /tmp/heard; }"#,
    );
    let said = said(&output);
    assert!(!said.contains("he heard") && !said.contains("evil"), "{said}");
    assert!(said.contains("lab is not up") && said.contains("no tunnels are up"), "{said}");
    assert!(said.contains("ListenStream=/run/user/0/dtunnel/lab.sock"), "{said}");
    let refusals = said.matches("the control socket is served by a process of uid 65534, not by one of yours").count();
    assert_eq!(refusals, 3, "{said}");
}

/// The first bytes of the connections that come to the far end. (Spare channels send none.)
fn first_bytes(socket: &Path) -> Arc<Mutex<Vec<u8>>> {
    let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
    let heard = bytes.clone();
    remote::serve_all(socket, move |mut stream| {
        let mut first = [0];
        if stream.read_exact(&mut first).is_ok() {
            heard.lock().unwrap().push(first[0]);
        }
    });
    bytes
}

#[test]
fn nobody_else_gets_in_at_a_tcp_endpoint_however_quickly_they_leave() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let lab = Lab::new("");
    let socket = lab.path("remote/x.sock");
    let arrived = first_bytes(&socket);
    lab.ok(&["up", "lab", "--local", "tcp:127.0.0.1:0", "--remote", socket.to_str().unwrap()]);
    let local = lab.status("lab")["local"].as_str().unwrap().to_owned();
    let port = local.rsplit_once(':').unwrap().1;
    // A whole request, and gone: by an end, and by a reset.
    let attack = r#"
import socket, struct, sys
body = b'{"Image":"busybox"}'
request = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
for i in range(300):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    try:
        s.sendall(request)
        if i % 3 == 1:
            s.shutdown(socket.SHUT_WR)
        if i % 3 == 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass # It was turned away before that.
    s.close()
"#;
    let other =
        ["setpriv", "--reuid", OTHER, "--regid", OTHER, "--clear-groups", "/usr/bin/python3", "-c", attack, port];
    run(Command::new(other[0]).args(&other[1..]));
    // The next one of ours is behind all of them.
    let mut ours = std::net::TcpStream::connect(local.trim_start_matches("tcp://")).unwrap();
    std::io::Write::write_all(&mut ours, b"x").unwrap();
    crate::lab::wait_for("our own", || (!arrived.lock().unwrap().is_empty()).then_some(()));
    let log = lab.log("lab");
    // So is one that is bound to an interface.
    let mut bound = Command::new("/usr/bin/python3");
    bound.args([
        "-c",
        "import socket, sys\ns = socket.socket()\ns.setsockopt(socket.SOL_SOCKET, 25, b'lo')\n\
        s.connect(('127.0.0.1', int(sys.argv[1])))\ns.send(b'y')\ns.recv(1)",
    ]);
    run(bound.arg(port));
    // The owner of the first one may have been known still.
    assert!(log.contains("turned away a client"), "{log}");
    assert_eq!(lab.status("lab")["flows_total"], 2, "{log}");
    assert_eq!(*arrived.lock().unwrap(), b"xy");
}

/// What is in memory is read by no other process, not even of the same user: neither the daemon's nor that of a
/// command which asks.
#[test]
fn the_memory_of_a_tunnel_and_of_who_asks_is_closed() {
    if !is_root() {
        return skip("being somebody else needs root");
    }
    let lab = Lab::new("");
    let home = lab.path("his");
    for dir in [&home, &home.join("run")] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::copy(env!("CARGO_BIN_EXE_dtunnel"), lab.path("dtunnel")).unwrap();
    lab.keygen("locked", "ed25519", "secret");
    std::fs::rename(lab.path("locked"), home.join("locked")).unwrap();
    let config =
        format!("ssh_config = \"none\"\n[profiles.p]\nhost = \"h\"\nidentity_files = [{:?}]\n", home.join("locked"));
    std::fs::write(home.join("config.toml"), config).unwrap();
    let ask = "#!/bin/sh\ncat /proc/$PPID/environ > /dev/null 2>&1 && echo open >> \"$HOME/seen\" || echo closed >> \"$HOME/seen\"\necho wrong\n";
    std::fs::write(home.join("ask"), ask).unwrap();
    set_mode(&home.join("ask"), 0o755);
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(&home));
    set_mode(&home, 0o700);
    set_mode(&home.join("run"), 0o700);
    set_mode(lab.dir.path(), 0o755);
    let text = r#"
        cat /proc/$$/environ > /dev/null && echo 'his own are open'
        "$DTUNNEL" up p --lazy -q
        pid=$("$DTUNNEL" status --json p | sed -n 's/.*"pid": \([0-9]*\).*/\1/p' | tail -1)
        cat /proc/$pid/environ > /dev/null 2>&1 && echo "open: $pid" || echo "closed: $pid"
        cat /proc/$pid/comm
        "$DTUNNEL" down p -q
        SSH_ASKPASS=$HOME/ask SSH_ASKPASS_REQUIRE=force "$DTUNNEL" secret set p 2>/dev/null
        cat "$HOME/seen""#;
    let mut command = Command::new("setpriv");
    lab.set_env(&mut command);
    command.args(["--reuid", OTHER, "--regid", OTHER, "--clear-groups", "sh", "-c", text]).env("HOME", &home);
    command.env("XDG_RUNTIME_DIR", home.join("run")).env("DTUNNEL_CONFIG", home.join("config.toml"));
    let said = run(command.env("DTUNNEL", lab.path("dtunnel")));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "his own are open", "{said}");
    assert!(lines[1].starts_with("closed: ") && lines[1].len() > "closed: ".len(), "{said}");
    assert_eq!(lines[2..], ["dtunnel", "closed"], "{said}");
}

/// There everybody whom the namespace does not have is shown with the same uid as the tunnel itself.
#[test]
fn no_tcp_endpoint_is_opened_where_everybody_has_the_same_uid() {
    if !Command::new("unshare").args(["-U", "true"]).status().is_ok_and(|status| status.success()) {
        return skip("this system makes no user namespaces");
    }
    let lab = Lab::new("");
    let up = |local: &[&str]| {
        let mut command = Command::new("unshare");
        lab.set_env(&mut command);
        command.args(["-U", env!("CARGO_BIN_EXE_dtunnel"), "up", "--lazy", "lab"]).args(local).output().unwrap()
    };
    let refused = up(&["--local", "tcp:127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("other users' TCP connections look like this user's"), "{said}");
    let opened = up(&[]);
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
}
