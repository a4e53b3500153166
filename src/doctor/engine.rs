//! Checks the Engine and its clock.

use std::time::{Duration, Instant, SystemTime};

use super::check::Verdict;
use super::examination::{Examination, LIMIT, NO_LOGIN, Stage};
use crate::config::Remote;
use crate::engine;
use crate::host::{self, find_engine, open_engine};
use crate::ssh::ChannelStream;

/// Largest difference between the host's clock and this machine's that is not reported.
const SKEW: Duration = Duration::from_secs(5);

/// Finds the Engine and requests its version and time.
pub(super) async fn ask(examination: &mut Examination<'_>) -> Result<Stage, host::Error> {
    let Some(connection) = examination.connection.clone() else { return Ok(Stage::Skips(NO_LOGIN)) };
    let begun = Instant::now();
    let (route, _) = find_engine(&connection, examination.target, None).await?;
    let found = begun.elapsed();
    let (host, socket) = (examination.target.address(), route.remote().to_string());
    let asked = SystemTime::now();
    let begun = Instant::now();
    let channel = open_engine(&connection, &route, examination.target, LIMIT).await?;
    let version = engine::version(ChannelStream::from(channel), LIMIT).await;
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
    match route.endpoint().is_command() && !matches!(examination.target.remote, Remote::Command(_)) {
        true => examination.add(
            Verdict::Warning,
            Some(found + time),
            detail,
            Some("it works, each docker connection starts a command there; forwarding would be faster".into()),
        ),
        false => examination.ok(found + time, detail),
    }
    let Some(theirs) = version.date else {
        return Ok(Stage::Skips("the Engine did not tell the time"));
    };
    // The Engine answered about half a round trip earlier; its Date header has whole seconds.
    let ours = asked + time / 2;
    let (skew, word) = match theirs.duration_since(ours) {
        Ok(skew) => (skew, "ahead"),
        Err(e) => (e.duration(), "behind"),
    };
    if skew > SKEW {
        examination.add(
            Verdict::Warning,
            Some(time),
            format!("the host's clock is {} s {word}", skew.as_secs()),
            Some("set the clocks by NTP: `logs --since`, tokens and certificates depend on them".into()),
        );
    } else {
        examination.ok(time, "in step with ours");
    }
    Ok(Stage::Complete)
}
