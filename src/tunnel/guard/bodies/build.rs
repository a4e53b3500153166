//! A build's query, whose parameters take the place of a body.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::json::{self, shown};
use super::resources::Ulimit;
use super::text::{is_network_name, is_one_line};

/// Judges a parameter of a build.
///
/// # Errors
/// Why it is not allowed.
pub(in crate::tunnel::guard) fn judge(name: &str, value: &str) -> Result<(), String> {
    // `securityopt` is refused even if empty: the first of several values may be empty.
    if value.is_empty() && name != "securityopt" {
        return Ok(());
    }
    let fits = match name {
        // As for a container. The Engine's host network is not reachable by its id either.
        "networkmode" => value != "host" && is_network_name(value),
        "cgroupparent" | "securityopt" | "entitlements" | "credentialspec" | "storage-opt" => false,
        "isolation" => value == "default",
        // 2 selects BuildKit, whose steps use a protocol that cannot be judged.
        "version" => value == "1",
        // docker's own limits and switches, and the image's settings.
        "dockerfile" | "t" | "extrahosts" | "remote" | "q" | "nocache" | "pull" | "rm" | "forcerm" | "memory"
        | "memswap" | "cpushares" | "cpusetcpus" | "cpusetmems" | "cpuperiod" | "cpuquota" | "shmsize" | "squash"
        | "platform" | "target" | "buildid" | "session" => is_one_line(value),
        "buildargs" => is::<BTreeMap<String, Option<String>>>(value),
        "labels" => is::<BTreeMap<String, String>>(value),
        "cachefrom" => is::<Vec<String>>(value),
        "ulimits" => is::<Vec<Ulimit>>(value),
        "outputs" => json::read::<Vec<Output>>(value.as_bytes()).is_ok_and(|all| all.iter().all(Output::is_local)),
        _ => return Err(format!("the parameter {} is not known", shown(name))),
    };
    if fits { Ok(()) } else { Err(format!("{name} {} is not allowed", shown(value))) }
}

fn is<T: DeserializeOwned>(value: &str) -> bool {
    value == "null" || json::read::<T>(value.as_bytes()).is_ok()
}

/// The destination of a BuildKit build.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Output {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl Output {
    /// Whether the result goes to the Engine or back to the client.
    fn is_local(&self) -> bool {
        ["cacheonly", "docker", "image", "local", "moby", "oci", "tar"].contains(&self.kind.as_str())
            && !self.attrs.contains_key("push")
    }
}
