//! Whose password it is: never another host's, and never one's that shows another key.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::sshd::Sshd;
use crate::lab::{KERNELS_KEYRING, Lab, set_mode, wait_for};

/// A lab whose server takes root's password `secret` only, and a program that answers with it and notes what
/// it was asked.
fn lab() -> Option<Lab> {
    let mut lab = Lab::with_engine()?;
    lab.set_password("secret");
    lab.reconfigure(PASSWORDS);
    std::fs::write(lab.path("askpass"), "#!/bin/sh\necho \"$1\" >> \"$HOME/asked\"\necho secret\n").unwrap();
    set_mode(&lab.path("askpass"), 0o755);
    Some(lab)
}

const PASSWORDS: &str = "PasswordAuthentication yes\nPermitRootLogin yes\nPubkeyAuthentication no";

/// `dtunnel` with somebody who answers.
fn asked(lab: &Lab, args: &[&str]) -> Command {
    let mut command = lab.dtunnel(args);
    command.env("SSH_ASKPASS", lab.path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
    command
}

/// The questions for passwords that were asked so far, without what was told before them.
fn questions(lab: &Lab) -> Vec<String> {
    let text = std::fs::read_to_string(lab.path("home/asked")).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).filter(|line| line.ends_with("password:")).collect()
}

/// How often a password came to the server.
fn passwords_sent(lab: &Lab) -> usize {
    sent(lab.dir.path())
}

fn sent(dir: &Path) -> usize {
    let log = std::fs::read_to_string(dir.join("sshd.log")).unwrap();
    log.matches("Accepted password").count() + log.matches("Failed password").count()
}

#[test]
fn the_password_of_a_hop_is_not_offered_to_the_host_behind_it() {
    let Some(lab) = lab() else { return };
    // The same account at the same address, once straight and once behind itself: two hosts, for all one knows.
    let (address, port) = (&lab.sshd.address, lab.sshd.port);
    lab.write_config(&format!(
        "ssh_config = {:?}\n[defaults]\nremote = {:?}\n[profiles.far]\nhost = \"root@{address}:{port}\"\n\
         jump = \"root@{address}:{port}\"\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    crate::lab::succeeded(&asked(&lab, &["up", "far"]).output().unwrap());
    let question = format!("root@{address}'s password:");
    assert_eq!(questions(&lab), [question.as_str(); 2], "each by itself");
    // Both are remembered by then, each for its place.
    lab.sshd.cut_sessions();
    wait_for("another login", || (passwords_sent(&lab) >= 3).then_some(()));
    wait_for("the tunnel", || (lab.status("far")["state"] == "up").then_some(()));
    assert_eq!(questions(&lab).len(), 2);
}

/// Keyrings: the kernel's, and a real Secret Service.
const KEYRINGS: [&[&str]; 2] = [&KERNELS_KEYRING, &["dbus-run-session", "--"]];

/// A shell in a keyring of its own, with `$DTUNNEL` and `$ASK $DTUNNEL`.
fn script(lab: &Lab, keyring: &[&str], text: &str) -> Command {
    let mut command = Command::new(keyring[0]);
    lab.set_env(&mut command);
    let ask = format!("env SSH_ASKPASS={} SSH_ASKPASS_REQUIRE=force", lab.path("askpass").display());
    let unlock = match keyring[0] {
        "dbus-run-session" => "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\n",
        _ => "",
    };
    let text = format!("{unlock}ASK='{ask}'; DTUNNEL={}\n{text}", env!("CARGO_BIN_EXE_dtunnel"));
    command.args(&keyring[1..]).args(["setsid", "--wait", "sh", "-c", &text]);
    command
}

/// What such a shell prints, in the kernel's keyring.
fn with_keyring(lab: &Lab, text: &str) -> String {
    crate::lab::run(&mut script(lab, KEYRINGS[0], text))
}

/// A second server, of somebody else, and an ssh_config that leads `lab` there. It takes the password, too.
struct Stranger {
    server: Sshd,
    dir: PathBuf,
}

impl Stranger {
    fn new(lab: &Lab) -> Self {
        let dir = lab.path("stranger");
        std::fs::create_dir_all(&dir).unwrap();
        Self { server: lab.another_sshd(&dir, PASSWORDS), dir }
    }

    fn passwords_sent(&self) -> usize {
        sent(&self.dir)
    }

    fn fingerprint(&self) -> String {
        fingerprint(&self.dir.join("host.pub"))
    }
}

fn fingerprint(key: &Path) -> String {
    crate::lab::run(Command::new("ssh-keygen").arg("-lf").arg(key)).split(' ').nth(1).unwrap().into()
}

/// Leads `lab`, known as `the-host`, to this port.
fn lead_to(lab: &Lab, port: u16, options: &str) {
    lab.write_ssh_config(&format!("  HostKeyAlias the-host\n{options}"));
    let text = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    let own = format!("Port {}", lab.sshd.port);
    std::fs::write(lab.path("ssh_config"), text.replace(&own, &format!("Port {port}"))).unwrap();
}

/// Has known_hosts name this key file for `the-host`, and no other.
fn know(lab: &Lab, key: &Path) {
    let key = std::fs::read_to_string(key).unwrap();
    std::fs::write(lab.path("known_hosts"), format!("the-host {key}")).unwrap();
}

#[test]
fn a_kept_password_is_not_given_to_somebody_in_between_whose_key_became_known() {
    let Some(lab) = lab() else { return };
    let stranger = Stranger::new(&lab);
    for keyring in KEYRINGS {
        lead_to(&lab, lab.sshd.port, "");
        know(&lab, &lab.path("host.pub"));
        // Everything happens in one session: its keyring ends with it.
        let steps = format!(
            "set -e; cd $HOME
             $ASK $DTUNNEL secret set lab --password 2>&1
             $DTUNNEL up lab -q; $DTUNNEL down lab -q; echo came up by itself
             cp ../ssh_config genuine; sed -i 's/Port {}/Port {}/' ../ssh_config; rm ../known_hosts
             set +e
             for run in 1 2; do $DTUNNEL up lab -q 2>&1; echo rc=$?; cat ../known_hosts | wc -l; done
             set -e
             # The right one is known by what is kept, whatever has become of known_hosts.
             cp genuine ../ssh_config; rm ../known_hosts
             $DTUNNEL up lab -q; $DTUNNEL down lab -q; echo came up again",
            lab.sshd.port, stranger.server.port
        );
        let before = passwords_sent(&lab);
        let said = crate::lab::run(&mut script(&lab, keyring, &steps));
        let (kept_for, shown) = (fingerprint(&lab.path("host.pub")), stranger.fingerprint());
        assert!(said.contains(&format!("for the host with the key {kept_for}\n")), "{said}");
        assert!(said.contains("came up by itself\n") && said.contains("came up again\n"), "{said}");
        assert_eq!(said.matches("rc=4\n1\n").count(), 2, "its key is known by the second time: {said}");
        let why = format!("it is kept for the host with the key {kept_for}, and this one has {shown}");
        assert_eq!(said.matches(&why).count(), 2, "{said}");
        let hint = "hint: if this is the right host, keep it for this key as well: dtunnel secret set lab --password";
        assert_eq!(said.matches(hint).count(), 2, "{said}");
        assert_eq!((stranger.passwords_sent(), passwords_sent(&lab) - before), (0, 2), "{keyring:?}");
    }
    assert!(!lab.log("lab").contains("secret\n"));
}

#[test]
fn a_password_that_was_kept_before_any_key_was_known_is_offered_to_nobody() {
    let Some(lab) = lab() else { return };
    for (policy, keyring) in [("accept-new", KEYRINGS[0]), ("no", KEYRINGS[1])] {
        lab.write_ssh_config(&format!("  StrictHostKeyChecking {policy}\n"));
        let _ = std::fs::remove_file(lab.path("known_hosts"));
        let before = passwords_sent(&lab);
        let steps = "$ASK $DTUNNEL secret set lab --password 2>&1
             $DTUNNEL secret list lab
             $DTUNNEL up lab -q 2>/dev/null; echo $?
             $DTUNNEL up lab -q 2>/dev/null; echo $?
             # With the key known, or a person who gives it there, it is for that key.
             $ASK $DTUNNEL secret set lab --password -q
             $DTUNNEL up lab -q; echo $?
             $DTUNNEL down lab -q";
        let said = crate::lab::run(&mut script(&lab, keyring, steps));
        let place = format!("password of root@{}", lab.sshd.name());
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].contains("for no host key yet"), "{said}");
        assert_eq!(lines[1..], [place.as_str(), "4", "4", "0"], "{policy}: {}", lab.log("lab"));
        assert_eq!(passwords_sent(&lab) - before, 1, "{policy}: only the third time");
    }
}

#[test]
fn who_gives_a_kept_password_to_another_key_keeps_it_for_both() {
    let Some(lab) = lab() else { return };
    let stranger = Stranger::new(&lab);
    lead_to(&lab, lab.sshd.port, "");
    know(&lab, &lab.path("host.pub"));
    let steps = format!(
        "set -e; cd $HOME
         $ASK $DTUNNEL secret set lab --password -q
         cp ../ssh_config genuine; sed -i 's/Port {}/Port {}/' ../ssh_config; rm ../known_hosts
         $ASK $DTUNNEL up lab -q; $DTUNNEL down lab -q; echo asked
         $DTUNNEL up lab -q; $DTUNNEL down lab -q; echo by itself
         cp genuine ../ssh_config; rm ../known_hosts
         $DTUNNEL up lab -q; $DTUNNEL down lab -q; echo at the first one, too",
        lab.sshd.port, stranger.server.port
    );
    assert_eq!(with_keyring(&lab, &steps), "asked\nby itself\nat the first one, too\n");
    let asked = std::fs::read_to_string(lab.path("home/asked")).unwrap();
    assert!(asked.contains(&format!("and this one has {}", stranger.fingerprint())), "told before: {asked}");
    assert_eq!((questions(&lab).len(), stranger.passwords_sent(), passwords_sent(&lab)), (2, 2, 1));
}

#[test]
fn a_password_in_memory_is_not_for_another_key_that_became_known() {
    let Some(mut lab) = lab() else { return };
    lead_to(&lab, lab.sshd.port, "");
    know(&lab, &lab.path("host.pub"));
    crate::lab::succeeded(&asked(&lab, &["up", "lab"]).output().unwrap());
    // Somebody takes the host's place, and has got known_hosts to name his key.
    lab.sshd.stop();
    lab.keygen("host", "ed25519", "");
    know(&lab, &lab.path("host.pub"));
    lab.sshd.start_again();
    wait_for("the failure", || (lab.state() == "failed").then_some(()));
    assert_eq!(passwords_sent(&lab), 1, "nothing went to the other one");
    assert!(lab.status("lab")["last_error"].to_string().contains("and this one has"), "{}", lab.status("lab"));
}

#[test]
fn a_password_that_a_certificate_vouched_for_is_for_its_authority() {
    let Some(mut lab) = lab() else { return };
    for authority in ["ca", "other-ca"] {
        lab.keygen(authority, "ed25519", "");
    }
    let known = |name: &str| {
        let key = std::fs::read_to_string(lab.path(&format!("{name}.pub"))).unwrap();
        format!("@cert-authority the-host {key}")
    };
    let known = known("ca") + &known("other-ca");
    let certified_by = |lab: &mut Lab, authority: &str| {
        lab.keygen("host", "ed25519", "");
        lab.certify(authority, "host", &["-h", "-n", "the-host"]);
        lab.reconfigure(&format!("{PASSWORDS}\nHostCertificate {{dir}}/host-cert.pub"));
        std::fs::write(lab.path("known_hosts"), &known).unwrap();
    };
    certified_by(&mut lab, "ca");
    lead_to(&lab, lab.sshd.port, "");
    // The keyring is the test's own, so that the servers can change between the steps.
    let mut keyring = Session::begin(&lab);
    assert_eq!(keyring.up("$ASK $DTUNNEL up lab --remember"), 0);
    certified_by(&mut lab, "ca");
    assert_eq!(keyring.up("$DTUNNEL up lab"), 0, "a new key of the same authority's");
    certified_by(&mut lab, "other-ca");
    assert_eq!(keyring.up("$DTUNNEL up lab"), 4, "another authority");
    assert_eq!(questions(&lab).len(), 1);
}

#[test]
fn a_password_is_for_the_keys_that_its_host_has_proved_to_have() {
    let Some(mut lab) = lab() else { return };
    lab.keygen("second", "ecdsa", "");
    lab.reconfigure(&format!("{PASSWORDS}\nHostKey {{dir}}/second"));
    lead_to(&lab, lab.sshd.port, "  UpdateHostKeys yes\n");
    know(&lab, &lab.path("host.pub"));
    let mut keyring = Session::begin(&lab);
    let learnt = |lab: &Lab| {
        let known = std::fs::read_to_string(lab.path("known_hosts")).unwrap();
        known.lines().count() == 2 && lab.log("lab").matches("kept the password").count() == 2
    };
    assert_eq!(keyring.run("$ASK $DTUNNEL up lab --remember -q"), 0);
    wait_for("the second key, known and kept", || learnt(&lab).then_some(()));
    // The one in memory is for it, too.
    for suffix in ["", ".pub"] {
        std::fs::copy(lab.path(&format!("second{suffix}")), lab.path(&format!("host{suffix}"))).unwrap();
    }
    lab.reconfigure(PASSWORDS);
    wait_for("the tunnel", || (passwords_sent(&lab) == 2 && lab.state() == "up").then_some(()));
    assert_eq!(keyring.run("$DTUNNEL down lab -q"), 0);
    assert_eq!(keyring.up("$DTUNNEL up lab"), 0);
    assert_eq!(questions(&lab).len(), 1);
}

/// A shell in a kernel's keyring that lives on between the test's steps.
struct Session {
    shell: std::process::Child,
    answers: std::io::BufReader<std::process::ChildStdout>,
}

impl Session {
    fn begin(lab: &Lab) -> Self {
        let mut command = script(lab, KEYRINGS[0], "while read -r line; do eval \"$line\"; echo \"=$?\"; done");
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = std::io::BufReader::new(shell.stdout.take().unwrap());
        Self { shell, answers }
    }

    /// Brings a tunnel up and down again; the exit code of its `up`.
    fn up(&mut self, line: &str) -> i32 {
        let code = self.run(&format!("{line} -q </dev/null"));
        self.run("$DTUNNEL down --all -q </dev/null");
        code
    }

    /// Runs a line; its exit code.
    fn run(&mut self, line: &str) -> i32 {
        writeln!(self.shell.stdin.as_mut().unwrap(), "{line}").unwrap();
        loop {
            let mut answer = String::new();
            assert!(self.answers.read_line(&mut answer).unwrap() > 0, "the shell has ended");
            if let Some(code) = answer.trim().strip_prefix('=') {
                return code.parse().unwrap();
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

#[test]
fn a_kept_password_is_for_the_name_and_the_way_that_it_was_kept_for() {
    let Some(lab) = lab() else { return };
    let (address, port, server) = (&lab.sshd.address, lab.sshd.port, lab.sshd.name());
    lab.write_ssh_config("");
    let rest = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    let hosts = "Host one\n  HostKeyAlias customer-one\nHost two\n  HostKeyAlias customer-two\nHost far\n  ProxyJump one\n\
                 Host command\n  ProxyCommand nc %h %p\n";
    let own = format!("Host one two far command\n  HostName {address}\n  Port {port}\n  User root\n");
    std::fs::write(lab.path("ssh_config"), format!("{hosts}{own}{rest}")).unwrap();
    let said = with_keyring(
        &lab,
        "for name in one far command; do $ASK $DTUNNEL secret set $name --password -q; done
         for name in one two far command; do echo $name: $($DTUNNEL secret list -q $name); done
         for name in one far command; do $DTUNNEL secret forget -q $name; done
         for name in one far command; do echo $name: $($DTUNNEL secret list -q $name); done",
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "one: password of root@customer-one");
    assert_eq!(lines[1], "two:");
    assert_eq!(lines[2], format!("far: password of root@{server} through one"));
    assert!(lines[3].starts_with(&format!("command: password of root@{server} through a ProxyCommand (")));
    assert_eq!(lines[4..], ["one:", "far:", "command:"]);
}

/// A host that is thrown away has no known key: what it got once is for that very key.
#[test]
fn a_password_in_memory_is_not_for_another_key_of_a_host_that_is_not_known() {
    let Some(mut lab) = lab() else { return };
    lab.write_ssh_config("  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n");
    crate::lab::succeeded(&asked(&lab, &["up", "lab"]).output().unwrap());
    lab.sshd.cut_sessions();
    wait_for("another login", || (passwords_sent(&lab) == 2).then_some(()));
    wait_for("the tunnel", || (lab.state() == "up").then_some(()));
    lab.sshd.stop();
    lab.keygen("host", "ed25519", "");
    lab.sshd.start_again();
    wait_for("the failure", || (lab.state() == "failed").then_some(()));
    assert_eq!(passwords_sent(&lab), 2, "nothing went to the other one");
    assert_eq!(questions(&lab).len(), 1);
}
