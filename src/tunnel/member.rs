//! One SSH connection of a tunnel, with its thread, and what is known of what goes over it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::pool::lock;
use super::worker::Worker;
use crate::ssh::{Channel, Connection, Endpoint};

/// One SSH connection of a tunnel, as shown by `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Flows on it now.
    pub flows: u64,
    /// Flows among them whose client does not read; they hold up the others.
    #[serde(default)]
    pub stalled: u64,
    /// Bytes from the host.
    pub bytes_in: u64,
    /// Bytes to the host.
    pub bytes_out: u64,
    /// Round-trip time to the server's sshd in milliseconds, when it was last measured.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// Is a channel open for the next flow?
    #[serde(default)]
    pub spare: bool,
}

/// A connection and what goes over it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) connection: Connection,
    /// The thread that carries it.
    pub(super) worker: Worker,
    pub(super) counters: Counters,
    /// Flows that are or will be on it.
    pub(super) load: AtomicUsize,
    /// As many as the server lets it have (MaxSessions, for flows that are commands).
    pub(super) capacity: AtomicUsize,
    /// Set once it is known to be dead, though its session does not know yet.
    dead: CancellationToken,
    /// Set once it gets no new flows and is to end with its last one.
    retired: CancellationToken,
    /// Flows whose backlog is full.
    pub(super) stalled: watch::Sender<usize>,
    /// Since when no flow is on it; while one is, when the last one ended.
    pub(super) quiet_since: Mutex<Instant>,
    round_trip: Mutex<Option<Duration>>,
    /// An open channel to the Engine for the next flow.
    pub(super) spare: Mutex<Spare>,
}

/// The spare channel of a connection.
#[derive(Debug, Default)]
pub(super) enum Spare {
    #[default]
    None,
    /// One is being opened.
    Opening,
    Open(Channel, Instant),
}

impl Member {
    pub(super) fn new(connection: Connection, worker: Worker) -> Arc<Self> {
        Arc::new(Self {
            connection,
            worker,
            counters: Counters::default(),
            load: AtomicUsize::new(0),
            capacity: AtomicUsize::new(usize::MAX),
            dead: CancellationToken::new(),
            retired: CancellationToken::new(),
            stalled: watch::Sender::new(0),
            quiet_since: Mutex::new(Instant::now()),
            round_trip: Mutex::new(None),
            spare: Mutex::default(),
        })
    }

    pub(super) fn has_spare(&self) -> bool {
        matches!(*lock(&self.spare), Spare::Open(..))
    }

    /// The spare channel, if there is one that can still be used.
    pub(super) async fn take_spare(&self) -> Option<Channel> {
        let taken = {
            let mut spare = lock(&self.spare);
            if !matches!(*spare, Spare::Open(..)) {
                return None;
            }
            std::mem::take(&mut *spare)
        };
        let Spare::Open(mut channel, _) = taken else { return None };
        channel.is_untouched().await.then_some(channel)
    }

    /// Opens a spare channel, if nothing goes on here and there is none yet. A packet of the server's
    /// that nobody asked for would hold back the answers that somebody waits for.
    pub(super) async fn open_spare(&self, endpoint: &Endpoint) {
        {
            let mut spare = lock(&self.spare);
            if self.load.load(Relaxed) > 0 || self.is_stalled() || !matches!(*spare, Spare::None) {
                return;
            }
            *spare = Spare::Opening;
        }
        let opened = self.connection.open(endpoint).await;
        *lock(&self.spare) = match opened {
            Ok(channel) => Spare::Open(channel, Instant::now()),
            Err(_) => Spare::None,
        };
    }

    pub(super) fn spare_since(&self) -> Option<Instant> {
        match *lock(&self.spare) {
            Spare::Open(_, since) => Some(since),
            Spare::None | Spare::Opening => None,
        }
    }

    pub(super) fn is_stalled(&self) -> bool {
        *self.stalled.borrow() > 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.load.load(Relaxed) >= self.capacity.load(Relaxed)
    }

    /// The server refused one flow more than there are now. True where that is for their number.
    pub(super) fn has_refused(&self) -> bool {
        let others = self.load.load(Relaxed).saturating_sub(1);
        if others > 0 {
            self.capacity.store(others, Relaxed);
        }
        others > 0
    }

    /// Ends its flows at once; whoever watches over it hears of it.
    pub(super) fn give_up(&self) {
        self.dead.cancel();
    }

    /// Waits until it is [given up](Self::give_up).
    pub(super) async fn given_up(&self) {
        self.dead.cancelled().await;
    }

    /// It gets no new flows and ends with its last one.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    /// Waits until it is [retired](Self::retire).
    pub(super) async fn is_retired(&self) {
        self.retired.cancelled().await;
    }

    /// Gives it up where it does not answer within `limit` and nothing moves on it. (Behind much that is
    /// being sent the answer may take long.) One that is held up cannot answer, and is left alone.
    pub(super) async fn check(&self, limit: Duration) {
        let moved = || self.counters.snapshot().bytes();
        let mut before = moved();
        let patience = async {
            tokio::time::sleep(limit / 2).await;
            before = moved();
            tokio::time::sleep(limit / 2).await;
        };
        tokio::select! {
            () = self.measure() => {}
            () = patience => if !self.is_stalled() && moved() == before {
                self.give_up();
            }
        }
    }

    /// Waits until one of its flows holds it up.
    pub(super) async fn held_up(&self) {
        let _ = self.stalled.subscribe().wait_for(|flows| *flows > 0).await;
    }

    /// Has it carried anything yet?
    pub(super) fn was_used(&self) -> bool {
        self.counters.snapshot().bytes_out > 0
    }

    pub(super) fn quiet_since(&self) -> Instant {
        *lock(&self.quiet_since)
    }

    /// Measures the round-trip time.
    pub(super) async fn measure(&self) {
        let begun = Instant::now();
        if self.connection.ping().await {
            *lock(&self.round_trip) = Some(begun.elapsed());
        }
    }

    pub(super) fn status(&self) -> ConnectionStatus {
        let now = self.counters.snapshot();
        ConnectionStatus {
            flows: self.load.load(Relaxed) as u64,
            stalled: *self.stalled.borrow() as u64,
            bytes_in: now.bytes_in,
            bytes_out: now.bytes_out,
            rtt_ms: lock(&self.round_trip).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
            spare: self.has_spare(),
        }
    }
}
