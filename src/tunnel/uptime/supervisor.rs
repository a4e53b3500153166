//! Brings a tunnel up and keeps it up: connects, keeps as many connections as needed, and reconnects.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::commands::{Command, Commands};
use super::connect::{Connector, Found};
use super::nodelay;
use super::reconnect_policy::ReconnectPolicy;
use super::state::{Event, Publisher};
use crate::backoff::Backoff;
use crate::host;
use crate::os::network::Network;
use crate::ssh;
use crate::tunnel::counters::Counters;
use crate::tunnel::error::Error;
use crate::tunnel::pool::Pool;
use crate::tunnel::pool::connection::PooledConnection;
use crate::tunnel::settings::{Next, Settings};

/// Pauses between questions to an Engine that does not answer yet, on a host that does: the first, and
/// the longest.
const FIRST_ENGINE_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_ENGINE_PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for a connection's sign of life when the network has changed.
const CHECK_TIMEOUT: Duration = Duration::from_millis(2500);

/// The result of a supervisor's task.
enum Outcome {
    /// A connection has ended.
    Lost(Arc<PooledConnection>, ssh::Error),
    /// A draining connection has ended.
    Drained,
    /// A further connection was made, or failed.
    Grown(Result<Arc<PooledConnection>, Error>),
    /// A replacement was made, or failed; with the next settings, where it was for them.
    Replaced(Result<Found, Error>, Option<Next>),
}

/// Keeps one tunnel up. It alone moves the tunnel from state to state.
#[derive(Debug)]
pub(in crate::tunnel) struct Supervisor {
    pub(in crate::tunnel) connector: Arc<Connector>,
    pub(in crate::tunnel) settings: Arc<Settings>,
    pub(in crate::tunnel) status: Arc<Publisher>,
    pub(in crate::tunnel) pool: Arc<Pool>,
    pub(in crate::tunnel) commands: Arc<Commands>,
    pub(in crate::tunnel) counters: Arc<Counters>,
}

impl Supervisor {
    /// Brings the tunnel up within `limit` (not counting the time that people take to answer). A lazy tunnel does not
    /// connect. A busy server that turns the connection away is tried again; every other failure returns at once.
    ///
    /// # Errors
    /// Why it did not come up.
    pub(in crate::tunnel) async fn start(&self, limit: Duration) -> Result<(), Error> {
        if self.is_lazy() {
            return Ok(());
        }
        let mut last = None;
        let connecting = async {
            let mut policy = ReconnectPolicy::new();
            loop {
                let error = match self.connector.connect(&self.settings.target()).await {
                    Err(error) if policy.retries_first(&error) => error,
                    Ok(Found { pooled, .. }) if !self.leads_right(&pooled) => {
                        disconnect(pooled);
                        continue;
                    }
                    result => {
                        return result.map(|Found { pooled, route, engine }| {
                            self.status.found(route, engine);
                            self.connected(pooled);
                        });
                    }
                };
                tracing::warn!("{}", error.with_causes());
                let pause = policy.pause(&error);
                last = Some(error);
                tokio::time::sleep(pause).await;
            }
        };
        match self.connector.within(limit, connecting).await {
            Some(connected) => connected,
            None => Err(last.unwrap_or(Error::Timeout {
                host: self.settings.target().address(),
                limit,
                step: self.status.current_step(),
            })),
        }
    }

    /// Keeps the tunnel connected, or, if it is lazy, connected while it is in use. Never ends.
    pub(in crate::tunnel) async fn supervise(&self) {
        let mut network = Network::watch();
        loop {
            if self.pool.is_empty() {
                if self.is_lazy() {
                    self.idle().await;
                }
                let Some(pooled) = self.reconnect(&mut network).await else { continue };
                self.connected(pooled);
            }
            self.keep_connected(&mut network).await;
        }
    }

    fn is_lazy(&self) -> bool {
        self.settings.target().idle_timeout.is_some()
    }

    /// Is it lazy, with no flow that waits for a connection?
    fn is_unused(&self) -> bool {
        self.is_lazy() && !self.counters.is_waited()
    }

    /// Does the connection fit the settings in force, which may have changed since it was begun?
    fn leads_right(&self, pooled: &PooledConnection) -> bool {
        self.settings.target().leads_as(&pooled.carrier.target)
    }

    /// Puts settings into force (see [`Settings::take_on`]).
    pub(in crate::tunnel) fn take_on(&self, next: Option<&Next>) -> bool {
        let is_in_force = self.settings.take_on(next);
        self.pool.set_max(self.settings.target().max_connections);
        is_in_force
    }

    fn connected(&self, pooled: Arc<PooledConnection>) {
        self.pool.add(pooled);
        self.status.apply(Event::Connected);
    }

    /// Waits for the end of a connection. Meanwhile makes it fast for its first flow, and learns its host's keys.
    fn watch_over(&self, pooled: Arc<PooledConnection>) -> impl Future<Output = Outcome> + use<> {
        let (pool, settings, status) = (self.pool.clone(), self.settings.subscribe(), self.status.clone());
        async move {
            let (connection, target) = (&pooled.carrier.connection, &pooled.carrier.target);
            let silent = async {
                match (target.silence(), target.patience) {
                    (Some(limit), Some(patience)) => pooled.silence(limit, patience).await,
                    // Its own keepalives end it.
                    _ => std::future::pending().await,
                }
            };
            let (opens, endpoint) = (pooled.clone(), status.endpoint());
            let spare = pooled.carrier.worker.run(async move { pool.open_spare(&opens, &endpoint).await });
            let background = async {
                nodelay::after_login(connection, settings, &status).await;
                let _ = spare.await;
                std::future::pending().await
            };
            tokio::select! {
                lost = connection.ended() => Outcome::Lost(pooled.clone(), lost),
                never = connection.learn_host_keys() => never,
                never = background => never,
                () = silent => {
                    pooled.give_up();
                    Outcome::Lost(pooled.clone(), connection.silent())
                }
                () = pooled.given_up() => Outcome::Lost(pooled.clone(), connection.silent()),
                () = pooled.draining() => Outcome::Drained,
            }
        }
    }

    fn failed(&self, error: &Error) {
        self.status.failed(error, &self.settings.target().typed());
    }

    /// Waits until a flow comes, or somebody wants the tunnel up.
    async fn idle(&self) {
        let mut settings = self.settings.subscribe();
        self.status.apply(Event::Unused);
        while self.is_unused() {
            tokio::select! {
                command = self.commands.take(&[Command::Use, Command::Retry]) => if command == Command::Retry {
                    return;
                },
                // It may not be lazy any more.
                _ = settings.changed() => {}
            }
        }
    }

    /// Keeps as many connections as needed. Ends when the last one is lost, or a lazy tunnel is unused; the caller must
    /// publish the next state at once, before a flow looks.
    async fn keep_connected(&self, network: &mut Network) {
        let mut tasks = JoinSet::new();
        let mut growing = false;
        let mut settings = self.settings.subscribe();
        self.pool.connections().into_iter().for_each(|pooled| drop(tasks.spawn(self.watch_over(pooled))));
        loop {
            let idle_timeout = self.settings.target().idle_timeout;
            tokio::select! {
                Some(outcome) = tasks.join_next() => match outcome {
                    Ok(outcome) => {
                        growing &= !matches!(outcome, Outcome::Grown(_));
                        if let Some(pooled) = self.heard(outcome) {
                            tasks.spawn(self.watch_over(pooled));
                        }
                        if self.pool.is_empty() {
                            return;
                        }
                    }
                    Err(e) => tracing::error!("a task failed: {e}"),
                },
                () = self.pool.needs_care() => {}
                // It may be lazy now, or not any more.
                _ = settings.changed() => {}
                change = network.changed() => {
                    tracing::info!("{change}");
                    for pooled in self.pool.connections() {
                        tokio::spawn(async move { pooled.check(CHECK_TIMEOUT).await });
                    }
                }
                _ = self.commands.take(&[Command::Reload]) => {
                    let (connector, next) = (self.connector.clone(), self.settings.next());
                    let target = next.as_ref().map_or_else(|| self.settings.target(), |next| next.target.clone());
                    tasks.spawn(async move { Outcome::Replaced(connector.connect(&target).await, next) });
                }
                unused = unused(&self.pool, idle_timeout) => {
                    tracing::info!("idle: disconnecting");
                    unused.into_iter().for_each(disconnect);
                    return;
                }
            }
            if self.pool.takes_wish() && !growing {
                growing = true;
                let (connector, target) = (self.connector.clone(), self.settings.target());
                tasks.spawn(async move { Outcome::Grown(connector.one_more(&target).await) });
            }
            self.pool.drop_old_spares();
            while let Some(unused) = self.pool.take_unused() {
                tracing::info!("closing a connection that was not used");
                disconnect(unused);
            }
        }
    }

    /// Handles a task's result while there are connections. Returns a new connection to watch.
    fn heard(&self, outcome: Outcome) -> Option<Arc<PooledConnection>> {
        match outcome {
            Outcome::Grown(Ok(pooled)) if !self.leads_right(&pooled) => disconnect(pooled),
            Outcome::Grown(Ok(pooled)) => {
                self.pool.add(pooled.clone());
                tracing::info!("{} connections now", self.pool.connections().len());
                return Some(pooled);
            }
            Outcome::Grown(Err(error)) => {
                tracing::warn!("no further connection: {}", error.with_causes());
                self.pool.growth_failed(!error.may_pass());
            }
            // A later reload has replaced them.
            Outcome::Replaced(Ok(Found { pooled, .. }), next)
                if !self.take_on(next.as_ref()) || !self.leads_right(&pooled) =>
            {
                disconnect(pooled);
            }
            Outcome::Replaced(Ok(Found { pooled, route, engine }), _) => {
                tracing::info!("new flows go over a connection with the new settings");
                self.status.found(route, engine);
                let old = self.pool.clear();
                self.connected(pooled.clone());
                old.iter().for_each(|pooled| pooled.drain());
                return Some(pooled);
            }
            Outcome::Replaced(Err(error), next) => {
                tracing::warn!("no connection with the new settings, keeping the old: {}", error.with_causes());
                self.failed(&error);
                if let Some(next) = next.filter(|next| self.settings.give_up(next)) {
                    next.failed(error);
                }
            }
            Outcome::Lost(pooled, error) => {
                if self.pool.remove(&pooled) {
                    tracing::warn!("{error}");
                    if self.pool.is_empty() {
                        self.failed(&error.into());
                    }
                }
            }
            Outcome::Drained => {}
        }
        None
    }

    /// Tries until there is a connection. None where a lazy tunnel is no longer used.
    async fn reconnect(&self, network: &mut Network) -> Option<Arc<PooledConnection>> {
        self.pool.clear();
        // No connection uses the old settings any more.
        self.take_on(self.settings.next().as_ref());
        self.status.apply(Event::Connecting);
        let mut policy = ReconnectPolicy::new();
        loop {
            let error = match self.attempt(&mut policy).await {
                Ok(pooled) if self.leads_right(&pooled) => return Some(pooled),
                Ok(pooled) => {
                    disconnect(pooled);
                    continue;
                }
                Err(error) => error,
            };
            let text = error.with_causes();
            if policy.is_news(&text) {
                tracing::warn!("cannot reconnect: {text}");
            }
            self.failed(&error);
            if !error.may_pass() {
                // This attempt has answered earlier requests.
                self.commands.forget(Command::Retry);
                self.status.apply(Event::Refused);
                self.commands.take(&[Command::Retry, Command::Reload]).await;
                self.status.apply(Event::Connecting);
                policy.reset();
                continue;
            }
            if self.is_unused() {
                return None;
            }
            let pause = policy.pause(&error);
            self.status.next_attempt(Some(pause));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.commands.take(&[Command::Retry, Command::Reload]) => policy.reset(),
                change = network.changed() => {
                    tracing::info!("{change}: trying now");
                    policy.reset();
                }
            }
            self.status.next_attempt(None);
        }
    }

    /// One attempt. Its steps are bounded one by one.
    async fn attempt(&self, policy: &mut ReconnectPolicy) -> Result<Arc<PooledConnection>, Error> {
        let target = self.settings.target();
        let limit = policy.tcp_limit(target.connect_timeout);
        let pooled = self.connector.log_in(&target, Some(limit)).await?;
        self.wait_for_engine(&pooled).await?;
        Ok(pooled)
    }

    /// Pings an Engine that does not answer yet on a host that does, over the same connection.
    async fn wait_for_engine(&self, pooled: &PooledConnection) -> Result<(), Error> {
        let mut pauses = Backoff::new(FIRST_ENGINE_PAUSE, LONGEST_ENGINE_PAUSE);
        loop {
            let error = match self.connector.find_engine(&pooled.carrier.target, pooled).await {
                Err(error @ Error::Host(host::Error::Ssh(_))) => return Err(error),
                Err(error) => error,
                Ok((route, engine)) => {
                    self.status.found(route, engine);
                    return Ok(());
                }
            };
            tracing::info!("{}", error.with_causes());
            self.failed(&error);
            tokio::select! {
                () = tokio::time::sleep(pauses.pause()) => {}
                _ = self.commands.take(&[Command::Retry]) => {}
                lost = pooled.carrier.connection.ended() => return Err(lost.into()),
            }
        }
    }
}

/// Closes an unused connection, in the background.
fn disconnect(pooled: Arc<PooledConnection>) {
    tokio::spawn(async move { pooled.carrier.connection.disconnect().await });
}

/// Waits until the pool is unused for `limit`, and removes all connections. Never ends without a limit.
async fn unused(pool: &Pool, limit: Option<Duration>) -> Vec<Arc<PooledConnection>> {
    match limit {
        Some(limit) => pool.unused_for(limit).await,
        None => std::future::pending().await,
    }
}
