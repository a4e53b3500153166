//! Hints for each failure. The snapshots in `cli/tests` hold the texts.

use std::io;

use super::{Error, Kind, Phase, Unconfirmed};
use crate::config::MissingMethod;

impl Error {
    /// The action to take, for the line `hint:`.
    pub fn hint(&self) -> Option<String> {
        let missing = match self {
            Self::Auth { missing, .. } | Self::NeedsPerson { missing, .. } => missing.as_slice(),
            _ => &[],
        };
        if missing.is_empty() {
            return self.remedy();
        }
        // A security key's own line names it.
        let chosen = missing.iter().filter(|method| **method != MissingMethod::SecurityKey);
        let names: Vec<&str> = chosen.map(|method| method.keyword()).collect();
        if names.is_empty() {
            return self.remedy();
        }
        let said = format!(
            "ssh_config sets {} for this host, which dtunnel's own SSH does not have: `carrier = \"openssh\"` has your ssh log in",
            names.join(" and ")
        );
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
            Self::Timeout { step: Phase::KeyExchange, host, .. } => format!(
                "the server is very busy, or large packets are lost on the way (an MTU hole, as with some VPNs). To test: \
                 `ping -M do -s 1472 {host}` (macOS: -D for -M do; behind a jump host, from there) sends packets of 1500 \
                 bytes; if only those of a plain ping arrive, lower the MTU of the interface that leads there: \
                 ip link set dev NAME mtu 1280"
            ),
            Self::Timeout { step: Phase::Login, .. } => {
                "the server or the ssh-agent took too long: `connect_timeout` in the profile allows more time".into()
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
                "update the server; if that is impossible, allow one of its algorithms in ssh_config for this host: \
                 `{keyword} +{}` (docs/configuration.md lists what dtunnel supports)",
                theirs.first().map_or("NAME", String::as_str)
            ),
            Self::Proxy { said, .. } if said.is_empty() => "run the command by hand: it printed nothing here".into(),
            Self::Proxy { .. } => "this message is the command's; ssh runs the same one (ProxyCommand in ssh_config)".into(),
            Self::Handshake { .. } => "is it an SSH server? `ssh -v` to the same host and port shows its side".into(),
            Self::HostKeyChanged { file, line, host, .. } => format!(
                "somebody may be intercepting the connection, or the host was reinstalled. \
                 Ask its administrator for the new fingerprint; only then remove line {line} of {}, with: ssh-keygen -f '{0}' -R '{host}'",
                file.display()
            ),
            Self::HostKeyRevoked { .. } => "do not connect; ask the host's administrator".into(),
            Self::HostKeyUncheckable { .. } => {
                "the key may be revoked or too weak, so dtunnel does not connect: fix this in \
                 ssh_config, in known_hosts or on the host"
                    .into()
            }
            Self::HostKeyUnknown { reason, .. } => match reason {
                Unconfirmed::Nobody | Unconfirmed::NotAsked => {
                    "run `dtunnel up` in a terminal to be asked, or add the key to known_hosts after comparing its fingerprint"
                }
                Unconfirmed::OddName => "give it a plain name, with HostName and HostKeyAlias in ssh_config",
                Unconfirmed::NoFile => {
                    "name a UserKnownHostsFile in ssh_config (/dev/null for a temporary host), or add the key to \
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
            Self::OpenSshStart { .. } => "is OpenSSH's client installed? `carrier = \"native\"` does without it".into(),
            Self::OpenSsh { kind: Kind::HostKey, .. } => {
                "an unknown key is asked about in a terminal: compare its fingerprint with the host's administrator".into()
            }
            Self::OpenSsh { account, .. } => format!("these are ssh's words; `ssh -v {account}` shows more"),
            Self::Lost { .. } => return None,
            Self::NoAlgorithm { keyword } => {
                format!("leave {keyword} out, or begin its list with `+`; docs/configuration.md lists what dtunnel supports")
            }
            Self::Config(e) => return e.hint(),
        })
    }
}
