//! The settings of a running tunnel, and their comparison with those that a command asks for.
//!
//! A running tunnel describes itself in its status ([`Settings`]); a command computes what it would ask for
//! ([`Wanted`]), and names each difference. A new key of a profile needs a line in [`super::said`], a new option one in
//! [`Wanted::of`] and [`Wanted::differences`]. Settings of ssh_config are not compared: that would need a call of ssh,
//! and its answer depends on this machine's network (`Match exec`).

use serde::{Deserialize, Serialize};

use super::resolve::{Identified, access_of, identify};
use super::said::{self, Takes};
use super::{Access, CarrierSetting, ConfigFile, Error, LocalEndpoint, Overrides, Ports, Remote, Said, Target};

/// The settings of a running tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The destination, as a profile or the user names it. Empty if an older daemon does not send it.
    #[serde(default)]
    pub destination: String,
    /// What clients may ask of the Engine.
    pub access: Access,
    /// The local endpoint, as `DOCKER_HOST` wants it.
    pub local: String,
    /// The Engine on the host, as requested.
    pub remote: String,
    /// Does it connect on first use?
    pub lazy: bool,
    /// Does it forward published ports?
    pub ports: bool,
    /// Does it bring directories of this machine to containers? None if an older daemon does not send it.
    #[serde(default)]
    pub mounts: Option<bool>,
    /// Does it have a profile? False if an older daemon does not send it.
    #[serde(default)]
    pub has_profile: bool,
    /// Was it started with `--read-only`?
    #[serde(default)]
    pub read_only: bool,
    /// Does it store answers in the keyring? None if an older daemon does not send it.
    #[serde(default)]
    pub remember: Option<bool>,
    /// The `-F` that it was started with.
    #[serde(default)]
    pub ssh_config: Option<String>,
    /// Which SSH may carry it. None if an older daemon does not send it.
    #[serde(default)]
    pub carrier: Option<CarrierSetting>,
    /// The other settings of the configuration. None if an older daemon does not send them.
    #[serde(default)]
    pub said: Option<Said>,
}

impl Settings {
    /// The settings of a target whose local endpoint is open at `local`, started with these options.
    pub fn of(target: &Target, local: &str, overrides: &Overrides) -> Self {
        Self {
            destination: target.destination.to_string(),
            access: target.access.clone(),
            local: local.into(),
            remote: target.remote.to_string(),
            lazy: target.is_lazy(),
            ports: target.ports != Ports::Off,
            mounts: Some(target.mounts.is_some() || target.mounts_in_vain.is_some()),
            has_profile: target.has_profile,
            read_only: overrides.access_read_only,
            remember: Some(target.remember),
            ssh_config: overrides.ssh_config.as_ref().map(|file| file.display().to_string()),
            carrier: Some(target.carrier),
            said: Some(target.said.clone()),
        }
    }
}

/// The settings that a command asks for. None: any value is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    destination: Option<String>,
    has_profile: bool,
    access: Access,
    read_only: bool,
    local: Option<LocalEndpoint>,
    remote: Option<Remote>,
    carrier: Option<CarrierSetting>,
    ssh_config: Option<String>,
    lazy: bool,
    ports: bool,
    mounts: bool,
    remember: bool,
    said: Said,
}

/// A setting in which a running tunnel differs from the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Its name, as in a profile or as the option.
    pub setting: String,
    /// What it is.
    pub running: String,
    /// What is asked for.
    pub wanted: String,
    /// How it comes into force.
    pub takes: Takes,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}, not {}", self.setting, self.running, self.wanted)
    }
}

impl Wanted {
    /// The settings that the command line and the profile ask for. Does not call ssh.
    ///
    /// # Errors
    /// [`Error::Target`], [`Error::Setting`], [`Error::Local`], [`Error::Remote`].
    pub fn of(input: &str, config: &ConfigFile, overrides: &Overrides) -> Result<Self, Error> {
        let Identified { name, destination, profile, socket } = identify(input, config)?;
        // Each option is named, so that a new one cannot be forgotten here.
        let Overrides { ssh_config, local, remote, carrier, lazy, remember, ports, mounts, access_read_only } =
            overrides;
        Ok(Self {
            // Without a valid configuration, the host of a profile's name is unknown.
            destination: config.is_read().then(|| destination.to_string()),
            has_profile: profile.is_some(),
            access: access_of(input, &name, profile, config, overrides)?,
            read_only: *access_read_only,
            local: local.as_deref().map(LocalEndpoint::parse).transpose()?,
            remote: remote.as_deref().or(socket.as_deref()).map(Remote::parse).transpose()?,
            carrier: *carrier,
            ssh_config: ssh_config.as_ref().map(|file| file.display().to_string()),
            lazy: *lazy,
            ports: *ports,
            mounts: *mounts,
            remember: *remember,
            said: Said::of(profile, config),
        })
    }

    /// Is there a profile of that name?
    pub fn has_profile(&self) -> bool {
        self.has_profile
    }

    /// The wanted policy for clients.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The same for a tunnel given by its own name, which does not tell its destination.
    #[must_use]
    pub fn wherever(self) -> Self {
        Self { destination: None, ..self }
    }

    /// The settings in which `running` differs from the request.
    pub fn differences(&self, running: &Settings) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut differ = |setting: &str, running: &str, wanted: &str, takes| {
            let [setting, running, wanted] = [setting, running, wanted].map(str::to_owned);
            found.push(Difference { setting, running, wanted, takes });
        };
        if self.destination.is_some() && running.has_profile && !self.has_profile {
            // All other differences follow from this one.
            differ("its profile", "known to the tunnel only", "in the configuration", Takes::Down);
            return found;
        }
        if let Some(destination) = &self.destination
            && *destination != running.destination
            && !running.destination.is_empty()
        {
            differ("host", &running.destination, destination, Takes::Reload);
        }
        if self.access.in_force() != running.access.in_force() {
            // A reload keeps the options of `up`.
            let takes = if self.read_only || running.read_only { Takes::Down } else { Takes::Reload };
            differ("access", &running.access.to_string(), &self.access.to_string(), takes);
        }
        if let Some(local) = &self.local
            && !is_at(local, &running.local)
        {
            differ("local", &running.local, &local.docker_host(), Takes::Down);
        }
        if let Some(remote) = self.remote.as_ref().map(Remote::to_string).filter(|remote| *remote != running.remote) {
            differ("remote", &running.remote, &remote, Takes::Down);
        }
        if let Some((running, wanted)) = running.carrier.zip(self.carrier).filter(|(running, wanted)| running != wanted)
        {
            differ("carrier", &running.to_string(), &wanted.to_string(), Takes::Down);
        }
        if let Some(file) =
            self.ssh_config.as_ref().filter(|_| running.said.is_some() && self.ssh_config != running.ssh_config)
        {
            differ("-F", running.ssh_config.as_deref().unwrap_or(UNSAID), file, Takes::Down);
        }
        if self.remember && running.remember == Some(false) {
            differ("remember", "false", "true", Takes::Down);
        }
        if self.lazy && !running.lazy {
            differ("lazy", "false", "true", Takes::Up);
        }
        if self.ports && !running.ports {
            differ("ports", "false", "true", Takes::Up);
        }
        if self.mounts && running.mounts == Some(false) {
            differ("mounts", "false", "true", Takes::Up);
        }
        let said = running.said.iter().flat_map(|said| said.differences(&self.said));
        for (setting, running, wanted) in said {
            differ(setting, running.unwrap_or(UNSAID), wanted.unwrap_or(UNSAID), said::takes(setting));
        }
        found
    }

    /// The same for a command that only uses the tunnel: a stricter guard than the profile's is no difference, a laxer
    /// one is, and so is any setting that may lead to another host.
    pub fn differences_in_passing(&self, running: &Settings) -> Vec<Difference> {
        let mut found = self.differences(running);
        found.retain(|difference| match difference.setting.as_str() {
            // Settings that may lead to another host or Engine; the user may differ, e.g. an account with fewer rights.
            // Without a valid configuration the wanted settings are unknown.
            "its profile" | "host" | "remote" | "jump" | "ssh_config" | "-F" | "identity_files" => {
                self.destination.is_some()
            }
            "access" => self.access.is_limited() && !running.access.only_looks(),
            _ => false,
        });
        found
    }
}

/// The text for an absent setting: it comes from ssh_config, or is built in.
const UNSAID: &str = "unset";

/// Is this the endpoint at `open`? Port 0 matches any port.
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
            mounts: Some(false),
            has_profile: true,
            read_only: false,
            remember: Some(false),
            carrier: None,
            ssh_config: None,
            said: Some(wanted(&profile(""), &Overrides::default()).said),
        }
    }

    fn names(differences: Vec<Difference>) -> Vec<String> {
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
        let read_only = Overrides { access_read_only: true, ..Overrides::default() };
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
        assert_eq!(found("", "access = \"read-only\""), [] as [&str; 0]);
        assert_eq!(found(containers, "access = \"read-only\""), [] as [&str; 0]);
        assert_eq!(found(containers, ""), ["access"]);
        assert_eq!(found(containers, "access = \"containers\""), ["access"]);
        assert_eq!(found("access = \"read-only\"", containers), ["access"]);
    }

    #[test]
    fn an_option_that_does_not_hold_is_a_difference_and_none_is_not() {
        let found = |overrides: &Overrides| names(wanted(&profile(""), overrides).differences(&running("")));
        assert_eq!(found(&Overrides::default()), [] as [&str; 0]);
        let held =
            Overrides { local: Some("unix:/run/p.sock".into()), remote: Some("auto".into()), ..Overrides::default() };
        assert_eq!(found(&held), [] as [&str; 0]);
        let other = Overrides {
            carrier: Some(CarrierSetting::OpenSsh),
            local: Some("tcp:127.0.0.1:0".into()),
            remote: Some("/d.sock".into()),
            ssh_config: Some("none".into()),
            lazy: true,
            ports: true,
            mounts: true,
            remember: true,
            access_read_only: true,
        };
        assert_eq!(found(&other), ["access", "local", "remote", "-F", "remember", "lazy", "ports", "mounts"]);
        assert!(is_at(&LocalEndpoint::parse("tcp:127.0.0.1:0").expect("one"), "tcp://127.0.0.1:2375"));
        assert!(!is_at(&LocalEndpoint::parse("tcp:127.0.0.1:1").expect("one"), "tcp://127.0.0.1:2375"));
    }

    #[test]
    fn a_setting_says_how_it_comes_into_force() {
        let takes = |text: &str, overrides: &Overrides| {
            let found = wanted(&profile(text), overrides).differences(&running(""));
            found.into_iter().map(|difference| (difference.to_string(), difference.takes)).collect::<Vec<_>>()
        };
        let no = Overrides::default();
        assert_eq!(takes("wait = \"1m\"", &no), [("wait is unset, not 1m".into(), Takes::Up)]);
        assert_eq!(takes("access = \"read-only\"", &no)[0].1, Takes::Reload);
        assert_eq!(takes("jump = \"j\"", &no)[0].1, Takes::Reload);
        assert_eq!(takes("local = \"/l\"", &no)[0].1, Takes::Restart);
        assert_eq!(takes("", &Overrides { access_read_only: true, ..no })[0].1, Takes::Down);
        let started = Settings { read_only: true, ..running("access = \"read-only\"") };
        assert_eq!(wanted(&profile(""), &Overrides::default()).differences(&started)[0].takes, Takes::Down);
        // Of an older daemon it is not known.
        let older = Settings { said: None, remember: None, ..running("") };
        let all = Overrides { remember: true, ssh_config: Some("none".into()), ..Overrides::default() };
        assert!(wanted(&profile("wait = \"1m\""), &all).differences(&older).is_empty());
    }
}
