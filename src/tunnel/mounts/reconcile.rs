//! What to do so that both sides are in step again, from what was in step at last and what each side has now. Pure.
//!
//! A side has changed a path if it differs from the base there. One side's change goes to the other. Where both changed,
//! the file here keeps its name, and the host's version is put beside it. Nothing here is deleted or overwritten unless it
//! is as it was when both sides were last in step.

use std::collections::BTreeSet;

use super::base::{Base, Known, Seen};
use super::step::Step;
use super::tree::{Grain, Node, Reading, RelPath, Touched, Tree, leads_out};

/// Why a path stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The host made a link that may lead out of the directory.
    LinkLeadsOut,
    /// A socket, a device or a FIFO.
    Special,
    /// A file of the host's that names what is not carried: only those of this machine are obeyed.
    IgnoreFile,
    /// A directory that one side has deleted or replaced, and in which the other has what is not read or not carried.
    HoldsMore,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LinkLeadsOut => "a link of the host that may lead out of the directory",
            Self::Special => "a socket, device or FIFO",
            Self::IgnoreFile => "a .dtunnelignore of the host, which is not obeyed",
            Self::HoldsMore => "a directory with files that cannot be read, are ignored or are not carried",
        })
    }
}

/// The steps, in their order, and what is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The base is to be forgotten before the first step.
    pub(super) starts_over: bool,
    pub(super) steps: Vec<Step>,
    pub(super) left: Vec<(RelPath, Left)>,
}

impl Plan {
    /// Whether something here is deleted.
    pub(super) fn deletes_here(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::DeleteHere { .. }))
    }

    /// Leaves out the deletions here, and what is to take their place.
    pub(super) fn keep_here(&mut self) {
        let is_deletion = |step: &Step| matches!(step, Step::DeleteHere { .. });
        let kept: BTreeSet<RelPath> =
            self.steps.iter().filter(|step| is_deletion(step)).map(|step| step.path().clone()).collect();
        let is_kept = |path: &RelPath| kept.contains(path) || path.ancestors().any(|above| kept.contains(&above));
        self.steps.retain(|step| match step {
            Step::DeleteHere { .. } | Step::Fetch { .. } | Step::ModeHere { .. } => !is_kept(step.path()),
            _ => true,
        });
    }
}

/// What does not change from one reading to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The host's times are this fine.
    pub(super) grain: Grain,
    /// Nothing comes here; the host's changes are overwritten.
    pub(super) read_only: bool,
    /// Whether the mirror is the one that the base is about, and not another one in its place.
    pub(super) is_same_mirror: bool,
    /// When the host's files were last changed in any way, as the base has them.
    pub(super) seen: &'a Seen,
    /// What the names of conflict copies end with.
    pub(super) time: &'a str,
}

/// The steps from `base`, `here` and `there`. If `there` is another mirror, the host has lost what it had: then nothing here
/// is deleted. Whoever deletes what is in the mirror means it, and be it all; whether that is still going on is for the
/// caller to find out, before anything here is deleted.
pub(super) fn plan(base: &Base, here: &Reading, there: &Reading, rules: Rules<'_>) -> Plan {
    let nothing = Base::new();
    let is_lost = !rules.is_same_mirror;
    let starts_over = is_lost && !base.is_empty();
    let base = if is_lost { &nothing } else { base };
    let mut left = Vec::new();
    let unknown = left_out(base, here, there, rules, &mut left);
    let mut work = Work {
        base,
        here: &here.tree,
        there: &there.tree,
        rules,
        stays_here: BTreeSet::new(),
        stays_there: BTreeSet::new(),
        holds_unknown: ancestors(unknown.iter()),
        left,
        keep: Vec::new(),
        delete_there: Vec::new(),
        push: Vec::new(),
        mode_there: Vec::new(),
        delete_here: Vec::new(),
        fetch: Vec::new(),
        mode_here: Vec::new(),
        agree: Vec::new(),
    };
    let all: BTreeSet<&RelPath> = base.keys().chain(here.tree.keys()).chain(there.tree.keys()).collect();
    let is_unknown = |path: &RelPath| {
        path.is_own() || unknown.contains(path) || path.ancestors().any(|above| unknown.contains(&above))
    };
    let known: Vec<&RelPath> = all.into_iter().filter(|path| !is_unknown(path)).collect();
    let stays_here = |path: &&&RelPath| work.changed_here(path) || path.is_ignore_file();
    let changed_here = known.iter().filter(|path| here.tree.contains_key(path)).filter(stays_here);
    work.stays_here = ancestors(changed_here.copied());
    if !rules.read_only {
        let changed_there = known.iter().filter(|path| there.tree.contains_key(path) && work.changed_there(path));
        work.stays_there = ancestors(changed_there.copied());
    }
    for path in known {
        work.decide(path);
    }
    let left = std::mem::take(&mut work.left);
    Plan { starts_over, steps: work.in_order(), left }
}

/// Paths of which nothing is done, nor below them.
fn left_out(
    base: &Base,
    here: &Reading,
    there: &Reading,
    rules: Rules<'_>,
    left: &mut Vec<(RelPath, Left)>,
) -> BTreeSet<RelPath> {
    let mut unknown: BTreeSet<RelPath> = here.unknown.union(&there.unknown).cloned().collect();
    for reading in [here, there].into_iter().filter(|reading| reading.is_partial) {
        unknown.extend(base.keys().filter(|path| !reading.tree.contains_key(path)).cloned());
    }
    for (path, node) in &there.tree {
        let is_ours = rules.read_only
            || here.tree.get(path).is_some_and(|here| here.same(node, rules.grain))
            || base.get(path).is_some_and(|known| !known.is_changed_there(Some(node), rules.grain));
        match node {
            Node::Link { target } if !is_ours && leads_out(path, target) => {
                left.push((path.clone(), Left::LinkLeadsOut));
                unknown.insert(path.clone());
            }
            Node::Other => {
                left.push((path.clone(), Left::Special));
                unknown.insert(path.clone());
            }
            // A container would choose what leaves this machine, or hide what it does.
            _ if path.is_ignore_file() && !here.tree.contains_key(path) && !base.contains_key(path) => {
                left.push((path.clone(), Left::IgnoreFile));
                unknown.insert(path.clone());
            }
            _ => {}
        }
    }
    for (path, _) in here.tree.iter().filter(|(_, node)| **node == Node::Other) {
        if unknown.insert(path.clone()) {
            left.push((path.clone(), Left::Special));
        }
    }
    unknown
}

fn ancestors<'a>(paths: impl Iterator<Item = &'a RelPath>) -> BTreeSet<RelPath> {
    let mut found = BTreeSet::new();
    for path in paths {
        for above in path.ancestors() {
            if !found.insert(above) {
                break;
            }
        }
    }
    found
}

struct Work<'a> {
    base: &'a Base,
    here: &'a Tree,
    there: &'a Tree,
    rules: Rules<'a>,
    /// Directories here with something in them that was changed here.
    stays_here: BTreeSet<RelPath>,
    /// Directories there with something in them that was changed there.
    stays_there: BTreeSet<RelPath>,
    /// Directories with something in them of which nothing is done.
    holds_unknown: BTreeSet<RelPath>,
    left: Vec<(RelPath, Left)>,
    keep: Vec<Step>,
    delete_there: Vec<Step>,
    push: Vec<Step>,
    mode_there: Vec<Step>,
    delete_here: Vec<Step>,
    fetch: Vec<Step>,
    mode_here: Vec<Step>,
    agree: Vec<Step>,
}

impl Work<'_> {
    fn changed_here(&self, path: &RelPath) -> bool {
        let here = self.here.get(path);
        self.base.get(path).map_or(here.is_some(), |known: &Known| known.is_changed_here(here))
    }

    fn changed_there(&self, path: &RelPath) -> bool {
        let there = self.there.get(path);
        self.base.get(path).map_or(there.is_some(), |known| known.is_changed_there(there, self.rules.grain))
            || self.is_touched_there(path)
    }

    /// Whether the host's file may have another content, though it has the size and time that are known of it, since it
    /// was changed in some way. A new mode alone does that, too, which is believed of a file whose time tells writes apart.
    fn is_touched_there(&self, path: &RelPath) -> bool {
        let (Some(there), Some(known)) = (self.there.get(path), self.base.get(path)) else { return false };
        let grain = self.rules.grain;
        let is_touched = |node: &Node, seen: i64| {
            matches!(there, Node::File { touched: Touched(now), .. } if seen != 0 && *now != 0 && *now != seen)
                && there.same_content(node, grain)
                && (there.mode() == node.mode() || !node.has_fine_time(grain))
        };
        match known {
            Known::InStep(node) => self.rules.seen.get(path).is_some_and(|seen| is_touched(node, *seen)),
            // As the host had it before.
            Known::Going { old: Some(old @ Node::File { touched, .. }), .. } => is_touched(old, touched.0),
            Known::Going { .. } => false,
        }
    }

    /// Of a file that is not as the base has it, the same size and time are no proof of the same content if the time is to
    /// the second: many tools give all files the same one. Nor are they for one that was changed here without a trace in
    /// its size, time and mode.
    fn is_proof(&self, path: &RelPath, here: &Node) -> bool {
        if let Some(Known::InStep(node)) = self.base.get(path)
            && here.same(node, Grain::Nanosecond)
            && here.may_be_touched(node)
        {
            return false;
        }
        !matches!(here, Node::File { size: 1.., .. })
            || !self.changed_here(path)
            || here.has_fine_time(self.rules.grain)
    }

    fn decide(&mut self, path: &RelPath) {
        let (here, there) = (self.here.get(path), self.there.get(path));
        match (here, there) {
            (None, None) => {
                if self.base.contains_key(path) {
                    self.agree.push(Step::Agree { path: path.clone(), node: None });
                }
            }
            (Some(here), Some(there))
                if here.same(there, self.rules.grain) && self.is_proof(path, here) && !self.is_touched_there(path) =>
            {
                if self.changed_here(path) {
                    self.agree.push(Step::Agree { path: path.clone(), node: Some(here.clone()) });
                }
            }
            (None, Some(there)) => self.only_there(path, there),
            (Some(here), None) => self.only_here(path, here),
            (Some(here), Some(there)) => self.both(path, here, there),
        }
    }

    /// Does nothing that the host does with the path come here?
    fn is_ours_alone(&self, path: &RelPath) -> bool {
        self.rules.read_only || path.is_ignore_file()
    }

    fn only_here(&mut self, path: &RelPath, here: &Node) {
        if self.is_ours_alone(path) || self.changed_here(path) || self.stays_here.contains(path) {
            self.push(path, here, None);
        } else if self.holds_unknown.contains(path) {
            self.left.push((path.clone(), Left::HoldsMore));
        } else {
            self.delete_here(path, here);
        }
    }

    fn only_there(&mut self, path: &RelPath, there: &Node) {
        // A directory that was replaced here by something else: what was in it goes, or is kept beside.
        let replaced = path.ancestors().find(|above| self.here.get(above).is_some_and(|node| !node.is_dir()));
        let replaced = replaced.filter(|above| self.rules.read_only || self.changed_here(above));
        if replaced.as_ref().is_some_and(|above| self.holds_unknown.contains(above)) {
            return;
        }
        if self.is_ours_alone(path)
            || !self.changed_there(path) && !self.stays_there.contains(path)
            || replaced.is_some()
        {
            if let Some(above) = replaced.filter(|_| !self.rules.read_only && self.changed_there(path)) {
                let rest = &path.as_bytes()[above.as_bytes().len() + 1..];
                let copy = above.conflict(self.rules.time).and_then(|copy| copy.join(rest));
                self.keep_both(path, there, copy);
            }
            match self.holds_unknown.contains(path) {
                true => self.left.push((path.clone(), Left::HoldsMore)),
                false => self.delete_there(path, there),
            }
        } else {
            self.fetch(path, there, None);
        }
    }

    fn both(&mut self, path: &RelPath, here: &Node, there: &Node) {
        let read_only = self.is_ours_alone(path);
        let (changed_here, changed_there) = (self.changed_here(path), self.changed_there(path));
        let stays_here = self.stays_here.contains(path) || self.holds_unknown.contains(path);
        let is_outgoing = read_only || changed_here || here.is_dir() && !there.is_dir() && stays_here;
        let is_same_content =
            here.same_content(there, self.rules.grain) && self.is_proof(path, here) && !self.is_touched_there(path);
        if !is_outgoing {
            if is_same_content {
                let node = there.mode().map_or_else(|| here.clone(), |mode| here.with_mode(mode));
                self.mode_here.push(Step::ModeHere { path: path.clone(), node, over: here.clone() });
            } else if here.is_dir() != there.is_dir() {
                self.delete_here(path, here);
                self.fetch(path, there, None);
            } else {
                self.fetch(path, there, Some(here));
            }
            return;
        }
        if is_same_content {
            let (node, over) = (here.clone(), there.clone());
            return self.mode_there.push(Step::ModeThere { path: path.clone(), node, over });
        }
        if !here.is_dir() && there.is_dir() && self.holds_unknown.contains(path) {
            return self.left.push((path.clone(), Left::HoldsMore));
        }
        if changed_there && !self.rules.read_only {
            self.keep_both(path, there, path.conflict(self.rules.time));
        }
        if here.is_dir() == there.is_dir() {
            return self.push(path, here, Some(there));
        }
        self.delete_there(path, there);
        self.push(path, here, None);
    }

    /// Of a directory what is in it is kept, each with a step of its own.
    fn keep_both(&mut self, path: &RelPath, node: &Node, copy: Option<RelPath>) {
        if node.is_dir() {
            return;
        }
        // A path that would be too long: beside the root's own files.
        let copy = copy.or_else(|| RelPath::new(path.name()).and_then(|name| name.conflict(self.rules.time)));
        if let Some(copy) = copy {
            self.keep.push(Step::KeepBoth { path: path.clone(), node: node.clone(), copy });
        }
    }

    fn delete_there(&mut self, path: &RelPath, node: &Node) {
        self.delete_there.push(Step::DeleteThere { path: path.clone(), node: node.clone() });
    }

    fn delete_here(&mut self, path: &RelPath, node: &Node) {
        self.delete_here.push(Step::DeleteHere { path: path.clone(), node: node.clone() });
    }

    /// A directory is made with the owner's bits, for what goes into it, and gets its own mode at the end.
    fn push(&mut self, path: &RelPath, node: &Node, over: Option<&Node>) {
        let made = passable(node);
        if made != *node {
            let over = made.clone();
            self.mode_there.push(Step::ModeThere { path: path.clone(), node: node.clone(), over });
        }
        self.push.push(Step::Push { path: path.clone(), node: made, over: over.cloned() });
    }

    fn fetch(&mut self, path: &RelPath, node: &Node, over: Option<&Node>) {
        let made = passable(node);
        if made != *node {
            let over = made.clone();
            self.mode_here.push(Step::ModeHere { path: path.clone(), node: node.clone(), over });
        }
        self.fetch.push(Step::Fetch { path: path.clone(), node: made, over: over.cloned() });
    }

    /// The host's versions are safe before anything there is replaced; deletions have children first, the rest
    /// directories first.
    fn in_order(mut self) -> Vec<Step> {
        for children_first in [&mut self.delete_there, &mut self.delete_here, &mut self.mode_there, &mut self.mode_here]
        {
            children_first.reverse();
        }
        [
            self.agree,
            self.keep,
            self.delete_there,
            self.push,
            self.mode_there,
            self.delete_here,
            self.fetch,
            self.mode_here,
        ]
        .concat()
    }
}

fn passable(node: &Node) -> Node {
    match node {
        Node::Dir { mode } => Node::Dir { mode: mode | 0o700 },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
