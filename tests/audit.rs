//! The audit against Engines with good and with bad options, and with good and bad containers.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::lab::engine::{Engine, IMAGE};
use crate::lab::{Lab, run, set_mode, wait_for};

/// A world whose Engine was started with these options. None where there can be none.
fn lab(options: &[&str]) -> Option<Lab> {
    Engine::shared()?;
    let mut lab = Lab::new("PasswordAuthentication no\nKbdInteractiveAuthentication no");
    lab.engine = Some(Arc::new(Engine::with(options)));
    Some(lab)
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
    let Some((mut lab, link)) = Lab::with_engine_over_link() else { return };
    // What keeps containers apart are rules of a firewall: the one of the link's far end.
    let options = [
        "--iptables=true",
        "--icc=false",
        "--live-restore",
        "--userland-proxy=false",
        "--no-new-privileges",
        "--log-driver=journald",
    ];
    lab.engine = Some(Arc::new(Engine::behind_with(&link, &options)));
    lab.write_config_of_engine();
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
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("tcp://127.0.0.1:{port}");
    let runtime = concat!("lab=", env!("CARGO_MANIFEST_DIR"), "/tests/lab/runtime");
    let options = ["-H", &host, "--insecure-registry", "reg.example:5000", "--experimental", "--add-runtime", runtime];
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
    let Some((mut lab, link)) = Lab::with_engine_over_link() else { return };
    let host = format!("tcp://{}:2375", link.far);
    lab.engine = Some(Arc::new(Engine::behind_with(&link, &["-H", &host])));
    lab.write_config_of_engine();
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
