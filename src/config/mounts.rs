//! Which directories of this machine containers on the host may mount.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::allowed::{OneOrMany, one_or_many};
use super::paths::Paths;
use super::size::Size;
use crate::text::shown;

/// Stands before a path of the host, in the setting as in a bind.
pub const OF_HOST: &str = "host:";
/// Limit of what is below one mounted directory: bytes of its files.
const DEFAULT_MAX: Size = Size(2 << 30);

/// As it stands in a profile: `true`, `false`, or a list of directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum MountsSetting {
    /// What is below the home directory, or nothing.
    Home(bool),
    /// What is below these directories of this machine; `"host:/srv"` leaves what is below a directory to the host.
    Below(Vec<String>),
}

impl<'de> Deserialize<'de> for MountsSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "`true`, `false`, or a list of directories such as [\"~/src\", \"host:/srv\"]";
        let word = |word: &str| Err(format!("write directories as a list: [\"{}\"]", shown(word)));
        Ok(match one_or_many(deserializer, EXPECTED, word, Some(Self::Home))? {
            OneOrMany::One(setting) => setting,
            OneOrMany::Many(all) => Self::Below(all),
        })
    }
}

/// The directories of this machine that containers may mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounts {
    /// What is below these, absolute.
    pub roots: Vec<PathBuf>,
    /// Whether they were named, so that they are meant even where the host has the same path.
    pub are_named: bool,
    /// What is below these is the host's.
    pub of_host: Vec<String>,
    /// Limit of the bytes below one mounted directory.
    pub max: u64,
    /// Where it is stored what was in step.
    pub records: PathBuf,
}

impl Mounts {
    /// Of a setting; None: off. Relative directories are taken from `dir`, the configuration's.
    ///
    /// # Errors
    /// A directory that may not be mounted, or is none of this machine's, with the reason.
    pub(super) fn of(
        setting: &MountsSetting,
        max: Option<Size>,
        dir: &Path,
        records: PathBuf,
        paths: &Paths,
    ) -> Result<Option<Self>, String> {
        let max = max.unwrap_or(DEFAULT_MAX).0;
        let mut mounts = Self { roots: Vec::new(), are_named: false, of_host: Vec::new(), max, records };
        match setting {
            MountsSetting::Home(false) => return Ok(None),
            MountsSetting::Home(true) => mounts.roots.push(paths.home.clone()),
            MountsSetting::Below(all) => {
                for one in all {
                    match one.strip_prefix(OF_HOST) {
                        Some(theirs) if theirs.starts_with('/') => mounts.of_host.push(theirs.to_owned()),
                        Some(_) => return Err(format!("`{}` is no absolute path of the host", shown(one))),
                        None => {
                            mounts.roots.push(dir.join(paths.expand_home(one)));
                            mounts.are_named = true;
                        }
                    }
                }
                // Rules for the host alone are exceptions to the default.
                if !mounts.are_named {
                    mounts.roots.push(paths.home.clone());
                }
            }
        }
        for root in &mounts.roots {
            let root = root.canonicalize().unwrap_or_else(|_| root.clone());
            if root.parent().is_none() {
                return Err(format!("`{}` is the whole machine: name directories below it", root.display()));
            }
        }
        Ok(Some(mounts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(setting: &str) -> Result<Option<Mounts>, String> {
        #[derive(Deserialize)]
        struct File {
            mounts: MountsSetting,
        }
        let file: File = toml::from_str(&format!("mounts = {setting}")).map_err(|e| e.to_string())?;
        let paths = Paths { home: "/home/me".into() };
        Mounts::of(&file.mounts, Some(Size(7)), Path::new("/home/me/project"), "/state".into(), &paths)
    }

    #[test]
    fn directories_are_those_of_the_home_or_those_that_are_named() {
        let home = Mounts {
            roots: vec!["/home/me".into()],
            are_named: false,
            of_host: vec![],
            max: 7,
            records: "/state".into(),
        };
        assert_eq!(mounts("true"), Ok(Some(home.clone())));
        assert_eq!(mounts("false"), Ok(None));
        let theirs = Mounts { of_host: vec!["/home/me/data".into()], ..home.clone() };
        assert_eq!(mounts("[\"host:/home/me/data\"]"), Ok(Some(theirs)));
        let named = Mounts {
            roots: vec!["/home/me/src".into(), "/home/me/project/.".into(), "/srv/x".into()],
            are_named: true,
            ..home
        };
        assert_eq!(mounts("[\"~/src\", \".\", \"/srv/x\"]"), Ok(Some(named)));
    }

    #[test]
    fn the_whole_machine_and_what_is_no_list_are_refused() {
        assert!(mounts("[\"/\"]").expect_err("refused").contains("whole machine"));
        assert!(mounts("[\"host:srv\"]").expect_err("refused").contains("absolute"));
        assert!(mounts("\"~/src\"").expect_err("refused").contains("[\"~/src\"]"));
        assert!(mounts("7").expect_err("refused").contains("a list of directories"));
    }
}
