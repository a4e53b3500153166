//! The machine's `ssh` as what carries a tunnel: a master that people have opened (ControlMaster in ssh_config(5)), or one of
//! our own. Only here are processes of ssh named, beside the reading of ssh_config.
//!
//! OpenSSH has flow control for each channel: one connection is enough, and no flow waits for another.

mod askpass;
pub(super) mod flow;
mod home;
mod master;
mod mux;
mod process;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::askpass::Answers;
use self::home::Home;
use self::master::Master;
use self::mux::{Refused, answers};
use self::process::{Process, Said};
use super::channel::{Channel, OpenError, Refusal};
use super::context::ConnectContext;
use super::endpoint::Endpoint;
use super::error::{Error, Phase};
use super::negotiated::Login;
use super::step::{News, Step};
use crate::config::Target;
use crate::sync::lock;

pub use self::askpass::answer_as_askpass;
pub(super) use self::home::remove_homes;
pub use self::process::become_ssh;
pub(super) use self::process::end_masters;

/// Longest wait for a master to hear that a tunnel leaves it.
const GOODBYE: Duration = Duration::from_millis(500);
/// Pause between two looks for the socket of a new master. It appears after the login, and nothing tells of it.
const LOOK: Duration = Duration::from_millis(10);
/// Time for the steps of a login beside the connection itself, for hops too.
const STEPS: u32 = 3;

/// A master that is logged in.
#[derive(Debug)]
pub(super) struct OpenSsh {
    host: String,
    login: Login,
    /// Of one of our own.
    said: Option<Arc<Mutex<Said>>>,
    /// Why it is over.
    ended: watch::Receiver<Option<String>>,
    ends: watch::Sender<bool>,
    master: Arc<Master>,
    /// Who watches over it.
    _watching: AbortOnDropHandle<()>,
}

impl OpenSsh {
    /// The master that listens at the user's ControlPath, if there is one that answers.
    pub(super) async fn found(target: &Target) -> Option<Self> {
        let path = target.ssh.control_path.as_deref()?;
        if !answers(path).await {
            return None;
        }
        tracing::info!("the ssh that listens at {} carries this tunnel", path.display());
        let home = match process::opens_sockets().await {
            true => None,
            false => Some(Arc::new(Home::new().ok()?)),
        };
        let master = Arc::new(Master::new(path.into(), home, None));
        let login = Login { tried: vec![format!("the ssh at {}", path.display())], offered: Vec::new() };
        let keepalive = target.keepalive.map(|interval| (interval, target.keepalive_count));
        let shared = master.clone();
        Some(Self::new(target, master, login, None, |ends| async move {
            let why = tokio::select! {
                () = shared.useless() => "the ssh that carried it has ended, or takes no more requests",
                () = shared.until_silent(keepalive) => "it no longer answers",
                () = asked_to(ends) => "",
            };
            // One that is frozen does not hear it.
            let _ = tokio::time::timeout(GOODBYE, shared.forget()).await;
            why.into()
        }))
    }

    /// Starts a master of our own and waits for its login.
    ///
    /// # Errors
    /// [`Error::OpenSsh`], [`Error::OpenSshStart`], [`Error::Timeout`], [`Error::NeedsPerson`].
    pub(super) async fn start(target: &Target, context: &ConnectContext) -> Result<Self, Error> {
        let prompter = match target.ssh.batch_mode {
            true => context.prompter.without_people(),
            false => context.prompter.clone(),
        };
        let failed = |source| Error::OpenSshStart { source };
        let home = Arc::new(Home::new()?);
        let answers = Answers::at(&home.questions(), target.account(), prompter.clone()).map_err(failed)?;
        let agents = context.credentials.agents();
        let agent = agents.first().map(PathBuf::as_path);
        let mut process = Process::start(target, &home, agent, &prompter, context.looks_only).map_err(failed)?;
        (context.on_step)(News::Step(Step::Authenticating));
        let path = home.control();
        let said = process.said();
        let limit = target.connect_timeout * target.ssh.connection_attempts * STEPS;
        let ready = prompter.within(limit, async {
            tokio::select! {
                () = process.ended() => false,
                () = until_ready(&path) => true,
            }
        });
        let host = target.ssh.host_name.clone();
        match ready.await {
            Some(true) => {}
            Some(false) => {
                let said: Vec<String> = lock(&said).lines.iter().cloned().collect();
                return Err(Error::of_openssh(target.account(), host, said, answers.unanswered()));
            }
            None => return Err(Error::Timeout { host, step: Phase::Login, limit }),
        }
        let method = lock(&said).method.clone().unwrap_or_else(|| "ssh".into());
        let login = Login { tried: vec![method], offered: Vec::new() };
        let own = if process::opens_sockets().await { None } else { Some(home.clone()) };
        let master = Arc::new(Master::new(path, own, Some(said.clone())));
        let (shared, watched) = (said.clone(), master.clone());
        Ok(Self::new(target, master, login, Some(said), |ends| async move {
            // They go with it.
            let _kept = (home, answers);
            tokio::select! {
                () = process.ended() => lock(&shared).lines.back().cloned().unwrap_or_default(),
                () = watched.until_stuck() => {
                    process.end().await;
                    "the ssh that carried it does not answer".into()
                }
                () = asked_to(ends) => {
                    process.end().await;
                    String::new()
                }
            }
        }))
    }

    /// `watches` returns why the master has ended, or once it has been left.
    fn new<F: Future<Output = String> + Send + 'static>(
        target: &Target,
        master: Arc<Master>,
        login: Login,
        said: Option<Arc<Mutex<Said>>>,
        watches: impl FnOnce(watch::Receiver<bool>) -> F,
    ) -> Self {
        let (tells, ended) = watch::channel(None);
        let ends = watch::Sender::new(false);
        let (watching, over) = (watches(ends.subscribe()), master.over.clone());
        let watching = AbortOnDropHandle::new(tokio::spawn(async move {
            let why = watching.await;
            over.cancel();
            tells.send_replace(Some(why));
        }));
        let host = target.ssh.host_name.clone();
        Self { host, login, said, ended, ends, master, _watching: watching }
    }

    /// Opens a channel to `endpoint` on the host.
    pub(super) async fn open(&self, endpoint: &Endpoint) -> Result<Channel, OpenError> {
        match self.master.open(endpoint).await {
            Ok((reading, writing)) => Ok(Channel::of_master(reading, writing, endpoint.leads_to())),
            Err(Refused::Gone) => Err(OpenError::Lost),
            Err(Refused::Said(reason)) => {
                let prohibits = self.said.as_ref().is_some_and(|said| lock(said).prohibits);
                let kind = match endpoint {
                    Endpoint::Tcp { .. } if prohibits => Refusal::Prohibited,
                    Endpoint::Tcp { .. } | Endpoint::Streamlocal(_) => Refusal::ConnectFailed,
                    Endpoint::Command { .. } | Endpoint::Subsystem(_) => Refusal::Other,
                };
                Err(OpenError::Refused { endpoint: endpoint.to_string(), reason, kind })
            }
        }
    }

    /// Waits for a sign of life from the server. False if the connection is lost.
    pub(super) async fn ping(&self) -> bool {
        self.master.ping().await
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    pub(super) fn last_heard(&self) -> Duration {
        self.master.last_heard()
    }

    /// Waits for the end of the master.
    pub(super) async fn ended(&self) -> Error {
        let mut ended = self.ended.clone();
        let message = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        Error::Lost { host: self.host.clone(), message: message.unwrap_or_default() }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Ends a master of our own. One that people have opened goes on.
    pub(super) async fn disconnect(&self) {
        self.ends.send_replace(true);
        let _ = self.ended.clone().wait_for(Option::is_some).await;
    }
}

async fn asked_to(mut ends: watch::Receiver<bool>) {
    // Not its result, which is a guard.
    drop(ends.wait_for(|ends| *ends).await);
}

async fn until_ready(path: &Path) {
    while !answers(path).await {
        tokio::time::sleep(LOOK).await;
    }
}
