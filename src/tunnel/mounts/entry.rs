//! One mirrored directory or file while the tunnel is up: when it is brought in step, and who waits for that.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::known::Known;
use super::login::Login;
use super::progress::Phase;
use super::report::Report;
use super::round::Mount;
use super::scan::Bounds;
use super::status::{MountState, MountStatus, MountUse};
use super::tree::RelPath;
use super::watcher::{Changed, Watcher};
use crate::backoff::Backoff;
use crate::failure::with_causes;
use crate::sync::lock;
use crate::text::shown;

/// How often the host is looked at while a container may write there.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses after a round that has failed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A start of a container need not wait for another round so shortly after the last one has begun.
const FRESH: Duration = Duration::from_millis(500);
/// How often a journal's lock is tried again, and the pause before.
const WAITS_FOR_LOCK: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Within this time the system tells of a change here, unless it is very busy.
const TOLD_WITHIN: Duration = Duration::from_millis(5);
/// How often the log has the progress of a first round.
const SAID: Duration = Duration::from_secs(5);
/// Most names of files that are told, of each kind.
const TOLD: usize = 20;

/// What is wanted of an entry, from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Changes here are on the host.
    Pushed,
    /// That, and the host's are here.
    Fetched,
    /// Both sides were read anew.
    Round,
}

/// The numbers of what is wanted: of anything, of the last [`Want::Fetched`], and of the last [`Want::Round`].
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    number: u64,
    fetched: u64,
    round: u64,
}

/// The outcome of the last round.
#[derive(Debug, Clone, Default)]
struct Done {
    /// The last round that was wanted when it began.
    number: u64,
    /// When it began.
    begun: Option<Instant>,
    /// Why it could not be done.
    failed: Option<String>,
    is_in_step: bool,
    /// Has any round been done?
    is_filled: bool,
    files: usize,
    bytes: u64,
    last_change: Option<SystemTime>,
    conflicts: BTreeSet<String>,
    not_carried: Vec<String>,
    left: Vec<String>,
}

/// Who uses it.
#[derive(Debug, Default)]
struct Uses {
    now: Vec<MountUse>,
    /// Containers that have written, with the number of the round by which that is here.
    ended: Vec<(MountUse, u64)>,
    /// When the last use ended, or it was made.
    unused_since: Option<Instant>,
    /// When a container was last about to be created with it.
    wanted_since: Option<Instant>,
}

/// A mirrored directory or file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) known: Known,
    /// Was it not known before?
    pub(super) is_new: bool,
    bounds: Bounds,
    wanted: watch::Sender<Wanted>,
    done: watch::Sender<Done>,
    /// While it is kept in step.
    mount: Mutex<Option<Arc<Mount<Login>>>>,
    uses: Mutex<Uses>,
    /// Woken when that changes.
    used: watch::Sender<()>,
    ended: CancellationToken,
    /// Requests that wait for it before they make a container.
    pub(super) waiting: AtomicUsize,
    /// Has a container been given it for writing, by a request through this tunnel? What the host says of that is not
    /// believed.
    is_writable: AtomicBool,
}

impl Entry {
    /// Of a mirror that is to be made (`is_new`), or was made before.
    pub(super) fn new(known: Known, is_new: bool, max: u64) -> Self {
        let uses = Uses { unused_since: Some(Instant::now()), ..Uses::default() };
        Self {
            known,
            is_new,
            bounds: Bounds { bytes: max, ..Bounds::default() },
            wanted: watch::Sender::default(),
            done: watch::Sender::default(),
            mount: Mutex::default(),
            uses: Mutex::new(uses),
            used: watch::Sender::default(),
            ended: CancellationToken::new(),
            waiting: AtomicUsize::new(0),
            is_writable: AtomicBool::new(false),
        }
    }

    /// Brings both sides in step, from now on. Returns once that is done.
    ///
    /// # Errors
    /// Why it could not be done.
    pub(super) async fn round(&self) -> Result<(), String> {
        self.until(self.want(Want::Round)).await
    }

    /// Waits until what was [wanted](Self::want) is done.
    ///
    /// # Errors
    /// Why it could not be done.
    pub(super) async fn until(&self, number: u64) -> Result<(), String> {
        let mut done = self.done.subscribe();
        let done = tokio::select! {
            done = done.wait_for(|done| done.number >= number) => done.map_err(|_| "the tunnel has ended".to_owned())?,
            () = self.ended.cancelled() => return Err("it is not kept in step any more".into()),
        };
        match &done.failed {
            Some(why) => Err(format!("{}: {why}", shown(&self.known.source.path().to_string_lossy()))),
            None => Ok(()),
        }
    }

    /// Wants this, and returns its number.
    pub(super) fn want(&self, want: Want) -> u64 {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            wanted.number += 1;
            number = wanted.number;
            match want {
                Want::Pushed => {}
                Want::Fetched => wanted.fetched = number,
                Want::Round => wanted.round = number,
            }
        });
        number
    }

    /// Has a round just been done?
    pub(super) fn is_fresh(&self) -> bool {
        let done = self.done.borrow();
        done.is_in_step && done.begun.is_some_and(|begun| begun.elapsed() < FRESH)
    }

    /// What is known of it, with how much there is.
    pub(super) fn known(&self) -> Known {
        let done = self.done.borrow();
        Known { files: done.files, bytes: done.bytes, ..self.known.clone() }
    }

    /// Has it a mirror on the host that may hold anything?
    pub(super) fn is_filled(&self) -> bool {
        self.done.borrow().is_filled
    }

    /// Has a container been given it for writing?
    pub(super) fn is_writable(&self) -> bool {
        self.is_writable.load(Relaxed)
    }

    /// May something be on the host that is not here?
    pub(super) fn may_hold_more(&self) -> bool {
        self.is_writable() && (self.is_filled() || !self.is_new) && !self.is_in_step()
    }

    /// Were both sides the same at last?
    pub(super) fn is_in_step(&self) -> bool {
        self.done.borrow().is_in_step
    }

    /// Where containers have it on the host.
    pub(super) fn path_on_host(&self) -> String {
        self.known.path_on_host()
    }

    /// Whether a container's bind is of it.
    pub(super) fn is_at(&self, source: &str) -> bool {
        self.known.is_at(source)
    }

    /// Has it ended?
    pub(super) fn is_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Ends its being kept in step.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// May the container that a client calls so have written? None: any that runs.
    pub(super) fn may_be_written_by(&self, container: Option<&str>) -> bool {
        if !self.is_writable() {
            return false;
        }
        let uses = lock(&self.uses);
        let ended = uses.ended.iter().map(|(of, _)| of);
        uses.now.iter().chain(ended).filter(|of| !of.read_only).any(|of| match container {
            Some(name) => is_named(of, name),
            None => of.is_running,
        })
    }

    /// Does a container that a client calls so mount it?
    pub(super) fn is_mounted_by(&self, container: &str) -> bool {
        lock(&self.uses).now.iter().any(|of| is_named(of, container))
    }

    /// Takes who uses it, by the Engine's list. What those have written that run no more is fetched.
    pub(super) fn used_by(&self, now: Vec<MountUse>) {
        let mut uses = lock(&self.uses);
        if uses.now == now {
            return;
        }
        let still_writes = |before: &MountUse| now.iter().any(|of| of.id == before.id && of.is_running);
        let ended: Vec<MountUse> =
            uses.now.iter().filter(|of| of.is_running && !of.read_only && !still_writes(of)).cloned().collect();
        if !ended.is_empty() {
            let number = self.want(Want::Fetched);
            uses.ended.extend(ended.into_iter().map(|of| (of, number)));
        }
        uses.unused_since = now.is_empty().then(Instant::now);
        if !now.is_empty() {
            uses.wanted_since = None;
        }
        uses.now = now;
        drop(uses);
        self.used.send_replace(());
    }

    /// For how long nothing has used it.
    pub(super) fn unused_for(&self) -> Option<Duration> {
        lock(&self.uses).unused_since.map(|since| since.elapsed())
    }

    /// A container is given it for writing. Returns whether none was before.
    pub(super) fn becomes_writable(&self) -> bool {
        !self.is_writable.swap(true, Relaxed)
    }

    /// For how long it has been wanted for a container that is not listed yet.
    pub(super) fn wanted_for(&self) -> Option<Duration> {
        lock(&self.uses).wanted_since.map(|since| since.elapsed())
    }

    /// It is about to be used.
    pub(super) fn is_wanted(&self) {
        let mut uses = lock(&self.uses);
        uses.wanted_since = Some(Instant::now());
        if uses.unused_since.is_some() {
            uses.unused_since = Some(Instant::now());
        }
    }

    fn is_written(&self) -> bool {
        self.is_writable() && lock(&self.uses).now.iter().any(|of| of.is_running && !of.read_only)
    }

    /// What is told of it.
    pub(super) fn status(&self) -> MountStatus {
        let done = self.done.borrow().clone();
        let containers = lock(&self.uses).now.clone();
        let progress = lock(&self.mount).as_ref().map(|mount| mount.progress()).unwrap_or_default();
        let is_carrying = matches!(progress.phase, Phase::Sending | Phase::Fetching);
        let state = match (done.is_filled, is_carrying) {
            _ if done.failed.is_some() => MountState::Failing,
            (false, _) => MountState::Filling,
            (true, true) => MountState::Syncing,
            (true, false) if !done.is_in_step && done.not_carried.is_empty() => MountState::Syncing,
            (true, false) if !done.is_in_step => MountState::Failing,
            (true, false) if !done.conflicts.is_empty() => MountState::Conflict,
            (true, false) if containers.is_empty() => MountState::Unused,
            (true, false) => MountState::InStep,
        };
        MountStatus {
            path: self.known.source.path(),
            mirror: self.known.root.clone(),
            containers,
            state,
            progress: progress.percent().filter(|_| is_carrying),
            files: done.files,
            bytes: done.bytes,
            last_change: done.last_change.map(|time| humantime::format_rfc3339_seconds(time).to_string()),
            conflicts: done.conflicts.into_iter().collect(),
            failed: done.failed.into_iter().chain(done.not_carried).collect(),
            left: done.left,
        }
    }

    /// Keeps both sides in step, until the [end](Self::end).
    pub(super) async fn keep(self: Arc<Self>, login: Login, journal: PathBuf) {
        let keeping = self.clone().keep_on(login, journal);
        let _ = self.ended.run_until_cancelled(keeping).await;
        // With it the journal's lock: the next one may have been made already.
        *lock(&self.mount) = None;
    }

    async fn keep_on(self: Arc<Self>, login: Login, journal: PathBuf) {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut wanted = self.wanted.subscribe();
        loop {
            let kept = async {
                let mount = Arc::new(self.open(login.clone(), &journal).await?);
                *lock(&self.mount) = Some(mount.clone());
                self.follow(&mount, &mut wanted, &mut pauses).await
            };
            let Err(error) = kept.await;
            *lock(&self.mount) = None;
            let number = wanted.borrow_and_update().number;
            self.failed(number, error);
            tokio::select! {
                () = tokio::time::sleep(pauses.pause()) => {}
                _ = wanted.changed() => {}
            }
        }
    }

    async fn open(&self, login: Login, journal: &Path) -> Result<Mount<Login>, String> {
        let mut left = WAITS_FOR_LOCK;
        loop {
            let (source, bounds, journal) = (self.known.source.clone(), self.bounds, journal.to_owned());
            let mirror = self.known.mirror(login.clone());
            let opened = tokio::task::spawn_blocking(move || Mount::open(source, mirror, &journal, bounds, false));
            match opened.await.map_err(|e| e.to_string())? {
                Ok(mount) => return Ok(mount),
                // The entry before this one is ending.
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && left > 0 => left -= 1,
                Err(e) => return Err(e.to_string()),
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    fn failed(&self, number: u64, why: String) {
        self.done.send_modify(|done| {
            if done.failed.as_ref() != Some(&why) {
                tracing::warn!("{} is not in step: {why}", self.known.source.path().display());
            }
            (done.number, done.failed, done.is_in_step) = (number, Some(why), false);
        });
    }

    async fn follow(
        &self,
        mount: &Mount<Login>,
        wanted: &mut watch::Receiver<Wanted>,
        pauses: &mut Backoff,
    ) -> Result<Infallible, String> {
        self.fill(mount, wanted).await?;
        let mut watcher = self.watch(mount).await;
        let mut retries = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut used = self.used.subscribe();
        loop {
            // Also for what changed before it was watched.
            self.round_now(mount, wanted).await?;
            pauses.reset();
            let is_in_step = self.is_in_step();
            if is_in_step {
                retries.reset();
            }
            let retry = Instant::now() + retries.pause();
            loop {
                // Without a watcher changes here are looked for, too.
                let looks = watcher.is_none() || self.is_written();
                let needs_round = tokio::select! {
                    _ = wanted.changed() => self.as_wanted(mount, &mut watcher, wanted).await?,
                    _ = used.changed() => false,
                    changed = changed(&mut watcher) => match changed {
                        Changed::All => true,
                        Changed::Gone => {
                            watcher = self.watch(mount).await;
                            true
                        }
                        Changed::Paths(paths) => self.push(mount, paths).await?,
                    },
                    () = tokio::time::sleep(LOOK), if looks => match watcher.is_some() {
                        true => {
                            let number = self.done.borrow().number;
                            self.look(mount, number).await?;
                            false
                        }
                        false => true,
                    },
                    () = tokio::time::sleep_until(retry), if !is_in_step => true,
                };
                if needs_round {
                    break;
                }
            }
        }
    }

    /// Does what is wanted, if that takes no round. Returns whether it does.
    async fn as_wanted(
        &self,
        mount: &Mount<Login>,
        watcher: &mut Option<Watcher>,
        wanted: &mut watch::Receiver<Wanted>,
    ) -> Result<bool, String> {
        let done = self.done.borrow().number;
        let Some(telling) = watcher.as_mut().filter(|_| wanted.borrow().round <= done) else { return Ok(true) };
        let now = *wanted.borrow_and_update();
        // The system tells of what has just been changed.
        tokio::time::sleep(TOLD_WITHIN).await;
        let needs_round = match telling.pending() {
            None => false,
            Some(Changed::Paths(paths)) => self.push(mount, paths).await?,
            Some(Changed::All) => true,
            Some(Changed::Gone) => {
                *watcher = self.watch(mount).await;
                true
            }
        };
        if needs_round {
            return Ok(true);
        }
        match now.fetched > done {
            true => self.look(mount, now.number).await?,
            false => self.done.send_modify(|done| done.number = now.number),
        }
        Ok(false)
    }

    /// The first round, of which the log has the progress.
    async fn fill(&self, mount: &Mount<Login>, wanted: &mut watch::Receiver<Wanted>) -> Result<(), String> {
        let mut filling = std::pin::pin!(self.round_now(mount, wanted));
        loop {
            tokio::select! {
                done = &mut filling => return done,
                () = tokio::time::sleep(SAID) => if let Some(percent) = mount.progress().percent() {
                    tracing::info!("{}: {percent} % carried", self.known.source.path().display());
                }
            }
        }
    }

    async fn round_now(&self, mount: &Mount<Login>, wanted: &mut watch::Receiver<Wanted>) -> Result<(), String> {
        let (number, begun) = (wanted.borrow_and_update().number, Instant::now());
        mount.set_read_only(!self.is_writable());
        let report = mount.round().await.map_err(|error| with_causes(&error))?;
        self.done(number, begun, report);
        Ok(())
    }

    /// Takes changes here to the host. Returns whether a round is needed.
    async fn push(&self, mount: &Mount<Login>, paths: Vec<RelPath>) -> Result<bool, String> {
        let report = mount.push(paths).await.map_err(|error| with_causes(&error))?;
        self.done.send_modify(|done| {
            if report.done > 0 {
                done.last_change = Some(SystemTime::now());
            }
            (done.files, done.bytes) = (report.entries, report.bytes);
        });
        Ok(report.needs_round)
    }

    /// Takes changes of the host, if there are any, and with them those here.
    async fn look(&self, mount: &Mount<Login>, number: u64) -> Result<(), String> {
        let begun = Instant::now();
        mount.set_read_only(!self.is_writable());
        match mount.look().await.map_err(|error| with_causes(&error))? {
            Some(report) => self.done(number, begun, report),
            None => self.is_done(number),
        }
        Ok(())
    }

    fn is_done(&self, number: u64) {
        self.done.send_modify(|done| done.number = number);
        lock(&self.uses).ended.retain(|(_, by)| *by > number);
    }

    async fn watch(&self, mount: &Mount<Login>) -> Option<Watcher> {
        match mount.watch().await {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                let path = self.known.source.path();
                let why = with_causes(&error);
                tracing::warn!("{} is looked through each second: {why}", path.display());
                None
            }
        }
    }

    fn done(&self, number: u64, begun: Instant, report: Report) {
        let path = self.known.source.path();
        if !self.done.borrow().is_filled {
            let (files, took) = (report.entries, begun.elapsed().as_millis());
            tracing::info!("{} is on the host: {files} files, {} bytes, in {took} ms", path.display(), report.bytes);
        }
        for copy in &report.conflicts {
            tracing::warn!(
                "{}: both sides had changed it; the host's is kept as {copy}",
                self.known.source.dir.display()
            );
        }
        self.done.send_modify(|done| {
            let not_carried: Vec<String> =
                report.failed.iter().take(TOLD).map(|(path, why)| format!("{path}: {why}")).collect();
            for new in not_carried.iter().filter(|one| !done.not_carried.contains(one)) {
                tracing::warn!("{}: {new}", path.display());
            }
            if report.done > 0 || !done.is_filled {
                done.last_change = Some(SystemTime::now());
            }
            done.is_in_step = report.is_in_step();
            done.conflicts.extend(report.conflicts.iter().map(ToString::to_string));
            (done.number, done.begun, done.failed, done.is_filled) = (number, Some(begun), None, true);
            (done.files, done.bytes) = (report.entries, report.bytes);
            (done.not_carried, done.left) =
                (not_carried, report.left.iter().take(TOLD).map(|(path, left)| format!("{path}: {left}")).collect());
        });
        lock(&self.uses).ended.retain(|(_, by)| *by > number);
    }
}

/// The next change here; never without a watcher.
async fn changed(watcher: &mut Option<Watcher>) -> Changed {
    match watcher {
        Some(watcher) => watcher.changed().await,
        None => std::future::pending().await,
    }
}

fn is_named(of: &MountUse, name: &str) -> bool {
    of.container == name || of.id.starts_with(name)
}

#[cfg(test)]
mod tests;
