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
    let root = root();
    let mut names = Vec::new();
    each(&root, "", &mut |command, words| {
        let name = format!("dtunnel {words}").trim_end().replace(' ', "-");
        is_shipped(&format!("man/{name}.1"), &page(command, words));
        names.push(format!("{name}.1"));
    });
    let there = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man")).unwrap();
    for file in there.map(|file| file.unwrap().file_name().into_string().unwrap()) {
        assert!(names.contains(&file), "docs/man/{file} is the page of no command");
    }
    let page = page(root.find_subcommand("up").unwrap(), "up");
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

// ---- manual pages (man-pages(7)): clap_mangen's options, the rest ours

/// Text in roff: no dash, dot or backslash that means something else.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    text.lines()
        .map(|line| if line.starts_with('.') { format!("\\&{line}") } else { line.into() })
        .collect::<Vec<_>>()
        .join("\n")
}

fn list(text: &mut String, title: &str, entries: &[(&str, &str)]) {
    *text += &format!(".SH {title}\n");
    for (name, meaning) in entries {
        *text += &format!(".TP\n\\fB{}\\fR\n{}\n", roff(name), roff(meaning));
    }
}

fn page(command: &clap::Command, words: &str) -> String {
    let name = format!("dtunnel {words}").trim_end().to_owned();
    let dashed = name.replace(' ', "-");
    let mut text = format!(
        ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.TH {} 1 \"\" \"dtunnel\" \"User Commands\"\n",
        dashed.to_uppercase()
    );
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    text += &format!(".SH NAME\n{} \\- {}\n", roff(&dashed), roff(&about));
    text += &format!(".SH SYNOPSIS\n{}\n", synopsis(command, &name));
    let long = command.get_long_about().map(ToString::to_string).unwrap_or(about);
    text += &format!(".SH DESCRIPTION\n{}.\n", roff(long.trim_end_matches('.')));
    if words.is_empty() {
        text +=
            ".PP\nA TARGET is a profile, [user@]host[:port], ssh://[user@]host[:port], or a Host of your ssh_config.\n";
    }
    let mut options = Vec::new();
    clap_mangen::Man::new(command.clone().disable_help_subcommand(true)).render_options_section(&mut options).unwrap();
    // It writes a placeholder's name in angle brackets, which manual pages do without.
    text += &String::from_utf8(options).unwrap().replace("\\fI<", "\\fI").replace(">\\fR", "\\fR");
    let subs: Vec<&clap::Command> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help").collect();
    if !subs.is_empty() {
        let about = |sub: &clap::Command| sub.get_about().map(ToString::to_string).unwrap_or_default();
        let entries: Vec<(String, String)> =
            subs.iter().map(|sub| (format!("{dashed}-{}(1)", sub.get_name()), about(sub))).collect();
        list(&mut text, "COMMANDS", &entries.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>());
    }
    list(&mut text, "\"EXIT STATUS\"", &exit_codes(words));
    list(&mut text, "ENVIRONMENT", ENVIRONMENT);
    list(&mut text, "FILES", FILES);
    text += ".SH EXAMPLES\n";
    for (line, what) in dtunnel::cli::examples(words).into_iter().flatten() {
        text += &format!(".TP\n\\fB{}\\fR\n{}\n", roff(line), roff(what));
    }
    text += &format!(".SH \"SEE ALSO\"\n{}\n", see_also(words));
    text
}

/// With the names of the values, which clap_mangen leaves out.
fn synopsis(command: &clap::Command, name: &str) -> String {
    let mut text = format!("\\fB{}\\fR", roff(name));
    let (positionals, options): (Vec<_>, Vec<_>) = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .partition(|argument| argument.is_positional());
    for argument in options.into_iter().chain(positionals) {
        let values: Vec<String> = argument
            .get_value_names()
            .unwrap_or_default()
            .iter()
            .map(|value| format!("\\fI{}\\fR", roff(value)))
            .collect();
        let values = if argument.get_action().takes_values() { values.join(" ") } else { String::new() };
        let flag = match (argument.get_long(), argument.get_short()) {
            (Some(long), _) => format!("\\fB\\-\\-{}\\fR", roff(long)),
            (None, Some(short)) => format!("\\fB\\-{short}\\fR"),
            (None, None) => String::new(),
        };
        let many = argument.is_positional() && argument.get_num_args().is_some_and(|range| range.max_values() > 1);
        let both = format!("{flag} {values}").trim().to_owned() + if many { "..." } else { "" };
        text += &if argument.is_required_set() { format!(" {both}") } else { format!(" [{both}]") };
    }
    if command.get_subcommands().any(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        text += " \\fICOMMAND\\fR";
    }
    text
}

const ENVIRONMENT: &[(&str, &str)] = &[
    ("DTUNNEL_CONFIG", "The configuration file, in place of the default one; empty is as if not set."),
    ("DTUNNEL_TARGET", "The default target of env, exec, shell, logs, doctor and status."),
    (
        "DTUNNEL, DTUNNEL_ACCESS",
        "Set by env, exec and shell: the target that docker uses, and what may be asked of it.",
    ),
    ("DOCKER_HOST", "Set by env, exec and shell."),
    (
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE",
        "Set by env, exec and shell: the path of the Engine's socket on the host, which testcontainers gives containers.",
    ),
    ("SSH_AUTH_SOCK", "The ssh-agent."),
    ("SSH_ASKPASS, SSH_ASKPASS_REQUIRE", "What asks for passphrases where there is no terminal, as for ssh."),
    ("NO_COLOR", "No colours."),
];

const FILES: &[(&str, &str)] = &[
    ("$XDG_CONFIG_HOME/dtunnel/config.toml", "Profiles and settings; `dtunnel profile path` prints where it is."),
    ("$XDG_RUNTIME_DIR/dtunnel/NAME.sock", "A tunnel's socket, for this user alone."),
    ("$XDG_STATE_HOME/dtunnel/NAME.log", "A tunnel's log."),
    ("~/.ssh/config, ~/.ssh/known_hosts", "Obeyed as ssh does."),
];

fn exit_codes(words: &str) -> Vec<(&'static str, &'static str)> {
    let mut codes = vec![
        ("0", "Done."),
        ("1", "Other failure; several targets failed for different reasons."),
        ("2", "Usage: a wrong command line or configuration file."),
        ("3", "The tunnel is not up, or nothing is known by that name."),
        ("4", "Authentication failed."),
        ("5", "The host key was refused."),
        ("6", "The host cannot be reached."),
        ("7", "The host was reached, its Engine was not."),
    ];
    if matches!(words, "exec" | "shell" | "") {
        codes.push((
            "125, 126, 127",
            "exec, shell: there was no tunnel; the command cannot be run; it was not found. Else the command's own.",
        ));
    }
    codes.push(("130", "Ctrl-C at a question."));
    codes
}

fn see_also(words: &str) -> String {
    let related: &[&str] = match words.split(' ').next().unwrap_or_default() {
        "" => &["dtunnel-up", "dtunnel-env", "dtunnel-status", "dtunnel-doctor"],
        "up" => &["dtunnel-down", "dtunnel-restart", "dtunnel-status", "dtunnel-env", "dtunnel-doctor"],
        "down" | "restart" | "reload" => &["dtunnel-up", "dtunnel-status"],
        "status" | "top" | "logs" => &["dtunnel-up", "dtunnel-status", "dtunnel-top", "dtunnel-logs"],
        "env" | "exec" | "shell" => &["dtunnel-env", "dtunnel-exec", "dtunnel-shell", "dtunnel-context"],
        "profile" | "config" => &["dtunnel-profile", "dtunnel-config"],
        _ => &["dtunnel-up", "dtunnel-doctor"],
    };
    let own = format!("dtunnel {words}").trim_end().replace(' ', "-");
    let mut pages: Vec<String> =
        related.iter().filter(|page| **page != own).map(|page| format!("\\fB{}\\fR(1)", roff(page))).collect();
    if own != "dtunnel" {
        pages.insert(0, "\\fBdtunnel\\fR(1)".into());
    }
    pages.push("\\fBssh_config\\fR(5)".into());
    pages.push("\\fBdocker\\fR(1)".into());
    pages.join(", ")
}
