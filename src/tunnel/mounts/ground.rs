//! What the host has for mirrors: the way to it, the place for them, and what is at a path.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::host::Mirror;
use super::login::Login;
use crate::engine::{self, Mounting};
use crate::os::beneath;
use crate::shell_word::quoted;
use crate::text::shown;
use crate::tunnel::dial::Dial;
use crate::tunnel::engine_events::session;

/// Time limit of an answer from the Engine.
const ANSWER: Duration = Duration::from_secs(10);
/// Time limit of a question to the host.
const QUESTION: Duration = Duration::from_secs(10);
/// Says where the login's cache is, if the host has what mirrors take.
const CACHE: &str = "for p in find stat tar; do command -v $p >/dev/null || { echo \"the host has no $p\" >&2; exit 1; }; \
                     done; printf %s \"${XDG_CACHE_HOME:-$HOME/.cache}\"";

/// The host, as far as mirrors need it.
#[derive(Debug, Default)]
pub(super) struct Ground {
    /// How to reach it; None while directories are not mounted.
    login: watch::Sender<Option<Login>>,
    base: tokio::sync::Mutex<Option<Base>>,
}

/// Where mirrors are on the host.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// The login's directory for them.
    pub(super) dir: String,
    /// The login may run no commands.
    pub(super) by_sftp: bool,
}

/// What the host has at a path of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnHost {
    Absent,
    /// The very same: both share the file system, or are one machine.
    Same,
    Other,
}

impl Ground {
    /// Directories are mounted there from now on. None: they are not any more.
    pub(super) fn set(&self, login: Option<Login>) {
        self.login.send_replace(login);
        // It may be another host's.
        if let Ok(mut base) = self.base.try_lock() {
            *base = None;
        }
    }

    /// The login, once directories are mounted.
    ///
    /// # Errors
    /// They are not.
    pub(super) async fn login(&self) -> Result<Login, String> {
        let mut login = self.login.subscribe();
        let login = tokio::time::timeout(QUESTION, login.wait_for(Option::is_some)).await;
        let login = login.map_err(|_| "directories are not mounted now")?.map_err(|_| "the tunnel has ended")?;
        login.clone().ok_or_else(|| "directories are not mounted now".into())
    }

    async fn ask(&self, script: &str) -> Result<String, String> {
        let login = self.login().await?;
        let answer = tokio::time::timeout(QUESTION, login.ask(script)).await;
        let answer =
            answer.map_err(|_| format!("the host did not answer within {}", humantime::format_duration(QUESTION)))?;
        answer.map_err(|e| format!("directories of this machine cannot be mounted: {}", shown(&e.to_string())))
    }

    /// Where the login's mirrors are on its host, and how they are reached.
    ///
    /// # Errors
    /// Why the host can have none.
    pub(super) async fn base(&self) -> Result<Base, String> {
        let mut base = self.base.lock().await;
        if let Some(base) = &*base {
            return Ok(base.clone());
        }
        let by_commands = self.ask(CACHE).await;
        let (cache, by_sftp) = match by_commands {
            Ok(cache) => (cache, false),
            Err(why) => match self.by_sftp(Mirror::home_by_sftp).await {
                Ok(home) => (format!("{home}/.cache"), true),
                Err(of_sftp) => return Err(format!("{why}; by SFTP: {of_sftp}")),
            },
        };
        // It becomes part of a bind.
        if !cache.starts_with('/') || cache.contains(|c: char| c.is_control() || c == ':' || c == ',') {
            return Err(format!("mirrors cannot be in {} on the host", shown(&cache)));
        }
        let dir = format!("{}/dtunnel/mounts", cache.trim_end_matches('/'));
        Ok(base.insert(Base { dir, by_sftp }).clone())
    }

    async fn by_sftp<T>(&self, question: impl AsyncFnOnce(&Login) -> std::io::Result<T>) -> Result<T, String> {
        let login = self.login().await?;
        let answer = tokio::time::timeout(QUESTION, question(&login)).await;
        answer.map_err(|_| "the host's SFTP server does not answer".to_owned())?.map_err(|e| shown(&e.to_string()))
    }

    /// What the host has at this path of ours.
    ///
    /// # Errors
    /// The host did not say.
    pub(super) async fn look(&self, path: &str) -> Result<OnHost, String> {
        if self.base().await?.by_sftp {
            let is_there = self.by_sftp(async |login| Mirror::is_there_by_sftp(login, path).await).await?;
            return Ok(if is_there { OnHost::Other } else { OnHost::Absent });
        }
        let script = format!("if [ -e {0} ] || [ -L {0} ]; then stat -c '%i %s %Y %Z' {0}; fi", quoted(path));
        let theirs = self.ask(&script).await?;
        if theirs.trim().is_empty() {
            return Ok(OnHost::Absent);
        }
        let path = PathBuf::from(path);
        let ours = blocking(move || std::fs::symlink_metadata(path)).await?.map(|meta| beneath::marks(&meta));
        Ok(if ours.is_ok_and(|ours| ours == theirs.trim()) { OnHost::Same } else { OnHost::Other })
    }
}

/// Does it on a thread that may block.
///
/// # Errors
/// It panicked.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())
}

/// All containers, with what they mount.
///
/// # Errors
/// The Engine's.
pub(super) async fn containers(dial: &Arc<dyn Dial>) -> Result<Vec<Mounting>, engine::Error> {
    session(dial).await?.mountings(ANSWER).await
}
