//! Parse, run, print the error with its hint, exit code. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    // ssh has a question, or is to be started (`ssh/openssh`).
    if let Some(exit) = dtunnel::ssh::answer_as_askpass().or_else(dtunnel::ssh::become_ssh) {
        return exit;
    }
    // `docker dtunnel …`.
    if let Some(exit) = dtunnel::cli::answer_as_plugin() {
        return exit;
    }
    // Answers a shell's request for completions, then exits.
    dtunnel::cli::complete();
    match dtunnel::cli::parse() {
        Ok(cli) => dtunnel::cli::run(cli),
        Err(exit) => exit,
    }
}
