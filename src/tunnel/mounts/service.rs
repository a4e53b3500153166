//! The mounted directories of a tunnel: which binds become mirrors, who uses them, and who waits for them.
//!
//! The Engine's events only trigger a request for its list of containers, as with published ports.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::entry::{Entry, MountStatus, MountUse};
use super::host::Mirror;
use super::known::{Known, Records};
use super::login::Login;
use super::scan::Source;
use super::verdict::{Verdict, verdict};
use crate::backoff::Backoff;
use crate::config::{self, Target};
use crate::engine::{self, Changes, Mounting, Session};
use crate::os::beneath;
use crate::shell_word::quoted;
use crate::sync::lock;
use crate::text::shown;
use crate::tunnel::binds::Bind;
use crate::tunnel::dial::{Dial, Purpose};
use crate::tunnel::uptime::state::{Availability, Status};

/// Time limit of an answer from the Engine.
const ANSWER: Duration = Duration::from_secs(10);
/// Time limit of a question to the host.
const QUESTION: Duration = Duration::from_secs(10);
/// Pauses before the Engine's events are requested again: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a mirror that no container uses is kept in step: one may be about to be created.
const UNUSED: Duration = Duration::from_secs(60);

/// Says where the login's cache is, if the host has what mirrors take.
const CACHE: &str = "for p in find stat tar; do command -v $p >/dev/null || { echo \"the host has no $p\" >&2; exit 1; }; \
                     done; printf %s \"${XDG_CACHE_HOME:-$HOME/.cache}\"";

/// The mounted directories of a tunnel.
#[derive(Debug)]
pub(in crate::tunnel) struct Mounts {
    entries: Mutex<HashMap<Source, Arc<Entry>>>,
    /// Entries that are to be kept in step.
    new: mpsc::UnboundedSender<Arc<Entry>>,
    taken: tokio::sync::Mutex<mpsc::UnboundedReceiver<Arc<Entry>>>,
    /// How to reach the host; None while directories are not mounted.
    login: watch::Sender<Option<Login>>,
    base: tokio::sync::Mutex<Option<Base>>,
    /// The ids and names of all containers, as they were last listed.
    listed: Mutex<Vec<(String, String)>>,
    /// Has there been an entry?
    are_there: watch::Sender<bool>,
    /// Are the mirrors of earlier containers still to be found?
    is_searching: watch::Sender<bool>,
}

impl Mounts {
    pub(in crate::tunnel) fn new() -> Self {
        let (new, taken) = mpsc::unbounded_channel();
        Self {
            entries: Mutex::default(),
            new,
            taken: tokio::sync::Mutex::new(taken),
            login: watch::Sender::default(),
            base: tokio::sync::Mutex::default(),
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
                if bind.is_mount() || self.look(&bind.source).await? != OnHost::Absent {
                    return Ok(None);
                }
                let made = path.clone();
                blocking(move || std::fs::create_dir_all(made))
                    .await?
                    .map_err(|e| format!("cannot make {}: {e}", path.display()))?;
                tracing::info!("made {}, which a container mounts", path.display());
                (Source { dir: path.canonicalize().map_err(|e| e.to_string())?, only: None }, false)
            }
        };
        let known = lock(&self.entries).get(&source).cloned();
        let entry = match known {
            Some(entry) => entry,
            None => {
                if asks_host {
                    match self.look(&bind.source).await? {
                        OnHost::Absent => {}
                        OnHost::Same => return Ok(None),
                        OnHost::Other => {
                            return Err(format!(
                                "{0} is on this machine and on the host, and they are not the same. For this machine's, name \
                                 it in the profile: mounts = [\"{0}\"]. For the host's, write {1}{0}, or name that there",
                                shown(&bind.source),
                                config::OF_HOST
                            ));
                        }
                    }
                }
                self.open(source, settings).await?
            }
        };
        entry.is_wanted();
        if !bind.is_read_only {
            begin(&entry, settings);
        }
        entry.round().await?;
        Ok(Some(entry.path_on_host()))
    }

    /// Begins to keep a source in step, with a new mirror or a known one.
    async fn open(&self, source: Source, settings: &config::Mounts) -> Result<Arc<Entry>, String> {
        let said = |e: std::io::Error| format!("what is known of mounts cannot be stored: {e}");
        let base = self.base().await?;
        let (records, of) = (Records::of(settings), source);
        let known = blocking(move || {
            let id = records.id(&of)?;
            let known = Known { root: format!("{}/{id}", base.dir), id, source: of, by_sftp: base.by_sftp };
            records.add(&known)?;
            Ok(known)
        });
        let known = known.await?.map_err(said)?;
        Ok(self.keep(known, settings))
    }

    fn keep(&self, known: Known, settings: &config::Mounts) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(known.source.clone()).or_insert_with(|| {
            let entry = Arc::new(Entry::new(known, settings.max));
            let _ = self.new.send(entry.clone());
            entry
        });
        self.are_there.send_replace(true);
        entry.clone()
    }

    /// Nothing is kept in step any more, or that at another host.
    fn forget(&self) {
        self.login.send_replace(None);
        lock(&self.entries).drain().for_each(|(_, entry)| entry.end());
        lock(&self.listed).clear();
        self.is_searching.send_replace(false);
        if let Ok(mut base) = self.base.try_lock() {
            *base = None;
        }
    }

    async fn login(&self) -> Result<Login, String> {
        let mut login = self.login.subscribe();
        let login = tokio::time::timeout(QUESTION, login.wait_for(Option::is_some)).await;
        let login = login.map_err(|_| "directories are not mounted now")?.map_err(|_| "the tunnel has ended")?;
        login.clone().ok_or_else(|| "directories are not mounted now".into())
    }

    async fn ask(&self, script: &str) -> Result<String, String> {
        let login = self.login().await?;
        let answer = tokio::time::timeout(QUESTION, login.ask(script)).await;
        let answer =
            answer.map_err(|_| format!("the host did not answer within {}", humantime::format_duration(QUESTION)))?;
        answer.map_err(|e| format!("directories of this machine cannot be mounted: {}", shown(&e.to_string())))
    }

    /// Where the login's mirrors are on its host, and how they are reached.
    async fn base(&self) -> Result<Base, String> {
        let mut base = self.base.lock().await;
        if let Some(base) = &*base {
            return Ok(base.clone());
        }
        let by_commands = self.ask(CACHE).await;
        let (cache, by_sftp) = match by_commands {
            Ok(cache) => (cache, false),
            Err(why) => match self.by_sftp(Mirror::home_by_sftp).await {
                Ok(home) => (format!("{home}/.cache"), true),
                Err(of_sftp) => return Err(format!("{why}; by SFTP: {of_sftp}")),
            },
        };
        // It becomes part of a bind.
        if !cache.starts_with('/') || cache.contains(|c: char| c.is_control() || c == ':' || c == ',') {
            return Err(format!("mirrors cannot be in {} on the host", shown(&cache)));
        }
        let dir = format!("{}/dtunnel/mounts", cache.trim_end_matches('/'));
        Ok(base.insert(Base { dir, by_sftp }).clone())
    }

    async fn by_sftp<T>(&self, question: impl AsyncFnOnce(&Login) -> std::io::Result<T>) -> Result<T, String> {
        let login = self.login().await?;
        let answer = tokio::time::timeout(QUESTION, question(&login)).await;
        answer.map_err(|_| "the host's SFTP server does not answer".to_owned())?.map_err(|e| shown(&e.to_string()))
    }

    /// What the host has at this path of ours.
    async fn look(&self, path: &str) -> Result<OnHost, String> {
        if self.base().await?.by_sftp {
            let is_there = self.by_sftp(async |login| Mirror::is_there_by_sftp(login, path).await).await?;
            return Ok(if is_there { OnHost::Other } else { OnHost::Absent });
        }
        let script = format!("if [ -e {0} ] || [ -L {0} ]; then stat -c '%i %s %Y %Z' {0}; fi", quoted(path));
        let theirs = self.ask(&script).await?;
        if theirs.trim().is_empty() {
            return Ok(OnHost::Absent);
        }
        let path = PathBuf::from(path);
        let ours = blocking(move || std::fs::symlink_metadata(path)).await?.map(|meta| beneath::marks(&meta));
        Ok(if ours.is_ok_and(|ours| ours == theirs.trim()) { OnHost::Same } else { OnHost::Other })
    }

    /// Waits until what a container that a client calls so has written is here. None: every one that runs.
    pub(in crate::tunnel) async fn written(&self, container: Option<&str>) {
        self.until_found().await;
        let entries = self.all();
        let is_unknown = container.is_some_and(|name| !self.is_listed(name));
        let concerned = entries.iter().filter(|entry| is_unknown || entry.may_be_written_by(container));
        let wanted: Vec<_> = concerned.map(|entry| (entry, entry.want())).collect();
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
        let concerned = entries.iter().filter(|entry| is_unknown || entry.is_mounted_by(container));
        let wanted: Vec<_> = concerned.filter(|entry| !entry.is_fresh()).map(|entry| (entry, entry.want())).collect();
        for (entry, number) in wanted {
            let _ = entry.until(number).await;
        }
    }

    /// Waits until the mirrors of earlier containers are found.
    async fn until_found(&self) {
        let mut is_searching = self.is_searching.subscribe();
        let _ = tokio::time::timeout(ANSWER, is_searching.wait_for(|is_searching| !is_searching)).await;
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
        self.base().await.map(drop)
    }

    /// Waits until all that is used is in step.
    ///
    /// # Errors
    /// Why something is not.
    pub(in crate::tunnel) async fn sync(&self) -> Result<(), String> {
        self.until_found().await;
        let wanted: Vec<_> = self.all().into_iter().map(|entry| (entry.want(), entry)).collect();
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
        let login = self.login().await?;
        // What has just been created counts.
        let dial = login.dial();
        let containers = list(&dial).await.map_err(|e| format!("the Engine's containers cannot be listed: {e}"))?;
        self.listed(containers, settings);
        let (mut removed, records) = (0, Records::of(settings));
        for known in records.all() {
            let entry = lock(&self.entries).get(&known.source).cloned();
            if entry.as_ref().is_some_and(|entry| entry.unused_for().is_none()) {
                continue;
            }
            if let Some(entry) = entry {
                // What was written last is fetched first.
                entry.round().await?;
                entry.end();
                lock(&self.entries).remove(&known.source);
            }
            known.mirror(login.clone()).remove().await.map_err(|e| format!("{}: {e}", known.root))?;
            let records = records.clone();
            blocking(move || records.remove(&known)).await?.map_err(|e| e.to_string())?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Takes the Engine's list of all containers.
    fn listed(&self, containers: Vec<Mounting>, settings: &config::Mounts) {
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
            let uses: Vec<MountUse> = uses.collect();
            if uses.iter().any(|of| !of.read_only) {
                begin(&entry, settings);
            }
            entry.used_by(uses);
        }
        self.is_searching.send_replace(false);
        *lock(&self.listed) = containers.into_iter().map(|container| (container.id, container.name)).collect();
    }

    /// Opens the mirrors of containers that were there before, and those of which nobody knows whether all is here.
    fn open_known(&self, containers: &[Mounting], settings: &config::Mounts) {
        let records = Records::of(settings);
        for known in records.all() {
            if records.is_begun(&known)
                || containers.iter().any(|container| container.binds.iter().any(|bind| known.is_at(&bind.source)))
            {
                let is_begun = records.is_begun(&known);
                let entry = self.keep(known, settings);
                if is_begun {
                    entry.becomes_writable();
                }
            }
        }
    }

    /// Drops what nothing has used for a while, if all of it is here.
    fn drop_unused(&self, settings: &config::Mounts) {
        lock(&self.entries).retain(|_, entry| {
            let is_used = entry.unused_for().is_none_or(|unused| unused < UNUSED);
            if is_used || !entry.is_in_step() {
                return true;
            }
            entry.end();
            Records::of(settings).ends(&entry.known);
            false
        });
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

/// Where mirrors are on the host.
#[derive(Debug, Clone)]
struct Base {
    dir: String,
    /// The login may run no commands.
    by_sftp: bool,
}

/// What the host has at a path of ours.
#[derive(Debug, PartialEq, Eq)]
enum OnHost {
    Absent,
    /// The very same: both share the file system, or are one machine.
    Same,
    Other,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())
}

/// The parts of a tunnel that mounts use.
pub(in crate::tunnel) struct Parts {
    /// The tunnel's settings.
    pub(in crate::tunnel) settings: watch::Receiver<Arc<Target>>,
    /// The tunnel's status, which shows whether there is a connection.
    pub(in crate::tunnel) status: watch::Receiver<Status>,
    /// Opens flows to the Engine and its host.
    pub(in crate::tunnel) dial: Arc<dyn Dial>,
}

/// Keeps what containers mount in step while the settings have directories mounted. Never returns.
pub(in crate::tunnel) async fn keep(mounts: &Mounts, mut parts: Parts) {
    let of_mounts = |target: &Target| target.mounts.clone();
    loop {
        let target = parts.settings.borrow_and_update().clone();
        let Some(settings) = of_mounts(&target) else {
            let _ = parts.settings.changed().await;
            continue;
        };
        let mut later = parts.settings.clone();
        let others = later.wait_for(|now| of_mounts(now) != of_mounts(&target) || !now.leads_as(&target));
        tokio::select! {
            () = keep_in_step(mounts, &parts, &settings) => {}
            _ = others => {}
        }
        mounts.forget();
    }
}

/// Keeps the entries in step. Never returns.
async fn keep_in_step(mounts: &Mounts, parts: &Parts, settings: &config::Mounts) {
    mounts.login.send_replace(Some(Login::new(parts.dial.clone())));
    mounts.is_searching.send_replace(!Records::of(settings).all().is_empty());
    let mut taken = mounts.taken.lock().await;
    // Ends them, too.
    let mut keeping = JoinSet::new();
    let following = follow(mounts, parts.status.clone(), &parts.dial, settings);
    let mut following = std::pin::pin!(following);
    loop {
        tokio::select! {
            () = &mut following => {}
            Some(entry) = taken.recv() => {
                let (login, journal) = (Login::new(parts.dial.clone()), Records::of(settings).journal(&entry.known.id));
                keeping.spawn(entry.keep(login, journal));
            }
            Some(ended) = keeping.join_next() => if let Err(e) = ended {
                tracing::error!("a mounted directory is not kept in step any more: {e}");
            }
        }
    }
}

/// Follows the Engine's events over one connection after another, once there is a mirror. Never returns.
async fn follow(mounts: &Mounts, mut status: watch::Receiver<Status>, dial: &Arc<dyn Dial>, settings: &config::Mounts) {
    let is_connected = |status: &Status| status.state.availability() == Availability::Connected;
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut are_there = mounts.are_there.subscribe();
    if Records::of(settings).all().is_empty() && are_there.wait_for(|are_there| *are_there).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        if status.wait_for(is_connected).await.is_err() {
            return std::future::pending().await;
        }
        let begun = Instant::now();
        if let Err(error) = listen(mounts, dial, settings).await {
            tracing::debug!("the Engine's events have ended: {error}");
        }
        if begun.elapsed() > LONGEST_PAUSE {
            pauses.reset();
        }
        let cut_off = status.wait_for(|status| !is_connected(status));
        let _ = tokio::time::timeout(pauses.pause(), cut_off).await;
    }
}

/// Lists all containers at each change, until the stream of events is cut.
async fn listen(mounts: &Mounts, dial: &Arc<dyn Dial>, settings: &config::Mounts) -> Result<(), engine::Error> {
    // Events first: no change during the list request is missed.
    let mut changes: Changes = session(dial).await?.changes_of_all(ANSWER).await?;
    loop {
        let containers = list(dial).await?;
        mounts.open_known(&containers, settings);
        mounts.listed(containers, settings);
        loop {
            mounts.drop_unused(settings);
            match tokio::time::timeout(UNUSED, changes.next()).await {
                Ok(changed) => break changed?,
                Err(_) => {}
            }
        }
    }
}

async fn list(dial: &Arc<dyn Dial>) -> Result<Vec<Mounting>, engine::Error> {
    session(dial).await?.mountings(ANSWER).await
}

async fn session(dial: &Arc<dyn Dial>) -> Result<Session, engine::Error> {
    let stream = dial.clone().dial(Purpose::listening()).map_err(|e| engine::Error::Body(e.to_string()))?;
    Session::over(stream).await
}
