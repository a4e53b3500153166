//! `dtunnel man`: the manual pages (man-pages(7)), made of the command line's definition. clap_mangen writes the options,
//! this file the rest.

use std::path::PathBuf;

use clap::Args;

use super::ui::{self, ui};
use crate::failure::{ExitCode, Failure};

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command whose page is printed, as in `dtunnel man profile add` [default: dtunnel itself]
    #[arg(value_name = "COMMAND", conflicts_with_all = ["dir", "install"])]
    words: Vec<String>,
    /// Write every page into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "install")]
    dir: Option<PathBuf>,
    /// Write every page where man looks for yours: man/man1 in $XDG_DATA_HOME or ~/.local/share
    #[arg(long)]
    install: bool,
}

pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut root = super::command().term_width(WIDTH);
    root.build();
    let dir = match &args.dir {
        Some(dir) => Some(dir.clone()),
        None if args.install => Some(super::completions::data_home()?.join("man/man1")),
        None => None,
    };
    let Some(dir) = dir else { return ui::print(&printed(&root, &args.words)?) };
    let pages = pages(&root, "");
    for (name, text) in &pages {
        super::completions::write(&dir.join(name), text)?;
    }
    ui().note(&format!("wrote {} pages to {}", pages.len(), dir.display()));
    Ok(())
}

/// Width of a line, in columns, for the texts that clap wraps.
const WIDTH: usize = 100;

/// The page of the command with these words.
fn printed(root: &clap::Command, words: &[String]) -> Result<String, Failure> {
    let mut command = root;
    let mut names = Vec::new();
    for word in words {
        let sub = command.find_subcommand(word).filter(|sub| has_page(sub));
        command = sub.ok_or_else(|| {
            Failure::new(ExitCode::Usage, format!("`dtunnel {}` is no command", words.join(" ")))
                .hint("`dtunnel help` lists the commands")
        })?;
        // An alias has no page of its own.
        names.push(command.get_name());
    }
    Ok(page(command, &names.join(" ")))
}

/// clap's own `help` has no page, nor have hidden commands.
fn has_page(command: &clap::Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

/// File names and texts of the pages of `command` and of those below it.
fn pages(command: &clap::Command, words: &str) -> Vec<(String, String)> {
    let name = format!("dtunnel {words}").trim_end().replace(' ', "-");
    let below = command.get_subcommands().filter(|sub| has_page(sub));
    let below = below.flat_map(|sub| pages(sub, format!("{words} {}", sub.get_name()).trim_start()));
    std::iter::once((format!("{name}.1"), page(command, words))).chain(below).collect()
}

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
    // Writing to memory cannot fail.
    let _ = clap_mangen::Man::new(command.clone().disable_help_subcommand(true)).render_options_section(&mut options);
    // It writes a placeholder's name in angle brackets, which manual pages do without.
    text += &String::from_utf8_lossy(&options).replace("\\fI<", "\\fI").replace(">\\fR", "\\fR");
    let subs: Vec<&clap::Command> = command.get_subcommands().filter(|sub| has_page(sub)).collect();
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
    for (line, what) in super::examples(words).into_iter().flatten() {
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
    if command.get_subcommands().any(has_page) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(words: &str) -> Result<String, Failure> {
        let mut root = super::super::command().term_width(WIDTH);
        root.build();
        printed(&root, &words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_command_has_its_page_and_an_alias_that_of_its_command() {
        for (words, title) in [("", "DTUNNEL"), ("profile add", "DTUNNEL-PROFILE-ADD"), ("start", "DTUNNEL-UP")] {
            let page = page_of(words).expect("a page");
            assert!(page.contains(&format!(".TH {title} 1 ")), "{words}: {page}");
        }
    }

    #[test]
    fn no_page_for_what_is_no_command() {
        for words in ["upp", "daemon", "help", "up prod-1"] {
            let failure = page_of(words).expect_err("no page");
            assert_eq!(failure.exit, ExitCode::Usage);
            assert_eq!(failure.message, format!("`dtunnel {words}` is no command"));
        }
    }
}
