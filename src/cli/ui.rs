//! What this process says to people and to programs: quiet, JSON and colour are decided once, here.
//!
//! The value is the process's, as its standard streams are: a signal or a question during a login needs it as well as a
//! command does. Commands hand over what they have, as a value and as text, and do not look at the options.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use anstream::{eprint, eprintln, stdout};

use super::global::{Color, Global};
use super::output::{ERROR, HINT, WARN};
use crate::failure::{ExitCode, Failure};
use crate::text;

/// Exit code of a program that Ctrl-C has ended, as shells report it (128 + SIGINT).
const INTERRUPTED: i32 = 130;

static UI: OnceLock<Ui> = OnceLock::new();
/// Printed to standard output where this process fails: it makes the shell that evaluates it fail, too.
static IF_IT_FAILS: OnceLock<&'static str> = OnceLock::new();

/// How this process prints.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ui {
    /// Prints only errors and results (`-q`).
    quiet: bool,
    /// Results, errors and warnings are JSON: one document on standard output, one object a line on standard error.
    json: bool,
    verbose: bool,
    color: Color,
}

/// How this process prints; the defaults before the command line was read.
pub(super) fn ui() -> Ui {
    UI.get().copied().unwrap_or_default()
}

/// Has standard output say `word` where this process fails.
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

/// Ends the process as a signal does that has come.
pub(super) fn killed_by(signal: i32) -> ! {
    print_failing_word();
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    std::process::exit(128 + signal)
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

impl Ui {
    /// Decides from the options of a command line, and makes that the process's way to speak.
    pub(super) fn decide(global: &Global, json: bool) {
        let ui = Self { quiet: global.quiet, json, verbose: global.verbose > 0, color: global.color };
        let _ = UI.set(ui);
        match ui.color {
            // NO_COLOR, CLICOLOR and pipes are anstream's to judge.
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
    }

    /// For a command line that could not be read: its words tell whether a program reads the error.
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
    /// As [`print`], and those of finding it out.
    pub(super) fn for_programs<T>(self, value: impl FnOnce() -> Result<T, Failure>) -> Result<(), Failure>
    where
        T: serde::Serialize,
    {
        if self.json { self.result(&value()?, String::new) } else { Ok(()) }
    }

    /// One of a series of results: the line for programs or for people.
    ///
    /// # Errors
    /// Where the value has no JSON.
    pub(super) fn line<T>(self, value: &T, text: impl FnOnce() -> String) -> Result<String, Failure>
    where
        T: serde::Serialize + ?Sized,
    {
        if !self.json {
            return Ok(text());
        }
        serde_json::to_string(value).map(|json| json + "\n").map_err(|e| Failure::new(ExitCode::Other, e.to_string()))
    }

    /// Prints a part of a result as soon as there is one; programs get all of it in the end.
    ///
    /// # Errors
    /// As [`print`].
    pub(super) fn part(self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { Ok(()) } else { print(&text()) }
    }

    /// Prints what was done; the text for people is one that `-q` does without.
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

    /// A message for people; `-q` and `--json` do without it.
    pub(super) fn note(self, message: &str) {
        if !self.quiet && !self.json {
            eprintln!("{message}");
        }
    }

    /// A warning; `-q` does without it.
    pub(super) fn warning(self, message: &str) {
        match self {
            Self { quiet: true, .. } => {}
            Self { json: true, .. } => eprintln!("{}", serde_json::json!({ "warning": message })),
            _ => eprintln!("{WARN}warning:{WARN:#} {message}"),
        }
    }

    /// What somebody on the way to the host says. An address is where the person has to go: `-q` and `--json` do not keep it
    /// back.
    pub(super) fn said(self, message: &str) {
        match self {
            Self { quiet: false, json: false, .. } => eprintln!("{message}"),
            _ if !text::names_address(message) => {}
            Self { json: true, .. } => eprintln!("{}", serde_json::json!({ "said": message })),
            _ => eprintln!("{message}"),
        }
    }

    /// Prints the failure that ends this process: `error:`, the causes and `hint:`; under `--json` an object on one line.
    pub(super) fn failure(self, failure: &Failure) {
        print_failing_word();
        self.error(failure);
    }

    /// The same for one of several failures, where more is to come.
    pub(super) fn error(self, failure: &Failure) {
        if self.json {
            return error_object(failure);
        }
        eprint!("{}", error_text(failure));
    }

    /// Prints what is wrong with a command line.
    pub(super) fn usage_error(self, error: &clap::Error) {
        if !self.json {
            let _ = error.print();
            return;
        }
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        error_object(&Failure::new(ExitCode::Usage, message).hint("`--help` shows the options"));
    }

    // ---- what else depends on the options

    /// Is more wanted than usual (`-v`)?
    pub(super) fn is_verbose(self) -> bool {
        self.verbose
    }

    /// Does a spinner show what is waited for? Steps as lines, JSON and quiet exclude it.
    pub(super) fn spins(self) -> bool {
        std::io::stderr().is_terminal() && !self.json && !self.quiet && !self.verbose
    }

    /// May a command that prints a result ask something as well?
    pub(super) fn may_ask(self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Has a full screen colours? (anstream, which judges for streams, does not see it.)
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
