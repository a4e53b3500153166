//! Reading the configuration again, at SIGHUP and when a client asks.

use super::Options;
use super::failure::{ExitCode, Failure};
use crate::config::{ConfigFile, RuntimeFiles, resolve, runtime_dir};
use crate::tunnel::Tunnel;

/// Goes on with what the configuration says by now; the warnings that go with it. What is wrong in it changes
/// nothing.
pub(super) fn reload(options: &Options, tunnel: &Tunnel) -> Result<Vec<String>, Failure> {
    let before = tunnel.target();
    let config = ConfigFile::load(&options.config, options.config_named)?;
    let files = RuntimeFiles::new(&runtime_dir()?, &before.name)?;
    let target = resolve(&options.target, &config, &options.overrides, &files.socket)?;
    let warnings = target.warnings();
    let moved = target.local != before.local;
    let local = target.local.docker_host();
    tunnel.reload(target)?;
    tracing::info!("read the configuration again");
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if moved {
        let failure =
            Failure::new(ExitCode::Other, format!("the local endpoint {local} takes a restart; all else was taken on"));
        return Err(failure.hint(format!("dtunnel restart {}", before.typed())));
    }
    Ok(warnings)
}
