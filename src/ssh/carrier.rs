//! Which SSH carries a connection, and why.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::config::{CarrierSetting, Target};

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
    (!names.is_empty()).then(|| format!("only it can use {}", names.join(" and ")))
}

/// Would the machine's ssh be tried next, with a way to log in that only it has?
pub(super) fn may_be_left_to_ssh(target: &Target) -> bool {
    target.carrier == CarrierSetting::Auto && has_ssh()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::error::Tried;
    use super::*;
    use crate::config::{ConfigFile, MissingMethod, Overrides, resolve};

    fn target(settings: &str) -> Target {
        let config = format!("ssh_config = \"none\"\n[profiles.p]\nhost = \"u@h\"\n{settings}");
        let config = ConfigFile::parse(&config, Path::new("config.toml")).expect("valid");
        resolve("p", &config, &Overrides::default(), Path::new("/run/x.sock")).expect("resolved")
    }

    #[test]
    fn our_own_ssh_is_first_unless_only_the_machines_can_do_what_is_set() {
        let by_ssh = |choice| matches!(choice, Choice::OpenSsh(_));
        let mut target = target("");
        assert_eq!(choose(&target, None), Choice::NativeFirst);
        assert_eq!(choose(&target, Some(Carrier::Native)), Choice::NativeFirst);
        assert!(by_ssh(choose(&target, Some(Carrier::OpenSsh))));
        target.ssh.only_ssh = vec!["pkcs11provider"];
        assert_eq!(choose(&target, None), Choice::OpenSsh("ssh_config sets pkcs11provider".into()));
        target.carrier = CarrierSetting::Native;
        assert_eq!(choose(&target, Some(Carrier::OpenSsh)), Choice::Native);
        target.carrier = CarrierSetting::OpenSsh;
        assert!(by_ssh(choose(&target, None)));
    }

    #[test]
    fn after_a_login_only_what_we_lack_is_a_reason() {
        let failed =
            |missing| Error::Auth { account: "u@h".into(), tried: Tried::default(), offered: Vec::new(), missing };
        assert_eq!(after(&failed(Vec::new())), None);
        let missing = vec![MissingMethod::Gssapi, MissingMethod::SecurityKey];
        let why = "only it can use GSSAPIAuthentication and a security key that no agent has";
        assert_eq!(after(&failed(missing)).as_deref(), Some(why));
        assert_eq!(after(&Error::Lost { host: "h".into(), message: String::new() }), None);
    }
}
