//! Places flows on connections, and carries each there to its end.
//!
//! A flow is accepted and placed on the tunnel's thread; it is carried on its connection's thread, and comes back only to
//! be placed elsewhere.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api::Exchange;
use super::counters::Counters;
use super::dial::{Kind, Leads, Purpose};
use super::flow::carriage::{Carriage, End, Left, Outcome};
use super::flow::hang_up;
use super::flow::relay;
use super::follow_up::FollowUp;
use super::pool::connection::{Carrier, PooledConnection};
use super::pool::{Lease, Pool};
use super::settings::Settings;
use super::uptime::commands::{Command, Commands};
use super::uptime::state::{Availability, Publisher, settled};
use crate::config::Target;
use crate::host;
use crate::os::local_stream::LocalStream;
use crate::ssh::{Channel, Endpoint, OpenError};
use crate::sync::lock;

/// The subsystem's name (draft-ietf-secsh-filexfer-02, section 2).
const SFTP: &str = "sftp";
/// After this time a flow asks for a further connection for later flows. Most requests are answered sooner.
const LASTING: Duration = Duration::from_millis(250);
/// How long a flow waits for a further connection where all others have stalled clients.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a short request waits for a connection without a stream on it. It is served beside one, too; only the stream's
/// client may then need more room, if it does not keep up.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);
/// Pause before a server that refused a command is asked again.
const CROWDED: Duration = Duration::from_millis(100);
/// How long an Engine that has taken a flow may refuse the next ones for its backlog alone (listen(2)).
const BUSY: Duration = Duration::from_secs(5);
/// Pauses before an Engine with a full backlog is asked again, in milliseconds.
const BUSY_PAUSES: [u64; 4] = [50, 100, 200, 400];

/// The outcome of a flow on its connection.
enum Carried {
    /// It is over.
    Ended(End),
    /// Its thread could not take it.
    Failed(std::io::Error),
    /// The channel was not opened, and no byte of the client was sent.
    Unopened(LocalStream, Unopened),
    /// Its client is between requests, or its next one goes elsewhere.
    Free(LocalStream),
}

/// What became of what was to be placed.
pub(super) enum Placed {
    /// Its client's connection is over.
    Ended(End),
    /// Its client's connection goes on, and is bound to no channel.
    Free(LocalStream),
    /// It has no place, for this reason, of which a client under a guard is told.
    Refused(LocalStream, String),
}

/// What a flow is placed with.
pub(super) struct Placing {
    pub(super) purpose: Purpose,
    /// The settings that its client came to.
    pub(super) began: Arc<Target>,
    /// Its requests, where they are read along.
    pub(super) exchange: Option<Arc<Exchange>>,
}

/// The search for a flow's place so far.
struct Search {
    /// Time limit of the whole of it, and when that is over.
    wait: Duration,
    deadline: Instant,
    /// Since when there is no room.
    waits: Option<Instant>,
    /// The pauses that are left before a busy Engine is given up, in milliseconds.
    pauses: &'static [u64],
}

impl Search {
    fn new(wait: Duration) -> Self {
        Self { wait, deadline: Instant::now() + wait, waits: None, pauses: &BUSY_PAUSES }
    }
}

/// Why a connection has no channel for a flow.
enum Unopened {
    /// The host or the server refused it, with this reason.
    Refused(String),
    /// The Engine refused it, and took others just before. Servers do not tell a full backlog from an Engine that has stopped.
    Busy(String),
    /// The client went away before it was opened.
    ClientGone,
    /// The server allows no further command before another has ended (MaxSessions).
    Crowded,
    /// This connection may be dead, and another one is alive.
    Elsewhere,
    /// The server does not forward to ports; a command on the host can.
    Prohibited,
    /// This connection was lost.
    Lost(Arc<PooledConnection>),
}

/// Where a tunnel's flows are placed.
#[derive(Debug)]
pub(super) struct Placer {
    pub(super) settings: Arc<Settings>,
    pub(super) status: Arc<Publisher>,
    pub(super) pool: Arc<Pool>,
    pub(super) commands: Arc<Commands>,
    pub(super) counters: Arc<Counters>,
    /// The server does not forward to ports, but runs commands.
    pub(super) ports_by_command: AtomicBool,
    /// When the Engine last took a flow.
    pub(super) taken: Mutex<Option<Instant>>,
    /// What answers wait for on this machine.
    pub(super) follow_up: FollowUp,
}

impl Placer {
    /// The endpoint on the host that a flow goes to.
    fn way(&self, purpose: &Purpose) -> Endpoint {
        let to_engine = self.status.endpoint();
        match &purpose.leads {
            Leads::Engine => to_engine,
            // Where the server forwards nothing, commands carry the Engine's flows.
            Leads::Port { host, port } if self.ports_by_command.load(Relaxed) || to_engine.is_command() => {
                host::to_port(host, *port)
            }
            Leads::Port { host, port } => Endpoint::Tcp { host: host.clone(), port: *port },
            Leads::Command(script) => host::own_command(script),
            Leads::Sftp => Endpoint::Subsystem(SFTP),
        }
    }

    /// May a client that came when these settings held ask on? One with a guard keeps it.
    pub(super) fn may_go_on(&self, began: &Arc<Target>, is_guarded: bool) -> bool {
        let now = self.settings.target();
        (is_guarded || self.settings.guard().is_none()) && (Arc::ptr_eq(&now, began) || now.ends_as(began))
    }

    /// Places a flow whose bytes are not looked at, and waits for its end.
    pub(super) async fn place_and_carry(self: Arc<Self>, local: LocalStream, purpose: Purpose) -> Result<End, String> {
        let placing = Placing { purpose, began: self.settings.target(), exchange: None };
        match self.place(local, Arc::new(placing)).await? {
            Placed::Ended(end) => Ok(end),
            // Never: nobody reads along.
            Placed::Free(_) | Placed::Refused(..) => Ok(End::Cut),
        }
    }

    /// Places a flow and waits for its end. A connection that is being made again, or that has room for no
    /// more, is waited for; nothing of the client's has been sent before the flow is open, so that a
    /// second try is safe.
    pub(super) async fn place(
        self: Arc<Self>,
        mut local: LocalStream,
        placing: Arc<Placing>,
    ) -> Result<Placed, String> {
        let mut search = Search::new(self.settings.target().wait);
        loop {
            // On the heap, as what follows an opening in vain: a client's task has no memory for it while it is served.
            let lease = match Box::pin(self.lease(&local, &placing, &mut search)).await? {
                Ok(lease) => lease,
                Err(reason) => return refuse(local, reason, &placing),
            };
            let pooled = lease.pooled.clone();
            let mut carried = pooled.carrier.worker.run(self.clone().carry(local, lease, placing.clone()));
            let carried = tokio::select! {
                carried = &mut carried => carried,
                () = tokio::time::sleep(LASTING) => {
                    if placing.purpose.is_clients {
                        self.pool.flow_lasts();
                    }
                    carried.await
                }
            };
            local = match carried.map_err(|e| e.to_string())? {
                Carried::Ended(end) => return Ok(Placed::Ended(end)),
                Carried::Free(local) => return Ok(Placed::Free(local)),
                Carried::Failed(error) => return Err(error.to_string()),
                Carried::Unopened(_, Unopened::ClientGone) => return Ok(Placed::Ended(End::ClientGone)),
                Carried::Unopened(local, why) => {
                    match Box::pin(self.may_try_again(why, &local, &placing, &mut search)).await? {
                        Ok(()) => local.move_here().map_err(|e| e.to_string())?,
                        Err(reason) => return refuse(local, reason, &placing),
                    }
                }
            };
        }
    }

    /// Waits for a place. The inner error is why there is none.
    async fn lease(
        &self,
        local: &LocalStream,
        placing: &Placing,
        search: &mut Search,
    ) -> Result<Result<Lease, String>, String> {
        let Placing { purpose, began, .. } = placing;
        let patience = if purpose.kind == Kind::Short { SHORT_PATIENCE } else { PATIENCE };
        let mut status = self.status.subscribe();
        loop {
            let _waiting = purpose.is_clients.then(|| self.counters.flow_waits());
            if purpose.is_clients {
                self.commands.send(Command::Use);
            }
            match or_gone(local, tokio::time::timeout_at(search.deadline, settled(&mut status))).await? {
                Ok(Some(Availability::Connected)) => {}
                Ok(_) => return Ok(Err("the tunnel has failed".into())),
                Err(_) => {
                    return Ok(Err(format!("no connection within {}", humantime::format_duration(search.wait))));
                }
            }
            let mut changes = self.pool.changes();
            let patient = search.waits.is_none_or(|since| since.elapsed() < patience);
            let place = match purpose.is_clients {
                true => self.pool.place(purpose.kind, patient),
                false => self.pool.place_listener(patient),
            };
            let Some(lease) = place else {
                let now = Instant::now();
                if now >= search.deadline {
                    return Ok(Err("the server allows no further channel on any connection".into()));
                }
                search.waits.get_or_insert(now);
                let until = search.deadline.min(now + patience);
                let _ = or_gone(local, tokio::time::timeout_at(until, changes.changed())).await?;
                continue;
            };
            // A flow accepted for one host does not go to another, nor one accepted without a guard past a new guard.
            if purpose.is_clients && !began.ends_as(&lease.pooled.carrier.target) {
                return Ok(Err("the tunnel has another target now".into()));
            }
            let is_unguarded = purpose.is_clients_to_engine() && purpose.behind_guard.is_none();
            if is_unguarded && self.settings.guard().is_some() {
                return Ok(Err("the tunnel has a guard now".into()));
            }
            return Ok(Ok(lease));
        }
    }

    /// Waits until a flow that found no channel may try again. The inner error is why it may not.
    async fn may_try_again(
        &self,
        why: Unopened,
        local: &LocalStream,
        placing: &Placing,
        search: &mut Search,
    ) -> Result<Result<(), String>, String> {
        match why {
            Unopened::Busy(_) if !search.pauses.is_empty() => {
                or_gone(local, tokio::time::sleep(Duration::from_millis(search.pauses[0]))).await?;
                search.pauses = &search.pauses[1..];
            }
            Unopened::Refused(reason) | Unopened::Busy(reason) => {
                if placing.purpose.is_to_engine() {
                    self.status.flows_refused(Some(&reason));
                }
                return Ok(Err(reason));
            }
            Unopened::ClientGone | Unopened::Elsewhere => {}
            Unopened::Prohibited => self.carry_ports_by_command(),
            Unopened::Crowded if Instant::now() >= search.deadline => {
                return Ok(Err("the server allows no further session".into()));
            }
            // The server does not tell when a session has ended.
            Unopened::Crowded => or_gone(local, tokio::time::sleep(CROWDED)).await?,
            // Wait until the supervisor has removed it, too.
            Unopened::Lost(pooled) => {
                let mut changes = self.pool.changes();
                while self.pool.contains(&pooled) {
                    if tokio::time::timeout_at(search.deadline, changes.changed()).await.is_err() {
                        return Ok(Err("the connection was lost".into()));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    /// On the connection's thread: opens a channel for the flow and carries it to its end.
    #[expect(clippy::manual_async_fn, reason = "each argument of an async function has two places in the task")]
    fn carry(
        self: Arc<Self>,
        local: LocalStream,
        lease: Lease,
        placing: Arc<Placing>,
    ) -> impl Future<Output = Carried> + Send + 'static {
        async move {
            let Placing { purpose, began, exchange } = &*placing;
            let local = match local.move_here() {
                Ok(local) => local,
                Err(e) => return Carried::Failed(e),
            };
            let (channel, lease, is_used) = match self.open(&local, lease, &placing).await {
                Ok(opened) => opened,
                Err(why) => return Carried::Unopened(local, why),
            };
            let of_tunnel = purpose.is_clients.then_some(self.counters.as_ref());
            let counters: Vec<&Counters> =
                of_tunnel.into_iter().chain([&lease.pooled.counters]).chain(purpose.counters.as_deref()).collect();
            if purpose.is_to_engine() {
                self.status.flows_refused(None);
            }
            let carriage = Carriage {
                counters: &counters,
                lease: &lease,
                spill: self.settings.target().spill,
                on_behalf: purpose.behind_guard.as_ref(),
                exchange: exchange.as_deref(),
                is_command: self.way(purpose).is_command(),
                is_used,
                follow_up: &self.follow_up,
                may_stay: &|| self.may_go_on(began, purpose.behind_guard.is_some()),
            };
            let end = match relay::carry(local, channel, &carriage).await {
                Outcome::Ended(end) => end,
                Outcome::Free(local, left) => {
                    self.behind(left, lease);
                    return Carried::Free(local);
                }
            };
            if let End::TooSlow(why) = &end {
                self.status.flow_reset(why.clone());
            }
            if purpose.is_clients_to_engine() {
                let pooled = lease.pooled.clone();
                drop(lease);
                self.prepare_next(pooled);
            }
            Carried::Ended(end)
        }
    }

    /// Takes the connection's spare channel, or opens a new one.
    async fn open(
        &self,
        local: &LocalStream,
        lease: Lease,
        placing: &Placing,
    ) -> Result<(Channel, Lease, bool), Unopened> {
        let purpose = &placing.purpose;
        // A request that may be sent again, should the Engine close the used channel at that moment.
        let may_be_used = placing.exchange.as_ref().is_some_and(|exchange| exchange.is_question());
        if purpose.is_clients_to_engine()
            && let Some((spare, is_used)) = lease.pooled.take_spare(may_be_used).await
        {
            // A command opens several connections, one shortly after the other.
            if lease.pooled.carrier.sends_at_once() {
                self.prepare_next(lease.pooled.clone());
            }
            return Ok((spare, lease, is_used));
        }
        let (pooled, endpoint) = (lease.pooled.clone(), self.way(purpose));
        let is_command = endpoint.is_command();
        let mut opening = tokio::spawn(async move { pooled.carrier.open(&endpoint).await });
        let opened = tokio::select! {
            biased;
            opened = &mut opening => opened,
            // Nothing was sent yet: open it on another connection.
            () = lease.pooled.given_up() => return Err(Unopened::Lost(lease.pooled.clone())),
            () = self.pool.better_is_there(&lease.pooled) => {
                tokio::spawn(close_unwanted(opening, lease));
                return Err(Unopened::Elsewhere);
            }
            // A request that is here is sent, as over a plain socket, whether its client waits for the answer or not.
            Ok(()) = local.gone(), if placing.exchange.is_none() => {
                tokio::spawn(close_unwanted(opening, lease));
                return Err(Unopened::ClientGone);
            }
        };
        Err(match opened {
            Ok(Ok(channel)) => {
                if purpose.is_to_engine() {
                    *lock(&self.taken) = Some(Instant::now());
                }
                return Ok((channel, lease, false));
            }
            // The server limits the commands of a connection (MaxSessions).
            Ok(Err(OpenError::Refused { .. })) if is_command => {
                lease.pooled.has_refused();
                Unopened::Crowded
            }
            Ok(Err(error)) if !purpose.is_to_engine() && !is_command && error.is_prohibited() => Unopened::Prohibited,
            Ok(Err(OpenError::Lost)) => Unopened::Lost(lease.pooled.clone()),
            Ok(Err(error)) if purpose.is_to_engine() && error.is_connect_failed() && self.has_just_taken() => {
                Unopened::Busy(error.to_string())
            }
            Ok(Err(error)) => Unopened::Refused(error.to_string()),
            Err(e) => Unopened::Refused(e.to_string()),
        })
    }

    fn has_just_taken(&self) -> bool {
        lock(&self.taken).is_some_and(|when| when.elapsed() < BUSY)
    }

    /// Keeps the channel that a client has left for the next one, or closes it, and has a new one ready, too.
    fn behind(&self, left: Left, lease: Lease) {
        let (pooled, pool, endpoint) = (lease.pooled.clone(), self.pool.clone(), self.status.endpoint());
        let Left { channel, is_free } = left;
        let unwanted = match is_free {
            true => pooled.keep_as_spare(channel).err(),
            false => Some(channel),
        };
        tokio::spawn(async move {
            match unwanted {
                Some(unwanted) => hang_up::let_go(unwanted).await,
                None => pool.spare_opened(),
            }
            drop(lease);
            if !pooled.is_ending() {
                pool.open_spare(&pooled, &endpoint).await;
            }
        });
    }

    fn carry_ports_by_command(&self) {
        if !self.ports_by_command.swap(true, Relaxed) {
            tracing::info!("the server does not forward to ports; their flows go through a command on the host");
        }
    }

    /// Opens a spare channel for the next flow.
    fn prepare_next(&self, pooled: Arc<PooledConnection>) {
        let (pool, endpoint) = (self.pool.clone(), self.status.endpoint());
        tokio::spawn(async move { pool.open_spare(&pooled, &endpoint).await });
    }
}

/// Closes a client whose flow cannot be had, unless it is answered.
fn refuse(local: LocalStream, reason: String, placing: &Placing) -> Result<Placed, String> {
    if placing.exchange.as_ref().is_some_and(|exchange| exchange.is_policed()) {
        return Ok(Placed::Refused(local, reason));
    }
    local.reset();
    Err(reason)
}

/// Closes a channel that is no longer needed as soon as it is open.
async fn close_unwanted(opening: JoinHandle<Result<Channel, OpenError>>, _lease: Lease) {
    if let Ok(Ok(channel)) = opening.await {
        hang_up::let_go(channel).await;
    }
}

/// Waits for `work`, unless the client goes away meanwhile.
pub(super) async fn or_gone<T>(local: &LocalStream, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::select! {
        biased;
        result = work => Ok(result),
        Ok(()) = local.gone() => Err("the client went away".into()),
    }
}
