//! A connection of our own, by russh: setup, channels, and loss.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::client::{self, Handle};
use russh::keys::PublicKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use super::algorithms;
use super::auth;
use super::channel::{Channel, OpenError};
use super::command;
use super::context::ConnectContext;
use super::endpoint::Endpoint;
use super::error::{Error, Phase};
use super::handler::{Ended, SessionHandler, Visit};
use super::heard::{Heard, LastHeard};
use super::host_key::Verifier;
use super::host_key_update::Update;
use super::keyring::Kept;
use super::keys::Credentials;
use super::negotiated::{Login, Negotiated};
use super::prompter::Prompter;
use super::proxy_command::{Ends, ProxyCommand};
use super::step::{News, Step};
use super::transport::tcp;
use super::uncoupled::Uncoupled;
use crate::config::{Destination, Proxy, Target, UpdateHostKeys};
use crate::os;

/// Receive window of a channel, in bytes. A server may send this much ahead of its other messages, such as the window
/// adjustments for uploads. OpenSSH grants those 2 MiB at a time: with a window no larger, an upload keeps pace with a
/// concurrent download (docs/architecture.md, "the trap").
const WINDOW: u32 = 2 << 20;
/// The window if a round trip takes [`FAR`] or longer, or its time is unknown. An upload beside a download then gets
/// about half the download's rate.
const FAR_WINDOW: u32 = 4 << 20;
/// At this round trip, a window of 2 MiB allows 200 MB/s.
const FAR: Duration = Duration::from_millis(10);
/// Largest packet that the server may send, in bytes. With 32 KiB, as usual, downloads are up to a tenth slower
/// (docs/benchmarks.md); russh accepts 256 KiB.
const PACKET: u32 = 128 << 10;
/// Messages that may wait for a flow before its connection stalls: 3.2 MB at most.
const CHANNEL_MESSAGES: usize = 25;
/// Longest time for sending the disconnect message.
const GOODBYE: Duration = Duration::from_millis(500);
/// Longest wait for a server to announce its host keys.
const ANNOUNCING: Duration = Duration::from_secs(2);
/// An authenticated connection.
pub(super) struct Native {
    handle: Arc<Handle<SessionHandler>>,
    host: String,
    ended: watch::Receiver<Option<Ended>>,
    /// The host keys announced by the server.
    announced: watch::Receiver<Vec<PublicKey>>,
    verifier: Arc<Verifier>,
    negotiated: watch::Receiver<Negotiated>,
    login: Login,
    credentials: Credentials,
    /// The name under which this host's password is stored.
    password: Option<Kept>,
    /// The ProxyCommand this one runs through.
    _proxy: Option<Ends>,
    last_heard: LastHeard,
    /// Both addresses of its TCP connection; None over a jump host or ProxyCommand.
    ends: Option<(SocketAddr, SocketAddr)>,
    /// The connection this one runs through.
    hop: Option<Box<Native>>,
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Native {
    /// Connects, checks the host key and logs in.
    ///
    /// # Errors
    /// Any [`Error`]. Each step takes at most `target.connect_timeout`, not counting the
    /// time for questions to the user.
    pub(super) async fn establish(target: &Target, context: &ConnectContext) -> Result<Self, Error> {
        (context.on_step)(News::Step(Step::Connecting));
        let host = &target.ssh.host_name;
        match &target.ssh.proxy {
            Proxy::None => {
                let limit = context.tcp_limit.unwrap_or(target.connect_timeout);
                let (stream, greeting) = tokio::time::timeout(limit * target.ssh.connection_attempts, tcp(target))
                    .await
                    .map_err(|_| Error::Timeout { host: host.clone(), step: Phase::Tcp, limit })??;
                let tcp = stream.get_ref();
                let way = Way { ends: tcp.ends(), hop: None, round_trip: Some(tcp.round_trip()) };
                let made = Self::over(stream, target, way, context).await;
                made.map_err(|error| match (error, greeting.refusal(host, target.ssh.port)) {
                    (Error::Handshake { .. }, Some(refusal)) => refusal,
                    (Error::Timeout { .. }, Some(refusal @ Error::NotSsh { .. })) => refusal,
                    (error, _) => error,
                })
            }
            Proxy::Command(command) => {
                let (stream, proxy) = ProxyCommand::spawn(&target.expand_proxy_command(command)?, &context.prompter)?;
                let stream = Uncoupled::new(stream);
                let way = Way { ends: None, hop: None, round_trip: None };
                match Self::over(stream, target, way, context).await {
                    Ok(made) => Ok(Self { _proxy: Some(proxy), ..made }),
                    Err(error) => Err(proxy.explain(error).await),
                }
            }
            Proxy::Jump(hops) => Self::through(hops, target, context).await,
        }
    }

    /// Connects through `hops`, each its own authenticated connection.
    async fn through(hops: &[Destination], target: &Target, context: &ConnectContext) -> Result<Self, Error> {
        let mut way: Option<Self> = None;
        for (index, hop) in hops.iter().enumerate() {
            let context = &ConnectContext { leg: context.leg.hop(&hops[..index]), ..context.clone() };
            let hop = target.hop(hop, &context.leg)?;
            for keyword in &hop.ssh.not_obeyed {
                tracing::warn!("ssh_config sets `{keyword}` for {}; dtunnel ignores it", hop.destination);
            }
            way = Some(match way {
                None => Box::pin(Self::establish(&hop, context)).await?,
                Some(way) => way.onward(&hop, context).await?,
            });
        }
        match way {
            Some(way) => way.onward(target, context).await,
            None => Err(Error::Lost { host: target.ssh.host_name.clone(), message: "no hop was named".into() }),
        }
    }

    /// Connects to `target` from the host of this connection.
    async fn onward(self, target: &Target, context: &ConnectContext) -> Result<Self, Error> {
        let (host, port) = (&target.ssh.host_name, target.ssh.port);
        let began = Instant::now();
        let opening = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        let limit = target.connect_timeout;
        let channel = match tokio::time::timeout(limit, opening).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                let reason = match error {
                    russh::Error::ChannelOpenFailure(reason) => format!("{reason:?}"),
                    other => other.to_string(),
                };
                return Err(Error::Jump { hop: self.host.clone(), host: host.clone(), port, reason });
            }
            Err(_) => return Err(Error::Timeout { host: host.clone(), step: Phase::Tcp, limit }),
        };
        let stream = Uncoupled::new(channel.into_stream());
        let way = Way { ends: None, hop: Some(Box::new(self)), round_trip: Some(began.elapsed()) };
        Self::over(stream, target, way, context).await
    }

    /// Key exchange, host key and login over `stream`.
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        target: &Target,
        way: Way,
        context: &ConnectContext,
    ) -> Result<Self, Error> {
        let host = target.ssh.host_name.clone();
        let limit = target.connect_timeout;
        let mut context = context.clone();
        if target.ssh.batch_mode {
            context.prompter = context.prompter.without_people();
        }
        let prompter = &context.prompter;
        let verifier =
            Arc::new(Verifier::new(target, prompter, context.looks_only, way.ends.map(|(_, server)| server.ip())));
        let config = client::Config {
            client_id: russh::SshId::Standard(concat!("SSH-2.0-dtunnel_", env!("CARGO_PKG_VERSION")).into()),
            window_size: window(way.round_trip),
            maximum_packet_size: PACKET,
            channel_buffer_size: CHANNEL_MESSAGES,
            preferred: algorithms::preferred(&target.ssh, &verifier.known())?,
            keepalive_interval: target.keepalive,
            keepalive_max: target.keepalives(),
            nodelay: true,
            ..client::Config::default()
        };
        let (sender, ended) = watch::channel(None);
        let (announces, announced) = watch::channel(Vec::new());
        let (told, negotiated) = watch::channel(Negotiated::default());
        let visit = Visit::default();
        let client = SessionHandler {
            prompter: prompter.clone(),
            visit: visit.clone(),
            banner_lines: 0,
            host: host.clone(),
            verifier: verifier.clone(),
            ended: sender,
            announces,
            negotiated: told,
            on_step: context.on_step.clone(),
        };
        let last_heard = LastHeard::now();
        let stream = Heard { stream, last: last_heard.clone() };
        let mut handle = prompter
            .within(limit, client::connect_stream(Arc::new(config), stream, client))
            .await
            .ok_or_else(|| Error::Timeout { host: host.clone(), step: last_heard.handshake(), limit })?
            .map_err(|failure| failure.into_error(&host))?;
        (context.on_step)(News::Step(Step::Authenticating));
        let login = prompter.within(limit, auth::login(&mut handle, &ended, target, verifier.trust(), &context)).await;
        visit.ends();
        let login = login.ok_or_else(|| Error::Timeout { host: host.clone(), step: Phase::Login, limit })??;
        let password = Kept::password_for(target, &context.leg).ok();
        let credentials = context.credentials.clone();
        let handle = Arc::new(handle);
        let made = Self {
            handle,
            host,
            ended,
            announced,
            verifier,
            negotiated,
            login,
            credentials,
            password,
            _proxy: None,
            last_heard,
            ends: way.ends,
            hop: way.hop,
        };
        if !context.looks_only && target.ssh.update_host_keys == UpdateHostKeys::Ask && prompter.disturbs() {
            // A missing answer does not fail the login.
            let _ = prompter.within(limit, made.ask_about_host_keys(prompter)).await;
        }
        Ok(made)
    }

    /// Opens a channel to `endpoint` on the host. If the caller is cancelled, the channel is
    /// closed as soon as it is open.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) async fn open(&self, endpoint: &Endpoint) -> Result<Channel, OpenError> {
        let (handle, endpoint) = (self.handle.clone(), endpoint.clone());
        let waits = endpoint.is_command() && self.negotiated.borrow().server.contains("dropbear");
        // In its own task: if opening is cancelled, russh forgets the channel while the server keeps it open.
        let opening = tokio::spawn(async move {
            let opened = match &endpoint {
                Endpoint::Streamlocal(path) => handle.channel_open_direct_streamlocal(path).await,
                Endpoint::Tcp { host, port } => {
                    handle.channel_open_direct_tcpip(host, u32::from(*port), "127.0.0.1", 0).await
                }
                Endpoint::Command { command, .. } if waits => command::begin(&handle, command).await,
                Endpoint::Command { command, .. } => match handle.channel_open_session().await {
                    // The reply to the exec request is not awaited: that would cost a round trip.
                    Ok(channel) => channel.exec(true, command.as_str()).await.map(|()| channel),
                    Err(error) => Err(error),
                },
                Endpoint::Subsystem(name) => match handle.channel_open_session().await {
                    Ok(channel) => channel.request_subsystem(true, *name).await.map(|()| channel),
                    Err(error) => Err(error),
                },
            };
            opened
                .map(|inner| Channel::new(inner, endpoint.leads_to()))
                .map_err(|error| OpenError::new(&endpoint, error))
        });
        opening.await.unwrap_or(Err(OpenError::Lost))
    }

    /// Runs `true` in a session of its own, within 5 s: sshd then sends without delay (`ssh/command.rs`). Tells whether a
    /// command ran.
    pub(super) async fn run_true(&self) -> bool {
        command::run(&self.handle).await
    }

    /// The algorithms negotiated with the server.
    pub(super) fn negotiated(&self) -> Negotiated {
        self.negotiated.borrow().clone()
    }

    /// The methods tried and offered during the login.
    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    /// The time since the server's last byte.
    pub(super) fn last_heard(&self) -> Duration {
        self.last_heard.elapsed()
    }

    /// Whether the peer's TCP stack has acknowledged all data sent (RFC 9293 section 3.4). If so, the network path
    /// works, and the server itself is slow to answer. False if the system does not report it.
    pub(super) fn is_acknowledged(&self) -> bool {
        if let Some((ours, servers)) = self.ends {
            return os::tcp::is_acknowledged(ours, servers);
        }
        self.hop.as_ref().is_some_and(|hop| hop.is_acknowledged())
    }

    /// Sends a keepalive (`keepalive@openssh.com`) and waits for the answer. False if the connection is lost.
    pub(super) async fn ping(&self) -> bool {
        self.handle.send_ping().await.is_ok() && !self.handle.is_closed()
    }

    /// Sends a keepalive. Returns once it is sent or, with `answered`, once the answer has arrived: then everything the
    /// server sent earlier was read, its own requests included.
    ///
    /// OpenSSH's ClientAliveInterval counts any packet from the client (packet.c, `keep_alive_timeouts`), so a
    /// keepalive without an answer suffices. It is also better if little is read: to answer a global request sshd waits
    /// until all its data is written, and gives up after ClientAliveInterval times ClientAliveCountMax
    /// (`ssh_packet_write_wait`). Other servers may require answers to their own requests.
    pub(super) async fn show_life(&self, answered: bool) {
        if answered || !self.negotiated.borrow().server.contains("OpenSSH") {
            let _ = self.handle.send_ping().await;
            return;
        }
        let _ = self.handle.send_keepalive(false).await;
        // russh's session processes this local request in order, so earlier messages are being sent.
        let _ = self.handle.best_supported_rsa_hash().await;
    }

    /// Adds further host keys that the server announces and proves, and removes those it no longer has
    /// (`hostkeys-00@openssh.com`, PROTOCOL section 2.5 of OpenSSH). Never returns.
    pub(super) async fn learn_host_keys<T>(&self) -> T {
        let mut announced = self.announced.clone();
        announced.mark_changed();
        // With `UpdateHostKeys ask`, the user was asked before the tunnel was up.
        while announced.changed().await.is_ok() && self.verifier.target.ssh.update_host_keys == UpdateHostKeys::Yes {
            let keys = announced.borrow_and_update().clone();
            if let Some(update) = Update::of(&self.verifier, keys) {
                self.make(&update).await;
            }
        }
        std::future::pending().await
    }

    /// Handles one announcement for `UpdateHostKeys ask`, while the user waits for the connection.
    async fn ask_about_host_keys(&self, prompter: &Prompter) {
        // sshd announces its keys right after the login; no other server is known to announce any. A ping would not
        // help, since russh starts its session with the server's first message.
        if !self.negotiated.borrow().server.contains("OpenSSH") {
            return;
        }
        let mut announced = self.announced.clone();
        if announced.borrow().is_empty() && tokio::time::timeout(ANNOUNCING, announced.changed()).await.is_err() {
            return;
        }
        let keys = announced.borrow().clone();
        let Some(update) = Update::of(&self.verifier, keys) else { return };
        if update.is_agreed_to(&self.verifier, prompter).await {
            self.make(&update).await;
        } else {
            tracing::info!("{} announced its host keys; known_hosts is unchanged: nobody said yes", self.host);
        }
    }

    async fn make(&self, update: &Update) {
        if let Err(e) = self.handle.hostkeys_prove(update.to_prove.clone()).await {
            tracing::warn!("{} announced host keys, but could not prove that it has them: {e}", self.host);
            return;
        }
        update.make(&self.verifier);
        if let (Some(trust), Some(kept)) = (self.verifier.trust(), &self.password) {
            self.credentials.passwords.learnt(kept, trust, &update.new, &update.old).await;
        }
    }

    /// Waits for the end of the connection and returns its reason, if known.
    pub(super) async fn ended(&self) -> Error {
        let mut ended = self.ended.clone();
        // An error means that the session ended without giving a reason.
        let message = match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.as_ref().map(|ended| ended.text.clone()).unwrap_or_default(),
            Err(_) => String::new(),
        };
        Error::Lost { host: self.host.clone(), message }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a disconnect message (RFC 4253 section 11.1), with a short limit for a server that does not read.
    pub(super) async fn disconnect(&self) {
        let goodbye = async {
            let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
            let _ = self.ended.clone().wait_for(Option::is_some).await;
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// The route to a host.
struct Way {
    /// The local and remote address of the TCP connection; None over a jump host or ProxyCommand.
    ends: Option<(SocketAddr, SocketAddr)>,
    /// The connection to the previous hop, if any.
    hop: Option<Box<Native>>,
    /// The time until the first answer, if known.
    round_trip: Option<Duration>,
}

/// Chooses the receive window, [`WINDOW`] or [`FAR_WINDOW`].
fn window(round_trip: Option<Duration>) -> u32 {
    if round_trip.is_some_and(|time| time < FAR) { WINDOW } else { FAR_WINDOW }
}
