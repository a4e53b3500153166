//! What is shipped beside the program and made of it: docs/cli.md, manual pages, completion scripts; and that the
//! examples in it can be typed.

use std::path::Path;

/// The commands, with each one's words below `dtunnel`; `help` is clap's own.
fn each(command: &clap::Command, words: &str, visit: &mut dyn FnMut(&clap::Command, &str)) {
    visit(command, words);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        each(sub, format!("{words} {}", sub.get_name()).trim_start(), visit);
    }
}

fn root() -> clap::Command {
    let mut root = dtunnel::cli::command().term_width(100);
    root.build();
    root
}

/// Holds what is shipped against what is made, or writes it anew.
#[track_caller]
fn is_shipped(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shipped == text, "docs/{name} is old: run `UPDATE_DOCS=1 cargo test --test fast reference`");
}

/// What the program prints, with nothing of the user's environment.
fn printed(args: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dtunnel"));
    let output = command.args(args).env_clear().env("HOME", env!("CARGO_TARGET_TMPDIR")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The reference in docs/cli.md is made of the help texts, so that no flag changes unnoticed.
#[test]
fn the_command_line_reference_is_that_of_this_program() {
    let mut text = String::from(
        "# Command line\n\nMade of the help texts; `UPDATE_DOCS=1 cargo test --test fast reference` writes it anew.\n",
    );
    each(&root(), "", &mut |command, words| {
        let name = format!("dtunnel {words}");
        let help = command.clone().bin_name(name.trim_end()).render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text += &format!("\n## {}\n\n```text\n{}\n```\n", name.trim_end(), lines.join("\n").trim_end());
    });
    is_shipped("cli.md", &text);
}

#[test]
fn the_shipped_completions_are_those_of_this_program_a_reference() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        is_shipped(&format!("completions/dtunnel.{shell}"), &printed(&["completions", shell]));
    }
}

#[test]
fn the_shipped_manual_pages_are_those_of_this_program_a_reference() {
    let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    let _ = std::fs::remove_dir_all(&written);
    printed(&["man", "--dir", written.to_str().unwrap()]);
    let mut names = Vec::new();
    each(&root(), "", &mut |_, words| {
        let name = format!("dtunnel {words}").trim_end().replace(' ', "-") + ".1";
        is_shipped(&format!("man/{name}"), &std::fs::read_to_string(written.join(&name)).unwrap());
        names.push(name);
    });
    for dir in [written, Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man")] {
        for file in std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()) {
            assert!(names.contains(&file), "{file} is the page of no command");
        }
    }
    let page = printed(&["man", "up"]);
    for part in [
        "\\fB\\-\\-local\\fR \\fIENDPOINT\\fR",
        ".SH EXAMPLES",
        ".SH \"EXIT STATUS\"",
        ".SH ENVIRONMENT",
        ".SH FILES",
        "\\fBdtunnel\\-down\\fR(1)",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

/// Every example is a command line that this program understands.
#[test]
fn each_command_has_three_examples_that_can_be_typed() {
    let mut typed = 0;
    each(&root(), "", &mut |command, words| {
        let examples = dtunnel::cli::examples(words).unwrap_or_else(|| panic!("`{words}` has no examples"));
        let help = command.clone().render_long_help().to_string();
        for (line, what) in examples {
            assert!(help.contains(line) && !what.is_empty(), "{line} in {help}");
            let at = line.find("dtunnel ").unwrap_or_else(|| panic!("{line} runs something else"));
            let line = line[at..].split([')', '|', '>']).next().unwrap();
            // `dtunnel -V` is answered by clap itself.
            let read = dtunnel::cli::command().try_get_matches_from(line.split_whitespace());
            assert!(read.as_ref().is_ok_and(|_| true) || read.is_err_and(|e| !e.use_stderr()), "{line}");
            typed += 1;
        }
    });
    assert!(typed > 90, "{typed}");
}
