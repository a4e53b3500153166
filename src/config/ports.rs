//! Which published ports are to be had on this machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::allowed::{OneOrMany, from_str, one_or_many, unknown_word};
use crate::glob;
use crate::text::shown;

/// As it stands in a profile: `true`, `false`, `"ask"`, or a list of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PortsSetting {
    /// All of them, or none.
    All(bool),
    /// `"ask"`: none before somebody says so.
    Word(PortsWord),
    /// Those that a rule is for: `"8080"`, `"3000-3999"`, `"web"`, `"web-*:80"`; `"!…"` leaves out what
    /// an earlier rule has taken in.
    Rules(Vec<PortRule>),
}

/// The word that can stand for the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortsWord {
    /// See [`PortsSetting::Word`].
    Ask,
}

impl<'de> Deserialize<'de> for PortsSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "`true`, `false`, \"ask\", or a list of rules such as [\"8080\", \"web-*:80\"]";
        let word = |word: &str| match word {
            "ask" => Ok(Self::Word(PortsWord::Ask)),
            other if other.parse::<PortRule>().is_ok_and(|rule| rule.ports.is_some()) => {
                Err(format!("write rules as a list: [\"{other}\"]"))
            }
            other => Err(format!("`{}` is not {EXPECTED}", shown(other))),
        };
        Ok(match one_or_many(deserializer, EXPECTED, word, Some(Self::All))? {
            OneOrMany::One(setting) => setting,
            OneOrMany::Many(rules) => Self::Rules(rules),
        })
    }
}

/// What happens to a container that is started through the tunnel if a local port of its is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortsConflict {
    /// It runs, and `logs`, `ports` and `status` have a warning.
    #[default]
    Warn,
    /// It is stopped again, and the answer to its start is an error, as a local Engine's would be.
    Refuse,
}

impl FromStr for PortsConflict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "warn" => Ok(Self::Warn),
            "refuse" => Ok(Self::Refuse),
            other => Err(unknown_word(other, &["warn", "refuse"])),
        }
    }
}

impl<'de> Deserialize<'de> for PortsConflict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_str(deserializer, "\"warn\" or \"refuse\"")
    }
}

/// Which published ports a tunnel brings to this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ports {
    /// None, and the Engine is not asked for them.
    #[default]
    Off,
    /// Those that somebody agrees to.
    Ask,
    /// Every one.
    All,
    /// Those that the rules take in. Without a rule that takes in, none.
    Rules(Vec<PortRule>),
}

impl From<&PortsSetting> for Ports {
    fn from(setting: &PortsSetting) -> Self {
        match setting {
            PortsSetting::All(false) => Self::Off,
            PortsSetting::All(true) => Self::All,
            PortsSetting::Word(PortsWord::Ask) => Self::Ask,
            PortsSetting::Rules(rules) => Self::Rules(rules.clone()),
        }
    }
}

impl Ports {
    /// Is this port of this container taken in?
    pub fn take_in(&self, container: &str, port: u16) -> bool {
        match self {
            Self::Off => false,
            Self::Ask | Self::All => true,
            // The last rule that fits decides.
            Self::Rules(rules) => {
                rules.iter().rev().find(|rule| rule.fits(container, port)).is_some_and(|rule| !rule.excludes)
            }
        }
    }
}

/// A rule: `[!][CONTAINER][:PORT[-PORT]]`, where CONTAINER may hold `*`; a rule that is a number or a
/// range is for the port of every container (and `80:` for the container `80`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRule {
    excludes: bool,
    container: Option<String>,
    /// First and last, as published on the host.
    ports: Option<(u16, u16)>,
}

impl PortRule {
    fn fits(&self, container: &str, port: u16) -> bool {
        self.container.as_deref().is_none_or(|pattern| glob::matches(pattern, container))
            && self.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
    }
}

/// Is it read as a port or a range where it stands alone?
fn looks_like_ports(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(|c: char| c.is_alphabetic())
}

impl FromStr for PortRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!("`{}` is not a rule for ports such as \"8080\", \"web-*:80\" or \"!web-3\": {why}", shown(text))
        };
        let (excludes, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (container, ports) = match rest.split_once(':') {
            Some((container, ports)) => (container, ports),
            None if looks_like_ports(rest) => ("", rest),
            None => (rest, ""),
        };
        if container.is_empty() && ports.is_empty() {
            return Err(bad("it names neither a container nor a port"));
        }
        let known = |c: char| c.is_ascii_alphanumeric() || "_.-*".contains(c);
        if container.len() > 255 || !container.chars().all(known) || container.matches('*').count() > 8 {
            return Err(bad("a container's name has letters, digits, `_`, `.` and `-`, and `*` for any"));
        }
        let number =
            |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| bad("a port is 1 to 65535"));
        let ports = match ports.split_once('-') {
            _ if ports.is_empty() => None,
            None => Some((number(ports)?, number(ports)?)),
            Some((first, last)) => Some((number(first)?, number(last)?)),
        };
        if ports.is_some_and(|(first, last)| first > last) {
            return Err(bad("its range ends before it begins"));
        }
        Ok(Self { excludes, container: Some(container.to_owned()).filter(|name| !name.is_empty()), ports })
    }
}

impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.excludes { "!" } else { "" })?;
        f.write_str(self.container.as_deref().unwrap_or_default())?;
        match self.ports {
            // A container may have a number for its name.
            None => f.write_str(if self.container.as_deref().is_some_and(looks_like_ports) { ":" } else { "" }),
            Some((first, last)) => {
                f.write_str(if self.container.is_some() { ":" } else { "" })?;
                if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
            }
        }
    }
}

impl<'de> Deserialize<'de> for PortRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_str(deserializer, "a rule in quotes, such as \"8080\", \"3000-3999\", \"web-*:80\" or \"!web-3\"")
    }
}

impl Serialize for PortRule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for PortRule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortRule".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "[!][CONTAINER][:PORT[-PORT]]; CONTAINER may hold `*`.",
            "examples": ["8080", "3000-3999", "web", "web-*:80", "!web-3"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Ports {
        Ports::Rules(texts.iter().map(|text| text.parse().expect(text)).collect())
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let ports = rules(&["8080", "3000-3999", "web-*:80-90", "!web-secret", "db"]);
        for (container, port, expected) in [
            ("any", 8080, true),
            ("any", 8081, false),
            ("any", 3500, true),
            ("web-1", 80, true),
            ("web-1", 91, false),
            ("web-secret", 80, false),
            ("web-secret", 8080, false),
            ("db", 5432, true),
            ("db2", 5432, false),
        ] {
            assert_eq!(ports.take_in(container, port), expected, "{container}:{port}");
        }
        assert!(!Ports::Off.take_in("a", 1) && Ports::All.take_in("a", 1));
    }

    #[test]
    fn rules_are_read_and_shown_alike_and_others_refused() {
        for text in ["8080", "3000-3999", "web", "web-*:80", "!web:1-2", "*:80", "0:", "1.2:"] {
            assert_eq!(text.parse::<PortRule>().expect(text).to_string(), text);
        }
        for text in ["", "!", ":", "0", "70000", "9-8", "we b", "a:b", "80-"] {
            let parsed = text.parse::<PortRule>();
            assert!(parsed.is_err(), "{text:?}: {parsed:?}");
        }
    }
}
