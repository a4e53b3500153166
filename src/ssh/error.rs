//! Why there is no SSH connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a connection could not be made or was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name has no address.
    #[error("cannot resolve the host name `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address of the host accepted a TCP connection.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        /// The name or address.
        host: String,
        /// The TCP port.
        port: u16,
        /// What the last address tried said.
        source: io::Error,
    },
    /// ProxyCommand could not be started.
    #[error("cannot run the ProxyCommand `{command}`")]
    ProxyCommand {
        /// The command, tokens replaced.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A host on the way did not open a connection to the next one.
    #[error("the jump host {hop} cannot reach {host} port {port}: {reason}")]
    Jump {
        /// The host on the way.
        hop: String,
        /// The next one.
        host: String,
        /// Its port.
        port: u16,
        /// The server's reason.
        reason: String,
    },
    /// A step took longer than `connect_timeout`.
    #[error("{host} did not answer within {} ({step})", humantime::format_duration(*.limit))]
    Timeout {
        /// The host.
        host: String,
        /// `TCP connection`, `SSH handshake` or `login`.
        step: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The server speaks no SSH, no common algorithm, or closed the connection half-way.
    #[error("the SSH handshake with {host} failed")]
    Handshake {
        /// The host.
        host: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server closed the connection before it greeted, most likely because it is too busy
    /// (MaxStartups, PerSourcePenalties; sshd_config(5)).
    #[error("{host} turned the connection away{}", said(.message))]
    TurnedAway {
        /// The host.
        host: String,
        /// What it said instead of a greeting.
        message: String,
    },
    /// The host's key is another than the known one.
    #[error(
        "the host key of {host} has CHANGED: {expected_type} {expected} in {file}:{line}, but the server sent {key_type} {fingerprint}"
    )]
    HostKeyChanged {
        /// The name it was looked up under.
        host: String,
        /// Type of the known key.
        expected_type: String,
        /// Fingerprint of the known key.
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
        /// Its fingerprint.
        fingerprint: String,
        /// Why it was not asked about or not accepted.
        reason: &'static str,
    },
    /// The server accepted none of the ways to log in.
    #[error("{account} could not log in: {}", reason(.tried, .offered))]
    Auth {
        /// `user@host`.
        account: String,
        /// What was tried, for people.
        tried: Vec<String>,
        /// What the server would still have accepted; empty where it did not say.
        offered: Vec<String>,
    },
    /// The server ended the connection during login, for instance after too many keys.
    #[error("{host} closed the connection during login{}", said(.message))]
    AuthClosed {
        /// The host.
        host: String,
        /// The server's words, if any.
        message: String,
        /// What had been tried.
        tried: Vec<String>,
    },
    /// A question needs a person, and there is none (or none that wants to answer).
    #[error("{account} could not log in: {}; {what} would be needed, and nobody was there to give it", attempts(.tried))]
    NeedsPerson {
        /// `user@host`.
        account: String,
        /// What was tried, for people.
        tried: Vec<String>,
        /// What was needed.
        what: String,
    },
    /// ssh_config lists no algorithm that we have.
    #[error("none of the {keyword} in ssh_config for this host is one that dtunnel has")]
    NoAlgorithm {
        /// The keyword.
        keyword: &'static str,
    },
    /// A hop could not be resolved.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// The connection ended.
    #[error("the connection to {host} was lost{}", said(.message))]
    Lost {
        /// The host.
        host: String,
        /// Why, as far as is known.
        message: String,
    },
}

fn reason(tried: &[String], offered: &[String]) -> String {
    let tried =
        if tried.is_empty() { "there was nothing to try".into() } else { format!("tried {}", tried.join(", ")) };
    if offered.is_empty() { tried } else { format!("{tried}; the server accepts {}", offered.join(", ")) }
}

fn attempts(tried: &[String]) -> String {
    if tried.is_empty() { "there was nothing to try".into() } else { format!("tried {}", tried.join(", ")) }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// What kind of failure this is: decides the exit code and whether time can cure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host cannot be reached; may pass.
    Unreachable,
    /// The host key was refused; stays until somebody acts.
    HostKey,
    /// The login was refused or needs a person; stays until somebody acts.
    Auth,
    /// A setting is wrong; stays until somebody acts.
    Config,
}

impl Error {
    /// The step in which nothing but TCP is at work.
    pub(crate) const TCP: &str = "TCP connection";

    /// Was the host not even reached?
    pub fn is_unreached(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => true,
            Self::Timeout { step, .. } => *step == Self::TCP,
            _ => false,
        }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ProxyCommand { .. }
            | Self::Jump { .. }
            | Self::Timeout { .. }
            | Self::Handshake { .. }
            | Self::TurnedAway { .. }
            | Self::Lost { .. } => Kind::Unreachable,
            Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostKeyUncheckable { .. }
            | Self::HostKeyUnknown { .. } => Kind::HostKey,
            Self::Auth { .. } | Self::AuthClosed { .. } | Self::NeedsPerson { .. } => Kind::Auth,
            Self::Config(_) | Self::NoAlgorithm { .. } => Kind::Config,
        }
    }

    /// What to do about it, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Resolve { .. } => "check the spelling, the network and, for a company's names, the VPN".into(),
            Self::Connect { source, port, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                format!("the host is there, but nothing listens on port {port}: is sshd running, and on that port?")
            }
            Self::Connect { .. } | Self::Timeout { .. } => {
                "is the host up and the port open from here? a firewall that drops packets looks like this".into()
            }
            Self::Jump { .. } => "can the jump host resolve and reach that name, and does its AllowTcpForwarding permit it?".into(),
            Self::ProxyCommand { .. } => "run the command by hand to see what it says".into(),
            Self::TurnedAway { .. } => {
                "is it an SSH server, and is it very busy? MaxStartups and PerSourcePenalties in its sshd_config limit this".into()
            }
            Self::Handshake { .. } => "is it an SSH server? `ssh -v` to the same host and port shows its side".into(),
            Self::HostKeyChanged { file, line, host, .. } => format!(
                "somebody may be listening in, or the host was set up anew. Ask its administrator for the new fingerprint; \
                 only then remove line {line} of {}, with: ssh-keygen -f '{0}' -R '{host}'",
                file.display()
            ),
            Self::HostKeyRevoked { .. } => "do not connect; ask the host's administrator".into(),
            Self::HostKeyUncheckable { .. } => {
                "a revoked key must not be trusted, so that nothing is connected to before this is mended in ssh_config".into()
            }
            Self::HostKeyUnknown { .. } => {
                "run `dtunnel up` in a terminal to be asked, or add the key to known_hosts after comparing its fingerprint".into()
            }
            Self::Auth { tried, .. } if tried.is_empty() => {
                "add a key to the ssh-agent, or name one with identity_files in the profile or IdentityFile in ssh_config".into()
            }
            Self::Auth { account, .. } => format!(
                "is the public key in ~/.ssh/authorized_keys there, and is this the right user? `ssh -v {account}` shows more"
            ),
            Self::AuthClosed { .. } => {
                "with many keys in the agent, name the right one (identity_files) and set IdentitiesOnly yes in ssh_config".into()
            }
            Self::NeedsPerson { .. } => "run `dtunnel up` in a terminal, or load the key into an ssh-agent".into(),
            Self::Lost { .. } => return None,
            Self::NoAlgorithm { keyword } => {
                format!("leave {keyword} out, or begin its list with `+`; docs/configuration.md names what there is")
            }
            Self::Config(e) => return e.hint(),
        })
    }
}
