//! The settings of a tunnel that are in force, with the guard that they ask for, and those whose connection is being made.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

use super::error::Error;
use super::guard::Guard;
use crate::config::{Access, Target};
use crate::sync::lock;

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

/// Settings that come into force with their connection: as long as flows go to the host of before, its guard
/// and its name are those that count.
#[derive(Debug, Clone)]
pub(super) struct Next {
    pub(super) target: Arc<Target>,
    guard: Option<Arc<Guard>>,
    /// Who asked for them hears what became of them; of others in their place by its end.
    verdict: mpsc::Sender<Result<(), Error>>,
}

impl Next {
    /// Tells who asked for them that they do not come into force.
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

    /// Those in force.
    pub(super) fn target(&self) -> Arc<Target> {
        self.target.borrow().clone()
    }

    /// Those in force, now and whenever they change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Target>> {
        self.target.subscribe()
    }

    /// What decides on the requests of new clients, if anything does.
    pub(super) fn guard(&self) -> Option<Arc<Guard>> {
        lock(&self.guard).clone()
    }

    /// Those whose connection is being made.
    pub(super) fn next(&self) -> Option<Next> {
        lock(&self.next).clone()
    }

    /// Has these wanted, instead of others that were.
    ///
    /// # Errors
    /// [`Error::Access`]; then nothing has changed.
    pub(super) fn want(&self, target: Target) -> Result<(Next, Reloading), Error> {
        let guard = Guard::of(&target)?;
        let (verdict, reloading) = mpsc::channel(1);
        let next = Next { target: Arc::new(target), guard, verdict };
        *lock(&self.next) = Some(next.clone());
        Ok((next, Reloading(reloading)))
    }

    /// Has a guard hold at once where there was none, or one that lets nothing but looking through: it takes nothing away
    /// that was asked for. Another one is passed over.
    ///
    /// # Errors
    /// [`Error::Access`]; then nothing has changed.
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

    /// Puts these settings into force, unless others have been asked for since. True where they are in force,
    /// or are none and no others are wanted.
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

    /// These settings are no longer waited for. False where others are.
    pub(super) fn give_up(&self, next: &Next) -> bool {
        lock(&self.next).take_if(|wanted| Arc::ptr_eq(&next.target, &wanted.target)).is_some()
    }
}
