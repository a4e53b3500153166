//! Logins that ask: passwords, one-time codes, several methods in a row, servers that ask too much.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};

use crate::lab::keyboard::{Behaviour, serve};
use crate::lab::pty::Person;
use crate::lab::{Lab, run, wait_for};

fn up() -> String {
    format!("{} up lab", env!("CARGO_BIN_EXE_dtunnel"))
}

/// A lab whose sshd knows root by the password `secret`.
fn with_password(options: &str) -> Option<Lab> {
    let mut lab = Lab::with_engine()?;
    lab.set_password("secret");
    lab.reconfigure(&format!("PasswordAuthentication yes\nPermitRootLogin yes\n{options}"));
    Some(lab)
}

#[test]
fn a_password_is_asked_for_and_kept_for_the_next_connection() {
    let Some(lab) = with_password("PubkeyAuthentication no") else { return };
    let mut person = Person::types(&lab, &up());
    person.sees(&format!("root@{}'s password: ", lab.sshd.address));
    person.presses("wrong\n");
    person.sees("please try again");
    person.presses("secret\n");
    let (status, screen) = person.leaves();
    assert!(status.success() && !screen.contains("secret"), "{screen}");
    lab.sshd.cut_sessions();
    run(&mut lab.docker("lab", &["ps"]));
    lab.ok(&["down", "lab"]);
}

#[test]
fn three_wrong_passwords_end_with_4() {
    let Some(lab) = with_password("PubkeyAuthentication no") else { return };
    let mut person = Person::types(&lab, &up());
    for times in 1..=3 {
        wait_for("the next question", || (person.screen().matches("password: ").count() == times).then_some(()));
        person.presses("wrong\n");
    }
    let (status, screen) = person.leaves();
    assert_eq!(status.code(), Some(4), "{screen}");
}

#[test]
fn a_password_that_was_changed_meanwhile_is_tried_once_and_then_a_person_is_needed() {
    let Some(mut lab) = with_password("PubkeyAuthentication no") else { return };
    let mut person = Person::types(&lab, &up());
    person.sees("password: ");
    person.presses("secret\n");
    assert!(person.leaves().0.success());
    lab.set_password("another");
    lab.sshd.start_again();
    let failed = wait_for("the tunnel to fail", || Some(lab.status("lab")).filter(|s| s["state"] == "failed"));
    assert!(failed["last_error"].as_str().unwrap().contains("needs you: run dtunnel up lab"), "{failed}");
    let tries = || std::fs::read_to_string(lab.path("sshd.log")).unwrap().matches("Failed password").count();
    assert_eq!(tries(), 1, "nothing loops against the server");
    let mut person = Person::types(&lab, &up());
    person.sees("password: ");
    person.presses("another\n");
    assert!(person.leaves().0.success());
    assert_eq!(lab.status("lab")["state"], "up");
}

#[test]
fn a_key_and_a_password_in_a_row() {
    let Some(lab) = with_password("AuthenticationMethods publickey,password") else { return };
    let mut person = Person::types(&lab, &up());
    person.sees("password: ");
    person.presses("secret\n");
    let (status, screen) = person.leaves();
    assert!(status.success(), "{screen}");
}

#[test]
fn a_key_and_keyboard_interactive_in_a_row_with_pam() {
    let methods =
        "UsePAM yes\nKbdInteractiveAuthentication yes\nAuthenticationMethods publickey,keyboard-interactive:pam";
    let Some(lab) = with_password(methods) else { return };
    let mut person = Person::types(&lab, &up());
    person.sees("Password:");
    person.presses("wrong\n");
    wait_for("the next question", || (person.screen().matches("Password:").count() == 2).then_some(()));
    person.presses("secret\n");
    let (status, screen) = person.leaves();
    assert!(status.success() && !screen.contains("secret"), "{screen}");
}

#[test]
fn keyboard_interactive_in_several_rounds_with_several_prompts() {
    for behaviour in [Behaviour::TwoRounds, Behaviour::BigBanner] {
        let Some(lab) = Lab::with_engine() else { return };
        let port = serve(behaviour, &lab.path("host"), Some(lab.remote_socket()));
        let mut person = Person::types(&lab, &format!("{} up u@127.0.0.1:{port}", env!("CARGO_BIN_EXE_dtunnel")));
        person.sees("Who goes there?");
        person.sees("Password:");
        person.presses("secret\n");
        person.sees("Word:");
        person.presses("open sesame\n");
        person.sees("Code:");
        person.presses("123456\n");
        let (status, screen) = person.leaves();
        assert!(status.success(), "{screen}");
        assert!(screen.contains("open sesame") && !screen.contains("123456"), "{screen}");
        let log = lab.log(&format!("u@127.0.0.1+{port}"));
        assert!(!log.contains('\u{1b}') && log.len() < 10_000, "a banner is cut and has no control characters");
    }
}

#[test]
fn a_server_that_asks_without_end_or_closes_half_way_is_left() {
    let lab = Lab::new("");
    let port = serve(Behaviour::Endless, &lab.path("host"), None);
    let mut person = Person::types(&lab, &format!("{} up u@127.0.0.1:{port}", env!("CARGO_BIN_EXE_dtunnel")));
    // More answers than anybody would give.
    person.sees("Again?");
    for _ in 0..100 {
        person.presses("yes\n");
    }
    let (status, screen) = person.leaves();
    assert_eq!(status.code(), Some(4), "{screen}");
    let port = serve(Behaviour::Closes, &lab.path("host"), None);
    let stderr = lab.fails(4, &["up", &format!("u@127.0.0.1:{port}")]);
    assert!(stderr.contains("closed the connection during login"), "{stderr}");
}

#[test]
fn a_question_that_is_answered_in_one_terminal_is_over_in_the_other() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.keygen("user", "ed25519", "open sesame");
    lab.authorize("user");
    let mut first = Person::types(&lab, &up());
    first.sees("Enter passphrase for key");
    let mut second = Person::types(&lab, &up());
    second.sees("Enter passphrase for key");
    first.presses("wrong\n");
    // The next one is asked in both.
    second.sees("(answered elsewhere)");
    wait_for("the next question", || (second.screen().matches("Enter passphrase").count() == 2).then_some(()));
    first.sees("please try again");
    second.presses("open sesame\n");
    for person in [first, second] {
        let (status, screen) = person.leaves();
        assert!(status.success() && screen.contains(" up ") && !screen.contains("open sesame"), "{screen}");
    }
}

/// What a program on the way says meanwhile neither ends the question nor is lost.
#[test]
fn a_question_stays_open_while_a_proxy_command_speaks() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.keygen("user", "ed25519", "open sesame");
    lab.authorize("user");
    let (words, taken) = (lab.path("words"), lab.path("taken"));
    run(Command::new("mkfifo").arg(&words));
    // Of several connections the first one speaks.
    let speaks = format!("mv {0} {1} 2>/dev/null && exec cat {1} >&2", words.display(), taken.display());
    lab.write_ssh_config(&format!("  ProxyCommand sh -c '{{ {speaks}; }} & exec nc %h %p'\n"));
    let mut person = Person::types(&lab, &up());
    person.sees("Enter passphrase for key");
    wait_for("the program on the way", || taken.exists().then_some(()));
    std::fs::write(&taken, "your session ends soon\n").unwrap();
    wait_for("its words to be heard", || lab.log("lab").contains("your session ends soon").then_some(()));
    person.presses("open sesame\n");
    person.sees("your session ends soon");
    let (status, screen) = person.leaves();
    assert!(status.success() && screen.contains(" up ") && !screen.contains("elsewhere"), "{screen}");
}

#[test]
fn with_batch_mode_nobody_is_asked_anything() {
    let lab = Lab::new("PasswordAuthentication yes");
    lab.keygen("user", "ed25519", "open sesame");
    lab.authorize("user");
    lab.write_ssh_config("  BatchMode yes\n");
    let (status, screen) = Person::types(&lab, &up()).leaves();
    assert_eq!(status.code(), Some(4), "{screen}");
    lab.write_ssh_config("  BatchMode yes\n  StrictHostKeyChecking ask\n");
    std::fs::remove_file(lab.path("known_hosts")).unwrap();
    let (status, screen) = Person::types(&lab, &up()).leaves();
    assert_eq!(status.code(), Some(5), "{screen}");
    assert!(!screen.contains("Enter passphrase") && !screen.contains("yes/no"), "{screen}");
}

/// Runs a server that wants a new password in place of every one, as RFC 4252 section 8 has it (OpenSSH's never does);
/// its port.
fn wants_a_new_password(lab: &Lab) -> (Child, u16) {
    let program = "import asyncio, asyncssh, sys
class Server(asyncssh.SSHServer):
    def password_auth_supported(self):
        return True
    def validate_password(self, user, password):
        raise asyncssh.PasswordChangeRequired('Your password has expired.')
async def main():
    server = await asyncssh.create_server(Server, '127.0.0.1', 0, server_host_keys=[sys.argv[1]])
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())";
    let mut python = Command::new("/usr/bin/python3");
    python
        .env("PYTHONWARNINGS", "ignore")
        .args(["-c", program])
        .arg(lab.path("host"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

#[test]
fn a_password_that_has_expired_is_said_to() {
    let Some(mut lab) = with_password("PubkeyAuthentication no") else { return };
    std::fs::write(lab.path("askpass"), "#!/bin/sh\necho secret\n").unwrap();
    crate::lab::set_mode(&lab.path("askpass"), 0o755);
    let up = |lab: &Lab, target: &str| {
        let mut command = lab.dtunnel(["up", target]);
        command.env("SSH_ASKPASS", lab.path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (mut server, port) = wants_a_new_password(&lab);
    lab.write_config(&format!("ssh_config = {:?}\n[defaults]\nconnect_timeout = \"6s\"\n", lab.path("ssh_config")));
    let (code, stderr) = up(&lab, &format!("u@127.0.0.1:{port}"));
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("most likely the password has expired"), "{stderr}");
    assert!(stderr.contains(&format!("ssh -p {port} u@127.0.0.1")), "{stderr}");
    // OpenSSH's own way: in, but for a new password only.
    let shadow = std::fs::read_to_string(lab.path("shadow")).unwrap();
    std::fs::write(lab.path("shadow"), shadow.replace(":19000:", ":0:")).unwrap();
    lab.sshd.start_again();
    let (code, stderr) = up(&lab, "lab");
    assert_eq!(code, Some(7), "{stderr}");
    assert!(stderr.contains("it runs no commands for this login: WARNING: Your password has expired."), "{stderr}");
}
