//! Parse, run, print the error with its hint, exit code. Nothing else.

use std::process::ExitCode;

use clap::Parser;
use dtunnel::cli::{Cli, print_failure, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}
