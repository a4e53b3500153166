//! Request bodies under `no-privileged`.
//!
//! An allowlist: a body is read into the structures here, which have fields only for what is known and harmless,
//! and the body that is sent on is written from them. A denylist would miss the next way out of a container; here
//! it is unknown, and so refused.
//!
//! `tests/guard/fields.txt` lists every field of Moby's own structures with its verdict, and
//! `scripts/moby-fields` finds new ones.

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

/// The access to its host that a container may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// `allowed_binds`.
    pub(super) binds: &'a [String],
    /// Whether the request's API version is before 1.40, in which a bind always includes the mounts below it.
    pub(super) brings_mounts: bool,
}

/// A body that may pass.
pub(super) enum Judged {
    /// The body to send.
    Ready(Vec<u8>),
    /// The body to send if the Engine's answers about [`Create::references`] allow it.
    Create(Box<Create>),
}

/// What must be checked at the Engine before a container may be created.
pub(super) enum Reference<'a> {
    /// This container would be allowed now. `set` replaces its name by its id, since another container could
    /// take the name in the meantime.
    Container { field: &'static str, name: String, set: Box<dyn FnOnce(&str) + Send + 'a> },
    /// This volume, if it exists, could be created now.
    Volume { field: &'static str, name: String },
    /// This is the default runtime.
    Runtime(String),
    /// This is the default log driver.
    LogDriver(String),
    /// The default log driver writes for the container alone, so that it may have this option.
    /// `set` inserts the driver's name.
    DefaultLog { option: String, set: Box<dyn FnOnce(&str) + Send + 'a> },
    /// The Engine's own seccomp profile is the one that this profile was compared with. `before` is the first version
    /// with a narrower one, if any.
    Seccomp { before: Option<Version> },
    /// The host's cgroup namespace is the Engine's default. If so, the request may stem from an inspect, and `set`
    /// writes a private one instead.
    HostCgroupns(Box<dyn FnOnce() + Send + 'a>),
}

/// A version of the Engine: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    /// Parses a version such as `20.10.24+dfsg1`; None for other text.
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
/// What is not allowed, here and in the functions below.
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
    /// The body to send.
    ///
    /// # Errors
    /// None are known.
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
