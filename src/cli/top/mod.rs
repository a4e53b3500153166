//! `dtunnel top`: live status of the tunnels on a full screen.

mod app;
mod view;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::global::Global;
use super::ui::ui;
use crate::config::TunnelName;
use crate::failure::{ExitCode, Failure};
use app::App;

/// Poll interval of the daemons.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Show this tunnel only
    #[arg(value_name = "TARGET", add = crate::cli::completions::running())]
    target: Option<String>,
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
    let mut app = App {
        tunnels: Vec::new(),
        rates: HashMap::new(),
        selected: only.as_ref().map(ToString::to_string),
        message: None,
        colour: ui().has_coloured_screen(),
    };
    app.refresh(only.as_ref());
    let failed = |e: std::io::Error| Failure::new(ExitCode::Other, format!("the terminal cannot be used: {e}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = run(&mut app, &mut terminal, only.as_ref()).map_err(failed);
    ratatui::restore();
    result
}

fn run(app: &mut App, terminal: &mut ratatui::DefaultTerminal, only: Option<&TunnelName>) -> std::io::Result<()> {
    let mut refreshed = Instant::now();
    loop {
        terminal.draw(|frame| view::draw(app, frame))?;
        let left = REFRESH.saturating_sub(refreshed.elapsed());
        if !event::poll(left)? {
            app.refresh(only);
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
            KeyCode::Up | KeyCode::Char('k') => app.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => app.move_by(1),
            KeyCode::Char('r') => app.reconnect(),
            _ => {}
        }
    }
}
