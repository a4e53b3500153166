//! The process's output to people and programs: quiet, JSON and colour are applied here only.
//!
//! The setting is global to the process, as its standard streams are: signals and questions during a login need it as
//! well as commands do. Commands pass their results as a value and as text, and do not read the options.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use anstream::{eprint, eprintln, stdout};

use super::global::{Color, Global};
use super::output::{ERROR, HINT, WARN};
use crate::failure::{ExitCode, Failure};
use crate::os::held_signals;
use crate::text;

/// Exit code of a program ended by Ctrl-C, as shells report it (128 + SIGINT).
const INTERRUPTED: i32 = 130;

static UI: OnceLock<Ui> = OnceLock::new();
/// Printed to standard output if this process fails: makes the shell that evaluates it fail as well.
static IF_IT_FAILS: OnceLock<&'static str> = OnceLock::new();

/// The process's output settings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ui {
    /// Prints only errors and results (`-q`).
    quiet: bool,
    /// Results, errors and warnings are JSON: one document on standard output, one object a line on standard error.
    json: bool,
    verbose: bool,
    color: Color,
}

/// The process's output settings; the defaults before the command line was parsed.
pub(super) fn ui() -> Ui {
    UI.get().copied().unwrap_or_default()
}

/// Sets the `word` to print to standard output if this process fails.
pub(super) fn if_it_fails(word: &'static str) {
    let _ = IF_IT_FAILS.set(word);
}

fn print_failing_word() {
    if let Some(word) = IF_IT_FAILS.get() {
        let _ = print(word);
    }
}

/// Ends the process as Ctrl-C does.
pub(super) fn interrupted() -> ! {
    print_failing_word();
    std::process::exit(INTERRUPTED)
}

/// Ends the process as this signal would.
pub(super) fn killed_by(signal: i32) -> ! {
    print_failing_word();
    held_signals::end_by(signal);
    std::process::exit(128 + signal)
}

/// Prints to standard output. A closed pipe is no error.
///
/// # Errors
/// Standard output cannot be written, as on a full disk.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitCode::Other, format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

impl Ui {
    /// Sets the process's output settings from its options.
    pub(super) fn decide(global: &Global, json: bool) {
        let ui = Self { quiet: global.quiet, json, verbose: global.verbose > 0, color: global.color };
        let _ = UI.set(ui);
        match ui.color {
            // anstream evaluates NO_COLOR, CLICOLOR and pipes.
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
    }

    /// Settings for a command line that could not be parsed: `--json` among its words means a program reads the error.
    pub(super) fn of_words(words: &[OsString]) -> Self {
        Self { json: words.iter().skip(1).any(|word| word == "--json"), ..Self::default() }
    }

    // ---- results, on standard output

    /// Prints a result: `value` for programs, `text` for people.
    ///
    /// # Errors
    /// As [`print`].
    pub(super) fn result<T>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure>
    where
        T: serde::Serialize + ?Sized,
    {
        if !self.json {
            return print(&text());
        }
        let json = serde_json::to_string_pretty(value).map_err(|e| Failure::new(ExitCode::Other, e.to_string()))?;
        print(&(json + "\n"))
    }

    /// Prints a result for programs only, and computes it only then.
    ///
    /// # Errors
    /// As [`print`], and those of the computation.
    pub(super) fn for_programs<T>(self, value: impl FnOnce() -> Result<T, Failure>) -> Result<(), Failure>
    where
        T: serde::Serialize,
    {
        if self.json { self.result(&value()?, String::new) } else { Ok(()) }
    }

    /// Formats one of a series of results, for programs or for people.
    ///
    /// # Errors
    /// The value cannot be serialised to JSON.
    pub(super) fn line<T>(self, value: &T, text: impl FnOnce() -> String) -> Result<String, Failure>
    where
        T: serde::Serialize + ?Sized,
    {
        if !self.json {
            return Ok(text());
        }
        serde_json::to_string(value).map(|json| json + "\n").map_err(|e| Failure::new(ExitCode::Other, e.to_string()))
    }

    /// Prints a part of a result early, for people; programs get the whole result in the end.
    ///
    /// # Errors
    /// As [`print`].
    pub(super) fn part(self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { Ok(()) } else { print(&text()) }
    }

    /// Prints what was done: `value` for programs, `text` for people. `-q` omits the text.
    ///
    /// # Errors
    /// As [`print`].
    pub(super) fn done<T>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure>
    where
        T: serde::Serialize + ?Sized,
    {
        if self.quiet && !self.json { Ok(()) } else { self.result(value, text) }
    }

    // ---- messages, on standard error

    /// Prints a message for people, unless `-q` or `--json` is given.
    pub(super) fn note(self, message: &str) {
        if !self.quiet && !self.json {
            eprintln!("{message}");
        }
    }

    /// Prints a warning, unless `-q` is given.
    pub(super) fn warning(self, message: &str) {
        match self {
            Self { quiet: true, .. } => {}
            Self { json: true, .. } => eprintln!("{}", serde_json::json!({ "warning": message })),
            _ => eprintln!("{WARN}warning:{WARN:#} {message}"),
        }
    }

    /// Prints a message of a server or ProxyCommand. `-q` and `--json` suppress it, unless it names an address: the user
    /// may have to open that.
    pub(super) fn said(self, message: &str) {
        match self {
            Self { quiet: false, json: false, .. } => eprintln!("{message}"),
            _ if !text::names_address(message) => {}
            Self { json: true, .. } => eprintln!("{}", serde_json::json!({ "said": message })),
            _ => eprintln!("{message}"),
        }
    }

    /// Prints the failure that ends this process: `error:`, the causes and `hint:`; under
    /// `--json` an object on one line.
    pub(super) fn failure(self, failure: &Failure) {
        print_failing_word();
        self.error(failure);
    }

    /// Prints one of several failures; the process goes on.
    pub(super) fn error(self, failure: &Failure) {
        if self.json {
            return error_object(failure);
        }
        eprint!("{}", error_text(failure));
    }

    /// Prints a usage error of the command line.
    pub(super) fn usage_error(self, error: &clap::Error) {
        if !self.json {
            let _ = error.print();
            return;
        }
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        error_object(&Failure::new(ExitCode::Usage, message).hint("`--help` shows the options"));
    }

    // ---- other effects of the options

    /// Whether more output is requested (`-v`).
    pub(super) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// Whether a spinner shows the progress. Not with steps as lines (`-v`), JSON or quiet.
    pub(super) fn spins(self) -> bool {
        std::io::stderr().is_terminal() && !self.json && !self.quiet && !self.verbose
    }

    /// Whether a command that prints a result may also ask questions.
    pub(super) fn may_ask(self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Whether a full screen has colours; anstream decides for streams only.
    pub(super) fn has_coloured_screen(self) -> bool {
        let no_color = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !no_color(),
        }
    }
}

/// A failure as people see it.
pub(super) fn error_text(failure: &Failure) -> String {
    let mut text = format!("{ERROR}error:{ERROR:#} {}\n", failure.message);
    failure.causes.iter().for_each(|cause| text += &format!("  caused by: {cause}\n"));
    failure.hint.iter().for_each(|hint| text += &format!("{HINT}hint:{HINT:#} {hint}\n"));
    text
}

fn error_object(failure: &Failure) {
    let error = serde_json::json!({
        "code": failure.exit as u8,
        "kind": failure.exit,
        "message": failure.message,
        "causes": failure.causes,
        "hint": failure.hint,
    });
    eprintln!("{}", serde_json::json!({ "error": error }));
}
