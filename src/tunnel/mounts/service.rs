//! The mounted directories of a tunnel: which binds become mirrors, who uses them, and who waits for them.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::entry::{Entry, Want};
use super::ground::{Ground, OnHost, blocking, containers};
use super::known::{Known, Records};
use super::scan::Source;
use super::status::{MountStatus, MountUse};
use super::verdict::{Verdict, verdict};
use crate::config;
use crate::engine::Mounting;
use crate::os::files::create_open_dirs;
use crate::sync::lock;
use crate::text::shown;
use crate::tunnel::binds::Bind;

/// Time limit of an answer from the Engine.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a container may take to be created once its mirrors are there.
const CREATING: Duration = Duration::from_secs(2);
/// How long a mirror that no container uses is kept in step: one may be about to be created.
const UNUSED: Duration = Duration::from_secs(60);

/// The mounted directories of a tunnel.
#[derive(Debug)]
pub(in crate::tunnel) struct Mounts {
    entries: Mutex<HashMap<Source, Arc<Entry>>>,
    /// Entries that are to be kept in step.
    new: mpsc::UnboundedSender<Arc<Entry>>,
    pub(super) taken: tokio::sync::Mutex<mpsc::UnboundedReceiver<Arc<Entry>>>,
    pub(super) ground: Ground,
    /// The ids and names of all containers, as they were last listed.
    listed: Mutex<Vec<(String, String)>>,
    /// Has there been an entry?
    pub(super) are_there: watch::Sender<bool>,
    /// Are the mirrors of earlier containers still to be found?
    pub(super) is_searching: watch::Sender<bool>,
}

impl Mounts {
    pub(in crate::tunnel) fn new() -> Self {
        let (new, taken) = mpsc::unbounded_channel();
        Self {
            entries: Mutex::default(),
            new,
            taken: tokio::sync::Mutex::new(taken),
            ground: Ground::default(),
            listed: Mutex::default(),
            are_there: watch::Sender::default(),
            is_searching: watch::Sender::default(),
        }
    }

    /// The path on the host that a container gets in place of a bind's source; None: the same. A mirror is in step then.
    ///
    /// # Errors
    /// What to say to the client.
    pub(in crate::tunnel) async fn on_host(
        &self,
        bind: &Bind,
        settings: &config::Mounts,
    ) -> Result<Option<String>, String> {
        let (source, rules) = (bind.source.clone(), settings.clone());
        let judged = blocking(move || verdict(&source, &rules)).await?;
        let (source, asks_host) = match judged? {
            Verdict::AsItIs => return Ok(None),
            Verdict::OfHost(path) => return Ok(Some(path)),
            Verdict::Mirror { source, asks_host } => (source, asks_host),
            Verdict::New(path) => {
                // For a mount (not a bind) of what is nowhere the Engine has an error.
                if bind.is_mount() || self.ground.look(&bind.source).await? != OnHost::Absent {
                    return Ok(None);
                }
                let made = path.clone();
                blocking(move || create_open_dirs(&made))
                    .await?
                    .map_err(|e| format!("cannot make {}: {e}", path.display()))?;
                tracing::info!("made {}, which a container mounts", path.display());
                (Source { dir: path.canonicalize().map_err(|e| e.to_string())?, only: None }, false)
            }
        };
        loop {
            let Some(entry) = self.entry(&source, bind, asks_host, settings).await? else { return Ok(None) };
            let _waiting = Waiting::of(self, &entry, settings);
            if !bind.is_read_only {
                begin(&entry, settings);
            }
            match entry.round().await {
                // Nothing had used it for a while, and it was dropped just then.
                Err(_) if entry.is_ended() => {}
                done => return done.map(|()| Some(entry.path_on_host())),
            }
        }
    }

    /// The entry of a source, which is about to be used. None: the host has the very same file.
    async fn entry(
        &self,
        source: &Source,
        bind: &Bind,
        asks_host: bool,
        settings: &config::Mounts,
    ) -> Result<Option<Arc<Entry>>, String> {
        // With the lock, under which unused ones are dropped.
        if let Some(entry) = lock(&self.entries).get(source).filter(|entry| !entry.is_ended()) {
            entry.is_wanted();
            return Ok(Some(entry.clone()));
        }
        let of_host = if asks_host { self.ground.look(&bind.source).await? } else { OnHost::Absent };
        match of_host {
            OnHost::Absent => self.open(source.clone(), settings).await.map(Some),
            OnHost::Same => Ok(None),
            OnHost::Other => Err(format!(
                "{0} is on this machine and on the host, and they are not the same. For this machine's, name it in the \
                 profile: mounts = [\"{0}\"]. For the host's, write {1}{0}, or name that there",
                shown(&bind.source),
                config::OF_HOST
            )),
        }
    }

    /// Begins to keep a source in step, with a new mirror or a known one.
    async fn open(&self, source: Source, settings: &config::Mounts) -> Result<Arc<Entry>, String> {
        let said = |e: std::io::Error| format!("what is known of mounts cannot be stored: {e}");
        let base = self.ground.base().await?;
        let (records, of) = (Records::of(settings), source);
        let known = blocking(move || {
            let id = records.id(&of)?;
            let known =
                Known { root: format!("{}/{id}", base.dir), id, source: of, by_sftp: base.by_sftp, files: 0, bytes: 0 };
            let is_new = !records.has(&known);
            records.add(&known)?;
            Ok((known, is_new))
        });
        let (known, is_new) = known.await?.map_err(said)?;
        Ok(self.keep(known, is_new, settings))
    }

    fn keep(&self, known: Known, is_new: bool, settings: &config::Mounts) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(known.source.clone()).or_insert_with(|| {
            let entry = Arc::new(Entry::new(known, is_new, settings.max));
            let _ = self.new.send(entry.clone());
            entry
        });
        self.are_there.send_replace(true);
        entry.clone()
    }

    /// Nothing is kept in step any more, or that at another host.
    pub(super) fn forget(&self) {
        self.ground.set(None);
        lock(&self.entries).drain().for_each(|(_, entry)| entry.end());
        lock(&self.listed).clear();
        self.is_searching.send_replace(false);
    }

    /// Waits until what a container that a client calls so has written is here. None: every one that runs.
    pub(in crate::tunnel) async fn written(&self, container: Option<&str>) {
        self.until_found().await;
        let entries = self.all();
        let is_unknown = container.is_some_and(|name| !self.is_listed(name));
        // It may be gone already, or new. What is still being filled no container has.
        let may_be = |entry: &&Arc<Entry>| is_unknown && entry.is_writable() && entry.is_filled();
        let concerned = entries.iter().filter(|entry| may_be(entry) || entry.may_be_written_by(container));
        let wanted: Vec<_> = concerned.map(|entry| (entry, entry.want(Want::Fetched))).collect();
        for (entry, number) in wanted {
            // Why it could not be had is in the log and in the status.
            let _ = entry.until(number).await;
        }
    }

    /// Waits until what a container mounts is in step, before it is started.
    pub(in crate::tunnel) async fn before_start(&self, container: &str) {
        self.until_found().await;
        let entries = self.all();
        let is_unknown = !self.is_listed(container);
        let may_be = |entry: &&Arc<Entry>| is_unknown && entry.is_filled();
        let concerned = entries.iter().filter(|entry| may_be(entry) || entry.is_mounted_by(container));
        let wanted: Vec<_> =
            concerned.filter(|entry| !entry.is_fresh()).map(|entry| (entry, entry.want(Want::Round))).collect();
        for (entry, number) in wanted {
            let _ = entry.until(number).await;
        }
    }

    /// Waits until the mirrors of earlier containers are found.
    async fn until_found(&self) {
        let mut is_searching = self.is_searching.subscribe();
        let _ = tokio::time::timeout(ANSWER, is_searching.wait_for(|is_searching| !is_searching)).await;
    }

    /// Waits until what has changed here is in a container in which a command is about to run.
    pub(in crate::tunnel) async fn before_exec(&self, container: &str) {
        let entries = self.all();
        let concerned = entries.iter().filter(|entry| entry.is_mounted_by(container));
        let wanted: Vec<_> = concerned.map(|entry| (entry, entry.want(Want::Pushed))).collect();
        for (entry, number) in wanted {
            let _ = entry.until(number).await;
        }
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    fn is_listed(&self, name: &str) -> bool {
        lock(&self.listed).iter().any(|(id, of)| of == name || id.starts_with(name))
    }

    /// What is told of all mirrors, also of those that nothing uses.
    pub(in crate::tunnel) fn status(&self, settings: &config::Mounts) -> Vec<MountStatus> {
        let entries = self.all();
        let unused = Records::of(settings)
            .all()
            .into_iter()
            .filter(|known| entries.iter().all(|entry| entry.known.id != known.id));
        let unused: Vec<MountStatus> = unused.map(MountStatus::of_unused).collect();
        let mut all: Vec<MountStatus> = entries.iter().map(|entry| entry.status()).chain(unused).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// Asks the host whether it can have mirrors.
    ///
    /// # Errors
    /// Why it cannot.
    pub(in crate::tunnel) async fn check(&self) -> Result<(), String> {
        self.ground.base().await.map(drop)
    }

    /// Waits until all that is used is in step.
    ///
    /// # Errors
    /// Why something is not.
    pub(in crate::tunnel) async fn sync(&self) -> Result<(), String> {
        self.until_found().await;
        let used = self.all().into_iter().filter(|entry| entry.unused_for().is_none() || entry.is_writable());
        let wanted: Vec<_> = used.map(|entry| (entry.want(Want::Round), entry)).collect();
        for (number, entry) in wanted {
            entry.until(number).await?;
        }
        Ok(())
    }

    /// Removes the mirrors that nothing uses from the host. Returns how many.
    ///
    /// # Errors
    /// Why one could not be removed.
    pub(in crate::tunnel) async fn prune(&self, settings: &config::Mounts) -> Result<usize, String> {
        let login = self.ground.login().await?;
        self.until_found().await;
        // Containers that are being created count.
        let wait = self.all().iter().filter_map(|entry| CREATING.checked_sub(entry.wanted_for()?)).max();
        tokio::time::sleep(wait.unwrap_or_default()).await;
        let listing = containers(&login.dial()).await;
        let containers = listing.map_err(|e| format!("the Engine's containers cannot be listed: {e}"))?;
        let is_used = |known: &Known| containers.iter().any(|container| known.is_mounted_by(container));
        let records = Records::of(settings);
        let (mut removed, mut failed) = (0, Vec::new());
        for known in records.all().into_iter().filter(|known| !is_used(known)) {
            let entry = lock(&self.entries).get(&known.source).cloned();
            let is_begun = records.is_begun(&known);
            let entry = entry.or_else(|| is_begun.then(|| self.keep_known(known.clone(), true, settings)));
            let one = async {
                if let Some(entry) = entry {
                    // What was written last is fetched first.
                    let fetched = entry.round().await;
                    if entry.may_hold_more() {
                        fetched?;
                        return Err(format!(
                            "{}: something on the host could not be fetched",
                            known.source.path().display()
                        ));
                    }
                    entry.end();
                    lock(&self.entries).remove(&known.source);
                }
                known.mirror(login.clone()).remove().await.map_err(|e| format!("{}: {e}", known.root))?;
                let records = records.clone();
                blocking(move || records.remove(&known)).await?.map_err(|e| e.to_string())
            };
            match one.await {
                Ok(()) => removed += 1,
                Err(why) => failed.push(why),
            }
        }
        match failed.is_empty() {
            true => Ok(removed),
            false => Err(format!("removed {removed}; {} stay: {}", failed.len(), failed.join("; "))),
        }
    }

    /// Takes the Engine's list of all containers.
    pub(super) fn listed(&self, containers: Vec<Mounting>) {
        for entry in self.all() {
            let uses = containers.iter().filter_map(|container| {
                let mut binds = container.binds.iter().filter(|bind| entry.is_at(&bind.source)).peekable();
                binds.peek()?;
                Some(MountUse {
                    id: container.id.clone(),
                    container: container.name.clone(),
                    is_running: container.is_running,
                    read_only: binds.all(|bind| bind.is_read_only),
                })
            });
            entry.used_by(uses.collect());
        }
        self.is_searching.send_replace(false);
        *lock(&self.listed) = containers.into_iter().map(|container| (container.id, container.name)).collect();
    }

    /// Opens the mirrors of containers that were there before, and those of which nobody knows whether all is here.
    pub(super) fn open_known(&self, containers: &[Mounting], settings: &config::Mounts) {
        let records = Records::of(settings);
        for known in records.all() {
            let is_begun = records.is_begun(&known);
            if is_begun || containers.iter().any(|container| known.is_mounted_by(container)) {
                self.keep_known(known, is_begun, settings);
            }
        }
    }

    /// Keeps a mirror in step that was made before. `is_begun`: a container may have written to it.
    fn keep_known(&self, known: Known, is_begun: bool, settings: &config::Mounts) -> Arc<Entry> {
        let entry = self.keep(known, false, settings);
        if is_begun {
            entry.becomes_writable();
        }
        entry
    }

    /// Drops what nothing has used for a while, if all of it is here.
    pub(super) fn drop_unused(&self, settings: &config::Mounts) {
        lock(&self.entries).retain(|_, entry| {
            let is_used = entry.unused_for().is_none_or(|unused| unused < UNUSED);
            if is_used || entry.may_hold_more() {
                return true;
            }
            entry.end();
            Records::of(settings).ends(&entry.known());
            false
        });
    }
}

/// A request that waits for an entry. When the last one goes away before the first fill is done, that is given up: nobody
/// uses it, and the host has nothing of it.
struct Waiting<'a> {
    mounts: &'a Mounts,
    entry: &'a Arc<Entry>,
    settings: &'a config::Mounts,
}

impl<'a> Waiting<'a> {
    fn of(mounts: &'a Mounts, entry: &'a Arc<Entry>, settings: &'a config::Mounts) -> Self {
        entry.waiting.fetch_add(1, Relaxed);
        Self { mounts, entry, settings }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut entries = lock(&self.mounts.entries);
        let is_last = self.entry.waiting.fetch_sub(1, Relaxed) == 1;
        if !is_last || self.entry.is_filled() || self.entry.unused_for().is_none() || self.entry.is_ended() {
            return;
        }
        self.entry.end();
        entries.remove(&self.entry.known.source);
        drop(entries);
        if self.entry.is_new {
            let _ = Records::of(self.settings).remove(&self.entry.known);
        }
    }
}

/// A container may write to it from now on.
fn begin(entry: &Entry, settings: &config::Mounts) {
    if entry.becomes_writable()
        && let Err(e) = Records::of(settings).begins(&entry.known)
    {
        tracing::warn!("what is written to {} may not be here if dtunnel is killed: {e}", entry.known.root);
    }
}
