//! The requests that a guard allows: policies, and exceptions to them.

use super::bodies::{Ground, Judged};
use super::head::Head;
use super::operation::{BUILD, Body, CONTAINERS, Makes, Operation, READ, Reach, Risk, Times};
use super::operations::{OPERATIONS, numbers, version};
use super::query::Query;
use crate::config::{Access, Policy};

/// The lowest API version that passes. Below it the Engine reads requests by other rules than those known here (a start
/// has a body there), and no client of the last ten years uses it.
const LOWEST: (u16, u16) = (1, 24);
/// From this API version on, a bind can leave out the mounts below it (`NonRecursive`).
const WITHOUT_MOUNTS: (u16, u16) = (1, 40);

/// Query parameters that client libraries add for themselves and no Engine reads: they are left out. So are names that
/// begin with a capital, as no parameter does: dockerode repeats the fields of a body in the query.
const LEFT_OUT: [&str; 6] = ["abortSignal", "authconfig", "hijack", "registryconfig", "_body", "_query"];

/// The decision on a request, from its head alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The request may pass.
    Pass(Pass),
    /// The request is invalid.
    Bad(String),
    /// The request is not allowed.
    Refuse(String),
}

/// A request that may pass.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tunnel) struct Pass {
    /// What it is for.
    pub(super) operation: &'static Operation,
    /// The target to send.
    pub(in crate::tunnel) target: String,
    /// Whether its body must be judged first.
    pub(super) inspect: bool,
}

/// Decides on requests.
#[derive(Debug)]
pub(super) struct Rules {
    /// The policies, in a few words.
    pub(super) label: String,
    /// The policies that allow operations, as a bit set; None allows every known operation.
    of: Option<u8>,
    no_privileged: bool,
    allow: Vec<String>,
    allowed_binds: Vec<String>,
}

impl Rules {
    /// The rules of these settings; None if everything is allowed.
    ///
    /// # Errors
    /// `allow` names an unknown operation.
    pub(super) fn new(access: &Access) -> Result<Option<Self>, String> {
        for name in &access.allow {
            if !OPERATIONS.iter().any(|operation| operation.name == name) {
                let names = OPERATIONS.iter().map(|operation| operation.name);
                let nearest = crate::config::nearest(name, names);
                let nearest = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                return Err(format!("`{}` in `allow` is not an operation of the Engine{nearest}", name.escape_debug()));
            }
        }
        if !access.is_limited() {
            return Ok(None);
        }
        let has = |policy| access.policies.contains(&policy);
        let parts = [(Policy::ReadOnly, READ), (Policy::Containers, READ | CONTAINERS), (Policy::Build, READ | BUILD)];
        let granted = parts.into_iter().filter(|(policy, _)| has(*policy)).fold(0, |all, (_, part)| all | part);
        let names = [
            (Policy::ReadOnly, "read-only"),
            (Policy::Containers, "containers"),
            (Policy::Build, "build"),
            (Policy::NoPrivileged, "no-privileged"),
        ];
        let names: Vec<&str> = names.into_iter().filter(|(policy, _)| has(*policy)).map(|(_, name)| name).collect();
        Ok(Some(Self {
            label: names.join(", "),
            of: (granted != 0).then_some(granted),
            no_privileged: has(Policy::NoPrivileged),
            allow: access.allow.clone(),
            allowed_binds: access.allowed_binds.clone(),
        }))
    }

    /// Decides on a request.
    pub(super) fn decide(&self, head: &Head) -> Decision {
        let aim = &head.aim;
        let Some(operation) = aim.operation else {
            return Decision::Refuse(format!("{} {}{} is not known to dtunnel", head.method, aim.version, aim.path));
        };
        if numbers(aim.version.trim_start_matches("/v")).is_some_and(|version| version < LOWEST) {
            let (major, minor) = LOWEST;
            return Decision::Refuse(format!(
                "version {} of the API is below {major}.{minor}, the lowest that dtunnel judges",
                aim.version.trim_start_matches("/v")
            ));
        }
        if head.body && matches!(head.method.as_str(), "GET" | "HEAD") {
            return Decision::Bad(format!("a {} with a body", head.method));
        }
        let named = self.allow.iter().any(|name| name == operation.name);
        if self.of.is_some_and(|of| of & operation.of == 0) && !named {
            return Decision::Refuse(format!("{} is not allowed here", operation.name));
        }
        let query = match judged(operation, &aim.query) {
            Ok(query) => query,
            Err(reason) => return Decision::Refuse(format!("{}: {reason}", operation.name)),
        };
        let inspect = match operation.risk {
            _ if !self.no_privileged => false,
            Risk::None => false,
            // An operation named in `allow` passes.
            Risk::Refuse if named => false,
            Risk::Refuse => return Decision::Refuse(format!("{} cannot be looked into", operation.name)),
            Risk::Query(judge) => match judge(&query) {
                Ok(()) => false,
                Err(reason) => return Decision::Refuse(format!("{}: {reason}", operation.name)),
            },
            Risk::Body(_) => true,
        };
        Decision::Pass(Pass { operation, target: aim.with(&query), inspect })
    }

    /// Judges the body of a request for `target`; returns the body to send.
    ///
    /// # Errors
    /// Why it may not pass.
    pub(super) fn inspect(&self, operation: &Operation, target: &str, body: &[u8]) -> Result<Judged, String> {
        let Risk::Body(judge) = operation.risk else { return Err(format!("{} cannot be judged", operation.name)) };
        if body.is_empty() {
            return Ok(Judged::Ready(Vec::new()));
        }
        let version = numbers(version(target).0.trim_start_matches("/v"));
        let brings_mounts = version.is_some_and(|version| version < WITHOUT_MOUNTS);
        let ground = Ground { brings_mounts, ..self.ground() };
        judge(body, &ground).map_err(|e| format!("{}: {e}", operation.name))
    }

    /// Whether the judgement holds for Docker's Engine only.
    pub(super) fn knows_only_docker(&self) -> bool {
        self.no_privileged
    }

    /// The existing object that this operation uses, if its rights must be checked first.
    pub(super) fn must_ask(&self, operation: &Operation) -> Option<Reach> {
        operation.reaches.filter(|_| self.no_privileged)
    }

    /// The object that this operation creates, if it must be remembered.
    pub(super) fn remembers(&self, operation: &Operation) -> Option<Makes> {
        operation.makes.filter(|_| self.no_privileged)
    }

    /// The access to its host that a container may have.
    pub(super) fn ground(&self) -> Ground<'_> {
        Ground { binds: &self.allowed_binds, brings_mounts: false }
    }

    /// Checks a body that the operation does not use and that is not sent. Some clients send one: docker-java `null`,
    /// others `{}`, and dockerode its query again. No Engine reads it, except for a start.
    ///
    /// # Errors
    /// The body has content that an old Engine might read.
    pub(super) fn drop_body(operation: &Operation, body: &[u8]) -> Result<(), String> {
        let is_nothing = matches!(body.trim_ascii(), b"" | b"{}" | b"null");
        match operation.body {
            Body::Empty(reason) if !is_nothing => Err(format!("{}: {reason}", operation.name)),
            Body::Empty(_) | Body::Dropped | Body::Sent => Ok(()),
        }
    }
}

/// How a request passes under these settings.
#[cfg(test)]
pub(in crate::tunnel) fn pass_for_tests(access: &Access, head: &Head) -> Pass {
    let rules = Rules::new(access).expect("rules").expect("limited");
    match rules.decide(head) {
        Decision::Pass(pass) => pass,
        other => panic!("{other:?}"),
    }
}

/// The query to send: known parameters only, each as often as the Engine reads it (docker-py sends `dockerfile` twice).
/// An unknown parameter is refused, not left out: a newer Engine might do something else without it.
fn judged(operation: &Operation, query: &Query) -> Result<Query, String> {
    let mut query = query.clone();
    let no_parameter = |name: &str| LEFT_OUT.contains(&name) || name.starts_with(|c: char| c.is_ascii_uppercase());
    query.retain(|name| !no_parameter(name));
    if let Some(name) = query.names().find(|name| operation.parameter(name).is_none()) {
        return Err(format!("its parameter {} is not known to dtunnel", name.escape_debug()));
    }
    query.first_only(|name| operation.parameter(name) == Some(Times::Once));
    if let Some(amend) = operation.amends {
        amend(&mut query)?;
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::super::head;
    use super::*;

    fn decided(policies: &[Policy], method: &str, target: &str) -> Decision {
        let access = Access { policies: policies.to_vec(), ..Access::default() };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, ..) = head::read(head.as_bytes()).unwrap_or_else(|e| panic!("{target}: {e}"));
        Rules::new(&access).expect("rules").expect("limited").decide(&head)
    }

    /// The target to send, or the reason for a refusal.
    fn sent(policies: &[Policy], method: &str, target: &str) -> Result<String, String> {
        match decided(policies, method, target) {
            Decision::Pass(pass) => Ok(pass.target),
            Decision::Bad(reason) | Decision::Refuse(reason) => Err(reason),
        }
    }

    #[test]
    fn versions_below_1_24_are_refused() {
        let read = |target| sent(&[Policy::ReadOnly], "GET", target);
        for target in ["/info", "/v1.24/info", "/v1.56/info", "/v2.0/info", "/v1.100/info"] {
            assert_eq!(read(target).as_deref(), Ok(target));
        }
        for target in ["/v1.23/info", "/v1.0/info", "/v0.99/info", "/v1.3/info"] {
            let reason = read(target).expect_err(target);
            assert!(reason.contains("is below 1.24, the lowest that dtunnel judges"), "{reason}");
        }
    }

    #[test]
    fn parameters_are_those_of_the_operation() {
        let all = &[Policy::Containers, Policy::Build];
        for (method, target, passed) in [
            (
                "GET",
                "/containers/json?all=1&filters={\"a\":[\"b\"]}",
                "/containers/json?all=1&filters=%7B%22a%22%3A%5B%22b%22%5D%7D",
            ),
            ("POST", "/build?t=a&t=b", "/build?t=a&t=b"),
            // The Engine reads the first value.
            ("GET", "/containers/json?all=0&size=1&all=1", "/containers/json?all=0&size=1"),
            ("GET", "/containers/a/top?ps_args=aux&ps_args=axeww", "/containers/a/top?ps_args=aux"),
            ("POST", "/build?dockerfile=.x&dockerfile=FROM%20a", "/build?dockerfile=.x"),
            // docker-py and docker-java
            ("GET", "/containers/json?trunc_cmd=0&limit=-1", "/containers/json?trunc_cmd=0&limit=-1"),
            ("POST", "/images/create?tag=1&fromImage=a&registry=b", "/images/create?tag=1&fromImage=a&registry=b"),
            // dockerode
            ("POST", "/containers/create?Image=a&name=b&HostConfig=%7B%7D&abortSignal=x", "/containers/create?name=b"),
            ("POST", "/containers/a/attach?stream=true&hijack=true", "/containers/a/attach?stream=true"),
            ("GET", "/containers/a/top?ps_args=-ef", "/containers/a/top?ps_args=-Af"),
            ("GET", "/containers/a/top?ps_args=-eo+pid,comm", "/containers/a/top?ps_args=-Ao%20pid%2Ccomm"),
        ] {
            assert_eq!(sent(all, method, target).as_deref(), Ok(passed), "{target}");
        }
        for (method, target) in [
            ("GET", "/containers/json?dryrun=1"),
            ("GET", "/info?x"),
            ("GET", "/containers/a/top?ps_args=axeww"),
            ("GET", "/containers/a/top?ps_args=%ff"),
            // A container can write any checkpoint it likes.
            ("POST", "/containers/a/start?checkpoint=a&checkpoint-dir=/srv"),
        ] {
            let reason = sent(all, method, target).expect_err(target);
            assert!(reason.starts_with(&format!("{}: ", reason.split(':').next().unwrap_or_default())), "{reason}");
        }
    }

    #[test]
    fn a_build_without_privileges_has_no_network_of_its_choice_and_fetches_nothing() {
        let build = |query: &str| sent(&[Policy::Build, Policy::NoPrivileged], "POST", &format!("/build?{query}"));
        for query in [
            "",
            "t=a:b&networkmode=default&q=1",
            "networkmode=none",
            "cgroupparent=",
            "remote=client-session&version=1",
        ] {
            assert!(build(query).is_ok(), "{query}");
        }
        for query in [
            "networkmode=host",
            "t=a&networkmode=host&rm",
            "network%6dode=host",
            "networkmode=container:x",
            "networkmode=%20host",
            "cgroupparent=/x",
            "cgroupparent=&securityopt=x",
            "securityopt=&securityopt=x",
            "securityopt=",
            "entitlements=network.host",
            "remote=http://10.0.0.1/x",
            "remote=git://x",
            "version=2",
        ] {
            assert!(build(query).is_err(), "{query}");
        }
    }

    /// Whether a policy passes this request with its body.
    fn passes(rules: &Rules, method: &str, target: &str, body: &str) -> bool {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{length}\r\n");
        let (head, ..) = head::read(head.as_bytes()).unwrap_or_else(|e| panic!("{target}: {e}"));
        let Decision::Pass(pass) = rules.decide(&head) else { return false };
        let inspected = !pass.inspect || rules.inspect(pass.operation, &pass.target, body.as_bytes()).is_ok();
        inspected && Rules::drop_body(pass.operation, body.as_bytes()).is_ok()
    }

    fn rules(access: Access) -> Rules {
        Rules::new(&access).expect("rules").expect("limited")
    }

    #[test]
    fn every_operation_of_the_api_under_every_policy() {
        let rows: Vec<&str> = include_str!("../../../tests/guard/operations.txt").lines().collect();
        let rows: Vec<&&str> = rows.iter().filter(|row| !row.starts_with('#')).collect();
        assert!(rows.len() > 100, "{}", rows.len());
        let policies = [Policy::ReadOnly, Policy::Containers, Policy::Build, Policy::NoPrivileged];
        for (at, policy) in policies.into_iter().enumerate() {
            let rules = rules(Access { policies: vec![policy], ..Access::default() });
            for row in &rows {
                let words: Vec<&str> = row.split(' ').collect();
                let (method, path) = (words[0], words[1].replace("{id}", "some_thing.1-x").replace("{name}", "some-x"));
                let body = if matches!(method, "POST" | "PUT") { "{}" } else { "" };
                for prefix in ["", "/v1.41"] {
                    let passes = passes(&rules, method, &format!("{prefix}{path}"), body);
                    assert_eq!(passes, words[2 + at] == "yes", "{policy:?}: {prefix} {row}");
                }
            }
        }
    }

    #[test]
    fn policies_add_up_and_operations_that_are_named_pass_besides() {
        let with = |policies: &[Policy], allow: &[&str]| {
            let allow = allow.iter().map(ToString::to_string).collect();
            Access { policies: policies.to_vec(), allow, ..Access::default() }
        };
        use Policy::{Build, Containers, NoPrivileged, ReadOnly};
        for (policies, allow, method, target, body, expected) in [
            (&[Containers, Build][..], &[][..], "POST", "/containers/create", "{}", true),
            (&[Containers, Build], &[], "POST", "/build", "", true),
            (&[Containers, Build], &[], "POST", "/swarm/leave", "", false),
            (
                &[ReadOnly],
                &["containers.create"],
                "POST",
                "/containers/create",
                r#"{"HostConfig":{"Privileged":true}}"#,
                true,
            ),
            (&[ReadOnly], &["containers.create"], "POST", "/containers/x/start", "", false),
            (&[ReadOnly, NoPrivileged], &["containers.create"], "POST", "/containers/create", "{}", true),
            (
                &[ReadOnly, NoPrivileged],
                &["containers.create"],
                "POST",
                "/containers/create",
                r#"{"HostConfig":{"Privileged":true}}"#,
                false,
            ),
            (&[NoPrivileged], &[], "POST", "/swarm/leave", "", false),
            (&[NoPrivileged], &["swarm.leave"], "POST", "/swarm/leave", "", true),
            (&[Build], &[], "POST", "/build?networkmode=host", "", true),
            (&[Build, NoPrivileged], &[], "POST", "/build?networkmode=host", "", false),
            (&[Containers], &[], "POST", "/containers/x/start", "{\"Privileged\":true}", false),
            (&[Containers], &[], "POST", "/containers/x/start", " null ", true),
            (&[Containers], &[], "POST", "/containers/x/stop", "[1]", true),
            (&[ReadOnly], &[], "GET", "/info", "{}", false),
        ] {
            let rules = rules(with(policies, allow));
            assert_eq!(
                passes(&rules, method, target, body),
                expected,
                "{policies:?} {allow:?}: {method} {target} {body}"
            );
            assert_eq!(rules.knows_only_docker(), policies.contains(&NoPrivileged));
            let find = |name: &str| OPERATIONS.iter().find(|operation| operation.name == name).expect(name);
            let start = find("containers.start");
            assert_eq!(rules.must_ask(start), policies.contains(&NoPrivileged).then_some(Reach::Container));
            assert_eq!(
                rules.remembers(find("containers.exec")),
                policies.contains(&NoPrivileged).then_some(Makes::Exec)
            );
        }
        assert_eq!(rules(with(&[NoPrivileged, ReadOnly], &[])).label, "read-only, no-privileged");
        assert!(Rules::new(&with(&[], &["containers.create"])).expect("known").is_none());
        let wrong = Rules::new(&with(&[ReadOnly], &["container.create"])).expect_err("unknown");
        assert!(wrong.ends_with("did you mean `containers.create`?"), "{wrong}");
    }

    #[test]
    fn a_bind_below_an_entry_takes_an_api_that_can_leave_out_what_is_mounted_there() {
        let rules = rules(Access {
            policies: vec![Policy::NoPrivileged],
            allowed_binds: vec!["/srv/".into()],
            ..Access::default()
        });
        let body = r#"{"HostConfig":{"Binds":["/srv/x:/x:ro"]}}"#;
        for (target, expected) in [
            ("/containers/create", true),
            ("/v1.41/containers/create", true),
            ("/v1.40/containers/create", true),
            ("/v1.39/containers/create", false),
            ("/v1.24/containers/create", false),
        ] {
            assert_eq!(passes(&rules, "POST", target, body), expected, "{target}");
        }
        assert!(passes(&rules, "POST", "/containers/create", ""), "the Engine says what is missing");
        assert!(!passes(&rules, "POST", "/containers/create", "x"));
    }
}
