//! The default capabilities of a container.

/// The capabilities of a container without `CapAdd`.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Whether it is a default capability. Engines accept any case, with or without `CAP_`.
pub(super) fn is_default_capability(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    DEFAULT_CAPABILITIES.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
}
