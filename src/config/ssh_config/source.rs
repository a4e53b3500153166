//! Which ssh_config is read.

use std::path::PathBuf;

/// Which ssh_config is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshConfigSource {
    /// The user's own and the system's, as ssh does without `-F`.
    Default,
    /// This file only, as `ssh -F FILE`.
    File(PathBuf),
    /// None at all, as `ssh -F none`.
    None,
}
