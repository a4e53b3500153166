//! How far a round is, for whoever shows it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::step::Step;
use super::tree::Node;

/// What a mount is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// Reads both sides.
    Looking,
    /// Changes go to the host.
    Sending,
    /// Changes come from the host.
    Fetching,
}

const PHASES: [Phase; 4] = [Phase::Idle, Phase::Looking, Phase::Sending, Phase::Fetching];

/// How far the phase is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// Of files' contents, handed to the connection or taken from it. The total is that of the plan.
    pub(super) done_bytes: u64,
    pub(super) total_bytes: u64,
    /// Files, directories and links.
    pub(super) done_files: u64,
    pub(super) total_files: u64,
}

impl Progress {
    /// How much of it is done; None if there is nothing to do.
    pub(super) fn percent(self) -> Option<u8> {
        let (done, total) = match self.total_bytes {
            0 => (self.done_files, self.total_files),
            total => (self.done_bytes, total),
        };
        u8::try_from((done.saturating_mul(100)).checked_div(total)?.min(100)).ok()
    }
}

/// Counts; read from any thread at any time. The fields may be of different moments.
#[derive(Debug, Default)]
pub(super) struct Meter {
    phase: AtomicU8,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    done_files: AtomicU64,
    total_files: AtomicU64,
}

/// A phase under way; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Meter);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(Phase::Idle, 0, 0);
    }
}

impl Meter {
    /// Begins a phase in which the steps are done.
    pub(super) fn begin(&self, phase: Phase, steps: &[Step]) -> Busy<'_> {
        let size = |step: &Step| match step {
            Step::Push { node: Node::File { size, .. }, .. }
            | Step::Fetch { node: Node::File { size, .. }, .. }
            | Step::KeepBoth { node: Node::File { size, .. }, .. } => *size,
            _ => 0,
        };
        let bytes = steps.iter().map(size).fold(0, u64::saturating_add);
        self.set(phase, bytes, u64::try_from(steps.len()).unwrap_or(u64::MAX));
        Busy(self)
    }

    fn set(&self, phase: Phase, bytes: u64, files: u64) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.done_bytes.store(0, Ordering::Relaxed);
        self.done_files.store(0, Ordering::Relaxed);
        self.total_bytes.store(bytes, Ordering::Relaxed);
        self.total_files.store(files, Ordering::Relaxed);
    }

    /// Counts a step.
    pub(super) fn file(&self) {
        self.done_files.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes of a file's content.
    pub(super) fn bytes(&self, count: usize) {
        self.done_bytes.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How far it is now.
    pub(super) fn now(&self) -> Progress {
        let phase = PHASES.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or_default();
        Progress {
            phase,
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            done_files: self.done_files.load(Ordering::Relaxed),
            total_files: self.total_files.load(Ordering::Relaxed),
        }
    }
}

/// A file's content, counted.
#[derive(Debug)]
pub(super) struct Metered<'a, R>(pub(super) R, pub(super) &'a Meter);

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.bytes(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::mounts::tree::{RelPath, Touched};

    #[test]
    fn a_phase_has_its_total_and_is_over_when_it_is_dropped() {
        let meter = Meter::default();
        let node = Node::File { size: 7, mtime: 0, mode: 0o644, touched: Touched::default() };
        let path = RelPath::new(b"a").expect("a path");
        let steps = [Step::Push { path: path.clone(), node, over: None }, Step::Agree { path, node: None }];
        for phase in [Phase::Looking, Phase::Sending, Phase::Fetching] {
            let busy = meter.begin(phase, &steps);
            meter.file();
            meter.bytes(3);
            let now = Progress { phase, done_bytes: 3, total_bytes: 7, done_files: 1, total_files: 2 };
            assert_eq!(meter.now(), now);
            drop(busy);
            assert_eq!(meter.now(), Progress::default());
        }
    }
}
