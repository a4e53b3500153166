//! How things look: messages, tables, colour, sizes.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use anstream::{eprintln, stdout};
use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use console::Term;

use super::global::Color;
use crate::audit::Severity;
use crate::failure::{ExitCode, Failure};
use crate::text;
use crate::tunnel::State;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
/// Exit code of a program that Ctrl-C has ended, as shells report it (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// How this process speaks, once the command line is known.
#[derive(Debug, Default, Clone, Copy)]
struct Voice {
    /// Errors and what was asked for, nothing else.
    quiet: bool,
    /// Errors and warnings are objects, one a line.
    json: bool,
}

static VOICE: OnceLock<Voice> = OnceLock::new();
/// What standard output gets where this process fails: what makes the shell that evaluates it fail too.
static IF_IT_FAILS: OnceLock<&'static str> = OnceLock::new();

/// Says how this process speaks; once, before anything is printed.
pub(super) fn set(color: Color, quiet: bool, json: bool) {
    let _ = VOICE.set(Voice { quiet, json });
    match color {
        // NO_COLOR, CLICOLOR and pipes are anstream's to judge.
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
}

fn voice() -> Voice {
    VOICE.get().copied().unwrap_or_default()
}

/// Is nothing wanted but errors and what was asked for?
pub(super) fn is_quiet() -> bool {
    voice().quiet
}

/// Has standard output say `word` where this process fails.
pub(super) fn if_it_fails(word: &'static str) {
    let _ = IF_IT_FAILS.set(word);
}

/// Prints `error:`, the causes and `hint:` to standard error; under `--json` an object on one line.
pub(super) fn print_failure(failure: &Failure) {
    if let Some(word) = IF_IT_FAILS.get() {
        let _ = print(word);
    }
    print_error(failure);
}

/// The same for one of several failures, where more is to come.
pub(super) fn print_error(failure: &Failure) {
    if voice().json {
        return print_error_object(failure);
    }
    eprintln!("{ERROR}error:{ERROR:#} {}", failure.message);
    for cause in &failure.causes {
        eprintln!("  caused by: {cause}");
    }
    if let Some(hint) = &failure.hint {
        eprintln!("{HINT}hint:{HINT:#} {hint}");
    }
}

fn print_error_object(failure: &Failure) {
    let error = serde_json::json!({
        "code": failure.exit as u8,
        "kind": failure.exit,
        "message": failure.message,
        "causes": failure.causes,
        "hint": failure.hint,
    });
    eprintln!("{}", serde_json::json!({ "error": error }));
}

/// Prints what is wrong with a command line.
pub(super) fn print_usage_error(error: &clap::Error, json: bool) {
    if !json {
        let _ = error.print();
        return;
    }
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    print_error_object(&Failure::new(ExitCode::Usage, message).hint("`--help` shows the options"));
}

/// Ends the process as Ctrl-C does.
pub(super) fn interrupted() -> ! {
    if let Some(word) = IF_IT_FAILS.get() {
        let _ = print(word);
    }
    std::process::exit(INTERRUPTED)
}

/// Ends the process as a signal does that has come.
pub(super) fn killed_by(signal: i32) -> ! {
    if let Some(word) = IF_IT_FAILS.get() {
        let _ = print(word);
    }
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    std::process::exit(128 + signal)
}

/// A warning, to standard error; `-q` does without it.
pub(super) fn warning(message: &str) {
    match voice() {
        Voice { quiet: true, .. } => {}
        Voice { json: true, .. } => eprintln!("{}", serde_json::json!({ "warning": message })),
        _ => eprintln!("{WARN}warning:{WARN:#} {message}"),
    }
}

/// What somebody on the way to the host says. An address is where the person has to go: `-q` and `--json` do not keep it back.
pub(super) fn said(message: &str) {
    match voice() {
        Voice { quiet: false, json: false } => eprintln!("{message}"),
        _ if !text::names_address(message) => {}
        Voice { json: true, .. } => eprintln!("{}", serde_json::json!({ "said": message })),
        _ => eprintln!("{message}"),
    }
}

/// A message for people, to standard error; `-q` and `--json` do without it.
pub(super) fn note(message: &str) {
    if !voice().quiet && !voice().json {
        eprintln!("{message}");
    }
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
pub(super) fn print_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(ExitCode::Other, e.to_string()))?;
    print(&(text + "\n"))
}

/// Prints rows under a header; a block of lines for each row where the terminal is too narrow for
/// that, since a path that is broken over two lines cannot be copied.
///
/// # Errors
/// As [`print`].
pub(super) fn print_table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    print(&table(header, rows, width()).concat())
}

/// The same with a column STATE, in colour: `state` tells that of a row.
///
/// # Errors
/// As [`print`].
pub(super) fn print_states(
    header: &[&str],
    rows: &[Vec<String>],
    state: impl Fn(usize) -> State,
) -> Result<(), Failure> {
    let mut blocks = table(header, rows, width());
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
        // The name, in front of it, has no blanks.
        let word = format!(" {state}");
        text += &block.replacen(&word, &format!(" {style}{state}{style:#}"), 1);
    }
    print(&text)
}

fn width() -> Option<usize> {
    Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// The header, unless each row is a block, then each row.
fn table(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
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
        assert_eq!(table(&["NAME", "SOCKET"], &rows, None).concat(), wide);
        assert_eq!(table(&["NAME", "SOCKET"], &rows, Some(20)).concat(), wide);
        let narrow = "prod\n  socket  /run/prod.sock\nb\n  socket  -\n";
        assert_eq!(table(&["NAME", "SOCKET"], &rows, Some(19)).concat(), narrow);
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
