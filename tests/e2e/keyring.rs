//! Secrets in the system keyring: a real Secret Service, and the kernel's keyring without one.

use std::process::{Command, Output};

use crate::lab::{KERNELS_KEYRING, Lab, set_mode, until_served, wait_for};

/// A lab whose key has the passphrase `secret`, and a program that answers with it.
fn lab() -> Option<Lab> {
    let lab = Lab::with_engine()?;
    lab.keygen("user", "ed25519", "secret");
    lab.authorize("user");
    std::fs::write(lab.path("askpass"), "#!/bin/sh\necho asked >> \"$HOME/asked\"\necho secret\n").unwrap();
    set_mode(&lab.path("askpass"), 0o755);
    Some(lab)
}

/// Runs a shell script without a terminal; `dtunnel` is the program, `$ASK` lets it ask.
fn script(lab: &Lab, launcher: &[&str], text: &str) -> Output {
    let mut command = Command::new("setsid");
    lab.set_env(&mut command);
    let text = format!(
        "set -e; dtunnel() {{ {} \"$@\"; }}; ASK='env SSH_ASKPASS={} SSH_ASKPASS_REQUIRE=force'\n{text}",
        env!("CARGO_BIN_EXE_dtunnel"),
        lab.path("askpass").display()
    );
    command.arg("--wait").args(launcher).args(["sh", "-c", &text]);
    command.output().unwrap()
}

/// What is the same with every kind of keyring.
const STEPS: &str = r#"
    if dtunnel up lab 2>/dev/null; then echo 'up without the secret'; exit 1; fi
    $ASK "$DTUNNEL" secret set lab
    dtunnel secret list lab
    dtunnel up lab -q && dtunnel down lab -q && echo 'came up by itself'
    dtunnel secret forget lab
    dtunnel secret list lab
    if dtunnel up lab 2>/dev/null; then echo 'up without the secret'; exit 1; fi
    $ASK "$DTUNNEL" up lab --remember -q && dtunnel down lab -q
    dtunnel up lab -q && dtunnel down lab -q && echo 'remembered'
    dtunnel secret forget lab
"#;

fn check(lab: &Lab, output: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}{}", lab.log("lab"));
    let key = lab.path("user");
    let kept = format!("passphrase of {}", key.display());
    assert_eq!(stdout, format!("{kept}\ncame up by itself\nremembered\n"), "{stderr}");
    assert!(stderr.contains(&format!("forgot the {kept}")) && stderr.contains("nothing is kept for lab"), "{stderr}");
    assert!(!stdout.contains("secret\n") && !lab.log("lab").contains("secret"), "never shown");
    let asked = std::fs::read_to_string(lab.path("home/asked")).unwrap();
    assert_eq!(asked.lines().count(), 2, "asked by `secret set` and by `up --remember` only");
}

fn steps() -> String {
    STEPS.replace("\"$DTUNNEL\"", env!("CARGO_BIN_EXE_dtunnel"))
}

#[test]
fn the_secret_service_keeps_a_passphrase() {
    let Some(lab) = lab() else { return };
    let unlock = "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\n";
    let output = script(&lab, &["dbus-run-session", "--"], &format!("{unlock}{}", steps()));
    check(&lab, &output);
}

#[test]
fn the_kernel_keeps_a_passphrase_where_there_is_no_session_bus() {
    let Some(lab) = lab() else { return };
    let output = script(&lab, &KERNELS_KEYRING, &steps());
    check(&lab, &output);
}

#[test]
fn a_locked_keyring_is_said_so_and_a_person_is_asked() {
    let Some(lab) = lab() else { return };
    let session = |keyring: &str, text: &str| {
        let daemon = format!("printf pw | gnome-keyring-daemon {keyring} --components=secrets >/dev/null 2>&1\n");
        script(
            &lab,
            &["dbus-run-session", "--"],
            &(daemon + &text.replace("\"$DTUNNEL\"", env!("CARGO_BIN_EXE_dtunnel"))),
        )
    };
    // Made with a password in one session; in the next nobody is at a screen to unlock it.
    crate::lab::succeeded(&session("--unlock", "$ASK \"$DTUNNEL\" secret set lab"));
    let output = session("--start", "$ASK \"$DTUNNEL\" up lab -q && dtunnel down lab -q && echo asked");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "asked\n", "{stderr}{}", lab.log("lab"));
    assert!(lab.log("lab").contains("keyring"), "{}", lab.log("lab"));
}

#[test]
fn a_password_that_is_kept_but_wrong_is_tried_once() {
    let Some(mut lab) = lab() else { return };
    lab.set_password("secret");
    lab.reconfigure("PasswordAuthentication yes\nPermitRootLogin yes\nPubkeyAuthentication no");
    // A host that is not known is offered nothing that is kept.
    let name = lab.sshd.name();
    crate::trust::trust(&lab, &[(&name, "host")]);
    let keep = format!(
        "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\n\
         $ASK {} secret set lab --password; dtunnel up lab -q && dtunnel down lab -q && echo kept; \
         touch $HOME/kept; while [ -e $HOME/kept ]; do sleep 0.01; done; \
         if dtunnel up lab; then echo up; fi",
        env!("CARGO_BIN_EXE_dtunnel")
    );
    std::thread::scope(|scope| {
        let script = scope.spawn(|| script(&lab, &["dbus-run-session", "--"], &keep));
        let mark = lab.path("home/kept");
        wait_for("the password to be kept", || (mark.exists() || script.is_finished()).then_some(()));
        // Another password from now on.
        lab.set_password("another");
        std::fs::remove_file(mark).unwrap();
        let output = script.join().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\n", "{stderr}{}", lab.log("lab"));
    });
    let failed = std::fs::read_to_string(lab.path("sshd.log")).unwrap().matches("Failed password").count();
    assert_eq!(failed, 1, "not twice");
}

#[test]
fn a_keyring_that_is_absent_or_wrong_is_said_so_and_a_person_is_asked() {
    let Some(lab) = lab() else { return };
    // A bus on which nobody offers the service, and nobody can start it.
    let bus = lab.path("bus.conf");
    let address = format!("unix:path={}", lab.path("bus").display());
    let text = format!(
        "<busconfig><type>session</type><listen>{address}</listen><policy context=\"default\">\
         <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
    );
    std::fs::write(&bus, text).unwrap();
    let config = format!("--config-file={}", bus.display());
    let _bus = crate::lab::keeper::Keeper::start(&["dbus-daemon", "--nofork", &config], "");
    until_served(&lab.path("bus"));
    let text = format!(
        "export DBUS_SESSION_BUS_ADDRESS='{address}'\n\
         if $ASK {0} secret set lab; then exit 1; fi\n $ASK {0} up lab -q && dtunnel down lab -q && echo asked",
        env!("CARGO_BIN_EXE_dtunnel")
    );
    let output = script(&lab, &[], &text);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the system keyring cannot be used"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "asked\n", "{stderr}{}", lab.log("lab"));
}

#[test]
fn what_a_password_manager_prints_is_kept() {
    let Some(lab) = lab() else { return };
    let steps = r#"
        printf 'secret\nuser: me\nurl: x\n' | dtunnel secret set lab --stdin -q
        dtunnel up lab -q && dtunnel down lab -q && echo 'came up by itself'
        printf 'a pass\303\244 word ' | dtunnel secret set lab --password --stdin -q
        dtunnel secret list lab
        for wrong in '' '\nsecret\n' '\377\n' "$(yes | head -c 40000 | tr -d '\n')" 'wrong\n'; do
            printf "$wrong" | dtunnel secret set lab --stdin 2>&1 >/dev/null || echo "rc=$?"
        done
        dtunnel secret set lab --password </dev/null 2>&1 || echo "rc=$?"
        dtunnel secret forget lab -q
    "#;
    let output = script(&lab, &KERNELS_KEYRING, steps);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("came up by itself\n"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let (kept, refused) = (said.matches("\npass").count(), |what: &str| said.matches(what).count());
    assert_eq!(kept, 2, "{said}");
    assert_eq!((refused("is empty\nrc=2"), refused("not UTF-8\nrc=2"), refused("too long\nrc=2")), (2, 1, 1), "{said}");
    assert_eq!((refused("this is not the passphrase"), refused("rc=4\n")), (1, 1), "{said}");
    assert!(said.contains("hint: `--stdin` reads it from a password manager's output\nrc=1\n"), "{said}");
    assert!(!lab.path("home/asked").exists(), "nobody was asked");
}
