//! A strict reading of HTTP/1.1 requests, before hyper sees them.
//!
//! hyper judges requests and passes them on; this makes sure that whoever else might read them reads them
//! in the same way. It lets through what has one meaning only and refuses the rest, and finds by itself
//! where each request begins and ends (RFC 9112). What it saw of each is compared with what hyper saw.

use std::collections::VecDeque;

/// Largest head, in bytes. The longest header there is holds the credentials of all registries.
const MAX_HEAD: usize = 48 << 10;
/// Most lines in a head; hyper takes a hundred.
const MAX_LINES: usize = 90;
/// Most bytes that are kept of a client that sends on after it asked for an upgrade.
pub(super) const MAX_HELD: usize = 64 << 10;

/// What stands in the place of a request that is refused, so that its refusal is answered in its turn.
const IN_ITS_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";

/// A request as read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its method.
    pub method: String,
    /// Its target: path and query.
    pub target: String,
    /// The `Host` header.
    pub host: String,
    /// Does it come from a page in a browser (`Origin`)?
    pub origin: bool,
    /// Does it ask for another protocol?
    pub upgrade: bool,
    /// Has it a body?
    pub body: bool,
}

/// Why a request is refused, in a few words.
pub type Refusal = &'static str;

/// Where the reading is.
#[derive(Debug)]
enum State {
    /// In a head, of which this has come.
    Head(Vec<u8>),
    /// In a body of so many more bytes.
    Body(u64),
    /// In a body of chunks.
    Chunk(Chunk),
    /// Behind a request for an upgrade: what comes now is not for HTTP, if it is granted.
    Held(Vec<u8>),
    /// Behind a request that was refused: nothing more is read.
    Refused,
}

#[derive(Debug)]
enum Chunk {
    /// In the line that gives the size.
    Size(Vec<u8>),
    Data(u64),
    /// What must follow the data of a chunk, or of the last one.
    End(&'static [u8], bool),
}

/// The reading of one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    /// Does an upgrade follow the body?
    upgrade: bool,
    /// Requests that were let through or refused, in their order.
    seen: VecDeque<Result<Head, Refusal>>,
}

impl Default for Framing {
    fn default() -> Self {
        Self { state: State::Head(Vec::new()), upgrade: false, seen: VecDeque::new() }
    }
}

impl Framing {
    /// Reads on; what is let through goes to `out`.
    ///
    /// # Errors
    /// What is wrong with a body.
    pub fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        while !input.is_empty() {
            let used = match &mut self.state {
                State::Head(head) => {
                    let (used, complete) = take_head(head, input);
                    if complete || head.len() > MAX_HEAD {
                        let head = std::mem::take(head);
                        self.head(&head, complete, out);
                    }
                    used
                }
                State::Body(left) => {
                    let used = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    out.extend_from_slice(&input[..used]);
                    *left -= used as u64;
                    if *left == 0 {
                        self.ended();
                    }
                    used
                }
                State::Chunk(chunk) => {
                    let (used, ended) = chunk.feed(input)?;
                    out.extend_from_slice(&input[..used]);
                    if ended {
                        self.ended();
                    }
                    used
                }
                State::Held(held) => {
                    if held.len() + input.len() > MAX_HELD {
                        return Err("too much was sent before the upgrade was granted");
                    }
                    held.extend_from_slice(input);
                    input.len()
                }
                State::Refused => return Ok(()),
            };
            input = &input[used..];
        }
        Ok(())
    }

    /// The next request that was let through or refused.
    pub fn take_seen(&mut self) -> Option<Result<Head, Refusal>> {
        self.seen.pop_front()
    }

    /// What a client has sent behind its request for an upgrade.
    pub(super) fn held(&mut self) -> Vec<u8> {
        match &mut self.state {
            State::Held(held) => std::mem::take(held),
            _ => Vec::new(),
        }
    }

    /// Is there no use in reading on for now?
    pub(super) fn is_over(&self) -> bool {
        match &self.state {
            State::Refused => true,
            State::Held(held) => held.len() >= MAX_HELD,
            _ => false,
        }
    }

    /// The request is complete.
    fn ended(&mut self) {
        self.state = if self.upgrade { State::Held(Vec::new()) } else { State::Head(Vec::new()) };
    }

    fn head(&mut self, bytes: &[u8], complete: bool, out: &mut Vec<u8>) {
        let read = if complete { read_head(bytes) } else { Err("its head is too large") };
        match read {
            Ok((head, body)) => {
                self.upgrade = head.upgrade;
                out.extend_from_slice(bytes);
                self.seen.push_back(Ok(head));
                match body {
                    Body::None => self.ended(),
                    Body::Length(length) => self.state = State::Body(length),
                    Body::Chunked => self.state = State::Chunk(Chunk::Size(Vec::new())),
                }
            }
            Err(refusal) => {
                out.extend_from_slice(IN_ITS_PLACE);
                self.seen.push_back(Err(refusal));
                self.state = State::Refused;
            }
        }
    }
}

/// Takes input up to the end of a head; how much that was, and whether the head is complete.
fn take_head(head: &mut Vec<u8>, input: &[u8]) -> (usize, bool) {
    let before = head.len();
    let room = (MAX_HEAD + 1).saturating_sub(before).min(input.len());
    head.extend_from_slice(&input[..room]);
    let from = before.saturating_sub(3);
    match head[from..].windows(4).position(|four| four == b"\r\n\r\n") {
        Some(at) => {
            head.truncate(from + at + 4);
            (head.len() - before, true)
        }
        None => (room, false),
    }
}

impl Chunk {
    /// How much of the input it takes, and whether the body has ended.
    fn feed(&mut self, input: &[u8]) -> Result<(usize, bool), Refusal> {
        match self {
            Self::Size(line) => {
                let byte = input[0];
                match (byte, line.last()) {
                    (b'\n', Some(b'\r')) => {
                        let digits = std::str::from_utf8(&line[..line.len() - 1]).unwrap_or_default();
                        let size = u64::from_str_radix(digits, 16).map_err(|_| "a chunk has no size")?;
                        *self = if size == 0 { Self::End(b"\r\n", true) } else { Self::Data(size) };
                    }
                    (b'\r', Some(last)) if last.is_ascii_hexdigit() => line.push(byte),
                    (digit, last) if digit.is_ascii_hexdigit() && last != Some(&b'\r') && line.len() < 8 => {
                        line.push(digit);
                    }
                    _ => return Err("the size of a chunk is not a plain number"),
                }
                Ok((1, false))
            }
            Self::Data(left) => {
                let used = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if *left == 0 {
                    *self = Self::End(b"\r\n", false);
                }
                Ok((used, false))
            }
            Self::End(expected, last) => {
                let last = *last;
                if expected.first() != input.first() {
                    return Err(if last { "there are trailers" } else { "a chunk does not end where it should" });
                }
                *expected = &expected[1..];
                let over = expected.is_empty();
                if over && !last {
                    *self = Self::Size(Vec::new());
                }
                Ok((1, over && last))
            }
        }
    }
}

enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Reads a complete head.
fn read_head(bytes: &[u8]) -> Result<(Head, Body), Refusal> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).ok_or("it is not ASCII")?;
    let text = text.strip_suffix("\r\n\r\n").ok_or("its head has no end")?;
    if text.split("\r\n").any(|line| line.chars().any(|c| c.is_ascii_control() && c != '\t')) {
        return Err("its head has control characters in it");
    }
    let mut lines = text.split("\r\n");
    let (method, target) = request_line(lines.next().unwrap_or_default())?;
    if text.split("\r\n").count() > MAX_LINES {
        return Err("it has too many headers");
    }
    let (mut host, mut length, mut chunked) = (None, None, false);
    let (mut origin, mut upgrade, mut connection_upgrade) = (false, false, false);
    for line in lines {
        if line.starts_with([' ', '\t']) {
            return Err("a header is folded over two lines");
        }
        let (name, value) = line.split_once(':').ok_or("a header has no colon")?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("the name of a header is none");
        }
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "host" if host.replace(value).is_some() => return Err("it has two Host headers"),
            "content-length" => {
                let digits = !value.is_empty() && value.len() <= 18 && value.bytes().all(|b| b.is_ascii_digit());
                let new = value.parse().ok().filter(|_| digits).ok_or("its Content-Length is not a plain number")?;
                if length.replace(new).is_some() {
                    return Err("it has two Content-Length headers");
                }
            }
            "transfer-encoding" if chunked => return Err("it has two Transfer-Encoding headers"),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => chunked = true,
            "transfer-encoding" => return Err("its Transfer-Encoding is not chunked"),
            "content-type" if is_form(value) => return Err("forms are read like queries, which could say otherwise"),
            "expect" if !value.eq_ignore_ascii_case("100-continue") => return Err("it expects something unknown"),
            "trailer" => return Err("it announces trailers"),
            "origin" => origin = true,
            "upgrade" => upgrade = true,
            "connection" => {
                for option in value.split(',').map(|option| option.trim().to_ascii_lowercase()) {
                    match option.as_str() {
                        "upgrade" => connection_upgrade = true,
                        "keep-alive" | "close" => {}
                        _ => return Err("its Connection header names something unknown"),
                    }
                }
            }
            _ => {}
        }
    }
    if upgrade != connection_upgrade {
        return Err("it asks for an upgrade with one of two headers");
    }
    let body = match (length, chunked) {
        (Some(_), true) => return Err("it has both Content-Length and Transfer-Encoding"),
        (None | Some(0), false) => Body::None,
        (Some(length), false) => Body::Length(length),
        (None, true) => Body::Chunked,
    };
    let host = host.ok_or("it has no Host header")?.to_owned();
    let head = Head { method, target, host, origin, upgrade, body: !matches!(body, Body::None) };
    Ok((head, body))
}

fn request_line(line: &str) -> Result<(String, String), Refusal> {
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words.as_slice() else { return Err("its first line has not three words") };
    if *version != "HTTP/1.1" {
        return Err("it is not HTTP/1.1");
    }
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err("its method is none");
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !path.starts_with('/') {
        return Err("its target is not a path");
    }
    if path.contains('%') {
        return Err("its path is encoded");
    }
    let known = |c: char| c.is_ascii_alphanumeric() || "/_.-:@+".contains(c);
    if !path.chars().all(known) {
        return Err("its path has odd characters in it");
    }
    if path[1..].split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..") {
        return Err("its path has empty or dotted segments");
    }
    if query.contains(['#', '"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
        return Err("its query has odd characters in it");
    }
    Ok(((*method).to_owned(), (*target).to_owned()))
}

/// The Engine reads parameters from the body of a form as well as from the query.
fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data"
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Result<(), Refusal>, Vec<u8>, Vec<Result<String, Refusal>>);

    /// Everything that was let through, and what was seen, whatever the pieces in which it comes.
    fn read(input: &[u8], piece: usize) -> Read {
        let (mut framing, mut out) = (Framing::default(), Vec::new());
        let result = input.chunks(piece).try_for_each(|piece| framing.feed(piece, &mut out));
        let seen =
            std::iter::from_fn(|| framing.take_seen()).map(|head| head.map(|h| format!("{} {}", h.method, h.target)));
        (result, out, seen.collect())
    }

    #[test]
    fn plain_requests_pass_in_whatever_pieces() {
        let input =
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b?c=%41 HTTP/1.1\r\nhost:x\r\n\r\n\
            POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n\
            GET /d HTTP/1.1\r\nHost: x\r\n\r\n";
        for piece in [1, 2, 3, 7, 1000] {
            let (result, out, seen) = read(input, piece);
            assert_eq!(result, Ok(()));
            assert!(out == input, "{piece}");
            assert_eq!(seen, ["POST /a", "GET /b?c=%41", "POST /c", "GET /d"].map(|s| Ok(s.to_owned())));
        }
    }

    #[test]
    fn what_follows_an_upgrade_is_held_back() {
        let input =
            b"POST /a HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}raw";
        let (mut framing, mut out) = (Framing::default(), Vec::new());
        framing.feed(input, &mut out).expect("let through");
        assert!(out.ends_with(b"\r\n\r\n{}"));
        assert_eq!(framing.held(), b"raw");
    }

    #[test]
    fn bad_chunks_are_refused() {
        for body in ["x\r\n", "3;a=b\r\n", "3\nabc", "3\r\nabcd", "0\r\nX: y\r\n", "\r\n", "+3\r\nabc", "fffffffff\r\n"]
        {
            let input = format!("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert!(read(input.as_bytes(), 1).0.is_err(), "{body:?}");
        }
    }

    #[test]
    fn nothing_is_read_behind_a_refused_request() {
        let input = b"GET //x HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
        let (_, out, seen) = read(input, 5);
        assert_eq!(out, IN_ITS_PLACE);
        assert_eq!(seen.len(), 1);
    }
}
