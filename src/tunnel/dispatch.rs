//! Accepts local clients, has each served, and drains the flows at the end.
//!
//! Clients of the Engine's socket, of published ports, and our own questions all go this way; their [`Purpose`] says
//! which. [`Serving`] has what they are served with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::listener::Listener;
use super::client::peer::Who;
use super::conversation::Conversation;
use super::dial::Purpose;
use super::flow::carriage::End;
use super::guard::GuardedClient;
use super::serving::Serving;
use crate::os::local_stream::LocalStream;
use crate::os::programs;

/// Flows without traffic for this long do not delay the end.
const QUIET: Duration = Duration::from_millis(300);
/// How often draining looks for traffic.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Serves the clients of one tunnel.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) serving: Arc<Serving>,
    /// Most flows at once.
    most: usize,
}

impl Dispatcher {
    /// Has so many clients wait that a quarter of the process's open files is left (RLIMIT_NOFILE in getrlimit(2)): for
    /// connections, files and whoever ends the tunnel.
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        let limit = programs::most_open_files();
        Self { serving, most: usize::try_from(limit - limit / 4).unwrap_or(usize::MAX) }
    }

    /// Accepts clients of `listener` and of the published ports, and spawns a task in `flows` for each.
    /// Never ends.
    pub(super) async fn serve(
        self: &Arc<Self>,
        listener: &Listener,
        of_ports: &mut mpsc::Receiver<(LocalStream, Purpose)>,
        flows: &mut JoinSet<()>,
    ) {
        let _ = self.serving.sockets.set(listener.paths().into());
        let mut was_full = false;
        loop {
            let is_full = flows.len() >= self.most;
            if is_full && !was_full {
                tracing::warn!("{} flows at once: others wait, because of the limit of open files", self.most);
            }
            was_full = is_full;
            tokio::select! {
                local = listener.accept(), if !is_full => {
                    flows.spawn(self.clone().flow(local, Purpose::client()));
                }
                Some((local, purpose)) = of_ports.recv(), if !is_full => {
                    flows.spawn(self.clone().flow(local, purpose));
                }
                // Reaps ended tasks. A panic in one ends that flow only.
                Some(joined) = flows.join_next() => if let Err(e) = joined {
                    tracing::error!("a flow failed: {e}");
                }
            }
        }
    }

    async fn flow(self: Arc<Self>, local: LocalStream, purpose: Purpose) {
        self.serving.placer.counters.flow_begins();
        let of_port = purpose.counters.clone();
        of_port.iter().for_each(|counters| counters.flow_begins());
        let guard = self.serving.placer.settings.guard().filter(|_| purpose.is_to_engine());
        let carried = match guard {
            Some(guard) => {
                let over_tcp = local.is_tcp();
                let client = GuardedClient::new(guard, over_tcp, Who::of(&local).await, self.serving.clone());
                Conversation::guarded(self.serving.clone(), Arc::new(client)).serve(local).await
            }
            None if purpose.is_clients_to_engine() && self.serving.placer.settings.target().api => {
                Conversation::new(self.serving.clone(), purpose).serve(local).await
            }
            None => self.serving.placer.clone().place_and_carry(local, purpose).await,
        };
        let end = carried.unwrap_or_else(|reason| {
            tracing::warn!("a flow was not opened: {reason}");
            End::Cut
        });
        if end.is_cut() {
            self.serving.early.pings.forget();
        }
        self.serving.placer.counters.flow_ends(end.is_cut());
        of_port.iter().for_each(|counters| counters.flow_ends(end.is_cut()));
        tracing::debug!("a flow ended: {end:?}");
    }

    /// Lets flows finish that are moving bytes, for at most the target's `drain`.
    pub(super) async fn drain(&self, flows: &mut JoinSet<()>) {
        let deadline = Instant::now() + self.serving.placer.settings.target().drain;
        let moved = || self.serving.placer.counters.snapshot().bytes();
        let (mut last, mut quiet_since) = (moved(), Instant::now());
        while !flows.is_empty() && Instant::now() < deadline && quiet_since.elapsed() < QUIET {
            let _ = tokio::time::timeout(DRAIN_STEP, flows.join_next()).await;
            let now = moved();
            if now != last {
                (last, quiet_since) = (now, Instant::now());
            }
        }
        if !flows.is_empty() {
            tracing::info!("{} flows were still open at the end", flows.len());
        }
    }
}
