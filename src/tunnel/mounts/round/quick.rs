//! What is less than a round: a look at the host alone, and a push of what is known to have changed here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::spawn_blocking;

use super::{Mount, joined, size_of};
use crate::sync::lock;
use crate::tunnel::mounts::base::Seen;
use crate::tunnel::mounts::host::Run;
use crate::tunnel::mounts::partial;
use crate::tunnel::mounts::progress::Phase;
use crate::tunnel::mounts::reconcile::{Rules, plan};
use crate::tunnel::mounts::report::{Error, Report};
use crate::tunnel::mounts::scan::scan;
use crate::tunnel::mounts::step::Step;
use crate::tunnel::mounts::tree::{Grain, RelPath, Touched, Tree};
use crate::tunnel::mounts::watcher::{NotWatched, Watcher};

impl<R: Run> Mount<R> {
    /// A round, unless the host has what it had when a round found nothing to do. For an owner that is told of changes here
    /// by other means.
    ///
    /// # Errors
    /// As of [`Self::round`].
    pub(in crate::tunnel::mounts) async fn look(&self) -> Result<Option<Report>, Error> {
        let _turn = self.take_turn().await?;
        let looking = self.mirror.meter().begin(Phase::Looking, &[]);
        let there = self.mirror.scan(self.bounds).await.map_err(Error::Host)?;
        if lock(&self.last).as_ref().and_then(|last| last.settled.as_ref()) == Some(&there.digest) {
            return Ok(None);
        }
        let (source, bounds) = (self.source.clone(), self.bounds);
        let here = spawn_blocking(move || scan(&source, bounds)).await.map_err(joined)??;
        drop(looking);
        self.both_read(here, there).await.map(Some)
    }

    /// Tells of changes here from now on, but for what the last round found to be ignored.
    ///
    /// # Errors
    /// The system cannot watch: then the owner calls [`Self::round`] at intervals.
    pub(in crate::tunnel::mounts) async fn watch(&self) -> Result<Watcher, NotWatched> {
        let (source, last) = (self.source.clone(), self.last.clone());
        let is_ignored = move |path: &RelPath| {
            let last = lock(&last);
            // What is gone may have been either.
            last.as_ref().is_some_and(|last| last.ignored.has(path, true) && last.ignored.has(path, false))
        };
        let opening = spawn_blocking(move || Watcher::open(&source, Arc::new(is_ignored)));
        opening.await.map_err(|e| NotWatched::Here(e.into()))?
    }

    /// Takes changes here to the host, at `paths` and below them, without a look at what the host has: what changed there
    /// too, by size and times as the host tells them, is not touched, nor is anything here. That is left to the next round,
    /// if the report says so.
    ///
    /// # Errors
    /// As of [`Self::round`].
    pub(in crate::tunnel::mounts) async fn push(&self, paths: Vec<RelPath>) -> Result<Report, Error> {
        let _turn = self.take_turn().await?;
        let undone = Report { needs_round: true, ..Report::default() };
        let Some(last) = lock(&self.last).clone() else { return Ok(undone) };
        if lock(&self.journal).mirror() != last.identity {
            return Ok(undone);
        }
        let looking = self.mirror.meter().begin(Phase::Looking, &[]);
        let (source, bounds, journal) = (self.source.clone(), self.bounds, self.journal.clone());
        let ignored = last.ignored.clone();
        let part = spawn_blocking(move || {
            let roots = partial::roots(&source, lock(&journal).base(), &paths);
            let mut part = partial::read(&source, &ignored, &roots, bounds);
            let journal = lock(&journal);
            part.add_base(journal.base(), &roots);
            // The base has it of the files here.
            for (path, node) in &mut part.there.tree {
                node.set_touched(Touched(journal.seen().get(path).copied().unwrap_or_default()));
            }
            part
        });
        let part = part.await.map_err(joined)?;
        drop(looking);
        let sum = |tree: &Tree| tree.values().map(size_of).sum::<u64>();
        let entries = (last.entries + part.here.tree.len()).saturating_sub(part.there.tree.len());
        let bytes = last.bytes.saturating_add(sum(&part.here.tree)).saturating_sub(sum(&part.there.tree));
        if bytes > bounds.bytes || u64::try_from(entries).unwrap_or(u64::MAX) > bounds.entries {
            return Ok(undone);
        }
        let (grain, read_only, seen) = (Grain::Nanosecond, self.read_only.load(Relaxed), &Seen::new());
        let rules = Rules { grain, read_only, is_same_mirror: true, seen, time: "" };
        let plan = plan(&part.base, &part.here, &part.there, rules);
        let is_ours =
            |step: &Step| matches!(step, Step::Push { .. } | Step::ModeThere { .. } | Step::DeleteThere { .. });
        let count = plan.steps.len();
        let steps: Vec<Step> = plan.steps.into_iter().filter(is_ours).collect();
        let mut report = Report { left: plan.left, entries, bytes, ..Report::default() };
        report.needs_round = part.needs_round || part.here.is_partial || steps.len() < count;
        if let Some(last) = &mut *lock(&self.last) {
            (last.entries, last.bytes) = (entries, bytes);
        }
        self.send(steps, Some(last.identity), (last.grain, last.touched), &mut report).await?;
        report.needs_round |= !report.failed.is_empty();
        Ok(report)
    }
}
