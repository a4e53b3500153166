//! `allowed_binds`: host directories mounted into a container.

use serde::{Deserialize, Deserializer, Serialize};

use super::Ground;
use super::json::shown;
use super::text::{is_name, is_one_line};

/// Directories where containers write, so that links in them may lead anywhere: the
/// Engine's own, at their default paths.
const OF_CONTAINERS: &[&str] = &["/var/lib/docker", "/var/lib/containerd", "/run/docker", "/run/containerd"];

/// An item of HostConfig.Binds: `/path`, `volume:/path[:options]` or `/host/path:/path[:options]`.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Bind(String);

/// The allowed options of a bind or a volume. Excluded are `shared` and `rshared`, which
/// propagate mounts out of the container.
const OPTIONS: &[&str] = &[
    "cached",
    "consistent",
    "default",
    "delegated",
    "nocopy",
    "private",
    "ro",
    "rprivate",
    "rslave",
    "rw",
    "slave",
    "z",
    "Z",
];

impl<'de> Deserialize<'de> for Bind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bind = Self(text);
        let refused = |why: &str| serde::de::Error::custom(format_args!("{} {why}", shown(&bind.0)));
        let parts: Vec<&str> = bind.0.split(':').collect();
        // A backslash belongs to a path of a Windows host, whose drive letter would be taken for a volume.
        if parts.len() > 3 || !is_one_line(&bind.0) || bind.0.contains('\\') {
            return Err(refused("is not allowed"));
        }
        if let [source, ..] = parts[..]
            && parts.len() > 1
            && !source.starts_with('/')
            && !is_name(source)
        {
            return Err(refused("is neither a volume nor an absolute path"));
        }
        if let Some(option) = bind.options().find(|option| !OPTIONS.contains(option)) {
            return Err(refused(&format!("has the option {}, which is not allowed", shown(option))));
        }
        Ok(bind)
    }
}

impl Bind {
    fn options(&self) -> impl Iterator<Item = &str> {
        self.0.split(':').nth(2).into_iter().flat_map(|options| options.split(','))
    }

    /// The host's path; None for a volume.
    fn of_host(&self) -> Option<&str> {
        self.0.split_once(':').map(|(source, _)| source).filter(|source| source.starts_with('/'))
    }

    /// The name of the volume; None for a bind.
    pub(super) fn volume(&self) -> Option<&str> {
        self.0.split_once(':').map(|(source, _)| source).filter(|source| !source.starts_with('/'))
    }

    /// Its source and target, if the source is below an entry of `allowed_binds`.
    pub(super) fn below(&self, ground: &Ground<'_>) -> Option<(&str, &str)> {
        let source = self.of_host().filter(|source| ground.is_below(source))?;
        Some((source, self.0.split(':').nth(1)?))
    }

    /// Whether later mounts on the host propagate into it.
    pub(super) fn follows_host(&self) -> bool {
        self.options().any(|option| matches!(option, "slave" | "rslave"))
    }

    /// # Errors
    /// Why the bind is not allowed.
    pub(super) fn judge(&self, ground: &Ground<'_>) -> Result<(), String> {
        let Some(source) = self.of_host() else { return Ok(()) };
        let read_only = self.options().any(|option| option == "ro");
        let relabels = self.options().any(|option| matches!(option, "z" | "Z"));
        ground.may_bind(source, if read_only && !relabels { Use::Read } else { Use::Write })
    }
}

/// How a container uses a directory of the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
}

impl Ground<'_> {
    /// Whether a bind of this path would need an entry that ends in `/`.
    pub(super) fn is_below(&self, path: &str) -> bool {
        !self.binds.iter().any(|entry| entry == path.trim_end_matches('/'))
    }

    /// Whether a container may have this path of the host. An entry allows exactly its path, for reading and writing.
    /// An entry that ends in `/` allows all paths below it, for reading only: a container that can write there could
    /// create a link, which the Engine would follow at the next bind.
    ///
    /// # Errors
    /// Why it is not allowed.
    pub(super) fn may_bind(&self, path: &str, wanted: Use) -> Result<(), String> {
        let place = path.trim_end_matches('/');
        let refused = |why: &str| Err(format!("the host's {} {why}", shown(path)));
        let is_plain = path.starts_with('/')
            && is_one_line(path)
            && place.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !is_plain {
            return refused("is not allowed: not a plain absolute path");
        }
        if self.binds.iter().any(|entry| entry == place) {
            return Ok(());
        }
        let below = self.binds.iter().filter_map(|entry| entry.strip_suffix('/'));
        if !below.into_iter().any(|root| is_in(place, root)) {
            return refused("is not among allowed_binds");
        }
        if wanted == Use::Write {
            return refused("is below an entry of allowed_binds that ends in `/`, and so allowed with `:ro` only");
        }
        let written = self.binds.iter().map(String::as_str).filter(|entry| !entry.ends_with('/'));
        match written.chain(OF_CONTAINERS.iter().copied()).find(|writable| is_in(place, writable)) {
            Some(writable) => {
                refused(&format!("is not allowed: containers write in {writable}, and could have put a link there"))
            }
            None => Ok(()),
        }
    }
}

/// Whether `path` is this directory or below it.
pub(in crate::tunnel::guard) fn is_in(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
