//! Which SSH carries a connection, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::config::{CarrierSetting, Target, has_ssh};
use crate::os::mux;

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

/// What carries a connection, and why it is not dtunnel's own SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub by: Carrier,
    /// None for dtunnel's own.
    pub why: Option<String>,
    /// Is it to be tried first next time, since dtunnel's own could not log in?
    pub is_first: bool,
}

/// The carrier that a login begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Native,
    /// Where that lacks the way to log in, the machine's ssh.
    NativeFirst,
    /// For this reason. Is it to be tried first next time, too?
    OpenSsh {
        why: String,
        is_first: bool,
    },
}

/// May a connection of the machine's ssh that is there be used?
pub(super) fn may_share(target: &Target) -> bool {
    target.carrier != CarrierSetting::Native && target.ssh.control_path.is_some() && mux::check().is_ok()
}

/// The carrier for `target`; `openssh_first`: the machine's ssh could log in before where dtunnel's own could not.
pub(super) fn choose(target: &Target, openssh_first: bool) -> Choice {
    let only_ssh = &target.ssh.only_ssh;
    let by_ssh = |why: String, is_first| Choice::OpenSsh { why, is_first };
    match target.carrier {
        CarrierSetting::Native => Choice::Native,
        CarrierSetting::OpenSsh => by_ssh("it is set".into(), false),
        CarrierSetting::Auto if !has_ssh() => Choice::Native,
        CarrierSetting::Auto if !only_ssh.is_empty() => {
            by_ssh(format!("ssh_config sets {}", only_ssh.join(" and ")), false)
        }
        CarrierSetting::Auto if openssh_first => by_ssh("it could log in before".into(), true),
        CarrierSetting::Auto => Choice::NativeFirst,
    }
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
        let by_ssh = |choice: Choice| match choice {
            Choice::OpenSsh { why, is_first } => Some((why, is_first)),
            Choice::Native | Choice::NativeFirst => None,
        };
        let mut target = target("");
        assert_eq!(choose(&target, false), Choice::NativeFirst);
        assert_eq!(by_ssh(choose(&target, true)), Some(("it could log in before".into(), true)));
        target.ssh.only_ssh = vec!["pkcs11provider"];
        assert_eq!(by_ssh(choose(&target, false)), Some(("ssh_config sets pkcs11provider".into(), false)));
        target.carrier = CarrierSetting::Native;
        assert_eq!(choose(&target, true), Choice::Native);
        // What is asked for is not remembered as needed.
        target.carrier = CarrierSetting::OpenSsh;
        assert_eq!(by_ssh(choose(&target, false)), Some(("it is set".into(), false)));
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
