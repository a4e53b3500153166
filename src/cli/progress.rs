//! Progress display and questions during a wait.

use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::prompt::{self, Asker, NoAnswer};
use super::ui::ui;
use crate::daemon::Trouble;
use crate::ssh::{Question, Secret};
use crate::sync::lock;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// The progress display: a spinner per target, on a terminal.
pub(super) struct Progress {
    spinners: Option<MultiProgress>,
    /// Serialises questions.
    asking: Mutex<()>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { spinners: ui().spins().then(MultiProgress::new), asking: Mutex::new(()) }
    }

    pub(super) fn line(&self, target: &str) -> Line {
        let spinner = self.spinners.as_ref().map(|all| {
            let bar = all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_message(format!("{target}: resolving"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Line { spinner, told: None }
    }

    pub(super) fn warn(&self, target: &str, message: &str) {
        let say = || ui().warning(&format!("{target}: {message}"));
        match &self.spinners {
            Some(spinners) => spinners.suspend(say),
            None => say(),
        }
    }

    /// Shows a message of a ProxyCommand or server to the user.
    pub(super) fn tell(&self, target: &str, message: &str) {
        let say = || ui().said(&format!("{target}: {message}"));
        match &self.spinners {
            Some(spinners) => spinners.suspend(say),
            None => say(),
        }
    }

    pub(super) fn ask(&self, question: &Question, asker: Option<&mut Asker<'_>>) -> Result<Secret, NoAnswer> {
        let _one = lock(&self.asking);
        match &self.spinners {
            Some(spinners) => spinners.suspend(|| prompt::ask(question, asker)),
            None => prompt::ask(question, asker),
        }
    }
}

/// One target's progress line, removed from the screen on drop.
pub(super) struct Line {
    spinner: Option<ProgressBar>,
    /// The last message, if there is no spinner.
    told: Option<(String, Option<String>)>,
}

impl Line {
    pub(super) fn step(&mut self, target: &str, step: &str, trouble: Option<&Trouble>) {
        // A narrow terminal shows one line, so the cause comes before text that may be cut off.
        let doing = match trouble {
            None => step.to_owned(),
            Some(Trouble { message, next_ms: None }) => format!("{step} again: {message}"),
            Some(Trouble { message, next_ms: Some(ms) }) => {
                format!("trying again in {} s: {message}", ms.div_ceil(1000))
            }
        };
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{target}: {doing}"));
            return;
        }
        // The daemon repeats a step as a sign of life.
        let told = (step.to_owned(), trouble.map(|trouble| trouble.message.clone()));
        if ui().is_verbose() && self.told.as_ref() != Some(&told) {
            ui().note(&format!("{target}: {doing}"));
            self.told = Some(told);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
