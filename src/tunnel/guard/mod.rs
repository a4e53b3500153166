//! The guard: passes only the requests that the tunnel's settings allow.
//!
//! It protects the tunnel's user from mistakes, on this side of the connection (docs/security.md). Requests are read
//! strictly ([`head`], [`rest`]): what has more than one meaning is refused, and what is sent is written anew from what was
//! understood. Each request is decided on before any byte of it is sent to the host. That another reader of HTTP sees the
//! same is checked in debug builds, by a property test and by fuzzing.

mod ask;
mod bodies;
mod browser;
mod chunks;
mod client;
mod defaults;
mod head;
mod log;
mod make;
mod operation;
mod operations;
mod police;
mod policy;
mod ps;
mod queries;
mod query;
mod questions;
mod reach;
mod refusal;
mod rest;
mod target;

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::config::Target;
use crate::tunnel::client::peer::Who;
use policy::Rules;

pub(in crate::tunnel) use client::GuardedClient;
pub use head::Head;
pub(in crate::tunnel) use head::{Body, Content, content_length, ended_lines, head_end, read as read_head};
pub(in crate::tunnel) use operation::{Effect, Makes};
pub(in crate::tunnel) use police::{ByHead, Passed, Police};
pub(in crate::tunnel) use policy::Pass;
#[cfg(test)]
pub(in crate::tunnel) use policy::pass_for_tests;
pub use refusal::Refusal;
pub(in crate::tunnel) use refusal::Refused;
pub(in crate::tunnel) use rest::Rest;

/// Limit of requests shown at once.
pub(super) const MOST_SHOWN: usize = 200;
/// Limit of a path in the log and the status, in characters.
const MAX_PATH: usize = 256;

/// A request in progress, as shown by `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Its start (RFC 3339, UTC).
    pub since: String,
    /// The client's process id; None if the system does not tell.
    pub pid: Option<u32>,
    /// The name of the client's program.
    pub command: Option<String>,
}

impl RequestStatus {
    pub(super) fn new(method: &str, path: &str, since: SystemTime, who: &Who) -> Self {
        Self {
            method: method.into(),
            path: shown(path).into_owned(),
            since: humantime::format_rfc3339_seconds(since).to_string(),
            pid: who.pid,
            command: who.command.clone(),
        }
    }
}

/// The guard of a tunnel.
#[derive(Debug)]
pub(super) struct Guard {
    rules: Rules,
    known: Mutex<reach::Known>,
    /// The vendor of the Engine, by its last answer.
    make: Mutex<make::KnownMake>,
    log: Arc<log::RequestLog>,
}

impl Guard {
    /// The guard for these settings; None if they limit nothing.
    ///
    /// # Errors
    /// [`Error::Access`].
    pub(super) fn of(target: &Target) -> Result<Option<Arc<Self>>, Error> {
        let rules = Rules::new(&target.access);
        let rules = rules.map_err(|reason| Error::Access {
            name: target.access.allow_place.clone().unwrap_or_else(|| target.name.to_string()),
            reason,
        })?;
        Ok(rules.map(|rules| {
            Arc::new(Self { rules, known: Mutex::default(), make: Mutex::default(), log: Arc::default() })
        }))
    }

    /// The allowed policies, in a few words.
    pub(super) fn label(&self) -> &str {
        &self.rules.label
    }
}

/// A path, safe for a log.
fn shown(path: &str) -> Cow<'_, str> {
    let is_plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    if path.len() <= MAX_PATH && path.bytes().all(is_plain) {
        return path.into();
    }
    let shown: String = path.escape_debug().take(MAX_PATH).collect();
    if shown.len() < path.len() { (shown + "…").into() } else { shown.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, ConfigFile, Overrides, Policy, resolve};

    fn guard(policies: &[Policy], allow: &[&str], place: Option<&str>) -> Result<Option<Arc<Guard>>, Error> {
        let config = ConfigFile::parse("", std::path::Path::new("config.toml")).expect("valid");
        let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
        let mut target = resolve("lab", &config, &overrides, std::path::Path::new("/run/x.sock")).expect("resolved");
        target.access = Access {
            policies: policies.to_vec(),
            allow: allow.iter().map(|name| (*name).to_owned()).collect(),
            allow_place: place.map(Into::into),
            ..Access::default()
        };
        Guard::of(&target)
    }

    #[test]
    fn a_tunnel_that_is_limited_has_a_guard() {
        use Policy::{Containers, NoPrivileged, ReadOnly};
        for (policies, allow, place, expected) in [
            (&[][..], &[][..], None, Ok(None)),
            (&[ReadOnly], &[], None, Ok(Some("read-only"))),
            (&[NoPrivileged, Containers], &["images.push"], None, Ok(Some("containers, no-privileged"))),
            (&[ReadOnly], &["images.pusch"], None, Err("lab")),
            (&[ReadOnly], &["images.pusch"], Some("c.toml:3"), Err("c.toml:3")),
        ] {
            let found = guard(policies, allow, place);
            let found = match &found {
                Ok(guard) => Ok(guard.as_ref().map(|guard| guard.label())),
                Err(Error::Access { name, reason }) => {
                    assert!(reason.contains("did you mean `images.push`?"), "{reason}");
                    Err(name.as_str())
                }
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, expected, "{policies:?} {allow:?}");
        }
    }
}
