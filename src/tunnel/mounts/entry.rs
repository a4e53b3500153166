//! One mirrored directory or file while the tunnel is up: when it is brought in step, and who waits for that.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::known::Known;
use super::login::Login;
use super::progress::Phase;
use super::report::Report;
use super::round::Mount;
use super::scan::Bounds;
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
/// Most names of files that are told, of each kind.
const TOLD: usize = 20;

/// A container that mounts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountUse {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub container: String,
    pub is_running: bool,
    /// May it only read?
    pub read_only: bool,
}

/// The state of a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountState {
    /// It is brought in step for the first time.
    Filling,
    /// Changes are carried.
    Syncing,
    /// Both sides are the same.
    InStep,
    /// Both sides are the same, and copies of what both had changed are kept.
    Conflict,
    /// Something could not be carried.
    Failing,
    /// No container mounts it: it is not kept in step.
    Unused,
}

impl MountState {
    /// Does it need somebody's attention?
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Conflict | Self::Failing)
    }
}

impl std::fmt::Display for MountState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Filling => "filling",
            Self::Syncing => "syncing",
            Self::InStep => "in step",
            Self::Conflict => "conflict",
            Self::Failing => "failing",
            Self::Unused => "unused",
        })
    }
}

/// What is told of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    /// The directory or file here.
    pub path: PathBuf,
    /// Its mirror on the host.
    pub mirror: String,
    pub containers: Vec<MountUse>,
    pub state: MountState,
    /// How much of what is being carried has been, in percent.
    pub progress: Option<u8>,
    /// Files, directories and links here.
    pub files: usize,
    /// Bytes of all files here.
    pub bytes: u64,
    /// When something was last carried (RFC 3339).
    pub last_change: Option<String>,
    /// Copies that are kept here of what both sides had changed.
    pub conflicts: Vec<String>,
    /// What could not be carried, with the reason.
    pub failed: Vec<String>,
    /// What is not carried: sockets, devices, and links that lead out.
    pub left: Vec<String>,
}

impl MountStatus {
    /// Of a mirror that no container mounts.
    pub(super) fn of_unused(known: Known) -> Self {
        Self {
            path: known.source.path(),
            mirror: known.root,
            containers: Vec::new(),
            state: MountState::Unused,
            progress: None,
            files: 0,
            bytes: 0,
            last_change: None,
            conflicts: Vec::new(),
            failed: Vec::new(),
            left: Vec::new(),
        }
    }
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
}

/// A mirrored directory or file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) known: Known,
    bounds: Bounds,
    wanted: watch::Sender<u64>,
    done: watch::Sender<Done>,
    /// While it is kept in step.
    mount: Mutex<Option<Arc<Mount<Login>>>>,
    uses: Mutex<Uses>,
    /// Woken when that changes.
    used: watch::Sender<()>,
    ended: CancellationToken,
    /// Has a container been given it for writing?
    is_writable: AtomicBool,
}

impl Entry {
    pub(super) fn new(known: Known, max: u64) -> Self {
        let uses = Uses { unused_since: Some(Instant::now()), ..Uses::default() };
        Self {
            known,
            bounds: Bounds { bytes: max, ..Bounds::default() },
            wanted: watch::Sender::new(0),
            done: watch::Sender::default(),
            mount: Mutex::default(),
            uses: Mutex::new(uses),
            used: watch::Sender::default(),
            ended: CancellationToken::new(),
            is_writable: AtomicBool::new(false),
        }
    }

    /// Brings both sides in step, from now on. Returns once that is done.
    ///
    /// # Errors
    /// Why it could not be done.
    pub(super) async fn round(&self) -> Result<(), String> {
        self.until(self.want()).await
    }

    /// Waits until a round that was [wanted](Self::want) is done.
    ///
    /// # Errors
    /// Why it could not be done.
    pub(super) async fn until(&self, number: u64) -> Result<(), String> {
        let mut done = self.done.subscribe();
        let done = done.wait_for(|done| done.number >= number).await.map_err(|_| "the tunnel has ended".to_owned())?;
        match &done.failed {
            Some(why) => Err(format!("{}: {why}", shown(&self.known.source.path().to_string_lossy()))),
            None => Ok(()),
        }
    }

    /// Wants a round that begins from now on. Returns its number.
    pub(super) fn want(&self) -> u64 {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        number
    }

    /// Has a round just been done?
    pub(super) fn is_fresh(&self) -> bool {
        let done = self.done.borrow();
        done.is_in_step && done.begun.is_some_and(|begun| begun.elapsed() < FRESH)
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

    /// Ends its being kept in step.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// May the container that a client calls so have written? None: any that runs.
    pub(super) fn may_be_written_by(&self, container: Option<&str>) -> bool {
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
            let number = self.want();
            uses.ended.extend(ended.into_iter().map(|of| (of, number)));
        }
        uses.unused_since = now.is_empty().then(Instant::now);
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

    /// It is about to be used.
    pub(super) fn is_wanted(&self) {
        let mut uses = lock(&self.uses);
        if uses.unused_since.is_some() {
            uses.unused_since = Some(Instant::now());
        }
    }

    fn is_written(&self) -> bool {
        lock(&self.uses).now.iter().any(|of| of.is_running && !of.read_only)
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
            (true, false) if !done.is_in_step => MountState::Failing,
            (true, false) if !done.conflicts.is_empty() => MountState::Conflict,
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
            let number = *wanted.borrow_and_update();
            self.failed(number, error);
            tokio::select! {
                () = tokio::time::sleep(pauses.pause()) => {}
                _ = wanted.changed() => {}
            }
        }
    }

    async fn open(&self, login: Login, journal: &Path) -> Result<Mount<Login>, String> {
        let (source, bounds, journal) = (self.known.source.clone(), self.bounds, journal.to_owned());
        let mirror = self.known.mirror(login);
        let opened = tokio::task::spawn_blocking(move || Mount::open(source, mirror, &journal, bounds, false));
        opened.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
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
        wanted: &mut watch::Receiver<u64>,
        pauses: &mut Backoff,
    ) -> Result<Infallible, String> {
        self.round_now(mount, wanted).await?;
        let mut watcher = self.watch(mount).await;
        let mut used = self.used.subscribe();
        loop {
            // Also for what changed before it was watched.
            self.round_now(mount, wanted).await?;
            pauses.reset();
            let is_in_step = self.done.borrow().is_in_step;
            loop {
                // Without a watcher changes here are looked for, too.
                let looks = watcher.is_none() || self.is_written();
                let needs_round = tokio::select! {
                    _ = wanted.changed() => true,
                    _ = used.changed() => false,
                    changed = changed(&mut watcher) => match changed {
                        Changed::All => true,
                        Changed::Gone => {
                            watcher = self.watch(mount).await;
                            true
                        }
                        Changed::Paths(paths) => {
                            let report = mount.push(paths).await.map_err(|error| with_causes(&error))?;
                            self.pushed(report)
                        }
                    },
                    () = tokio::time::sleep(LOOK), if looks => watcher.is_none() || {
                        let begun = Instant::now();
                        let report = mount.look().await.map_err(|error| with_causes(&error))?;
                        let number = self.done.borrow().number;
                        report.into_iter().for_each(|report| self.done(number, begun, report));
                        false
                    },
                    () = tokio::time::sleep(LONGEST_PAUSE), if !is_in_step => true,
                };
                if needs_round {
                    break;
                }
            }
        }
    }

    async fn round_now(&self, mount: &Mount<Login>, wanted: &mut watch::Receiver<u64>) -> Result<(), String> {
        let (number, begun) = (*wanted.borrow_and_update(), Instant::now());
        mount.set_read_only(!self.is_writable.load(Relaxed));
        let report = mount.round().await.map_err(|error| with_causes(&error))?;
        self.done(number, begun, report);
        Ok(())
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

    /// Takes what became of a push. Returns whether a round is needed.
    fn pushed(&self, report: Report) -> bool {
        self.done.send_modify(|done| {
            if report.done > 0 {
                done.last_change = Some(SystemTime::now());
            }
            (done.files, done.bytes) = (report.entries, report.bytes);
        });
        report.needs_round
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
