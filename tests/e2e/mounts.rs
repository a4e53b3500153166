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
    world.run("mkdir /app/out; echo built > /app/out/program; chmod 755 /app/out/program; rm /app/sub/y; echo more >> /app/x");
    assert_eq!(fs::read_to_string(world.project.join("out/program")).unwrap(), "built\n");
    assert_eq!(fs::read_to_string(world.project.join("x")).unwrap(), "hello\nmore\n");
    assert!(!world.project.join("sub/y").exists());
    // Each run sees what has changed here since.
    world.write("x", "again\n");
    fs::remove_dir_all(world.project.join("out")).unwrap();
    assert_eq!(world.run("cat /app/x; ls /app"), "again\nsub\nx\n");
    assert_eq!(world.on_host().lines().count(), 1, "one mirror");
}
