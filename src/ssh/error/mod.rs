//! Errors of connecting and logging in over SSH.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::MissingMethod;

mod hint;
mod kind;
mod tried;

pub use kind::Kind;
pub use tried::{Skipped, Tried};

/// What ssh says where a server closes the connection before its identification line.
const TURNED_AWAY: [&str; 2] =
    ["kex_exchange_identification: Connection closed", "kex_exchange_identification: read: "];
/// Lines of the machine's ssh that are shown.
const MOST_SAID_BY_SSH: usize = 3;

/// A phase of connecting that has a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// DNS resolution.
    Resolution,
    /// The TCP connection, before any SSH.
    Tcp,
    /// The server's identification line.
    Greeting,
    Handshake,
    /// The key exchange, once the server's identification line is here: large packets, which may be lost.
    KeyExchange,
    Login,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolution => "name resolution",
            Self::Tcp => "TCP connection",
            Self::Greeting => "greeting",
            Self::Handshake => "SSH handshake",
            Self::KeyExchange => "SSH key exchange, after its greeting",
            Self::Login => "login",
        })
    }
}

/// Why a server closed the connection before its identification line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// It reported too many logins in progress (MaxStartups, sshd_config(5)).
    TooBusy,
    Silent,
    Other,
}

/// Why a connection could not be made or was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name has no address.
    #[error("cannot resolve the host name `{host}`")]
    Resolve {
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// No address of the host accepted a TCP connection.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        host: String,
        port: u16,
        /// The error of the last address tried.
        source: io::Error,
    },
    /// The ProxyCommand could not be started.
    #[error("cannot run the ProxyCommand `{command}`")]
    ProxyCommand {
        /// The command, tokens replaced.
        command: String,
        source: io::Error,
    },
    /// A jump host did not open a connection to the next host.
    #[error("the jump host {hop} cannot reach {host} port {port}: {reason}")]
    Jump { hop: String, host: String, port: u16, reason: String },
    /// A step took longer than `connect_timeout`.
    #[error("{host} did not answer within {} ({step})", humantime::format_duration(*.limit))]
    Timeout { host: String, step: Phase, limit: Duration },
    /// The server speaks no SSH or closed the connection during the handshake.
    #[error("the SSH handshake with {host} failed")]
    Handshake { host: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// The server closed the connection before its identification line, most likely because it is too busy
    /// (MaxStartups, PerSourcePenalties; sshd_config(5)).
    #[error("{host} turned the connection away{}", words(.message))]
    TurnedAway {
        host: String,
        /// The server's text in place of its identification line.
        message: String,
        why: TurnedAway,
    },
    /// Another kind of server answers on this port.
    #[error("{what} answers on {host} port {port}, not an SSH server{}", words(.message))]
    NotSsh {
        host: String,
        port: u16,
        /// The kind of server it seems to be.
        what: &'static str,
        /// The beginning of the server's data.
        message: String,
    },
    /// The two sides have no algorithm of one kind in common.
    #[error(
        "{host} and dtunnel have no {kind} in common: the server offers {}; dtunnel offers {}",
        .theirs.join(", "),
        .ours.join(", ")
    )]
    NoCommonAlgorithm {
        host: String,
        /// The kind of algorithm: key exchange, host key …
        kind: &'static str,
        /// Its ssh_config keyword.
        keyword: &'static str,
        ours: Vec<String>,
        theirs: Vec<String>,
    },
    /// The ProxyCommand ran but gave no connection.
    #[error("the ProxyCommand `{command}` {how}{}", words(&.said.join("; ")))]
    Proxy {
        /// The command, tokens replaced.
        command: String,
        how: String,
        /// The last lines of its standard error.
        said: Vec<String>,
    },
    /// The server's key differs from the known one.
    #[error(
        "the host key of {host} has CHANGED: {expected_type} {expected} in {file}:{line}, but the server sent {key_type} {fingerprint}"
    )]
    HostKeyChanged {
        /// The host's name in known_hosts.
        host: String,
        expected_type: String,
        expected: String,
        /// The file that holds the known key.
        file: PathBuf,
        /// Its line number there, from 1.
        line: usize,
        /// Type of the key that the server sent.
        key_type: String,
        /// Fingerprint of the key that the server sent.
        fingerprint: String,
    },
    /// The host's key, or the authority that signed it, is revoked.
    #[error("the host key of {host} is marked as revoked in {place}")]
    HostKeyRevoked {
        /// The host's name in known_hosts.
        host: String,
        /// The file that revokes it, or its line (`FILE:LINE`).
        place: String,
    },
    /// A source that may revoke the host's key cannot be checked.
    #[error("the host key of {host} cannot be checked: {reason}")]
    HostKeyUncheckable {
        /// The host's name in known_hosts.
        host: String,
        /// The source, and why it cannot be checked.
        reason: String,
    },
    /// The host's key is unknown and was not confirmed.
    #[error("the host key of {host} is not known ({key_type} {fingerprint}) and {reason}")]
    HostKeyUnknown {
        /// The host's name in known_hosts.
        host: String,
        /// Type of the key that the server sent.
        key_type: String,
        fingerprint: String,
        /// Why it was not asked about or not accepted.
        reason: Unconfirmed,
    },
    /// The server accepted no login method.
    #[error("{account} could not log in: {tried}{}", accepts(.offered))]
    Auth {
        /// `user@host`.
        account: String,
        /// The methods and keys tried.
        tried: Tried,
        /// The methods the server would still accept; empty if unknown.
        offered: Vec<String>,
        /// Methods set in ssh_config that could have worked but are not supported by dtunnel.
        missing: Vec<MissingMethod>,
    },
    /// The server ended the connection during login, for instance after too many keys.
    #[error("{host} closed the connection during login{}", words(.message))]
    AuthClosed {
        host: String,
        /// The server's message; may be empty.
        message: String,
        /// Whether the server sent the message. False if the connection was lost, as on a network failure.
        is_said: bool,
        tried: Tried,
    },
    /// The server neither accepted nor refused the password: it wants a new one.
    #[error(
        "{account} could not log in: the server neither accepts nor refuses the password and waits for more; most likely the \
         password has expired, and the server wants a new one"
    )]
    PasswordExpired {
        /// `user@host`.
        account: String,
        port: u16,
    },
    /// A question needs the user, and there is no terminal, or the user declined.
    #[error("{account} could not log in: {tried}; {what} is needed, and there is no terminal to ask for it")]
    NeedsPerson {
        /// `user@host`.
        account: String,
        /// The methods and keys tried.
        tried: Tried,
        what: String,
        /// As in [`Error::Auth`].
        missing: Vec<MissingMethod>,
    },
    /// The machine's ssh could not be started.
    #[error("cannot start ssh, which is to carry the tunnel")]
    OpenSshStart { source: io::Error },
    /// The machine's ssh gave no connection.
    #[error("{account} could not be reached by the machine's ssh{}", words(&.said.join("; ")))]
    OpenSsh {
        /// `user@host`.
        account: String,
        /// The last lines of what it said.
        said: Vec<String>,
        /// The kind of failure, as far as its words tell.
        kind: Kind,
    },
    /// ssh_config lists no algorithm that dtunnel supports.
    #[error("dtunnel supports none of the {keyword} in ssh_config for this host")]
    NoAlgorithm { keyword: &'static str },
    /// A hop could not be resolved.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// The connection ended.
    #[error("the connection to {host} was lost{}", words(.message))]
    Lost {
        host: String,
        /// The reason, if known; may be empty.
        message: String,
    },
}

/// Why an unknown key was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconfirmed {
    /// StrictHostKeyChecking is `yes`.
    Strict,
    /// The host's name in known_hosts would be a pattern or several names.
    OddName,
    /// UserKnownHostsFile is `none`.
    NoFile,
    /// The caller only inspects the host and does not ask.
    NotAsked,
    /// There was no terminal to ask.
    Nobody,
    /// The user said no, or gave no valid answer.
    Refused,
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "StrictHostKeyChecking is yes",
            Self::OddName => "cannot be stored: known_hosts would read the host's name as a pattern or a list",
            Self::NoFile => "cannot be stored: UserKnownHostsFile is none",
            Self::NotAsked => "this command does not ask about it",
            Self::Nobody => "there is no terminal to confirm it at",
            Self::Refused => "it was not accepted",
        })
    }
}

/// What ssh says where it fails (ssh.c, sshconnect.c and sshconnect2.c of OpenSSH), and what kind of failure it is.
const WORDS_OF_SSH: [(&str, Kind); 7] = [
    ("Host key verification failed", Kind::HostKey),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Kind::HostKey),
    ("KnownHostsCommand failed", Kind::HostKey),
    ("Permission denied", Kind::Auth),
    ("Too many authentication failures", Kind::Auth),
    ("Bad configuration option", Kind::Config),
    ("terminating, ", Kind::Config),
];

impl Error {
    /// Of the machine's ssh, with its last lines and the question that nobody has answered.
    pub(in crate::ssh) fn of_openssh(
        account: String,
        host: String,
        mut said: Vec<String>,
        unanswered: Option<String>,
    ) -> Self {
        let known = WORDS_OF_SSH.iter().find(|(words, _)| said.iter().any(|line| line.contains(words)));
        let kind = known.map_or(Kind::Unreachable, |(_, kind)| *kind);
        // Its last lines tell why; those before may be a banner.
        said.drain(..said.len().saturating_sub(MOST_SAID_BY_SSH));
        let turned_away = said.iter().find(|line| TURNED_AWAY.iter().any(|words| line.contains(words)));
        if let Some(message) = turned_away {
            return Self::TurnedAway { host, message: message.clone(), why: TurnedAway::Silent };
        }
        match unanswered {
            Some(question) if kind == Kind::Auth => {
                let what = format!("an answer to `{}`", question.trim_end());
                Self::NeedsPerson { account, tried: Tried::default(), what, missing: Vec::new() }
            }
            _ => Self::OpenSsh { account, said, kind },
        }
    }
}

impl Error {
    /// The same where the machine's ssh has tried what dtunnel's own lacks.
    pub(in crate::ssh) fn without_missing(mut self) -> Self {
        if let Self::Auth { missing, .. } | Self::NeedsPerson { missing, .. } = &mut self {
            missing.clear();
        }
        self
    }
}

fn accepts(offered: &[String]) -> String {
    if offered.is_empty() { String::new() } else { format!("; the server accepts {}", offered.join(", ")) }
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
