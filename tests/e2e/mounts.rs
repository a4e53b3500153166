//! Directories of this machine in containers of a host that is really far, with real ssh, docker and compose.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::engine::IMAGE;
use crate::lab::{Lab, succeeded, wait_for};

/// A lab whose Engine is on its host, with a tunnel that mounts what is below this home, and a project there.
struct World {
    lab: Lab,
    /// A directory of this machine's.
    project: PathBuf,
}

impl World {
    fn new(profile: &str) -> Option<Self> {
        let lab = Lab::with_own_engine("", &[])?;
        lab.write_profile(lab.remote_socket(), profile);
        lab.ok(&["up", "lab"]);
        let project = lab.path("home/project");
        fs::create_dir(&project).unwrap();
        Some(Self { lab, project })
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.project.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// docker through the tunnel, which must succeed; what it prints.
    #[track_caller]
    fn docker(&self, args: &[&str]) -> String {
        succeeded(&self.lab.docker("lab", args).output().unwrap())
    }

    /// The same, which must fail; what it says of it.
    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let output = self.lab.docker("lab", args).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// `docker run --rm` with the project at /app; what it prints.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        self.docker(&["run", "--rm", "--net=none", "-v", &bind(&self.project, "/app"), IMAGE, "sh", "-c", script])
    }

    fn mounts(&self) -> Vec<Value> {
        self.lab.status("lab")["mounts"].as_array().unwrap().clone()
    }

    /// The state of the only one that is used.
    fn state(&self) -> String {
        let mounts = self.mounts();
        assert_eq!(mounts.len(), 1, "{mounts:?}");
        mounts[0]["state"].as_str().unwrap().into()
    }

    /// What the host has of mirrors.
    fn on_host(&self) -> String {
        self.lab.host().run("ls -A /run/root/.cache/dtunnel/mounts 2>/dev/null || true")
    }
}

fn bind(path: &Path, target: &str) -> String {
    format!("{}:{target}", path.display())
}

#[test]
fn a_directory_of_this_machine_is_in_a_container_of_the_host_and_what_it_writes_comes_back() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("x", "hello\n");
    world.write("sub/y", "deep\n");
    assert_eq!(world.run("cat /app/x /app/sub/y"), "hello\ndeep\n");
    // It is here before the command returns.
    world.run(
        "mkdir /app/out; echo built > /app/out/program; chmod 755 /app/out/program; rm /app/sub/y; echo more >> /app/x",
    );
    assert_eq!(fs::read_to_string(world.project.join("out/program")).unwrap(), "built\n");
    assert_eq!(fs::read_to_string(world.project.join("x")).unwrap(), "hello\nmore\n");
    assert!(!world.project.join("sub/y").exists());
    // Each run sees what has changed here since.
    world.write("x", "again\n");
    fs::remove_dir_all(world.project.join("out")).unwrap();
    assert_eq!(world.run("cat /app/x; ls /app"), "again\nsub\nx\n");
    assert_eq!(world.on_host().lines().count(), 1, "one mirror");
}

#[test]
fn a_container_that_runs_sees_changes_here_and_its_own_are_here_soon() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("config", "one\n");
    let app = bind(&world.project, "/app");
    world.docker(&["run", "-d", "--net=none", "--name", "dev", "-v", &app, IMAGE, "sleep", "600"]);
    let sees = |expected: &str| {
        wait_for("the change in the container", || {
            let output = world.lab.docker("lab", &["exec", "dev", "sh", "-c", "cat /app/config"]).output().unwrap();
            (output.stdout == expected.as_bytes()).then_some(())
        });
    };
    sees("one\n");
    world.write("config", "two\n");
    sees("two\n");
    fs::rename(world.project.join("config"), world.project.join("old")).unwrap();
    wait_for("the new name", || (world.docker(&["exec", "dev", "ls", "/app"]) == "old\n").then_some(()));
    // What a command writes is here when it returns.
    world.docker(&["exec", "dev", "sh", "-c", "echo built > /app/out"]);
    assert_eq!(fs::read_to_string(world.project.join("out")).unwrap(), "built\n");
    // What a container writes by itself is here within some time.
    world.docker(&["exec", "-d", "dev", "sh", "-c", "sleep 1; echo late > /app/late"]);
    wait_for("what was written", || world.project.join("late").exists().then_some(()));
    wait_for("being in step", || (world.state() == "in-step" && world.mounts()[0]["files"] == 3).then_some(()));
    assert_eq!(world.mounts()[0]["containers"][0]["container"], "dev");
    let table = world.lab.ok(&["mounts", "lab"]);
    assert!(table.contains("both ways") && table.contains("in step") && table.contains("dev"), "{table}");
}

#[test]
fn a_single_file_is_a_single_file_and_changes_in_place() {
    let Some(world) = World::new("mounts = true\n") else { return };
    let conf = world.write("conf/app.conf", "one\n");
    world.write("conf/secret", "not for containers\n");
    let conf_bind = format!("{}:/etc/app.conf:ro", conf.display());
    world.docker(&["run", "-d", "--net=none", "--name", "app", "-v", &conf_bind, IMAGE, "sleep", "600"]);
    let sees = || world.docker(&["exec", "app", "cat", "/etc/app.conf"]);
    assert_eq!(sees(), "one\n");
    fs::write(&conf, "two\n").unwrap();
    wait_for("the change", || (sees() == "two\n").then_some(()));
    // As editors do it.
    world.write("conf/app.conf.new", "three\n");
    fs::rename(world.project.join("conf/app.conf.new"), &conf).unwrap();
    wait_for("the change", || (sees() == "three\n").then_some(()));
    assert!(!world.lab.host().run("find /run/root/.cache/dtunnel -type f").contains("secret"));
    let mount = &world.mounts()[0];
    assert_eq!((&mount["path"], &mount["files"]), (&conf.to_str().unwrap().into(), &1.into()));
}

#[test]
fn what_is_not_below_a_directory_that_may_be_mounted_is_the_hosts() {
    let Some(world) = World::new("mounts = true\n") else { return };
    let host = world.lab.host();
    host.run("mkdir -p /run/data; echo theirs > /run/data/x");
    let cat = |source: &str| {
        ["run", "--rm", "--net=none", "-v", &format!("{source}:/data"), IMAGE, "cat", "/data/x"].map(str::to_owned)
    };
    let run = |source: &str| world.docker(&cat(source).each_ref().map(String::as_str));
    assert_eq!(run("/run/data"), "theirs\n");
    // One that is on both sides is somebody's choice.
    let both = world.project.to_str().unwrap().to_owned();
    world.write("x", "ours\n");
    host.run(&format!("mkdir -p {both}; echo theirs > {both}/x"));
    let said = world.refused(&cat(&both).each_ref().map(String::as_str));
    assert!(said.contains("is on this machine and on the host") && said.contains("mounts = ["), "{said}");
    assert_eq!(run(&format!("host:{both}")), "theirs\n");
    world.lab.write_profile(world.lab.remote_socket(), &format!("mounts = [{both:?}]\n"));
    world.lab.ok(&["reload", "lab"]);
    assert_eq!(run(&both), "ours\n");
    world.lab.write_profile(world.lab.remote_socket(), &format!("mounts = [\"host:{both}\"]\n"));
    world.lab.ok(&["reload", "lab"]);
    assert_eq!(run(&both), "theirs\n");
    // Sockets, and what is somebody else's.
    world.lab.write_profile(world.lab.remote_socket(), "mounts = true\n");
    world.lab.ok(&["reload", "lab"]);
    let socket = world.lab.path("home/some.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let said = world.refused(&cat(socket.to_str().unwrap()).each_ref().map(String::as_str));
    assert!(said.contains("a socket or device of this machine"), "{said}");
    let other = world.lab.path("home/other");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::chown(&other, Some(12_345), None).unwrap();
    let said = world.refused(&cat(other.to_str().unwrap()).each_ref().map(String::as_str));
    assert!(said.contains("belongs to another user"), "{said}");
}

#[test]
fn a_directory_that_is_nowhere_is_made_here() {
    let Some(world) = World::new("mounts = true\n") else { return };
    let out = world.project.join("new/out");
    let run = ["run", "--rm", "--net=none", "-v", &bind(&out, "/out"), IMAGE, "sh", "-c", "echo built > /out/x"];
    world.docker(&run);
    assert_eq!(fs::read_to_string(out.join("x")).unwrap(), "built\n");
    let gone = format!("type=bind,source={}/gone,target=/x", world.project.display());
    let said = world.refused(&["run", "--rm", "--mount", &gone, IMAGE, "true"]);
    assert!(said.contains("does not exist"), "{said}");
    assert!(!world.project.join("gone").exists());
}

#[test]
fn too_much_is_refused_with_what_is_large() {
    let Some(world) = World::new("mounts = true\nmounts_max = \"1MiB\"\n") else { return };
    world.write("node_modules/big", vec![7; 3 << 20]);
    world.write("small", "x");
    let app = bind(&world.project, "/app");
    let run = ["run", "--rm", "--net=none", "-v", &app, IMAGE, "ls", "/app"];
    let said = world.refused(&run);
    assert!(said.contains("node_modules (3 MiB") && said.contains("1 MiB"), "{said}");
    world.write(".dtunnelignore", "node_modules/\n");
    assert_eq!(world.docker(&run), "small\n");
}

#[test]
fn what_no_container_uses_can_be_removed_from_the_host_and_nothing_is_left() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("x", "hello\n");
    world.run("echo there > /app/y");
    let app = bind(&world.project, "/app");
    world.docker(&["run", "-d", "--net=none", "--name", "user", "-v", &app, IMAGE, "sleep", "600"]);
    wait_for("its being used", || {
        world.mounts().first().is_some_and(|mount| !mount["containers"].as_array().unwrap().is_empty()).then_some(())
    });
    world.lab.ok(&["mounts", "lab", "--prune"]);
    assert_eq!(world.on_host().lines().count(), 1, "it is used");
    world.docker(&["exec", "user", "sh", "-c", "echo last > /app/last"]);
    world.docker(&["rm", "-f", "user"]);
    world.lab.ok(&["mounts", "lab", "--prune"]);
    assert_eq!(world.on_host(), "");
    assert_eq!(world.lab.host().run("find /run/root/.cache -mindepth 3"), "");
    assert_eq!(fs::read_to_string(world.project.join("last")).unwrap(), "last\n");
    assert_eq!(world.mounts(), Vec::<Value>::new());
    // It can be had again.
    assert_eq!(world.run("cat /app/x /app/y"), "hello\nthere\n");
}

#[test]
fn a_tunnel_that_is_up_again_goes_on_and_knows_its_containers() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("x", "one\n");
    let app = bind(&world.project, "/app");
    let script = "while [ ! -e /app/go ]; do sleep 0.1; done; echo written > /app/y; sleep 600";
    world.docker(&["run", "-d", "--net=none", "--name", "dev", "-v", &app, IMAGE, "sh", "-c", script]);
    world.lab.ok(&["down", "lab"]);
    world.write("x", "two\n");
    world.write("go", "");
    world.lab.ok(&["up", "lab"]);
    wait_for("what was written", || world.project.join("y").exists().then_some(()));
    assert_eq!(world.docker(&["exec", "dev", "cat", "/app/x"]), "two\n");
    // A file that both have changed is kept twice.
    world.lab.ok(&["down", "lab"]);
    world.write("x", "ours\n");
    let tree = format!("/run/root/.cache/dtunnel/mounts/{}/tree", world.on_host().trim());
    world.lab.host().run(&format!("echo theirs-is-longer > {tree}/x"));
    world.lab.ok(&["up", "lab"]);
    let copy = wait_for("the copy", || {
        let mut names =
            fs::read_dir(&world.project).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
        names.find(|name| name.starts_with("x.dtunnel-conflict-"))
    });
    assert_eq!(fs::read_to_string(world.project.join("x")).unwrap(), "ours\n");
    assert_eq!(fs::read_to_string(world.project.join(copy)).unwrap(), "theirs-is-longer\n");
    wait_for("the conflict's being told", || (world.state() == "conflict").then_some(()));
    let table = world.lab.run(&["mounts", "lab"]);
    assert!(String::from_utf8_lossy(&table.stderr).contains("x.dtunnel-conflict-"));
}

#[test]
fn what_cannot_be_is_said_when_the_tunnel_comes_up() {
    let Some(lab) = Lab::with_engine() else { return };
    for (profile, why) in [
        ("mounts = true\naccess = \"read-only\"\n", "with `read-only` no container is created"),
        ("mounts = true\napi = false\n", "with `api = false` no request is read"),
    ] {
        lab.write_profile(lab.remote_socket(), profile);
        let output = lab.run(&["up", "lab"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains(why), "{said}");
        assert!(lab.status("lab")["mounts"].is_null());
        lab.ok(&["down", "lab"]);
    }
    for (mounts, why) in [("[\"/\"]", "the whole machine"), ("\"~/src\"", "write directories as a list")] {
        lab.write_profile(lab.remote_socket(), &format!("mounts = {mounts}\n"));
        let said = lab.fails(2, &["up", "lab"]);
        assert!(said.contains(why), "{said}");
    }
}
