//! Logins that take a person elsewhere: an agent that asks its owner, an address to visit; and what happens to the
//! terminal where somebody was asked and a signal came.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::lab::keeper::Keeper;
use crate::lab::keyboard::{Behaviour, serve};
use crate::lab::pty::Person;
use crate::lab::{Lab, connect, run, set_mode, until_served, wait_for};

fn dtunnel() -> &'static str {
    env!("CARGO_BIN_EXE_dtunnel")
}

/// Less than any person takes.
const HURRY: &str = "[defaults]\nconnect_timeout = \"1s\"\n";

/// A lab whose key is in an agent that asks before it signs: the program notes that in `asked` and waits for the file
/// `answer`, which says `yes` or `no`.
fn with_asking_agent() -> Option<(Lab, Keeper)> {
    let lab = Lab::with_engine()?;
    let dir = lab.dir.path().display();
    let ask = format!(
        "#!/bin/sh\necho \"$1\" >> {dir}/asked\nwhile [ ! -s {dir}/answer ]; do sleep 0.02; done\n\
         [ \"$(cat {dir}/answer)\" = yes ]\n"
    );
    std::fs::write(lab.path("ask"), ask).unwrap();
    set_mode(&lab.path("ask"), 0o755);
    let socket = lab.path("agent");
    let program = format!("SSH_ASKPASS={}", lab.path("ask").display());
    let words = ["env", "SSH_ASKPASS_REQUIRE=force", "DISPLAY=none", &program, "ssh-agent", "-D", "-a"];
    let agent = Keeper::start(&[&words[..], &[socket.to_str().unwrap()]].concat(), "");
    until_served(&socket);
    run(Command::new("ssh-add").args(["-q", "-c"]).arg(lab.path("user")).env("SSH_AUTH_SOCK", &socket));
    std::fs::remove_file(lab.path("user")).unwrap();
    lab.write_config(&format!(
        "ssh_config = {:?}\n{HURRY}remote = {:?}\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    Some((lab, agent))
}

fn asked(lab: &Lab) -> usize {
    std::fs::read_to_string(lab.path("asked")).unwrap_or_default().matches("Allow use of key").count()
}

#[test]
fn an_agent_may_ask_its_owner_for_longer_than_a_login_may_take() {
    let Some((lab, _agent)) = with_asking_agent() else { return };
    let up = format!("SSH_AUTH_SOCK={} {} up lab --timeout 1s", lab.path("agent").display(), dtunnel());
    let mut person = Person::types(&lab, &up);
    person.sees("waiting for the ssh-agent: confirm there, or touch your key");
    assert_eq!(asked(&lab), 1);
    // The very thing: time passes, more than either limit has.
    std::thread::sleep(Duration::from_millis(2500));
    std::fs::write(lab.path("answer"), "yes").unwrap();
    let (status, screen) = person.leaves();
    assert!(status.success(), "{screen}");
    // A connection that nobody waits for does not ask: a flow that lasts has another one made for the next.
    std::fs::write(lab.path("answer"), "").unwrap();
    let mut flow = connect(&lab.socket("lab"));
    flow.write_all(b"x").unwrap();
    wait_for("the attempt", || lab.log("lab").contains("no further connection").then_some(()));
    assert!(lab.log("lab").contains("it asks its owner, and further connections ask nobody"), "{}", lab.log("lab"));
    assert_eq!((asked(&lab), lab.state().as_str()), (1, "up"));
}

#[test]
fn an_agent_that_refuses_is_named_as_such() {
    let Some((lab, _agent)) = with_asking_agent() else { return };
    std::fs::write(lab.path("answer"), "no").unwrap();
    let up = |key: &str| -> (Option<i32>, String) {
        std::fs::write(lab.path("user.pub"), std::fs::read_to_string(lab.path(key)).unwrap()).unwrap();
        let output = lab.dtunnel(["up", "lab"]).env("SSH_AUTH_SOCK", lab.path("agent")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, stderr) = up("user.pub");
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("skipped key `user` of the ssh-agent: the agent refused to sign with it"), "{stderr}");
    assert!(stderr.contains("hint: confirm when the agent asks"), "{stderr}");
    assert_eq!(asked(&lab), 1);
}

#[test]
fn what_a_server_says_before_a_login_is_shown_and_an_address_gets_time() {
    let Some(mut lab) = Lab::with_engine() else { return };
    std::fs::write(
        lab.path("banner"),
        "\u{1b}[31mAuthorized use only.\u{202e}\n\n\u{2714} lab is up\nSee https://example.invalid/rules\n",
    )
    .unwrap();
    lab.reconfigure("Banner {dir}/banner");
    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = lab.run(&["up", "lab"]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("lab: [31mAuthorized use only.\n"), "{said:?}");
    assert!(said.contains("lab: See https://example.invalid/rules\n"), "{said:?}");
    // Nothing that a server says looks like a line of ours.
    assert!(said.lines().filter(|line| line.contains("is up")).all(|line| line.starts_with("lab: ")), "{said:?}");
    lab.ok(&["down", "lab"]);
    // An address is what the person has to know, whatever is wanted otherwise.
    assert_eq!(stderr(&lab.run(&["up", "lab", "-q"])), "lab: See https://example.invalid/rules\n");
    lab.ok(&["down", "lab"]);
    // A server that lets in whoever has been there.
    lab.write_config(&format!("ssh_config = {:?}\n{HURRY}", lab.path("ssh_config")));
    let port = serve(Behaviour::Visit, &lab.path("host"), Some(lab.remote_socket()));
    let target = format!("u@127.0.0.1:{port}");
    let mut person = Person::types(&lab, &format!("{} up {target} --timeout 1s", dtunnel()));
    person.sees("To authenticate, visit: https://example.invalid/a/1");
    // Who cannot go there is given no time by the one who can.
    let ends = ends_alone(&lab, &["up", &target, "--timeout", "1s"]);
    assert!(!ends.0, "{}", ends.1);
    // The very thing: time passes, more than either limit has.
    std::thread::sleep(Duration::from_millis(2500));
    std::fs::write(lab.path("visited"), "").unwrap();
    let (status, screen) = person.leaves();
    assert!(status.success(), "{screen}");
}

/// Runs a command without a terminal, which has to end long before a person's time for a visit is over: did it succeed,
/// and what did it say?
fn ends_alone(lab: &Lab, words: &[&str]) -> (bool, String) {
    let mut command = Command::new("setsid");
    lab.set_env(&mut command);
    let said = lab.path("said");
    let mut child = command
        .args(["--wait", dtunnel()])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let status = wait_for(&format!("the end of {words:?}"), || child.try_wait().unwrap());
    (status.success(), std::fs::read_to_string(said).unwrap())
}

#[test]
fn an_address_in_a_banner_stops_no_clock_where_nobody_can_go_there() {
    let Some(lab) = Lab::with_engine() else { return };
    let port = serve(Behaviour::Visit, &lab.path("host"), Some(lab.remote_socket()));
    let target = &format!("u@127.0.0.1:{port}");
    // By --timeout, and by the login's own limit.
    for (connect_timeout, timeout) in [("10m", "1s"), ("1s", "10m")] {
        lab.write_config(&format!(
            "ssh_config = {:?}\n[defaults]\nconnect_timeout = \"{connect_timeout}\"\n",
            lab.path("ssh_config")
        ));
        for words in [&["up", target][..], &["exec", target, "--", "true"], &["env", "--up", target]] {
            let (command, rest) = words.split_first().unwrap();
            let (succeeded, said) = ends_alone(&lab, &[&[*command, "--timeout", timeout], rest].concat());
            assert!(!succeeded && said.contains("visit: https://example.invalid/a/1"), "{words:?}: {said}");
            lab.ok(&["down", target, "-q"]);
        }
    }
}

/// A lab whose key has a passphrase.
fn with_passphrase() -> Option<Lab> {
    let lab = Lab::with_engine()?;
    lab.keygen("user", "ed25519", "secret");
    lab.authorize("user");
    Some(lab)
}

#[test]
fn a_signal_at_a_hidden_prompt_leaves_the_terminal_as_it_was() {
    let Some(lab) = with_passphrase() else { return };
    let stty = |name: &str| std::fs::read_to_string(lab.path("home").join(name)).unwrap();
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("QUIT", 131), ("INT", 130)] {
        // Whoever runs the tests may ignore some, as nohup(1) does.
        let line = format!(
            "cd $HOME; stty > before; sh -c 'echo $$ > pid; exec env --default-signal {} up lab'; echo rc=$?; stty > after",
            dtunnel()
        );
        let mut person = Person::types(&lab, &line);
        person.sees("Enter passphrase for key");
        run(Command::new("kill").args(["-s", signal, stty("pid").trim()]));
        let (_, screen) = person.leaves();
        assert!(screen.contains(&format!("rc={code}")), "{signal}: {screen}");
        assert_eq!(stty("before"), stty("after"), "{signal}");
        wait_for("the daemon's end", || lab.runtime_files().is_empty().then_some(()));
    }
}

#[test]
fn ctrl_z_at_a_hidden_prompt_stops_the_job_with_the_terminal_as_it_was() {
    let Some(lab) = with_passphrase() else { return };
    let line = format!(
        "set -m; cd $HOME; stty > before; {} up lab; echo rc=$?; stty > stopped; read -r go; fg; echo rc=$?; stty > after",
        dtunnel()
    );
    let mut person = Person::types(&lab, &line);
    person.sees("Enter passphrase for key");
    person.presses("half\u{1a}");
    // 128 and SIGTSTP or SIGSTOP.
    wait_for("the job to stop", || {
        let screen = person.screen();
        (screen.contains("rc=148") || screen.contains("rc=147")).then_some(())
    });
    person.presses("go\n");
    wait_for("the question again", || (person.screen().matches("Enter passphrase for key").count() > 1).then_some(()));
    person.presses("secret\n");
    let (_, screen) = person.leaves();
    assert!(screen.contains("rc=0") && !screen.contains("half"), "{screen}");
    let stty = |name: &str| std::fs::read_to_string(lab.path("home").join(name)).unwrap();
    assert_eq!((stty("before"), stty("before")), (stty("stopped"), stty("after")));
}
