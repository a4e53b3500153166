//! Looks into requests that may ask for more than a container: `no-privileged`.
//!
//! What is judged is what is sent on: the document is read, judged, and written anew. Fields that are not
//! known here are refused, for they might be the next way out.

use serde_json::Value;

use super::json::{self, Strict, field, folded, is_empty};

/// Judges the body of `operation`; what is to be sent in its place.
///
/// # Errors
/// What is not allowed in it.
pub(super) fn judge(operation: &str, body: &[u8], binds: &[String]) -> Result<Vec<u8>, String> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let Strict(document) = serde_json::from_slice(body).map_err(|e| format!("its body cannot be judged: {e}"))?;
    if !document.is_object() {
        return Err("its body is no object".into());
    }
    match operation {
        "containers.create" => container(&document, binds)?,
        "containers.exec" => empty(&document, "Privileged")?,
        "containers.update" => known(&document, UPDATE)?,
        "volumes.create" => volume(&document, "Driver", "DriverOpts", binds)?,
        other => return Err(format!("{other} cannot be judged")),
    }
    serde_json::to_vec(&document).map_err(|e| e.to_string())
}

/// What a change to a running container may be about: its limits.
const UPDATE: &[&str] = &[
    "BlkioWeight",
    "CpuShares",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpusetCpus",
    "CpusetMems",
    "Memory",
    "MemorySwap",
    "MemoryReservation",
    "KernelMemory",
    "NanoCpus",
    "PidsLimit",
    "RestartPolicy",
];

/// What cannot get a container out of its confinement.
const HARMLESS: &[&str] = &[
    "Annotations",
    "AutoRemove",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapDrop",
    "ConsoleSize",
    "ContainerIDFile",
    "CpuCount",
    "CpuPercent",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "IOMaximumBandwidth",
    "IOMaximumIOps",
    "Init",
    "Isolation",
    "KernelMemoryTCP",
    "Links",
    "LogConfig",
    "MemorySwappiness",
    "OomKillDisable",
    "OomScoreAdj",
    "PortBindings",
    "PublishAllPorts",
    "ReadonlyRootfs",
    "ShmSize",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Ulimits",
];

/// What is looked at below.
const JUDGED: &[&str] = &[
    "Binds",
    "CgroupnsMode",
    "IpcMode",
    "MaskedPaths",
    "Mounts",
    "NetworkMode",
    "PidMode",
    "ReadonlyPaths",
    "SecurityOpt",
    "UTSMode",
    "UsernsMode",
    "VolumeDriver",
];

fn container(document: &Value, binds: &[String]) -> Result<(), String> {
    let networks = field(field(document, "NetworkingConfig")?, "EndpointsConfig")?;
    if networks.as_object().is_some_and(|networks| networks.contains_key("host")) {
        return Err("the host's network is not allowed".into());
    }
    let host = field(document, "HostConfig")?;
    if host.is_null() {
        return Ok(());
    }
    known(host, &[HARMLESS, UPDATE, JUDGED].concat())?;
    for mode in ["NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode"] {
        let value = field(host, mode)?;
        if value.as_str().map_or(!value.is_null(), |mode| mode.eq_ignore_ascii_case("host")) {
            return Err(format!("HostConfig.{mode} host is not allowed"));
        }
    }
    // An empty list is not nothing here: it takes the default's protection away.
    for paths in ["MaskedPaths", "ReadonlyPaths"] {
        if !field(host, paths)?.is_null() {
            return Err(format!("HostConfig.{paths} is not allowed"));
        }
    }
    for option in texts(field(host, "SecurityOpt")?, "HostConfig.SecurityOpt")? {
        if !["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true", "seccomp=builtin"]
            .contains(&option)
        {
            return Err(format!("HostConfig.SecurityOpt {} is not allowed", option.escape_debug()));
        }
    }
    let driver = field(host, "VolumeDriver")?;
    if !is_empty(driver) && driver.as_str() != Some("local") {
        return Err("HostConfig.VolumeDriver is not allowed".into());
    }
    for bind in texts(field(host, "Binds")?, "HostConfig.Binds")? {
        let source = bind.split(':').next().unwrap_or_default();
        if source.contains('/') || source.starts_with('.') || !bind.contains(':') {
            may_bind(source, binds)?;
        }
    }
    let mounts = field(host, "Mounts")?;
    for mount in list(mounts, "HostConfig.Mounts")? {
        match field(mount, "Type")?.as_str().unwrap_or_default() {
            "tmpfs" | "image" => {}
            "bind" => may_bind(field(mount, "Source")?.as_str().unwrap_or_default(), binds)?,
            "volume" => {
                let options = field(field(mount, "VolumeOptions")?, "DriverConfig")?;
                volume(options, "Name", "Options", binds)?;
            }
            other => return Err(format!("a mount of type {} is not allowed", other.escape_debug())),
        }
    }
    Ok(())
}

/// A volume that is made by `driver` with `options`: the local driver mounts what it is told to.
fn volume(document: &Value, driver: &str, options: &str, binds: &[String]) -> Result<(), String> {
    if !field(document, "ClusterVolumeSpec")?.is_null() {
        return Err("a cluster volume is not allowed".into());
    }
    let name = field(document, driver)?;
    if !is_empty(name) && name.as_str() != Some("local") {
        return Err("a volume of another driver than local is not allowed".into());
    }
    let options = field(document, options)?;
    if is_empty(options) {
        return Ok(());
    }
    let option = |key: &str| options.get(key).and_then(Value::as_str).unwrap_or_default();
    // The driver's own names are told apart by case.
    let odd = options.as_object().map(|all| all.iter().any(|(_, value)| !value.is_string()));
    if odd.unwrap_or(true) {
        return Err("the options of a volume are no texts".into());
    }
    match option("type") {
        "tmpfs" | "nfs" | "nfs4" | "cifs" => Ok(()),
        "" | "none" | "bind" if option("device").is_empty() => Ok(()),
        "" | "none" | "bind" => may_bind(option("device"), binds),
        other => Err(format!("a volume of type {} is not allowed", other.escape_debug())),
    }
}

/// May a container have this path of the host?
fn may_bind(path: &str, binds: &[String]) -> Result<(), String> {
    let plain = path.starts_with('/') && !path.split('/').any(|part| part == "." || part == "..");
    let place = path.trim_end_matches('/');
    let inside = |allowed: &String| match allowed.strip_suffix('/') {
        Some(root) => place == root || place.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')),
        None => place == allowed,
    };
    if plain && binds.iter().any(inside) {
        Ok(())
    } else {
        Err(format!("the host's {} is not among allowed_binds", path.escape_debug()))
    }
}

/// Every field is empty or one of these, each once.
fn known(object: &Value, names: &[&str]) -> Result<(), String> {
    if !object.is_object() {
        return Err("what should be an object is none".into());
    }
    for (name, value) in object.as_object().into_iter().flatten() {
        field(object, name)?;
        let name_folded = folded(name);
        let is_known = names.iter().any(|known| folded(known) == name_folded);
        // An empty list of masked paths is known above, and judged.
        if !is_known && !is_empty(value) {
            return Err(format!("{} is not allowed", name.escape_debug()));
        }
    }
    Ok(())
}

fn empty(object: &Value, name: &str) -> Result<(), String> {
    if is_empty(field(object, name)?) { Ok(()) } else { Err(format!("{name} is not allowed")) }
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], String> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => Err(format!("{name} is no list")),
    }
}

fn texts<'a>(value: &'a Value, name: &str) -> Result<Vec<&'a str>, String> {
    let items = list(value, name)?;
    items.iter().map(|item| item.as_str().ok_or_else(|| format!("{name} holds something else than texts"))).collect()
}

/// Largest body that is judged, in bytes.
pub(super) const MAX_BODY: usize = json::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn create(host_config: &str) -> Result<Vec<u8>, String> {
        let body = format!("{{\"Image\":\"x\",\"HostConfig\":{host_config}}}");
        judge("containers.create", body.as_bytes(), &["/srv/one".into(), "/srv/all/".into()])
    }

    #[test]
    fn what_gets_out_of_a_container_is_refused() {
        for host in [
            r#"{"Privileged":true}"#,
            r#"{"privileged":true}"#,
            r#"{"PRIVILEGED":true,"Privileged":false}"#,
            "{\"Privi\u{17f}\":1,\"Privileged\":true}",
            "{\"NetworkMode\":\"host\"}",
            "{\"networ\u{212a}mode\":\"host\"}",
            r#"{"PidMode":"host"}"#,
            r#"{"IpcMode":"host"}"#,
            r#"{"UTSMode":"host"}"#,
            r#"{"UsernsMode":"host"}"#,
            r#"{"CgroupnsMode":"host"}"#,
            r#"{"CapAdd":["SYS_ADMIN"]}"#,
            r#"{"Capabilities":["SYS_ADMIN"]}"#,
            r#"{"Devices":[{"PathOnHost":"/dev/sda"}]}"#,
            r#"{"DeviceRequests":[{"Count":-1}]}"#,
            r#"{"DeviceCgroupRules":["a *:* rwm"]}"#,
            r#"{"SecurityOpt":["seccomp=unconfined"]}"#,
            r#"{"SecurityOpt":["apparmor=unconfined"]}"#,
            r#"{"SecurityOpt":["no-new-privileges:false"]}"#,
            r#"{"SecurityOpt":"seccomp=unconfined"}"#,
            r#"{"MaskedPaths":[]}"#,
            r#"{"ReadonlyPaths":[]}"#,
            r#"{"Runtime":"evil"}"#,
            r#"{"CgroupParent":"/"}"#,
            r#"{"VolumesFrom":["other"]}"#,
            r#"{"VolumeDriver":"evil"}"#,
            r#"{"Binds":["/:/host"]}"#,
            r#"{"Binds":["/srv/one/../..:/host"]}"#,
            r#"{"Binds":["/srv/one/below:/host"]}"#,
            r#"{"Binds":["/srv/allother:/host"]}"#,
            r#"{"Binds":["../x:/host"]}"#,
            r#"{"Mounts":[{"Type":"bind","Source":"/etc","Target":"/x"}]}"#,
            r#"{"Mounts":[{"type":"bind","source":"/etc"}]}"#,
            r#"{"Mounts":[{"Type":"npipe","Source":"x"}]}"#,
            r#"{"Mounts":[{"Type":"volume","VolumeOptions":{"DriverConfig":{"Options":{"o":"bind","device":"/"}}}}]}"#,
            r#"{"Mounts":[{"Type":"volume","VolumeOptions":{"DriverConfig":{"Name":"evil"}}}]}"#,
            r#"{"Mounts":{"Type":"bind"}}"#,
            r#"{"TheNextWayOut":true}"#,
            r#"[]"#,
        ] {
            assert!(create(host).is_err(), "{host}");
        }
        assert!(judge("containers.create", br#"{"HostConfig":{},"hostconfig":{"Privileged":true}}"#, &[]).is_err());
        assert!(judge("containers.create", br#"{"HostConfig":{},"HostConfig":{"Privileged":true}}"#, &[]).is_err());
        assert!(judge("containers.exec", br#"{"privileged":true}"#, &[]).is_err());
        assert!(judge("containers.update", br#"{"Devices":[{}]}"#, &[]).is_err());
        for volume in
            [r#"{"DriverOpts":{"device":"/","o":"bind"}}"#, r#"{"DriverOpts":{"type":"overlay","o":"lowerdir=/"}}"#]
        {
            assert!(judge("volumes.create", volume.as_bytes(), &[]).is_err(), "{volume}");
        }
    }

    #[test]
    fn what_stays_in_a_container_is_let_through_as_it_was_judged() {
        for host in [
            "null",
            "{}",
            r#"{"Privileged":false,"CapAdd":null,"Devices":[],"MaskedPaths":null,"NetworkMode":"default"}"#,
            r#"{"Binds":["volume:/data","/srv/one:/x:ro","/srv/all/below:/y"],"Memory":1000000000}"#,
            r#"{"Mounts":[{"Type":"volume","Source":"v","Target":"/v"},{"Type":"tmpfs","Target":"/t"}]}"#,
            r#"{"PortBindings":{"80/tcp":[{"HostPort":"8080"}]},"SecurityOpt":["no-new-privileges"]}"#,
            r#"{"NetworkMode":"container:abc","PidsLimit":100}"#,
        ] {
            let sent = create(host).unwrap_or_else(|e| panic!("{host}: {e}"));
            let sent: Value = serde_json::from_slice(&sent).expect("JSON");
            assert_eq!(sent["HostConfig"], serde_json::from_str::<Value>(host).expect("JSON"));
        }
        let labels = br#"{"Image":"x","Labels":{"a":"1","A":"2"}}"#;
        assert!(judge("containers.create", labels, &[]).is_ok(), "names that are data may differ in case only");
        let nfs = br#"{"Name":"v","DriverOpts":{"type":"nfs","o":"addr=10.0.0.1,rw","device":":/export"}}"#;
        assert!(judge("volumes.create", nfs, &[]).is_ok());
    }
}
