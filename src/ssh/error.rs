//! Why there is no SSH connection.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::MissingMethod;

/// A part of making a connection that has a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Finding the name's addresses.
    Resolution,
    /// TCP, where nothing of SSH is at work yet.
    Tcp,
    /// The server's first line.
    Greeting,
    /// Key exchange.
    Handshake,
    /// Logging in.
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
    /// It says nothing.
    Silent,
    /// It says something else.
    Other,
}

/// A key or an agent that was not used for logging in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file or agent.
    pub what: String,
    /// Why it was not used.
    pub why: String,
    /// The line to type, where there is one.
    pub fix: Option<String>,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What came of the ways to log in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// What the server accepted, but it wanted more.
    pub accepted: Vec<String>,
    /// What the server refused.
    pub refused: Vec<String>,
    /// What it was not asked about.
    pub skipped: Vec<Skipped>,
    /// The line that would have a refused key accepted.
    pub copy_id: Option<String>,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped: Vec<String> = self.skipped.iter().map(ToString::to_string).collect();
        let all = [("accepted", &self.accepted), ("refused", &self.refused)];
        let said = all.iter().filter(|(_, list)| !list.is_empty());
        let mut parts: Vec<String> = said.map(|(how, list)| format!("the server {how} {}", list.join(", "))).collect();
        if parts.is_empty() {
            parts.push("there was nothing to try".into());
        }
        if !skipped.is_empty() {
            parts.extend(skipped.iter().map(|skipped| format!("skipped {skipped}")));
        }
        f.write_str(&parts.join("; "))
    }
}

impl Tried {
    /// What to do so that the next time more is accepted.
    fn hint(&self) -> Option<String> {
        self.skipped.iter().find_map(|skipped| skipped.fix.clone()).or_else(|| self.copy_id.clone())
    }

    /// The same in lines, for a person who is about to be asked for a password.
    pub(super) fn notes(&self) -> Vec<String> {
        let fix = |fix: &Option<String>| fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
        let skipped = self.skipped.iter().map(|skipped| format!("skipped {skipped}{}", fix(&skipped.fix)));
        let refused = (!self.refused.is_empty())
            .then(|| format!("the server refused {}{}", self.refused.join(", "), fix(&self.copy_id)));
        skipped.chain(refused).collect()
    }
}

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
        /// In which step.
        step: Phase,
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
    #[error("{host} turned the connection away{}", words(.message))]
    TurnedAway {
        /// The host.
        host: String,
        /// What it said instead of a greeting.
        message: String,
        /// What that means.
        why: TurnedAway,
    },
    /// Something answers, but it is no SSH server.
    #[error("{what} answers on {host} port {port}, not an SSH server{}", words(.message))]
    NotSsh {
        /// The host.
        host: String,
        /// The TCP port.
        port: u16,
        /// What it seems to be.
        what: &'static str,
        /// The beginning of what it said.
        message: String,
    },
    /// Each side has algorithms, but none of one kind is the same.
    #[error("{host} and dtunnel have no {kind} in common: the server has {}; here are {}", .theirs.join(", "), .ours.join(", "))]
    NoCommonAlgorithm {
        /// The host.
        host: String,
        /// What for: key exchange, host key …
        kind: &'static str,
        /// The keyword of ssh_config.
        keyword: &'static str,
        /// Those that we offered.
        ours: Vec<String>,
        /// Those that the server offered.
        theirs: Vec<String>,
    },
    /// A ProxyCommand ran, but brought no connection.
    #[error("the ProxyCommand `{command}` {how}{}", words(&.said.join("; ")))]
    Proxy {
        /// The command, tokens replaced.
        command: String,
        /// How it ended, or that it did not.
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
        /// The host.
        host: String,
        /// The server's words, if any.
        message: String,
        /// Are they the server's, or was the connection just gone, as where the network is cut?
        is_said: bool,
        /// What had been tried.
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
        /// The TCP port.
        port: u16,
    },
    /// A question needs a person, and there is none (or none that wants to answer).
    #[error("{account} could not log in: {tried}; {what} would be needed, and nobody was there to give it")]
    NeedsPerson {
        /// `user@host`.
        account: String,
        /// What was tried, for people.
        tried: Tried,
        /// What was needed.
        what: String,
        /// As with [`Error::Auth`].
        missing: Vec<MissingMethod>,
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
    #[error("the connection to {host} was lost{}", words(.message))]
    Lost {
        /// The host.
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
            Self::OddName => "cannot become known: the host's name would have a meaning of its own in known_hosts",
            Self::NoFile => "cannot become known: UserKnownHostsFile is none",
            Self::NotAsked => "is not asked about here",
            Self::Nobody => "nobody was there to confirm it",
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
    /// Was the host not even reached?
    pub fn is_unreached(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } => true,
            Self::Timeout { step, .. } => matches!(step, Phase::Resolution | Phase::Tcp),
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
            | Self::NotSsh { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::Proxy { .. }
            | Self::Lost { .. } => Kind::Unreachable,
            Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostKeyUncheckable { .. }
            | Self::HostKeyUnknown { .. } => Kind::HostKey,
            Self::Auth { .. } | Self::AuthClosed { .. } | Self::NeedsPerson { .. } | Self::PasswordExpired { .. } => {
                Kind::Auth
            }
            Self::Config(_) | Self::NoAlgorithm { .. } => Kind::Config,
        }
    }

    /// Is this for time to cure, so that trying again makes sense?
    pub fn may_pass(&self) -> bool {
        self.kind() == Kind::Unreachable || matches!(self, Self::AuthClosed { is_said: false, .. })
    }

    /// What to do about it, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        let missing = match self {
            Self::Auth { missing, .. } | Self::NeedsPerson { missing, .. } => missing.as_slice(),
            _ => &[],
        };
        if missing.is_empty() {
            return self.remedy();
        }
        let names: Vec<&str> = missing.iter().map(|method| method.keyword()).collect();
        let said = format!("ssh_config sets {} for this host, which dtunnel does not have", names.join(" and "));
        Some(self.remedy().map_or_else(|| said.clone(), |remedy| format!("{said}; {remedy}")))
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Resolve { .. } => "check the spelling, the network and, for a company's names, the VPN".into(),
            Self::Connect { source, port, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                format!("the host is there, but nothing listens on port {port}: is sshd running, and on that port?")
            }
            Self::Timeout { step: Phase::Greeting | Phase::Handshake, .. } => {
                "the port is open, but what listens there does not speak SSH, or is very busy".into()
            }
            Self::Timeout { step: Phase::Login, .. } => {
                "the server, or the ssh-agent, did not come to an end: `connect_timeout` gives more time".into()
            }
            Self::Timeout { step: Phase::Resolution, .. } => {
                "the name server does not answer: is the network up, and for a company's names the VPN?".into()
            }
            Self::Connect { .. } | Self::Timeout { .. } => {
                "is the host up and the port open from here? a firewall that drops packets looks like this".into()
            }
            Self::Jump { .. } => "can the jump host resolve and reach that name, and does its AllowTcpForwarding permit it?".into(),
            Self::ProxyCommand { .. } => "run the command by hand to see what it says".into(),
            Self::TurnedAway { .. } => {
                "is it an SSH server, and is it very busy? MaxStartups and PerSourcePenalties in its sshd_config limit this".into()
            }
            Self::NotSsh { .. } => "name the SSH server's port: host:PORT, `port` in the profile, or Port in ssh_config".into(),
            Self::NoCommonAlgorithm { keyword, theirs, .. } => format!(
                "update the server; or, where it cannot be, allow one of its own in ssh_config for this host: `{keyword} +{}` \
                 (docs/configuration.md names those that dtunnel has)",
                theirs.first().map_or("NAME", String::as_str)
            ),
            Self::Proxy { said, .. } if said.is_empty() => "run the command by hand: it said nothing here".into(),
            Self::Proxy { .. } => "what it says is the command's own; ssh runs the same one (ProxyCommand in ssh_config)".into(),
            Self::Handshake { .. } => "is it an SSH server? `ssh -v` to the same host and port shows its side".into(),
            Self::HostKeyChanged { file, line, host, .. } => format!(
                "somebody may be listening in, or the host was set up anew. Ask its administrator for the new fingerprint; \
                 only then remove line {line} of {}, with: ssh-keygen -f '{0}' -R '{host}'",
                file.display()
            ),
            Self::HostKeyRevoked { .. } => "do not connect; ask the host's administrator".into(),
            Self::HostKeyUncheckable { .. } => {
                "a key that may be revoked or too weak must not be trusted: nothing is connected to before this is mended in \
                 ssh_config, in known_hosts or on the host"
                    .into()
            }
            Self::HostKeyUnknown { reason, .. } => match reason {
                Unconfirmed::Nobody | Unconfirmed::NotAsked => {
                    "run `dtunnel up` in a terminal to be asked, or add the key to known_hosts after comparing its fingerprint"
                }
                Unconfirmed::OddName => "give it a plain name, with HostName and HostKeyAlias in ssh_config",
                Unconfirmed::NoFile => {
                    "name a UserKnownHostsFile in ssh_config (/dev/null for a host that is thrown away), or add the key to \
                     GlobalKnownHostsFile after comparing its fingerprint"
                }
                Unconfirmed::Strict => "add the key to known_hosts after comparing its fingerprint",
                Unconfirmed::Refused => "ask the host's administrator for the fingerprint, and compare it",
            }
            .into(),
            Self::Auth { tried, .. } | Self::NeedsPerson { tried, .. } if tried.hint().is_some() => return tried.hint(),
            Self::Auth { tried, .. } if tried.refused.is_empty() => {
                "add a key to the ssh-agent, or name one with identity_files in the profile or IdentityFile in ssh_config".into()
            }
            Self::Auth { account, .. } => format!(
                "is the public key in ~/.ssh/authorized_keys there, and is this the right user? `ssh -v {account}` shows more"
            ),
            Self::AuthClosed { .. } => {
                "with many keys in the agent, name the right one (identity_files) and set IdentitiesOnly yes in ssh_config".into()
            }
            Self::NeedsPerson { .. } => "run `dtunnel up` in a terminal, or load the key into an ssh-agent".into(),
            Self::PasswordExpired { account, port } => {
                let port = if *port == 22 { String::new() } else { format!(" -p {port}") };
                format!("log in once with ssh, which asks for a new one: ssh{port} {account}")
            }
            Self::Lost { .. } => return None,
            Self::NoAlgorithm { keyword } => {
                format!("leave {keyword} out, or begin its list with `+`; docs/configuration.md names what there is")
            }
            Self::Config(e) => return e.hint(),
        })
    }
}
