//! What a request's head means for its client's connection.

use std::borrow::Cow;
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;

use super::answer::{Answer, Seen};
use super::ping::is_cli_ping;
use crate::text;
use crate::tunnel::binds::Bind;
use crate::tunnel::dial::Kind;
use crate::tunnel::guard::{Body, Effect, Head, Rest, head_end, read_head};

/// Limit of a request's head, in bytes. The longest known header holds the credentials of all registries.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Limit of a method's length.
const MAX_METHOD: usize = 16;
/// Limit of a scheme's length in a target that is a URI.
const MAX_SCHEME: usize = 16;
/// Behind the scheme of such a URI.
const BEHIND_SCHEME: &[u8] = b"://";
/// Limit of a body that is read, in bytes. Those of the docker CLI and of SDKs have a few KB.
pub(super) const MAX_BODY: u64 = 1 << 20;

/// A request, as far as its connection depends on it.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) is_head: bool,
    pub(super) line: Line,
    /// What its success may change.
    pub(super) effect: Effect,
    /// The container that has that effect, as the client names it.
    pub(super) container: Option<String>,
    /// Whether it starts that.
    pub(super) starts: bool,
    /// Whether it is about to run a command in that.
    pub(super) runs: bool,
    /// Whether that is known to have happened.
    pub(super) is_told: bool,
    /// Whether the host is ready for it.
    pub(super) is_prepared: bool,
    /// Whether it is the last one of its connection, by its headers.
    pub(super) last: bool,
    /// The rest of its body.
    pub(super) rest: Rest,
    /// The complete request, if it may be sent again.
    pub(super) repeatable: Option<Bytes>,
    /// Whether it was sent before on this connection.
    pub(super) is_repeat: bool,
    /// Its last answer, if it was sent twice or more.
    pub(super) seen: Option<Seen>,
    /// Whether it is the ping of a docker command.
    pub(super) is_ping: bool,
    /// When it was sent, as [`super::Pings::generation`] counts.
    pub(super) generation: u64,
    /// The place of its body behind the head, if that may name paths of this machine.
    pub(super) body: Option<Range<usize>>,
    /// Where it does.
    pub(super) binds: Vec<Bind>,
}

/// A request for people, without what may be secret in it.
#[derive(Debug, Clone)]
pub(in crate::tunnel) struct Line {
    pub(in crate::tunnel) method: String,
    pub(super) target: String,
    /// When it was placed.
    pub(in crate::tunnel) since: SystemTime,
    /// Bytes of its answer so far, with the head.
    pub(super) received: u64,
}

impl Default for Line {
    fn default() -> Self {
        Self { method: String::new(), target: String::new(), since: SystemTime::UNIX_EPOCH, received: 0 }
    }
}

impl Line {
    /// Its path, without the query.
    pub(in crate::tunnel) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Logs that it has been answered.
    pub(super) fn log(&self, status: Option<u16>) {
        let (method, path, bytes) = (&self.method, text::shown(self.path()), self.received);
        let (status, time) = (status.unwrap_or_default(), self.since.elapsed().unwrap_or_default().as_millis());
        tracing::debug!("{method} {path}: {status} in {time} ms, {bytes} bytes");
    }
}

/// What has come from a client.
pub(super) enum Reading {
    /// It may become a request.
    More,
    /// A head, and as much of its body as is here.
    Request(Box<Request>),
    /// No request, one that can be read in two ways, or more than one.
    Other,
}

impl Request {
    /// Reads what has come, of which `before` bytes were searched earlier.
    pub(super) fn read(pending: &[u8], before: usize) -> Reading {
        let Some(end) = head_end(pending, before) else {
            let may_be = may_be_request(pending) && pending.len() <= MAX_HEAD;
            return if may_be { Reading::More } else { Reading::Other };
        };
        let Ok((head, body)) = read_head(&with_path_only(&pending[..end])) else { return Reading::Other };
        let mut rest = Rest::from(body);
        if !rest.takes_all(&pending[end..]) {
            return Reading::Other;
        }
        let operation = head.operation();
        let has_binds = operation.is_some_and(|operation| operation.has_binds) && !head.expects;
        let body_at = match body {
            Body::Length(length) if has_binds && length <= MAX_BODY => {
                Some(end..end + usize::try_from(length).unwrap_or(usize::MAX))
            }
            _ => None,
        };
        Reading::Request(Box::new(Self { rest, is_ping: is_cli_ping(pending), body: body_at, ..Self::of(&head, body) }))
    }

    /// Whether nothing was read into it.
    pub(super) fn is_new(&self) -> bool {
        self.line.method.is_empty()
    }

    /// Whether it was sent, and may be sent again.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.repeatable.as_ref().is_some_and(|whole| !whole.is_empty())
    }

    /// Are these the bytes of this request, of all that has come?
    pub(super) fn is_repeated_by(&self, pending: &[u8]) -> bool {
        self.may_be_repeated() && self.repeatable.as_deref() == Some(pending)
    }

    /// Makes it the request that it was before it was sent.
    pub(super) fn becomes_new(&mut self) {
        self.is_ping = self.repeatable.as_deref().is_some_and(is_cli_ping);
        self.line.received = 0;
        self.is_told = false;
        self.is_repeat = true;
    }

    /// It was answered so, in one piece.
    pub(super) fn is_answered_by(&mut self, answer: &Answer, piece: &[u8]) {
        if !answer.is_repeated() {
            self.seen = Seen::of(answer, piece);
        }
    }

    /// A request with this head, of whose body nothing is here.
    pub(super) fn of(head: &Head, body: Body) -> Self {
        let operation = head.operation();
        let is_question = matches!(head.method.as_str(), "GET" | "HEAD");
        let path = head.target.split('?').next().unwrap_or_default();
        let container = operation.and_then(|operation| operation.container(path)).map(str::to_owned);
        Self {
            kind: operation.map_or(Kind::Unknown, |operation| operation.kind),
            is_head: head.method == "HEAD",
            effect: operation.map_or(Effect::None, |operation| operation.effect),
            container,
            starts: operation.is_some_and(|operation| operation.starts),
            runs: operation.is_some_and(|operation| operation.runs),
            is_told: false,
            is_prepared: false,
            last: head.is_last(),
            rest: Rest::from(body),
            repeatable: (is_question && body == Body::None && !head.upgrades()).then(Bytes::new),
            is_repeat: false,
            seen: None,
            is_ping: false,
            generation: 0,
            body: None,
            binds: Vec::new(),
            line: Line { method: head.method.clone(), target: head.target.clone(), ..Line::default() },
        }
    }
}

/// Whether this may become an HTTP/1 request: method, space, path or URI (RFC 9112 section 3).
fn may_be_request(head: &[u8]) -> bool {
    let method = head.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    let target = match head[method..].split_first() {
        None => return method <= MAX_METHOD,
        Some((b' ', target)) if (1..=MAX_METHOD).contains(&method) => target,
        Some(_) => return false,
    };
    let scheme = target.iter().take_while(|byte| is_of_scheme(**byte)).count();
    let behind = &target[scheme..];
    match scheme {
        0 => target.first().is_none_or(|byte| *byte == b'/'),
        1..=MAX_SCHEME => BEHIND_SCHEME.starts_with(&behind[..behind.len().min(BEHIND_SCHEME.len())]),
        _ => false,
    }
}

fn is_of_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)
}

/// The head with the path in place of a whole URI (RFC 9112 section 3.2.2), whose scheme and authority the Engine
/// ignores, as it does the Host header.
fn with_path_only(head: &[u8]) -> Cow<'_, [u8]> {
    let path = || {
        let target = head.iter().position(|byte| *byte == b' ')? + 1;
        let scheme = target + head[target..].iter().take_while(|byte| is_of_scheme(**byte)).count();
        let authority = scheme + head[scheme..].starts_with(BEHIND_SCHEME).then_some(BEHIND_SCHEME.len())?;
        let path = authority + head[authority..].iter().position(|byte| b"/? \r".contains(byte))?;
        (scheme > target && head[path] == b'/').then_some((target, path))
    };
    path().map_or(head.into(), |(target, path)| [&head[..target], &head[path..]].concat().into())
}
