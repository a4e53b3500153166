//! Published ports: what containers on the host publish is to be had on this machine, at the same port.
//!
//! The Engine's events say that something has changed; what there is then is asked for. So nothing that
//! was missed while there was no connection can be left out. Knows nothing of how flows are carried.

mod mapping;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::config::{self, Remote, Target};
use crate::engine::{self, Changes, Container, Session};
use crate::sync::lock;
use crate::tunnel::client::stream::LocalStream;
use crate::tunnel::dispatch::Purpose;
use crate::tunnel::uptime::supervisor::{Link, Tunnel};
use mapping::{Mapping, Wanted};

pub use mapping::{PortState, PortStatus};

/// Longest wait for an answer of the Engine's.
const ANSWER: Duration = Duration::from_secs(10);
/// Pauses before the Engine's events are asked for again: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often ports that were taken are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// After a change it is asked again, after each of these: the Engine tells that a container has ended before it takes it
/// off its list, some 0.1 s on a quiet host, and longer on a busy one.
const SETTLING: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(900), Duration::from_secs(4)];
/// Most ports that are brought here.
const MOST: usize = 2000;

/// The published ports of one tunnel.
#[derive(Debug)]
pub(super) struct Ports {
    mappings: Mutex<Vec<Mapping>>,
    /// Ports that somebody has agreed to.
    agreed: Mutex<BTreeSet<u16>>,
    /// The server does not forward to ports, but runs commands.
    by_command: AtomicBool,
    clients: mpsc::Sender<(LocalStream, Purpose)>,
    accepted: Mutex<Option<mpsc::Receiver<(LocalStream, Purpose)>>>,
}

impl Default for Ports {
    fn default() -> Self {
        let (clients, accepted) = mpsc::channel(16);
        Self {
            mappings: Mutex::default(),
            agreed: Mutex::default(),
            by_command: AtomicBool::new(false),
            clients,
            accepted: Mutex::new(Some(accepted)),
        }
    }
}

impl Ports {
    /// The clients of all ports; to be taken once.
    pub(super) fn clients(&self) -> mpsc::Receiver<(LocalStream, Purpose)> {
        let taken = lock(&self.accepted).take();
        taken.unwrap_or_else(|| mpsc::channel(1).1)
    }

    pub(super) fn status(&self) -> Vec<PortStatus> {
        lock(&self.mappings).iter().map(Mapping::status).collect()
    }

    /// Opens what somebody agrees to, now and whenever it is published anew.
    pub(super) fn agree(&self, ports: Option<&[u16]>, target: &Target) {
        let mut agreed = lock(&self.agreed);
        agreed.extend(ports.unwrap_or_default());
        for mapping in lock(&self.mappings).iter_mut().filter(|mapping| mapping.is_waiting()) {
            let port = mapping.wanted.remote_port();
            if ports.is_none() {
                agreed.insert(port);
            }
            mapping.open(agreed.contains(&port), target.ports_fallback, &self.clients);
        }
    }

    pub(super) fn needs_command(&self) -> bool {
        self.by_command.load(Relaxed)
    }

    pub(super) fn take_command(&self) {
        if !self.by_command.swap(true, Relaxed) {
            tracing::info!("the server does not forward to ports; their flows go through a command on the host");
        }
    }

    /// No new clients.
    pub(super) fn close(&self) {
        lock(&self.mappings).clear();
    }

    /// Brings what is here in line with what is wanted. What stays, stays open.
    fn apply(&self, wanted: Vec<Wanted>, target: &Target) {
        let agreed = lock(&self.agreed);
        let mut mappings = lock(&self.mappings);
        let mut before = std::mem::take(&mut *mappings);
        // Those that go make room first.
        before.retain(|mapping| {
            let stays = wanted.iter().any(|wanted| wanted.is_same_port(&mapping.wanted));
            if !stays {
                mapping.tell_end();
            }
            stays
        });
        for wanted in wanted.into_iter().take(MOST) {
            match before.iter().position(|mapping| wanted.is_same_port(&mapping.wanted)) {
                // The container may have another name by now.
                Some(at) => mappings.push(before.swap_remove(at).now(wanted)),
                None => mappings.push(Mapping::new(wanted)),
            }
        }
        for mapping in mappings.iter_mut() {
            let may = target.ports != config::Ports::Ask || agreed.contains(&mapping.wanted.remote_port());
            mapping.open(may, target.ports_fallback, &self.clients);
        }
    }

    /// Tries those again that could not be opened. False where there are none.
    fn try_again(&self, target: &Target) -> bool {
        let mut mappings = lock(&self.mappings);
        let mut failed = false;
        for mapping in mappings.iter_mut().filter(|mapping| mapping.may_open_later()) {
            mapping.open(true, target.ports_fallback, &self.clients);
            failed |= mapping.may_open_later();
        }
        failed
    }
}

/// Keeps the published ports of a tunnel here, as long as its settings want it. Never ends.
pub(super) async fn keep(tunnel: &Arc<Tunnel>) {
    let mut settings = tunnel.settings();
    loop {
        let target = settings.borrow_and_update().clone();
        if target.ports == config::Ports::Off {
            tunnel.ports.close();
            let _ = settings.changed().await;
            continue;
        }
        tokio::select! {
            () = follow(tunnel, &target) => {}
            _ = settings.changed() => {}
        }
    }
}

/// Follows the Engine's events over whatever connection there is. Never ends.
async fn follow(tunnel: &Arc<Tunnel>, target: &Target) {
    let mut link = tunnel.link.subscribe();
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        if link.wait_for(|link| *link == Link::Connected).await.is_err() {
            return std::future::pending().await;
        }
        let begun = tokio::time::Instant::now();
        if let Err(error) = listen(tunnel, target).await {
            tracing::debug!("the Engine's events have ended: {error}");
        }
        // One that has lasted says nothing of the next one.
        if begun.elapsed() > LONGEST_PAUSE {
            pauses.reset();
        }
        let cut_off = link.wait_for(|link| *link != Link::Connected);
        let _ = tokio::time::timeout(pauses.pause(), cut_off).await;
    }
}

/// Asks what is published, and again at each change, until the stream of events is cut.
async fn listen(tunnel: &Arc<Tunnel>, target: &Target) -> Result<(), engine::Error> {
    // Events first: what changes while the list is on its way is not missed.
    let mut changes = changes(tunnel).await?;
    let mut session = None;
    let mut settling: &[Duration] = &[];
    loop {
        let containers = list(tunnel, &mut session).await?;
        tunnel.ports.apply(wanted(&containers, target), target);
        let retrying = async {
            while tunnel.ports.try_again(target) {
                tokio::time::sleep(TRY_AGAIN).await;
            }
            std::future::pending::<()>().await
        };
        let pause = settling.first().copied();
        tokio::select! {
            changed = changes.next() => {
                changed?;
                settling = &SETTLING;
            }
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => settling = &settling[1..],
            () = retrying => {}
        }
    }
}

async fn changes(tunnel: &Arc<Tunnel>) -> Result<Changes, engine::Error> {
    session(tunnel).await?.changes(ANSWER).await
}

async fn session(tunnel: &Arc<Tunnel>) -> Result<Session, engine::Error> {
    let stream = tunnel.dial(Purpose::Listening).map_err(|e| engine::Error::Body(e.to_string()))?;
    Session::over(stream).await
}

/// The containers that run, over the connection of the last question where it still serves.
async fn list(tunnel: &Arc<Tunnel>, kept: &mut Option<Session>) -> Result<Vec<Container>, engine::Error> {
    if let Some(mut session) = kept.take().filter(|session| !session.is_closed())
        && let Ok(containers) = session.containers(ANSWER).await
    {
        *kept = Some(session);
        return Ok(containers);
    }
    let mut session = session(tunnel).await?;
    let containers = session.containers(ANSWER).await?;
    *kept = Some(session);
    Ok(containers)
}

/// What is to be here, each once; one container's ports after the other's.
fn wanted(containers: &[Container], target: &Target) -> Vec<Wanted> {
    // Ports are published by the Engine's host, which need not be the one that SSH goes to.
    let host = match &target.remote {
        Remote::Tcp { host, .. } => Some(host.as_str()),
        _ => None,
    };
    let mut all = Vec::new();
    for container in containers {
        if container.host_network {
            all.push(Wanted::host_network(container));
        }
        for published in &container.published {
            let taken_in = target.ports.take_in(&container.name, published.port);
            let wanted = Wanted::new(container, published, host, target.ports_address);
            if taken_in && !all.contains(&wanted) {
                all.push(wanted);
            }
        }
    }
    all
}
