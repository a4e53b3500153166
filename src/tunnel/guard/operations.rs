//! The operations of the Engine API (version 1.56; earlier ones down to 1.24 have no others), by method, path and,
//! where needed, query; with the policies that allow each, and the functions that judge it.

use super::operation::{BUILD, CONTAINERS, Effect, Makes, Operation, READ, Reach, When, plain};
use super::query::Query;
use super::{bodies, queries};

/// Replaces an encoded slash while a path is checked without that slash.
pub(super) const ENCODED_SLASH: char = '\u{1f}';

const ATTACH: &str = "detachKeys hijack logs stderr stdin stdout stream";
const LOGS: &str = "details follow format since stderr stdout tail timestamps until";
const BUILDS: &str = "buildargs buildid cachefrom cgroupparent cpuperiod cpuquota cpusetcpus cpusetmems cpushares \
    dockerfile extrahosts* forcerm isolation labels memory memswap networkmode nocache outputs platform pull q remote \
    rm securityopt* session shmsize squash t* target ulimits version";
const CREATE: &str = "changes* fromImage fromSrc message platform registry repo tag";
const SEARCH: &str = "filters limit term";

/// All operations. If several match, the first one is meant, as in the Engine's own router.
#[rustfmt::skip]
pub(super) const OPERATIONS: &[Operation] = &[
    plain("system.ping", "GET", "/_ping", READ),
    plain("system.ping", "HEAD", "/_ping", READ),
    plain("system.version", "GET", "/version", READ),
    // The Engine masks a proxy's password in it.
    plain("system.info", "GET", "/info", READ),
    plain("system.events", "GET", "/events", READ).takes("filters since until").streams(),
    plain("system.df", "GET", "/system/df", READ).takes("type* verbose"),
    // Connects to any address in its body, as a pull does.
    plain("system.auth", "POST", "/auth", CONTAINERS | BUILD).judged(bodies::judge_login),
    plain("containers.list", "GET", "/containers/json", READ).takes("all before filters limit since size trunc_cmd"),
    plain("containers.inspect", "GET", "/containers/{}/json", READ).takes("size"),
    plain("containers.top", "GET", "/containers/{}/top", READ).takes("ps_args").amends(queries::harmless_ps),
    plain("containers.logs", "GET", "/containers/{}/logs", READ).takes(LOGS).streams(),
    plain("containers.changes", "GET", "/containers/{}/changes", READ),
    plain("containers.stats", "GET", "/containers/{}/stats", READ).takes("one-shot stream").streams(),
    plain("containers.export", "GET", "/containers/{}/export", CONTAINERS).streams(),
    plain("containers.archive", "HEAD", "/containers/{}/archive", CONTAINERS).takes("path").reaches(Reach::Container),
    plain("containers.archive", "GET", "/containers/{}/archive", CONTAINERS).takes("path").reaches(Reach::Container).streams(),
    plain("containers.copy", "PUT", "/containers/{}/archive", CONTAINERS).takes("copyUIDGID noOverwriteDirNonDir path").body().reaches(Reach::Container).streams(),
    plain("containers.create", "POST", "/containers/create", CONTAINERS).takes("name platform").judged(bodies::judge_create).makes(Makes::Container).has_binds(),
    plain("containers.prune", "POST", "/containers/prune", CONTAINERS).takes("filters"),
    // Engines up to 24 read a HostConfig from its body if the API version is below 1.24.
    plain("containers.start", "POST", "/containers/{}/start", CONTAINERS).takes("detachKeys").empty("a HostConfig belongs into containers.create, not here").reaches(Reach::Container).starts(),
    plain("containers.stop", "POST", "/containers/{}/stop", CONTAINERS).takes("signal t").changes_ports(),
    plain("containers.restart", "POST", "/containers/{}/restart", CONTAINERS).takes("signal t").reaches(Reach::Container).starts(),
    plain("containers.kill", "POST", "/containers/{}/kill", CONTAINERS).takes("signal").changes_ports(),
    plain("containers.update", "POST", "/containers/{}/update", CONTAINERS).judged(bodies::judge_update),
    // A name can have the form of an id, such as that of a container once found harmless and now removed.
    plain("containers.rename", "POST", "/containers/{}/rename", CONTAINERS).takes("name").reaches(Reach::Container),
    plain("containers.pause", "POST", "/containers/{}/pause", CONTAINERS),
    plain("containers.unpause", "POST", "/containers/{}/unpause", CONTAINERS).changes_ports(),
    plain("containers.resize", "POST", "/containers/{}/resize", CONTAINERS).takes("h w"),
    plain("containers.attach", "POST", "/containers/{}/attach", CONTAINERS).takes(ATTACH).upgrades("tcp").reaches(Reach::Container).streams(),
    plain("containers.attach-ws", "GET", "/containers/{}/attach/ws", CONTAINERS).takes(ATTACH).upgrades("websocket").reaches(Reach::Container).streams(),
    plain("containers.wait", "POST", "/containers/{}/wait", CONTAINERS).takes("condition").tells_end(Effect::Waited),
    plain("containers.delete", "DELETE", "/containers/{}", CONTAINERS).takes("force link v").changes_ports(),
    // Deletes a link, by the names of its two ends.
    plain("containers.delete", "DELETE", "/containers/{}/{}", CONTAINERS).takes("force link v"),
    plain("containers.exec", "POST", "/containers/{}/exec", CONTAINERS).judged(bodies::judge_exec).reaches(Reach::Container).makes(Makes::Exec),
    plain("exec.inspect", "GET", "/exec/{}/json", READ).tells_end(Effect::Written),
    plain("exec.start", "POST", "/exec/{}/start", CONTAINERS).judged(bodies::judge_exec_start).upgrades("tcp").reaches(Reach::Exec).streams(),
    plain("exec.resize", "POST", "/exec/{}/resize", CONTAINERS).takes("h w"),
    plain("images.list", "GET", "/images/json", READ).takes("all digests filter filters identity manifests only_ids shared-size"),
    plain("images.search", "GET", "/images/search", READ).takes(SEARCH).when(When::HubSearch),
    // The host's daemon connects to the registry in the term.
    plain("images.search-registry", "GET", "/images/search", CONTAINERS | BUILD).takes(SEARCH),
    plain("images.get", "GET", "/images/get", BUILD).takes("names* platform*").streams(),
    plain("images.inspect", "GET", "/images/{..}/json", READ).takes("manifests platform size"),
    plain("images.attestations", "GET", "/images/{..}/attestations", READ).takes("platform* statement type*"),
    plain("images.history", "GET", "/images/{..}/history", READ).takes("platform"),
    plain("images.get", "GET", "/images/{..}/get", BUILD).takes("names* platform*").streams(),
    plain("images.pull", "POST", "/images/create", CONTAINERS | BUILD).takes(CREATE).when(When::Pull).streams(),
    plain("images.import", "POST", "/images/create", BUILD).takes(CREATE).when(When::Import).body().streams(),
    // The host's daemon fetches any address in the query.
    plain("images.import-url", "POST", "/images/create", BUILD).takes(CREATE).refused().streams(),
    plain("images.load", "POST", "/images/load", BUILD).takes("platform* quiet").body().streams(),
    plain("images.prune", "POST", "/images/prune", BUILD).takes("filters"),
    // Engines up to 28 read credentials from its body if there is no header with them.
    plain("images.push", "POST", "/images/{..}/push", BUILD).takes("platform registry tag").body().streams(),
    plain("images.tag", "POST", "/images/{..}/tag", BUILD).takes("force repo tag"),
    plain("images.delete", "DELETE", "/images/{..}", BUILD).takes("force noprune platforms*"),
    plain("images.commit", "POST", "/commit", BUILD).takes("author changes* comment container m pause repo tag").judged(bodies::judge_commit),
    plain("build.build", "POST", "/build", BUILD).takes(BUILDS).when(When::LocalBuild).judged_by_query(queries::unprivileged_build).body().streams(),
    // The host's daemon fetches any address in the query.
    plain("build.remote", "POST", "/build", BUILD).takes(BUILDS).refused().body().streams(),
    plain("build.prune", "POST", "/build/prune", BUILD).takes("all filters keep-storage max-used-space min-free-space reserved-space"),
    plain("build.cancel", "POST", "/build/cancel", BUILD).takes("id"),
    // Useful only with BuildKit and remote contexts, which cannot be judged.
    plain("build.session", "POST", "/session", BUILD).refused().upgrades("h2c").streams(),
    // BuildKit's own protocol, which is not judged.
    plain("build.grpc", "POST", "/grpc", BUILD).refused().upgrades("h2c").streams(),
    // The host's daemon connects to any registry in the path.
    plain("distribution.inspect", "GET", "/distribution/{..}/json", CONTAINERS | BUILD),
    plain("networks.list", "GET", "/networks", READ).takes("filters"),
    plain("networks.inspect", "GET", "/networks/{ }", READ).takes("scope verbose"),
    plain("networks.create", "POST", "/networks/create", CONTAINERS).judged(bodies::judge_network),
    plain("networks.prune", "POST", "/networks/prune", CONTAINERS).takes("filters"),
    plain("networks.connect", "POST", "/networks/{ }/connect", CONTAINERS).judged(bodies::judge_connect),
    plain("networks.disconnect", "POST", "/networks/{ }/disconnect", CONTAINERS).judged(bodies::judge_disconnect),
    plain("networks.delete", "DELETE", "/networks/{ }", CONTAINERS),
    plain("volumes.list", "GET", "/volumes", READ).takes("filters"),
    plain("volumes.inspect", "GET", "/volumes/{}", READ),
    plain("volumes.create", "POST", "/volumes/create", CONTAINERS).judged(bodies::judge_volume),
    plain("volumes.prune", "POST", "/volumes/prune", CONTAINERS).takes("filters"),
    plain("volumes.update", "PUT", "/volumes/{}", CONTAINERS).refused().takes("version").body(),
    plain("volumes.delete", "DELETE", "/volumes/{}", CONTAINERS).takes("force"),
    // Plugins are shown with their settings, which may hold credentials.
    plain("plugins.list", "GET", "/plugins", 0).takes("filters"),
    plain("plugins.inspect", "GET", "/plugins/{..}/json", 0),
    plain("plugins.privileges", "GET", "/plugins/privileges", 0).takes("name remote"),
    plain("plugins.pull", "POST", "/plugins/pull", 0).takes("name remote").refused().body().streams(),
    plain("plugins.create", "POST", "/plugins/create", 0).takes("name").refused().body().streams(),
    plain("plugins.enable", "POST", "/plugins/{..}/enable", 0).takes("timeout").refused(),
    plain("plugins.disable", "POST", "/plugins/{..}/disable", 0).refused().takes("force"),
    plain("plugins.upgrade", "POST", "/plugins/{..}/upgrade", 0).takes("remote").refused().body().streams(),
    plain("plugins.set", "POST", "/plugins/{..}/set", 0).refused().body(),
    plain("plugins.push", "POST", "/plugins/{..}/push", 0).streams(),
    plain("plugins.delete", "DELETE", "/plugins/{..}", 0).refused().takes("force"),
    plain("nodes.list", "GET", "/nodes", READ).takes("filters"),
    plain("nodes.inspect", "GET", "/nodes/{}", READ),
    plain("nodes.update", "POST", "/nodes/{}/update", 0).takes("version").refused().body(),
    plain("nodes.delete", "DELETE", "/nodes/{}", 0).takes("force"),
    // Shows the tokens with which a machine joins, even as a manager.
    plain("swarm.inspect", "GET", "/swarm", 0).refused(),
    plain("swarm.unlockkey", "GET", "/swarm/unlockkey", 0).refused(),
    plain("swarm.init", "POST", "/swarm/init", 0).refused().body(),
    plain("swarm.join", "POST", "/swarm/join", 0).refused().body(),
    plain("swarm.leave", "POST", "/swarm/leave", 0).takes("force").refused(),
    plain("swarm.update", "POST", "/swarm/update", 0)
        .takes("rotateManagerToken rotateManagerUnlockKey rotateWorkerToken version").refused().body(),
    plain("swarm.unlock", "POST", "/swarm/unlock", 0).refused().body(),
    plain("services.list", "GET", "/services", READ).takes("filters status"),
    plain("services.inspect", "GET", "/services/{}", READ).takes("insertDefaults"),
    plain("services.logs", "GET", "/services/{}/logs", READ).takes(LOGS).streams(),
    // A service's rights are in its specification, which is not judged.
    plain("services.create", "POST", "/services/create", 0).refused().body().has_binds(),
    plain("services.update", "POST", "/services/{}/update", 0).takes("registryAuthFrom rollback version").refused().body().has_binds(),
    plain("services.delete", "DELETE", "/services/{}", 0),
    plain("tasks.list", "GET", "/tasks", READ).takes("filters"),
    plain("tasks.inspect", "GET", "/tasks/{}", READ),
    plain("tasks.logs", "GET", "/tasks/{}/logs", READ).takes(LOGS).streams(),
    // Names and labels; the Engine never shows the secrets themselves.
    plain("secrets.list", "GET", "/secrets", READ).takes("filters"),
    plain("secrets.inspect", "GET", "/secrets/{}", READ),
    plain("secrets.create", "POST", "/secrets/create", 0).refused().body(),
    plain("secrets.update", "POST", "/secrets/{}/update", 0).refused().takes("version").body(),
    plain("secrets.delete", "DELETE", "/secrets/{}", 0),
    // Configurations are shown with their content.
    plain("configs.list", "GET", "/configs", 0).takes("filters"),
    plain("configs.inspect", "GET", "/configs/{}", 0),
    plain("configs.create", "POST", "/configs/create", 0).refused().body(),
    plain("configs.update", "POST", "/configs/{}/update", 0).refused().takes("version").body(),
    plain("configs.delete", "DELETE", "/configs/{}", 0),
];

/// The operation of a request. The path was decoded by [`super::target`] and has no version; its
/// slashes may be [`ENCODED_SLASH`].
pub(super) fn find(method: &str, path: &str, query: &Query) -> Option<&'static Operation> {
    // No pattern begins with a variable: most rows end at their first segment. (This is done for each request.)
    let first = path.split('/').nth(1).unwrap_or_default();
    let begins = |pattern: &str| {
        let rest = pattern.as_bytes().get(1..).and_then(|rest| rest.strip_prefix(first.as_bytes()));
        rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'/'))
    };
    OPERATIONS.iter().find(|operation| {
        operation.method == method && begins(operation.path) && fits(operation.path, path) && operation.when.fits(query)
    })
}

/// Splits `/v1.41/info` into the version and the rest.
pub(super) fn version(path: &str) -> (&str, &str) {
    let none = ("", path);
    let Some(rest) = path.strip_prefix("/v") else { return none };
    let Some((version, _)) = rest.split_once('/') else { return none };
    if numbers(version).is_some() { path.split_at("/v".len() + version.len()) } else { none }
}

/// Parses a version such as `1.41`.
pub(super) fn numbers(version: &str) -> Option<(u16, u16)> {
    let (major, minor) = version.split_once('.')?;
    // Only one form is accepted, although the Engine reads `1.041` as 1.41.
    let plain = |n: &str| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
    let plain = |n: &str| plain(n) && (n == "0" || !n.starts_with('0'));
    (plain(major) && plain(minor)).then(|| Some((major.parse().ok()?, minor.parse().ok()?)))?
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut rest: &[&str] = &path.split('/').skip(1).collect::<Vec<_>>();
    let mut pattern = pattern.split('/').skip(1).peekable();
    while let Some(wanted) = pattern.next() {
        let Some((segment, after)) = rest.split_first() else { return false };
        match wanted {
            "{}" if is_id(segment) => rest = after,
            // Only networks may have spaces in their names.
            "{ }" if segment.split(' ').all(is_id) => rest = after,
            "{..}" => {
                // In the pattern, at most one literal segment follows it.
                let tail = usize::from(pattern.peek().is_some());
                if rest.len() <= tail {
                    return false;
                }
                let (name, after) = rest.split_at(rest.len() - tail);
                let mut segments = name.iter().flat_map(|segment| segment.split(ENCODED_SLASH));
                if !(segments.next().is_some_and(|first| is_name(first) || is_address(first)) && segments.all(is_name))
                {
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

/// Whether it has the form of a name or id from the Engine.
fn is_id(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_ascii_alphanumeric())
        && segment.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// Whether it may be a segment of the name of an image or plugin, with tag and digest.
fn is_name(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_ascii_alphanumeric())
        && segment.chars().all(|c| c.is_ascii_alphanumeric() || "_.-:@+".contains(c))
}

/// Whether it is a registry's IPv6 address: `[::1]` or `[::1]:5000`.
fn is_address(segment: &str) -> bool {
    let Some((address, port)) = segment.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return false };
    let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    address.parse::<std::net::Ipv6Addr>().is_ok() && port_fits
}

#[cfg(test)]
mod tests {
    use super::super::operation::{Body, Risk, Times};
    use super::*;

    fn found(method: &str, target: &str) -> Option<&'static str> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        find(method, version(path).1, &Query::read(query).expect("a query")).map(|operation| operation.name)
    }

    #[test]
    fn paths_lead_to_operations() {
        for (method, path, name) in [
            ("GET", "/_ping", Some("system.ping")),
            ("GET", "/v1.41/containers/json", Some("containers.list")),
            ("GET", "/containers/json/json", Some("containers.inspect")),
            ("GET", "/images/localhost:5000/a/b:c@sha256:0/json", Some("images.inspect")),
            ("GET", "/images/[fe80::1]/a/json", Some("images.inspect")),
            ("GET", "/images/a/[::1]/json", None),
            ("GET", "/images/[::1/json", None),
            ("GET", "/images/[::1]x/json", None),
            ("GET", "/images/[::1%eth0]/a/json", None),
            ("GET", "/images/json", Some("images.list")),
            ("GET", "/images/a/get/json", Some("images.inspect")),
            ("DELETE", "/v1.24/images/a/b", Some("images.delete")),
            ("DELETE", "/images", None),
            ("GET", "/images//json", None),
            ("GET", "/v1.41/v1.41/info", None),
            ("GET", "/v1/info", None),
            ("GET", "/v1.041/info", None),
            ("GET", "/v01.41/info", None),
            ("GET", "/v1.41", None),
            ("GET", "/containers/a/b/json", None),
            ("GET", "/containers/.a/json", None),
            ("GET", "/containers/a b/json", None),
            ("GET", "/networks/a b", Some("networks.inspect")),
            ("GET", "/networks/a ", None),
            ("DELETE", "/containers/a/link?link=1", Some("containers.delete")),
            ("DELETE", "/containers/a/checkpoints/b", None),
            ("get", "/info", None),
            ("GET", "/", None),
            ("GET", "/info/", None),
        ] {
            assert_eq!(found(method, path), name, "{method} {path}");
        }
    }

    #[test]
    fn a_query_decides_where_the_engine_lets_it() {
        for (method, target, name) in [
            ("POST", "/images/create?fromImage=a&tag=b", "images.pull"),
            ("POST", "/images/create?fromImage=a&fromSrc=-", "images.pull"),
            ("POST", "/images/create?fromSrc=-&repo=a", "images.import"),
            ("POST", "/images/create?fromImage=&fromSrc=%2d", "images.import"),
            ("POST", "/images/create?fromSrc=http://10.0.0.1/x", "images.import-url"),
            ("POST", "/images/create?fromSrc=10.0.0.1/x", "images.import-url"),
            ("POST", "/images/create?fromImage=&fromImage=a", "images.import-url"),
            ("POST", "/images/create", "images.import-url"),
            ("POST", "/build?t=a", "build.build"),
            ("POST", "/build?remote=client-session&version=2", "build.build"),
            ("POST", "/build?remote=http://10.0.0.1/x", "build.remote"),
            ("POST", "/build?remote=Client-Session", "build.remote"),
            ("GET", "/images/search?term=nginx", "images.search"),
            ("GET", "/images/search?term=library/nginx", "images.search"),
            ("GET", "/images/search?term=a.b", "images.search"),
            ("GET", "/images/search?term=10.0.0.1/x", "images.search-registry"),
            ("GET", "/images/search?term=localhost/x", "images.search-registry"),
            ("GET", "/images/search?term=x:5000/x", "images.search-registry"),
            ("GET", "/images/search?term=[::1]/x", "images.search-registry"),
            ("GET", "/images/search?term=http://x/y", "images.search-registry"),
        ] {
            assert_eq!(found(method, target), Some(name), "{target}");
        }
    }

    #[test]
    fn the_table_is_sound() {
        for operation in OPERATIONS {
            assert!(operation.body != Body::Sent || matches!(operation.method, "POST" | "PUT"), "{}", operation.name);
            assert!(!matches!(operation.risk, Risk::Body(_)) || operation.body == Body::Sent, "{}", operation.name);
            assert_eq!(
                operation.parameter(""),
                operation.takes.is_empty().then_some(Times::Once),
                "{}",
                operation.name
            );
        }
        // Their bodies hold files and images, which give a container no rights.
        let unjudged = |row: &&Operation| row.body == Body::Sent && matches!(row.risk, Risk::None | Risk::Query(_));
        let unjudged: Vec<&str> = OPERATIONS.iter().filter(unjudged).map(|row| row.name).collect();
        assert_eq!(unjudged, ["containers.copy", "images.import", "images.load", "images.push", "build.build"]);
        let names = OPERATIONS.iter().map(|operation| operation.name).collect::<std::collections::BTreeSet<_>>();
        assert!(!names.contains("images.create"));
        let rows = OPERATIONS.iter().map(|row| (row.name, row.method, row.path));
        assert_eq!(rows.collect::<std::collections::BTreeSet<_>>().len(), OPERATIONS.len());
    }
}
