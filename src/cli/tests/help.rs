//! The short help (`-h`) of every command; docs/cli.md has the long one.

use super::super::command;

/// Width of the help texts, in columns.
const WIDTH: usize = 100;

fn add(text: &mut String, path: &str, command: &mut clap::Command) {
    if command.is_hide_set() {
        return;
    }
    *text += &format!("# {path}\n\n{}\n", command.render_help());
    for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        add(text, &path, sub);
    }
}

#[test]
fn help_of_every_command() {
    let mut command = command().term_width(WIDTH);
    command.build();
    let mut text = String::new();
    add(&mut text, "dtunnel", &mut command);
    super::assert_text("help", &text);
}
