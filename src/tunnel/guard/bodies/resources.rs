//! Limits, and `POST /containers/{}/update`, which can change only limits and the restart policy.

use super::text::{Nothing, Ranges, Text, body, is_made_of, nothing, one_of, only, rules};

body! {
    /// `POST /containers/{}/update`: Moby's Resources, a part of HostConfig, and the restart policy.
    Update {
        restart_policy: RestartPolicy,
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
        #[serde(deserialize_with = "nothing")]
        disk_quota: Nothing,
    }

    /// When the Engine restarts a container.
    RestartPolicy {
        name: Text<Restart>,
        maximum_retry_count: i64,
    }

    /// A share of a device on the host.
    WeightDevice {
        path: Text<DevicePath>,
        weight: u16,
    }

    /// A rate limit of a device on the host.
    Throttle {
        path: Text<DevicePath>,
        rate: u64,
    }

    /// A kernel limit for processes.
    Ulimit {
        name: Text<Limit>,
        soft: i64,
        hard: i64,
    }
}

rules! {
    Restart = |text| one_of(text, &["", "no", "always", "on-failure", "unless-stopped"]);
    // The Engine opens this path as root.
    DevicePath = |text| only(text.starts_with("/dev/") && is_made_of(text, "/_.-") && !text.contains(".."));
    Limit = |text| one_of(text, &[
        "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
        "rttime", "sigpending", "stack",
    ]);
}
