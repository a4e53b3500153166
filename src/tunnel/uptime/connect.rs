//! Makes a connection: TCP, login, and the Engine at the other end.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::state::Publisher;
use crate::config::Target;
use crate::engine::{self, EngineVersion};
use crate::host::{self, Route};
use crate::ssh::{self, ConnectContext, Connection, Credentials, OnStep, Prompter, Step};
use crate::sync::lock;
use crate::tunnel::error::Error;
use crate::tunnel::pool::connection::{Established, PooledConnection};
use crate::tunnel::pool::worker::Worker;

/// A connection, and the route to the Engine found over it.
pub(super) struct Found {
    pub(super) pooled: Arc<PooledConnection>,
    pub(super) route: Route,
    pub(super) engine: EngineVersion,
}

/// Makes a tunnel's connections; questions to the user go to its prompter.
#[derive(Debug)]
pub(in crate::tunnel) struct Connector {
    prompter: Prompter,
    credentials: Credentials,
    status: Arc<Publisher>,
    /// When an Engine last did not answer over somebody's connection.
    shunned: Mutex<Option<Instant>>,
}

/// How long no connection of somebody's is used whose server did not answer. Its master does not know yet, or does not care.
const SHUNNED: Duration = Duration::from_secs(60);

impl Connector {
    pub(in crate::tunnel) fn new(prompter: Prompter, remember: bool, status: Arc<Publisher>) -> Self {
        Self { prompter, credentials: Credentials::new(remember), status, shunned: Mutex::default() }
    }

    /// Prefers this ssh-agent from now on. Tells whether another one was preferred before.
    pub(in crate::tunnel) fn prefer_agent(&self, socket: PathBuf) -> bool {
        self.credentials.prefer_agent(socket)
    }

    /// Runs `work` for at most `limit`, not counting the time for answers to questions. None after the limit.
    pub(super) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.prompter.within(limit, work).await
    }

    /// Connects, logs in and pings the Engine.
    pub(super) async fn connect(&self, target: &Arc<Target>) -> Result<Found, Error> {
        let pooled = self.log_in(target, None).await?;
        let mut found = self.find_engine(target, &pooled).await;
        let mut pooled = pooled;
        if found.is_err() && pooled.carrier.connection.is_shared() && !self.may_share() {
            pooled = self.log_in(target, None).await?;
            found = self.find_engine(target, &pooled).await;
        }
        let (route, engine) = found?;
        Ok(Found { pooled, route, engine })
    }

    /// Connects and logs in, and publishes each step. `tcp_limit` applies to this attempt only.
    pub(super) async fn log_in(
        &self,
        target: &Arc<Target>,
        tcp_limit: Option<Duration>,
    ) -> Result<Arc<PooledConnection>, Error> {
        let status = self.status.clone();
        let on_step: OnStep = Arc::new(move |news| {
            if let ssh::News::Step(step) = news {
                status.step(step);
            }
        });
        let context = ConnectContext::new(self.prompter.clone(), self.credentials.clone(), on_step);
        let openssh_first = self.status.openssh_first();
        let context = ConnectContext { tcp_limit, openssh_first, may_share: self.may_share(), ..context };
        let made = establish(target.clone(), context).await;
        match &made {
            Ok(pooled) => self.status.carries(Some(pooled.carrier.connection.carried().clone())),
            // What was of use before may not be any more.
            Err(Error::Host(host::Error::Ssh(error))) if error.kind() != ssh::Kind::Unreachable => {
                self.status.carries(None)
            }
            Err(_) => {}
        }
        made
    }

    /// May a connection be used that somebody has made?
    fn may_share(&self) -> bool {
        lock(&self.shunned).is_none_or(|when| when.elapsed() >= SHUNNED)
    }

    pub(super) async fn find_engine(
        &self,
        target: &Target,
        pooled: &PooledConnection,
    ) -> Result<(Route, EngineVersion), Error> {
        self.status.step(Step::Engine);
        let last = self.status.route();
        let found = host::find_engine(&pooled.carrier.connection, target, last.as_ref()).await;
        if let Err(host::Error::Engine { source: engine::Error::Timeout(_), .. }) = &found
            && pooled.carrier.connection.is_shared()
        {
            tracing::info!("no Engine answers over the connection of the ssh that is there");
            *lock(&self.shunned) = Some(Instant::now());
        }
        let (route, engine) = found?;
        tracing::info!(
            "connected to {}, Engine {} at {} ({})",
            target.address(),
            engine.version,
            route.remote(),
            route.transport()
        );
        Ok((route, engine))
    }

    /// Makes an additional connection, without questions to the user.
    pub(super) async fn one_more(&self, target: &Arc<Target>) -> Result<Arc<PooledConnection>, Error> {
        let context = ConnectContext::new(Prompter::for_nobody(), self.credentials.clone(), Arc::new(|_| {}));
        establish(target.clone(), context).await
    }
}

/// Makes a connection on its own new thread.
async fn establish(target: Arc<Target>, context: ConnectContext) -> Result<Arc<PooledConnection>, Error> {
    let worker = Worker::start().map_err(Error::System)?;
    let to = target.clone();
    let making = worker.run(async move { Connection::establish(&to, &context).await });
    let connection = making.await.map_err(|e| Error::System(io::Error::other(e)))??;
    Ok(PooledConnection::new(Established { connection, target, worker }))
}
