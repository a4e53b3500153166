//! The guard: passes only the requests that the tunnel's settings allow.
//!
//! It protects the tunnel's user from mistakes, on this side of the connection (docs/security.md). Requests are read
//! twice: by [`framing`], which refuses ambiguous ones, and by hyper, which passes on its own reading. Each request is
//! decided on before any byte of it is sent to the host. Without a guard, none of this is in a flow's path.

#[cfg(test)]
mod agreement;
mod ask;
mod bodies;
mod browser;
mod chunks;
mod defaults;
mod engine;
mod framing;
mod head;
mod linger;
mod operation;
mod operations;
mod policy;
mod proxy;
mod ps;
mod queries;
mod query;
mod reach;
mod refusal;
mod rest;
mod stream;
mod switched;
mod target;

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::config::Target;
use crate::tunnel::client::peer::Who;
use crate::tunnel::registry::{Entry, Registry};
use policy::Rules;

pub use framing::Framing;
pub use head::Head;
pub(in crate::tunnel) use head::{Body, content_length, head_end, read as read_head};
pub(super) use proxy::serve;
pub use refusal::Refusal;
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
            path: shown(path),
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
    /// The requests in progress.
    open: Arc<Registry<RequestStatus>>,
    known: Mutex<reach::Known>,
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
        Ok(rules.map(|rules| Arc::new(Self { rules, open: Arc::default(), known: Mutex::default() })))
    }

    /// The allowed policies, in a few words.
    pub(super) fn label(&self) -> &str {
        &self.rules.label
    }

    /// The requests in progress.
    pub(super) fn requests(&self) -> Vec<RequestStatus> {
        self.open.values(MOST_SHOWN)
    }

    /// Registers a request in progress, for as long as the returned value lives.
    fn begins(&self, method: &str, path: &str, who: &Who) -> Open {
        self.open.enter(RequestStatus::new(method, path, SystemTime::now(), who))
    }
}

/// A request in progress.
type Open = Entry<RequestStatus>;

/// A path, safe for a log.
fn shown(path: &str) -> String {
    let shown: String = path.escape_debug().take(MAX_PATH).collect();
    if shown.len() < path.len() { shown + "…" } else { shown }
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

    #[test]
    fn requests_are_shown_while_they_are_answered_up_to_a_bound() {
        let guard = guard(&[Policy::ReadOnly], &[], None).expect("rules").expect("limited");
        let shown = || guard.requests().into_iter().map(|request| request.path).collect::<Vec<_>>();
        assert!(shown().is_empty());
        let who = Who { pid: Some(7), command: Some("docker".into()) };
        let open = ["/_ping", "/a\nb", &format!("/{}", "x".repeat(MAX_PATH))];
        let mut open: Vec<Open> = open.iter().map(|path| guard.begins("GET", path, &who)).collect();
        let cut = format!("/{}…", "x".repeat(MAX_PATH - 1));
        assert_eq!(shown(), ["/_ping", "/a\\nb", &cut]);
        let first = guard.requests().swap_remove(0);
        assert_eq!((first.method.as_str(), first.pid, first.command.as_deref()), ("GET", Some(7), Some("docker")));
        drop(open.remove(0));
        assert_eq!(shown(), ["/a\\nb", &cut]);
        open.extend((0..MOST_SHOWN).map(|_| guard.begins("GET", "/info", &who)));
        assert_eq!(shown().len(), MOST_SHOWN);
        drop(open);
        assert!(shown().is_empty());
    }
}
