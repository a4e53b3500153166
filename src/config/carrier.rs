//! Which SSH carries a tunnel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::allowed::{from_str, unknown_word};
use crate::os::{mux, search_path};

/// Which SSH carries a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CarrierSetting {
    /// dtunnel's own; the machine's `ssh` where a connection of it is there (ControlPath), or where its ways to log in
    /// are needed.
    #[default]
    Auto,
    /// dtunnel's own.
    Native,
    /// The machine's `ssh`.
    OpenSsh,
}

/// Is there an `ssh` on this machine that can carry a tunnel?
pub fn has_ssh() -> bool {
    mux::check().is_ok() && search_path::places_of("ssh").any(|path| path.is_file())
}

impl fmt::Display for CarrierSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::OpenSsh => "openssh",
        })
    }
}

impl FromStr for CarrierSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "openssh" => Ok(Self::OpenSsh),
            other => Err(unknown_word(other, &["auto", "native", "openssh"])),
        }
    }
}

impl<'de> Deserialize<'de> for CarrierSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_str(deserializer, "\"auto\", \"native\" or \"openssh\"")
    }
}
