//! What a master is asked to open, and whether its server lives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::flow::{self, Doubt, Reading, Writing};
use super::home::Home;
use super::mux::{Control, Refused, answers};
use super::process::Said;
use crate::ssh::endpoint::Endpoint;
use crate::ssh::heard::LastHeard;
use crate::sync::lock;

/// Nothing listens there, on the host's loopback (TCP's tcpmux).
const NOWHERE: (&str, u16) = ("127.0.0.1", 1);
/// Pause between two looks whether a master of our own answers.
const STUCK: Duration = Duration::from_secs(30);
/// Shortest time between two pings of ours, each of which opens a channel.
const SHORTEST: Duration = Duration::from_secs(15);

/// A master that is logged in.
#[derive(Debug)]
pub(super) struct Master {
    /// Its control socket.
    socket: PathBuf,
    /// Cancelled where it is given up.
    pub(super) over: CancellationToken,
    /// Notified where it takes no more requests (`ssh -O stop`, or its socket is gone).
    useless: Notify,
    /// Where it listens for streams to sockets, where it cannot be asked for such a stream (before OpenSSH 9.4).
    home: Option<Arc<Home>>,
    /// The sockets at which it listens, by the one on the host.
    listens: tokio::sync::Mutex<HashMap<String, PathBuf>>,
    /// How many of those there were so far.
    count: AtomicUsize,
    /// Has the host refused a stream that came over one of those?
    is_refused: Arc<AtomicBool>,
    /// What a master of our own says.
    said: Option<Arc<Mutex<Said>>>,
    /// What was opened last.
    last: Mutex<Option<Endpoint>>,
    heard: LastHeard,
}

impl Master {
    pub(super) fn new(socket: PathBuf, home: Option<Arc<Home>>, said: Option<Arc<Mutex<Said>>>) -> Self {
        Self {
            socket,
            over: CancellationToken::new(),
            useless: Notify::new(),
            home,
            listens: tokio::sync::Mutex::default(),
            count: AtomicUsize::new(0),
            is_refused: Arc::default(),
            said,
            last: Mutex::default(),
            heard: LastHeard::now(),
        }
    }

    /// The time since its server was last heard.
    pub(super) fn last_heard(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Opens a stream or a command.
    pub(super) async fn open(&self, endpoint: &Endpoint) -> Result<(Reading, Writing), Refused> {
        let opened = match (&self.home, endpoint) {
            (Some(home), Endpoint::Streamlocal(path)) => self.connect(home, path).await,
            _ => self.ask(endpoint).await,
        };
        match &opened {
            Ok(_) => *lock(&self.last) = Some(endpoint.clone()),
            Err(Refused::Gone) => self.useless.notify_one(),
            Err(Refused::Said(_)) => {}
        }
        opened
    }

    /// Waits until it takes no more requests.
    pub(super) async fn useless(&self) {
        self.useless.notified().await;
    }

    async fn ask(&self, endpoint: &Endpoint) -> Result<(Reading, Writing), Refused> {
        let opened = flow::open(self.socket.clone(), endpoint.clone(), self.over.clone(), self.heard.clone()).await;
        if let Err(Refused::Said(_)) = &opened {
            self.heard.note();
        }
        opened
    }

    /// A stream to the socket `there` on the host, over one at which the master listens.
    async fn connect(&self, home: &Home, there: &str) -> Result<(Reading, Writing), Refused> {
        let mut listens = self.listens.lock().await;
        // After a refusal it is found out anew.
        if self.is_refused.swap(false, Relaxed)
            && let Some(here) = listens.remove(there)
        {
            self.listens_no_more(&here, there).await;
        }
        if let Some(here) = listens.get(there) {
            return flow::connect(here, &self.socket, self.over.clone(), self.heard.clone(), self.doubt()).await;
        }
        let here = home.listens(self.count.fetch_add(1, Relaxed));
        Control::connect(&self.socket).await?.listen(true, &here.display().to_string(), there).await?;
        let (mut reading, writing) =
            flow::connect(&here, &self.socket, self.over.clone(), self.heard.clone(), self.doubt()).await?;
        // Nobody tells whether the host has such a socket. But it answers in order: with what is asked for next, it has
        // answered this. Of a refusal a master tells whoever started it, so other people's are asked for what is granted.
        let (host, port) = (NOWHERE.0.into(), NOWHERE.1);
        let next = if self.said.is_some() { Endpoint::Tcp { host, port } } else { Endpoint::of_true() };
        match self.ask(&next).await {
            Ok((_, writing)) => writing.close(),
            Err(Refused::Said(_)) => {}
            Err(Refused::Gone) => return Err(Refused::Gone),
        }
        if reading.has_ended().await {
            self.listens_no_more(&here, there).await;
            return Err(Refused::Said("Session open refused by peer".into()));
        }
        // That answer was a refusal, too.
        reading.doubt_from_now(self.doubt());
        listens.insert(there.to_owned(), here);
        Ok((reading, writing))
    }

    fn doubt(&self) -> Doubt {
        let refusals = self.said.as_ref().map(|said| (said.clone(), lock(said).refusals));
        Doubt { since: Instant::now(), refusals, is_refused: self.is_refused.clone() }
    }

    async fn listens_no_more(&self, here: &Path, there: &str) {
        if let Ok(mut control) = Control::connect(&self.socket).await {
            let _ = control.listen(false, &here.display().to_string(), there).await;
        }
    }

    /// Waits for a sign of life from the server. False if the master is gone.
    pub(super) async fn ping(&self) -> bool {
        // What was opened before can be opened again, without a line in anybody's log; a master has no other question
        // for the server.
        let last = lock(&self.last).clone();
        let tells = |endpoint: &Endpoint| match endpoint {
            Endpoint::Streamlocal(_) => self.home.is_none(),
            Endpoint::Tcp { .. } => true,
            Endpoint::Command { .. } | Endpoint::Subsystem(_) => false,
        };
        let endpoint = last.filter(tells).unwrap_or_else(Endpoint::of_true);
        match self.ask(&endpoint).await {
            Ok((_, writing)) => writing.close(),
            Err(Refused::Gone) => return false,
            Err(Refused::Said(_)) => {}
        }
        true
    }

    /// Waits until the server has left so many signs of life unanswered. Without a keepalive for ever.
    pub(super) async fn until_silent(&self, keepalive: Option<(Duration, u32)>) {
        let Some((interval, count)) = keepalive else { return std::future::pending().await };
        let interval = interval.max(SHORTEST);
        loop {
            tokio::time::sleep(interval.saturating_sub(self.heard.elapsed())).await;
            if self.heard.elapsed() < interval {
                continue;
            }
            match tokio::time::timeout(interval * count.max(1), self.ping()).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Waits until the master itself does not answer (it may be stopped).
    pub(super) async fn until_stuck(&self) {
        loop {
            tokio::time::sleep(STUCK).await;
            if !answers(&self.socket).await {
                return;
            }
        }
    }

    /// Has the master listen no more.
    pub(super) async fn forget(&self) {
        for (there, here) in self.listens.lock().await.drain() {
            self.listens_no_more(&here, &there).await;
        }
    }
}
