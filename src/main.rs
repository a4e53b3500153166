//! Parse, run, print the error with its hint, exit code. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A shell that asks what could come next is answered, and nothing else happens.
    dtunnel::cli::complete();
    match dtunnel::cli::parse() {
        Ok(cli) => dtunnel::cli::run(cli),
        Err(exit) => exit,
    }
}
