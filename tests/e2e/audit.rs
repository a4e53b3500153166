//! The audit against Engines with good and with bad options, and with good and bad containers.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::lab::engine::{Engine, IMAGE};
use crate::lab::{Lab, run, set_mode, wait_for};

/// A world whose Engine was started with these options. None where there can be none.
fn lab(options: &[&str]) -> Option<Lab> {
    Lab::with_own_engine("PasswordAuthentication no\nKbdInteractiveAuthentication no", options)
}

/// A container that runs until it is dropped: an Engine with `live-restore` leaves it running.
struct Running(Arc<Engine>, &'static str);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.docker(&["rm", "-f", self.1]).output();
    }
}

fn start(lab: &Lab, name: &'static str, options: &[&str]) -> Running {
    let engine = lab.engine.clone().unwrap();
    let args = [&["run", "--detach", "--name", name], options, &[IMAGE, "sleep", "600"]].concat();
    run(&mut engine.docker(&args));
    Running(engine, name)
}

fn audit(lab: &Lab) -> Vec<Value> {
    let report: Value = serde_json::from_str(&lab.ok(&["audit", "lab", "--json"])).unwrap();
    report["outcomes"].as_array().unwrap().clone()
}

/// The checks that came out like this.
fn those(outcomes: &[Value], state: &str) -> BTreeSet<String> {
    let of = outcomes.iter().filter(|outcome| outcome["state"] == state);
    of.map(|outcome| outcome["id"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn evidence(outcomes: &[Value], id: &str) -> String {
    outcomes.iter().find(|outcome| outcome["id"] == id).unwrap()["detail"].to_string()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// What is so on every machine of the lab, whatever the options: its login, its versions, its kernel.
fn of_the_machine() -> BTreeSet<String> {
    set(&[
        "content-trust",
        "docker-group",
        "mandatory-access",
        "socket-owner",
        "ssh-algorithms",
        "ssh-password",
        "ssh-quantum",
        "ssh-root",
        "user-namespaces",
        "version-api",
        "version-containerd",
        "version-engine",
        "version-kernel",
        "version-runc",
        "authorization",
        "ssh-unrestricted",
    ])
}

#[test]
fn a_well_kept_engine_has_no_findings_of_its_own() {
    // What keeps containers apart are rules of a firewall: the host's.
    let options = [
        "--iptables=true",
        "--icc=false",
        "--live-restore",
        "--userland-proxy=false",
        "--no-new-privileges",
        "--log-driver=journald",
    ];
    let Some(lab) = Lab::with_own_engine("", &options) else { return };
    let _good =
        start(&lab, "good", &["--memory", "64m", "--pids-limit", "50", "--user", "1000", "--log-driver", "none"]);
    let outcomes = audit(&lab);
    let own: BTreeSet<_> = those(&outcomes, "found").difference(&of_the_machine()).cloned().collect();
    assert_eq!(own, BTreeSet::new(), "{outcomes:#?}");
    assert!(those(&outcomes, "unknown").is_subset(&of_the_machine()), "{outcomes:#?}");
    for sure in ["socket-mode", "tcp-open", "tcp-loopback", "icc", "userland-proxy", "container-socket"] {
        assert!(those(&outcomes, "passed").contains(sure), "{sure}");
    }
}

#[test]
fn each_bad_thing_is_found_and_gone_when_it_is_mended() {
    let runtime = concat!("lab=", env!("CARGO_MANIFEST_DIR"), "/tests/lab/runtime");
    let options = [
        "-H",
        "tcp://127.0.0.1:2375",
        "--insecure-registry",
        "reg.example:5000",
        "--experimental",
        "--add-runtime",
        runtime,
    ];
    let Some(lab) = lab(&options) else { return };
    let socket = lab.remote_socket();
    let (mount, etc) = (format!("{}:/docker.sock", socket.display()), "/etc:/host-etc:ro");
    let of_engine = set(&[
        "tcp-loopback",
        "no-new-privileges",
        "icc",
        "userland-proxy",
        "live-restore",
        "insecure-registries",
        "experimental",
        "logging",
    ]);
    let of_any_container = set(&["container-memory", "container-pids", "container-root"]);
    let own = |outcomes: &[Value]| -> BTreeSet<String> {
        those(outcomes, "found").difference(&of_the_machine()).cloned().collect()
    };
    assert_eq!(own(&audit(&lab)), of_engine);
    let with_container: BTreeSet<_> = of_engine.union(&of_any_container).cloned().collect();
    for (options, found, shown) in [
        (&[][..], None, ""),
        (&["--privileged", "--runtime", "lab"], Some("container-privileged"), "--privileged"),
        (&["--network", "host"], Some("container-host-namespaces"), "NetworkMode: host"),
        (&["--pid", "host"], Some("container-host-namespaces"), "PidMode: host"),
        (&["--uts", "host"], Some("container-host-namespaces"), "UTSMode: host"),
        (&["--ipc", "host"], Some("container-host-namespaces"), "IpcMode: host"),
        (&["-v", &mount], Some("container-socket"), "docker.sock"),
        (&["--cap-add", "SYS_ADMIN"], Some("container-capabilities"), "SYS_ADMIN"),
        (&["-v", etc], Some("container-binds"), "/etc"),
        (&["--security-opt", "seccomp=unconfined"], Some("container-confinement"), "seccomp=unconfined"),
        (&["--device", "/dev/null"], Some("container-devices"), "/dev/null"),
        (&["-p", "80"], Some("container-published"), "0.0.0.0:"),
        (&["-p", "127.0.0.1::80"], None, ""),
    ] {
        let container = start(&lab, "bad", options);
        let outcomes = audit(&lab);
        let expected: BTreeSet<_> = with_container.iter().cloned().chain(found.map(Into::into)).collect();
        assert_eq!(own(&outcomes), expected, "{options:?}");
        if let Some(id) = found {
            let evidence = evidence(&outcomes, id);
            assert!(evidence.contains("bad: ") && evidence.contains(shown), "{evidence}");
        }
        drop(container);
    }
    // The socket itself.
    set_mode(&socket, 0o666);
    let outcomes = audit(&lab);
    assert!(those(&outcomes, "found").contains("socket-mode"));
    assert!(evidence(&outcomes, "socket-mode").contains("mode 666"), "{outcomes:#?}");
    set_mode(&socket, 0o660);
    assert!(!those(&audit(&lab), "found").contains("socket-mode"));

    let ssh_config = std::fs::read_to_string(lab.path("ssh_config")).unwrap();
    std::fs::write(lab.path("ssh_config"), ssh_config.replace("accept-new", "no")).unwrap();
    assert!(those(&audit(&lab), "found").contains("ssh-host-key"));
    std::fs::write(lab.path("ssh_config"), ssh_config).unwrap();

    // For people, for CI, and for those that count.
    let text = lab.ok(&["audit", "lab"]);
    assert!(text.contains("tcp-loopback: ") && text.contains("(CIS 2.7)") && text.contains("  → "), "{text}");
    assert!(text.lines().last().unwrap().contains("score "), "{text}");
    let stderr = lab.fails(1, &["audit", "lab", "--fail-on", "high"]);
    assert!(stderr.contains("high or worse"), "{stderr}");
    let sarif: Value = serde_json::from_str(&lab.ok(&["audit", "lab", "--sarif"])).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let ids: BTreeSet<_> = results.iter().map(|result| result["ruleId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, those(&audit(&lab), "found"));
}

#[test]
fn an_engine_on_the_network_is_found_and_one_that_is_reached_is_said_to_be() {
    let Some(lab) = Lab::with_own_engine("", &["-H", "tcp://0.0.0.0:2375"]) else { return };
    let outcomes = audit(&lab);
    let found = those(&outcomes, "found");
    assert!(found.contains("tcp-open") && found.contains("tcp-reachable"), "{outcomes:#?}");
    assert!(!found.contains("tcp-loopback"));
    assert!(evidence(&outcomes, "tcp-reachable").contains("port 2375 took a connection"));
}

#[test]
fn a_login_that_only_forwards_makes_things_unknown_not_good() {
    let Some(mut lab) = lab(&[]) else { return };
    let key = std::fs::read_to_string(lab.path("user.pub")).unwrap();
    let restricted = format!("restrict,port-forwarding,command=\"/bin/false\" {key}");
    std::fs::write(lab.path("authorized_keys"), restricted).unwrap();
    let outcomes = audit(&lab);
    let unknown = those(&outcomes, "unknown");
    for id in ["socket-mode", "socket-owner", "docker-group", "userland-proxy"] {
        assert!(unknown.contains(id), "{id}: {outcomes:#?}");
    }
    assert!(those(&outcomes, "passed").contains("ssh-unrestricted"));
    // Nothing is left behind, and a host that is down is said to be.
    lab.sshd.stop();
    wait_for("the port to be closed", || {
        std::net::TcpStream::connect((lab.sshd.address.as_str(), lab.sshd.port)).is_err().then_some(())
    });
    lab.fails(6, &["audit", "lab"]);
    assert_eq!(lab.runtime_files(), Vec::<String>::new());
}

/// An Engine whose answers are these; for what a real one always tells.
fn told(lab: &Lab, answers: &'static [(&'static str, &'static str)]) -> Vec<Value> {
    let socket = lab.path(&format!("remote/{}.sock", answers.len()));
    crate::lab::answers::serve(&socket, move |path| {
        answers.iter().find(|(of, _)| *of == path).map(|(_, answer)| (*answer).to_owned())
    });
    let report = lab.ok(&["audit", "lab", "--json", "--remote", socket.to_str().unwrap()]);
    serde_json::from_str::<Value>(&report).unwrap()["outcomes"].as_array().unwrap().clone()
}

#[test]
fn what_an_engine_leaves_out_is_unknown() {
    let lab = Lab::new("");
    let of_engine = [
        "insecure-registries",
        "experimental",
        "live-restore",
        "authorization",
        "logging",
        "user-namespaces",
        "mandatory-access",
        "seccomp",
        "icc",
        "swarm-autolock",
        "version-engine",
        "version-kernel",
        "version-api",
        "version-runc",
        "version-containerd",
    ];
    let of_containers = [
        "container-socket",
        "container-privileged",
        "container-host-namespaces",
        "container-capabilities",
        "container-binds",
        "container-confinement",
        "container-devices",
        "container-memory",
        "container-pids",
        "container-root",
        "container-published",
    ];
    // Refused altogether, empty, and of other types.
    let nothing: &[(&str, &str)] = &[];
    let empty: &[(&str, &str)] = &[
        ("/info", "{}"),
        ("/version", "{}"),
        ("/networks/bridge", "{}"),
        ("/containers/json", r#"[{"Id":"0123456789abcdef","Names":["/web"]}]"#),
        ("/containers/0123456789abcdef/json", "{}"),
    ];
    let odd: &[(&str, &str)] = &[
        (
            "/info",
            r#"{"LiveRestoreEnabled":"no","ExperimentalBuild":1,"SecurityOptions":"x","Plugins":[],"RegistryConfig":{}}"#,
        ),
        ("/version", r#"{"ApiVersion":3,"Components":{}}"#),
        ("/networks/bridge", r#"{"Options":{"com.docker.network.bridge.enable_icc":"maybe"}}"#),
        ("/containers/json", r#"[{"Id":"0123456789abcdef","Names":["/web"]}]"#),
        (
            "/containers/0123456789abcdef/json",
            r#"{"HostConfig":{"Privileged":"yes","Memory":null,"CapAdd":{}},"Mounts":7}"#,
        ),
        ("/swarm", "{}"),
    ];
    for answers in [nothing, empty, odd] {
        let outcomes = told(&lab, answers);
        let unknown = those(&outcomes, "unknown");
        // A 404 for the default bridge says that there is none.
        for id in of_engine.iter().filter(|id| **id != "icc" || !answers.is_empty()) {
            assert!(unknown.contains(*id), "{id}: {outcomes:#?}");
        }
        for id in of_containers {
            assert!(unknown.contains(id), "{id}: {outcomes:#?}");
        }
    }
    // And what it tells is judged.
    let good: &[(&str, &str)] = &[
        (
            "/info",
            r#"{"LiveRestoreEnabled":true,"ExperimentalBuild":false,"Plugins":{"Authorization":null},
            "RegistryConfig":{"InsecureRegistryCIDRs":["127.0.0.0/8"],"IndexConfigs":{"docker.io":{"Secure":true}}}}"#,
        ),
        ("/containers/json", r#"[{"Id":"0123456789abcdef","Names":["/web"]}]"#),
        (
            "/containers/0123456789abcdef/json",
            r#"{"Name":"/web","HostConfig":{"Privileged":false,"PidsLimit":null,"Memory":1}}"#,
        ),
    ];
    let outcomes = told(&lab, good);
    let (passed, found) = (those(&outcomes, "passed"), those(&outcomes, "found"));
    for id in ["live-restore", "experimental", "insecure-registries", "container-privileged", "container-memory"] {
        assert!(passed.contains(id), "{id}: {outcomes:#?}");
    }
    assert!(found.contains("authorization") && found.contains("container-pids"), "{outcomes:#?}");
}

#[test]
fn content_trust_is_a_finding_where_it_is_set() {
    let lab = Lab::new("");
    let socket = lab.path("remote/x.sock");
    crate::lab::answers::serve(&socket, |_| None);
    for (value, state) in [(None, "passed"), (Some("1"), "found")] {
        let mut command = lab.dtunnel(["audit", "lab", "--json", "--remote", socket.to_str().unwrap()]);
        let output = command.envs(value.map(|value| ("DOCKER_CONTENT_TRUST", value))).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let outcomes = report["outcomes"].as_array().unwrap();
        assert!(those(outcomes, state).contains("content-trust"), "{value:?}");
    }
}

#[test]
fn findings_are_passed_over_with_a_reason_and_stand_container_by_container() {
    let runtime = concat!("lab=", env!("CARGO_MANIFEST_DIR"), "/tests/lab/runtime");
    let Some(lab) = lab(&["--add-runtime", runtime]) else { return };
    let _one = start(&lab, "first", &["--privileged", "--runtime", "lab", "-v", "/etc:/host-etc:ro"]);
    let _two = start(&lab, "second", &["--cap-add", "SYS_ADMIN"]);
    let text = lab.ok(&["audit", "lab"]);
    let lines: Vec<&str> = text.lines().collect();
    let at = |line: &str| lines.iter().position(|l| *l == line).unwrap_or_else(|| panic!("{line:?} in {text}"));
    let first = at("container first");
    assert!(lines[first + 1..first + 3].contains(&"  high container-privileged: --privileged"), "{text}");
    assert!(lines[first + 1..first + 3].contains(&"  high container-binds: /etc"), "{text}");
    assert!(lines[at("container second") + 1].starts_with("  high container-capabilities: "), "{text}");
    assert_eq!(text.matches("run it without --privileged;").count(), 1, "{text}");
    // Low ones are a line, unless asked for.
    let low: Vec<&&str> = lines.iter().filter(|line| line.starts_with("low")).collect();
    assert!(low.len() == 1 && low[0].contains("userland-proxy, ") && low[0].contains("container-root"), "{text}");
    assert!(!text.contains("userland-proxy: ") && lab.ok(&["audit", "lab", "-v"]).contains("userland-proxy: "));

    let score = |report: &Value| report["score"].as_u64().unwrap();
    let before: Value = serde_json::from_str(&lab.ok(&["audit", "lab", "--json"])).unwrap();
    let config = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    lab.write_config(&format!(
        "{config}audit.ignore = [\"container-binds: it only reads\"]\n[profiles.lab]\naudit.ignore = [\"container-privileged\"]\n"
    ));
    let after: Value = serde_json::from_str(&lab.ok(&["audit", "lab", "--json"])).unwrap();
    let outcomes = after["outcomes"].as_array().unwrap();
    assert_eq!(those(outcomes, "ignored"), set(&["container-binds", "container-privileged"]));
    assert_eq!(score(&after), score(&before) + 20);
    let binds = outcomes.iter().find(|outcome| outcome["id"] == "container-binds").unwrap();
    assert_eq!(binds["detail"]["reason"], "it only reads");
    let text = lab.ok(&["audit", "lab"]);
    assert!(text.contains("  container-binds (high): it only reads\n") && text.contains("2 ignored"), "{text}");
    assert!(text.contains("container-privileged (high): no reason is given"), "{text}");
    let sarif: Value = serde_json::from_str(&lab.ok(&["audit", "lab", "--sarif"])).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let of = |id: &str| results.iter().find(|result| result["ruleId"] == id).unwrap();
    assert_eq!(of("container-binds")["suppressions"][0]["justification"], "it only reads");
    assert_eq!(of("container-capabilities")["suppressions"].as_array().unwrap().len(), 0);
    // A name that is no check is refused before anything is asked.
    lab.write_config(&format!("{config}[profiles.lab]\naudit.ignore = [\"container-privilege\"]\n"));
    let stderr = lab.fails(2, &["audit", "lab"]);
    assert!(stderr.contains("config.toml:5:1: `container-privilege`"), "{stderr}");
    assert!(stderr.contains("did you mean `container-privileged`?"), "{stderr}");
}
