//! env, exec and shell in real shells: never the wrong host.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::lab::pty::Person;
use crate::lab::{Lab, run, skip, succeeded};

const DTUNNEL: &str = env!("CARGO_BIN_EXE_dtunnel");

/// How each shell evaluates, goes on only after a success, and stops at a failure.
struct Dialect {
    program: &'static str,
    /// `{}`: what is evaluated; prints `went on` only where that succeeded.
    and: &'static str,
    /// The same where a failure ends the script.
    strict: &'static str,
    /// Evaluates and prints the variables.
    shown: &'static str,
}

const POSIX: (&str, &str, &str) = (
    "eval \"$({})\" && echo went on",
    "set -e; eval \"$({})\"; echo went on",
    "eval \"$({})\"; echo \"$DOCKER_HOST $DTUNNEL $DTUNNEL_ACCESS <$DOCKER_CONTEXT>\"",
);

const fn posix(program: &'static str) -> Dialect {
    Dialect { program, and: POSIX.0, strict: POSIX.1, shown: POSIX.2 }
}

const SHELLS: &[Dialect] = &[
    posix("sh"),
    posix("bash"),
    posix("zsh"),
    Dialect {
        program: "fish",
        and: "{} | source; and echo went on",
        strict: "eval ({}); or exit 1; echo went on",
        shown: "{} | source; echo $DOCKER_HOST $DTUNNEL $DTUNNEL_ACCESS \"<$DOCKER_CONTEXT>\"",
    },
    Dialect {
        program: "elvish",
        and: "try { eval ({} | slurp); echo went on } catch e { }",
        strict: "eval ({} | slurp); echo went on",
        shown: "use str; eval ({} | slurp); echo $E:DOCKER_HOST $E:DTUNNEL $E:DTUNNEL_ACCESS '<'$E:DOCKER_CONTEXT'>'",
    },
];

impl Dialect {
    /// Runs one of its scripts with what is to be evaluated, in a world where docker goes somewhere already.
    fn runs(&self, lab: &Lab, script: &str, command: &str) -> Option<Output> {
        let mut shell = Command::new(self.program);
        lab.set_env(&mut shell);
        shell
            .env("DOCKER_HOST", "unix:///the/previous/one.sock")
            .env("DOCKER_CONTEXT", "previous")
            .stdin(Stdio::null());
        match shell.arg("-c").arg(script.replace("{}", command)).output() {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                skip(&format!("there is no {}", self.program));
                None
            }
            output => Some(output.unwrap()),
        }
    }
}

#[test]
fn a_failing_env_makes_eval_fail_in_each_shell() {
    let lab = Lab::new("");
    for shell in SHELLS {
        // A misspelt target, a broken command line, a tunnel that cannot come up.
        for arguments in [
            "env nosuch",
            "env --nosuch",
            "env lab --up --remote",
            "--color never env 'a b'",
            // The word is misspelt, or was taken for something else.
            "enf lab",
            "-q evn lab",
            "--config env lab",
            "-F env lab",
            "-- env lab",
            "-- en lab",
            "--nosuch x env lab",
            // The word is none at all.
            "export lab",
            "-q export lab",
            "--color never -- export lab",
            "lab",
        ] {
            let command = format!("{DTUNNEL} {arguments}");
            let Some(output) = shell.runs(&lab, shell.and, &command) else { break };
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{}: {arguments}", shell.program);
            let output = shell.runs(&lab, shell.strict, &command).unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{}: {arguments}", shell.program);
            assert!(!output.status.success(), "{}: {arguments}", shell.program);
            assert!(String::from_utf8_lossy(&output.stderr).contains("error:"), "{}: {output:?}", shell.program);
        }
    }
}

#[test]
fn what_makes_eval_fail_is_all_that_a_failing_env_prints() {
    let lab = Lab::new("");
    for (shell, printed) in [
        ("sh", "false;\n"),
        ("bash", "false;\n"),
        ("zsh", "false;\n"),
        ("fish", "false;\n"),
        ("elvish", "fail 'dtunnel env failed'\n"),
        ("powershell", "throw 'dtunnel env failed'\n"),
        ("nu", "error make { msg: \"dtunnel env failed\" }\n"),
        ("dotenv", ""),
        ("json", ""),
    ] {
        for (arguments, code) in [(&["env", "lab", "--shell", shell][..], 3), (&["env", "--shell", shell, "--what"], 2)]
        {
            let output = lab.run(arguments);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{arguments:?}");
        }
    }
}

#[test]
fn other_wrong_command_lines_print_nothing() {
    let lab = Lab::new("");
    for arguments in [
        &["down", "--nosuch", "env"][..],
        &["--config", "env", "up", "--nosuch"],
        &["help", "nosuch"],
        &["stauts", "lab", "--json"],
        &[],
    ] {
        let output = lab.run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}: {output:?}");
    }
}

/// `eval "$(dtunnel export p)"` must not go on with the host that the shell had, nor `dtunnel export p | sh`.
#[test]
fn a_command_that_is_none_prints_what_makes_eval_fail_unless_a_terminal_shows_it() {
    let lab = Lab::new("");
    for (arguments, printed) in [
        (&["export", "lab", "--shell", "bash"][..], "false;\n"),
        (&["stauts", "lab", "--shell=elvish"], "fail 'dtunnel env failed'\n"),
        (&["-q", "--", "export", "--shell", "sh"], "false;\n"),
    ] {
        let output = lab.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("error:"), "{arguments:?}: {output:?}");
    }
    let mut piped = Command::new("sh");
    lab.set_env(&mut piped);
    let piped = piped.args(["-c", &format!("{DTUNNEL} export lab --shell sh | sh")]).output().unwrap();
    assert!(!piped.status.success(), "{piped:?}");
    let mut person = Person::types(&lab, &format!("{DTUNNEL} export lab --shell sh"));
    person.sees("unrecognized subcommand");
    let (status, screen) = person.leaves();
    assert_eq!(status.code(), Some(2), "{screen}");
    assert!(!screen.contains("false;"), "{screen}");
}

#[test]
fn env_sets_what_docker_and_prompts_need_in_each_shell() {
    let lab = Lab::new("");
    lab.ok(&["up", "lab", "--lazy", "--read-only"]);
    let expected = format!("unix://{} lab read-only <>\n", lab.socket("lab").display());
    for shell in SHELLS {
        let command = format!("{DTUNNEL} env lab --shell {}", shell.program);
        let Some(output) = shell.runs(&lab, shell.shown, &command) else { continue };
        assert_eq!(succeeded(&output), expected, "{}", shell.program);
    }
    let json: serde_json::Value = serde_json::from_str(&lab.ok(&["env", "lab", "--shell", "json"])).unwrap();
    assert_eq!((&json["DTUNNEL"], &json["DTUNNEL_ACCESS"]), (&"lab".into(), &"read-only".into()));
    // Where the Engine is has not been looked for.
    let socket = &json["TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE"];
    assert!(socket.is_null() && json.get("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE").is_some());
    assert!(json["DOCKER_CONTEXT"].is_null() && json.get("DOCKER_CONTEXT").is_some());
}

#[test]
fn shell_and_exec_without_a_command_start_the_users_shell_in_the_tunnel() {
    let lab = Lab::new("");
    lab.ok(&["up", "lab", "--lazy"]);
    for arguments in [&["shell", "lab"][..], &["exec", "lab"], &["exec", "lab", "--"]] {
        let mut shell = lab.dtunnel(arguments);
        shell.env("DOCKER_CONTEXT", "elsewhere").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let script = b"echo $0 $DOCKER_HOST $DTUNNEL $DTUNNEL_ACCESS \"<$DOCKER_CONTEXT>\"; exit 7\n";
        shell.stdin.take().unwrap().write_all(script).unwrap();
        let output = shell.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{arguments:?}");
        let expected = format!("/bin/sh unix://{} lab full <>\n", lab.socket("lab").display());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{arguments:?}");
    }
    let mut person = Person::types(&lab, &format!("{DTUNNEL} shell lab"));
    person.sees("docker uses lab in this shell (");
    person.presses("exit 3\n");
    assert_eq!(person.leaves().0.code(), Some(3));
    let mut none = lab.dtunnel(["shell", "lab"]);
    assert_eq!(none.env("SHELL", "/nonexistent/shell").output().unwrap().status.code(), Some(127));
    assert_eq!(lab.run(&["shell", "u@127.0.0.1:1"]).status.code(), Some(125));
}

#[test]
fn the_default_target_is_the_environments_the_configurations_or_the_only_profile() {
    let lab = Lab::new("");
    let configure = |text: &str| lab.write_config(&format!("ssh_config = {:?}\n{text}", lab.path("ssh_config")));
    configure("[profiles.lab]\nlazy = true\n");
    lab.ok(&["up", "lab"]);
    lab.ok(&["up", "lab2", "--lazy"]);
    let host = |target: &str| format!("unix://{}", lab.socket(target).display());
    let docker_host = |command: &mut Command| {
        let json: serde_json::Value = serde_json::from_str(&run(command)).unwrap();
        json["DOCKER_HOST"].as_str().unwrap().to_owned()
    };
    // The only profile.
    assert_eq!(docker_host(&mut lab.dtunnel(["env", "--shell", "json"])), host("lab"));
    assert_eq!(lab.ok(&["exec", "--", "sh", "-c", "echo $DTUNNEL"]), "lab\n");
    assert!(lab.ok(&["logs", "-n", "1"]).contains("INFO"));
    // What is set wins over it.
    configure("default = \"lab2\"\n[profiles.lab]\n");
    assert_eq!(docker_host(&mut lab.dtunnel(["env", "--shell", "json"])), host("lab2"));
    let mut env = lab.dtunnel(["env", "--shell", "json"]);
    assert_eq!(docker_host(env.env("DTUNNEL_TARGET", "lab")), host("lab"));
    let mut env = lab.dtunnel(["env", "--shell", "json"]);
    assert_eq!(docker_host(env.env("DTUNNEL_TARGET", "")), host("lab2"));
    // A default that is not up is shown by status, which ends with 3 as for a name.
    let mut status = lab.dtunnel(["status"]);
    let output = status.env("DTUNNEL_TARGET", "lab3").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("lab3  down") && table.contains("lab2  idle"), "{table}");
    // Several profiles and no default: nobody guesses.
    configure("[profiles.lab]\n[profiles.other]\n");
    for command in ["env", "exec", "shell", "logs"] {
        let output = lab.run(&[command]);
        let code = if matches!(command, "exec" | "shell") { 125 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{command}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("no target was given") && stderr.contains("DTUNNEL_TARGET"), "{stderr}");
    }
    configure("[default]\nwait = \"1s\"\n");
    assert!(lab.fails(2, &["env"]).contains("did you mean `defaults`?"));
}

#[test]
fn a_forgotten_target_is_said_to_be_missing() {
    let lab = Lab::new("");
    let stderr = lab.fails(125, &["exec", "sh", "-c", "echo a b"]);
    assert!(stderr.contains("`sh` is a program, not a known target: the target is missing"), "{stderr}");
    assert!(stderr.contains("hint: dtunnel exec TARGET -- sh -c 'echo a b'"), "{stderr}");
    // A `--` says that it is meant as one.
    let stderr = lab.fails(125, &["exec", "sh", "--", "true"]);
    assert!(!stderr.contains("the target is missing"), "{stderr}");
}

/// A completion file of $fpath is loaded by the first Tab, which has to be answered, too.
#[test]
fn zsh_completes_at_the_first_tab() {
    let lab = Lab::new("");
    if Command::new("zsh").arg("--version").output().is_err() {
        return skip("there is no zsh");
    }
    let functions = lab.path("functions");
    std::fs::create_dir(&functions).unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/completions/dtunnel.zsh");
    std::fs::copy(shipped, functions.join("_dtunnel")).unwrap();
    let program = std::path::Path::new(DTUNNEL).parent().unwrap();
    let rc = format!(
        "path=({} $path)\nfpath=({} $fpath)\nautoload -U compinit\ncompinit -u -D\nPS1='ready> '\n",
        program.display(),
        functions.display()
    );
    std::fs::write(lab.path("home/.zshrc"), rc).unwrap();
    let mut person = Person::types(&lab, "zsh -i");
    person.sees("ready> ");
    person.presses("dtunnel uninst\x15dtunnel versi\t");
    person.sees("dtunnel version");
    person.presses("\x15exit\n");
    person.leaves();
}
