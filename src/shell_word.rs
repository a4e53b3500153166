//! Words of a POSIX shell.

/// `text` in single quotes: one word for any shell, a remote login's csh or fish included.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `text` as a word for a line that is shown to be typed: quoted only where it must be. Brackets and tildes are quoted,
/// too: zsh takes them for patterns and directories.
///
/// ```
/// use dtunnel::shell_word::shell_word;
/// assert_eq!(shell_word("deploy@prod-1:2222"), "deploy@prod-1:2222");
/// assert_eq!(shell_word("root@[::1]:22"), "'root@[::1]:22'");
/// ```
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { quoted(text) }
}
