//! A row of the table of operations: what a request for it looks like, and what is done with one.

use super::bodies::{Ground, Judged};
use super::query::Query;
use crate::tunnel::dial::Kind;

/// An operation.
#[derive(Debug)]
pub(in crate::tunnel) struct Operation {
    /// Its name, for `allow`, the log and people.
    pub(in crate::tunnel) name: &'static str,
    pub(super) method: &'static str,
    /// `{}` stands for one segment, `{..}` for one or more, `{ }` for one that may have spaces in it.
    pub(super) path: &'static str,
    /// What its query must say besides.
    pub(super) when: When,
    /// Which policies it belongs to.
    pub(super) of: u8,
    /// How it is judged under `no-privileged`.
    pub(super) risk: Risk,
    /// The parameters in its query that an Engine of any version reads, or that a client sends and no Engine
    /// reads; `*` behind those of which the Engine reads all.
    pub(super) takes: &'static str,
    /// What its query must not say to the Engine is taken out of it, whatever the policy.
    pub(super) amends: Option<AmendQuery>,
    /// What becomes of its body.
    pub(super) body: Body,
    /// The protocol that a connection may go over to.
    pub(super) upgrade: Option<&'static str>,
    /// Does it use a container so that one has what that container has?
    pub(super) reaches: Option<Reach>,
    /// Does the answer to it name what was made?
    pub(super) makes: Option<Makes>,
    /// How much may go over its flow.
    pub(in crate::tunnel) kind: Kind,
    /// May other ports be published once it has been carried out?
    pub(in crate::tunnel) changes_ports: bool,
}

/// By these a row of the table is told from all others.
impl PartialEq for Operation {
    fn eq(&self, other: &Self) -> bool {
        (self.name, self.method, self.path) == (other.name, other.method, other.path)
    }
}

impl Eq for Operation {}

/// What becomes of the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// The Engine reads it.
    Sent,
    /// It means nothing to the Engine, and is not sent.
    Dropped,
    /// The same, but an old Engine might read it: one that says anything is refused, for this reason.
    Empty(&'static str),
}

/// What an operation takes into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A container, by id or name.
    Container,
    /// A command that was made in a container.
    Exec,
}

/// What an operation makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Makes {
    /// A container.
    Container,
    /// A command in a container.
    Exec,
}

/// How an operation is judged where nothing privileged is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Risk {
    /// Nothing to it.
    None,
    /// It depends on the body, in whose place another one is sent.
    Body(JudgeBody),
    /// It depends on the query.
    Query(JudgeQuery),
    /// It can always get out of a container, or cannot be looked into.
    Refuse,
}

/// What of a body may pass; or why nothing does.
type JudgeBody = fn(&[u8], &Ground<'_>) -> Result<Judged, String>;

/// May a query pass? If not, why.
type JudgeQuery = fn(&Query) -> Result<(), String>;

/// Takes out of a query what the Engine must not read; or says why none of it may pass.
type AmendQuery = fn(&mut Query) -> Result<(), String>;

/// What a query must say for an operation to be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// An image of a registry.
    Pull,
    /// An image from the body.
    Import,
    /// A build that the Engine fetches nothing for, but what its Dockerfile says.
    LocalBuild,
    /// A search of Docker Hub.
    HubSearch,
}

/// Neither changes nor reaches into the host.
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
        changes_ports: false,
    }
}

impl Operation {
    pub(super) const fn takes(self, takes: &'static str) -> Self {
        Self { takes, ..self }
    }

    pub(super) const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// Cannot be looked into, or is never harmless.
    pub(super) const fn refused(self) -> Self {
        Self { risk: Risk::Refuse, ..self }
    }

    /// Has a body that is judged.
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

    pub(super) const fn changes_ports(self) -> Self {
        Self { changes_ports: true, ..self }
    }

    /// Bytes without a bound go over its flow.
    pub(super) const fn streams(self) -> Self {
        Self { kind: Kind::Streaming, ..self }
    }

    /// May this parameter stand in its query, and is more than one read? None where it may not.
    pub(super) fn parameter(&self, name: &str) -> Option<Times> {
        self.takes.split(' ').find_map(|known| match known.strip_suffix('*') {
            Some(known) => (known == name).then_some(Times::Any),
            None => (known == name).then_some(Times::Once),
        })
    }
}

/// How often a parameter stands in a query, as far as the Engine is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// The Engine reads the first one.
    Once,
    /// The Engine reads a list.
    Any,
}

impl When {
    pub(super) fn fits(self, query: &Query) -> bool {
        match self {
            Self::Always => true,
            Self::Pull => !query.get("fromImage").is_empty(),
            Self::Import => query.get("fromSrc") == b"-",
            // The two are the words by which BuildKit's clients say that they bring it themselves.
            Self::LocalBuild => matches!(query.get("remote"), b"" | b"client-session" | b"upload-request"),
            // As the Engine divides it (`splitReposSearchTerm`), but that nothing odd is taken for a name.
            Self::HubSearch => query.text("term").is_some_and(|term| {
                let first = term.split_once('/').map_or("", |(first, _)| first);
                first != "localhost" && first.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
            }),
        }
    }
}
