//! Security options, capabilities, masked paths and sysctls.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Reference;
use super::capabilities::is_default_capability;
use super::json::shown;
use super::seccomp::Profile;
use super::text::{Text, is_made_of, only, rules};

/// The paths that Engines mask in an unprivileged container. A request can override them (API 1.38).
pub(super) const ALWAYS_MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Paths masked only by later Engines. Inspect answers of earlier ones lack them.
const MASKED_LATER: &[&str] = &["/proc/asound", "/proc/interrupts", "/sys/devices/virtual/powercap"];
/// The paths that Engines make read-only.
pub(super) const ALWAYS_READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

rules! {
    Capability = |text| only(is_default_capability(text));
    MaskedPath = |text| only(is_kernel_path(text));
    ReadonlyPath = |text| only(is_kernel_path(text));
    // Only namespaced ones (runc refuses others as well): System V IPC, POSIX queues, and the container's own network.
    Sysctl = |text| only(is_namespaced(text));
}

/// An absolute path in the kernel's file systems.
fn is_kernel_path(path: &str) -> bool {
    (path.starts_with("/proc/") || path.starts_with("/sys/")) && is_made_of(path, "/_.-") && !path.contains("..")
}

fn is_namespaced(name: &str) -> bool {
    let ipc = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    let trees = ["fs.mqueue.", "net.core.", "net.ipv4.", "net.ipv6.", "net.mptcp.", "net.unix."];
    ipc.contains(&name)
        || trees.iter().any(|tree| name.starts_with(tree)) && is_made_of(name, "._-") && !name.contains("..")
}

/// Checks that a list of paths that overrides the Engine's includes all of the Engine's.
///
/// # Errors
/// The missing path, as the end of a sentence about the list.
pub(super) fn covers<R>(paths: Option<&[Text<R>]>, always: &[&str]) -> Result<(), String> {
    let Some(paths) = paths else { return Ok(()) };
    match always.iter().find(|wanted| !paths.iter().any(|path| &**path == **wanted)) {
        Some(missing) => Err(format!("is not allowed without {missing}, which the Engine has in it")),
        None => Ok(()),
    }
}

/// Adds the paths that later Engines mask to the client's list.
pub(super) fn mask_later(paths: &mut Vec<Text<MaskedPath>>) {
    for path in MASKED_LATER {
        if !paths.iter().any(|known| &**known == *path) {
            paths.extend(Text::new(path));
        }
    }
}

/// An item of SecurityOpt.
#[derive(Clone)]
pub(super) enum SecurityOpt {
    /// The option, unchanged.
    Plain(String),
    Seccomp(Profile),
}

impl Serialize for SecurityOpt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => serializer.serialize_str(text),
            Self::Seccomp(profile) => {
                let profile = serde_json::to_string(profile).map_err(serde::ser::Error::custom)?;
                serializer.serialize_str(&format!("seccomp={profile}"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for SecurityOpt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The Engine splits at the first `=`, or else at the first `:`.
        let (name, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((&text, ""));
        let fits = match name {
            "no-new-privileges" => matches!(value, "" | "true"),
            "apparmor" => value == "docker-default",
            "label" => is_label(value),
            "seccomp" if value == "builtin" => true,
            "seccomp" if text.starts_with("seccomp=") && value.trim_start().starts_with('{') => {
                return Profile::read(value).map(Self::Seccomp).map_err(|e| D::Error::custom(format_args!(": {e}")));
            }
            _ => false,
        };
        if fits {
            Ok(Self::Plain(text))
        } else {
            Err(D::Error::custom(format_args!("{} is not allowed", shown(&text))))
        }
    }
}

impl SecurityOpt {
    /// What must be checked at the Engine.
    pub(super) fn reference<'a>(&self) -> Option<Reference<'a>> {
        match self {
            Self::Seccomp(profile) => Some(Reference::Seccomp { before: profile.before() }),
            // The Engine's built-in profile, whatever its default for containers is.
            Self::Plain(text) if text.starts_with("seccomp") => Some(Reference::Seccomp { before: None }),
            Self::Plain(_) => None,
        }
    }
}

/// Whether an SELinux label is allowed: the types that confine a container (container-selinux and udica), and any
/// level, since levels separate containers from each other, not from the host.
fn is_label(value: &str) -> bool {
    let types = ["container_t", "container_init_t", "container_kvm_t", "container_userns_t", "svirt_lxc_net_t"];
    match value.split_once(':') {
        Some(("type", kind)) => {
            let own = kind.strip_suffix(".process").is_some_and(|name| !name.is_empty() && is_made_of(name, "_-"));
            own || types.contains(&kind) || kind == "svirt_apache_t"
        }
        Some(("level", level)) => level.starts_with('s') && is_made_of(level, ":,.-"),
        Some(("user", user)) => user == "system_u",
        Some(("role", role)) => role == "system_r",
        _ => false,
    }
}
