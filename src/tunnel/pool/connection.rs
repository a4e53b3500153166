//! One SSH connection of a tunnel, its thread, and the state of its flows.

use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::placement::View;
use super::spare::Spares;
use super::worker::Worker;
use crate::config::Target;
use crate::ssh::{Channel, Connection, Endpoint, OpenError};
use crate::sync::lock;
use crate::tunnel::counters::Counters;

/// One SSH connection of a tunnel, as shown by `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Flows on it now.
    pub flows: u64,
    /// Flows whose client does not keep up. Alone, such a flow holds its connection up;
    /// beside others its bytes are kept.
    #[serde(default)]
    pub stalled: u64,
    /// Bytes kept for such clients in temporary files.
    #[serde(default)]
    pub spilled: u64,
    /// Bytes from the host.
    pub bytes_in: u64,
    /// Bytes to the host.
    pub bytes_out: u64,
    /// Round-trip time to the server's sshd in milliseconds, when it was last measured.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// Is a spare channel open for the next flow?
    #[serde(default)]
    pub spare: bool,
}

/// What the pool needs of a connection.
pub(in crate::tunnel) trait Carrier: Send + Sync + 'static {
    /// Opens a channel.
    fn open(&self, endpoint: &Endpoint) -> impl Future<Output = Result<Channel, OpenError>> + Send;

    /// Waits for the answer to a ping. False where the connection has ended.
    fn ping(&self) -> impl Future<Output = bool> + Send;

    /// The time since its server's last byte.
    fn last_heard(&self) -> Duration;

    /// Has the other end's kernel acknowledged all that was sent? False where the system does not tell.
    fn is_acknowledged(&self) -> bool;

    /// Does its server send small messages without delay?
    fn sends_at_once(&self) -> bool;

    /// Does each of its channels have a flow control of its own, so that no flow can hold another one up?
    fn flows_are_apart(&self) -> bool;

    /// May channels be kept open on it that nobody uses yet?
    fn may_keep_spares(&self) -> bool;
}

/// An SSH connection, logged in.
#[derive(Debug)]
pub(in crate::tunnel) struct Established {
    pub(in crate::tunnel) connection: Connection,
    /// The settings that it was made with.
    pub(in crate::tunnel) target: Arc<Target>,
    /// The thread that carries it.
    pub(in crate::tunnel) worker: Worker,
}

impl Carrier for Established {
    async fn open(&self, endpoint: &Endpoint) -> Result<Channel, OpenError> {
        self.connection.open(endpoint).await
    }

    async fn ping(&self) -> bool {
        self.connection.ping().await
    }

    fn last_heard(&self) -> Duration {
        self.connection.last_heard()
    }

    fn is_acknowledged(&self) -> bool {
        self.connection.is_acknowledged()
    }

    fn sends_at_once(&self) -> bool {
        self.connection.sends_at_once()
    }

    fn flows_are_apart(&self) -> bool {
        self.connection.flows_are_apart()
    }

    fn may_keep_spares(&self) -> bool {
        !self.connection.is_shared()
    }
}

/// A connection and the state of its flows.
#[derive(Debug)]
pub(in crate::tunnel) struct PooledConnection<C = Established> {
    pub(in crate::tunnel) carrier: C,
    pub(in crate::tunnel) counters: Counters,
    /// Bytes that have come from the host, whether their clients have taken them or not.
    arrived: AtomicU64,
    /// Flows placed on it, without the tunnel's own, which only listen.
    pub(in crate::tunnel) load: AtomicUsize,
    /// Those among them without a bound.
    pub(in crate::tunnel) streams: AtomicUsize,
    /// All who need it to be read: flows, those being opened, listeners.
    pub(in crate::tunnel) users: watch::Sender<usize>,
    /// Bytes in files for its clients.
    pub(in crate::tunnel) spilled: AtomicU64,
    /// How many commands the server allows on it (MaxSessions), and when that was learnt.
    capacity: Mutex<Option<(usize, Instant)>>,
    /// Does it get no new flows, by what is known of it? It is set before either of the two behind it, and read with less.
    ending: AtomicBool,
    /// Set once it is known to be dead, though its session does not know yet.
    dead: CancellationToken,
    /// Set once it gets no new flows and ends with its last one.
    draining: CancellationToken,
    /// Is it being checked with a ping, after a change of the network?
    suspect: AtomicBool,
    /// Flows whose client does not keep up.
    pub(in crate::tunnel) stalled: watch::Sender<usize>,
    /// Since when no flow is on it; while one is, when the last one ended.
    pub(in crate::tunnel) quiet_since: Mutex<Instant>,
    round_trip: Mutex<Option<Duration>>,
    spares: Spares,
}

/// How long a learnt limit holds: the server's settings or sessions may change.
const RECOVERY: Duration = Duration::from_secs(10);
/// How often a check asks whether the other end's system has acknowledged everything.
const ACKNOWLEDGED_LOOKS: u32 = 10;
/// How often a host that says nothing is looked at again.
const SILENCE_LOOK: Duration = Duration::from_millis(500);

/// What has been seen of a host since it has said nothing.
struct Doubt {
    /// Have flows been open all the time?
    has_flows: bool,
    /// When its system last had acknowledged everything.
    acknowledged: Instant,
    /// Does the log have it that the host gets more time?
    is_told: bool,
}

impl<C: Carrier> PooledConnection<C> {
    pub(in crate::tunnel) fn new(carrier: C) -> Arc<Self> {
        Arc::new(Self {
            carrier,
            counters: Counters::default(),
            arrived: AtomicU64::new(0),
            load: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            users: watch::Sender::new(0),
            spilled: AtomicU64::new(0),
            capacity: Mutex::default(),
            ending: AtomicBool::new(false),
            dead: CancellationToken::new(),
            draining: CancellationToken::new(),
            suspect: AtomicBool::new(false),
            stalled: watch::Sender::new(0),
            quiet_since: Mutex::new(Instant::now()),
            round_trip: Mutex::new(None),
            spares: Spares::default(),
        })
    }

    /// A spare channel, if there is one that can still be used, and whether it is a used one. Not on a connection that may
    /// be dead: there, opening a new channel proves that it lives before a client's byte is sent.
    pub(in crate::tunnel) async fn take_spare(&self, may_be_used: bool) -> Option<(Channel, bool)> {
        if self.is_suspect() { None } else { self.spares.take(may_be_used).await }
    }

    /// Opens a spare channel on a connection without one. It has to be idle, or known to send without delay: beside flows,
    /// the server's confirmation could otherwise delay their answers (Nagle's algorithm).
    pub(in crate::tunnel) async fn open_spare(&self, endpoint: &Endpoint) {
        if self.carrier.may_keep_spares()
            && (self.load.load(Relaxed) == 0 || self.carrier.sends_at_once())
            && !self.is_stalled()
            && self.spares.opens()
        {
            self.spares.opened(self.carrier.open(endpoint).await.ok());
        }
    }

    /// Keeps the channel of a client that has left between two requests, for the requests of another one.
    ///
    /// # Errors
    /// The channel, if there is one already, or the connection gets no new flows.
    pub(in crate::tunnel) fn keep_as_spare(&self, channel: Channel) -> Result<(), Channel> {
        if self.is_ending() || self.is_suspect() || !self.carrier.may_keep_spares() {
            Err(channel)
        } else {
            self.spares.keep(channel)
        }
    }

    /// Closes spare channels that have waited for too long.
    pub(in crate::tunnel) fn drop_old_spares(&self) {
        self.spares.drop_old();
    }

    /// The facts that placement needs.
    pub(super) fn view(&self) -> View {
        View {
            flows: self.load.load(Relaxed),
            taken: self.streams.load(Relaxed) > 0,
            stalled: self.is_stalled(),
            full: self.is_full(),
            suspect: self.is_suspect(),
            spare_until: self.spares.until(),
            used: self.was_used(),
            quiet_since: self.quiet_since(),
        }
    }

    /// Is there a client on it that does not keep up, and may keep others from being served?
    pub(in crate::tunnel) fn is_stalled(&self) -> bool {
        *self.stalled.borrow() > 0 && !self.carrier.flows_are_apart()
    }

    /// Does one of its flows leave it unread?
    pub(in crate::tunnel) fn is_held_up(&self) -> bool {
        self.is_stalled() && *self.users.borrow() == 1
    }

    pub(in crate::tunnel) fn is_full(&self) -> bool {
        let capacity = lock(&self.capacity).filter(|(_, since)| since.elapsed() < RECOVERY);
        capacity.is_some_and(|(most, _)| self.load.load(Relaxed) >= most)
    }

    /// Records that the server refused another command: it has no room until one has ended. (Without any here, a
    /// session is still ending on the server.)
    pub(in crate::tunnel) fn has_refused(&self) {
        let others = self.load.load(Relaxed).saturating_sub(1);
        if others > 0 {
            *lock(&self.capacity) = Some((others, Instant::now()));
        }
    }

    /// Ends its flows at once, and the supervisor's task that watches it.
    pub(in crate::tunnel) fn give_up(&self) {
        self.ending.store(true, SeqCst);
        self.dead.cancel();
    }

    /// Waits until it is [given up](Self::give_up).
    pub(in crate::tunnel) async fn given_up(&self) {
        self.dead.cancelled().await;
    }

    /// Gives it no new flows; it ends with its last one.
    pub(in crate::tunnel) fn drain(&self) {
        self.ending.store(true, SeqCst);
        self.draining.cancel();
    }

    /// Does it get no new flows, by what is known of it?
    pub(in crate::tunnel) fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    /// Waits until it [drains](Self::drain).
    pub(in crate::tunnel) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Gives it up where it does not answer within `limit`, nothing moves on it, and the other end's system
    /// has not even acknowledged what was sent. (Behind much that is being sent the answer may take long,
    /// and so it may on a host that is very busy: the keepalives' time counts there.) One that is held up
    /// cannot answer, and is left alone.
    pub(in crate::tunnel) async fn check(&self, limit: Duration) {
        self.suspect.store(true, Relaxed);
        // What clients take says nothing where they do not read.
        let moved = || self.counters.snapshot().bytes_out + self.arrived.load(Relaxed);
        let patience = async {
            tokio::time::sleep(limit / 2).await;
            // Something may just have been sent at any single moment, by another check for example.
            let (before, mut acknowledged) = (moved(), false);
            for _ in 0..ACKNOWLEDGED_LOOKS {
                acknowledged |= self.carrier.is_acknowledged();
                tokio::time::sleep(limit / 2 / ACKNOWLEDGED_LOOKS).await;
            }
            (moved() == before, acknowledged || self.carrier.is_acknowledged())
        };
        tokio::select! {
            () = self.measure() => {}
            (nothing_moved, acknowledged) = patience => if !self.is_held_up() && nothing_moved {
                if acknowledged {
                    tracing::info!("the host does not answer, but acknowledges data: it has the keepalives' time");
                } else {
                    self.give_up();
                }
            }
        }
        self.suspect.store(false, Relaxed);
    }

    /// Waits until its host has said nothing for `limit`; for `patience` while flows are open that began before the doubt
    /// (after half of the limit), and the other end's system has acknowledged everything within that half. While it is held
    /// up, its host may say what it likes: it is not heard.
    pub(in crate::tunnel) async fn silence(&self, limit: Duration, patience: Duration) {
        // The machine's ssh watches over its connection itself.
        if self.carrier.flows_are_apart() {
            return std::future::pending().await;
        }
        let mut readable_since = Instant::now();
        let mut doubt: Option<Doubt> = None;
        loop {
            if self.is_held_up() {
                readable_since = Instant::now();
            }
            let silence = self.carrier.last_heard().min(readable_since.elapsed());
            if let Some(left) = (limit / 2).checked_sub(silence).filter(|left| !left.is_zero()) {
                if doubt.take().is_some_and(|doubt| doubt.is_told) {
                    tracing::info!("the host answers again");
                }
                tokio::time::sleep(left).await;
                continue;
            }
            let Doubt { has_flows, acknowledged, is_told } =
                doubt.get_or_insert_with(|| Doubt { has_flows: true, acknowledged: Instant::now(), is_told: false });
            *has_flows &= self.load.load(Relaxed) > 0;
            if *has_flows && self.carrier.is_acknowledged() {
                *acknowledged = Instant::now();
            }
            let is_patient = *has_flows && acknowledged.elapsed() < limit / 2;
            if silence >= if is_patient { patience } else { limit } {
                return;
            }
            if silence >= limit && !*is_told {
                *is_told = true;
                let (silent, most) = (silence.as_secs(), patience.as_secs());
                tracing::info!(
                    "the host has said nothing for {silent} s, but acknowledges data: flows are open, so it has {most} s"
                );
            }
            tokio::time::sleep(SILENCE_LOOK).await;
        }
    }

    /// Counts bytes that came from the host.
    pub(in crate::tunnel) fn has_received(&self, bytes: usize) {
        self.arrived.fetch_add(bytes as u64, Relaxed);
    }

    /// Was its host heard within this time, and is not in doubt?
    pub(super) fn was_heard_within(&self, within: Duration) -> bool {
        !self.is_suspect() && !self.is_ending() && self.carrier.last_heard() <= within
    }

    /// Is it being checked for life?
    pub(in crate::tunnel) fn is_suspect(&self) -> bool {
        self.suspect.load(Relaxed)
    }

    /// Has it carried anything yet?
    pub(in crate::tunnel) fn was_used(&self) -> bool {
        self.counters.snapshot().bytes_out > 0
    }

    pub(in crate::tunnel) fn quiet_since(&self) -> Instant {
        *lock(&self.quiet_since)
    }

    /// Measures the round-trip time. Not while the connection is left unread: the answer would be unread, too.
    pub(in crate::tunnel) async fn measure(&self) {
        if self.is_held_up() {
            return std::future::pending().await;
        }
        let begun = Instant::now();
        if self.carrier.ping().await {
            *lock(&self.round_trip) = Some(begun.elapsed());
        }
    }

    pub(in crate::tunnel) fn status(&self) -> ConnectionStatus {
        let now = self.counters.snapshot();
        ConnectionStatus {
            flows: self.load.load(Relaxed) as u64,
            stalled: *self.stalled.borrow() as u64,
            spilled: self.spilled.load(Relaxed),
            bytes_in: now.bytes_in,
            bytes_out: now.bytes_out,
            rtt_ms: lock(&self.round_trip).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
            spare: self.spares.until().is_some(),
        }
    }
}
