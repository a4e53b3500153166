//! The ping with which every docker command begins (`HEAD /_ping`), answered at once from the Engine's last answer to it.
//!
//! The CLI waits for that answer before it asks what it wants to know: a round trip, for what is known here. The Engine is
//! pinged all the same, in the background; where its answer is no longer the same, clients that were told otherwise and have
//! had nothing else yet are cut.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::answer::{Answer, Keeps, Progress};
use crate::config::Target;
use crate::sync::lock;

/// An answer is not repeated for longer than this.
const MAX_AGE: Duration = Duration::from_secs(30);
/// An answer that is younger is not checked once more.
const YOUNG: Duration = Duration::from_secs(5);
/// Headers that tell a client how to ask on. The Engine checks the version of the API itself, with each request.
const TELLING: [&str; 4] = ["builder-version", "docker-experimental", "ostype", "swarm"];

/// Is this head the docker CLI's ping? Only the CLI is known to ask on: what pings to learn whether the Engine is well gets
/// the Engine's own word.
pub(super) fn is_cli_ping(head: &[u8]) -> bool {
    let Some(headers) = head.strip_prefix(b"HEAD /_ping HTTP/1.1\r\n") else { return false };
    let lines = std::str::from_utf8(headers).ok().and_then(|text| text.strip_suffix("\r\n\r\n")).unwrap_or_default();
    let (mut host, mut agent) = (false, false);
    for line in lines.split("\r\n") {
        match line.split_once(": ") {
            Some(("Host", _)) if !host => host = true,
            Some(("User-Agent", name)) if !agent && name.starts_with("Docker-Client/") => agent = true,
            _ => return false,
        }
    }
    host && agent
}

/// A client that was answered early.
pub(super) trait Told: fmt::Debug + Send + Sync {
    /// Has it had nothing else?
    fn is_told(&self) -> bool;

    /// Cuts it, where it has had nothing else.
    fn cut_if_told(&self);
}

/// What one tunnel knows of its Engine's answer.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct Pings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Counts the times that the tunnel came up, or was led elsewhere: earlier answers are worth nothing then.
    generation: u64,
    /// When the tunnel came up, and where it leads.
    era: Option<(SystemTime, Arc<Target>)>,
    known: Option<Known>,
    /// Clients that were answered from here. Those that have had anything else do not mind any more.
    told: Vec<Weak<dyn Told>>,
    /// Counts the changes of `said`.
    edition: u64,
    /// What of the answer tells a client how to ask on, as these clients were told.
    said: Vec<(String, String)>,
}

impl State {
    fn as_of(&self) -> AsOf {
        AsOf { generation: self.generation, edition: self.edition }
    }
}

#[derive(Debug)]
struct Known {
    /// The head, without its date and its end.
    head: String,
    since: Instant,
}

/// An answer for a client.
#[derive(Debug)]
pub(in crate::tunnel) struct Early {
    /// The bytes.
    pub(in crate::tunnel) answer: Bytes,
    /// Is the Engine to be asked once more?
    pub(in crate::tunnel) is_to_be_checked: bool,
    /// As of when it is true.
    pub(super) as_of: AsOf,
}

/// When a client was told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AsOf {
    generation: u64,
    edition: u64,
}

impl Pings {
    /// The tunnel has been up since then, and leads there. Where that is new, nothing is known.
    pub(in crate::tunnel) fn enter(&self, since: SystemTime, target: &Arc<Target>) {
        let mut state = lock(&self.0);
        let is_same = |era: &(SystemTime, Arc<Target>)| era.0 == since && Arc::ptr_eq(&era.1, target);
        if !state.era.as_ref().is_some_and(is_same) {
            state.generation += 1;
            state.known = None;
            state.era = Some((since, target.clone()));
        }
    }

    /// Repeats the answer no more: the Engine may be unwell now.
    pub(in crate::tunnel) fn forget(&self) {
        lock(&self.0).known = None;
    }

    /// Counts the changes after which earlier answers are worth nothing.
    pub(in crate::tunnel) fn generation(&self) -> u64 {
        lock(&self.0).generation
    }

    /// The answer for a client at this time.
    pub(in crate::tunnel) fn answer(&self, now: SystemTime) -> Option<Early> {
        let state = lock(&self.0);
        let known = state.known.as_ref().filter(|known| known.since.elapsed() <= MAX_AGE)?;
        let answer = format!("{}\r\nDate: {}\r\n\r\n", known.head, httpdate::fmt_http_date(now));
        Some(Early { answer: answer.into(), is_to_be_checked: known.since.elapsed() > YOUNG, as_of: state.as_of() })
    }

    /// A client was told what was true then.
    pub(super) fn told(&self, client: Arc<dyn Told>, as_of: AsOf) {
        let mut state = lock(&self.0);
        if state.as_of() != as_of {
            return client.cut_if_told();
        }
        state.told.retain(|client| client.upgrade().is_some_and(|client| client.is_told()));
        state.told.push(Arc::downgrade(&client));
    }

    /// The Engine's answer to a ping that was sent in this [generation](Self::generation); without one, there was none.
    pub(in crate::tunnel) fn heard(&self, generation: u64, head: Option<&[u8]>) {
        let mut state = lock(&self.0);
        if generation != state.generation {
            return;
        }
        let head = head.and_then(read);
        let said = head.as_deref().map(telling);
        if said.as_ref().is_none_or(|said| *said != state.said) {
            // Cuts those who were told what is not true any more, and those who are just being told.
            state.edition += 1;
            state.told.drain(..).filter_map(|client| client.upgrade()).for_each(|client| client.cut_if_told());
        }
        state.said = said.unwrap_or_default();
        state.known = head.map(|head| Known { head, since: Instant::now() });
    }
}

/// Asks the Engine this; the head of its answer, where that is whole.
pub(in crate::tunnel) async fn ask(
    mut engine: impl AsyncRead + AsyncWrite + Unpin,
    question: &[u8],
) -> Option<Vec<u8>> {
    engine.write_all(question).await.ok()?;
    let mut answer = Answer::new(true, Keeps { head: true, ..Keeps::default() });
    loop {
        let mut piece = [0; 2048];
        let size = engine.read(&mut piece).await.ok().filter(|size| *size > 0)?;
        match answer.feed(&piece[..size]) {
            Progress::More => {}
            Progress::Complete => return answer.head().map(<[u8]>::to_vec),
            _ => return None,
        }
    }
}

/// What of a head is kept: its lines without the date, where it is a 200.
fn read(head: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let is_date = |line: &&str| line.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("date"));
    let lines: Vec<&str> = text.split("\r\n").filter(|line| !is_date(line)).collect();
    lines.first().is_some_and(|line| line.starts_with("HTTP/1.1 200")).then(|| lines.join("\r\n"))
}

/// The headers of a head that tell a client how to ask on, in their order.
fn telling(head: &str) -> Vec<(String, String)> {
    let headers = head.split("\r\n").filter_map(|line| line.split_once(':'));
    headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .filter(|(name, _)| TELLING.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Overrides, resolve};

    const HEAD: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nSwarm: inactive\r\nContent-Length: 0\r\n";

    fn head(more: &str) -> Vec<u8> {
        format!("{HEAD}{more}Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n\r\n").into_bytes()
    }

    fn target() -> Arc<Target> {
        let config = ConfigFile::parse("", std::path::Path::new("config.toml")).expect("valid");
        let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
        Arc::new(resolve("lab", &config, &overrides, std::path::Path::new("/run/x.sock")).expect("resolved"))
    }

    fn is_known(pings: &Pings) -> bool {
        pings.answer(SystemTime::UNIX_EPOCH).is_some()
    }

    #[test]
    fn only_the_whole_ping_of_the_docker_cli_is_one() {
        let ping = |method: &str, path: &str, headers: &str| {
            is_cli_ping(format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n").as_bytes())
        };
        let agent = "User-Agent: Docker-Client/20.10.24 (linux)\r\n";
        assert!(ping("HEAD", "/_ping", agent));
        for (method, path, headers) in [
            ("GET", "/_ping", agent),
            ("HEAD", "/v1.41/_ping", agent),
            ("HEAD", "/_ping?x", agent),
            ("HEAD", "/_ping", ""),
            ("HEAD", "/_ping", "User-Agent: docker-sdk-python/7\r\n"),
            ("HEAD", "/_ping", &format!("{agent}X-Mine: 1\r\n")),
            ("HEAD", "/_ping", &format!("{agent}Host: other\r\n")),
            ("HEAD", "/_ping", &format!("{agent}Content-Length: 3\r\n")),
        ] {
            assert!(!ping(method, path, headers), "{method} {path} {headers}");
        }
        assert!(!is_cli_ping(b"HEAD /_ping HTTP/1.1\r\n\r\n") && !is_cli_ping(b""));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_repeated_with_a_date_of_now_and_for_a_while() {
        let pings = Pings::default();
        assert!(!is_known(&pings));
        pings.heard(0, Some(&head("")));
        let Early { answer, is_to_be_checked, .. } = pings.answer(SystemTime::UNIX_EPOCH).expect("known");
        assert_eq!(answer, format!("{HEAD}Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"));
        assert!(!is_to_be_checked);
        tokio::time::advance(YOUNG + Duration::from_millis(1)).await;
        assert!(pings.answer(SystemTime::UNIX_EPOCH).expect("known").is_to_be_checked);
        tokio::time::advance(MAX_AGE - YOUNG).await;
        assert!(!is_known(&pings));
    }

    #[test]
    fn what_is_known_is_forgotten_where_the_engine_may_be_another_one() {
        let pings = Pings::default();
        let (here, there, now) = (target(), target(), SystemTime::now());
        pings.enter(now, &here);
        let learn = |generation| {
            pings.heard(generation, Some(&head("")));
            is_known(&pings)
        };
        assert!(learn(pings.generation()));
        pings.enter(now, &here);
        assert!(is_known(&pings));
        pings.enter(now + Duration::from_secs(1), &here);
        assert!(!is_known(&pings), "it was down meanwhile");
        assert!(learn(pings.generation()));
        let old = pings.generation();
        pings.enter(now + Duration::from_secs(1), &there);
        assert!(!is_known(&pings), "it leads elsewhere");
        assert!(!learn(old), "of the one before");
        assert!(learn(pings.generation()));
        pings.forget();
        assert!(!is_known(&pings) && learn(pings.generation()));
    }
}
