//! What is not said.

use crate::lab::Lab;

/// Debian, Ubuntu and Fedora have this for all hosts: no reason for a word.
const STOCK: &str = "  SendEnv LANG LC_*\n  HashKnownHosts yes\n  GSSAPIAuthentication yes";

#[test]
fn the_ssh_config_of_a_distribution_is_no_reason_for_a_warning() {
    let lab = Lab::new("");
    lab.write_ssh_config(STOCK);
    let output = lab.run(&["up", "lab", "--lazy"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    assert!(!lab.log("lab").to_lowercase().contains("gssapi"), "{}", lab.log("lab"));
}

#[test]
fn a_way_to_log_in_that_is_missing_is_named_where_a_login_fails_for_want_of_it() {
    let lab = Lab::new("");
    std::fs::write(lab.path("authorized_keys"), "").unwrap();
    lab.write_ssh_config(STOCK);
    // Without a ticket it would not have helped.
    let up = |ticket: bool, carrier: &str| {
        let mut up = lab.dtunnel(["up", "lab", "--carrier", carrier]);
        if ticket {
            up.env("KRB5CCNAME", "FILE:/nonexistent");
        }
        let output = up.output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    if !std::path::Path::new(&format!("/tmp/krb5cc_{}", rustix::process::getuid().as_raw())).exists() {
        assert!(!up(false, "native").contains("GSSAPI"));
    }
    let stderr = up(true, "native");
    assert!(
        stderr.contains("ssh_config sets GSSAPIAuthentication for this host, which dtunnel's own SSH does not have"),
        "{stderr}"
    );
    // Where ssh was tried, too, it is no hint any more; our own login tells of the keys.
    let stderr = up(true, "auto");
    assert!(!stderr.contains("GSSAPI") && stderr.contains("the server refused"), "{stderr}");
    assert!(lab.log("lab").contains("the machine's ssh carries this tunnel"), "{}", lab.log("lab"));
}

#[test]
fn quiet_says_nothing_but_errors_and_what_was_asked_for() {
    let lab = Lab::new("");
    lab.write_ssh_config("  VerifyHostKeyDNS yes");
    lab.write_config(&format!("ssh_config = {:?}\n[defaults]\ncarrier = \"native\"\n", lab.path("ssh_config")));
    let silent = |arguments: &[&str]| {
        let output = lab.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(silent(&["up", "lab", "--lazy", "-q"]), "");
    assert_eq!(silent(&["up", "lab", "-q"]), "");
    assert_eq!(silent(&["restart", "lab", "-q"]), "");
    assert_eq!(silent(&["reload", "lab", "-q"]), "");
    assert!(silent(&["status", "-q"]).contains("lab"));
    assert_eq!(silent(&["ports", "lab", "-q"]), "");
    assert_eq!(silent(&["down", "lab", "-q"]), "");
    assert_eq!(silent(&["down", "lab", "-q"]), "");
    assert_eq!(silent(&["status", "-q"]), "");
    assert_eq!(silent(&["profile", "import", "-q"]), "");
    assert_eq!(silent(&["profile", "add", "x", "h", "-q"]), "");
    assert_eq!(silent(&["profile", "remove", "x", "-q"]), "");
    assert!(silent(&["config", "check", "-q"]).contains("no faults"));
    // What weakens trust is said where nobody asked for quiet.
    let output = lab.run(&["up", "lab", "--lazy"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("`verifyhostkeydns`"), "{output:?}");
}

#[test]
fn of_several_tunnels_each_is_a_line() {
    let lab = Lab::new("");
    let profiles: String = (0..12).map(|n| format!("[profiles.p{n}]\nhost = \"lab\"\nlazy = true\n")).collect();
    lab.write_config(&format!("ssh_config = {:?}\n{profiles}", lab.path("ssh_config")));
    let said = lab.ok(&["up", "--all"]);
    assert_eq!(said.lines().count(), 12, "{said}");
    assert!(said.lines().all(|line| line.starts_with("✔ p") && line.contains(" is ready")), "{said}");
    assert_eq!(lab.ok(&["up", "p0"]).lines().count(), 2);
}
