//! What is below a mounted directory: paths and what they lead to. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::text::shown_bytes;

/// Longest path, in bytes (PATH_MAX of Linux).
pub(super) const MAX_LENGTH: usize = 4096;
/// Longest component, in bytes (NAME_MAX of common file systems).
pub(super) const MAX_NAME: usize = 255;
/// Most components of a path.
pub(super) const MAX_DEPTH: usize = 256;
/// The file that names what is not carried.
pub(super) const IGNORE: &str = ".dtunnelignore";
/// Between a name and the time, in the name of a copy that is kept because both sides had changed it.
pub(super) const CONFLICT: &[u8] = b".dtunnel-conflict-";
/// The names of this program's own temporary files begin so.
pub(super) const TEMPORARY: &[u8] = b".dtunnel-tmp-";

/// A path below the root: bytes without NUL, components that are not empty, `.` or `..`.
///
/// The order is the one of the bytes: a directory comes before what is in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RelPath(Box<[u8]>);

impl RelPath {
    /// None if it is not a path as described above, or is too long or too deep.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let is_name = |name: &[u8]| {
            !name.is_empty() && name != b"." && name != b".." && name.len() <= MAX_NAME && !name.contains(&0)
        };
        let mut names = bytes.split(|byte| *byte == b'/');
        let is_path = bytes.len() <= MAX_LENGTH && names.clone().count() <= MAX_DEPTH && names.all(is_name);
        is_path.then(|| Self(bytes.into()))
    }

    /// The path as bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its components.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// Its last component.
    pub(super) fn name(&self) -> &[u8] {
        self.names().last().unwrap_or_default()
    }

    /// The directory that it is in; None for the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(self.0[..end].into()))
    }

    /// The directories above, the nearest first, without the root.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// Whether `self` is below `other`.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// The name in the directory `self`. None if the result would be no path.
    pub(super) fn join(&self, name: &[u8]) -> Option<Self> {
        Self::new(&[&self.0, b"/".as_slice(), name].concat())
    }

    /// Where a copy of `self` is kept that was in conflict at `time`. Of a name that would be too long the end is cut.
    pub(super) fn conflict(&self, time: &str) -> Option<Self> {
        let end = [CONFLICT, time.as_bytes()].concat();
        let name = self.name();
        let kept = &name[..name.len().min(MAX_NAME.saturating_sub(end.len()))];
        let name = [kept, &end].concat();
        match self.parent() {
            Some(parent) => parent.join(&name),
            None => Self::new(&name),
        }
    }

    /// Whether it is a file that names what is not carried. The host has no say in that.
    pub(super) fn is_ignore_file(&self) -> bool {
        self.name() == IGNORE.as_bytes()
    }

    /// Whether a component says that this is no file of the user's to carry: a copy kept because of a conflict, or a
    /// temporary file of this program.
    pub(super) fn is_own(&self) -> bool {
        self.names().any(is_own_name)
    }
}

/// The same for one name.
pub(super) fn is_own_name(name: &[u8]) -> bool {
    name.starts_with(TEMPORARY) || memchr::memmem::find(name, CONFLICT).is_some()
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown_bytes(&self.0))
    }
}

/// When a file was last changed in any way on the side where it was read, which nobody can set: in nanoseconds since 1970, 0 if it is not known.
///
/// Always equal: the two sides have their own, and renaming changes it. [`Node::may_be_touched`] compares it, of one side.
#[derive(Debug, Clone, Copy, Default, Eq)]
pub(super) struct Touched(pub(super) i64);

impl PartialEq for Touched {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    File {
        /// In bytes.
        size: u64,
        /// Last modification, in nanoseconds since 1970.
        mtime: i64,
        /// Permission bits, 0 to 0o777: set-user-ID is not carried.
        mode: u16,
        touched: Touched,
    },
    Dir {
        /// Permission bits.
        mode: u16,
    },
    Link {
        target: Box<[u8]>,
    },
    /// A socket, a device, a FIFO: never carried.
    Other,
}

/// How fine the times of files are that are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grain {
    Nanosecond,
    /// Of busybox's tar and stat.
    #[default]
    Second,
}

impl Grain {
    fn same(self, a: i64, b: i64) -> bool {
        match self {
            Self::Nanosecond => a == b,
            Self::Second => a.div_euclid(1_000_000_000) == b.div_euclid(1_000_000_000),
        }
    }
}

impl Node {
    /// Whether both are directories, or have the same content: of files size and time are compared. Not their modes.
    pub(super) fn same_content(&self, other: &Self, grain: Grain) -> bool {
        match (self, other) {
            (Self::File { size: a, mtime: t, .. }, Self::File { size: b, mtime: u, .. }) => {
                a == b && grain.same(*t, *u)
            }
            (Self::Dir { .. }, Self::Dir { .. }) | (Self::Other, Self::Other) => true,
            (Self::Link { target: a }, Self::Link { target: b }) => a == b,
            _ => false,
        }
    }

    /// The same, with their modes.
    pub(super) fn same(&self, other: &Self, grain: Grain) -> bool {
        self.same_content(other, grain) && self.mode() == other.mode()
    }

    /// Whether one is of another time than the other: a file was changed meanwhile, and be it back to the same size and
    /// time. A write within a tick of the clock looks like this, or one by a tool that sets the old time.
    pub(super) fn may_be_touched(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { touched: Touched(a), .. }, Self::File { touched: Touched(b), .. }) => {
                *a != 0 && *b != 0 && a != b
            }
            _ => false,
        }
    }

    /// Whether it is a file whose time has a part of a second, where such are told: two files with the same one are hardly
    /// of two writes.
    pub(super) fn has_fine_time(&self, grain: Grain) -> bool {
        grain == Grain::Nanosecond && matches!(self, Self::File { mtime, .. } if mtime.rem_euclid(1_000_000_000) != 0)
    }

    /// Permission bits, of what has some.
    pub(super) fn mode(&self) -> Option<u16> {
        match self {
            Self::File { mode, .. } | Self::Dir { mode } => Some(*mode),
            Self::Link { .. } | Self::Other => None,
        }
    }

    /// The same node with another mode.
    pub(super) fn with_mode(&self, mode: u16) -> Self {
        match self {
            Self::File { size, mtime, touched, .. } => {
                Self::File { size: *size, mtime: *mtime, mode, touched: *touched }
            }
            Self::Dir { .. } => Self::Dir { mode },
            other => other.clone(),
        }
    }

    /// Of a file, when it was last changed in any way.
    pub(super) fn set_touched(&mut self, time: Touched) {
        if let Self::File { touched, .. } = self {
            *touched = time;
        }
    }

    /// Whether it is a directory.
    pub(super) fn is_dir(&self) -> bool {
        matches!(self, Self::Dir { .. })
    }
}

/// Whether a link at `path` may lead out of the root: it is absolute, has more `..` than directories above it, or a `..`
/// behind a name (which may be a link itself, so that nobody can tell from the text where that leads).
pub(super) fn leads_out(path: &RelPath, target: &[u8]) -> bool {
    let mut depth = path.names().count() - 1;
    let mut is_behind_name = false;
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if is_behind_name || depth == 0 => return true,
            b".." => depth -= 1,
            _ => is_behind_name = true,
        }
    }
    target.is_empty() || target.starts_with(b"/") || target.len() > MAX_LENGTH
}

/// All that is below a root, in the order of [`RelPath`].
pub(super) type Tree = BTreeMap<RelPath, Node>;

/// A tree as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) tree: Tree,
    /// Paths of which nothing is known, nor of what is below: they could not be read, or are ignored.
    pub(super) unknown: BTreeSet<RelPath>,
    /// More may be there than the tree has, at paths that nobody knows.
    pub(super) is_partial: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("a path")
    }

    #[test]
    fn a_path_cannot_lead_out_and_may_have_any_other_byte() {
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b"] {
            assert_eq!(RelPath::new(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(RelPath::new(&[b'x'; 256]), None);
        assert_eq!(RelPath::new("a/".repeat(300).trim_end_matches('/').as_bytes()), None);
        for good in [b"a/b".as_slice(), b"..a", b"a\nb", b"\xff\xfe", b"-rf", &[b'x'; 255]] {
            assert_eq!(RelPath::new(good).expect("a path").as_bytes(), good);
        }
    }

    #[test]
    fn a_conflict_copy_stands_beside_its_file_and_fits() {
        let copy = path("d/a").conflict("20260102T030405Z").expect("a path");
        assert_eq!(copy, path("d/a.dtunnel-conflict-20260102T030405Z"));
        assert!(copy.is_own() && path("x.dtunnel-conflict-1/a").is_own() && !path("d/a").is_own());
        let long = RelPath::new(&[b'x'; 255]).and_then(|long| long.conflict("20260102T030405Z")).expect("a path");
        assert_eq!(long.as_bytes().len(), 255);
    }

    #[test]
    fn ancestors_and_what_is_below() {
        assert_eq!(path("a/b/c").ancestors().collect::<Vec<_>>(), [path("a/b"), path("a")]);
        assert!(
            path("a/b").is_below(&path("a")) && !path("ab").is_below(&path("a")) && !path("a").is_below(&path("a"))
        );
        assert_eq!(path("a/b").name(), b"b");
    }

    #[test]
    fn links_that_may_lead_out_are_told() {
        for (at, target, out) in [
            ("l", "a", false),
            ("l", "..", true),
            ("d/l", "../a", false),
            ("d/l", "../../a", true),
            ("l", "/etc/passwd", true),
            ("l", "a/../b", true),
            ("d/l", ".././x", false),
            ("l", "", true),
        ] {
            assert_eq!(leads_out(&path(at), target.as_bytes()), out, "{at} -> {target}");
        }
    }

    #[test]
    fn files_are_compared_at_the_coarser_grain() {
        let file = |mtime, mode| Node::File { size: 1, mtime, mode, touched: Touched::default() };
        assert!(!file(1_000_000_001, 0o644).same(&file(1_000_000_002, 0o644), Grain::Nanosecond));
        assert!(file(1_000_000_001, 0o644).same(&file(1_900_000_002, 0o644), Grain::Second));
        assert!(!file(1, 0o644).same(&file(1, 0o600), Grain::Second));
        assert!(file(1, 0o644).same_content(&file(1, 0o600), Grain::Second));
        assert!(!file(-1, 0).same(&file(1, 0), Grain::Second));
        let touched = |time| Node::File { size: 1, mtime: 1, mode: 0, touched: Touched(time) };
        assert!(touched(1).may_be_touched(&touched(2)) && touched(1).same(&touched(2), Grain::Nanosecond));
        assert!(!touched(0).may_be_touched(&touched(2)) && !touched(1).may_be_touched(&touched(0)));
    }
}
