//! Published ports: opens the ports that the host's containers publish on this machine's loopback.
//!
//! The Engine's events only trigger a request for its list of containers, so that changes without a connection are not
//! missed. Independent of how flows are carried.

mod consent;
mod looks;
mod mapping;
pub(super) mod measured;
mod opening;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::config::{self, PortsConflict, Remote, Target};
use crate::engine::{self, Changes, Container, Session};
use crate::os::local_stream::LocalStream;
use crate::sync::lock;
use crate::tunnel::dial::{Dial, Purpose};
use crate::tunnel::engine_events::{self, session};
use crate::tunnel::uptime::state::Status;
use consent::Consent;
use looks::Watch;
use mapping::{Clients, Mapping, Wanted};
use opening::open_all;

pub use consent::Agreed;
pub(super) use looks::Looks;
pub use mapping::{PortState, PortStatus};

/// Time limit of an answer from the Engine.
const ANSWER: Duration = Duration::from_secs(10);
/// How often ports that could not be opened are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// After a change the list is requested again after each of these pauses: the Engine reports a container's end before
/// it removes it from its list, some 0.1 s earlier on a quiet host, and more on a busy one.
/// A container with many ports takes longer: some 50 ms for each.
const SETTLING: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(900),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// Limit of ports opened on this machine.
const MOST: usize = 2000;

/// The published ports of a tunnel.
#[derive(Debug)]
pub(super) struct Ports {
    mappings: Mutex<Vec<Mapping>>,
    consent: Mutex<Consent>,
    clients: Clients,
    looks: Arc<Looks>,
}

impl Ports {
    /// Starts without ports. Their clients are sent to `clients`.
    pub(super) fn new(clients: mpsc::Sender<(LocalStream, Purpose)>, looks: Arc<Looks>) -> Self {
        Self { mappings: Mutex::default(), consent: Mutex::default(), clients: Clients::new(clients), looks }
    }

    pub(super) fn status(&self) -> Vec<PortStatus> {
        lock(&self.mappings).iter().map(Mapping::status).collect()
    }

    /// Agrees to ports, which are opened now, and whenever their containers publish them again.
    pub(super) fn agree(&self, agreed: Agreed<'_>, target: &Target) {
        let mut consent = lock(&self.consent);
        let mut mappings = lock(&self.mappings);
        consent.give(agreed, &mappings);
        self.open(&mut mappings, &mut consent, target);
    }

    fn open(&self, mappings: &mut [Mapping], consent: &mut Consent, target: &Target) {
        let asks = target.ports == config::Ports::Ask;
        if asks {
            consent.find_early(mappings);
        } else {
            consent.forget_early();
        }
        open_all(mappings, |mapping| !asks || consent.covers(mapping), target.ports_fallback, &self.clients);
    }

    /// Closes all listeners; open flows continue.
    pub(super) fn close(&self) {
        lock(&self.mappings).clear();
    }

    /// Opens and closes listeners to match `wanted`. Unchanged ones stay open.
    fn apply(&self, wanted: Vec<Wanted>, target: &Target) {
        let mut consent = lock(&self.consent);
        let mut mappings = lock(&self.mappings);
        let wanted: Vec<Wanted> = wanted.into_iter().take(MOST).collect();
        let before = std::mem::take(&mut *mappings);
        // Closed first, to free local ports.
        let stays: HashSet<_> = wanted.iter().map(Wanted::identity).collect();
        let (stay, ended): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|mapping| stays.contains(&mapping.wanted.identity()));
        ended.iter().for_each(Mapping::tell_end);
        drop(ended);
        let mut stay: HashMap<_, _> = stay.into_iter().map(|mapping| (mapping.wanted.identity(), mapping)).collect();
        mappings.extend(wanted.into_iter().map(|wanted| match stay.remove(&wanted.identity()) {
            // The container's name may have changed.
            Some(mapping) => mapping.now(wanted),
            None => Mapping::new(wanted),
        }));
        self.open(&mut mappings, &mut consent, target);
    }

    /// What a local Engine would say of the container with this id; None if it has its ports.
    fn conflict(&self, id: &str) -> Option<String> {
        let mappings = lock(&self.mappings);
        let mut missing = mappings.iter().filter(|mapping| mapping.may_open_later()).map(Mapping::status);
        let status = missing.find(|status| status.container_id == id)?;
        let (container, port) = (status.container, status.remote_port);
        let failed = match status.state {
            PortState::Taken => "port is already allocated",
            _ => "port cannot be opened",
        };
        let why = status.reason.unwrap_or_default();
        Some(format!(
            "driver failed programming external connectivity on endpoint {container}: Bind for port {port} failed: \
             {failed} ({why})"
        ))
    }

    fn is_any_missing(&self) -> bool {
        lock(&self.mappings).iter().any(Mapping::may_open_later)
    }

    /// Tries to open failed ports again. Returns whether there were any.
    fn try_again(&self, target: &Target) -> bool {
        let mut consent = lock(&self.consent);
        let mut mappings = lock(&self.mappings);
        if mappings.iter().any(Mapping::may_open_later) {
            self.open(&mut mappings, &mut consent, target);
        }
        mappings.iter().any(Mapping::may_open_later)
    }
}

/// The parts of a tunnel that the ports use.
pub(super) struct Source {
    /// The tunnel's settings.
    pub(super) settings: watch::Receiver<Arc<Target>>,
    /// The tunnel's status, which shows whether there is a connection.
    pub(super) status: watch::Receiver<Status>,
    /// Opens flows to the Engine.
    pub(super) dial: Arc<dyn Dial>,
}

/// Keeps the published ports open while the settings request them. Never returns.
pub(super) async fn keep(ports: &Ports, mut source: Source) {
    let _released = ReleasedAtTheEnd(&ports.looks);
    loop {
        let target = source.settings.borrow_and_update().clone();
        if target.ports == config::Ports::Off {
            ports.close();
            ports.looks.release();
            let _ = source.settings.changed().await;
            continue;
        }
        tokio::select! {
            () = follow(ports, source.status.clone(), &source.dial, &target) => {}
            () = others(&mut source.settings, &target) => {}
        }
    }
}

struct ReleasedAtTheEnd<'a>(&'a Looks);

impl Drop for ReleasedAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Waits until the settings are others, as far as ports depend on them.
async fn others(settings: &mut watch::Receiver<Arc<Target>>, before: &Target) {
    let of_ports =
        |target: &Target| (target.ports.clone(), target.ports_fallback, target.ports_conflict, target.ports_address);
    while settings.changed().await.is_ok() {
        let now = settings.borrow_and_update();
        if of_ports(&now) != of_ports(before) || !now.leads_as(before) {
            // It is read again.
            drop(now);
            return;
        }
    }
    std::future::pending().await
}

/// Follows the Engine's events. Never returns.
async fn follow(ports: &Ports, status: watch::Receiver<Status>, dial: &Arc<dyn Dial>, target: &Target) {
    let listening = async || {
        let mut watch = ports.looks.watch(target.ports_conflict == PortsConflict::Refuse);
        let listened = listen(ports, dial, target, &mut watch).await;
        if listened.is_err() {
            watch.failed();
        }
        listened
    };
    engine_events::follow(status, listening).await;
}

/// Lists the published ports at each change, until the stream of events is cut.
async fn listen(
    ports: &Ports,
    dial: &Arc<dyn Dial>,
    target: &Target,
    watch: &mut Watch<'_>,
) -> Result<(), engine::Error> {
    // Events first: no change during the list request is missed.
    let mut changes = changes(dial).await?;
    let mut session = session(dial).await?;
    // Engines that are none of Docker's may not say.
    let manages_swarm = session.manages_swarm(ANSWER).await.unwrap_or_default();
    let mut session = Some(session);
    // Something may just have changed, and its event is missed.
    let mut settling: &[Duration] = &SETTLING;
    loop {
        let look = watch.begins();
        let containers = list(dial, &mut session, manages_swarm).await?;
        ports.apply(wanted(&containers, target), target);
        for name in watch.starting() {
            if !ports.is_any_missing() {
                break;
            }
            // The Engine alone knows which container a client means: a name can be the beginning of another's id.
            let mut session = engine_events::session(dial).await?;
            let Some(id) = session.container_id(&name, ANSWER).await? else { continue };
            let Some(why) = ports.conflict(&id) else { continue };
            tracing::warn!("stopping container {name} again: {why}");
            session.stop(&id, ANSWER).await?;
            watch.refuse(&name, &why);
        }
        watch.done(look);
        let retrying = async {
            while ports.try_again(target) {
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
            () = watch.wanted() => {}
            () = retrying => {}
        }
    }
}

async fn changes(dial: &Arc<dyn Dial>) -> Result<Changes, engine::Error> {
    session(dial).await?.changes(ANSWER).await
}

/// Lists the running containers, and the services of the swarm, over the previous request's connection if it is still
/// open.
async fn list(
    dial: &Arc<dyn Dial>,
    kept: &mut Option<Session>,
    manages_swarm: bool,
) -> Result<Vec<Container>, engine::Error> {
    if let Some(mut session) = kept.take().filter(|session| !session.is_closed())
        && let Ok(containers) = ask_for_list(&mut session, manages_swarm).await
    {
        *kept = Some(session);
        return Ok(containers);
    }
    let mut session = session(dial).await?;
    let containers = ask_for_list(&mut session, manages_swarm).await?;
    *kept = Some(session);
    Ok(containers)
}

async fn ask_for_list(session: &mut Session, manages_swarm: bool) -> Result<Vec<Container>, engine::Error> {
    let mut all = session.containers(ANSWER).await?;
    if manages_swarm {
        // It may manage none any more.
        all.extend(session.services(ANSWER).await.unwrap_or_default());
    }
    Ok(all)
}

/// The wanted ports, grouped by container. A local address leads to one address of the host.
fn wanted(containers: &[Container], target: &Target) -> Vec<Wanted> {
    // Ports are published by the Engine's host, which may differ from the SSH host.
    let host = match &target.remote {
        Remote::Tcp { host, .. } => Some(host.as_str()),
        _ => None,
    };
    let mut all: Vec<Wanted> = Vec::new();
    let (mut known, mut places) = (HashSet::new(), HashMap::new());
    for container in containers {
        if container.host_network {
            all.push(Wanted::host_network(container));
        }
        for published in &container.published {
            let wanted = Wanted::new(container, published, host, target.ports_address);
            if !target.ports.take_in(&container.name, published.port) || !known.insert(wanted.identity()) {
                continue;
            }
            match wanted.place().map(|place| *places.entry(place).or_insert(all.len())) {
                Some(place) if place < all.len() => {
                    if wanted.rank() < all[place].rank() {
                        all[place] = wanted;
                    }
                }
                _ => all.push(wanted),
            }
        }
    }
    all
}
