//! The remote endpoint, as it is written: `auto`, a path, `tcp:ADDRESS:PORT` or `command:…`.

use std::fmt;

use super::Error;
use crate::address::Address;

/// Longest path of a socket, in bytes: what Linux allows (unix(7)), the most of all systems.
const MAX_SOCKET_PATH: usize = 107;
/// Longest command that is accepted, in bytes.
const MAX_COMMAND: usize = 4096;

/// Docker's usual socket.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Are these the same path? `/var/run` is `/run` on most hosts.
pub fn is_same_socket(a: &str, b: &str) -> bool {
    let plain = |path: &str| match path.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}"),
        None => path.to_owned(),
    };
    plain(a) == plain(b)
}

/// Where the Engine is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// Wherever one is found: Docker's usual socket, rootless Docker's, Podman's.
    Auto,
    Socket(String),
    /// A TCP port, as the host sees it.
    Tcp {
        host: String,
        port: u16,
    },
    /// A command of the host's whose standard input and output speak to the Engine.
    Command(String),
}

impl Remote {
    /// Reads one.
    ///
    /// ```
    /// use dtunnel::config::Remote;
    /// assert_eq!(Remote::parse("/run/docker.sock").unwrap(), Remote::Socket("/run/docker.sock".into()));
    /// assert!(Remote::parse("docker.sock").is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Remote`].
    pub fn parse(input: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Remote { input: input.escape_debug().to_string(), reason };
        if input.chars().any(char::is_control) {
            return Err(bad("it holds control characters"));
        }
        if input == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(command) = input.strip_prefix("command:").map(str::trim) {
            return match command.len() {
                0 => Err(bad("the command is missing")),
                1..=MAX_COMMAND => Ok(Self::Command(command.into())),
                _ => Err(bad("the command is too long")),
            };
        }
        if let Some(address) = input.strip_prefix("tcp:") {
            let address = address.strip_prefix("//").unwrap_or(address);
            let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad("the port is no port"))?;
            if host.is_empty() || host.contains(char::is_whitespace) {
                return Err(bad("the address is missing"));
            }
            return Ok(Self::Tcp { host: host.into(), port });
        }
        let path = input.strip_prefix("unix:").unwrap_or(input);
        let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
        if !path.starts_with('/') {
            return Err(bad("it is not `auto`, an absolute path, `tcp:ADDRESS:PORT` or `command:…`"));
        }
        if path.len() > MAX_SOCKET_PATH {
            return Err(bad("the path is too long for a socket"));
        }
        Ok(Self::Socket(path.into()))
    }

    /// The path, where it is a socket's.
    pub fn socket(&self) -> Option<&str> {
        match self {
            Self::Socket(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Socket(path) => f.write_str(path),
            Self::Tcp { host, port } => write!(f, "tcp:{}", Address::of(host, *port)),
            Self::Command(command) => write!(f, "command:{command}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for input in ["auto", "/run/user/1000/docker.sock", "tcp:127.0.0.1:2375", "tcp:[::1]:2375", "command:a b | c"] {
            assert_eq!(Remote::parse(input).expect(input).to_string(), input);
        }
        assert_eq!(Remote::parse("unix:///a/b").expect("a path"), Remote::Socket("/a/b".into()));
        assert_eq!(Remote::parse("tcp://h:1").expect("a port"), Remote::Tcp { host: "h".into(), port: 1 });
    }

    #[test]
    fn what_is_none_is_refused() {
        for input in ["", "docker.sock", "tcp:1", "tcp::1", "tcp:h:0", "tcp:h:x", "command:", "/a\nb", "http://x"] {
            assert!(matches!(Remote::parse(input), Err(Error::Remote { .. })), "{input:?} was accepted");
        }
        assert!(Remote::parse(&format!("/{}", "x".repeat(200))).is_err());
    }
}
