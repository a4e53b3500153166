//! Compared with ssh-keygen where possible.

use std::fs::OpenOptions;
use std::io::Write;

use proptest::prelude::*;

use super::edit::write_line;
use super::entries::MAX_FILE;
use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

fn key(text: &str) -> PublicKey {
    text.parse().expect("a key")
}

fn check(contents: &str, name: &str, with: &str) -> HostKeyVerdict {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), contents).expect("written");
    KnownKeys::of(name, &[file.path().into()]).check(&key(with))
}

#[test]
fn a_key_is_known_unknown_changed_or_revoked() {
    assert!(matches!(check(&format!("host {KEY}\n"), "host", KEY), HostKeyVerdict::Known));
    assert!(matches!(check(&format!("other {KEY}\n"), "host", KEY), HostKeyVerdict::Unknown));
    let HostKeyVerdict::Changed(known) = check(&format!("# c\nhost {OTHER}\n"), "host", KEY) else {
        panic!("not changed")
    };
    assert_eq!(known.line, 2);
    let both = format!("host {OTHER}\nhost {KEY}\n");
    assert!(matches!(check(&both, "host", KEY), HostKeyVerdict::Known), "a second key of the type is fine");
    let of_another_type = format!("host {ECDSA}\n");
    assert!(matches!(check(&of_another_type, "host", KEY), HostKeyVerdict::Changed(KnownKey { line: 1, .. })));
    for comment in ["#", "# ", "  #", "#a,"] {
        assert!(
            matches!(check(&format!("\n{comment}host {KEY}\n"), "host", KEY), HostKeyVerdict::Unknown),
            "{comment}"
        );
    }
    let marked = format!("@cert-authority * {OTHER}\n@revoked * {ECDSA}\n");
    assert!(matches!(check(&marked, "host", KEY), HostKeyVerdict::Unknown), "only plain keys are the host's");
}

#[test]
fn a_key_is_revoked_by_itself_or_with_its_authority() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("host {KEY}\n@revoked * {KEY}\n")).expect("written");
    let known = KnownKeys::of("host", &[file.path().into()]);
    let (bad, good) = (key(KEY), key(OTHER));
    assert_eq!(known.revoked(&[bad.key_data()]).map(|known| known.line), Some(2));
    assert_eq!(known.revoked(&[good.key_data(), bad.key_data()]).map(|known| known.line), Some(2));
    assert!(known.revoked(&[good.key_data()]).is_none());
}

#[test]
fn what_may_revoke_a_key_is_read_or_nothing_is_trusted() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let known = |text: &str| {
        std::fs::write(file.path(), text).expect("written");
        KnownKeys::of("host", &[file.path().into()])
    };
    let bad = key(KEY);
    // ssh ends a line at a NUL.
    for text in [format!("@revoked * {KEY}\0\n"), format!("@revoked * {KEY}\0 \0rest\n")] {
        assert!(known(&text).revoked(&[bad.key_data()]).is_some(), "{text:?}");
    }
    let half = &KEY[..KEY.len() - 9];
    for text in
        ["@revoked", "@revoked\t*", "@revoked * ssh-ed25519", &format!(" @revoked h?st {half}"), "@revoked |1|x y z"]
    {
        let known = known(&format!("host {KEY}\n{text}\n"));
        let unread = known.unread().unwrap_or_else(|| panic!("{text:?}"));
        assert!(unread.contains(":2 begins with @revoked"), "{unread}");
    }
    // A key type that dtunnel does not request: it is read, and revokes no other key.
    let dsa = "ssh-dss AAAAB3NzaC1kc3MAAACBALy1DE9jEY+YjlFmLYzQH6DfXE1J0fGHjW6YKVpKLJ/0kvaAoySLnorv7AOIlSpAwshUL2Gmbeud6t8SIbPWy7TBqAHMjd/CGKxPa4bCG03vDhkswNW4iGurQ4EeCHJdM0MiZQO36rmlWeqhxDJ5IaR7yn6DtTMetIyKpCQvZ0D1AAAAFQDGNf6Tj6fW+EGDeJ8bKs6IAhm/KQAAAIBMK37TxrYrdQ3WP39L1snSY+kJfSJ6kHwwTJhvDXbWvo7n0rYAQix7/uwxoKsaMcfETkAaQ7JFXm3aiUhG2kb/JKmMGQeVR+ptR7dPG+imHI0SymNewljmLdvrrSQWgT/GXTqTEPS3aZKUuYI6vIGsTdLeCRtpYZnkMFwIplUx+gAAAIEAoz222gr010xkQbpT3fZp0da3zw+TGZ0LPMT4hSozEIKJ4prXldR0TW0gB/PGgw9NwDutvAAHcHbKUhXJSbj6fl2jCuMRNUcjgDiXzrTzQhbLvLe3yaXxo6C1S/q9cpvvzfqHEI8qkR4V9YGiddVjp6pOV3IPjYmQDshXj+kHfDA=";
    for text in [
        format!("@revoked * {dsa}"),
        format!("@revoked other {half}"),
        format!("@revoked *,!host {half}"),
        "nonsense".into(),
    ] {
        assert_eq!(known(&text).unread(), None, "{text:?}");
    }
    file.as_file().set_len(MAX_FILE).expect("as large");
    assert_eq!(KnownKeys::of("host", &[file.path().into()]).unread(), None);
    file.as_file().set_len(MAX_FILE + 1).expect("as large");
    let known = KnownKeys::of("host", &[file.path().into()]);
    assert!(known.unread().is_some_and(|reason| reason.ends_with("has more than 33554432 bytes")));
    assert_eq!(KnownKeys::of("host", &["/nonexistent".into(), "/".into()]).unread(), None, "as for ssh");
    // Offset 0 of a process's memory cannot be read.
    #[cfg(target_os = "linux")]
    assert!(
        KnownKeys::of("host", &["/proc/self/mem".into()]).unread().is_some_and(|why| why.contains("cannot be read"))
    );
}

#[test]
fn a_host_is_looked_up_under_its_name_and_port() {
    for (host, port, name) in [("Host", 22, "host"), ("host", 2222, "[host]:2222"), ("fe80::1", 22, "fe80::1")] {
        assert_eq!(lookup_name(host, port), name);
    }
}

#[test]
fn a_name_with_a_meaning_of_its_own_is_not_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    for name in ["*", "ho?t", "a,b", "!a", "a b", "a\nb", "@revoked", "|1|x", "", "[*]:22", "[a]:b"] {
        assert!(append(&file, name, false, &key(KEY)).is_err(), "{name:?}");
    }
    for name in ["host", "[host]:22", "fe80::1%eth0", "[fe80::1]:2222"] {
        append(&file, name, false, &key(KEY)).expect("written");
    }
}

#[test]
fn patterns_are_matched_as_ssh_does() {
    let matches = |patterns: &str, name: &str| super::matches(&patterns.parse().expect("patterns"), name);
    assert!(matches("*.example.com,!bad.example.com", "a.example.com"));
    assert!(!matches("*.example.com,!bad.example.com", "bad.example.com"));
    assert!(matches("[h?st]:2222", "[host]:2222"));
    assert!(!matches("host", "[host]:2222"));
    assert!(matches("HOST", "host"));
    assert!(!matches("ho*t", "hose"));
    assert!(matches("*a*b*", "xxaxxbxx"));
}

#[test]
fn a_name_written_plain_or_hashed_is_found_again() {
    let dir = tempfile::tempdir().expect("a directory");
    for hashed in [false, true] {
        let file = dir.path().join(format!("new/{hashed}"));
        append(&file, "[host]:2222", hashed, &key(KEY)).expect("written");
        std::fs::write(&file, std::fs::read_to_string(&file).expect("read").trim_end()).expect("written");
        append(&file, "second", hashed, &key(OTHER)).expect("written after a line without its newline");
        let known = |name: &str, k: &str| KnownKeys::of(name, std::slice::from_ref(&file)).check(&key(k));
        assert!(matches!(known("[host]:2222", KEY), HostKeyVerdict::Known));
        assert!(matches!(known("second", OTHER), HostKeyVerdict::Known));
        assert!(matches!(known("host", KEY), HostKeyVerdict::Unknown));
        assert_eq!(std::fs::read_to_string(&file).expect("read").contains("second"), !hashed);
    }
}

#[cfg(unix)]
#[test]
fn lines_are_taken_out_and_the_others_stay_as_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, link) = (dir.path().join("known_hosts"), dir.path().join("link"));
    let before = [
        b"# \xff\nhost   ".to_vec(),
        format!("{KEY} mine\nhost {OTHER}\n*,host {KEY}\n@revoked host {KEY}\nelsewhere {KEY}\r\n").into_bytes(),
        format!("broken\nhost,10.0.0.1 {KEY}").into_bytes(),
    ]
    .concat();
    std::fs::write(&file, &before).expect("written");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    assert_eq!(remove(&link, "nobody", &[&key(KEY)]).expect("read"), 0);
    assert!(!dir.path().join("known_hosts.old").exists());
    assert_eq!(remove(&link, "host", &[&key(KEY), &key(ECDSA)]).expect("removed"), 2);
    let after = [
        b"# \xff\n".to_vec(),
        format!("host {OTHER}\n*,host {KEY}\n@revoked host {KEY}\nelsewhere {KEY}\r\nbroken\n").into_bytes(),
    ]
    .concat();
    assert_eq!(std::fs::read(&file).expect("read"), after);
    assert_eq!(std::fs::read(dir.path().join("known_hosts.old")).expect("kept"), before);
    assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink(), "a link stays one");
}

#[test]
fn what_is_known_of_a_name_is_told_by_what_marks_its_lines() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let known = |text: &str| {
        std::fs::write(file.path(), text).expect("written");
        KnownKeys::of("host", &[file.path().into()])
    };
    let types = |text: &str| known(text).key_types().iter().map(ToString::to_string).collect::<Vec<_>>();
    let plain_ones = format!("host {ECDSA}\n@cert-authority host {KEY}\nother {KEY}\n");
    assert_eq!(types(&plain_ones), ["ecdsa-sha2-nistp256"]);
    let all = format!("host {KEY}\n@cert-authority * {ECDSA}\nhost,more {KEY}\n@revoked * {OTHER}\n");
    let all = known(&all);
    assert_eq!(all.authorities().collect::<Vec<_>>(), [&key(ECDSA)]);
    let (plain, authority) = (Identity::of_key(&key(KEY)), Identity::of_authority(&key(ECDSA)));
    assert_eq!(all.identities(), [plain.clone(), authority], "each once");
    assert!(all.has_revoked());
    // A revoked key does not identify a host, in whichever line it is revoked.
    let revoked = known(&format!("host {KEY}\n@cert-authority * {ECDSA}\n@revoked * {ECDSA}\n"));
    assert_eq!(revoked.identities(), [plain]);
    assert!(!known(&format!("host {KEY}\n@cert-authority * {ECDSA}\n@revoked other {OTHER}\n")).has_revoked());
    // Of several other keys, the one of the same type is reported.
    let HostKeyVerdict::Changed(other) = known(&format!("host {ECDSA}\nhost {OTHER}\n")).check(&key(KEY)) else {
        panic!("not changed")
    };
    assert_eq!(other.line, 2);
}

#[test]
fn lines_are_the_hosts_a_patterns_or_others() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let salted = file.path().with_extension("hashed");
    write_line(&salted, "host", true, &key(KEY)).expect("written");
    let hashed = std::fs::read_to_string(&salted).expect("read");
    std::fs::remove_file(&salted).expect("removed");
    for (line, of) in [
        (format!("host {KEY}"), Spoken::Host),
        (format!("host,10.0.0.1 {KEY}"), Spoken::Host),
        (format!("host,10.0.0.1,more {KEY}"), Spoken::Complex),
        (format!("h* {KEY}"), Spoken::Complex),
        (format!("host,!other {KEY}"), Spoken::Complex),
        (format!("other {KEY}"), Spoken::Others),
        (format!("a,b,c {KEY}"), Spoken::Others),
        (hashed.trim_end().to_owned(), Spoken::Host),
    ] {
        std::fs::write(file.path(), format!("# a comment\nbroken\n{line}\n")).expect("written");
        let lines = all_lines("host", &[file.path().into()]);
        let found: Vec<_> = lines.iter().map(|line| (line.of, line.known.line, line.known.key.clone())).collect();
        assert_eq!(found, [(of, 3, key(KEY))], "{line}");
    }
    let text = format!("a,b {KEY}\n@revoked c {KEY}\nd {OTHER}\n{hashed}");
    std::fs::write(file.path(), text).expect("written");
    let place = file.path().display();
    let expected = [format!("a,b ({place}:1)"), format!("[hashed name] ({place}:4)")];
    assert_eq!(other_names(&key(KEY), &[file.path().into()]), expected);
}

#[test]
fn a_file_that_is_too_large_or_cannot_be_replaced_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    let line = format!("host {KEY}\n");
    for (size, fits) in [(MAX_FILE, true), (MAX_FILE + 1, false)] {
        std::fs::write(&file, &line).expect("written");
        OpenOptions::new().write(true).open(&file).expect("opened").set_len(size).expect("as large");
        assert_eq!(remove(&file, "host", &[&key(KEY)]).ok(), fits.then_some(1), "{size}");
    }
    assert_eq!(std::fs::metadata(&file).expect("there").len(), MAX_FILE + 1);
    // A directory in place of the backup file is not removed.
    std::fs::remove_file(dir.path().join("known_hosts.old")).expect("of the first one");
    std::fs::create_dir(dir.path().join("known_hosts.old")).expect("created");
    std::fs::write(&file, &line).expect("written");
    let kept = remove(&file, "host", &[&key(KEY)]).expect_err("a directory");
    assert_ne!(kept.kind(), std::io::ErrorKind::AlreadyExists, "what keeps it from going away is told");
    assert_eq!(std::fs::read_to_string(&file).expect("read"), line);
    // Two hashed lines for one name differ.
    let hashed = dir.path().join("hashed");
    for _ in 0..2 {
        append(&hashed, "host", true, &key(KEY)).expect("written");
    }
    let hashed = std::fs::read_to_string(&hashed).expect("read");
    let lines: Vec<&str> = hashed.lines().collect();
    assert!(lines.len() == 2 && lines[0] != lines[1], "{hashed}");
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "host",
        "HOST",
        "hos",
        "[host]:2222",
        "[host]:22",
        "a.example.com",
        "b.example.com",
        "10.0.0.1",
    ])
    .prop_map(Into::into)
}

/// A first field: names, patterns and negations.
fn field() -> impl Strategy<Value = String> {
    let pattern = prop_oneof![
        names(),
        prop::sample::select(vec!["*", "h*t", "h?st", "*.example.com", "a.*", "[*]:2222", "10.0.0.?", "**t", "*?*"])
            .prop_map(String::from),
    ];
    let item = (prop::bool::weighted(0.2), pattern).prop_map(|(not, p)| if not { format!("!{p}") } else { p });
    prop::collection::vec(item, 1..4).prop_map(|items| items.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    /// Compared with ssh-keygen(1): the lines that match a name.
    #[test]
    fn the_lines_found_are_those_that_ssh_keygen_finds(
        lines in prop::collection::vec((prop::sample::select(vec!["", "@cert-authority ", "@revoked ", "# ", "\t"]), field(), any::<bool>()), 0..8),
        name in names(),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("known_hosts");
        for (marker, field, hashed) in &lines {
            if *hashed {
                write_line(&file, &field.to_ascii_lowercase(), true, &key(KEY)).expect("written");
            } else {
                let mut file = OpenOptions::new().append(true).create(true).open(&file).expect("opened");
                writeln!(file, "{marker}{field}  {KEY} comment").expect("written");
            }
        }
        let _ = OpenOptions::new().append(true).create(true).open(&file).expect("opened");
        let name = name.to_ascii_lowercase();
        let output = std::process::Command::new("ssh-keygen").arg("-F").arg(&name).arg("-f").arg(&file).output();
        let output = String::from_utf8(output.expect("ssh-keygen").stdout).expect("text");
        let found: Vec<usize> = output
            .lines()
            .filter_map(|line| line.strip_prefix("# Host ")?.split_once(": line ")?.1.split(' ').next()?.parse().ok())
            .collect();
        let ours: Vec<usize> = KnownKeys::of(&name, &[file]).keys.iter().map(|known| known.line).collect();
        prop_assert_eq!(ours, found, "{}", output);
    }
}
