//! A tunnel's settings in force, with their guard, and the next settings, which wait for their connection.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

use super::error::Error;
use super::guard::Guard;
use crate::config::{Access, Target};
use crate::sync::lock;

/// The outcome of a reload.
#[derive(Debug)]
pub struct Reloading(mpsc::Receiver<Result<(), Error>>);

impl Reloading {
    /// Waits until the settings are in force. None if a later reload replaced them.
    ///
    /// # Errors
    /// Why their connection failed; the old settings stay in force.
    pub async fn settled(mut self) -> Option<Result<(), Error>> {
        self.0.recv().await
    }
}

/// Settings that come into force with their connection: until then flows go to the old host, under its guard and name.
#[derive(Debug, Clone)]
pub(super) struct Next {
    pub(super) target: Arc<Target>,
    guard: Option<Arc<Guard>>,
    /// Reports the outcome to the caller of the reload; dropped if a later reload replaces it.
    verdict: mpsc::Sender<Result<(), Error>>,
}

impl Next {
    /// Reports to the caller of the reload that the settings do not come into force.
    pub(super) fn failed(&self, error: Error) {
        let _ = self.verdict.try_send(Err(error));
    }
}

/// The settings of one tunnel.
#[derive(Debug)]
pub(super) struct Settings {
    target: watch::Sender<Arc<Target>>,
    guard: Mutex<Option<Arc<Guard>>>,
    next: Mutex<Option<Next>>,
}

impl Settings {
    /// # Errors
    /// [`Error::Access`].
    pub(super) fn new(target: Target) -> Result<Self, Error> {
        let guard = Guard::of(&target)?;
        Ok(Self { target: watch::Sender::new(Arc::new(target)), guard: Mutex::new(guard), next: Mutex::default() })
    }

    /// The settings in force.
    pub(super) fn target(&self) -> Arc<Target> {
        self.target.borrow().clone()
    }

    /// The settings in force and their changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Target>> {
        self.target.subscribe()
    }

    /// The guard for new clients, if any.
    pub(super) fn guard(&self) -> Option<Arc<Guard>> {
        lock(&self.guard).clone()
    }

    /// The next settings, which wait for their connection.
    pub(super) fn next(&self) -> Option<Next> {
        lock(&self.next).clone()
    }

    /// Makes these the next settings, in place of earlier ones.
    ///
    /// # Errors
    /// [`Error::Access`]; the settings are then unchanged.
    pub(super) fn want(&self, target: Target) -> Result<(Next, Reloading), Error> {
        let guard = Guard::of(&target)?;
        let (verdict, reloading) = mpsc::channel(1);
        let next = Next { target: Arc::new(target), guard, verdict };
        *lock(&self.next) = Some(next.clone());
        Ok((next, Reloading(reloading)))
    }

    /// Puts a guard into force at once if there was none, or if the new one is read-only.
    /// Other guards are ignored here.
    ///
    /// # Errors
    /// [`Error::Access`]; the settings are then unchanged.
    pub(super) fn narrow(&self, access: &Access) -> Result<(), Error> {
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

    /// Puts `next` into force unless a later reload replaced it. Returns whether no other settings are wanted.
    pub(super) fn take_on(&self, next: Option<&Next>) -> bool {
        let Some(next) = next else { return lock(&self.next).is_none() };
        if !self.give_up(next) {
            return false;
        }
        *lock(&self.guard) = next.guard.clone();
        self.target.send_replace(next.target.clone());
        let _ = next.verdict.try_send(Ok(()));
        true
    }

    /// Drops `next`. False if a later reload has replaced it.
    pub(super) fn give_up(&self, next: &Next) -> bool {
        lock(&self.next).take_if(|wanted| Arc::ptr_eq(&next.target, &wanted.target)).is_some()
    }
}
