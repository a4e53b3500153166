//! The Engine's defaults for all containers, read when a request names one of them: a request may repeat a default, but
//! not choose an option that confines less.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Deserialize;

use super::ask::{Ask, ask};
use super::bodies::{Reference, Version, is_in, is_private, shown};
use super::refusal::{Refused, forbidden};

/// The runtime that every Engine has, by its two names: the program, and containerd's way to run it.
const RUNC: [&str; 2] = ["runc", "io.containerd.runc.v2"];
/// Programs that confine no more than runc. If one is the default, a request for runc does not escape a sandbox.
const LIKE_RUNC: [&str; 4] = ["runc", "docker-runc", "crun", "nvidia-container-runtime"];
/// The Engine's own profiles, by their names since 17.05 and since 23. `unconfined` is no
/// profile: every profile is narrower.
const OWN_PROFILES: [&str; 3] = ["default", "builtin", "unconfined"];
/// The oldest version whose seccomp profile allowed more than later ones (20.10; 19.03 had no io_uring).
const OLDEST: Version = Version(20, 0, 0);

/// The Engine's `/info`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    default_runtime: String,
    runtimes: BTreeMap<String, Runtime>,
    logging_driver: String,
    security_options: Vec<String>,
    server_version: String,
    docker_root_dir: String,
}

/// A runtime known to the Engine.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Runtime {
    path: String,
}

impl Info {
    /// Whether the default runtime confines no more than runc.
    fn is_like_runc(&self) -> bool {
        let path = self.runtimes.get(&self.default_runtime).map(|runtime| runtime.path.as_str()).unwrap_or_default();
        let program = path.rsplit('/').next().unwrap_or_default();
        RUNC.contains(&self.default_runtime.as_str()) || LIKE_RUNC.contains(&program)
    }

    /// Requests the Engine's info.
    ///
    /// # Errors
    /// There is no valid answer.
    pub(super) async fn of(engine: &impl Ask) -> Result<Self, Refused> {
        let info = ask(engine, "/info", "info").await?;
        serde_json::from_slice(&info)
            .map_err(|e| (StatusCode::BAD_GATEWAY, format!("the Engine's info cannot be read: {e}")))
    }

    /// Checks that a container may have this host directory below an entry. Containers write in the Engine's own
    /// directory, and could have created a link there.
    ///
    /// # Errors
    /// The directory is the Engine's.
    pub(super) fn may_be_below(&self, source: &str) -> Result<(), Refused> {
        let root = self.docker_root_dir.trim_end_matches('/');
        if root.is_empty() || !is_in(source, root) {
            return Ok(());
        }
        Err(forbidden(format!(
            "the host's {} is not allowed: containers write in {}, the Engine's own directory, and could have put a link there",
            shown(source),
            shown(root)
        )))
    }

    /// Checks that a reference equals the Engine's default, and writes the default into the
    /// body if the body must name it.
    ///
    /// # Errors
    /// It differs from the default.
    pub(super) fn settle(&self, what: Reference<'_>) -> Result<(), Refused> {
        let other = |field: &str, value: &str, default: &str| {
            Err(forbidden(format!(
                "HostConfig.{field} {} is not allowed: the Engine's default is {}",
                shown(value),
                shown(default)
            )))
        };
        match what {
            Reference::Runtime(name) if RUNC.contains(&name.as_str()) && self.is_like_runc() => Ok(()),
            Reference::Runtime(name) if name != self.default_runtime => other("Runtime", &name, &self.default_runtime),
            Reference::LogDriver(name) if name != self.logging_driver => {
                other("LogConfig.Type", &name, &self.logging_driver)
            }
            Reference::DefaultLog { set, .. } if is_private(&self.logging_driver) => {
                set(&self.logging_driver);
                Ok(())
            }
            Reference::DefaultLog { option, .. } => Err(forbidden(format!(
                "HostConfig.LogConfig.Config.{} is not allowed for the log driver {}, the Engine's default",
                shown(&option),
                shown(&self.logging_driver)
            ))),
            Reference::HostCgroupns(set) => {
                // Engines with this option use a private namespace by default.
                if self.security_options.iter().any(|option| option.starts_with("name=cgroupns")) {
                    return other("CgroupnsMode", "host", "private");
                }
                set();
                Ok(())
            }
            Reference::Seccomp { before } => self.seccomp(before),
            _ => Ok(()),
        }
    }

    /// Checks that a container may have a profile that is no wider than that of all Engines or, with `before`, than
    /// that of Engines before this version.
    fn seccomp(&self, before: Option<Version>) -> Result<(), Refused> {
        let profile = self.security_options.iter().find_map(|option| option.strip_prefix("name=seccomp,profile="));
        if let Some(profile) = profile.filter(|profile| !OWN_PROFILES.contains(profile)) {
            return Err(forbidden(format!(
                "HostConfig.SecurityOpt: a seccomp profile is not allowed where the Engine was given one for all \
                 containers ({}), which may be narrower",
                shown(profile)
            )));
        }
        let Some(before) = before else { return Ok(()) };
        let version = Version::read(&self.server_version);
        if version.is_some_and(|version| (OLDEST..before).contains(&version)) {
            return Ok(());
        }
        Err(forbidden(format!(
            "HostConfig.SecurityOpt: this seccomp profile allows what the default profile of Engines from {before} on \
             does not (sockets of AF_VSOCK from 23 on, io_uring from 25 on, sockets of AF_ALG from 29.4.2 on), and this \
             one is {}",
            shown(&self.server_version)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(info: &str, what: Reference<'_>) -> bool {
        serde_json::from_str::<Info>(info).expect("an info").settle(what).is_ok()
    }

    #[test]
    fn a_default_may_be_repeated_and_nothing_looser_chosen() {
        let runtime = |default: &str, name: &str| {
            let paths = r#"{"runc":{"path":"runc"},"runsc":{"path":"/usr/bin/runsc"},"nvidia":{"path":"/usr/bin/nvidia-container-runtime"}}"#;
            let info = format!(r#"{{"DefaultRuntime":"{default}","Runtimes":{paths}}}"#);
            settled(&info, Reference::Runtime(name.into()))
        };
        for (default, name, passes) in [
            ("runc", "runc", true),
            ("runc", "io.containerd.runc.v2", true),
            ("io.containerd.runc.v2", "runc", true),
            ("runc", "io.containerd.kata.v2", false),
            ("runsc", "runsc", true),
            ("nvidia", "nvidia", true),
            ("nvidia", "runc", true),
            ("runc", "nvidia", false),
            // Naming the usual runtime must not leave a sandbox that is the default for all containers.
            ("runsc", "runc", false),
            ("runsc", "io.containerd.runc.v2", false),
            ("", "runc", false),
        ] {
            assert_eq!(runtime(default, name), passes, "{name} on {default}");
        }
        let seccomp = |info: &str, before| settled(info, Reference::Seccomp { before });
        for (profile, version, before, passes) in [
            ("default", "20.10.24+dfsg1", None, true),
            ("builtin", "29.0.0", None, true),
            ("unconfined", "29.0.0", None, true),
            ("/etc/docker/narrow.json", "29.0.0", None, false),
            ("default", "20.10.24+dfsg1", Some(Version(25, 0, 0)), true),
            ("default", "24.0.9", Some(Version(25, 0, 0)), true),
            ("builtin", "25.0.0", Some(Version(25, 0, 0)), false),
            ("default", "20.10.24", Some(Version(23, 0, 0)), true),
            ("builtin", "23.0.1", Some(Version(23, 0, 0)), false),
            ("builtin", "29.4.1", Some(Version(29, 4, 2)), true),
            ("builtin", "29.4.2", Some(Version(29, 4, 2)), false),
            ("builtin", "29.10.0", Some(Version(29, 4, 2)), false),
            // Not Moby's version numbers.
            ("default", "5.2.1", Some(Version(25, 0, 0)), false),
            ("default", "20", Some(Version(25, 0, 0)), false),
            ("default", "dev", Some(Version(25, 0, 0)), false),
        ] {
            let info =
                format!(r#"{{"SecurityOptions":["name=seccomp,profile={profile}"],"ServerVersion":"{version}"}}"#);
            assert_eq!(seccomp(&info, before), passes, "{profile} {version} {before:?}");
        }
        // Without seccomp support the Engine itself refuses a profile.
        assert!(seccomp("{}", None));
        for (driver, passes) in [("journald", true), ("syslog", false), ("", false)] {
            let info = r#"{"LoggingDriver":"journald"}"#;
            assert_eq!(settled(info, Reference::LogDriver(driver.into())), passes, "{driver}");
        }
        for (options, passes) in [(r#"[]"#, true), (r#"["name=cgroupns"]"#, false), (r#"["name=rootless"]"#, true)] {
            let mut set = false;
            let what = Reference::HostCgroupns(Box::new(|| set = true));
            assert_eq!(settled(&format!(r#"{{"SecurityOptions":{options}}}"#), what), passes, "{options}");
            assert_eq!(set, passes, "{options}");
        }
    }

    #[test]
    fn the_engines_own_directory_is_below_no_entry() {
        let info: Info = serde_json::from_str(r#"{"DockerRootDir":"/srv/docker/"}"#).expect("an info");
        for (source, passes) in [
            ("/srv/docker/volumes/v/_data/link", false),
            ("/srv/docker", false),
            ("/srv/dockerfiles", true),
            ("/srv", true),
        ] {
            assert_eq!(info.may_be_below(source).is_ok(), passes, "{source}");
        }
        assert!(Info::default().may_be_below("/srv/x").is_ok());
    }

    #[test]
    fn options_of_logs_pass_with_a_default_that_writes_for_the_container_alone() {
        for (default, passes) in
            [("json-file", true), ("local", true), ("none", true), ("journald", false), ("", false)]
        {
            let mut named = None;
            let what =
                Reference::DefaultLog { option: "tag".into(), set: Box::new(|name| named = Some(name.to_owned())) };
            assert_eq!(settled(&format!(r#"{{"LoggingDriver":"{default}"}}"#), what), passes, "{default}");
            assert_eq!(named.as_deref(), passes.then_some(default));
        }
    }
}
