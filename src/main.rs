//! Parse, run, print the error with its hint, exit code. Nothing else.

use std::process::ExitCode;

use clap::Parser;
use dtunnel::cli::{Cli, complete, print_failure, run};

fn main() -> ExitCode {
    // A shell that asks what could come next is answered, and nothing else happens.
    complete();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}
