//! Brings a tunnel up, keeps it up, takes it down.
//!
//! ```text
//!   starting ──► up ──► reconnecting ──► up
//!      │          │         │  └──► failed ──(asked to retry)──► reconnecting
//!      ▼          ▼         ▼          ▼
//!    (error)     down ◄──── (stop) ◄───┘
//! ```

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::{Counters, Snapshot};
use super::error::Error;
use super::flow::{self, End};
use super::listener::Listener;
use super::local::LocalStream;
use super::pool::{ConnectionStatus, Lease, Member, Pool};
use crate::config::Target;
use crate::engine::{self, Engine};
use crate::ssh::{self, Channel, Connection, Credentials, OnStep, OpenError, Prompter, Step};

/// Longest wait for the Engine's first answer.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts to reconnect: the first, and the longest. Each is twice the one
/// before, and up to half of it is left to chance, so that many tunnels do not come at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a new flow waits for a connection that is being made again.
const FLOW_WAIT: Duration = Duration::from_secs(30);
/// Longest wait for the answer when a connection's round-trip time is measured.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Flows on which nothing has moved for so long are not waited for at the end.
const QUIET: Duration = Duration::from_millis(300);
/// How often the end looks whether flows have moved.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// The state of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// On the way up for the first time.
    Starting,
    /// Connected.
    Up,
    /// The connection was lost and is being made again.
    Reconnecting,
    /// The connection was lost, and time alone will not bring it back.
    Failed,
    /// Ended, or never begun.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Reconnecting => "reconnecting",
            Self::Failed => "failed",
            Self::Down => "down",
        })
    }
}

/// What there is to know about a tunnel at one moment, its counters apart.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// What is being done, while starting or reconnecting.
    pub step: Step,
    /// The Engine, once it has answered.
    pub engine: Option<Engine>,
    /// The last thing that went wrong: what, and what to do. None once it is all right again.
    pub last_error: Option<(String, Option<String>)>,
}

/// What flows can count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// There are connections.
    Connected,
    /// Not now, maybe soon.
    Waiting,
    /// Not before somebody acts.
    Failed,
}

/// What the supervisor hears from its tasks.
enum Event {
    /// A connection has ended.
    Lost(Arc<Member>, ssh::Error),
    /// A further one is there, or is not.
    Grown(Result<Connection, ssh::Error>),
}

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    target: Target,
    prompter: Prompter,
    credentials: Credentials,
    counters: Counters,
    status: watch::Sender<Status>,
    link: watch::Sender<Link>,
    pool: Arc<Pool>,
    retry: Notify,
}

impl Tunnel {
    /// A tunnel that is not running yet. Questions for people go to `prompter`.
    pub fn new(target: Target, prompter: Prompter) -> Arc<Self> {
        let status = Status {
            state: State::Starting,
            since: SystemTime::now(),
            step: Step::Resolving,
            engine: None,
            last_error: None,
        };
        Arc::new(Self {
            credentials: Credentials::new(target.remember),
            pool: Pool::new(target.max_connections),
            target,
            prompter,
            counters: Counters::default(),
            status: watch::Sender::new(status),
            link: watch::Sender::new(Link::Waiting),
            retry: Notify::new(),
        })
    }

    /// What it goes to.
    pub fn target(&self) -> &Target {
        &self.target
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

    /// Brings the tunnel up within `limit` (not counting the time that people take to answer) and
    /// keeps it up until `stop`. Clients of `listener` are served from the moment it is up.
    ///
    /// # Errors
    /// Why it did not come up. Once it was up, nothing but `stop` ends it.
    pub async fn run(
        self: Arc<Self>,
        listener: Listener,
        limit: Duration,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let first = self.prompter.within(limit, self.connect());
        let member = tokio::select! {
            first = first => match first {
                Some(connected) => connected?,
                None => {
                    let step = self.status.borrow().step;
                    return Err(Error::Timeout { limit, step });
                }
            },
            () = stop.cancelled() => return Ok(()),
        };
        self.connected(member);
        let supervised = self.clone().keep_connected();
        let mut flows = JoinSet::new();
        tokio::select! {
            () = supervised => {}
            () = self.serve(&listener, &mut flows) => {}
            () = stop.cancelled() => {}
        }
        drop(listener);
        self.drain(&mut flows).await;
        flows.shutdown().await;
        self.link.send_replace(Link::Failed);
        let mut goodbyes = JoinSet::new();
        for member in self.pool.clear() {
            goodbyes.spawn(async move { member.connection.disconnect().await });
        }
        goodbyes.join_all().await;
        self.set_state(State::Down);
        Ok(())
    }

    // ---- the connection

    /// Connects, logs in and pings the Engine.
    async fn connect(&self) -> Result<Connection, Error> {
        let status = self.status.clone();
        let on_step: OnStep = Arc::new(move |step| status.send_modify(|status| status.step = step));
        let connection = Connection::establish(&self.target, &self.prompter, &self.credentials, &on_step).await?;
        on_step(Step::Engine);
        let engine = self.ping(&connection).await?;
        tracing::info!("connected to {}, Engine {}", self.target.address(), engine.version);
        self.status.send_modify(|status| status.engine = Some(engine));
        Ok(connection)
    }

    async fn ping(&self, connection: &Connection) -> Result<Engine, Error> {
        let (host, socket) = (self.target.address(), self.target.remote_socket.clone());
        let opening = tokio::time::timeout(ENGINE_TIMEOUT, connection.open_streamlocal(&socket)).await;
        let channel = match opening {
            Ok(Ok(channel)) => channel,
            Ok(Err(OpenError::Lost)) => return Err(connection.ended().await.into()),
            Ok(Err(source)) => {
                return Err(Error::Forwarding { host, socket, user: self.target.ssh.user.clone(), source });
            }
            Err(_) => return Err(Error::Engine { host, socket, source: engine::Error::Timeout(ENGINE_TIMEOUT) }),
        };
        let answer = engine::ping(channel.into_stream(), ENGINE_TIMEOUT).await;
        answer.map_err(|source| Error::Engine { host, socket, source })
    }

    fn connected(&self, connection: Connection) {
        self.pool.add(Member::new(connection));
        self.link.send_replace(Link::Connected);
        self.status.send_modify(|status| status.last_error = None);
        self.set_state(State::Up);
    }

    /// Makes the connection again when the last one is lost, and has as many as are wanted. Never
    /// ends.
    async fn keep_connected(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut growing = false;
        self.pool.members().into_iter().for_each(|member| drop(tasks.spawn(watch_over(member))));
        loop {
            tokio::select! {
                Some(event) = tasks.join_next() => match event {
                    Ok(Event::Grown(Ok(connection))) => {
                        growing = false;
                        let member = Member::new(connection);
                        tasks.spawn(watch_over(member.clone()));
                        self.pool.add(member);
                        tracing::info!("{} connections now", self.pool.members().len());
                    }
                    Ok(Event::Grown(Err(error))) => {
                        growing = false;
                        tracing::warn!("no further connection: {}", with_causes(&error));
                        self.pool.growth_failed(!Error::from(error).may_pass());
                    }
                    Ok(Event::Lost(member, error)) => if self.pool.remove(&member) {
                        tracing::warn!("{error}");
                        if self.pool.is_empty() {
                            tasks.shutdown().await;
                            growing = false;
                            self.all_lost(error).await;
                            self.pool.members().into_iter().for_each(|member| drop(tasks.spawn(watch_over(member))));
                        }
                    },
                    Err(e) => tracing::error!("a task ended badly: {e}"),
                },
                () = self.pool.needs_care() => {}
            }
            if self.pool.takes_wish() && !growing {
                growing = true;
                let tunnel = self.clone();
                tasks.spawn(async move { Event::Grown(tunnel.one_more().await) });
            }
            for spare in self.pool.take_old_spares() {
                tokio::spawn(flow::let_go(spare));
            }
            while let Some(unused) = self.pool.take_unused() {
                tracing::info!("closing a connection that was not used");
                tokio::spawn(async move { unused.connection.disconnect().await });
            }
        }
    }

    async fn all_lost(&self, error: ssh::Error) {
        self.failed(&error.into());
        self.link.send_replace(Link::Waiting);
        self.set_state(State::Reconnecting);
        self.pool.clear();
        let connection = self.reconnect().await;
        self.connected(connection);
    }

    /// A further connection, without asking anybody anything.
    async fn one_more(&self) -> Result<Connection, ssh::Error> {
        let (nobody, _) = Prompter::new();
        let on_step: OnStep = Arc::new(|_| {});
        Connection::establish(&self.target, &nobody, &self.credentials, &on_step).await
    }

    async fn reconnect(&self) -> Connection {
        let mut pause = FIRST_PAUSE;
        loop {
            // An attempt's steps are bounded one by one.
            let error = match self.connect().await {
                Ok(connection) => return connection,
                Err(error) => error,
            };
            tracing::warn!("cannot reconnect: {}", with_causes(&error));
            self.failed(&error);
            if error.may_pass() {
                let chance = pause.mul_f64(0.5 * random_fraction());
                let _ = tokio::time::timeout(pause - chance, self.retry.notified()).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                self.link.send_replace(Link::Failed);
                self.set_state(State::Failed);
                self.retry.notified().await;
                self.link.send_replace(Link::Waiting);
                self.set_state(State::Reconnecting);
                pause = FIRST_PAUSE;
            }
        }
    }

    fn failed(&self, error: &Error) {
        let mut described = (with_causes(error), error.hint());
        if !error.may_pass() {
            described.0 = format!("needs you: run dtunnel up {} ({})", self.target.name, described.0);
        }
        self.status.send_modify(|status| status.last_error = Some(described));
    }

    fn set_state(&self, state: State) {
        self.status.send_modify(|status| {
            status.state = state;
            status.since = SystemTime::now();
        });
    }

    // ---- flows

    /// Accepts clients, each served by a task of `flows`. Never ends.
    async fn serve(self: &Arc<Self>, listener: &Listener, flows: &mut JoinSet<()>) {
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

    async fn flow(&self, local: LocalStream) {
        self.counters.flow_begins();
        let end = match self.open(&local).await {
            Ok((lease, channel)) => {
                let counters = [&self.counters, &lease.member.counters];
                let end = flow::carry(local, channel, &counters, &lease).await;
                self.prepare_next(lease);
                end
            }
            Err(reason) => {
                tracing::warn!("a flow was not opened: {reason}");
                local.reset();
                End::Cut
            }
        };
        self.counters.flow_ends(end == End::Cut);
        tracing::debug!("a flow ended: {end:?}");
    }

    /// After a flow: where nothing else goes on, the channel for the next one is opened already.
    fn prepare_next(&self, lease: Lease) {
        let (member, pool, socket) = (lease.member.clone(), self.pool.clone(), self.target.remote_socket.clone());
        drop(lease);
        tokio::spawn(async move {
            member.open_spare(&socket).await;
            pool.spare_opened();
        });
    }

    /// Opens a channel for a new flow, waiting for a connection that is being made again or held
    /// up; nothing of the client's has been sent yet, so that a second try is safe.
    async fn open(&self, local: &LocalStream) -> Result<(Lease, Channel), String> {
        let deadline = Instant::now() + FLOW_WAIT;
        let mut link = self.link.subscribe();
        loop {
            let usable = async { link.wait_for(|link| *link != Link::Waiting).await.ok().map(|link| *link) };
            match or_gone(local, tokio::time::timeout_at(deadline, usable)).await? {
                Ok(Some(Link::Connected)) => {}
                Ok(_) => return Err("the tunnel has failed".into()),
                Err(_) => return Err(format!("no connection within {} s", FLOW_WAIT.as_secs())),
            }
            let mut changes = self.pool.changes();
            let Some(lease) = self.pool.place() else {
                if or_gone(local, tokio::time::timeout_at(deadline, changes.changed())).await?.is_err() {
                    return Err("every connection is held up by a client that does not read".into());
                }
                continue;
            };
            if let Some(channel) = lease.member.take_spare().await {
                return Ok((lease, channel));
            }
            let (member, socket) = (lease.member.clone(), self.target.remote_socket.clone());
            let mut opening = tokio::spawn(async move { member.connection.open_streamlocal(&socket).await });
            let opened = tokio::select! {
                biased;
                opened = &mut opening => opened,
                // Another flow has just stopped this connection: this one goes elsewhere.
                () = lease.member.held_up() => {
                    tokio::spawn(close_unwanted(opening, lease));
                    continue;
                }
                Ok(()) = local.gone() => {
                    tokio::spawn(close_unwanted(opening, lease));
                    return Err("the client went away".into());
                }
            };
            match opened {
                Ok(Ok(channel)) => return Ok((lease, channel)),
                Ok(Err(error @ OpenError::Refused { .. })) => return Err(error.to_string()),
                // The supervisor learns of it in this moment, too; wait until it has.
                Ok(Err(OpenError::Lost)) => {
                    let member = lease.member.clone();
                    drop(lease);
                    while self.pool.contains(&member) {
                        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                            return Err("the connection was lost".into());
                        }
                    }
                }
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// Lets flows finish that are moving bytes, for at most the target's `drain`.
    async fn drain(&self, flows: &mut JoinSet<()>) {
        let deadline = Instant::now() + self.target.drain;
        let moved = || {
            let now = self.counters.snapshot();
            now.bytes_in + now.bytes_out
        };
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

/// Waits for the end of a connection, learning its host's keys meanwhile.
async fn watch_over(member: Arc<Member>) -> Event {
    let lost = tokio::select! {
        lost = member.connection.ended() => lost,
        () = member.connection.learn_host_keys() => member.connection.ended().await,
    };
    Event::Lost(member, lost)
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

/// An error and what it comes from, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Chance for the pauses between attempts: the low digits of a clock are enough.
fn random_fraction() -> f64 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    f64::from(nanos % 1_000_000) / 1e6
}
