//! Files from the host: what is asked for, and the stream of archives that comes back.
//!
//! Each group of files is of one directory and comes as a line of 512 bytes with its number, then a tar archive whose names
//! have no directory. Only what was asked for is taken, once; everything is bounded.

use std::io::{self, Read};

use tar::{Archive, EntryType};

use super::scripts::quoted_bytes;
use crate::tunnel::mounts::apply::{Done, Here};
use crate::tunnel::mounts::progress::{Meter, Metered};
use crate::tunnel::mounts::scan::{Bounds, bounded_time};
use crate::tunnel::mounts::step::Step;
use crate::tunnel::mounts::tree::{MAX_LENGTH, Node, Touched};

/// Most files of one archive.
pub(super) const GROUP: usize = 64;
/// So many files are written to the disk one by one; for more the file system is, which then costs less.
pub(super) const APART: usize = 16;
/// Of tar, in bytes.
const BLOCK: usize = 512;
/// The first word of the line before an archive.
const MARK: &str = "dtunnel ";
/// Most bytes of padding and headers for each file: its name and a target may be long.
const BESIDE: u64 = 12 * 1024;

/// What became of a file that was asked for.
#[derive(Debug)]
pub(in crate::tunnel::mounts) enum Arrived {
    /// What the host had, which may be newer than the plan, and what was done with it here.
    Put { node: Node, done: Done },
    /// Why not.
    Failed(String),
    /// It did not come.
    Missing,
    /// It is another name of a file that came with it.
    LinkedTo,
}

/// Numbers of steps in one directory.
#[derive(Debug)]
pub(super) struct Group {
    dir: Vec<u8>,
    steps: Vec<usize>,
}

/// The steps by directory, at most `size` in each.
pub(super) fn groups(steps: &[Step], size: usize) -> Vec<Group> {
    let dir = |at: &usize| steps[*at].path().parent().map_or_else(Vec::new, |dir| dir.as_bytes().to_vec());
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(dir);
    let mut groups: Vec<Group> = Vec::new();
    for at in order {
        let dir = dir(&at);
        match groups.last_mut().filter(|group| group.dir == dir && group.steps.len() < size) {
            Some(group) => group.steps.push(at),
            None => groups.push(Group { dir, steps: vec![at] }),
        }
    }
    groups
}

/// What [`super::scripts::FETCH`] reads.
pub(super) fn request(steps: &[Step], groups: &[Group]) -> Vec<u8> {
    let mut request = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        request.extend(b"into ");
        request.extend(quoted_bytes(&group.dir));
        request.extend(format!(" && grab {number}").bytes());
        for at in &group.steps {
            request.push(b' ');
            request.extend(quoted_bytes(&[b"./", steps[*at].path().name()].concat()));
        }
        request.push(b'\n');
    }
    request
}

/// What files come for.
#[derive(Debug, Clone, Copy)]
pub(in crate::tunnel::mounts) struct Taking<'a> {
    pub(super) here: &'a Here,
    pub(super) steps: &'a [Step],
    pub(super) bounds: Bounds,
    /// For the names of copies.
    pub(super) time: &'a str,
    pub(super) meter: &'a Meter,
}

/// Reads the stream and does the steps with what comes. After an error the rest is missing. Blocks.
pub(super) fn read(stream: impl Read, taking: Taking<'_>, groups: &[Group]) -> Vec<Arrived> {
    let Taking { here, steps, bounds, .. } = taking;
    let beside = u64::try_from(steps.len()).unwrap_or(u64::MAX).saturating_mul(BESIDE);
    let mut incoming = Incoming { taking, arrived: Vec::new() };
    incoming.arrived.resize_with(steps.len(), || Arrived::Missing);
    let stream = stream.take(bounds.bytes.saturating_add(beside));
    if let Err(e) = incoming.archives(io::BufReader::with_capacity(128 * 1024, stream), groups) {
        let missing = incoming.arrived.iter_mut().filter(|one| matches!(one, Arrived::Missing));
        missing.for_each(|one| *one = Arrived::Failed(e.to_string()));
    }
    if steps.len() > APART
        && let Err(e) = here.sync()
    {
        incoming.arrived.iter_mut().for_each(|one| *one = Arrived::Failed(e.to_string()));
    }
    incoming.arrived
}

struct Incoming<'a> {
    taking: Taking<'a>,
    arrived: Vec<Arrived>,
}

impl Incoming<'_> {
    fn archives(&mut self, mut stream: impl Read, groups: &[Group]) -> io::Result<()> {
        let mut block = [0; BLOCK];
        while read_block(&mut stream, &mut block)? {
            // Archives are padded with blocks of zeros.
            if block.iter().all(|byte| *byte == 0) {
                continue;
            }
            let line = std::str::from_utf8(&block).ok().and_then(|line| line.strip_prefix(MARK));
            let number = line.and_then(|line| line.trim_end().parse::<usize>().ok());
            let group = number.and_then(|number| groups.get(number)).ok_or_else(|| strange("no archive"))?;
            self.archive(&mut stream, group)?;
        }
        Ok(())
    }

    fn archive(&mut self, stream: &mut impl Read, group: &Group) -> io::Result<()> {
        let mut archive = Archive::new(stream);
        // The crate would read a long name into memory whatever its length.
        let (mut long_name, mut long_target) = (None, None);
        for entry in archive.entries()?.raw(true) {
            let mut entry = entry?;
            match entry.header().entry_type() {
                EntryType::GNULongName => long_name = Some(text(&mut entry)?),
                EntryType::GNULongLink => long_target = Some(text(&mut entry)?),
                EntryType::XHeader | EntryType::XGlobalHeader => {}
                kind => {
                    let name = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
                    let target = long_target.take().or_else(|| entry.header().link_name_bytes().map(Into::into));
                    let at = self.asked(group, &name)?;
                    self.arrived[at] = match self.take(at, kind, target, &mut entry) {
                        Ok(arrived) => arrived,
                        Err(e) => Arrived::Failed(e.to_string()),
                    };
                }
            }
        }
        Ok(())
    }

    /// The step that the name is for.
    fn asked(&self, group: &Group, name: &[u8]) -> io::Result<usize> {
        let name = name.strip_prefix(b"./").unwrap_or(name);
        let is_it = |at: &&usize| {
            self.taking.steps[**at].path().name() == name && matches!(self.arrived[**at], Arrived::Missing)
        };
        group.steps.iter().find(is_it).copied().ok_or_else(|| strange("a file that nobody asked for"))
    }

    fn take(
        &self,
        at: usize,
        kind: EntryType,
        target: Option<Vec<u8>>,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> io::Result<Arrived> {
        let Taking { here, steps, time, meter, .. } = self.taking;
        let step = &steps[at];
        meter.file();
        let header = entry.header();
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let mode = u16::try_from(header.mode()? & 0o777).map_err(io::Error::other)?;
                let size = header.entry_size()?;
                // Of times before 1970, in base 256, the crate has the bits of a negative number, or an error.
                let seconds = header.mtime().map_or(0, |seconds| i64::try_from(seconds).unwrap_or_default());
                let seconds = bounded_time(seconds.saturating_mul(1_000_000_000)) / 1_000_000_000;
                let mtime = seconds.saturating_mul(1_000_000_000);
                let mut node = Node::File { size, mtime, mode, touched: Touched::default() };
                // The archive has seconds. The rest is known from the listing if it is still the same file.
                if let Some(Node::File { size: listed, mtime, .. }) = step.result()
                    && *listed == size
                    && mtime.div_euclid(1_000_000_000) == seconds
                {
                    node = Node::File { size, mtime: *mtime, mode, touched: Touched::default() };
                }
                let mut content = Metered(entry, meter);
                let done = match step {
                    Step::KeepBoth { path, copy, .. } => here.keep_file(path, &node, copy, &mut content)?,
                    _ => {
                        let is_synced = steps.len() <= APART;
                        here.put_file(step.path(), &node, over(step), &mut content, time, is_synced)?
                    }
                };
                Ok(Arrived::Put { node, done })
            }
            EntryType::Symlink => {
                let target =
                    target.filter(|target| target.len() <= MAX_LENGTH).ok_or_else(|| strange("a long link"))?;
                let done = match step {
                    Step::KeepBoth { copy, .. } => here.keep_link(&target, copy)?,
                    _ => here.put_link(step.path(), &target, over(step), time)?,
                };
                Ok(Arrived::Put { node: Node::Link { target: target.into() }, done })
            }
            EntryType::Link => Ok(Arrived::LinkedTo),
            _ => Err(strange("something that is neither a file nor a link")),
        }
    }
}

/// What a fetched file takes the place of.
pub(super) fn over(step: &Step) -> Option<&Node> {
    if let Step::Fetch { over, .. } = step { over.as_ref() } else { None }
}

/// A long name or target, which ends with a NUL.
fn text(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = u64::try_from(MAX_LENGTH + 4).map_err(io::Error::other)?;
    entry.take(most).read_to_end(&mut text)?;
    if text.last() == Some(&0) {
        text.pop();
    }
    if text.len() > MAX_LENGTH { Err(strange("a name that is too long")) } else { Ok(text) }
}

/// False at the end of the stream.
fn read_block(stream: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut read = 0;
    while read < BLOCK {
        match stream.read(&mut block[read..]) {
            Ok(0) if read == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => read += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

fn strange(what: &str) -> io::Error {
    io::Error::other(format!("the host sent {what}"))
}
