//! Reloads the configuration, on SIGHUP and on a client's request.

use std::time::Duration;

use tokio::time::Instant;

use super::options::Options;
use crate::config::{ConfigFile, RuntimeFiles, Wanted, resolve, runtime_dir};
use crate::failure::{ExitCode, Failure};
use crate::tunnel::Tunnel;

/// Time limit for reading new settings and connecting with them. After it, the connection
/// attempt continues in the background.
pub const CONNECTING: Duration = Duration::from_secs(60);

/// Applies the current configuration and waits until it is in force; returns the warnings. An invalid configuration
/// changes nothing. Settings that need a restart are named in a warning; all others are applied.
pub(super) async fn reload(options: &Options, tunnel: &Tunnel) -> Result<Vec<String>, Failure> {
    let until = Instant::now() + CONNECTING;
    let before = tunnel.target();
    let asked = options.clone();
    let (config, wanted) = beside_the_tunnel(move || {
        let config = ConfigFile::load(&asked.config, asked.config_named)?;
        let wanted = Wanted::of(&asked.target, &config, &asked.overrides)?;
        Ok((config, wanted))
    })
    .await?;
    if before.has_profile && !wanted.has_profile() {
        // Without its profile the tunnel would lose its guard. Editors replace files in two steps, so the profile
        // may be missing for a moment.
        let message = format!("{} no longer has a profile named {}", options.config.display(), before.name);
        let hint = format!("add it again, or end the tunnel: dtunnel down {}", before.typed());
        return Err(as_before(Failure::new(ExitCode::Usage, message).hint(hint)));
    }
    tunnel.narrow(wanted.access()).map_err(|error| as_before(error.into()))?;
    // ssh_config may run commands, which take time.
    let (asked, name) = (options.clone(), before.name.clone());
    let mut target = beside_the_tunnel(move || {
        let files = RuntimeFiles::new(&runtime_dir()?, &name)?;
        Ok(resolve(&asked.target, &config, &asked.overrides, &files.socket)?)
    })
    .await?;
    let warnings = target.warnings();
    let moved = target.for_running(&before);
    let reloading = tunnel.reload(target).map_err(|error| as_before(error.into()))?;
    match tokio::time::timeout_at(until, reloading.settled()).await {
        Ok(Some(Ok(()))) => tracing::info!("read the configuration again"),
        Ok(Some(Err(error))) => return Err(as_before(error.into())),
        Ok(None) => return Err(as_before(Failure::new(ExitCode::Other, "another reload came in between"))),
        Err(_) => {
            let message = "a connection with the new settings is still being made";
            return Err(as_before(Failure::new(ExitCode::Unreachable, message)));
        }
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let Some(local) = moved else { return Ok(warnings) };
    let local = local.docker_host();
    let message = format!("the local endpoint {local} needs a restart; everything else was applied");
    Err(Failure::new(ExitCode::Other, message).hint(format!("dtunnel restart {}", before.typed())))
}

/// Runs slow work on another thread while the tunnel continues.
async fn beside_the_tunnel<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Failure::new(ExitCode::Other, e.to_string()))).map_err(as_before)
}

fn as_before(failure: Failure) -> Failure {
    Failure { message: format!("keeping the old settings: {}", failure.message), ..failure }
}
