//! The SSH connections of one tunnel, and which of them carries a new flow.
//!
//! russh grants the receive window back when data arrives, not when it is consumed, and its session waits for a bounded
//! queue per channel: a flow that is not read stops every flow of its connection (docs/architecture.md, "the trap"). So
//! a tunnel has several connections, new flows go to one whose clients keep up, and only a flow that is alone on its
//! connection may leave it unread. A connection with a client that does not keep up does not count against the limit.
//! [`placement`] decides; the pool keeps the facts for it. The pool knows connections only as [`connection::Carrier`].

pub(super) mod connection;
mod heap;
pub(super) mod measured;
mod placement;
mod spare;
pub(super) mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::ssh::Endpoint;
use crate::sync::lock;
use crate::tunnel::dial::Kind;
use connection::{Carrier, ConnectionStatus, Established, PooledConnection};
use heap::Heap;
use placement::{Limits, Others, Placement, View};

/// How long no further connection is tried after the server refused one.
const REFUSED: Duration = Duration::from_secs(30);
/// A client that asks nothing for so long has come to a pause.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the channel of a client that asks nothing is kept for its next request. Each costs the host's
/// sshd and its Engine a descriptor.
const PARKED: Duration = Duration::from_secs(60);
/// A connection with a client that has not kept up for so long is not listened on.
const DEAF: Duration = Duration::from_millis(500);

/// May there be further connections?
#[derive(Debug, Clone, Copy)]
enum Growth {
    Allowed,
    /// The server refused one; not before then.
    NotBefore(Instant),
    /// Logging in needs a person.
    Never,
}

type Connections<C> = Vec<Arc<PooledConnection<C>>>;

/// The connections of one tunnel.
#[derive(Debug)]
pub(in crate::tunnel) struct Pool<C = Established> {
    connections: Mutex<Connections<C>>,
    /// Connections whose clients keep up, at most.
    max: AtomicUsize,
    growth: Mutex<Growth>,
    /// Bumped when a waiting flow may find a place.
    changed: watch::Sender<u64>,
    /// Wakes the supervisor.
    wake: Notify,
    wants_more: Mutex<bool>,
    heap: Arc<Heap>,
}

impl<C: Carrier> Pool<C> {
    pub(in crate::tunnel) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: Mutex::default(),
            max: AtomicUsize::new(max),
            growth: Mutex::new(Growth::Allowed),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
            wants_more: Mutex::new(false),
            heap: Heap::new(),
        })
    }

    /// A place for a client's flow. None where it has to wait for [`Pool::changes`]: a `patient` one for a connection
    /// that may come, any other one because the server allows no more on any.
    pub(in crate::tunnel) fn place(self: &Arc<Self>, kind: Kind, patient: bool) -> Option<Lease<C>> {
        let connections = lock(&self.connections);
        let placement =
            placement::for_client(&views(&connections), self.limits(&connections), kind, patient, Instant::now());
        let lease = Lease::new(self, self.placed(&connections, placement)?, true);
        lease.occupy(Place::New(kind));
        Some(lease)
    }

    /// A place for a flow of the tunnel's own, which only listens and is not counted.
    pub(in crate::tunnel) fn place_listener(self: &Arc<Self>, patient: bool) -> Option<Lease<C>> {
        let connections = lock(&self.connections);
        let placement = placement::for_listener(&views(&connections), self.limits(&connections), patient);
        Some(Lease::new(self, self.placed(&connections, placement)?, false))
    }

    fn placed<'a>(
        &self,
        connections: &'a Connections<C>,
        placement: Placement,
    ) -> Option<&'a Arc<PooledConnection<C>>> {
        if placement.grow {
            self.ask_for_more();
        }
        connections.get(placement.at?)
    }

    /// Waits until `pooled` may be dead while another connection is alive.
    pub(in crate::tunnel) async fn better_is_there(&self, pooled: &Arc<PooledConnection<C>>) {
        let mut changes = self.changes();
        loop {
            let sound = |other: &Arc<PooledConnection<C>>| {
                !Arc::ptr_eq(other, pooled) && !other.is_suspect() && !other.is_stalled()
            };
            if pooled.is_suspect() && lock(&self.connections).iter().any(sound) {
                return;
            }
            // Never: the pool outlives its flows.
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Is there another connection whose clients keep up, or can there be one?
    fn has_better_than(&self, pooled: &Arc<PooledConnection<C>>) -> bool {
        let connections = lock(&self.connections);
        connections.iter().any(|other| !Arc::ptr_eq(other, pooled) && !other.is_stalled()) || self.grow(&connections)
    }

    /// A flow has lasted for a while: the next one, which may be a small request beside a big
    /// download, gets an idle connection.
    pub(in crate::tunnel) fn flow_lasts(&self) {
        let connections = lock(&self.connections);
        if !connections.iter().any(|pooled| pooled.load.load(Relaxed) == 0) {
            self.grow(&connections);
        }
    }

    /// Asks the supervisor for a further connection, if there may be one. Returns whether there may.
    fn grow(&self, connections: &Connections<C>) -> bool {
        let may = placement::may_grow(&views(connections), self.limits(connections));
        if may {
            self.ask_for_more();
        }
        may
    }

    fn ask_for_more(&self) {
        *lock(&self.wants_more) = true;
        self.wake.notify_one();
    }

    /// Where no flow can hold another one up, one connection is enough.
    fn limits(&self, connections: &Connections<C>) -> Limits {
        if connections.iter().any(|pooled| pooled.carrier.flows_are_apart()) {
            return Limits { max: 1, may_grow: false };
        }
        let may_grow = match *lock(&self.growth) {
            Growth::Allowed => true,
            Growth::NotBefore(time) => Instant::now() >= time,
            Growth::Never => false,
        };
        Limits { max: self.max.load(Relaxed), may_grow }
    }

    /// Sets `max_connections`.
    pub(in crate::tunnel) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Records that a further connection failed; `needs_person` where the login had a question.
    pub(in crate::tunnel) fn growth_failed(&self, needs_person: bool) {
        let next = if needs_person { Growth::Never } else { Growth::NotBefore(Instant::now() + REFUSED) };
        *lock(&self.growth) = next;
        self.bump();
    }

    pub(in crate::tunnel) fn add(&self, pooled: Arc<PooledConnection<C>>) {
        lock(&self.connections).push(pooled);
        self.bump();
    }

    /// Removes a connection. Returns whether it was there.
    pub(in crate::tunnel) fn remove(&self, pooled: &Arc<PooledConnection<C>>) -> bool {
        let mut connections = lock(&self.connections);
        let before = connections.len();
        connections.retain(|other| !Arc::ptr_eq(other, pooled));
        let removed = connections.len() < before;
        drop(connections);
        self.bump();
        removed
    }

    pub(in crate::tunnel) fn contains(&self, pooled: &Arc<PooledConnection<C>>) -> bool {
        lock(&self.connections).iter().any(|other| Arc::ptr_eq(other, pooled))
    }

    pub(in crate::tunnel) fn is_empty(&self) -> bool {
        lock(&self.connections).is_empty()
    }

    /// Removes all connections; new ones are allowed again.
    pub(in crate::tunnel) fn clear(&self) -> Vec<Arc<PooledConnection<C>>> {
        *lock(&self.growth) = Growth::Allowed;
        let connections = std::mem::take(&mut *lock(&self.connections));
        self.bump();
        connections
    }

    /// Waits until there was no flow for `limit`, and removes all connections.
    pub(in crate::tunnel) async fn unused_for(&self, limit: Duration) -> Vec<Arc<PooledConnection<C>>> {
        loop {
            let mut changes = self.changes();
            let quiet = {
                let mut connections = lock(&self.connections);
                let busy = connections.iter().any(|pooled| pooled.load.load(Relaxed) > 0);
                let last = connections.iter().map(|pooled| pooled.quiet_since()).max().filter(|_| !busy);
                if last.is_some_and(|last| last.elapsed() >= limit) {
                    return std::mem::take(&mut *connections);
                }
                last
            };
            let change = changes.changed();
            match quiet {
                Some(last) => drop(tokio::time::timeout_at(last + limit, change).await),
                None => drop(change.await),
            }
        }
    }

    /// Was a further connection asked for since the last call?
    pub(in crate::tunnel) fn takes_wish(&self) -> bool {
        std::mem::take(&mut *lock(&self.wants_more))
    }

    /// Removes a connection that is unused for [`placement::UNUSED`]; one always stays.
    pub(in crate::tunnel) fn take_unused(&self) -> Option<Arc<PooledConnection<C>>> {
        let mut connections = lock(&self.connections);
        let at = placement::unused(&views(&connections), Instant::now())?;
        Some(connections.swap_remove(at))
    }

    /// Closes spare channels that have waited for too long.
    pub(in crate::tunnel) fn drop_old_spares(&self) {
        lock(&self.connections).iter().for_each(|pooled| pooled.drop_old_spares());
    }

    /// Opens a spare channel for the next flow of a connection, on its thread. Not where it would be a command on the
    /// host.
    pub(in crate::tunnel) async fn open_spare(&self, pooled: &PooledConnection<C>, endpoint: &Endpoint) {
        if !endpoint.is_command() {
            pooled.open_spare(endpoint).await;
            self.spare_opened();
        }
    }

    /// Wakes the supervisor, which then computes its next deadline.
    pub(in crate::tunnel) fn spare_opened(&self) {
        self.wake.notify_one();
    }

    /// Waits until the supervisor has something to do: a wish, or a connection or spare channel that
    /// is unused for too long. No timer runs while there is one connection only, without a spare.
    pub(in crate::tunnel) async fn needs_care(&self) {
        loop {
            let next = placement::next_unused(&views(&lock(&self.connections)));
            let wake = self.wake.notified();
            match next {
                None => wake.await,
                Some(next) => {
                    if tokio::time::timeout_at(next, wake).await.is_err() {
                        return;
                    }
                }
            }
            if *lock(&self.wants_more) {
                return;
            }
        }
    }

    /// Was the host heard within this time, on any connection?
    pub(in crate::tunnel) fn was_heard_within(&self, within: Duration) -> bool {
        lock(&self.connections).iter().any(|pooled| pooled.was_heard_within(within))
    }

    /// Changes after which [`Pool::place`] may find a place.
    pub(in crate::tunnel) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(in crate::tunnel) fn connections(&self) -> Vec<Arc<PooledConnection<C>>> {
        lock(&self.connections).clone()
    }

    pub(in crate::tunnel) fn status(&self) -> Vec<ConnectionStatus> {
        lock(&self.connections).iter().map(|pooled| pooled.status()).collect()
    }

    fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

fn views<C: Carrier>(connections: &Connections<C>) -> Vec<View> {
    connections.iter().map(|pooled| pooled.view()).collect()
}

/// A flow's place on a connection.
#[derive(Debug)]
pub(in crate::tunnel) struct Lease<C: Carrier = Established> {
    pool: Arc<Pool<C>>,
    pub(in crate::tunnel) pooled: Arc<PooledConnection<C>>,
    /// Does it serve a client?
    counted: bool,
    /// Does it need the connection to be read?
    uses: AtomicBool,
    /// Bytes kept on disk for its client.
    spilled: AtomicU64,
    /// What it takes of the connection.
    place: Mutex<Place>,
}

/// What a flow takes of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing that counts: it only listens, or has ended.
    None,
    /// It was placed for a request of this kind, which has not begun.
    New(Kind),
    /// A request of this kind is under way.
    Busy(Kind),
    /// Its client asks nothing since then: it counts as no flow.
    Parked(Instant),
}

impl Place {
    /// What it counts as.
    fn kind(self) -> Option<Kind> {
        match self {
            Self::New(kind) | Self::Busy(kind) => Some(kind),
            Self::None | Self::Parked(_) => None,
        }
    }
}

impl<C: Carrier> Lease<C> {
    fn new(pool: &Arc<Pool<C>>, pooled: &Arc<PooledConnection<C>>, counted: bool) -> Self {
        if counted {
            pool.heap.flow_begins();
        }
        let lease = Self {
            pool: pool.clone(),
            pooled: pooled.clone(),
            counted,
            uses: AtomicBool::new(false),
            spilled: AtomicU64::new(0),
            place: Mutex::new(Place::None),
        };
        lease.uses(true);
        lease
    }

    /// Counts the flow among those who need the connection to be read. Those who follow that ask one thing only, and are
    /// told of nothing else: is the connection shared? They follow it while their clients do not keep up.
    fn uses(&self, uses: bool) {
        if self.uses.swap(uses, Relaxed) == uses {
            return;
        }
        self.pooled.users.send_if_modified(|users| {
            let was_shared = *users > 1;
            *users = if uses { *users + 1 } else { *users - 1 };
            was_shared != (*users > 1) && *self.pooled.stalled.borrow() > 0
        });
    }

    fn occupy(&self, place: Place) {
        if let Some(kind) = place.kind() {
            self.pooled.load.fetch_add(1, Relaxed);
            self.pooled.streams.fetch_add(usize::from(kind == Kind::Streaming), Relaxed);
        }
        *lock(&self.place) = place;
    }

    /// It is no flow of the connection's any more.
    fn vacate(&self, place: Place, now: Instant) {
        let before = std::mem::replace(&mut *lock(&self.place), place);
        let Some(kind) = before.kind() else { return };
        let pooled = &self.pooled;
        *lock(&pooled.quiet_since) = now;
        let was_full = pooled.is_full();
        pooled.streams.fetch_sub(usize::from(kind == Kind::Streaming), Relaxed);
        let is_last = pooled.load.fetch_sub(1, Relaxed) == 1;
        if is_last || was_full || kind == Kind::Streaming {
            self.pool.bump();
        }
    }

    /// Its client asks nothing now: it counts as no flow, and needs the connection not to be read.
    pub(in crate::tunnel) fn park(&self) {
        if !matches!(*lock(&self.place), Place::Parked(_)) {
            self.leave();
            let now = Instant::now();
            self.vacate(Place::Parked(now), now);
        }
    }

    /// May the client's next request go on here? Then it is counted anew, as what it is.
    pub(in crate::tunnel) fn takes(&self, kind: Kind) -> bool {
        // Nobody else is placed meanwhile.
        let connections = lock(&self.pool.connections);
        let pooled = &self.pooled;
        let own = *lock(&self.place);
        if own == Place::New(kind) {
            *lock(&self.place) = Place::Busy(kind);
            return true;
        }
        let streams = pooled.streams.load(Relaxed);
        let others = Others {
            flows: pooled.load.load(Relaxed) - usize::from(own.kind().is_some()),
            taken: streams > usize::from(own.kind() == Some(Kind::Streaming)),
            stalled: pooled.is_stalled(),
            suspect: pooled.is_suspect(),
        };
        let is_there = connections.iter().any(|other| Arc::ptr_eq(other, pooled)) && !pooled.is_ending();
        if !is_there || !placement::may_stay(others, || self.pool.limits(&connections).max, kind) {
            return false;
        }
        match own.kind() {
            None => self.occupy(Place::Busy(kind)),
            Some(before) => {
                pooled.streams.fetch_add(usize::from(kind == Kind::Streaming), Relaxed);
                pooled.streams.fetch_sub(usize::from(before == Kind::Streaming), Relaxed);
                *lock(&self.place) = Place::Busy(kind);
            }
        }
        self.uses(true);
        true
    }

    /// Waits until its client has asked nothing for so long that the channel is given up, or the connection is
    /// to end while it asks nothing. (One timer a flow, which is looked at now and then: one a request would
    /// cost more than the request.)
    pub(in crate::tunnel) async fn outstays(&self) {
        let mut pause = PAUSE;
        let look = tokio::time::sleep(pause);
        tokio::pin!(look);
        let mut draining = false;
        loop {
            tokio::select! {
                () = &mut look => {}
                () = self.pooled.draining(), if !draining => draining = true,
            }
            let place = *lock(&self.place);
            match place {
                Place::Parked(since) if draining || since.elapsed() >= PARKED => return,
                Place::Parked(since) => {
                    // The supervisor looks after connections without flows. It is not woken between two requests.
                    self.pool.wake.notify_one();
                    look.as_mut().reset(since + PARKED);
                }
                _ => {
                    pause = (pause * 4).min(PARKED);
                    look.as_mut().reset(Instant::now() + pause);
                }
            }
        }
    }

    /// The number of users, which changes as others come and go.
    pub(in crate::tunnel) fn users(&self) -> watch::Receiver<usize> {
        self.pooled.users.subscribe()
    }

    /// Does anything else use the connection?
    pub(in crate::tunnel) fn is_shared(&self) -> bool {
        *self.pooled.users.borrow() > 1
    }

    /// Publishes how many bytes are kept on disk for its client.
    pub(in crate::tunnel) fn keeps(&self, bytes: u64) {
        let before = self.spilled.swap(bytes, Relaxed);
        if before != bytes {
            self.pooled.spilled.fetch_add(bytes, Relaxed);
            self.pooled.spilled.fetch_sub(before, Relaxed);
        }
    }

    /// The flow no longer needs the connection: its loss does not matter.
    pub(in crate::tunnel) fn leave(&self) {
        self.uses(false);
    }

    /// Waits until the flow must leave: its connection is dead. A listener also leaves a draining connection and, where
    /// there is a better one, a client that does not keep up, which could hold the connection up if it were alone.
    pub(in crate::tunnel) async fn broken(&self) {
        if self.counted {
            return self.pooled.given_up().await;
        }
        // On the heap: a client's task has no memory for what only listeners wait for.
        Box::pin(self.broken_for_a_listener()).await;
    }

    async fn broken_for_a_listener(&self) {
        let pooled = &self.pooled;
        let mut stalled = pooled.stalled.subscribe();
        let deaf = async {
            // A slow client stalls for moments, again and again.
            while stalled.wait_for(|flows| *flows > 0).await.is_ok() {
                let moves = stalled.wait_for(|flows| *flows == 0);
                if tokio::time::timeout(DEAF, moves).await.is_err() && self.pool.has_better_than(pooled) {
                    return;
                }
            }
        };
        tokio::select! {
            () = pooled.given_up() => {}
            () = pooled.draining() => {}
            () = deaf => {}
        }
    }

    /// Marks the flow's client as stalled while the returned guard lives.
    pub(in crate::tunnel) fn stall(&self) -> Stall<'_, C> {
        self.pooled.stalled.send_modify(|flows| *flows += 1);
        Stall(self)
    }
}

impl<C: Carrier> Drop for Lease<C> {
    fn drop(&mut self) {
        self.leave();
        self.keeps(0);
        if !self.counted {
            return;
        }
        self.pool.heap.flow_ends();
        self.vacate(Place::None, Instant::now());
        if self.pooled.load.load(Relaxed) == 0 {
            self.pool.wake.notify_one();
        }
    }
}

/// Marks a flow as stalled until dropped.
#[derive(Debug)]
pub(in crate::tunnel) struct Stall<'a, C: Carrier = Established>(&'a Lease<C>);

impl<C: Carrier> Drop for Stall<'_, C> {
    fn drop(&mut self) {
        self.0.pooled.stalled.send_modify(|flows| *flows -= 1);
        self.0.pool.bump();
    }
}

#[cfg(test)]
mod tests;
