//! The resolved target: everything that a tunnel needs to connect.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::leg::Leg;
use super::local::LocalEndpoint;
use super::ssh_config::{self, Proxy, SshConfigSource, SshSettings, Tokens};
use super::{
    Access, CarrierSetting, Destination, Error, Mounts, Paths, Ports, PortsConflict, Remote, Said, TunnelName, has_ssh,
    is_profile_name,
};
use crate::address::Address;
use crate::shell_word::shell_word;

/// A check of `dtunnel audit` whose findings do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredCheck {
    pub check: String,
    pub reason: Option<String>,
    /// Where the configuration says so, `FILE:LINE:COLUMN`.
    pub place: Option<String>,
}

/// A resolved target: everything that a tunnel needs.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: TunnelName,
    /// The host as the user names it: the ssh_config alias, the name or the address.
    pub destination: Destination,
    /// How to get there and log in.
    pub ssh: SshSettings,
    pub local: LocalEndpoint,
    /// Where the Engine is on the host.
    pub remote: Remote,
    /// Time without data from the server after which a keepalive is sent; None: never.
    pub keepalive: Option<Duration>,
    /// Unanswered keepalives after which the connection is given up.
    pub keepalive_count: u32,
    /// How long the host may say nothing while flows are open, if its system acknowledges what is sent; None: as long as
    /// at other times, because the user has a setting for keepalives.
    pub patience: Option<Duration>,
    pub max_connections: usize,
    /// Most bytes on disk for one client that does not read.
    pub spill: u64,
    /// Longest time for TCP and for the key exchange, each.
    pub connect_timeout: Duration,
    /// Longest time for which busy flows may finish at the end.
    pub drain: Duration,
    /// Longest time for which a new flow waits for a connection.
    pub wait: Duration,
    /// After how long without a flow a lazy tunnel closes its connections; None for one that is not
    /// lazy.
    pub idle_timeout: Option<Duration>,
    /// The ssh_config that applies to the hops.
    pub ssh_config: SshConfigSource,
    /// Store answers that the server accepts in the system keyring.
    pub remember: bool,
    /// What clients may ask of the Engine.
    pub access: Access,
    /// Are requests read along, so that each finds its own way?
    pub api: bool,
    /// Are the pings of docker commands answered from the Engine's last answer?
    pub eager_ping: bool,
    /// Is `true` run on the host after each login, so that its sshd sends without delay?
    pub server_nodelay: bool,
    /// Which SSH carries it.
    pub carrier: CarrierSetting,
    /// Which published ports are forwarded.
    pub ports: Ports,
    /// Take another local port if the published one is taken or privileged.
    pub ports_fallback: bool,
    /// What happens to a started container of which a local port is taken.
    pub ports_conflict: PortsConflict,
    /// The local address for ports that are published on every address; None: loopback.
    pub ports_address: Option<IpAddr>,
    /// Which directories of this machine containers may mount; None: none.
    pub mounts: Option<Mounts>,
    /// What `dtunnel audit` does not count.
    pub audit_ignore: Vec<IgnoredCheck>,
    /// Did the user ask for a lazy tunnel, which is ignored with ports and mounts?
    pub(super) lazy_in_vain: bool,
    /// Why directories of this machine are not mounted, although they were asked for.
    pub(super) mounts_in_vain: Option<&'static str>,
    /// The settings that come from the configuration.
    pub(super) said: Said,
    /// Is there a profile of its name?
    pub has_profile: bool,
}

impl Target {
    /// The settings of the hop `destination` at `leg` of the route, from the same ssh_config. As with `ssh -J`, the
    /// first hop is reached as its own ProxyJump or ProxyCommand says, each other one through the hop before it. A hop
    /// that would be reached through itself (`Host *` with a ProxyJump) is reached directly.
    ///
    /// # Errors
    /// As [`resolve`](super::resolve()).
    pub fn hop(&self, destination: &Destination, leg: &Leg) -> Result<Target, Error> {
        let mut ssh = ssh_config::query(destination, &self.ssh_config, &Paths::new()?)?;
        let through_itself =
            matches!(&ssh.proxy, Proxy::Jump(hops) if hops.iter().any(|hop| hop.host == destination.host));
        if !leg.before().is_empty() || through_itself || leg.is_too_deep() {
            ssh.proxy = Proxy::None;
        }
        for warning in ssh.token_warnings() {
            tracing::warn!("{destination}: {warning}");
        }
        Ok(Self { ssh, destination: destination.clone(), ..self.clone() })
    }

    /// Was it asked to connect on first use?
    pub(super) fn is_lazy(&self) -> bool {
        self.idle_timeout.is_some() || self.lazy_in_vain
    }

    /// `user@host:port` for people, as connected to.
    pub fn address(&self) -> String {
        let ssh = &self.ssh;
        Address { user: Some(&ssh.user), host: &ssh.host_name, port: Some(ssh.port) }.to_string()
    }

    /// These settings for a running tunnel: those that need a restart keep its values. Returns the wanted local
    /// endpoint if it differs.
    pub fn for_running(&mut self, running: &Self) -> Option<LocalEndpoint> {
        if self.local == running.local {
            return None;
        }
        self.said.keep_what_takes_a_restart(&running.said);
        Some(std::mem::replace(&mut self.local, running.local.clone()))
    }

    /// Do both lead to the same host by the same way, and to the same Engine there?
    pub fn ends_as(&self, other: &Self) -> bool {
        self.ssh == other.ssh && self.remote == other.remote && self.carrier == other.carrier
    }

    /// Can both use the same connection?
    pub fn leads_as(&self, other: &Self) -> bool {
        let times = |target: &Self| (target.keepalive, target.keepalive_count, target.patience);
        self.ends_as(other) && times(self) == times(other)
    }

    /// How long the host may say nothing at all; None: without end.
    pub fn silence(&self) -> Option<Duration> {
        Some(self.keepalive?.saturating_mul(self.keepalive_count.saturating_add(1)))
    }

    /// Unanswered keepalives after which a connection ends in any case: those of `patience`, where there is one.
    pub fn keepalives(&self) -> usize {
        match (self.patience, self.keepalive) {
            (Some(patience), Some(keepalive)) if !keepalive.is_zero() => {
                let most = patience.as_millis().div_ceil(keepalive.as_millis().max(1)).saturating_sub(1);
                usize::try_from(most).unwrap_or(usize::MAX)
            }
            _ => self.keepalive_count as usize,
        }
    }

    /// The arguments by which the machine's `ssh` finds the same host, the last ones of a command line.
    pub fn ssh_arguments(&self) -> Vec<OsString> {
        ssh_config::arguments(&self.destination, &self.ssh_config)
    }

    /// The TARGET argument that leads here, quoted for a command line to type.
    pub fn typed(&self) -> String {
        let name = self.name.as_str();
        shell_word(&if is_profile_name(name) { name.to_owned() } else { self.destination.to_string() })
    }

    /// `user@host`, for people.
    pub fn account(&self) -> String {
        format!("{}@{}", self.ssh.user, self.ssh.host_name)
    }

    /// How the host at `leg` is reached, in a form that differs where the way does: the hops as they are written, or a
    /// digest of the ProxyCommand, which may hold secrets. None: directly.
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn way(&self, leg: &Leg) -> Result<Option<String>, Error> {
        let hops = match &self.ssh.proxy {
            _ if !leg.before().is_empty() => leg.before(),
            Proxy::Jump(hops) => hops.as_slice(),
            Proxy::None => return Ok(None),
            Proxy::Command(command) => {
                let digest = Sha1::digest(self.expand_proxy_command(command)?);
                let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                return Ok(Some(format!("a ProxyCommand ({hash})")));
            }
        };
        Ok(Some(hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
    }

    /// Warnings for the user, such as relevant keywords of ssh_config that are not obeyed.
    pub fn warnings(&self) -> Vec<String> {
        // What the machine's ssh obeys is its reason to carry the tunnel.
        let has_reason = |keyword: &&String| self.ssh.only_ssh.contains(&keyword.as_str());
        let is_ignored =
            |keyword: &&String| !has_reason(keyword) || self.carrier == CarrierSetting::Native || !has_ssh();
        let keywords = self.ssh.not_obeyed.iter().filter(is_ignored);
        let mut warnings: Vec<String> =
            keywords.map(|keyword| format!("ssh_config sets `{keyword}` for this host; dtunnel ignores it")).collect();
        warnings.extend(self.ssh.token_warnings());
        if self.lazy_in_vain {
            warnings.push("with published ports or mounts a tunnel stays connected: `lazy` is ignored".into());
        }
        if let Some(why) = self.mounts_in_vain {
            warnings.push(format!("`mounts` is ignored: {why}"));
        }
        if let Some(address) = self.ports_address.filter(|address| !address.is_loopback() && self.ports != Ports::Off) {
            warnings.push(format!("published ports are opened on {address}, where others can reach them"));
        }
        warnings
    }

    /// ProxyCommand with its tokens replaced (ssh_config(5), "TOKENS").
    ///
    /// # Errors
    /// [`Error::NoHome`].
    pub fn expand_proxy_command(&self, command: &str) -> Result<String, Error> {
        let tokens = Tokens {
            alias: &self.destination.host,
            host_name: &self.ssh.host_name,
            port: self.ssh.port,
            user: &self.ssh.user,
            host_key_alias: self.ssh.host_key_alias.as_deref(),
            jump: "",
            paths: &Paths::new()?,
        };
        Ok(tokens.replace(command))
    }
}
