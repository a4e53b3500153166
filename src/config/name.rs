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

/// Where to go, as written: `[user@]host[:port]` or `ssh://[user@]host[:port]`. In the user of a URL `%40` and other
/// escapes stand for characters (RFC 3986 section 2.1).
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
        match Self::parse_with_socket(input)? {
            (destination, None) => Ok(destination),
            (_, Some(_)) => {
                Err(Error::Target { input: input.escape_debug().to_string(), reason: "a path has no place here" })
            }
        }
    }

    /// As [`Destination::parse`]; the path of a URL names the Engine's socket on the host, as for docker
    /// (`ssh://host/run/user/1000/docker.sock`).
    ///
    /// # Errors
    /// As [`Destination::parse`].
    pub fn parse_with_socket(input: &str) -> Result<(Self, Option<String>), Error> {
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
        let (rest, socket) = match url {
            Some(rest) => rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at..]))),
            None => (input, None),
        };
        if rest.contains('/') {
            return Err(bad("a target has no path, except an ssh:// URL"));
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
            // A login name may have one, as those of gateways do: then it is written where no password can be meant.
            if user.contains(':') {
                let reason = "a target cannot hold a password; a user with a colon goes into the profile's `user` or into \
                              ssh_config";
                return Err(bad(reason));
            }
        }
        let user = match (user, url) {
            (Some(user), Some(_)) => Some(unescaped(user).ok_or_else(|| bad("an escape in the user is none"))?),
            (user, _) => user.map(Into::into),
        };
        if host.is_empty() || host.starts_with('-') {
            return Err(bad("the host is empty or begins with `-`"));
        }
        let address = host.split('%').next().unwrap_or(host);
        if host.contains(['[', ']']) || (host.contains(':') && address.parse::<Ipv6Addr>().is_err()) {
            return Err(bad("it holds a colon or brackets, but no IPv6 address"));
        }
        let socket = socket.filter(|path| *path != "/").map(Into::into);
        Ok((Self { user, host: host.into(), port }, socket))
    }
}

/// The characters that `%` and two hexadecimal digits stand for. None where an escape is none, or stands for a control
/// character or a blank.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(more.get(..2)?).ok()?;
        let is_digit = |c: char| c.is_ascii_hexdigit();
        bytes.push(digits.chars().all(is_digit).then(|| u8::from_str_radix(digits, 16).ok())??);
        rest = &more[2..];
    }
    let text = String::from_utf8(bytes).ok()?;
    is_login_name(&text).then_some(text)
}

/// May this be a login name, as an argument of `ssh -G` and shown to people? It may have `@` and `:`, as those of gateways
/// do.
pub(super) fn is_login_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.contains(|c: char| c.is_control() || c.is_whitespace())
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
    /// destinations never share a name, nor two sockets of one: whatever is not a plain character is replaced, and then a
    /// hash of the whole is added. (`@` and `+` are not allowed in profile names.)
    pub fn of_destination(destination: &Destination, socket: Option<&str>) -> Self {
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
        if !exact || name.len() > MAX_NAME || name.starts_with('.') || socket.is_some() {
            // Only to tell names apart: SHA-1 because it stays the same from version to version.
            let digest = Sha1::digest(destination.to_string() + socket.unwrap_or_default());
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
        assert_eq!(parse("ssh://me%40corp%3Adb@host"), (Some("me@corp:db".into()), "host".into(), None));
        assert_eq!(parse("me%40corp@host"), (Some("me%40corp".into()), "host".into(), None));
        let (destination, socket) =
            Destination::parse_with_socket("ssh://u@host:22/run/user/1/x.sock").expect("a target");
        assert_eq!((destination.to_string(), socket.as_deref()), ("u@host:22".into(), Some("/run/user/1/x.sock")));
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
            "ssh://u:secret@host",
            "ssh://host/run/x.sock",
            "ssh://%2DoProxyCommand@host",
            "ssh://a%0Ab@host",
            "ssh://a%20b@host",
            "ssh://a%4@host",
            "ssh://a%+4@host",
            "ssh://a%ff@host",
            "@host",
        ] {
            assert!(Destination::parse(input).is_err(), "{input:?} was accepted");
        }
    }

    #[test]
    fn names_are_readable_where_they_can_be() {
        let name = |input: &str| {
            let (destination, socket) = Destination::parse_with_socket(input).expect("a target");
            TunnelName::of_destination(&destination, socket.as_deref()).to_string()
        };
        assert_eq!(name("u@host"), "u@host");
        assert_eq!(name("ssh://u@host:2222"), "u@host+2222");
        assert!(name("::1").starts_with("__1~"));
        let (one, other) = (name("ssh://host/run/a.sock"), name("ssh://host/run/b.sock"));
        assert!(one != other && [one, other].iter().all(|name| name.starts_with("host~")));
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
                let (na, nb) = (TunnelName::of_destination(&a, None), TunnelName::of_destination(&b, None));
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
