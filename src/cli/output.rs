//! How things look: messages, tables, colour, sizes.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use anstream::{eprintln, stdout};
use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use console::Term;

use super::Color;
use crate::audit::Severity;
use crate::daemon::{ExitCode, Failure};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();

pub(super) fn set_color(color: Color) {
    match color {
        // NO_COLOR, CLICOLOR and pipes are anstream's to judge.
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
}

/// Prints `error:`, the causes and `hint:` to standard error.
pub fn print_failure(failure: &Failure) {
    eprintln!("{ERROR}error:{ERROR:#} {}", failure.message);
    for cause in &failure.causes {
        eprintln!("  caused by: {cause}");
    }
    if let Some(hint) = &failure.hint {
        eprintln!("{HINT}hint:{HINT:#} {hint}");
    }
}

/// A warning, to standard error.
pub(super) fn warning(message: &str) {
    eprintln!("{WARN}warning:{WARN:#} {message}");
}

/// A message for people, to standard error.
pub(super) fn note(message: &str) {
    eprintln!("{message}");
}

/// Prints to standard output. A reader that has gone away is no error of ours.
///
/// # Errors
/// Where standard output cannot be written, as on a full disk.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitCode::Other, format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON, for programs.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(ExitCode::Other, e.to_string()))?;
    print(&(text + "\n"))
}

/// Prints rows under a header; a block of lines for each row where the terminal is too narrow for
/// that, since a path that is broken over two lines cannot be copied.
///
/// # Errors
/// As [`print`].
pub(super) fn print_table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    print(&table(header, rows, width))
}

fn table(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    if width.is_none_or(|width| lines.iter().all(|line| line.chars().count() <= width)) {
        return lines.join("\n") + "\n";
    }
    let mut text = String::new();
    let label = header.iter().skip(1).map(|name| name.len()).max().unwrap_or_default();
    for row in rows {
        let _ = writeln!(text, "{}", row.first().map_or("", String::as_str));
        for (name, value) in header.iter().zip(row).skip(1) {
            let _ = writeln!(text, "  {:label$}  {value}", name.to_lowercase());
        }
    }
    text
}

/// The mark before a line that says that all went well.
pub(super) fn check() -> String {
    format!("{GOOD}✔{GOOD:#}")
}

/// The mark before a line that says what to know.
pub(super) fn mark_warning() -> String {
    format!("{WARN}!{WARN:#}")
}

/// The mark before a line that says what failed.
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

/// `1.5 GB`: for people, in powers of 1000.
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

/// `2h 5m`: the two largest units.
pub(super) fn span(duration: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_wide_becomes_blocks() {
        let rows = [vec!["prod".into(), "/run/prod.sock".into()], vec!["b".into(), "-".into()]];
        let wide = "NAME  SOCKET\nprod  /run/prod.sock\nb     -\n";
        assert_eq!(table(&["NAME", "SOCKET"], &rows, None), wide);
        assert_eq!(table(&["NAME", "SOCKET"], &rows, Some(20)), wide);
        let narrow = "prod\n  socket  /run/prod.sock\nb\n  socket  -\n";
        assert_eq!(table(&["NAME", "SOCKET"], &rows, Some(19)), narrow);
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
