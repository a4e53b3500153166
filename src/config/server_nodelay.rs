//! Whether a command is run after each login, so that the host's sshd sends without delay.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use super::allowed::unknown_word;

/// `server_nodelay`: sshd turns Nagle's algorithm off (TCP_NODELAY) for a connection once a session on it has run a
/// command, and never for forwarding alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerNodelay {
    /// Where commands are known to run as asked.
    #[default]
    Auto,
    /// After each login.
    Always,
    /// Never.
    Never,
}

const EXPECTED: &str = "\"auto\", `true` or `false`";

impl<'de> Deserialize<'de> for ServerNodelay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Setting;
        impl Visitor<'_> for Setting {
            type Value = ServerNodelay;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(if flag { ServerNodelay::Always } else { ServerNodelay::Never })
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
                match word {
                    "auto" => Ok(ServerNodelay::Auto),
                    "true" | "false" => Err(E::custom("write `true` and `false` without quotes")),
                    other => Err(E::custom(unknown_word(other, &["auto"]))),
                }
            }
        }
        deserializer.deserialize_any(Setting)
    }
}

impl Serialize for ServerNodelay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Always => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_bool(false),
        }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for ServerNodelay {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ServerNodelay".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "enum": ["auto", true, false],
            "description": "Whether a command is run after each login, so that the host's sshd sends without delay."
        })
    }
}
