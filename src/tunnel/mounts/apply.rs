//! Changes here, of which none can destroy what it does not expect.
//!
//! - No link is followed on the way to a file: each directory is opened by itself ([`crate::os::beneath`]).
//! - What is new is written whole under a temporary name. A name that should be free is taken only if it still is.
//! - What replaces a file changes places with it, in one moment. Then what was there is looked at: if it is not what the
//!   plan saw, both change back, and the new file is kept beside it. The same with deletions: renamed, looked at, removed.
//!   So a file that somebody changes just now is not lost either.
//! - What an interrupted exchange leaves has a name that [`Here::sweep`] does not remove.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::scan::node_of;
use super::tree::{Grain, Node, RelPath, TEMPORARY, leads_out};
use crate::os::beneath::{Dir, Kind, set_mode};

/// In the name of a file that is not complete yet.
const NEW: &[u8] = b"new-";
/// In the name of a file that may be the user's.
const OLD: &[u8] = b"old-";
/// Most names tried for a copy before it gets a random one.
const NAMES: u32 = 100;
const BUFFER: usize = 128 * 1024;

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// As planned; the path has this node now.
    Changed(Node),
    /// Something else was there by then: it stays, and the new file is kept here beside it.
    KeptBoth(RelPath),
    /// Nothing to do: what is here has the same bytes.
    Same,
}

/// The mounted directory. All methods block.
#[derive(Debug)]
pub(super) struct Here {
    root: Dir,
    /// In the names of temporary files, so that nobody else's are swept.
    tag: String,
}

impl Here {
    /// Opens the directory. If it is renamed later, it remains the one that is meant. `tag`: of this mount and no other one
    /// that may have the same files, the same each time.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn open(root: &Path, tag: &str) -> io::Result<Self> {
        Ok(Self { root: Dir::open(&root.canonicalize()?)?, tag: tag.into() })
    }

    /// The directory that `path` is in.
    fn parent(&self, path: &RelPath) -> io::Result<Dir> {
        let names: Vec<&[u8]> = path.names().collect();
        let above = names.get(..names.len().saturating_sub(1)).unwrap_or_default();
        above.iter().try_fold(self.root.again()?, |dir, name| dir.enter(name))
    }

    /// What is at the path; None if nothing.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn look(&self, path: &RelPath) -> io::Result<Option<Node>> {
        look(&self.parent(path)?, path.name())
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// From the system, and if it is something else.
    pub(super) fn read(&self, path: &RelPath) -> io::Result<File> {
        self.parent(path)?.read(path.name())
    }

    /// Makes all files that were put here last, also through a power cut.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.root.sync_all()
    }

    /// Puts a file there with the bytes of `content`, where `over` is now. `node` is a file, of which all is kept. If it is
    /// like `over` to the second, and what is here has the same bytes, nothing is changed.
    /// `is_synced`: it is on the disk afterwards; otherwise the caller does that for all ([`Self::sync`]), before the
    /// journal says that they are here.
    ///
    /// # Errors
    /// From the system; `content` has less than the node's size. Then nothing has changed.
    pub(super) fn put_file(
        &self,
        path: &RelPath,
        node: &Node,
        over: Option<&Node>,
        content: &mut dyn Read,
        time: &str,
        is_synced: bool,
    ) -> io::Result<Done> {
        let dir = self.parent(path)?;
        let temporary = written(&dir, &self.tag, node, content, is_synced)?;
        let is_alike = over.is_some_and(|over| over.same(node, Grain::Second));
        let is_same = || same_bytes(dir.read(path.name())?, dir.read(&temporary)?);
        if is_alike && is_same().unwrap_or(false) {
            dir.remove(&temporary)?;
            return Ok(Done::Same);
        }
        self.place(&dir, &temporary, path, over, time)
    }

    /// Puts a link there, where `over` is now.
    ///
    /// # Errors
    /// From the system; the link may lead out of the root.
    pub(super) fn put_link(&self, path: &RelPath, target: &[u8], over: Option<&Node>, time: &str) -> io::Result<Done> {
        if leads_out(path, target) {
            return Err(io::Error::other("the link may lead out of the directory"));
        }
        let dir = self.parent(path)?;
        let temporary = temporary(&self.tag, NEW);
        dir.create_link(&temporary, target)?;
        self.place(&dir, &temporary, path, over, time)
    }

    /// Puts the host's version at `copy` or a name like it, unless the file here at `path` has the same bytes.
    ///
    /// # Errors
    /// As [`Self::put_file`].
    pub(super) fn keep_file(
        &self,
        path: &RelPath,
        node: &Node,
        copy: &RelPath,
        content: &mut dyn Read,
    ) -> io::Result<Done> {
        let (dir, copy) = self.parent_made(copy)?;
        let temporary = written(&dir, &self.tag, node, content, true)?;
        let is_same = self.read(path).and_then(|ours| same_bytes(ours, dir.read(&temporary)?)).unwrap_or(false);
        if is_same {
            dir.remove(&temporary)?;
            return Ok(Done::Same);
        }
        place_beside(&dir, &temporary, &copy).map(Done::KeptBoth)
    }

    /// The same for a link.
    ///
    /// # Errors
    /// As [`Self::put_link`].
    pub(super) fn keep_link(&self, target: &[u8], copy: &RelPath) -> io::Result<Done> {
        if leads_out(copy, target) {
            return Err(io::Error::other("the link may lead out of the directory"));
        }
        let (dir, copy) = self.parent_made(copy)?;
        let temporary = temporary(&self.tag, NEW);
        dir.create_link(&temporary, target)?;
        place_beside(&dir, &temporary, &copy).map(Done::KeptBoth)
    }

    /// Creates a directory where nothing is.
    ///
    /// # Errors
    /// From the system; [`io::ErrorKind::AlreadyExists`].
    pub(super) fn make_dir(&self, path: &RelPath, mode: u16) -> io::Result<Done> {
        let dir = self.parent(path)?;
        dir.create_dir(path.name())?;
        dir.enter(path.name())?.set_mode(mode)?;
        Ok(Done::Changed(Node::Dir { mode }))
    }

    /// Changes the mode of what is still `over`.
    ///
    /// # Errors
    /// From the system; it has changed.
    pub(super) fn set_mode(&self, path: &RelPath, over: &Node, mode: u16) -> io::Result<Done> {
        let dir = self.parent(path)?;
        match look(&dir, path.name())? {
            Some(found) if found == *over && !found.may_be_touched(over) => {}
            _ => return Err(changed()),
        }
        match over {
            Node::Dir { .. } => dir.enter(path.name())?.set_mode(mode)?,
            _ => set_mode(&dir.read(path.name())?, mode)?,
        }
        let planned = over.with_mode(mode);
        // With the time of this change, if there was no other one.
        let now = look(&dir, path.name())?.filter(|now| *now == planned);
        Ok(Done::Changed(now.unwrap_or(planned)))
    }

    /// Removes what is still `node`; a directory only if it is empty.
    ///
    /// # Errors
    /// From the system; it has changed. Then it is as it was.
    pub(super) fn delete(&self, path: &RelPath, node: &Node) -> io::Result<()> {
        let dir = match self.parent(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            dir => dir?,
        };
        match look(&dir, path.name())? {
            None => return Ok(()),
            Some(Node::Dir { .. }) if node.is_dir() => return dir.remove_dir(path.name()),
            Some(found) if !is_planned(&found, node) || found.may_be_touched(node) => return Err(changed()),
            Some(_) => {}
        }
        let aside = temporary(&self.tag, OLD);
        dir.rename_new(path.name(), &aside)?;
        match look(&dir, &aside)? {
            Some(found) if is_planned(&found, node) => dir.remove(&aside),
            Some(_) => {
                // Another file may have the name by now: both are kept.
                let is_back = dir.rename_new(&aside, path.name());
                is_back.or_else(|_| place_beside(&dir, &aside, path).map(|_| ()))?;
                Err(changed())
            }
            None => Ok(()),
        }
    }

    /// Removes what was not complete when a round was cut. Returns the paths of what may be the user's, in the
    /// directories `dirs` and in the root.
    ///
    /// # Errors
    /// From the system, of the root; other directories that are not there any more are left out.
    pub(super) fn sweep<'a>(&self, dirs: impl Iterator<Item = &'a RelPath>) -> io::Result<Vec<RelPath>> {
        let mut kept = sweep(&self.root, &self.tag)?.iter().filter_map(|name| RelPath::new(name)).collect::<Vec<_>>();
        for path in dirs {
            let dir = self.parent(path).and_then(|dir| dir.enter(path.name()));
            let names = dir.and_then(|dir| sweep(&dir, &self.tag)).unwrap_or_default();
            kept.extend(names.iter().filter_map(|name| path.join(name)));
        }
        Ok(kept)
    }

    /// The directory that a copy goes into, and the copy's path: what was in a directory that was replaced here goes into
    /// one that is made for it, beside what is there now.
    fn parent_made(&self, copy: &RelPath) -> io::Result<(Dir, RelPath)> {
        let names: Vec<&[u8]> = copy.names().collect();
        let (name, above) = names.split_last().ok_or_else(changed)?;
        let (mut dir, mut path) = (self.root.again()?, None::<RelPath>);
        for name in above {
            let below = |name: &[u8]| path.as_ref().map_or_else(|| RelPath::new(name), |path| path.join(name));
            let mut wanted = below(name).ok_or_else(changed)?;
            let mut number = 2;
            let entered = loop {
                match dir.create_dir(wanted.name()) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                    _ => {}
                }
                match dir.enter(wanted.name()) {
                    Ok(entered) => break entered,
                    // A copy of a file has the name.
                    Err(_) if number < NAMES => wanted = wanted.conflict(&number.to_string()).ok_or_else(changed)?,
                    Err(e) => return Err(e),
                }
                number += 1;
            };
            dir = entered;
            path = Some(wanted);
        }
        let copy = path.map_or_else(|| RelPath::new(name), |path| path.join(name)).ok_or_else(changed)?;
        Ok((dir, copy))
    }

    /// Gives the temporary file its name, if that still has what the plan saw.
    fn place(&self, dir: &Dir, temporary: &[u8], path: &RelPath, over: Option<&Node>, time: &str) -> io::Result<Done> {
        let placed = place(dir, &self.tag, temporary, path, over);
        match placed {
            Ok(true) => look(dir, path.name())?.map(Done::Changed).ok_or_else(changed),
            Ok(false) => {
                let copy = path.conflict(time).or_else(|| RelPath::new(path.name())?.conflict(time));
                place_beside(dir, temporary, &copy.ok_or_else(changed)?).map(Done::KeptBoth)
            }
            Err(e) => {
                let _ = dir.remove(temporary);
                Err(e)
            }
        }
    }
}

fn place(dir: &Dir, tag: &str, temporary: &[u8], path: &RelPath, over: Option<&Node>) -> io::Result<bool> {
    let name = path.name();
    let found = look(dir, name)?;
    let Some(over) = over else {
        return match found {
            Some(_) => Ok(false),
            None => match dir.rename_new(temporary, name) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                result => result.map(|()| true),
            },
        };
    };
    match found {
        // Deleted here meanwhile, or something else.
        None => return Ok(false),
        Some(found) if !is_planned(&found, over) || found.may_be_touched(over) => return Ok(false),
        Some(_) => {}
    }
    // From now on the temporary name may be of a file of the user's.
    let aside = self::temporary(tag, OLD);
    dir.rename_new(temporary, &aside)?;
    let back = || dir.rename_new(&aside, temporary);
    match dir.exchange(&aside, name) {
        Ok(Some(())) => {}
        // A file system without exchange: the moment since the look is not covered.
        Ok(None) => return dir.rename(&aside, name).map(|()| true),
        Err(e) => {
            back()?;
            return if e.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(e) };
        }
    }
    match look(dir, &aside)? {
        Some(was) if is_planned(&was, over) => dir.remove(&aside).map(|()| true),
        _ => {
            if let Err(e) = dir.exchange(&aside, name) {
                // Deleted here meanwhile: then only the user's is left.
                dir.rename_new(&aside, name)?;
                return Err(e);
            }
            back().map(|()| false)
        }
    }
}

/// Gives the temporary file a free name like `copy`, in the same directory.
fn place_beside(dir: &Dir, temporary: &[u8], copy: &RelPath) -> io::Result<RelPath> {
    let mut free = copy.clone();
    for number in 2..NAMES {
        match dir.rename_new(temporary, free.name()) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| free),
        }
        free = copy.conflict(&number.to_string()).ok_or_else(changed)?;
    }
    let free = copy.conflict(&format!("{:016x}", fastrand::u64(..))).ok_or_else(changed)?;
    dir.rename_new(temporary, free.name()).map(|()| free)
}

/// A file with all that `node` has, under a temporary name.
fn written(dir: &Dir, tag: &str, node: &Node, content: &mut dyn Read, is_synced: bool) -> io::Result<Vec<u8>> {
    let Node::File { size, mtime, mode, .. } = node else { return Err(io::Error::other("no file")) };
    let name = temporary(tag, NEW);
    let file = dir.create(&name)?;
    let mut fill = |mut file: File| {
        let copied = io::copy(&mut content.take(*size), &mut file)?;
        if copied != *size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        set_mode(&file, *mode)?;
        file.set_modified(time_of(*mtime))?;
        if is_synced { file.sync_data() } else { Ok(()) }
    };
    fill(file).inspect_err(|_| {
        let _ = dir.remove(&name);
    })?;
    Ok(name)
}

fn sweep(dir: &Dir, tag: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut kept = Vec::new();
    let ours = |kind: &[u8]| [TEMPORARY, kind, tag.as_bytes(), b"-"].concat();
    let (new, old) = (ours(NEW), ours(OLD));
    for name in dir.names()? {
        if name.starts_with(&new) {
            let _ = dir.remove(&name);
        } else if name.starts_with(&old) {
            kept.push(name);
        }
    }
    Ok(kept)
}

fn look(dir: &Dir, name: &[u8]) -> io::Result<Option<Node>> {
    Ok(match dir.look(name)? {
        Some(seen) if seen.kind == Kind::Link => Some(Node::Link { target: dir.read_link(name)?.into() }),
        Some(seen) => Some(node_of(&seen)),
        None => None,
    })
}

/// Of what was renamed by us, which counts as touched.
fn is_planned(found: &Node, planned: &Node) -> bool {
    found.same(planned, Grain::Nanosecond)
}

fn temporary(tag: &str, kind: &[u8]) -> Vec<u8> {
    [TEMPORARY, kind, format!("{tag}-{:016x}", fastrand::u64(..)).as_bytes()].concat()
}

fn changed() -> io::Error {
    io::Error::other("it has changed here meanwhile")
}

fn same_bytes(mut one: File, mut other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(other.read(&mut b)? == 0);
        }
        match other.read_exact(&mut b[..read]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        if a[..read] != b[..read] {
            return Ok(false);
        }
    }
}

fn time_of(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let moved = match nanoseconds >= 0 {
        true => SystemTime::UNIX_EPOCH.checked_add(distance),
        false => SystemTime::UNIX_EPOCH.checked_sub(distance),
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
