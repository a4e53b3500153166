//! Reading the configuration again, at SIGHUP and when a client asks.

use super::Options;
use super::failure::{ExitCode, Failure};
use crate::config::{ConfigFile, RuntimeFiles, Target, resolve, runtime_dir};
use crate::tunnel::Tunnel;

/// Goes on with what the configuration says by now; the warnings that go with it. What is wrong in it changes
/// nothing, and what takes a restart is named while all else is taken on.
pub(super) fn reload(options: &Options, tunnel: &Tunnel) -> Result<Vec<String>, Failure> {
    let before = tunnel.target();
    let target = wanted(options, tunnel).map_err(as_before)?;
    let warnings = target.warnings();
    let moved = (target.local != before.local).then(|| target.local.docker_host());
    tunnel.reload(target).map_err(|error| as_before(error.into()))?;
    tracing::info!("read the configuration again");
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let Some(local) = moved else { return Ok(warnings) };
    let message = format!("the local endpoint {local} takes a restart; all else was taken on");
    Err(Failure::new(ExitCode::Other, message).hint(format!("dtunnel restart {}", before.typed())))
}

/// What the configuration says now.
fn wanted(options: &Options, tunnel: &Tunnel) -> Result<Target, Failure> {
    let config = ConfigFile::load(&options.config, options.config_named)?;
    let files = RuntimeFiles::new(&runtime_dir()?, &tunnel.target().name)?;
    Ok(resolve(&options.target, &config, &options.overrides, &files.socket)?)
}

fn as_before(failure: Failure) -> Failure {
    Failure { message: format!("going on as before: {}", failure.message), ..failure }
}
