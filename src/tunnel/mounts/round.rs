//! A round: both sides are read, and brought in step as far as that is possible.
//!
//! A round may be cut at any moment (the future is dropped, the link is lost, the process dies); the next one goes on from
//! what the journal has. The owner calls [`Mount::round`] after each change and once a second where a container may write.

mod conflicts;
mod fetch;
mod quick;

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::apply::{Done, Here};
use super::base::{Record, after, before};
use super::host::{Listing, Mirror, Run, Sending};
use super::journal::Journal;
use super::progress::{Phase, Progress};
use super::reconcile::{Plan, Rules, plan};
use super::report::{Error, Report};
use super::scan::{self, Bounds, Ignored, Scan, Source, scan};
use super::step::Step;
use super::tree::{Grain, Node, RelPath};
use crate::os::beneath::seen;
use crate::os::lock::Lock;
use crate::sync::lock;

/// Most steps between two entries of the journal: so many files may be kept twice after a crash while they were fetched.
const BATCH: usize = 1024;

/// A directory here and its mirror. One process has one of them at a time.
#[derive(Debug)]
pub(super) struct Mount<R> {
    source: Source,
    /// The directory as of the last turn: it may have been made anew since.
    here: Mutex<Arc<Here>>,
    /// In the names of temporary files.
    tag: String,
    mirror: Mirror<R>,
    journal: Arc<Mutex<Journal>>,
    bounds: Bounds,
    /// Does nothing come back from the host?
    read_only: AtomicBool,
    /// One round or push at a time.
    turn: tokio::sync::Mutex<()>,
    /// What the last round has read.
    last: Arc<Mutex<Option<Last>>>,
    unsettled: Mutex<conflicts::Unsettled>,
    _lock: Lock,
    /// Cuts a round, for the tests.
    most_steps: usize,
}

/// What is known from a whole round.
#[derive(Debug, Clone)]
struct Last {
    ignored: Arc<Ignored>,
    identity: String,
    grain: Grain,
    touched: Grain,
    entries: usize,
    bytes: u64,
    /// The host's listing for which nothing was to be done.
    settled: Option<String>,
}

impl<R: Run> Mount<R> {
    /// Opens the source and the journal at `journal`, and locks it. `read_only`: nothing comes back from the host. What was
    /// not complete here when a process was killed is removed; what may be the user's is told in the log. Blocks.
    ///
    /// # Errors
    /// From the system; [`io::ErrorKind::ResourceBusy`] if the journal is open, here or in another process.
    pub(super) fn open(
        source: Source,
        mirror: Mirror<R>,
        journal: &std::path::Path,
        bounds: Bounds,
        read_only: bool,
    ) -> io::Result<Self> {
        let lock = Lock::take(&journal.with_extension("lock"))?;
        let lock = lock.ok_or_else(|| io::Error::new(io::ErrorKind::ResourceBusy, "this mount is open already"))?;
        let tag = tag(journal);
        let here = Here::open(&source.dir, &tag)?;
        let journal = Journal::open(journal)?;
        let dirs = journal.base().iter().filter(|(_, known)| known.is_dir()).map(|(path, _)| path);
        for path in here.sweep(dirs)? {
            let dir = source.dir.display();
            tracing::warn!("{dir}/{path} may be a file of yours, which a dtunnel that was killed had put aside");
        }
        Ok(Self {
            source,
            here: Mutex::new(Arc::new(here)),
            tag,
            mirror,
            journal: Arc::new(Mutex::new(journal)),
            bounds,
            read_only: AtomicBool::new(read_only),
            turn: tokio::sync::Mutex::default(),
            last: Arc::default(),
            unsettled: Mutex::default(),
            _lock: lock,
            most_steps: usize::MAX,
        })
    }

    /// What a container mounts: a directory of the host, or a file.
    #[cfg(test)]
    pub(super) fn bind_path(&self) -> String {
        let tree = self.mirror.tree();
        match &self.source.only {
            Some(name) => format!("{tree}/{}", String::from_utf8_lossy(name.as_bytes())),
            None => tree,
        }
    }

    /// From the next round on.
    pub(super) fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Relaxed);
    }

    /// How far a round is. Cheap.
    pub(super) fn progress(&self) -> Progress {
        self.mirror.meter().now()
    }

    /// Brings both sides in step.
    ///
    /// # Errors
    /// A side cannot be read, or the journal not written: nothing is done then, or no more.
    pub(super) async fn round(&self) -> Result<Report, Error> {
        let _turn = self.take_turn().await?;
        let (source, bounds) = (self.source.clone(), self.bounds);
        let looking = self.mirror.meter().begin(Phase::Looking, &[]);
        let reading = spawn_blocking(move || scan(&source, bounds));
        let (here, there) = tokio::join!(reading, self.mirror.scan(self.bounds));
        drop(looking);
        self.both_read(here.map_err(joined)??, there.map_err(Error::Host)?).await
    }

    fn here(&self) -> Arc<Here> {
        lock(&self.here).clone()
    }

    /// Waits for its turn, and opens the directory that has the name now.
    async fn take_turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let turn = self.turn.lock().await;
        let (dir, tag) = (self.source.dir.clone(), self.tag.clone());
        let opened = spawn_blocking(move || Here::open(&dir, &tag)).await.map_err(joined)?;
        *lock(&self.here) = Arc::new(opened.map_err(|e| Error::Scan(scan::Error::Root(e)))?);
        Ok(turn)
    }

    async fn both_read(&self, here: Scan, mut there: Listing) -> Result<Report, Error> {
        *lock(&self.last) = None;
        here.ignored.hide(&mut there.reading);
        self.source.limit(&mut there.reading);
        let time = time_now();
        let mut plan = self.plan(&here, &there, &time);
        let is_kept = plan.deletes_here() && !self.is_deleted_for_good(&here, &there).await?;
        if is_kept {
            plan.keep_here();
        }
        plan.steps.truncate(self.most_steps);
        self.settle_others(plan.steps.iter());
        let mut report = Report {
            left: std::mem::take(&mut plan.left),
            failed: [here.failed.clone(), there.failed.clone()].concat(),
            entries: here.reading.tree.len(),
            bytes: here.reading.tree.values().map(size_of).sum(),
            needs_round: is_kept,
            ..Report::default()
        };
        let is_known = there.identity.as_deref() == Some(lock(&self.journal).mirror());
        if plan.starts_over || !is_known {
            let identity = there.identity.clone().unwrap_or_default();
            self.record(vec![Record::Mirror(identity)]).await?;
        }
        let mut work =
            Work { agree: vec![], keep: vec![], outgoing: vec![], delete: vec![], fetch: vec![], modes: vec![] };
        plan.steps.into_iter().for_each(|step| work.add(step));
        report.done += work.agree.len();
        self.record(work.agree.iter().map(|step| after(step.path(), step.result().cloned())).collect()).await?;
        let lost = self.keep_both(work.keep, &time, &mut report).await?;
        // The host's version that is not safe here is not overwritten there.
        let is_safe = |step: &Step| {
            !lost.iter().any(|lost| step.path() == lost || step.path().is_below(lost) || lost.is_below(step.path()))
        };
        work.outgoing.retain(is_safe);
        let changed: BTreeSet<RelPath> = work.outgoing.iter().map(|step| step.path().clone()).collect();
        let (grains, identity) = ((there.grain, there.touched), there.identity.clone());
        self.send(work.outgoing, identity, grains, &mut report).await?;
        self.delete_here(work.delete, &mut report).await?;
        self.fetch(work.fetch, &time, &mut report).await?;
        self.modes_here(work.modes, &mut report).await?;
        self.learn(&there, &changed).await?;
        let is_settled = report.done == 0 && report.is_in_step();
        *lock(&self.last) = Some(Last {
            ignored: Arc::new(here.ignored),
            identity: lock(&self.journal).mirror().into(),
            grain: there.grain,
            touched: there.touched,
            entries: report.entries,
            bytes: report.bytes,
            settled: is_settled.then_some(there.digest),
        });
        Ok(report)
    }

    /// Looks at the host once more: whether nothing is deleted there any more. Somebody may be about to remove the whole
    /// mirror, which is no reason to remove anything here; once it is gone, another one is in its place. Only what has
    /// disappeared since counts, or a container that always writes would keep its deletions from ever coming here.
    async fn is_deleted_for_good(&self, here: &Scan, there: &Listing) -> Result<bool, Error> {
        let _busy = self.mirror.meter().begin(Phase::Looking, &[]);
        let mut again = self.mirror.scan(self.bounds).await.map_err(Error::Host)?;
        if again.identity != there.identity {
            return Ok(false);
        }
        if again.digest == there.digest {
            return Ok(true);
        }
        here.ignored.hide(&mut again.reading);
        self.source.limit(&mut again.reading);
        let is_still_there = |path: &RelPath| {
            let is_unknown = |path: &RelPath| again.reading.unknown.contains(path);
            again.reading.tree.contains_key(path)
                || is_unknown(path)
                || path.ancestors().any(|above| is_unknown(&above))
        };
        Ok(there.reading.tree.keys().all(is_still_there))
    }

    fn plan(&self, here: &Scan, there: &Listing, time: &str) -> Plan {
        let journal = lock(&self.journal);
        let rules = Rules {
            grain: there.grain,
            read_only: self.read_only.load(Relaxed),
            is_same_mirror: there.identity.as_deref() == Some(journal.mirror()),
            seen: journal.seen(),
            time,
        };
        plan(journal.base(), &here.reading, &there.reading, rules)
    }

    /// Writes records and waits for the disk.
    async fn record(&self, records: Vec<Record>) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let journal = self.journal.clone();
        let written = spawn_blocking(move || {
            let mut journal = lock(&journal);
            journal.add(records)?;
            journal.sync()
        });
        written.await.map_err(joined)?.map_err(Error::Here)
    }

    /// Records what must be known before the steps.
    async fn begin(&self, steps: &[Step]) -> Result<(), Error> {
        let records = {
            let journal = lock(&self.journal);
            let known = |step: &Step| journal.base().get_key_value(step.path());
            let known = steps.iter().filter_map(known).map(|(path, known)| (path.clone(), known.clone()));
            let mut base: super::base::Base = known.collect();
            let mut records = Vec::new();
            for step in steps {
                // The second step for a path builds on the first.
                if let Some(record) = before(step, &base) {
                    super::base::apply(&mut base, record.clone());
                    records.push(record);
                }
            }
            records
        };
        self.record(records).await
    }

    async fn send(
        &self,
        steps: Vec<Step>,
        identity: Option<String>,
        (grain, touched): (Grain, Grain),
        report: &mut Report,
    ) -> Result<(), Error> {
        let is_new = identity.is_none();
        if steps.is_empty() && !is_new {
            return Ok(());
        }
        self.begin(&steps).await?;
        let root = self.source.dir.clone();
        let mode =
            spawn_blocking(move || std::fs::metadata(root).map(|meta| seen(&meta).mode)).await.map_err(joined)?;
        let mode = mode.map_err(Error::Here)? | 0o700;
        let fill = is_new.then_some(mode);
        let in_place = self.source.only.is_some();
        let _busy = self.mirror.meter().begin(Phase::Sending, &steps);
        let mut unsettled = self.take_unsettled(&steps);
        let sending = Sending { steps: steps.clone(), fill, in_place, identity, grain, touched };
        let sent = self.mirror.send(self.here(), sending).await.map_err(Error::Host)?;
        let mut records = Vec::new();
        if is_new {
            // What was begun was about no mirror.
            records.extend(sent.identity.map(Record::Mirror));
        }
        for (step, _) in steps.iter().zip(&sent.done).filter(|(_, done)| **done) {
            report.done += 1;
            records.push(after(step.path(), step.result().cloned()));
        }
        let reason = sent.said.first().cloned().unwrap_or_else(|| "it has changed meanwhile".into());
        for (step, _) in steps.iter().zip(&sent.done).filter(|(_, done)| !**done) {
            report.failed.push((step.path().to_string(), reason.clone()));
            self.give_back(step, &mut unsettled);
        }
        self.record(records).await
    }

    async fn delete_here(&self, steps: Vec<Step>, report: &mut Report) -> Result<(), Error> {
        self.begin(&steps).await?;
        let here = self.here();
        let results = spawn_blocking(move || {
            let delete = |step: &Step| match step {
                Step::DeleteHere { path, node } => {
                    here.delete(path, node).map_err(|e| (path.to_string(), e.to_string()))
                }
                _ => Ok(()),
            };
            steps.iter().map(delete).collect::<Vec<_>>()
        });
        // What could not be deleted is not known any more: it goes to the host again.
        for result in results.await.map_err(joined)? {
            match result {
                Ok(()) => report.done += 1,
                Err(failed) => report.failed.push(failed),
            }
        }
        Ok(())
    }

    async fn modes_here(&self, steps: Vec<Step>, report: &mut Report) -> Result<(), Error> {
        self.change_here(steps, report, |here, step| match step {
            Step::ModeHere { path, node, over } => here.set_mode(path, over, node.mode().unwrap_or(0o700)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        })
        .await
    }

    /// Does steps whose loss in a crash does no harm, and records those that are done.
    async fn change_here(
        &self,
        steps: Vec<Step>,
        report: &mut Report,
        change: fn(&Here, &Step) -> io::Result<Done>,
    ) -> Result<(), Error> {
        let here = self.here();
        let results = spawn_blocking(move || {
            let done = |step: Step| {
                let result = change(&here, &step);
                (step, result)
            };
            steps.into_iter().map(done).collect::<Vec<_>>()
        });
        let mut records = Vec::new();
        for (step, result) in results.await.map_err(joined)? {
            match result {
                Ok(Done::Changed(node)) => {
                    report.done += 1;
                    records.push(after(step.path(), Some(node)));
                }
                Ok(_) => {}
                Err(e) => report.failed.push((step.path().to_string(), e.to_string())),
            }
        }
        self.record(records).await
    }
}

/// The steps of a plan by who does them.
struct Work {
    agree: Vec<Step>,
    keep: Vec<Step>,
    outgoing: Vec<Step>,
    delete: Vec<Step>,
    fetch: Vec<Step>,
    modes: Vec<Step>,
}

impl Work {
    fn add(&mut self, step: Step) {
        let steps = match &step {
            Step::Agree { .. } => &mut self.agree,
            Step::KeepBoth { .. } => &mut self.keep,
            Step::DeleteThere { .. } | Step::Push { .. } | Step::ModeThere { .. } => &mut self.outgoing,
            Step::DeleteHere { .. } => &mut self.delete,
            Step::Fetch { .. } => &mut self.fetch,
            Step::ModeHere { .. } => &mut self.modes,
        };
        steps.push(step);
    }
}

fn size_of(node: &Node) -> u64 {
    if let Node::File { size, .. } = node { *size } else { 0 }
}

fn joined(error: tokio::task::JoinError) -> Error {
    Error::Here(error.into())
}

/// What the names of this mount's temporary files have, that no other mount's have.
fn tag(journal: &std::path::Path) -> String {
    Sha256::digest(journal.as_os_str().as_encoded_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The time in names of copies, `20261129T193450Z`.
fn time_now() -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    time.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod speed {
    mod tests;
}
