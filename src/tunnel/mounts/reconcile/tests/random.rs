//! Random operations on both sides, in memory.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::tunnel::mounts::base::{self, Record};

#[derive(Debug, Clone, Copy)]
enum Op {
    Write,
    /// With a time of whole seconds that many files have.
    WriteOld,
    MakeDir,
    Delete,
    /// To the path with this number, over what is there.
    Rename(usize),
    Mode(u16),
    Link,
}

#[derive(Debug, Clone)]
enum Event {
    Here(usize, Op),
    There(usize, Op),
    /// A round of which so many steps are done, and so many records remain that nobody waited for.
    Round {
        done: usize,
        kept: usize,
    },
    /// The host loses its files; its mirror is made anew.
    Wiped,
}

const PATHS: [&str; 8] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d-x"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Write),
        2 => Just(Op::WriteOld),
        2 => Just(Op::MakeDir),
        2 => Just(Op::Delete),
        3 => (0..PATHS.len()).prop_map(Op::Rename),
        1 => prop_oneof![Just(0o600), Just(0o755), Just(0o555)].prop_map(Op::Mode),
        1 => Just(Op::Link),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let at = || (0..PATHS.len(), op());
    prop_oneof![
        6 => at().prop_map(|(at, op)| Event::Here(at, op)),
        6 => at().prop_map(|(at, op)| Event::There(at, op)),
        3 => (0..12usize, 0..12usize).prop_map(|(done, kept)| Event::Round { done, kept }),
        2 => Just(Event::Round { done: usize::MAX, kept: usize::MAX }),
        1 => Just(Event::Wiped),
    ]
}

/// One side's files, in memory: when a file was touched is also its content, since each write has its own.
type Files = BTreeMap<RelPath, Node>;

fn below(files: &Files, path: &RelPath) -> Vec<RelPath> {
    files.keys().filter(|other| *other == path || other.is_below(path)).cloned().collect()
}

/// What a user does. Returns the contents that the user overwrote or deleted.
fn act(files: &mut Files, at: usize, op: Op, clock: i64) -> Vec<(RelPath, Node)> {
    let path = path(PATHS[at]);
    let is_dir = |files: &Files, path: &RelPath| files.get(path).is_some_and(Node::is_dir);
    let mut gone = Vec::new();
    let has_parent = |files: &Files, path: &RelPath| path.parent().is_none_or(|parent| is_dir(files, &parent));
    let mut clear = |files: &mut Files, path: &RelPath| {
        for path in below(files, path) {
            gone.extend(files.remove(&path).map(|node| (path, node)));
        }
    };
    match op {
        Op::Write | Op::WriteOld if has_parent(files, &path) => {
            clear(files, &path);
            let mtime = if matches!(op, Op::Write) { clock } else { WHOLE };
            files.insert(path, Node::File { size: 1, mtime, mode: 0o644, touched: Touched(clock) });
        }
        Op::Link if has_parent(files, &path) => {
            clear(files, &path);
            files.insert(path, link(if clock % 3 == 0 { "/etc" } else { "a" }));
        }
        Op::MakeDir if has_parent(files, &path) && !is_dir(files, &path) => {
            clear(files, &path);
            files.insert(path, dir());
        }
        Op::Delete => clear(files, &path),
        Op::Mode(mode) => {
            if let Some(node) = files.get_mut(&path) {
                *node = node.with_mode(mode);
            }
        }
        Op::Rename(to) => {
            let to = super::path(PATHS[to]);
            let into_itself = to == path || to.is_below(&path) || path.is_below(&to);
            if files.contains_key(&path) && has_parent(files, &to) && !into_itself {
                clear(files, &to);
                for from in below(files, &path) {
                    let rest = &from.as_bytes()[path.as_bytes().len()..];
                    let to = RelPath::new(&[to.as_bytes(), rest].concat()).expect("a path");
                    let node = files.remove(&from).expect("is there");
                    files.insert(to, node);
                }
            }
        }
        _ => {}
    }
    gone
}

/// Both sides and the journal.
#[derive(Debug, Default)]
struct World {
    here: Files,
    there: Files,
    base: Base,
    seen: Seen,
    /// What the disk has for sure.
    durable: Base,
    /// Records behind that.
    unsure: Vec<Record>,
    is_new_mirror: bool,
    /// Conflict copies and what becomes of them: they are not read.
    copies: Vec<Node>,
}

impl World {
    fn plan(&self, rules: Rules<'_>) -> Plan {
        let reading = |files: &Files| Reading { tree: files.clone(), ..Reading::default() };
        plan(&self.base, &reading(&self.here), &reading(&self.there), Rules { seen: &self.seen, ..rules })
    }

    /// As `round` learns what the host's files were touched at in a listing.
    fn learn(&mut self, listing: &Files, plan: &Plan) {
        let is_outgoing =
            |step: &Step| matches!(step, Step::Push { .. } | Step::ModeThere { .. } | Step::DeleteThere { .. });
        for (path, node) in listing {
            let is_changed = plan.steps.iter().any(|step| step.path() == path && is_outgoing(step));
            let is_known = matches!(self.base.get(path), Some(Known::InStep(known)) if known == node);
            if let Node::File { touched, .. } = node
                && is_known
                && !is_changed
            {
                self.seen.entry(path.clone()).or_insert(touched.0);
            }
        }
    }

    fn record(&mut self, record: Record) {
        base::apply_seen(&mut self.seen, &record);
        base::apply(&mut self.base, record.clone());
        self.unsure.push(record);
    }

    fn sync(&mut self) {
        self.unsure.clear();
        self.durable = self.base.clone();
    }

    /// A round as `round` does it. Each step must be possible.
    fn round(&mut self, rules: Rules<'_>, done: usize, kept: usize) {
        let rules = Rules { is_same_mirror: !self.is_new_mirror, ..rules };
        let (plan, listing) = (self.plan(rules), self.there.clone());
        if plan.starts_over || self.is_new_mirror {
            self.base.clear();
            self.seen.clear();
            self.is_new_mirror = false;
            self.sync();
        }
        for step in plan.steps.iter().take(done) {
            if let Some(record) = base::before(step, &self.base) {
                self.record(record);
                self.sync();
            }
            self.step(step, rules);
            self.record(base::after(step.path(), step.result().cloned()));
        }
        if let Some(record) = plan.steps.get(done).and_then(|step| base::before(step, &self.base)) {
            self.record(record);
            self.sync();
        }
        if done == usize::MAX {
            self.learn(&listing, &plan);
        }
        // The journal's tail may be torn when the process dies; and what was learnt.
        if done != usize::MAX {
            let seen = std::mem::take(&mut self.seen);
            self.base = self.durable.clone();
            let is_same = |path: &RelPath| matches!(self.base.get(path), Some(Known::InStep(_)));
            self.seen = seen.into_iter().filter(|(path, _)| is_same(path)).collect();
            let unsure = std::mem::take(&mut self.unsure);
            unsure.into_iter().take(kept).for_each(|record| self.record(record));
        }
    }

    /// Whether the host's file was changed with nothing to tell it from what is known.
    fn hides_a_change(&self, path: &RelPath) -> bool {
        let Some(now) = self.there.get(path).filter(|_| !self.seen.contains_key(path)) else { return false };
        let is_alike = |known: &Node| now.same_content(known, Grain::Nanosecond) && now.may_be_touched(known);
        match self.base.get(path) {
            Some(Known::InStep(known)) => is_alike(known),
            Some(Known::Going { old, new }) => [old, new].into_iter().flatten().any(is_alike),
            None => false,
        }
    }

    fn step(&mut self, step: &Step, rules: Rules<'_>) {
        let has_parent = |files: &Files, path: &RelPath| {
            path.parent().is_none_or(|parent| files.get(&parent).is_some_and(Node::is_dir))
        };
        let is_empty = |files: &Files, path: &RelPath| below(files, path).len() == 1;
        match step {
            Step::Agree { .. } => {}
            Step::KeepBoth { path, node, copy } => {
                assert!(copy.is_own() && !rules.read_only);
                assert_eq!(self.there.get(path), Some(node));
                self.copies.push(node.clone());
            }
            Step::DeleteThere { path, node } => {
                assert!(is_empty(&self.there, path), "{step:?} {self:#?}");
                assert_eq!(self.there.remove(path).as_ref(), Some(node));
            }
            Step::Push { path, node, over } => {
                assert!(has_parent(&self.there, path), "{step:?} {self:#?}");
                assert_eq!(self.there.get(path), over.as_ref(), "{step:?}");
                self.there.insert(path.clone(), node.clone());
            }
            Step::ModeThere { path, node, over } => {
                assert_eq!(self.there.insert(path.clone(), node.clone()).as_ref(), Some(over));
            }
            Step::DeleteHere { path, node } => {
                assert!(!rules.read_only && is_empty(&self.here, path), "{step:?} {self:#?}");
                assert_eq!(self.here.remove(path).as_ref(), Some(node));
            }
            Step::Fetch { path, node, over } => {
                assert!(!rules.read_only && has_parent(&self.here, path), "{step:?} {self:#?}");
                assert_eq!(self.here.get(path), over.as_ref());
                self.here.insert(path.clone(), node.clone());
            }
            Step::ModeHere { path, node, over } => {
                assert!(!rules.read_only);
                assert_eq!(self.here.insert(path.clone(), node.clone()).as_ref(), Some(over));
            }
        }
    }
}

/// When files were touched, which stands for their contents.
fn contents<'a>(nodes: impl Iterator<Item = &'a Node>) -> BTreeSet<i64> {
    nodes.filter_map(|node| if let Node::File { touched, .. } = node { Some(touched.0) } else { None }).collect()
}

fn run(events: &[Event], rules: Rules<'_>) {
    let mut world = World::default();
    // What was written here, and neither overwritten nor deleted by a user who saw it in step.
    let mut written = BTreeSet::new();
    // Whether the host changed something without a trace that nobody could see.
    let mut is_blind = false;
    for (clock, event) in (1..).zip(events) {
        match event {
            Event::Here(at, op) => {
                let gone = act(&mut world.here, *at, *op, clock);
                contents(gone.iter().map(|(_, node)| node)).iter().for_each(|content| {
                    written.remove(content);
                });
                written.extend(contents(world.here.values()).into_iter().filter(|content| *content == clock));
            }
            Event::There(at, op) => {
                let before = world.there.clone();
                act(&mut world.there, *at, *op, clock);
                let is_as_before = |now: &Node, node: &Node| now == node && !now.may_be_touched(node);
                let changed = before
                    .iter()
                    .filter(|(path, node)| !world.there.get(path).is_some_and(|now| is_as_before(now, node)));
                let in_step = changed.filter(|(path, node)| {
                    world.base.get(path).is_some_and(|known| !known.is_changed_here(Some(node)))
                });
                is_blind |= world.there.keys().any(|path| world.hides_a_change(path));
                if !rules.read_only {
                    contents(in_step.map(|(_, node)| node)).iter().for_each(|content| {
                        written.remove(content);
                    });
                }
            }
            Event::Wiped => {
                world.there.clear();
                world.is_new_mirror = true;
            }
            Event::Round { done, kept } => {
                let (before, seen) = (world.here.clone(), world.seen.clone());
                world.round(rules, *done, *kept);
                // What would have told may be lost with the journal's tail.
                is_blind |= seen.keys().any(|path| world.hides_a_change(path));
                assert!(!rules.read_only || world.here == before);
                let here = contents(world.here.values().chain(&world.copies));
                assert!(written.is_subset(&here), "lost {:?}: {world:#?}", written.difference(&here));
            }
        }
    }
    world.round(rules, usize::MAX, usize::MAX);
    let here = contents(world.here.values().chain(&world.copies));
    assert!(written.is_subset(&here), "lost {:?}: {world:#?}", written.difference(&here));
    let last = world.plan(rules);
    assert_eq!(last.steps, [], "{world:#?}");
    let left: BTreeSet<RelPath> = last.left.into_iter().map(|(path, _)| path).collect();
    let is_left = |path: &RelPath| left.iter().any(|left| path == left || path.is_below(left));
    let carried = |files: &Files| -> Files {
        files.iter().filter(|(path, _)| !is_left(path)).map(|(path, node)| (path.clone(), node.clone())).collect()
    };
    assert_eq!(carried(&world.here), carried(&world.there));
    if !is_blind {
        assert_eq!(contents(carried(&world.here).values()), contents(carried(&world.there).values()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_here_is_lost_and_both_sides_get_in_step(events in prop::collection::vec(event(), 1..40)) {
        run(&events, RULES);
    }

    #[test]
    fn a_read_only_mount_never_changes_what_is_here(events in prop::collection::vec(event(), 1..40)) {
        run(&events, Rules { read_only: true, ..RULES });
    }
}

#[test]
fn what_told_of_a_change_may_be_lost_with_the_journals_tail() {
    let all = Event::Round { done: usize::MAX, kept: usize::MAX };
    let events = [Event::There(7, Op::WriteOld), all, Event::There(7, Op::WriteOld), Event::Round { done: 0, kept: 1 }];
    run(&events, RULES);
}
