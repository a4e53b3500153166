//! Parse, run, print the error with its hint, exit code. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Answers a shell's request for completions, then exits.
    dtunnel::cli::complete();
    match dtunnel::cli::parse() {
        Ok(cli) => dtunnel::cli::run(cli),
        Err(exit) => exit,
    }
}
