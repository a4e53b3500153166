//! Keeps what containers mount in step, for as long as the tunnel's settings have directories mounted.
//!
//! The Engine's events only trigger a request for its list of containers, as with published ports.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::ground::containers;
use super::known::Records;
use super::login::Login;
use super::service::Mounts;
use crate::config::{self, Target};
use crate::engine::{self, Changes};
use crate::tunnel::dial::Dial;
use crate::tunnel::engine_events::{self, session};
use crate::tunnel::uptime::state::Status;

/// Time limit of an answer from the Engine.
const ANSWER: Duration = Duration::from_secs(10);
/// How often mirrors are looked for that nothing uses any more.
const LOOK: Duration = Duration::from_secs(60);

/// The parts of a tunnel that mounts use.
pub(in crate::tunnel) struct Parts {
    /// The tunnel's settings.
    pub(in crate::tunnel) settings: watch::Receiver<Arc<Target>>,
    /// The tunnel's status, which shows whether there is a connection.
    pub(in crate::tunnel) status: watch::Receiver<Status>,
    /// Opens flows to the Engine and its host.
    pub(in crate::tunnel) dial: Arc<dyn Dial>,
}

/// Keeps what containers mount in step while the settings have directories mounted. Never returns.
pub(in crate::tunnel) async fn keep(mounts: &Mounts, mut parts: Parts) {
    let of_mounts = |target: &Target| target.mounts.clone();
    loop {
        let target = parts.settings.borrow_and_update().clone();
        let Some(settings) = of_mounts(&target) else {
            let _ = parts.settings.changed().await;
            continue;
        };
        let mut later = parts.settings.clone();
        let others = later.wait_for(|now| of_mounts(now) != of_mounts(&target) || !now.leads_as(&target));
        tokio::select! {
            () = keep_in_step(mounts, &parts, &settings) => {}
            _ = others => {}
        }
        mounts.forget();
    }
}

/// Keeps the entries in step. Never returns.
async fn keep_in_step(mounts: &Mounts, parts: &Parts, settings: &config::Mounts) {
    mounts.ground.set(Some(Login::new(parts.dial.clone())));
    mounts.is_searching.send_replace(!Records::of(settings).all().is_empty());
    let mut taken = mounts.taken.lock().await;
    // Ends them, too.
    let mut keeping = JoinSet::new();
    let following = follow(mounts, parts.status.clone(), &parts.dial, settings);
    let mut following = std::pin::pin!(following);
    loop {
        tokio::select! {
            () = &mut following => {}
            Some(entry) = taken.recv() => {
                let (login, journal) = (Login::new(parts.dial.clone()), Records::of(settings).journal(&entry.known.id));
                keeping.spawn(entry.keep(login, journal));
            }
            Some(ended) = keeping.join_next() => if let Err(e) = ended {
                tracing::error!("a mounted directory is not kept in step any more: {e}");
            }
        }
    }
}

/// Follows the Engine's events, once there is a mirror. Never returns.
async fn follow(mounts: &Mounts, status: watch::Receiver<Status>, dial: &Arc<dyn Dial>, settings: &config::Mounts) {
    let mut are_there = mounts.are_there.subscribe();
    if Records::of(settings).all().is_empty() && are_there.wait_for(|are_there| *are_there).await.is_err() {
        return std::future::pending().await;
    }
    engine_events::follow(status, async || listen(mounts, dial, settings).await).await;
}

/// Lists all containers at each change, until the stream of events is cut.
async fn listen(mounts: &Mounts, dial: &Arc<dyn Dial>, settings: &config::Mounts) -> Result<(), engine::Error> {
    // Events first: no change during the list request is missed.
    let mut changes: Changes = session(dial).await?.changes_of_all(ANSWER).await?;
    loop {
        let containers = containers(dial).await?;
        mounts.open_known(&containers, settings);
        mounts.listed(containers);
        loop {
            mounts.drop_unused(settings);
            if let Ok(changed) = tokio::time::timeout(LOOK, changes.next()).await {
                break changed?;
            }
        }
    }
}
