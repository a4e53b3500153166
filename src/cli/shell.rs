//! Shell syntax: how each shell sets and clears a variable, safely quoted.

use std::path::Path;

use clap::ValueEnum;

use crate::os::{process, programs};

/// A shell, or another format for an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Sh,
    Fish,
    Powershell,
    /// Windows' command prompt
    Cmd,
    Nu,
    Elvish,
    /// NAME=VALUE lines, as for docker compose's .env
    Dotenv,
    /// An object; null means that the variable is to be cleared
    Json,
}

/// A change to the environment.
pub(super) enum Change<'a> {
    Set(&'a str, &'a str),
    Clear(&'a str),
}

impl Shell {
    /// The shell that runs dtunnel: the parent process if that is a shell, else $SHELL, else sh; on Windows else %ComSpec%.
    pub(super) fn guess() -> Self {
        let parent = programs::parent().and_then(process::name_of);
        let shell = programs::shell().to_string_lossy().into_owned();
        parent.as_deref().and_then(Self::of_program).or_else(|| Self::of_program(&shell)).unwrap_or(Self::Sh)
    }

    fn of_program(program: &str) -> Option<Self> {
        let name = Path::new(program.trim()).file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".exe").unwrap_or(&name);
        Some(match name.trim_start_matches('-') {
            "bash" => Self::Bash,
            "zsh" => Self::Zsh,
            "sh" | "dash" | "ash" | "ksh" | "mksh" | "busybox" => Self::Sh,
            "fish" => Self::Fish,
            "pwsh" | "powershell" => Self::Powershell,
            "cmd" => Self::Cmd,
            "nu" => Self::Nu,
            "elvish" => Self::Elvish,
            _ => return None,
        })
    }

    /// A word that makes the evaluating shell fail, as a failed command does: `&&`, `set -e` and `try` see it. Empty
    /// for formats that are not evaluated.
    pub(super) fn failure(self) -> &'static str {
        match self {
            Self::Bash | Self::Zsh | Self::Sh | Self::Fish => "false;\n",
            Self::Powershell => "throw 'dtunnel env failed'\n",
            Self::Cmd => "cmd /c exit 1\n",
            Self::Nu => "error make { msg: \"dtunnel env failed\" }\n",
            Self::Elvish => "fail 'dtunnel env failed'\n",
            Self::Dotenv | Self::Json => "",
        }
    }

    /// The line by which people have this shell take over the tunnel of `target`.
    pub(super) fn invitation(self, target: &str) -> String {
        match self {
            Self::Powershell => {
                format!("dtunnel env {} --shell powershell | Out-String | Invoke-Expression", self.quote(target))
            }
            Self::Cmd => format!("for /f \"delims=\" %i in ('dtunnel env {target} --shell cmd') do @%i"),
            _ => format!("eval \"$(dtunnel env {})\"", crate::shell_word::shell_word(target)),
        }
    }

    /// The changes in this shell's syntax.
    pub(super) fn script(self, changes: &[Change<'_>]) -> String {
        if self == Self::Json {
            let object: serde_json::Map<String, serde_json::Value> = changes
                .iter()
                .map(|change| match change {
                    Change::Set(name, value) => ((*name).into(), (*value).into()),
                    Change::Clear(name) => ((*name).into(), serde_json::Value::Null),
                })
                .collect();
            return format!("{}\n", serde_json::Value::Object(object));
        }
        changes.iter().map(|change| self.line(change) + "\n").collect()
    }

    fn line(self, change: &Change<'_>) -> String {
        match change {
            Change::Set(name, plain) => {
                let value = self.quote(plain);
                match self {
                    Self::Bash | Self::Zsh | Self::Sh | Self::Json => format!("export {name}={value};"),
                    Self::Fish => format!("set -gx {name} {value};"),
                    Self::Powershell => format!("$env:{name} = {value};"),
                    // The quotation marks are around both.
                    Self::Cmd => format!("set {}", cmd_assignment(name, plain)),
                    Self::Nu => format!("$env.{name} = {value}"),
                    Self::Elvish => format!("set-env {name} {value};"),
                    Self::Dotenv => format!("{name}={value}"),
                }
            }
            Change::Clear(name) => match self {
                Self::Bash | Self::Zsh | Self::Sh | Self::Json => format!("unset {name};"),
                Self::Fish => format!("set -e {name};"),
                Self::Powershell => format!("$env:{name} = $null;"),
                Self::Cmd => format!("set {name}="),
                Self::Nu => format!("hide-env --ignore-errors {name}"),
                Self::Elvish => format!("unset-env {name};"),
                // docker treats an empty variable as unset.
                Self::Dotenv => format!("{name}="),
            },
        }
    }

    /// Quotes any value as a single word of this shell.
    fn quote(self, value: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-+@".contains(c);
        let is_plain = !value.is_empty() && value.chars().all(plain);
        match self {
            Self::Bash | Self::Zsh | Self::Sh | Self::Json => crate::shell_word::shell_word(value),
            Self::Fish if is_plain => value.into(),
            Self::Fish => format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'")),
            // PowerShell takes typographic quotes for straight ones.
            Self::Powershell => {
                let doubled: String =
                    value.chars().flat_map(|c| if "'‘’‚‛".contains(c) { vec![c, c] } else { vec![c] }).collect();
                format!("'{doubled}'")
            }
            Self::Cmd => value.into(),
            Self::Nu => format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\"")),
            Self::Elvish => format!("'{}'", value.replace('\'', "''")),
            Self::Dotenv if is_plain => value.into(),
            Self::Dotenv => format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'")),
        }
    }
}

/// `NAME=value` as one word of cmd's. Within quotation marks nothing but those has a meaning to it, and `%VARIABLE%`, which
/// is not replaced where a `for` runs the line. A value that holds one has all that could have a meaning escaped.
fn cmd_assignment(name: &str, value: &str) -> String {
    let value = value.replace(char::is_control, " ");
    if !value.contains('"') {
        return format!("\"{name}={value}\"");
    }
    let escape = |c: char| if "\"&|<>^()!".contains(c) { vec!['^', c] } else { vec![c] };
    format!("{name}={}", value.chars().flat_map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn each_shell_gets_its_own_words() {
        let changes = [Change::Set("DOCKER_HOST", "unix:///run/a b/it's.sock"), Change::Clear("DOCKER_CONTEXT")];
        let script = |shell: Shell| shell.script(&changes);
        assert_eq!(script(Shell::Bash), "export DOCKER_HOST='unix:///run/a b/it'\\''s.sock';\nunset DOCKER_CONTEXT;\n");
        assert_eq!(script(Shell::Fish), "set -gx DOCKER_HOST 'unix:///run/a b/it\\'s.sock';\nset -e DOCKER_CONTEXT;\n");
        assert_eq!(
            script(Shell::Powershell),
            "$env:DOCKER_HOST = 'unix:///run/a b/it''s.sock';\n$env:DOCKER_CONTEXT = $null;\n"
        );
        assert_eq!(
            script(Shell::Nu),
            "$env.DOCKER_HOST = \"unix:///run/a b/it's.sock\"\nhide-env --ignore-errors DOCKER_CONTEXT\n"
        );
        assert_eq!(
            script(Shell::Elvish),
            "set-env DOCKER_HOST 'unix:///run/a b/it''s.sock';\nunset-env DOCKER_CONTEXT;\n"
        );
        assert_eq!(script(Shell::Cmd), "set \"DOCKER_HOST=unix:///run/a b/it's.sock\"\nset DOCKER_CONTEXT=\n");
        assert_eq!(cmd_assignment("V", "a\" & calc \"\n"), "V=a^\" ^& calc ^\" ");
        assert_eq!(Shell::of_program(r"CMD.EXE"), Some(Shell::Cmd));
        assert_eq!(script(Shell::Json), "{\"DOCKER_CONTEXT\":null,\"DOCKER_HOST\":\"unix:///run/a b/it's.sock\"}\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Checked with real shells: the value arrives unchanged, and nothing in it is run.
        #[test]
        fn a_value_passes_a_real_shell_unchanged(value in "[ -~äß€]{0,40}") {
            for (shell, programs) in [(Shell::Sh, ["sh", "dash"].as_slice()), (Shell::Bash, &["bash"])] {
                let script = shell.script(&[Change::Set("V", &value)]);
                for program in programs {
                    let run = Command::new(program).arg("-c").arg(format!("{script}\nprintf %s \"$V\"")).output();
                    prop_assert_eq!(&run.expect("the shell runs").stdout, value.as_bytes());
                }
            }
        }
    }
}
