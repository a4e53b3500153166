//! A tunnel: a local endpoint, its SSH connections, and the Engine at the other end.
//!
//! Independent of processes, control sockets and terminals. [`Tunnel`] is its interface: the owner calls
//! [`Tunnel::run`] once and follows it with [`Tunnel::watch`]. The supervisor changes the tunnel's state, the
//! dispatcher serves its clients, and the pool holds its connections.

mod api;
mod binds;
mod client;
mod conversation;
mod counters;
mod dial;
mod dispatch;
mod early_answer;
mod engine_events;
mod error;
mod flow;
mod follow_up;
mod guard;
mod in_progress;
#[doc(hidden)]
pub mod measured;
mod mounts;
mod placer;
mod pool;
mod ports;
mod registry;
mod serving;
mod settings;
mod uptime;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Access, Target};
use crate::host::Route;
use crate::os::local_stream::LocalStream;
use crate::ssh::{Carried, Prompter};
use dial::Purpose;
use dispatch::Dispatcher;
use early_answer::EarlyAnswers;
use follow_up::FollowUp;
use mounts::Mounts;
use placer::Placer;
use pool::Pool;
use ports::{Looks, Ports};
use serving::Serving;
use settings::Settings;
use uptime::commands::{Command, Commands};
use uptime::connect::Connector;
use uptime::state::Publisher;
use uptime::supervisor::Supervisor;

pub use api::Framing;
pub use client::listener::Listener;
pub use counters::{Counters, Snapshot};
pub use error::Error;
pub use guard::{Head, Refusal, RequestStatus};
#[cfg(fuzzing)]
pub use mounts::read_whatever as read_mirror;
pub use mounts::{MountState, MountStatus, MountUse};
pub use pool::connection::ConnectionStatus;
pub use ports::{Agreed, PortState, PortStatus};
pub use settings::Reloading;
pub use uptime::state::{State, Status};

/// Time limit of the answer when a connection's round-trip time is measured.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of clients of published ports between accept and dispatch. Accepting waits for nothing below that: the owner of
/// a client that has closed can be looked up for some 40 ms (`client/peer.rs`).
const PORT_CLIENTS: usize = 1024;

/// A tunnel, as used by the daemon and the command line.
#[derive(Debug)]
pub struct Tunnel {
    settings: Arc<Settings>,
    status: Arc<Publisher>,
    pool: Arc<Pool>,
    commands: Arc<Commands>,
    counters: Arc<Counters>,
    ports: Ports,
    mounts: Arc<Mounts>,
    /// Accepted clients of the published ports.
    port_clients: Mutex<mpsc::Receiver<(LocalStream, Purpose)>>,
    supervisor: Supervisor,
    dispatcher: Arc<Dispatcher>,
}

impl Tunnel {
    /// Creates a tunnel that does not run yet. Questions to the user go to `prompter`; `route` is the
    /// last known route to the Engine, and `carried` what carried the last connection.
    ///
    /// # Errors
    /// [`Error::Access`].
    pub fn new(
        target: Target,
        prompter: Prompter,
        route: Option<Route>,
        carried: Option<Carried>,
    ) -> Result<Arc<Self>, Error> {
        let status = Arc::new(Publisher::new(route, carried));
        let pool = Pool::new(target.max_connections);
        let connector = Arc::new(Connector::new(prompter, target.remember, status.clone()));
        let settings = Arc::new(Settings::new(target)?);
        let (commands, counters) = (Arc::<Commands>::default(), Arc::<Counters>::default());
        let (port_sender, port_clients) = mpsc::channel(PORT_CLIENTS);
        let looks = Arc::<Looks>::default();
        let mounts = Arc::new(Mounts::new());
        let supervisor = Supervisor {
            connector,
            settings: settings.clone(),
            status: status.clone(),
            pool: pool.clone(),
            commands: commands.clone(),
            counters: counters.clone(),
        };
        let placer = Arc::new(Placer {
            settings: settings.clone(),
            status: status.clone(),
            pool: pool.clone(),
            commands: commands.clone(),
            counters: counters.clone(),
            ports_by_command: AtomicBool::new(false),
            taken: std::sync::Mutex::default(),
            follow_up: FollowUp { looks: looks.clone(), mounts: mounts.clone() },
        });
        let serving = Arc::new(Serving {
            placer,
            early: EarlyAnswers {
                settings: settings.clone(),
                status: status.clone(),
                pool: pool.clone(),
                pings: Arc::default(),
            },
            clients: Arc::default(),
            sockets: OnceLock::new(),
            mounts: mounts.clone(),
        });
        Ok(Arc::new(Self {
            settings,
            status,
            pool,
            commands,
            counters,
            ports: Ports::new(port_sender, looks),
            mounts,
            port_clients: Mutex::new(port_clients),
            supervisor,
            dispatcher: Arc::new(Dispatcher::new(serving)),
        }))
    }

    /// Brings the tunnel up within `limit` (not counting the time for answers to questions) and keeps it up until
    /// `stop`. Clients of `listener` are served from the moment it is up.
    ///
    /// # Errors
    /// Why it did not come up. Once it was up, only `stop` ends it.
    pub async fn run(&self, listener: Listener, limit: Duration, stop: CancellationToken) -> Result<(), Error> {
        tokio::select! {
            started = self.supervisor.start(limit) => started?,
            () = stop.cancelled() => return Ok(()),
        }
        let mut port_clients = self.port_clients.lock().await;
        let source = ports::Source {
            settings: self.settings.subscribe(),
            status: self.status.subscribe(),
            dial: self.dispatcher.serving.clone(),
        };
        let of_mounts = mounts::Parts {
            settings: self.settings.subscribe(),
            status: self.status.subscribe(),
            dial: self.dispatcher.serving.clone(),
        };
        let mut flows = JoinSet::new();
        tokio::select! {
            () = self.supervisor.supervise() => {}
            () = ports::keep(&self.ports, source) => {}
            () = mounts::keep(&self.mounts, of_mounts) => {}
            () = self.dispatcher.serve(&listener, &mut port_clients, &mut flows) => {}
            () = self.last_round(&stop) => {}
        }
        drop(listener);
        self.ports.close();
        self.dispatcher.drain(&mut flows).await;
        flows.shutdown().await;
        let mut goodbyes = JoinSet::new();
        for pooled in self.pool.clear() {
            goodbyes.spawn(async move { pooled.carrier.connection.disconnect().await });
        }
        goodbyes.join_all().await;
        self.status.stopped();
        Ok(())
    }

    /// Waits until `stop`, and then until what containers have written is here, for as long as flows have to finish.
    async fn last_round(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        if self.status.state() == State::Up {
            let _ = tokio::time::timeout(self.target().drain, self.mounts.written(None)).await;
        }
    }

    /// The settings in force.
    pub fn target(&self) -> Arc<Target> {
        self.settings.target()
    }

    /// The status and its changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// A snapshot of the counters.
    pub fn counters(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// The SSH connections. Starts a new measurement of their round-trip times for the next call.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        let status = self.pool.status();
        for pooled in self.pool.connections() {
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PING_TIMEOUT, pooled.measure()).await;
            });
        }
        status
    }

    /// Connects now, even after a failure that only the user can resolve.
    pub fn retry_now(&self) {
        self.commands.send(Command::Retry);
    }

    /// Opens a new connection. Open flows stay on the old one until their end.
    pub fn renew(&self) {
        self.commands.send(match self.status.state() {
            State::Up => Command::Reload,
            _ => Command::Retry,
        });
    }

    /// Applies other settings. For another host, login or Engine a new connection is made first, and all settings come
    /// into force with it; if it fails, none does. One exception: a guard where there was none, or a read-only one,
    /// holds at once. Open flows stay on the old connections until their end, and connected clients keep their guard.
    /// The local endpoint does not change.
    ///
    /// # Errors
    /// [`Error::Access`]; the settings are then unchanged.
    pub fn reload(&self, target: Target) -> Result<Reloading, Error> {
        let same = self.target().leads_as(&target);
        let (next, reloading) = self.settings.want(target)?;
        if same || self.pool.is_empty() {
            self.supervisor.take_on(Some(&next));
        } else {
            self.narrow(&next.target.access)?;
        }
        if !same {
            self.status.forget_failure();
            self.commands.send(Command::Reload);
        }
        Ok(reloading)
    }

    /// Puts a guard into force at once if there was none, or if the new one is read-only.
    /// Other guards are ignored here.
    ///
    /// # Errors
    /// [`Error::Access`]; the settings are then unchanged.
    pub fn narrow(&self, access: &Access) -> Result<(), Error> {
        self.settings.narrow(access)
    }

    /// The guard's policies, as text; None without a guard.
    pub fn access(&self) -> Option<String> {
        self.settings.guard().map(|guard| guard.label().to_owned())
    }

    /// The requests in progress, as far as they are read.
    pub fn requests(&self) -> Vec<RequestStatus> {
        in_progress::requests(&self.dispatcher.serving.clients)
    }

    /// The host's published ports and their local ports; None if `ports` is off.
    pub fn ports(&self) -> Option<Vec<PortStatus>> {
        (self.target().ports != config::Ports::Off).then(|| self.ports.status())
    }

    /// The mounted directories and their mirrors; None if `mounts` is off.
    pub fn mounts(&self) -> Option<Vec<MountStatus>> {
        self.target().mounts.as_ref().map(|settings| self.mounts.status(settings))
    }

    /// Asks the host whether it can have mirrors of directories.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn check_mounts(&self) -> Result<(), String> {
        self.mounts.check().await
    }

    /// Waits until all mounted directories are in step.
    ///
    /// # Errors
    /// Why one is not.
    pub async fn sync_mounts(&self) -> Result<(), String> {
        self.mounts.sync().await
    }

    /// Removes the mirrors that no container uses from the host. Returns how many.
    ///
    /// # Errors
    /// Why one could not be removed.
    pub async fn prune_mounts(&self) -> Result<usize, String> {
        match &self.target().mounts {
            Some(settings) => self.mounts.prune(settings).await,
            None => Ok(0),
        }
    }

    /// Prefers this ssh-agent for later logins, where ssh_config names none. Tells whether another one was preferred before.
    pub fn prefer_agent(&self, socket: PathBuf) -> bool {
        self.supervisor.connector.prefer_agent(socket)
    }

    /// Agrees to ports (`ports = "ask"`).
    pub fn agree_to_ports(&self, agreed: Agreed<'_>) {
        self.ports.agree(agreed, &self.target());
    }
}
