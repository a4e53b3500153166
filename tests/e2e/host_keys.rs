//! The verdict on a host's key, held against that of the real ssh on the same files.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::lab::sshd::Sshd;
use crate::lab::{Lab, run};

/// Keys of hosts, `NAME`, and others of the same types, `other-NAME`.
const KINDS: [(&str, &[&str]); 5] = [
    ("ed25519", &["-t", "ed25519"]),
    ("ecdsa256", &["-t", "ecdsa", "-b", "256"]),
    ("ecdsa384", &["-t", "ecdsa", "-b", "384"]),
    ("ecdsa521", &["-t", "ecdsa", "-b", "521"]),
    ("rsa", &["-t", "rsa"]),
];
const POLICIES: [&str; 4] = ["yes", "ask", "accept-new", "no"];
/// A far end that is not there: what comes so far has trusted the host.
const NOWHERE: [&str; 2] = ["--remote", "/nonexistent/docker.sock"];

/// What was thought of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thought {
    Trusted,
    Refused,
    /// As ssh puts it: the connection is made, without passwords and forwarding.
    Crippled,
}

struct World {
    lab: Lab,
    /// The host keys that the server has now.
    shown: std::cell::RefCell<Vec<String>>,
}

impl World {
    fn new() -> Self {
        Self::of(Lab::new(""))
    }

    fn of(lab: Lab) -> Self {
        for (name, options) in KINDS {
            lab.keygen_with(name, "", options);
            lab.keygen_with(&format!("other-{name}"), "", options);
        }
        for authority in ["ca", "other-ca"] {
            lab.keygen(authority, "ed25519", "");
        }
        Self { lab, shown: std::cell::RefCell::default() }
    }

    /// Has the server show these keys; `+` behind one adds a certificate.
    fn show(&mut self, keys: &[&str]) {
        if *self.shown.borrow() == keys {
            return;
        }
        let mut options = String::new();
        for (index, key) in keys.iter().enumerate() {
            let name = key.trim_end_matches('+');
            // The lab's server always has the key `host`.
            let file = if index == 0 { "host" } else { name };
            for suffix in ["", ".pub"] {
                if index == 0 {
                    let _ = std::fs::remove_file(self.lab.path(&format!("host{suffix}")));
                    std::fs::copy(self.lab.path(&format!("{name}{suffix}")), self.lab.path(&format!("host{suffix}")))
                        .unwrap();
                } else {
                    options += if suffix.is_empty() { "HostKey {dir}/" } else { "" };
                    options += if suffix.is_empty() { name } else { "\n" };
                }
            }
            if key.ends_with('+') {
                self.lab.certify("ca", file, &["-h", "-n", &self.lab.sshd.address]);
                options += &format!("HostCertificate {{dir}}/{file}-cert.pub\n");
            }
        }
        self.lab.reconfigure(&options);
        *self.shown.borrow_mut() = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    fn public(&self, key: &str) -> String {
        std::fs::read_to_string(self.lab.path(&format!("{key}.pub"))).unwrap()
    }

    /// Writes known_hosts: names and keys, some of the names hashed.
    fn know(&self, lines: &[(String, String, bool)]) {
        let file = self.lab.path("known_hosts");
        let text: String = lines.iter().map(|(names, key, _)| format!("{names} {}", self.public(key))).collect();
        std::fs::write(&file, text).unwrap();
        if lines.iter().any(|(.., hashed)| *hashed) {
            run(Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file));
        }
    }

    /// What ssh and dtunnel think, and what each has left in known_hosts.
    fn thoughts(&self, options: &str) -> ([Thought; 2], [String; 2], String) {
        let known_hosts = self.lab.path("known_hosts");
        let before = std::fs::read_to_string(&known_hosts).unwrap_or_default();
        self.lab.write_ssh_config(options);
        let mut ssh = Command::new("ssh");
        self.lab.set_env(&mut ssh);
        let output = ssh.arg("-F").arg(self.lab.path("ssh_config")).args(["-o", "BatchMode=yes", "lab", "true"]);
        let output = output.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ssh = match output.status.success() {
            false => Thought::Refused,
            true if said.contains("disabled to avoid man-in-the-middle") => Thought::Crippled,
            true => Thought::Trusted,
        };
        let by_ssh = read(&known_hosts);
        std::fs::write(&known_hosts, &before).unwrap();
        let output = self.lab.run(&[&["up", "lab"], &NOWHERE[..]].concat());
        let ours = match output.status.code() {
            Some(7) => Thought::Trusted,
            Some(5) => Thought::Refused,
            code => panic!("{code:?}: {}", String::from_utf8_lossy(&output.stderr)),
        };
        let by_us = read(&known_hosts);
        std::fs::write(&known_hosts, &before).unwrap();
        ([ssh, ours], [by_ssh, by_us], said + &String::from_utf8_lossy(&output.stderr))
    }

    /// Is one of the keys that are shown known under the host's name without its port?
    fn is_known_by_plain_name(&self) -> bool {
        let mut find = Command::new("ssh-keygen");
        let output =
            find.args(["-F", &self.lab.sshd.address, "-f"]).arg(self.lab.path("known_hosts")).output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        let shown = self.shown.borrow();
        let mut keys = shown.iter().map(|key| self.public(key.trim_end_matches('+')));
        keys.any(|key| {
            let mut lines = found.lines().filter(|line| !line.starts_with(['#', '@']));
            lines.any(|line| line.contains(key.split(' ').nth(1).unwrap()))
        })
    }

    /// Holds the two verdicts against each other.
    fn compare(&self, options: &str) -> Result<Thought, String> {
        let ([ssh, ours], [by_ssh, by_us], said) = self.thoughts(options);
        let about = || format!("{options}, shown {:?}, known:\n{by_us}\n{said}", self.shown.borrow());
        // What is revoked under the name without the port is revoked for us; ssh asks anew.
        let stricter = by_us.contains("@revoked") && ours == Thought::Refused;
        match (ssh, ours) {
            (Thought::Crippled, Thought::Refused) => {}
            // ssh was shown another one of its keys: it asks for certificates that it knows no authority of.
            (Thought::Refused, Thought::Trusted) if self.is_known_by_plain_name() => {}
            (ssh, ours) if ssh == ours || stricter => {}
            (ssh, ours) => return Err(format!("ssh: {ssh:?}, we: {ours:?}; {}", about())),
        }
        if (ssh, ours) == (Thought::Trusted, Thought::Trusted) && by_ssh != by_us && !options.contains("HashKnown") {
            return Err(format!("ssh has left in known_hosts:\n{by_ssh}\nand we, with {}", about()));
        }
        Ok(ours)
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The fault that this began with: known is a key of one type, and somebody in between shows another.
#[test]
fn a_key_of_another_type_is_a_changed_key_under_every_policy() {
    let mut world = World::new();
    let name = world.lab.sshd.name();
    let net = net_of(&world.lab.sshd.address);
    let mut seen = [0; 2];
    for (shown, _) in KINDS {
        world.show(&[shown]);
        for (known, _) in KINDS {
            // The names in their forms, taking turns.
            for (form, policy) in POLICIES.iter().enumerate().skip(if known == "ed25519" { 0 } else { 2 }) {
                let (pattern, hashed, more) = match (form + known.len() + shown.len()) % 4 {
                    0 => (name.clone(), false, ""),
                    1 => (name.clone(), true, ""),
                    2 => (format!("[{net}.*]:*,![{net}.255.255]:*"), false, "  UpdateHostKeys yes\n"),
                    _ => ("the-alias".into(), false, "  HostKeyAlias the-alias\n"),
                };
                world.know(&[(pattern, known.into(), hashed)]);
                let options = format!("  StrictHostKeyChecking {policy}\n{more}");
                let thought = world.compare(&options).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(thought == Thought::Trusted, known == shown, "{known} known, {shown} shown, {options}");
                seen[usize::from(known == shown)] += 1;
            }
        }
    }
    assert_eq!(seen, [48, 12]);
}

#[test]
fn nothing_goes_to_a_host_whose_key_has_changed_even_without_strict_checking() {
    let mut world = World::new();
    world.show(&["rsa"]);
    let name = world.lab.sshd.name();
    world.know(&[(name.clone(), "ed25519".into(), false)]);
    for policy in POLICIES {
        world.lab.write_ssh_config(&format!("  StrictHostKeyChecking {policy}\n"));
        let _ = std::fs::write(world.lab.path("sshd.log"), "");
        let stderr = world.lab.fails(5, &[&["up", "lab"], &NOWHERE[..]].concat());
        assert!(stderr.contains("CHANGED") && stderr.contains("ED25519") && stderr.contains("RSA"), "{stderr}");
        let log = read(&world.lab.path("sshd.log"));
        assert!(!log.contains("Accepted") && !log.contains("Failed"), "no login was tried: {log}");
    }
    // Hosts that are thrown away, as people do it: nothing is known, nothing has changed.
    world.lab.write_ssh_config("  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n");
    world.lab.fails(7, &[&["up", "lab"], &NOWHERE[..]].concat());
}

/// The first half of an address.
fn net_of(address: &str) -> String {
    address.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// Lines over the names and keys of this world, right and wrong ones alike.
fn known_hosts_lines(server: &Sshd) -> impl Strategy<Value = Vec<(String, String, bool)>> + use<> {
    let (address, port, name) = (&server.address, server.port, server.name());
    let patterns = [
        name.clone(),
        address.clone(),
        format!("[{}.*]:{port}", net_of(address)),
        format!("[{address}]:1"),
        "*".into(),
        format!("*,!{name}"),
        format!("elsewhere,[{}?]:{port}", &address[..address.len() - 1]),
        "elsewhere".into(),
        "the-alias".into(),
    ];
    let marker = prop_oneof![6 => Just(""), 2 => Just("@cert-authority "), 1 => Just("@revoked ")];
    let keys = prop_oneof![
        6 => prop::sample::select(KINDS.map(|(name, _)| name.to_owned()).to_vec()),
        2 => prop::sample::select(KINDS.map(|(name, _)| format!("other-{name}")).to_vec()),
        2 => Just("ca".to_owned()),
        1 => Just("other-ca".to_owned()),
    ];
    let line = (marker, prop::sample::select(patterns.to_vec()), keys)
        .prop_map(|(marker, pattern, key)| (format!("{marker}{pattern}"), key, false));
    prop::collection::vec(line, 0..5)
}

fn shown_keys() -> impl Strategy<Value = Vec<String>> {
    let key = (prop::sample::select(KINDS.map(|(name, _)| name).to_vec()), prop::bool::weighted(0.4));
    let named = key.prop_map(|(name, certified)| format!("{name}{}", if certified { "+" } else { "" }));
    prop::collection::vec(named, 1..4).prop_map(|mut keys| {
        let of = |key: &String| key.trim_end_matches('+').to_owned();
        keys.sort_by_key(of);
        keys.dedup_by_key(|key| of(key));
        keys
    })
}

#[test]
fn the_verdict_on_a_host_is_that_of_ssh() {
    let world = std::cell::RefCell::new(World::new());
    let lines = known_hosts_lines(&world.borrow().lab.sshd);
    let verdicts = [const { Cell::new(0) }; 2];
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig { failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::with_cases(40) },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let alias = prop_oneof![3 => Just(""), 1 => Just("  HostKeyAlias the-alias\n")];
    let result = runner.run(
        &(lines, shown_keys(), prop::sample::select(POLICIES.to_vec()), alias),
        |(lines, shown, policy, alias)| {
            let mut world = world.borrow_mut();
            world.show(&shown.iter().map(String::as_str).collect::<Vec<_>>());
            world.know(&lines);
            let options = format!("  StrictHostKeyChecking {policy}\n{alias}");
            let thought = world.compare(&options).map_err(TestCaseError::fail)?;
            let verdict = &verdicts[usize::from(thought == Thought::Trusted)];
            verdict.set(verdict.get() + 1);
            Ok(())
        },
    );
    if let Err(e) = result {
        panic!("{e}");
    }
    assert!(verdicts.iter().all(|count| count.get() >= 10), "both verdicts: {verdicts:?}");
}

/// What else ssh_config may say of whom we trust: ours is ssh's verdict or a stricter one. (On this machine's
/// loopback, which one of the options is about.)
#[test]
fn without_a_file_for_new_keys_or_with_no_checks_at_all_the_verdict_is_that_of_ssh_or_stricter() {
    let mut world = World::of(Lab::near());
    let name = world.lab.sshd.name();
    let mut seen = Vec::new();
    let (none, own, other) = (None, Some("ed25519"), Some("other-ed25519"));
    // Options, the key that is shown, those that may be known, policies.
    type Case<'a> = (&'a str, &'a str, &'a [Option<&'a str>], &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        ("UserKnownHostsFile none", "ed25519", &[none], &POLICIES),
        (
            "UserKnownHostsFile NONE\n  GlobalKnownHostsFile {dir}/known_hosts",
            "ed25519",
            &[none, own, other],
            &POLICIES[2..],
        ),
        ("UserKnownHostsFile /dev/null", "ed25519", &[own], &POLICIES),
        (
            "UserKnownHostsFile /dev/null\n  GlobalKnownHostsFile {dir}/known_hosts",
            "ed25519",
            &[own, other],
            &POLICIES[2..],
        ),
        ("NoHostAuthenticationForLocalhost yes", "ed25519", &[none, other], &POLICIES),
        ("RequiredRSASize 4096", "rsa", &[none, Some("rsa")], &POLICIES[2..]),
    ];
    for (more, shown, knowns, policies) in cases {
        world.show(&[shown]);
        for (known, policy) in knowns.iter().flat_map(|known| policies.iter().map(move |policy| (known, policy))) {
            world.know(&known.map(|key| (name.clone(), key.into(), false)).into_iter().collect::<Vec<_>>());
            let more = more.replace("{dir}", &world.lab.dir.path().display().to_string());
            let options = format!("  StrictHostKeyChecking {policy}\n  {more}\n");
            let ([ssh, ours], _, said) = world.thoughts(&options);
            let about = format!("{options}, shown {shown}, known {known:?}: ssh {ssh:?}, we {ours:?}; {said}");
            assert!(ours == Thought::Refused || ours == ssh, "{about}");
            // Stricter only where ssh would go on with less.
            assert!(ssh == Thought::Crippled || ours == ssh, "{about}");
            seen.push((more, ours));
        }
    }
    for (more, thought) in [("none", Thought::Refused), ("/dev/null", Thought::Trusted), ("4096", Thought::Refused)] {
        assert!(seen.iter().any(|(options, ours)| options.ends_with(more) && *ours == thought), "{more}: {seen:?}");
    }
}

/// CASignatureAlgorithms, and RequiredRSASize for the user's own key: the verdict is that of ssh.
#[test]
fn what_a_signature_and_a_key_have_to_be_is_obeyed() {
    let mut world = World::new();
    let name = world.lab.sshd.name();
    world.show(&["ed25519+"]);
    world.know(&[(format!("@cert-authority {name}"), "ca".into(), false)]);
    for (algorithms, thought) in [
        ("ssh-ed25519", Thought::Trusted),
        ("+ssh-rsa", Thought::Trusted),
        ("rsa-sha2-512", Thought::Refused),
        ("-ssh-ed25519", Thought::Refused),
    ] {
        let options = format!("  StrictHostKeyChecking yes\n  CASignatureAlgorithms {algorithms}\n");
        assert_eq!(world.compare(&options), Ok(thought), "{options}");
    }
    world.show(&["ed25519"]);
    world.know(&[(name, "ed25519".into(), false)]);
    world.lab.keygen_with("user", "", &["-t", "rsa", "-b", "2048"]);
    world.lab.authorize("user");
    for (size, (ssh, code)) in [("2048", (true, 7)), ("2049", (false, 4))] {
        world.lab.write_ssh_config(&format!("  RequiredRSASize {size}\n"));
        let mut login = Command::new("ssh");
        world.lab.set_env(&mut login);
        login.arg("-F").arg(world.lab.path("ssh_config")).args(["-o", "BatchMode=yes", "lab", "true"]);
        assert_eq!(login.output().unwrap().status.success(), ssh, "{size}");
        world.lab.fails(code, &[&["up", "lab"], &NOWHERE[..]].concat());
    }
}
