//! Volumes that are there already, under `no-privileged`: what somebody else has made of them counts as if it were
//! asked for now.

use std::sync::Arc;

use serde_json::json;

use crate::guard::refused;
use crate::lab::engine::{Engine, IMAGE};
use crate::lab::{Lab, succeeded};
use crate::privileged::World;

#[test]
fn a_volume_that_is_there_is_judged_like_a_new_one() {
    let Some(world) = World::new("") else { return };
    let dir = world.lab.path("remote/of-the-host");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("file"), "of the host\n").unwrap();
    let device = format!("device={}", dir.display());
    world.engine(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "admins"]);
    world.engine(&["volume", "create", "plain"]);
    world.engine(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    let of_admin = world.engine(&["run", "-d", "-v", "admins:/x", IMAGE, "sleep", "600"]);
    assert_eq!(world.engine(&["exec", &of_admin, "cat", "/x/file"]), "of the host");

    let why = "volume admins would not be allowed itself: Options.device: the host's";
    let run = |options: &[&str]| world.docker(&[&["run", "--rm"], options, &[IMAGE, "cat", "/x/file"]].concat());
    for (options, field) in [
        (&["-v", "admins:/x"][..], "HostConfig.Binds"),
        (&["-v", "admins:/x:ro"], "HostConfig.Binds"),
        (&["-v", "/anonymous", "-v", "plain:/p", "-v", "admins:/x"], "HostConfig.Binds"),
        (&["--mount", "type=volume,source=admins,target=/x"], "HostConfig.Mounts"),
        // The options of its driver that are asked for are passed over where the volume is there.
        (
            &[
                "--mount",
                "type=volume,source=admins,target=/x,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
            ],
            "HostConfig.Mounts",
        ),
        (&["--volumes-from", &of_admin], "HostConfig.VolumesFrom"),
    ] {
        let output = run(options);
        refused(&output, why);
        refused(&output, field);
    }
    // Who has it is not reached.
    for args in [
        &["exec", &of_admin, "cat", "/x/file"][..],
        &["cp", &format!("{of_admin}:/x/file"), "-"],
        &["restart", &of_admin],
    ] {
        refused(&world.docker(args), why);
    }
    for options in [&["-v", "plain:/x"][..], &["-v", "memory:/x"], &["-v", "new:/x"], &["-v", "/x"]] {
        let args = [&["run", "--rm"], options, &[IMAGE, "sh", "-c", "echo mine > /x/file; cat /x/file"]].concat();
        assert_eq!(succeeded(&world.docker(&args)), "mine\n", "{options:?}");
    }
    // Each is a question, and there is an end to them.
    let binds: Vec<String> = (0..65).map(|number| format!("volume-{number}:/x{number}")).collect();
    let body = json!({"Image": IMAGE, "HostConfig": {"Binds": binds}});
    let (status, answer) = world.guarded("POST", "/v1.41/containers/create", &body);
    assert!(status == 403 && answer["message"].as_str().unwrap().contains("65 volumes"), "{answer}");
    world.engine(&["rm", "-f", &of_admin]);
    world.engine(&["volume", "rm", "admins", "plain", "memory", "new"]);
}

#[test]
fn a_volume_of_what_is_allowed_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().to_str().unwrap();
    let Some(world) = World::new(&format!("allowed_binds = [{device:?}]")) else { return };
    world.engine(&[
        "volume",
        "create",
        "-o",
        "o=bind",
        "-o",
        &format!("device={device}"),
        "-o",
        "type=none",
        "allowed",
    ]);
    std::fs::write(dir.path().join("file"), "seen\n").unwrap();
    let output = world.docker(&["run", "--rm", "-v", "allowed:/x", IMAGE, "cat", "/x/file"]);
    assert_eq!(succeeded(&output), "seen\n");
    world.engine(&["volume", "rm", "allowed"]);
}

/// A read-only bind leaves the file systems that are mounted below it writable: a link that a container puts there
/// would lead the next bind anywhere.
#[test]
fn below_an_entry_nothing_can_be_written_to_that_is_mounted_there() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, mounted) = (dir.path().to_str().unwrap(), dir.path().join("mounted"));
    let Some(world) = World::new(&format!("allowed_binds = [\"{dir}/\"]")) else { return };
    std::fs::create_dir(&mounted).unwrap();
    let (host, mounted) = (world.lab.engine.as_ref().unwrap().host(), mounted.display());
    host.run(&format!("mount -t tmpfs of-a-test {mounted}"));
    let write = "/bin/busybox ln -s / /x/mounted/link && echo written; ls /x/mounted";
    let bind = format!("{dir}:/x:ro");
    assert_eq!(world.engine(&["run", "--rm", "-v", &bind, IMAGE, "sh", "-c", write]), "written\nlink", "the way out");
    host.run(&format!("rm {mounted}/link"));
    let mount = format!("type=bind,source={dir},target=/x,readonly");
    for options in [["-v", &bind], ["--mount", &mount]] {
        let output = world.docker(&[&["run", "--rm"], &options[..], &[IMAGE, "sh", "-c", write]].concat());
        assert!(!String::from_utf8_lossy(&output.stdout).contains("written"), "{output:?}");
        assert_eq!(host.run(&format!("ls {mounted}")), "", "{options:?}");
    }
    std::fs::write(format!("{dir}/file"), "read\n").unwrap();
    let made = succeeded(&world.docker(&["run", "-d", "-v", &bind, IMAGE, "sleep", "600"]));
    assert_eq!(succeeded(&world.docker(&["exec", made.trim(), "cat", "/x/file"])), "read\n");
    // One of somebody else's that has it whole, and one that is asked for by an older API.
    let whole = world.engine(&["run", "-d", "-v", &bind, IMAGE, "sleep", "600"]);
    refused(&world.docker(&["exec", &whole, "true"]), "with what is mounted below it");
    let body = json!({"Image": IMAGE, "HostConfig": {"Binds": [bind]}});
    let (status, answer) = world.guarded("POST", "/v1.39/containers/create", &body);
    assert!(status == 403 && answer["message"].as_str().unwrap().contains("takes an API of 1.40"), "{answer}");
    // After the guard has forgotten what it let be made it finds it harmless.
    world.lab.ok(&["restart", "lab"]);
    assert_eq!(succeeded(&world.docker(&["exec", made.trim(), "cat", "/x/file"])), "read\n");
    world.engine(&["rm", "-f", made.trim(), &whole]);
    host.run(&format!("umount {mounted}"));
}

/// The Engine's data, wherever it is: containers write in their volumes there.
#[test]
fn a_link_in_a_volume_leads_nowhere_wherever_the_engine_keeps_it() {
    let Some(world) = World::new("allowed_binds = [\"/tmp/\"]") else { return };
    let root = world.engine(&["info", "--format", "{{.DockerRootDir}}"]);
    assert!(root.starts_with("/tmp/"), "{root}");
    succeeded(&world.docker(&["run", "--rm", "-v", "links:/x", IMAGE, "/bin/busybox", "ln", "-s", "/", "/x/link"]));
    let link = format!("{root}/volumes/links/_data/link");
    let seen = world.engine(&["run", "--rm", "-v", &format!("{link}:/y:ro"), IMAGE, "ls", "/y"]);
    assert!(seen.contains("proc"), "the way out: {seen}");
    let output = world.docker(&["run", "--rm", "-v", &format!("{link}:/y:ro"), IMAGE, "ls", "/y"]);
    refused(&output, "the Engine's own directory");
    let made = world.engine(&[
        "create",
        "--mount",
        &format!("type=bind,source={link},target=/y,readonly,bind-nonrecursive=true"),
        IMAGE,
    ]);
    refused(&world.docker(&["start", &made]), "the Engine's own directory");
    world.engine(&["rm", &made]);
    world.engine(&["volume", "rm", "links"]);
}

/// What an Engine was told to do for all containers is no caller's to loosen by naming what others do.
#[test]
fn a_stricter_default_of_the_engine_is_not_left() {
    if !Engine::can_be_had() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("strict.json");
    let strict =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    std::fs::write(&profile, strict.to_string()).unwrap();
    let sandbox = dir.path().join("sandbox");
    std::fs::copy("/usr/sbin/runc", &sandbox).unwrap();
    let mut lab = Lab::new("");
    lab.engine = Some(Arc::new(Engine::with(&[
        &format!("--seccomp-profile={}", profile.display()),
        &format!("--add-runtime=sandbox={}", sandbox.display()),
        "--default-runtime=sandbox",
    ])));
    let world = World::of(lab, "");
    let run = |options: &[&str]| {
        world.docker(
            &[&["run", "--rm"], options, &[IMAGE, "sh", "-c", "/bin/busybox mkdir /x || echo refused"]].concat(),
        )
    };
    assert_eq!(succeeded(&run(&[])), "refused\n");
    assert_eq!(succeeded(&run(&["--runtime", "sandbox"])), "refused\n");
    for runtime in ["runc", "io.containerd.runc.v2"] {
        refused(&run(&["--runtime", runtime]), "the Engine's default is sandbox");
    }
    let own = dir.path().join("own.json");
    let rules =
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]});
    std::fs::write(&own, rules.to_string()).unwrap();
    let own = format!("seccomp={}", own.display());
    refused(&run(&["--security-opt", &own]), "where the Engine was given one for all containers");
}
