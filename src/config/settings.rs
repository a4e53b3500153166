//! What a tunnel was asked to be, so that whoever asks for it again is told where it is something else.
//!
//! A running tunnel describes itself in its status ([`Settings`]); a command works out what it would ask for
//! ([`Wanted`]), and names each difference. A setting more takes a field in both, and a line in
//! [`Wanted::differences`].

use serde::{Deserialize, Serialize};

use super::resolve::{access_of, identify};
use super::{Access, ConfigFile, Error, LocalEndpoint, Overrides, Policy, Ports, Remote, Target};

/// What a running tunnel is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where it goes, as a profile or the user names it. Empty where an older daemon does not say.
    #[serde(default)]
    pub destination: String,
    /// What clients may ask of the Engine.
    pub access: Access,
    /// The local endpoint, as `DOCKER_HOST` wants it.
    pub local: String,
    /// The Engine on the host, as it was asked for.
    pub remote: String,
    /// Does it connect on first use?
    pub lazy: bool,
    /// Does it bring published ports here?
    pub ports: bool,
}

impl Settings {
    /// Those of a target whose local endpoint is open at `local`.
    pub fn of(target: &Target, local: &str) -> Self {
        Self {
            destination: target.destination.to_string(),
            access: target.access.clone(),
            local: local.into(),
            remote: target.remote.to_string(),
            lazy: target.is_lazy(),
            ports: target.ports != Ports::Off,
        }
    }
}

/// What a command asks for. None: it does not mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    destination: Option<String>,
    access: Access,
    local: Option<LocalEndpoint>,
    remote: Option<Remote>,
    lazy: bool,
    ports: bool,
}

/// A setting in which a running tunnel is not what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name, as in a profile.
    pub setting: &'static str,
    /// What it is.
    pub running: String,
    /// What is asked for.
    pub wanted: String,
}

impl Wanted {
    /// What the command line and the profile ask for: of the profile what guards the host, of the command line
    /// all. Asks no ssh.
    ///
    /// # Errors
    /// [`Error::Target`], [`Error::Setting`], [`Error::Local`], [`Error::Remote`].
    pub fn of(input: &str, config: &ConfigFile, overrides: &Overrides) -> Result<Self, Error> {
        let (name, destination, profile) = identify(input, config)?;
        Ok(Self {
            // Without a configuration, which may be broken, a profile's name says nothing of its host.
            destination: (!config.profiles.is_empty()).then(|| destination.to_string()),
            access: access_of(input, &name, profile, config, overrides)?,
            local: overrides.local.as_deref().map(LocalEndpoint::parse).transpose()?,
            remote: overrides.remote.as_deref().map(Remote::parse).transpose()?,
            lazy: overrides.lazy,
            ports: overrides.ports,
        })
    }

    /// Where `running` is not what is asked for.
    pub fn differences(&self, running: &Settings) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut differ = |setting, running: String, wanted: String| {
            found.push(Difference { setting, running, wanted });
        };
        if let Some(destination) = &self.destination
            && *destination != running.destination
            && !running.destination.is_empty()
        {
            differ("host", running.destination.clone(), destination.clone());
        }
        if self.access.in_force() != running.access.in_force() {
            differ("access", running.access.to_string(), self.access.to_string());
        }
        if let Some(local) = &self.local
            && !is_at(local, &running.local)
        {
            differ("local", running.local.clone(), local.docker_host());
        }
        if let Some(remote) = self.remote.as_ref().map(Remote::to_string).filter(|remote| *remote != running.remote) {
            differ("remote", running.remote.clone(), remote);
        }
        if self.lazy && !running.lazy {
            differ("lazy", "false".into(), "true".into());
        }
        if self.ports && !running.ports {
            differ("ports", "false".into(), "true".into());
        }
        found
    }

    /// The same for a command that only passes by: that more is refused than the profile wants is no
    /// difference to it, that something passes which the profile forbids is one.
    pub fn differences_in_passing(&self, running: &Settings) -> Vec<Difference> {
        // Nothing is narrower than `read-only` by itself.
        let narrowest = running.access.policies == [Policy::ReadOnly] && running.access.allow.is_empty();
        let mut found = self.differences(running);
        found.retain(|difference| difference.setting != "access" || self.access.is_limited() && !narrowest);
        found
    }
}

/// Is this the endpoint at `open`? Port 0 is any.
fn is_at(wanted: &LocalEndpoint, open: &str) -> bool {
    match (wanted, LocalEndpoint::parse(open)) {
        (LocalEndpoint::Tcp(wanted), Ok(LocalEndpoint::Tcp(open))) if wanted.port() == 0 => wanted.ip() == open.ip(),
        (wanted, Ok(open)) => *wanted == open,
        (_, Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn wanted(text: &str, overrides: &Overrides) -> Wanted {
        let config = ConfigFile::parse(text, Path::new("config.toml")).expect("valid");
        Wanted::of("p", &config, overrides).expect("valid")
    }

    fn profile(text: &str) -> String {
        format!("[profiles.p]\nhost = \"h\"\n{text}\n")
    }

    fn running(text: &str) -> Settings {
        let access = wanted(&profile(text), &Overrides::default()).access;
        Settings {
            destination: "h".into(),
            access,
            local: "unix:///run/p.sock".into(),
            remote: "auto".into(),
            lazy: false,
            ports: false,
        }
    }

    fn names(differences: Vec<Difference>) -> Vec<&'static str> {
        differences.into_iter().map(|difference| difference.setting).collect()
    }

    #[test]
    fn access_that_is_another_is_a_difference_and_the_order_of_words_is_none() {
        let all = [
            "",
            "access = \"read-only\"",
            "access = \"read-only\"\nallow = [\"exec.start\"]",
            "access = [\"containers\", \"no-privileged\"]",
            "access = [\"containers\", \"no-privileged\"]\nallowed_binds = [\"/srv\"]",
        ];
        for (i, asked) in all.iter().enumerate() {
            for (j, is) in all.iter().enumerate() {
                let found = wanted(&profile(asked), &Overrides::default()).differences(&running(is));
                assert_eq!(found.is_empty(), i == j, "{asked} on {is}: {found:?}");
            }
        }
        let turned = wanted(&profile("access = [\"no-privileged\", \"containers\"]"), &Overrides::default());
        assert!(turned.differences(&running(all[3])).is_empty());
        // What is not in force makes no difference.
        let vain = wanted(&profile("access = \"full\"\nallowed_binds = [\"/srv\"]"), &Overrides::default());
        assert!(vain.differences(&running("")).is_empty());
        let read_only = Overrides { read_only: true, ..Overrides::default() };
        let found = wanted(&profile(all[4]), &read_only).differences(&running(all[4]));
        assert_eq!(found[0].wanted, "read-only");
        assert_eq!(found[0].running, "containers, no-privileged; allowed_binds: /srv");
        assert!(wanted(&profile(all[4]), &read_only).differences(&running(all[1])).is_empty());
    }

    #[test]
    fn another_host_is_a_difference_to_everybody() {
        let found = |text: &str| wanted(text, &Overrides::default()).differences_in_passing(&running(""));
        assert!(found(&profile("")).is_empty());
        for other in ["host = \"other\"", "host = \"h\"\nuser = \"root\"", "host = \"h\"\nport = 2222"] {
            let differences = found(&format!("[profiles.p]\n{other}\n"));
            assert_eq!(differences[0].setting, "host", "{other}");
        }
    }

    #[test]
    fn in_passing_only_a_guard_that_is_missing_counts() {
        let found = |asked: &str, is: &str| {
            names(wanted(&profile(asked), &Overrides::default()).differences_in_passing(&running(is)))
        };
        let containers = "access = [\"containers\", \"no-privileged\"]";
        assert_eq!(found("", "access = \"read-only\""), [""; 0]);
        assert_eq!(found(containers, "access = \"read-only\""), [""; 0]);
        assert_eq!(found(containers, ""), ["access"]);
        assert_eq!(found(containers, "access = \"containers\""), ["access"]);
        assert_eq!(found("access = \"read-only\"", containers), ["access"]);
    }

    #[test]
    fn an_option_that_does_not_hold_is_a_difference_and_none_is_not() {
        let found = |overrides: &Overrides| names(wanted(&profile(""), overrides).differences(&running("")));
        assert_eq!(found(&Overrides::default()), [""; 0]);
        let held =
            Overrides { local: Some("unix:/run/p.sock".into()), remote: Some("auto".into()), ..Overrides::default() };
        assert_eq!(found(&held), [""; 0]);
        let other = Overrides {
            local: Some("tcp:127.0.0.1:0".into()),
            remote: Some("/d.sock".into()),
            lazy: true,
            ports: true,
            ..Overrides::default()
        };
        assert_eq!(found(&other), ["local", "remote", "lazy", "ports"]);
        assert!(is_at(&LocalEndpoint::parse("tcp:127.0.0.1:0").expect("one"), "tcp://127.0.0.1:2375"));
        assert!(!is_at(&LocalEndpoint::parse("tcp:127.0.0.1:1").expect("one"), "tcp://127.0.0.1:2375"));
    }
}
