//! Why there is no SSH connection.

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

/// A part of making a connection that has a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Finding the name's addresses.
    Resolution,
    /// TCP, where nothing of SSH is at work yet.
    Tcp,
    /// The server's first line.
    Greeting,
    Handshake,
    Login,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolution => "name resolution",
            Self::Tcp => "TCP connection",
            Self::Greeting => "greeting",
            Self::Handshake => "SSH handshake",
            Self::Login => "login",
        })
    }
}

/// Why a server closes before it greets, as far as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// It says that too many log in at the moment (MaxStartups, sshd_config(5)).
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
        /// What the resolver said.
        source: io::Error,
    },
    /// No address of the host accepted a TCP connection.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        host: String,
        port: u16,
        /// What the last address tried said.
        source: io::Error,
    },
    /// ProxyCommand could not be started.
    #[error("cannot run the ProxyCommand `{command}`")]
    ProxyCommand {
        /// The command, tokens replaced.
        command: String,
        source: io::Error,
    },
    /// A host on the way did not open a connection to the next one.
    #[error("the jump host {hop} cannot reach {host} port {port}: {reason}")]
    Jump { hop: String, host: String, port: u16, reason: String },
    /// A step took longer than `connect_timeout`.
    #[error("{host} did not answer within {} ({step})", humantime::format_duration(*.limit))]
    Timeout { host: String, step: Phase, limit: Duration },
    /// The server speaks no SSH, no common algorithm, or closed the connection half-way.
    #[error("the SSH handshake with {host} failed")]
    Handshake { host: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// The server closed the connection before it greeted, most likely because it is too busy
    /// (MaxStartups, PerSourcePenalties; sshd_config(5)).
    #[error("{host} turned the connection away{}", words(.message))]
    TurnedAway {
        host: String,
        /// What it said instead of a greeting.
        message: String,
        why: TurnedAway,
    },
    /// Something answers, but it is no SSH server.
    #[error("{what} answers on {host} port {port}, not an SSH server{}", words(.message))]
    NotSsh {
        host: String,
        port: u16,
        /// What it seems to be.
        what: &'static str,
        /// The beginning of what it said.
        message: String,
    },
    /// Each side has algorithms, but none of one kind is the same.
    #[error(
        "{host} and dtunnel have no {kind} in common: the server offers {}; dtunnel offers {}",
        .theirs.join(", "),
        .ours.join(", ")
    )]
    NoCommonAlgorithm {
        host: String,
        /// What for: key exchange, host key …
        kind: &'static str,
        /// The keyword of ssh_config.
        keyword: &'static str,
        ours: Vec<String>,
        theirs: Vec<String>,
    },
    /// A ProxyCommand ran, but brought no connection.
    #[error("the ProxyCommand `{command}` {how}{}", words(&.said.join("; ")))]
    Proxy {
        /// The command, tokens replaced.
        command: String,
        how: String,
        /// The last lines of what it said.
        said: Vec<String>,
    },
    /// The host's key is another than the known one.
    #[error(
        "the host key of {host} has CHANGED: {expected_type} {expected} in {file}:{line}, but the server sent {key_type} {fingerprint}"
    )]
    HostKeyChanged {
        /// The name it was looked up under.
        host: String,
        expected_type: String,
        expected: String,
        /// Where it is known from.
        file: PathBuf,
        /// 1-based line there.
        line: usize,
        /// Type of the key that came.
        key_type: String,
        /// Fingerprint of the key that came.
        fingerprint: String,
    },
    /// The host's key, or the authority that signed it, is revoked.
    #[error("the host key of {host} is marked as revoked in {place}")]
    HostKeyRevoked {
        /// The name it was looked up under.
        host: String,
        /// What says so: a file, or its line (`FILE:LINE`).
        place: String,
    },
    /// Something that has a say in the trust in the host's key cannot be asked.
    #[error("the host key of {host} cannot be checked: {reason}")]
    HostKeyUncheckable {
        /// The name it would be looked up under.
        host: String,
        /// What cannot be asked, and why.
        reason: String,
    },
    /// The host's key is not known, and nobody said that it may be trusted.
    #[error("the host key of {host} is not known ({key_type} {fingerprint}) and {reason}")]
    HostKeyUnknown {
        /// The name it was looked up under.
        host: String,
        /// Type of the key that came.
        key_type: String,
        fingerprint: String,
        /// Why it was not asked about or not accepted.
        reason: Unconfirmed,
    },
    /// The server accepted none of the ways to log in.
    #[error("{account} could not log in: {tried}{}", accepts(.offered))]
    Auth {
        /// `user@host`.
        account: String,
        /// What was tried, for people.
        tried: Tried,
        /// What the server would still have accepted; empty where it did not say.
        offered: Vec<String>,
        /// Ways that ssh_config chooses, that could have worked, and that dtunnel does not have.
        missing: Vec<MissingMethod>,
    },
    /// The server ended the connection during login, for instance after too many keys.
    #[error("{host} closed the connection during login{}", words(.message))]
    AuthClosed {
        host: String,
        /// The server's words, if any.
        message: String,
        /// Are they the server's, or was the connection just gone, as where the network is cut?
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
    /// A question needs a person, and there is none (or none that wants to answer).
    #[error("{account} could not log in: {tried}; {what} is needed, and there is no terminal to ask for it")]
    NeedsPerson {
        /// `user@host`.
        account: String,
        /// What was tried, for people.
        tried: Tried,
        what: String,
        /// As with [`Error::Auth`].
        missing: Vec<MissingMethod>,
    },
    /// ssh_config lists no algorithm that we have.
    #[error("dtunnel supports none of the {keyword} in ssh_config for this host")]
    NoAlgorithm { keyword: &'static str },
    /// A hop could not be resolved.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// The connection ended.
    #[error("the connection to {host} was lost{}", words(.message))]
    Lost {
        host: String,
        /// Why, as far as is known.
        message: String,
    },
}

/// Why a key that is not known was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconfirmed {
    /// ssh_config says so.
    Strict,
    /// A line for it would be a pattern, or several names.
    OddName,
    /// UserKnownHostsFile is `none`.
    NoFile,
    /// Whoever only looks asks nobody.
    NotAsked,
    /// There was nobody to ask.
    Nobody,
    /// Somebody said no, or nothing that is an answer.
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

fn accepts(offered: &[String]) -> String {
    if offered.is_empty() { String::new() } else { format!("; the server accepts {}", offered.join(", ")) }
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
