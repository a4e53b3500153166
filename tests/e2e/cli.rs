//! The command line without a network: help, errors, profiles, exit codes.

use crate::lab::Lab;

/// A real bash, asked what could come next as at a Tab.
#[test]
fn bash_completes_commands_profiles_and_hosts() {
    let lab = Lab::new("");
    lab.write_config(&format!("ssh_config = {:?}\n[profiles.prod-1]\n[profiles.prod-2]\n", lab.path("ssh_config")));
    let complete = |words: &str| {
        let script = format!(
            "source {}/docs/completions/dtunnel.bash\n\
             COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9\n\
             _clap_complete_dtunnel dtunnel \"${{COMP_WORDS[$COMP_CWORD]}}\" x\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            env!("CARGO_MANIFEST_DIR")
        );
        let mut bash = std::process::Command::new("bash");
        lab.set_env(&mut bash);
        let directory = std::path::Path::new(env!("CARGO_BIN_EXE_dtunnel")).parent().unwrap();
        bash.env("PATH", format!("{}:{}", directory.display(), std::env::var("PATH").unwrap()));
        crate::lab::run(bash.args(["-c", &script]))
    };
    assert_eq!(complete("dtunnel up prod-"), "prod-1\nprod-2\n");
    assert!(complete("dtunnel profile show ''").starts_with("prod-1\nprod-2\n"));
    assert!(complete("dtunnel doctor lab").contains("lab2"));
    assert!(complete("dtunnel sta").contains("status"));
    assert!(complete("dtunnel audit --fail-on h").contains("high"));
}

#[test]
fn wrong_usage_and_wrong_configuration_end_with_2_and_say_where() {
    let lab = Lab::new("");
    let stderr = lab.fails(2, &["up"]);
    assert!(stderr.contains("no target was given; `dtunnel up --all` takes every profile"), "{stderr}");
    lab.fails(2, &["frobnicate"]);
    lab.fails(2, &["up", "lab", "--timeout", "soon"]);
    assert!(lab.fails(2, &["up", "lab", "--local", "tcp:0.0.0.0:2375"]).contains("only a loopback address"));
    assert!(lab.fails(2, &["up", "-oProxyCommand=x"]).contains("error"));
    assert!(lab.fails(2, &["up", "--", "-oProxyCommand=x"]).contains("begins with `-`"));
    lab.write_config("[profiles.prod]\nhots = \"x\"\n");
    let stderr = lab.fails(2, &["up", "prod"]);
    assert!(stderr.contains("config.toml:2:1: unknown key `hots` in [profiles.prod]"), "{stderr}");
    assert!(stderr.contains("hint: did you mean `host`?"), "{stderr}");
    lab.write_config("[profiles.prod]\nhost = 3\n");
    assert!(lab.fails(2, &["status", "prod"]).contains("config.toml:2:8: "));
    assert!(lab.fails(1, &["--config", "/nonexistent/c.toml", "up", "prod"]).contains("/nonexistent/c.toml"));
}

#[test]
fn profiles_are_added_listed_shown_and_removed() {
    let lab = Lab::new("");
    lab.write_config("# mine\n");
    lab.ok(&["profile", "add", "prod-1", "deploy@prod-1.example.com:2222", "-J", "bastion", "--keepalive", "15s"]);
    lab.ok(&["profile", "add", "b", "ssh://h", "-i", "~/.ssh/k", "--description", "the other one"]);
    assert_eq!(
        lab.ok(&["profile", "show", "prod-1"]),
        "[profiles.prod-1]\nhost = \"prod-1.example.com\"\nuser = \"deploy\"\nport = 2222\njump = \"bastion\"\nkeepalive = \"15s\"\n"
    );
    let list = lab.ok(&["profile", "list"]);
    assert!(list.contains("deploy@prod-1.example.com:2222") && list.contains("the other one"), "{list}");
    assert!(lab.fails(2, &["profile", "add", "b", "x"]).contains("already exists"));
    assert!(lab.fails(2, &["profile", "add", "no good", "x"]).contains("is not a profile name"));
    assert!(lab.fails(2, &["profile", "show", "prod1"]).contains("did you mean `prod-1`?"));
    lab.ok(&["profile", "remove", "b"]);
    assert!(lab.fails(2, &["profile", "remove", "b"]).contains("no profile is named `b`"));
    let path = lab.ok(&["profile", "path"]);
    assert!(std::fs::read_to_string(path.trim()).unwrap().starts_with("# mine\n"));
}

#[test]
fn an_edited_file_is_checked() {
    let lab = Lab::new("");
    lab.write_config("");
    let mut edit = lab.dtunnel(["profile", "edit"]);
    let output = edit.env("EDITOR", "echo 'hots = 1' >").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown key `hots`"));
}

#[test]
fn a_tunnel_that_is_not_up_is_said_to_be_so() {
    let lab = Lab::new("");
    let output = lab.run(&["env", "lab"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"false;\n".as_slice()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("dtunnel up lab"));
    lab.fails(3, &["status", "lab"]);
    assert_eq!(lab.status("lab")["state"], "down");
    assert_eq!(lab.ok(&["status", "--json"]).trim(), "[]");
    lab.ok(&["down", "lab"]);
    lab.ok(&["down", "--all"]);
    assert_eq!(
        lab.ok(&["env", "--unset", "--shell", "fish"]),
        "set -e DOCKER_HOST;\nset -e DTUNNEL;\nset -e DTUNNEL_ACCESS;\nset -e TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE;\n"
    );
    assert!(lab.fails(1, &["logs", "lab"]).contains("never up"));
    lab.fails(2, &["daemon", "lab"]);
}

#[test]
fn output_into_a_closed_pipe_is_no_error() {
    let lab = Lab::new("");
    let mut command = std::process::Command::new("sh");
    lab.set_env(&mut command);
    let line = format!("set -e; {0} profile list --json | true; {0} --help | true", env!("CARGO_BIN_EXE_dtunnel"));
    let output = command.args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// What is wrong in the configuration is refused with its place, what would be right, and the nearest.
#[test]
fn every_setting_says_what_is_allowed_and_where_it_stands() {
    let lab = Lab::new("");
    for (setting, place, said) in [
        (
            "access = \"readonly\"",
            "2:10",
            "`readonly` is not one of `full`, `read-only`, `containers`, `build`, `no-privileged`; \
             did you mean `read-only`?",
        ),
        ("access = [\"containers\", \"bild\"]", "2:25", "did you mean `build`?"),
        ("access = true", "2:10", "expected `full`, `read-only`"),
        ("access = []", "2:10", "names no policy"),
        ("allowed_binds = [\"srv\"]", "2:17", "`srv` in `allowed_binds` is not an absolute path"),
        ("allow = [\"containers.achive\"]\naccess = \"read-only\"", "2:9", "containers.archive"),
        ("ports = \"al\"", "2:9", "`al` is not `true`, `false`, \"ask\", or a list of rules"),
        ("ports = \"8080\"", "2:9", "write rules as a list: [\"8080\"]"),
        ("ports = [\"8080\", \"9-8\"]", "2:18", "its range ends before it begins"),
        ("ports = [8080]", "2:10", "expected a rule in quotes"),
        ("ports_address = \"lan\"", "2:17", "`lan` is not an IP address"),
        ("port = 70000", "2:8", "70000 is not a TCP port from 1 to 65535"),
        ("port = \"22\"", "2:8", "expected a TCP port from 1 to 65535"),
        ("max_connections = 17", "2:19", "17 is not a number of connections from 1 to 16"),
        ("keepalive = 15", "2:13", "expected a duration in quotes"),
        ("keepalive_count = -1", "2:19", "-1 is not a whole number from 0 on"),
        ("lazy = \"yes\"", "2:8", "expected `true` or `false`"),
        ("jump = 3", "2:8", "a list of them, or \"none\""),
        ("jump = \"a b\"", "2:8", "`jump`: `a b` is not a target"),
        (
            "local = \"tcp:0.0.0.0:1\"",
            "2:9",
            "`local`: `tcp:0.0.0.0:1` is not a local endpoint: only a loopback address",
        ),
        ("remote = \"docker.sock\"", "2:10", "`remote`: `docker.sock` is not a remote endpoint"),
        ("host = \"http://x\"", "2:8", "`host`: `http://x` is not a target"),
        ("user = \"-oProxyCommand=x\"", "2:8", "`user`: "),
        ("audit.ignor = []", "2:7", "unknown key `ignor` in [profiles.lab.audit]"),
        ("audit.ignore = [\": why\"]", "2:17", "a check's name and a reason"),
    ] {
        lab.write_config(&format!("[profiles.lab]\n{setting}\n"));
        let output = lab.run(&["up", "lab"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{setting}: {stderr}");
        assert!(stderr.contains(&format!("config.toml:{place}: ")) && stderr.contains(said), "{setting}: {stderr}");
        assert!(!stderr.contains("untagged") && !stderr.contains("u16"), "{stderr}");
        assert_eq!(lab.runtime_files(), [""; 0], "it goes on failing closed");
    }
}
