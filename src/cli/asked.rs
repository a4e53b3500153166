//! Compares the settings a command asks for with those of the running tunnel, and applies or refuses them. Also formats
//! a tunnel's settings in short.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::arguments::started_as;
use super::global::Global;
use super::targets::Chosen;
use super::ui::ui;
use crate::config::{ConfigFile, Difference, Overrides, Takes, TunnelName, Wanted};
use crate::daemon::{self, ControlClient, Event, Request, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::shell_word::shell_word;
use crate::tunnel::{MountState, PortState, PortStatus, State};

/// The failure of a command whose settings differ from those of the running tunnel.
pub(super) fn not_as_asked(target: &str, different: &[Difference]) -> Failure {
    let name = shell_word(target);
    let hint = match different.iter().map(|difference| difference.takes).max() {
        Some(Takes::Down) | None => format!("take it down first: dtunnel down {name}"),
        Some(Takes::Restart) => format!("dtunnel restart {name} takes it down and up again"),
        Some(Takes::Up | Takes::Reload) => format!("dtunnel reload {name} applies it without interrupting open flows"),
    };
    Failure::new(ExitCode::Other, format!("{target} is already up with other settings: {}", list(different))).hint(hint)
}

/// Checks that a running tunnel, which a command only uses, has the target and the guard of its configuration.
///
/// # Errors
/// Its target differs, or its guard lets more through.
pub(super) fn holds_in_passing(global: &Global, chosen: &Chosen, status: &TunnelStatus) -> Result<(), Failure> {
    let Some(running) = &status.settings else { return Ok(()) };
    let overrides = Overrides { ssh_config: global.ssh_config(), ..Overrides::default() };
    let wanted = Wanted::of(&chosen.target, &chosen.config, &overrides)?;
    let is_of_target = TunnelName::of_target(&chosen.target, &chosen.config)? == chosen.name;
    let wanted = if is_of_target { wanted } else { wanted.wherever() };
    match wanted.differences_in_passing(running) {
        different if different.is_empty() => Ok(()),
        different => Err(not_as_asked(&chosen.target, &different)),
    }
}

/// Checks that a tunnel was started with these configuration files, before `restart` or `reload`.
///
/// # Errors
/// It was started with other files.
pub(super) fn has_these_files(global: &Global, target: &str, status: &TunnelStatus) -> Result<(), Failure> {
    let Some(start) = started_as(&status.arguments) else { return Ok(()) };
    let shown = |file: Option<&PathBuf>| file.map_or_else(|| "unset".to_owned(), |file| file.display().to_string());
    let differ = |setting: &str, running: Option<&PathBuf>, wanted: &PathBuf| Difference {
        setting: setting.into(),
        running: shown(running),
        wanted: shown(Some(wanted)),
        takes: Takes::Down,
    };
    let ssh_config = global.ssh_config();
    let of_ssh = ssh_config.iter().filter(|file| start.overrides.ssh_config.as_ref() != Some(*file));
    let mut different: Vec<_> = of_ssh.map(|file| differ("-F", start.overrides.ssh_config.as_ref(), file)).collect();
    let (config, named) = global.config_path()?;
    if named && config != start.config {
        different.push(differ("--config", Some(&start.config), &config));
    }
    if different.is_empty() { Ok(()) } else { Err(not_as_asked(target, &different)) }
}

fn list(different: &[Difference]) -> String {
    different.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Has a tunnel reload its settings, and waits until they are in force.
///
/// # Errors
/// The reload failed, or was not answered within `limit` or the time for a connection, whichever is longer.
pub(super) fn take_on(
    client: &mut ControlClient,
    target: &str,
    wanted: &Wanted,
    different: &[Difference],
    options: Request,
    limit: Duration,
) -> Result<(), Failure> {
    client.send(&options)?;
    let warnings = match client.receive(limit.max(daemon::CONNECTING))? {
        Some(Event::Reloaded { warnings }) => warnings,
        // A usage error is in the configuration and needs no advice about the tunnel.
        Some(Event::Failed { failure }) if failure.exit == ExitCode::Usage => return Err(failure),
        Some(Event::Failed { failure }) => {
            let causes = std::iter::once(failure.message).chain(failure.causes).collect();
            return Err(Failure { causes, ..not_as_asked(target, different) });
        }
        _ => return Err(not_as_asked(target, different)),
    };
    warnings.iter().for_each(|warning| ui().warning(&format!("{target}: {warning}")));
    let status = client.status()?;
    let left = status.settings.as_ref().map(|running| wanted.differences(running)).unwrap_or_default();
    if !left.is_empty() {
        return Err(not_as_asked(target, &left));
    }
    let now = different.iter().map(|Difference { setting, wanted, .. }| format!("{setting} is {wanted} now"));
    ui().note(&format!("{target}: {}", now.collect::<Vec<_>>().join(", ")));
    Ok(())
}

/// The settings in which a tunnel differs from its configuration now.
pub(super) fn changed_since(status: &TunnelStatus) -> Vec<Difference> {
    let differences = || {
        let running = status.settings.as_ref()?;
        let start = started_as(&status.arguments)?;
        // `status` works without a readable configuration.
        let config = ConfigFile::load(&start.config, start.config_named).ok()?;
        Some(Wanted::of(&start.target, &config, &start.overrides).ok()?.differences(running))
    };
    differences().unwrap_or_default()
}

/// A sentence for a tunnel whose configuration has changed since it was loaded; None without a change.
pub(super) fn changed(status: &TunnelStatus) -> Option<String> {
    let takes = status.changed.iter().map(|difference| difference.takes).max()?;
    let command = match takes {
        Takes::Down => "down",
        Takes::Restart => "restart",
        Takes::Up | Takes::Reload => "reload",
    };
    let name = shell_word(&status.name);
    Some(format!("its configuration has changed: {} (dtunnel {command} {name})", list(&status.changed)))
}

/// A tunnel's ports and mounts, and `lazy` where its state does not show it.
pub(super) fn besides_guard(status: &TunnelStatus) -> Vec<String> {
    let ports = status.ports.as_deref().map(ports_in_short);
    let mounts = status.mounts.as_deref().map(|mounts| {
        match mounts.iter().filter(|mount| mount.state != MountState::Unused).count() {
            1 => "1 directory mounted".to_owned(),
            number => format!("{number} directories mounted"),
        }
    });
    let stays = status.ports.is_some() || status.mounts.is_some();
    let is_lazy = !stays && status.settings.as_ref().is_some_and(|settings| settings.lazy && !settings.ports);
    let lazy = is_lazy && status.state != State::Idle;
    ports.into_iter().chain(mounts).chain(lazy.then(|| "lazy".into())).collect()
}

/// The ports by state: `3 ports here, 2 taken`.
fn ports_in_short(ports: &[PortStatus]) -> String {
    // A port may have several addresses, and is counted once.
    let count = |state| {
        let of_state = ports.iter().filter(|port| port.state == state);
        of_state.map(|port| (&port.container_id, port.remote_port)).collect::<BTreeSet<_>>().len()
    };
    let open = count(PortState::Open);
    let mut text = format!("{open} {} here", if open == 1 { "port" } else { "ports" });
    for state in [PortState::Waiting, PortState::Taken, PortState::Privileged, PortState::Failed] {
        match count(state) {
            0 => {}
            number => text += &format!(", {number} {state}"),
        }
    }
    text
}
