//! Checks of this machine: the local endpoint, and the programs that dtunnel relies on.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{Check, Verdict};
use crate::config::{LocalEndpoint, Target, runtime_dir};
use crate::os::local::{self, BlockingStream, Place};
use crate::os::{agent, process, search_path, user};
use crate::ssh::own_agent;

/// Time limit of connecting to a program on this machine.
const CONNECTING: Duration = Duration::from_secs(1);

/// Checks the local endpoint and its directory. `tunnel` is the endpoint of the target's own tunnel, as reported by its
/// daemon; None if it does not run. A listening process alone does not show whose tunnel it is.
pub(super) fn check(target: &Target, tunnel: Option<&str>) -> Check {
    let (verdict, detail, remedy) = if tunnel == Some(target.local.docker_host().as_str()) {
        up(&target.local)
    } else {
        match &target.local {
            LocalEndpoint::Unix(path) => unix(path),
            LocalEndpoint::Tcp(address) => tcp(*address, tunnel),
        }
    };
    Check { id: "local", verdict, ms: None, detail, remedy }
}

/// The checks of this machine that need no target: the runtime directory, and the programs that dtunnel relies on.
const MACHINE: [(&str, Look); 5] =
    [("runtime", runtime), ("ssh", ssh), ("agent", ssh_agent), ("docker", docker), ("environment", environment)];

/// Runs the checks of this machine that need no target.
pub(super) fn check_machine(on_check: &mut dyn FnMut(Check)) {
    for (id, look) in MACHINE {
        let (verdict, detail, remedy) = look();
        on_check(Check { id, verdict, ms: None, detail, remedy });
    }
}

type Found = (Verdict, String, Option<String>);
type Look = fn() -> Found;

fn ssh() -> Found {
    match in_path("ssh") {
        Some(path) => (Verdict::Ok, format!("{} reads your ssh_config for dtunnel", path.display()), None),
        None => (
            Verdict::Warning,
            "there is no ssh here: dtunnel reads ssh_config itself, without Match and some others".into(),
            Some("install OpenSSH's client, or see docs/configuration.md for what is missing".into()),
        ),
    }
}

fn docker() -> Found {
    match in_path("docker") {
        Some(path) => (Verdict::Ok, path.display().to_string(), None),
        None => (
            Verdict::Warning,
            "there is no docker CLI in PATH".into(),
            Some("tunnels work without, for programs that speak to the socket; else install docker's CLI".into()),
        ),
    }
}

/// Checks the running tunnel's endpoint.
fn up(endpoint: &LocalEndpoint) -> Found {
    if let LocalEndpoint::Unix(path) = endpoint
        && let Some(mode) = local::open_to_others(path)
    {
        let detail = format!(
            "the mode of {} was changed to {mode:04o} (dtunnel turns others away all the same)",
            path.display()
        );
        return (Verdict::Warning, detail, Some(format!("chmod 600 {}", path.display())));
    }
    (Verdict::Ok, format!("{} is in use, for you alone: the tunnel is up", shown(endpoint)), None)
}

fn shown(endpoint: &LocalEndpoint) -> String {
    match endpoint {
        LocalEndpoint::Unix(path) => path.display().to_string(),
        LocalEndpoint::Tcp(address) => address.to_string(),
    }
}

fn runtime() -> Found {
    match runtime_dir() {
        Err(error) => (Verdict::Failed, error.to_string(), error.hint()),
        Ok(dir) if dir.exists() => (Verdict::Ok, format!("{} is yours alone", dir.display()), None),
        Ok(dir) => (Verdict::Ok, format!("{} is made by the first `up`", dir.display()), None),
    }
}

fn ssh_agent() -> Found {
    let Some(path) = own_agent() else {
        return (Verdict::Ok, agent::NONE.into(), None);
    };
    match agent::answers(&path, CONNECTING) {
        Ok(()) => (Verdict::Ok, format!("an ssh-agent at {}", path.display()), None),
        Err(e) => (
            Verdict::Warning,
            format!("SSH_AUTH_SOCK names {}, where no agent answers: {e}", path.display()),
            Some("start one (`eval \"$(ssh-agent)\"`), or unset SSH_AUTH_SOCK".into()),
        ),
    }
}

/// Settings that point docker to another endpoint than `env` does.
fn environment() -> Found {
    let fighting = ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];
    let set: Vec<&str> = fighting.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    if set.is_empty() {
        return (Verdict::Ok, "nothing in it makes docker go elsewhere".into(), None);
    }
    let detail = format!("{} set: docker may go elsewhere than DOCKER_HOST says", set.join(", "));
    (Verdict::Warning, detail, Some("eval \"$(dtunnel env TARGET)\" takes them away".into()))
}

fn in_path(program: &str) -> Option<PathBuf> {
    search_path::places_of(program).find(|file| file.is_file())
}

fn unix(path: &Path) -> Found {
    // If the runtime directory is unsafe, resolving the target has failed already.
    if let Err(error) = runtime_dir() {
        return (Verdict::Failed, error.to_string(), error.hint());
    }
    let shown = path.display();
    match local::look(path, CONNECTING) {
        Place::Free => (Verdict::Ok, format!("{shown} is free"), None),
        Place::Foreign => {
            let remedy = format!("remove {shown}, or choose another path with --local {}:PATH", local::SCHEME);
            (Verdict::Failed, format!("{shown} is there, and no socket"), Some(remedy))
        }
        Place::OfUser(other) => {
            let detail = format!("{shown} belongs to uid {other}, not to you (uid {})", user::id());
            (Verdict::Failed, detail, Some(format!("choose another path with --local {}:PATH", local::SCHEME)))
        }
        Place::Listens(stream) => {
            let holder = holder(&stream);
            // The socket of a service (`dtunnel service install --socket`), which starts the tunnel on first use.
            if holder.as_ref().is_some_and(|(program, _)| program == "systemd" || program == "launchd") {
                return (Verdict::Ok, format!("the service manager listens on {shown}"), None);
            }
            let who = holder.map(|(program, pid)| format!(" ({program}, pid {pid})")).unwrap_or_default();
            let remedy = format!("end it, or choose another path with --local {}:PATH", local::SCHEME);
            (Verdict::Failed, format!("another program{who} listens on {shown}"), Some(remedy))
        }
        Place::Busy => {
            let remedy = format!("end that program, or choose another path with --local {}:PATH", local::SCHEME);
            (Verdict::Failed, format!("another program listens on {shown}, and accepts no connections"), Some(remedy))
        }
        Place::LeftOver => (Verdict::Ok, format!("{shown} was left over; the next `up` replaces it"), None),
    }
}

/// The listening program and its process id, if the system tells.
fn holder(stream: &BlockingStream) -> Option<(String, u32)> {
    let pid = local::peer(stream).ok()?.pid?;
    Some((crate::text::shown(&process::name_of(pid)?), pid))
}

fn tcp(address: SocketAddr, tunnel: Option<&str>) -> Found {
    if address.port() == 0 {
        return match tunnel {
            Some(at) => (Verdict::Ok, format!("the tunnel is up at {at}, for you alone"), None),
            None => (Verdict::Ok, "any free port".into(), None),
        };
    }
    match TcpListener::bind(address) {
        Ok(_) => (Verdict::Ok, format!("{address} is free"), None),
        Err(e) => (
            Verdict::Failed,
            format!("{address} cannot be used: {e}"),
            Some("end what listens there, or choose another port with --local tcp:ADDRESS:PORT".into()),
        ),
    }
}
