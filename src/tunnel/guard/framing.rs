//! A strict reader of HTTP/1.1 requests, before hyper sees them.
//!
//! hyper passes requests on; this reader ensures that every other reader interprets them in the same way. It passes
//! only input with a single meaning, each head as written by [`super::head`], and refuses the rest. It finds the
//! beginning and end of each request on its own (RFC 9112). Its view of each request is compared with hyper's.

use std::collections::VecDeque;

use super::head::{self, Head};
use super::refusal::{Refusal, TOO_LATE};
use super::rest::Rest;

/// Limit of a head, in bytes. The longest known header holds the credentials of all registries.
const MAX_HEAD: usize = 48 << 10;
/// Limit of bytes stored from a client that continues to send after it has asked for an upgrade.
pub(super) const MAX_HELD: usize = 64 << 10;

/// Takes the place of a refused request, so that the refusal is sent in its turn.
const IN_ITS_PLACE: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// The reader's position.
#[derive(Debug)]
enum State {
    /// In a head; holds its bytes so far.
    Head(Vec<u8>),
    /// In a body; holds what remains of it.
    Body(Rest),
    /// After a request for an upgrade: if it is granted, this data is not HTTP.
    Held(Vec<u8>),
    /// After a refused request, or the last one: no more is read.
    Over,
}

/// What follows a request.
#[derive(Debug, Clone, Copy)]
enum Then {
    Another,
    Held,
    Over,
}

/// Reads the requests of one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    /// What follows the body.
    then: Then,
    /// Why a body is invalid.
    broken: Option<Refusal>,
    /// Whether a refused request is being answered; no more is read after it.
    refused: bool,
    /// Accepted and refused requests in order.
    seen: VecDeque<Result<Head, Refusal>>,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Head(Vec::new()),
            then: Then::Another,
            broken: None,
            refused: false,
            seen: VecDeque::new(),
        }
    }
}

impl Framing {
    /// Reads more input; what is accepted goes to `out`.
    ///
    /// # Errors
    /// Why a body is invalid.
    pub fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        while !input.is_empty() {
            let used = match &mut self.state {
                State::Head(head) => {
                    let (used, complete) = take_head(head, input);
                    if complete || head.len() == MAX_HEAD {
                        let head = std::mem::take(head);
                        self.head(&head, complete, out);
                    }
                    used
                }
                State::Body(rest) => {
                    let used = match rest.feed(input) {
                        Ok(used) => used,
                        Err(refusal) => {
                            self.state = State::Over;
                            self.broken = Some(refusal);
                            return Err(refusal);
                        }
                    };
                    let ended = rest.has_ended();
                    out.extend_from_slice(&input[..used]);
                    if ended {
                        self.ended();
                    }
                    used
                }
                State::Held(held) => {
                    if held.len() + input.len() > MAX_HELD {
                        let refusal = "too much was sent before the upgrade was granted";
                        self.broken = Some(refusal);
                        return Err(refusal);
                    }
                    held.extend_from_slice(input);
                    input.len()
                }
                State::Over => return Ok(()),
            };
            input = &input[used..];
        }
        Ok(())
    }

    /// The next accepted or refused request.
    pub fn take_seen(&mut self) -> Option<Result<Head, Refusal>> {
        let next = self.seen.pop_front();
        self.refused |= matches!(next, Some(Err(_)));
        next
    }

    /// Why a body is invalid; None if none is.
    pub(super) fn broken(&self) -> Option<Refusal> {
        self.broken
    }

    /// The data that a client has sent after its request for an upgrade.
    pub(super) fn held(&mut self) -> Vec<u8> {
        match &mut self.state {
            State::Held(held) => std::mem::take(held),
            _ => Vec::new(),
        }
    }

    /// Whether reading should stop. After the last request reading continues, since the end of the stream shows that
    /// the client has gone. Once only a refusal remains to be sent, it stops: otherwise a client that has closed only
    /// its sending direction would not get the refusal.
    pub(super) fn is_over(&self) -> bool {
        match &self.state {
            State::Over => self.refused,
            State::Held(held) => held.len() >= MAX_HELD,
            _ => false,
        }
    }

    /// Whether a head has begun and is not complete. Line breaks before a request count, since
    /// nothing else can follow them.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(&self.state, State::Head(head) if !head.is_empty())
    }

    /// Refuses a request whose head is late, in its turn.
    pub(super) fn head_is_late(&mut self, out: &mut Vec<u8>) {
        self.refuse(TOO_LATE, out);
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) {
        out.extend_from_slice(IN_ITS_PLACE);
        self.seen.push_back(Err(refusal));
        self.state = State::Over;
    }

    /// Called when a request is complete.
    fn ended(&mut self) {
        self.state = match self.then {
            Then::Another => State::Head(Vec::new()),
            Then::Held => State::Held(Vec::new()),
            Then::Over => State::Over,
        };
    }

    fn head(&mut self, bytes: &[u8], complete: bool, out: &mut Vec<u8>) {
        let read = if complete { head::read(bytes) } else { Err("its head is too large") };
        match read {
            Ok((head, body, written)) => {
                self.then = match (head.upgrade, head.last) {
                    (true, _) => Then::Held,
                    (false, true) => Then::Over,
                    (false, false) => Then::Another,
                };
                out.extend_from_slice(&written);
                self.seen.push_back(Ok(head));
                match Rest::from(body) {
                    Rest::Nothing => self.ended(),
                    rest => self.state = State::Body(rest),
                }
            }
            Err(refusal) => self.refuse(refusal, out),
        }
    }
}

/// Takes input up to the end of a head. Returns the number of bytes, and whether the head is complete.
fn take_head(head: &mut Vec<u8>, input: &[u8]) -> (usize, bool) {
    let before = head.len();
    let room = (MAX_HEAD - before).min(input.len());
    head.extend_from_slice(&input[..room]);
    match head::head_end(head, before) {
        Some(end) => {
            head.truncate(end);
            (end - before, true)
        }
        None => (room, false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Decision, Rules};
    use super::*;
    use crate::config::{Access, Policy};

    type Read = (Result<(), Refusal>, Vec<u8>, Vec<Result<String, Refusal>>);

    /// All accepted output and the requests seen; equal for pieces of all sizes.
    fn read(input: &[u8], piece: usize) -> Read {
        let (mut framing, mut out) = (Framing::default(), Vec::new());
        let result = input.chunks(piece).try_for_each(|piece| framing.feed(piece, &mut out));
        let seen =
            std::iter::from_fn(|| framing.take_seen()).map(|head| head.map(|h| format!("{} {}", h.method, h.target)));
        (result, out, seen.collect())
    }

    #[test]
    fn plain_requests_pass_in_whatever_pieces() {
        let input = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b?c=A HTTP/1.1\r\nhost:x\r\n\r\n\
            POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n\
            GET /d HTTP/1.1\r\nHost: x\r\n\r\n";
        for piece in [1, 2, 3, 7, 1000] {
            let (result, out, seen) = read(input, piece);
            assert_eq!(result, Ok(()));
            assert!(out == input, "{piece}");
            assert_eq!(seen, ["POST /a", "GET /b?c=A", "POST /c", "GET /d"].map(|s| Ok(s.to_owned())));
        }
    }

    #[test]
    fn what_follows_an_upgrade_is_held_back() {
        let input =
            b"POST /exec/a/start HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}raw";
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

    #[test]
    fn nothing_is_read_behind_the_last_request() {
        for last in ["GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"] {
            let input = format!("{last}GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(read(input.as_bytes(), 3).2, [Ok("GET /a".to_owned())]);
        }
    }

    /// Converts `\r\n` and `\xff` in the list of tricks to bytes.
    fn unescaped(text: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), text.chars());
        while let Some(c) = rest.next() {
            let escaped = if c == '\\' { rest.next() } else { None };
            bytes.push(match escaped {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).expect("two digits")
                }
                other => u8::try_from(other.unwrap_or(c)).expect("ASCII"),
            });
        }
        bytes
    }

    #[test]
    fn tricks_do_not_get_past() {
        let access = Access { policies: vec![Policy::ReadOnly], ..Access::default() };
        let rules = Rules::new(&access).expect("rules").expect("limited");
        let tricks = include_str!("../../../tests/guard/tricks.txt").lines().filter(|line| !line.starts_with('#'));
        for trick in tricks {
            let fields: Vec<&str> = trick.splitn(3, '\t').collect();
            let bytes = unescaped(fields[2]);
            for piece in [1, 1000] {
                let (mut framing, mut out) = (Framing::default(), Vec::new());
                let _ = bytes.chunks(piece).try_for_each(|piece| framing.feed(piece, &mut out));
                let seen: Vec<_> = std::iter::from_fn(|| framing.take_seen()).collect();
                let codes = seen.iter().map(|seen| match seen.as_ref().map(|head| rules.decide(head)) {
                    Ok(Decision::Pass(_)) => "200",
                    Ok(Decision::Refuse(_)) => "403",
                    Ok(Decision::Bad(_)) | Err(_) => "400",
                });
                // No request after a bad one is answered.
                let mut codes: Vec<&str> = codes.collect();
                codes.truncate(codes.iter().position(|code| *code == "400").map_or(codes.len(), |at| at + 1));
                assert_eq!(codes.join(" "), fields[0], "{}: {}", fields[1], fields[2]);
            }
        }
    }

    #[test]
    fn what_is_kept_of_a_head_and_behind_an_upgrade_is_bounded() {
        let line = "GET /_ping HTTP/1.1\r\nHost: x\r\n";
        for (size, passes) in [(MAX_HEAD, true), (MAX_HEAD + 1, false), (MAX_HEAD * 2, false)] {
            for piece in [999, 1 << 20] {
                let header = format!("A: {}\r\n\r\n", "x".repeat(size - line.len() - 7));
                let (result, out, seen) = read(format!("{line}{header}").as_bytes(), piece);
                assert_eq!((result, seen.len()), (Ok(()), 1));
                assert_eq!(seen[0].is_ok(), passes, "{size}");
                assert_eq!(out == IN_ITS_PLACE, !passes, "{size}");
            }
        }
        let upgrade = b"POST /exec/a/start HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n";
        for (size, passes) in [(MAX_HELD - 1, true), (MAX_HELD, true), (MAX_HELD + 1, false)] {
            let (mut framing, mut out) = (Framing::default(), Vec::new());
            framing.feed(upgrade, &mut out).expect("let through");
            assert!(framing.broken().is_none() && !framing.is_over());
            let first = framing.feed(&vec![0; size - 1000], &mut out);
            assert_eq!(first, Ok(()));
            assert_eq!(framing.feed(&[0; 1000], &mut out).is_ok(), passes, "{size}");
            assert_eq!(framing.broken().is_none(), passes, "{size}");
            assert_eq!(framing.is_over(), size == MAX_HELD, "{size}");
        }
    }

    #[test]
    fn reading_is_over_once_a_refusal_is_all_that_is_left_to_be_sent() {
        let (mut framing, mut out) = (Framing::default(), Vec::new());
        framing.feed(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nG", &mut out).expect("let through");
        assert!(framing.is_in_head() && !framing.is_over());
        framing.feed(b"ET //x HTTP/1.1\r\nHost: x\r\n\r\n", &mut out).expect("refused in its turn");
        assert!(!framing.is_in_head() && !framing.is_over(), "two answers are to come");
        assert!(framing.take_seen().is_some_and(|seen| seen.is_ok()) && !framing.is_over());
        assert!(framing.take_seen().is_some_and(|seen| seen.is_err()) && framing.is_over());
        assert!(framing.take_seen().is_none() && framing.is_over());
        let (mut framing, mut out) = (Framing::default(), Vec::new());
        framing.feed(b"GET /_ping HTTP/1.0\r\n\r\n", &mut out).expect("let through");
        framing.take_seen();
        assert!(!framing.is_over(), "the client's end is still to be seen");
        let (mut framing, mut out) = (Framing::default(), Vec::new());
        framing.feed(b"GET /", &mut out).expect("read");
        framing.head_is_late(&mut out);
        assert_eq!((out.as_slice(), framing.take_seen()), (IN_ITS_PLACE, Some(Err(TOO_LATE))));
    }
}
