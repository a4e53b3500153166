//! Which SSH carries a connection, and why.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::config::{CarrierSetting, MissingMethod, Target};

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// dtunnel's own SSH.
    Native,
    /// The machine's `ssh`, with a connection of this tunnel's.
    OpenSsh,
    /// A connection of the machine's `ssh` that was there (ControlPath).
    Shared,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::OpenSsh => "openssh",
            Self::Shared => "shared",
        })
    }
}

impl FromStr for Carrier {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Native, Self::OpenSsh, Self::Shared].into_iter().find(|carrier| carrier.to_string() == text).ok_or(())
    }
}

/// What carries a connection, and why it is not dtunnel's own SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub by: Carrier,
    /// None for dtunnel's own.
    pub why: Option<String>,
}

/// The carrier that a login begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Native,
    /// Where that lacks the way to log in, the machine's ssh.
    NativeFirst,
    /// For this reason.
    OpenSsh(String),
}

/// May a connection of the machine's ssh that is there be used?
pub(super) fn may_share(target: &Target) -> bool {
    target.carrier != CarrierSetting::Native && target.ssh.control_path.is_some()
}

/// The carrier for `target`; `last` was of use before.
pub(super) fn choose(target: &Target, last: Option<Carrier>) -> Choice {
    let only_ssh = &target.ssh.only_ssh;
    match target.carrier {
        CarrierSetting::Native => Choice::Native,
        CarrierSetting::OpenSsh => Choice::OpenSsh("it is set".into()),
        CarrierSetting::Auto if !has_ssh() => Choice::Native,
        CarrierSetting::Auto if !only_ssh.is_empty() => {
            Choice::OpenSsh(format!("ssh_config sets {}", only_ssh.join(" and ")))
        }
        CarrierSetting::Auto if last == Some(Carrier::OpenSsh) => Choice::OpenSsh("it could log in before".into()),
        CarrierSetting::Auto => Choice::NativeFirst,
    }
}

/// Is there an `ssh` on this machine?
fn has_ssh() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("ssh").is_file())
}

/// Why the machine's ssh may succeed where our own login has failed. None: it cannot.
pub(super) fn after(error: &Error) -> Option<String> {
    let (Error::Auth { missing, .. } | Error::NeedsPerson { missing, .. }) = error else { return None };
    let names: Vec<&str> = missing.iter().map(|method| method.keyword()).collect();
    (!names.is_empty()).then(|| format!("only it has {}", names.join(" and ")))
}

/// The ways to log in that only the machine's ssh has, where it would be tried next.
pub(super) fn left_to_ssh(target: &Target) -> &[MissingMethod] {
    if target.carrier == CarrierSetting::Auto && has_ssh() { &target.ssh.missing_methods } else { &[] }
}
