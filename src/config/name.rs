//! Targets as the user writes them, and the names their tunnels get.

use std::fmt;
use std::net::Ipv6Addr;

use sha1::{Digest, Sha1};

use super::Error;
use crate::address::Address;

/// Longest target we look at, in bytes. A DNS name has at most 253 (RFC 1035 section 2.3.4); the
/// rest is room for a user and a port.
const MAX_TARGET: usize = 512;
/// Longest tunnel name, in bytes, so that `NAME.sock` fits into a socket path with a usual
/// runtime directory; longer ones are cut and made unique by a hash.
const MAX_NAME: usize = 64;

/// Where to go, as written: `[user@]host[:port]` or `ssh://[user@]host[:port]`.
///
/// `host` may be a Host alias of ssh_config; nothing is resolved here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Login name, if given.
    pub user: Option<String>,
    /// Host name, address or ssh_config alias; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port, if given.
    pub port: Option<u16>,
}

impl Destination {
    /// Reads a target that is not a profile name.
    ///
    /// ```
    /// use dtunnel::config::Destination;
    /// let d = Destination::parse("ssh://deploy@[2001:db8::1]:2222").unwrap();
    /// assert_eq!((d.user.as_deref(), d.host.as_str(), d.port), (Some("deploy"), "2001:db8::1", Some(2222)));
    /// ```
    ///
    /// # Errors
    /// [`Error::Target`] for an empty host, a bad port, control characters or blanks, or a host or
    /// user that begins with `-` (which `ssh -G` could read as an option).
    pub fn parse(input: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Target { input: input.escape_debug().to_string(), reason };
        if input.len() > MAX_TARGET {
            return Err(bad("it is too long"));
        }
        if input.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("it holds blanks or control characters"));
        }
        let url = input.strip_prefix("ssh://");
        if url.is_none() && input.contains("://") {
            return Err(bad("only ssh:// URLs are supported"));
        }
        let rest = match url {
            Some(rest) => rest.strip_suffix('/').unwrap_or(rest),
            None => input,
        };
        if rest.contains('/') {
            return Err(bad("a target has no path"));
        }
        let (user, host_port) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let (host, port) = split_port(host_port).ok_or_else(|| bad("the port is not a number from 1 to 65535"))?;
        if let Some(user) = user {
            if user.is_empty() || user.starts_with('-') {
                return Err(bad("the user is empty or begins with `-`"));
            }
            if user.contains(':') {
                return Err(bad("a target cannot hold a password"));
            }
        }
        if host.is_empty() || host.starts_with('-') {
            return Err(bad("the host is empty or begins with `-`"));
        }
        let address = host.split('%').next().unwrap_or(host);
        if host.contains(['[', ']']) || (host.contains(':') && address.parse::<Ipv6Addr>().is_err()) {
            return Err(bad("it holds a colon or brackets, but no IPv6 address"));
        }
        Ok(Self { user: user.map(Into::into), host: host.into(), port })
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address. None where the port is bad.
fn split_port(input: &str) -> Option<(&str, Option<u16>)> {
    if let Some(inner) = input.strip_prefix('[') {
        let (host, rest) = inner.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(parse_port(port)?))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match input.split_once(':') {
        // More than one colon and no brackets: an IPv6 address.
        Some((_, rest)) if rest.contains(':') => Some((input, None)),
        Some((host, port)) => Some((host, Some(parse_port(port)?))),
        None => Some((input, None)),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Address { user: self.user.as_deref(), host: &self.host, port: self.port }.fmt(f)
    }
}

/// May this be a host's name? The rule of `ssh_valid_hostname` in OpenSSH's readconf.c: in a ProxyCommand or a
/// `Match exec` a name could otherwise be a command (CVE-2023-51385).
pub(super) fn is_host_name(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){},".contains(c);
    !name.starts_with('-') && !name.contains(odd)
}

/// May this be a user's name there? The rule of `ssh_valid_ruser`.
pub(super) fn is_user_name(name: &str) -> bool {
    let odd = |c: char| c.is_control() || "'`\";&<>|(){}".contains(c);
    let option_after_blank = name.chars().zip(name.chars().skip(1)).any(|(c, next)| c.is_whitespace() && next == '-');
    !name.starts_with('-') && !name.contains(odd) && !option_after_blank && !name.ends_with('\\')
}

/// May this be a profile's name? Such a name is safe in a file name and in every shell.
pub fn is_profile_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The name of a tunnel: the profile's, or one made from the destination. A safe file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelName(String);

impl TunnelName {
    /// The name of a profile's tunnel.
    ///
    /// # Errors
    /// [`Error::ProfileName`] where the name is not one.
    pub fn of_profile(name: &str) -> Result<Self, Error> {
        if is_profile_name(name) { Ok(Self(name.into())) } else { Err(Error::ProfileName { name: name.into() }) }
    }

    /// The name of a tunnel without a profile: `user@host`, with `+` before a port. Two
    /// destinations never share a name: whatever is not a plain character is replaced, and then a
    /// hash of the whole is added. (`@` and `+` are not allowed in profile names.)
    pub fn of_destination(destination: &Destination) -> Self {
        let mut name = String::new();
        let mut exact = true;
        let mut push = |part: &str, name: &mut String| {
            for c in part.chars() {
                let plain = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                exact &= plain;
                name.push(if plain { c } else { '_' });
            }
        };
        if let Some(user) = &destination.user {
            push(user, &mut name);
            name.push('@');
        }
        push(&destination.host, &mut name);
        if let Some(port) = destination.port {
            name.push('+');
            name.push_str(&port.to_string());
        }
        if !exact || name.len() > MAX_NAME || name.starts_with('.') {
            // Only to tell names apart: SHA-1 because it stays the same from version to version.
            let digest = Sha1::digest(destination.to_string());
            let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            name.truncate(MAX_NAME - 1 - hash.len());
            name = format!("{}~{hash}", name.trim_start_matches('.'));
        }
        Self(name)
    }

    /// The name of a tunnel found in the runtime directory, if `file` is one of its files.
    pub fn of_file(file: &str, suffix: &str) -> Option<Self> {
        Self::of_status(file.strip_suffix(suffix)?)
    }

    /// The name that a running tunnel has, as its daemon says it. None where no file in the runtime directory could
    /// have it.
    pub fn of_status(name: &str) -> Option<Self> {
        (!name.is_empty() && !name.starts_with('.') && !name.contains('/')).then(|| Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TunnelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_be_commands_are_no_names() {
        for name in ["h", "10.0.0.5", "2001:db8::1", "fe80::1%eth0", "my_host", "b\u{fc}cher.example", "a@b", "h*"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in [
            "-h", "a$(x)", "a`x`", "a;x", "a|x", "a&x", "a b", "a\tb", "a\nb", "a'b", "a\"b", "a\\b", "a,b", "{a}",
            "<a",
        ] {
            assert!(!is_host_name(name), "{name:?}");
        }
        for name in ["root", "DOMAIN\\me", "me@corp", "a b", "a$b", ""] {
            assert!(is_user_name(name), "{name}");
        }
        for name in ["-l", "a -oProxyCommand=x", "a\\", "a;x", "a`x`", "a|x", "a(x)", "a\nb", "'a", "a\"b"] {
            assert!(!is_user_name(name), "{name:?}");
        }
    }

    fn parse(input: &str) -> (Option<String>, String, Option<u16>) {
        let d = Destination::parse(input).unwrap_or_else(|e| panic!("{input}: {e}"));
        (d.user, d.host, d.port)
    }

    #[test]
    fn every_form_of_a_target_is_understood() {
        assert_eq!(parse("host"), (None, "host".into(), None));
        assert_eq!(parse("u@host"), (Some("u".into()), "host".into(), None));
        assert_eq!(parse("u@host:22"), (Some("u".into()), "host".into(), Some(22)));
        assert_eq!(parse("a@b@host"), (Some("a@b".into()), "host".into(), None));
        assert_eq!(parse("::1"), (None, "::1".into(), None));
        assert_eq!(parse("u@[fe80::1%eth0]:2222"), (Some("u".into()), "fe80::1%eth0".into(), Some(2222)));
        assert_eq!(parse("ssh://u@host:2222/"), (Some("u".into()), "host".into(), Some(2222)));
    }

    #[test]
    fn what_could_be_read_as_an_option_or_is_no_target_is_refused() {
        for input in [
            "",
            "-oProxyCommand=x",
            "u@-x",
            "-l@host",
            "host:0",
            "host:65536",
            "host:x",
            "[::1",
            "[::1]x",
            "a b",
            "a\nb",
            "http://host",
            "host/path",
            "u:secret@host",
            "@host",
        ] {
            assert!(Destination::parse(input).is_err(), "{input:?} was accepted");
        }
    }

    #[test]
    fn names_are_readable_where_they_can_be() {
        let name = |input: &str| TunnelName::of_destination(&Destination::parse(input).expect("a target")).to_string();
        assert_eq!(name("u@host"), "u@host");
        assert_eq!(name("ssh://u@host:2222"), "u@host+2222");
        assert!(name("::1").starts_with("__1~"));
    }

    #[test]
    fn a_name_that_is_told_leads_to_no_other_directory() {
        let of = |name: &str| TunnelName::of_status(name).map(|name| name.to_string());
        assert_eq!(of("u@host+2222").as_deref(), Some("u@host+2222"));
        for name in ["", ".", "..", ".hidden", "a/b", "/a"] {
            assert_eq!(of(name), None, "{name:?}");
        }
        assert_eq!(TunnelName::of_file("lab.ctl", ".ctl"), of("lab").and_then(|name| TunnelName::of_status(&name)));
        assert_eq!(TunnelName::of_file("lab.sock", ".ctl"), None);
    }

    proptest! {
        #[test]
        fn two_destinations_never_share_a_name(a in "[a-z.:@_+~-]{1,80}", b in "[a-z.:@_+~-]{1,80}") {
            if let (Ok(a), Ok(b)) = (Destination::parse(&a), Destination::parse(&b)) {
                let (na, nb) = (TunnelName::of_destination(&a), TunnelName::of_destination(&b));
                prop_assert!(na.as_str().len() <= MAX_NAME);
                prop_assert!(!na.as_str().contains('/') && !na.as_str().starts_with('.'));
                prop_assert_eq!(a == b, na == nb);
            }
        }

        #[test]
        fn what_is_shown_is_understood_again(input in "[a-z@:.\\[\\]0-9]{1,40}") {
            if let Ok(d) = Destination::parse(&input) {
                prop_assert_eq!(Destination::parse(&d.to_string()).expect("shown form"), d);
            }
        }
    }
}
