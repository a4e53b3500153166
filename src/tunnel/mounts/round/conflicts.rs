//! Copies of what the host had when both sides had changed a path.
//!
//! A conflict is settled when ours has taken the place of the host's. Until then, whenever the host's has changed again,
//! the copy that was made before gives way to the new one: a program that always writes there would fill the disk here.

use std::collections::BTreeMap;

use tokio::task::spawn_blocking;

use super::{Error, Mount, joined};
use crate::sync::lock;
use crate::tunnel::mounts::apply::Done;
use crate::tunnel::mounts::base::after;
use crate::tunnel::mounts::host::{Arrived, Run};
use crate::tunnel::mounts::progress::Phase;
use crate::tunnel::mounts::report::Report;
use crate::tunnel::mounts::step::Step;
use crate::tunnel::mounts::tree::{Node, RelPath, Touched};

/// A time of the last change (ctime) that no file here has.
const NEVER_HERE: Touched = Touched(1);

/// For paths whose conflict is not settled the copy, and what was put there.
pub(super) type Unsettled = BTreeMap<RelPath, (RelPath, Node)>;

impl<R: Run> Mount<R> {
    /// Fetches the host's versions as copies. Returns the paths of those that are not safe here.
    pub(super) async fn keep_both(
        &self,
        steps: Vec<Step>,
        time: &str,
        report: &mut Report,
    ) -> Result<Vec<RelPath>, Error> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let _busy = self.mirror.meter().begin(Phase::Fetching, &steps);
        let arrived = self.mirror.fetch(self.here(), steps.clone(), self.bounds, time.into()).await;
        let (mut records, mut lost) = (Vec::new(), Vec::new());
        for (step, one) in steps.iter().zip(arrived.map_err(Error::Host)?) {
            match one {
                Arrived::Put { mut node, done } => {
                    report.done += 1;
                    if let Done::KeptBoth(copy) = done {
                        self.replace_unsettled(step.path(), &copy).await?;
                        report.conflicts.push(copy);
                        // Ours may have the same size and time, and is not what the host has: should this be all that
                        // is done, the next round must not take them for the same.
                        node.set_touched(NEVER_HERE);
                    }
                    records.push(after(step.path(), Some(node)));
                }
                Arrived::Failed(reason) => {
                    report.failed.push((step.path().to_string(), reason));
                    lost.push(step.path().clone());
                }
                Arrived::Missing | Arrived::LinkedTo => lost.push(step.path().clone()),
            }
        }
        self.record(records).await?;
        Ok(lost)
    }

    /// Remembers the copy for the path, and removes the one before, if that is still what was put there.
    async fn replace_unsettled(&self, path: &RelPath, copy: &RelPath) -> Result<(), Error> {
        let old = lock(&self.unsettled).remove(path);
        let (here, at) = (self.here(), copy.clone());
        let looked = spawn_blocking(move || {
            if let Some((copy, node)) = old
                && let Err(e) = here.delete(&copy, &node)
            {
                tracing::debug!("{copy} stays: {e}");
            }
            here.look(&at)
        });
        if let Ok(Some(node)) = looked.await.map_err(joined)? {
            lock(&self.unsettled).insert(path.clone(), (copy.clone(), node));
        }
        Ok(())
    }

    /// Those of which a round has nothing to do are settled.
    pub(super) fn settle_others<'a>(&self, steps: impl Iterator<Item = &'a Step>) {
        let mut unsettled = lock(&self.unsettled);
        let mut open = Unsettled::new();
        for step in steps.filter(|step| !matches!(step, Step::Agree { .. } | Step::Fetch { .. })) {
            open.extend(unsettled.remove_entry(step.path()));
        }
        *unsettled = open;
    }

    /// Takes the copies of the paths of steps that are about to be done: after them, or if nobody knows, they are settled.
    pub(super) fn take_unsettled(&self, steps: &[Step]) -> Unsettled {
        let mut unsettled = lock(&self.unsettled);
        steps.iter().filter_map(|step| unsettled.remove_entry(step.path())).collect()
    }

    /// Gives back those of a step that was not done.
    pub(super) fn give_back(&self, step: &Step, taken: &mut Unsettled) {
        lock(&self.unsettled).extend(taken.remove_entry(step.path()));
    }
}
