//! What `%` tokens, `~` and `${VARIABLES}` in ssh_config's values stand for.

use std::path::PathBuf;

use sha1::{Digest, Sha1};

use crate::config::Paths;
use crate::os::user;

/// What the `%` tokens of ssh_config(5), "TOKENS", stand for.
pub(in crate::config) struct Tokens<'a> {
    pub(in crate::config) alias: &'a str,
    pub(in crate::config) host_name: &'a str,
    pub(in crate::config) port: u16,
    pub(in crate::config) user: &'a str,
    pub(in crate::config) host_key_alias: Option<&'a str>,
    /// ProxyJump, as written.
    pub(in crate::config) jump: &'a str,
    pub(in crate::config) paths: &'a Paths,
}

impl Tokens<'_> {
    /// A file name with `~`, `%` tokens and `${VARIABLES}` replaced.
    pub(in crate::config) fn path(&self, name: &str) -> PathBuf {
        self.paths.expand_home(&self.replace(&environment(name)))
    }

    /// The hash of the connection: of `%l%h%p%r%j` (ssh_config(5), "TOKENS"), as in `ssh_connection_hash` of OpenSSH.
    fn connection(&self) -> String {
        let text = format!("{}{}{}{}{}", user::host_name(), self.host_name, self.port, self.user, self.jump);
        Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `name` with its `%` tokens replaced; [unknown](unknown) ones stay as they are.
    pub(in crate::config) fn replace(&self, name: &str) -> String {
        let mut out = String::with_capacity(name.len());
        let mut chars = name.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some('C') => out.push_str(&self.connection()),
                Some('d') => out.push_str(&self.paths.home.to_string_lossy()),
                Some('h') => out.push_str(self.host_name),
                Some('i') => out.push_str(&user::id().to_string()),
                Some('j') => out.push_str(self.jump),
                Some('k') => out.push_str(self.host_key_alias.unwrap_or(self.alias)),
                Some('L') => out.push_str(user::host_name().split('.').next().unwrap_or_default()),
                Some('l') => out.push_str(&user::host_name()),
                Some('n') => out.push_str(self.alias),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('u') => out.push_str(&account()),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}

/// The tokens of `text` that [`Tokens::replace`] does not replace. Those of ssh are among them that need a connection
/// (`%f`, `%H`, `%I`, `%K`, `%t`) or a device (`%T`): ssh knows them only in KnownHostsCommand and LocalCommand, which
/// dtunnel does not run.
pub(super) fn unknown(text: &str) -> Vec<char> {
    let mut chars = text.chars();
    let mut found = Vec::new();
    while chars.by_ref().any(|c| c == '%') {
        found.extend(chars.next().filter(|token| !KNOWN.contains(*token)));
    }
    found
}

/// The tokens that [`Tokens::replace`] replaces.
const KNOWN: &str = "%CdhijkLlnpru";

/// The user's name by passwd(5), as for ssh, else by the environment; empty if neither has one.
pub(super) fn account() -> String {
    user::name().unwrap_or_default()
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
    fn a_connection_has_a_hash_and_a_jump_its_name() {
        let paths = Paths { home: "/home/me".into() };
        let tokens = Tokens {
            alias: "h",
            host_name: "h.example",
            port: 22,
            user: "u",
            host_key_alias: None,
            jump: "a,b",
            paths: &paths,
        };
        assert_eq!(tokens.replace("%j %% %n"), "a,b % h");
        let text = format!("{}h.example22ua,b", user::host_name());
        let hash: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(tokens.replace("/%C"), format!("/{hash}"));
    }

    #[test]
    fn tokens_that_are_not_replaced_are_found() {
        assert_eq!(unknown("/%T/%h/%%H/%I%f"), ['T', 'I', 'f']);
        assert!(unknown("%C%d%h%i%j%k%L%l%n%p%r%u%").is_empty());
        let paths = Paths { home: "/home/me".into() };
        let tokens =
            Tokens { alias: "", host_name: "", port: 1, user: "", host_key_alias: None, jump: "", paths: &paths };
        for token in ('!'..='~').filter(|token| *token != '%') {
            let name = format!("%{token}");
            assert_eq!(tokens.replace(&name) == name, unknown(&name) == [token], "{name}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_nothing() {
        assert_eq!(environment("a${DTUNNEL_TEST_NOT_SET}b${c"), "ab${c");
    }
}
