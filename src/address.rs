//! A host, with a port and a login name where they are given, as people write it: brackets around an IPv6 address.

use std::fmt;

/// Shown as `[user@]host[:port]`.
///
/// ```
/// use dtunnel::address::Address;
/// assert_eq!(Address::of("2001:db8::1", 22).to_string(), "[2001:db8::1]:22");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    pub user: Option<&'a str>,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Address<'a> {
    /// A port of a host.
    pub fn of(host: &'a str, port: u16) -> Self {
        Self { user: None, host, port: Some(port) }
    }

    /// Is the host an IPv6 address? Neither a name nor an IPv4 address has a colon.
    pub fn is_ipv6(&self) -> bool {
        self.host.contains(':')
    }
}

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = self.user {
            write!(f, "{user}@")?;
        }
        if self.is_ipv6() {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_has_brackets_with_and_without_a_port() {
        let shown = |user, host, port| Address { user, host, port }.to_string();
        assert_eq!(shown(None, "host", None), "host");
        assert_eq!(shown(None, "10.0.0.5", Some(22)), "10.0.0.5:22");
        assert_eq!(shown(Some("me"), "host", Some(2222)), "me@host:2222");
        assert_eq!(shown(Some("me"), "::1", None), "me@[::1]");
        assert_eq!(shown(Some("a@b"), "fe80::1%eth0", Some(2222)), "a@b@[fe80::1%eth0]:2222");
    }
}
