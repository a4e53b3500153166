//! The mirror on the host, by commands that any POSIX shell with find, stat and tar runs: GNU's, or busybox's; or by SFTP
//! (`sftp`).
//!
//! Below a directory that only the login may enter are `tree`, which containers mount, `mark`, which tells this mirror
//! from another one in its place, and `stage.*` while files arrive. Whoever writes in a container may put links into
//! `tree` at any moment, so commands go into each directory and see where they are before they touch a name in it
//! (`scripts`). What the host answers is judged like anybody's: paths (`listing`), sizes, and files that nobody asked for
//! (`incoming`).

mod incoming;
mod listing;
mod outgoing;
mod scripts;
mod sftp;
mod stall;

use std::future::Future;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::io::SyncIoBridge;

use self::sftp::Session;
use self::stall::{Counted, while_moving};
use super::apply::Here;
use super::progress::Meter;
use super::scan::Bounds;
use super::step::Step;
use super::tree::Grain;
use crate::shell_word::quoted;
use crate::sync::lock;
use crate::text::last_lines;

pub(super) use incoming::Arrived;
pub(super) use listing::Listing;
#[cfg(fuzzing)]
pub use listing::read_whatever;
pub(super) use outgoing::Sent;
pub(super) use sftp::Stream;

/// Bytes between a command's stream and the thread that makes or reads it.
const PIPE: usize = 256 * 1024;
/// Longest answer about what was done, in bytes: a line for each step.
const MAX_ANSWER: u64 = 16 << 20;
/// A command that moves no byte for so long is given up.
const STALL: Duration = Duration::from_secs(60);
/// The same for commands that have nothing to say while they go through all files.
const QUIET: Duration = Duration::from_secs(300);
/// Lines of a command's errors that are kept.
const LINES: usize = 5;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// None if a signal ended it, or the connection did.
    pub(super) status: Option<u32>,
    /// What it wrote to its standard error, or the end of that.
    pub(super) stderr: String,
}

/// Runs commands on the host.
pub(super) trait Run: Send + Sync {
    /// Runs `sh -c script` with `stdin` as its standard input; its output goes to `stdout`. Returns when both have ended.
    /// An error of `stdout` ends the command or at least the wait for it; so does dropping the future. The script has
    /// quotes and backslashes.
    ///
    /// # Errors
    /// The connection's.
    fn run(
        &self,
        script: &str,
        stdin: impl AsyncRead + Send + Unpin,
        stdout: impl AsyncWrite + Send + Unpin,
    ) -> impl Future<Output = io::Result<Ended>> + Send;

    /// A byte stream to the host's `sftp` subsystem, for [`Mirror::over_sftp`]. It ends when it is dropped.
    ///
    /// # Errors
    /// The connection's; there is none.
    fn sftp(&self) -> impl Future<Output = io::Result<Box<dyn Stream>>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// The mirror of one directory.
#[derive(Debug)]
pub(super) struct Mirror<R> {
    run: R,
    /// The directory of the mirror on the host, absolute.
    root: String,
    meter: Arc<Meter>,
    last: Mutex<Option<Listing>>,
    /// [`STALL`] and [`QUIET`].
    stall: Duration,
    quiet: Duration,
    way: Way,
}

/// How the mirror is reached.
#[derive(Debug)]
enum Way {
    Commands,
    /// With the session, as long as it is good.
    Sftp(tokio::sync::Mutex<Option<Arc<Session>>>),
}

/// What is to be changed on the host, and of what.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Steps that change the host, in their order.
    pub(super) steps: Vec<Step>,
    /// The mode of a new tree; None if there is a mirror. A new one gets its name when all is there.
    pub(super) fill: Option<u16>,
    /// Files are written where they are, since containers hold them and not their directory.
    pub(super) in_place: bool,
    /// The mirror that is meant: nothing is done in another one. None: whichever is there.
    pub(super) identity: Option<String>,
    /// How fine the host's times are, by which it is told whether files are still as planned.
    pub(super) grain: Grain,
    /// The same of when files were last changed in any way.
    pub(super) touched: Grain,
}

impl<R: Run> Mirror<R> {
    /// The mirror below the directory `root` of the host, an absolute path that only the login may write to.
    pub(super) fn new(run: R, root: String) -> Self {
        let way = Way::Commands;
        Self { run, root, meter: Arc::default(), last: Mutex::default(), stall: STALL, quiet: QUIET, way }
    }

    /// The same by SFTP, where the login may run no commands.
    pub(super) fn over_sftp(run: R, root: String) -> Self {
        Self { way: Way::Sftp(tokio::sync::Mutex::default()), ..Self::new(run, root) }
    }

    /// The login's directory on the host, by SFTP.
    ///
    /// # Errors
    /// The connection's; the server's.
    pub(super) async fn home_by_sftp(run: &R) -> io::Result<String> {
        Session::open(run.sftp().await?).await?.real(".").await
    }

    /// Whether the host has something at this path, by SFTP.
    ///
    /// # Errors
    /// The connection's; the server's.
    pub(super) async fn is_there_by_sftp(run: &R, path: &str) -> io::Result<bool> {
        Session::open(run.sftp().await?).await?.is_there(path).await
    }

    /// The session, if the way is by SFTP.
    async fn session(&self) -> io::Result<Option<Arc<Session>>> {
        let Way::Sftp(session) = &self.way else { return Ok(None) };
        let mut session = session.lock().await;
        if session.is_none() {
            let opened = async { Session::open(self.run.sftp().await?).await };
            let opened = tokio::time::timeout(self.stall, opened).await;
            *session = Some(Arc::new(opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??));
        }
        Ok(session.clone())
    }

    /// Forgets the session after an error that it does not survive.
    async fn judge<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let (Way::Sftp(session), Err(e)) = (&self.way, &result)
            && sftp::is_lost(e)
        {
            *session.lock().await = None;
        }
        result
    }

    /// Where the files are, for a container's mount.
    #[cfg(test)]
    pub(super) fn tree(&self) -> String {
        format!("{}/tree", self.root)
    }

    #[cfg(test)]
    fn set_patience(&mut self, limit: Duration) {
        (self.stall, self.quiet) = (limit, limit);
    }

    /// What runs the commands.
    #[cfg(test)]
    pub(super) fn run(&self) -> &R {
        &self.run
    }

    /// How far a step of [`Self::send`] or [`Self::fetch`] is.
    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Reads all that is in the mirror. The host sends it only if it is not what was read last.
    ///
    /// # Errors
    /// The connection's; the host's answer is none, or has more than `bounds`.
    pub(super) async fn scan(&self, bounds: Bounds) -> io::Result<Listing> {
        if let Some(session) = self.session().await? {
            let listing = self.judge(sftp::scan(&session, &self.root, bounds).await).await;
            return match listing {
                // A session that ended while nobody needed it.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {
                    let Some(session) = self.session().await? else { return Err(e) };
                    self.judge(sftp::scan(&session, &self.root, bounds).await).await
                }
                listing => listing,
            };
        }
        let (mut ours, theirs) = tokio::io::duplex(PIPE);
        let known = lock(&self.last).as_ref().map(|listing| listing.digest.clone()).unwrap_or_default();
        let script = self.script(scripts::SCAN, &[("D", &known)]);
        let mut answer = Vec::new();
        let most = listing::most_bytes(bounds);
        let (ended, read) = tokio::join!(self.command(self.quiet, &script, tokio::io::empty(), theirs), async {
            let read = (&mut ours).take(most + 1).read_to_end(&mut answer).await;
            drop(ours);
            read
        });
        if u64::try_from(read?).unwrap_or(u64::MAX) > most {
            return Err(io::Error::other("the mirror on the host has more files than may be mounted"));
        }
        let ended = ended?;
        if answer == scripts::SAME
            && let Some(listing) = &*lock(&self.last)
            && listing.digest == known
        {
            return Ok(listing.clone());
        }
        let parsed = move || listing::parse(&listing::unpacked(answer, most)?, bounds);
        let listing = tokio::task::spawn_blocking(parsed).await?;
        *lock(&self.last) = listing.as_ref().ok().cloned();
        listing.map_err(|error| match last_lines(&ended.stderr, 1).pop() {
            Some(line) => io::Error::other(format!("{error}: {line}")),
            None => error,
        })
    }

    /// Runs a command, and gives it up when nothing moves for `limit`.
    async fn command(
        &self,
        limit: Duration,
        script: &str,
        stdin: impl AsyncRead + Send + Unpin,
        stdout: impl AsyncWrite + Send + Unpin,
    ) -> io::Result<Ended> {
        let moved = AtomicU64::new(0);
        let (stdin, stdout) = (Counted { stream: stdin, moved: &moved }, Counted { stream: stdout, moved: &moved });
        while_moving(limit, &moved, self.run.run(script, stdin, stdout)).await
    }

    /// Does the steps that change the host.
    ///
    /// # Errors
    /// The connection's. Then nobody knows what was done.
    pub(super) async fn send(&self, here: Arc<Here>, sending: Sending) -> io::Result<Sent> {
        if let Some(session) = self.session().await? {
            return self.judge(sftp::send(&session, &self.root, here, sending, self.meter.clone()).await).await;
        }
        let (mut ours, theirs) = tokio::io::duplex(PIPE);
        let (stream, stdin) = tokio::io::duplex(PIPE);
        let nonce = format!("{:032x}", fastrand::u128(..));
        let identity = sending.identity.clone().unwrap_or_default();
        let script = self.script(
            scripts::SEND,
            &[("K", &nonce), ("I", &identity), ("F", stat_format(sending.grain)), ("C", stat_touched(sending.touched))],
        );
        let count = sending.steps.len();
        let meter = self.meter.clone();
        let making =
            tokio::task::spawn_blocking(move || outgoing::write(SyncIoBridge::new(stream), &here, &sending, &meter));
        let mut answer = Vec::new();
        let (ended, read, made) = tokio::join!(
            self.command(self.stall, &script, stdin, theirs),
            async {
                let read = (&mut ours).take(MAX_ANSWER).read_to_end(&mut answer).await;
                drop(ours);
                read
            },
            making
        );
        let ended = ended?;
        read?;
        let mut sent = Sent { done: vec![false; count], identity: None, said: last_lines(&ended.stderr, LINES) };
        match made? {
            Ok(failed) => sent.said.extend(failed),
            // The host ended the command before it had all.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => return Err(e),
        }
        outgoing::read_answer(&answer, &mut sent);
        if ended.status != Some(0) && sent.said.is_empty() {
            sent.said.push(match ended.status {
                Some(status) => format!("the command on the host failed with status {status}"),
                None => "the command on the host was ended".into(),
            });
        }
        Ok(sent)
    }

    /// Fetches the files and links of the steps and does what the steps say with them, in any order. The result has an
    /// entry for each step.
    ///
    /// # Errors
    /// The connection's, before anything arrived.
    pub(super) async fn fetch(
        &self,
        here: Arc<Here>,
        steps: Vec<Step>,
        bounds: Bounds,
        time: String,
    ) -> io::Result<Vec<Arrived>> {
        if let Some(session) = self.session().await? {
            let meter = self.meter.clone();
            return self.judge(sftp::fetch(&session, &self.root, here, steps, bounds, time, meter).await).await;
        }
        let mut arrived = self.fetch_groups(here.clone(), steps.clone(), bounds, time.clone(), incoming::GROUP).await?;
        // Names of one file that were fetched together; apart each brings its content.
        let again: Vec<usize> = (0..steps.len()).filter(|at| matches!(arrived[*at], Arrived::LinkedTo)).collect();
        if !again.is_empty() {
            let steps = again.iter().map(|at| steps[*at].clone()).collect();
            let apart = self.fetch_groups(here, steps, bounds, time, 1).await?;
            for (at, one) in again.into_iter().zip(apart) {
                arrived[at] = one;
            }
        }
        Ok(arrived)
    }

    async fn fetch_groups(
        &self,
        here: Arc<Here>,
        steps: Vec<Step>,
        bounds: Bounds,
        time: String,
        size: usize,
    ) -> io::Result<Vec<Arrived>> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let groups = incoming::groups(&steps, size);
        let request = incoming::request(&steps, &groups);
        let script = self.script(scripts::FETCH, &[]);
        let meter = self.meter.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let taking = incoming::Taking { here: &here, steps: &steps, bounds, time: &time, meter: &meter };
            incoming::read(SyncIoBridge::new(ours), taking, &groups)
        });
        let (ended, arrived) = tokio::join!(self.command(self.stall, &script, request.as_slice(), theirs), reading);
        let mut arrived = arrived?;
        let said = match ended {
            Ok(ended) => last_lines(&ended.stderr, 1).pop(),
            Err(e) if arrived.iter().all(|one| matches!(one, Arrived::Missing)) && !arrived.is_empty() => {
                return Err(e);
            }
            Err(e) => Some(e.to_string()),
        };
        let reason = said.unwrap_or_else(|| "the host did not send it".into());
        for one in arrived.iter_mut().filter(|one| matches!(one, Arrived::Missing)) {
            *one = Arrived::Failed(reason.clone());
        }
        Ok(arrived)
    }

    /// Removes the mirror from the host, with all that the login may remove.
    ///
    /// # Errors
    /// The connection's; what the host said if something remains.
    pub(super) async fn remove(&self) -> io::Result<()> {
        if let Some(session) = self.session().await? {
            return self.judge(sftp::remove(session, &self.root).await).await;
        }
        let script = self.script(scripts::REMOVE, &[]);
        let ended = self.command(self.quiet, &script, tokio::io::empty(), tokio::io::sink()).await?;
        match ended.status {
            Some(0) => Ok(()),
            _ => Err(io::Error::other(last_lines(&ended.stderr, 1).pop().unwrap_or_else(|| "files remain".into()))),
        }
    }

    /// A script with its variables in front.
    fn script(&self, script: &str, also: &[(&str, &str)]) -> String {
        let mut text = format!("R={}\n", quoted(&self.root));
        for (name, value) in also {
            text.push_str(&format!("{name}={}\n", quoted(value)));
        }
        text + scripts::COMMON + script
    }
}

/// What stat(1) prints of a file to tell whether it has changed.
fn stat_format(grain: Grain) -> &'static str {
    match grain {
        Grain::Nanosecond => "%s %.9Y",
        Grain::Second => "%s %Y",
    }
}

/// What it prints in addition where it is known when the file was last changed in any way.
fn stat_touched(grain: Grain) -> &'static str {
    match grain {
        Grain::Nanosecond => "%.9Z",
        Grain::Second => "%Z",
    }
}

#[cfg(test)]
pub(super) mod tests;
