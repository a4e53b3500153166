//! Judges the facts: one answer a check.

use std::net::IpAddr;

use serde_json::Value;

use super::State;
use super::facts::{Facts, Host};
use super::versions;

/// Directories that a container has no business in, with all that is below them (CIS 5.6).
const SENSITIVE: [&str; 10] =
    ["/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/root", "/var/lib/docker", "/var/lib/containerd"];
/// The same, but what is below them may be harmless.
const SENSITIVE_ITSELF: [&str; 4] = ["/", "/var", "/run", "/var/run"];
/// Where the host tells nothing.
const NO_COMMANDS: &str = "this login runs no commands";

/// Answers the check `id`. None for one that is not known here.
pub(super) fn judge(id: &str, facts: &Facts) -> Option<State> {
    Some(match id {
        "socket-mode" | "socket-owner" | "docker-group" => of_socket(id, facts),
        "tcp-open" => listening(facts, |address| !address.is_loopback()),
        "tcp-loopback" => listening(facts, |address| address.is_loopback()),
        "tcp-reachable" => match &facts.reached {
            None => State::Unknown("SSH goes through another host or a command: there is no direct way to try".into()),
            Some(ports) => {
                found(ports.iter().map(|port| format!("port {port} took a connection from this machine")).collect())
            }
        },
        "ssh-root" => found_if(facts.user == "root", || "logged in as root".into()),
        "ssh-password" => {
            let offered = &facts.login.offered;
            let by_word = |method: &&String| matches!(method.as_str(), "password" | "keyboard-interactive");
            match offered.is_empty() {
                true => State::Unknown("the server did not say what it takes".into()),
                false => found(offered.iter().filter(by_word).map(|method| format!("it offers {method}")).collect()),
            }
        }
        "ssh-unrestricted" => found_if(facts.host.is_some(), || "it ran a command for this audit".into()),
        "ssh-host-key" => found_if(facts.any_host_key, || "StrictHostKeyChecking no".into()),
        "ssh-algorithms" => found_if(!facts.ssh.strict, || format!("{}: no strict key exchange", facts.ssh.server)),
        "ssh-quantum" => {
            let hybrid = ["mlkem", "sntrup"].iter().any(|name| facts.ssh.kex.contains(name));
            found_if(!hybrid, || format!("{}: {}", facts.ssh.server, facts.ssh.kex))
        }
        "user-namespaces" => found_if(!confined_root(facts), || "dockerd runs as root, without userns-remap".into()),
        "mandatory-access" => found_if(!has_option(facts, "apparmor") && !has_option(facts, "selinux"), || {
            "neither is among the Engine's security options".into()
        }),
        "seccomp" => of_seccomp(facts),
        "no-new-privileges" if has_option(facts, "no-new-privileges") => State::Passed,
        "no-new-privileges" => setting(facts, "no-new-privileges", true, false),
        "icc" => match facts.bridge["Options"]["com.docker.network.bridge.enable_icc"].as_str() {
            Some("true") => State::Found(vec!["com.docker.network.bridge.enable_icc=true".into()]),
            Some(_) => State::Passed,
            None if facts.bridge.is_null() => State::Passed,
            None => State::Unknown("the Engine does not say".into()),
        },
        "userland-proxy" => setting(facts, "userland-proxy", false, true),
        "live-restore" => found_if(facts.info["LiveRestoreEnabled"] != true, || "LiveRestoreEnabled: false".into()),
        "content-trust" => found_if(!facts.content_trust, || "DOCKER_CONTENT_TRUST is not set on this machine".into()),
        "insecure-registries" => found(insecure_registries(&facts.info)),
        "experimental" => found_if(facts.info["ExperimentalBuild"] == true, || "ExperimentalBuild: true".into()),
        "logging" => {
            let driver = text(&facts.info["LoggingDriver"]);
            found_if(matches!(driver, "none" | "json-file" | "local"), || format!("the log driver is {driver}"))
        }
        "authorization" => {
            let plugins = facts.info["Plugins"]["Authorization"].as_array();
            found_if(plugins.is_none_or(Vec::is_empty), || "none is loaded".into())
        }
        "swarm-autolock" => of_swarm(facts),
        "version-engine" => version(versions::engine(text(&facts.info["ServerVersion"]))),
        "version-api" => version(versions::api(text(&facts.version["ApiVersion"]))),
        "version-containerd" => version(versions::containerd(&component(facts, "containerd"), &facts.today)),
        "version-runc" => version(versions::runc(&component(facts, "runc"))),
        "version-kernel" => version(versions::kernel(text(&facts.info["KernelVersion"]), &facts.today)),
        of_container => return of_containers(of_container, facts),
    })
}

fn found(evidence: Vec<String>) -> State {
    if evidence.is_empty() { State::Passed } else { State::Found(evidence) }
}

fn found_if(bad: bool, evidence: impl FnOnce() -> String) -> State {
    if bad { State::Found(vec![evidence()]) } else { State::Passed }
}

fn version(judged: Result<Option<String>, String>) -> State {
    match judged {
        Ok(bad) => found(bad.into_iter().collect()),
        Err(why) => State::Unknown(why),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Is a security option of this name set?
fn has_option(facts: &Facts, name: &str) -> bool {
    let options = facts.info["SecurityOptions"].as_array();
    options.into_iter().flatten().any(|option| text(option).split(',').next() == Some(&format!("name={name}")))
}

/// Is root in a container somebody else on the host?
fn confined_root(facts: &Facts) -> bool {
    has_option(facts, "userns") || has_option(facts, "rootless")
}

/// A setting of dockerd's that should be `good`, and is `default` where nothing is said.
fn setting(facts: &Facts, name: &str, good: bool, default: bool) -> State {
    let Some(host) = &facts.host else { return State::Unknown(NO_COMMANDS.into()) };
    let value = match host.setting(name) {
        None => return State::Unknown("dockerd's options or its configuration could not be read".into()),
        Some(Value::Null) => default,
        Some(Value::Bool(set)) => set,
        Some(Value::String(set)) => set != "false",
        Some(_) => return State::Unknown(format!("{name} is neither true nor false")),
    };
    found_if(value != good, || format!("{name}: {value}"))
}

fn of_socket(id: &str, facts: &Facts) -> State {
    let Some(path) = &facts.socket else { return State::Unknown("the Engine is not reached by a socket".into()) };
    let Some(host) = &facts.host else { return State::Unknown(NO_COMMANDS.into()) };
    let Some((mode, owner, group)) = &host.socket else { return State::Unknown(format!("{path} could not be read")) };
    let listing = format!("{path}: mode {mode:o}, owner {owner}, group {group}");
    match id {
        "socket-mode" => found_if(mode & 0o007 != 0, || listing),
        "socket-owner" => {
            // Rootless, it is the user's own.
            let own = has_option(facts, "rootless") && *owner == facts.user;
            found_if(!own && (owner != "root" || !matches!(group.as_str(), "root" | "docker")), || listing)
        }
        _ if mode & 0o060 == 0 => State::Passed,
        _ if !host.knows_members => State::Unknown(format!("the members of {group} could not be read")),
        _ => found(match host.members.as_slice() {
            [] => Vec::new(),
            members => vec![format!("{group}: {}", members.join(", "))],
        }),
    }
}

/// Addresses on which the Engine listens for anybody, as far as they are `meant`.
fn listening(facts: &Facts, meant: impl Fn(IpAddr) -> bool) -> State {
    let mut evidence = Vec::new();
    let address = |text: &str| -> Option<IpAddr> {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_matches(['[', ']']);
        match host {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            // Docker's own reading of tcp://:2375.
            "" => Some(IpAddr::from([0, 0, 0, 0])),
            host => host.parse().ok(),
        }
    };
    // "API is accessible on http://127.0.0.1:2375 without encryption"
    for warning in facts.info["Warnings"].as_array().into_iter().flatten().map(text) {
        let place = warning
            .split_once("API is accessible on ")
            .and_then(|(_, rest)| rest.split([' ', '/']).find(|w| w.contains(':') && !w.starts_with("http")));
        if place.and_then(address).is_some_and(&meant) {
            evidence.push(format!("the Engine warns: {}", warning.lines().next().unwrap_or_default()));
        }
    }
    let checks_who_comes = |host: &Host| host.setting("tlsverify").is_some_and(|v| v == true || v == "true");
    let told = facts.host.as_ref().filter(|host| !checks_who_comes(host)).and_then(Host::hosts);
    for host in told.iter().flatten() {
        if host.strip_prefix("tcp://").and_then(address).is_some_and(&meant) {
            evidence.push(format!("dockerd was started with {host}, without tlsverify"));
        }
    }
    let ports = facts.host.as_ref().and_then(|host| host.listening.as_ref());
    for (place, port) in ports.into_iter().flatten().filter(|(place, port)| *port == 2375 && meant(*place)) {
        evidence.push(format!("something listens on {}", std::net::SocketAddr::new(*place, *port)));
    }
    found(evidence)
}

fn of_seccomp(facts: &Facts) -> State {
    let options = facts.info["SecurityOptions"].as_array();
    let seccomp = options.into_iter().flatten().map(text).find(|option| option.starts_with("name=seccomp"));
    match seccomp {
        None => State::Found(vec!["seccomp is not among the Engine's security options".into()]),
        Some(option) => found_if(option.contains("unconfined"), || option.into()),
    }
}

fn insecure_registries(info: &Value) -> Vec<String> {
    let config = &info["RegistryConfig"];
    let networks = config["InsecureRegistryCIDRs"].as_array().into_iter().flatten().map(text);
    let names = config["IndexConfigs"].as_object().into_iter().flatten();
    let names = names.filter(|(_, index)| index["Secure"] == false).map(|(name, _)| name.as_str());
    networks.filter(|network| !matches!(*network, "127.0.0.0/8" | "::1/128")).chain(names).map(Into::into).collect()
}

fn of_swarm(facts: &Facts) -> State {
    let swarm = &facts.info["Swarm"];
    if text(&swarm["LocalNodeState"]) != "active" {
        return State::Passed;
    }
    match facts.swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"].as_bool() {
        Some(locked) => found_if(!locked, || "AutoLockManagers: false".into()),
        None => State::Unknown("this node does not manage its swarm".into()),
    }
}

fn component(facts: &Facts, name: &str) -> String {
    let components = facts.version["Components"].as_array();
    let found = components.into_iter().flatten().find(|component| text(&component["Name"]) == name);
    found.map(|component| text(&component["Version"]).to_owned()).unwrap_or_default()
}

fn of_containers(id: &str, facts: &Facts) -> Option<State> {
    let look: fn(&Value, &Facts) -> Vec<String> = match id {
        "container-socket" => |container, facts| {
            let socket = facts.socket.as_deref().unwrap_or("/var/run/docker.sock");
            let is_socket = |source: &&str| same_place(source, socket) || source.ends_with("/docker.sock");
            binds(container).filter(is_socket).map(Into::into).collect()
        },
        "container-privileged" => |container, _| one(container["HostConfig"]["Privileged"] == true, "--privileged"),
        "container-host-namespaces" => |container, _| {
            let modes = ["NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode"];
            let host = modes.into_iter().filter(|mode| text(&container["HostConfig"][*mode]) == "host");
            // On the first version of control groups every container shares that one.
            host.filter(|mode| *mode != "CgroupnsMode").map(|mode| format!("{mode}: host")).collect()
        },
        "container-capabilities" => |container, _| {
            let added = container["HostConfig"]["CapAdd"].as_array().into_iter().flatten();
            added.map(|name| text(name).to_owned()).collect()
        },
        "container-binds" => |container, _| binds(container).filter(is_sensitive).map(Into::into).collect(),
        "container-confinement" => |container, _| {
            let options = container["HostConfig"]["SecurityOpt"].as_array().into_iter().flatten().map(text);
            options.filter(|option| option.ends_with("unconfined")).map(Into::into).collect()
        },
        "container-devices" => |container, _| {
            let devices = container["HostConfig"]["Devices"].as_array().into_iter().flatten();
            devices.map(|device| text(&device["PathOnHost"]).to_owned()).collect()
        },
        "container-memory" => |container, _| one(container["HostConfig"]["Memory"].as_u64().unwrap_or(0) == 0, ""),
        "container-pids" => |container, _| one(container["HostConfig"]["PidsLimit"].as_i64().unwrap_or(0) <= 0, ""),
        "container-root" => |container, facts| {
            let user = text(&container["Config"]["User"]).split(':').next().unwrap_or_default();
            one(matches!(user, "" | "0" | "root") && !confined_root(facts), "")
        },
        "container-published" => |container, _| {
            let ports = container["NetworkSettings"]["Ports"].as_object().into_iter().flatten();
            let bindings = ports.flat_map(|(port, bindings)| {
                bindings.as_array().into_iter().flatten().map(move |binding| (port, binding))
            });
            let open = bindings.filter(|(_, binding)| matches!(text(&binding["HostIp"]), "" | "0.0.0.0" | "::"));
            open.map(|(port, binding)| format!("{}:{} to {port}", text(&binding["HostIp"]), text(&binding["HostPort"])))
                .collect()
        },
        _ => return None,
    };
    let mut evidence = Vec::new();
    for container in &facts.containers {
        let name = text(&container["Name"]).trim_start_matches('/');
        let details: Vec<String> = look(container, facts);
        if !details.is_empty() {
            let details = details.join(", ");
            evidence.push(if details.is_empty() { name.into() } else { format!("{name}: {details}") });
        }
    }
    Some(match (evidence.is_empty(), facts.more_containers) {
        (true, 1..) => State::Unknown(format!("{} containers were not looked into", facts.more_containers)),
        _ => found(evidence),
    })
}

fn one(bad: bool, what: &str) -> Vec<String> {
    if bad { vec![what.into()] } else { Vec::new() }
}

/// What of the host is mounted into a container.
fn binds(container: &Value) -> impl Iterator<Item = &str> {
    let mounts = container["Mounts"].as_array().into_iter().flatten();
    mounts.filter(|mount| text(&mount["Type"]) == "bind").map(|mount| text(&mount["Source"]))
}

fn is_sensitive(path: &&str) -> bool {
    let plain = path.trim_end_matches('/');
    let below = |root: &&str| plain == *root || plain.strip_prefix(*root).is_some_and(|rest| rest.starts_with('/'));
    SENSITIVE.iter().any(below) || SENSITIVE_ITSELF.iter().any(|root| root.trim_end_matches('/') == plain)
}

/// `/var/run` is `/run` on most hosts.
fn same_place(a: &str, b: &str) -> bool {
    let plain =
        |path: &str| path.strip_prefix("/var/run/").map_or_else(|| path.to_owned(), |rest| format!("/run/{rest}"));
    plain(a) == plain(b)
}
