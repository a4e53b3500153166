//! What is told of mounted directories.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::known::Known;

/// A container that mounts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountUse {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub container: String,
    pub is_running: bool,
    /// May it only read?
    pub read_only: bool,
}

/// The state of a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountState {
    /// It is brought in step for the first time.
    Filling,
    /// Changes are carried.
    Syncing,
    /// Both sides are the same.
    InStep,
    /// Both sides are the same, and copies of what both had changed are kept.
    Conflict,
    /// Something could not be carried.
    Failing,
    /// No container mounts it: it is not kept in step.
    Unused,
}

impl MountState {
    /// Does it need somebody's attention?
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Conflict | Self::Failing)
    }
}

impl std::fmt::Display for MountState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Filling => "filling",
            Self::Syncing => "syncing",
            Self::InStep => "in step",
            Self::Conflict => "conflict",
            Self::Failing => "failing",
            Self::Unused => "unused",
        })
    }
}

/// What is told of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    /// The directory or file here.
    pub path: PathBuf,
    /// Its mirror on the host.
    pub mirror: String,
    pub containers: Vec<MountUse>,
    pub state: MountState,
    /// How much of what is being carried has been, in percent.
    pub progress: Option<u8>,
    /// Files, directories and links here.
    pub files: usize,
    /// Bytes of all files here.
    pub bytes: u64,
    /// When something was last carried (RFC 3339).
    pub last_change: Option<String>,
    /// Copies that are kept here of what both sides had changed.
    pub conflicts: Vec<String>,
    /// What could not be carried, with the reason.
    pub failed: Vec<String>,
    /// What is not carried: sockets, devices, and links that lead out.
    pub left: Vec<String>,
}

impl MountStatus {
    /// Of a mirror that no container mounts.
    pub(super) fn of_unused(known: Known) -> Self {
        Self {
            path: known.source.path(),
            mirror: known.root,
            containers: Vec::new(),
            state: MountState::Unused,
            progress: None,
            files: known.files,
            bytes: known.bytes,
            last_change: None,
            conflicts: Vec::new(),
            failed: Vec::new(),
            left: Vec::new(),
        }
    }
}
