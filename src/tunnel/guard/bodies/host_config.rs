//! HostConfig: a container's access to its host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::binds::Bind;
use super::logging::LogConfig;
use super::mounts::{self, Mount};
use super::resources::{RestartPolicy, Throttle, Ulimit, WeightDevice};
use super::security::{self, Capability, MaskedPath, ReadonlyPath, SecurityOpt, Sysctl};
use super::text::{
    Nothing, Ranges, Text, body, is_made_of, is_name, is_network_name, is_one_line, nothing, one_of, only, rules,
};
use super::{Ground, Reference};

body! {
    /// Part of `POST /containers/create`: every field that Moby has had since API 1.24.
    HostConfig {
        binds: Vec<Bind>,
        // Written by clients for themselves.
        container_id_file = "ContainerIDFile": String,
        log_config: LogConfig,
        network_mode: NetworkMode,
        port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
        restart_policy: RestartPolicy,
        auto_remove: bool,
        volume_driver: Text<Local>,
        volumes_from: Vec<VolumesFrom>,
        console_size: [u32; 2],
        // Runtimes act on some annotations (`org.systemd.property.*`, `run.oci.*`, `cdi.k8s.io/*`).
        #[serde(deserialize_with = "nothing")]
        annotations: Nothing,

        cap_add: Vec<Text<Capability>>,
        cap_drop: Vec<String>,
        cgroupns_mode: CgroupnsMode,
        dns: Vec<String>,
        dns_options: Vec<String>,
        dns_search: Vec<String>,
        extra_hosts: Vec<String>,
        group_add: Vec<String>,
        ipc_mode: Namespace<Ipc>,
        #[serde(deserialize_with = "nothing")]
        cgroup: Nothing,
        links: Vec<String>,
        oom_score_adj: i64,
        pid_mode: Namespace<Pid>,
        #[serde(deserialize_with = "nothing")]
        privileged: Nothing,
        publish_all_ports: bool,
        readonly_rootfs: bool,
        security_opt: Vec<SecurityOpt>,
        storage_opt: BTreeMap<Text<StorageOption>, Text<Size>>,
        tmpfs: BTreeMap<String, Text<mounts::TmpfsWords>>,
        #[serde(deserialize_with = "nothing")]
        uts_mode = "UTSMode": Nothing,
        #[serde(deserialize_with = "nothing")]
        userns_mode: Nothing,
        shm_size: i64,
        sysctls: BTreeMap<Text<Sysctl>, Text<SysctlValue>>,
        runtime: Runtime,
        isolation: Text<Isolation>,
        mounts: Vec<Mount>,
        masked_paths: Vec<Text<MaskedPath>>,
        readonly_paths: Vec<Text<ReadonlyPath>>,
        init: bool,

        cpu_shares: i64,
        memory: i64,
        nano_cpus: i64,
        #[serde(deserialize_with = "nothing")]
        cgroup_parent: Nothing,
        blkio_weight: u16,
        blkio_weight_device: Vec<WeightDevice>,
        blkio_device_read_bps: Vec<Throttle>,
        blkio_device_write_bps: Vec<Throttle>,
        blkio_device_read_iops = "BlkioDeviceReadIOps": Vec<Throttle>,
        blkio_device_write_iops = "BlkioDeviceWriteIOps": Vec<Throttle>,
        cpu_period: i64,
        cpu_quota: i64,
        cpu_realtime_period: i64,
        cpu_realtime_runtime: i64,
        cpuset_cpus: Text<Ranges>,
        cpuset_mems: Text<Ranges>,
        #[serde(deserialize_with = "nothing")]
        devices: Nothing,
        #[serde(deserialize_with = "nothing")]
        device_cgroup_rules: Nothing,
        #[serde(deserialize_with = "nothing")]
        device_requests: Nothing,
        kernel_memory: i64,
        kernel_memory_tcp = "KernelMemoryTCP": i64,
        memory_reservation: i64,
        memory_swap: i64,
        memory_swappiness: i64,
        oom_kill_disable: bool,
        pids_limit: i64,
        ulimits: Vec<Ulimit>,
        cpu_count: i64,
        cpu_percent: i64,
        io_maximum_iops = "IOMaximumIOps": u64,
        io_maximum_bandwidth = "IOMaximumBandwidth": u64,

        // From very old Engines.
        #[serde(deserialize_with = "nothing")]
        capabilities: Nothing,
        #[serde(deserialize_with = "nothing")]
        disk_quota: Nothing,
        #[serde(deserialize_with = "nothing")]
        init_path: Nothing,
    }

    /// Where a port is published.
    PortBinding {
        host_ip = "HostIp": Text<Address>,
        host_port: Text<Ranges>,
    }
}

rules! {
    Local = |text| one_of(text, &["", "local"]);
    Isolation = |text| one_of(text, &["", "default"]);
    StorageOption = |text| one_of(text, &["size"]);
    Size = |text| only(is_made_of(text, "."));
    SysctlValue = |text| only(is_one_line(text) || text.chars().all(|c| c == '\t' || !c.is_control()));
    Address = |text| only(text.is_empty() || text.parse::<std::net::IpAddr>().is_ok());
    Ipc = |text| one_of(text, &["", "none", "private", "shareable"]);
    Pid = |text| one_of(text, &[""]);
}

/// A private namespace, as the rule requires, or that of another container.
#[derive(Clone, Serialize)]
#[serde(untagged, bound(serialize = ""))]
pub(super) enum Namespace<R> {
    Own(Text<R>),
    Of(Joined),
}

/// `container:NAME`. The container is checked at the Engine.
#[derive(Clone, Serialize)]
pub(super) struct Joined(String);

impl Joined {
    const PREFIX: &str = "container:";

    /// None if it names no container; an error if the name is missing.
    fn read(text: &str) -> Option<Result<Self, String>> {
        let name = text.strip_prefix(Self::PREFIX)?;
        Some(if is_name(name) { Ok(Self(text.into())) } else { Err("names no container".into()) })
    }

    fn name(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    fn set(&mut self, id: &str) {
        self.0 = format!("{}{id}", Self::PREFIX);
    }
}

impl<'de, R: super::text::Rule> Deserialize<'de> for Namespace<R> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Joined::read(&text) {
            Some(joined) => joined.map(Self::Of).map_err(serde::de::Error::custom),
            None => Text::deserialize(serde::de::value::StringDeserializer::new(text)).map(Self::Own),
        }
    }
}

/// A container's first network. It is found by name or id. The Engine uses the host's network only for the literal mode
/// `host` (moby: ErrConflictHostNetwork).
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(super) enum NetworkMode {
    Named(String),
    Of(Joined),
}

impl<'de> Deserialize<'de> for NetworkMode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Joined::read(&text) {
            Some(joined) => joined.map(Self::Of).map_err(serde::de::Error::custom),
            None if text == "host" || !(text.is_empty() || is_network_name(&text)) => {
                Err(serde::de::Error::custom(format_args!("{} is not allowed", super::json::shown(&text))))
            }
            None => Ok(Self::Named(text)),
        }
    }
}

/// Another container whose volumes are mounted as well: `NAME[:ro|:rw]`.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub(super) struct VolumesFrom(String);

impl VolumesFrom {
    fn parts(&self) -> (&str, Option<&str>) {
        self.0.split_once(':').map_or((self.0.as_str(), None), |(name, mode)| (name, Some(mode)))
    }
}

impl<'de> Deserialize<'de> for VolumesFrom {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let from = Self(String::deserialize(deserializer)?);
        let (name, mode) = from.parts();
        if is_name(name) && matches!(mode, None | Some("ro" | "rw")) {
            Ok(from)
        } else {
            Err(serde::de::Error::custom(format_args!("{} is not allowed", super::json::shown(&from.0))))
        }
    }
}

/// The program that runs the container. It must be the Engine's default: another one may confine less.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Runtime(String);

impl<'de> Deserialize<'de> for Runtime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        // Engines from 23 on accept the path of a program here.
        if name.is_empty() || is_name(&name) {
            Ok(Self(name))
        } else {
            Err(serde::de::Error::custom(format_args!("{} is not allowed", super::json::shown(&name))))
        }
    }
}

/// The container's cgroup namespace. `host` is the Engine's default on a host with cgroup v1, and for
/// clients of an API before 1.41.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CgroupnsMode {
    #[serde(rename = "")]
    Default,
    Private,
    Host,
}

impl HostConfig {
    /// A HostConfig with only this runtime.
    pub(super) fn with_runtime(runtime: Option<Runtime>) -> Self {
        Self { runtime, ..Self::default() }
    }

    /// Judges fields that depend on each other, and sets those that must not be left to the Engine's default.
    pub(super) fn judge(&mut self, ground: &Ground<'_>) -> Result<(), String> {
        self.judge_common(ground)?;
        self.leave_out_mounts(ground)?;
        if let Some(log) = &self.log_config {
            log.judge().map_err(|e| format!("HostConfig.LogConfig.{e}"))?;
        }
        if let Some(paths) = &mut self.masked_paths {
            security::mask_later(paths);
        }
        if !matches!(self.cgroupns_mode, Some(CgroupnsMode::Host)) {
            self.cgroupns_mode = Some(CgroupnsMode::Private);
        }
        Ok(())
    }

    /// See [`Mount::leave_out_mounts`]. An item of Binds cannot express that, so it becomes an item of Mounts.
    fn leave_out_mounts(&mut self, ground: &Ground<'_>) -> Result<(), String> {
        let mut moved = Vec::new();
        for (at, bind) in self.binds.iter().flatten().enumerate() {
            if let Some((source, target)) = bind.below(ground) {
                if bind.follows_host() {
                    return Err(format!("HostConfig.Binds[{at}] slave is not allowed below an entry that ends in `/`"));
                }
                moved.push(Mount::of_below(source, target));
            }
        }
        if !moved.is_empty() {
            self.binds.iter_mut().for_each(|binds| binds.retain(|bind| bind.below(ground).is_none()));
            self.mounts.get_or_insert_default().extend(moved);
        }
        for (at, mount) in self.mounts.iter_mut().flatten().enumerate() {
            mount.leave_out_mounts(ground).map_err(|e| format!("HostConfig.Mounts[{at}]{e}"))?;
        }
        Ok(())
    }

    /// The host directories that need an `allowed_binds` entry ending in `/`.
    pub(super) fn below<'a>(&'a self, ground: &Ground<'_>) -> impl Iterator<Item = &'a str> {
        let ground = *ground;
        self.mounts.iter().flatten().filter(move |mount| mount.is_below(&ground)).filter_map(Mount::source)
    }

    /// Whether it mounts this host directory without the mounts below it.
    pub(super) fn leaves_out_mounts(&self, source: &str, target: &str) -> bool {
        self.mounts.iter().flatten().any(|mount| mount.leaves_out_mounts(source, target))
    }

    /// Judges the parts that are also judged for existing containers.
    pub(super) fn judge_common(&self, ground: &Ground<'_>) -> Result<(), String> {
        for (at, bind) in self.binds.iter().flatten().enumerate() {
            bind.judge(ground).map_err(|e| format!("HostConfig.Binds[{at}]: {e}"))?;
        }
        for (at, mount) in self.mounts.iter().flatten().enumerate() {
            mount.judge(ground).map_err(|e| format!("HostConfig.Mounts[{at}]{e}"))?;
        }
        security::covers(self.masked_paths.as_deref(), security::ALWAYS_MASKED)
            .map_err(|e| format!("HostConfig.MaskedPaths {e}"))?;
        security::covers(self.readonly_paths.as_deref(), security::ALWAYS_READONLY)
            .map_err(|e| format!("HostConfig.ReadonlyPaths {e}"))?;
        Ok(())
    }

    /// See [`super::container::Create::references`].
    pub(super) fn references(&mut self) -> Vec<Reference<'_>> {
        let mut all = Vec::new();
        if let Some(NetworkMode::Of(joined)) = &mut self.network_mode {
            all.push(Reference::joined("HostConfig.NetworkMode", joined));
        }
        if let Some(Namespace::Of(joined)) = &mut self.ipc_mode {
            all.push(Reference::joined("HostConfig.IpcMode", joined));
        }
        if let Some(Namespace::Of(joined)) = &mut self.pid_mode {
            all.push(Reference::joined("HostConfig.PidMode", joined));
        }
        for from in self.volumes_from.iter_mut().flatten() {
            let (name, mode) = from.parts();
            let (name, mode) = (name.to_owned(), mode.map(|mode| format!(":{mode}")).unwrap_or_default());
            let set = Box::new(move |id: &str| from.0 = format!("{id}{mode}"));
            all.push(Reference::Container { field: "HostConfig.VolumesFrom", name, set });
        }
        let binds = self.binds.iter().flatten().filter_map(Bind::volume);
        all.extend(binds.map(|name| Reference::Volume { field: "HostConfig.Binds", name: name.to_owned() }));
        let mounts = self.mounts.iter().flatten().filter_map(Mount::volume);
        all.extend(mounts.map(|name| Reference::Volume { field: "HostConfig.Mounts", name: name.to_owned() }));
        if let Some(Runtime(name)) = self.runtime.as_ref().filter(|runtime| !runtime.0.is_empty()) {
            all.push(Reference::Runtime(name.clone()));
        }
        all.extend(self.security_opt.iter().flatten().filter_map(SecurityOpt::reference));
        all.extend(self.log_config.as_mut().and_then(LogConfig::reference));
        if let Some(mode @ CgroupnsMode::Host) = &mut self.cgroupns_mode {
            all.push(Reference::HostCgroupns(Box::new(move || *mode = CgroupnsMode::Private)));
        }
        all
    }
}

impl<'a> Reference<'a> {
    fn joined(field: &'static str, joined: &'a mut Joined) -> Self {
        let name = joined.name().to_owned();
        Self::Container { field, name, set: Box::new(move |id| joined.set(id)) }
    }
}
