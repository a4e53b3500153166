//! Seccomp profiles of one's own: as strict as one likes, and no looser than the Engine's.

use serde::{Deserialize, Serialize};

use super::Version;
use super::capabilities::is_default_capability;
use super::json;

/// The system calls that a default profile of an Engine lets a container make that has no more than the
/// default capabilities (moby profiles/seccomp, 20.10 to 29; clone3's flags are in memory, where no filter sees
/// them). Some of them with certain arguments only: [`Syscalls::is_as_narrow`].
const ALLOWED: &str = include_str!("syscalls.txt");

/// Those that Engines allowed before this version.
const IO_URING: &[&str] = &["io_uring_enter", "io_uring_register", "io_uring_setup"];
const IO_URING_BEFORE: Version = Version(25, 0, 0);
/// The versions from which sockets of these families are refused: AF_VSOCK (socket(2)), which leads to the
/// hypervisor, and AF_ALG, the kernel's cryptography.
const VSOCK: u64 = 40;
const VSOCK_BEFORE: Version = Version(23, 0, 0);
const ALG: u64 = 38;
const ALG_BEFORE: Version = Version(29, 4, 2);

/// Most names of system calls in a profile, and most conditions on their arguments in a rule.
const MOST_NAMES: usize = 2000;
const MOST_ARGUMENTS: usize = 30;
/// The flags of clone(2) that make namespaces.
const CLONE_NEW: u64 = 0x7E02_0000;
/// What personality(2) may be asked for: Linux and 32 bits, with or without UNAME26, and which it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// A profile as Moby has it (profiles/seccomp: Seccomp). No `listenerPath`: that is a socket of the host's.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    default_action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    architectures: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arch_map: Vec<Architecture>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    flags: Vec<Flag>,
    #[serde(default)]
    syscalls: Vec<Syscalls>,
    /// See [`Self::before`].
    #[serde(skip)]
    before: Option<Version>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Syscalls {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument>,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    includes: Option<Filter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excludes: Option<Filter>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Filter {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    caps: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arches: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    min_kernel: String,
}

/// What happens to a call. Not here: tracing, and a listener (`SCMP_ACT_NOTIFY`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[default]
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
}

/// Not here: `SPEC_ALLOW`, which turns a protection of the processor's off.
#[derive(Clone, Serialize, Deserialize)]
enum Flag {
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
}

impl Profile {
    /// # Errors
    /// What is not allowed in it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut profile: Self = json::read(text.as_bytes())?;
        if profile.default_action.lets_through() {
            return Err("a seccomp profile that allows what it does not name is not allowed".into());
        }
        // Each name is looked up, and each pair of arguments compared: Moby's own has 440 names and 4 arguments.
        let names: usize = profile.syscalls.iter().map(|rule| rule.names.len()).sum();
        if names > MOST_NAMES || profile.syscalls.len() > MOST_NAMES {
            return Err(format!("a seccomp profile with more than {MOST_NAMES} system calls is not allowed"));
        }
        if profile.syscalls.iter().any(|rule| rule.args.len() > MOST_ARGUMENTS) {
            return Err(format!("a seccomp rule with more than {MOST_ARGUMENTS} arguments is not allowed"));
        }
        let mut before: Option<Version> = None;
        for rule in profile.syscalls.iter().filter(|rule| rule.action.lets_through() && !rule.is_void()) {
            let names = rule.names.iter().chain(Some(&rule.name).filter(|name| !name.is_empty()));
            for name in names {
                let earlier = match name.as_str() {
                    name if IO_URING.contains(&name) => Some(IO_URING_BEFORE),
                    "socket" => rule.sockets_before(),
                    _ => None,
                };
                before = before.into_iter().chain(earlier).min();
                if !IO_URING.contains(&name.as_str())
                    && !ALLOWED.split_ascii_whitespace().any(|allowed| allowed == name)
                {
                    return Err(format!("a seccomp profile with the system call {} is not allowed", json::shown(name)));
                }
                if !rule.is_as_narrow(name) {
                    return Err(format!(
                        "a seccomp profile that allows {} for other arguments than the Engine's default profile does is \
                         not allowed",
                        json::shown(name)
                    ));
                }
            }
        }
        profile.before = before;
        Ok(profile)
    }

    /// The first version of the Engine whose own profile is narrower than this one; None: it is no version's.
    pub(super) fn before(&self) -> Option<Version> {
        self.before
    }
}

impl Syscalls {
    /// What a call has to meet: all conditions of one of these. An argument that is named twice makes each condition one
    /// that is enough by itself (runc, libcontainer/seccomp: `hasMultipleArgs`).
    fn alternatives(&self) -> Vec<&[Argument]> {
        let is_named_twice =
            self.args.iter().enumerate().any(|(at, arg)| self.args[..at].iter().any(|other| other.index == arg.index));
        if is_named_twice { self.args.chunks(1).collect() } else { vec![&self.args] }
    }

    /// Does it allow `name` for no more arguments than the Engine's default profile (20.10 to 29)?
    fn is_as_narrow(&self, name: &str) -> bool {
        let all = |fits: &dyn Fn(&Argument) -> bool| self.alternatives().iter().all(|args| args.iter().any(fits));
        match name {
            // On s390 the flags are the second argument.
            "clone" => all(&|arg| {
                let of_s390 = self.includes.as_ref().is_some_and(|filter| {
                    !filter.arches.is_empty() && filter.arches.iter().all(|arch| arch.starts_with("s390"))
                });
                let flags = arg.index == u32::from(of_s390);
                flags && arg.op == "SCMP_CMP_MASKED_EQ" && arg.value & CLONE_NEW == CLONE_NEW && arg.value_two == 0
            }),
            "personality" => {
                all(&|arg| arg.index == 0 && arg.op == "SCMP_CMP_EQ" && PERSONALITIES.contains(&arg.value))
            }
            _ => true,
        }
    }

    /// The first version of the Engine that allows fewer sockets than this rule.
    fn sockets_before(&self) -> Option<Version> {
        let lets = |family| !self.alternatives().iter().all(|args| args.iter().any(|arg| arg.excludes(family)));
        match (lets(VSOCK), lets(ALG)) {
            (true, _) => Some(VSOCK_BEFORE),
            (false, true) => Some(ALG_BEFORE),
            (false, false) => None,
        }
    }

    /// Is it for containers that have a capability which none has here?
    fn is_void(&self) -> bool {
        self.includes.iter().flat_map(|filter| &filter.caps).any(|name| !is_default_capability(name))
    }
}

impl Argument {
    /// Is this family, as the first argument of socket(2), none that meets the condition?
    fn excludes(&self, family: u64) -> bool {
        // The kernel takes the lower half of the register; a value with more in it is nobody's.
        let fits = self.index == 0 && self.value <= u64::from(u16::MAX);
        fits && match self.op.as_str() {
            "SCMP_CMP_NE" => family == self.value,
            "SCMP_CMP_EQ" => family != self.value,
            "SCMP_CMP_LT" => family >= self.value,
            "SCMP_CMP_LE" => family > self.value,
            "SCMP_CMP_GT" => family <= self.value,
            "SCMP_CMP_GE" => family < self.value,
            _ => false,
        }
    }
}

impl Action {
    fn lets_through(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }
}
