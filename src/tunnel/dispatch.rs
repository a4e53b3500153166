//! Accepts local clients, serves each of the Engine's request by request, and drains the flows at the end.
//!
//! Clients of the Engine's socket, of published ports, and our own questions all go this way; their [`Purpose`] says
//! which. [`Placer`] has the connections.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::Exchange;
use super::binds;
use super::client::error_answer::{answer, error_body};
use super::client::listener::Listener;
use super::client::peer::Who;
use super::client::stream::LocalStream;
use super::dial::{Dial, Purpose};
use super::early_answer::EarlyAnswers;
use super::flow::relay::End;
use super::guard;
use super::in_progress::Client;
use super::placer::{Placed, Placer, Placing, or_gone};
use super::registry::Registry;
use super::uptime::commands::Command;
use super::uptime::state::settled;
use crate::config::{Remote, Target};
use crate::host::Route;

/// Flows without traffic for this long do not delay the end.
const QUIET: Duration = Duration::from_millis(300);
/// How often draining looks for traffic.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Serves the clients of one tunnel.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) placer: Arc<Placer>,
    pub(super) early: EarlyAnswers,
    /// The clients whose requests are read along.
    pub(super) clients: Arc<Registry<Client>>,
    /// The paths of the local socket.
    pub(super) sockets: OnceLock<Arc<[String]>>,
}

impl Dispatcher {
    /// Accepts clients of `listener` and of the published ports, and spawns a task in `flows` for each.
    /// Never ends.
    pub(super) async fn serve(
        self: &Arc<Self>,
        listener: &Listener,
        of_ports: &mut mpsc::Receiver<(LocalStream, Purpose)>,
        flows: &mut JoinSet<()>,
    ) {
        let _ = self.sockets.set(listener.paths().into());
        loop {
            tokio::select! {
                local = listener.accept() => {
                    flows.spawn(self.clone().flow(local, Purpose::client()));
                }
                Some((local, purpose)) = of_ports.recv() => {
                    flows.spawn(self.clone().flow(local, purpose));
                }
                // Reaps ended tasks. A panic in one ends that flow only.
                Some(joined) = flows.join_next() => if let Err(e) = joined {
                    tracing::error!("a flow failed: {e}");
                }
            }
        }
    }

    async fn flow(self: Arc<Self>, local: LocalStream, purpose: Purpose) {
        self.placer.counters.flow_begins();
        let of_port = purpose.counters.clone();
        of_port.iter().for_each(|counters| counters.flow_begins());
        let guard = self.placer.settings.guard().filter(|_| purpose.is_to_engine());
        let carried = match guard {
            Some(guard) => guard::serve(self.clone(), self.placer.looks.clone(), guard, local).await,
            None if purpose.is_clients_to_engine() && self.placer.settings.target().api => {
                self.clone().converse(local, purpose).await
            }
            None => self.placer.clone().place_and_carry(local, purpose).await,
        };
        let end = carried.unwrap_or_else(|reason| {
            tracing::warn!("a flow was not opened: {reason}");
            End::Cut
        });
        if end.is_cut() {
            self.early.pings.forget();
        }
        self.placer.counters.flow_ends(end.is_cut());
        of_port.iter().for_each(|counters| counters.flow_ends(end.is_cut()));
        tracing::debug!("a flow ended: {end:?}");
    }

    /// Serves a client of the Engine's, request by request: each is placed once its head is here. Between two of them nothing
    /// but the client's connection is held, or a channel that may go without the client's noticing.
    async fn converse(self: Arc<Self>, mut local: LocalStream, purpose: Purpose) -> Result<End, String> {
        let (began, exchange) =
            (self.placer.settings.target(), Arc::new(Exchange::new(self.early.pings.clone(), self.sockets())));
        let mut settings = self.placer.settings.subscribe();
        let _entry = self.clients.enter((Arc::downgrade(&exchange), Who::pid_of(&local)));
        loop {
            let kind = loop {
                if let Some(kind) = exchange.ready() {
                    break kind;
                }
                tokio::select! {
                    read = local.read() => match read {
                        Ok(data) if !data.is_empty() => drop(exchange.client_sent(data)),
                        Ok(_) => if exchange.is_over() {
                            local.finish();
                            return Ok(End::Done);
                        },
                        Err(_) => return Ok(End::ClientGone),
                    },
                    () = exchange.overdue() => {}
                    () = exchange.cut() => {
                        local.reset();
                        return Ok(End::Cut);
                    }
                    // It asks nothing, and what it asked next would go to another host, or past a guard.
                    _ = settings.changed() => if !self.placer.may_go_on(&began) {
                        local.finish();
                        return Ok(End::Done);
                    }
                }
            };
            if exchange.is_first_ping()
                && self.placer.may_go_on(&began)
                && let Some(early) = self.early.answer()
            {
                if local.write_all(&early.answer).await.is_err() {
                    return Ok(End::ClientGone);
                }
                self.placer.counters.received(early.answer.len());
                let question = exchange.answer_early(&early);
                if early.is_to_be_checked {
                    let (dispatcher, client) = (self.clone(), exchange.clone());
                    tokio::spawn(async move { dispatcher.early.check(dispatcher.clone(), client, question).await });
                }
                continue;
            }
            if exchange.names_our_socket() {
                // Without a connection the request is refused when it is placed.
                or_gone(&local, self.until_connected()).await?;
                match self.engines_socket() {
                    Ok(path) => exchange.give_their_socket(&path),
                    Err(why) => {
                        let refusal = answer("400 Bad Request", &error_body(&format!("dtunnel: {why}")), true);
                        return Ok(match local.write_all(refusal.as_bytes()).await {
                            Ok(()) => {
                                local.finish();
                                End::Done
                            }
                            Err(_) => End::ClientGone,
                        });
                    }
                }
            }
            let placing = Placing {
                purpose: Purpose { kind, ..purpose.clone() },
                began: began.clone(),
                exchange: Some(exchange.clone()),
            };
            local = match self.placer.clone().place(local, placing).await? {
                Placed::Ended(end) => return Ok(end),
                Placed::Free(local) => local.move_here().map_err(|e| e.to_string())?,
            };
        }
    }

    /// Waits for a connection, for as long as a request may wait for one.
    async fn until_connected(&self) {
        self.placer.commands.send(Command::Use);
        let mut status = self.placer.status.subscribe();
        let _ = tokio::time::timeout(self.placer.settings.target().wait, settled(&mut status)).await;
    }

    /// The path of the Engine's socket on its host.
    ///
    /// # Errors
    /// What to say where that is not known.
    fn engines_socket(&self) -> Result<String, String> {
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

    fn sockets(&self) -> Arc<[String]> {
        self.sockets.get().cloned().unwrap_or_default()
    }

    /// Lets flows finish that are moving bytes, for at most the target's `drain`.
    pub(super) async fn drain(&self, flows: &mut JoinSet<()>) {
        let deadline = Instant::now() + self.placer.settings.target().drain;
        let moved = || self.placer.counters.snapshot().bytes();
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

impl Dial for Dispatcher {
    fn dial(self: Arc<Self>, purpose: Purpose) -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        tokio::spawn(async move {
            if let Err(reason) = self.placer.clone().place_and_carry(LocalStream::unix(theirs), purpose).await {
                tracing::debug!("a flow of our own was not opened: {reason}");
            }
        });
        Ok(ours)
    }

    fn target(&self) -> Arc<Target> {
        self.placer.settings.target()
    }

    fn with_engines_socket(&self, body: Bytes) -> Result<Bytes, String> {
        let found = binds::find(&body, &self.sockets());
        if found.is_empty() {
            return Ok(body);
        }
        Ok(binds::replaced(&body, &found, &self.engines_socket()?).into())
    }

    fn last_error(&self) -> Option<String> {
        self.placer.status.last_error()
    }
}
