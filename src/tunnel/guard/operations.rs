//! What there is to be asked of an Engine: the operations of its API (version 1.56; earlier ones have
//! no others) by method and path, and which policies they belong to.

/// An operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Its name, for `allow`, the log and people.
    pub(super) name: &'static str,
    method: &'static str,
    /// `{}` stands for one segment, `{..}` for one or more.
    path: &'static str,
    /// Which policies it belongs to.
    pub(super) of: u8,
    /// How it is judged under `no-privileged`.
    pub(super) risk: Risk,
}

/// How an operation is judged where nothing privileged is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Risk {
    /// Nothing to it.
    None,
    /// It depends on the request.
    Inspect,
    /// It can always get out of a container, or cannot be looked into.
    Refuse,
}

/// Neither changes nor reaches into the host.
pub(super) const READ: u8 = 1;
/// Containers, their networks and volumes.
pub(super) const CONTAINERS: u8 = 2;
/// Building and moving images.
pub(super) const BUILD: u8 = 4;

const fn plain(name: &'static str, method: &'static str, path: &'static str, of: u8) -> Operation {
    Operation { name, method, path, of, risk: Risk::None }
}

const fn risky(name: &'static str, method: &'static str, path: &'static str, of: u8, risk: Risk) -> Operation {
    Operation { name, method, path, of, risk }
}

/// All of them. Where two fit a path, the first one is meant, as in the Engine's own router.
pub(super) const OPERATIONS: &[Operation] = &[
    plain("system.ping", "GET", "/_ping", READ),
    plain("system.ping", "HEAD", "/_ping", READ),
    plain("system.version", "GET", "/version", READ),
    plain("system.info", "GET", "/info", READ),
    plain("system.events", "GET", "/events", READ),
    plain("system.df", "GET", "/system/df", READ),
    plain("system.auth", "POST", "/auth", CONTAINERS | BUILD),
    plain("containers.list", "GET", "/containers/json", READ),
    plain("containers.inspect", "GET", "/containers/{}/json", READ),
    plain("containers.top", "GET", "/containers/{}/top", READ),
    plain("containers.logs", "GET", "/containers/{}/logs", READ),
    plain("containers.changes", "GET", "/containers/{}/changes", READ),
    plain("containers.stats", "GET", "/containers/{}/stats", READ),
    plain("containers.export", "GET", "/containers/{}/export", CONTAINERS),
    plain("containers.archive", "HEAD", "/containers/{}/archive", CONTAINERS),
    plain("containers.archive", "GET", "/containers/{}/archive", CONTAINERS),
    plain("containers.copy", "PUT", "/containers/{}/archive", CONTAINERS),
    risky("containers.create", "POST", "/containers/create", CONTAINERS, Risk::Inspect),
    plain("containers.prune", "POST", "/containers/prune", CONTAINERS),
    plain("containers.start", "POST", "/containers/{}/start", CONTAINERS),
    plain("containers.stop", "POST", "/containers/{}/stop", CONTAINERS),
    plain("containers.restart", "POST", "/containers/{}/restart", CONTAINERS),
    plain("containers.kill", "POST", "/containers/{}/kill", CONTAINERS),
    risky("containers.update", "POST", "/containers/{}/update", CONTAINERS, Risk::Inspect),
    plain("containers.rename", "POST", "/containers/{}/rename", CONTAINERS),
    plain("containers.pause", "POST", "/containers/{}/pause", CONTAINERS),
    plain("containers.unpause", "POST", "/containers/{}/unpause", CONTAINERS),
    plain("containers.resize", "POST", "/containers/{}/resize", CONTAINERS),
    plain("containers.attach", "POST", "/containers/{}/attach", CONTAINERS),
    plain("containers.attach-ws", "GET", "/containers/{}/attach/ws", CONTAINERS),
    plain("containers.wait", "POST", "/containers/{}/wait", CONTAINERS),
    plain("containers.delete", "DELETE", "/containers/{}", CONTAINERS),
    risky("containers.exec", "POST", "/containers/{}/exec", CONTAINERS, Risk::Inspect),
    plain("exec.inspect", "GET", "/exec/{}/json", READ),
    plain("exec.start", "POST", "/exec/{}/start", CONTAINERS),
    plain("exec.resize", "POST", "/exec/{}/resize", CONTAINERS),
    plain("images.list", "GET", "/images/json", READ),
    plain("images.search", "GET", "/images/search", READ),
    plain("images.get", "GET", "/images/get", BUILD),
    plain("images.inspect", "GET", "/images/{..}/json", READ),
    plain("images.attestations", "GET", "/images/{..}/attestations", READ),
    plain("images.history", "GET", "/images/{..}/history", READ),
    plain("images.get", "GET", "/images/{..}/get", BUILD),
    plain("images.create", "POST", "/images/create", CONTAINERS | BUILD),
    plain("images.load", "POST", "/images/load", BUILD),
    plain("images.prune", "POST", "/images/prune", BUILD),
    plain("images.push", "POST", "/images/{..}/push", BUILD),
    plain("images.tag", "POST", "/images/{..}/tag", BUILD),
    plain("images.delete", "DELETE", "/images/{..}", BUILD),
    plain("images.commit", "POST", "/commit", BUILD),
    risky("build.build", "POST", "/build", BUILD, Risk::Inspect),
    plain("build.prune", "POST", "/build/prune", BUILD),
    plain("build.cancel", "POST", "/build/cancel", BUILD),
    plain("build.session", "POST", "/session", BUILD),
    // BuildKit's own protocol, which is not looked into.
    risky("build.grpc", "POST", "/grpc", BUILD, Risk::Refuse),
    plain("distribution.inspect", "GET", "/distribution/{..}/json", READ),
    plain("networks.list", "GET", "/networks", READ),
    plain("networks.inspect", "GET", "/networks/{}", READ),
    plain("networks.create", "POST", "/networks/create", CONTAINERS),
    plain("networks.prune", "POST", "/networks/prune", CONTAINERS),
    plain("networks.connect", "POST", "/networks/{}/connect", CONTAINERS),
    plain("networks.disconnect", "POST", "/networks/{}/disconnect", CONTAINERS),
    plain("networks.delete", "DELETE", "/networks/{}", CONTAINERS),
    plain("volumes.list", "GET", "/volumes", READ),
    plain("volumes.inspect", "GET", "/volumes/{}", READ),
    risky("volumes.create", "POST", "/volumes/create", CONTAINERS, Risk::Inspect),
    plain("volumes.prune", "POST", "/volumes/prune", CONTAINERS),
    plain("volumes.update", "PUT", "/volumes/{}", CONTAINERS),
    plain("volumes.delete", "DELETE", "/volumes/{}", CONTAINERS),
    plain("plugins.list", "GET", "/plugins", READ),
    plain("plugins.inspect", "GET", "/plugins/{..}/json", READ),
    plain("plugins.privileges", "GET", "/plugins/privileges", 0),
    risky("plugins.pull", "POST", "/plugins/pull", 0, Risk::Refuse),
    risky("plugins.create", "POST", "/plugins/create", 0, Risk::Refuse),
    risky("plugins.enable", "POST", "/plugins/{..}/enable", 0, Risk::Refuse),
    plain("plugins.disable", "POST", "/plugins/{..}/disable", 0),
    risky("plugins.upgrade", "POST", "/plugins/{..}/upgrade", 0, Risk::Refuse),
    risky("plugins.set", "POST", "/plugins/{..}/set", 0, Risk::Refuse),
    plain("plugins.push", "POST", "/plugins/{..}/push", 0),
    plain("plugins.delete", "DELETE", "/plugins/{..}", 0),
    plain("nodes.list", "GET", "/nodes", READ),
    plain("nodes.inspect", "GET", "/nodes/{}", READ),
    risky("nodes.update", "POST", "/nodes/{}/update", 0, Risk::Refuse),
    plain("nodes.delete", "DELETE", "/nodes/{}", 0),
    plain("swarm.inspect", "GET", "/swarm", READ),
    risky("swarm.unlockkey", "GET", "/swarm/unlockkey", 0, Risk::Refuse),
    risky("swarm.init", "POST", "/swarm/init", 0, Risk::Refuse),
    risky("swarm.join", "POST", "/swarm/join", 0, Risk::Refuse),
    risky("swarm.leave", "POST", "/swarm/leave", 0, Risk::Refuse),
    risky("swarm.update", "POST", "/swarm/update", 0, Risk::Refuse),
    risky("swarm.unlock", "POST", "/swarm/unlock", 0, Risk::Refuse),
    plain("services.list", "GET", "/services", READ),
    plain("services.inspect", "GET", "/services/{}", READ),
    plain("services.logs", "GET", "/services/{}/logs", READ),
    // What a service may do stands in a specification that is not looked into.
    risky("services.create", "POST", "/services/create", 0, Risk::Refuse),
    risky("services.update", "POST", "/services/{}/update", 0, Risk::Refuse),
    plain("services.delete", "DELETE", "/services/{}", 0),
    plain("tasks.list", "GET", "/tasks", READ),
    plain("tasks.inspect", "GET", "/tasks/{}", READ),
    plain("tasks.logs", "GET", "/tasks/{}/logs", READ),
    // Names and labels; the secrets themselves are never shown.
    plain("secrets.list", "GET", "/secrets", READ),
    plain("secrets.inspect", "GET", "/secrets/{}", READ),
    plain("secrets.create", "POST", "/secrets/create", 0),
    plain("secrets.update", "POST", "/secrets/{}/update", 0),
    plain("secrets.delete", "DELETE", "/secrets/{}", 0),
    // Configurations are shown with what is in them.
    plain("configs.list", "GET", "/configs", 0),
    plain("configs.inspect", "GET", "/configs/{}", 0),
    plain("configs.create", "POST", "/configs/create", 0),
    plain("configs.update", "POST", "/configs/{}/update", 0),
    plain("configs.delete", "DELETE", "/configs/{}", 0),
];

/// The operation that a request is for. The path has passed [`super::framing`], so that it has no second
/// way to be read.
pub(super) fn find(method: &str, path: &str) -> Option<&'static Operation> {
    let path = without_version(path);
    OPERATIONS.iter().find(|operation| operation.method == method && fits(operation.path, path))
}

/// `/v1.41/info` without its version.
fn without_version(path: &str) -> &str {
    let Some(rest) = path.strip_prefix("/v") else { return path };
    let Some((version, _)) = rest.split_once('/') else { return path };
    let numbers = version.split_once('.').filter(|(major, minor)| {
        [major, minor].iter().all(|n| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
    });
    if numbers.is_some() { &rest[version.len()..] } else { path }
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut rest: &[&str] = &path.split('/').skip(1).collect::<Vec<_>>();
    let mut pattern = pattern.split('/').skip(1).peekable();
    while let Some(wanted) = pattern.next() {
        let Some((segment, after)) = rest.split_first() else { return false };
        match wanted {
            "{}" if is_id(segment) => rest = after,
            "{..}" => {
                // Whatever follows it in the pattern is one literal segment, or nothing.
                let tail = usize::from(pattern.peek().is_some());
                if rest.len() <= tail {
                    return false;
                }
                let (name, after) = rest.split_at(rest.len() - tail);
                if !name.iter().all(|segment| is_name(segment)) {
                    return false;
                }
                rest = after;
            }
            literal if literal == *segment => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

/// A name or id as the Engine gives them.
fn is_id(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_ascii_alphanumeric())
        && segment.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// A segment of the name of an image or plugin, with tag and digest.
fn is_name(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_ascii_alphanumeric())
        && segment.chars().all(|c| c.is_ascii_alphanumeric() || "_.-:@+".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_operations() {
        for (method, path, name) in [
            ("GET", "/_ping", Some("system.ping")),
            ("GET", "/v1.41/containers/json", Some("containers.list")),
            ("GET", "/containers/json/json", Some("containers.inspect")),
            ("GET", "/images/localhost:5000/a/b:c@sha256:0/json", Some("images.inspect")),
            ("GET", "/images/json", Some("images.list")),
            ("GET", "/images/a/get/json", Some("images.inspect")),
            ("DELETE", "/v1.24/images/a/b", Some("images.delete")),
            ("DELETE", "/images", None),
            ("GET", "/images//json", None),
            ("GET", "/v1.41/v1.41/info", None),
            ("GET", "/v1/info", None),
            ("GET", "/v1.41", None),
            ("GET", "/containers/a/b/json", None),
            ("GET", "/containers/.a/json", None),
            ("get", "/info", None),
            ("GET", "/", None),
            ("GET", "/info/", None),
        ] {
            assert_eq!(find(method, path).map(|o| o.name), name, "{method} {path}");
        }
    }
}
