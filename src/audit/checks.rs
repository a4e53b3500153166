//! Checks of the Engine, the access to it and its host: one function per check, with the check's name.

use std::net::IpAddr;

use serde_json::Value;

use super::facts::{Answer, Commands, Facts, Host};
use super::finding::{Finding, UNTOLD};
use super::versions;

/// The reason for an unknown result if the host runs no commands.
const NO_COMMANDS: &str = "this login runs no commands";

pub(super) fn socket_mode(facts: &Facts) -> Finding {
    of_socket(facts, |socket| found_if(socket.mode & 0o007 != 0, || socket.listing()))
}

pub(super) fn socket_owner(facts: &Facts) -> Finding {
    of_socket(facts, |socket| {
        if socket.owner == "root" && matches!(socket.group, "root" | "docker") {
            return Finding::Passed;
        }
        // In rootless mode the socket is the user's own.
        told_if(facts.has_option("rootless").map(|yes| !(yes && socket.owner == facts.user)), || socket.listing())
    })
}

pub(super) fn docker_group(facts: &Facts) -> Finding {
    of_socket(facts, |socket| {
        let Socket { group, host, .. } = socket;
        match host.members.as_slice() {
            _ if socket.mode & 0o060 == 0 => Finding::Passed,
            _ if !host.knows_members => Finding::unknown(&format!("the members of {group} could not be read")),
            [] => Finding::Passed,
            members => Finding::found([format!("{group}: {}", members.join(", "))]),
        }
    })
}

pub(super) fn tcp_open(facts: &Facts) -> Finding {
    listening(facts, |address| !address.is_loopback())
}

pub(super) fn tcp_loopback(facts: &Facts) -> Finding {
    listening(facts, |address| address.is_loopback())
}

pub(super) fn tcp_reachable(facts: &Facts) -> Finding {
    match &facts.reached {
        None => Finding::unknown("SSH goes through another host or a command: there is no direct way to try"),
        Some(ports) => {
            found(ports.iter().map(|port| format!("port {port} took a connection from this machine")).collect())
        }
    }
}

pub(super) fn ssh_root(facts: &Facts) -> Finding {
    found_if(facts.user == "root", || "logged in as root".into())
}

pub(super) fn ssh_password(facts: &Facts) -> Finding {
    let offered = &facts.login.offered;
    let by_word = |method: &&String| matches!(method.as_str(), "password" | "keyboard-interactive");
    match offered.is_empty() {
        true => Finding::unknown("the server did not say which logins it accepts"),
        false => found(offered.iter().filter(by_word).map(|method| format!("it offers {method}")).collect()),
    }
}

pub(super) fn ssh_unrestricted(facts: &Facts) -> Finding {
    match &facts.commands {
        Commands::Run(_) => Finding::found(["it ran a command for this audit".into()]),
        Commands::Refused => Finding::Passed,
        Commands::Unknown => Finding::unknown("the test command did not end"),
    }
}

pub(super) fn ssh_host_key(facts: &Facts) -> Finding {
    found_if(facts.any_host_key, || "StrictHostKeyChecking no".into())
}

/// Why the algorithms are not known.
const BY_SSH: &str = "the machine's ssh made the connection, which does not tell its algorithms";

pub(super) fn ssh_algorithms(facts: &Facts) -> Finding {
    let Some(ssh) = &facts.ssh else { return Finding::unknown(BY_SSH) };
    found_if(!ssh.strict, || format!("{}: no strict key exchange", ssh.server))
}

pub(super) fn ssh_quantum(facts: &Facts) -> Finding {
    let Some(ssh) = &facts.ssh else { return Finding::unknown(BY_SSH) };
    let hybrid = ["mlkem", "sntrup"].iter().any(|name| ssh.kex.contains(name));
    found_if(!hybrid, || format!("{}: {}", ssh.server, ssh.kex))
}

pub(super) fn user_namespaces(facts: &Facts) -> Finding {
    told_if(facts.confined_root().map(|yes| !yes), || "dockerd runs as root, without userns-remap".into())
}

pub(super) fn mandatory_access(facts: &Facts) -> Finding {
    let confined = facts.has_option("apparmor").zip(facts.has_option("selinux")).map(|(a, s)| a || s);
    told_if(confined.map(|yes| !yes), || "neither is among the Engine's security options".into())
}

pub(super) fn no_new_privileges(facts: &Facts) -> Finding {
    match facts.has_option("no-new-privileges") {
        Some(true) => Finding::Passed,
        _ => setting(facts, "no-new-privileges", true, false),
    }
}

pub(super) fn userland_proxy(facts: &Facts) -> Finding {
    setting(facts, "userland-proxy", false, true)
}

pub(super) fn live_restore(facts: &Facts) -> Finding {
    told_if(facts.info.live_restore_enabled.get().map(|on| !on), || "LiveRestoreEnabled: false".into())
}

pub(super) fn content_trust(facts: &Facts) -> Finding {
    found_if(facts.content_trust, || "DOCKER_CONTENT_TRUST=1 in this environment".into())
}

pub(super) fn insecure_registries(facts: &Facts) -> Finding {
    of_registries(facts).map_or_else(|| Finding::unknown(UNTOLD), found)
}

pub(super) fn experimental(facts: &Facts) -> Finding {
    told_if(facts.info.experimental_build.get().copied(), || "ExperimentalBuild: true".into())
}

pub(super) fn logging(facts: &Facts) -> Finding {
    let driver = facts.info.logging_driver.text();
    told_if(driver.map(|name| matches!(name, "none" | "json-file" | "local")), || {
        format!("the log driver is {}", driver.unwrap_or_default())
    })
}

pub(super) fn authorization(facts: &Facts) -> Finding {
    let plugins = facts.info.plugins.get().and_then(|plugins| plugins.authorization.items());
    told_if(plugins.map(<[String]>::is_empty), || "none is loaded".into())
}

pub(super) fn version_engine(facts: &Facts) -> Finding {
    version(facts.info.server_version.text(), versions::engine)
}

pub(super) fn version_api(facts: &Facts) -> Finding {
    version(facts.version.api_version.text(), versions::api)
}

pub(super) fn version_containerd(facts: &Facts) -> Finding {
    version(component(facts, "containerd"), |version| versions::containerd(version, &facts.today))
}

pub(super) fn version_runc(facts: &Facts) -> Finding {
    version(component(facts, "runc"), versions::runc)
}

pub(super) fn version_kernel(facts: &Facts) -> Finding {
    version(facts.info.kernel_version.text(), |version| versions::kernel(version, &facts.today))
}

fn found(evidence: Vec<String>) -> Finding {
    if evidence.is_empty() { Finding::Passed } else { Finding::found(evidence) }
}

fn found_if(bad: bool, evidence: impl FnOnce() -> String) -> Finding {
    if bad { Finding::found([evidence()]) } else { Finding::Passed }
}

/// As [`found_if`], for a field that the Engine may not send.
fn told_if(bad: Option<bool>, evidence: impl FnOnce() -> String) -> Finding {
    bad.map_or_else(|| Finding::unknown(UNTOLD), |bad| found_if(bad, evidence))
}

fn version(told: Option<&str>, judge: impl FnOnce(&str) -> Result<Option<String>, String>) -> Finding {
    match told.filter(|version| !version.is_empty()).map(judge) {
        None => Finding::unknown(UNTOLD),
        Some(Ok(bad)) => found(bad.into_iter().collect()),
        Some(Err(why)) => Finding::unknown(&why),
    }
}

/// Checks that a dockerd setting is `good`; if unset, it is `default`.
fn setting(facts: &Facts, name: &str, good: bool, default: bool) -> Finding {
    let Some(host) = facts.host() else { return Finding::unknown(NO_COMMANDS) };
    let value = match host.setting(name) {
        None => return Finding::unknown("dockerd's options or its configuration could not be read"),
        Some(Value::Null) => default,
        Some(Value::Bool(set)) => set,
        Some(Value::String(set)) if set == "true" => true,
        Some(Value::String(set)) if set == "false" => false,
        Some(_) => return Finding::unknown(&format!("{name} is neither true nor false")),
    };
    found_if(value != good, || format!("{name}: {value}"))
}

/// The Engine's socket, if the host describes it.
struct Socket<'a> {
    path: &'a str,
    mode: u32,
    owner: &'a str,
    group: &'a str,
    host: &'a Host,
}

impl Socket<'_> {
    fn listing(&self) -> String {
        let Self { path, mode, owner, group, .. } = self;
        format!("{path}: mode {mode:o}, owner {owner}, group {group}")
    }
}

fn of_socket(facts: &Facts, judge: impl FnOnce(&Socket<'_>) -> Finding) -> Finding {
    let Some(path) = &facts.socket else { return Finding::unknown("the Engine is not reached by a socket") };
    let Some(host) = facts.host() else { return Finding::unknown(NO_COMMANDS) };
    let Some((mode, owner, group)) = &host.socket else {
        return Finding::unknown(&format!("{path} could not be read"));
    };
    judge(&Socket { path, mode: *mode, owner, group, host })
}

/// The Engine's listening addresses without authentication, as far as `meant` selects them.
fn listening(facts: &Facts, meant: impl Fn(IpAddr) -> bool) -> Finding {
    let mut evidence = Vec::new();
    let address = |text: &str| -> Option<IpAddr> {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_matches(['[', ']']);
        match host {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            // Docker's default for tcp://:2375.
            "" => Some(IpAddr::from([0, 0, 0, 0])),
            host => host.parse().ok(),
        }
    };
    let warnings = facts.info.warnings.items();
    // "API is accessible on http://127.0.0.1:2375 without encryption"
    for warning in warnings.unwrap_or_default() {
        let place = warning
            .split_once("API is accessible on ")
            .and_then(|(_, rest)| rest.split([' ', '/']).find(|w| w.contains(':') && !w.starts_with("http")));
        if place.and_then(address).is_some_and(&meant) {
            evidence.push(format!("the Engine warns: {}", warning.lines().next().unwrap_or_default()));
        }
    }
    let checks_who_comes = |host: &&Host| host.setting("tlsverify").is_some_and(|v| v == true || v == "true");
    let told = facts.host().filter(|host| !checks_who_comes(host)).and_then(Host::hosts);
    for host in told.iter().flatten() {
        if host.strip_prefix("tcp://").and_then(address).is_some_and(&meant) {
            evidence.push(format!("dockerd was started with {host}, without tlsverify"));
        }
    }
    let ports = facts.host().and_then(|host| host.listening.as_ref());
    for (place, port) in ports.into_iter().flatten().filter(|(place, port)| *port == 2375 && meant(*place)) {
        evidence.push(format!("something listens on {}", std::net::SocketAddr::new(*place, *port)));
    }
    match (warnings, ports) {
        (None, None) if evidence.is_empty() => {
            Finding::unknown("neither the Engine nor its host says where it listens")
        }
        _ => found(evidence),
    }
}

pub(super) fn seccomp(facts: &Facts) -> Finding {
    let Some(options) = facts.info.security_options.items() else { return Finding::unknown(UNTOLD) };
    match options.iter().find(|option| option.starts_with("name=seccomp")) {
        None => Finding::found(["seccomp is not among the Engine's security options".into()]),
        Some(option) => found_if(option.contains("unconfined"), || option.clone()),
    }
}

pub(super) fn icc(facts: &Facts) -> Finding {
    const ICC: &str = "com.docker.network.bridge.enable_icc";
    let options = match &facts.bridge {
        // Without a default bridge, no container is connected to one.
        Answer::Absent => return Finding::Passed,
        Answer::Unknown(why) => return Finding::unknown(why),
        Answer::Told(network) => network.options.get().and_then(|options| options.as_ref()),
    };
    match options.and_then(|options| options.get(ICC)).map(String::as_str) {
        Some("true") => Finding::found([format!("{ICC}=true")]),
        Some("false") => Finding::Passed,
        Some(_) | None => Finding::unknown(UNTOLD),
    }
}

/// The insecure registries; None if the Engine does not send them.
fn of_registries(facts: &Facts) -> Option<Vec<String>> {
    let config = facts.info.registry_config.get()?;
    let networks = config.insecure_registry_cidrs.items()?;
    let own = |network: &&String| matches!(network.as_str(), "127.0.0.0/8" | "::1/128");
    let mut insecure: Vec<String> = networks.iter().filter(|network| !own(network)).cloned().collect();
    for (name, index) in config.index_configs.get()?.iter().flatten() {
        if !*index.secure.get()? {
            insecure.push(name.clone());
        }
    }
    Some(insecure)
}

pub(super) fn swarm_autolock(facts: &Facts) -> Finding {
    let swarm = facts.info.swarm.get();
    match swarm.and_then(|swarm| swarm.local_node_state.text()) {
        None => return Finding::unknown(UNTOLD),
        Some("active") => {}
        Some(_) => return Finding::Passed,
    }
    if swarm.and_then(|swarm| swarm.control_available.get()) == Some(&false) {
        return Finding::unknown("this node does not manage its swarm");
    }
    let Answer::Told(told) = &facts.swarm else { return Finding::unknown(UNTOLD) };
    let encryption = told.spec.get().and_then(|spec| spec.encryption_config.get());
    let locked = encryption.and_then(|encryption| encryption.auto_lock_managers.get());
    told_if(locked.map(|locked| !locked), || "AutoLockManagers: false".into())
}

fn component<'a>(facts: &'a Facts, name: &str) -> Option<&'a str> {
    let components = facts.version.components.items()?;
    components.iter().find(|component| component.name.text() == Some(name))?.version.text()
}
