//! What is in the mirror, from the host's answer.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::scripts;
use crate::tunnel::mounts::scan::{Bounds, bounded_time};
use crate::tunnel::mounts::tree::{Grain, MAX_LENGTH, Node, Reading, RelPath, Touched, Tree, is_own_name};

/// Bytes of an answer for each path that may be there, on average; the bound of the whole.
const PER_ENTRY: u64 = 512;
/// The answer's bound beside that, in bytes.
const BESIDE: u64 = 1 << 20;
/// Longest identity, in bytes.
const MAX_IDENTITY: usize = 128;

/// What is in the mirror.
#[derive(Debug, Clone)]
pub(in crate::tunnel::mounts) struct Listing {
    /// Which mirror it is; None if there is none.
    pub(in crate::tunnel::mounts) identity: Option<String>,
    pub(in crate::tunnel::mounts) reading: Reading,
    /// How fine the times are.
    pub(in crate::tunnel::mounts) grain: Grain,
    /// How fine the host's tools tell when a file was last changed in any way.
    pub(in crate::tunnel::mounts) touched: Grain,
    /// Of the answer's bytes: the same listing has the same.
    pub(in crate::tunnel::mounts) digest: String,
    /// Paths that are not known, and why.
    pub(in crate::tunnel::mounts) failed: Vec<(String, String)>,
}

/// Longest answer that is read, in bytes.
pub(super) fn most_bytes(bounds: Bounds) -> u64 {
    bounds.entries.saturating_mul(PER_ENTRY).saturating_add(BESIDE)
}

/// The answer as it was before the host compressed it.
///
/// # Errors
/// It is cut, or has more than `most` bytes.
pub(super) fn unpacked(answer: Vec<u8>, most: u64) -> io::Result<Vec<u8>> {
    let Some(packed) = answer.strip_prefix(scripts::PACKED) else { return Ok(answer) };
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed).take(most + 1).read_to_end(&mut unpacked).map_err(|_| cut())?;
    match u64::try_from(unpacked.len()).is_ok_and(|length| length <= most) {
        true => Ok(unpacked),
        false => Err(io::Error::other("the mirror on the host has more files than may be mounted")),
    }
}

/// Reads the answer of [`super::scripts::SCAN`].
///
/// # Errors
/// It is none, is cut, or has more than `bounds`.
pub(super) fn parse(answer: &[u8], bounds: Bounds) -> io::Result<Listing> {
    let digest = Sha256::digest(answer).iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = answer.strip_suffix(b"\0").ok_or_else(cut)?;
    let mut fields = answer.split(|byte| *byte == 0);
    let (grain, touched) = (Grain::Nanosecond, Grain::Nanosecond);
    let mut listing =
        Listing { identity: None, reading: Reading::default(), grain, touched, digest, failed: Vec::new() };
    match fields.next() {
        Some(b"gone") => return Ok(listing),
        Some(b"mirror") => {}
        _ => return Err(cut()),
    }
    listing.identity = Some(fields.next().and_then(identity).ok_or_else(cut)?);
    let tools = fields.next().ok_or_else(cut)?;
    let mut parser = Parser { listing, bounds, bytes: 0, is_fine: false };
    let status = loop {
        let kind = fields.next().ok_or_else(cut)?;
        if let Some(status) = kind.strip_prefix(b"end ") {
            break status;
        }
        if kind == b"stat" {
            let lines = fields.next().ok_or_else(cut)?;
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                parser.line(line)?;
            }
            continue;
        }
        let (path, target) = fields.next().zip(fields.next()).ok_or_else(cut)?;
        parser.entry(kind, path, target)?;
    };
    let is_fine = parser.is_fine;
    let mut listing = parser.listing;
    if status != b"0" {
        listing.reading.is_partial = true;
        listing.failed.push((".".into(), "some of it cannot be read on the host".into()));
    }
    // Without a single finer time the file system, or what wrote the files, knows seconds only.
    if tools != b"gnu" || !is_fine {
        listing.grain = Grain::Second;
    }
    if tools != b"gnu" {
        listing.touched = Grain::Second;
    }
    drop_strays(&mut listing);
    Ok(listing)
}

/// Reads what a host says of a mirror, whatever that is, and holds it against what is promised of a listing.
#[cfg(fuzzing)]
pub fn read_whatever(answer: &[u8]) {
    let bounds = Bounds { bytes: 1 << 20, entries: 64 };
    let Ok(answer) = unpacked(answer.to_vec(), most_bytes(bounds)) else { return };
    let Ok(listing) = parse(&answer, bounds) else { return };
    let tree = &listing.reading.tree;
    assert!(tree.len() <= 64, "more than the bounds allow");
    for path in tree.keys() {
        assert!(RelPath::new(path.as_bytes()).is_some(), "{path:?} is no path");
        let is_dir = |above: &RelPath| tree.get(above).is_some_and(Node::is_dir);
        assert!(path.parent().is_none_or(|above| is_dir(&above)), "{path:?} is in no directory");
    }
}

/// The mark's random name and numbers.
pub(super) fn identity(text: &[u8]) -> Option<String> {
    let is_one = (1..=MAX_IDENTITY).contains(&text.len()) && text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    is_one.then(|| String::from_utf8_lossy(text).into_owned())
}

fn cut() -> io::Error {
    io::Error::other("the host does not say what is in the mirror")
}

struct Parser {
    listing: Listing,
    bounds: Bounds,
    bytes: u64,
    /// Whether a time has a part of a second.
    is_fine: bool,
}

impl Parser {
    /// `f 644 5 1700000000.1234567890 1700000000.1234567890 1`, and a link's target.
    fn entry(&mut self, kind: &[u8], path: &[u8], target: &[u8]) -> io::Result<()> {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        match kind {
            b"U" => return self.unknown(path, "it cannot be read on the host"),
            b"N" => return self.unknown(path, "the host has no tools for names with line breaks"),
            _ => {}
        }
        let text = std::str::from_utf8(kind).map_err(|_| cut())?;
        let mut words = text.split(' ');
        let [kind, mode, size, time, changed, names] = [(); 6].map(|()| words.next().unwrap_or_default());
        let mode = u32::from_str_radix(mode, 8).map_err(|_| cut())? & 0o777;
        let mode = u16::try_from(mode).map_err(|_| cut())?;
        let node = match kind {
            "f" => file(size.parse().map_err(|_| cut())?, self.time(time)?, mode, touched(changed, names)?),
            "d" => Node::Dir { mode },
            // busybox's readlink ends with a line break, find's %l does not: the time tells which.
            "l" => {
                let target = if time == "0" { target.strip_suffix(b"\n").unwrap_or(target) } else { target };
                Node::Link { target: target.get(..target.len().min(MAX_LENGTH)).unwrap_or_default().into() }
            }
            _ => Node::Other,
        };
        self.add(path, node)
    }

    /// `81a4 5 1700000000 1700000000 1 ./path`: busybox's stat.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut words = line.splitn(6, |byte| *byte == b' ');
        let [mode, size, time, changed, names, path] = [(); 6].map(|()| words.next().unwrap_or_default());
        let text = |word| std::str::from_utf8(word).map_err(|_| cut());
        let raw = u32::from_str_radix(text(mode)?, 16).map_err(|_| cut())?;
        let mode = u16::try_from(raw & 0o777).map_err(|_| cut())?;
        // S_IFMT of inode(7), which has these values on all systems.
        let node = match raw & 0o170_000 {
            0o100_000 => {
                let touched = touched(text(changed)?, text(names)?)?;
                file(text(size)?.parse().map_err(|_| cut())?, self.time(text(time)?)?, mode, touched)
            }
            0o040_000 => Node::Dir { mode },
            _ => Node::Other,
        };
        self.add(path.strip_prefix(b"./").ok_or_else(cut)?, node)
    }

    /// Seconds with up to nine digits behind the point that count.
    fn time(&mut self, text: &str) -> io::Result<i64> {
        let time = time(text)?;
        self.is_fine |= time % 1_000_000_000 != 0;
        Ok(time)
    }

    fn add(&mut self, path: &[u8], node: Node) -> io::Result<()> {
        let Some(path) = RelPath::new(path) else {
            self.listing.reading.is_partial = true;
            self.listing.failed.push((crate::text::shown_bytes(path), "the name is too long".into()));
            return Ok(());
        };
        if is_own_name(path.name()) {
            self.listing.reading.unknown.insert(path);
            return Ok(());
        }
        if let Node::File { size, .. } = node {
            self.bytes = self.bytes.saturating_add(size);
        }
        self.listing.reading.tree.insert(path, node);
        let entries = u64::try_from(self.listing.reading.tree.len()).unwrap_or(u64::MAX);
        if self.bytes > self.bounds.bytes || entries > self.bounds.entries {
            return Err(io::Error::other("the mirror on the host has more than may be mounted"));
        }
        Ok(())
    }

    fn unknown(&mut self, path: &[u8], reason: &str) -> io::Result<()> {
        self.listing.failed.push((crate::text::shown_bytes(path), reason.into()));
        match RelPath::new(path) {
            Some(path) => {
                self.listing.reading.unknown.insert(path);
            }
            None => self.listing.reading.is_partial = true,
        }
        Ok(())
    }
}

/// Seconds with up to nine digits behind the point that count, in nanoseconds.
fn time(text: &str) -> io::Result<i64> {
    let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let seconds: i64 = seconds.parse().map_err(|_| cut())?;
    let fraction: i64 = nine.parse().map_err(|_| cut())?;
    let time = seconds.saturating_mul(1_000_000_000).saturating_add(fraction);
    Ok(if is_negative { -time } else { time })
}

/// When a file was last changed in any way; not known if it has several names, since what is done with the others changes
/// it, too.
fn touched(time: &str, names: &str) -> io::Result<Touched> {
    if names == "1" { self::time(time).map(Touched) } else { Ok(Touched::default()) }
}

fn file(size: u64, mtime: i64, mode: u16, touched: Touched) -> Node {
    Node::File { size, mtime: bounded_time(mtime), mode, touched }
}

/// Removes paths whose directory is none: it was replaced while the host read, or the answer is made up.
fn drop_strays(listing: &mut Listing) {
    let tree = std::mem::take(&mut listing.reading.tree);
    let mut kept = Tree::new();
    for (path, node) in tree {
        match path.parent() {
            Some(parent) if !kept.get(&parent).is_some_and(Node::is_dir) => listing.reading.is_partial = true,
            _ => {
                kept.insert(path, node);
            }
        }
    }
    listing.reading.tree = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &[u8]) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    #[test]
    fn both_kinds_of_tools_are_understood() {
        let gnu = b"mirror\0k 7\0gnu\0d 755 4096 1.5\0d\0\0f 4644 5 1700000000.1234567890 1700000001.5 1\0d/a\nb\0\0\
                    l 777 1 1.0000000000\0l\0d\n\0s 755 0 1.0\0s\0\0U\0shut\0\0f 600 1 -1.5000000000 1.5 2\0old\0\0end 0\0";
        let listing = parse(gnu, Bounds::default()).expect("a listing");
        assert_eq!(listing.identity.as_deref(), Some("k 7"));
        assert_eq!(listing.grain, Grain::Nanosecond);
        let file = super::file(5, 1_700_000_000_123_456_789, 0o644, Touched::default());
        assert_eq!(listing.reading.tree.get(&path(b"d/a\nb")), Some(&file));
        assert_eq!(listing.reading.tree.get(&path(b"l")), Some(&Node::Link { target: b"d\n".as_slice().into() }));
        assert_eq!(listing.reading.tree.get(&path(b"s")), Some(&Node::Other));
        let old = super::file(1, -1_500_000_000, 0o600, Touched::default());
        assert_eq!(listing.reading.tree.get(&path(b"old")), Some(&old));
        assert!(listing.reading.unknown.contains(&path(b"shut")) && !listing.reading.is_partial);
        let busybox = b"mirror\0k 7\0busybox\0N\0./a\nb\0\0l 0 0 0\0./l\0d\n\0stat\x0041ed 4096 1 1 3 ./d\n\
                        81a4 5 1700000000 1700000001 1 ./d/a b\n\0end 1\0";
        let listing = parse(busybox, Bounds::default()).expect("a listing");
        let file = super::file(5, 1_700_000_000_000_000_000, 0o644, Touched::default());
        assert_eq!(listing.reading.tree.get(&path(b"d/a b")), Some(&file));
        assert_eq!(listing.reading.tree.get(&path(b"l")), Some(&Node::Link { target: b"d".as_slice().into() }));
        assert_eq!((listing.grain, listing.reading.is_partial), (Grain::Second, true));
        assert_eq!(listing.failed.len(), 2);
    }

    #[test]
    fn a_compressed_answer_is_bounded_and_must_be_whole() {
        let mut packer = flate2::write::GzEncoder::new(scripts::PACKED.to_vec(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, &[b'x'; 100_000]).expect("packed");
        let packed = packer.finish().expect("packed");
        assert_eq!(unpacked(packed.clone(), 100_000).expect("unpacked").len(), 100_000);
        assert!(unpacked(packed.clone(), 99_999).is_err());
        for length in scripts::PACKED.len()..packed.len() {
            assert!(unpacked(packed[..length].to_vec(), 100_000).is_err(), "{length}");
        }
        assert_eq!(unpacked(b"gone\0".to_vec(), 9).expect("as it is"), b"gone\0");
    }

    #[test]
    fn what_is_cut_too_much_or_made_up_is_no_listing() {
        let whole = b"mirror\0k 7\0gnu\0d 755 1 1.5\0d\0\0f 644 5 1.5\0d/a\0\0end 0\0";
        assert!(parse(whole, Bounds::default()).is_ok());
        for length in 0..whole.len() {
            assert!(parse(&whole[..length], Bounds::default()).is_err(), "{length}");
        }
        assert!(parse(whole, Bounds { bytes: 4, entries: 9 }).is_err());
        assert!(parse(whole, Bounds { bytes: 9, entries: 1 }).is_err());
        assert!(parse(b"gone\0", Bounds::default()).is_ok_and(|listing| listing.identity.is_none()));
        for odd in ["../x", "/etc/passwd", "nodir/x", "a//b", ""] {
            let answer = format!("mirror\0k\0gnu\0f 644 1 1.5\0{odd}\0\0end 0\0");
            let listing = parse(answer.as_bytes(), Bounds::default()).expect("a listing");
            assert!(listing.reading.tree.is_empty() && listing.reading.is_partial, "{odd}");
        }
    }
}
