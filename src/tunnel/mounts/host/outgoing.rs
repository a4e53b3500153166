//! The stream that changes the mirror: files in groups, and the plan that puts them in their places.

use std::io::{self, BufWriter, Read, Write};
use std::time::SystemTime;

use tar::{Builder, EntryType, Header};

use super::Sending;
use super::listing;
use super::scripts::quoted_bytes;
use crate::os::beneath::{Seen, name_of, seen};
use crate::tunnel::mounts::apply::Here;
use crate::tunnel::mounts::progress::{Meter, Metered};
use crate::tunnel::mounts::scan::node_of;
use crate::tunnel::mounts::step::Step;
use crate::tunnel::mounts::tree::{Grain, Node, RelPath, Touched};

/// Most names in one command.
const NAMES: usize = 64;
/// Most bytes of names in one command; a system allows some 128 KiB.
const BYTES: usize = 32 * 1024;
const BUFFER: usize = 128 * 1024;
/// Before what stat says of a file when that has the time of its last change of any kind, too.
const TOUCHED: char = 'c';

/// What became of steps on the host.
#[derive(Debug, Default)]
pub(in crate::tunnel::mounts) struct Sent {
    /// For each step whether it was done.
    pub(in crate::tunnel::mounts) done: Vec<bool>,
    /// Which mirror it was.
    pub(in crate::tunnel::mounts) identity: Option<String>,
    /// What the host said of failures.
    pub(in crate::tunnel::mounts) said: Vec<String>,
}

/// The stream's writer.
struct Stream<'a, W: Write> {
    tar: Builder<BufWriter<W>>,
    here: &'a Here,
    /// Of the host's times.
    grain: Grain,
    touched: Grain,
    meter: &'a Meter,
    plan: Vec<u8>,
    failed: Vec<String>,
}

/// Steps that one command does, in one directory.
struct Group {
    /// The directory, as bytes; empty for the root.
    dir: Vec<u8>,
    kind: &'static str,
    /// Number and name of each.
    names: Vec<(usize, Vec<u8>)>,
    /// What stat says of the names before ([`stat_of`]); None: not looked at. Of a new directory its mode, in octal.
    expected: Vec<Option<String>>,
    /// Of a file that is written in place.
    mode: u16,
}

/// Writes the stream. Returns what could not be read here. Blocks.
///
/// # Errors
/// Of the stream.
pub(super) fn write(stream: impl Write, here: &Here, sending: &Sending, meter: &Meter) -> io::Result<Vec<String>> {
    let tar = Builder::new(BufWriter::with_capacity(BUFFER, stream));
    let mut stream = Stream {
        tar,
        here,
        grain: sending.grain,
        touched: sending.touched,
        meter,
        plan: Vec::new(),
        failed: Vec::new(),
    };
    match sending.fill {
        Some(mode) => stream.fill(&sending.steps, mode)?,
        None => stream.change(sending)?,
    }
    let plan = std::mem::take(&mut stream.plan);
    let size = u64::try_from(plan.len()).map_err(io::Error::other)?;
    let mut header = header(EntryType::Regular, size, 0, 0o600);
    stream.tar.append_data(&mut header, "plan", plan.as_slice())?;
    // Also the two blocks of zeros at the end.
    stream.tar.into_inner()?.flush()?;
    Ok(stream.failed)
}

/// Reads the host's answer: lines of the first step and the number of steps that are done, and which mirror it was.
pub(super) fn read_answer(answer: &[u8], sent: &mut Sent) {
    for line in answer.split(|byte| *byte == b'\n') {
        if let Some(identity) = line.strip_prefix(b"= ").and_then(listing::identity) {
            sent.identity = Some(identity);
        }
        let Some(numbers) = line.strip_prefix(b"+ ").and_then(|numbers| std::str::from_utf8(numbers).ok()) else {
            continue;
        };
        let Some((first, count)) = numbers.split_once(' ') else { continue };
        let (Ok(first), Ok(count)) = (first.parse::<usize>(), count.parse::<usize>()) else { continue };
        sent.done.iter_mut().skip(first).take(count).for_each(|done| *done = true);
    }
}

impl<W: Write> Stream<'_, W> {
    /// All into `tree`, which gets its name when it is whole.
    fn fill(&mut self, steps: &[Step], mode: u16) -> io::Result<()> {
        let mut root = header(EntryType::Directory, 0, now(), 0o700);
        self.tar.append_data(&mut root, "tree", io::empty())?;
        let (mut done, mut modes) = (Vec::new(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            if let Step::Push { path, node, .. } = step
                && self.append(&[b"tree/", path.as_bytes()].concat(), path, node)?
            {
                done.push(number);
            }
            if let Step::ModeThere { .. } = step {
                modes.push((number, step));
            }
        }
        writeln!(self.plan, "fill {mode:o} && {{\n:")?;
        for run in runs(&done) {
            writeln!(self.plan, "did {} {}", run.start, run.len())?;
        }
        self.plan.extend(b"}\n");
        for (number, step) in modes {
            self.mode(number, step)?;
        }
        Ok(())
    }

    fn change(&mut self, sending: &Sending) -> io::Result<()> {
        let (steps, grains) = (&sending.steps, (self.grain, self.touched));
        let mut groups: Vec<Group> = Vec::new();
        let mut add = |number: usize, kind: &'static str, path: &RelPath, expected: Option<String>| {
            let dir = path.parent().map_or_else(Vec::new, |dir| dir.as_bytes().to_vec());
            let name = [b"./", path.name()].concat();
            let is_single = matches!(kind, "gonedir" | "newdir" | "mode" | "over");
            let room = |group: &&mut Group| {
                let bytes: usize = group.names.iter().map(|(_, name)| name.len()).sum();
                let is_next = group.names.last().is_some_and(|(last, _)| last + 1 == number);
                let is_alike = group.kind == kind
                    && group.dir == dir
                    && group.expected.iter().all(|other| may_be_told_with(other.as_deref(), expected.as_deref()));
                !is_single && is_alike && is_next && group.names.len() < NAMES && bytes + name.len() < BYTES
            };
            match groups.last_mut().filter(room) {
                Some(group) => {
                    group.names.push((number, name));
                    group.expected.push(expected);
                }
                None => {
                    groups.push(Group { dir, kind, names: vec![(number, name)], expected: vec![expected], mode: 0 })
                }
            }
        };
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::DeleteThere { path, node } if node.is_dir() => add(number, "gonedir", path, Some(String::new())),
                Step::DeleteThere { path, node } => add(number, "gone", path, stat_of(Some(node), grains)),
                Step::Push { path, node, .. } if node.is_dir() => {
                    add(number, "newdir", path, Some(format!("{:o}", node.mode().unwrap_or(0o700))));
                }
                Step::Push { path, over, .. } => {
                    let is_over = sending.in_place && matches!(over, Some(Node::File { .. }));
                    add(number, if is_over { "over" } else { "put" }, path, stat_of(over.as_ref(), grains));
                }
                Step::ModeThere { path, .. } => add(number, "mode", path, Some(String::new())),
                _ => {}
            }
        }
        for (number, group) in groups.into_iter().enumerate() {
            self.group(number, group, steps)?;
        }
        Ok(())
    }

    fn group(&mut self, number: usize, mut group: Group, steps: &[Step]) -> io::Result<()> {
        let first = group.names.first().map_or(0, |(first, _)| *first);
        if let ("mode", Some(step)) = (group.kind, steps.get(first)) {
            return self.mode(first, step);
        }
        if let ("over", Some(mode)) = (group.kind, steps.get(first).and_then(Step::result).and_then(Node::mode)) {
            group.mode = mode;
        }
        if matches!(group.kind, "put" | "over") {
            let mut kept = Vec::new();
            for (step, name) in &group.names {
                let Some(Step::Push { path, node, .. }) = steps.get(*step) else { continue };
                let staged = [number.to_string().as_bytes(), b"/", path.name()].concat();
                if kept.is_empty() {
                    let mut dir = header(EntryType::Directory, 0, now(), 0o700);
                    self.tar.append_data(&mut dir, number.to_string(), io::empty())?;
                }
                if self.append(&staged, path, node)? {
                    kept.push((*step, name.clone()));
                }
            }
            let is_whole = kept.len() == group.names.len();
            let expected = group.names.iter().zip(&group.expected).filter(|(one, _)| kept.contains(one));
            group.expected = expected.map(|(_, expected)| expected.clone()).collect();
            group.names = kept;
            if group.names.is_empty() {
                return Ok(());
            }
            // A number and a count say which are done: a gap needs the commands one by one.
            if !is_whole {
                return self.commands(number, &group, true);
            }
        }
        self.commands(number, &group, false)
    }

    /// One command for all, and if that fails one for each.
    fn commands(&mut self, number: usize, group: &Group, is_apart: bool) -> io::Result<()> {
        self.plan.extend(b"into ");
        self.plan.extend(quoted_bytes(&group.dir));
        self.plan.extend(b" && {\n");
        let count = group.names.len();
        if !is_apart {
            self.command(number, group, 0..count)?;
        }
        if !is_apart && count > 1 {
            self.plan.extend(b" || {\n");
        }
        if is_apart || count > 1 {
            for at in 0..count {
                self.command(number, group, at..at + 1)?;
                self.plan.push(b'\n');
            }
        }
        self.plan.extend(if !is_apart && count > 1 { b"}\n}\n".as_slice() } else { b"\n}\n" });
        Ok(())
    }

    fn command(&mut self, number: usize, group: &Group, at: std::ops::Range<usize>) -> io::Result<()> {
        let Some(names) = group.names.get(at.clone()) else { return Ok(()) };
        let (first, count) = (names.first().map_or(0, |(first, _)| *first), names.len());
        let expected = group.expected.get(at).unwrap_or_default();
        match group.kind {
            "put" => write!(self.plan, "put {number} {first} {count} ")?,
            "over" => write!(self.plan, "over {number} {first} {:o} ", group.mode)?,
            "gone" => write!(self.plan, "gone {first} {count} ")?,
            "newdir" => {
                let mode = expected.first().and_then(Option::as_deref).unwrap_or("700");
                write!(self.plan, "newdir {first} {mode}")?;
            }
            kind => write!(self.plan, "{kind} {first}")?,
        }
        if matches!(group.kind, "put" | "over" | "gone") {
            let known: Option<Vec<&str>> = expected.iter().map(Option::as_deref).collect();
            let known = known.map(|lines| {
                let mark = if lines.iter().any(|line| line.starts_with(TOUCHED)) { "c" } else { "" };
                let lines = lines.into_iter().filter(|line| !line.is_empty());
                let lines: Vec<&str> = lines.map(|line| line.strip_prefix(TOUCHED).unwrap_or(line)).collect();
                mark.to_owned() + &lines.join("\n")
            });
            self.plan.extend(quoted_bytes(known.as_deref().unwrap_or("*").as_bytes()));
        }
        for (_, name) in names {
            self.plan.push(b' ');
            self.plan.extend(quoted_bytes(name));
        }
        Ok(())
    }

    fn mode(&mut self, number: usize, step: &Step) -> io::Result<()> {
        let Step::ModeThere { path, node, over } = step else { return Ok(()) };
        let mode = node.mode().unwrap_or_default();
        if node.is_dir() {
            write!(self.plan, "modedir {number} {mode:o} ")?;
            self.plan.extend(quoted_bytes(path.as_bytes()));
        } else {
            self.plan.extend(b"into ");
            self.plan.extend(quoted_bytes(path.parent().as_ref().map_or(b"".as_slice(), RelPath::as_bytes)));
            write!(self.plan, " && mode {number} {mode:o} ")?;
            self.plan.extend(quoted_bytes(
                stat_of(Some(over), (self.grain, self.touched)).as_deref().unwrap_or("*").as_bytes(),
            ));
            self.plan.push(b' ');
            self.plan.extend(quoted_bytes(&[b"./", path.name()].concat()));
        }
        self.plan.push(b'\n');
        Ok(())
    }

    /// Adds what is at `path` here under the name `name`. False if it is not `node` any more, or changed while it was read.
    fn append(&mut self, name: &[u8], path: &RelPath, node: &Node) -> io::Result<bool> {
        self.meter.file();
        let name = name_of(name)?;
        match node {
            Node::Dir { mode } => {
                let mut header = header(EntryType::Directory, 0, now(), *mode);
                self.tar.append_data(&mut header, name, io::empty())?;
                Ok(true)
            }
            Node::Link { target } => {
                let mut header = header(EntryType::Symlink, 0, now(), 0o777);
                self.tar.append_link(&mut header, name, name_of(target)?)?;
                Ok(true)
            }
            Node::File { size, mtime, mode, .. } => {
                let opened = self.here.read(path).and_then(|file| Ok((file.metadata().map(|meta| seen(&meta))?, file)));
                let (before, file) = match opened {
                    Ok(opened) => opened,
                    Err(e) => {
                        self.failed.push(format!("{path}: {e}"));
                        return Ok(false);
                    }
                };
                let is_planned = |seen: &Seen| {
                    let seen = node_of(seen);
                    seen.same(node, Grain::Nanosecond) && !seen.may_be_touched(node)
                };
                if !is_planned(&before) {
                    return Ok(false);
                }
                self.exact_time(*mtime)?;
                let mut header = header(EntryType::Regular, *size, *mtime, *mode);
                // A file that shrinks meanwhile must not shift what follows.
                let content = Metered((&file).chain(io::repeat(0)).take(*size), self.meter);
                self.tar.append_data(&mut header, name, content)?;
                Ok(file.metadata().is_ok_and(|meta| is_planned(&seen(&meta))))
            }
            Node::Other => Ok(false),
        }
    }

    /// A pax header with the next file's time, which GNU's tar keeps; busybox's keeps the file's own header's. The crate's
    /// pax headers have no name, which busybox takes for the archive's end.
    fn exact_time(&mut self, mtime: i64) -> io::Result<()> {
        let (seconds, part) = (mtime.div_euclid(1_000_000_000), mtime.rem_euclid(1_000_000_000));
        if seconds < 0 {
            return Ok(());
        }
        let text = format!(" mtime={seconds}.{part:09}\n");
        // The length counts its own two digits.
        let record = format!("{}{text}", text.len() + 2);
        let size = u64::try_from(record.len()).map_err(io::Error::other)?;
        let mut header = header(EntryType::XHeader, size, 0, 0o600);
        header.set_path("././@PaxHeader")?;
        header.set_cksum();
        self.tar.append(&header, record.as_bytes())
    }
}

/// The time of what has none in the plan, in nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn header(kind: EntryType, size: u64, mtime: i64, mode: u16) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode.into());
    header.set_mtime(u64::try_from(mtime.div_euclid(1_000_000_000)).unwrap_or_default());
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// What stat says of a file before it is replaced: its size and time, and behind [`TOUCHED`] also when it was last changed
/// in any way, if that is known. Empty for nothing, None for links, whose times are not known.
fn stat_of(node: Option<&Node>, (grain, touched_grain): (Grain, Grain)) -> Option<String> {
    let text = |time: i64, grain: Grain| {
        let (seconds, part) = (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000));
        match grain {
            Grain::Nanosecond => format!("{seconds}.{part:09}"),
            Grain::Second => format!("{seconds}"),
        }
    };
    match node {
        None => Some(String::new()),
        Some(Node::File { size, mtime, touched: Touched(0), .. }) => Some(format!("{size} {}", text(*mtime, grain))),
        Some(Node::File { size, mtime, touched: Touched(touched), .. }) => {
            Some(format!("{TOUCHED}{size} {} {}", text(*mtime, grain), text(*touched, touched_grain)))
        }
        Some(_) => None,
    }
}

/// Whether one command of stat tells what is expected of both.
fn may_be_told_with(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(""), Some(_)) | (Some(_), Some("")) | (None, None) => true,
        (Some(one), Some(other)) => one.starts_with(TOUCHED) == other.starts_with(TOUCHED),
        _ => false,
    }
}

/// Numbers as ranges without gaps.
fn runs(numbers: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == *number => run.end += 1,
            _ => runs.push(*number..*number + 1),
        }
    }
    runs
}
