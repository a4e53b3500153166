//! The base on the disk, so that a restart knows what was in step.
//!
//! A file of records that only grows: length, checksum, content. What follows a record that is cut short or wrong is
//! ignored. When most records are old, the file is written anew and takes the place of the old one (rename(2)). Without a
//! journal nothing is known to be in step: then both sides' versions are kept where they differ.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::base::{Base, Known, Record, Seen, apply, apply_seen};
use super::tree::{MAX_LENGTH, Node, RelPath, Touched};
use crate::os::private::private;

/// The first bytes of the file; another version is as good as none.
const HEADER: &[u8] = b"dtunnel mounts 1\n";
/// Bytes of the SHA-256 of a record that are kept: against torn writes, not against people.
const CHECK: usize = 8;
/// Longest content of a record: a path and two links.
const MAX_RECORD: usize = 4 * MAX_LENGTH;
/// A smaller file is not worth writing anew, in records.
const COMPACTION: usize = 4096;
/// Longest file that is read, in bytes: 200 000 paths, each of them long, some times over.
const MAX_FILE: u64 = 4 << 30;

/// The base and its file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    base: Base,
    seen: Seen,
    /// The mirror that the base is about; empty if nothing is known.
    mirror: String,
    /// Records in the file.
    records: usize,
    /// The file may end in half a record: nothing is appended behind that.
    is_torn: bool,
}

impl Journal {
    /// Opens the journal at `path` or creates it, readable for this user only. One that cannot be understood is replaced
    /// by an empty one.
    ///
    /// # Errors
    /// From the system: the file can be neither read nor created.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path)?;
        let mut content = Vec::new();
        (&file).take(MAX_FILE).read_to_end(&mut content)?;
        let (base, seen, mirror) = (Base::new(), Seen::new(), String::new());
        let mut journal = Self { path: path.into(), file, base, seen, mirror, records: 0, is_torn: false };
        let mut read = 0;
        if content.starts_with(HEADER) {
            read = HEADER.len();
            while let Some((record, length)) = content.get(read..).and_then(next) {
                journal.take(record);
                read += length;
            }
        }
        if read == 0 {
            journal.file.set_len(0)?;
            journal.file.seek(SeekFrom::Start(0))?;
            journal.file.write_all(HEADER)?;
        } else {
            let end = u64::try_from(read).map_err(io::Error::other)?;
            journal.file.set_len(end)?;
            journal.file.seek(SeekFrom::Start(end))?;
        }
        Ok(journal)
    }

    /// What was in step at last.
    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    /// When the host's files were last changed in any way, where that is known.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// What identifies the mirror that the base is about; empty if nothing is known.
    pub(super) fn mirror(&self) -> &str {
        &self.mirror
    }

    /// Adds records. They may be lost in a crash, the last ones first, until [`Self::sync`].
    ///
    /// # Errors
    /// From the system, for instance a full disk. The base is then as the file has it, or knows less.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Record>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut taken = Vec::new();
        for record in records {
            bytes.extend(frame(&encoded(&record)));
            taken.push(record);
        }
        if self.is_torn {
            self.compact()?;
        }
        if let Err(e) = self.file.write_all(&bytes) {
            self.is_torn = true;
            // Fewer entries are safe, and wrong ones are not.
            for record in taken {
                if let Record::Set(path, _) | Record::Forget(path) = record {
                    self.base.remove(&path);
                    self.seen.remove(&path);
                }
            }
            return Err(e);
        }
        for record in taken {
            self.take(record);
        }
        if self.records > COMPACTION && self.records / 4 > self.base.len() + self.seen.len() {
            self.compact()?;
        }
        Ok(())
    }

    /// Waits until the records are on the disk.
    ///
    /// # Errors
    /// From the system.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn take(&mut self, record: Record) {
        self.records += 1;
        if let Record::Mirror(mirror) = &record {
            self.mirror.clone_from(mirror);
        }
        apply_seen(&mut self.seen, &record);
        apply(&mut self.base, record);
    }

    /// Writes the base as a new file, which takes the place of the old one when it is complete.
    fn compact(&mut self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        // Mode 0600 (tempfile's default).
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        let mut bytes = HEADER.to_vec();
        bytes.extend(frame(&encoded(&Record::Mirror(self.mirror.clone()))));
        for (path, known) in &self.base {
            bytes.extend(frame(&encoded(&Record::Set(path.clone(), known.clone()))));
        }
        for (path, time) in &self.seen {
            bytes.extend(frame(&encoded(&Record::Seen(path.clone(), *time))));
        }
        new.write_all(&bytes)?;
        new.as_file().sync_all()?;
        self.file = new.persist(&self.path)?;
        self.records = self.base.len() + self.seen.len() + 1;
        self.is_torn = false;
        Ok(())
    }
}

fn frame(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
    let check = Sha256::digest(content);
    [&length, &check[..CHECK], content].concat()
}

/// The first record, and its length in the file.
fn next(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= MAX_RECORD)?;
    let (check, rest) = rest.split_at_checked(CHECK)?;
    let content = rest.get(..length)?;
    let is_whole = Sha256::digest(content).starts_with(check);
    let record = is_whole.then(|| decoded(content)).flatten()?;
    Some((record, 4 + CHECK + length))
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    match record {
        Record::Set(path, Known::InStep(node)) => {
            bytes.push(b'=');
            put(&mut bytes, path.as_bytes());
            put_node(&mut bytes, Some(node));
        }
        Record::Set(path, Known::Going { old, new }) => {
            bytes.push(b'>');
            put(&mut bytes, path.as_bytes());
            put_node(&mut bytes, old.as_ref());
            put_node(&mut bytes, new.as_ref());
        }
        Record::Forget(path) => {
            bytes.push(b'-');
            put(&mut bytes, path.as_bytes());
        }
        Record::Seen(path, time) => {
            bytes.push(b't');
            put(&mut bytes, path.as_bytes());
            bytes.extend(time.to_le_bytes());
        }
        Record::Mirror(mirror) => {
            bytes.push(b'm');
            put(&mut bytes, mirror.as_bytes());
        }
    }
    bytes
}

/// Paths, targets and identities are shorter than 64 KiB.
fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(u16::MAX.into())];
    bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(text);
}

fn put_node(bytes: &mut Vec<u8>, node: Option<&Node>) {
    match node {
        None => bytes.push(b'n'),
        Some(Node::File { size, mtime, mode, touched }) => {
            bytes.push(b'f');
            bytes.extend(size.to_le_bytes());
            bytes.extend(mtime.to_le_bytes());
            bytes.extend(mode.to_le_bytes());
            bytes.extend(touched.0.to_le_bytes());
        }
        Some(Node::Dir { mode }) => {
            bytes.push(b'd');
            bytes.extend(mode.to_le_bytes());
        }
        Some(Node::Link { target }) => {
            bytes.push(b'l');
            put(bytes, target);
        }
        Some(Node::Other) => bytes.push(b'o'),
    }
}

fn decoded(content: &[u8]) -> Option<Record> {
    let mut rest = Rest(content);
    let [kind] = rest.array()?;
    let record = match kind {
        b'=' => Record::Set(rest.path()?, Known::InStep(rest.node()??)),
        b'>' => Record::Set(rest.path()?, Known::Going { old: rest.node()?, new: rest.node()? }),
        b'-' => Record::Forget(rest.path()?),
        b't' => Record::Seen(rest.path()?, i64::from_le_bytes(rest.array()?)),
        b'm' => Record::Mirror(String::from_utf8(rest.text()?.to_vec()).ok()?),
        _ => return None,
    };
    rest.0.is_empty().then_some(record)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_le_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(text)
    }

    fn path(&mut self) -> Option<RelPath> {
        RelPath::new(self.text()?)
    }

    fn node(&mut self) -> Option<Option<Node>> {
        let [kind] = self.array()?;
        Some(Some(match kind {
            b'n' => return Some(None),
            b'f' => Node::File {
                size: u64::from_le_bytes(self.array()?),
                mtime: i64::from_le_bytes(self.array()?),
                mode: u16::from_le_bytes(self.array()?),
                touched: Touched(i64::from_le_bytes(self.array()?)),
            },
            b'd' => Node::Dir { mode: u16::from_le_bytes(self.array()?) },
            b'l' => Node::Link { target: self.text()?.into() },
            b'o' => Node::Other,
            _ => return None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &[u8]) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    fn some_records() -> Vec<Record> {
        let file = Node::File { size: 5 << 30, mtime: -7, mode: 0o644, touched: Touched(9) };
        let link = Node::Link { target: b"a\xff\n".as_slice().into() };
        vec![
            Record::Mirror("id 7".into()),
            Record::Set(path(b"a\n\xff"), Known::InStep(file.clone())),
            Record::Set(path(b"d"), Known::InStep(Node::Dir { mode: 0o755 })),
            Record::Set(path(b"d/l"), Known::Going { old: Some(link), new: None }),
            Record::Set(path(b"gone"), Known::InStep(file)),
            Record::Seen(path(b"a\n\xff"), 11),
            Record::Seen(path(b"gone"), 12),
            Record::Forget(path(b"gone")),
        ]
    }

    fn expected(records: &[Record]) -> Base {
        let mut base = Base::new();
        records.iter().for_each(|record| apply(&mut base, record.clone()));
        base
    }

    #[test]
    fn what_was_recorded_is_known_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("journal");
        let mut journal = Journal::open(&at).expect("opened");
        journal.add(some_records()).expect("written");
        journal.sync().expect("synced");
        drop(journal);
        let journal = Journal::open(&at).expect("opened");
        assert_eq!(journal.base(), &expected(&some_records()));
        assert_eq!(journal.mirror(), "id 7");
        let Some(Known::InStep(Node::File { touched, .. })) = journal.base().get(&path(b"a\n\xff")) else {
            panic!("no file")
        };
        assert_eq!(touched.0, 9);
        assert_eq!(journal.seen(), &[(path(b"a\n\xff"), 11)].into());
        assert_eq!(crate::os::private::readable_by_others(&at.metadata().expect("is there")), None);
    }

    #[test]
    fn a_torn_tail_is_ignored_wherever_it_is_torn_and_written_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("journal");
        Journal::open(&at).and_then(|mut journal| journal.add(some_records())).expect("written");
        let whole = std::fs::read(&at).expect("read");
        for length in 0..whole.len() {
            for tail in [b"".as_slice(), b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
                std::fs::write(&at, [&whole[..length], tail].concat()).expect("written");
                let mut journal = Journal::open(&at).expect("opened");
                let count = journal.records;
                assert_eq!(journal.base(), &expected(&some_records()[..count]), "{length}");
                journal.add([Record::Forget(path(b"d"))]).expect("written");
                let known = journal.base().clone();
                drop(journal);
                assert_eq!(Journal::open(&at).expect("opened").base(), &known);
            }
        }
    }

    #[test]
    fn rubbish_is_no_journal_and_the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("journal");
        std::fs::write(&at, b"something else").expect("written");
        let mut journal = Journal::open(&at).expect("opened");
        assert!(journal.base().is_empty());
        for round in 0..3 * COMPACTION {
            let mtime = i64::try_from(round).expect("fits");
            let node = Node::File { size: 1, mtime, mode: 0o600, touched: Touched(mtime) };
            journal
                .add([Record::Set(path(b"a"), Known::InStep(node)), Record::Seen(path(b"a"), mtime)])
                .expect("written");
        }
        let seen = journal.seen().clone();
        assert_eq!(seen.len(), 1);
        assert!(at.metadata().expect("is there").len() < 512 * 1024);
        let known = journal.base().clone();
        drop(journal);
        let journal = Journal::open(&at).expect("opened");
        assert_eq!((journal.base(), journal.seen()), (&known, &seen));
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1);
    }
}
