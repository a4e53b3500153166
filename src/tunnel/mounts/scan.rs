//! Reads the directory here: all that is below it, but for what `.dtunnelignore` files name (gitignore(5)'s syntax).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::tree::{IGNORE, Node, Reading, RelPath, Touched, is_own_name};
use crate::os::beneath::{Kind, Seen, bytes_of, name_of, seen};
use crate::sync::lock;

/// The walk ends at so many times the bounds: by then it is known what is large.
const BEYOND: u64 = 4;
/// How many of the largest entries are named.
const NAMED: usize = 3;

/// How much may be below a mounted directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Of all files together.
    pub(super) bytes: u64,
    /// Files, directories and links.
    pub(super) entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 2 << 30, entries: 200_000 }
    }
}

/// What is mounted here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Source {
    /// The directory, or the one that the file is in.
    pub(super) dir: PathBuf,
    /// The file's name, if only that is mounted.
    pub(super) only: Option<RelPath>,
}

impl Source {
    /// The directory or regular file at `path`, whatever links lead there.
    ///
    /// # Errors
    /// From the system; it is neither, or its name is not UTF-8, which no request to an Engine could have.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let meta = path.metadata()?;
        if meta.is_dir() {
            return Ok(Self { dir: path, only: None });
        }
        let name = path.file_name().and_then(|name| RelPath::new(name.to_str()?.as_bytes()));
        match (path.parent(), name) {
            (Some(dir), Some(name)) if meta.is_file() => Ok(Self { dir: dir.into(), only: Some(name) }),
            _ => Err(io::Error::other("neither a directory nor a regular file with a name in UTF-8")),
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> PathBuf {
        match &self.only {
            Some(name) => self.dir.join(String::from_utf8_lossy(name.as_bytes()).as_ref()),
            None => self.dir.clone(),
        }
    }

    /// Leaves of the host's reading only what this source may have.
    pub(super) fn limit(&self, reading: &mut Reading) {
        let Some(only) = &self.only else { return };
        reading.tree.retain(|path, _| path == only);
        if reading.tree.get(only).is_some_and(|node| !matches!(node, Node::File { .. })) {
            reading.tree.remove(only);
            reading.unknown.insert(only.clone());
        }
        reading.unknown.retain(|path| path == only);
    }
}

/// Why the directory cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read the directory")]
    Root(#[source] io::Error),
    #[error("{} MiB in {entries} files are more than {} MiB (`mounts_max`) or {} files; the largest: {}. What containers need not have can be named in {IGNORE}", .bytes >> 20, .bounds.bytes >> 20, .bounds.entries, named(.largest))]
    TooLarge {
        bytes: u64,
        entries: u64,
        bounds: Bounds,
        /// Names in the directory with bytes and entries.
        largest: Vec<(String, u64, u64)>,
    },
}

fn named(largest: &[(String, u64, u64)]) -> String {
    let said = |(name, bytes, entries): &(String, u64, u64)| format!("{name} ({} MiB, {entries} files)", bytes >> 20);
    largest.iter().map(said).collect::<Vec<_>>().join(", ")
}

/// What the directory has.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) reading: Reading,
    pub(super) ignored: Ignored,
    /// What could not be read, and why.
    pub(super) failed: Vec<(String, String)>,
}

/// What the directory's `.dtunnelignore` files name, to be applied to the host's paths, too.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    /// By directory; None is the root.
    files: BTreeMap<Option<RelPath>, Gitignore>,
}

impl Ignored {
    /// Whether the path or a directory above it is ignored.
    pub(super) fn has(&self, path: &RelPath, is_dir: bool) -> bool {
        if self.files.is_empty() {
            return false;
        }
        let mut above: Vec<RelPath> = path.ancestors().collect();
        above.reverse();
        above.iter().any(|dir| self.names(dir, true)) || !path.is_ignore_file() && self.names(path, is_dir)
    }

    /// Whether a pattern names the path itself: the nearest file decides, in it the last pattern.
    fn names(&self, path: &RelPath, is_dir: bool) -> bool {
        let dirs = path.ancestors().map(Some).chain([None]);
        for dir in dirs {
            let Some(file) = self.files.get(&dir) else { continue };
            let start = dir.map_or(0, |dir| dir.as_bytes().len() + 1);
            let Ok(rest) = name_of(&path.as_bytes()[start..]) else { continue };
            let found = file.matched(file.path().join(rest), is_dir);
            if !found.is_none() {
                return found.is_ignore();
            }
        }
        false
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds the ignored paths of a reading to what is not known.
    pub(super) fn hide(&self, reading: &mut Reading) {
        let hidden = reading.tree.iter().filter(|(path, node)| self.has(path, node.is_dir()));
        let hidden: Vec<RelPath> = hidden.map(|(path, _)| path.clone()).collect();
        for path in hidden {
            reading.tree.remove(&path);
            reading.unknown.insert(path);
        }
    }
}

/// Times that an archive can have (`struct posix_header` of tar): those before 1970 count as 1970, on both sides.
pub(super) fn bounded_time(mtime: i64) -> i64 {
    mtime.clamp(0, 0o777_7777_7777 * 1_000_000_000)
}

/// A node, of what is not a link.
pub(super) fn node_of(seen: &Seen) -> Node {
    match seen.kind {
        Kind::File => Node::File {
            size: seen.size,
            mtime: bounded_time(seen.mtime),
            mode: seen.mode,
            touched: Touched(seen.ctime),
        },
        Kind::Dir => Node::Dir { mode: seen.mode },
        Kind::Link | Kind::Other => Node::Other,
    }
}

/// Reads all that is mounted. Blocks.
///
/// # Errors
/// The directory itself cannot be read, or has too much. Of other errors the paths are not known afterwards.
pub(super) fn scan(source: &Source, bounds: Bounds) -> Result<Scan, Error> {
    match &source.only {
        Some(name) => scan_file(&source.dir, name, bounds),
        None => scan_below(&source.dir, None, bounds),
    }
}

/// Reads what is mounted at `path` and below it. Ignore files above are not looked at. Blocks.
///
/// # Errors
/// As of [`scan`].
pub(super) fn scan_part(source: &Source, path: &RelPath, bounds: Bounds) -> Result<Scan, Error> {
    if source.only.is_some() {
        return scan(source, bounds);
    }
    match look(source, path) {
        Ok(Some(node)) if node.is_dir() => {
            let mut scan = scan_below(&source.dir, Some(path), bounds)?;
            scan.reading.tree.insert(path.clone(), node);
            Ok(scan)
        }
        found => {
            let mut scan = Scan::default();
            match found {
                // It changes what is ignored.
                _ if path.is_ignore_file() => scan.failed.push((path.to_string(), "changed".into())),
                Ok(node) => scan.reading.tree.extend(node.map(|node| (path.clone(), node))),
                Err(e) => scan.failed.push((path.to_string(), e.to_string())),
            }
            Ok(scan)
        }
    }
}

/// What is at the path here; None if nothing. The directories above are followed wherever they lead.
///
/// # Errors
/// From the system.
pub(super) fn look(source: &Source, path: &RelPath) -> io::Result<Option<Node>> {
    match read(&source.dir.join(name_of(path.as_bytes())?)) {
        Ok(node) => Ok(Some(node)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file that is deleted or replaced by something else is not known: a container holds the file that it has, and editors
/// delete a file just before they write it anew.
fn scan_file(dir: &Path, name: &RelPath, bounds: Bounds) -> Result<Scan, Error> {
    std::fs::read_dir(dir).map_err(Error::Root)?;
    let mut scan = Scan::default();
    match name_of(name.as_bytes()).and_then(|file| read(&dir.join(file))) {
        Ok(node @ Node::File { size, .. }) => {
            if size > bounds.bytes {
                let largest = vec![(name.to_string(), size, 1)];
                return Err(Error::TooLarge { bytes: size, entries: 1, bounds, largest });
            }
            scan.reading.tree.insert(name.clone(), node);
            return Ok(scan);
        }
        Ok(_) => scan.failed.push((name.to_string(), "it is no regular file any more".into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => scan.failed.push((name.to_string(), e.to_string())),
    }
    scan.reading.unknown.insert(name.clone());
    Ok(scan)
}

/// All below `root`, or below the path `start` in it.
fn scan_below(root: &Path, start: Option<&RelPath>, bounds: Bounds) -> Result<Scan, Error> {
    std::fs::read_dir(root).map_err(Error::Root)?;
    let at = start.map(|start| name_of(start.as_bytes())).transpose().map_err(Error::Root)?;
    let at = at.map_or_else(|| root.to_owned(), |at| root.join(at));
    let mut walk = WalkBuilder::new(&at);
    walk.standard_filters(false).parents(false).follow_links(false);
    // One judge of what is ignored, for both sides: the walk asks it, and it learns of each directory before what is in it.
    let judge = Arc::new(Mutex::new(Judge::default()));
    lock(&judge).enter(&at, start);
    let (asked, below) = (judge.clone(), root.to_owned());
    walk.filter_entry(move |entry| {
        let Some(path) = relative(&below, entry.path()) else { return true };
        let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
        let mut judge = lock(&asked);
        if entry.depth() > 0 && judge.ignored.has(&path, is_dir) {
            return false;
        }
        if entry.depth() > 0 && is_dir {
            judge.enter(entry.path(), Some(&path));
        }
        true
    });
    let mut scan = Scan::default();
    let mut sizes = BTreeMap::<Vec<u8>, (u64, u64)>::new();
    let (mut bytes, mut entries) = (0u64, 0u64);
    for entry in walk.build() {
        let entry = match entry {
            Ok(entry) if entry.depth() == 0 => continue,
            Ok(entry) => entry,
            Err(error) => {
                scan.fail(root, &error);
                continue;
            }
        };
        if let Some(error) = entry.error() {
            scan.failed.push((shown(root, entry.path()), error.to_string()));
        }
        let Some(path) = relative(root, entry.path()) else {
            scan.failed.push((shown(root, entry.path()), "the name is too long".into()));
            scan.reading.is_partial = true;
            continue;
        };
        if is_own_name(path.name()) {
            scan.reading.unknown.insert(path);
            continue;
        }
        let node = match read(entry.path()) {
            Ok(node) => node,
            // Deleted meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                scan.failed.push((path.to_string(), e.to_string()));
                scan.reading.unknown.insert(path);
                continue;
            }
        };
        let size = if let Node::File { size, .. } = node { size } else { 0 };
        (bytes, entries) = (bytes.saturating_add(size), entries + 1);
        let of_name = sizes.entry(path.names().next().unwrap_or_default().to_vec()).or_default();
        *of_name = (of_name.0.saturating_add(size), of_name.1 + 1);
        if bytes > bounds.bytes.saturating_mul(BEYOND) || entries > bounds.entries.saturating_mul(BEYOND) {
            break;
        }
        scan.reading.tree.insert(path, node);
    }
    let judge = std::mem::take(&mut *lock(&judge));
    if let Some(error) = judge.unreadable {
        return Err(Error::Root(error));
    }
    scan.failed.extend(judge.failed);
    scan.ignored = judge.ignored;
    if bytes > bounds.bytes || entries > bounds.entries {
        let mut largest: Vec<_> = sizes.into_iter().collect();
        let share = |(bytes, entries): (u64, u64)| {
            u128::from(bytes) * u128::from(bounds.entries) + u128::from(entries) * u128::from(bounds.bytes)
        };
        largest.sort_by_key(|(_, size)| std::cmp::Reverse(share(*size)));
        let named = |(name, (bytes, entries)): (Vec<u8>, _)| (crate::text::shown_bytes(&name), bytes, entries);
        let largest = largest.into_iter().take(NAMED).map(named).collect();
        return Err(Error::TooLarge { bytes, entries, bounds, largest });
    }
    Ok(scan)
}

impl Scan {
    fn fail(&mut self, root: &Path, error: &ignore::Error) {
        let at = path_of(error);
        self.failed.push((at.map_or_else(String::new, |at| shown(root, at)), error.to_string()));
        let vanished = error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
        match at.and_then(|at| relative(root, at)) {
            Some(_) if vanished => {
                self.failed.pop();
            }
            Some(path) => {
                self.reading.unknown.insert(path);
            }
            None => self.reading.is_partial = true,
        }
    }
}

/// What is ignored, as far as the walk has come.
#[derive(Debug, Default)]
struct Judge {
    ignored: Ignored,
    /// Lines that are no patterns.
    failed: Vec<(String, String)>,
    /// A file that cannot be read: nobody knows what is not to be carried.
    unreadable: Option<io::Error>,
}

impl Judge {
    /// Reads the ignore file of a directory, also through a link, if it has one.
    fn enter(&mut self, at: &Path, dir: Option<&RelPath>) {
        let path = at.join(IGNORE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return,
            Err(e) => {
                let said = format!("{}: {e}", path.display());
                self.unreadable.get_or_insert(io::Error::new(e.kind(), said));
                return;
            }
        };
        let mut patterns = GitignoreBuilder::new(at);
        for line in String::from_utf8_lossy(&text).lines() {
            if let Err(error) = patterns.add_line(None, line) {
                self.failed.push((path.display().to_string(), error.to_string()));
            }
        }
        match patterns.build() {
            Ok(patterns) => drop(self.ignored.files.insert(dir.cloned(), patterns)),
            Err(error) => self.failed.push((path.display().to_string(), error.to_string())),
        }
    }
}

fn read(path: &Path) -> io::Result<Node> {
    let meta = std::fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        let target = std::fs::read_link(path)?;
        return Ok(Node::Link { target: bytes_of(target.as_os_str())?.into() });
    }
    Ok(node_of(&seen(&meta)))
}

fn relative(root: &Path, path: &Path) -> Option<RelPath> {
    RelPath::new(&bytes_of(path.strip_prefix(root).ok()?.as_os_str()).ok()?)
}

fn shown(root: &Path, path: &Path) -> String {
    let below: PathBuf = path.strip_prefix(root).unwrap_or(path).into();
    crate::text::shown(&below.to_string_lossy())
}

/// The path that an error is about.
fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        ignore::Error::Loop { child, .. } => Some(child),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn below(dir: &Path, bounds: Bounds) -> Result<Scan, Error> {
        scan(&Source { dir: dir.into(), only: None }, bounds)
    }

    fn names(scan: &Scan) -> Vec<String> {
        scan.reading.tree.keys().map(ToString::to_string).collect()
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("a path")
    }

    /// The walk here and what is said of the host's paths agree, whatever the patterns are.
    #[test]
    fn an_ignore_file_that_names_itself_or_is_a_link_is_obeyed_on_both_sides() {
        for (patterns, is_link) in [("*\n!src\n!src/**\n", false), (".*\n", false), ("data\n.env\n", true)] {
            let dir = tempfile::tempdir().expect("a directory");
            for sub in ["src", ".git", "data"] {
                fs::create_dir(dir.path().join(sub)).expect("created");
            }
            for file in ["src/s", ".git/config", ".env", "data/d"] {
                fs::write(dir.path().join(file), file).expect("written");
            }
            let name = if is_link { "patterns" } else { IGNORE };
            fs::write(dir.path().join(name), patterns).expect("written");
            if is_link {
                let made = std::process::Command::new("ln").args(["-s", name]).arg(dir.path().join(IGNORE)).status();
                assert!(made.expect("ln").success());
            }
            let scan = below(dir.path(), Bounds::default()).expect("read");
            for (name, is_dir) in [(".env", false), (".git", true), ("data", true), ("src", true), (IGNORE, false)] {
                let is_read = scan.reading.tree.contains_key(&path(name));
                assert_eq!(is_read, !scan.ignored.has(&path(name), is_dir), "{patterns:?} {name}");
            }
            assert!(scan.reading.tree.contains_key(&path(IGNORE)) && scan.reading.tree.contains_key(&path("src/s")));
            assert!(!scan.reading.tree.contains_key(&path(".env")), "{patterns:?}");
        }
    }

    #[test]
    fn only_the_ignore_file_of_the_directory_itself_counts() {
        let outer = tempfile::tempdir().expect("a directory");
        let root = outer.path().join("root");
        for dir in ["root/src/deep", "root/target/x", "root/.git", "root/keep/target"] {
            fs::create_dir_all(outer.path().join(dir)).expect("created");
        }
        fs::write(outer.path().join(".dtunnelignore"), "src\n").expect("written");
        fs::write(root.join(".gitignore"), "src\n").expect("written");
        fs::write(root.join(".dtunnelignore"), "/target\n*.o\n!keep.o\n").expect("written");
        fs::write(root.join("src/.dtunnelignore"), "deep/\n!b.o\n").expect("written");
        for file in ["a.o", "keep.o", "src/a.o", "src/b.o", "src/deep/x", "target/x/y", "keep/target/z", ".git/HEAD"] {
            fs::write(root.join(file), file).expect("written");
        }
        let scan = below(&root, Bounds::default()).expect("read");
        let expected = [
            ".dtunnelignore",
            ".git",
            ".git/HEAD",
            ".gitignore",
            "keep",
            "keep.o",
            "keep/target",
            "keep/target/z",
            "src",
            "src/.dtunnelignore",
            "src/b.o",
        ];
        assert_eq!(names(&scan), expected);
        // The host's paths are judged alike.
        for (name, is_dir, is_ignored) in [
            ("target", true, true),
            ("target/x/y", false, true),
            ("keep/target/z", false, false),
            ("new.o", false, true),
            ("src/b.o", false, false),
            ("src/deep/x", false, true),
            ("src/deep", false, false),
        ] {
            assert_eq!(scan.ignored.has(&path(name), is_dir), is_ignored, "{name}");
        }
    }

    #[test]
    fn odd_names_and_kinds_are_told_and_links_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = std::process::Command::new("sh")
            .args([
                "-c",
                "printf x > 'a\nb'; printf y > \"$(printf '\\377')\"; mkfifo p; ln -s /etc l; mkdir d; chmod 750 d; \
                          printf z > .dtunnel-tmp-new-1; printf z > a.dtunnel-conflict-T",
            ])
            .current_dir(dir.path())
            .status();
        assert!(made.expect("sh").success());
        let scan = below(dir.path(), Bounds::default()).expect("read");
        let of = |name: &[u8]| scan.reading.tree.get(&RelPath::new(name).expect("a path")).cloned();
        assert!(matches!(of(b"a\nb"), Some(Node::File { size: 1, .. })));
        assert!(matches!(of(b"\xff"), Some(Node::File { size: 1, .. })));
        assert_eq!(of(b"p"), Some(Node::Other));
        assert_eq!(of(b"l"), Some(Node::Link { target: b"/etc".as_slice().into() }));
        assert_eq!(of(b"d"), Some(Node::Dir { mode: 0o750 }));
        assert_eq!(scan.reading.tree.len(), 5);
        assert_eq!(scan.reading.unknown.len(), 2);
    }

    #[test]
    fn too_much_is_refused_with_what_is_large() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("data")).expect("created");
        for number in 0..5 {
            fs::write(dir.path().join(format!("data/{number}")), [0; 100]).expect("written");
        }
        fs::write(dir.path().join("a"), [0; 100]).expect("written");
        let bounds = Bounds { bytes: 550, entries: 100 };
        let error = below(dir.path(), bounds).expect_err("too large");
        assert!(error.to_string().contains("the largest: data (0 MiB, 6 files), a"), "{error}");
        let few = Bounds { bytes: 5500, entries: 6 };
        assert!(matches!(below(dir.path(), few), Err(Error::TooLarge { entries: 7, .. })));
        assert!(below(dir.path(), Bounds { bytes: 600, entries: 7 }).is_ok());
        assert!(matches!(below(&dir.path().join("no"), bounds), Err(Error::Root(_))));
    }

    #[test]
    fn what_may_not_be_read_is_not_known() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("shut/in")).expect("created");
        fs::write(dir.path().join("a"), "a").expect("written");
        let chmod =
            |mode: &str| std::process::Command::new("chmod").args([mode, "shut"]).current_dir(dir.path()).status();
        assert!(chmod("000").expect("chmod").success());
        let scan = below(dir.path(), Bounds::default()).expect("read");
        assert!(chmod("700").expect("chmod").success());
        // Root reads everything.
        if scan.reading.tree.contains_key(&path("shut/in")) {
            return;
        }
        assert!(scan.reading.unknown.contains(&path("shut")), "{scan:?}");
        assert_eq!(scan.failed.len(), 1);
    }
}
