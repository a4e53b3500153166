//! `no-privileged` against a real Engine: each way out of a container that was found, and its neighbours; and
//! what must go on working.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::guard::{guard, refused};
use crate::lab::engine::IMAGE;
use crate::lab::{Lab, connect, remote, run, succeeded};

const ACCESS: &str = "access = [\"containers\", \"build\", \"no-privileged\"]";

/// What the Engine, or the guard before it, answers: status and body.
fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = connect(socket);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n");
    let head = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer[9..12].parse().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    // One chunk, where there are chunks.
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body: String =
        if is_chunked { body.lines().filter(|line| line.starts_with(['{', '['])).collect() } else { body.into() };
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// A lab with a guard, and how to ask it and the Engine itself.
pub struct World {
    pub lab: Lab,
}

impl World {
    pub fn new(profile: &str) -> Option<Self> {
        Lab::with_engine().map(|lab| Self::of(lab, profile))
    }

    pub fn of(lab: Lab, profile: &str) -> Self {
        Self { lab: guard(lab, &format!("{ACCESS}\n{profile}")) }
    }

    pub fn guarded(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        ask(&self.lab.socket("lab"), method, path, body)
    }

    pub fn direct(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        ask(&self.lab.remote_socket(), method, path, body)
    }

    pub fn engine(&self, args: &[&str]) -> String {
        run(&mut self.lab.engine.as_ref().unwrap().docker(args)).trim().to_owned()
    }

    pub fn docker(&self, args: &[&str]) -> Output {
        self.lab.docker("lab", args).output().unwrap()
    }

    fn inspect(&self, container: &str) -> Value {
        self.direct("GET", &format!("/containers/{container}/json"), &Value::Null).1
    }
}

/// Each is done by the Engine when it is asked itself, and refused by the guard with the field's name.
#[test]
fn known_ways_out_are_refused_by_name() {
    let Some(world) = World::new("") else { return };
    let create = "/containers/create?name=way-out";
    let host = |config: Value| json!({"Image": IMAGE, "HostConfig": config});
    let mount = |options: Value| {
        host(
            json!({"Mounts": [{"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": options}}}]}),
        )
    };
    for (path, body, field) in [
        // The old shape, which Engines up to 26 read where there is no HostConfig.
        (create, json!({"Image": IMAGE, "Privileged": true}), "Privileged"),
        (create, json!({"Image": IMAGE, "HostConfig": null, "Binds": ["/:/host"]}), "Binds"),
        (create, json!({"Image": IMAGE, "PidMode": "host"}), "PidMode"),
        (create, json!({"Image": IMAGE, "NetworkMode": "host"}), "NetworkMode"),
        (create, json!({"Image": IMAGE, "CapAdd": ["SYS_ADMIN"]}), "CapAdd"),
        (create, json!({"Image": IMAGE, "privileged": true}), "privileged"),
        (create, host(json!({"privileged": true})), "HostConfig.privileged"),
        (create, json!({"Image": IMAGE, "hostconfig": {"Privileged": true}}), "hostconfig"),
        (create, host(json!({"Binds": ["/:/host"]})), "HostConfig.Binds"),
        (create, host(json!({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/x"}]})), "HostConfig.Mounts"),
        (create, host(json!({"CapAdd": ["SYS_ADMIN"]})), "HostConfig.CapAdd"),
        (create, host(json!({"SecurityOpt": ["seccomp=unconfined"]})), "HostConfig.SecurityOpt"),
        (
            create,
            host(json!({"SecurityOpt": ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]})),
            "HostConfig.SecurityOpt",
        ),
        // To runc each condition is enough by itself where an argument is named twice.
        (
            create,
            host(json!({"SecurityOpt": [format!("seccomp={}", json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0x7E02_0000, "op": "SCMP_CMP_MASKED_EQ"},
                {"index": 0, "value": 0, "op": "SCMP_CMP_GE"}]}]}))]})),
            "HostConfig.SecurityOpt",
        ),
        (create, host(json!({"MaskedPaths": []})), "HostConfig.MaskedPaths"),
        (create, host(json!({"ReadonlyPaths": ["/proc/bus"]})), "HostConfig.ReadonlyPaths"),
        (
            create,
            host(json!({"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x"}]})),
            "HostConfig.Devices",
        ),
        (create, host(json!({"DeviceCgroupRules": ["a *:* rwm"]})), "HostConfig.DeviceCgroupRules"),
        (create, host(json!({"CgroupParent": "/x"})), "HostConfig.CgroupParent"),
        (create, host(json!({"IpcMode": "host"})), "HostConfig.IpcMode"),
        (create, host(json!({"UTSMode": "host"})), "HostConfig.UTSMode"),
        (create, host(json!({"UsernsMode": "host"})), "HostConfig.UsernsMode"),
        (create, host(json!({"Cgroup": "container:x"})), "HostConfig.Cgroup"),
        (
            create,
            host(
                json!({"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "udp://127.0.0.1:1", "tag": "a"}}}),
            ),
            "HostConfig.LogConfig",
        ),
        (
            create,
            host(json!({"LogConfig": {"Type": "gelf", "Config": {"gelf-address": "udp://127.0.0.1:1"}}})),
            "HostConfig.LogConfig",
        ),
        (create, mount(json!({"type": "tmpfs", "o": "bind", "device": "/"})), "HostConfig.Mounts"),
        (
            "/volumes/create",
            json!({"Name": "way-out", "DriverOpts": {"type": "tmpfs", "o": "bind", "device": "/"}}),
            "DriverOpts",
        ),
        (
            "/volumes/create",
            json!({"Name": "way-out", "DriverOpts": {"type": "nfs", "o": "addr=1.1.1.1,rbind", "device": "/"}}),
            "DriverOpts",
        ),
        (
            "/volumes/create",
            json!({"Name": "way-out", "DriverOpts": {"type": "cifs", "o": "rbind", "device": "/"}}),
            "DriverOpts",
        ),
        (
            "/volumes/create",
            json!({"Name": "way-out", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}}),
            "DriverOpts",
        ),
    ] {
        let (status, answer) = world.direct("POST", path, &body);
        // This is a way, or names one that does not exist here.
        let is_made = status == 201 || field == "HostConfig.Cgroup";
        assert!(is_made, "the Engine itself: {body}: {status} {answer}");
        if let Some(id) = answer["Id"].as_str() {
            world.engine(&["rm", id]);
        }
        if let Some(name) = answer["Name"].as_str() {
            world.engine(&["volume", "rm", name]);
        }
        for version in ["", "/v1.24", "/v1.41"] {
            let (status, answer) = world.guarded("POST", &format!("{version}{path}"), &body);
            let message = answer["message"].as_str().unwrap_or_default();
            assert!(status == 403 && message.contains(field), "{body}: {status} {message}");
        }
    }
    // Programs of the caller's own as drivers and runtimes, and interfaces of the host's.
    for (path, body, field) in [
        (
            create,
            host(json!({"LogConfig": {"Type": "../../../var/lib/docker/volumes/v/_data/evil"}})),
            "HostConfig.LogConfig.Type",
        ),
        (create, host(json!({"LogConfig": {"Type": "fluentd"}})), "HostConfig.LogConfig.Type"),
        (create, host(json!({"Runtime": "/tmp/evil"})), "HostConfig.Runtime"),
        (create, host(json!({"Runtime": "evil"})), "HostConfig.Runtime"),
        (create, host(json!({"CgroupnsMode": "other"})), "HostConfig.CgroupnsMode"),
        (create, host(json!({"VolumeDriver": "../evil"})), "HostConfig.VolumeDriver"),
        (create, host(json!({"Annotations": {"org.systemd.property.ExecStartPre": "x"}})), "HostConfig.Annotations"),
        (create, host(json!({"Sysctls": {"kernel.core_pattern": "|/x"}})), "HostConfig.Sysctls"),
        (create, host(json!({"TheNextWayOut": 1})), "HostConfig.TheNextWayOut"),
        (
            "/networks/create",
            json!({"Name": "way-out", "Driver": "../../../var/lib/docker/volumes/v/_data/evil"}),
            "Driver",
        ),
        ("/networks/create", json!({"Name": "way-out", "IPAM": {"Driver": "../evil"}}), "IPAM.Driver"),
        ("/networks/create", json!({"Name": "way-out", "Driver": "macvlan", "Options": {"parent": "eth0"}}), "Driver"),
        (
            "/networks/create",
            json!({"Name": "way-out", "Options": {"com.docker.network.bridge.name": "docker0"}}),
            "Options",
        ),
        ("/networks/create", json!({"Name": "way-out", "ConfigFrom": {"Network": "x"}}), "ConfigFrom.Network"),
        ("/networks/create", json!({"Name": "way-out", "IPAM": {"Config": [{"Subnet": "10.199.7.0/24"}]}}), "Subnet"),
        ("/commit", json!({"HostConfig": {"Privileged": true}}), "HostConfig"),
    ] {
        let (status, answer) = world.guarded("POST", path, &body);
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(status == 403 && message.contains(field), "{body}: {status} {message}");
    }
    assert_eq!(world.direct("GET", "/containers/way-out/json", &Value::Null).0, 404);
    assert_eq!(world.direct("GET", "/volumes/way-out", &Value::Null).0, 404);
    assert_eq!(world.direct("GET", "/networks/way-out", &Value::Null).0, 404);
}

#[test]
fn containers_that_would_not_be_allowed_are_not_reached() {
    let Some(world) = World::new("") else { return };
    let sleep = [IMAGE, "sleep", "600"];
    let start = |options: &[&str]| world.engine(&[&["run", "-d"], options, &sleep].concat());
    let evil = start(&["--ipc", "host", "--name", "of-others"]);
    let hosts = start(&["--network", "host", "--pid", "host", "-v", "/etc:/host-etc"]);
    // Harmless by itself, but for where it is.
    let behind = start(&["--network", &format!("container:{hosts}")]);
    let stopped = world.engine(&[&["create", "--privileged"], &sleep[..]].concat());
    for (target, why) in
        [(&evil, "HostConfig.IpcMode"), (&hosts, "HostConfig.NetworkMode"), (&behind, "HostConfig.NetworkMode")]
    {
        for args in [
            &["exec", target, "true"][..],
            &["cp", &format!("{target}:/bin/sh"), "-"],
            &["attach", target],
            &["restart", target],
            &["run", "--rm", "--network", &format!("container:{target}"), IMAGE, "true"],
            &["run", "--rm", "--volumes-from", target, IMAGE, "true"],
        ] {
            let output = world.docker(args);
            let stderr = String::from_utf8_lossy(&output.stderr);
            // The CLI does not print why an attach is refused.
            let why = if args[0] == "attach" { "received 403" } else { why };
            assert!(!output.status.success() && stderr.contains(why), "{args:?}: {stderr}");
        }
    }
    refused(&world.docker(&["exec", "of-others", "true"]), "container of-others would not be allowed itself");
    refused(&world.docker(&["exec", &evil[..12], "true"]), "would not be allowed itself");
    refused(&world.docker(&["start", &stopped]), "would not be allowed itself: HostConfig.Privileged");
    let tar = world.guarded("PUT", &format!("/containers/{stopped}/archive?path=/"), &json!({}));
    assert_eq!(tar.0, 403);
    // An exec that somebody has made and not started.
    let harmless = start(&[]);
    let exec = |privileged: bool| {
        let body = json!({"Cmd": ["true"], "Privileged": privileged});
        let made = world.direct("POST", &format!("/containers/{harmless}/exec"), &body).1;
        let path = format!("/exec/{}/start", made["Id"].as_str().unwrap());
        world.guarded("POST", &path, &json!({"Detach": true}))
    };
    assert_eq!(exec(false).0, 200);
    let (status, answer) = exec(true);
    assert!(status == 403 && answer["message"].as_str().unwrap().contains("Privileged"), "{answer}");
    // A container of others in the place, by its name, of one that was found harmless and is gone.
    let gone = succeeded(&world.docker(&["create", IMAGE]));
    succeeded(&world.docker(&["rm", gone.trim()]));
    let rename = format!("/containers/{evil}/rename?name={}", gone.trim());
    let (status, answer) = world.guarded("POST", &rename, &Value::Null);
    assert!(status == 403 && answer["message"].as_str().unwrap().contains("IpcMode"), "{answer}");
    // What can be seen may be seen, and what is in nobody's way goes on.
    succeeded(&world.docker(&["logs", &evil]));
    succeeded(&world.docker(&["exec", &harmless, "true"]));
    let output = world.docker(&["exec", "there-is-none", "true"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("No such container: there-is-none") && !stderr.contains("dtunnel"), "{stderr}");
    world.engine(&["rm", "-f", &evil, &hosts, &behind, &stopped, &harmless]);
}

#[test]
fn namespaces_are_shared_with_containers_that_would_be_allowed() {
    let Some(world) = World::new("") else { return };
    let first = world.engine(&["run", "-d", "--name", "first", "-v", "/data", IMAGE, "sleep", "600"]);
    let second = succeeded(&world.docker(&[
        "run",
        "-d",
        "--network",
        "container:first",
        "--pid",
        "container:first",
        "--volumes-from",
        "first:ro",
        IMAGE,
        "sleep",
        "600",
    ]));
    let second = second.trim();
    // By id, whatever is called so tomorrow.
    let config = &world.inspect(second)["HostConfig"];
    assert_eq!(config["NetworkMode"], format!("container:{first}"));
    assert_eq!(config["PidMode"], format!("container:{first}"));
    assert_eq!(config["VolumesFrom"], json!([format!("{first}:ro")]));
    let seen = succeeded(&world.docker(&["exec", second, "sh", "-c", "cat /proc/1/cmdline; cat /proc/net/dev"]));
    assert!(seen.contains("sleep"), "{seen}");
    // The host's network by another name: the Engine gives it to no such container.
    let network = world.engine(&["network", "inspect", "-f", "{{.Id}}", "host"]);
    for network in [&network, &network[..12]] {
        let output = world.docker(&["run", "--rm", "--network", network, IMAGE, "cat", "/proc/net/dev"]);
        let seen = String::from_utf8_lossy(&output.stdout);
        let interfaces: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        assert!(!output.status.success() || interfaces == ["lo"], "{seen}");
    }
    let (status, answer) = world.guarded("POST", "/networks/host/connect", &json!({"Container": second}));
    assert!(status >= 400, "{answer}");
    world.engine(&["rm", "-f", second, &first]);
}

#[test]
fn a_link_that_a_container_made_leads_nowhere() {
    let Some(world) = World::new("") else { return };
    let dir = world.lab.path("remote/shared");
    std::fs::create_dir_all(dir.join("written")).unwrap();
    std::fs::create_dir_all(dir.join("other")).unwrap();
    std::fs::write(dir.join("other/file"), "seen\n").unwrap();
    let dir = dir.to_str().unwrap();
    world.lab.ok(&["down", "lab"]);
    let text = std::fs::read_to_string(world.lab.path("config.toml")).unwrap();
    world.lab.write_config(&format!("{text}\nallowed_binds = [\"{dir}/\", \"{dir}/written\"]\n"));
    world.lab.ok(&["up", "lab"]);
    let run = |bind: &str, command: &str| world.docker(&["run", "--rm", "-v", bind, IMAGE, "sh", "-c", command]);
    succeeded(&run(&format!("{dir}/written:/x"), "/bin/busybox ln -s / /x/link; echo mine > /x/file"));
    assert_eq!(std::fs::read_link(format!("{dir}/written/link")).unwrap(), Path::new("/"));
    refused(&run(&format!("{dir}/written/link:/x:ro"), "ls /x"), "containers write in");
    refused(&run(&format!("{dir}/written/link:/x"), "ls /x"), "is below an entry of allowed_binds");
    // The rest is for reading.
    assert_eq!(succeeded(&run(&format!("{dir}/other:/x:ro"), "cat /x/file; echo no > /x/file || true")), "seen\n");
    refused(&run(&format!("{dir}/other:/x"), "true"), "with `:ro` only");
    // A volume's link, too: it is below the Engine's own directory.
    let stderr = {
        world.lab.ok(&["down", "lab"]);
        world.lab.write_config(&format!("{text}\nallowed_binds = [\"{dir}\", \"{dir}/written\"]\n"));
        world.lab.fails(2, &["up", "lab"])
    };
    assert!(stderr.contains("symbolic link"), "{stderr}");
}

#[test]
fn a_container_is_made_again_from_its_own_inspect() {
    let Some(world) = World::new("") else { return };
    let old = world.engine(&[
        "run",
        "-d",
        "--name",
        "old",
        "-e",
        "A=b",
        "-v",
        "/data",
        "-v",
        "named:/named",
        "-p",
        "127.0.0.1::80",
        "--restart",
        "always",
        "--memory",
        "64m",
        "--log-opt",
        "max-size=10m",
        "--tmpfs",
        "/t:size=1m",
        "--label",
        "a=b",
        IMAGE,
        "sleep",
        "600",
    ]);
    let inspect = world.inspect(&old);
    assert_eq!(inspect["HostConfig"]["Runtime"], "runc");
    assert!(inspect["HostConfig"]["MaskedPaths"].as_array().is_some_and(|paths| paths.len() > 5));
    let mut body = inspect["Config"].clone();
    body["HostConfig"] = inspect["HostConfig"].clone();
    body["NetworkingConfig"] = json!({"EndpointsConfig": inspect["NetworkSettings"]["Networks"]});
    let (status, made) = world.guarded("POST", "/v1.41/containers/create?name=new", &body);
    assert_eq!(status, 201, "{made}");
    let new = world.inspect("new");
    let same = [
        "Binds",
        "PortBindings",
        "RestartPolicy",
        "Memory",
        "LogConfig",
        "Tmpfs",
        "ReadonlyPaths",
        "Runtime",
        "NetworkMode",
    ];
    for field in same {
        assert_eq!(new["HostConfig"][field], inspect["HostConfig"][field], "{field}");
    }
    assert_eq!(new["Config"]["Env"], inspect["Config"]["Env"]);
    // Once more, with what it has been given.
    let mut again = new["Config"].clone();
    again["HostConfig"] = new["HostConfig"].clone();
    let (status, made) = world.guarded("POST", "/v1.41/containers/create?name=newer", &again);
    assert_eq!(status, 201, "{made}");
    world.engine(&["rm", "-fv", "old", "new", "newer"]);
    world.engine(&["volume", "rm", "named"]);
}

#[test]
fn what_is_safer_is_not_refused() {
    let Some(world) = World::new("") else { return };
    let profile = world.lab.path("profile.json");
    // Everything that the guard's own list has.
    let calls: Vec<&str> =
        include_str!("../../src/tunnel/guard/bodies/syscalls.txt").split_ascii_whitespace().collect();
    let any = |call: &&&str| !["clone", "personality", "socket"].contains(call);
    let calls: Vec<&&str> = calls.iter().filter(any).collect();
    let rules = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": calls, "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E02_0000, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
    ]});
    std::fs::write(&profile, rules.to_string()).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let mut rules = rules;
    rules["syscalls"][4] = json!({"names": ["socket", "io_uring_setup", "io_uring_enter"], "action": "SCMP_ACT_ALLOW"});
    let of_its_time = world.lab.path("of-its-time.json");
    std::fs::write(&of_its_time, rules.to_string()).unwrap();
    let of_its_time = format!("seccomp={}", of_its_time.display());
    for options in [
        &["-v", "/data"][..],
        &["--cap-drop", "ALL", "--cap-add", "CHOWN"],
        &["--security-opt", &seccomp],
        &["--security-opt", "no-new-privileges"],
        &["--runtime", "runc"],
        &["--runtime", "io.containerd.runc.v2"],
        &["--log-opt", "tag={{.Name}}", "--log-opt", "labels=a,b", "--log-opt", "max-size=1m"],
        // Of this Engine's time, whose own profile has them as well.
        &["--security-opt", &of_its_time],
        &["--ulimit", "nofile=100:100", "--sysctl", "net.core.somaxconn=128", "--tmpfs", "/t:rw,noexec"],
        &["--read-only", "--user", "1000:1000", "--pids-limit", "50", "--init=false"],
    ] {
        let output = world.docker(&[&["run", "--rm"], options, &[IMAGE, "echo", "well"]].concat());
        assert_eq!(succeeded(&output), "well\n", "{options:?}");
    }
    succeeded(&world.docker(&["network", "create", "two words"]));
    succeeded(&world.docker(&["run", "--rm", "--network", "two words", IMAGE, "true"]));
    succeeded(&world.docker(&["network", "rm", "two words"]));
    // Words for what this machine has not.
    for options in [&["--security-opt", "apparmor=docker-default"][..], &["--security-opt", "label=type:container_t"]] {
        let id = succeeded(&world.docker(&[&["create"], options, &[IMAGE]].concat()));
        world.engine(&["rm", id.trim()]);
    }
    // Whatever the version of the API: Engines give the host's to those before 1.41.
    for version in ["v1.24", "v1.40", "v1.41"] {
        let body = json!({"Image": IMAGE, "Cmd": ["true"]});
        let (status, made) = world.guarded("POST", &format!("/{version}/containers/create"), &body);
        assert_eq!(status, 201, "{made}");
        let id = made["Id"].as_str().unwrap();
        assert_eq!(world.inspect(id)["HostConfig"]["CgroupnsMode"], "private", "{version}");
        succeeded(&world.docker(&["start", "-a", id]));
        world.engine(&["rm", id]);
    }
}

/// What the guard itself has let be made is not asked about.
#[test]
fn ordinary_requests_wait_for_no_further_ones() {
    let lab = Lab::new("");
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let kept = lines.clone();
    let id = "a".repeat(64);
    let answer = format!("{{\"Id\":\"{id}\"}}");
    let socket = lab.path("remote/engine.sock");
    remote::serve_all(&socket, move |stream| each(stream, &kept, &answer));
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {socket:?}\n{ACCESS}\n",
        lab.path("ssh_config")
    ));
    lab.ok(&["up", "lab"]);
    let wanted = [
        ("/v1.41/containers/create", json!({"Image": "x", "HostConfig": {"NetworkMode": "default"}})),
        (&format!("/v1.41/containers/{id}/start"), Value::Null),
        (&format!("/v1.41/containers/{id}/exec"), json!({"Cmd": ["true"]})),
        (&format!("/v1.41/exec/{id}/start"), json!({})),
    ];
    // As docker does, each client asks for the Engine's name first; else the guard would.
    let mut expected = Vec::new();
    for (path, body) in &wanted {
        let mut stream = connect(&lab.socket("lab"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = "Host: docker\r\nContent-Type: application/json";
        let ping = format!("GET /_ping HTTP/1.1\r\n{head}\r\n\r\n");
        let request =
            format!("POST {path} HTTP/1.1\r\n{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((ping + &request + &body).as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 20").count(), 2, "{path}: {answers}");
        expected.extend(["GET /_ping HTTP/1.1".to_owned(), format!("POST {path} HTTP/1.1")]);
    }
    assert_eq!(*lines.lock().unwrap(), expected);
}

/// Keeps the first line of each request, and answers it.
fn each(mut stream: UnixStream, lines: &Mutex<Vec<String>>, answer: &str) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        seen.push(byte[0]);
        if !seen.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8(std::mem::take(&mut seen)).unwrap();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
        lines.lock().unwrap().push(head.lines().next().unwrap().to_owned());
        if head.starts_with("GET /_ping ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nServer: Docker/0.0.0 (lab)\r\nContent-Length: 2\r\n\r\nOK").unwrap();
            continue;
        }
        let length = answer.len();
        if write!(stream, "HTTP/1.1 201 Created\r\nContent-Length: {length}\r\n\r\n{answer}").is_err() {
            return;
        }
    }
}

/// Podman makes texts of command lines out of bodies, and reads more in them. No real one: it says what it is in the
/// same two headers since 2.0 (pkg/api/server/handler_api.go), and nothing of the request may get to it.
#[test]
fn an_engine_of_podmans_is_promised_nothing() {
    let lab = Lab::new("");
    let socket = lab.path("remote/podman.sock");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    remote::serve_all(&socket, move |mut stream| {
        let reader = BufReader::new(stream.try_clone().unwrap());
        for line in reader.lines().map_while(Result::ok) {
            if line.contains(" HTTP/1.1") {
                notes.lock().unwrap().push(line);
            } else if line.is_empty() {
                let answer = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nLibpod-Api-Version: 4.3.1\r\n\
                              Server: Libpod/4.3.1 (linux)\r\nContent-Length: 2\r\n\r\nOK";
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {socket:?}\naccess = [\"containers\", \"build\", \"no-privileged\"]\n",
        lab.path("ssh_config")
    ));
    lab.ok(&["up", "lab"]);
    let url = |path: &str| format!("http://docker/v1.41{path}");
    for (path, body) in [("/containers/create", r#"{"Image":"x"}"#), ("/containers/x/start", ""), ("/build", "")] {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-m", "20", "--unix-socket", lab.socket("lab").to_str().unwrap(), "-X", "POST", &url(path)]);
        let answer = run(curl.args(["-H", "Content-Type: application/json", "-d", body]));
        assert!(answer.contains("does not cover Podman's Engine (Libpod/4.3.1 (linux))"), "{path}: {answer}");
    }
    let asked = asked.lock().unwrap();
    assert!(
        !asked.is_empty() && asked.iter().all(|line| line.starts_with("GET ") || line.starts_with("HEAD ")),
        "{asked:?}"
    );
}
