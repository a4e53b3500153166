//! Local clients: accepted, placed on a connection, carried there, waited for at the end.
//!
//! Clients of the Engine's socket, of published ports, and our own questions all go this way; their
//! [`Purpose`] says which. Accepting and placing is the supervisor's thread's; a placed flow runs on the thread of its
//! connection, and comes back only to be placed elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::host;
use crate::ssh::{Channel, Endpoint, OpenError};
use crate::tunnel::client::listener::Listener;
use crate::tunnel::client::peer::Who;
use crate::tunnel::client::stream::LocalStream;
use crate::tunnel::counters::Counters;
use crate::tunnel::flow::hang_up;
use crate::tunnel::flow::relay::{self, End};
use crate::tunnel::guard;
use crate::tunnel::pool::Lease;
use crate::tunnel::pool::member::Member;
use crate::tunnel::uptime::supervisor::{Link, Tunnel};

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

/// What a flow is for.
#[derive(Debug, Clone)]
pub(in crate::tunnel) enum Purpose {
    /// A client's, to the Engine; and whose, where a guard stands between the two.
    Engine(Option<Who>),
    /// Ours, to the Engine: counted nowhere, and cut where its connection is held up.
    Listening,
    /// A client's, to a published port as the host sees it.
    Port {
        /// Address there.
        host: String,
        /// Port there.
        port: u16,
        /// Those of the port.
        counters: Arc<Counters>,
    },
}

/// What became of a flow on the connection where it was placed.
enum Carried {
    /// It is over.
    Ended(End),
    /// It was not opened, for this reason; the client has been told.
    Refused(String),
    /// The client went away before it was opened.
    ClientGone,
    /// The server allows no further command there as long as others run or are ending.
    Crowded(LocalStream),
    /// That connection may be dead, and another one is not.
    Elsewhere(LocalStream),
    /// The server does not forward to ports; a command on the host may.
    Prohibited(LocalStream),
    /// That connection was lost before the flow was opened.
    Lost(LocalStream, Arc<Member>),
}

impl Tunnel {
    /// Accepts clients, each served by a task of `flows`. Never ends.
    pub(in crate::tunnel) async fn serve(self: &Arc<Self>, listener: &Listener, flows: &mut JoinSet<()>) {
        let mut of_ports = self.ports.clients();
        loop {
            tokio::select! {
                local = listener.accept() => {
                    let tunnel = self.clone();
                    flows.spawn(async move { tunnel.flow(local, Purpose::Engine(None)).await });
                }
                Some((local, purpose)) = of_ports.recv() => {
                    let tunnel = self.clone();
                    flows.spawn(async move { tunnel.flow(local, purpose).await });
                }
                // Ended tasks are let go as they end. A panic in one ends that flow alone.
                Some(joined) = flows.join_next() => if let Err(e) = joined {
                    tracing::error!("a flow ended badly: {e}");
                }
            }
        }
    }

    async fn flow(self: Arc<Self>, local: LocalStream, purpose: Purpose) {
        self.counters.flow_begins();
        self.demand.notify_one();
        let of_port = match &purpose {
            Purpose::Port { counters, .. } => Some(counters.clone()),
            _ => None,
        };
        of_port.iter().for_each(|counters| counters.flow_begins());
        let guard = self.guard().filter(|_| matches!(purpose, Purpose::Engine(_)));
        let carried = match guard {
            Some(guard) => guard::serve(&self, guard, local).await,
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

    /// A stream to the Engine for ourselves: the other end of a socket whose flow goes the way of all.
    ///
    /// # Errors
    /// Where the system has no more of them.
    pub(in crate::tunnel) fn dial(self: &Arc<Self>, purpose: Purpose) -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let tunnel = self.clone();
        tokio::spawn(async move {
            if let Err(reason) = tunnel.place_and_carry(LocalStream::unix(theirs), purpose).await {
                tracing::debug!("a flow of our own was not opened: {reason}");
            }
        });
        Ok(ours)
    }

    /// The way of a flow.
    fn way(&self, purpose: &Purpose) -> Endpoint {
        match purpose {
            Purpose::Engine(_) | Purpose::Listening => self.endpoint(),
            Purpose::Port { host, port, .. } if self.ports_need_command() => host::to_port(host, *port),
            Purpose::Port { host, port, .. } => Endpoint::Tcp { host: host.clone(), port: *port },
        }
    }

    /// Places a new flow and waits for its end. A connection that is being made again, or that has room for no
    /// more, is waited for; nothing of the client's has been sent before the flow is open, so that a
    /// second try is safe.
    async fn place_and_carry(self: Arc<Self>, mut local: LocalStream, purpose: Purpose) -> Result<End, String> {
        let began = self.target();
        let wait = began.wait;
        let deadline = Instant::now() + wait;
        let mut link = self.link.subscribe();
        let mut waits = None;
        loop {
            let usable = async { link.wait_for(|link| *link != Link::Waiting).await.ok().map(|link| *link) };
            match or_gone(&local, tokio::time::timeout_at(deadline, usable)).await? {
                Ok(Some(Link::Connected)) => {}
                Ok(_) => return refuse(local, "the tunnel has failed".into()),
                Err(_) => return refuse(local, format!("no connection within {}", humantime::format_duration(wait))),
            }
            let mut changes = self.pool.changes();
            let patient = waits.is_none_or(|since: Instant| since.elapsed() < PATIENCE);
            let place = match purpose {
                Purpose::Listening => self.pool.place_listener(patient),
                _ => self.pool.place(patient),
            };
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
            let is_clients = !matches!(purpose, Purpose::Listening);
            if is_clients && !began.ends_as(&lease.member.target) {
                return refuse(local, "it leads elsewhere by now".into());
            }
            if matches!(purpose, Purpose::Engine(None)) && self.guard().is_some() {
                return refuse(local, "there is a guard by now".into());
            }
            let (tunnel, member, going) = (self.clone(), lease.member.clone(), purpose.clone());
            let mut carried = member.worker.run(async move { tunnel.carry(local, lease, &going).await });
            let carried = tokio::select! {
                carried = &mut carried => carried,
                () = tokio::time::sleep(LASTING) => {
                    if !matches!(purpose, Purpose::Listening) {
                        self.pool.flow_lasts();
                    }
                    carried.await
                }
            };
            local = match carried.map_err(|e| e.to_string())? {
                Carried::Ended(end) => return Ok(end),
                Carried::Refused(reason) => {
                    if !matches!(purpose, Purpose::Port { .. }) {
                        self.flows_refused(Some(&reason));
                    }
                    return Err(reason);
                }
                Carried::Prohibited(local) => {
                    self.ports.take_command();
                    local
                }
                Carried::ClientGone => return Ok(End::ClientGone),
                Carried::Elsewhere(local) => local,
                Carried::Crowded(local) => {
                    if Instant::now() >= deadline {
                        return refuse(local, "the server allows no further session".into());
                    }
                    // Nothing tells when a session has really ended there.
                    or_gone(&local, tokio::time::sleep(CROWDED)).await?;
                    local
                }
                // The supervisor learns of it in this moment, too; wait until it has.
                Carried::Lost(local, member) => {
                    while self.pool.contains(&member) {
                        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                            return refuse(local, "the connection was lost".into());
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
            Err(e) => return Carried::Refused(e.to_string()),
        };
        let spare = match purpose {
            Purpose::Engine(_) => lease.member.take_spare().await,
            _ => None,
        };
        let channel = match spare {
            Some(channel) => channel,
            None => {
                let (member, endpoint) = (lease.member.clone(), self.way(purpose));
                let is_command = endpoint.is_command();
                let mut opening = tokio::spawn(async move { member.connection.open(&endpoint).await });
                let opened = tokio::select! {
                    biased;
                    opened = &mut opening => opened,
                    // Nothing was sent yet: it is opened elsewhere.
                    () = lease.member.given_up() => return Carried::Lost(local, lease.member.clone()),
                    () = self.pool.better_is_there(&lease.member) => {
                        tokio::spawn(close_unwanted(opening, lease));
                        return Carried::Elsewhere(local);
                    }
                    Ok(()) = local.gone() => {
                        tokio::spawn(close_unwanted(opening, lease));
                        return Carried::ClientGone;
                    }
                };
                match opened {
                    Ok(Ok(channel)) => channel,
                    // A server lets a connection have so many commands (MaxSessions).
                    Ok(Err(OpenError::Refused { .. })) if is_command => {
                        lease.member.has_refused();
                        return Carried::Crowded(local);
                    }
                    Ok(Err(error))
                        if matches!(purpose, Purpose::Port { .. }) && !is_command && error.is_prohibited() =>
                    {
                        return Carried::Prohibited(local);
                    }
                    Ok(Err(OpenError::Lost)) => return Carried::Lost(local, lease.member.clone()),
                    Ok(Err(error)) => {
                        local.reset();
                        return Carried::Refused(error.to_string());
                    }
                    Err(e) => {
                        local.reset();
                        return Carried::Refused(e.to_string());
                    }
                }
            }
        };
        let of_member = &lease.member.counters;
        let counters = match purpose {
            Purpose::Engine(_) => vec![&self.counters, of_member],
            Purpose::Listening => vec![of_member],
            Purpose::Port { counters, .. } => vec![&self.counters, of_member, counters.as_ref()],
        };
        if !matches!(purpose, Purpose::Port { .. }) {
            self.flows_refused(None);
        }
        let on_behalf = match purpose {
            Purpose::Engine(who) => who.as_ref(),
            _ => None,
        };
        let end = relay::carry(local, channel, &counters, &lease, self.target().spill, on_behalf).await;
        if let End::TooSlow(why) = &end {
            self.flow_reset(why.clone());
        }
        if matches!(purpose, Purpose::Engine(_)) {
            self.prepare_next(lease);
        }
        Carried::Ended(end)
    }

    /// After a flow: where nothing else goes on, the channel for the next one is opened already; a command
    /// on the host is not started before it is wanted.
    fn prepare_next(&self, lease: Lease) {
        let (member, pool, endpoint) = (lease.member.clone(), self.pool.clone(), self.endpoint());
        drop(lease);
        if endpoint.is_command() {
            return;
        }
        tokio::spawn(async move {
            member.open_spare(&endpoint).await;
            pool.spare_opened();
        });
    }

    /// Lets flows finish that are moving bytes, for at most the target's `drain`.
    pub(in crate::tunnel) async fn drain(&self, flows: &mut JoinSet<()>) {
        let deadline = Instant::now() + self.target().drain;
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
