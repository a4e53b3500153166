//! The real docker CLI, and docker-py, through a tunnel to a real Engine.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::lab::engine::IMAGE;
use crate::lab::pty::Person;
use crate::lab::{Lab, run, skip, wait_for};

/// A lab whose tunnel is up.
fn lab() -> Option<Lab> {
    let lab = Lab::with_engine()?;
    lab.ok(&["up", "lab"]);
    Some(lab)
}

/// A container that runs until its guard is dropped.
struct Container<'a> {
    lab: &'a Lab,
    id: String,
}

impl<'a> Container<'a> {
    fn start(lab: &'a Lab, options: &[&str], command: &[&str]) -> Self {
        let args = [&["run", "--detach"], options, &[IMAGE], command].concat();
        let id = run(&mut lab.docker("lab", &args)).trim().to_owned();
        Self { lab, id }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let engine = self.lab.engine.as_ref().unwrap();
        let _ = engine.docker(&["rm", "--force", &self.id]).output();
    }
}

#[test]
fn version_ps_and_run() {
    let Some(lab) = lab() else { return };
    assert!(run(&mut lab.docker("lab", &["version"])).contains("Server"));
    assert!(run(&mut lab.docker("lab", &["ps"])).contains("CONTAINER ID"));
    assert_eq!(run(&mut lab.docker("lab", &["run", "--rm", IMAGE, "echo", "hello"])), "hello\n");
    let failed = lab.docker("lab", &["run", "--rm", IMAGE, "sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(7));
}

#[test]
fn run_with_a_pipe_gets_all_of_standard_input_and_its_end() {
    let Some(lab) = lab() else { return };
    let mut docker = lab.docker("lab", &["run", "--rm", "-i", IMAGE, "sh", "-c", "wc -c; echo done"]);
    let mut child = docker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..320 {
        stdin.write_all(&[b'x'; 100_000]).unwrap();
    }
    drop(stdin);
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), "32000000\ndone\n");
}

#[test]
fn exec_on_a_terminal_with_a_resize() {
    let Some(lab) = lab() else { return };
    let container = Container::start(&lab, &[], &["sleep", "600"]);
    let host = format!("unix://{}", lab.socket("lab").display());
    let id = &container.id;
    let mut person = Person::types(
        &lab,
        &format!("stty rows 40 cols 100; tty; DOCKER_HOST={host} /usr/bin/docker exec -it {id} sh"),
    );
    person.sees("/ # ");
    let tty = person.screen().lines().find_map(|l| l.trim().strip_prefix("/dev/pts/").map(str::to_owned)).unwrap();
    // Where the CLI is a moment too early for the Engine with the first size, it tells the next one.
    let resize = |rows: u16, cols: u16| {
        let terminal = format!("/dev/pts/{tty}");
        run(Command::new("stty").args(["-F", &terminal, "rows", &rows.to_string(), "cols", &cols.to_string()]));
    };
    for (rows, cols) in [(40, 100), (50, 120)] {
        wait_for("the size to arrive", || {
            resize(rows + 1, cols);
            resize(rows, cols);
            person.presses("stty size\n");
            person.screen().contains(&format!("{rows} {cols}")).then_some(())
        });
    }
    person.presses("exit 5\n");
    assert_eq!(person.leaves().0.code(), Some(5));
}

#[test]
fn attach_and_detach() {
    let Some(lab) = lab() else { return };
    let container = Container::start(&lab, &["-it"], &["sh"]);
    let host = format!("unix://{}", lab.socket("lab").display());
    let id = &container.id;
    let mut person = Person::types(&lab, &format!("DOCKER_HOST={host} /usr/bin/docker attach {id}"));
    person.presses("echo $((6*7))\n");
    person.sees("42");
    person.presses("\u{10}\u{11}");
    person.sees("read escape sequence");
    person.leaves();
    let running = run(&mut lab.docker("lab", &["inspect", "--format", "{{.State.Running}}", id]));
    assert_eq!(running, "true\n", "detached, not ended");
}

#[test]
fn logs_and_events_follow() {
    let Some(lab) = lab() else { return };
    let mut events = lab.docker("lab", &["events", "--format", "{{.Action}}"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut events_out = BufReader::new(events.stdout.take().unwrap());
    // The CLI gives no sign that it listens; the first event that it reports is one.
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        events_out.read_line(&mut line).unwrap();
        line
    });
    let container = wait_for("an event", || {
        let container =
            Container::start(&lab, &[], &["sh", "-c", "for i in $(seq 1000); do echo line $i; done; sleep 600"]);
        reader.is_finished().then_some(container)
    });
    assert!(!reader.join().unwrap().is_empty());
    let _ = events.kill();
    let _ = events.wait();
    let mut logs = lab.docker("lab", &["logs", "--follow", &container.id]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    let last = lines.map_while(Result::ok).find(|line| line == "line 1000");
    assert!(last.is_some());
    let _ = logs.kill();
    let _ = logs.wait();
    // Clients that were killed leave no flow behind.
    wait_for("the flows to end", || (lab.status("lab")["flows_open"] == 0).then_some(()));
}

#[test]
fn cp_both_ways() {
    let Some(lab) = lab() else { return };
    let container = Container::start(&lab, &[], &["sleep", "600"]);
    let data = random(&lab, "data", 3_000_000);
    let at = format!("{}:/tmp/data", container.id);
    run(&mut lab.docker("lab", &["cp", lab.path("data").to_str().unwrap(), &at]));
    run(&mut lab.docker("lab", &["cp", &at, lab.path("back").to_str().unwrap()]));
    assert!(std::fs::read(lab.path("back")).unwrap() == data);
}

/// A file of bytes that cannot be compressed.
fn random(lab: &Lab, name: &str, size: u64) -> Vec<u8> {
    let mut data = Vec::new();
    std::fs::File::open("/dev/urandom").unwrap().take(size).read_to_end(&mut data).unwrap();
    std::fs::write(lab.path(name), &data).unwrap();
    data
}

#[test]
fn save_and_load_of_half_a_gigabyte_arrive_whole() {
    let Some(lab) = lab() else { return };
    // An image of 500 MB that cannot be compressed, made on the Engine's own socket.
    std::fs::create_dir(lab.path("big")).unwrap();
    random(&lab, "big/data", 512 << 20);
    let engine = lab.engine.as_ref().unwrap();
    engine.import(&lab.path("big"), &["-", "big:1"]);
    std::fs::remove_dir_all(lab.path("big")).unwrap();
    let digest = |mut docker: Command| {
        let mut save = docker.stdout(Stdio::piped()).spawn().unwrap();
        let sum = run(Command::new("sha256sum").stdin(save.stdout.take().unwrap()));
        assert!(save.wait().unwrap().success());
        sum.split(' ').next().unwrap().to_owned()
    };
    let direct = digest(engine.docker(&["save", "big:1"]));
    let through = digest(lab.docker("lab", &["save", "big:1"]));
    assert_eq!(direct, through, "down");
    // Up again: the Engine takes only what has the right digests, and then has the very same image.
    let id = |docker: &mut Command| run(docker);
    let before = id(&mut engine.docker(&["inspect", "--format", "{{.Id}} {{.RootFS.Layers}}", "big:1"]));
    run(&mut engine.docker(&["save", "-o", lab.path("big.tar").to_str().unwrap(), "big:1"]));
    run(engine.docker(&["rmi", "big:1"]).stdout(Stdio::null()));
    run(&mut lab.docker("lab", &["load", "-i", lab.path("big.tar").to_str().unwrap()]));
    assert_eq!(id(&mut engine.docker(&["inspect", "--format", "{{.Id}} {{.RootFS.Layers}}", "big:1"])), before, "up");
    run(&mut engine.docker(&["rmi", "big:1"]));
}

#[test]
fn build_with_both_builders() {
    let Some(lab) = lab() else { return };
    std::fs::create_dir(lab.path("context")).unwrap();
    let data = random(&lab, "context/data", 5_000_000);
    std::fs::write(
        lab.path("context/Dockerfile"),
        format!("FROM {IMAGE}\nCOPY data /data\nRUN wc -c < /data > /size\n"),
    )
    .unwrap();
    for buildkit in ["0", "1"] {
        let tag = format!("built:{buildkit}");
        let context = lab.path("context");
        let mut build = lab.docker("lab", &["build", "--network", "none", "-t", &tag, context.to_str().unwrap()]);
        run(build.env("DOCKER_BUILDKIT", buildkit));
        let size = run(&mut lab.docker("lab", &["run", "--rm", &tag, "cat", "/size"]));
        assert_eq!(size.trim(), data.len().to_string(), "DOCKER_BUILDKIT={buildkit}");
        run(&mut lab.docker("lab", &["rmi", &tag]));
    }
}

#[test]
fn fifty_commands_at_once() {
    let Some(lab) = lab() else { return };
    let children: Vec<_> = (0..50)
        .map(|i| {
            let mut docker = match i % 5 {
                0 => lab.docker("lab", &["run", "--rm", IMAGE, "echo", "here"]),
                _ => lab.docker("lab", &["version"]),
            };
            docker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        crate::lab::succeeded(&child.wait_with_output().unwrap());
    }
    let status = wait_for("the flows to end", || Some(lab.status("lab")).filter(|s| s["flows_open"] == 0));
    assert_eq!(status["flows_failed"], 0);
}

/// The same through docker-py, so that it is not one client's habits that are tested.
#[test]
fn docker_py() {
    let Some(lab) = lab() else { return };
    let python = "/usr/bin/python3";
    if !Command::new(python).args(["-c", "import docker"]).output().is_ok_and(|o| o.status.success()) {
        return skip("docker-py (Debian's python3-docker) is missing");
    }
    let mut command = Command::new(python);
    lab.set_env(&mut command);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/docker_py.py")).arg(IMAGE);
    let output = run(command.env("DOCKER_HOST", format!("unix://{}", lab.socket("lab").display())));
    assert!(output.ends_with("all is well\n"), "{output}");
}
