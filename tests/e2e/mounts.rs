//! Directories of this machine in containers of a host that is really far, with real ssh, docker and compose.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::engine::IMAGE;
use crate::lab::{Lab, run, skip, succeeded, wait_for};

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

#[test]
fn compose_has_its_sources_and_its_configuration() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("src/index.html", "hello\n");
    world.write("app.conf", "setting\n");
    let file = format!(
        "version: '3'\nservices:\n  web:\n    image: {IMAGE}\n    network_mode: none\n    command: sleep 600\n    volumes:\n      \
         - ./src:/app\n      - ./app.conf:/etc/app.conf:ro\n      - data:/data\nvolumes:\n  data: {{}}\n"
    );
    world.write("docker-compose.yml", file);
    let name = format!("m{}", std::process::id());
    let compose = |words: &str| {
        let mut command = std::process::Command::new("/usr/bin/docker-compose");
        world.lab.set_env(&mut command);
        command.current_dir(&world.project).args(words.split(' ')).env("COMPOSE_PROJECT_NAME", &name);
        command.env("DOCKER_HOST", format!("unix://{}", world.lab.socket("lab").display()));
        run(&mut command)
    };
    compose("up -d");
    assert_eq!(compose("exec -T web cat /app/index.html /etc/app.conf"), "hello\nsetting\n");
    world.write("src/index.html", "changed\n");
    wait_for("the change", || (compose("exec -T web cat /app/index.html") == "changed\n").then_some(()));
    compose("exec -T web dd if=/etc/app.conf of=/app/copy");
    assert_eq!(fs::read_to_string(world.project.join("src/copy")).unwrap(), "setting\n");
    compose("down -v");
    world.lab.ok(&["mounts", "lab", "--prune"]);
    assert_eq!(world.on_host(), "");
}

#[test]
fn a_devcontainer_has_the_workspace_that_is_here() {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/testcontainers-node/node_modules/@devcontainers/cli/devcontainer.js");
    if !cli.exists() {
        return skip("the CLI of devcontainers (scripts/test installs it) is missing");
    }
    let Some(world) = World::new("mounts = true\n") else { return };
    // It looks around in its container: all of busybox, and an account.
    let image = world.lab.path("image");
    for dir in ["bin", "etc", "root", "tmp"] {
        fs::create_dir_all(image.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    for tool in run(std::process::Command::new("/bin/busybox").arg("--list")).lines().filter(|tool| *tool != "busybox")
    {
        std::os::unix::fs::symlink("busybox", image.join("bin").join(tool)).unwrap();
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    world.lab.engine.as_ref().unwrap().import(&image, &["-", "dev:1"]);
    world.write(".devcontainer/devcontainer.json", r#"{"image": "dev:1", "runArgs": ["--net=none"]}"#);
    world.write("main.txt", "hello\n");
    let devcontainer = |words: &[&str]| {
        let mut command = std::process::Command::new("node");
        world.lab.set_env(&mut command);
        command.arg(&cli).arg(words[0]).args(["--docker-path", "/usr/bin/docker", "--workspace-folder"]);
        command.arg(&world.project).args(&words[1..]).stdin(std::process::Stdio::null());
        command.env("DOCKER_HOST", format!("unix://{}", world.lab.socket("lab").display()));
        run(&mut command)
    };
    assert!(devcontainer(&["up"]).contains("\"outcome\":\"success\""));
    assert_eq!(devcontainer(&["exec", "sh", "-c", "cat main.txt; echo built > out.txt"]).trim(), "hello");
    assert_eq!(fs::read_to_string(world.project.join("out.txt")).unwrap(), "built\n");
}

#[test]
fn a_directory_can_be_renamed_while_a_container_writes_into_it() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("d0/start", "");
    let app = bind(&world.project, "/app");
    let script = "i=0; while [ ! -e /app/stop ]; do for d in /app/d?; do echo $i > $d/f$i 2>/dev/null && i=$((i+1)); done; \
                  sleep 0.05; done; echo $i > /app/count";
    world.docker(&["run", "-d", "--net=none", "--name", "dev", "-v", &app, IMAGE, "sh", "-c", script]);
    for turn in 0..4 {
        let (from, to) = (world.project.join(format!("d{turn}")), world.project.join(format!("d{}", turn + 1)));
        wait_for("something new", || (fs::read_dir(&from).unwrap().count() > turn * 5 + 3).then_some(()));
        fs::rename(from, to).unwrap();
    }
    world.write("stop", "");
    wait_for("the end", || world.docker(&["ps", "-q"]).is_empty().then_some(()));
    world.synced();
    let count: usize = fs::read_to_string(world.project.join("count")).unwrap().trim().parse().unwrap();
    // Each file is in one of the directories at least, whichever that had become; conflicts are copies.
    let files = run(std::process::Command::new("find").arg(&world.project).args(["-type", "f", "-printf", "%f\\n"]));
    let missing: Vec<usize> = (0..count).filter(|i| !files.lines().any(|name| name == format!("f{i}"))).collect();
    assert!(missing.is_empty(), "{missing:?} of {count}");
}

#[test]
fn a_program_that_watches_in_the_container_is_told_of_changes() {
    let Some(world) = World::new("mounts = true\n") else { return };
    // GNU's tail waits for inotify(7); it would look by itself once an hour.
    let image = world.lab.path("image");
    let libraries = run(std::process::Command::new("ldd").arg("/usr/bin/tail"));
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
    for file in libraries.chain(["/usr/bin/tail".into()]) {
        let to = image.join(&file[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    world.lab.engine.as_ref().unwrap().import(&image, &["-", "watcher:1"]);
    let file = world.write("file", "one\n");
    let app = bind(&world.project, "/app");
    let tail = ["/usr/bin/tail", "-s", "3600", "-n", "+1", "-F", "/app/file"];
    world.docker(&[&["run", "-d", "--net=none", "--name", "watch", "-v", &app, "watcher:1"], &tail[..]].concat());
    for line in ["two\n", "three\n"] {
        wait_for("the lines before", || {
            let logs = world.docker(&["logs", "watch"]);
            logs.ends_with(&fs::read_to_string(&file).unwrap()).then_some(())
        });
        let before = fs::read_to_string(&file).unwrap();
        world.write("file", before + line);
    }
    wait_for("the change", || world.docker(&["logs", "watch"]).contains("three").then_some(()));
}

#[test]
fn under_a_guard_sources_are_judged_as_they_are_written() {
    let Some(lab) = Lab::with_own_engine("", &[]) else { return };
    let (project, other) = (lab.path("home/project"), lab.path("home/other"));
    for dir in [&project, &other] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("x"), "ours\n").unwrap();
    }
    let access = "access = [\"containers\", \"no-privileged\"]";
    lab.write_profile(lab.remote_socket(), &format!("mounts = true\n{access}\nallowed_binds = [{project:?}]\n"));
    lab.ok(&["up", "lab"]);
    let world = World { lab, project };
    assert_eq!(world.run("cat /app/x; echo built > /app/out"), "ours\n");
    assert_eq!(fs::read_to_string(world.project.join("out")).unwrap(), "built\n");
    let said = world.refused(&["run", "--rm", "--net=none", "-v", &bind(&other, "/app"), IMAGE, "cat", "/app/x"]);
    assert!(said.contains("HostConfig.Binds"), "{said}");
    assert_eq!(world.on_host().lines().count(), 1, "nothing of what is refused");
}

#[test]
fn what_a_container_owns_comes_back_to_a_login_that_is_not_root_if_it_may_be_read() {
    let Some(lab) = Lab::with_own_engine("StrictModes no\n", &[]) else { return };
    let accounts = lab.path("passwd");
    let with_dev = fs::read_to_string(&accounts).unwrap() + "dev:x:4321:4321::/run/dev:/bin/sh\n";
    fs::write(&accounts, with_dev).unwrap();
    let shadow = lab.path("shadow");
    fs::write(&shadow, fs::read_to_string(&shadow).unwrap() + "dev:*:19000:0:99999:7:::\n").unwrap();
    lab.host().run(&format!("mkdir -m 700 /run/dev; chown 4321 /run/dev; chmod 666 {}", lab.remote_socket().display()));
    let dir = lab.remote_socket().parent().unwrap().to_owned();
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(lab.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    lab.write_profile(lab.remote_socket(), "user = \"dev\"\nmounts = true\n");
    lab.ok(&["up", "lab"]);
    let project = lab.path("home/project");
    fs::create_dir(&project).unwrap();
    let world = World { lab, project };
    world.write("x", "hello\n");
    let script = "cat /app/x; mkdir /app/d; echo a > /app/d/open; echo b > /app/d/closed; chmod 600 /app/d/closed";
    assert_eq!(world.run(script), "hello\n");
    assert_eq!(fs::read_to_string(world.project.join("d/open")).unwrap(), "a\n");
    assert!(!world.project.join("d/closed").exists());
    let table = world.lab.run(&["mounts", "lab"]);
    let said = String::from_utf8_lossy(&table.stderr).into_owned();
    assert!(said.contains("d/closed"), "{said}");
    // Mirrors are nobody else's.
    assert!(world.lab.host().run("stat -c '%a %u' /run/dev/.cache/dtunnel/mounts/*").starts_with("700 4321"));
}

#[test]
fn odd_names_and_links_are_carried_or_told() {
    let Some(world) = World::new("mounts = true\n") else { return };
    let (long, broken) = ("l".repeat(255), "two\nlines");
    world.write(&long, "long\n");
    world.write(broken, "broken\n");
    world.write("-rf *; 'q' $(x)", "odd\n");
    std::os::unix::fs::symlink("-rf *; 'q' $(x)", world.project.join("inside")).unwrap();
    world.write("case", "lower\n");
    let script =
        "cd /app; cat l* two* inside case; ln -s /etc/passwd out; ln -s case in; mv case tmp; mv tmp CASE; mkfifo fifo";
    assert_eq!(world.run(script), "long\nbroken\nodd\nlower\n");
    let names = fs::read_dir(&world.project).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["-rf *; 'q' $(x)", "CASE", "in", "inside", &long, broken]);
    let left = world.mounts()[0]["left"].to_string();
    assert!(left.contains("out: a link of the host") && left.contains("fifo: a socket, device or FIFO"), "{left}");
}

#[test]
fn two_tunnels_have_mirrors_of_their_own() {
    let Some(world) = World::new("mounts = true\n") else { return };
    let (ssh_config, remote) = (world.lab.path("ssh_config"), world.lab.remote_socket());
    let profile = |name: &str| format!("[profiles.{name}]\nhost = \"lab\"\nremote = {remote:?}\nmounts = true\n");
    let config = format!("ssh_config = {ssh_config:?}\n{}{}", profile("lab"), profile("lab2"));
    world.lab.write_config(&config);
    world.lab.ok(&["up", "lab2"]);
    world.write("x", "one\n");
    let app = bind(&world.project, "/app");
    for name in ["lab", "lab2"] {
        let run = ["run", "-d", "--net=none", "--name", name, "-v", &app, IMAGE, "sleep", "600"];
        succeeded(&world.lab.docker(name, &run).output().unwrap());
    }
    assert_eq!(world.on_host().lines().count(), 2);
    world.docker(&["exec", "lab", "sh", "-c", "echo built > /app/y"]);
    wait_for("the other's", || {
        let output = world.lab.docker("lab2", &["exec", "lab2", "cat", "/app/y"]).output().unwrap();
        (output.stdout == b"built\n").then_some(())
    });
}

#[test]
fn what_was_written_while_the_tunnel_was_down_is_fetched_before_its_mirror_is_removed() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("x", "hello\n");
    let app = bind(&world.project, "/app");
    world.docker(&["run", "-d", "--net=none", "--name", "dev", "-v", &app, IMAGE, "sleep", "600"]);
    world.lose(Loss::Daemon);
    let engine = world.lab.engine.clone().unwrap();
    run(&mut engine.docker(&["exec", "dev", "sh", "-c", "echo precious > /app/precious"]));
    run(&mut engine.docker(&["rm", "-f", "dev"]));
    world.lab.ok(&["up", "lab"]);
    world.lab.ok(&["mounts", "lab", "--prune"]);
    assert_eq!(fs::read_to_string(world.project.join("precious")).unwrap(), "precious\n");
    assert_eq!(world.on_host(), "");
}

/// How a tunnel loses its host.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// Packets are lost without a word.
    Silence,
    /// The daemon is killed.
    Daemon,
    /// The host's processes of the login are killed.
    Login,
}

impl World {
    fn lose(&self, loss: Loss) {
        match loss {
            Loss::Silence => self.lab.host().cut(),
            Loss::Daemon => {
                let pid = self.lab.status("lab")["pid"].as_u64().unwrap().to_string();
                run(std::process::Command::new("kill").args(["-9", &pid]));
                wait_for("the daemon's end", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
            }
            Loss::Login => drop(self.lab.host().run("pkill -9 -f '[s]shd: root' || true")),
        }
    }

    fn find_again(&self, loss: Loss) {
        match loss {
            Loss::Silence => self.lab.host().restore(),
            Loss::Daemon => drop(self.lab.ok(&["up", "lab"])),
            Loss::Login => {}
        }
        wait_for("being up", || (self.lab.state() == "up").then_some(()));
    }

    /// In step, with no round under way that began before.
    fn synced(&self) {
        wait_for("being in step", || self.lab.run(&["mounts", "lab", "--sync"]).status.success().then_some(()));
    }

    /// The contents of all copies of a file here, and of itself.
    fn versions(&self, name: &str) -> String {
        let entries = fs::read_dir(&self.project).unwrap().flatten();
        let of_file = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
        of_file.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect()
    }
}

#[test]
fn what_both_sides_write_while_the_host_is_lost_is_all_here_in_the_end() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("shared", "start\n");
    let app = bind(&world.project, "/app");
    world.docker(&["run", "-d", "--net=none", "--name", "dev", "-v", &app, IMAGE, "sleep", "6000"]);
    let engine = world.lab.engine.clone().unwrap();
    let there = |script: &str| run(&mut engine.docker(&["exec", "dev", "sh", "-c", script]));
    for (turn, loss) in [Loss::Daemon, Loss::Silence, Loss::Daemon].into_iter().enumerate() {
        world.lose(loss);
        // Sizes differ, too: no clock is relied on.
        world.write("shared", format!("here {turn}\n"));
        world.write(&format!("here-{turn}"), "only here\n");
        there(&format!("echo there-and-longer {turn} > /app/shared; echo only there > /app/there-{turn}"));
        if turn > 0 {
            fs::remove_file(world.project.join(format!("there-{}", turn - 1))).unwrap();
            there(&format!("rm /app/here-{}", turn - 1));
        }
        world.find_again(loss);
        world.synced();
        let shared = world.versions("shared");
        let is_there = |text: String| assert!(shared.contains(&text), "{loss:?}: {text:?} in {shared:?}");
        is_there(format!("here {turn}\n"));
        is_there(format!("there-and-longer {turn}\n"));
        assert_eq!(fs::read_to_string(world.project.join(format!("there-{turn}"))).unwrap(), "only there\n");
        assert_eq!(
            there(&format!("cat /app/here-{turn}; ls /app")),
            format!("only here\nhere-{turn}\nshared\nthere-{turn}\n")
        );
        assert!(world.project.join(format!("here-{turn}")).exists());
    }
}

#[test]
fn a_fill_and_a_fetch_that_are_cut_are_done_the_next_time() {
    let Some(world) = World::new("mounts = true\n") else { return };
    let content: Vec<u8> = (0..40u32 << 18).flat_map(|i| i.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    world.write("big", &content);
    let app = bind(&world.project, "/app");
    let sum = |output: &str| output.split(' ').next().unwrap().to_owned();
    let expected = sum(&run(std::process::Command::new("sha256sum").arg(world.project.join("big"))));
    let begin = |script: &str| {
        let args = ["run", "--rm", "--net=none", "-v", &app, IMAGE, "sh", "-c", script];
        let mut docker = world.lab.docker("lab", &args);
        docker.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    for loss in [Loss::Daemon, Loss::Login, Loss::Silence] {
        let mut filling = begin("true");
        wait_for("the fill", || {
            world
                .lab
                .host()
                .run("du -s /run/root/.cache 2>/dev/null || true")
                .split('\t')
                .next()
                .unwrap()
                .parse()
                .is_ok_and(|kib: u64| kib > 1000)
                .then_some(())
        });
        world.lose(loss);
        world.find_again(loss);
        let _ = filling.kill();
        filling.wait().unwrap();
        assert_eq!(sum(&world.run("sha256sum /app/big")), expected, "{loss:?}");
        world.lab.ok(&["mounts", "lab", "--prune"]);
    }
    for loss in [Loss::Daemon, Loss::Login, Loss::Silence] {
        // Another content of the same size each time, and a new file.
        let mut writing = begin(
            "head -c 40000000 /app/big > /app/new; (tail -c 1000 /app/big; head -c 41942040 /app/big) > /app/t; mv /app/t /app/big",
        );
        wait_for("the fetch", || {
            let mut names = fs::read_dir(&world.project).unwrap().flatten().map(|entry| entry.file_name());
            let is_there = names.any(|name| name.to_string_lossy().starts_with(".dtunnel-tmp-"));
            (is_there || writing.try_wait().unwrap().is_some()).then_some(())
        });
        world.lose(loss);
        world.find_again(loss);
        let _ = writing.kill();
        writing.wait().unwrap();
        // It runs on without its docker.
        wait_for("the container's end", || world.docker(&["ps", "-q"]).is_empty().then_some(()));
        world.synced();
        let here = sum(&run(std::process::Command::new("sha256sum").arg(world.project.join("big"))));
        assert_eq!(sum(&world.run("sha256sum /app/big")), here, "{loss:?}");
        let mut names: Vec<String> = fs::read_dir(&world.project)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["big", "new"], "{loss:?}");
        fs::remove_file(world.project.join("new")).unwrap();
    }
}

#[test]
fn nothing_comes_back_from_what_containers_only_read() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("x", "ours\n");
    let app = format!("{}:ro", bind(&world.project, "/app"));
    world.docker(&["run", "-d", "--net=none", "--name", "reader", "-v", &app, IMAGE, "sleep", "600"]);
    let tree = format!("/run/root/.cache/dtunnel/mounts/{}/tree", world.on_host().trim());
    world.lab.host().run(&format!("echo theirs-is-longer > {tree}/x; echo theirs > {tree}/y"));
    world.synced();
    assert_eq!(world.versions(""), "ours\n");
    assert_eq!(world.docker(&["exec", "reader", "cat", "/app/x"]), "ours\n");
    // A container that may write is another matter.
    world.run("echo built > /app/z");
    assert_eq!(fs::read_to_string(world.project.join("z")).unwrap(), "built\n");
}

#[test]
fn a_login_that_may_use_sftp_alone_has_mirrors_too_whoever_carries_it() {
    for carrier in ["native", "openssh"] {
        let Some(lab) = Lab::with_own_engine("Subsystem sftp internal-sftp\nForceCommand internal-sftp\n", &[]) else {
            return;
        };
        lab.write_profile(lab.remote_socket(), &format!("mounts = true\ncarrier = {carrier:?}\n"));
        let up = lab.run(&["up", "lab"]);
        assert!(!String::from_utf8_lossy(&up.stderr).contains("mounted"), "{carrier}: {up:?}");
        let project = lab.path("home/project");
        fs::create_dir(&project).unwrap();
        let world = World { lab, project };
        world.write("x", "hello\n");
        world.write("sub/y", "deep\n");
        assert_eq!(
            world.run("cat /app/x /app/sub/y; echo built > /app/out; rm /app/sub/y"),
            "hello\ndeep\n",
            "{carrier}"
        );
        assert_eq!(fs::read_to_string(world.project.join("out")).unwrap(), "built\n");
        assert!(!world.project.join("sub/y").exists());
        world.write("x", "again\n");
        assert_eq!(world.run("cat /app/x"), "again\n");
        world.lab.ok(&["mounts", "lab", "--prune"]);
        assert_eq!(world.on_host(), "");
    }
}

#[test]
fn a_login_that_may_do_neither_is_told_when_the_tunnel_comes_up() {
    let Some(lab) = Lab::with_own_engine("ForceCommand /bin/false\n", &[]) else { return };
    lab.write_profile(lab.remote_socket(), "mounts = true\n");
    let up = lab.run(&["up", "lab"]);
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(up.status.success() && said.contains("directories of this machine cannot be mounted"), "{said}");
    let project = lab.path("home/project");
    fs::create_dir(&project).unwrap();
    let world = World { lab, project };
    let said = world.refused(&["run", "--rm", "-v", &bind(&world.project, "/app"), IMAGE, "true"]);
    assert!(said.contains("directories of this machine cannot be mounted"), "{said}");
    // What needs none goes on.
    assert_eq!(world.docker(&["run", "--rm", "--net=none", IMAGE, "echo", "hello"]), "hello\n");
}

#[test]
fn a_command_in_a_container_finds_what_was_changed_just_before() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("x", "0");
    let app = bind(&world.project, "/app");
    world.docker(&["run", "-d", "--net=none", "--name", "dev", "-v", &app, IMAGE, "sleep", "600"]);
    for turn in 1..=20 {
        world.write("x", turn.to_string());
        world.write(&format!("new-{turn}/y"), "");
        let said = world.docker(&[
            "exec",
            "dev",
            "sh",
            "-c",
            &format!("cat /app/x; ls -d /app/new-{turn}/y; echo {turn} > /app/z"),
        ]);
        assert_eq!(said, format!("{turn}/app/new-{turn}/y\n"));
        assert_eq!(fs::read_to_string(world.project.join("z")).unwrap(), format!("{turn}\n"));
    }
    // As with a start.
    world.docker(&["stop", "-t", "0", "dev"]);
    world.write("x", "last");
    world.docker(&["start", "dev"]);
    assert_eq!(world.docker(&["exec", "dev", "cat", "/app/x"]), "last");
}

#[test]
fn what_is_ignored_is_not_in_the_hands_of_a_container() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write(".dtunnelignore", "*\n!src\n!src/**\n");
    world.write("src/s", "source\n");
    world.write(".env", "secret\n");
    world.write(".git/config", "config\n");
    let script = "mkdir -p /app/.git/hooks; echo evil > /app/.git/hooks/pre-commit; echo mine > /app/.env; ls -A /app";
    assert_eq!(world.run(script), ".dtunnelignore\n.env\n.git\nsrc\n");
    assert_eq!(world.run("cat /app/.env /app/.git/hooks/pre-commit"), "mine\nevil\n", "they are the container's own");
    assert!(!world.project.join(".git/hooks").exists());
    assert_eq!(world.versions(".env"), "secret\n");
    // Whatever is done to the file that says so.
    for script in ["rm /app/.dtunnelignore", "echo '!.env' > /app/.dtunnelignore", "echo > /app/src/.dtunnelignore"] {
        world.run(&format!("rm -f /app/.env; {script}"));
        assert_eq!(world.run("ls /app/.env 2>/dev/null || echo none"), "none\n", "{script}");
    }
    assert_eq!(fs::read_to_string(world.project.join(".dtunnelignore")).unwrap(), "*\n!src\n!src/**\n");
}

#[test]
fn the_host_does_not_say_what_may_be_written_here() {
    let Some(world) = World::new("mounts = true\n") else { return };
    world.write("x", "ours\n");
    let app = format!("{}:ro", bind(&world.project, "/app"));
    world.docker(&["run", "-d", "--net=none", "--name", "reader", "-v", &app, IMAGE, "sleep", "600"]);
    let tree = format!("/run/root/.cache/dtunnel/mounts/{}/tree:/x", world.on_host().trim());
    let engine = world.lab.engine.clone().unwrap();
    let script = "echo evil > /x/x; echo evil > /x/y";
    run(&mut engine.docker(&[
        "run",
        "-d",
        "--net=none",
        "-v",
        &tree,
        IMAGE,
        "sh",
        "-c",
        &format!("{script}; sleep 600"),
    ]));
    wait_for("its being listed", || {
        let mounts = world.mounts();
        (mounts[0]["containers"].as_array().unwrap().len() == 2).then_some(())
    });
    world.synced();
    world.synced();
    assert_eq!(world.versions(""), "ours\n");
}

#[test]
fn a_mirror_that_nobody_has_used_for_a_while_or_that_is_given_up_keeps_nobody_waiting() {
    let Some(world) = World::new("mounts = [\"~\"]\nmounts_max = \"1MiB\"\n") else { return };
    world.write("x", "hello\n");
    let other = world.lab.path("home/other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("big"), vec![7; 1 << 19]).unwrap();
    let too_big = world.lab.path("home/too-big");
    fs::create_dir(&too_big).unwrap();
    fs::write(too_big.join("huge"), vec![7; 2 << 20]).unwrap();
    // Refused, and nothing is left of it.
    assert!(world.refused(&["create", "-v", &bind(&too_big, "/x"), IMAGE]).contains("MiB"));
    // A person's Ctrl-C while it is filled, which takes for ever here.
    world.lab.host().cut();
    let args = ["run", "--rm", "--net=none", "-v", &bind(&other, "/other"), IMAGE, "true"];
    let mut filling = world.lab.docker("lab", &args).spawn().unwrap();
    wait_for("the fill", || (world.mounts().first()?["state"] == "filling").then_some(()));
    run(std::process::Command::new("kill").args(["-INT", &filling.id().to_string()]));
    filling.wait().unwrap();
    wait_for("its being given up", || world.mounts().is_empty().then_some(()));
    world.find_again(Loss::Silence);
    wait_for("nothing of it on the host", || {
        let files = world.lab.host().run("find /run/root/.cache/dtunnel -type f -size +100k 2>/dev/null || true");
        files.is_empty().then_some(())
    });
    world.lab.ok(&["mounts", "lab", "--sync"]);
    // It is made another time.
    assert_eq!(
        world.docker(&["run", "--rm", "--net=none", "-v", &bind(&other, "/other"), IMAGE, "ls", "/other"]),
        "big\n"
    );
    assert_eq!(world.run("cat /app/x"), "hello\n");
    world.lab.ok(&["mounts", "lab", "--prune"]);
    assert_eq!(world.on_host(), "");
}
