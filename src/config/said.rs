//! The settings of a tunnel in `config.toml`, one by one, so that later changes can be named.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::file::Defaults;
use super::{ConfigFile, Profile};

/// The settings in the file, by name, as text. Settings that are absent come from ssh_config or are built in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Said(BTreeMap<String, String>);

/// How a changed setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Takes {
    /// By the next `up`, which makes the tunnel reload its configuration.
    Up,
    /// By an explicit `reload`: the setting changes permissions, or where the tunnel leads.
    Reload,
    /// By `restart`.
    Restart,
    /// By `down` and another `up`: the setting is on the command line.
    Down,
}

impl Said {
    /// Is this the value of the setting, without the quotes of a string?
    pub fn has(&self, setting: &str, text: &str) -> bool {
        self.0.get(setting).is_some_and(|said| said == text)
    }

    /// The settings of a target with this profile. Without host, user, port, `access`, `allow` and `allowed_binds`,
    /// whose resolved values are compared.
    pub(super) fn of(profile: Option<&Profile>, config: &ConfigFile) -> Self {
        // Every key is named, so that a new one cannot be forgotten here.
        let Defaults {
            remote: remote_of_all,
            keepalive: keepalive_of_all,
            keepalive_count: count_of_all,
            max_connections: connections_of_all,
            spill: spill_of_all,
            connect_timeout: connect_timeout_of_all,
            drain: drain_of_all,
            wait: wait_of_all,
            lazy: lazy_of_all,
            idle_timeout: idle_timeout_of_all,
            api: api_of_all,
            eager_ping: ping_of_all,
            server_nodelay: nodelay_of_all,
            carrier: carrier_of_all,
            access: _,
            audit: _,
        } = &config.defaults;
        let none = Profile::default();
        let Profile {
            host: _,
            user: _,
            port: _,
            identity_files,
            jump,
            local,
            remote,
            keepalive,
            keepalive_count,
            max_connections,
            spill,
            connect_timeout,
            drain,
            wait,
            lazy,
            idle_timeout,
            api,
            eager_ping,
            server_nodelay,
            carrier,
            access: _,
            allow: _,
            allowed_binds: _,
            ports,
            ports_fallback,
            ports_conflict,
            ports_address,
            mounts,
            mounts_max,
            // `dtunnel audit` and `profile list` read these keys themselves.
            audit: _,
            description: _,
        } = profile.unwrap_or(&none);
        let settings = [
            ("ssh_config", text(config.ssh_config.as_ref(), None)),
            ("identity_files", text(identity_files.as_ref(), None)),
            ("jump", text(jump.as_ref(), None)),
            ("local", text(local.as_ref(), None)),
            ("remote", text(remote.as_ref(), remote_of_all.as_ref())),
            ("keepalive", text(keepalive.as_ref(), keepalive_of_all.as_ref())),
            ("keepalive_count", text(keepalive_count.as_ref(), count_of_all.as_ref())),
            ("max_connections", text(max_connections.as_ref(), connections_of_all.as_ref())),
            ("spill", text(spill.as_ref(), spill_of_all.as_ref())),
            ("connect_timeout", text(connect_timeout.as_ref(), connect_timeout_of_all.as_ref())),
            ("drain", text(drain.as_ref(), drain_of_all.as_ref())),
            ("wait", text(wait.as_ref(), wait_of_all.as_ref())),
            ("lazy", text(lazy.as_ref(), lazy_of_all.as_ref())),
            ("idle_timeout", text(idle_timeout.as_ref(), idle_timeout_of_all.as_ref())),
            ("api", text(api.as_ref(), api_of_all.as_ref())),
            ("eager_ping", text(eager_ping.as_ref(), ping_of_all.as_ref())),
            ("server_nodelay", text(server_nodelay.as_ref(), nodelay_of_all.as_ref())),
            ("carrier", text(carrier.as_ref(), carrier_of_all.as_ref())),
            ("ports", text(ports.as_ref(), None)),
            ("ports_fallback", text(ports_fallback.as_ref(), None)),
            ("ports_conflict", text(ports_conflict.as_ref(), None)),
            ("ports_address", text(ports_address.as_ref(), None)),
            ("mounts", text(mounts.as_ref(), None)),
            ("mounts_max", text(mounts_max.as_ref(), None)),
        ];
        Self(settings.into_iter().filter_map(|(name, said)| Some((name.to_owned(), said?))).collect())
    }

    /// Name, the value here, and the value in `other`; None: absent.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> Vec<(&'a str, Option<&'a str>, Option<&'a str>)> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let both = names.into_iter().map(|name| (name.as_str(), self.get(name), other.get(name)));
        both.filter(|(_, one, other)| one != other).collect()
    }

    /// Takes the settings that need a restart from `running`.
    pub(super) fn keep_what_takes_a_restart(&mut self, running: &Self) {
        let is_kept = |name: &str| takes(name) == Takes::Restart;
        self.0.retain(|name, _| !is_kept(name));
        self.0.extend(
            running.0.iter().filter(|(name, _)| is_kept(name)).map(|(name, said)| (name.clone(), said.clone())),
        );
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// How a changed key of a profile takes effect.
pub(super) fn takes(setting: &str) -> Takes {
    match setting {
        "local" => Takes::Restart,
        "remote" | "identity_files" | "jump" | "ssh_config" | "carrier" => Takes::Reload,
        _ => Takes::Up,
    }
}

/// The profile's value, else that of `[defaults]`.
fn text<T: Serialize>(profile: Option<&T>, all: Option<&T>) -> Option<String> {
    let value = serde_json::to_value(profile.or(all)?).ok()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn said(text: &str) -> Said {
        let config = ConfigFile::parse(text, Path::new("config.toml")).expect("valid");
        Said::of(config.profiles.get("p"), &config)
    }

    /// A different value for each key of a profile.
    #[test]
    fn every_setting_of_a_profile_is_told_when_it_changes() {
        let values = [
            ("identity_files", "[\"~/.ssh/k\"]"),
            ("jump", "[\"a\", \"b\"]"),
            ("local", "\"tcp:127.0.0.1:0\""),
            ("remote", "\"/d.sock\""),
            ("keepalive", "\"7s\""),
            ("keepalive_count", "9"),
            ("max_connections", "2"),
            ("spill", "\"2MiB\""),
            ("connect_timeout", "\"3s\""),
            ("drain", "\"1s\""),
            ("wait", "\"1m\""),
            ("lazy", "true"),
            ("idle_timeout", "\"1h\""),
            ("api", "false"),
            ("eager_ping", "false"),
            ("server_nodelay", "true"),
            ("carrier", "\"openssh\""),
            ("ports", "\"ask\""),
            ("ports_fallback", "true"),
            ("ports_conflict", "\"refuse\""),
            ("ports_address", "\"127.0.0.2\""),
            ("mounts", "[\"~/src\"]"),
            ("mounts_max", "\"1GiB\""),
        ];
        let before = said("[profiles.p]\n");
        for (name, value) in values {
            let after = said(&format!("[profiles.p]\n{name} = {value}\n"));
            let found = before.differences(&after);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert_eq!((found[0].0, found[0].1), (name, None));
        }
        let elsewhere = ["host", "user", "port", "access", "allow", "allowed_binds", "audit", "description"];
        let schema = serde_json::to_value(schemars::schema_for!(Profile)).expect("a schema");
        let keys: BTreeSet<&str> =
            schema["properties"].as_object().expect("an object").keys().map(String::as_str).collect();
        let known: BTreeSet<&str> = values.iter().map(|(name, _)| *name).chain(elsewhere).collect();
        assert_eq!(keys, known);
    }

    #[test]
    fn what_holds_for_all_counts_where_a_profile_says_nothing() {
        let one = said("[defaults]\nwait = \"1m\"\n[profiles.p]\n");
        assert_eq!(one, said("[profiles.p]\nwait = \"1m\"\n"));
        assert_eq!(one, said("[defaults]\nwait = \"2m\"\n[profiles.p]\nwait = \"60s\"\n"), "however it is written");
        let other = said("[defaults]\nwait = \"2m\"\n[profiles.p]\n");
        assert_eq!(one.differences(&other), [("wait", Some("1m"), Some("2m"))]);
        assert_eq!(said("ssh_config = \"none\"\n").differences(&said("")), [("ssh_config", Some("none"), None)]);
    }
}
