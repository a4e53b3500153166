//! What others ask of a tunnel, and what they tell it: status, settings, requests, ports. Knows nothing of
//! how it is kept up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::counters::Snapshot;
use super::error::Error;
use super::guard::{Guard, RequestStatus};
use super::ports::PortStatus;
use crate::config::{self, Access, Target};
use crate::sync::lock;
use crate::tunnel::pool::member::ConnectionStatus;
use crate::tunnel::uptime::supervisor::{Next, State, Status, Tunnel};

/// Longest wait for the answer when a connection's round-trip time is measured.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of settings that were asked for.
#[derive(Debug)]
pub struct Reloading(mpsc::Receiver<Result<(), Error>>);

impl Reloading {
    /// Waits until they are in force. None: others are wanted instead.
    ///
    /// # Errors
    /// Why their connection could not be made; what was before is in force.
    pub async fn settled(mut self) -> Option<Result<(), Error>> {
        self.0.recv().await
    }
}

impl Tunnel {
    /// What it goes to.
    pub fn target(&self) -> Arc<Target> {
        self.target.borrow().clone()
    }

    /// Its status, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Its counters.
    pub fn counters(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// Its SSH connections. Their round-trip times are measured anew for the next one who asks.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        let status = self.pool.status();
        for member in self.pool.members() {
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PING_TIMEOUT, member.measure()).await;
            });
        }
        status
    }

    /// Somebody wants it up now: does not wait for the next attempt, and tries again even after a
    /// failure.
    pub fn retry_now(&self) {
        self.retry.notify_one();
    }

    /// Somebody wants a new connection. Flows that are under way stay on the old one to their end.
    pub fn renew(&self) {
        match self.status.borrow().state {
            State::Up => self.reloaded.notify_one(),
            _ => self.retry.notify_one(),
        }
    }

    /// Goes on with other settings. Where they lead to another host, login or Engine, a new connection
    /// is made first, and they come into force with it, all of them; where it cannot be made, none. Only a guard where
    /// there was none, or that lets nothing but looking through, holds at once: it is asked for, and takes nothing away
    /// that was asked for. Flows that are under way stay on the old connections to their end. The local endpoint stays
    /// as it is. Clients that are connected go on under the guard that they began with.
    ///
    /// # Errors
    /// [`Error::Access`]; then nothing has changed.
    pub fn reload(&self, target: Target) -> Result<Reloading, Error> {
        let guard = Guard::of(&target)?;
        let before = self.target();
        let same = before.leads_as(&target);
        let (verdict, reloading) = mpsc::channel(1);
        let next = Next { target: Arc::new(target), guard, verdict };
        *lock(&self.next) = Some(next.clone());
        if same || self.pool.is_empty() {
            self.takes_on(Some(&next));
        } else {
            self.narrow(&next.target.access)?;
        }
        if !same {
            // What was met on the way to the host of before says nothing of the next one.
            self.status.send_modify(|status| (status.last_error, status.class) = (None, None));
            self.reloaded.notify_one();
        }
        Ok(Reloading(reloading))
    }

    /// Has a guard hold at once where there was none, or one that lets nothing but looking through: it takes nothing away
    /// that was asked for. Another one is passed over.
    ///
    /// # Errors
    /// [`Error::Access`]; then nothing has changed.
    pub fn narrow(&self, access: &Access) -> Result<(), Error> {
        let before = self.target();
        if !access.is_limited() || before.access == *access || (before.access.is_limited() && !access.only_looks()) {
            return Ok(());
        }
        let mut narrowed = (*before).clone();
        narrowed.access = access.clone();
        *lock(&self.guard) = Guard::of(&narrowed)?;
        self.target.send_replace(Arc::new(narrowed));
        Ok(())
    }

    /// The settings whose connection is being made.
    pub(super) fn next(&self) -> Option<Next> {
        lock(&self.next).clone()
    }

    /// Puts these settings into force, unless others have been asked for since. True where they are in force,
    /// or are none and no others are wanted.
    pub(super) fn takes_on(&self, next: Option<&Next>) -> bool {
        let Some(next) = next else { return lock(&self.next).is_none() };
        if !self.gives_up(Some(next)) {
            return false;
        }
        *lock(&self.guard) = next.guard.clone();
        self.pool.set_max(next.target.max_connections);
        self.target.send_replace(next.target.clone());
        let _ = next.verdict.try_send(Ok(()));
        true
    }

    /// These settings are no longer waited for. False where others are.
    pub(super) fn gives_up(&self, next: Option<&Next>) -> bool {
        let mut wanted = lock(&self.next);
        let is_it = next.zip(wanted.as_ref()).is_some_and(|(next, wanted)| Arc::ptr_eq(&next.target, &wanted.target));
        if is_it {
            *wanted = None;
        }
        is_it
    }

    /// What decides on the requests of new clients, if anything does.
    pub(super) fn guard(&self) -> Option<Arc<Guard>> {
        lock(&self.guard).clone()
    }

    /// What clients may ask, in a few words; None where they may ask everything.
    pub fn access(&self) -> Option<String> {
        self.guard().map(|guard| guard.label().to_owned())
    }

    /// The requests that are being answered, as far as a guard sees them.
    pub fn requests(&self) -> Vec<RequestStatus> {
        self.guard().map(|guard| guard.requests()).unwrap_or_default()
    }

    /// What is published on the host, and what of it is here; None where nothing is to be here.
    pub fn ports(&self) -> Option<Vec<PortStatus>> {
        (self.target().ports != config::Ports::Off).then(|| self.ports.status())
    }

    /// Somebody agrees to these ports, or with None to all that wait for it.
    pub fn agree_to_ports(&self, ports: Option<&[u16]>) {
        self.ports.agree(ports, &self.target());
    }

    /// Waits until its settings are changed.
    pub(super) fn settings(&self) -> watch::Receiver<Arc<Target>> {
        self.target.subscribe()
    }

    /// Is what carries the Engine's flows a command, because the server forwards nothing?
    pub(super) fn ports_need_command(&self) -> bool {
        self.ports.needs_command() || self.endpoint().is_command()
    }
}
