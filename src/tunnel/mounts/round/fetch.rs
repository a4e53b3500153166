//! What comes from the host, and what is learnt of it.

use std::collections::BTreeSet;
use std::io;

use super::{BATCH, Error, Mount, size_of};
use crate::sync::lock;
use crate::tunnel::mounts::apply::Done;
use crate::tunnel::mounts::base::{Known, Record, after};
use crate::tunnel::mounts::host::{Arrived, Listing, Run};
use crate::tunnel::mounts::progress::Phase;
use crate::tunnel::mounts::report::Report;
use crate::tunnel::mounts::step::Step;
use crate::tunnel::mounts::tree::{Node, RelPath, Touched};

impl<R: Run> Mount<R> {
    /// Fetches what the host has changed.
    pub(super) async fn fetch(&self, steps: Vec<Step>, time: &str, report: &mut Report) -> Result<(), Error> {
        let (dirs, files): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| step.result().is_some_and(Node::is_dir));
        self.begin(&dirs).await?;
        self.change_here(dirs, report, |here, step| match step {
            Step::Fetch { path, node, .. } => here.make_dir(path, node.mode().unwrap_or(0o700)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        })
        .await?;
        let _busy = self.mirror.meter().begin(Phase::Fetching, &files);
        // What has come counts for the next batches.
        let mut bounds = self.bounds;
        for batch in files.chunks(BATCH) {
            let old: Vec<_> = {
                let journal = lock(&self.journal);
                let known = |path| (journal.base().get(path).cloned(), journal.seen().get(path).copied());
                batch.iter().map(|step| known(step.path())).collect()
            };
            self.begin(batch).await?;
            let arrived = self.mirror.fetch(self.here(), batch.to_vec(), bounds, time.into()).await;
            let is_lost = arrived.as_ref().err().map(ToString::to_string);
            let failed = || batch.iter().map(|_| Arrived::Missing).collect();
            let mut records = Vec::new();
            for ((step, one), old) in batch.iter().zip(arrived.unwrap_or_else(|_| failed())).zip(old) {
                match one {
                    Arrived::Put { node, done } => {
                        report.done += 1;
                        bounds.bytes = bounds.bytes.saturating_sub(size_of(&node));
                        let node = match done {
                            Done::KeptBoth(copy) => {
                                report.conflicts.push(copy);
                                node
                            }
                            // With the time that it has here.
                            Done::Changed(now) if now == node => now,
                            Done::Changed(_) => node,
                            Done::Same => over(step).cloned().unwrap_or(node),
                        };
                        records.push(after(step.path(), Some(node)));
                    }
                    // Nothing has changed here.
                    Arrived::Failed(reason) => {
                        report.failed.push((step.path().to_string(), reason));
                        records.extend(as_before(step.path(), old));
                    }
                    Arrived::Missing | Arrived::LinkedTo => {
                        records.extend(as_before(step.path(), old));
                    }
                }
            }
            self.record(records).await?;
            if let Some(error) = is_lost {
                return Err(Error::Host(io::Error::other(error)));
            }
        }
        Ok(())
    }

    /// Remembers when the host's files were last changed in any way: of those that were as the base has them in the
    /// listing, unless that is known, or a step of ours has changed them since.
    pub(super) async fn learn(&self, there: &Listing, changed: &BTreeSet<RelPath>) -> Result<(), Error> {
        let records = {
            let journal = lock(&self.journal);
            let is_news = |path: &RelPath, node: &Node| {
                !journal.seen().contains_key(path)
                    && !changed.contains(path)
                    && matches!(journal.base().get(path), Some(Known::InStep(known)) if node.same(known, there.grain))
            };
            let seen = |(path, node): (&RelPath, &Node)| match node {
                Node::File { touched: Touched(time), .. } if *time != 0 && is_news(path, node) => {
                    Some(Record::Seen(path.clone(), *time))
                }
                _ => None,
            };
            there.reading.tree.iter().filter_map(seen).collect()
        };
        self.record(records).await
    }
}

/// What was known of a path whose file did not come.
fn as_before(path: &RelPath, (known, seen): (Option<Known>, Option<i64>)) -> Vec<Record> {
    let known = known.map(|known| Record::Set(path.clone(), known));
    let seen = seen.map(|time| Record::Seen(path.clone(), time));
    [known, seen].into_iter().flatten().collect()
}

/// What the file here was that a fetched one takes the place of.
fn over(step: &Step) -> Option<&Node> {
    if let Step::Fetch { over, .. } = step { over.as_ref() } else { None }
}
