//! The login: key exchange, host key, and authentication.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::check::Verdict;
use super::examination::{Examination, Stage};
use crate::host;
use crate::ssh::{self, ConnectContext, Connection, News, OnStep, Step};
use crate::sync::lock;

/// Logs in as a tunnel does, but stores no host key.
pub(super) async fn log_in(examination: &mut Examination<'_>) -> Result<Stage, host::Error> {
    let connection = connect(examination).await?;
    examination.connection = Some(Arc::new(connection));
    Ok(Stage::Complete)
}

async fn connect(examination: &mut Examination<'_>) -> Result<Connection, ssh::Error> {
    let heard = Arc::new(Mutex::new((Vec::new(), None)));
    let noted = heard.clone();
    let on_step: OnStep = Arc::new(move |news| {
        let mut heard = lock(&noted);
        match news {
            News::Step(step) => heard.0.push((step, Instant::now())),
            News::Agreed(facts) => heard.1 = Some(facts),
        }
    });
    let result =
        Connection::establish(examination.target, &ConnectContext::looking_only(examination.prompter.clone(), on_step))
            .await;
    let (steps, agreed) = lock(&heard).clone();
    // Each hop takes these steps as well; the last ones are the target's.
    let at = |wanted: Step| steps.iter().rev().find(|(step, _)| *step == wanted).map(|(_, at)| *at);
    let between = |from: Step, to: Option<Instant>| match (at(from), to) {
        (Some(from), Some(to)) => to.saturating_duration_since(from),
        _ => Duration::ZERO,
    };
    let facts = result.as_ref().ok().and_then(Connection::negotiated).or(agreed);
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
            true => examination.add(
                Verdict::Warning,
                Some(time),
                detail,
                Some("update the server's OpenSSH to 9.6 or later".into()),
            ),
            false => examination.ok(time, detail),
        }
    }
    if reached(Step::Authenticating) {
        let key = facts.as_ref().map(|facts| format!("{}, ", facts.host_key)).unwrap_or_default();
        examination.ok(between(Step::HostKey, at(Step::Authenticating)), format!("{key}trusted"));
    }
    let connection = result?;
    if let Some(why) = &connection.carried().why {
        // dtunnel's own SSH may have come as far as the login before.
        while examination.left() > 1 {
            examination.ok(Duration::ZERO, format!("by the machine's ssh: {why}"));
        }
    }
    let login = connection.login();
    let used = login.tried.last().map_or("no credentials", String::as_str);
    let others = match login.tried.len() {
        0 | 1 => String::new(),
        more => format!(" after {} that were refused", more - 1),
    };
    let offered = match login.offered.is_empty() {
        true => String::new(),
        false => format!("; the server also accepts {}", login.offered.join(", ")),
    };
    examination.ok(between(Step::Authenticating, Some(Instant::now())), format!("{used}{others}{offered}"));
    Ok(connection)
}
