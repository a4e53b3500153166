//! When the ping of a docker command is answered without the Engine, and how the Engine is asked all the same.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::timeout;

use super::api::{Early, Exchange, Pings, ask};
use super::dial::{Dial, Purpose};
use super::pool::Pool;
use super::settings::Settings;
use super::uptime::state::{Publisher, State};

/// Without keepalives, a host is alive if it was heard within this time.
const LIFE: Duration = Duration::from_secs(15);
/// Longest time that the answer to a keepalive may take.
const ROUND_TRIP: Duration = Duration::from_secs(1);
/// Longest wait for a client's own first answer before the Engine is pinged.
const OWN_FIRST: Duration = Duration::from_secs(1);
/// Longest wait for the Engine's answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers pings where that is safe.
#[derive(Debug)]
pub(super) struct EarlyAnswers {
    pub(super) settings: Arc<Settings>,
    pub(super) status: Arc<Publisher>,
    pub(super) pool: Arc<Pool>,
    pub(super) pings: Arc<Pings>,
}

impl EarlyAnswers {
    /// The answer to a docker command's ping, where it is known, the tunnel is up, and its host was heard within the last
    /// keepalive interval.
    pub(super) fn answer(&self) -> Option<Early> {
        let ((state, since), target) = (self.status.state_since(), self.settings.target());
        self.pings.enter(since, &target);
        if !target.eager_ping || state != State::Up {
            return None;
        }
        let lately = target.keepalive.unwrap_or(LIFE) + ROUND_TRIP;
        self.pings.answer(SystemTime::now()).filter(|_| self.pool.was_heard_within(lately))
    }

    /// Asks the Engine what a client has been answered for it. Not before the client has an answer of its own: the
    /// server would hold that back behind the smaller packets of this one (Nagle's algorithm).
    pub(super) async fn check(&self, dial: Arc<impl Dial>, client: Arc<Exchange>, question: Bytes) {
        let generation = self.pings.generation();
        // Its end is no matter: the answer is for others, too.
        let _ = timeout(OWN_FIRST, client.has_more()).await;
        let asked = async { ask(dial.dial(Purpose::listening()).ok()?, &question).await };
        let head = timeout(PING_TIMEOUT, asked).await.ok().flatten();
        self.pings.heard(generation, head.as_deref());
    }
}
