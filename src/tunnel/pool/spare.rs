//! Open channels to the Engine that wait for a connection's next flows.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::placement::UNUSED;
use crate::ssh::Channel;
use crate::sync::lock;
use crate::tunnel::flow::hang_up;

/// How long a new channel waits for a flow. It saves the next command a round trip, and costs the host's sshd a
/// descriptor and its Engine a connection; some Engines close it earlier.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// At most one channel that is new, and one that has carried the requests of a client that has left.
#[derive(Debug, Default)]
pub(super) struct Spares {
    new: Slot,
    used: Slot,
}

/// Shared with the task that owns the channel.
type Slot = Arc<Mutex<Spare>>;

#[derive(Debug, Default)]
enum Spare {
    #[default]
    None,
    /// A channel is being opened.
    Opening,
    /// The task that owns the channel sends it to the sender that it gets here, and closes it once this is dropped. It is
    /// closed at this time.
    Open(oneshot::Sender<oneshot::Sender<Channel>>, Instant),
}

impl Spares {
    /// Takes a channel and returns it with whether it is used. Used ones are only for those that `may_be_used` says: the
    /// Engine may close an idle one while a request is on its way, which then has to be sent again.
    pub(super) async fn take(&self, may_be_used: bool) -> Option<(Channel, bool)> {
        let used = if may_be_used { take(&self.used).await } else { None };
        match used {
            Some(channel) => Some((channel, true)),
            None => take(&self.new).await.map(|channel| (channel, false)),
        }
    }

    /// Notes that a new channel is being opened. False if there is one already.
    pub(super) fn opens(&self) -> bool {
        let mut spare = lock(&self.new);
        let is_free = matches!(*spare, Spare::None);
        if is_free {
            *spare = Spare::Opening;
        }
        is_free
    }

    /// The outcome of that.
    pub(super) fn opened(&self, channel: Option<Channel>) {
        *lock(&self.new) = channel.map_or(Spare::None, |channel| hold(channel, &self.new, KEPT));
    }

    /// Keeps a used channel.
    ///
    /// # Errors
    /// The channel, if there is one already.
    pub(super) fn keep(&self, channel: Channel) -> Result<(), Channel> {
        let mut spare = lock(&self.used);
        if !matches!(*spare, Spare::None) {
            return Err(channel);
        }
        *spare = hold(channel, &self.used, UNUSED);
        Ok(())
    }

    /// Closes channels that have waited for too long.
    pub(super) fn drop_old(&self) {
        let now = Instant::now();
        for slot in [&self.new, &self.used] {
            let mut spare = lock(slot);
            if matches!(*spare, Spare::Open(_, until) if until <= now) {
                *spare = Spare::None;
            }
        }
    }

    /// When the next one is closed if no flow takes it; None without any.
    pub(super) fn until(&self) -> Option<Instant> {
        [&self.new, &self.used].into_iter().filter_map(until).min()
    }
}

fn until(slot: &Slot) -> Option<Instant> {
    match *lock(slot) {
        Spare::Open(_, until) => Some(until),
        Spare::None | Spare::Opening => None,
    }
}

async fn take(slot: &Slot) -> Option<Channel> {
    let taken = {
        let mut spare = lock(slot);
        if !matches!(*spare, Spare::Open(..)) {
            return None;
        }
        std::mem::take(&mut *spare)
    };
    let Spare::Open(holder, _) = taken else { return None };
    let (to, handed) = oneshot::channel();
    holder.send(to).ok()?;
    handed.await.ok()
}

fn hold(channel: Channel, slot: &Slot, limit: Duration) -> Spare {
    let (holder, wanted) = oneshot::channel();
    let until = Instant::now() + limit;
    tokio::spawn(own(channel, wanted, until, Arc::downgrade(slot)));
    Spare::Open(holder, until)
}

/// Owns a spare channel until a flow takes it. Closes it at once when the far end sends anything or has ended it: each costs
/// the server a descriptor.
async fn own(
    mut channel: Channel,
    wanted: oneshot::Receiver<oneshot::Sender<Channel>>,
    until: Instant,
    slot: Weak<Mutex<Spare>>,
) {
    let wanted = tokio::select! {
        biased;
        () = channel.touched() => None,
        wanted = wanted => wanted.ok(),
    };
    match wanted {
        Some(wanted) => match wanted.send(channel) {
            Ok(()) => return,
            Err(back) => channel = back,
        },
        None => {
            if let Some(slot) = slot.upgrade() {
                let mut spare = lock(&slot);
                if matches!(*spare, Spare::Open(_, other) if other == until) {
                    *spare = Spare::None;
                }
            }
        }
    }
    hang_up::let_go(channel).await;
}
