//! Local clients: accepted, placed on a connection, carried there, waited for at the end.
//!
//! Clients of the Engine's socket, of published ports, and our own questions all go this way; their
//! [`Purpose`] says which. Accepting and placing is the supervisor's thread's; a placed flow runs on the thread of its
//! connection, and comes back only to be placed elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::client::listener::Listener;
use super::client::stream::LocalStream;
use super::counters::Counters;
use super::dial::{Dial, Leads, Purpose};
use super::flow::hang_up;
use super::flow::relay::{self, End};
use super::guard;
use super::pool::connection::{Carrier, PooledConnection};
use super::pool::{Lease, Pool};
use super::settings::Settings;
use super::uptime::commands::{Command, Commands};
use super::uptime::state::{Availability, Publisher};
use crate::config::Target;
use crate::host;
use crate::ssh::{Channel, Endpoint, OpenError};

/// A flow that has gone on for so long makes room for those that come after it. Most requests are
/// answered sooner.
const LASTING: Duration = Duration::from_millis(250);
/// How long a further connection is waited for where there are only such with clients that do not keep up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before a server that refused a command is asked again.
const CROWDED: Duration = Duration::from_millis(100);
/// Flows on which nothing has moved for so long are not waited for at the end.
const QUIET: Duration = Duration::from_millis(300);
/// How often the end looks whether flows have moved.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// What became of a flow on the connection where it was placed.
enum Carried {
    /// It is over.
    Ended(End),
    /// Its thread could not take it.
    Failed(std::io::Error),
    /// It was not opened there, and nothing of the client's has been sent.
    Unopened(LocalStream, Unopened),
}

/// Why a connection has no channel for a flow.
enum Unopened {
    /// The host, or the server, has none for it.
    Refused(String),
    /// The client went away before it was opened.
    ClientGone,
    /// The server allows no further command there as long as others run or are ending.
    Crowded,
    /// That connection may be dead, and another one is not.
    Elsewhere,
    /// The server does not forward to ports; a command on the host may.
    Prohibited,
    /// That connection was lost.
    Lost(Arc<PooledConnection>),
}

/// Serves the clients of one tunnel.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) settings: Arc<Settings>,
    pub(super) status: Arc<Publisher>,
    pub(super) pool: Arc<Pool>,
    pub(super) commands: Arc<Commands>,
    pub(super) counters: Arc<Counters>,
    /// The server does not forward to ports, but runs commands.
    pub(super) ports_by_command: AtomicBool,
}

impl Dispatcher {
    /// Accepts clients of `listener` and those that the published ports hand on, each served by a task of `flows`.
    /// Never ends.
    pub(super) async fn serve(
        self: &Arc<Self>,
        listener: &Listener,
        of_ports: &mut mpsc::Receiver<(LocalStream, Purpose)>,
        flows: &mut JoinSet<()>,
    ) {
        loop {
            tokio::select! {
                local = listener.accept() => {
                    flows.spawn(self.clone().flow(local, Purpose::client()));
                }
                Some((local, purpose)) = of_ports.recv() => {
                    flows.spawn(self.clone().flow(local, purpose));
                }
                // Ended tasks are let go as they end. A panic in one ends that flow alone.
                Some(joined) = flows.join_next() => if let Err(e) = joined {
                    tracing::error!("a flow failed: {e}");
                }
            }
        }
    }

    async fn flow(self: Arc<Self>, local: LocalStream, purpose: Purpose) {
        self.counters.flow_begins();
        self.commands.send(Command::Use);
        let of_port = purpose.counters.clone();
        of_port.iter().for_each(|counters| counters.flow_begins());
        let guard = self.settings.guard().filter(|_| purpose.is_to_engine());
        let carried = match guard {
            Some(guard) => guard::serve(self.clone(), guard, local).await,
            None => self.clone().place_and_carry(local, purpose).await,
        };
        let end = carried.unwrap_or_else(|reason| {
            tracing::warn!("a flow was not opened: {reason}");
            End::Cut
        });
        self.counters.flow_ends(end.is_cut());
        of_port.iter().for_each(|counters| counters.flow_ends(end.is_cut()));
        tracing::debug!("a flow ended: {end:?}");
    }

    /// The way of a flow.
    fn way(&self, purpose: &Purpose) -> Endpoint {
        let to_engine = self.status.endpoint();
        match &purpose.leads {
            Leads::ToEngine => to_engine,
            // What carries the Engine's flows is a command where the server forwards nothing.
            Leads::ToPort { host, port } if self.ports_by_command.load(Relaxed) || to_engine.is_command() => {
                host::to_port(host, *port)
            }
            Leads::ToPort { host, port } => Endpoint::Tcp { host: host.clone(), port: *port },
        }
    }

    /// Places a new flow and waits for its end. A connection that is being made again, or that has room for no
    /// more, is waited for; nothing of the client's has been sent before the flow is open, so that a
    /// second try is safe.
    async fn place_and_carry(self: Arc<Self>, mut local: LocalStream, purpose: Purpose) -> Result<End, String> {
        let began = self.settings.target();
        let wait = began.wait;
        let deadline = Instant::now() + wait;
        let mut status = self.status.subscribe();
        let mut waits = None;
        loop {
            let settled = async {
                let settled = status.wait_for(|status| status.state.availability() != Availability::Waiting).await;
                settled.ok().map(|status| status.state.availability())
            };
            match or_gone(&local, tokio::time::timeout_at(deadline, settled)).await? {
                Ok(Some(Availability::Connected)) => {}
                Ok(_) => return refuse(local, "the tunnel has failed".into()),
                Err(_) => return refuse(local, format!("no connection within {}", humantime::format_duration(wait))),
            }
            let mut changes = self.pool.changes();
            let patient = waits.is_none_or(|since: Instant| since.elapsed() < PATIENCE);
            let place = if purpose.is_clients { self.pool.place(patient) } else { self.pool.place_listener(patient) };
            let Some(lease) = place else {
                let now = Instant::now();
                if now >= deadline {
                    return refuse(local, "the server allows no further channel on any connection".into());
                }
                waits.get_or_insert(now);
                let _ =
                    or_gone(&local, tokio::time::timeout_at(deadline.min(now + PATIENCE), changes.changed())).await?;
                continue;
            };
            // What was asked of one host is not carried out on another, nor what was let in without a guard behind one.
            if purpose.is_clients && !began.ends_as(&lease.pooled.carrier.target) {
                return refuse(local, "the tunnel has another target now".into());
            }
            let is_unguarded = purpose.is_clients_to_engine() && purpose.behind_guard.is_none();
            if is_unguarded && self.settings.guard().is_some() {
                return refuse(local, "the tunnel has a guard now".into());
            }
            let (dispatcher, pooled, going) = (self.clone(), lease.pooled.clone(), purpose.clone());
            let mut carried = pooled.carrier.worker.run(async move { dispatcher.carry(local, lease, &going).await });
            let carried = tokio::select! {
                carried = &mut carried => carried,
                () = tokio::time::sleep(LASTING) => {
                    if purpose.is_clients {
                        self.pool.flow_lasts();
                    }
                    carried.await
                }
            };
            local = match carried.map_err(|e| e.to_string())? {
                Carried::Ended(end) => return Ok(end),
                Carried::Failed(error) => return Err(error.to_string()),
                Carried::Unopened(local, why) => {
                    match why {
                        Unopened::Refused(reason) => {
                            if purpose.is_to_engine() {
                                self.status.flows_refused(Some(&reason));
                            }
                            return refuse(local, reason);
                        }
                        Unopened::ClientGone => return Ok(End::ClientGone),
                        Unopened::Elsewhere => {}
                        Unopened::Prohibited => self.carry_ports_by_command(),
                        Unopened::Crowded if Instant::now() >= deadline => {
                            return refuse(local, "the server allows no further session".into());
                        }
                        // Nothing tells when a session has really ended there.
                        Unopened::Crowded => or_gone(&local, tokio::time::sleep(CROWDED)).await?,
                        // The supervisor learns of it in this moment, too; wait until it has.
                        Unopened::Lost(pooled) => {
                            while self.pool.contains(&pooled) {
                                if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                                    return refuse(local, "the connection was lost".into());
                                }
                            }
                        }
                    }
                    local
                }
            };
            local = local.move_here().map_err(|e| e.to_string())?;
        }
    }

    /// On the connection's thread: opens a channel for the flow and carries it to its end.
    async fn carry(&self, local: LocalStream, lease: Lease, purpose: &Purpose) -> Carried {
        let local = match local.move_here() {
            Ok(local) => local,
            Err(e) => return Carried::Failed(e),
        };
        let (channel, lease) = match self.open(&local, lease, purpose).await {
            Ok(opened) => opened,
            Err(why) => return Carried::Unopened(local, why),
        };
        let of_tunnel = purpose.is_clients.then_some(self.counters.as_ref());
        let counters: Vec<&Counters> =
            of_tunnel.into_iter().chain([&lease.pooled.counters]).chain(purpose.counters.as_deref()).collect();
        if purpose.is_to_engine() {
            self.status.flows_refused(None);
        }
        let spill = self.settings.target().spill;
        let end = relay::carry(local, channel, &counters, &lease, spill, purpose.behind_guard.as_ref()).await;
        if let End::TooSlow(why) = &end {
            self.status.flow_reset(why.clone());
        }
        if purpose.is_clients_to_engine() {
            self.prepare_next(lease);
        }
        Carried::Ended(end)
    }

    /// A channel on the flow's connection: the spare one, or a new one.
    async fn open(&self, local: &LocalStream, lease: Lease, purpose: &Purpose) -> Result<(Channel, Lease), Unopened> {
        if purpose.is_clients_to_engine()
            && let Some(spare) = lease.pooled.take_spare().await
        {
            return Ok((spare, lease));
        }
        let (pooled, endpoint) = (lease.pooled.clone(), self.way(purpose));
        let is_command = endpoint.is_command();
        let mut opening = tokio::spawn(async move { pooled.carrier.open(&endpoint).await });
        let opened = tokio::select! {
            biased;
            opened = &mut opening => opened,
            // Nothing was sent yet: it is opened elsewhere.
            () = lease.pooled.given_up() => return Err(Unopened::Lost(lease.pooled.clone())),
            () = self.pool.better_is_there(&lease.pooled) => {
                tokio::spawn(close_unwanted(opening, lease));
                return Err(Unopened::Elsewhere);
            }
            Ok(()) = local.gone() => {
                tokio::spawn(close_unwanted(opening, lease));
                return Err(Unopened::ClientGone);
            }
        };
        Err(match opened {
            Ok(Ok(channel)) => return Ok((channel, lease)),
            // A server lets a connection have so many commands (MaxSessions).
            Ok(Err(OpenError::Refused { .. })) if is_command => {
                lease.pooled.has_refused();
                Unopened::Crowded
            }
            Ok(Err(error)) if !purpose.is_to_engine() && !is_command && error.is_prohibited() => Unopened::Prohibited,
            Ok(Err(OpenError::Lost)) => Unopened::Lost(lease.pooled.clone()),
            Ok(Err(error)) => Unopened::Refused(error.to_string()),
            Err(e) => Unopened::Refused(e.to_string()),
        })
    }

    fn carry_ports_by_command(&self) {
        if !self.ports_by_command.swap(true, Relaxed) {
            tracing::info!("the server does not forward to ports; their flows go through a command on the host");
        }
    }

    /// After a flow: where nothing else goes on, the channel for the next one is opened already; a command
    /// on the host is not started before it is wanted.
    fn prepare_next(&self, lease: Lease) {
        let (pooled, pool, endpoint) = (lease.pooled.clone(), self.pool.clone(), self.status.endpoint());
        drop(lease);
        if endpoint.is_command() {
            return;
        }
        tokio::spawn(async move {
            pooled.open_spare(&endpoint).await;
            pool.spare_opened();
        });
    }

    /// Lets flows finish that are moving bytes, for at most the target's `drain`.
    pub(super) async fn drain(&self, flows: &mut JoinSet<()>) {
        let deadline = Instant::now() + self.settings.target().drain;
        let moved = || self.counters.snapshot().bytes();
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

impl Dial for Dispatcher {
    fn dial(self: Arc<Self>, purpose: Purpose) -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        tokio::spawn(async move {
            if let Err(reason) = self.place_and_carry(LocalStream::unix(theirs), purpose).await {
                tracing::debug!("a flow of our own was not opened: {reason}");
            }
        });
        Ok(ours)
    }

    fn target(&self) -> Arc<Target> {
        self.settings.target()
    }

    fn last_error(&self) -> Option<String> {
        self.status.last_error()
    }
}

/// Closes a client whose flow cannot be had.
fn refuse(local: LocalStream, reason: String) -> Result<End, String> {
    local.reset();
    Err(reason)
}

/// Closes a channel that nobody wants any more as soon as it is open.
async fn close_unwanted(opening: JoinHandle<Result<Channel, OpenError>>, _lease: Lease) {
    if let Ok(Ok(channel)) = opening.await {
        hang_up::let_go(channel).await;
    }
}

/// Waits for `work`, unless the client goes away meanwhile.
async fn or_gone<T>(local: &LocalStream, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::select! {
        biased;
        result = work => Ok(result),
        Ok(()) = local.gone() => Err("the client went away".into()),
    }
}
