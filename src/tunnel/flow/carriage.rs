//! What a flow is carried with, how it may end, and what its two directions know of one another.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::os::local_stream::LocalStream;
use crate::ssh::Channel;
use crate::tunnel::api::Exchange;
use crate::tunnel::client::peer::Who;
use crate::tunnel::counters::Counters;
use crate::tunnel::follow_up::FollowUp;
use crate::tunnel::pool::Lease;

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tunnel) enum End {
    /// Client and host have each ended their direction.
    Done,
    /// The client closed both directions.
    ClientGone,
    /// The host or the connection cut it; the client has seen a reset.
    Cut,
    /// The client did not read, others needed its connection, and the spill limit was reached. The client has seen a
    /// reset. Holds its name and the limit, for people.
    TooSlow(String),
}

impl End {
    /// Did the client see a reset?
    pub(in crate::tunnel) fn is_cut(&self) -> bool {
        matches!(self, Self::Cut | Self::TooSlow(_))
    }
}

/// What became of a client on one channel.
#[derive(Debug)]
pub(in crate::tunnel) enum Outcome {
    /// Its connection is over.
    Ended(End),
    /// It goes on elsewhere, or waits for its next request: the channel is not needed any more.
    Free(LocalStream, Left),
}

/// The channel of a client that has left it.
#[derive(Debug)]
pub(in crate::tunnel) struct Left {
    pub(in crate::tunnel) channel: Channel,
    /// Is nothing under way on it, so that another client's requests may follow?
    pub(in crate::tunnel) is_free: bool,
}

/// What a flow is carried with.
pub(in crate::tunnel) struct Carriage<'a> {
    /// Who counts its bytes.
    pub(in crate::tunnel) counters: &'a [&'a Counters],
    pub(in crate::tunnel) lease: &'a Lease,
    /// Most bytes that are kept on disk for the client.
    pub(in crate::tunnel) spill: u64,
    /// On whose behalf the local connection was opened, where that is somebody else than who holds it.
    pub(in crate::tunnel) on_behalf: Option<&'a Who>,
    /// The client's requests, where they are read along. None: blind.
    pub(in crate::tunnel) exchange: Option<&'a Exchange>,
    /// Is the channel a command on the host, of which the server allows so many? It counts even while its client asks nothing.
    pub(in crate::tunnel) is_command: bool,
    /// Has the channel carried another client's requests?
    pub(in crate::tunnel) is_used: bool,
    /// What answers wait for on this machine.
    pub(in crate::tunnel) follow_up: &'a FollowUp,
    /// May the client's next request go on here, as far as the settings are concerned?
    pub(in crate::tunnel) may_stay: &'a (dyn Fn() -> bool + Sync),
}

/// What the two directions know of one another.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Does the client leave this channel, once it has all that came over it?
    pub(super) leaving: AtomicBool,
    /// How many requests have begun on it?
    pub(super) requests: AtomicUsize,
    /// Has its client left it with nothing under way?
    pub(super) is_clean: AtomicBool,
    /// Has the host ended its direction?
    pub(super) host_ended: AtomicBool,
    /// Has the client been told that the host has ended its direction?
    pub(super) told: AtomicBool,
    /// Has the host closed the channel? All its bytes have arrived; the connection is no longer needed.
    pub(super) complete: AtomicBool,
    /// Is an answer held back that may still be replaced? Then nothing may come behind it.
    pub(super) holding: AtomicBool,
    /// Notified when it is not any more.
    pub(super) released: Notify,
    /// Do bytes of the client wait to be sent?
    pub(super) sending: AtomicBool,
    /// Bumped when that changes.
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn set_sending(&self, sending: bool) {
        self.sending.store(sending, Relaxed);
        self.changed.notify_one();
    }
}
