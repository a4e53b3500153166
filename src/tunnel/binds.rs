//! The tunnel's own socket as a bind of a container: the container gets the Engine's socket.
//!
//! Many tools mount the path of `DOCKER_HOST` into a container (testcontainers, act, devcontainers). That path is on this
//! machine; on the host the Engine would make an empty directory of that name. A body without the path is not read, and of
//! one with it only that string is changed.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Where a body may name a socket: `HostConfig` of containers.create, `TaskTemplate` of services.create and
/// services.update.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(borrow)]
    host_config: Option<HostConfig<'a>>,
    #[serde(borrow)]
    task_template: Option<TaskTemplate<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig<'a> {
    #[serde(borrow)]
    binds: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    mounts: Option<Vec<Option<Mount<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskTemplate<'a> {
    #[serde(borrow)]
    container_spec: Option<ContainerSpec<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerSpec<'a> {
    #[serde(borrow)]
    mounts: Option<Vec<Option<Mount<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount<'a> {
    /// A container's mount without a type is refused by the Engine; swarm takes it for a bind, and a type in any case.
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
}

/// A place in a body that names our socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The JSON string.
    at: Range<usize>,
    /// What follows the path in it: `:/var/run/docker.sock:ro`.
    behind: String,
}

/// The body with `theirs` in place of our paths, which were [found](find) in it.
pub(super) fn replaced(body: &[u8], found: &[Found], theirs: &str) -> Vec<u8> {
    let (mut new, mut from) = (Vec::with_capacity(body.len()), 0);
    for Found { at, behind } in found {
        new.extend_from_slice(&body[from..at.start]);
        new.extend_from_slice(serde_json::Value::from(format!("{theirs}{behind}")).to_string().as_bytes());
        from = at.end;
    }
    new.extend_from_slice(&body[from..]);
    new
}

/// A head with another Content-Length.
pub(super) fn with_length(head: &[u8], length: usize) -> Vec<u8> {
    let is_length = |line: &[u8]| {
        line.split(|byte| *byte == b':').next().is_some_and(|name| name.eq_ignore_ascii_case(b"content-length"))
    };
    let lines = head.split_inclusive(|byte| *byte == b'\n');
    lines
        .flat_map(
            |line| if is_length(line) { format!("Content-Length: {length}\r\n").into_bytes() } else { line.to_vec() },
        )
        .collect()
}

/// Where a body names one of our paths as a container's, in its order.
pub(super) fn find(body: &[u8], ours: &[String]) -> Vec<Found> {
    // Any character may be written in other ways, all of which have a backslash: PHP writes `\/`, .NET `\u002B` for `+`.
    let may_be_there = body.contains(&b'\\') || ours.iter().any(|path| memmem::find(body, path.as_bytes()).is_some());
    if !may_be_there {
        return Vec::new();
    }
    let Ok(parsed) = serde_json::from_slice::<Body<'_>>(body) else { return Vec::new() };
    let (binds, mounts) = parsed.host_config.map_or((None, None), |config| (config.binds, config.mounts));
    let of_tasks = parsed.task_template.and_then(|task| task.container_spec).and_then(|spec| spec.mounts);
    let mounts = mounts.into_iter().flatten().flatten().filter(|mount| mount.r#type.as_deref() == Some("bind"));
    let of_tasks = of_tasks.into_iter().flatten().flatten().filter(|mount| {
        mount.r#type.as_deref().is_none_or(|kind| kind.is_empty() || kind.eq_ignore_ascii_case("bind"))
    });
    let sources = mounts.chain(of_tasks).filter_map(|mount| mount.source);
    let path_of = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
    // A bind without a colon is an anonymous volume at that path of the container.
    let behind = |value: &str, is_bind: bool| {
        let mut rests = ours.iter().filter_map(|path| value.strip_prefix(path.as_str()));
        rests.find(|rest| if is_bind { rest.starts_with(':') } else { rest.is_empty() }).map(str::to_owned)
    };
    let binds = binds.into_iter().flatten().map(|raw| (raw, true));
    let mut found: Vec<Found> = binds
        .chain(sources.map(|raw| (raw, false)))
        .filter_map(|(raw, is_bind)| {
            let start = raw.get().as_ptr() as usize - body.as_ptr() as usize;
            Some(Found { at: start..start + raw.get().len(), behind: behind(&path_of(raw)?, is_bind)? })
        })
        .collect();
    found.sort_by_key(|found| found.at.start);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "/var/run/docker.sock";

    fn ours() -> Vec<String> {
        vec![
            "/run/user/1000/dtunnel/lab.sock".into(),
            "/run/user/1000/dtunnel/root+22.sock".into(),
            "/tmp/a \"b\".sock".into(),
        ]
    }

    #[test]
    fn our_socket_becomes_the_engines_and_nothing_else_changes() {
        for (body, expected) in [
            (
                r#"{"Image":"x", "HostConfig": {"Binds": ["/run/user/1000/dtunnel/lab.sock:/var/run/docker.sock:ro" , "/a:/b"]}}"#,
                r#"{"Image":"x", "HostConfig": {"Binds": ["/var/run/docker.sock:/var/run/docker.sock:ro" , "/a:/b"]}}"#,
            ),
            (
                r#"{"HostConfig":{"Mounts":[null,{"Type":"bind","Source":"\/run\/user\/1000\/dtunnel\/lab.sock","Target":"/x"}],"Binds":null}}"#,
                r#"{"HostConfig":{"Mounts":[null,{"Type":"bind","Source":"/var/run/docker.sock","Target":"/x"}],"Binds":null}}"#,
            ),
            (
                r#"{"HostConfig":{"Binds":["\u002frun/user\u002F1000/dtunnel/root\u002B22.sock:/x"]}}"#,
                r#"{"HostConfig":{"Binds":["/var/run/docker.sock:/x"]}}"#,
            ),
            (
                r#"{"Name":"s","TaskTemplate":{"ContainerSpec":{"Mounts":[{"Source":"/tmp/a \"b\".sock"},{"Type":"BIND","Source":"/run/user/1000/dtunnel/lab.sock"}]}}}"#,
                r#"{"Name":"s","TaskTemplate":{"ContainerSpec":{"Mounts":[{"Source":"/var/run/docker.sock"},{"Type":"BIND","Source":"/var/run/docker.sock"}]}}}"#,
            ),
        ] {
            let found = find(body.as_bytes(), &ours());
            assert!(!found.is_empty(), "{body}");
            assert_eq!(String::from_utf8_lossy(&replaced(body.as_bytes(), &found, THEIRS)), expected);
        }
        // The Engine reads bytes that are no UTF-8, too.
        let body = b"{\"Cmd\":[\"\xff\"],\"HostConfig\":{\"Binds\":[\"/run/user/1000/dtunnel/lab.sock:/x\"]}}";
        let expected = b"{\"Cmd\":[\"\xff\"],\"HostConfig\":{\"Binds\":[\"/var/run/docker.sock:/x\"]}}";
        assert_eq!(replaced(body, &find(body, &ours()), THEIRS), expected);
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for body in [
            r#"{"HostConfig":{"Binds":["/run/user/1000/dtunnel/lab.sock.d:/x"]}}"#,
            r#"{"HostConfig":{"Binds":["/run/user/1000/dtunnel/lab.sock"]}}"#,
            r#"{"HostConfig":{"Mounts":[{"Source":"/run/user/1000/dtunnel/lab.sock"}]}}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/run/user/1000/dtunnel/lab.sock:/x"}]}}"#,
            r#"{"Env":["DOCKER_HOST=unix:///run/user/1000/dtunnel/lab.sock"],"HostConfig":{"Binds":[]}}"#,
            r#"{"Cmd":["/run/user/1000/dtunnel/lab.sock"]}"#,
            r#"{"HostConfig":{"Binds":["/run/user/1000/dtunnel/lab.sock:/x"]}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"volume","Source":"/run/user/1000/dtunnel/lab.sock"}]}}"#,
            r#"{"HostConfig":{"Binds":[7]}}"#,
            "",
        ] {
            let found = find(body.as_bytes(), &ours());
            assert!(found.is_empty(), "{body}");
            assert_eq!(replaced(body.as_bytes(), &found, THEIRS), body.as_bytes());
        }
    }

    #[test]
    fn a_head_gets_the_length_of_its_new_body() {
        let head =
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\ncontent-length: 120\r\nX: Content-Length: 3\r\n\r\n";
        let expected =
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nX: Content-Length: 3\r\n\r\n";
        assert_eq!(with_length(head, 7), expected);
    }
}
