//! What `%` tokens, `~` and `${VARIABLES}` in ssh_config's values stand for.

use std::path::PathBuf;

use crate::config::Paths;

/// What the `%` tokens of ssh_config(5), "TOKENS", stand for.
pub(in crate::config) struct Tokens<'a> {
    pub(in crate::config) alias: &'a str,
    pub(in crate::config) host_name: &'a str,
    pub(in crate::config) port: u16,
    pub(in crate::config) user: &'a str,
    pub(in crate::config) host_key_alias: Option<&'a str>,
    pub(in crate::config) paths: &'a Paths,
}

impl Tokens<'_> {
    /// A file name with `~`, `%` tokens and `${VARIABLES}` replaced.
    pub(in crate::config) fn path(&self, name: &str) -> PathBuf {
        self.paths.expand_home(&self.replace(&environment(name)))
    }

    /// `text` with its `%` tokens replaced; unknown ones stay as they are.
    pub(in crate::config) fn replace(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some('d') => out.push_str(&self.paths.home.to_string_lossy()),
                Some('h') => out.push_str(self.host_name),
                Some('i') => out.push_str(&rustix::process::getuid().as_raw().to_string()),
                Some('k') => out.push_str(self.host_key_alias.unwrap_or(self.alias)),
                Some('L') => out.push_str(local_host().split('.').next().unwrap_or_default()),
                Some('l') => out.push_str(&local_host()),
                Some('n') => out.push_str(self.alias),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('u') => out.push_str(&std::env::var("USER").unwrap_or_default()),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}

fn local_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `${VARIABLE}` replaced by the environment's value, nothing where it is not set.
pub(super) fn environment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return out + "${" + after;
        };
        out.push_str(&std::env::var(name).unwrap_or_default());
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_is_nothing() {
        assert_eq!(environment("a${DTUNNEL_TEST_NOT_SET}b${c"), "ab${c");
    }
}
