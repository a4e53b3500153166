//! `dtunnel mounts`.

use clap::Args;

use super::global::Global;
use super::output;
use super::ui::ui;
use crate::daemon::{ControlClient, Event, MountsTask, Request, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::tunnel::{MountState, MountStatus, State};

#[derive(Debug, Args)]
pub(super) struct MountsArgs {
    /// The tunnel
    #[arg(value_name = "TARGET", add = super::completions::running())]
    target: String,
    /// Wait until everything that containers mount is in step
    #[arg(long, conflicts_with = "prune")]
    sync: bool,
    /// Remove what no container mounts any more from the host
    #[arg(long)]
    prune: bool,
    /// Print a JSON array, for programs
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn mounts(global: &Global, args: &MountsArgs) -> Result<(), Failure> {
    let mut client = global.connect(&args.target)?;
    let task = match (args.sync, args.prune) {
        (true, _) => Some(MountsTask::Sync),
        (_, true) => Some(MountsTask::Prune),
        _ => None,
    };
    let mut failed = None;
    let status = match task {
        Some(task) => {
            let (status, trouble) = carry_out(&mut client, task)?;
            failed = trouble;
            status
        }
        None => client.status()?,
    };
    ui().result(status.mounts.as_deref().unwrap_or_default(), || match status.mounts.as_deref() {
        None => {
            ui().note("this tunnel mounts no directories: `dtunnel up --mounts`, or `mounts` in its profile");
            String::new()
        }
        Some([]) => {
            ui().note("no container mounts a directory of this machine");
            String::new()
        }
        Some(mounts) => table(mounts, output::width()),
    })?;
    if !args.json {
        status.mounts.iter().flatten().for_each(details);
    }
    match failed {
        Some(trouble) => Err(Failure::new(ExitCode::Other, trouble)),
        None => Ok(()),
    }
}

/// Warns if the host cannot have what containers are to mount.
pub(super) fn warn_if_in_vain(client: &mut ControlClient, target: &str, status: &TunnelStatus) -> Result<(), Failure> {
    if status.mounts.is_none() || status.state != State::Up {
        return Ok(());
    }
    if let (_, Some(trouble)) = carry_out(client, MountsTask::Check)? {
        ui().warning(&format!("{target}: {trouble}"));
    }
    Ok(())
}

/// Has the daemon do it, and waits for that. Returns the last status, and why it could not be done.
fn carry_out(client: &mut ControlClient, task: MountsTask) -> Result<(TunnelStatus, Option<String>), Failure> {
    client.send(&Request::Mounts { what: task })?;
    let mut last = None;
    loop {
        match client.receive_soon()? {
            Some(Event::Status { status }) => last = Some(status),
            Some(Event::Mounts { removed, trouble }) => {
                if task == MountsTask::Prune && trouble.is_none() {
                    ui().note(&match removed {
                        1 => "removed 1 mirror from the host".to_owned(),
                        other => format!("removed {other} mirrors from the host"),
                    });
                }
                let Some(status) = last else { break };
                return Ok((*status, trouble));
            }
            Some(_) => {}
            None => break,
        }
    }
    Err(Failure::new(ExitCode::Other, "the tunnel has ended"))
}

fn table(mounts: &[MountStatus], width: Option<usize>) -> String {
    let row = |mount: &MountStatus| {
        let containers: Vec<&str> = mount.containers.iter().map(|of| of.container.as_str()).collect();
        let is_written = mount.containers.iter().any(|of| !of.read_only);
        vec![
            mount.path.display().to_string(),
            if containers.is_empty() { "-".into() } else { containers.join(", ") },
            match (containers.is_empty(), is_written) {
                (true, _) => "-",
                (false, true) => "both ways",
                (false, false) => "to the host",
            }
            .into(),
            state(mount),
            mount.files.to_string(),
            output::bytes(mount.bytes),
            mount.last_change.as_deref().map_or_else(|| "-".into(), output::ago),
        ]
    };
    let rows: Vec<_> = mounts.iter().map(row).collect();
    output::table(&["PATH", "CONTAINERS", "DIRECTION", "STATE", "FILES", "BYTES", "CHANGED"], &rows, width)
}

/// Its state, and how far that is.
pub(super) fn state(mount: &MountStatus) -> String {
    mount.progress.map_or_else(|| mount.state.to_string(), |percent| format!("{} {percent} %", mount.state))
}

/// What needs somebody's attention.
fn details(mount: &MountStatus) {
    let path = mount.path.display();
    for copy in &mount.conflicts {
        ui().warning(&format!("{path}: both sides had changed a file; the host's version is kept as {copy}"));
    }
    for failed in &mount.failed {
        ui().warning(&format!("{path}: {failed}"));
    }
    if mount.state == MountState::Unused {
        return;
    }
    for left in &mount.left {
        ui().note(&format!("{path}: not carried: {left}"));
    }
}
