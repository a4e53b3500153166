//! Local clients: accepted, placed on a connection, carried there, waited for at the end.
//!
//! Accepting and placing is the supervisor's thread's; a placed flow runs on the thread of its
//! connection, and comes back only to be placed elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::flow::{self, End};
use super::listener::Listener;
use super::local::LocalStream;
use super::pool::{Lease, Member};
use super::supervisor::{Link, Tunnel};
use crate::ssh::{Channel, OpenError};

/// A flow that has gone on for so long makes room for those that come after it. Most requests are
/// answered sooner.
const LASTING: Duration = Duration::from_millis(250);
/// Flows on which nothing has moved for so long are not waited for at the end.
const QUIET: Duration = Duration::from_millis(300);
/// How often the end looks whether flows have moved.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// What became of a flow on the connection where it was placed.
enum Carried {
    /// It is over.
    Ended(End),
    /// It was not opened, for this reason; the client has been told.
    Refused(String),
    /// The client went away before it was opened.
    ClientGone,
    /// That connection was held up before the flow was opened.
    HeldUp(LocalStream),
    /// That connection was lost before the flow was opened.
    Lost(LocalStream, Arc<Member>),
}

impl Tunnel {
    /// Accepts clients, each served by a task of `flows`. Never ends.
    pub(super) async fn serve(self: &Arc<Self>, listener: &Listener, flows: &mut JoinSet<()>) {
        loop {
            tokio::select! {
                local = listener.accept() => {
                    let tunnel = self.clone();
                    flows.spawn(async move { tunnel.flow(local).await });
                }
                // Ended tasks are let go as they end. A panic in one ends that flow alone.
                Some(joined) = flows.join_next() => if let Err(e) = joined {
                    tracing::error!("a flow ended badly: {e}");
                }
            }
        }
    }

    async fn flow(self: Arc<Self>, local: LocalStream) {
        self.counters.flow_begins();
        self.demand.notify_one();
        let end = self.clone().place_and_carry(local).await.unwrap_or_else(|reason| {
            tracing::warn!("a flow was not opened: {reason}");
            End::Cut
        });
        self.counters.flow_ends(end == End::Cut);
        tracing::debug!("a flow ended: {end:?}");
    }

    /// Places a new flow and waits for its end. A connection that is being made again or held up is
    /// waited for; nothing of the client's has been sent before the flow is open, so that a second
    /// try is safe.
    async fn place_and_carry(self: Arc<Self>, mut local: LocalStream) -> Result<End, String> {
        let wait = self.target().wait;
        let deadline = Instant::now() + wait;
        let mut link = self.link.subscribe();
        loop {
            let usable = async { link.wait_for(|link| *link != Link::Waiting).await.ok().map(|link| *link) };
            match or_gone(&local, tokio::time::timeout_at(deadline, usable)).await? {
                Ok(Some(Link::Connected)) => {}
                Ok(_) => return refuse(local, "the tunnel has failed".into()),
                Err(_) => return refuse(local, format!("no connection within {}", humantime::format_duration(wait))),
            }
            let mut changes = self.pool.changes();
            let Some(lease) = self.pool.place() else {
                if or_gone(&local, tokio::time::timeout_at(deadline, changes.changed())).await?.is_err() {
                    return refuse(local, "every connection is held up by a client that does not read".into());
                }
                continue;
            };
            let (tunnel, member) = (self.clone(), lease.member.clone());
            let mut carried = member.worker.run(async move { tunnel.carry(local, lease).await });
            let carried = tokio::select! {
                carried = &mut carried => carried,
                () = tokio::time::sleep(LASTING) => {
                    self.pool.flow_lasts();
                    carried.await
                }
            };
            local = match carried.map_err(|e| e.to_string())? {
                Carried::Ended(end) => return Ok(end),
                Carried::Refused(reason) => {
                    self.flows_refused(Some(&reason));
                    return Err(reason);
                }
                Carried::ClientGone => return Ok(End::ClientGone),
                Carried::HeldUp(local) => local,
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
    async fn carry(&self, local: LocalStream, lease: Lease) -> Carried {
        let local = match local.move_here() {
            Ok(local) => local,
            Err(e) => return Carried::Refused(e.to_string()),
        };
        let channel = match lease.member.take_spare().await {
            Some(channel) => channel,
            None => {
                let (member, endpoint) = (lease.member.clone(), self.endpoint());
                let is_command = endpoint.is_command();
                let mut opening = tokio::spawn(async move { member.connection.open(&endpoint).await });
                let opened = tokio::select! {
                    biased;
                    opened = &mut opening => opened,
                    // Another flow has just stopped this connection: this one goes elsewhere.
                    () = lease.member.held_up() => {
                        tokio::spawn(close_unwanted(opening, lease));
                        return Carried::HeldUp(local);
                    }
                    Ok(()) = local.gone() => {
                        tokio::spawn(close_unwanted(opening, lease));
                        return Carried::ClientGone;
                    }
                };
                match opened {
                    Ok(Ok(channel)) => channel,
                    // A server lets a connection have so many commands (MaxSessions).
                    Ok(Err(_)) if is_command && lease.member.has_refused() => {
                        return Carried::HeldUp(local);
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
        self.flows_refused(None);
        let counters = [&self.counters, &lease.member.counters];
        let end = flow::carry(local, channel, &counters, &lease).await;
        self.prepare_next(lease);
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
    pub(super) async fn drain(&self, flows: &mut JoinSet<()>) {
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
        flow::let_go(channel).await;
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
