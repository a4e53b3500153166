//! The screen's layout; independent of daemons and keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState};

use super::app::{App, Rates};
use crate::cli::{asked, mounts, output};
use crate::daemon::TunnelStatus;
use crate::tunnel::{MountState, PortState, State};

/// Below this width, in columns, less important columns are hidden.
const WIDE: u16 = 100;
/// Below this width, in columns, only names and states are shown.
const NARROW: u16 = 64;
/// Below this height, in rows, only the tunnels are shown.
const LOW: u16 = 5;
/// Below this height, in rows, the selected tunnel's details are hidden.
const TALL: u16 = 14;

pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.height < LOW && !app.tunnels.is_empty() {
        return draw_tunnels(app, frame, area);
    }
    let most = u16::try_from(app.tunnels.len()).unwrap_or(u16::MAX).saturating_add(1);
    let details = area.height >= TALL;
    let tunnels = if details { most.min(area.height / 3) } else { area.height.saturating_sub(2) };
    let rows = [Constraint::Length(1), Constraint::Length(tunnels), Constraint::Min(0), Constraint::Length(1)];
    let [title, list, rest, keys] = Layout::vertical(rows).areas(area);
    let up = app.tunnels.iter().filter(|tunnel| tunnel.state.is_usable()).count();
    let summary = format!("dtunnel top: {up} of {} tunnels up", app.tunnels.len());
    frame.render_widget(Line::from(summary).style(Modifier::BOLD), title);
    if app.tunnels.is_empty() {
        frame.render_widget(Line::from("no tunnels are up; `dtunnel up TARGET` brings one up"), list);
    } else {
        draw_tunnels(app, frame, list);
    }
    if let Some(tunnel) = app.selected().filter(|_| details) {
        draw_details(app, tunnel, frame, rest);
    }
    let hint = app.message.clone().unwrap_or_else(|| "q quit  ↑↓ select  r reconnect".into());
    frame.render_widget(Line::from(hint).style(Modifier::DIM), keys);
}

fn draw_tunnels(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let (wide, narrow) = (area.width >= WIDE, area.width < NARROW);
    let mut header = vec!["NAME", "STATE"];
    let mut widths = vec![Constraint::Fill(2), Constraint::Length(12)];
    if !narrow {
        header.extend(["RTT", "FLOWS", "IN/s", "OUT/s"]);
        widths.extend([9, 5, 8, 8].map(Constraint::Length));
    }
    if wide {
        header.extend(["HOST", "ENGINE"]);
        widths.extend([Constraint::Fill(3), Constraint::Length(16)]);
    }
    let rows = app.tunnels.iter().map(|tunnel| {
        let rates = app.rates.get(&tunnel.name);
        let rate = |list: fn(&Rates) -> &Vec<u64>| {
            output::bytes(rates.and_then(|rates| list(rates).last().copied()).unwrap_or(0))
        };
        let mut cells = vec![
            Cell::from(tunnel.name.clone()),
            Cell::from(tunnel.state.to_string()).style(state_style(app, tunnel.state)),
        ];
        if !narrow {
            cells.extend([
                Cell::from(round_trip(tunnel)),
                Cell::from(tunnel.flows_open.to_string()),
                Cell::from(rate(|rates| &rates.inward)),
                Cell::from(rate(|rates| &rates.outward)),
            ]);
        }
        if wide {
            cells.push(Cell::from(tunnel.short_address().unwrap_or_default()));
            cells.push(Cell::from(tunnel.engine.as_ref().map(|engine| engine.version.clone()).unwrap_or_default()));
        }
        Row::new(cells)
    });
    let table =
        Table::new(rows, widths).header(Row::new(header).style(Modifier::DIM)).row_highlight_style(Modifier::REVERSED);
    let mut state = TableState::new().with_selected(app.position());
    frame.render_stateful_widget(table, area, &mut state);
}

fn round_trip(tunnel: &TunnelStatus) -> String {
    tunnel.round_trip_ms().map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"))
}

fn draw_details(app: &App, tunnel: &TunnelStatus, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::new().borders(Borders::TOP).title(format!(" {} ", tunnel.name));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let rows = [Constraint::Length(2), Constraint::Length(2), Constraint::Min(0)];
    let [inward, outward, rest] = Layout::vertical(rows).areas(inner);
    let none = Vec::new();
    let rates = app.rates.get(&tunnel.name);
    for (area, label, data, colour, total) in [
        (inward, "in ", rates.map_or(&none, |rates| &rates.inward), Color::Green, tunnel.bytes_in),
        (outward, "out", rates.map_or(&none, |rates| &rates.outward), Color::Blue, tunnel.bytes_out),
    ] {
        let [text, line] = Layout::horizontal([Constraint::Length(24), Constraint::Min(0)]).areas(area);
        let now = output::bytes(data.last().copied().unwrap_or(0));
        frame.render_widget(Paragraph::new(format!("{label} {now}/s\n    {} in all", output::bytes(total))), text);
        let newest = data.len().saturating_sub(usize::from(line.width));
        frame.render_widget(Sparkline::default().data(&data[newest..]).style(coloured(app, colour)), line);
    }
    frame.render_widget(Paragraph::new(lines(app, tunnel)), rest);
}

/// The tunnel's other details, the most important first: the last ones may not fit.
fn lines<'a>(app: &App, tunnel: &'a TunnelStatus) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    if let Some(error) = &tunnel.last_error {
        lines.push(Line::from(format!("error  {error}")).style(coloured(app, Color::Red)));
    }
    if let Some(reset) = &tunnel.last_reset {
        lines.push(Line::from(format!("reset  {reset}")).style(coloured(app, Color::Yellow)));
    }
    if let Some(access) = &tunnel.access {
        lines.push(Line::from(format!("guard  {access}")));
    }
    lines.extend(asked::besides_guard(tunnel).into_iter().map(|word| Line::from(format!("holds  {word}"))));
    if let Some(changed) = asked::changed(tunnel) {
        lines.push(Line::from(changed).style(coloured(app, Color::Yellow)));
    }
    for (number, connection) in tunnel.connections.iter().enumerate() {
        let time = connection.rtt_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
        let stalled = match (connection.stalled, connection.spilled) {
            (0, _) => String::new(),
            (_, 0) => ", a client does not read".into(),
            (_, kept) => format!(", a client does not read ({} kept on disk)", output::bytes(kept)),
        };
        lines.push(Line::from(format!("ssh {}  {} flows, {time}{stalled}", number + 1, connection.flows)));
    }
    for request in &tunnel.requests {
        let who = request.command.as_deref().unwrap_or("?");
        lines.push(Line::from(format!("flow   {who}: {} {}", request.method, request.path)));
    }
    for port in tunnel.ports.iter().flatten() {
        let place = match &port.local {
            Some(local) => format!("{local} → {}:{}", port.container, port.container_port),
            None => format!("{} of {}", port.remote_port, port.container),
        };
        let state = match (port.state, &port.reason) {
            (PortState::Open, _) => {
                format!("  in {} out {}", output::bytes(port.bytes_in), output::bytes(port.bytes_out))
            }
            (state, None) => format!("  {state}"),
            (_, Some(reason)) => format!("  {reason}"),
        };
        let style = if port.state.is_trouble() { coloured(app, Color::Yellow) } else { Style::new() };
        lines.push(Line::from(vec![Span::raw("port   "), Span::raw(place), Span::styled(state, style)]));
    }
    for mount in tunnel.mounts.iter().flatten().filter(|mount| mount.state != MountState::Unused) {
        let state = format!("  {}, {} in {} files", mounts::state(mount), output::bytes(mount.bytes), mount.files);
        let style = if mount.state.is_trouble() { coloured(app, Color::Yellow) } else { Style::new() };
        let place = mount.path.display().to_string();
        lines.push(Line::from(vec![Span::raw("mount  "), Span::raw(place), Span::styled(state, style)]));
    }
    lines
}

fn state_style(app: &App, state: State) -> Style {
    coloured(
        app,
        match state {
            State::Up | State::Idle => Color::Green,
            State::Starting | State::Reconnecting => Color::Yellow,
            State::Failed | State::Down => Color::Red,
        },
    )
}

fn coloured(app: &App, colour: Color) -> Style {
    if app.colour { Style::new().fg(colour) } else { Style::new() }
}
