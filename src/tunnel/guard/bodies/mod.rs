//! Bodies of requests under `no-privileged`.
//!
//! Everything that passes is spelled out: a body is read into the structures here, which have a field for
//! what is known and harmless and no other, and what is sent on is written from them. A list of what is
//! dangerous would miss the next way out; in this one it is unknown.
//!
//! `tests/guard/fields.txt` has every field of Moby's own structures with its verdict, and
//! `scripts/moby-fields` finds those that are new.

mod binds;
mod build;
mod capabilities;
mod container;
mod existing;
mod host_config;
mod json;
mod logging;
mod mounts;
mod networks;
mod resources;
mod seccomp;
mod security;
mod text;

#[cfg(test)]
mod tests;

use serde::Serialize;

use container::{Exec, ExecStart};
use mounts::Volume;
use networks::{Connect, Disconnect, Network};
use resources::Update;

pub(super) use binds::is_in;
pub(super) use build::judge as judge_build;
pub(super) use container::Create;
pub(super) use existing::{Existing, ExistingExec, is_whole_id, judge_volume as judge_existing_volume};
pub(super) use json::{MAX as MAX_BODY, shown};
pub(super) use logging::is_private;
pub(super) use text::is_name;

/// What a container may have of its host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// `allowed_binds`.
    pub(super) binds: &'a [String],
    /// Is it asked by a version of the API before 1.40? By these a bind always brings what is mounted below it.
    pub(super) brings_mounts: bool,
}

/// A body that may pass.
pub(super) enum Judged {
    /// As it is to be sent.
    Ready(Vec<u8>),
    /// If the Engine's answers to [`Create::references`] allow it.
    Create(Box<Create>),
}

/// What the Engine must be asked before a container may be made.
pub(super) enum Reference<'a> {
    /// Is this container one that would be allowed now? `set` puts its id in its name's place, which
    /// another container could take meanwhile.
    Container { field: &'static str, name: String, set: Box<dyn FnOnce(&str) + Send + 'a> },
    /// Is this volume, if it is there already, one that could be made now?
    Volume { field: &'static str, name: String },
    /// Is this its default runtime?
    Runtime(String),
    /// Is this its default log driver?
    LogDriver(String),
    /// Does its default log driver write for the container alone, so that it may have this option? `set` puts its
    /// name in.
    DefaultLog { option: String, set: Box<dyn FnOnce(&str) + Send + 'a> },
    /// Is its own seccomp profile the one that this was compared with? `before` is the first version whose own is
    /// narrower, where there is one.
    Seccomp { before: Option<Version> },
    /// Is the host's cgroup namespace what it gives if nothing is asked for? If so the request may come from
    /// an inspect, and a private one is written in its place.
    HostCgroupns(Box<dyn FnOnce() + Send + 'a>),
}

/// A version of the Engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    /// Reads `20.10.24+dfsg1`. None where it does not begin so.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.').map(|part| {
            let digits = part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            digits.parse().ok()
        });
        Some(Self(parts.next()??, parts.next()??, parts.next()??))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Judges the body of `POST /containers/create`.
///
/// # Errors
/// What is not allowed in it; so for those below.
pub(super) fn judge_create(body: &[u8], ground: &Ground<'_>) -> Result<Judged, String> {
    let mut create: Create = json::read(body)?;
    create.judge(ground)?;
    Ok(Judged::Create(Box::new(create)))
}

pub(super) fn judge_update(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    ready(&json::read::<Update>(body)?)
}

pub(super) fn judge_exec(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    ready(&json::read::<Exec>(body)?.in_one_spelling()?)
}

pub(super) fn judge_exec_start(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    ready(&json::read::<ExecStart>(body)?)
}

pub(super) fn judge_commit(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    let config: Create = json::read(body)?;
    config.is_config_alone()?;
    ready(&config)
}

pub(super) fn judge_volume(body: &[u8], ground: &Ground<'_>) -> Result<Judged, String> {
    let volume: Volume = json::read(body)?;
    volume.judge(ground)?;
    ready(&volume)
}

pub(super) fn judge_network(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    let network: Network = json::read(body)?;
    network.judge()?;
    ready(&network)
}

pub(super) fn judge_connect(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    let connect: Connect = json::read(body)?;
    connect.judge()?;
    ready(&connect)
}

pub(super) fn judge_disconnect(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    ready(&json::read::<Disconnect>(body)?)
}

pub(super) fn judge_login(body: &[u8], _: &Ground<'_>) -> Result<Judged, String> {
    ready(&json::read::<Login>(body)?)
}

impl Create {
    /// As it is to be sent.
    ///
    /// # Errors
    /// None that is known.
    pub(super) fn to_body(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|e| e.to_string())
    }
}

fn ready(body: &impl Serialize) -> Result<Judged, String> {
    serde_json::to_vec(body).map(Judged::Ready).map_err(|e| e.to_string())
}

text::body! {
    /// `POST /auth`.
    Login {
        username = "username": String,
        password = "password": String,
        auth = "auth": String,
        email = "email": String,
        server_address = "serveraddress": String,
        identity_token = "identitytoken": String,
        registry_token = "registrytoken": String,
    }
}
