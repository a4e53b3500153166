//! What a guard allows: policies, and what goes beyond them.

use super::framing::Head;
use super::inspect;
use super::operations::{BUILD, CONTAINERS, OPERATIONS, Operation, READ, Risk, find};
use crate::config::{Access, Policy};

/// What is decided on a request, from its head alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may pass.
    Allow(&'static Operation),
    /// It may pass if its body may.
    Inspect(&'static Operation),
    /// It is no request that could pass.
    Bad(String),
    /// It may not pass.
    Refuse(String),
}

/// Decides on requests.
#[derive(Debug)]
pub(super) struct Rules {
    /// For people.
    pub(super) label: String,
    /// The policies that allow something; None: all that is known.
    of: Option<u8>,
    no_privileged: bool,
    allow: Vec<String>,
    allowed_binds: Vec<String>,
}

impl Rules {
    /// None where everything is allowed.
    ///
    /// # Errors
    /// `allow` names something unknown.
    pub(super) fn new(access: &Access) -> Result<Option<Self>, String> {
        if !access.is_limited() {
            return Ok(None);
        }
        for name in &access.allow {
            if !OPERATIONS.iter().any(|operation| operation.name == name) {
                let names = OPERATIONS.iter().map(|operation| operation.name);
                let nearest = crate::config::nearest(name, names);
                let nearest = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                return Err(format!("`{}` in `allow` is no operation of the Engine{nearest}", name.escape_debug()));
            }
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
    pub(super) fn decide(&self, head: &Head) -> Verdict {
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let Some(operation) = find(&head.method, path) else {
            return Verdict::Refuse(format!("{} {path} is not known to dtunnel", head.method));
        };
        if head.body && matches!(head.method.as_str(), "GET" | "HEAD") {
            return Verdict::Bad(format!("a {} with a body", head.method));
        }
        if head.upgrade && !may_upgrade(operation.name) {
            return Verdict::Bad(format!("{} with an upgrade to another protocol", operation.name));
        }
        let named = self.allow.iter().any(|name| name == operation.name);
        if self.of.is_some_and(|of| of & operation.of == 0) && !named {
            return Verdict::Refuse(format!("{} is not allowed here", operation.name));
        }
        match operation.risk {
            _ if !self.no_privileged => Verdict::Allow(operation),
            Risk::None => Verdict::Allow(operation),
            // Whoever names it says that it may be.
            Risk::Refuse if named => Verdict::Allow(operation),
            Risk::Refuse => Verdict::Refuse(format!("{} cannot be looked into", operation.name)),
            Risk::Inspect if operation.name == "build.build" => match inspect::judge_build(query) {
                Ok(()) => Verdict::Allow(operation),
                Err(reason) => Verdict::Refuse(format!("{}: {reason}", operation.name)),
            },
            Risk::Inspect => Verdict::Inspect(operation),
        }
    }

    /// Decides on the body of a request; what is to be sent on.
    ///
    /// # Errors
    /// Why it may not pass.
    pub(super) fn inspect(&self, operation: &Operation, body: &[u8]) -> Result<Vec<u8>, String> {
        inspect::judge(operation.name, body, &self.allowed_binds).map_err(|e| format!("{}: {e}", operation.name))
    }
}

/// The operations that go over to another protocol (docs.docker.com, Engine API: attach, exec, session).
fn may_upgrade(operation: &str) -> bool {
    matches!(
        operation,
        "containers.attach" | "containers.attach-ws" | "exec.start" | "build.session" | "build.grpc" | "build.build"
    )
}
