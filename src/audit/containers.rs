//! Judges the running containers: one function a check, called for every inspected container.

use super::answers::{Container, HostConfig};
use super::facts::Facts;
use super::finding::{Evidence, Finding, UNTOLD};
use crate::config::{DEFAULT_SOCKET, is_same_socket};

/// Host directories that no container should mount, with everything below them (CIS 5.6).
const SENSITIVE: [&str; 10] =
    ["/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/root", "/var/lib/docker", "/var/lib/containerd"];
/// The same without the directories below, which may be harmless.
const SENSITIVE_ITSELF: [&str; 4] = ["/", "/var", "/run", "/var/run"];

/// The faults of a container, each in a few words (empty if the check's name says it all); None if the Engine does not
/// send the field.
pub(super) type Look = fn(&Container, &Facts) -> Option<Vec<String>>;

pub(super) fn socket(container: &Container, facts: &Facts) -> Option<Vec<String>> {
    let socket = facts.socket.as_deref().unwrap_or(DEFAULT_SOCKET);
    let is_socket = |source: &&str| is_same_socket(source, socket) || source.ends_with("/docker.sock");
    Some(bind_sources(container)?.into_iter().filter(is_socket).map(Into::into).collect())
}

pub(super) fn privileged(container: &Container, _: &Facts) -> Option<Vec<String>> {
    Some(one(*host_config(container)?.privileged.get()?, "--privileged"))
}

pub(super) fn capabilities(container: &Container, _: &Facts) -> Option<Vec<String>> {
    Some(host_config(container)?.cap_add.items()?.to_vec())
}

pub(super) fn binds(container: &Container, _: &Facts) -> Option<Vec<String>> {
    Some(bind_sources(container)?.into_iter().filter(is_sensitive).map(Into::into).collect())
}

pub(super) fn confinement(container: &Container, _: &Facts) -> Option<Vec<String>> {
    let options = host_config(container)?.security_opt.items()?;
    Some(options.iter().filter(|option| option.ends_with("unconfined")).cloned().collect())
}

pub(super) fn devices(container: &Container, _: &Facts) -> Option<Vec<String>> {
    Some(host_config(container)?.devices.items()?.iter().map(|device| device.path_on_host.clone()).collect())
}

pub(super) fn memory(container: &Container, _: &Facts) -> Option<Vec<String>> {
    Some(one(*host_config(container)?.memory.get()? <= 0, ""))
}

pub(super) fn pids(container: &Container, _: &Facts) -> Option<Vec<String>> {
    Some(one(host_config(container)?.pids_limit.get()?.is_none_or(|limit| limit <= 0), ""))
}

pub(super) fn root(container: &Container, facts: &Facts) -> Option<Vec<String>> {
    let user = container.config.get()?.user.text()?;
    let is_root = matches!(user.split(':').next(), Some("" | "0" | "root"));
    if is_root { facts.confined_root().map(|confined| one(!confined, "")) } else { Some(Vec::new()) }
}

/// Inspects every container.
pub(super) fn each(facts: &Facts, look: Look) -> Finding {
    let Some(containers) = &facts.containers else {
        return Finding::unknown("the Engine does not list its containers");
    };
    let (mut evidence, mut untold) = (Vec::new(), Vec::new());
    for (name, container) in containers {
        let name = container.name.text().map_or(name.as_str(), |name| name.trim_start_matches('/'));
        match look(container, facts) {
            None => untold.push(name),
            Some(details) if details.is_empty() => {}
            Some(details) => evidence.push(Evidence::of(name, &details.join(", "))),
        }
    }
    match (evidence.is_empty(), untold.as_slice(), facts.more_containers) {
        (false, ..) => Finding::Found(evidence),
        (_, [], 0) => Finding::Passed,
        (_, [], more) => Finding::unknown(&format!("{more} containers were not inspected")),
        (_, names, _) => Finding::unknown(&format!("{UNTOLD} of {}", names.join(", "))),
    }
}

fn host_config(container: &Container) -> Option<&HostConfig> {
    container.host_config.get()
}

pub(super) fn host_namespaces(container: &Container, _: &Facts) -> Option<Vec<String>> {
    let config = host_config(container)?;
    // Not CgroupnsMode: on the first version of control groups every container shares that one.
    let modes = [
        ("NetworkMode", &config.network_mode),
        ("PidMode", &config.pid_mode),
        ("IpcMode", &config.ipc_mode),
        ("UTSMode", &config.uts_mode),
        ("UsernsMode", &config.userns_mode),
    ];
    let host = modes.iter().filter(|(_, mode)| mode.text() == Some("host"));
    let host: Vec<String> = host.map(|(name, _)| format!("{name}: host")).collect();
    let all_told = modes.iter().all(|(_, mode)| mode.get().is_some());
    (all_told || !host.is_empty()).then_some(host)
}

pub(super) fn published(container: &Container, _: &Facts) -> Option<Vec<String>> {
    let ports = container.network_settings.get()?.ports.get()?;
    let bindings = ports
        .iter()
        .flatten()
        .flat_map(|(port, bindings)| bindings.iter().flatten().map(move |binding| (port, binding)));
    let open = bindings.filter(|(_, binding)| matches!(binding.host_ip.as_str(), "" | "0.0.0.0" | "::"));
    Some(open.map(|(port, binding)| format!("{}:{} to {port}", binding.host_ip, binding.host_port)).collect())
}

fn one(bad: bool, what: &str) -> Vec<String> {
    if bad { vec![what.into()] } else { Vec::new() }
}

/// The host paths mounted into a container.
fn bind_sources(container: &Container) -> Option<Vec<&str>> {
    let mounts = container.mounts.items()?;
    Some(mounts.iter().filter(|mount| mount.r#type == "bind").map(|mount| mount.source.as_str()).collect())
}

fn is_sensitive(path: &&str) -> bool {
    let plain = path.trim_end_matches('/');
    let below = |root: &&str| plain == *root || plain.strip_prefix(*root).is_some_and(|rest| rest.starts_with('/'));
    SENSITIVE.iter().any(below) || SENSITIVE_ITSELF.iter().any(|root| root.trim_end_matches('/') == plain)
}
