//! What `dtunnel top` shows, and how it comes by it.

use std::collections::HashMap;
use std::time::Instant;

use crate::cli::status;
use crate::config::{RuntimeFiles, TunnelName, runtime_dir};
use crate::daemon::{ControlClient, Request, TunnelStatus};
use crate::tunnel::State;

/// Seconds that the sparklines reach back.
const HISTORY: usize = 120;

/// What is shown.
pub(super) struct App {
    pub(super) tunnels: Vec<TunnelStatus>,
    pub(super) rates: HashMap<String, Rates>,
    /// The selected one, by name, so that it stays selected when others come and go.
    pub(super) selected: Option<String>,
    /// What came of the last key.
    pub(super) message: Option<String>,
    pub(super) colour: bool,
}

/// Bytes a second of one tunnel, the newest last.
#[derive(Debug, Default)]
pub(super) struct Rates {
    last: Option<(Instant, u64, u64)>,
    pub(super) inward: Vec<u64>,
    pub(super) outward: Vec<u64>,
}

impl App {
    /// Asks every daemon, side by side: one that hangs must not hold the others up.
    pub(super) fn refresh(&mut self, only: Option<&TunnelName>) {
        let names = only.map_or_else(
            || runtime_dir().map(|dir| crate::daemon::list(&dir)).unwrap_or_default(),
            |name| vec![name.clone()],
        );
        self.tunnels = status::ask(&names).unwrap_or_default();
        self.tunnels.retain(|tunnel| only.is_some() || tunnel.state != State::Down);
        for tunnel in &self.tunnels {
            self.rates.entry(tunnel.name.clone()).or_default().add(tunnel.bytes_in, tunnel.bytes_out);
        }
        self.rates.retain(|name, _| self.tunnels.iter().any(|tunnel| tunnel.name == *name));
        if self.position().is_none() {
            self.selected = self.tunnels.first().map(|tunnel| tunnel.name.clone());
        }
    }

    pub(super) fn position(&self) -> Option<usize> {
        self.tunnels.iter().position(|tunnel| Some(&tunnel.name) == self.selected.as_ref())
    }

    pub(super) fn selected(&self) -> Option<&TunnelStatus> {
        self.position().map(|at| &self.tunnels[at])
    }

    pub(super) fn move_by(&mut self, step: isize) {
        let at = self.position().and_then(|at| at.checked_add_signed(step));
        if let Some(tunnel) = at.and_then(|at| self.tunnels.get(at)) {
            self.selected = Some(tunnel.name.clone());
            self.message = None;
        }
    }

    pub(super) fn reconnect(&mut self) {
        let Some(name) = self.selected().map(|tunnel| tunnel.name.clone()) else { return };
        let asked = TunnelName::of_status(&name)
            .and_then(|name| RuntimeFiles::new(&runtime_dir().ok()?, &name).ok())
            .map(|files| {
                ControlClient::connect(&files.control)
                    .and_then(|client| client.map(|mut client| client.ask_status(&Request::Reconnect)).transpose())
            });
        self.message = Some(match asked {
            Some(Ok(Some(_))) => format!("{name}: reconnecting"),
            Some(Err(error)) => format!("{name}: {error}"),
            Some(Ok(None)) | None => format!("{name} is not up"),
        });
    }
}

impl Rates {
    pub(super) fn add(&mut self, bytes_in: u64, bytes_out: u64) {
        let now = Instant::now();
        if let Some((then, before_in, before_out)) = self.last.replace((now, bytes_in, bytes_out)) {
            let seconds = now.duration_since(then).as_secs_f64().max(0.001);
            let rate = |before: u64, after: u64| (after.saturating_sub(before) as f64 / seconds) as u64;
            for (list, rate) in
                [(&mut self.inward, rate(before_in, bytes_in)), (&mut self.outward, rate(before_out, bytes_out))]
            {
                list.push(rate);
                let old = list.len().saturating_sub(HISTORY);
                list.drain(..old);
            }
        }
    }
}
