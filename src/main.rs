//! Parse, run, print the error with its hint, exit code. Nothing else.

fn main() {}
