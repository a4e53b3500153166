//! What a server says on its own, as russh hands it to us.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Names};
use tokio::sync::watch;

use super::error::Error;
use super::host_key::Verifier;
use super::negotiated::Negotiated;
use super::prompter::{Hold, Prompter};
use super::step::{News, OnStep, Step};
use crate::sync::lock;
use crate::text::{self, shown as printable};

/// Most names of algorithms that are told.
const MOST_NAMES: usize = 30;

/// Most lines of its banners that a server can have shown and written to the log.
const MOST_BANNER_LINES: usize = 30;
/// Longest time for a person who sees it to log in at an address that a banner names. (The server's own LoginGraceTime
/// may be over before.)
const VISIT: Duration = Duration::from_secs(300);

/// Time that a person has to visit an address that the server's banner names.
#[derive(Clone, Default)]
pub(super) struct Visit(Arc<Mutex<Option<Hold>>>);

impl Visit {
    pub(super) fn begins(&self, prompter: &Prompter) {
        let mut hold = lock(&self.0);
        hold.get_or_insert_with(|| prompter.hold_for_visit(VISIT));
    }

    pub(super) fn ends(&self) {
        drop(lock(&self.0).take());
    }
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) text: String,
    /// Did the server say so (RFC 4253 section 11.1), or was the connection just gone?
    pub(super) is_said: bool,
}

/// russh's view of us.
pub(super) struct SessionHandler {
    pub(super) prompter: Prompter,
    pub(super) visit: Visit,
    /// Lines of banners that were told.
    pub(super) banner_lines: usize,
    pub(super) host: String,
    pub(super) verifier: Arc<Verifier>,
    pub(super) ended: watch::Sender<Option<Ended>>,
    pub(super) announces: watch::Sender<Vec<PublicKey>>,
    pub(super) negotiated: watch::Sender<Negotiated>,
    pub(super) on_step: OnStep,
}

/// What can go wrong inside russh's session: its own errors, or our verdict on the host key.
#[derive(Debug)]
pub(super) enum Failure {
    Russh(russh::Error),
    Ours(Box<Error>),
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self::Russh(error)
    }
}

impl Failure {
    pub(super) fn into_error(self, host: &str) -> Error {
        match self {
            Self::Ours(error) => *error,
            Self::Russh(russh::Error::NoCommonAlgo { kind, ours, theirs }) => {
                let (kind, keyword) = match kind {
                    AlgorithmKind::Kex => ("key exchange", "KexAlgorithms"),
                    AlgorithmKind::Key => ("type of host key", "HostKeyAlgorithms"),
                    AlgorithmKind::Cipher => ("cipher", "Ciphers"),
                    AlgorithmKind::Compression => ("compression", "Compression"),
                    AlgorithmKind::Mac => ("MAC", "MACs"),
                };
                // The other side's list is as long as it likes.
                let shown = |names: Vec<String>| names.iter().take(MOST_NAMES).map(|name| printable(name)).collect();
                Error::NoCommonAlgorithm { host: host.into(), kind, keyword, ours: shown(ours), theirs: shown(theirs) }
            }
            Self::Russh(error) => Error::Handshake { host: host.into(), source: Box::new(error) },
        }
    }
}

impl client::Handler for SessionHandler {
    type Error = Failure;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        (self.on_step)(News::Step(Step::HostKey));
        match self.verifier.verify(key).await {
            Ok(()) => Ok(true),
            Err(error) => Err(Failure::Ours(Box::new(error))),
        }
    }

    async fn kex_done(&mut self, _: Option<&[u8]>, names: &Names, session: &mut Session) -> Result<(), Failure> {
        let server = printable(&String::from_utf8_lossy(session.remote_sshid()));
        let negotiated = Negotiated::new(server, names);
        (self.on_step)(News::Agreed(negotiated.clone()));
        self.negotiated.send_replace(negotiated);
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Failure> {
        for line in banner.split(['\n', '\r']).map(printable).filter(|line| !line.is_empty()) {
            if self.banner_lines == MOST_BANNER_LINES {
                break;
            }
            self.banner_lines += 1;
            tracing::info!("banner of {}: {line}", self.host);
            if text::names_address(&line) {
                self.visit.begins(&self.prompter);
            }
            self.prompter.tell_once(line);
        }
        Ok(())
    }

    async fn openssh_ext_host_keys_announced(&mut self, keys: Vec<PublicKey>, _: &mut Session) -> Result<(), Failure> {
        self.announces.send_replace(keys);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failure>) -> Result<(), Failure> {
        let is_said = matches!(reason, DisconnectReason::ReceivedDisconnect(_));
        let text = match reason {
            DisconnectReason::ReceivedDisconnect(info) => format!("the server said: {}", printable(&info.message)),
            DisconnectReason::Error(Failure::Russh(error)) => match error {
                russh::Error::KeepaliveTimeout => "it no longer answers".into(),
                russh::Error::HUP | russh::Error::Disconnect => "it was closed".into(),
                other => other.to_string(),
            },
            DisconnectReason::Error(Failure::Ours(error)) => error.to_string(),
        };
        self.ended.send_replace(Some(Ended { text, is_said }));
        Ok(())
    }

    // A server has no business opening channels to us: we never asked for forwarding. russh's
    // defaults accept; dropping the handle refuses.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: russh::Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: russh::Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        reply: client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        drop(reply);
        Ok(())
    }
}
