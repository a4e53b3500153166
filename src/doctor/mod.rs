//! Every step from a target to its Engine, tried one by one, each with its time and a verdict.
//!
//! Changes nothing, here or there: no key is learnt, no socket made, no tunnel touched. Knows nothing
//! of daemons or terminals; whoever asks is handed each [`Check`] as it is done.

mod check;
mod local;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use crate::config::{Proxy, Remote, Target};
use crate::engine;
use crate::failure;
use crate::host::{self, Access, Route, Survey, find_engine, open_engine};
use crate::ssh::{self, Connection, Credentials, Endpoint, News, OnStep, OpenError, Phase, Prompter, Step};
use crate::sync::lock;
use crate::text;
pub use check::{Check, Verdict};

/// Longest time for each small step.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest greeting of a server that is read, in bytes (RFC 4253 section 4.2: 255 a line).
const MAX_GREETING: u64 = 1024;
/// Longest part of it that is shown, in characters.
const MAX_LINE: usize = 255;
/// More than this between the host's clock and ours is worth a word.
const SKEW: Duration = Duration::from_secs(5);

/// The steps, in order.
const STEPS: [&str; 11] = [
    "target",
    "resolve",
    "tcp",
    "greeting",
    "key-exchange",
    "host-key",
    "login",
    "host",
    "forwarding",
    "engine",
    "clock",
];

/// Looks at this machine alone: whether tunnels can be made here.
pub fn examine_machine(on_check: &mut dyn FnMut(Check)) {
    local::check_machine(on_check);
}

/// Tries all of them. `tunnel` is the local endpoint of the target's tunnel, where one runs.
///
/// # Errors
/// Why the first step failed that did.
pub async fn examine(
    target: &Target,
    tunnel: Option<&str>,
    prompter: &Prompter,
    on_check: &mut dyn FnMut(Check),
) -> Result<(), host::Error> {
    let mut examination = Examination { target, prompter, on_check, done: 0 };
    let result = examination.run().await;
    if let Err(error) = &result {
        examination.fail(error);
    }
    examination.skip_to("", "a step before it failed");
    (examination.on_check)(local::check(target, tunnel));
    result
}

struct Examination<'a> {
    target: &'a Target,
    prompter: &'a Prompter,
    on_check: &'a mut dyn FnMut(Check),
    /// Steps that have their check.
    done: usize,
}

impl Examination<'_> {
    /// The next step is done.
    fn add(&mut self, verdict: Verdict, time: Option<Duration>, detail: impl Into<String>, remedy: Option<String>) {
        let Some(id) = STEPS.get(self.done) else { return };
        self.done += 1;
        let ms = time.map(|time| (time.as_secs_f64() * 1e5).round() / 100.0);
        (self.on_check)(Check { id, verdict, ms, detail: detail.into(), remedy });
    }

    fn ok(&mut self, time: Duration, detail: impl Into<String>) {
        self.add(Verdict::Ok, Some(time), detail, None);
    }

    /// Skips the steps before `id`; an unknown one skips all that are left.
    fn skip_to(&mut self, id: &str, why: &str) {
        while STEPS.get(self.done).is_some_and(|next| *next != id) {
            self.add(Verdict::Skipped, None, why, None);
        }
    }

    fn fail(&mut self, error: &host::Error) {
        self.add(Verdict::Failed, None, failure::with_causes(error), error.hint());
    }

    async fn run(&mut self) -> Result<(), host::Error> {
        let target = self.target;
        let way = match &target.ssh.proxy {
            Proxy::None => String::new(),
            Proxy::Command(command) => format!(" through `{command}`"),
            Proxy::Jump(hops) => {
                format!(" through {}", hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let about = format!("{}{way}", target.address());
        match target.warnings() {
            warnings if warnings.is_empty() => self.ok(Duration::ZERO, about),
            warnings => self.add(Verdict::Warning, None, about, Some(warnings.join("; "))),
        }
        if target.ssh.proxy == Proxy::None {
            self.reach().await?;
        } else {
            self.skip_to("key-exchange", "others make this connection for us");
        }
        let connection = self.connect().await?;
        let survey = self.look_around(&connection).await;
        self.forwarding(&connection, survey.as_ref()).await?;
        let begun = Instant::now();
        let (route, _) = find_engine(&connection, target, None).await?;
        self.engine(&connection, &route, begun.elapsed()).await
    }

    /// Name, TCP, greeting: as the connection will do it, but one by one.
    async fn reach(&mut self) -> Result<(), ssh::Error> {
        let ssh = &self.target.ssh;
        let (host, port) = (&ssh.host_name, ssh.port);
        let timeout = |step| move |_| ssh::Error::Timeout { host: host.clone(), step, limit: LIMIT };
        let begun = Instant::now();
        let resolving = tokio::time::timeout(LIMIT, tokio::net::lookup_host((host.as_str(), port))).await;
        let found = resolving
            .map_err(timeout(Phase::Resolution))?
            .map_err(|source| ssh::Error::Resolve { host: host.clone(), source })?;
        let addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
        self.ok(begun.elapsed(), addresses.join(", "));

        let begun = Instant::now();
        let connecting = tokio::time::timeout(self.target.connect_timeout, TcpStream::connect((host.as_str(), port)));
        let stream = connecting.await.map_err(timeout(Phase::Tcp))?.map_err(|source| ssh::Error::Connect {
            host: host.clone(),
            port,
            source,
        })?;
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        self.ok(begun.elapsed(), peer);

        let begun = Instant::now();
        let mut stream = BufReader::new(stream.take(MAX_GREETING));
        let greeting = async {
            // Lines before the greeting are allowed (RFC 4253 section 4.2).
            let mut said = Vec::new();
            loop {
                let from = said.len();
                match stream.read_until(b'\n', &mut said).await {
                    Ok(1..) if said[from..].starts_with(b"SSH-") => return Ok(text::shown_bytes(&said[from..])),
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Err(said),
                }
            }
        };
        match tokio::time::timeout(LIMIT, greeting).await {
            Ok(Ok(line)) => self.ok(begun.elapsed(), shown(&line)),
            Ok(Err(said)) => return Err(ssh::no_greeting(host, port, &said)),
            // Some only speak when they are spoken to; the connection itself tells what they are.
            Err(_) => {
                let silent = "nothing: it waits to be spoken to, as no SSH server does";
                self.add(Verdict::Warning, Some(begun.elapsed()), silent, None);
            }
        }
        Ok(())
    }

    /// Key exchange, host key, login.
    async fn connect(&mut self) -> Result<Connection, ssh::Error> {
        let target = self.target.looking_only();
        let heard = Arc::new(Mutex::new((Vec::new(), None)));
        let noted = heard.clone();
        let on_step: OnStep = Arc::new(move |news| {
            let mut heard = lock(&noted);
            match news {
                News::Step(step) => heard.0.push((step, Instant::now())),
                News::Agreed(facts) => heard.1 = Some(facts),
            }
        });
        let result = Connection::establish(&target, self.prompter, &Credentials::new(false), &on_step).await;
        let (steps, agreed) = lock(&heard).clone();
        // With hops each of them takes these steps: the last one's are the target's.
        let at = |wanted: Step| steps.iter().rev().find(|(step, _)| *step == wanted).map(|(_, at)| *at);
        let between = |from: Step, to: Option<Instant>| match (at(from), to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => Duration::ZERO,
        };
        let facts = result.as_ref().ok().map(Connection::facts).or(agreed);
        let reached = |step| at(step).is_some();
        if reached(Step::HostKey) {
            let detail = facts.as_ref().map_or_else(
                || "not complete: the server has shown its host key".into(),
                |facts| {
                    let strict = if facts.strict { "" } else { ", not strict (the Terrapin attack)" };
                    let mac = if facts.cipher.contains("gcm") || facts.cipher.contains("poly1305") {
                        String::new()
                    } else {
                        format!(", {}", facts.mac)
                    };
                    format!("{}, {}{mac}{strict}", facts.kex, facts.cipher)
                },
            );
            let time = between(Step::Connecting, at(Step::HostKey));
            match facts.as_ref().is_some_and(|facts| !facts.strict) {
                true => self.add(
                    Verdict::Warning,
                    Some(time),
                    detail,
                    Some("update the server's OpenSSH to 9.6 or later".into()),
                ),
                false => self.ok(time, detail),
            }
        }
        if reached(Step::Authenticating) {
            let key = facts.as_ref().map(|facts| format!("{}, ", facts.host_key)).unwrap_or_default();
            self.ok(between(Step::HostKey, at(Step::Authenticating)), format!("{key}trusted"));
        }
        let connection = result?;
        let login = connection.login();
        let used = login.tried.last().map_or("no proof at all", String::as_str);
        let others = match login.tried.len() {
            0 | 1 => String::new(),
            more => format!(" after {} that were refused", more - 1),
        };
        let offered = match login.offered.is_empty() {
            true => String::new(),
            false => format!("; the server also takes {}", login.offered.join(", ")),
        };
        self.ok(between(Step::Authenticating, Some(Instant::now())), format!("{used}{others}{offered}"));
        Ok(connection)
    }

    async fn look_around(&mut self, connection: &Connection) -> Option<Survey> {
        let begun = Instant::now();
        let survey = Survey::take(connection, self.target.remote.socket()).await;
        let time = Some(begun.elapsed());
        let survey = match survey {
            Ok(survey) => survey,
            Err(said) => {
                let said = if said.is_empty() { said } else { format!(": {said}") };
                let detail = format!("this login runs no commands, so nothing could be looked at there{said}");
                let fix = "nothing, if this is a login that is for tunnels only: it is as it should be".into();
                self.add(Verdict::Warning, time, detail, Some(fix));
                return None;
            }
        };
        let sockets: Vec<String> = survey
            .sockets
            .iter()
            .filter(|socket| socket.access != Access::Absent)
            .map(|socket| {
                let denied = if socket.access == Access::Denied { ", not for this login" } else { "" };
                format!("{} ({}{denied})", socket.path, socket.listing)
            })
            .collect();
        let sockets = if sockets.is_empty() { "no Engine's socket".into() } else { sockets.join(", ") };
        self.add(Verdict::Ok, time, format!("{} in {}; {sockets}", survey.user, survey.groups.join(", ")), None);
        Some(survey)
    }

    /// Does the server forward, and if not, which setting is it, most likely?
    async fn forwarding(&mut self, connection: &Connection, survey: Option<&Survey>) -> Result<(), ssh::Error> {
        let usable = survey.and_then(|survey| survey.usable().next());
        let path = self.target.remote.socket().map(str::to_owned).or_else(|| usable.map(|socket| socket.path.clone()));
        let Some(path) = path.filter(|_| !matches!(self.target.remote, Remote::Tcp { .. } | Remote::Command(_))) else {
            self.add(Verdict::Skipped, None, "no socket to try it with", None);
            return Ok(());
        };
        let begun = Instant::now();
        let opened = tokio::time::timeout(LIMIT, connection.open(&Endpoint::Streamlocal(path.clone()))).await;
        let time = begun.elapsed();
        match opened {
            Ok(Ok(channel)) => {
                channel.close().await;
                self.ok(time, format!("to {path}"));
            }
            Ok(Err(OpenError::Lost)) => return Err(connection.ended().await),
            Ok(Err(error)) => {
                let remedy = self.likely_setting(connection, usable.is_some_and(|socket| socket.path == path)).await;
                self.add(Verdict::Warning, Some(time), error.to_string(), Some(remedy));
            }
            Err(_) => self.add(Verdict::Warning, Some(time), format!("no answer about {path}"), None),
        }
        Ok(())
    }

    /// A port where nobody listens tells: a server that may connect says that it failed to, one that
    /// may not says that it is prohibited.
    async fn likely_setting(&self, connection: &Connection, usable: bool) -> String {
        let nowhere = Endpoint::Tcp { host: "127.0.0.1".into(), port: 1 };
        let prohibited = match tokio::time::timeout(LIMIT, connection.open(&nowhere)).await {
            Ok(Err(error)) => error.is_prohibited(),
            Ok(Ok(channel)) => {
                channel.close().await;
                false
            }
            Err(_) => false,
        };
        match (prohibited, usable) {
            (true, _) => {
                "sshd forwards nothing for this login: `AllowTcpForwarding yes` and no `DisableForwarding` in the \
                          host's sshd_config, and in authorized_keys `restrict,port-forwarding` in place of `restrict`"
                    .into()
            }
            (false, true) => "sshd forwards ports but not sockets: `AllowStreamLocalForwarding yes` in the host's \
                              sshd_config; in authorized_keys no `permitopen=`"
                .into(),
            (false, false) => "sshd may forward; see the next step for the socket itself".into(),
        }
    }

    async fn engine(&mut self, connection: &Connection, route: &Route, found: Duration) -> Result<(), host::Error> {
        let (host, socket) = (self.target.address(), route.remote().to_string());
        let asked = SystemTime::now();
        let begun = Instant::now();
        let channel = open_engine(connection, route, self.target, LIMIT).await?;
        let version = engine::version(channel.into_stream(), LIMIT).await;
        let version = version.map_err(|source| host::Error::Engine { host, socket, source })?;
        let time = begun.elapsed();
        let detail = format!(
            "{} (API {}, {}/{}) at {}, {}",
            version.engine.version,
            version.engine.api_version,
            version.os,
            version.arch,
            route.remote(),
            route.transport()
        );
        match route.endpoint().is_command() && !matches!(self.target.remote, Remote::Command(_)) {
            true => self.add(
                Verdict::Warning,
                Some(found + time),
                detail,
                Some("it works, each docker connection starts a command there; forwarding would be faster".into()),
            ),
            false => self.ok(found + time, detail),
        }
        let Some(theirs) = version.date else {
            self.skip_to("", "the Engine did not tell the time");
            return Ok(());
        };
        // The answer was made about half a round trip ago; the header has whole seconds.
        let ours = asked + time / 2;
        let (skew, word) = match theirs.duration_since(ours) {
            Ok(skew) => (skew, "ahead"),
            Err(e) => (e.duration(), "behind"),
        };
        if skew > SKEW {
            self.add(
                Verdict::Warning,
                Some(time),
                format!("the host's clock is {} s {word}", skew.as_secs()),
                Some("set the clocks by NTP: `logs --since`, tokens and certificates depend on them".into()),
            );
        } else {
            self.ok(time, "in step with ours");
        }
        Ok(())
    }
}

/// A server's greeting, fit for a terminal.
fn shown(line: &str) -> String {
    text::shown_at_most(line, MAX_LINE)
}
