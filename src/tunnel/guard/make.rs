//! Whose Engine it is.

use std::time::{Instant, SystemTime};

use memchr::memchr;

use super::head::ended_lines;

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
    /// By the names and values of an answer's headers.
    pub(super) fn of<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let (mut server, mut is_podman) = (None, false);
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(b"server") {
                server.get_or_insert(value.trim_ascii());
            }
            is_podman |= name.eq_ignore_ascii_case(b"libpod-api-version");
        }
        let server = server.unwrap_or_default();
        match is_podman || server.starts_with(b"Libpod/") {
            true => Self::Podman(String::from_utf8_lossy(server).into_owned()),
            false => Self::Docker,
        }
    }

    /// By the head of an answer.
    pub(super) fn of_head(head: &[u8]) -> Self {
        Self::of(ended_lines(head).filter_map(|line| {
            let colon = memchr(b':', line)?;
            Some((&line[..colon], &line[colon + 1..]))
        }))
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
