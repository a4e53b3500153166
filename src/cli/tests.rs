//! Snapshots (snapshots/*.snap) of the program's output, from fixed values, without servers or root.

mod errors;
mod help;
mod tables;

/// Compares a text with its snapshot, without colours.
fn assert_text(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, anstream::adapter::strip_str(text).to_string()));
}

/// What is read without the other commands is read as with them.
#[test]
fn env_and_status_are_read_as_by_the_complete_command_line() {
    use clap::{FromArgMatches, Parser};
    let whole = |words: &[&str]| {
        let matches = super::command().try_get_matches_from(words).ok()?;
        super::Cli::from_arg_matches(&matches).ok().map(|cli| format!("{cli:?}"))
    };
    for line in [
        "dtunnel env prod-1",
        "dtunnel -q env prod-1 --unset",
        "dtunnel env --shell fish --color never prod-1",
        "dtunnel status",
        "dtunnel ls --json --config x a b",
        "dtunnel ps -v",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let quick = super::Quick::try_parse_from(&words).ok().map(|quick| format!("{:?}", super::Cli::from(quick)));
        assert_eq!(quick, whole(&words), "{line}");
    }
    for line in ["dtunnel env --help", "dtunnel --version", "dtunnel up x", "dtunnel help env", "dtunnel"] {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(super::Quick::try_parse_from(words).is_err(), "{line}");
    }
}
