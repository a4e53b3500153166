//! Checks of the host after the login: the user, and the server's forwarding.

use std::time::Instant;

use super::check::Verdict;
use super::examination::{Examination, LIMIT, NO_LOGIN, Stage};
use crate::config::Remote;
use crate::host::{self, Access, HostProbe};
use crate::ssh::{Connection, Endpoint, OpenError};

/// The login's user and groups, and the Engine sockets on the host.
pub(super) async fn look_around(examination: &mut Examination<'_>) -> Result<Stage, host::Error> {
    let Some(connection) = examination.connection.clone() else { return Ok(Stage::Skips(NO_LOGIN)) };
    let begun = Instant::now();
    let probe = HostProbe::take(&connection, examination.target.remote.socket()).await;
    let time = Some(begun.elapsed());
    let probe = match probe {
        Ok(probe) => probe,
        Err(said) => {
            let said = if said.is_empty() { said } else { format!(": {said}") };
            let detail = format!("this login runs no commands, so the host could not be examined{said}");
            let fix = "nothing, if this login is for tunnels only".into();
            examination.add(Verdict::Warning, time, detail, Some(fix));
            return Ok(Stage::Complete);
        }
    };
    let sockets: Vec<String> = probe
        .sockets
        .iter()
        .filter(|socket| socket.access != Access::Absent)
        .map(|socket| {
            let denied = if socket.access == Access::Denied { ", not for this login" } else { "" };
            format!("{} ({}{denied})", socket.path, socket.listing)
        })
        .collect();
    let sockets = if sockets.is_empty() { "no Docker socket".into() } else { sockets.join(", ") };
    examination.add(Verdict::Ok, time, format!("{} in {}; {sockets}", probe.user, probe.groups.join(", ")), None);
    examination.probe = Some(probe);
    Ok(Stage::Complete)
}

/// Checks whether the server forwards and, if not, which setting most likely forbids it.
pub(super) async fn forwarding(examination: &mut Examination<'_>) -> Result<Stage, host::Error> {
    let Some(connection) = examination.connection.clone() else { return Ok(Stage::Skips(NO_LOGIN)) };
    let probe = examination.probe.take();
    let usable = probe.as_ref().and_then(|probe| probe.usable().next());
    let path =
        examination.target.remote.socket().map(str::to_owned).or_else(|| usable.map(|socket| socket.path.clone()));
    let Some(path) = path.filter(|_| !matches!(examination.target.remote, Remote::Tcp { .. } | Remote::Command(_)))
    else {
        return Ok(Stage::Skips("no socket to try it with"));
    };
    let begun = Instant::now();
    let opened = tokio::time::timeout(LIMIT, connection.open(&Endpoint::Streamlocal(path.clone()))).await;
    let time = begun.elapsed();
    match opened {
        Ok(Ok(channel)) => {
            channel.close().await;
            examination.ok(time, format!("to {path}"));
        }
        Ok(Err(OpenError::Lost)) => return Err(connection.ended().await.into()),
        Ok(Err(error)) => {
            let remedy = likely_setting(&connection, usable.is_some_and(|socket| socket.path == path)).await;
            examination.add(Verdict::Warning, Some(time), error.to_string(), Some(remedy));
        }
        Err(_) => examination.add(Verdict::Warning, Some(time), format!("no answer about {path}"), None),
    }
    Ok(Stage::Complete)
}

/// Tries a port that nobody listens on: a server that may connect reports a failed connection, one
/// that may not reports prohibition.
async fn likely_setting(connection: &Connection, usable: bool) -> String {
    let nowhere = Endpoint::Tcp { host: "127.0.0.1".into(), port: 1 };
    let prohibited = match tokio::time::timeout(LIMIT, connection.open(&nowhere)).await {
        Ok(Err(error)) => error.is_prohibited(),
        Ok(Ok(channel)) => {
            channel.close().await;
            false
        }
        Err(_) => false,
    };
    match (prohibited, usable) {
        (true, _) => {
            "sshd forwards nothing for this login: `AllowTcpForwarding yes` and no `DisableForwarding` in the \
                      host's sshd_config, and in authorized_keys `restrict,port-forwarding` in place of `restrict`"
                .into()
        }
        (false, true) => "sshd forwards ports but not sockets: `AllowStreamLocalForwarding yes` in the host's \
                          sshd_config; in authorized_keys no `permitopen=`"
            .into(),
        (false, false) => "sshd may forward; see the next step for the socket itself".into(),
    }
}
