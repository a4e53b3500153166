//! The paths of this machine that a request gives a container, and the host's paths in their place.
//!
//! Many tools mount the path of `DOCKER_HOST` into a container (testcontainers, act, devcontainers). That path is on this
//! machine; on the host the Engine would make an empty directory of that name. A body without the path is not read, and of
//! one with it only that string is changed. Where directories are mounted (`tunnel/mounts`), all binds are looked at.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::config::OF_HOST;

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
    read_only: Option<bool>,
}

/// A directory, file or socket that a body gives a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    /// The JSON string.
    at: Range<usize>,
    /// Its path, as the client wrote it.
    pub(super) source: String,
    /// What follows the path in the string: `:/var/run/docker.sock:ro`.
    behind: String,
    /// Whether the container may only read it.
    pub(super) is_read_only: bool,
}

impl Bind {
    /// Is it one of `Mounts`? The Engine makes no directory for those.
    pub(super) fn is_mount(&self) -> bool {
        self.behind.is_empty()
    }
}

/// What is told of the binds of a body: our sockets, and all of them where directories are mounted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// The local paths of the tunnel.
    pub(super) sockets: Arc<[String]>,
    /// Whether all binds are wanted.
    pub(super) all: bool,
}

/// The body with other paths in place of those of binds that were [found](Wanted::find) in it, in its order.
pub(super) fn replaced(body: &[u8], others: &[(Bind, String)]) -> Vec<u8> {
    let (mut new, mut from) = (Vec::with_capacity(body.len()), 0);
    for (Bind { at, behind, .. }, path) in others {
        new.extend_from_slice(&body[from..at.start]);
        new.extend_from_slice(serde_json::Value::from(format!("{path}{behind}")).to_string().as_bytes());
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

impl Wanted {
    /// The binds of a body that are wanted, in its order.
    pub(super) fn find(&self, body: &[u8]) -> Vec<Bind> {
        // Any character may be written in other ways, all of which have a backslash: PHP writes `\/`, .NET `\u002B` for `+`.
        let may_be_there = self.all
            || body.contains(&b'\\')
            || self.sockets.iter().any(|path| memmem::find(body, path.as_bytes()).is_some());
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
        let place = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - body.as_ptr() as usize;
            start..start + raw.get().len()
        };
        let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        let binds = binds.into_iter().flatten().filter_map(|raw| {
            let value = text(raw)?;
            let length = self.length_of_source(&value)?;
            let behind = value[length..].to_owned();
            let is_read_only = behind.rsplit(':').next().is_some_and(|mode| mode.split(',').any(|word| word == "ro"));
            Some(Bind { at: place(raw), source: value[..length].to_owned(), behind, is_read_only })
        });
        let mounts = mounts.chain(of_tasks).filter_map(|mount| {
            let (raw, is_read_only) = (mount.source?, mount.read_only.unwrap_or(false));
            Some(Bind { at: place(raw), source: text(raw)?, behind: String::new(), is_read_only })
        });
        let is_wanted = |bind: &Bind| self.all || self.names_our_socket(bind);
        let mut found: Vec<Bind> = binds.chain(mounts).filter(is_wanted).collect();
        found.sort_by_key(|found| found.at.start);
        found
    }

    /// Is it this tunnel's socket?
    pub(super) fn names_our_socket(&self, bind: &Bind) -> bool {
        self.sockets.contains(&bind.source)
    }

    /// The length of the path in a bind such as `/a:/b:ro`; None for a volume. Without a colon it is an anonymous volume at
    /// that path of the container. Paths of Windows have a colon in them.
    fn length_of_source(&self, bind: &str) -> Option<usize> {
        let is_ours = |length: usize| self.sockets.iter().any(|path| *path == bind[..length]);
        let is_path = |length: usize| {
            let source = &bind[..length];
            Path::new(source.strip_prefix(OF_HOST).unwrap_or(source)).is_absolute() || source.starts_with('/')
        };
        let colons = || bind.match_indices(':').map(|(at, _)| at);
        // What follows is a path of the container; the Engine refuses everything else.
        let is_bind = |at: &usize| bind[at + 1..].starts_with('/');
        colons().find(|at| is_ours(*at)).or_else(|| colons().find(|at| is_path(*at)).filter(is_bind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "/var/run/docker.sock";

    fn find(body: &[u8], all: bool) -> Vec<Bind> {
        Wanted { sockets: ours().into(), all }.find(body)
    }

    /// With the Engine's socket in place of ours.
    fn with_theirs(body: &[u8]) -> Vec<u8> {
        let found: Vec<_> = find(body, false).into_iter().map(|bind| (bind, THEIRS.to_owned())).collect();
        replaced(body, &found)
    }

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
            assert!(!find(body.as_bytes(), false).is_empty(), "{body}");
            assert_eq!(String::from_utf8_lossy(&with_theirs(body.as_bytes())), expected);
        }
        // The Engine reads bytes that are no UTF-8, too.
        let body = b"{\"Cmd\":[\"\xff\"],\"HostConfig\":{\"Binds\":[\"/run/user/1000/dtunnel/lab.sock:/x\"]}}";
        let expected = b"{\"Cmd\":[\"\xff\"],\"HostConfig\":{\"Binds\":[\"/var/run/docker.sock:/x\"]}}";
        assert_eq!(with_theirs(body), expected);
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
            assert!(find(body.as_bytes(), false).is_empty(), "{body}");
            assert_eq!(with_theirs(body.as_bytes()), body.as_bytes());
        }
    }

    #[test]
    fn all_binds_are_found_with_what_the_container_may_do() {
        let body = r#"{"HostConfig":{"Binds":["/a:/b","/c d:/e:rw,z","data:/f","/g","host:/h:/i:ro,z","7","/o:p:/q"],
            "Mounts":[{"Type":"bind","Source":"/j:k","Target":"/l","ReadOnly":true},{"Type":"volume","Source":"/m"},
            {"Type":"bind","Source":"/n"}]}}"#;
        let found = find(body.as_bytes(), true);
        let seen: Vec<_> =
            found.iter().map(|bind| (bind.source.as_str(), bind.behind.as_str(), bind.is_read_only)).collect();
        let expected = [
            ("/a", ":/b", false),
            ("/c d", ":/e:rw,z", false),
            ("host:/h", ":/i:ro,z", true),
            ("/j:k", "", true),
            ("/n", "", false),
        ];
        assert_eq!(seen, expected);
        let others: Vec<_> = found.into_iter().map(|bind| (bind, "/x".to_owned())).collect();
        let new = String::from_utf8(replaced(body.as_bytes(), &others)).expect("UTF-8");
        assert!(new.starts_with(
            r#"{"HostConfig":{"Binds":["/x:/b","/x:/e:rw,z","data:/f","/g","/x:/i:ro,z","7","/o:p:/q"],"#
        ));
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
