//! The verdict on each field (tests/guard/fields.txt), and on combinations of fields.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::operation::Risk;
use super::super::operations::OPERATIONS;
use super::*;

const BINDS: [&str; 3] = ["/srv/one", "/srv/all/", "/srv/all/written"];

/// Judges a body with the function in the table's row.
fn judge(operation: &str, body: &[u8], ground: &Ground<'_>) -> Result<Judged, String> {
    let row = OPERATIONS.iter().find(|row| row.name == operation).expect(operation);
    match row.risk {
        Risk::Body(judge) => judge(body, ground),
        _ => Err(format!("{operation} cannot be judged")),
    }
}

/// The body sent in place of this one.
fn sent(operation: &str, body: &Value) -> Result<Value, String> {
    sent_text(operation, &body.to_string())
}

fn sent_text(operation: &str, body: &str) -> Result<Value, String> {
    let binds = BINDS.map(String::from);
    let body = match judge(operation, body.as_bytes(), &Ground { binds: &binds, brings_mounts: false })? {
        Judged::Ready(body) => body,
        Judged::Create(create) => create.to_body()?,
    };
    Ok(serde_json::from_slice(&body).expect("JSON"))
}

fn host(host_config: Value) -> Result<Value, String> {
    sent("containers.create", &json!({ "Image": "x", "HostConfig": host_config }))
        .map(|body| body["HostConfig"].clone())
}

/// The steps of a path such as `HostConfig.PortBindings{}[].HostIp`: names, lists and maps.
fn steps(path: &str) -> Vec<&str> {
    path.split('.')
        .flat_map(|step| {
            let name = step.trim_end_matches(['[', ']', '{', '}']);
            let rest = &step[name.len()..];
            std::iter::once(name).chain(rest.as_bytes().chunks(2).map(|pair| if pair == b"[]" { "[]" } else { "{}" }))
        })
        .collect()
}

/// Inserts a value into a body.
fn put(body: &mut Value, path: &[&str], value: Value) {
    let Some((step, rest)) = path.split_first() else { return *body = value };
    match *step {
        "[]" => {
            if body.as_array().is_none_or(Vec::is_empty) {
                *body = json!([null]);
            }
            put(&mut body[0], rest, value);
        }
        "{}" => put(&mut body["net"], rest, value),
        name => put(&mut body[name], rest, value),
    }
}

fn at<'a>(body: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(body, |value, step| match *step {
        "[]" => &value[0],
        "{}" => &value["net"],
        name => &value[name],
    })
}

#[test]
fn every_field_of_mobys_has_its_verdict() {
    let rows: Vec<&str> = include_str!("../../../../tests/guard/fields.txt").lines().collect();
    let rows: Vec<&&str> = rows.iter().filter(|row| !row.starts_with('#')).collect();
    assert!(rows.len() > 400, "{}", rows.len());
    for row in rows {
        let columns: Vec<&str> = row.split('\t').collect();
        let [operation, path, verdict, passes, refused, ref rest @ ..] = columns[..] else { panic!("{row}") };
        let path = steps(path);
        let base = || -> Value {
            let minimal = if matches!(operation, "containers.create") { r#"{"Image":"x"}"# } else { "{}" };
            serde_json::from_str(rest.first().unwrap_or(&minimal)).expect(row)
        };
        let with = |value: &str| {
            let mut body = base();
            put(&mut body, &path, serde_json::from_str(value).expect(row));
            body
        };
        if passes != "-" {
            let body = with(passes);
            let sent = sent(operation, &body).unwrap_or_else(|why| panic!("{row}: {why}"));
            let value = at(&sent, &path);
            match verdict {
                "free" | "judged" => assert_eq!(value, at(&body, &path), "{row}"),
                "empty" | "dropped" => assert!(value.is_null(), "{row}: {sent}"),
                other => panic!("{other}: {row}"),
            }
        }
        assert!(refused != "-" || matches!(verdict, "free" | "dropped"), "{row}: nothing is refused");
        if refused != "-" {
            let why = sent(operation, &with(refused)).expect_err(row);
            // The error names the field or the field that it is judged with.
            let named = path.iter().any(|step| (*step != "HostConfig" || path.len() == 1) && why.contains(step));
            assert!(named, "{row}: {why}");
        }
        // An empty value, in the clients' forms.
        let nothing = sent(operation, &with("null"));
        let is_needed = ["Type", "Network"].iter().any(|name| path.ends_with(&[name]));
        assert!(nothing.is_ok() || verdict == "unknown" || rest.len() == 1 || is_needed, "{row}: {nothing:?}");
        // Go reads a name in any case.
        let name = path.last().expect(row);
        let lower = name.to_lowercase();
        if lower != **name && !matches!(*name, "[]" | "{}") && verdict != "unknown" {
            let mut hidden = base();
            let mut path = path.clone();
            *path.last_mut().expect(row) = &lower;
            let value = if passes == "-" { refused } else { passes };
            put(&mut hidden, &path, serde_json::from_str(value).expect(row));
            let why = sent(operation, &hidden).expect_err(row);
            assert!(why.contains(&lower), "{row}: {why}");
        }
    }
}

#[test]
fn a_body_has_one_meaning() {
    for body in [
        "[]",
        "1",
        r#""x""#,
        "{",
        "{} {}",
        r#"{"HostConfig":{},"HostConfig":{"Privileged":true}}"#,
        r#"{"HostConfig":{},"hostconfig":{"Privileged":true}}"#,
        "{\"Ho\u{17f}tConfig\":{\"Privileged\":true}}",
        "{\"HostConfig\":{\"Networ\u{212a}Mode\":\"host\"}}",
        r#"{"Labels":{"a":"1","a":"2"}}"#,
        r#"{"HostConfig":{"PRIVILEGED":false}}"#,
        r#"{"Memory":1e3}"#,
        r#"{"HostConfig":{"Privileged":"false"}}"#,
    ] {
        assert!(sent_text("containers.create", body).is_err(), "{body}");
    }
    let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    assert!(sent_text("containers.create", &format!("{{\"x\":{deep}}}")).is_err());
    let why = sent_text("containers.create", r#"{"HostConfig":{"privileged":true}}"#).expect_err("unknown");
    assert_eq!(why, "HostConfig.privileged is unknown: the Engine's API writes Privileged");
    // A secret is not repeated.
    let why = sent_text("system.auth", r#"{"password":["hunter2"]}"#).expect_err("no text");
    assert!(!why.contains("hunter2") && why.contains("password"), "{why}");
}

#[test]
fn a_host_config_is_always_sent() {
    // Engines up to 26 would look for the HostConfig's fields at the top level.
    for body in [r#"{"Image":"x"}"#, r#"{"Image":"x","HostConfig":null}"#, r#"{"Image":"x","HostConfig":{}}"#] {
        let sent = sent_text("containers.create", body).expect(body);
        assert_eq!(sent, json!({"Image":"x","HostConfig":{"CgroupnsMode":"private"}}), "{body}");
    }
}

#[test]
fn what_gets_out_of_a_container_is_refused() {
    for config in [
        json!({"CapAdd": ["ALL"]}),
        json!({"CapAdd": ["cap_sys_admin"]}),
        json!({"CapAdd": "SYS_ADMIN"}),
        json!({"NetworkMode": "container:"}),
        json!({"NetworkMode": "container:a/../b"}),
        json!({"PidMode": "host "}),
        json!({"IpcMode": "container:a b"}),
        json!({"SecurityOpt": ["seccomp:unconfined"]}),
        json!({"SecurityOpt": ["apparmor=unconfined"]}),
        json!({"SecurityOpt": ["apparmor=my-own"]}),
        json!({"SecurityOpt": ["label=disable"]}),
        json!({"SecurityOpt": ["label:disable"]}),
        json!({"SecurityOpt": ["disable"]}),
        json!({"SecurityOpt": ["label=type:spc_t"]}),
        json!({"SecurityOpt": ["label=type:unconfined_t"]}),
        json!({"SecurityOpt": ["label=user:root"]}),
        json!({"SecurityOpt": ["label=role:sysadm_r"]}),
        json!({"SecurityOpt": ["label=level:x0"]}),
        json!({"SecurityOpt": ["label=type:.process"]}),
        json!({"SecurityOpt": ["no-new-privileges=false"]}),
        json!({"SecurityOpt": ["systempaths=unconfined"]}),
        json!({"SecurityOpt": ["writable-cgroups=true"]}),
        json!({"SecurityOpt": ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]}),
        json!({"SecurityOpt": ["seccomp={\"defaultAction\":\"SCMP_ACT_ERRNO\",\"listenerPath\":\"/run/x\"}"]}),
        json!({"SecurityOpt": [
            "seccomp={\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{\"names\":[\"mount\"],\"action\":\"SCMP_ACT_ALLOW\"}]}"
        ]}),
        json!({"SecurityOpt": [
            "seccomp={\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{\"name\":\"bpf\",\"action\":\"SCMP_ACT_NOTIFY\"}]}"
        ]}),
        json!({"MaskedPaths": ["/proc/kcore"]}),
        json!({"ReadonlyPaths": ["/proc/sys"]}),
        json!({"MaskedPaths": null, "ReadonlyPaths": []}),
        json!({"Sysctls": {"kernel.core_pattern": "x"}}),
        json!({"Sysctls": {"net./../kernel.core_pattern": "x"}}),
        json!({"Sysctls": {"net.ipv4.ip_forward": "1\nx"}}),
        json!({"LogConfig": {"Type": "json-file", "Config": {"tag": "a\nb"}}}),
        json!({"LogConfig": {"Type": "json-file", "Config": {"tag": "{{pad \"x\" 1000000000 0}}"}}}),
        json!({"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "unix:///run/x"}}}),
        json!({"LogConfig": {"Type": "gelf", "Config": {"gelf-address": "udp://127.0.0.1:1"}}}),
        json!({"LogConfig": {"Type": "journald", "Config": {"tag": "sshd"}}}),
        json!({"LogConfig": {"Config": {"syslog-address": "x"}}}),
        json!({"LogConfig": {"Config": {"tag": "a\nb"}}}),
        json!({"LogConfig": {"Type": "a/b"}}),
        json!({"VolumesFrom": ["other:z"]}),
        json!({"VolumesFrom": ["a/b"]}),
        json!({"Runtime": "/usr/bin/evil"}),
        json!({"PortBindings": {"80/tcp": [{"HostIp": "x"}]}}),
        json!({"Tmpfs": {"/x": "bind"}}),
        json!({"Tmpfs": {"/x": "size=1m,remount"}}),
        json!({"Tmpfs": {"/x": "size=a/b"}}),
        json!({"Tmpfs": {"/x": "new=1"}}),
        json!({"Privileged": 1}),
        json!({"Privileged": -1}),
        json!({"Privileged": 0.5}),
    ] {
        assert!(host(config.clone()).is_err(), "{config}");
    }
    // The old form, as tested on Engine 20.10.
    for body in [
        json!({"Image": "x", "Privileged": true}),
        json!({"Image": "x", "HostConfig": null, "Binds": ["/:/host"]}),
        json!({"Image": "x", "HostConfig": {}, "PidMode": "host"}),
        json!({"Image": "x", "Runtime": "/usr/bin/evil"}),
    ] {
        assert!(sent("containers.create", &body).is_err(), "{body}");
    }
    assert!(sent("images.commit", &json!({"HostConfig": {"Memory": 1}})).is_err());
    assert!(sent("images.commit", &json!({"Runtime": "runc"})).is_err());
    let of_dockerode = json!({"container": "x", "repo": "r", "tag": "t", "comment": "c", "author": "a", "Cmd": ["b"]});
    assert_eq!(sent("images.commit", &of_dockerode), Ok(json!({"Cmd": ["b"]})));
    // From docker-py's own API: judged where a HostConfig would hold it, and ignored next to a HostConfig.
    for (body, runtime) in [
        (json!({"Image": "x", "Runtime": "evil"}), json!("evil")),
        (json!({"Image": "x", "Runtime": "evil", "HostConfig": null}), json!("evil")),
        (json!({"Image": "x", "Runtime": "evil", "HostConfig": {}}), Value::Null),
        (json!({"Image": "x", "Runtime": "evil", "HostConfig": {"Runtime": "runc"}}), json!("runc")),
    ] {
        let sent = sent("containers.create", &body).expect("judged by what the Engine says");
        assert_eq!((&sent["Runtime"], &sent["HostConfig"]["Runtime"]), (&Value::Null, &runtime), "{body}");
    }
    let keys = |body: Value| sent("containers.exec", &body).map(|sent| sent["DetachKeys"].clone());
    assert_eq!(keys(json!({"detachKeys": "ctrl-x"})), Ok(json!("ctrl-x")));
    assert_eq!(keys(json!({"DetachKeys": "ctrl-y"})), Ok(json!("ctrl-y")));
    assert!(keys(json!({"DetachKeys": "ctrl-y", "detachKeys": "ctrl-x"})).is_err());
    assert!(sent("containers.update", &json!({"Privileged": true})).is_err());
    assert!(sent("plugins.set", &json!(["a=b"])).is_err());
}

#[test]
fn binds_are_judged_with_what_containers_may_write() {
    for (bind, passes) in [
        ("/data", true),
        ("volume:/x", true),
        ("volume:/x:ro,nocopy", true),
        ("/srv/one:/x", true),
        ("/srv/one/:/x:rw,Z", true),
        ("/srv/one:/x:rslave", true),
        ("/srv/one:/x:rshared", false),
        ("/srv/one:/x:shared", false),
        ("/srv/one:/x:new", false),
        ("/srv/one/below:/x", false),
        ("/srv/one/..:/x", false),
        ("/srv//one:/x", false),
        ("/srv/./one:/x", false),
        ("/srv/onemore:/x", false),
        ("/srv:/x:ro", false),
        ("/:/x:ro", false),
        ("//:/x:ro", false),
        ("./x:/x", false),
        ("../x:/x", false),
        (":/x", false),
        ("a:b:c:d", false),
        ("C:\\x:/x", false),
        ("\\\\.\\pipe\\docker_engine:/x", false),
        ("/srv/one\n:/x", false),
        ("volume:/x\ny", false),
        ("volume:\\x", false),
        // Below a directory: read-only, and not if another entry lets containers write there.
        ("/srv/all:/x:ro", true),
        ("/srv/all/below:/x:ro", true),
        ("/srv/all/..:/x:ro", false),
        ("/srv/all/../secret:/x:ro", false),
        ("/srv/all/./below:/x:ro", false),
        ("/srv/all//below:/x:ro", false),
        ("/srv/all/below:/x", false),
        ("/srv/all/below:/x:rw", false),
        ("/srv/all/below:/x:ro,z", false),
        ("/srv/all/written:/x", true),
        ("/srv/all/written/link:/x:ro", false),
        ("/srv/all/writtennot:/x:ro", true),
    ] {
        assert_eq!(host(json!({"Binds": [bind]})).is_ok(), passes, "{bind}");
    }
    let everything = ["/".to_owned()];
    let ground = Ground { binds: &everything, brings_mounts: false };
    assert!(ground.may_bind("/etc", binds::Use::Read).is_ok());
    assert!(ground.may_bind("/var/lib/docker/volumes/v/_data/link", binds::Use::Read).is_err());
    for (source, read_only, passes) in [
        ("/srv/one", false, true),
        ("/srv/all/x", true, true),
        ("/srv/all/x", false, false),
        ("/srv/all/../x", true, false),
        ("/srv/all/x\ny", true, false),
        ("srv/all/x", true, false),
        ("/etc", true, false),
        ("", true, false),
    ] {
        let mount = json!({"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": read_only});
        assert_eq!(host(json!({"Mounts": [mount]})).is_ok(), passes, "{source}");
    }
    assert!(host(json!({"Mounts": [{"Source": "/etc", "Target": "/x"}]})).is_err(), "without a type");
}

/// A read-only bind leaves the mounts below it writable (runc), so that a link could be created there.
#[test]
fn what_is_below_an_entry_comes_without_what_is_mounted_there() {
    let sent = host(json!({"Binds": ["/srv/all/x:/x:ro", "/srv/one:/y:ro", "v:/v"], "Mounts": [
        {"Type": "bind", "Source": "/srv/all/y", "Target": "/z", "ReadOnly": true,
            "BindOptions": {"Propagation": "rprivate", "ReadOnlyForceRecursive": true}},
        {"Type": "bind", "Source": "/srv/one", "Target": "/w", "ReadOnly": true}]}))
    .expect("allowed");
    assert_eq!(sent["Binds"], json!(["/srv/one:/y:ro", "v:/v"]));
    assert_eq!(
        sent["Mounts"],
        json!([
            {"Type": "bind", "Source": "/srv/all/y", "Target": "/z", "ReadOnly": true,
                "BindOptions": {"Propagation": "rprivate", "NonRecursive": true}},
            {"Type": "bind", "Source": "/srv/one", "Target": "/w", "ReadOnly": true},
            {"Type": "bind", "Source": "/srv/all/x", "Target": "/x", "ReadOnly": true, "BindOptions": {"NonRecursive": true}},
        ])
    );
    for config in [
        json!({"Binds": ["/srv/all/x:/x:ro,rslave"]}),
        json!({"Binds": ["/srv/all/x:/x:slave,ro"]}),
        json!({"Mounts": [{"Type": "bind", "Source": "/srv/all/x", "Target": "/x", "ReadOnly": true,
            "BindOptions": {"Propagation": "rslave"}}]}),
        json!({"Mounts": [{"Type": "bind", "Source": "/srv/all/x", "Target": "/x", "ReadOnly": true,
            "BindOptions": {"CreateMountpoint": true}}]}),
    ] {
        assert!(host(config.clone()).is_err(), "{config}");
    }
    // Engines accept it from API 1.40 on.
    let binds = BINDS.map(String::from);
    let old = |config: Value| {
        let body = json!({"Image": "x", "HostConfig": config}).to_string();
        judge_create(body.as_bytes(), &Ground { binds: &binds, brings_mounts: true }).map(|_| ())
    };
    assert!(old(json!({"Binds": ["/srv/all/x:/x:ro"]})).expect_err("refused").contains("1.40"));
    assert!(old(json!({"Binds": ["/srv/one:/x", "v:/v"]})).is_ok());
}

#[test]
fn volumes_are_judged_by_type_and_word() {
    for (options, passes) in [
        (json!({}), true),
        (json!({"type": "tmpfs", "device": "tmpfs", "o": "size=100m,uid=1000"}), true),
        (json!({"type": "nfs", "o": "addr=10.0.0.1,rw,nolock,vers=4.1", "device": ":/export"}), true),
        (json!({"type": "nfs4", "o": "addr=nas.example", "device": "nas:/export"}), true),
        (json!({"type": "nfs4", "o": "addr=10.0.0.1,clientaddr=10.0.0.2,fsc", "device": ":/export"}), true),
        (json!({"type": "nfs4", "o": "addr=10.0.0.1,clientaddr=10.0.0.2 bind", "device": ":/export"}), false),
        (json!({"type": "cifs", "o": "username=a,password=b!c,vers=3.0", "device": "//server/share"}), true),
        (json!({"type": "cifs", "o": "user=a,sec=ntlmssp", "device": "//server/share"}), true),
        (json!({"type": "cifs", "o": "vers=none,cache=none,sec=none", "device": "//server/share"}), true),
        (json!({"type": "cifs", "o": "new=none", "device": "//server/share"}), false),
        (json!({"type": "cifs", "o": "password=a\nb", "device": "//server/share"}), false),
        (json!({"type": "cifs", "device": "/etc"}), false),
        (json!({"type": "nfs", "o": "sec=sys,addr=10.0.0.1", "device": ":/export"}), true),
        (json!({"type": "nfs", "o": "password=a", "device": ":/export"}), false),
        (json!({"type": "nfs", "o": "sec=none", "device": ":/export"}), false),
        (json!({"type": "nfs", "device": "/dev/sda:/export"}), false),
        (json!({"type": "nfs", "device": "nas"}), false),
        (json!({"type": "tmpfs", "o": "username=a", "device": "tmpfs"}), false),
        (json!({"type": "none", "o": "bind", "device": "/srv/one"}), true),
        (json!({"o": "rbind,rw", "device": "/srv/one"}), true),
        (json!({"type": "none", "o": "bind", "device": "/"}), false),
        (json!({"o": "bind", "device": "/srv/all/x"}), false),
        (json!({"o": "bind,shared", "device": "/srv/one"}), false),
        (json!({"type": "tmpfs", "o": "bind", "device": "/"}), false),
        (json!({"type": "tmpfs", "o": "rbind", "device": "/"}), false),
        (json!({"type": "tmpfs", "device": "/"}), false),
        (json!({"type": "nfs", "o": "addr=1.2.3.4,bind", "device": "/"}), false),
        (json!({"type": "nfs", "o": "rbind", "device": ":/"}), false),
        (json!({"type": "nfs", "o": "addr=1.2.3.4,sec=krb5", "device": ":/x"}), false),
        (json!({"type": "cifs", "o": "bind", "device": "/"}), false),
        (json!({"type": "cifs", "o": "credentials=/root/secret", "device": "//a/b"}), false),
        (json!({"type": "cifs", "o": "sec=krb5", "device": "//a/b"}), false),
        (json!({"type": "nfs", "o": "BIND", "device": ":/x"}), false),
        (json!({"type": "nfs", "o": " bind", "device": ":/x"}), false),
        (json!({"type": "nfs", "o": "remount", "device": ":/x"}), false),
        (json!({"type": "nfs", "o": "move", "device": ":/x"}), false),
        (json!({"type": "overlay", "o": "lowerdir=/", "device": "overlay"}), false),
        (json!({"type": "ext4", "device": "/dev/sda1"}), false),
        (json!({"type": "Tmpfs"}), false),
        (json!({"new": "x"}), false),
        (json!({"Device": "/"}), false),
    ] {
        assert_eq!(sent("volumes.create", &json!({"Name": "v", "DriverOpts": options})).is_ok(), passes, "{options}");
        let mount = json!({"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Options": options}}});
        assert_eq!(host(json!({"Mounts": [mount]})).is_ok(), passes, "{options}");
    }
}

#[test]
fn paths_of_the_kernels_are_masked_as_the_engine_does_or_more() {
    let masked = |more: &[&str], left_out: usize| {
        let paths = [&security::ALWAYS_MASKED[left_out..], more].concat();
        host(json!({"MaskedPaths": paths})).map(|sent| sent["MaskedPaths"].as_array().map_or(0, Vec::len))
    };
    let read_only = |more: &[&str], left_out: usize| {
        let paths = [&security::ALWAYS_READONLY[left_out..], more].concat();
        host(json!({"ReadonlyPaths": paths})).is_ok()
    };
    let at_least = security::ALWAYS_MASKED.len();
    assert_eq!(masked(&[], 0), Ok(at_least + 3), "later Engines mask more");
    assert_eq!(masked(&["/proc/asound", "/sys/my.own-one"], 0), Ok(at_least + 4), "each once");
    assert!(read_only(&[], 0) && read_only(&["/sys/fs"], 0));
    for left_out in 1..=2 {
        assert!(masked(&[], left_out).is_err() && !read_only(&[], left_out), "{left_out}");
    }
    for odd in ["/etc/passwd", "proc/x", "/proc/../etc", "/sys/a b", "/process/x", ""] {
        assert!(masked(&[odd], 0).is_err() && !read_only(&[odd], 0), "{odd}");
    }
}

#[test]
fn a_place_in_a_network_takes_plain_options() {
    for (name, value, passes) in [
        ("com.docker.network.endpoint.ifname", "eth0", true),
        ("com.docker.network.endpoint.ifname", "eth0123456789-_", true),
        ("com.docker.network.endpoint.ifname", "eth0123456789-_x", false),
        ("com.docker.network.endpoint.ifname", "../x", false),
        ("com.docker.network.endpoint.sysctls", "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.a.b=-1", true),
        ("com.docker.network.endpoint.sysctls", "net.ipv4.conf.IFNAME.log_martians=1,kernel.shmmax=1", false),
        ("com.docker.network.endpoint.sysctls", "net.new.x=1", false),
        ("com.docker.network.endpoint.sysctls", "net.ipv4.x=/", false),
        ("com.docker.network.endpoint.new", "x", false),
    ] {
        let endpoint = json!({"DriverOpts": {name: value}});
        let connect = sent("networks.connect", &json!({"Container": "c", "EndpointConfig": endpoint}));
        assert_eq!(connect.is_ok(), passes, "{name}={value}");
        let create = json!({"Image": "x", "NetworkingConfig": {"EndpointsConfig": {"net": endpoint}}});
        assert_eq!(sent("containers.create", &create).is_ok(), passes, "{name}={value}");
    }
}

#[test]
fn networks_take_nothing_of_the_host() {
    for (network, passes) in [
        (
            json!({"CheckDuplicate": true, "Driver": "bridge", "EnableIPv6": false, "Internal": false, "Attachable": false,
            "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Scope": "", "Options": {}, "Labels": {},
            "IPAM": {"Driver": "default", "Options": {}, "Config": []}}),
            true,
        ),
        (json!({"ConfigFrom": {"Network": ""}, "IPAM": {"Config": [{"Subnet": "", "Gateway": ""}]}}), true),
        (json!({"Name": "two words.x"}), true),
        (json!({"Name": "two  words"}), false),
        (json!({"Name": " host"}), false),
        (json!({"Name": "host "}), false),
        (json!({"Name": "a/b"}), false),
        (json!({"Driver": "macvlan", "Options": {"parent": "eth0"}}), false),
        (json!({"Driver": "ipvlan"}), false),
        (json!({"Driver": "host"}), false),
        (json!({"Options": {"com.docker.network.bridge.name": "docker0"}}), false),
        (json!({"Options": {"com.docker.network.bridge.gateway_mode_ipv4": "nat-unprotected"}}), false),
        (json!({"Options": {"com.docker.network.container_iface_prefix": "../x"}}), false),
        (json!({"Options": {"com.docker.network.container_iface_prefix": "eth45678"}}), true),
        (json!({"Options": {"com.docker.network.container_iface_prefix": "eth456789"}}), false),
        (json!({"IPAM": {"Driver": "../../evil"}}), false),
        // It would divert the host's own traffic.
        (json!({"IPAM": {"Config": [{"Subnet": "192.168.7.0/24"}]}}), false),
        (json!({"IPAM": {"Config": [{"Subnet": "fd00:1::/64"}]}}), false),
        (json!({"IPAM": {"Config": [{"Gateway": "192.0.2.1"}]}}), false),
    ] {
        let mut body = network.clone();
        if body["Name"].is_null() {
            body["Name"] = json!("net");
        }
        assert_eq!(sent("networks.create", &body).is_ok(), passes, "{network}");
    }
}

/// A custom profile must not allow other arguments than the Engine's default profile does: user namespaces are the
/// start of most container escapes.
#[test]
fn a_seccomp_profile_is_as_narrow_as_the_engines_in_arguments_too() {
    let equal = |value: u64| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
    let masked = |index: u32, mask: u64, two: u64| json!([{"index": index, "value": mask, "valueTwo": two, "op": "SCMP_CMP_MASKED_EQ"}]);
    let flags = 0x7E02_0000_u64;
    for (call, args, includes, passes) in [
        ("clone", json!([]), json!({}), false),
        ("clone", masked(0, flags, 0), json!({}), true),
        ("clone", masked(0, flags | 1, 0), json!({}), true),
        ("clone", masked(0, flags, 0x1000_0000), json!({}), false),
        ("clone", masked(0, 0x1000_0000, 0), json!({}), false),
        ("clone", masked(1, flags, 0), json!({}), false),
        ("clone", masked(1, flags, 0), json!({"arches": ["s390x"]}), true),
        ("clone", masked(1, flags, 0), json!({"arches": ["s390x", "amd64"]}), false),
        ("clone", equal(0x1000_0000), json!({}), false),
        // runc treats each condition as sufficient if an argument occurs twice.
        ("clone", json!([masked(0, flags, 0)[0], {"index": 0, "value": 0, "op": "SCMP_CMP_GE"}]), json!({}), false),
        ("clone", json!([masked(0, flags, 0)[0], {"index": 1, "value": 0, "op": "SCMP_CMP_GE"}]), json!({}), true),
        (
            "clone",
            json!([masked(0, flags, 0)[0], {"index": 1, "value": 0, "op": "SCMP_CMP_GE"},
            {"index": 1, "value": 0, "op": "SCMP_CMP_GE"}]),
            json!({}),
            false,
        ),
        ("personality", json!([equal(8)[0], equal(0x44_0000)[0]]), json!({}), false),
        ("personality", json!([equal(8)[0], equal(0)[0]]), json!({}), true),
        ("clone3", json!([]), json!({}), false),
        ("clone3", json!([]), json!({"caps": ["CAP_SYS_ADMIN"]}), true),
        ("personality", json!([]), json!({}), false),
        ("personality", equal(0x2_0008), json!({}), true),
        ("personality", equal(0x44_0000), json!({}), false),
        // Whether earlier Engines allow it must be checked at the Engine.
        ("socket", json!([]), json!({}), true),
        ("io_uring_setup", json!([]), json!({}), true),
        ("socket", equal(1), json!({}), true),
        ("socket", equal(40), json!({}), true),
        ("socket", json!([{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]), json!({}), true),
        ("socket", json!([{"index": 1, "value": 40, "op": "SCMP_CMP_NE"}]), json!({}), true),
    ] {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", call], "action": "SCMP_ACT_ALLOW", "args": args, "includes": includes}]});
        let host = json!({"SecurityOpt": [format!("seccomp={profile}")]});
        let found = sent("containers.create", &json!({"Image": "x", "HostConfig": host}));
        assert_eq!(found.is_ok(), passes, "{call} {args} {includes}");
    }
    // The Engines whose profile is as wide.
    let (of_20, of_24, of_28) = (Some(Version(23, 0, 0)), Some(Version(25, 0, 0)), Some(Version(29, 4, 2)));
    let socket = |conditions: &[(u64, &str)]| {
        let args =
            conditions.iter().map(|(value, op)| json!({"index": 0, "value": value, "op": format!("SCMP_CMP_{op}")}));
        json!({"names": ["socket"], "args": args.collect::<Vec<_>>()})
    };
    for (rule, before) in [
        (json!({"names": ["read"]}), None),
        (json!({"names": ["io_uring_setup", "read"]}), of_24),
        (json!({"names": ["socket"]}), of_20),
        (json!({"names": ["io_uring_enter", "socket"]}), of_20),
        (json!({"names": ["io_uring_enter"], "includes": {"caps": ["CAP_SYS_ADMIN"]}}), None),
        (socket(&[(40, "NE")]), of_28),
        (socket(&[(38, "NE")]), of_20),
        // As in Engines from 29.4.2 on.
        (socket(&[(38, "LT")]), None),
        (socket(&[(39, "EQ")]), None),
        (socket(&[(40, "GT")]), None),
        (socket(&[(39, "LT")]), of_28),
        (socket(&[(41, "LT")]), of_20),
        (socket(&[(39, "GT")]), of_20),
        (socket(&[(37, "LE")]), None),
        (socket(&[(38, "LE")]), of_28),
        (socket(&[(40, "LE")]), of_20),
        (socket(&[(41, "GE")]), None),
        (socket(&[(40, "GE")]), of_20),
        (socket(&[(38, "EQ")]), of_28),
        (socket(&[(40, "EQ")]), of_20),
        (socket(&[(0x1_0000_0028, "EQ")]), of_20),
        (socket(&[(0x28, "MASKED_EQ")]), of_20),
        // Each condition suffices.
        (socket(&[(40, "NE"), (38, "NE")]), of_20),
        (socket(&[(1, "EQ"), (2, "EQ")]), None),
        (
            json!({"names": ["socket"], "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]}),
            of_20,
        ),
    ] {
        let mut rule = rule;
        rule["action"] = json!("SCMP_ACT_ALLOW");
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
        let body = json!({"HostConfig": {"SecurityOpt": [format!("seccomp={profile}")]}}).to_string();
        let Ok(Judged::Create(mut create)) =
            judge_create(body.as_bytes(), &Ground { binds: &[], brings_mounts: false })
        else {
            panic!("{rule}")
        };
        let found = create.references().into_iter().find_map(|reference| match reference {
            Reference::Seccomp { before } => Some(before),
            _ => None,
        });
        assert_eq!(found, Some(before), "{rule}");
    }
}

#[test]
fn a_seccomp_profile_is_bounded() {
    let passes = |syscalls: Value| {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls});
        host(json!({"SecurityOpt": [format!("seccomp={profile}")]})).is_ok()
    };
    let argument = |index: usize| json!({"index": index, "value": 1, "op": "SCMP_CMP_EQ"});
    for (over, expected) in [(0, true), (1, false), (2, false)] {
        assert_eq!(passes(json!(vec![json!({"name": "read"}); 2000 + over])), expected, "rules");
        assert_eq!(passes(json!([{"names": vec!["read"; 1000 + over]}, {"names": vec!["read"; 1000]}])), expected);
        let args: Vec<Value> = (0..30 + over).map(argument).collect();
        assert_eq!(passes(json!([{"names": ["read"], "args": args}])), expected, "arguments");
    }
}

#[test]
fn what_is_safer_passes_and_so_do_the_engines_own_words() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["read", "write", "clone"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 2_114_060_288u64, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["mount", "bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "comment": "", "includes": {"minKernel": "4.8"}}]
    });
    for config in [
        json!({"CapDrop": ["ALL"], "CapAdd": ["CHOWN", "cap_net_bind_service"]}),
        json!({"SecurityOpt": ["apparmor=docker-default", "apparmor:docker-default", "no-new-privileges:true"]}),
        json!({"SecurityOpt": ["label=type:container_t", "label=type:web.process", "label=level:s0:c1,c2"]}),
        json!({"SecurityOpt": ["label:type:svirt_apache_t", "seccomp=builtin"]}),
        json!({"SecurityOpt": ["label=user:system_u", "label=role:system_r"]}),
        json!({"SecurityOpt": [format!("seccomp={profile}")]}),
        json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "tag": "{{.Name}}/{{ .ID }}"}}}),
        json!({"LogConfig": {"Type": "", "Config": {"max-size": "10m"}}}),
        json!({"LogConfig": {"Config": {"tag": "{{.Name}}", "labels": "a,b", "env": "A"}}}),
        json!({"Runtime": "io.containerd.runc.v2", "NetworkMode": "my net"}),
        json!({"Runtime": "runc", "Isolation": "default", "NetworkMode": "my_net-1.x"}),
        json!({"Sysctls": {"net.ipv4.ip_local_port_range": "1024 65000", "kernel.shmmax": "1"}}),
    ] {
        let sent = host(config.clone()).unwrap_or_else(|why| panic!("{config}: {why}"));
        for (name, value) in config.as_object().expect("an object") {
            if !value.to_string().contains("syscalls") {
                assert_eq!(&sent[name], value);
            }
        }
        let again = host(sent.clone()).expect("what was sent passes");
        assert_eq!(again, sent);
    }
    assert!(sent("containers.exec", &json!({"Container": "x", "Privileged": false, "Cmd": "ls"})).is_ok());
    assert!(sent("exec.start", &json!({"Detach": false, "Tty": false, "hijack": true, "stdin": true})).is_ok());
}

#[test]
fn references_are_found_and_replaced() {
    let body = json!({"Image": "x", "HostConfig": {
        "NetworkMode": "container:a", "PidMode": "container:b", "IpcMode": "container:c", "VolumesFrom": ["d", "e:ro"],
        "Runtime": "nvidia", "LogConfig": {"Type": "journald"}, "CgroupnsMode": "host", "SecurityOpt": ["seccomp=builtin", "apparmor=docker-default"],
        "Binds": ["f:/f", "/anonymous"],
        "Mounts": [{"Type": "volume", "Source": "g", "Target": "/g"}, {"Type": "tmpfs", "Source": "h", "Target": "/h"}],
    }});
    let Ok(Judged::Create(mut create)) =
        judge_create(body.to_string().as_bytes(), &Ground { binds: &[], brings_mounts: false })
    else {
        panic!("refused")
    };
    let (mut names, mut others) = (Vec::new(), 0);
    for reference in create.references() {
        match reference {
            Reference::Container { name, set, .. } => {
                set(&format!("id-of-{name}"));
                names.push(name);
            }
            Reference::HostCgroupns(set) => set(),
            Reference::Volume { name, .. } => names.push(name),
            Reference::DefaultLog { .. } => panic!("it names a driver"),
            Reference::Runtime(_) | Reference::LogDriver(_) | Reference::Seccomp { .. } => others += 1,
        }
    }
    names.sort();
    assert_eq!((names.concat().as_str(), others), ("abcdefg", 3));
    let sent: Value = serde_json::from_slice(&create.to_body().expect("JSON")).expect("JSON");
    assert_eq!(sent["HostConfig"]["NetworkMode"], "container:id-of-a");
    assert_eq!(sent["HostConfig"]["PidMode"], "container:id-of-b");
    assert_eq!(sent["HostConfig"]["IpcMode"], "container:id-of-c");
    assert_eq!(sent["HostConfig"]["VolumesFrom"], json!(["id-of-d", "id-of-e:ro"]));
    assert_eq!(sent["HostConfig"]["CgroupnsMode"], "private");
}

#[test]
fn containers_that_are_there_are_judged_by_what_they_have() {
    let id = "a".repeat(64);
    let read = |host: Value, mounts: Value| {
        let inspect = json!({"Id": id, "HostConfig": host, "Mounts": mounts, "New": {"x": 1}}).to_string();
        let binds = BINDS.map(String::from);
        Existing::read(inspect.as_bytes(), &Ground { binds: &binds, brings_mounts: false }).map(|existing| existing.id)
    };
    let none = json!([]);
    assert_eq!(read(json!({"CgroupnsMode": "host", "LogConfig": {"Type": "syslog"}}), none.clone()), Ok(id.clone()));
    assert!(read(Value::Null, none.clone()).is_err());
    assert!(read(json!({"Privileged": true}), none.clone()).is_err());
    assert!(read(json!({"NetworkMode": "host"}), none.clone()).is_err());
    assert!(read(json!({"TheNextWayOut": true}), none).is_err());
    let mount = |kind: &str, source: &str, writable: bool| json!([{"Type": kind, "Source": source, "RW": writable}]);
    assert!(read(json!({}), mount("volume", "/var/lib/docker/volumes/v/_data", true)).is_ok());
    assert!(read(json!({}), mount("bind", "/srv/one", true)).is_ok());
    // A bind below an entry passes only without the mounts below it.
    assert!(read(json!({}), mount("bind", "/srv/all/x", false)).is_err());
    let own = |source: &str, options: Value| {
        let own = json!({"Mounts": [{"Type": "bind", "Source": source, "Target": "/x/", "ReadOnly": true, "BindOptions": options}]});
        read(own, json!([{"Type": "bind", "Source": "/srv/all/x", "Destination": "/x", "RW": false}])).is_ok()
    };
    assert!(own("/srv/all/x", json!({"NonRecursive": true})));
    assert!(!own("/srv/all/x", json!({})) && !own("/srv/all/y", json!({"NonRecursive": true})));
    assert!(read(json!({"Binds": ["/srv/all/x:/x:ro"]}), mount("bind", "/srv/all/x", false)).is_err());
    assert!(read(json!({}), mount("bind", "/srv/all/x", true)).is_err());
    // Also for another container's mounts (VolumesFrom).
    assert!(read(json!({"VolumesFrom": ["x"]}), mount("bind", "/etc", true)).is_err());
    let inspect = json!({"Id": id, "HostConfig": {"Binds": ["a:/a"]}, "Mounts": [
        {"Type": "volume", "Name": "a", "Source": "/x"}, {"Type": "volume", "Name": "b", "Source": "/x"}]});
    let mut existing =
        Existing::read(inspect.to_string().as_bytes(), &Ground { binds: &[], brings_mounts: false }).expect("allowed");
    assert_eq!(existing.references().len(), 2, "each volume once");
    for (volume, passes) in [
        (json!({"Driver": "local", "Options": null}), true),
        (json!({"Driver": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}), true),
        (json!({"Driver": "local", "Options": {"o": "bind", "device": "/srv/one"}}), true),
        (json!({"Driver": "local", "Options": {"o": "bind", "device": "/"}}), false),
        (json!({"Driver": "local", "Options": {"type": "tmpfs", "o": "bind", "device": "/"}}), false),
        (json!({"Driver": "local", "Options": {"new": "x"}}), false),
        (json!({"Driver": "a-plugin", "Options": null}), false),
        (json!({"Options": null}), false),
        (json!([]), false),
    ] {
        let binds = BINDS.map(String::from);
        let judged =
            judge_existing_volume(volume.to_string().as_bytes(), &Ground { binds: &binds, brings_mounts: false });
        assert_eq!(judged.is_ok(), passes, "{volume}: {judged:?}");
    }
    let exec = |privileged: bool| {
        let inspect = json!({"ContainerID": id, "ProcessConfig": {"privileged": privileged}}).to_string();
        ExistingExec::read(inspect.as_bytes()).is_ok()
    };
    assert!(exec(false) && !exec(true));
}

#[test]
fn builds_say_what_they_want_by_name() {
    for (name, value, passes) in [
        ("t", "a:b", true),
        ("networkmode", "default", true),
        ("networkmode", "", true),
        ("buildargs", r#"{"A":"b","C":null}"#, true),
        ("labels", "{}", true),
        ("cachefrom", r#"["a:b"]"#, true),
        ("ulimits", "null", true),
        ("ulimits", r#"[{"Name":"nofile","Soft":1,"Hard":1}]"#, true),
        ("outputs", r#"[{"Type":"moby","Attrs":{}}]"#, true),
        ("cgroupparent", "", true),
        ("networkmode", "none", true),
        ("networkmode", "my-net.1", true),
        ("networkmode", "host", false),
        ("networkmode", "host ", false),
        ("networkmode", "container:a", false),
        ("networkmode", "/proc/1/ns/net", false),
        ("securityopt", "x", false),
        ("securityopt", "", false),
        ("cgroupparent", "/", false),
        ("entitlements", "x", false),
        ("isolation", "process", false),
        ("buildargs", "[]", false),
        ("outputs", r#"[{"Type":"image","Attrs":{"push":"true"}}]"#, false),
        ("new", "1", false),
    ] {
        assert_eq!(judge_build(name, value).is_ok(), passes, "{name}={value}");
    }
}

/// Typical values, and malicious ones.
fn values() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "",
        "host",
        "container:a",
        "bridge",
        "none",
        "private",
        "/",
        "/:/x",
        "/srv/one:/x",
        "v:/x:ro",
        "SYS_ADMIN",
        "CHOWN",
        "seccomp=unconfined",
        "label=disable",
        "local",
        "evil",
        "bind",
        "tmpfs",
        "runc",
        "syslog",
        "json-file",
        "/proc/kcore",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..100).prop_map(Value::from),
        words.clone().prop_map(Value::from),
        "[a-z:/=,.]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        let names = prop::sample::select(vec![
            "Type",
            "Config",
            "Source",
            "Target",
            "ReadOnly",
            "type",
            "o",
            "device",
            "Name",
            "Options",
            "DriverConfig",
            "VolumeOptions",
            "BindOptions",
            "Propagation",
            "Path",
            "Rate",
            "a",
            "80/tcp",
            "HostPort",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(names.prop_map(String::from), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn host_configs() -> impl Strategy<Value = Value> {
    let rows = include_str!("../../../../tests/guard/fields.txt").lines();
    let names = rows.filter_map(|row| row.split('\t').nth(1)?.strip_prefix("HostConfig."));
    let names: Vec<&str> = names.filter(|name| !name.contains(['.', '['])).collect();
    let name = prop::sample::select(names).prop_map(String::from);
    prop::collection::btree_map(name, values(), 0..6).prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    /// An accepted body is sent in a form that is accepted unchanged, and that holds no way out of the container.
    #[test]
    fn what_passes_is_harmless_and_passes_again(config in host_configs()) {
        if let Ok(sent) = host(config) {
            prop_assert_eq!(&host(sent.clone()).expect("again"), &sent);
            for never in ["Privileged", "Devices", "DeviceRequests", "DeviceCgroupRules", "CgroupParent", "Annotations",
                "UTSMode", "UsernsMode", "Cgroup"]
            {
                prop_assert!(sent[never].is_null());
            }
            for mode in ["NetworkMode", "PidMode", "IpcMode"] {
                prop_assert!(sent[mode] != "host");
            }
            // By field: in the names of name servers or volumes these are only words.
            for (field, never) in [
                ("/CapAdd", "SYS_ADMIN"),
                ("/SecurityOpt", "unconfined"),
                ("/SecurityOpt", "disable"),
                ("/Binds", "\"/:"),
                ("/VolumeDriver", "evil"),
                ("/Runtime", "evil"),
                ("/LogConfig/Type", "evil"),
                ("/Mounts/0/VolumeOptions/DriverConfig/Name", "evil"),
            ] {
                let text = sent.pointer(field).unwrap_or(&Value::Null).to_string();
                prop_assert!(!text.contains(never), "{field}: {text}");
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for operation in ["containers.create", "volumes.create", "networks.create", "exec.start"] {
            let _ = judge(operation, &body, &Ground { binds: &[], brings_mounts: false });
        }
    }
}
