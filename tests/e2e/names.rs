//! What is written in a target or a file and must not become a command or a line of something else.

use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, is_root, run, set_mode, skip};

/// `dtunnel` where there is no ssh to read the user's ~/.ssh/config.
fn without_ssh(lab: &Lab, args: &[&str]) -> Command {
    std::fs::create_dir_all(lab.path("bin")).unwrap();
    lab.write_config("");
    let mut command = lab.dtunnel(args);
    command.env("PATH", lab.path("bin"));
    command
}

/// The user's own ~/.ssh/config.
fn write_own(lab: &Lab, text: &str) -> std::path::PathBuf {
    std::fs::create_dir_all(lab.path("home/.ssh/more")).unwrap();
    let file = lab.path("home/.ssh/config");
    std::fs::write(&file, text).unwrap();
    set_mode(&file, 0o600);
    file
}

fn failed(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_name_never_runs_a_command() {
    let lab = Lab::new("");
    let mark = lab.path("mark");
    let names =
        ["a$(touch${IFS}MARK)", "a`touch${IFS}MARK`", "a;touch${IFS}MARK", "u`touch${IFS}MARK`@h", "a&touch${IFS}MARK"];
    // Tokens of a name that may go into a command: of the target, of its user, and of a hop.
    let own = "Host *\n  ProxyCommand nc %n %h %r %p\n";
    write_own(&lab, own);
    let config = lab.path("ssh_config");
    std::fs::write(&config, format!("{own}Match exec \"true %n %h %r\"\n")).unwrap();
    for name in names {
        let name = name.replace("MARK", "mark");
        for args in [&["up", &name][..], &["doctor", &name], &["-F", config.to_str().unwrap(), "up", &name]] {
            let ways: [fn(&Lab, &[&str]) -> Command; 2] = [without_ssh, |lab, args| lab.dtunnel(args)];
            for way in ways {
                let mut command = way(&lab, args);
                command.current_dir(lab.dir.path());
                let (_, stderr) = failed(command);
                assert!(stderr.contains("is not a target") || args[0] == "doctor", "{args:?}: {stderr}");
                assert!(!mark.exists() && !Path::new("/mark").exists(), "{args:?} was run");
            }
        }
    }
    lab.write_config("[profiles.far]\nhost = \"h\"\njump = \"a$(touch${IFS}mark)\"\n[profiles.user]\nhost = \"h\"\nuser = \"a`x`\"\n");
    for profile in ["far", "user"] {
        let (_, stderr) = failed(lab.dtunnel(["up", profile]));
        assert!(stderr.contains("is not a target"), "{profile}: {stderr}");
        assert!(!Path::new("/mark").exists());
    }
}

#[test]
fn a_file_that_others_may_write_is_not_obeyed() {
    let lab = Lab::new("");
    let refused = |command: Command, file: &Path, remedy: &str| {
        let (code, stderr) = failed(command);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(&format!("{} is not trusted", file.display())), "{stderr}");
        assert!(stderr.contains(remedy), "{stderr}");
    };
    lab.write_config_of_engine();
    let config = lab.path("config.toml");
    for mode in [0o666, 0o664, 0o602] {
        set_mode(&config, mode);
        for args in [&["up", "lab"][..], &["profile", "list"], &["profile", "add", "x", "h"], &["exec", "lab", "true"]]
        {
            let mut command = lab.dtunnel(args);
            let output = command.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(stderr.contains("is not trusted") && stderr.contains("chmod go-w"), "{args:?}: {stderr}");
        }
    }
    set_mode(&config, 0o644);
    if !is_root() {
        return skip("giving a file away needs root");
    }
    let give = |file: &Path, uid: &str| drop(run(Command::new("chown").arg(uid).arg(file)));
    give(&config, "65534");
    refused(lab.dtunnel(["up", "lab"]), &config, "chown 0");
    give(&config, "0");
    // ssh_config and what it includes, where ssh itself is not there to look.
    let included = lab.path("home/.ssh/more/a.conf");
    let own = write_own(&lab, "Include \"more/*.conf\"\nHost *\n  ProxyCommand touch /mark\n");
    std::fs::write(&included, "Include=~/.ssh/deep\n").unwrap();
    let deep = lab.path("home/.ssh/deep");
    std::fs::write(&deep, "Port 1\n").unwrap();
    for file in [&own, &included, &deep] {
        for mode in [0o664, 0o646] {
            set_mode(file, mode);
            refused(without_ssh(&lab, &["up", "h"]), file, "chmod go-w");
        }
        set_mode(file, 0o644);
        give(file, "65534");
        refused(without_ssh(&lab, &["up", "h"]), file, "chown 0");
        give(file, "0");
    }
    // As ssh: not the file that was named, but what it includes.
    let named = lab.path("named");
    std::fs::write(&named, format!("Include {}\n", deep.display())).unwrap();
    set_mode(&named, 0o666);
    set_mode(&deep, 0o666);
    refused(without_ssh(&lab, &["-F", named.to_str().unwrap(), "up", "h"]), &deep, "chmod go-w");
    assert!(!Path::new("/mark").exists());
}

#[test]
fn a_line_break_never_gets_into_a_services_file() {
    let lab = Lab::new("");
    let odd = lab.path("ssh\nExecStartPre=false\nconfig");
    std::fs::copy(lab.path("ssh_config"), &odd).unwrap();
    lab.write_config("");
    let odd = odd.to_str().unwrap();
    for args in [
        &["-F", odd, "service", "install", "lab", "--no-start"][..],
        &["-F", odd, "service", "install", "lab", "--print"],
    ] {
        assert!(lab.fails(2, args).contains("control characters"), "{args:?}");
    }
    let mut command = lab.dtunnel(["--config", &format!("{odd}.toml"), "service", "install", "--print", "lab"]);
    std::fs::write(format!("{odd}.toml"), "").unwrap();
    assert!(failed_with(&mut command).contains("control characters"));
    // Nor into what a shell evaluates, by way of the environment.
    let run = lab.path("run\nx");
    std::fs::create_dir(&run).unwrap();
    set_mode(&run, 0o700);
    let mut command = lab.dtunnel(["up", "lab", "--remote", "/nonexistent"]);
    assert!(failed_with(command.env("XDG_RUNTIME_DIR", &run)).contains("control characters"));
    assert!(!lab.path("home/.config/systemd").exists());
}

fn failed_with(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
