//! A part of a mount: paths that changed here, against what was in step. The host is taken to have what it had.

use std::collections::BTreeSet;

use super::base::{Base, Known};
use super::scan::{self, Bounds, Ignored, Source, scan_part};
use super::tree::{Node, Reading, RelPath};

/// Both sides and the base, at some paths and all that is below them.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) base: Base,
    pub(super) here: Reading,
    /// As the base has it.
    pub(super) there: Reading,
    /// Something has to be looked at in a round.
    pub(super) needs_round: bool,
}

/// The paths to look at: each, or the nearest directory above it from which on things are not as in the base. Blocks.
pub(super) fn roots(source: &Source, base: &Base, paths: &[RelPath]) -> BTreeSet<RelPath> {
    let mut roots = BTreeSet::new();
    for path in paths {
        let mut above: Vec<RelPath> = path.ancestors().collect();
        above.reverse();
        let is_in_step = |dir: &RelPath| {
            matches!(base.get(dir), Some(Known::InStep(Node::Dir { .. })))
                && scan::look(source, dir).is_ok_and(|node| node.is_some_and(|node| node.is_dir()))
        };
        let first = above.into_iter().find(|dir| !is_in_step(dir)).unwrap_or_else(|| path.clone());
        roots.insert(first);
    }
    let is_nested = |path: &RelPath| path.ancestors().any(|above| roots.contains(&above));
    roots.iter().filter(|path| !is_nested(path)).cloned().collect()
}

/// Reads the paths here, which `ignored` does not name. Blocks.
pub(super) fn read(source: &Source, ignored: &Ignored, roots: &BTreeSet<RelPath>, bounds: Bounds) -> Part {
    let mut part = Part::default();
    for root in roots {
        match scan_part(source, root, bounds) {
            Ok(scan) if scan.ignored.is_empty() && scan.failed.is_empty() => {
                part.here.tree.extend(scan.reading.tree);
                part.here.unknown.extend(scan.reading.unknown);
                part.here.is_partial |= scan.reading.is_partial;
            }
            // What is ignored changes, or cannot be read, or is too much.
            Ok(_) | Err(_) => {
                part.needs_round = true;
                part.here.unknown.insert(root.clone());
            }
        }
    }
    ignored.hide(&mut part.here);
    part
}

impl Part {
    /// Adds what the base has at the paths. Where a change was on its way, nobody knows what the host has.
    pub(super) fn add_base(&mut self, base: &Base, roots: &BTreeSet<RelPath>) {
        for root in roots {
            let range = base.range(root.clone()..);
            let below = range.take_while(|(path, _)| path.as_bytes().starts_with(root.as_bytes()));
            for (path, known) in below.filter(|(path, _)| *path == root || path.is_below(root)) {
                self.base.insert(path.clone(), known.clone());
                match known {
                    Known::InStep(node) => {
                        self.there.tree.insert(path.clone(), node.clone());
                    }
                    Known::Going { .. } => {
                        self.needs_round = true;
                        self.there.unknown.insert(path.clone());
                    }
                }
            }
        }
    }
}
