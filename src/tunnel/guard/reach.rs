//! What the Engine must be asked before a request may pass under `no-privileged`: whether a container that
//! is used, or whose namespaces are shared, is one that would be allowed now.
//!
//! What a container may do is decided when it is made, so that an answer holds for its id for ever, and is
//! kept. What this guard lets be made is known from the Engine's answer to that: ordinary clients wait
//! for no further round trip.

use std::collections::{HashSet, VecDeque};

use hyper::StatusCode;
use serde::Deserialize;

use super::ask::{Ask, ask};
use super::bodies::{Create, Existing, ExistingExec, Reference, is_name, is_whole_id, judge_existing_volume, shown};
use super::defaults::Info;
use super::operation::{Makes, Reach};
use super::refusal::{Refused, forbidden};
use crate::sync::lock;

/// Most ids of containers, and of execs, that are kept.
const MAX_KEPT: usize = 4096;
/// Most containers that are asked about for one request: each may share namespaces of further ones.
const MAX_ASKED: usize = 8;
/// Most volumes that are asked about for one container.
const MAX_VOLUMES: usize = 64;
/// Largest answer that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 4 << 20;

/// For how long what was found of a create holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The container that is made is harmless.
    ForGood,
    /// It names a volume, and somebody may have made another one of that name before the Engine looked.
    UntilThen,
}

/// What has been found harmless.
#[derive(Debug, Default)]
pub(super) struct Known {
    containers: Kept,
    execs: Kept,
}

/// The ids that came last.
#[derive(Debug, Default)]
struct Kept {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Kept {
    fn add(&mut self, id: &str) {
        if self.ids.insert(id.to_owned()) {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > MAX_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

/// The answer to what was made.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    id: String,
}

impl Known {
    /// Remembers what the Engine has made of a request that was let through.
    pub(super) fn learn(&mut self, made: Makes, answer: &[u8]) {
        let Ok(Made { id }) = serde_json::from_slice(answer) else { return };
        // Neither a name, which may be another's by and by, nor whatever else an Engine may say.
        if !is_whole_id(&id) {
            return;
        }
        match made {
            Makes::Container => self.containers.add(&id),
            Makes::Exec => self.execs.add(&id),
        }
    }
}

impl super::Guard {
    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut lock(&self.known))
    }

    /// See [`Known::learn`].
    pub(super) fn learn(&self, made: Makes, answer: &[u8]) {
        self.known(|known| known.learn(made, answer));
    }

    /// The path of a request that reaches into a container, with the container's id in its name's place.
    ///
    /// # Errors
    /// The container would not be allowed.
    pub(super) async fn reach(
        &self,
        operation: &str,
        reach: Reach,
        path: &str,
        engine: &impl Ask,
    ) -> Result<String, Refused> {
        let kind = match reach {
            Reach::Exec => "/exec/",
            Reach::Container => "/containers/",
        };
        let parts = path.split_once(kind).and_then(|(before, rest)| {
            let (name, after) = rest.split_once('/')?;
            Some((before, name, after))
        });
        let (before, name, after) = parts.ok_or_else(|| forbidden(format!("{operation}: it names nothing")))?;
        let of = |(status, reason): Refused| (status, format!("{operation}: {reason}"));
        if reach == Reach::Exec {
            self.exec(name, engine).await.map_err(of)?;
            return Ok(path.to_owned());
        }
        let id = self.container(name, engine).await.map_err(of)?;
        Ok(format!("{before}{kind}{id}/{after}"))
    }

    /// Asks for all that a new container refers to.
    ///
    /// # Errors
    /// Something of it is not allowed.
    pub(super) async fn settle(&self, create: &mut Create, engine: &impl Ask) -> Result<Settled, Refused> {
        let (mut info, mut settled) = (None, Settled::ForGood);
        for source in create.below(&self.rules.ground()) {
            asked_of(&mut info, engine).await?.may_be_below(&source)?;
        }
        let references = create.references();
        check_number(&references)?;
        for reference in references {
            let in_field = |field: &str, (status, reason)| (status, format!("{field}: {reason}"));
            match reference {
                Reference::Container { field, name, set } => {
                    set(&self.container(&name, engine).await.map_err(|refused| in_field(field, refused))?);
                }
                Reference::Volume { field, name } => {
                    self.volume(&name, engine).await.map_err(|refused| in_field(field, refused))?;
                    settled = Settled::UntilThen;
                }
                other => settle_default(&mut info, other, engine).await?,
            }
        }
        Ok(settled)
    }

    /// A volume that is not there, or would be allowed now. Asked each time: what was found of a name says nothing
    /// of the next volume of that name.
    async fn volume(&self, name: &str, engine: &impl Ask) -> Result<(), Refused> {
        if !is_name(name) {
            return Err(forbidden(format!("{} names no volume", shown(name))));
        }
        match engine.get(&format!("/volumes/{name}")).await? {
            (StatusCode::OK, inspect) => judge_existing_volume(&inspect, &self.rules.ground())
                .map_err(|why| forbidden(format!("volume {} would not be allowed itself: {why}", shown(name)))),
            // It is made with the container, as the request says.
            (StatusCode::NOT_FOUND, _) => Ok(()),
            (status, _) => {
                Err((StatusCode::BAD_GATEWAY, format!("the Engine answered {status} about volume {}", shown(name))))
            }
        }
    }

    /// The id of a container that would be allowed now.
    async fn container(&self, name: &str, engine: &impl Ask) -> Result<String, Refused> {
        let mut waiting = vec![name.to_owned()];
        let mut asked: Vec<String> = Vec::new();
        let (mut first, mut info) = (None, None);
        while let Some(next) = waiting.pop() {
            if asked.contains(&next) || self.known(|known| known.containers.ids.contains(&next)) {
                first.get_or_insert(next);
                continue;
            }
            if asked.len() >= MAX_ASKED {
                return Err(forbidden(format!("container {} shares with too many others", shown(name))));
            }
            if !is_name(&next) {
                return Err(forbidden(format!("{} names no container", shown(&next))));
            }
            let inspect = ask(engine, &format!("/containers/{next}/json"), &format!("container: {next}")).await?;
            let existing = Existing::read(&inspect, &self.rules.ground());
            let mut existing = existing.map_err(|why| not_allowed(&next, &why))?;
            let id = existing.id.clone();
            for source in existing.below(&self.rules.ground()) {
                let info = asked_of(&mut info, engine).await?;
                info.may_be_below(&source).map_err(|(_, why)| not_allowed(&next, &why))?;
            }
            let references = existing.references();
            check_number(&references)?;
            for reference in references {
                let of_next = |(status, why): Refused| match status {
                    StatusCode::FORBIDDEN => not_allowed(&next, &why),
                    other => (other, why),
                };
                match reference {
                    Reference::Container { name, .. } => waiting.push(name),
                    Reference::Volume { name, .. } => self.volume(&name, engine).await.map_err(of_next)?,
                    other => settle_default(&mut info, other, engine).await.map_err(of_next)?,
                }
            }
            first.get_or_insert_with(|| id.clone());
            asked.push(id);
        }
        self.known(|known| asked.iter().for_each(|id| known.containers.add(id)));
        first.ok_or_else(|| forbidden("there is no container"))
    }

    /// An exec that would be allowed now.
    async fn exec(&self, id: &str, engine: &impl Ask) -> Result<(), Refused> {
        if self.known(|known| known.execs.ids.contains(id)) {
            return Ok(());
        }
        let inspect = ask(engine, &format!("/exec/{id}/json"), &format!("exec instance: {id}")).await?;
        let exec = ExistingExec::read(&inspect).map_err(forbidden)?;
        self.container(&exec.container, engine).await?;
        self.known(|known| known.execs.add(id));
        Ok(())
    }
}

fn not_allowed(name: &str, why: &str) -> Refused {
    forbidden(format!("container {} would not be allowed itself: {why}", shown(name)))
}

/// Each volume is a question, and a body may name any number of them.
fn check_number(references: &[Reference<'_>]) -> Result<(), Refused> {
    let volumes = references.iter().filter(|reference| matches!(reference, Reference::Volume { .. })).count();
    if volumes > MAX_VOLUMES {
        return Err(forbidden(format!("{volumes} volumes are more than the {MAX_VOLUMES} that are asked about")));
    }
    Ok(())
}

/// What the Engine says of itself, asked once for all that one request names.
async fn asked_of<'a>(info: &'a mut Option<Info>, engine: &impl Ask) -> Result<&'a Info, Refused> {
    match info {
        Some(info) => Ok(info),
        None => Ok(info.insert(Info::of(engine).await?)),
    }
}

/// Is it what the Engine does anyway?
async fn settle_default(info: &mut Option<Info>, what: Reference<'_>, engine: &impl Ask) -> Result<(), Refused> {
    asked_of(info, engine).await?.settle(what)
}
