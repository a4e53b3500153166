//! What the clients of one tunnel are served with: places for their requests, early answers, and the Engine's socket.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;

use super::api::Prepares;
use super::binds::{self, Bind, Wanted};
use super::dial::{Dial, Purpose};
use super::early_answer::EarlyAnswers;
use super::in_progress::Client;
use super::mounts::Mounts;
use super::placer::Placer;
use super::registry::Registry;
use super::uptime::commands::Command;
use super::uptime::state::settled;
use crate::config::Remote;
use crate::host::Route;
use crate::os::local;
use crate::os::local_stream::LocalStream;

/// What clients are served with.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) placer: Arc<Placer>,
    pub(super) early: EarlyAnswers,
    /// The clients whose requests are read along.
    pub(super) clients: Arc<Registry<Client>>,
    /// The paths of the local socket.
    pub(super) sockets: OnceLock<Arc<[String]>>,
    pub(super) mounts: Arc<Mounts>,
}

impl Serving {
    /// Waits for a connection, for as long as a request may wait for one.
    pub(super) async fn until_connected(&self) {
        self.placer.commands.send(Command::Use);
        let mut status = self.placer.status.subscribe();
        let _ = tokio::time::timeout(self.placer.settings.target().wait, settled(&mut status)).await;
    }

    /// The path of the Engine's socket on its host.
    ///
    /// # Errors
    /// What to say where that is not known.
    pub(super) fn engines_socket(&self) -> Result<String, String> {
        let route = self.placer.status.route();
        let way = match route.as_ref().map(Route::remote) {
            Some(Remote::Socket(path)) => return Ok(path.clone()),
            Some(other) => format!("by {other}"),
            None => "in a way that is not known yet".into(),
        };
        Err(format!(
            "the bind's source is this tunnel's socket on this machine. The tunnel reaches the Engine {way}, and does not \
             know the path of its socket on the host: use that path as the source, for example /var/run/docker.sock"
        ))
    }

    /// Which binds of containers are not passed on as they are.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { all: self.placer.settings.target().mounts.is_some(), ..self.our_sockets() }
    }

    fn our_sockets(&self) -> Wanted {
        Wanted { sockets: self.sockets.get().cloned().unwrap_or_default(), all: false }
    }

    /// Prepares the host for a request. Returns the paths on the host in place of those of binds.
    ///
    /// # Errors
    /// Why a bind cannot be had.
    pub(super) async fn prepare(&self, request: Prepares) -> Result<Vec<(Bind, String)>, String> {
        let binds = match request {
            Prepares::Create(binds) => binds,
            Prepares::Start(container) => {
                self.mounts.before_start(&container).await;
                return Ok(Vec::new());
            }
            Prepares::Exec(container) => {
                self.mounts.before_exec(&container).await;
                return Ok(Vec::new());
            }
        };
        let (wanted, target) = (self.wanted(), self.placer.settings.target());
        let mut others = Vec::new();
        for bind in binds {
            let theirs = match &target.mounts {
                _ if wanted.names_our_socket(&bind) => Some(self.engines_socket()?),
                Some(settings) => self.mounts.on_host(&bind, settings).await?,
                None => None,
            };
            others.extend(theirs.map(|path| (bind, path)));
        }
        Ok(others)
    }
}

impl Dial for Serving {
    fn dial(self: Arc<Self>, purpose: Purpose) -> std::io::Result<local::Stream> {
        let (ours, theirs) = local::Stream::pair()?;
        let theirs = LocalStream::local(theirs)?;
        tokio::spawn(async move {
            if let Err(reason) = self.placer.clone().place_and_carry(theirs, purpose).await {
                tracing::debug!("a flow of our own was not opened: {reason}");
            }
        });
        Ok(ours)
    }

    fn up_since(&self) -> SystemTime {
        self.placer.status.state_since().1
    }

    fn with_engines_socket(&self, body: Bytes) -> Result<Bytes, String> {
        let found = self.our_sockets().find(&body);
        if found.is_empty() {
            return Ok(body);
        }
        let theirs = self.engines_socket()?;
        let others: Vec<_> = found.into_iter().map(|bind| (bind, theirs.clone())).collect();
        Ok(binds::replaced(&body, &others).into())
    }

    fn with_mirrors(&self, body: Bytes) -> Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send + '_>> {
        Box::pin(async move {
            let wanted = self.wanted();
            if !wanted.all {
                return Ok(body);
            }
            let others = self.prepare(Prepares::Create(wanted.find(&body))).await?;
            Ok(binds::replaced(&body, &others).into())
        })
    }

    fn last_error(&self) -> Option<String> {
        self.placer.status.last_error()
    }
}
