//! The SSH connections of one tunnel, and which of them carries a new flow.
//!
//! russh grants the receive window back when data arrives, not when it is consumed, and its session
//! waits for a bounded queue per channel: a flow that is not read stops every flow of its connection
//! (docs/architecture.md, "the trap"). So a tunnel has several connections, new flows go to one whose
//! clients keep up, and only a flow that is alone on its connection may leave it unread. A connection with
//! a client that does not keep up does not count against the limit.

mod heap;
pub(super) mod member;
pub(super) mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::sync::lock;
use heap::Heap;
use member::{ConnectionStatus, Member};

/// How long a connection beyond the first may be unused before it is closed.
const UNUSED: Duration = Duration::from_secs(60);
/// Flows that follow one another within this time are worth a second connection.
const FAST: Duration = Duration::from_millis(500);
/// How long a server that refused a further connection is left alone.
const REFUSED: Duration = Duration::from_secs(30);
/// A connection with a client that has not kept up for so long is not listened on.
const DEAF: Duration = Duration::from_millis(500);
/// All connections, those with clients that do not keep up included, are at most so many times `max_connections`.
const MOST: usize = 4;

/// May there be further connections?
#[derive(Debug, Clone, Copy)]
enum Growth {
    Allowed,
    /// The server refused one; not before then.
    NotBefore(Instant),
    /// Logging in needs a person.
    Never,
}

/// The connections of one tunnel.
#[derive(Debug)]
pub(in crate::tunnel) struct Pool {
    members: Mutex<Vec<Arc<Member>>>,
    /// Connections whose clients keep up, at most.
    max: AtomicUsize,
    growth: Mutex<Growth>,
    /// Bumped whenever a flow that found no place may find one now.
    changed: watch::Sender<u64>,
    /// Wakes the supervisor.
    wake: Notify,
    wants_more: Mutex<bool>,
    heap: Arc<Heap>,
}

impl Pool {
    pub(in crate::tunnel) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            members: Mutex::default(),
            max: AtomicUsize::new(max),
            growth: Mutex::new(Growth::Allowed),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
            wants_more: Mutex::new(false),
            heap: Arc::default(),
        })
    }

    /// Finds the connection for a new flow: one whose clients keep up, with the fewest flows, of those
    /// one with a spare channel, and of those the one that has been quiet for longest (a server that
    /// has just closed a channel holds its next word back, Nagle's algorithm). Where there is none a further
    /// connection is asked for. So it is where commands come so fast that the only connection has no spare
    /// channel yet.
    ///
    /// The last resort is a connection with a client that does not keep up, which then holds it up no more.
    /// None where a further connection may come, which a `patient` flow waits for, or where the server allows
    /// no more on any.
    pub(in crate::tunnel) fn place(self: &Arc<Self>, patient: bool) -> Option<Lease> {
        let members = lock(&self.members);
        let key = |member: &&Arc<Member>| {
            (member.is_suspect(), member.load.load(Relaxed), !member.has_spare(), member.quiet_since())
        };
        let open = || members.iter().filter(|member| !member.is_full());
        let best = open().filter(|member| !member.is_stalled()).min_by_key(key);
        let too_fast = members.len() == 1
            && best.is_some_and(|member| {
                !member.has_spare() && member.was_used() && member.quiet_since().elapsed() < FAST
            });
        let mut may_grow = false;
        if best.is_none_or(|member| member.load.load(Relaxed) > 0) || too_fast {
            may_grow = self.wish(&members);
        }
        let best = best.or_else(|| open().filter(|_| !(patient && may_grow)).min_by_key(key))?;
        best.load.fetch_add(1, Relaxed);
        Some(Lease::new(self, best, true))
    }

    /// A place for a flow of our own that only listens: in nobody's way, and not counted. As [`Pool::place`],
    /// it takes a connection with a client that does not keep up as the last resort.
    pub(in crate::tunnel) fn place_listener(self: &Arc<Self>, patient: bool) -> Option<Lease> {
        let members = lock(&self.members);
        if let Some(moving) = members.iter().find(|member| !member.is_stalled()) {
            return Some(Lease::new(self, moving, false));
        }
        let may_grow = self.wish(&members);
        let last = members.first().filter(|_| !(patient && may_grow))?;
        Some(Lease::new(self, last, false))
    }

    /// Waits until `member` may be dead while another connection is not.
    pub(in crate::tunnel) async fn better_is_there(&self, member: &Arc<Member>) {
        let mut changes = self.changes();
        loop {
            let sound = |other: &Arc<Member>| !Arc::ptr_eq(other, member) && !other.is_suspect() && !other.is_stalled();
            if member.is_suspect() && lock(&self.members).iter().any(sound) {
                return;
            }
            // Never: the pool outlives its flows.
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Is there, or may there be, another connection than this one whose clients keep up?
    fn has_better_than(&self, member: &Arc<Member>) -> bool {
        let members = lock(&self.members);
        members.iter().any(|other| !Arc::ptr_eq(other, member) && !other.is_stalled()) || self.wish(&members)
    }

    /// A flow has lasted for a while: the next one, which may be a small request beside a big
    /// download, shall find a connection that nothing goes on on.
    pub(in crate::tunnel) fn flow_lasts(&self) {
        let members = lock(&self.members);
        if !members.iter().any(|member| member.load.load(Relaxed) == 0) {
            self.wish(&members);
        }
    }

    /// Asks the supervisor for a further connection, if there may be one. Returns whether there may.
    fn wish(&self, members: &[Arc<Member>]) -> bool {
        let moving = members.iter().filter(|member| !member.is_stalled()).count();
        let may = moving < self.max.load(Relaxed) && members.len() < self.most() && self.may_grow();
        if may {
            *lock(&self.wants_more) = true;
            self.wake.notify_one();
        }
        may
    }

    /// A single connection stays single, whatever goes on on it.
    fn most(&self) -> usize {
        match self.max.load(Relaxed) {
            1 => 1,
            max => max * MOST,
        }
    }

    fn may_grow(&self) -> bool {
        match *lock(&self.growth) {
            Growth::Allowed => true,
            Growth::NotBefore(time) => Instant::now() >= time,
            Growth::Never => false,
        }
    }

    /// Another limit holds from now on.
    pub(in crate::tunnel) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// A further connection was refused; `needs_person` if nobody was there to log in.
    pub(in crate::tunnel) fn growth_failed(&self, needs_person: bool) {
        let next = if needs_person { Growth::Never } else { Growth::NotBefore(Instant::now() + REFUSED) };
        *lock(&self.growth) = next;
        self.bump();
    }

    pub(in crate::tunnel) fn add(&self, member: Arc<Member>) {
        lock(&self.members).push(member);
        self.bump();
    }

    /// True where it was there.
    pub(in crate::tunnel) fn remove(&self, member: &Arc<Member>) -> bool {
        let mut members = lock(&self.members);
        let before = members.len();
        members.retain(|other| !Arc::ptr_eq(other, member));
        let removed = members.len() < before;
        drop(members);
        self.bump();
        removed
    }

    pub(in crate::tunnel) fn contains(&self, member: &Arc<Member>) -> bool {
        lock(&self.members).iter().any(|other| Arc::ptr_eq(other, member))
    }

    pub(in crate::tunnel) fn is_empty(&self) -> bool {
        lock(&self.members).is_empty()
    }

    /// Takes all of them out; growth is allowed anew.
    pub(in crate::tunnel) fn clear(&self) -> Vec<Arc<Member>> {
        *lock(&self.growth) = Growth::Allowed;
        let members = std::mem::take(&mut *lock(&self.members));
        self.bump();
        members
    }

    /// Waits until there has been no flow for `limit`, and takes all connections out.
    pub(in crate::tunnel) async fn unused_for(&self, limit: Duration) -> Vec<Arc<Member>> {
        loop {
            let mut changes = self.changes();
            let quiet = {
                let mut members = lock(&self.members);
                let busy = members.iter().any(|member| member.load.load(Relaxed) > 0);
                let last = members.iter().map(|member| member.quiet_since()).max().filter(|_| !busy);
                if last.is_some_and(|last| last.elapsed() >= limit) {
                    return std::mem::take(&mut *members);
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

    /// Takes out a connection that has been unused for too long; one always stays.
    pub(in crate::tunnel) fn take_unused(&self) -> Option<Arc<Member>> {
        let mut members = lock(&self.members);
        let unused = |member: &Arc<Member>| member.load.load(Relaxed) == 0 && member.quiet_since().elapsed() >= UNUSED;
        let at = members.iter().rposition(unused).filter(|_| members.len() > 1)?;
        Some(members.swap_remove(at))
    }

    /// Lets the spare channels go that nobody has used for too long.
    pub(in crate::tunnel) fn drop_old_spares(&self) {
        lock(&self.members).iter().for_each(|member| member.drop_old_spare(UNUSED));
    }

    /// Wakes the supervisor, so that it looks when it is needed next.
    pub(in crate::tunnel) fn spare_opened(&self) {
        self.wake.notify_one();
    }

    /// Waits until the supervisor has something to do: a wish, or a connection or spare channel that
    /// is unused for too long. No timer runs while there is one connection only, without a spare.
    pub(in crate::tunnel) async fn needs_care(&self) {
        loop {
            let next = {
                let members = lock(&self.members);
                let unused = members.iter().filter(|member| member.load.load(Relaxed) == 0);
                let unused = unused.map(|member| member.quiet_since() + UNUSED).filter(|_| members.len() > 1);
                unused.chain(members.iter().filter_map(|member| member.spare_since()).map(|since| since + UNUSED)).min()
            };
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

    /// See [`Pool::place`]: to be awaited where it found none.
    pub(in crate::tunnel) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(in crate::tunnel) fn members(&self) -> Vec<Arc<Member>> {
        lock(&self.members).clone()
    }

    pub(in crate::tunnel) fn status(&self) -> Vec<ConnectionStatus> {
        lock(&self.members).iter().map(|member| member.status()).collect()
    }

    fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// A flow's place on a connection.
#[derive(Debug)]
pub(in crate::tunnel) struct Lease {
    pool: Arc<Pool>,
    pub(in crate::tunnel) member: Arc<Member>,
    /// Is it a client's?
    counted: bool,
    /// Does it need the connection to be read?
    uses: AtomicBool,
    /// Bytes that are kept for its client beyond memory.
    spilled: AtomicU64,
}

impl Lease {
    fn new(pool: &Arc<Pool>, member: &Arc<Member>, counted: bool) -> Self {
        member.users.send_modify(|users| *users += 1);
        if counted {
            pool.heap.flow_begins();
        }
        Self {
            pool: pool.clone(),
            member: member.clone(),
            counted,
            uses: AtomicBool::new(true),
            spilled: AtomicU64::new(0),
        }
    }

    /// Bumped when others come or go.
    pub(in crate::tunnel) fn users(&self) -> watch::Receiver<usize> {
        self.member.users.subscribe()
    }

    /// Does anything else go over the connection?
    pub(in crate::tunnel) fn is_shared(&self) -> bool {
        *self.member.users.borrow() > 1
    }

    /// So many bytes are kept for its client beyond memory.
    pub(in crate::tunnel) fn keeps(&self, bytes: u64) {
        let before = self.spilled.swap(bytes, Relaxed);
        if before != bytes {
            self.member.spilled.fetch_add(bytes, Relaxed);
            self.member.spilled.fetch_sub(before, Relaxed);
        }
    }

    /// Nothing more comes over the connection: whatever becomes of it is all the same.
    pub(in crate::tunnel) fn leave(&self) {
        if self.uses.swap(false, Relaxed) {
            self.member.users.send_modify(|users| *users -= 1);
        }
    }

    /// Waits until the flow cannot stay: its connection is dead. One that only listens does not stay on a
    /// retired one either, nor, where it can listen elsewhere, beside a client that does not keep up: that one
    /// could hold the connection up if it were alone.
    pub(in crate::tunnel) async fn broken(&self) {
        let member = &self.member;
        if self.counted {
            return member.given_up().await;
        }
        let mut stalled = member.stalled.subscribe();
        let deaf = async {
            // A client that reads slowly holds it up again and again, for moments.
            while stalled.wait_for(|flows| *flows > 0).await.is_ok() {
                let moves = stalled.wait_for(|flows| *flows == 0);
                if tokio::time::timeout(DEAF, moves).await.is_err() && self.pool.has_better_than(member) {
                    return;
                }
            }
        };
        tokio::select! {
            () = member.given_up() => {}
            () = member.is_retired() => {}
            () = deaf => {}
        }
    }

    /// Says that the flow's client does not keep up, for as long as the guard lives.
    pub(in crate::tunnel) fn stall(&self) -> Stall<'_> {
        self.member.stalled.send_modify(|flows| *flows += 1);
        Stall(self)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leave();
        self.keeps(0);
        if !self.counted {
            return;
        }
        self.pool.heap.flow_ends();
        *lock(&self.member.quiet_since) = Instant::now();
        let was_full = self.member.is_full();
        if self.member.load.fetch_sub(1, Relaxed) == 1 {
            self.pool.wake.notify_one();
            self.pool.bump();
        } else if was_full {
            self.pool.bump();
        }
    }
}

/// A flow whose client does not keep up.
#[derive(Debug)]
pub(in crate::tunnel) struct Stall<'a>(&'a Lease);

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.member.stalled.send_modify(|flows| *flows -= 1);
        self.0.pool.bump();
    }
}
