//! A published port and its local port.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::{Container, Published};
use crate::os::local_stream::LocalStream;
use crate::os::{Whose, tcp_clients, tcp_listener};
use crate::sync::lock;
use crate::tunnel::client::listener::ACCEPT_PAUSE;
use crate::tunnel::client::turned_away::TurnedAway;
use crate::tunnel::counters::Counters;
use crate::tunnel::dial::Purpose;

/// The state of a published port on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// The local port is open.
    Open,
    /// Waits for `dtunnel ports --open`.
    Waiting,
    /// Another program has the local port.
    Taken,
    /// The local port needs root or CAP_NET_BIND_SERVICE.
    Privileged,
    /// The local port cannot be opened for another reason.
    Failed,
    /// It is not a TCP port (SSH forwards TCP only), or this machine lacks this one of the port's addresses.
    NotForwarded,
    /// The container uses the host's network and publishes no ports.
    HostNetwork,
}

/// A published port, as shown by `ports --json` and `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The container's name.
    pub container: String,
    /// The container's id.
    pub container_id: String,
    /// `tcp`, `udp` or `sctp`; empty for a container on the host's network.
    pub protocol: String,
    /// The address that the host publishes it on.
    pub remote_address: String,
    /// The port on the host; 0 for a container on the host's network.
    pub remote_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// The local address and port; None if not open.
    pub local: Option<String>,
    /// The state of the local port.
    pub state: PortState,
    /// The reason for the state, as text.
    pub reason: Option<String>,
    /// Flows open now.
    pub flows_open: u64,
    /// Bytes from the host.
    pub bytes_in: u64,
    /// Bytes to the host.
    pub bytes_out: u64,
}

impl std::fmt::Display for PortState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Waiting => "waiting",
            Self::Taken => "taken",
            Self::Privileged => "privileged",
            Self::Failed => "failed",
            Self::NotForwarded => "not forwarded",
            Self::HostNetwork => "host network",
        })
    }
}

impl PortState {
    /// Whether the state deserves a warning.
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Taken | Self::Privileged | Self::Failed)
    }
}

/// A published port that the settings request on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    container: String,
    container_id: String,
    /// None for a container on the host's network.
    port: Option<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Port {
    published: Published,
    /// The address that the SSH server connects to.
    host: String,
    /// The local address and port.
    local: SocketAddr,
}

impl Wanted {
    pub(super) fn host_network(container: &Container) -> Self {
        Self { container: container.name.clone(), container_id: container.id.clone(), port: None }
    }

    /// `host` is the Engine's host if SSH leads to another one; `address` replaces loopback.
    pub(super) fn new(
        container: &Container,
        published: &Published,
        host: Option<&str>,
        address: Option<IpAddr>,
    ) -> Self {
        let there = published.address;
        let loopback: IpAddr = match there {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let host = match host {
            Some(host) if there.is_unspecified() => host.to_owned(),
            _ if there.is_unspecified() => loopback.to_string(),
            _ => there.to_string(),
        };
        let here = match address {
            Some(address) if there.is_unspecified() && address.is_ipv4() == there.is_ipv4() => address,
            _ if there.is_loopback() => there,
            _ => loopback,
        };
        let local = SocketAddr::new(here, published.port);
        Self { port: Some(Port { published: published.clone(), host, local }), ..Self::host_network(container) }
    }

    /// What makes it the same port of the same container; the container's name may change.
    pub(super) fn identity(&self) -> (String, Option<Port>) {
        (self.container_id.clone(), self.port.clone())
    }

    /// Where the published port is here: two addresses of the host may be one here, which leads to the same.
    pub(super) fn place(&self) -> Option<(String, u16, SocketAddr)> {
        let port = self.port.as_ref().filter(|port| port.published.protocol == "tcp")?;
        Some((self.container_id.clone(), port.published.container_port, port.local))
    }

    /// As [`Mapping::rank`].
    pub(super) fn rank(&self) -> u8 {
        self.port.as_ref().map_or(u8::MAX, |port| match port.published.address {
            address if address == port.local.ip() => 0,
            address if address.is_unspecified() => 1,
            _ => 2,
        })
    }

    pub(super) fn remote_port(&self) -> u16 {
        self.port.as_ref().map_or(0, |port| port.published.port)
    }
}

/// A published port and its local listener, if open.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) wanted: Wanted,
    state: PortState,
    reason: Option<String>,
    /// The address that could not be bound at the last attempt, which may be another one of the port.
    obstacle: Option<SocketAddr>,
    open: Option<Open>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Open {
    local: SocketAddr,
    listening: Arc<Listening>,
    /// Accepts clients, for as long as it is here.
    _accepting: AbortOnDropHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // The port is free now, and not only when the task has noticed its end.
        lock(&self.listening.0).take();
    }
}

/// A listener that is closed at once, also while a task waits for its next client.
#[derive(Debug)]
struct Listening(Mutex<Option<TcpListener>>);

impl Listening {
    /// The next client; None once the listener is closed.
    async fn accept(&self) -> Option<io::Result<TcpStream>> {
        poll_fn(|context| match &*lock(&self.0) {
            Some(listener) => listener.poll_accept(context).map(|client| Some(client.map(|(stream, _)| stream))),
            None => Poll::Ready(None),
        })
        .await
    }
}

impl Mapping {
    /// A mapping that is not open yet.
    pub(super) fn new(wanted: Wanted) -> Self {
        let (state, reason) = match &wanted.port {
            None => (PortState::HostNetwork, Some("on the host's own network: nothing is published".to_owned())),
            Some(port) if port.published.protocol != "tcp" => {
                let protocol = port.published.protocol.to_uppercase();
                (PortState::NotForwarded, Some(format!("SSH does not carry {protocol}")))
            }
            Some(_) => (PortState::Waiting, None),
        };
        Self { wanted, state, reason, obstacle: None, open: None, counters: Arc::default() }
    }

    /// Updates the container's name and address.
    pub(super) fn now(self, wanted: Wanted) -> Self {
        Self { wanted, ..self }
    }

    pub(super) fn status(&self) -> PortStatus {
        let counters = self.counters.snapshot();
        let published = self.wanted.port.as_ref().map(|port| &port.published);
        PortStatus {
            container: self.wanted.container.clone(),
            container_id: self.wanted.container_id.clone(),
            protocol: published.map(|p| p.protocol.clone()).unwrap_or_default(),
            remote_address: published.map(|p| p.address.to_string()).unwrap_or_default(),
            remote_port: published.map_or(0, |p| p.port),
            container_port: published.map_or(0, |p| p.container_port),
            local: self.open.as_ref().map(|open| open.local.to_string()),
            state: self.state,
            reason: self.reason.clone(),
            flows_open: counters.flows_open,
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
        }
    }

    /// Whether opening has failed, so that a later attempt may succeed.
    pub(super) fn may_open_later(&self) -> bool {
        self.state.is_trouble()
    }

    /// Whether it waits for `dtunnel ports --open`.
    pub(super) fn is_waiting(&self) -> bool {
        self.state == PortState::Waiting
    }

    pub(super) fn tell_end(&self) {
        if let Some(open) = &self.open {
            tracing::info!(
                "port {} of {} is gone from {}",
                self.wanted.remote_port(),
                self.wanted.container,
                open.local
            );
        }
    }

    /// Waits for the user's consent.
    pub(super) fn waits(&mut self) {
        if self.open.is_none() && self.state != PortState::NotForwarded && self.wanted.port.is_some() {
            (self.state, self.reason) = (PortState::Waiting, Some("waits for `dtunnel ports --open`".into()));
        }
    }

    /// The wanted local address; None for what cannot be forwarded.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.wanted.port.as_ref().filter(|port| port.published.protocol == "tcp").map(|port| port.local)
    }

    /// Which of several ports gets a local address: the one that the host publishes on exactly this address, then one on
    /// all addresses, then others.
    pub(super) fn rank(&self) -> u8 {
        self.wanted.rank()
    }

    /// The published port, which may have several addresses.
    pub(super) fn port(&self) -> Option<(&str, u16, u16)> {
        let port = self.wanted.port.as_ref()?;
        Some((&self.wanted.container_id, port.published.port, port.published.container_port))
    }

    /// The container's id and the port on the host, if the port can be opened here.
    pub(super) fn can_open(&self) -> Option<(&str, u16)> {
        self.local()?;
        self.port().map(|(id, port, _)| (id, port))
    }

    /// The local address that is open, which may be another than the wanted one.
    pub(super) fn open_at(&self) -> Option<SocketAddr> {
        self.open.as_ref().map(|open| open.local)
    }

    /// Closes the local address; open flows continue.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Serves the published port at `listener`. `why` explains a local address other than the wanted one.
    pub(super) fn serve(&mut self, listener: TcpListener, why: Option<String>, clients: &Clients) {
        let Some(port) = &self.wanted.port else { return };
        let local = match listener.local_addr() {
            Ok(local) => local,
            Err(e) => return self.fails(&e, None),
        };
        match &why {
            Some(why) => {
                tracing::warn!("port {} of {} is at {local}: {why}", port.published.port, self.wanted.container);
            }
            None => tracing::info!("port {} of {} is at {local}", port.published.port, self.wanted.container),
        }
        let purpose = Purpose::port(port.host.clone(), port.published.port, self.counters.clone());
        let listening = Arc::new(Listening(Mutex::new(Some(listener))));
        let accepting = tokio::spawn(accept(listening.clone(), !local.ip().is_loopback(), purpose, clients.clone()));
        self.open = Some(Open { local, listening, _accepting: AbortOnDropHandle::new(accepting) });
        (self.state, self.reason, self.obstacle) = (PortState::Open, why, None);
    }

    /// Records why the local port cannot be opened: `address` could not be bound, which may be the port's other one.
    pub(super) fn fails(&mut self, error: &io::Error, address: Option<SocketAddr>) {
        let (state, why) = explain(error);
        let Some(own) = self.local() else { return };
        self.obstacle = address;
        let reason = match address.filter(|address| *address != own) {
            Some(other) => format!("{other} {why}; both addresses of a port open together"),
            None => format!("{own} {why}"),
        };
        self.cannot_open(state, reason);
    }

    /// The address that could not be bound at the last attempt, which may be another one of the port.
    pub(super) fn obstacle(&self) -> Option<SocketAddr> {
        self.obstacle
    }

    /// Records that this machine does not have the local address; another one of the port is open.
    pub(super) fn is_absent(&mut self) {
        let Some(own) = self.local() else { return };
        (self.state, self.reason) =
            (PortState::NotForwarded, Some(format!("this machine has no address {}", own.ip())));
    }

    /// Records that the local address is another container's, or goes with one that is.
    pub(super) fn is_anothers(&mut self, why: &str) {
        self.cannot_open(PortState::Taken, why.to_owned());
    }

    fn cannot_open(&mut self, state: PortState, reason: String) {
        if self.reason.as_ref() != Some(&reason) {
            tracing::warn!("port {} of {}: {reason}", self.wanted.remote_port(), self.wanted.container);
        }
        (self.state, self.reason) = (state, Some(reason));
    }

    pub(super) fn container(&self) -> &str {
        &self.wanted.container
    }
}

/// The state that a failure to bind means, and the words for it.
pub(super) fn explain(error: &io::Error) -> (PortState, String) {
    if tcp_listener::is_taken(error) {
        return (PortState::Taken, "is taken on this machine".into());
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => (PortState::Privileged, "needs root or CAP_NET_BIND_SERVICE".into()),
        _ => (PortState::Failed, format!("cannot be opened: {error}")),
    }
}

/// Where the clients of ports go.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    dispatcher: mpsc::Sender<(LocalStream, Purpose)>,
    turned_away: Arc<TurnedAway>,
}

impl Clients {
    pub(super) fn new(dispatcher: mpsc::Sender<(LocalStream, Purpose)>) -> Self {
        Self { dispatcher, turned_away: Arc::new(TurnedAway::new(" from a published port")) }
    }
}

/// Accepts clients and sends those of this user to the dispatcher, until the listener is closed.
async fn accept(listening: Arc<Listening>, open_to_all: bool, purpose: Purpose, clients: Clients) {
    while let Some(client) = listening.accept().await {
        match client.and_then(|stream| of_this_user(stream, open_to_all)) {
            Ok(Ok(stream)) => drop(clients.dispatcher.send((stream, purpose.clone())).await),
            Ok(Err(whose)) => clients.turned_away.add(whose),
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The inner error is that the client is not this user's.
fn of_this_user(stream: TcpStream, open_to_all: bool) -> io::Result<Result<LocalStream, Whose>> {
    match if open_to_all { Whose::ThisUsers } else { tcp_clients::whose(&stream)? } {
        Whose::ThisUsers => LocalStream::tcp(stream).map(Ok),
        whose => Ok(Err(whose)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: &str, host: Option<&str>, here: Option<&str>) -> (String, String) {
        let container = Container { id: "1".into(), name: "c".into(), host_network: false, published: vec![] };
        let published = Published {
            address: address.parse().expect("an address"),
            port: 80,
            container_port: 80,
            protocol: "tcp".into(),
        };
        let here = here.map(|here| here.parse().expect("an address"));
        let port = Wanted::new(&container, &published, host, here).port.expect("a port");
        (port.host, port.local.to_string())
    }

    #[test]
    fn a_port_is_here_where_a_local_engine_would_have_it() {
        for (address, host, here, expected) in [
            ("0.0.0.0", None, None, ("127.0.0.1", "127.0.0.1:80")),
            ("::", None, None, ("::1", "[::1]:80")),
            ("127.0.0.2", None, None, ("127.0.0.2", "127.0.0.2:80")),
            ("192.0.2.7", None, None, ("192.0.2.7", "127.0.0.1:80")),
            ("2001:db8::1", None, None, ("2001:db8::1", "[::1]:80")),
            ("0.0.0.0", Some("engine.lan"), None, ("engine.lan", "127.0.0.1:80")),
            ("127.0.0.1", Some("engine.lan"), None, ("127.0.0.1", "127.0.0.1:80")),
            ("0.0.0.0", None, Some("0.0.0.0"), ("127.0.0.1", "0.0.0.0:80")),
            ("::", None, Some("0.0.0.0"), ("::1", "[::1]:80")),
            ("127.0.0.1", None, Some("0.0.0.0"), ("127.0.0.1", "127.0.0.1:80")),
        ] {
            let (there, local) = wanted(address, host, here);
            assert_eq!((there.as_str(), local.as_str()), expected, "{address} {host:?} {here:?}");
        }
    }
}
