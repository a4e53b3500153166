//! A row of the table of operations: the requests it matches, and how they are treated.

use super::bodies::{Ground, Judged};
use super::query::Query;
use crate::tunnel::dial::Kind;

/// An operation.
#[derive(Debug)]
pub(in crate::tunnel) struct Operation {
    /// Its name, for `allow`, the log and messages.
    pub(in crate::tunnel) name: &'static str,
    pub(super) method: &'static str,
    /// `{}` matches one segment, `{..}` one or more, `{ }` one that may have spaces in it.
    pub(super) path: &'static str,
    /// The condition on the query.
    pub(super) when: When,
    /// The policies that allow it, as a bit set.
    pub(super) of: u8,
    /// How it is judged under `no-privileged`.
    pub(super) risk: Risk,
    /// The query parameters that an Engine of any version reads, or that a client sends and no Engine reads. A `*`
    /// marks those of which the Engine reads all values.
    pub(super) takes: &'static str,
    /// Removes from the query what must not reach the Engine, under any policy.
    pub(super) amends: Option<AmendQuery>,
    /// The treatment of its body.
    pub(super) body: Body,
    /// The protocol that its connection may switch to.
    pub(super) upgrade: Option<&'static str>,
    /// Whether it gives the client the rights of an existing container or exec.
    pub(super) reaches: Option<Reach>,
    /// Whether its answer names a created object.
    pub(super) makes: Option<Makes>,
    /// The amount of data on its flow.
    pub(in crate::tunnel) kind: Kind,
    /// What its success may change, beyond what it is asked for.
    pub(in crate::tunnel) effect: Effect,
    /// Whether it starts the container that its path names.
    pub(in crate::tunnel) starts: bool,
    /// Whether its body may give a container a socket of the host's.
    pub(in crate::tunnel) has_binds: bool,
}

/// Name, method and path identify a row of the table.
impl PartialEq for Operation {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.method, self.path) == (other.name, other.method, other.path)
    }
}

impl Eq for Operation {}

/// What follows from an operation on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::tunnel) enum Effect {
    #[default]
    None,
    /// The published ports are others. A container may have ended, too.
    Ports,
    /// What a container, or a command in one, has written is complete.
    Written,
    /// As [`Effect::Written`], once the answer ends: its head comes before.
    Waited,
}

/// The treatment of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// It is sent: the Engine reads it.
    Sent,
    /// It is dropped: no Engine reads it.
    Dropped,
    /// It is dropped, but an old Engine might read it: any content is refused, for this reason.
    Empty(&'static str),
}

/// The existing object that an operation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A container, by id or name.
    Container,
    /// An exec created in a container.
    Exec,
}

/// The object that an operation creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Makes {
    /// A container.
    Container,
    /// An exec in a container.
    Exec,
}

/// How an operation is judged under `no-privileged`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Risk {
    /// Always harmless.
    None,
    /// Depends on the body, which is replaced by the judged one.
    Body(JudgeBody),
    /// Depends on the query.
    Query(JudgeQuery),
    /// Refused unless named in `allow`: it can always get out of a container, or its content cannot be judged.
    Refuse,
}

/// Returns the body that may pass, or why none may.
type JudgeBody = fn(&[u8], &Ground<'_>) -> Result<Judged, String>;

/// Returns why a query may not pass, if so.
type JudgeQuery = fn(&Query) -> Result<(), String>;

/// Removes from a query what the Engine must not read, or returns why the query may not pass.
type AmendQuery = fn(&mut Query) -> Result<(), String>;

/// The condition on the query that selects an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// A pull of an image from a registry.
    Pull,
    /// An import of an image from the body.
    Import,
    /// A build with a context from the client: the Engine fetches only what its Dockerfile names.
    LocalBuild,
    /// A search of Docker Hub.
    HubSearch,
}

/// Reads that do not reach into the host.
pub(super) const READ: u8 = 1;
/// Containers, their networks and volumes.
pub(super) const CONTAINERS: u8 = 2;
/// Building and moving images.
pub(super) const BUILD: u8 = 4;

pub(super) const fn plain(name: &'static str, method: &'static str, path: &'static str, of: u8) -> Operation {
    Operation {
        name,
        method,
        path,
        when: When::Always,
        of,
        risk: Risk::None,
        takes: "",
        amends: None,
        body: Body::Dropped,
        upgrade: None,
        reaches: None,
        makes: None,
        kind: Kind::Short,
        effect: Effect::None,
        starts: false,
        has_binds: false,
    }
}

impl Operation {
    pub(super) const fn takes(self, takes: &'static str) -> Self {
        Self { takes, ..self }
    }

    pub(super) const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// Marks an operation that cannot be judged, or is never harmless.
    pub(super) const fn refused(self) -> Self {
        Self { risk: Risk::Refuse, ..self }
    }

    /// Marks an operation whose body is judged.
    pub(super) const fn judged(self, judge: JudgeBody) -> Self {
        Self { risk: Risk::Body(judge), body: Body::Sent, ..self }
    }

    pub(super) const fn judged_by_query(self, judge: JudgeQuery) -> Self {
        Self { risk: Risk::Query(judge), ..self }
    }

    pub(super) const fn amends(self, amend: AmendQuery) -> Self {
        Self { amends: Some(amend), ..self }
    }

    pub(super) const fn body(self) -> Self {
        Self { body: Body::Sent, ..self }
    }

    pub(super) const fn empty(self, reason: &'static str) -> Self {
        Self { body: Body::Empty(reason), ..self }
    }

    pub(super) const fn reaches(self, reach: Reach) -> Self {
        Self { reaches: Some(reach), ..self }
    }

    pub(super) const fn makes(self, makes: Makes) -> Self {
        Self { makes: Some(makes), ..self }
    }

    pub(super) const fn upgrades(self, protocol: &'static str) -> Self {
        Self { upgrade: Some(protocol), ..self }
    }

    pub(super) const fn has_binds(self) -> Self {
        Self { has_binds: true, ..self }
    }

    /// Marks an operation that starts a container, whose ports are published then.
    pub(super) const fn starts(self) -> Self {
        Self { starts: true, effect: Effect::Ports, ..self }
    }

    pub(super) const fn changes_ports(self) -> Self {
        Self { effect: Effect::Ports, ..self }
    }

    /// Marks an operation that tells the end of a command in a container.
    pub(super) const fn tells_end(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    /// Marks an operation with an unbounded amount of data.
    pub(super) const fn streams(self) -> Self {
        Self { kind: Kind::Streaming, ..self }
    }

    /// The container that a request with this path affects, as the path names it (`/containers/NAME/start`).
    pub(in crate::tunnel) fn container<'a>(&self, path: &'a str) -> Option<&'a str> {
        let behind = self.path.strip_prefix("/containers/{}").filter(|_| self.effect != Effect::None)?;
        path.rsplit('/').nth(behind.matches('/').count())
    }

    /// How many values of this query parameter are read; None if the parameter is not allowed.
    pub(super) fn parameter(&self, name: &str) -> Option<Times> {
        self.takes.split(' ').find_map(|known| match known.strip_suffix('*') {
            Some(known) => (known == name).then_some(Times::Any),
            None => (known == name).then_some(Times::Once),
        })
    }
}

/// How many values of a parameter the Engine reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// The first one.
    Once,
    /// All of them.
    Any,
}

impl When {
    pub(super) fn fits(self, query: &Query) -> bool {
        match self {
            Self::Always => true,
            Self::Pull => !query.get("fromImage").is_empty(),
            Self::Import => query.get("fromSrc") == b"-",
            // The two words by which BuildKit's clients announce that they send the context.
            Self::LocalBuild => matches!(query.get("remote"), b"" | b"client-session" | b"upload-request"),
            // Split as by the Engine (`splitReposSearchTerm`), but an unusual first part does not count as a name.
            Self::HubSearch => query.text("term").is_some_and(|term| {
                let first = term.split_once('/').map_or("", |(first, _)| first);
                first != "localhost" && first.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
            }),
        }
    }
}
