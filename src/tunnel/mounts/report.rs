//! What became of a round.

use std::io;

use super::reconcile::Left;
use super::scan;
use super::tree::RelPath;

/// Why nothing could be done in a round.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Scan(#[from] scan::Error),
    #[error("the host")]
    Host(#[source] io::Error),
    /// Of the directory or the journal.
    #[error("this machine")]
    Here(#[source] io::Error),
}

/// What became of a round.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Steps that were done.
    pub(super) done: usize,
    /// Copies that were made of the host's versions.
    pub(super) conflicts: Vec<RelPath>,
    /// Steps that were not done and files that could not be read, with the reason. They are tried again next time.
    pub(super) failed: Vec<(String, String)>,
    /// What is not carried.
    pub(super) left: Vec<(RelPath, Left)>,
    /// Files, directories and links here.
    pub(super) entries: usize,
    /// Of all files here.
    pub(super) bytes: u64,
    /// More is to be done, by a round: of a push, or since the host's files are just being deleted.
    pub(super) needs_round: bool,
}

impl Report {
    /// Whether both sides are the same now, but for what is not carried.
    pub(super) fn is_in_step(&self) -> bool {
        self.failed.is_empty() && !self.needs_round
    }
}
