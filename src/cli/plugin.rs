//! docker's CLI plugin protocol, version 0.1.0: `docker dtunnel …` (docker/cli, cli-plugins/manager).
//!
//! docker looks for `docker-dtunnel` in its directories of plugins, asks it for metadata, and then starts it with docker's
//! own words, `dtunnel` among them.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde::Serialize;

use super::ui::{self, ui};
use crate::failure::{self, Failure};
use crate::os::programs;

/// The name of this program as docker's plugin.
const NAME: &str = "docker-dtunnel";
/// The argument by which docker asks for [`METADATA`].
const ASKS: &str = "docker-cli-plugin-metadata";

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    schema_version: &'static str,
    vendor: &'static str,
    version: &'static str,
    short_description: &'static str,
}

const METADATA: Metadata = Metadata {
    schema_version: "0.1.0",
    vendor: "The dtunnel developers",
    version: env!("CARGO_PKG_VERSION"),
    short_description: env!("CARGO_PKG_DESCRIPTION"),
};

/// What docker, or somebody who typed the plugin's name, wants of it.
#[derive(Debug, PartialEq)]
enum Wants {
    Metadata,
    /// dtunnel with these words.
    Runs(Vec<OsString>),
    /// Options of docker's before `dtunnel`, the first of them given.
    Refused(String),
}

/// Answers docker if this process was started under the name [`NAME`].
pub(super) fn answer() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    words.next().filter(|program| Path::new(program).file_stem().is_some_and(|name| name == NAME))?;
    let failure = match wants(words.collect()) {
        Wants::Metadata => ui::print(&(serde_json::json!(METADATA).to_string() + "\n")).err(),
        Wants::Runs(words) => Some(run(words)),
        Wants::Refused(option) => Some(
            Failure::new(failure::ExitCode::Usage, format!("{option} is docker's option: dtunnel does not use it"))
                .hint("options come after the name: docker dtunnel --help"),
        ),
    };
    let Some(failure) = failure else { return Some(ExitCode::SUCCESS) };
    ui().failure(&failure);
    Some(ExitCode::from(failure.exit as u8))
}

fn wants(words: Vec<OsString>) -> Wants {
    let first = words.first().and_then(|word| word.to_str()).unwrap_or_default();
    match first {
        ASKS => Wants::Metadata,
        "dtunnel" => Wants::Runs(words[1..].to_vec()),
        // `docker help dtunnel up`
        "help" if words.get(1).is_some_and(|word| word == "dtunnel") => {
            Wants::Runs([&words[..1], &words[2..]].concat())
        }
        // `docker --context prod dtunnel up`: docker hands on its whole command line.
        _ if first.starts_with('-') && words.iter().any(|word| word == "dtunnel") => Wants::Refused(first.to_owned()),
        _ => Wants::Runs(words),
    }
}

/// Becomes dtunnel under its own name, so that nothing else has to know of this one: a tunnel reports its command line.
fn run(words: Vec<OsString>) -> Failure {
    let failed = |e| Failure::new(failure::ExitCode::Other, format!("cannot run this program again: {e}"));
    match std::env::current_exe() {
        Ok(program) => {
            let mut command = Command::new(program);
            programs::set_name(&mut command, "dtunnel");
            failed(programs::become_program(command.args(words)))
        }
        Err(e) => failed(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Wants {
        wants(line.split_whitespace().map(OsString::from).collect())
    }

    fn runs(line: &str) -> Wants {
        Wants::Runs(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn docker_is_told_what_the_plugin_is() {
        assert_eq!(wanted("docker-cli-plugin-metadata"), Wants::Metadata);
        let told: serde_json::Value = serde_json::to_value(METADATA).expect("JSON");
        assert_eq!(told["SchemaVersion"], "0.1.0");
        assert_eq!(told["Vendor"], "The dtunnel developers");
        assert_eq!(told["Version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(told["ShortDescription"], env!("CARGO_PKG_DESCRIPTION"));
    }

    #[test]
    fn the_name_that_docker_repeats_is_dropped_once() {
        assert_eq!(wanted("dtunnel up prod-1"), runs("up prod-1"));
        assert_eq!(wanted("dtunnel up dtunnel"), runs("up dtunnel"));
        assert_eq!(wanted("dtunnel --version"), runs("--version"));
        assert_eq!(wanted("dtunnel"), runs(""));
        assert_eq!(wanted("help dtunnel up"), runs("help up"));
        // Typed by somebody.
        assert_eq!(wanted("status prod-1"), runs("status prod-1"));
        assert_eq!(wanted("--version"), runs("--version"));
    }

    #[test]
    fn options_of_dockers_are_refused_rather_than_lost() {
        assert_eq!(wanted("--context prod dtunnel up"), Wants::Refused("--context".into()));
        assert_eq!(wanted("-D dtunnel status"), Wants::Refused("-D".into()));
    }
}
