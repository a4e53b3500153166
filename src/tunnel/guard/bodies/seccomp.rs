//! Custom seccomp profiles: they may be stricter than the Engine's default, but not looser.

use serde::{Deserialize, Serialize};

use super::Version;
use super::capabilities::is_default_capability;
use super::json;

/// The system calls that an Engine's default profile allows to a container with the default capabilities only (moby
/// profiles/seccomp, 20.10 to 29; the flags of clone3 are in memory, where no filter sees them). Some are allowed with
/// certain arguments only: [`Syscalls::is_as_narrow`].
const ALLOWED: &str = include_str!("syscalls.txt");

/// System calls that Engines allowed before this version.
const IO_URING: &[&str] = &["io_uring_enter", "io_uring_register", "io_uring_setup"];
const IO_URING_BEFORE: Version = Version(25, 0, 0);
/// Socket families and the versions from which Engines refuse them: AF_VSOCK (socket(2)), which leads to the
/// hypervisor, and AF_ALG, the kernel's cryptography.
const VSOCK: u64 = 40;
const VSOCK_BEFORE: Version = Version(23, 0, 0);
const ALG: u64 = 38;
const ALG_BEFORE: Version = Version(29, 4, 2);

/// Limits of system call names in a profile, and of argument conditions in a rule.
const MOST_NAMES: usize = 2000;
const MOST_ARGUMENTS: usize = 30;
/// The flags of clone(2) that create namespaces.
const CLONE_NEW: u64 = 0x7E02_0000;
/// The allowed arguments of personality(2): Linux and 32 bits, with or without UNAME26, and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// A profile in Moby's form (profiles/seccomp: Seccomp). Without `listenerPath`, a socket on the host.
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

/// The action for a call. Without tracing and listeners (`SCMP_ACT_NOTIFY`).
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

/// Without `SPEC_ALLOW`, which turns off a protection of the processor.
#[derive(Clone, Serialize, Deserialize)]
enum Flag {
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
}

impl Profile {
    /// # Errors
    /// What is not allowed.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut profile: Self = json::read(text.as_bytes())?;
        if profile.default_action.lets_through() {
            return Err("a seccomp profile that allows what it does not name is not allowed".into());
        }
        // Limits the work: each name is looked up, and each pair of arguments compared. Moby's own profile
        // has 440 names and 4 arguments.
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

    /// The first version of the Engine with a narrower profile than this one. None if no version has one.
    pub(super) fn before(&self) -> Option<Version> {
        self.before
    }
}

impl Syscalls {
    /// Sets of conditions, of which a call must meet one completely. If an argument occurs twice, each condition alone
    /// suffices (runc, libcontainer/seccomp: `hasMultipleArgs`).
    fn alternatives(&self) -> Vec<&[Argument]> {
        let is_named_twice =
            self.args.iter().enumerate().any(|(at, arg)| self.args[..at].iter().any(|other| other.index == arg.index));
        if is_named_twice { self.args.chunks(1).collect() } else { vec![&self.args] }
    }

    /// Whether it allows `name` for no other arguments than the Engine's default profile (20.10 to 29).
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

    /// The first version of the Engine that allows fewer socket families than this rule; None if no version does.
    fn sockets_before(&self) -> Option<Version> {
        let lets = |family| !self.alternatives().iter().all(|args| args.iter().any(|arg| arg.excludes(family)));
        match (lets(VSOCK), lets(ALG)) {
            (true, _) => Some(VSOCK_BEFORE),
            (false, true) => Some(ALG_BEFORE),
            (false, false) => None,
        }
    }

    /// Whether the rule applies only with a capability that no container can have here.
    fn is_void(&self) -> bool {
        self.includes.iter().flat_map(|filter| &filter.caps).any(|name| !is_default_capability(name))
    }
}

impl Argument {
    /// Whether no call of socket(2) with this family as first argument meets the condition.
    fn excludes(&self, family: u64) -> bool {
        // The kernel reads the lower half of the register; no family has a larger value.
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
