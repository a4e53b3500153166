//! Asks the daemon's questions at the terminal.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::ui::{self, ui};
use crate::daemon::ControlClient;
use crate::failure::{ExitCode, Failure};
use crate::os::held_signals::{self, Came, Held};
use crate::os::terminal::{self, Ready, Terminal};
use crate::ssh::{Prompter, Question, Secret};

/// Longest answer, in bytes. No passphrase is longer.
const MAX_ANSWER: usize = 16 << 10;
const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];
const CTRL_U: u8 = 0x15;
const CTRL_Z: u8 = 0x1a;
const CTRL_BACKSLASH: u8 = 0x1c;

/// How asking ended without an answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Ctrl-C.
    Interrupted,
    /// There is no terminal, or it was lost.
    NoTerminal,
    /// The question was answered elsewhere or dropped.
    Over,
}

impl From<NoAnswer> for Failure {
    fn from(reason: NoAnswer) -> Self {
        match reason {
            NoAnswer::Interrupted => Self::new(ExitCode::Other, "interrupted: nothing was changed"),
            NoAnswer::NoTerminal | NoAnswer::Over => Self::new(ExitCode::Other, "there is no terminal to ask at"),
        }
    }
}

/// Whether a terminal or SSH_ASKPASS is available for questions.
pub(super) fn is_interactive() -> bool {
    askpass().is_some() || Terminal::open().is_ok()
}

/// The program to ask with instead of the terminal, by ssh's rules (ssh(1), ENVIRONMENT): if there is a display but no
/// terminal, or if SSH_ASKPASS_REQUIRE says so.
fn askpass() -> Option<OsString> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let program = set("SSH_ASKPASS")?;
    let wanted = match set("SSH_ASKPASS_REQUIRE").as_deref().and_then(OsStr::to_str) {
        Some("never") => false,
        Some("force" | "prefer") => true,
        _ => Terminal::open().is_err() && (set("DISPLAY").is_some() || set("WAYLAND_DISPLAY").is_some()),
    };
    wanted.then_some(program)
}

fn ask_with(program: &OsStr, text: &str) -> Result<Secret, NoAnswer> {
    let asking = Command::new(program).arg(text).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = asking.map_err(|_| NoAnswer::NoTerminal)?;
    // Allocated in full, since growing would leave a copy of the secret in memory.
    let mut answer = Zeroizing::new(Vec::with_capacity(2 * MAX_ANSWER));
    let read = child.stdout.take().map(|output| output.take(MAX_ANSWER as u64 + 1).read_to_end(&mut answer));
    let status = child.wait().map_err(|_| NoAnswer::NoTerminal)?;
    // A cancelled dialogue exits with an error, as Ctrl-C does at a terminal.
    if !status.success() || !matches!(read, Some(Ok(_))) || answer.len() > MAX_ANSWER {
        return Err(NoAnswer::NoTerminal);
    }
    Ok(secret(&answer))
}

/// The typed line without its line ending.
fn secret(line: &[u8]) -> Secret {
    let end = line.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    Secret::new(String::from_utf8_lossy(&line[..end]).into_owned())
}

/// The first line of a program's output, as a secret. `pass` prints other data on later lines.
///
/// # Errors
/// The line is empty, too long or not UTF-8, or the input cannot be read.
pub(super) fn first_line(input: impl io::Read) -> io::Result<Secret> {
    let mut text = Zeroizing::new(Vec::with_capacity(2 * MAX_ANSWER));
    input.take(MAX_ANSWER as u64 + 1).read_to_end(&mut text)?;
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    match secret(&text[..end]) {
        _ if end > MAX_ANSWER => wrong("the line is too long"),
        _ if str::from_utf8(&text[..end]).is_err() => wrong("the line is not UTF-8"),
        line if line.reveal().is_empty() => wrong("the first line is empty"),
        line => Ok(line),
    }
}

/// A question's daemon and number. The daemon ends the question once another terminal has answered.
pub(super) struct Asker<'a> {
    pub(super) client: &'a mut ControlClient,
    pub(super) id: u64,
}

impl Asker<'_> {
    /// Whether the daemon has ended the question.
    fn is_over(&mut self) -> bool {
        while self.client.has_news() {
            // The daemon's end ends its questions.
            if self.client.is_over(self.id).unwrap_or(true) {
                return true;
            }
        }
        false
    }
}

/// The event that ends a wait.
enum Input {
    /// A key or line.
    Typed,
    /// The question was answered elsewhere or dropped.
    Over,
    Signal(Came),
}

/// Waits for the user's next key or line, for the end of the question, or for a signal.
fn wait(terminal: &Terminal, asker: &mut Option<&mut Asker<'_>>, signals: Option<&Held>) -> io::Result<Input> {
    loop {
        if asker.as_deref_mut().is_some_and(Asker::is_over) {
            return Ok(Input::Over);
        }
        if let Some(signal) = signals.and_then(Held::take) {
            return Ok(Input::Signal(signal));
        }
        let news = match terminal.wait(asker.as_deref().map(|asker| asker.client.news()), signals)? {
            Ready::Typed => return Ok(Input::Typed),
            Ready::Signal => false,
            Ready::News => true,
        };
        if news && asker.as_deref_mut().is_some_and(|asker| asker.client.is_over(asker.id).unwrap_or(true)) {
            return Ok(Input::Over);
        }
    }
}

/// Asks the question at the terminal or by SSH_ASKPASS.
///
/// # Errors
/// [`NoAnswer`].
pub(super) fn ask(question: &Question, mut asker: Option<&mut Asker<'_>>) -> Result<Secret, NoAnswer> {
    // The question may have ended while another one occupied this terminal.
    if asker.as_deref_mut().is_some_and(Asker::is_over) {
        return Err(NoAnswer::Over);
    }
    let text = text(question);
    if let Some(program) = askpass() {
        return ask_with(&program, &text);
    }
    let terminal = Terminal::open().map_err(|_| NoAnswer::NoTerminal)?;
    let visible = matches!(
        question,
        Question::HostKey { .. } | Question::UpdatedHostKeys { .. } | Question::Server { echo: true, .. }
    );
    let answer = match visible {
        true => write!(&mut &terminal, "{text}").and_then(|()| read_line(&terminal, asker)),
        false => read_hidden(&terminal, &text, asker),
    };
    match answer {
        Ok(Read::Answer(answer)) => Ok(answer),
        Ok(Read::Interrupted) => Err(NoAnswer::Interrupted),
        Ok(Read::Over) => {
            let _ = writeln!(&mut &terminal, "\n(answered elsewhere)");
            Err(NoAnswer::Over)
        }
        Err(_) => Err(NoAnswer::NoTerminal),
    }
}

/// How reading from the terminal ended.
enum Read {
    Answer(Secret),
    Interrupted,
    Over,
}

/// Runs work that may have questions, and asks them at the terminal.
///
/// # Errors
/// The runtime cannot be started.
pub(super) fn while_answering<T>(work: impl AsyncFnOnce(&Prompter) -> T) -> Result<T, Failure> {
    let (prompter, mut questions) = Prompter::new();
    let _person = is_interactive().then(|| prompter.attended());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(ExitCode::Other, format!("cannot start: {e}")))?;
    let result = runtime.block_on(async {
        let answering = async {
            while let Some(asked) = questions.recv().await {
                let (question, reply) = (asked.question, asked.reply);
                match tokio::task::spawn_blocking(move || ask(&question, None)).await {
                    Ok(Ok(answer)) => drop(reply.send(answer)),
                    Ok(Err(NoAnswer::Interrupted)) => ui::interrupted(),
                    // No terminal: dropping the reply reports that.
                    _ => {}
                }
            }
            std::future::pending().await
        };
        let mut said = prompter.said();
        let telling = async {
            let mut heard = 0;
            loop {
                said.borrow_and_update().since(&mut heard).iter().for_each(|line| ui().said(line));
                if said.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            result = work(&prompter) => result,
            never = answering => never,
            never = telling => never,
        }
    });
    runtime.shutdown_background();
    crate::ssh::end_programs();
    Ok(result)
}

/// Asks a yes-or-no question at the terminal. Any answer but yes is a no.
///
/// # Errors
/// [`NoAnswer`].
pub(super) fn confirm(question: &str) -> Result<bool, NoAnswer> {
    let terminal = Terminal::open().map_err(|_| NoAnswer::NoTerminal)?;
    let answer = write!(&mut &terminal, "{question} [y/N] ").and_then(|()| read_line(&terminal, None));
    match answer {
        Ok(Read::Answer(answer)) => Ok(matches!(answer.reveal().trim().to_ascii_lowercase().as_str(), "y" | "yes")),
        Ok(Read::Interrupted | Read::Over) => Err(NoAnswer::Interrupted),
        Err(_) => Err(NoAnswer::NoTerminal),
    }
}

/// The question's text, worded much as in ssh.
fn text(question: &Question) -> String {
    match question {
        Question::HostKey { host, key_type, fingerprint, also_known_as } => {
            let mut text = format!(
                "The authenticity of host '{host}' can't be established.\n{key_type} key fingerprint is {fingerprint}.\n"
            );
            if also_known_as.is_empty() {
                text += "This key is not known by any other names.\n";
            } else {
                text += "This key is known by these other names:\n";
                also_known_as.iter().for_each(|name| text += &format!("    {name}\n"));
            }
            text + "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
        }
        Question::UpdatedHostKeys { host, new, old } => {
            let mut text = format!(
                "The host {host} has updated its host keys. Each is proved to be its own before known_hosts is changed.\n"
            );
            new.iter().for_each(|key| text += &format!("New: {key}\n"));
            old.iter().for_each(|key| text += &format!("Not in use any more: {key}\n"));
            text + "Accept updated host keys (yes/no)? "
        }
        Question::Passphrase { file, again } => format!("{}Enter passphrase for key '{file}': ", sorry(*again)),
        Question::Password { account, again, notes } => {
            format!("{}{}{account}'s password: ", lines(notes), sorry(*again))
        }
        Question::Server { account, instruction, prompt, notes, .. } => {
            let instruction = if instruction.is_empty() { String::new() } else { format!("{instruction}\n") };
            format!("{}{instruction}({account}) {prompt} ", lines(notes))
        }
    }
}

fn lines(notes: &[String]) -> String {
    notes.iter().map(|note| format!("{note}\n")).collect()
}

fn sorry(again: bool) -> &'static str {
    if again { "That was not it, please try again.\n" } else { "" }
}

fn read_line(terminal: &Terminal, mut asker: Option<&mut Asker<'_>>) -> io::Result<Read> {
    if matches!(wait(terminal, &mut asker, None)?, Input::Over) {
        return Ok(Read::Over);
    }
    // A code is a secret even if shown: read into one buffer, as hidden input is.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    while line.len() < MAX_ANSWER
        && let Some(byte) = terminal.read_byte()?
    {
        line.push(byte);
        if byte == b'\n' {
            break;
        }
    }
    Ok(if line.is_empty() { Read::Interrupted } else { Read::Answer(secret(&line)) })
}

/// Asks `question` and reads a line without echo. The terminal's line editing and signal keys are off meanwhile, and
/// signals from elsewhere are deferred: one that ended or stopped this process would leave the terminal without echo.
///
/// The question is printed once the echo is off, as in readpassphrase(3): what the user types after seeing
/// it is neither echoed nor lost.
fn read_hidden(terminal: &Terminal, question: &str, mut asker: Option<&mut Asker<'_>>) -> io::Result<Read> {
    let signals = Held::new();
    let mut mode = terminal.hide()?;
    write!(&mut &*terminal, "{question}")?;
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let interrupted = loop {
        let signal = match wait(terminal, &mut asker, Some(&signals))? {
            Input::Over => return Ok(Read::Over),
            Input::Signal(Came::Interrupt) => break true,
            Input::Signal(signal) => signal,
            Input::Typed => {
                match terminal.read_byte()?.ok_or(io::ErrorKind::UnexpectedEof)? {
                    b'\r' | b'\n' => break false,
                    CTRL_C => break true,
                    CTRL_D if answer.is_empty() => break true,
                    // The terminal would send these to the whole job. This process hears its own: only then has any
                    // thread handled it, and it cannot come a second time.
                    CTRL_Z => {
                        terminal::stop_job();
                        continue;
                    }
                    CTRL_BACKSLASH => {
                        terminal::quit_job();
                        continue;
                    }
                    CTRL_U => {
                        answer.clear();
                        continue;
                    }
                    c if BACKSPACE.contains(&c) => {
                        // Removes all bytes of a UTF-8 character.
                        while answer.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
                        continue;
                    }
                    c => {
                        if answer.len() < MAX_ANSWER {
                            answer.push(c);
                        }
                        continue;
                    }
                }
            }
        };
        drop(mode);
        writeln!(&mut &*terminal)?;
        if let Came::Ends(signal) = signal {
            drop((answer, signals));
            ui::killed_by(signal);
        }
        held_signals::stop();
        answer.clear();
        mode = terminal.hide()?;
        write!(&mut &*terminal, "{question}")?;
    };
    drop(mode);
    writeln!(&mut &*terminal)?;
    if interrupted {
        return Ok(Read::Interrupted);
    }
    Ok(Read::Answer(secret(&answer)))
}
