//! Existing containers: whether they would be allowed now. Exec into a container, copying into it and sharing its
//! namespaces give the user what the container has.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::binds::Use;
use super::host_config::HostConfig;
use super::mounts::Options;
use super::{Ground, Reference, json};

/// HostConfig fields that give no rights to the container's user, or that `Mounts` shows as well.
const NOT_JUDGED: &[&str] = &[
    "Annotations",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CgroupnsMode",
    "ContainerIDFile",
    "LogConfig",
    "PortBindings",
    "RestartPolicy",
    "StorageOpt",
    "VolumeDriver",
    "VolumesFrom",
];

/// An existing container that would be allowed if all objects it refers to are.
pub(in crate::tunnel::guard) struct Existing {
    /// Its full id.
    pub(in crate::tunnel::guard) id: String,
    host: HostConfig,
    /// The volumes mounted in it, each once.
    volumes: BTreeSet<String>,
}

/// A mount of a container, as shown by inspect.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MountPoint {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    destination: String,
    #[serde(default, rename = "RW")]
    writable: bool,
}

impl Existing {
    /// Reads an inspect answer about a container.
    ///
    /// # Errors
    /// Why the container would not be allowed.
    pub(in crate::tunnel::guard) fn read(inspect: &[u8], ground: &Ground<'_>) -> Result<Self, String> {
        let mut inspect = json::parse(inspect)?;
        let id = inspect["Id"].as_str().filter(|id| is_whole_id(id)).ok_or("the Engine gives no id")?.to_owned();
        let mut host = inspect["HostConfig"].take();
        let Value::Object(fields) = &mut host else { return Err("the Engine gives no HostConfig".into()) };
        fields.retain(|name, _| !NOT_JUDGED.contains(&name.as_str()));
        let host: HostConfig = json::read_value(host).map_err(|e| format!("HostConfig.{e}"))?;
        host.judge_common(ground)?;
        let mounts: Vec<MountPoint> = match inspect["Mounts"].take() {
            Value::Null => Vec::new(),
            mounts => serde_json::from_value(mounts).map_err(|e| format!("its mounts cannot be read: {e}"))?,
        };
        let mut volumes = BTreeSet::new();
        for mount in mounts {
            match mount.kind.as_str() {
                "bind" => {
                    ground.may_bind(&mount.source, if mount.writable { Use::Write } else { Use::Read })?;
                    if ground.is_below(&mount.source) && !host.leaves_out_mounts(&mount.source, &mount.destination) {
                        return Err(format!(
                            "it has the host's {} with what is mounted below it, which may be written to",
                            json::shown(&mount.source)
                        ));
                    }
                }
                "volume" => drop(volumes.insert(mount.name)),
                "tmpfs" | "image" => {}
                other => return Err(format!("a mount of type {} is not allowed", json::shown(other))),
            }
        }
        Ok(Self { id, host, volumes })
    }

    /// See [`HostConfig::below`].
    pub(in crate::tunnel::guard) fn below(&self, ground: &Ground<'_>) -> Vec<String> {
        self.host.below(ground).map(str::to_owned).collect()
    }

    /// The objects that must be checked at the Engine as well.
    pub(in crate::tunnel::guard) fn references(&mut self) -> Vec<Reference<'_>> {
        let mut all = self.host.references();
        // The HostConfig's volumes are among the mounted ones.
        all.retain(|reference| !matches!(reference, Reference::Volume { .. }));
        let volumes = self.volumes.iter().cloned();
        all.extend(volumes.map(|name| Reference::Volume { field: "Mounts", name }));
        all
    }
}

/// Checks that a volume, as shown by the Engine, could be created now.
///
/// # Errors
/// Why it could not.
pub(in crate::tunnel::guard) fn judge_volume(inspect: &[u8], ground: &Ground<'_>) -> Result<(), String> {
    let mut inspect = json::parse(inspect)?;
    match inspect["Driver"].as_str() {
        Some("local") => {}
        Some(other) => return Err(format!("its driver {} cannot be judged", json::shown(other))),
        None => return Err("the Engine does not say what its driver is".into()),
    }
    let options: Options = json::read_value(inspect["Options"].take()).map_err(|e| format!("Options.{e}"))?;
    options.judge(ground).map_err(|e| format!("Options.{e}"))
}

/// An exec created earlier.
pub(in crate::tunnel::guard) struct ExistingExec {
    /// The id of its container.
    pub(in crate::tunnel::guard) container: String,
}

impl ExistingExec {
    /// Reads an inspect answer about an exec.
    ///
    /// # Errors
    /// Why the exec would not be allowed.
    pub(in crate::tunnel::guard) fn read(inspect: &[u8]) -> Result<Self, String> {
        let inspect = json::parse(inspect)?;
        let container = inspect["ContainerID"].as_str().filter(|id| is_whole_id(id));
        let container = container.ok_or("the Engine does not say where it runs")?.to_owned();
        match &inspect["ProcessConfig"]["privileged"] {
            Value::Null | Value::Bool(false) => Ok(Self { container }),
            _ => Err("it was made Privileged, which is not allowed".into()),
        }
    }
}

/// Whether it has the form of a full id from the Engine. A name may have this form as well, but
/// the Engine looks for ids first.
pub(in crate::tunnel::guard) fn is_whole_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
