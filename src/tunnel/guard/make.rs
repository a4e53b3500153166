//! Whose Engine it is.

use std::time::{Instant, SystemTime};

/// The vendor of the Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Make {
    /// Docker's, or an unknown one.
    Docker,
    /// Podman, by this name. It builds command lines from bodies (cmd/podman/common/create_opts.go).
    Podman(String),
}

/// What is known of the Engine: its vendor, when it said so, and since when the tunnel had been up.
pub(super) type KnownMake = Option<(Make, Instant, SystemTime)>;

impl Make {
    /// By the headers of an answer.
    pub(super) fn of(header: impl Fn(&str) -> Option<String>) -> Self {
        let server = header("server").unwrap_or_default().trim().to_owned();
        match header("libpod-api-version").is_some() || server.starts_with("Libpod/") {
            true => Self::Podman(server),
            false => Self::Docker,
        }
    }

    /// By the head of an answer.
    pub(super) fn of_head(head: &[u8]) -> Self {
        let head = String::from_utf8_lossy(head);
        let lines = || head.lines().filter_map(|line| line.split_once(':'));
        Self::of(|wanted| {
            lines().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_is_told_from_docker_by_its_headers() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\nServer: Docker/20.10.24 (linux)\r\n\r\n", Make::Docker),
            ("HTTP/1.1 200 OK\r\n\r\n", Make::Docker),
            ("HTTP/1.1 200 OK\r\nserver: Libpod/4.3.1 (linux)\r\n\r\n", Make::Podman("Libpod/4.3.1 (linux)".into())),
            ("HTTP/1.1 200 OK\r\nLibpod-Api-Version: 4.3.1\r\nServer: x\r\n\r\n", Make::Podman("x".into())),
        ] {
            assert_eq!(Make::of_head(head.as_bytes()), expected, "{head}");
        }
    }
}
