//! Counters of flows and bytes, per connection and per tunnel.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Counters written by flows. Each is exact, but they are not read at the same instant.
#[derive(Debug, Default)]
pub struct Counters {
    flows_open: AtomicU64,
    /// Flows whose clients wait for a place on a connection.
    waiting: AtomicU64,
    flows_total: AtomicU64,
    flows_failed: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// A snapshot of the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Flows open now.
    pub flows_open: u64,
    /// Flows ever begun.
    pub flows_total: u64,
    /// Number of flows refused by the host or cut.
    pub flows_failed: u64,
    /// Bytes from the host.
    pub bytes_in: u64,
    /// Bytes to the host.
    pub bytes_out: u64,
}

impl Snapshot {
    /// Bytes in both directions.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_in + self.bytes_out
    }
}

impl Counters {
    pub(super) fn flow_begins(&self) {
        self.flows_total.fetch_add(1, Relaxed);
        self.flows_open.fetch_add(1, Relaxed);
    }

    pub(super) fn flow_ends(&self, failed: bool) {
        self.flows_open.fetch_sub(1, Relaxed);
        self.flows_failed.fetch_add(u64::from(failed), Relaxed);
    }

    /// Counts a flow as waiting for a place, for as long as the returned value lives.
    pub(super) fn flow_waits(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Waiting(self)
    }

    /// Whether any flow waits for a place.
    pub(super) fn is_waited(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// Reads all counters.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            flows_open: self.flows_open.load(Relaxed),
            flows_total: self.flows_total.load(Relaxed),
            flows_failed: self.flows_failed.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

/// Counts a waiting flow until dropped.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Counters);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
