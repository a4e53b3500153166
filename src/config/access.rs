//! What a tunnel's clients may ask of the Engine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::allowed::{OneOrMany, from_str, one_or_many, unknown_word};
use crate::text::shown;

/// As it stands in a profile: one name, or several together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum AccessSetting {
    /// One.
    One(Policy),
    /// Several.
    Several(Vec<Policy>),
}

/// A named part of what may be asked (docs/security.md, "The guard").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Everything, and the guard is off.
    Full,
    /// What neither changes nor reaches into the host.
    ReadOnly,
    /// That, and containers, their networks and volumes.
    Containers,
    /// Reading, and building, tagging, pulling and pushing images.
    Build,
    /// A limit on the others, or on everything where it stands alone: nothing that gets out of a container.
    NoPrivileged,
}

impl Policy {
    /// Every one, with its name.
    const NAMED: [(&'static str, Self); 5] = [
        ("full", Self::Full),
        ("read-only", Self::ReadOnly),
        ("containers", Self::Containers),
        ("build", Self::Build),
        ("no-privileged", Self::NoPrivileged),
    ];
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Self::NAMED.into_iter().find(|(name, _)| *name == text) {
            Some((_, policy)) => Ok(policy),
            None => Err(unknown_word(text, &Self::NAMED.map(|(name, _)| name))),
        }
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_str(deserializer, "a policy's name")
    }
}

impl<'de> Deserialize<'de> for AccessSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str =
            "`full`, `read-only`, `containers`, `build`, `no-privileged`, or a list of the last four";
        Ok(match one_or_many(deserializer, EXPECTED, str::parse, None)? {
            OneOrMany::One(policy) => Self::One(policy),
            OneOrMany::Many(policies) => Self::Several(policies),
        })
    }
}

/// What a tunnel's clients may ask of the Engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Access {
    /// The policies; none where everything may be asked.
    pub policies: Vec<Policy>,
    /// Operations beyond them, by name.
    pub allow: Vec<String>,
    /// Directories of the host that containers may be given in spite of [`Policy::NoPrivileged`]; one that
    /// ends in `/` is meant with all that is below it, for reading only.
    pub allowed_binds: Vec<String>,
    /// Where `allow` stands in the configuration, `FILE:LINE:COLUMN`.
    #[serde(skip)]
    pub allow_place: Option<String>,
}

impl Access {
    /// Is there anything to be refused?
    pub fn is_limited(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Is it `read-only` and nothing else? No guard lets less through.
    pub fn only_looks(&self) -> bool {
        self.policies == [Policy::ReadOnly] && self.allow.is_empty()
    }

    /// The same as far as it has an effect, in an order of its own: equal for two that let the same pass.
    pub(super) fn in_force(&self) -> Self {
        fn sorted<T: Ord + Clone>(list: &[T]) -> Vec<T> {
            let mut list = list.to_vec();
            list.sort();
            list.dedup();
            list
        }
        let if_it = |counts: bool, list: &[String]| if counts { sorted(list) } else { Vec::new() };
        Self {
            policies: sorted(&self.policies),
            allow: if_it(self.is_limited(), &self.allow),
            allowed_binds: if_it(self.policies.contains(&Policy::NoPrivileged), &self.allowed_binds),
            allow_place: None,
        }
    }

    /// The key that is wrong, and why.
    pub(super) fn new(
        setting: Option<&AccessSetting>,
        allow: &[String],
        binds: &[String],
    ) -> Result<Self, (&'static str, String)> {
        let policies = match setting {
            None | Some(AccessSetting::One(Policy::Full)) => Vec::new(),
            Some(AccessSetting::One(policy)) => vec![*policy],
            Some(AccessSetting::Several(policies)) if policies.is_empty() => {
                return Err(("access", "`access` names no policy".into()));
            }
            Some(AccessSetting::Several(policies)) if policies.contains(&Policy::Full) => {
                return Err(("access", "`full` in `access` excludes all others".into()));
            }
            Some(AccessSetting::Several(policies)) => policies.clone(),
        };
        check_binds(binds).map_err(|reason| ("allowed_binds", reason))?;
        Ok(Self { policies, allow: allow.to_vec(), allowed_binds: binds.to_vec(), allow_place: None })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policies, allow, allowed_binds, .. } = self.in_force();
        if policies.is_empty() {
            return f.write_str("full");
        }
        let names: Vec<&str> = policies.into_iter().map(Policy::name).collect();
        f.write_str(&names.join(", "))?;
        for (what, list) in [("allow", allow), ("allowed_binds", allowed_binds)] {
            if !list.is_empty() {
                write!(f, "; {what}: {}", list.join(", ").escape_debug())?;
            }
        }
        Ok(())
    }
}

impl Policy {
    /// As in a profile.
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Containers => "containers",
            Self::Build => "build",
            Self::NoPrivileged => "no-privileged",
        }
    }
}

/// An entry of `allowed_binds` is plain, and not inside another one that containers may write to: they could
/// put a link in its place.
fn check_binds(binds: &[String]) -> Result<(), String> {
    if let Some(path) = binds.iter().find(|path| !is_plain(path)) {
        let path = shown(path);
        return Err(format!("`{path}` in `allowed_binds` is not an absolute path without dots and empty parts"));
    }
    for path in binds {
        let mut around = binds.iter().filter(|other| !other.ends_with('/'));
        let is_around = |other: &&String| path.strip_prefix(*other).is_some_and(|rest| rest.starts_with('/'));
        if let Some(writable) = around.find(is_around) {
            return Err(format!(
                "`{path}` in `allowed_binds` is inside `{writable}`, where containers may write: they could put a \
                 symbolic link there that leads anywhere. Name one of them, or `{writable}/` (read-only) instead"
            ));
        }
    }
    Ok(())
}

/// Is it an absolute path without dots, as the Engine would write it? Not the root itself: who has it has all.
fn is_plain(path: &str) -> bool {
    let inner = path.strip_suffix('/').unwrap_or(path);
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    inner.strip_prefix('/').is_some_and(|inner| inner.split('/').all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_inside_writable_ones_are_refused() {
        for (binds, passes) in [
            (&["/srv/data", "/srv/projects/"][..], true),
            (&["/srv/", "/srv/data"], true),
            (&["/srv/a", "/srv/ab"], true),
            (&["/srv", "/srv/data"], false),
            (&["/srv", "/srv/data/"], false),
            (&["/srv", "/srv/"], false),
            (&["/"], false),
            (&["srv"], false),
            (&["/srv//data"], false),
            (&["/srv/./data"], false),
            (&["/srv/../data"], false),
            (&["/srv/da\nta"], false),
        ] {
            let binds: Vec<String> = binds.iter().map(ToString::to_string).collect();
            assert_eq!(check_binds(&binds).is_ok(), passes, "{binds:?}");
        }
    }
}
