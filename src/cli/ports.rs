//! `dtunnel ports`.

use clap::Args;

use super::global::Global;
use super::ui::ui;
use super::{output, prompt};
use crate::address::Address;
use crate::daemon::{ControlClient, Request, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::tunnel::{PortState, PortStatus};

#[derive(Debug, Args)]
pub(super) struct PortsArgs {
    /// The tunnel
    #[arg(value_name = "TARGET", add = super::completions::running())]
    target: String,
    /// Print a JSON array, for programs
    #[arg(long)]
    pub(super) json: bool,
    /// Forward these published ports, where the profile says `ports = "ask"`; `all` for all that wait
    #[arg(long, value_name = "PORT", num_args = 1.., value_parser = port)]
    open: Vec<Option<u16>>,
}

/// Parses a port. None means `all`.
fn port(text: &str) -> Result<Option<u16>, String> {
    match text {
        "all" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "a port is 1 to 65535, or `all`".into()),
    }
}

pub(super) fn ports(global: &Global, args: &PortsArgs) -> Result<(), Failure> {
    let mut client = global.connect(&args.target)?;
    let mut status = if args.open.is_empty() { client.status()? } else { open(&mut client, &args.open)? };
    let waiting: Vec<u16> = waiting(&status).map(|port| port.remote_port).collect();
    if args.open.is_empty() && !waiting.is_empty() && ui().may_ask() {
        let (mut agreed, mut of) = (Vec::new(), Vec::new());
        for port in waiting_once(&status) {
            let question = format!("bring port {} of {} to this machine?", port.remote_port, port.container);
            if prompt::confirm(&question)? {
                agreed.push(port.remote_port);
                of.push(port.container_id.clone());
            }
        }
        if !agreed.is_empty() {
            let agreed = Request::OpenPorts { ports: Some(agreed), of: Some(of) };
            status = client.ask_status(&agreed)?;
        }
    }
    ui().result(status.ports.as_deref().unwrap_or_default(), || match status.ports.as_deref() {
        Some([]) => {
            ui().note("no container publishes a port");
            String::new()
        }
        None => {
            ui().note("this tunnel forwards no ports: `dtunnel up --ports`, or `ports = true` in its profile");
            String::new()
        }
        Some(ports) => table(ports, output::width()),
    })
}

/// Has the daemon forward the ports (None: all that wait), and returns its status after that.
fn open(client: &mut ControlClient, ports: &[Option<u16>]) -> Result<TunnelStatus, Failure> {
    let numbers: Option<Vec<u16>> = ports.iter().copied().collect();
    let status = client.ask_status(&Request::OpenPorts { ports: numbers.clone(), of: None })?;
    let Some(published) = &status.ports else {
        return Err(Failure::new(ExitCode::Other, "this tunnel forwards no ports")
            .hint("`dtunnel up --ports`, or `ports` in its profile"));
    };
    let is_published = |number: u16| published.iter().any(|port| port.remote_port == number && port.protocol == "tcp");
    let missing = numbers.into_iter().flatten().filter(|number| !is_published(*number));
    let missing: Vec<String> = missing.map(|number| number.to_string()).collect();
    if missing.is_empty() {
        return Ok(status);
    }
    let numbers = missing.join(", ");
    let asks = status
        .settings
        .as_ref()
        .and_then(|settings| settings.said.as_ref())
        .is_some_and(|said| said.has("ports", "ask"));
    if !asks {
        return Err(Failure::new(
            ExitCode::Other,
            format!("no container publishes a TCP port {numbers}, or `ports` leaves it out"),
        )
        .hint("only ports of `ports = \"ask\"` wait for `--open`; the others open when they are published"));
    }
    ui().warning(&format!("no container publishes a TCP port {numbers} now; it opens for the first one that does"));
    Ok(status)
}

fn waiting(status: &TunnelStatus) -> impl Iterator<Item = &PortStatus> {
    status.ports.iter().flatten().filter(|port| port.state == PortState::Waiting)
}

/// Each waiting port once, however many addresses it has.
fn waiting_once(status: &TunnelStatus) -> Vec<&PortStatus> {
    let mut ports: Vec<&PortStatus> = Vec::new();
    for port in waiting(status) {
        if !ports.iter().any(|other| other.remote_port == port.remote_port && other.container == port.container) {
            ports.push(port);
        }
    }
    ports
}

pub(super) fn table(ports: &[PortStatus], width: Option<usize>) -> String {
    let row = |port: &PortStatus| {
        let remote = match port.remote_port {
            0 => "-".into(),
            number => format!("{}/{}", Address::of(&port.remote_address, number), port.protocol),
        };
        vec![
            port.container.clone(),
            remote,
            port.local.clone().unwrap_or_else(|| "-".into()),
            port.state.to_string(),
            output::bytes(port.bytes_in),
            output::bytes(port.bytes_out),
            port.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = ports.iter().map(row).collect();
    output::table(&["CONTAINER", "REMOTE", "LOCAL", "STATE", "IN", "OUT", ""], &rows, width)
}
