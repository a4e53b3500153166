//! Brings a tunnel up, keeps it up, takes it down.
//!
//! ```text
//!   starting ──► up ──► reconnecting ──► up
//!      │          │         │  └──► failed ──(asked to retry)──► reconnecting
//!      ▼          ▼         ▼          ▼
//!    (error)     down ◄──── (stop) ◄───┘
//! ```

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::counters::{Counters, Snapshot};
use super::error::Error;
use super::flow;
use super::listener::Listener;
use super::pool::{ConnectionStatus, Member, Pool};
use super::worker::Worker;
use crate::config::Target;
use crate::engine::{self, Engine};
use crate::ssh::{self, Connection, Credentials, OnStep, OpenError, Prompter, Step};

/// Longest wait for the Engine's first answer.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts to reconnect: the first, and the longest. Each is twice the one
/// before, and up to half of it is left to chance, so that many tunnels do not come at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest wait for the answer when a connection's round-trip time is measured.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

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
pub(super) enum Link {
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
    Grown(Result<Arc<Member>, Error>),
}

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    pub(super) target: Target,
    prompter: Prompter,
    credentials: Credentials,
    pub(super) counters: Counters,
    status: watch::Sender<Status>,
    pub(super) link: watch::Sender<Link>,
    pub(super) pool: Arc<Pool>,
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
    async fn connect(&self) -> Result<Arc<Member>, Error> {
        let status = self.status.clone();
        let on_step: OnStep = Arc::new(move |step| status.send_modify(|status| status.step = step));
        let member = self.establish(&self.prompter, &on_step).await?;
        on_step(Step::Engine);
        let engine = self.ping(&member.connection).await?;
        tracing::info!("connected to {}, Engine {}", self.target.address(), engine.version);
        self.status.send_modify(|status| status.engine = Some(engine));
        Ok(member)
    }

    /// Makes a connection, on a thread of its own.
    async fn establish(&self, prompter: &Prompter, on_step: &OnStep) -> Result<Arc<Member>, Error> {
        let worker = Worker::start().map_err(Error::System)?;
        let (target, prompter) = (self.target.clone(), prompter.clone());
        let (credentials, on_step) = (self.credentials.clone(), on_step.clone());
        let making = worker.run(async move { Connection::establish(&target, &prompter, &credentials, &on_step).await });
        let connection = making.await.map_err(|e| Error::System(io::Error::other(e)))??;
        Ok(Member::new(connection, worker))
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

    fn connected(&self, member: Arc<Member>) {
        self.pool.add(member);
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
                    Ok(Event::Grown(Ok(member))) => {
                        growing = false;
                        tasks.spawn(watch_over(member.clone()));
                        self.pool.add(member);
                        tracing::info!("{} connections now", self.pool.members().len());
                    }
                    Ok(Event::Grown(Err(error))) => {
                        growing = false;
                        tracing::warn!("no further connection: {}", with_causes(&error));
                        self.pool.growth_failed(!error.may_pass());
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
        let member = self.reconnect().await;
        self.connected(member);
    }

    /// A further connection, without asking anybody anything.
    async fn one_more(&self) -> Result<Arc<Member>, Error> {
        let (nobody, _) = Prompter::new();
        self.establish(&nobody, &(Arc::new(|_| {}) as OnStep)).await
    }

    async fn reconnect(&self) -> Arc<Member> {
        let mut pause = FIRST_PAUSE;
        loop {
            // An attempt's steps are bounded one by one.
            let error = match self.connect().await {
                Ok(member) => return member,
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
}

/// Waits for the end of a connection, learning its host's keys meanwhile.
async fn watch_over(member: Arc<Member>) -> Event {
    let lost = tokio::select! {
        lost = member.connection.ended() => lost,
        () = member.connection.learn_host_keys() => member.connection.ended().await,
    };
    Event::Lost(member, lost)
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
