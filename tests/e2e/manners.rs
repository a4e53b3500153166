//! How the command line treats people: words for the same, errors for programs, what is broken elsewhere.

use std::process::Stdio;

use serde_json::Value;

use crate::lab::Lab;
use crate::lab::pty::Person;

const DTUNNEL: &str = env!("CARGO_BIN_EXE_dtunnel");

#[test]
fn commands_have_the_names_that_people_try() {
    let lab = Lab::new("");
    lab.ok(&["start", "lab", "--lazy", "-d"]);
    for list in ["status", "ls", "ps", "list"] {
        assert!(lab.ok(&[list]).contains("lab   idle"), "{list}");
    }
    lab.ok(&["stop", "lab"]);
    assert!(lab.ok(&["help"]).contains("Usage: dtunnel"));
    assert_eq!(lab.ok(&["help", "up"]), lab.ok(&["up", "--help"]));
    assert_eq!(lab.ok(&["help", "profile", "add"]), lab.ok(&["profile", "add", "--help"]));
    let stderr = lab.fails(2, &["down"]);
    assert!(stderr.contains("no target was given; `dtunnel down --all` takes down every one that is up"), "{stderr}");
}

#[test]
fn the_version_names_its_build() {
    let lab = Lab::new("");
    let line = lab.ok(&["--version"]);
    assert_eq!((lab.ok(&["version"]), lab.ok(&["-V"])), (line.clone(), line.clone()));
    let version: Value = serde_json::from_str(&lab.ok(&["version", "--json"])).unwrap();
    let target = version["target"].as_str().unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(target.split('-').count() >= 3, "{target}");
    // Debug builds are made of no commit.
    let made_of = match (version["commit"].as_str(), version["date"].as_str()) {
        (Some(commit), Some(date)) => format!("{commit} {date}"),
        _ => "debug build".into(),
    };
    assert_eq!(line, format!("dtunnel {} ({made_of}, {target})\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_name_that_is_nothing_known_is_exit_3_with_the_nearest_one() {
    let lab = Lab::new("");
    lab.write_config(&format!("ssh_config = {:?}\n[profiles.prod-1]\n[profiles.staging]\n", lab.path("ssh_config")));
    lab.ok(&["down", "prod-1"]);
    lab.ok(&["down", "lab"]);
    for command in ["down", "restart", "reload", "top", "logs", "ports"] {
        let stderr = lab.fails(3, &[command, "prod1"]);
        assert!(stderr.contains("error: `prod1` is neither a profile nor a tunnel"), "{command}: {stderr}");
        assert!(stderr.contains("hint: did you mean `prod-1`?"), "{command}: {stderr}");
        let stderr = lab.fails(3, &[command, "zzz"]);
        assert!(stderr.contains("dtunnel profile list"), "{command}: {stderr}");
    }
    // The others are taken down all the same.
    lab.ok(&["up", "lab", "--lazy"]);
    let stderr = lab.fails(3, &["down", "nosuch", "lab"]);
    assert!(stderr.contains("lab is down") && stderr.contains("`nosuch` is neither"), "{stderr}");
    // A target that was up once is known, whatever it is.
    let target = format!("{}@{}:{}", crate::lab::whoami(), lab.sshd.address, lab.sshd.port);
    lab.ok(&["up", &target, "--lazy"]);
    lab.ok(&["down", &target]);
    lab.ok(&["down", &target]);
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_can() {
    let lab = Lab::new("");
    let stderr = lab.fails(2, &["status", "--watch=0"]);
    assert!(stderr.contains("100ms at least"), "{stderr}");
    let engine = lab.path("remote/x.sock");
    crate::lab::remote::serve(&engine, crate::lab::remote::echo);
    lab.ok(&["up", "lab", "--remote", engine.to_str().unwrap()]);
    let stderr = lab.fails(127, &["exec", "lab", "--timeout", "2s", "--", "true"]);
    assert!(stderr.contains("options of dtunnel's own go before TARGET"), "{stderr}");
}

#[test]
fn errors_are_objects_under_json() {
    let lab = Lab::new("");
    lab.write_config("[profiles.prod-1]\n");
    for (code, kind, arguments) in [
        (3, "not-up", &["down", "prod1", "--json"][..]),
        (3, "not-up", &["status", "prod-1", "--json"]),
        (6, "unreachable", &["up", "u@127.0.0.1:1", "--json"]),
        (2, "usage", &["status", "--json", "--nosuch"]),
        (2, "usage", &["profile", "show", "nosuch", "--json"]),
        (3, "not-up", &["reload", "prod-1", "--json"]),
    ] {
        let stderr = lab.fails(code, arguments);
        let last = stderr.lines().last().unwrap_or_default();
        let object: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {arguments:?}: {stderr}"));
        assert_eq!((&object["error"]["code"], &object["error"]["kind"]), (&code.into(), &kind.into()), "{stderr}");
        assert!(object["error"]["message"].is_string() && object["error"]["causes"].is_array(), "{stderr}");
        assert!(stderr.lines().all(|line| line.starts_with('{')), "{stderr}");
    }
}

#[test]
fn every_command_that_tells_something_tells_programs_too() {
    let lab = Lab::new("");
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nuser = \"me\"\nlazy = true\n",
        lab.path("ssh_config")
    ));
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&lab.ok(arguments)).unwrap() };
    assert_eq!(json(&["profile", "show", "lab", "--json"]), serde_json::json!({ "user": "me", "lazy": true }));
    assert_eq!(json(&["config", "check", "--json"])["ok"], true);
    assert_eq!(json(&["up", "lab", "--json"])[0]["state"], "idle");
    assert_eq!(json(&["reload", "lab", "--json"]), serde_json::json!([{ "name": "lab", "warnings": [] }]));
    assert_eq!(json(&["restart", "lab", "--json"])[0]["state"], "idle");
    assert_eq!(json(&["down", "lab", "--json"]), serde_json::json!([{ "name": "lab", "was_up": true }]));
    assert_eq!(json(&["down", "lab", "--json"]), serde_json::json!([{ "name": "lab", "was_up": false }]));
    assert_eq!(json(&["down", "--all", "--json"]), serde_json::json!([]));
    let made = json(&["context", "create", "lab", "--json"]);
    let host = format!("unix://{}", lab.socket("lab").display());
    assert_eq!(made, serde_json::json!({ "context": "lab", "host": host, "current": false }));
    assert_eq!(json(&["context", "use", "lab", "--json"])["current"], true);
    assert!(json(&["context", "remove", "lab", "--json"])["host"].is_null());
}

#[test]
fn a_broken_configuration_does_not_keep_running_tunnels_out_of_reach() {
    let lab = Lab::new("");
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.prod-1]\nhost = \"lab\"\nlazy = true\n",
        lab.path("ssh_config")
    ));
    lab.ok(&["up", "prod-1"]);
    lab.write_config("[profiles.prod-1]\nhots = 1\n");
    let output = lab.run(&["env", "prod-1"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("prod-1.sock"));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("warning: continuing without the configuration") && stderr.contains("unknown key `hots`"),
        "{stderr}"
    );
    assert!(lab.ok(&["logs", "prod-1"]).contains("INFO"));
    assert!(lab.ok(&["status", "prod-1"]).contains("idle"));
    assert_eq!(lab.ok(&["exec", "prod-1", "--", "sh", "-c", "echo $DTUNNEL"]), "prod-1\n");
    // Nothing is taken down that would not come up again, and what does not run needs the file.
    lab.fails(2, &["restart", "prod-1"]);
    assert!(lab.fails(2, &["reload", "prod-1"]).contains("prod-1: keeping the old settings: "));
    lab.ok(&["status", "prod-1"]);
    lab.fails(2, &["env", "prod-2"]);
    lab.ok(&["down", "prod-1"]);
    lab.fails(2, &["env", "prod-1"]);
}

#[test]
fn empty_variables_are_as_if_not_set() {
    let lab = Lab::new("");
    let path = |value: &str| {
        let mut command = lab.dtunnel(["profile", "path"]);
        command.env("DTUNNEL_CONFIG", value).output().unwrap()
    };
    let output = path("");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("/dtunnel/config.toml\n"));
    assert_eq!(String::from_utf8_lossy(&path("/x/y.toml").stdout), "/x/y.toml\n");
}

#[test]
fn lengths_of_time_and_endpoints_are_taken_as_people_write_them() {
    let lab = Lab::new("");
    lab.ok(&["up", "lab", "--lazy", "--timeout", "20", "--local", lab.path("mine.sock").to_str().unwrap()]);
    assert_eq!(lab.status("lab")["local"], format!("unix://{}", lab.path("mine.sock").display()));
    lab.ok(&["up", "lab2", "--lazy", "--local", &format!("unix://{}", lab.path("two.sock").display())]);
    assert_eq!(lab.status("lab2")["local"], format!("unix://{}", lab.path("two.sock").display()));
    use std::io::BufRead;
    for arguments in
        [&["status", "--watch", "1", "lab"][..], &["status", "lab", "--watch=100ms"], &["status", "--watch"]]
    {
        let mut watch = lab.dtunnel(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        let read = std::io::BufReader::new(watch.stdout.take().unwrap()).read_line(&mut first);
        watch.kill().unwrap();
        let output = watch.wait_with_output().unwrap();
        assert!(read.is_ok() && first.contains(" lab idle "), "{arguments:?}: {first} {output:?}");
    }
}

#[test]
fn profiles_are_added_with_their_limits() {
    let lab = Lab::new("");
    lab.write_config("");
    lab.ok(&["profile", "add", "a", "h", "--read-only", "--ports"]);
    lab.ok(&["profile", "add", "b", "h", "--lazy"]);
    assert_eq!(lab.ok(&["profile", "show", "a"]), "[profiles.a]\nhost = \"h\"\naccess = \"read-only\"\nports = true\n");
    assert!(lab.ok(&["profile", "show", "b"]).contains("lazy = true"));
    lab.fails(2, &["profile", "add", "c", "h", "--lazy", "--ports"]);
}

#[test]
fn the_configuration_can_be_checked() {
    let lab = Lab::new("");
    lab.write_config("ssh_config = \"none\"\n[profiles.a]\n[profiles.b]\nlocal = \"unix:/x\"\n");
    assert!(lab.ok(&["config", "check"]).contains("2 profiles, no faults"));
    lab.write_config("ssh_config = \"none\"\n[profiles.a]\n[profiles.b]\nlocal = \"relative\"\n");
    let stderr = lab.fails(2, &["config", "check"]);
    assert!(
        stderr.contains("`relative` is not a local endpoint") && stderr.contains("1 profile cannot be used"),
        "{stderr}"
    );
    let report: Value = serde_json::from_slice(&lab.run(&["config", "check", "--json"]).stdout).unwrap();
    assert_eq!((&report["ok"], &report["profiles"][0]["error"]), (&false.into(), &Value::Null));
    assert!(report["profiles"][1]["error"]["message"].as_str().unwrap().contains("relative"));
    lab.write_config("wrong = 1\n");
    assert!(lab.fails(2, &["config", "check"]).contains("config.toml:1:1: unknown key `wrong`"));
    lab.ok(&["--config", "/dev/null", "config", "check"]);
}

#[test]
fn a_name_that_led_nowhere_leaves_no_log() {
    let lab = Lab::new("");
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.prod]\nhost = \"127.0.0.1\"\nport = 1\n",
        lab.path("ssh_config")
    ));
    lab.fails(6, &["up", "u@127.0.0.1:1"]);
    lab.fails(6, &["up", "prod"]);
    let logs = lab.path("home/.local/state/dtunnel");
    let names: Vec<String> =
        std::fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["prod.log"]);
}

/// A prompt of zsh takes brackets for a pattern: what is shown to be typed is quoted, and addresses look alike everywhere.
#[test]
fn ipv6_addresses_are_shown_in_brackets_and_quoted() {
    let lab = Lab::new("");
    let said = lab.ok(&["up", "root@[::1]:2992", "--lazy"]);
    assert!(said.contains("(root@[::1]:2992)"), "{said}");
    assert!(said.contains("eval \"$(dtunnel env 'root@[::1]:2992')\""), "{said}");
    assert!(lab.ok(&["status"]).contains("root@[::1]:2992"));
    let stderr = lab.fails(3, &["env", "root@[::1]:2993"]);
    assert!(stderr.contains("dtunnel up 'root@[::1]:2993'"), "{stderr}");
    let line = said.lines().last().unwrap().trim();
    for shell in ["sh", "bash", "zsh"] {
        let mut command = std::process::Command::new(shell);
        lab.set_env(&mut command);
        let program = std::path::Path::new(DTUNNEL).parent().unwrap();
        command.env("PATH", format!("{}:/usr/bin:/bin", program.display()));
        let Ok(output) = command.args(["-c", &format!("{line} && echo $DTUNNEL")]).output() else { continue };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "root@[::1]:2992\n", "{shell}: {output:?}");
    }
}

#[test]
fn states_have_colours_on_a_terminal_only() {
    let lab = Lab::new("");
    lab.ok(&["up", "lab", "--lazy"]);
    assert!(!lab.ok(&["status"]).contains('\u{1b}'));
    let coloured = lab.ok(&["--color", "always", "status"]);
    assert!(coloured.contains("\u{1b}[32midle\u{1b}[0m"), "{coloured:?}");
    let mut person = Person::types(&lab, &format!("{DTUNNEL} status"));
    person.sees("\u{1b}[32midle\u{1b}[0m");
    assert!(person.leaves().0.success());
    let mut down = lab.dtunnel(["--color", "always", "status", "lab2"]);
    assert!(String::from_utf8_lossy(&down.output().unwrap().stdout).contains("\u{1b}[2mdown"));
}

#[test]
fn tunnels_that_are_up_are_completed_first() {
    let lab = Lab::new("");
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.a]\n[profiles.lab]\nlazy = true\n",
        lab.path("ssh_config")
    ));
    lab.ok(&["up", "lab", "lab2", "--lazy"]);
    for command in ["down", "top", "ports", "restart", "reload"] {
        let mut complete = lab.dtunnel(["--", "dtunnel", command, ""]);
        complete.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2").env("_CLAP_IFS", "\n");
        complete.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
        let names = String::from_utf8(complete.output().unwrap().stdout).unwrap();
        let names: Vec<&str> = names.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(names, ["lab", "lab2", "a"], "{command}");
    }
}

#[test]
fn hosts_of_ssh_config_are_imported_only_where_that_is_asked_for() {
    let lab = Lab::new("");
    let stderr = lab.fails(2, &["profile", "import", "lab"]);
    assert!(
        stderr.contains("it is a Host of ssh_config, which needs no profile; `--from ssh-config lab` makes one"),
        "{stderr}"
    );
    assert!(lab.ok(&["profile", "import", "--from", "ssh-config", "lab", "--dry-run"]).contains("[profiles.lab]"));
    assert_eq!(lab.ok(&["profile", "import", "--dry-run"]), "");
}
