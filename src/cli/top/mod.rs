//! `dtunnel top`: the tunnels as they are, on a full screen.

mod view;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::global::{Color, Global};
use crate::config::{RuntimeFiles, TunnelName, runtime_dir};
use crate::daemon::{Client, Request, TunnelStatus};
use crate::failure::{ExitCode, Failure};
use crate::tunnel::State;

/// How often the daemons are asked.
const REFRESH: Duration = Duration::from_secs(1);
/// Seconds that the sparklines reach back.
const HISTORY: usize = 120;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Show this tunnel only
    #[arg(value_name = "TARGET", add = crate::cli::completions::running())]
    target: Option<String>,
}

/// What is shown.
struct App {
    tunnels: Vec<TunnelStatus>,
    rates: HashMap<String, Rates>,
    /// The selected one, by name, so that it stays selected when others come and go.
    selected: Option<String>,
    /// What came of the last key.
    message: Option<String>,
    colour: bool,
}

/// Bytes a second of one tunnel, the newest last.
#[derive(Debug, Default)]
struct Rates {
    last: Option<(Instant, u64, u64)>,
    inward: Vec<u64>,
    outward: Vec<u64>,
}

pub(super) fn top(global: &Global, args: &TopArgs) -> Result<(), Failure> {
    let only = match &args.target {
        Some(target) => {
            let chosen = global.choose(Some(target))?;
            if let Some(failure) = global.unknown(target, &chosen.name, &chosen.config) {
                return Err(failure);
            }
            Some(chosen.name)
        }
        None => None,
    };
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(ExitCode::Usage, "top needs a terminal")
            .hint("`dtunnel status --watch` prints lines, also into files and pipes"));
    }
    let plain = matches!(global.color, Color::Never) || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let mut app = App {
        tunnels: Vec::new(),
        rates: HashMap::new(),
        selected: only.as_ref().map(ToString::to_string),
        message: None,
        colour: matches!(global.color, Color::Always) || !plain,
    };
    app.refresh(only.as_ref());
    let failed = |e: std::io::Error| Failure::new(ExitCode::Other, format!("the terminal cannot be used: {e}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = app.run(&mut terminal, only.as_ref()).map_err(failed);
    ratatui::restore();
    result
}

impl App {
    fn run(&mut self, terminal: &mut ratatui::DefaultTerminal, only: Option<&TunnelName>) -> std::io::Result<()> {
        let mut refreshed = Instant::now();
        loop {
            terminal.draw(|frame| view::draw(self, frame))?;
            let left = REFRESH.saturating_sub(refreshed.elapsed());
            if !event::poll(left)? {
                self.refresh(only);
                refreshed = Instant::now();
                continue;
            }
            let Event::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match key.code {
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
                KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
                KeyCode::Char('r') => self.reconnect(),
                _ => {}
            }
        }
    }

    /// Asks every daemon, side by side: one that hangs must not hold the others up.
    fn refresh(&mut self, only: Option<&TunnelName>) {
        let names = only.map_or_else(
            || runtime_dir().map(|dir| crate::daemon::list(&dir)).unwrap_or_default(),
            |name| vec![name.clone()],
        );
        self.tunnels = super::status::ask(&names).unwrap_or_default();
        self.tunnels.retain(|tunnel| only.is_some() || tunnel.state != State::Down);
        for tunnel in &self.tunnels {
            self.rates.entry(tunnel.name.clone()).or_default().add(tunnel.bytes_in, tunnel.bytes_out);
        }
        self.rates.retain(|name, _| self.tunnels.iter().any(|tunnel| tunnel.name == *name));
        if self.position().is_none() {
            self.selected = self.tunnels.first().map(|tunnel| tunnel.name.clone());
        }
    }

    fn position(&self) -> Option<usize> {
        self.tunnels.iter().position(|tunnel| Some(&tunnel.name) == self.selected.as_ref())
    }

    fn selected(&self) -> Option<&TunnelStatus> {
        self.position().map(|at| &self.tunnels[at])
    }

    fn move_by(&mut self, step: isize) {
        let at = self.position().and_then(|at| at.checked_add_signed(step));
        if let Some(tunnel) = at.and_then(|at| self.tunnels.get(at)) {
            self.selected = Some(tunnel.name.clone());
            self.message = None;
        }
    }

    fn reconnect(&mut self) {
        let Some(name) = self.selected().map(|tunnel| tunnel.name.clone()) else { return };
        let asked = TunnelName::of_file(&format!("{name}.ctl"), ".ctl")
            .and_then(|name| RuntimeFiles::new(&runtime_dir().ok()?, &name).ok())
            .map(|files| {
                Client::connect(&files.control)
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
    fn add(&mut self, bytes_in: u64, bytes_out: u64) {
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
