//! The parts of an Engine's answers that the checks read.
//!
//! Every field is [`Told`]: a field that is missing, null or of another type is unknown, and no check may assume a
//! value. Podman, old Engines and filtering proxies leave fields out.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// A field of an answer; None if the Engine does not send it or it has another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told<T>(pub(super) Option<T>);

/// A list or map. Go writes an empty one as null; a missing field is unknown.
pub(super) type List<T> = Told<Option<Vec<T>>>;
pub(super) type Map<T> = Told<Option<BTreeMap<String, T>>>;

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(serde_json::from_value(value).ok()))
    }
}

impl<T> Told<T> {
    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl Told<String> {
    pub(super) fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl<T> List<T> {
    pub(super) fn items(&self) -> Option<&[T]> {
        self.0.as_ref().map(|items| items.as_deref().unwrap_or_default())
    }
}

/// `GET /info`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Info {
    pub(super) security_options: List<String>,
    pub(super) live_restore_enabled: Told<bool>,
    pub(super) experimental_build: Told<bool>,
    pub(super) logging_driver: Told<String>,
    pub(super) plugins: Told<Plugins>,
    pub(super) registry_config: Told<RegistryConfig>,
    pub(super) server_version: Told<String>,
    pub(super) kernel_version: Told<String>,
    pub(super) warnings: List<String>,
    pub(super) swarm: Told<SwarmInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Plugins {
    pub(super) authorization: List<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct RegistryConfig {
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub(super) insecure_registry_cidrs: List<String>,
    pub(super) index_configs: Map<IndexConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct IndexConfig {
    pub(super) secure: Told<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct SwarmInfo {
    pub(super) local_node_state: Told<String>,
    pub(super) control_available: Told<bool>,
}

/// `GET /version`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) api_version: Told<String>,
    pub(super) components: List<Component>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Component {
    pub(super) name: Told<String>,
    pub(super) version: Told<String>,
}

/// `GET /networks/bridge`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Network {
    pub(super) options: Map<String>,
}

/// `GET /swarm`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Swarm {
    pub(super) spec: Told<SwarmSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct SwarmSpec {
    pub(super) encryption_config: Told<EncryptionConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct EncryptionConfig {
    pub(super) auto_lock_managers: Told<bool>,
}

/// `GET /containers/ID/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) name: Told<String>,
    pub(super) config: Told<ContainerConfig>,
    pub(super) host_config: Told<HostConfig>,
    pub(super) mounts: List<Mount>,
    pub(super) network_settings: Told<NetworkSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ContainerConfig {
    pub(super) user: Told<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct HostConfig {
    pub(super) privileged: Told<bool>,
    pub(super) network_mode: Told<String>,
    pub(super) pid_mode: Told<String>,
    pub(super) ipc_mode: Told<String>,
    #[serde(rename = "UTSMode")]
    pub(super) uts_mode: Told<String>,
    pub(super) userns_mode: Told<String>,
    pub(super) cap_add: List<String>,
    pub(super) security_opt: List<String>,
    pub(super) devices: List<Device>,
    pub(super) memory: Told<i64>,
    /// Null means no limit.
    pub(super) pids_limit: Told<Option<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Device {
    pub(super) path_on_host: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Mount {
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) source: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct NetworkSettings {
    pub(super) ports: Map<Option<Vec<Binding>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Binding {
    pub(super) host_ip: String,
    pub(super) host_port: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_of_another_type_is_unknown_and_null_is_an_empty_list() {
        let info: Info = serde_json::from_str(
            r#"{"SecurityOptions":null,"LiveRestoreEnabled":"yes","ExperimentalBuild":false,"Plugins":{"Authorization":null},
                "RegistryConfig":null,"Warnings":[1]}"#,
        )
        .expect("an object");
        assert_eq!(info.security_options.items(), Some(&[][..]));
        assert_eq!((info.live_restore_enabled.get(), info.experimental_build.get()), (None, Some(&false)));
        assert_eq!(info.plugins.get().and_then(|plugins| plugins.authorization.items()), Some(&[][..]));
        assert!(info.registry_config.get().is_none() && info.warnings.items().is_none());
        let host: HostConfig = serde_json::from_str(r#"{"PidsLimit":null}"#).expect("an object");
        assert_eq!((host.pids_limit.get(), host.memory.get()), (Some(&None), None));
    }
}
