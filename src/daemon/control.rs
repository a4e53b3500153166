//! The daemon's side of the control socket: one task per client.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::{Zeroize, Zeroizing};

use super::options::Options;
use super::prompt_relay::PromptRelay;
use super::protocol::{Added, Event, MAX_LINE, MountsTask, PROTOCOL, Request, SIGN_OF_LIFE, Trouble, TunnelStatus};
use super::reload::reload;
use crate::config::{Overrides, Settings};
use crate::failure::{ExitCode, Failure};
use crate::host::{Class, Route};
use crate::os::local::{BlockingStream, ReadHalf, Stream, WriteHalf};
use crate::ssh::Prompter;
use crate::sync::lock;
use crate::tunnel::{self, Agreed, State, Tunnel};

/// The daemon's state, as seen by its clients.
#[derive(Debug, Clone)]
pub(super) enum Life {
    Running,
    /// The tunnel did not come up.
    Failed(Failure),
    /// The tunnel has ended and cleaned up.
    Stopped,
}

impl Life {
    /// The event that reports the end; None while the tunnel runs.
    fn last_word(&self) -> Option<Event> {
        match self {
            Self::Running => None,
            Self::Failed(failure) => Some(Event::Failed { failure: failure.clone() }),
            Self::Stopped => Some(Event::Stopped),
        }
    }
}

/// The state shared by the tasks of all clients.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) prompts: PromptRelay,
    /// The local endpoint, in the form of `DOCKER_HOST`.
    pub(super) docker_host: String,
    /// Ends the tunnel.
    pub(super) stop: CancellationToken,
    pub(super) life: watch::Sender<Life>,
    /// Asks the user and measures the time for answers.
    pub(super) prompter: Prompter,
    /// The daemon's options, from its start and from reloads.
    pub(super) options: Mutex<Options>,
}

/// The client of a control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The process that started this daemon. It gets the reason for the daemon's end even without a request.
    Starter,
    /// Any other process of this user.
    Other,
}

/// A client that watches the tunnel come up.
#[derive(Debug, Clone, Copy)]
struct Watcher {
    /// Whether it has a terminal for questions.
    interactive: bool,
    /// Whether its ssh-agent is another one than was preferred before.
    has_other_agent: bool,
}

impl Control {
    fn status(&self) -> TunnelStatus {
        let target = self.tunnel.target();
        let now = self.tunnel.watch().borrow().clone();
        let counters = self.tunnel.counters();
        let told = self.options().overrides.clone();
        TunnelStatus {
            name: target.name.to_string(),
            state: now.state,
            ending: self.stop.is_cancelled(),
            since: Some(humantime::format_rfc3339_seconds(now.since).to_string()),
            host: Some(target.ssh.host_name.clone()),
            user: Some(target.ssh.user.clone()),
            port: Some(target.ssh.port),
            local: Some(self.docker_host.clone()),
            remote: Some(now.route.as_ref().map_or(&target.remote, Route::remote).to_string()),
            transport: now.route.as_ref().filter(|_| now.engine.is_some()).map(Route::transport),
            carrier: now.carried.as_ref().filter(|_| now.engine.is_some()).map(|carried| carried.by),
            carrier_reason: now.carried.filter(|_| now.engine.is_some()).and_then(|carried| carried.why),
            connections: self.tunnel.connections(),
            flows_open: counters.flows_open,
            flows_total: counters.flows_total,
            flows_failed: counters.flows_failed,
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            settings: Some(Settings::of(&target, &self.docker_host, &told)),
            changed: Vec::new(),
            access: self.tunnel.access(),
            requests: self.tunnel.requests(),
            ports: self.tunnel.ports(),
            mounts: self.tunnel.mounts(),
            engine: now.engine,
            last_error: now.last_error.map(|(message, _)| message),
            last_reset: now
                .last_reset
                .map(|(when, why)| format!("{} a flow was reset: {why}", humantime::format_rfc3339_seconds(when))),
            pid: Some(std::process::id()),
            arguments: arguments(&told),
        }
    }

    fn options(&self) -> MutexGuard<'_, Options> {
        lock(&self.options)
    }

    /// Reloads the configuration, with these options added to the previous ones.
    pub(super) async fn reload(&self, added: Added) -> Result<Vec<String>, Failure> {
        let mut wanted = self.options().clone();
        added.to(&mut wanted.overrides);
        let warnings = reload(&wanted, &self.tunnel).await?;
        added.to(&mut self.options().overrides);
        Ok(warnings)
    }

    /// Serves a client until it disconnects or was told of the tunnel's end.
    pub(super) async fn serve(&self, stream: Stream, who: Who) {
        if let Err(e) = self.converse(stream, who).await {
            tracing::debug!("a control connection ended: {e}");
        }
    }

    async fn converse(&self, stream: Stream, who: Who) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut requests = Requests::new(read);
        // Counted from the start: a question may come before this client has had the time to say that it can answer.
        let mut expected = (who == Who::Starter).then(|| self.prompts.person());
        let hello =
            Event::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into(), pid: std::process::id() };
        send(&mut write, &hello).await?;
        let mut life = self.life.subscribe();
        loop {
            let request = tokio::select! {
                biased;
                request = requests.next() => request?,
                last = life_ends(&mut life) => {
                    // An idle client with an open connection does not delay the end.
                    return match last.filter(|_| who == Who::Starter) {
                        Some(event) => send(&mut write, &event).await,
                        None => Ok(()),
                    };
                }
            };
            let Some(request) = request else { return Ok(()) };
            match request {
                Request::Status => send(&mut write, &Event::Status { status: Box::new(self.status()) }).await?,
                Request::OpenPorts { ports, of } => {
                    let each: Vec<(u16, String)>;
                    self.tunnel.agree_to_ports(match (&ports, of) {
                        (None, _) => Agreed::All,
                        (Some(ports), None) => Agreed::Numbers(ports),
                        (Some(ports), Some(of)) => {
                            each = ports.iter().copied().zip(of).collect();
                            Agreed::Of(&each)
                        }
                    });
                    send(&mut write, &Event::Status { status: Box::new(self.status()) }).await?;
                }
                Request::Reconnect => {
                    self.tunnel.renew();
                    send(&mut write, &Event::Status { status: Box::new(self.status()) }).await?;
                }
                Request::Reload(added) => {
                    let event = match self.reload(added).await {
                        Ok(warnings) => Event::Reloaded { warnings },
                        Err(failure) => Event::Failed { failure },
                    };
                    send(&mut write, &event).await?;
                }
                Request::Mounts { what } => self.mounts(&mut requests, &mut write, what).await?,
                Request::Watch { interactive, limit_ms, agent } => {
                    let agent = agent.map(PathBuf::from).filter(|socket| socket.is_absolute());
                    let has_other_agent = agent.is_some_and(|socket| self.tunnel.prefer_agent(socket));
                    let limit = limit_ms.map(Duration::from_millis);
                    let watcher = Watcher { interactive, has_other_agent };
                    let _person = interactive.then(|| (self.prompts.person(), self.prompter.attended()));
                    drop(expected.take());
                    self.watch(&mut requests, &mut write, watcher, limit).await?;
                }
                Request::Down => return self.down(&mut write).await,
                Request::Answer { id, answer } => self.prompts.answer(id, answer),
            }
        }
    }

    /// Does something with the mounted directories, and shows them meanwhile.
    async fn mounts(&self, requests: &mut Requests, write: &mut WriteHalf, what: MountsTask) -> io::Result<()> {
        let tunnel = self.tunnel.clone();
        let mut work = std::pin::pin!(async move {
            match what {
                MountsTask::Check => tunnel.check_mounts().await.map(|()| 0),
                MountsTask::Sync => tunnel.sync_mounts().await.map(|()| 0),
                MountsTask::Prune => tunnel.prune_mounts().await,
            }
        });
        loop {
            tokio::select! {
                done = &mut work => {
                    let event = match done {
                        Ok(removed) => Event::Mounts { removed, trouble: None },
                        Err(trouble) => Event::Mounts { removed: 0, trouble: Some(trouble) },
                    };
                    send(write, &Event::Status { status: Box::new(self.status()) }).await?;
                    return send(write, &event).await;
                }
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    send(write, &Event::Status { status: Box::new(self.status()) }).await?;
                }
                request = requests.next() => if request?.is_none() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }

    async fn down(&self, write: &mut WriteHalf) -> io::Result<()> {
        let mut life = self.life.subscribe();
        self.stop.cancel();
        self.drains(&mut life, write).await?;
        send(write, &Event::Stopped).await
    }

    /// Says what the tunnel's end waits for, and waits for it.
    async fn drains(&self, life: &mut watch::Receiver<Life>, write: &mut WriteHalf) -> io::Result<()> {
        let limit_ms = Some(in_ms(self.tunnel.target().drain));
        send(write, &Event::Draining { flows: self.tunnel.counters().flows_open, limit_ms }).await?;
        let _ = life.wait_for(|life| !matches!(life, Life::Running)).await;
        Ok(())
    }

    /// Reports progress until the tunnel is up, has failed or the limit has passed.
    async fn watch(
        &self,
        requests: &mut Requests,
        write: &mut WriteHalf,
        watcher: Watcher,
        limit: Option<Duration>,
    ) -> io::Result<()> {
        let Some(limit) = limit else { return self.follow(requests, write, watcher).await };
        let following = self.follow(requests, write, watcher);
        let followed = if watcher.interactive {
            self.prompter.within(limit, following).await
        } else {
            self.prompter.within_unattended(limit, following).await
        };
        match followed {
            Some(followed) => followed,
            None => send(write, &Event::Failed { failure: self.out_of_time(limit) }).await,
        }
    }

    /// The failure of a tunnel that is not usable after `limit`: the error of its last attempt.
    fn out_of_time(&self, limit: Duration) -> Failure {
        let now = self.tunnel.watch().borrow().clone();
        let Some((cause, hint)) = now.last_error else {
            return tunnel::Error::Timeout { host: self.tunnel.target().address(), limit, step: now.step }.into();
        };
        Failure {
            exit: now.class.map_or(ExitCode::Unreachable, ExitCode::from),
            message: format!(
                "{} is {}, and was not up within {}",
                self.tunnel.target().name,
                now.state,
                humantime::format_duration(limit)
            ),
            causes: vec![cause],
            hint,
        }
    }

    async fn follow(&self, requests: &mut Requests, write: &mut WriteHalf, watcher: Watcher) -> io::Result<()> {
        let Watcher { interactive, has_other_agent: mut may_help } = watcher;
        let mut status = self.tunnel.watch();
        let mut life = self.life.subscribe();
        let mut question = self.prompts.watch();
        question.mark_changed();
        for message in self.tunnel.target().warnings() {
            send(write, &Event::Warning { message, said: false }).await?;
        }
        // A tunnel that has failed before is tried again, and may fail again.
        let mut stale = (status.borrow().state == State::Failed).then(|| status.borrow().since);
        if !status.borrow().state.is_usable() {
            self.tunnel.retry_now();
        }
        let mut signs = tokio::time::interval(SIGN_OF_LIFE);
        let (mut due, mut shown) = (false, None);
        let (mut said, mut heard) = (self.prompter.said(), 0);
        // The open question that was sent to the client.
        let mut asked = None;
        loop {
            let lines = said.borrow_and_update().since(&mut heard);
            for message in lines {
                send(write, &Event::Warning { message, said: true }).await?;
            }
            if self.stop.is_cancelled() {
                // Up it may still be, for the flows that end: not for whoever wants a tunnel now.
                self.drains(&mut life, write).await?;
            }
            let ended = life.borrow_and_update().last_word();
            if let Some(event) = ended {
                return send(write, &event).await;
            }
            let now = status.borrow_and_update().clone();
            match now.state {
                State::Up | State::Idle => {
                    return send(write, &Event::Status { status: Box::new(self.status()) }).await;
                }
                // An attempt that had begun before did not know of the agent.
                State::Failed if stale != Some(now.since) && std::mem::take(&mut may_help) => {
                    stale = Some(now.since);
                    self.tunnel.retry_now();
                }
                State::Failed if stale != Some(now.since) => {
                    let (message, hint) = now.last_error.unwrap_or_default();
                    // A possible impostor is reported whenever it is detected.
                    let exit = match now.class {
                        Some(Class::HostKey) => ExitCode::HostKey,
                        _ => ExitCode::NotUp,
                    };
                    let failure = Failure { exit, message, causes: Vec::new(), hint };
                    return send(write, &Event::Failed { failure }).await;
                }
                _ => {}
            }
            let next_ms = now.next_attempt.map(|at| in_ms(at.duration_since(SystemTime::now()).unwrap_or_default()));
            let trouble = now.last_error.map(|(message, _)| Trouble { message, next_ms });
            let news = Some((now.step, trouble.as_ref().map(|trouble| trouble.message.clone())));
            if due || shown != news {
                (due, shown) = (false, news);
                send(write, &Event::Step { step: now.step, trouble }).await?;
            }
            tokio::select! {
                _ = signs.tick() => due = true,
                _ = status.changed() => {}
                _ = life.changed() => {}
                _ = said.changed() => {}
                changed = question.changed(), if interactive => if changed.is_ok() {
                    let open = question.borrow_and_update().clone();
                    if let Some(id) = asked.take() {
                        send(write, &Event::PromptOver { id }).await?;
                    }
                    if let Some((id, question)) = open {
                        asked = Some(id);
                        send(write, &Event::Prompt { id, question }).await?;
                    }
                },
                request = requests.next() => match request? {
                    Some(Request::Answer { id, answer }) => self.prompts.answer(id, answer),
                    Some(_) => {}
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
    }
}

/// This process's command line, plus the options of reloads. Empty if it is not UTF-8.
fn arguments(told: &Overrides) -> Vec<String> {
    let words: Option<Vec<String>> = std::env::args_os().skip(1).map(|word| word.into_string().ok()).collect();
    let mut words = words.unwrap_or_default();
    // Options come before `--`, the target after it.
    let Some(end) = words.iter().position(|word| word == "--") else { return words };
    for (option, holds) in [("--ports", told.ports), ("--mounts", told.mounts), ("--lazy", told.lazy)] {
        if holds && !words[..end].iter().any(|word| word == option) {
            words.insert(end, option.into());
        }
    }
    words
}

/// Waits for the end, and returns the event that reports it.
async fn life_ends(life: &mut watch::Receiver<Life>) -> Option<Event> {
    life.wait_for(|life| !matches!(life, Life::Running)).await.ok().and_then(|life| life.last_word())
}

/// Whole milliseconds.
fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn send(write: &mut WriteHalf, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Sends events to a client that no task serves yet.
pub(super) fn say(stream: &BlockingStream, events: &[Event]) {
    use std::io::Write;
    for event in events {
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            let _ = (&*stream).write_all(&line);
        }
    }
}

/// Reads the requests of a client.
struct Requests {
    read: ReadHalf,
    /// Bytes received and not yet parsed. May hold a password: the buffer never grows, so that only one copy exists.
    line: Zeroizing<Vec<u8>>,
}

impl Requests {
    fn new(read: ReadHalf) -> Self {
        Self { read, line: Zeroizing::new(Vec::with_capacity(MAX_LINE)) }
    }

    /// The next request; None at the end of the connection. An invalid or too long line is an error, which ends the
    /// connection. Cancel safe: received bytes stay in `line`.
    async fn next(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let request = serde_json::from_slice(&self.line[..end]);
                let rest = self.line.len() - (end + 1);
                self.line.copy_within(end + 1.., 0);
                self.line[rest..].zeroize();
                self.line.truncate(rest);
                return Ok(Some(request?));
            }
            let room = MAX_LINE - self.line.len();
            if room == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a request is too long"));
            }
            if self.read.read_buf(&mut (&mut *self.line).limit(room)).await? == 0 {
                return if self.line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_read_line_by_line_however_they_come() {
        let (ours, theirs) = Stream::pair().expect("a pair");
        let (read, _write) = ours.into_split();
        let mut requests = Requests::new(read);
        let answer = Request::Answer { id: 7, answer: Some(crate::ssh::Secret::new("pass\"word".into())) };
        let mut text = serde_json::to_vec(&answer).expect("written");
        text.extend(b"\n{\"op\":\"status\"}\n{\"op\":\"do");
        let (mut write, rest) = (theirs, text.split_off(9));
        let writing = async {
            write.write_all(&text).await.expect("sent");
            tokio::task::yield_now().await;
            write.write_all(&rest).await.expect("sent");
            write.write_all(b"wn\"}\n").await.expect("sent");
            drop(write);
        };
        let reading = async {
            let Ok(Some(Request::Answer { id: 7, answer: Some(secret) })) = requests.next().await else {
                panic!("the answer")
            };
            assert_eq!(secret.reveal(), "pass\"word");
            assert!(matches!(requests.next().await, Ok(Some(Request::Status))));
            assert!(matches!(requests.next().await, Ok(Some(Request::Down))));
            assert!(matches!(requests.next().await, Ok(None)));
            assert_eq!((requests.line.len(), requests.line.capacity()), (0, MAX_LINE), "it has not grown");
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn a_line_without_end_ends_the_connection() {
        let (ours, mut theirs) = Stream::pair().expect("a pair");
        let (read, _write) = ours.into_split();
        let mut requests = Requests::new(read);
        let endless = async {
            // The other end may stop reading early.
            let _ = theirs.write_all(&vec![b'x'; MAX_LINE + 1]).await;
        };
        let (next, ()) = tokio::join!(requests.next(), endless);
        assert_eq!(next.expect_err("too long").kind(), io::ErrorKind::InvalidData);
    }
}
