//! Changes here, as the system tells them: gathered until there are no more for a moment, and as paths.
//!
//! What a round writes here is told like any change. It is no endless work: the next push finds it in step, and asks the
//! host nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::scan::Source;
use super::tree::{RelPath, is_own_name};
use crate::os::beneath::bytes_of;
use crate::sync::lock;

/// Changes are handed on when there was none for so long.
const QUIET: Duration = Duration::from_millis(30);
/// After the first change, whatever follows.
const MOST: Duration = Duration::from_millis(100);
/// A new directory is told once more after so long: files may have come into it before it was watched itself.
const AGAIN: Duration = Duration::from_millis(500);
/// More paths at once are all.
const MOST_PATHS: usize = 1000;

/// Why changes here are not told. The owner looks by itself then.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWatched {
    #[error("the system watches no more directories for this user (sysctl fs.inotify.max_user_watches)")]
    Limit,
    #[error("changes are not told by the system")]
    System(#[source] notify::Error),
    #[error("changes are not watched")]
    Here(#[source] std::io::Error),
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    /// These paths, or something below them.
    Paths(Vec<RelPath>),
    /// Nobody knows what: too much at once, or some of it was not told.
    All,
    /// The directory itself was removed or renamed: nothing more is told. The owner watches again what has the name now.
    Gone,
}

/// Whether a path is not carried.
pub(super) type IsIgnored = Arc<dyn Fn(&RelPath) -> bool + Send + Sync>;

/// Watches a source until it is dropped.
pub(super) struct Watcher {
    gathered: Arc<Gathered>,
    _system: RecommendedWatcher,
}

impl Watcher {
    /// Begins to watch; what changes from now on is told. Blocks: every directory is watched by itself on Linux.
    ///
    /// # Errors
    /// The system cannot watch all of it.
    pub(super) fn open(source: &Source, is_ignored: IsIgnored) -> Result<Self, NotWatched> {
        let root = source.dir.canonicalize().map_err(NotWatched::Here)?;
        let gathered = Arc::new(Gathered::default());
        let (telling, only, at) = (gathered.clone(), source.only.clone(), root.clone());
        let told = move |event: notify::Result<Event>| {
            let path_of = |path: &std::path::Path| {
                path.strip_prefix(&at).ok().and_then(|path| RelPath::new(&bytes_of(path.as_os_str()).ok()?))
            };
            let is_wanted = |path: &RelPath| match &only {
                Some(only) => path == only,
                None => !path.names().any(is_own_name) && !is_ignored(path),
            };
            telling.tell(&event, path_of, |path| path == at, is_wanted, only.is_some(), Instant::now());
        };
        let mut system =
            RecommendedWatcher::new(told, Config::default().with_follow_symlinks(false)).map_err(not_watched)?;
        let mode = if source.only.is_some() { RecursiveMode::NonRecursive } else { RecursiveMode::Recursive };
        system.watch(&root, mode).map_err(not_watched)?;
        Ok(Self { gathered, _system: system })
    }

    /// Waits for changes. Nothing is forgotten if the future is dropped.
    pub(super) async fn changed(&mut self) -> Changed {
        loop {
            let due = lock(&self.gathered.state).due();
            match due {
                Some(due) if due <= Instant::now() => {
                    if let Some(changed) = lock(&self.gathered.state).take(Instant::now()) {
                        return changed;
                    }
                }
                Some(due) => {
                    tokio::select! {
                        () = self.gathered.told.notified() => {}
                        () = tokio::time::sleep_until(due.into()) => {}
                    }
                }
                None => self.gathered.told.notified().await,
            }
        }
    }
}

impl Watcher {
    /// What has changed so far, without a wait for more.
    pub(super) fn pending(&mut self) -> Option<Changed> {
        lock(&self.gathered.state).take(Instant::now())
    }
}

fn not_watched(error: notify::Error) -> NotWatched {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => NotWatched::Limit,
        _ => NotWatched::System(error),
    }
}

#[derive(Debug, Default)]
struct Gathered {
    state: Mutex<State>,
    told: Notify,
}

impl Gathered {
    fn tell(
        &self,
        event: &notify::Result<Event>,
        path_of: impl Fn(&std::path::Path) -> Option<RelPath>,
        is_root: impl Fn(&std::path::Path) -> bool,
        is_wanted: impl Fn(&RelPath) -> bool,
        is_single: bool,
        now: Instant,
    ) {
        let mut state = lock(&self.state);
        match event {
            Ok(event) if event.need_rescan() => state.all(now),
            Ok(event) if !is_change(event.kind) => return,
            Ok(event) => {
                let is_new_dir = matches!(event.kind, EventKind::Create(CreateKind::Folder | CreateKind::Any))
                    || matches!(event.kind, EventKind::Modify(notify::event::ModifyKind::Name(_)));
                for path in &event.paths {
                    match path_of(path) {
                        Some(path) if is_wanted(&path) => state.path(path, is_new_dir, now),
                        Some(_) => {}
                        None if is_root(path) && is_end(event.kind) => {
                            state.is_gone = true;
                            state.all(now);
                        }
                        // The directory itself, or one that is not below it any more.
                        None if is_single => {}
                        None => state.all(now),
                    }
                }
            }
            // Some directory is not watched, or something was not told.
            Err(_) => state.all(now),
        }
        drop(state);
        self.told.notify_one();
    }
}

/// Whether it is more than a look at something.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Whether it is the end of what has the path.
fn is_end(kind: EventKind) -> bool {
    matches!(kind, EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_)))
}

#[derive(Debug, Default)]
struct State {
    paths: BTreeSet<RelPath>,
    is_all: bool,
    is_gone: bool,
    /// Of the first and the last change that is not handed on yet.
    times: Option<(Instant, Instant)>,
    /// What is told once more, and when.
    again: BTreeMap<RelPath, Instant>,
}

impl State {
    fn touch(&mut self, now: Instant) {
        let first = self.times.map_or(now, |(first, _)| first);
        self.times = Some((first, now));
    }

    fn all(&mut self, now: Instant) {
        self.is_all = true;
        self.paths.clear();
        self.again.clear();
        self.touch(now);
    }

    fn path(&mut self, path: RelPath, is_new_dir: bool, now: Instant) {
        if self.is_all {
            return self.touch(now);
        }
        if is_new_dir {
            self.again.insert(path.clone(), now + AGAIN);
        }
        self.paths.insert(path);
        match self.paths.len() > MOST_PATHS || self.again.len() > MOST_PATHS {
            true => self.all(now),
            false => self.touch(now),
        }
    }

    /// When something is to be handed on.
    fn due(&self) -> Option<Instant> {
        let told = self.times.map(|(first, last)| (last + QUIET).min(first + MOST));
        told.into_iter().chain(self.again.values().copied()).min()
    }

    fn take(&mut self, now: Instant) -> Option<Changed> {
        self.times = None;
        let due: Vec<RelPath> =
            self.again.iter().filter(|(_, due)| **due <= now).map(|(path, _)| path.clone()).collect();
        for path in due {
            self.again.remove(&path);
            self.paths.insert(path);
        }
        if std::mem::take(&mut self.is_all) {
            self.paths.clear();
            return Some(if self.is_gone { Changed::Gone } else { Changed::All });
        }
        let paths: Vec<RelPath> = std::mem::take(&mut self.paths).into_iter().collect();
        (!paths.is_empty()).then_some(Changed::Paths(paths))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("a path")
    }

    fn watch(dir: &Path) -> Watcher {
        let is_ignored = |path: &RelPath| path.names().any(|name| name == b"target");
        Watcher::open(&Source::of(dir).expect("a source"), Arc::new(is_ignored)).expect("watched")
    }

    /// All that is told until `last` is.
    async fn told_until(watcher: &mut Watcher, last: &str) -> BTreeSet<RelPath> {
        let mut told = BTreeSet::new();
        while !told.contains(&path(last)) {
            match watcher.changed().await {
                Changed::Paths(paths) => told.extend(paths),
                other => panic!("{other:?}"),
            }
        }
        told
    }

    #[tokio::test]
    async fn changes_are_told_by_their_paths() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("d/e")).expect("created");
        fs::create_dir_all(dir.path().join("target/x")).expect("created");
        fs::write(dir.path().join("d/old"), "1").expect("written");
        let mut watcher = watch(dir.path());
        fs::write(dir.path().join("target/x/o"), "1").expect("written");
        fs::write(dir.path().join("d/.dtunnel-tmp-new-1"), "1").expect("written");
        fs::read(dir.path().join("d/old")).expect("read");
        fs::write(dir.path().join("d/e/a\nb"), "1").expect("written");
        let told = told_until(&mut watcher, "d/e/a\nb").await;
        assert_eq!(told, BTreeSet::from([path("d/e/a\nb")]));
        // A directory that is new is watched, too.
        fs::create_dir_all(dir.path().join("n/m")).expect("created");
        let told = told_until(&mut watcher, "n").await;
        assert!(!told.contains(&path("d")));
        fs::write(dir.path().join("n/m/f"), "1").expect("written");
        fs::rename(dir.path().join("d/old"), dir.path().join("d/new")).expect("renamed");
        fs::remove_file(dir.path().join("d/e/a\nb")).expect("removed");
        let told = told_until(&mut watcher, "d/e/a\nb").await;
        assert!(told.contains(&path("d/old")) && told.contains(&path("d/new")), "{told:?}");
        assert!(told.contains(&path("n/m/f")) || told.contains(&path("n/m")) || told.contains(&path("n")), "{told:?}");
    }

    #[tokio::test]
    async fn of_a_file_only_its_own_changes_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("a"), "1").expect("written");
        let mut watcher = watch(&dir.path().join("a"));
        fs::write(dir.path().join("b"), "1").expect("written");
        fs::write(dir.path().join("a.new"), "2").expect("written");
        fs::rename(dir.path().join("a.new"), dir.path().join("a")).expect("renamed");
        assert_eq!(watcher.changed().await, Changed::Paths(vec![path("a")]));
    }

    #[tokio::test]
    async fn the_end_of_the_directory_itself_is_told() {
        let outer = tempfile::tempdir().expect("a directory");
        let dir = outer.path().join("d");
        fs::create_dir(&dir).expect("created");
        for end in [|dir: &Path| fs::rename(dir, dir.with_extension("old")), |dir: &Path| fs::remove_dir(dir)] {
            let _ = fs::create_dir(&dir);
            let mut watcher = watch(&dir);
            end(&dir).expect("ended");
            assert_eq!(watcher.changed().await, Changed::Gone);
        }
    }

    fn event(kind: EventKind, name: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(Path::new("/r").join(name)))
    }

    fn tell(gathered: &Gathered, event: &notify::Result<Event>, now: Instant) {
        let path_of = |path: &Path| RelPath::new(&bytes_of(path.strip_prefix("/r").ok()?.as_os_str()).ok()?);
        gathered.tell(event, path_of, |path| path == Path::new("/r"), |_| true, false, now);
    }

    #[test]
    fn many_changes_errors_and_overflows_are_all() {
        let write = EventKind::Modify(notify::event::ModifyKind::Any);
        let errors = [
            Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch)),
            Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)),
            event(write, ""),
        ];
        let start = Instant::now();
        for error in &errors {
            let gathered = Gathered::default();
            tell(&gathered, &event(write, "a"), start);
            tell(&gathered, error, start);
            tell(&gathered, &event(write, "b"), start);
            assert_eq!(lock(&gathered.state).take(start), Some(Changed::All), "{error:?}");
            assert_eq!(lock(&gathered.state).due(), None);
        }
        let gathered = Gathered::default();
        for number in 0..=MOST_PATHS {
            tell(&gathered, &event(write, &number.to_string()), start);
        }
        assert_eq!(lock(&gathered.state).take(start), Some(Changed::All));
    }

    #[test]
    fn changes_wait_for_a_quiet_moment_but_not_for_long_and_new_directories_are_told_again() {
        let gathered = Gathered::default();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let write = EventKind::Modify(notify::event::ModifyKind::Any);
        tell(&gathered, &event(EventKind::Access(AccessKind::Open(AccessMode::Any)), "a"), start);
        assert_eq!(lock(&gathered.state).due(), None);
        tell(&gathered, &event(write, "a"), start);
        assert_eq!(lock(&gathered.state).due(), Some(at(30)));
        tell(&gathered, &event(write, "b"), at(20));
        assert_eq!(lock(&gathered.state).due(), Some(at(50)));
        tell(&gathered, &event(write, "b"), at(90));
        assert_eq!(lock(&gathered.state).due(), Some(at(100)));
        tell(&gathered, &event(EventKind::Create(CreateKind::Folder), "d"), at(95));
        let paths = |names: &[&str]| Some(Changed::Paths(names.iter().map(|name| path(name)).collect()));
        assert_eq!(lock(&gathered.state).take(at(100)), paths(&["a", "b", "d"]));
        assert_eq!(lock(&gathered.state).due(), Some(at(595)));
        assert_eq!(lock(&gathered.state).take(at(594)), None);
        assert_eq!(lock(&gathered.state).take(at(595)), paths(&["d"]));
        assert_eq!(lock(&gathered.state).due(), None);
    }
}
