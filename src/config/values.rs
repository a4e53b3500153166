//! Values of the configuration file that have a notation of their own.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::allowed::{self, OneOrMany};
use crate::text::shown;

/// Settings of `dtunnel audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditSetting {
    /// Checks whose findings are passed over, each with the reason: `"icc: only one tenant's containers"`.
    #[serde(default)]
    pub ignore: Vec<Ignore>,
}

/// A check that is passed over: `"CHECK: REASON"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignore {
    /// The check's name (docs/audit.md).
    pub check: String,
    /// Why its findings do not count.
    pub reason: Option<String>,
}

impl std::str::FromStr for Ignore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (check, reason) = text.split_once(':').unwrap_or((text, ""));
        let (check, reason) = (check.trim(), reason.trim());
        if check.is_empty() {
            return Err("it is a check's name and a reason, such as \"icc: one tenant only\"".into());
        }
        Ok(Self { check: check.into(), reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()) })
    }
}

impl<'de> Deserialize<'de> for Ignore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        allowed::from_str(deserializer, "a check's name and a reason, such as \"icc: one tenant only\"")
    }
}

impl Serialize for Ignore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.reason {
            Some(reason) => serializer.collect_str(&format_args!("{}: {reason}", self.check)),
            None => serializer.serialize_str(&self.check),
        }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Ignore {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ignore".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "CHECK: REASON",
            "examples": ["icc: only one tenant's containers"]
        })
    }
}

/// Hosts to go through, nearest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Jump {
    /// A single host, or `none`.
    One(String),
    /// A chain of hosts.
    Chain(Vec<String>),
}

impl<'de> Deserialize<'de> for Jump {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "one `[user@]host[:port]`, a list of them, or \"none\"";
        Ok(match allowed::one_or_many(deserializer, EXPECTED, |host| Ok(host.to_owned()), None)? {
            OneOrMany::One(host) => Self::One(host),
            OneOrMany::Many(hosts) => Self::Chain(hosts),
        })
    }
}

/// A length of time written as `"250ms"`, `"15s"`, `"2m"` or `"1h 30m"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Duration(pub std::time::Duration);

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl std::str::FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|e| format!("`{}` is not a duration such as \"15s\" or \"2m\": {e}", shown(text)))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        allowed::from_str(deserializer, "a duration in quotes, such as \"15s\" or \"2m\"")
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A length of time, such as \"250ms\", \"15s\", \"2m\" or \"1h 30m\".",
            "examples": ["15s", "2m"]
        })
    }
}
