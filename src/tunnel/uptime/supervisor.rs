//! Brings a tunnel up, keeps it up, takes it down.
//!
//! ```text
//!   starting ──► up ──► reconnecting ──► up
//!      │          │         │  └──► failed ──(asked to retry)──► reconnecting
//!      ▼          ▼         ▼          ▼
//!    (error)     down ◄──── (stop) ◄───┘
//! ```
//!
//! A lazy tunnel begins as `idle`, is `reconnecting` once a flow comes, and `idle` again after a while
//! without any.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::network::Network;
use super::outage::Outage;
use crate::backoff::Backoff;
use crate::config::Target;
use crate::engine::Engine;
use crate::host::{self, Class, Route};
use crate::ssh::{self, Connection, Credentials, Endpoint, OnStep, Prompter, Step};
use crate::tunnel::client::listener::Listener;
use crate::tunnel::counters::Counters;
use crate::tunnel::error::Error;
use crate::tunnel::guard::Guard;
use crate::tunnel::pool::Pool;
use crate::tunnel::pool::member::Member;
use crate::tunnel::pool::worker::Worker;
use crate::tunnel::ports::{self, Ports};

/// Pauses between questions to an Engine that does not answer yet, on a host that does: the first, and
/// the longest.
const FIRST_ENGINE_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_ENGINE_PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for a connection's sign of life when the network has changed.
const CHECK_TIMEOUT: Duration = Duration::from_millis(2500);

/// The state of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// On the way up for the first time.
    Starting,
    /// Connected.
    Up,
    /// Lazy, and not in use: connects with the first flow.
    Idle,
    /// The connection was lost and is being made again.
    Reconnecting,
    /// The connection was lost, and time alone will not bring it back.
    Failed,
    /// Ended, or never begun.
    Down,
}

impl State {
    /// Can docker be used?
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Up | Self::Idle)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Idle => "idle",
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
    /// Where it is on its host, and how it is reached.
    pub route: Option<Route>,
    /// The last thing that went wrong: what, and what to do. None once it is all right again.
    pub last_error: Option<(String, Option<String>)>,
    /// The last client that was reset because it did not read: when, who, and why.
    pub last_reset: Option<(SystemTime, String)>,
    /// What kind of failure that was, where it was one of the connection.
    pub class: Option<Class>,
    /// When the next attempt begins, while one is waited for.
    pub next_attempt: Option<SystemTime>,
}

/// What flows can count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Link {
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
    /// One is no longer watched over.
    Retired,
    /// A further one is there, or is not.
    Grown(Result<Arc<Member>, Error>),
    /// One with other settings is there, or is not; which settings, where they are not those in force.
    Replaced(Result<Found, Error>, Option<Next>),
}

/// A connection, and where the Engine was found over it.
struct Found {
    member: Arc<Member>,
    route: Route,
    engine: Engine,
}

/// Settings that come into force with their connection: as long as flows go to the host of before, its guard
/// and its name are those that count.
#[derive(Debug, Clone)]
pub(in crate::tunnel) struct Next {
    pub(in crate::tunnel) target: Arc<Target>,
    pub(in crate::tunnel) guard: Option<Arc<Guard>>,
    /// Who asked for them hears what became of them; of others in their place by its end.
    pub(in crate::tunnel) verdict: mpsc::Sender<Result<(), Error>>,
}

/// A tunnel.
#[derive(Debug)]
pub struct Tunnel {
    pub(in crate::tunnel) target: watch::Sender<Arc<Target>>,
    prompter: Prompter,
    credentials: Credentials,
    pub(in crate::tunnel) counters: Counters,
    pub(in crate::tunnel) status: watch::Sender<Status>,
    pub(in crate::tunnel) link: watch::Sender<Link>,
    pub(in crate::tunnel) pool: Arc<Pool>,
    pub(in crate::tunnel) retry: Notify,
    /// A flow has come.
    pub(in crate::tunnel) demand: Notify,
    /// The settings of connections have changed.
    pub(in crate::tunnel) reloaded: Notify,
    pub(in crate::tunnel) ports: Ports,
    pub(in crate::tunnel) guard: Mutex<Option<Arc<Guard>>>,
    /// Settings whose connection is being made.
    pub(in crate::tunnel) next: Mutex<Option<Next>>,
}

impl Tunnel {
    /// A tunnel that is not running yet. Questions for people go to `prompter`; `route` is where the
    /// Engine was the last time.
    ///
    /// # Errors
    /// [`Error::Access`].
    pub fn new(target: Target, prompter: Prompter, route: Option<Route>) -> Result<Arc<Self>, Error> {
        let guard = Guard::of(&target)?;
        let status = Status {
            state: State::Starting,
            since: SystemTime::now(),
            step: Step::Resolving,
            engine: None,
            route,
            last_error: None,
            last_reset: None,
            class: None,
            next_attempt: None,
        };
        Ok(Arc::new(Self {
            guard: Mutex::new(guard),
            next: Mutex::default(),
            ports: Ports::default(),
            credentials: Credentials::new(target.remember),
            pool: Pool::new(target.max_connections),
            target: watch::Sender::new(Arc::new(target)),
            prompter,
            counters: Counters::default(),
            status: watch::Sender::new(status),
            link: watch::Sender::new(Link::Waiting),
            retry: Notify::new(),
            demand: Notify::new(),
            reloaded: Notify::new(),
        }))
    }

    /// Where flows go.
    pub(in crate::tunnel) fn endpoint(&self) -> Endpoint {
        self.status.borrow().route.as_ref().map_or_else(|| Route::usual().endpoint(), Route::endpoint)
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
        let first = match self.target().idle_timeout {
            Some(_) => None,
            None => tokio::select! {
                first = self.connect_first(limit) => Some(first?),
                () = stop.cancelled() => return Ok(()),
            },
        };
        if let Some(member) = &first {
            self.connected(member.clone());
        }
        let supervised = self.clone().supervise(first);
        let mut flows = JoinSet::new();
        tokio::select! {
            () = supervised => {}
            () = ports::keep(&self) => {}
            () = self.serve(&listener, &mut flows) => {}
            () = stop.cancelled() => {}
        }
        drop(listener);
        self.ports.close();
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

    // ---- a connection

    /// The first connection. Of a busy server that turns us away more than one attempt is asked; every
    /// other failure is told at once.
    async fn connect_first(&self, limit: Duration) -> Result<Arc<Member>, Error> {
        let mut last = None;
        let connecting = async {
            let mut outage = Outage::begins();
            loop {
                let error = match self.connect(&self.target()).await {
                    Err(error) if outage.insists(&error) => error,
                    Ok(Found { member, .. }) if !self.leads_right(&member) => {
                        say_goodbye(member);
                        continue;
                    }
                    result => {
                        return result.map(|Found { member, route, engine }| {
                            self.found(route, engine);
                            member
                        });
                    }
                };
                tracing::warn!("{}", error.with_causes());
                let pause = outage.pause(&error);
                last = Some(error);
                tokio::time::sleep(pause).await;
            }
        };
        match self.prompter.within(limit, connecting).await {
            Some(connected) => connected,
            None => Err(last.unwrap_or(Error::Timeout {
                host: self.target().address(),
                limit,
                step: self.status.borrow().step,
            })),
        }
    }

    /// Connects, logs in and pings the Engine.
    async fn connect(&self, target: &Target) -> Result<Found, Error> {
        let member = self.log_in(target, target.tcp_timeout).await?;
        let (route, engine) = self.find_engine(target, &member).await?;
        Ok(Found { member, route, engine })
    }

    /// Connects and logs in, for people to see.
    async fn log_in(&self, target: &Target, tcp_timeout: Duration) -> Result<Arc<Member>, Error> {
        let mut target = target.clone();
        target.tcp_timeout = tcp_timeout;
        let status = self.status.clone();
        let on_step: OnStep = Arc::new(move |news| {
            if let ssh::News::Step(step) = news {
                status.send_modify(|status| status.step = step);
            }
        });
        self.establish(target, &self.prompter, &on_step).await
    }

    async fn find_engine(&self, target: &Target, member: &Member) -> Result<(Route, Engine), Error> {
        self.status.send_modify(|status| status.step = Step::Engine);
        let last = self.status.borrow().route.clone();
        let (route, engine) = host::find_engine(&member.connection, target, last.as_ref()).await?;
        tracing::info!(
            "connected to {}, Engine {} at {} ({})",
            target.address(),
            engine.version,
            route.remote(),
            route.transport()
        );
        Ok((route, engine))
    }

    fn found(&self, route: Route, engine: Engine) {
        self.status.send_modify(|status| (status.engine, status.route) = (Some(engine), Some(route)));
    }

    /// Makes a connection, on a thread of its own.
    async fn establish(&self, target: Target, prompter: &Prompter, on_step: &OnStep) -> Result<Arc<Member>, Error> {
        let worker = Worker::start().map_err(Error::System)?;
        let prompter = prompter.clone();
        let (credentials, on_step) = (self.credentials.clone(), on_step.clone());
        let target = Arc::new(target);
        let to = target.clone();
        let making = worker.run(async move { Connection::establish(&to, &prompter, &credentials, &on_step).await });
        let connection = making.await.map_err(|e| Error::System(io::Error::other(e)))??;
        Ok(Member::new(connection, target, worker))
    }

    /// A further connection, without asking anybody anything.
    async fn one_more(&self) -> Result<Arc<Member>, Error> {
        self.establish(Target::clone(&self.target()), &Prompter::for_nobody(), &(Arc::new(|_| {}) as OnStep)).await
    }

    /// Does it lead where the tunnel is to lead by now? Settings may have come into force since it was begun.
    fn leads_right(&self, member: &Member) -> bool {
        self.target().leads_as(&member.target)
    }

    fn connected(&self, member: Arc<Member>) {
        self.pool.add(member);
        self.link.send_replace(Link::Connected);
        self.status.send_modify(|status| status.last_error = None);
        self.set_state(State::Up);
    }

    // ---- as long as it is up

    /// Keeps the tunnel connected, or, if it is lazy, connected while it is in use. Never ends.
    async fn supervise(self: Arc<Self>, mut first: Option<Arc<Member>>) {
        let mut network = Network::watch();
        loop {
            if first.take().is_none() {
                if self.target().idle_timeout.is_some() {
                    self.idle().await;
                }
                let Some(member) = self.reconnect(&mut network).await else { continue };
                self.connected(member);
            }
            self.clone().keep_connected(&mut network).await;
        }
    }

    /// Waits until a flow comes, or somebody wants the tunnel up.
    async fn idle(&self) {
        let mut settings = self.settings();
        self.link.send_replace(Link::Waiting);
        self.set_state(State::Idle);
        while self.counters().flows_open == 0 && self.target().idle_timeout.is_some() {
            tokio::select! {
                () = self.demand.notified() => {}
                () = self.retry.notified() => return,
                // It may not be lazy any more.
                _ = settings.changed() => {}
            }
        }
    }

    /// Has as many connections as are wanted. Ends when the last one is lost, or a lazy tunnel is not
    /// used any more; the caller says at once, before a flow can look, what comes next.
    async fn keep_connected(self: Arc<Self>, network: &mut Network) {
        let mut tasks = JoinSet::new();
        let mut growing = false;
        let mut settings = self.settings();
        self.pool.members().into_iter().for_each(|member| drop(tasks.spawn(watch_over(member))));
        loop {
            let idle_timeout = self.target().idle_timeout;
            tokio::select! {
                Some(event) = tasks.join_next() => match event {
                    Ok(Event::Grown(Ok(member))) if !self.leads_right(&member) => {
                        growing = false;
                        say_goodbye(member);
                    }
                    Ok(Event::Grown(Ok(member))) => {
                        growing = false;
                        tasks.spawn(watch_over(member.clone()));
                        self.pool.add(member);
                        tracing::info!("{} connections now", self.pool.members().len());
                    }
                    Ok(Event::Grown(Err(error))) => {
                        growing = false;
                        tracing::warn!("no further connection: {}", error.with_causes());
                        self.pool.growth_failed(!error.may_pass());
                    }
                    Ok(Event::Replaced(Ok(Found { member, .. }), next)) if !self.takes_on(next.as_ref()) || !self.leads_right(&member) => {
                        // Others have been asked for meanwhile.
                        say_goodbye(member);
                    }
                    Ok(Event::Replaced(Ok(Found { member, route, engine }), _)) => {
                        tracing::info!("new flows go over a connection with the new settings");
                        self.found(route, engine);
                        let old = self.pool.clear();
                        tasks.spawn(watch_over(member.clone()));
                        self.connected(member);
                        old.iter().for_each(|member| member.retire());
                    }
                    Ok(Event::Replaced(Err(error), next)) => {
                        tracing::warn!("no connection with the new settings, going on as before: {}", error.with_causes());
                        self.failed(&error);
                        if self.gives_up(next.as_ref()) && let Some(next) = next {
                            let _ = next.verdict.try_send(Err(error));
                        }
                    }
                    Ok(Event::Lost(member, error)) => if self.pool.remove(&member) {
                        tracing::warn!("{error}");
                        if self.pool.is_empty() {
                            self.failed(&error.into());
                            return;
                        }
                    },
                    Ok(Event::Retired) => {}
                    Err(e) => tracing::error!("a task ended badly: {e}"),
                },
                () = self.pool.needs_care() => {}
                // It may be lazy now, or not any more.
                _ = settings.changed() => {}
                change = network.changed() => {
                    tracing::info!("{change}");
                    for member in self.pool.members() {
                        tokio::spawn(async move { member.check(CHECK_TIMEOUT).await });
                    }
                }
                () = self.reloaded.notified() => {
                    let (tunnel, next) = (self.clone(), self.next());
                    tasks.spawn(async move {
                        let target = next.as_ref().map_or_else(|| tunnel.target(), |next| next.target.clone());
                        Event::Replaced(tunnel.connect(&target).await, next)
                    });
                }
                unused = unused(&self.pool, idle_timeout) => {
                    tracing::info!("not in use: disconnecting");
                    for member in unused {
                        say_goodbye(member);
                    }
                    return;
                }
            }
            if self.pool.takes_wish() && !growing {
                growing = true;
                let tunnel = self.clone();
                tasks.spawn(async move { Event::Grown(tunnel.one_more().await) });
            }
            self.pool.drop_old_spares();
            while let Some(unused) = self.pool.take_unused() {
                tracing::info!("closing a connection that was not used");
                say_goodbye(unused);
            }
        }
    }

    /// Tries until there is a connection. None where a lazy tunnel is not wanted any more.
    async fn reconnect(&self, network: &mut Network) -> Option<Arc<Member>> {
        self.pool.clear();
        // There is no connection any more whose settings they could be.
        self.takes_on(self.next().as_ref());
        self.link.send_replace(Link::Waiting);
        self.set_state(State::Reconnecting);
        let mut outage = Outage::begins();
        loop {
            let limit = outage.tcp_limit(self.target().tcp_timeout);
            let error = match self.log_in(&self.target(), limit).await {
                Ok(member) => match self.wait_for_engine(&member).await {
                    Ok(()) if self.leads_right(&member) => return Some(member),
                    Ok(()) => {
                        say_goodbye(member);
                        continue;
                    }
                    Err(error) => error,
                },
                // An attempt's steps are bounded one by one.
                Err(error) => error,
            };
            let text = error.with_causes();
            if outage.is_news(&text) {
                tracing::warn!("cannot reconnect: {text}");
            }
            self.failed(&error);
            if !error.may_pass() {
                // Who wanted it tried before has just been answered.
                pin!(self.retry.notified()).as_mut().enable();
                self.link.send_replace(Link::Failed);
                self.set_state(State::Failed);
                tokio::select! {
                    () = self.retry.notified() => {}
                    () = self.reloaded.notified() => {}
                }
                self.link.send_replace(Link::Waiting);
                self.set_state(State::Reconnecting);
                outage.starts_over();
                continue;
            }
            if self.target().idle_timeout.is_some() && self.counters().flows_open == 0 {
                return None;
            }
            let pause = outage.pause(&error);
            self.status.send_modify(|status| status.next_attempt = SystemTime::now().checked_add(pause));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.retry.notified() => outage.starts_over(),
                () = self.reloaded.notified() => outage.starts_over(),
                change = network.changed() => {
                    tracing::info!("{change}: trying at once");
                    outage.starts_over();
                }
            }
            self.status.send_modify(|status| status.next_attempt = None);
        }
    }

    /// The host is back; its Engine may take longer, and is asked over the same connection.
    async fn wait_for_engine(&self, member: &Member) -> Result<(), Error> {
        let mut pauses = Backoff::new(FIRST_ENGINE_PAUSE, LONGEST_ENGINE_PAUSE);
        loop {
            let error = match self.find_engine(&member.target, member).await {
                Err(error @ Error::Host(host::Error::Ssh(_))) => return Err(error),
                Err(error) => error,
                Ok((route, engine)) => {
                    self.found(route, engine);
                    return Ok(());
                }
            };
            tracing::info!("{}", error.with_causes());
            self.failed(&error);
            tokio::select! {
                () = tokio::time::sleep(pauses.pause()) => {}
                () = self.retry.notified() => {}
                lost = member.connection.ended() => return Err(lost.into()),
            }
        }
    }

    // ---- what people see

    fn failed(&self, error: &Error) {
        let mut described = (error.with_causes(), error.hint());
        if !error.may_pass() {
            described.0 = format!("needs you: run dtunnel up {} ({})", self.target().typed(), described.0);
        }
        self.status.send_modify(|status| (status.last_error, status.class) = (Some(described), Some(error.class())));
    }

    /// A client was reset because it did not read.
    pub(in crate::tunnel) fn flow_reset(&self, why: String) {
        tracing::warn!("a flow was reset: {why}");
        self.status.send_modify(|status| status.last_reset = Some((SystemTime::now(), why)));
    }

    /// Flows are refused for this reason, or not any more.
    pub(in crate::tunnel) fn flows_refused(&self, reason: Option<&str>) {
        self.status.send_if_modified(|status| {
            let changes = reason.is_some() || status.last_error.is_some();
            if status.state == State::Up && changes {
                status.last_error = reason.map(|reason| (reason.to_owned(), None));
            }
            changes
        });
    }

    fn set_state(&self, state: State) {
        self.status.send_if_modified(|status| {
            let changes = status.state != state;
            if changes {
                status.state = state;
                status.since = SystemTime::now();
            }
            changes
        });
    }
}

/// Closes a connection that is not used any more, while all else goes on.
fn say_goodbye(member: Arc<Member>) {
    tokio::spawn(async move { member.connection.disconnect().await });
}

/// Waits until nothing was used for `limit`, and takes all out. Never ends without a limit.
async fn unused(pool: &Pool, limit: Option<Duration>) -> Vec<Arc<Member>> {
    match limit {
        Some(limit) => pool.unused_for(limit).await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of a connection, learning its host's keys meanwhile.
async fn watch_over(member: Arc<Member>) -> Event {
    tokio::select! {
        lost = member.connection.ended() => Event::Lost(member.clone(), lost),
        never = member.connection.learn_host_keys() => never,
        () = member.given_up() => Event::Lost(member.clone(), member.connection.silent()),
        () = member.is_retired() => Event::Retired,
    }
}
