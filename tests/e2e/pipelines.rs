//! Pipelines with both ends in one tunnel: what one flow reads, another one has to send.

use std::process::{Command, Output};

use crate::lab::engine::IMAGE;
use crate::lab::{Lab, run, succeeded};

/// Bytes of the image: far more than can wait on the way.
const SIZE: usize = 80 << 20;
/// Seconds after which a pipeline that hangs is ended: far more than one takes on a busy machine.
const LIMIT: u32 = 300;

/// A shell script in which `docker` goes through the tunnel.
fn script(lab: &Lab, text: &str) -> Output {
    let mut shell = Command::new("timeout");
    shell.args([&LIMIT.to_string(), "sh", "-c", text]);
    lab.set_env(&mut shell);
    shell.env("DOCKER_HOST", format!("unix://{}", lab.socket("lab").display())).output().unwrap()
}

/// An image with [`SIZE`] bytes that do not compress.
fn make_image(lab: &Lab, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 1_u64;
    let data = (0..SIZE / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    std::fs::write(dir.path().join("data"), data.collect::<Vec<u8>>()).unwrap();
    lab.engine.as_ref().unwrap().import(dir.path(), &["-", name]);
}

/// Writes a configuration whose profile has these lines.
fn set(lab: &Lab, lines: &str) {
    lab.write_profile(lab.remote_socket(), &format!("{lines}\n"));
}

#[track_caller]
fn save_into_load(lab: &Lab, name: &str) {
    let output = script(lab, &format!("docker save {name} | docker load"));
    assert!(succeeded(&output).contains(name), "{output:?}");
    assert_eq!(lab.status("lab")["flows_failed"], 0, "{}", lab.log("lab"));
}

#[track_caller]
fn save_into_load_on_fresh_tunnels(lab: &Lab, name: &str) {
    for _ in 0..2 {
        lab.ok(&["up", "lab"]);
        save_into_load(lab, name);
        save_into_load(lab, name);
        lab.ok(&["down", "lab"]);
    }
}

#[test]
fn an_image_is_saved_into_load_on_a_fresh_tunnel() {
    let Some(lab) = Lab::with_engine() else { return };
    make_image(&lab, "fresh:1");
    save_into_load_on_fresh_tunnels(&lab, "fresh:1");
}

#[test]
fn an_image_is_saved_into_load_with_nothing_kept_on_disk() {
    let Some(lab) = Lab::with_engine() else { return };
    make_image(&lab, "apart:1");
    set(&lab, "spill = 0");
    save_into_load_on_fresh_tunnels(&lab, "apart:1");
}

#[test]
fn an_image_is_saved_into_load_over_one_connection_and_under_a_guard() {
    let Some(lab) = Lab::with_engine() else { return };
    make_image(&lab, "one:1");
    for (max, access, spill) in
        [(1, "full", "1GiB"), (1, "no-privileged", "1GiB"), (4, "no-privileged", "1GiB"), (1, "full", "64MiB")]
    {
        set(&lab, &format!("max_connections = {max}\naccess = {access:?}\nspill = {spill:?}"));
        lab.ok(&["up", "lab"]);
        save_into_load(&lab, "one:1");
        lab.ok(&["down", "lab"]);
    }
}

#[test]
fn an_image_is_saved_into_load_where_commands_carry_the_flows() {
    for sessions in [10, 2] {
        let Some(mut lab) = Lab::with_engine() else { return };
        make_image(&lab, "bridge:1");
        lab.reconfigure(&format!("DisableForwarding yes\nMaxSessions {sessions}"));
        lab.ok(&["up", "lab"]);
        save_into_load(&lab, "bridge:1");
    }
}

#[test]
fn files_are_copied_from_one_container_into_another() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.ok(&["up", "lab"]);
    for name in ["from", "to"] {
        let command = ["run", "--detach", "--net=none", "--name", name, IMAGE, "sleep", "600"];
        run(&mut lab.docker("lab", &command));
    }
    let made = "docker exec from sh -c 'dd if=/dev/urandom of=/tmp/data bs=1000000 count=80 2>/dev/null'";
    let text = format!(
        "{made} && docker cp from:/tmp/data - | docker cp - to:/tmp && \
         for c in from to; do docker exec $c sha256sum /tmp/data; done"
    );
    let output = script(&lab, &text);
    let sums = succeeded(&output);
    let _ = lab.docker("lab", &["rm", "--force", "from", "to"]).output();
    let sums: Vec<_> = sums.lines().collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "{sums:?}");
}
