//! Three examples for each command, shown by `--help` and in the manual pages. A test reads each as a command line.

/// A command's words, and its examples: a command line and what it does.
type Examples = (&'static str, [(&'static str, &'static str); 3]);

const ALL: &[Examples] = &[
    (
        "",
        [
            ("dtunnel up prod-1", "make that host's Engine a socket here"),
            ("eval \"$(dtunnel env prod-1)\"", "have docker in this shell use it"),
            ("dtunnel down --all", "end all tunnels"),
        ],
    ),
    (
        "up",
        [
            ("dtunnel up prod-1 staging", "two tunnels, side by side"),
            ("dtunnel up deploy@203.0.113.7:2222 --read-only", "no profile; read requests only"),
            ("dtunnel up prod-1 --ports", "the host's published ports are on localhost here"),
        ],
    ),
    (
        "down",
        [
            ("dtunnel down prod-1", "let busy flows finish, then end it"),
            ("dtunnel down --all", "end every tunnel"),
            ("dtunnel down prod-1 --json", "for a program"),
        ],
    ),
    (
        "restart",
        [
            ("dtunnel restart prod-1", "down and up, with the options of its `up`"),
            ("dtunnel restart --all", "after dtunnel itself was updated"),
            ("dtunnel restart prod-1 --timeout 2m", "a slow host"),
        ],
    ),
    (
        "reload",
        [
            ("dtunnel reload prod-1", "apply what changed in its profile"),
            ("dtunnel reload --all", "the same for every tunnel"),
            ("dtunnel reload prod-1 --json", "for a program"),
        ],
    ),
    (
        "status",
        [
            ("dtunnel status", "the tunnels that are up"),
            ("dtunnel status prod-1 --json", "one of them, for a program; exit code 3 if it is not up"),
            ("dtunnel status --watch 1", "a line every second"),
        ],
    ),
    (
        "top",
        [
            ("dtunnel top", "all tunnels, live"),
            ("dtunnel top prod-1", "only this one"),
            ("dtunnel top --color never", "without colours"),
        ],
    ),
    (
        "ports",
        [
            ("dtunnel ports prod-1", "the published ports, and where they are here"),
            ("dtunnel ports prod-1 --open 8080", "agree to a port of `ports = \"ask\"`"),
            ("dtunnel ports prod-1 --json", "for a program"),
        ],
    ),
    (
        "mounts",
        [
            ("dtunnel mounts prod-1", "the directories that containers mount, and their state"),
            ("dtunnel mounts prod-1 --sync", "wait until they are the same here and on the host"),
            ("dtunnel mounts prod-1 --prune", "remove what no container mounts from the host"),
        ],
    ),
    (
        "env",
        [
            ("eval \"$(dtunnel env prod-1)\"", "bash, zsh, sh: docker uses the tunnel from now on"),
            ("dtunnel env prod-1 | source", "the same in fish"),
            ("eval \"$(dtunnel env --unset)\"", "back to the Engine of this machine"),
        ],
    ),
    (
        "exec",
        [
            ("dtunnel exec prod-1 -- docker compose up -d", "one command, with its exit code"),
            ("dtunnel exec -- docker ps", "in the default target"),
            ("dtunnel exec prod-1", "your shell, as `dtunnel shell prod-1`"),
        ],
    ),
    (
        "shell",
        [
            ("dtunnel shell prod-1", "a shell whose docker uses prod-1; `exit` leaves"),
            ("dtunnel shell", "the default target"),
            ("dtunnel shell deploy@203.0.113.7", "no profile"),
        ],
    ),
    (
        "doctor",
        [
            ("dtunnel doctor prod-1", "the step that fails, and the line that fixes it"),
            ("dtunnel doctor", "the default target, or only this machine's side"),
            ("dtunnel doctor prod-1 --json", "for a program"),
        ],
    ),
    (
        "audit",
        [
            ("dtunnel audit prod-1", "what is unsafe there, worst first"),
            ("dtunnel audit prod-1 --fail-on high", "for CI: exit code 1 at a high or critical finding"),
            ("dtunnel audit prod-1 --sarif", "for a code scanner's report"),
        ],
    ),
    (
        "logs",
        [
            ("dtunnel logs prod-1", "the last 100 lines"),
            ("dtunnel logs prod-1 --follow", "follow it as it grows"),
            ("dtunnel logs prod-1 -n 20", "the last 20 lines"),
        ],
    ),
    (
        "profile",
        [
            ("dtunnel profile add prod-1 deploy@prod-1.example.com", "give a host a name"),
            ("dtunnel profile list", "the profiles there are"),
            ("dtunnel profile edit", "open the file in your editor"),
        ],
    ),
    (
        "profile list",
        [
            ("dtunnel profile list", "as a table"),
            ("dtunnel profile ls", "the same"),
            ("dtunnel profile list --json", "for a program"),
        ],
    ),
    (
        "profile show",
        [
            ("dtunnel profile show prod-1", "as it stands in the file"),
            ("dtunnel profile show prod-1 --json", "for a program"),
            ("dtunnel --config other.toml profile show prod-1", "of another file"),
        ],
    ),
    (
        "profile add",
        [
            ("dtunnel profile add prod-1 deploy@prod-1.example.com:2222", "user, host and port"),
            (
                "dtunnel profile add prod-1 prod-1 -J bastion -i ~/.ssh/prod",
                "through another host, with a key of its own",
            ),
            ("dtunnel profile add prod-1 prod-1 --read-only", "guarded at every `up`"),
        ],
    ),
    (
        "profile import",
        [
            ("dtunnel profile import", "docker's ssh:// contexts and DOCKER_HOST; asks first"),
            ("dtunnel profile import --dry-run", "only show what would be written"),
            ("dtunnel profile import --from ssh-config db", "a Host of ssh_config, to give it settings"),
        ],
    ),
    (
        "profile remove",
        [
            ("dtunnel profile remove prod-1", "a tunnel that is up stays up"),
            ("dtunnel profile rm prod-1", "the same"),
            ("dtunnel --config other.toml profile remove prod-1", "of another file"),
        ],
    ),
    (
        "profile edit",
        [
            ("dtunnel profile edit", "in $VISUAL or $EDITOR"),
            ("EDITOR=nano dtunnel profile edit", "in another editor"),
            ("dtunnel --config other.toml profile edit", "another file"),
        ],
    ),
    (
        "profile path",
        [
            ("dtunnel profile path", "where the file is"),
            ("cat \"$(dtunnel profile path)\"", "what is in it"),
            ("dtunnel --config other.toml profile path", "of another file"),
        ],
    ),
    (
        "config",
        [
            ("dtunnel config check", "is all of it valid?"),
            ("dtunnel --config new.toml config check", "before it is put in place"),
            ("dtunnel config check --json", "for a program"),
        ],
    ),
    (
        "config check",
        [
            ("dtunnel config check", "is all of it valid?"),
            ("dtunnel --config new.toml config check", "before it is put in place"),
            ("dtunnel config check --json", "for a program"),
        ],
    ),
    (
        "context",
        [
            ("dtunnel context use prod-1", "docker uses it everywhere, without DOCKER_HOST"),
            ("dtunnel context create prod-1", "for docker --context prod-1 …"),
            ("dtunnel context remove prod-1", "take it away again"),
        ],
    ),
    (
        "context create",
        [
            ("dtunnel context create prod-1", "then: docker --context prod-1 ps"),
            ("dtunnel context create prod-1 --json", "for a program"),
            ("dtunnel context create deploy@203.0.113.7", "no profile"),
        ],
    ),
    (
        "context remove",
        [
            ("dtunnel context remove prod-1", "the tunnel stays"),
            ("dtunnel context rm prod-1", "the same"),
            ("dtunnel context remove prod-1 --json", "for a program"),
        ],
    ),
    (
        "context use",
        [
            ("dtunnel context use prod-1", "docker, buildx and IDEs follow"),
            ("dtunnel context use prod-1 --json", "for a program"),
            ("dtunnel context use deploy@203.0.113.7", "no profile"),
        ],
    ),
    (
        "secret",
        [
            ("dtunnel secret set prod-1", "the passphrase of its first key that has one"),
            ("dtunnel secret list prod-1", "what is kept, without the secrets"),
            ("dtunnel secret forget prod-1", "forget all of them"),
        ],
    ),
    (
        "secret set",
        [
            ("dtunnel secret set prod-1", "the passphrase of its first key that has one"),
            ("dtunnel secret set prod-1 --password", "the password of the account"),
            ("dtunnel secret set prod-1 --passphrase ~/.ssh/prod", "the passphrase of this key"),
        ],
    ),
    (
        "secret list",
        [
            ("dtunnel secret list prod-1", "what is kept"),
            ("dtunnel secret list prod-1 --json", "for a program"),
            ("dtunnel secret list deploy@203.0.113.7", "no profile"),
        ],
    ),
    (
        "secret forget",
        [
            ("dtunnel secret forget prod-1", "all that is kept for it"),
            ("dtunnel secret forget prod-1 -q", "the same, without output"),
            ("dtunnel secret forget deploy@203.0.113.7", "no profile"),
        ],
    ),
    (
        "service",
        [
            ("dtunnel service install prod-1", "up from login on"),
            ("dtunnel service install prod-1 --print", "only show the unit"),
            ("dtunnel service uninstall prod-1", "stop it and remove its unit"),
        ],
    ),
    (
        "service install",
        [
            ("dtunnel service install prod-1", "up from login on"),
            ("dtunnel service install prod-1 --socket", "up with the first use of its socket"),
            ("dtunnel service install prod-1 --print", "only show the unit"),
        ],
    ),
    (
        "service uninstall",
        [
            ("dtunnel service uninstall prod-1", "stop it and remove its unit"),
            ("dtunnel service uninstall prod-1 -q", "the same, without output"),
            ("dtunnel service uninstall deploy@203.0.113.7", "no profile"),
        ],
    ),
    (
        "completions",
        [
            ("source <(dtunnel completions bash)", "for this shell; in ~/.bashrc for every one"),
            ("dtunnel completions --install", "for your shell, for every session"),
            ("dtunnel completions zsh > ~/.zfunc/_dtunnel", "a directory of $fpath"),
        ],
    ),
    (
        "man",
        [
            ("dtunnel man up | man -l -", "read the page of `dtunnel up`"),
            ("dtunnel man --install", "then `man dtunnel-up` finds it"),
            ("dtunnel man --dir /usr/local/share/man/man1", "for every user of this machine"),
        ],
    ),
    (
        "version",
        [
            ("dtunnel version", "the same as dtunnel --version"),
            ("dtunnel version --json", "for a program"),
            ("dtunnel -V", "the same"),
        ],
    ),
];

/// The three examples of a command, by its words after `dtunnel`.
pub fn examples(command: &str) -> Option<&'static [(&'static str, &'static str); 3]> {
    ALL.iter().find(|(words, _)| *words == command).map(|(_, examples)| examples)
}

/// Adds the examples to the help of each command.
pub(super) fn attach(command: clap::Command, words: &str) -> clap::Command {
    let below = |name: &str| format!("{words} {name}").trim_start().to_owned();
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(&name, |sub| attach(sub, &below(&name))));
    let Some(examples) = examples(words) else { return command };
    let width = examples.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    let lines: Vec<String> = examples.iter().map(|(line, what)| format!("  {line:width$}  {what}")).collect();
    let before = command.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
    command.after_help(format!("{before}Examples:\n{}", lines.join("\n")))
}
