//! Refuses requests from browsers: a web page can reach a loopback port, and anybody can create a name that
//! resolves to it (DNS rebinding).

use std::net::IpAddr;

use hyper::StatusCode;

use super::head::Head;
use super::refusal::Refused;

/// Refuses a request that may come from a browser.
///
/// # Errors
/// Why it is refused.
pub(super) fn check(head: &Head) -> Result<(), Refused> {
    if head.origin {
        return Err((StatusCode::FORBIDDEN, "it comes from a page in a browser".into()));
    }
    match &head.host {
        Some(host) if !is_loopback(host) => {
            Err((StatusCode::FORBIDDEN, format!("its Host {} is not loopback", host.escape_debug())))
        }
        // HTTP/1.0, which browsers do not speak.
        None | Some(_) => Ok(()),
    }
}

/// Whether it is `localhost`, `127.0.0.1:2375`, `[::1]:2375` or the like.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::head;
    use super::*;

    #[test]
    fn what_a_browser_may_have_sent_is_refused() {
        for (text, passes) in [
            ("GET /info HTTP/1.1\r\nHost: localhost:2375\r\n", true),
            ("GET /info HTTP/1.1\r\nHost: [::1]:2375\r\n", true),
            ("GET /info HTTP/1.0\r\n", true),
            ("GET /info HTTP/1.0\r\nHost: evil.example\r\n", false),
            ("GET /info HTTP/1.1\r\nHost: evil.example:2375\r\n", false),
            ("GET /info HTTP/1.1\r\nHost: \r\n", false),
            ("GET /info HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n", false),
            ("GET /info HTTP/1.1\r\nHost: localhost\r\nORIGIN: null\r\n", false),
        ] {
            let (head, ..) = head::read(format!("{text}\r\n").as_bytes()).expect(text);
            assert_eq!(check(&head).is_ok(), passes, "{text}");
        }
    }

    #[test]
    fn only_loopback_is_loopback() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:2375", "[::1]:2375", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "127.0.0.1:x"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
