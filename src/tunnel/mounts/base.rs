//! What was in step at last: the ancestor of both sides. Pure.
//!
//! A step changes the base after it is done, and already before it where an old entry would become wrong by it: a crash
//! in between must not have anything here look as the base has it that is newer, or older.

use std::collections::BTreeMap;

use super::step::Step;
use super::tree::{Grain, Node, RelPath};

/// What is known of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Both sides had this.
    InStep(Node),
    /// A change from here is on its way: the host has the one or the other.
    Going { old: Option<Node>, new: Option<Node> },
}

impl Known {
    /// Whether what is here now is a change. While one was on its way, everything here counts as newer.
    pub(super) fn is_changed_here(&self, here: Option<&Node>) -> bool {
        match (self, here) {
            (Self::InStep(node), Some(here)) => !here.same(node, Grain::Nanosecond) || here.may_be_touched(node),
            (Self::InStep(_), None) | (Self::Going { .. }, _) => true,
        }
    }

    /// Whether it was a directory at some time.
    pub(super) fn is_dir(&self) -> bool {
        match self {
            Self::InStep(node) => node.is_dir(),
            Self::Going { old, new } => [old, new].into_iter().flatten().any(Node::is_dir),
        }
    }

    /// Whether what is there now is a change.
    pub(super) fn is_changed_there(&self, there: Option<&Node>, grain: Grain) -> bool {
        let is = |node: Option<&Node>| match (node, there) {
            (Some(node), Some(there)) => there.same(node, grain),
            (None, None) => true,
            _ => false,
        };
        match self {
            Self::InStep(node) => !is(Some(node)),
            Self::Going { old, new } => !is(old.as_ref()) && !is(new.as_ref()),
        }
    }
}

/// All that is known, as of one mirror.
pub(super) type Base = BTreeMap<RelPath, Known>;

/// A change of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Set(RelPath, Known),
    Forget(RelPath),
    /// When the host's file was last changed in any way, in nanoseconds since 1970, while it was what both sides had.
    Seen(RelPath, i64),
    /// Nothing is known any more, and what follows is about this mirror.
    Mirror(String),
}

/// Changes the base as the record says, but for which mirror it is about.
pub(super) fn apply(base: &mut Base, record: Record) {
    match record {
        Record::Set(path, known) => {
            base.insert(path, known);
        }
        Record::Forget(path) => {
            base.remove(&path);
        }
        Record::Seen(..) => {}
        Record::Mirror(_) => base.clear(),
    }
}

/// When the host's files were last changed in any way, where that is known: each step of ours changes it, so that only a
/// later listing tells.
pub(super) type Seen = BTreeMap<RelPath, i64>;

/// Changes what is known of that as the record says.
pub(super) fn apply_seen(seen: &mut Seen, record: &Record) {
    match record {
        Record::Seen(path, time) => {
            seen.insert(path.clone(), *time);
        }
        Record::Set(path, _) | Record::Forget(path) => {
            seen.remove(path);
        }
        Record::Mirror(_) => seen.clear(),
    }
}

/// What has to be on the disk before the step is begun; None if the base remains true whatever becomes of the step.
pub(super) fn before(step: &Step, base: &Base) -> Option<Record> {
    let path = step.path();
    let known = base.get(path);
    match step {
        Step::KeepBoth { .. } => None,
        // The contents are compared: until then it is the host that has changed it.
        Step::Fetch { node, over: Some(over), .. } if over.same(node, Grain::Second) => None,
        Step::DeleteThere { node, .. } => going(step, Some(node.clone())),
        Step::ModeThere { over, .. } | Step::Push { over: Some(over), .. } => going(step, Some(over.clone())),
        // What was there may be deleted by a step just before this one.
        Step::Push { over: None, .. } => match known {
            Some(Known::Going { old, new: None }) => going(step, old.clone()),
            _ => going(step, None),
        },
        Step::Agree { .. } | Step::DeleteHere { .. } | Step::Fetch { .. } | Step::ModeHere { .. } => {
            known.map(|_| Record::Forget(path.clone()))
        }
    }
}

fn going(step: &Step, old: Option<Node>) -> Option<Record> {
    Some(Record::Set(step.path().clone(), Known::Going { old, new: step.result().cloned() }))
}

/// What becomes known when the step is done and `result` is what both sides have now.
pub(super) fn after(path: &RelPath, result: Option<Node>) -> Record {
    match result {
        Some(node) => Record::Set(path.clone(), Known::InStep(node)),
        None => Record::Forget(path.clone()),
    }
}
