//! `dtunnel version`.

use clap::Args;
use serde::Serialize;

use super::ui::ui;
use crate::failure::Failure;

/// The text of `--version` after the program's name.
pub(super) const LINE: &str = env!("DTUNNEL_VERSION");

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Print a JSON object, for programs
    #[arg(long)]
    pub(super) json: bool,
}

/// The `--json` output. Data unknown to the build is null.
#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    commit: Option<&'static str>,
    date: Option<&'static str>,
    target: &'static str,
}

pub(super) fn version() -> Result<(), Failure> {
    let known = |text: &'static str| (!text.is_empty()).then_some(text);
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: known(env!("DTUNNEL_COMMIT")),
        date: known(env!("DTUNNEL_COMMIT_DATE")),
        target: env!("DTUNNEL_TARGET_TRIPLE"),
    };
    ui().result(&version, || format!("dtunnel {LINE}\n"))
}
