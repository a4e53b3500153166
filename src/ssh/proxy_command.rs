//! ProxyCommand (ssh_config(5)): a shell command in place of TCP, its messages and its end.
//!
//! As with ssh, the command gets SIGHUP when the connection is no longer needed, so that its traps run. If it does not
//! end, it is killed after [`GRACE`].

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_util::task::AbortOnDropHandle;

use super::error::{Error, Phase};
use super::prompter::Prompter;
use crate::os::programs;
use crate::sync::lock;
use crate::text;

/// Limit of lines sent to the log and the user; the first ones are taken.
const MOST_TOLD: usize = 50;
/// Limit of stored lines of its standard error; the last ones are kept.
const MOST_LINES: usize = 5;
/// Longest line, in bytes.
const MAX_LINE: usize = 1000;
/// Longest wait for a command that has closed its output to exit, and for its last lines.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Time between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Longest wait for a killed command to be gone.
const KILLED: Duration = Duration::from_millis(500);
/// Poll interval for the end of a command.
const LOOK: Duration = Duration::from_millis(10);

/// The running commands, and the number of those being ended. A command moves from one to the other under this lock,
/// so that it is always counted.
static RUNNING: Mutex<Running> = Mutex::new(Running { children: Vec::new(), ending: 0 });
static ENDED: Condvar = Condvar::new();

/// None while or after it is ended.
type Shared = Arc<Mutex<Option<Child>>>;

struct Running {
    children: Vec<Shared>,
    ending: usize,
}

fn running() -> MutexGuard<'static, Running> {
    lock(&RUNNING)
}

/// Ends all running commands and waits for their end. Must be called before this process exits, or the commands would
/// survive it. Blocks for at most [`GRACE`] plus [`KILLED`].
pub(super) fn end_proxy_commands() {
    let children = running().children.clone();
    children.iter().for_each(end);
    let _ = ENDED
        .wait_timeout_while(running(), GRACE + 2 * KILLED, |running| running.ending > 0)
        .unwrap_or_else(PoisonError::into_inner);
}

/// Standard input and output of a ProxyCommand.
pub(super) struct ProxyCommand {
    stdin: ChildStdin,
    stdout: ChildStdout,
    _voice: Arc<Voice>,
}

/// A ProxyCommand's standard error and exit status. Dropping it ends the command.
pub(super) struct Voice {
    command: String,
    child: Shared,
    /// The last lines, safe for a terminal.
    said: Arc<Mutex<VecDeque<String>>>,
    /// The task that reads them.
    listening: tokio::sync::Mutex<AbortOnDropHandle<()>>,
}

/// Ends a ProxyCommand on drop, whoever still holds its streams.
pub(super) struct Ends(Arc<Voice>);

impl Drop for Ends {
    fn drop(&mut self) {
        end(&self.0.child);
    }
}

impl ProxyCommand {
    /// Runs `command` with the user's shell, as ssh does (`exec` so that the shell doesn't linger). Its standard error
    /// goes to the log and to `prompter` at once, since it may tell the user to act.
    ///
    /// # Errors
    /// [`Error::ProxyCommand`].
    pub(super) fn spawn(command: &str, prompter: &Prompter) -> Result<(Self, Ends), Error> {
        let failed = |source| Error::ProxyCommand { command: command.into(), source };
        let mut child = Command::from(programs::shell_command(command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let pipe = || failed(io::Error::from(io::ErrorKind::BrokenPipe));
        let stdin = child.stdin.take().ok_or_else(pipe)?;
        let stdout = child.stdout.take().ok_or_else(pipe)?;
        let stderr = child.stderr.take().ok_or_else(pipe)?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let listening = AbortOnDropHandle::new(tokio::spawn(listen(stderr, said.clone(), prompter.clone())));
        let child = Arc::new(Mutex::new(Some(child)));
        running().children.push(child.clone());
        let listening = tokio::sync::Mutex::new(listening);
        let voice = Arc::new(Voice { command: command.into(), child, said, listening });
        Ok((Self { stdin, stdout, _voice: voice.clone() }, Ends(voice)))
    }
}

impl Ends {
    /// Why the command gave no connection: its own messages, if any, explain more than the observed error.
    pub(super) async fn explain(&self, seen: Error) -> Error {
        let voice = &self.0;
        if !matches!(seen, Error::Handshake { .. } | Error::Timeout { .. }) {
            return seen;
        }
        let _ = tokio::time::timeout(LAST_WORDS, &mut *voice.listening.lock().await).await;
        let ended = tokio::time::timeout(LAST_WORDS, async {
            loop {
                match lock(&voice.child).as_mut().map(Child::try_wait) {
                    Some(Ok(None)) => {}
                    Some(Ok(status)) => return status,
                    Some(Err(_)) | None => return None,
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        let how = match (ended.await, seen) {
            (Ok(Some(status)), _) => match status.code() {
                Some(code) => format!("ended with status {code}"),
                None => format!("ended ({status})"),
            },
            (_, seen @ Error::Timeout { step: Phase::KeyExchange, .. }) => return seen,
            (_, Error::Timeout { limit, .. }) => {
                format!("reached no SSH server within {}", humantime::format_duration(limit))
            }
            _ => "reached no SSH server".into(),
        };
        let said = lock(&voice.said).iter().cloned().collect();
        Error::Proxy { command: text::shown(&voice.command), how, said }
    }
}

/// Ends the command. A thread waits for it, since the runtime may end earlier;
/// [`end_proxy_commands`] waits for that thread.
fn end(shared: &Shared) {
    let mut running = running();
    running.children.retain(|other| !Arc::ptr_eq(other, shared));
    let Some(mut child) = lock(shared).take() else { return };
    let (Ok(None), Some(pid)) = (child.try_wait(), child.id()) else { return };
    // Nothing else reaps the child, so its process id cannot have been reused.
    programs::hang_up(pid);
    running.ending += 1;
    drop(running);
    let ending = move || {
        if !ends_within(&mut child, GRACE) {
            let _ = child.start_kill();
            ends_within(&mut child, KILLED);
        }
        self::running().ending -= 1;
        ENDED.notify_all();
    };
    // If no thread can be started, the child was dropped, which kills it.
    if std::thread::Builder::new().name("proxy-command".into()).spawn(ending).is_err() {
        self::running().ending -= 1;
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        end(&self.child);
    }
}

fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Reads a child's standard error line by line, to its end.
async fn listen(mut stderr: ChildStderr, said: Arc<Mutex<VecDeque<String>>>, prompter: Prompter) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    let mut told = 0;
    let mut tell = |line: &mut Vec<u8>| {
        let shown = text::shown_bytes(line);
        line.clear();
        if shown.is_empty() {
            return;
        }
        // Limits what a talkative command writes to the log and the terminal.
        told += 1;
        if told <= MOST_TOLD {
            tracing::info!("ProxyCommand: {shown}");
            prompter.tell(shown.clone());
        }
        let mut said = lock(&said);
        said.push_back(shown);
        if said.len() > MOST_LINES {
            said.pop_front();
        }
    };
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        for byte in &buffer[..read] {
            match byte {
                b'\n' | b'\r' => tell(&mut line),
                byte if line.len() < MAX_LINE => line.push(*byte),
                _ => {}
            }
        }
    }
    tell(&mut line);
}

impl AsyncRead for ProxyCommand {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for ProxyCommand {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
