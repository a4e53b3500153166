//! Output for people: tables, marks, colours, sizes.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use console::Term;

use crate::audit::Severity;
use crate::tunnel::State;

pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();
pub(super) const HINT: Style = AnsiColor::Cyan.on_default().bold();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();

/// Formats rows under a header. If the terminal is too narrow, each row becomes a block of lines: a path wrapped by
/// the terminal cannot be copied.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    blocks(header, rows, width).concat()
}

/// A [`table`] with a coloured column STATE: `state` returns the state of a row.
pub(super) fn states(
    header: &[&str],
    rows: &[Vec<String>],
    width: Option<usize>,
    state: impl Fn(usize) -> State,
) -> String {
    let mut blocks = blocks(header, rows, width);
    let title = if blocks.len() > rows.len() { blocks.remove(0) } else { String::new() };
    let mut text = title;
    for (row, block) in blocks.iter().enumerate() {
        let state = state(row);
        let style = match state {
            State::Up | State::Idle => GOOD,
            State::Starting | State::Reconnecting => WARN,
            State::Failed => ERROR,
            State::Down => Style::new().dimmed(),
        };
        // The name before the state has no blanks.
        let word = format!(" {state}");
        text += &block.replacen(&word, &format!(" {style}{state}{style:#}"), 1);
    }
    text
}

/// Width of the terminal on standard output, in columns. None if it is no terminal.
pub(super) fn width() -> Option<usize> {
    Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// The header and one line per row, or, if they don't fit, one block per row and no header.
fn blocks(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    if width.is_none_or(|width| lines.iter().all(|line| line.chars().count() <= width)) {
        return lines.into_iter().map(|line| line + "\n").collect();
    }
    let label = header.iter().skip(1).map(|name| name.len()).max().unwrap_or_default();
    let block = |row: &Vec<String>| {
        let mut text = format!("{}\n", row.first().map_or("", String::as_str));
        for (name, value) in header.iter().zip(row).skip(1) {
            let _ = writeln!(text, "  {:label$}  {value}", name.to_lowercase());
        }
        text
    };
    rows.iter().map(block).collect()
}

/// The mark before a success line.
pub(super) fn check() -> String {
    format!("{GOOD}✔{GOOD:#}")
}

/// The mark before a warning line.
pub(super) fn mark_warning() -> String {
    format!("{WARN}!{WARN:#}")
}

/// The mark before a failure line.
pub(super) fn mark_failure() -> String {
    format!("{ERROR}✘{ERROR:#}")
}

/// A severity as a heading.
pub(super) fn severity(severity: Severity) -> String {
    let style = match severity {
        Severity::Critical | Severity::High => ERROR,
        Severity::Medium => WARN,
        Severity::Low => HINT,
    };
    format!("{style}{severity}{style:#}")
}

/// Formats a size as `1.5 GB`, in powers of 1000.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            let digits = usize::from(unit != "B" && value < 9.95);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    String::new()
}

/// Formats a duration as `2h 5m`: its two largest units.
pub(super) fn span(duration: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// How long a time (RFC 3339) is past, `2h 5m ago`.
pub(super) fn ago(time: &str) -> String {
    let past = humantime::parse_rfc3339(time).ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    past.map_or_else(|| time.to_owned(), |past| format!("{} ago", span(past)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_wide_becomes_blocks() {
        let rows = [vec!["prod".into(), "/run/prod.sock".into()], vec!["b".into(), "-".into()]];
        let wide = "NAME  SOCKET\nprod  /run/prod.sock\nb     -\n";
        assert_eq!(blocks(&["NAME", "SOCKET"], &rows, None).concat(), wide);
        assert_eq!(blocks(&["NAME", "SOCKET"], &rows, Some(20)).concat(), wide);
        let narrow = "prod\n  socket  /run/prod.sock\nb\n  socket  -\n";
        assert_eq!(blocks(&["NAME", "SOCKET"], &rows, Some(19)).concat(), narrow);
    }

    #[test]
    fn sizes_and_spans_are_short() {
        for (count, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_960, "10 kB"), (999_600, "1.0 MB"), (12_345_678, "12 MB")]
        {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(span(Duration::from_secs(3 * 3600 + 65)), "3h 1m");
        assert_eq!(span(Duration::from_millis(400)), "0s");
    }
}
