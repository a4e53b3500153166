//! A request's head: read so that it has a single meaning, and written anew.
//!
//! What is [written](Head::written) follows from what was understood: the target is decoded and encoded once, headers about
//! the client's connection are dropped (RFC 9110 section 7.6.1), and an upgrade is kept only if it can be granted.

use std::ops::Range;

use memchr::{memchr, memchr_iter};

use super::operation::Operation;
use super::refusal::Refusal;
use super::target::Target;

/// Limit of lines in a head; hyper accepts a hundred.
const MAX_LINES: usize = 90;
/// Limit of a written target, in bytes; hyper accepts 64 KiB.
const MAX_TARGET: usize = 60_000;
/// Length of the longest header with a meaning here, in bytes.
const LONGEST_NAME: usize = 24;
/// Headers about a single connection, which are not passed on.
const OF_A_CONNECTION: [&str; 6] = ["connection", "http2-settings", "keep-alive", "proxy-connection", "te", "upgrade"];
/// The allowed values of `Connection`: these headers, and the options of the connection itself.
const OPTIONS: [&str; 6] = ["close", "http2-settings", "keep-alive", "proxy-connection", "te", "upgrade"];

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: String,
    /// The target as it is written: path and query.
    pub target: String,
    /// The meaning of the target.
    pub(super) aim: Target,
    /// The `Host` header; HTTP/1.0 has none.
    pub(super) host: Option<String>,
    /// Whether the request comes from a page in a browser (`Origin`).
    pub(super) origin: bool,
    /// Whether it has a body.
    pub(super) body: bool,
    /// The length of its body, where that is known beforehand.
    length: Option<u64>,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(in crate::tunnel) expects: bool,
    /// Whether it is HTTP/1.0.
    old: bool,
    /// The protocol that its connection may switch to.
    protocol: Option<&'static str>,
    /// Whether the client ends its connection with this request.
    close: bool,
    /// The lines that are passed on, in the bytes that were read.
    kept: Vec<Range<usize>>,
}

/// What becomes of a body under a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Content {
    /// It passes as it comes.
    Same,
    /// Another one of this length is sent.
    New(usize),
    /// It is dropped.
    None,
}

impl Head {
    /// The requested operation of the Engine; None if it is not in the table.
    pub(in crate::tunnel) fn operation(&self) -> Option<&'static Operation> {
        self.aim.operation
    }

    /// Whether its connection may switch to another protocol.
    pub(in crate::tunnel) fn upgrades(&self) -> bool {
        self.protocol.is_some()
    }

    /// Whether it is the last one of its connection.
    pub(in crate::tunnel) fn is_last(&self) -> bool {
        !self.upgrades() && (self.close || self.old)
    }

    /// The length of its body, in bytes, where that is known beforehand.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether it is HTTP/1.0.
    pub(super) fn is_old(&self) -> bool {
        self.old
    }

    /// The bytes to send for a head that was [read] from `bytes`, with this target and this body behind it.
    pub(in crate::tunnel) fn written(&self, bytes: &[u8], target: &str, content: Content) -> Vec<u8> {
        let version = if self.old { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut written = Vec::with_capacity(bytes.len() + 64);
        written.extend_from_slice(format!("{} {target} {version}\r\n", self.method).as_bytes());
        for line in &self.kept {
            let line = &bytes[line.clone()];
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            let is_about_body = is("content-length") || is("transfer-encoding") || is("expect");
            let passes = match content {
                Content::Same => true,
                Content::New(_) => !is_about_body,
                Content::None => !is_about_body && !is("content-type"),
            };
            if passes {
                written.extend_from_slice(line);
                written.extend_from_slice(b"\r\n");
            }
        }
        if self.host.is_none() {
            written.extend_from_slice(b"host: docker\r\n");
        }
        match content {
            Content::Same => {}
            Content::New(length) => written.extend_from_slice(format!("content-length: {length}\r\n").as_bytes()),
            Content::None => written.extend_from_slice(b"content-length: 0\r\n"),
        }
        match self.protocol {
            Some(protocol) => {
                written.extend_from_slice(format!("connection: upgrade\r\nupgrade: {protocol}\r\n").as_bytes());
            }
            None if self.close => written.extend_from_slice(b"connection: close\r\n"),
            None => {}
        }
        written.extend_from_slice(b"\r\n");
        written
    }
}

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tunnel) enum Body {
    None,
    Length(u64),
    Chunked,
}

/// The headers' meaning for the guard.
#[derive(Default)]
struct Headers<'a> {
    /// The lines passed on, unchanged, by their places.
    kept: Vec<Range<usize>>,
    host: Option<&'a str>,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    form: bool,
    origin: bool,
    close: bool,
    wants_upgrade: bool,
    /// The requested protocols, one per header.
    upgrades: Vec<&'a str>,
}

/// What ends with a line feed, each without that.
pub(in crate::tunnel) fn ended_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut begins = 0;
    memchr_iter(b'\n', bytes).map(move |end| &bytes[std::mem::replace(&mut begins, end + 1)..end])
}

/// The end of a head: the index after its empty line. `before` bytes were searched earlier.
pub(in crate::tunnel) fn head_end(bytes: &[u8], before: usize) -> Option<usize> {
    let from = before.saturating_sub(3);
    let ends = memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1);
    ends.into_iter().find(|end| bytes[from..*end].ends_with(b"\r\n\r\n"))
}

/// The lines of a head. The break behind each is CR LF, or LF where the head was not checked for that.
fn lines(head: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(head);
    std::iter::from_fn(move || {
        let (line, behind) =
            rest.take().map(|rest| split_once(rest, b'\n').map_or((rest, None), |(a, b)| (a, Some(b))))?;
        rest = behind;
        Some(line.strip_suffix('\r').unwrap_or(line))
    })
}

/// As `str::split_once` by an ASCII character, and faster: it is done for each line of each request.
fn split_once(text: &str, byte: u8) -> Option<(&str, &str)> {
    memchr(byte, text.as_bytes()).map(|at| (&text[..at], &text[at + 1..]))
}

/// The value of a Content-Length header, if it is a plain number (RFC 9110 section 8.6).
pub(in crate::tunnel) fn content_length(value: &str) -> Option<u64> {
    let plain = !value.is_empty() && value.len() <= 18 && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| plain)
}

/// Reads a complete head. Returns it, and the framing of its body.
///
/// # Errors
/// It has no meaning, or more than one.
pub(in crate::tunnel) fn read(bytes: &[u8]) -> Result<(Head, Body), Refusal> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).ok_or("it is not ASCII")?;
    let text = text.strip_suffix("\r\n\r\n").ok_or("its head has no end")?;
    // Whole, so that the compiler can look at many at once.
    let breaks = |odd, (one, next): (&u8, &u8)| odd | ((*one == b'\r') != (*next == b'\n'));
    let has_odd_breaks = bytes.iter().zip(&bytes[1..]).fold(bytes[0] == b'\n', breaks);
    let is_odd = |byte: u8| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n');
    if has_odd_breaks || bytes.iter().fold(false, |odd, byte| odd | is_odd(*byte)) {
        return Err("its head has control characters in it");
    }
    let mut lines = lines(text);
    let line = lines.next().unwrap_or_default();
    let (method, target, version) = request_line(line)?;
    if memchr_iter(b'\n', text.as_bytes()).count() >= MAX_LINES {
        return Err("it has too many headers");
    }
    let old = version == "HTTP/1.0";
    let headers = Headers::read(lines, line.len() + 2, old)?;
    let body = match (headers.length, headers.chunked) {
        (Some(_), true) => return Err("it has both Content-Length and Transfer-Encoding"),
        (None | Some(0), false) => Body::None,
        (Some(length), false) => Body::Length(length),
        (None, true) => Body::Chunked,
    };
    // The Engine reads parameters from a form's body as well as from the query.
    if headers.form && body != Body::None {
        return Err("forms are read like queries, which could say otherwise");
    }
    if headers.host.is_none() && !old {
        return Err("it has no Host header");
    }
    let aim = Target::read(method, target)?;
    let protocol = aim.operation.and_then(|operation| operation.upgrade).filter(|wanted| {
        let asked = matches!(headers.upgrades.as_slice(), [one] if one.eq_ignore_ascii_case(wanted));
        asked && headers.wants_upgrade && !old
    });
    let target = aim.written();
    if target.len() > MAX_TARGET {
        return Err("its target is too long");
    }
    let head = Head {
        method: method.to_owned(),
        target,
        aim,
        host: headers.host.map(str::to_owned),
        origin: headers.origin,
        body: body != Body::None,
        length: headers.length,
        expects: headers.expects,
        old,
        protocol,
        close: headers.close,
        kept: headers.kept,
    };
    Ok((head, body))
}

/// Splits the request line into method, target and version.
fn request_line(line: &str) -> Result<(&str, &str, &str), Refusal> {
    let words = split_once(line, b' ').and_then(|(method, rest)| Some((method, split_once(rest, b' ')?)));
    let Some((method, (target, version))) = words.filter(|(_, (_, last))| !last.contains(' ')) else {
        return Err("its first line has not three words");
    };
    // The preface of HTTP/2 (RFC 9113 section 3.4).
    if line == "PRI * HTTP/2.0" {
        return Err("it is HTTP/2 (h2c), which a guard does not read");
    }
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err("it is neither HTTP/1.1 nor HTTP/1.0");
    }
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err("its method is not valid");
    }
    Ok((method, target, version))
}

impl<'a> Headers<'a> {
    /// Reads the lines, of which the first one begins at `at`.
    fn read(lines: impl Iterator<Item = &'a str>, mut at: usize, old: bool) -> Result<Self, Refusal> {
        let mut headers = Self::default();
        for line in lines {
            let place = at..at + line.len();
            at = place.end + 2;
            if line.starts_with([' ', '\t']) {
                return Err("a header is folded over two lines");
            }
            let (name, value) = split_once(line, b':').ok_or("a header has no colon")?;
            if name.is_empty() || !name.bytes().all(|byte| IS_TOKEN[usize::from(byte)]) {
                return Err("a header's name is not valid");
            }
            let mut lower = [0; LONGEST_NAME];
            // None of those with a meaning here is longer.
            let name = match lower.get_mut(..name.len()) {
                Some(lower) => {
                    lower.copy_from_slice(name.as_bytes());
                    lower.make_ascii_lowercase();
                    std::str::from_utf8(lower).unwrap_or_default()
                }
                None => "",
            };
            if headers.take(name, value.trim_matches([' ', '\t']), old)? && !OF_A_CONNECTION.contains(&name) {
                headers.kept.push(place);
            }
        }
        Ok(headers)
    }

    /// Whether the header is passed on.
    fn take(&mut self, name: &str, value: &'a str, old: bool) -> Result<bool, Refusal> {
        match name {
            "host" if self.host.replace(value).is_some() => return Err("it has two Host headers"),
            "content-length" => {
                let new = content_length(value).ok_or("its Content-Length is not a plain number")?;
                if self.length.replace(new).is_some() {
                    return Err("it has two Content-Length headers");
                }
            }
            "transfer-encoding" if old => return Err("HTTP/1.0 has no Transfer-Encoding"),
            "transfer-encoding" if self.chunked => return Err("it has two Transfer-Encoding headers"),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => self.chunked = true,
            "transfer-encoding" => return Err("its Transfer-Encoding is not chunked"),
            // A form without a body holds no parameters, so its type is dropped.
            "content-type" if is_form(value) => {
                self.form = true;
                return Ok(false);
            }
            // A server may ignore it in HTTP/1.0 (RFC 9110 section 10.1.1).
            "expect" if old => return Ok(false),
            "expect" if !value.eq_ignore_ascii_case("100-continue") => return Err("it expects something unknown"),
            "expect" => self.expects = true,
            "trailer" => return Err("it announces trailers"),
            "origin" => self.origin = true,
            "upgrade" => self.upgrades.push(value),
            "connection" => {
                for option in value.split(',').map(|option| option.trim_matches([' ', '\t']).to_ascii_lowercase()) {
                    match option.as_str() {
                        "upgrade" => self.wants_upgrade = true,
                        "close" => self.close = true,
                        other if other.is_empty() || OPTIONS.contains(&other) => {}
                        _ => return Err("its Connection header names something unknown"),
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data"
}

/// The characters of a token (RFC 9110 section 5.6.2).
const IS_TOKEN: [bool; 256] = {
    let mut is_token = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        is_token[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        is_token[others[at] as usize] = true;
        at += 1;
    }
    is_token
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_2_is_refused_by_name() {
        let refusal = read(b"PRI * HTTP/2.0\r\n\r\n").expect_err("not HTTP/1");
        assert!(refusal.contains("h2c"), "{refusal}");
    }

    /// The bytes written for a request with these headers, and the head.
    fn written(line: &str, headers: &str) -> (String, Head) {
        let text = format!("{line}\r\n{headers}\r\n");
        let (head, _) = read(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        let written = head.written(text.as_bytes(), &head.target, Content::Same);
        let (again, _) = read(&written).expect("what is written is read");
        assert_eq!((&again.target, &again.written(&written, &again.target, Content::Same)), (&head.target, &written));
        (String::from_utf8(written).expect("UTF-8"), head)
    }

    #[test]
    fn what_is_about_the_connection_is_not_passed_on() {
        for headers in [
            "Host: x\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
            "Connection: TE\r\nTE: trailers\r\nHost: x\r\n",
            "Host: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
            "Host: x\r\nProxy-Connection: keep-alive\r\nConnection: , proxy-connection\r\n",
            "Host: x\r\nUpgrade: tcp\r\n",
            "Host: x\r\nConnection: upgrade\r\n",
            "Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        ] {
            let (text, head) = written("GET /info HTTP/1.1", headers);
            assert_eq!(text, "GET /info HTTP/1.1\r\nHost: x\r\n\r\n", "{headers}");
            assert!(!head.upgrades() && !head.is_last(), "{headers}");
        }
        let (text, head) = written("GET /info HTTP/1.1", "Host: x\r\nConnection: close, TE\r\nA: b\r\n");
        assert_eq!(text, "GET /info HTTP/1.1\r\nHost: x\r\nA: b\r\nconnection: close\r\n\r\n");
        assert!(head.is_last());
    }

    #[test]
    fn an_upgrade_is_granted_to_the_protocol_of_its_operation_only() {
        let line = "POST /containers/x/attach?stream=1 HTTP/1.1";
        for (headers, granted) in [
            ("Connection: Upgrade\r\nUpgrade: tcp\r\n", true),
            ("Connection: keep-alive, upgrade\r\nUpgrade: TCP\r\n", true),
            ("Connection: Upgrade\r\nUpgrade: h2c\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: tcp, h2c\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: tcp\r\nUpgrade: tcp\r\n", false),
            ("Connection: Upgrade\r\n", false),
            ("Upgrade: tcp\r\n", false),
        ] {
            let (text, head) = written(line, &format!("Host: x\r\n{headers}"));
            assert_eq!(head.upgrades(), granted, "{headers}");
            assert_eq!(text.ends_with("\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n"), granted, "{text}");
        }
        let old = written("POST /containers/x/attach HTTP/1.0", "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n");
        assert!(!old.1.upgrades());
    }

    #[test]
    fn http_1_0_is_answered_once_and_may_leave_out_its_host() {
        let (text, head) = written("GET /_ping HTTP/1.0", "Connection: keep-alive\r\nExpect: 100-continue\r\n");
        assert_eq!(text, "GET /_ping HTTP/1.0\r\nhost: docker\r\n\r\n");
        assert!(head.is_last() && !head.expects);
        assert!(read(b"POST /build HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn a_target_and_the_number_of_headers_are_bounded_as_written() {
        // Each of these is written as three bytes.
        let query = format!("?a={}", "{".repeat(15_000));
        for (size, passes) in [(MAX_TARGET, true), (MAX_TARGET + 1, false), (MAX_TARGET + 2, false)] {
            let path = format!("/images/{}/json", "a".repeat(size - "/images//json?a=".len() - 45_000));
            let text = format!("GET {path}{query} HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(read(text.as_bytes()).is_ok(), passes, "{size}");
        }
        for (lines, passes) in [(MAX_LINES, true), (MAX_LINES + 1, false), (MAX_LINES + 9, false)] {
            let headers = "A: b\r\n".repeat(lines - 2);
            let text = format!("GET /info HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            assert_eq!(read(text.as_bytes()).is_ok(), passes, "{lines}");
        }
    }

    #[test]
    fn the_headers_of_a_body_follow_what_becomes_of_it() {
        let headers = "Host: x\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nA: b\r\n";
        let text = format!("POST /build HTTP/1.1\r\n{headers}\r\n");
        let (head, _) = read(text.as_bytes()).expect("valid");
        for (content, expected) in [
            (Content::Same, headers),
            (Content::New(7), "Host: x\r\nContent-Type: a/b\r\nA: b\r\ncontent-length: 7\r\n"),
            (Content::None, "Host: x\r\nA: b\r\ncontent-length: 0\r\n"),
        ] {
            let written = String::from_utf8(head.written(text.as_bytes(), "/y", content)).expect("UTF-8");
            assert_eq!(written, format!("POST /y HTTP/1.1\r\n{expected}\r\n"));
        }
    }

    #[test]
    fn what_has_a_body_and_who_waits_to_send_it_is_known() {
        for (headers, body, expects) in [
            ("", Body::None, false),
            ("Content-Length: 0\r\n", Body::None, false),
            ("Content-Length: 7\r\nExpect: 100-Continue\r\n", Body::Length(7), true),
            ("Content-Length: 999999999999999999\r\n", Body::Length(999_999_999_999_999_999), false),
            ("Transfer-Encoding: Chunked\r\n", Body::Chunked, false),
        ] {
            let text = format!("POST /build HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            let (head, found) = read(text.as_bytes()).expect(headers);
            assert_eq!((found, head.body, head.expects), (body, body != Body::None, expects), "{headers}");
        }
        for header in [
            "Content-Length: ",
            "Content-Length: +7",
            "Content-Length: 1000000000000000000",
            "Content-Length: 7\r\nContent-Length: 7",
            "Content-Length: 7\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip",
            "Expect: 200-ok",
            "Trailer: x",
            "Content-Length: 7\r\nContent-Type: multipart/form-data; boundary=x",
            "Content-Length: 7\r\nContent-Type: Application/X-WWW-Form-Urlencoded",
        ] {
            let text = format!("POST /build HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n");
            assert!(read(text.as_bytes()).is_err(), "{header}");
        }
    }
}
