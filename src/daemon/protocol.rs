//! The protocol of the control socket: one JSON object per line, UTF-8.
//!
//! The daemon begins with [`Event::Hello`]. Both sides belong to the same user but may have different versions: unknown
//! fields are ignored, an unknown `op` closes the connection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Destination, Difference, Overrides, Settings};
use crate::engine::EngineVersion;
use crate::failure::Failure;
use crate::ssh::{Carrier, Question, Secret, Step};
use crate::tunnel::{ConnectionStatus, MountStatus, PortStatus, RequestStatus, State};

/// The version of this protocol. A daemon with another one needs its own version of dtunnel.
pub const PROTOCOL: u32 = 3;
/// Longest request, in bytes, newline included. Passwords are the longest answers.
pub(super) const MAX_LINE: usize = 64 << 10;
/// Longest event, in bytes, newline included: the status of a tunnel with thousands of ports.
pub(super) const MAX_EVENT: usize = 8 << 20;
/// How often a waiting client gets an event, even if nothing has changed.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A client's request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Report progress until the tunnel is up or has failed; try to connect at once if it is not up.
    Watch {
        /// Whether the client has a terminal for questions.
        interactive: bool,
        /// Time limit in milliseconds, not counting the time for answers. None means the daemon's own limit for coming
        /// up, [`super::Options::timeout`].
        #[serde(default)]
        limit_ms: Option<u64>,
        /// The socket of the client's ssh-agent (an absolute path), which later logins try first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
    },
    /// The answer to [`Event::Prompt`].
    Answer {
        id: u64,
        /// None: the user declined to answer.
        answer: Option<Secret>,
    },
    /// Request the status once.
    Status,
    /// Forward these published ports, or with None all that wait for consent. Answered by the status.
    OpenPorts {
        /// Port numbers on the host.
        ports: Option<Vec<u16>>,
        /// The ids of the containers to whose ports the user agrees, one for each port. None: whichever publish them,
        /// now or next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Vec<String>>,
    },
    /// Open a new connection, which replaces the old ones. Answered by the status.
    Reconnect,
    /// Reload the configuration. Answered by [`Event::Reloaded`] or [`Event::Failed`].
    Reload(Added),
    /// Do this with the mounted directories. Answered by [`Event::Mounts`]; before that a status each second.
    Mounts { what: MountsTask },
    /// End the tunnel. [`Event::Stopped`] reports the end.
    Down,
}

/// What is done with mounted directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountsTask {
    /// Tell why the host cannot have mirrors.
    Check,
    /// Wait until all are in step.
    Sync,
    /// Remove the mirrors that no container uses.
    Prune,
}

/// Options of `up` that a reload adds to those of the tunnel's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Added {
    /// `--lazy`.
    pub lazy: bool,
    /// `--ports`.
    pub ports: bool,
    /// `--mounts`.
    pub mounts: bool,
}

impl Added {
    /// Adds them to these.
    pub(super) fn to(self, overrides: &mut Overrides) {
        overrides.lazy |= self.lazy;
        overrides.ports |= self.ports;
        overrides.mounts |= self.mounts;
    }
}

/// A message from the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first message on every connection.
    Hello {
        protocol: u32,
        /// The daemon's version of dtunnel.
        version: String,
        pid: u32,
    },
    /// The answer to [`Request::Status`], and to [`Request::Watch`] once the tunnel is up.
    Status { status: Box<TunnelStatus> },
    /// A warning for the user; the tunnel continues.
    Warning {
        message: String,
        /// Whether it is the message of a ProxyCommand or server, rather than dtunnel's.
        #[serde(default)]
        said: bool,
    },
    /// The current step. Repeated every second as a sign of life.
    Step {
        step: Step,
        /// The previous attempt's failure; None for the first attempt.
        #[serde(default)]
        trouble: Option<Trouble>,
    },
    /// What [`Request::Mounts`] asked for is done.
    Mounts {
        /// Mirrors that were removed.
        #[serde(default)]
        removed: usize,
        /// Why not all of it could be done.
        #[serde(default)]
        trouble: Option<String>,
    },
    /// A question to the user.
    Prompt {
        /// Repeated in the answer.
        id: u64,
        question: Question,
    },
    /// A question was answered or withdrawn.
    PromptOver { id: u64 },
    /// The tunnel did not come up, or has failed since.
    Failed { failure: Failure },
    /// The configuration was reloaded and is in force.
    Reloaded { warnings: Vec<String> },
    /// Another daemon runs this tunnel already.
    AlreadyRunning,
    /// The tunnel is ending; this many flows are still open.
    Draining {
        flows: u64,
        /// Time limit for the flows to finish, in milliseconds.
        #[serde(default)]
        limit_ms: Option<u64>,
    },
    /// The tunnel has ended and cleaned up.
    Stopped,
}

/// The last attempt's failure, while the next one is pending or in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub message: String,
    /// Milliseconds until the next attempt; None while it is in progress.
    pub next_ms: Option<u64>,
}

/// A tunnel, as shown by `status --json` (docs/guide.md, "status").
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TunnelStatus {
    pub name: String,
    pub state: State,
    /// Whether it has been taken down, and waits for flows to end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
    /// Start of the state (RFC 3339, UTC); None if the tunnel is down.
    pub since: Option<String>,
    /// The host that the tunnel connects to.
    pub host: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    /// The local endpoint, in the form of `DOCKER_HOST`.
    pub local: Option<String>,
    /// The Engine's socket on the host; `auto` until it was found.
    pub remote: Option<String>,
    /// How flows reach the Engine: `streamlocal`, `direct-tcpip` or `exec: COMMAND`.
    pub transport: Option<String>,
    /// What carries the connection: dtunnel's own SSH, the machine's, or a connection of that one's which was there.
    #[serde(default)]
    pub carrier: Option<Carrier>,
    /// Why it is not dtunnel's own.
    #[serde(default)]
    pub carrier_reason: Option<String>,
    pub connections: Vec<ConnectionStatus>,
    pub flows_open: u64,
    pub flows_total: u64,
    /// Number of flows refused by the host or cut.
    pub flows_failed: u64,
    /// Bytes from the host.
    pub bytes_in: u64,
    /// Bytes to the host.
    pub bytes_out: u64,
    /// The settings of the running tunnel; None if it is down.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// Settings in which the tunnel differs from the configuration, as read by the command that asks.
    #[serde(default)]
    pub changed: Vec<Difference>,
    /// The guard's policies by name, if a guard limits the requests to the Engine.
    #[serde(default)]
    pub access: Option<String>,
    /// The requests in progress, as far as they are read (not with `api = false` and without a guard).
    #[serde(default)]
    pub requests: Vec<RequestStatus>,
    /// The published ports; None if the tunnel does not forward them.
    #[serde(default)]
    pub ports: Option<Vec<PortStatus>>,
    /// The mounted directories; None if the tunnel mounts none.
    #[serde(default)]
    pub mounts: Option<Vec<MountStatus>>,
    /// The Engine's versions, once it has answered.
    pub engine: Option<EngineVersion>,
    /// The last failure; None while the tunnel works.
    pub last_error: Option<String>,
    /// The last client that was reset because it did not read: time, client and reason.
    #[serde(default)]
    pub last_reset: Option<String>,
    pub pid: Option<u32>,
    /// The daemon's command line, for `restart`.
    #[serde(default)]
    pub arguments: Vec<String>,
}

impl TunnelStatus {
    /// The shortest known round-trip time of its connections, in milliseconds.
    pub fn round_trip_ms(&self) -> Option<f64> {
        self.connections.iter().filter_map(|connection| connection.rtt_ms).reduce(f64::min)
    }

    /// The tunnel's destination, for display.
    pub fn address(&self) -> Option<Destination> {
        let host = self.host.clone()?;
        Some(Destination { user: self.user.clone(), host, port: self.port })
    }

    /// The destination without the default port.
    pub fn short_address(&self) -> Option<String> {
        self.address()
            .map(|address| Destination { port: address.port.filter(|port| *port != 22), ..address }.to_string())
    }

    /// The status of a tunnel that is down.
    pub fn down(name: &str) -> Self {
        Self {
            name: name.into(),
            state: State::Down,
            ending: false,
            since: None,
            host: None,
            user: None,
            port: None,
            local: None,
            remote: None,
            transport: None,
            carrier: None,
            carrier_reason: None,
            connections: Vec::new(),
            flows_open: 0,
            flows_total: 0,
            flows_failed: 0,
            bytes_in: 0,
            bytes_out: 0,
            settings: None,
            changed: Vec::new(),
            access: None,
            requests: Vec::new(),
            ports: None,
            mounts: None,
            engine: None,
            last_error: None,
            last_reset: None,
            pid: None,
            arguments: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
