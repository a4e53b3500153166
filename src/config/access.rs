//! What a tunnel's clients may ask of the Engine.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// As it stands in a profile: one name, or several together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum AccessSetting {
    /// One.
    One(Policy),
    /// Several.
    Several(Vec<Policy>),
}

/// A named part of what may be asked (docs/security.md, "The guard").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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

/// What a tunnel's clients may ask of the Engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The policies; none where everything may be asked.
    pub policies: Vec<Policy>,
    /// Operations beyond them, by name.
    pub allow: Vec<String>,
    /// Directories of the host that containers may be given in spite of [`Policy::NoPrivileged`]; one that
    /// ends in `/` is meant with all that is below it.
    pub allowed_binds: Vec<String>,
}

impl Access {
    /// Is there anything to be refused?
    pub fn is_limited(&self) -> bool {
        !self.policies.is_empty()
    }

    pub(super) fn new(setting: Option<&AccessSetting>, allow: &[String], binds: &[String]) -> Result<Self, String> {
        let policies = match setting {
            None | Some(AccessSetting::One(Policy::Full)) => Vec::new(),
            Some(AccessSetting::One(policy)) => vec![*policy],
            Some(AccessSetting::Several(policies)) if policies.is_empty() => {
                return Err("`access` names no policy".into());
            }
            Some(AccessSetting::Several(policies)) if policies.contains(&Policy::Full) => {
                return Err("`full` in `access` stands alone".into());
            }
            Some(AccessSetting::Several(policies)) => policies.clone(),
        };
        if let Some(path) = binds.iter().find(|path| !is_plain(path)) {
            return Err(format!("`{}` in `allowed_binds` is not an absolute path without dots", path.escape_debug()));
        }
        Ok(Self { policies, allow: allow.to_vec(), allowed_binds: binds.to_vec() })
    }
}

/// Is it an absolute path without dots?
fn is_plain(path: &str) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.starts_with('/') && Path::new(path).components().all(plain)
}
