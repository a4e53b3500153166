//! The local end of a tunnel: what is private to this user on this machine.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Error;
use super::paths::check_socket_path;
use crate::os::local;

/// The local end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalEndpoint {
    Unix(PathBuf),
    /// A loopback address; port 0 means any free one.
    Tcp(SocketAddr),
}

impl LocalEndpoint {
    /// Reads `unix:PATH` (on Windows `npipe:PATH`) or `tcp:ADDRESS:PORT`.
    ///
    /// ```
    /// use dtunnel::config::LocalEndpoint;
    /// assert!(LocalEndpoint::parse("tcp:127.0.0.1:2375").is_ok());
    /// assert!(LocalEndpoint::parse("tcp:0.0.0.0:2375").is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Local`] for anything that is not loopback or not absolute, [`Error::SocketPath`].
    pub fn parse(input: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Local { input: input.escape_debug().to_string(), reason };
        if let Some(path) = input.strip_prefix(local::SCHEME).and_then(|rest| rest.strip_prefix(':')) {
            let path = local::path_in(path).map_err(bad)?;
            check_socket_path(&path)?;
            return Ok(Self::Unix(path));
        }
        // As with --remote, a path stands for itself.
        if input.starts_with(std::path::MAIN_SEPARATOR) {
            return Self::parse(&format!("{}:{input}", local::SCHEME));
        }
        let Some(address) = input.strip_prefix("tcp:") else {
            return Err(bad(local::NEITHER));
        };
        let address = address.strip_prefix("//").unwrap_or(address);
        let address = match address.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => address.into(),
        };
        let address: SocketAddr = address.parse().map_err(|_| bad("it is not ADDRESS:PORT"))?;
        let loopback = match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if loopback { Ok(Self::Tcp(address)) } else { Err(bad("only a loopback address is private to this machine")) }
    }

    /// As docker's `DOCKER_HOST` wants it: `unix:///path` or `tcp://127.0.0.1:2375`.
    pub fn docker_host(&self) -> String {
        match self {
            Self::Unix(path) => local::docker_host(path),
            Self::Tcp(address) => format!("tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_private_to_this_machine_can_be_a_local_endpoint() {
        for input in [
            "tcp:0.0.0.0:1",
            "tcp:192.0.2.1:1",
            "tcp:[::]:1",
            "tcp:127.0.0.1",
            "unix:rel",
            "unix:/a\nb",
            "x",
            "unix:/a%zz",
            "unix:/a%20b",
            "/a?b",
            "unix:///a#b",
        ] {
            assert!(LocalEndpoint::parse(input).is_err(), "{input:?} was accepted");
        }
        assert_eq!(LocalEndpoint::parse("unix:///a/b").expect("valid"), LocalEndpoint::Unix("/a/b".into()));
        assert_eq!(LocalEndpoint::parse("/a/b").expect("valid"), LocalEndpoint::Unix("/a/b".into()));
        assert!(LocalEndpoint::parse("tcp:[::1]:2375").is_ok());
        assert_eq!(LocalEndpoint::parse("/a b/é;@[").expect("valid").docker_host(), "unix:///a b/é;@[");
        assert!(matches!(
            LocalEndpoint::parse(&format!("unix:/{}", "x".repeat(200))),
            Err(Error::SocketPath { length: 201, .. })
        ));
    }
}
