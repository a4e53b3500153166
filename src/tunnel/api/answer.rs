//! Finds the end of an answer (RFC 9112 section 6.3).

use std::ops::Range;

use memchr::{memchr, memmem};

use crate::tunnel::guard::{Body, Rest, content_length, ended_lines, head_end};

/// Limit of an answer's head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// How much of an answer is searched for the end of its head at once, in bytes. The Engine's heads have some 300; what is
/// behind them would be copied for nothing.
const PIECE: usize = 1 << 10;
/// Length of a date (RFC 9110 section 5.6.7), in bytes.
const DATE: usize = 29;

/// The state of an answer after some of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The answer continues.
    More,
    /// The answer has ended with the last byte read, and another request may follow.
    Complete,
    /// The answer has ended with the last byte read, and is the last one of its connection.
    Last,
    /// The answer has ended with this byte of the input, and there is more, which answers nothing.
    Surplus(usize),
    /// The answer ends with its connection.
    UntilClose,
    /// The connection has switched to another protocol (RFC 9110 section 15.2.2).
    Switched,
    /// It is no answer that can be read.
    Invalid,
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Answer {
    state: State,
    /// Whether it answers a HEAD request, and so has no body whatever the head says.
    to_head: bool,
    /// The status, once the head was read. Interim answers (1xx) do not count.
    status: Option<u16>,
    keeps: Keeps,
    head: Option<Vec<u8>>,
    body: Vec<u8>,
    /// Was it seen before?
    is_repeated: bool,
    /// Is it the last one of its connection?
    closes: bool,
}

/// What of an answer is kept for later, and how far it is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Keeps {
    /// Its final head.
    pub(super) head: bool,
    /// Its body, up to this number of bytes.
    pub(super) body: usize,
    /// Whether the end of the last answer of a connection is looked for. It is [`Progress::UntilClose`] otherwise.
    pub(super) last: bool,
}

/// A short answer that came in one piece and had its end there. Another one that differs from it in its date alone need not
/// be read.
#[derive(Debug)]
pub(super) struct Seen {
    whole: Box<[u8]>,
    /// Length of its head with the empty line, in bytes.
    head: usize,
    /// The value of its Date header.
    date: Range<usize>,
    to_head: bool,
    status: u16,
}

impl Seen {
    /// Of an answer that [`Answer::feed`] found complete in this piece, its first one. None if it is long or has no date.
    pub(super) fn of(answer: &Answer, piece: &[u8]) -> Option<Self> {
        const NAME: &[u8] = b"\r\nDate: ";
        if piece.len() > PIECE {
            return None;
        }
        let begin = memmem::find(piece, NAME)? + NAME.len();
        let end = begin + memchr(b'\r', &piece[begin..])?;
        if end - begin != DATE {
            return None;
        }
        let head = head_end(piece, 0).filter(|head| end < *head)?;
        Some(Self { whole: piece.into(), head, date: begin..end, to_head: answer.to_head, status: answer.status? })
    }

    /// Is this the same answer, but for its date?
    pub(super) fn is_repeated_by(&self, piece: &[u8]) -> bool {
        let Range { start, end } = self.date;
        piece.len() == self.whole.len()
            && piece[..start] == self.whole[..start]
            && piece[end..] == self.whole[end..]
            && piece[start..end].iter().all(|c| matches!(c, b' '..=b'~'))
    }
}

#[derive(Debug)]
enum State {
    /// In the head; holds its bytes so far.
    Head(Vec<u8>),
    Body(Rest),
}

/// A head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    follows: Follows,
    /// Does the connection close behind it?
    closes: bool,
}

/// What follows a head.
#[derive(Debug, PartialEq, Eq)]
enum Follows {
    Body(Body),
    /// The final answer, after an interim one (1xx).
    Answer,
    /// A body that ends with the connection.
    UntilClose,
    /// Another protocol.
    Switch,
}

impl Answer {
    pub(super) fn new(to_head: bool, keeps: Keeps) -> Self {
        Self {
            state: State::Head(Vec::new()),
            to_head,
            status: None,
            keeps,
            head: None,
            body: Vec::new(),
            is_repeated: false,
            closes: false,
        }
    }

    /// Its status, once its head has been read.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Its head with the empty line, where that is kept; also one behind which the end is not known.
    pub(super) fn head(&self) -> Option<&[u8]> {
        self.head.as_deref()
    }

    /// What is kept of its body.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Was it [seen before](Self::feed_first)?
    pub(super) fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// Whether the answer reports success (status below 400). False until the status is known.
    pub(super) fn is_done(&self) -> bool {
        self.status.is_some_and(|status| status < 400)
    }

    /// Is this first input the whole of an answer that was seen before?
    pub(super) fn is_repetition(&self, seen: &Seen, input: &[u8]) -> bool {
        seen.to_head == self.to_head && self.keeps.body == 0 && seen.is_repeated_by(input)
    }

    /// As [`Self::feed`], for the first input, where this answer was seen before.
    pub(super) fn feed_first(&mut self, input: &[u8], seen: Option<&Seen>) -> Progress {
        match seen.filter(|seen| self.is_repetition(seen, input)) {
            Some(seen) => {
                self.is_repeated = true;
                self.status = Some(seen.status);
                self.head = self.keeps.head.then(|| input[..seen.head].to_vec());
                Progress::Complete
            }
            None => self.feed(input),
        }
    }

    /// Reads more input. Must not be called again after another result than [`Progress::More`].
    pub(super) fn feed(&mut self, input: &[u8]) -> Progress {
        let mut rest_of_input = input;
        while !rest_of_input.is_empty() {
            let used = match &mut self.state {
                State::Head(begun) => {
                    let before = begun.len();
                    let piece = &rest_of_input[..rest_of_input.len().min(PIECE).min(MAX_HEAD + 1 - before)];
                    // Nearly always it is whole, and need not be copied.
                    let whole = if before == 0 { head_end(piece, 0).map(|end| &piece[..end]) } else { None };
                    let head = if let Some(head) = whole {
                        head
                    } else {
                        begun.extend_from_slice(piece);
                        let Some(end) = head_end(begun, before) else {
                            if begun.len() > MAX_HEAD {
                                return Progress::Invalid;
                            }
                            rest_of_input = &rest_of_input[piece.len()..];
                            continue;
                        };
                        &begun[..end]
                    };
                    let end = head.len();
                    let Some(Head { status, follows, closes }) = read_head(head, self.to_head) else {
                        return Progress::Invalid;
                    };
                    if follows != Follows::Answer {
                        (self.status, self.closes) = (Some(status), closes);
                        self.head = self.keeps.head.then(|| head.to_vec());
                    }
                    self.state = match follows {
                        Follows::Switch => return Progress::Switched,
                        Follows::UntilClose => return Progress::UntilClose,
                        Follows::Answer => State::Head(Vec::new()),
                        Follows::Body(_) if closes && !self.keeps.last => return Progress::UntilClose,
                        Follows::Body(body) => State::Body(Rest::from(body)),
                    };
                    end - before
                }
                State::Body(rest) => {
                    let is_data = rest.is_data();
                    let Ok(used) = rest.feed(rest_of_input) else { return Progress::Invalid };
                    if is_data {
                        let room = self.keeps.body.saturating_sub(self.body.len());
                        self.body.extend_from_slice(&rest_of_input[..used.min(room)]);
                    }
                    used
                }
            };
            rest_of_input = &rest_of_input[used..];
            if matches!(&self.state, State::Body(rest) if rest.has_ended()) {
                return match rest_of_input.len() {
                    _ if self.closes => Progress::Last,
                    0 => Progress::Complete,
                    more => Progress::Surplus(input.len() - more),
                };
            }
        }
        Progress::More
    }
}

/// Reads a head. None if it is not valid.
fn read_head(head: &[u8], to_head: bool) -> Option<Head> {
    let head = head.strip_suffix(b"\r\n")?;
    let mut lines = ended_lines(head).map(|line| line.strip_suffix(b"\r"));
    let line = lines.next()??;
    let (line, mut closes) = match line.strip_prefix(b"HTTP/1.1 ") {
        Some(line) => (line, false),
        None => (line.strip_prefix(b"HTTP/1.0 ")?, true),
    };
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    if !matches!(line.get(3), None | Some(b' ')) {
        return None;
    }
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let line = line?;
        let colon = memchr(b':', line)?;
        let is = |name: &[u8]| line[..colon].eq_ignore_ascii_case(name);
        let value = || std::str::from_utf8(&line[colon + 1..]).ok().map(|value| value.trim_matches([' ', '\t']));
        // Their lengths differ, so that at most one is compared.
        if is(b"content-length") {
            let new = content_length(value()?).filter(|_| length.is_none())?;
            length = Some(new);
        } else if is(b"transfer-encoding") {
            if chunked || !value()?.eq_ignore_ascii_case("chunked") {
                return None;
            }
            chunked = true;
        } else if is(b"connection") && !value()?.eq_ignore_ascii_case("keep-alive") {
            closes = true;
        }
    }
    let follows = match (status, length, chunked) {
        (101, ..) => Follows::Switch,
        (100..=199, ..) => Follows::Answer,
        _ if to_head => Follows::Body(Body::None),
        (204 | 304, ..) => Follows::Body(Body::None),
        (_, Some(_), true) => return None,
        (_, None, false) => Follows::UntilClose,
        (_, Some(length), false) => Follows::Body(Body::Length(length)),
        (_, None, true) => Follows::Body(Body::Chunked),
    };
    Some(Head { status, follows, closes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the input in pieces of several sizes; all must give the same result.
    fn read(input: &[u8], to_head: bool) -> Progress {
        let results = [1, 2, 3, 7, 1000].map(|piece| {
            let mut answer = Answer::new(to_head, Keeps::default());
            let mut pieces = input.chunks(piece);
            let progress = pieces.by_ref().map(|piece| answer.feed(piece)).find(|progress| *progress != Progress::More);
            assert!(progress != Some(Progress::Complete) || pieces.next().is_none(), "it ends before its end");
            progress.unwrap_or(Progress::More)
        });
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        results[0]
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        for (text, to_head) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\nApi-Version: 1.41\r\n\r\n", false),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", false),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", false),
            ("HTTP/1.1 200 \r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false),
        ] {
            assert_eq!(read(text.as_bytes(), to_head), Progress::Complete, "{text}");
            assert_eq!(read(&text.as_bytes()[..text.len() - 1], to_head), Progress::More, "{text}");
        }
    }

    #[test]
    fn a_head_longer_than_a_piece_ends_where_it_ends() {
        for padding in (PIECE - 100..PIECE + 100).chain([PIECE * 9, MAX_HEAD - 100]) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: {}\r\n\r\n", "x".repeat(padding));
            let mut answer = Answer::new(false, Keeps { head: true, ..Keeps::default() });
            assert_eq!(answer.feed(format!("{head}OKHTTP").as_bytes()), Progress::Surplus(head.len() + 2), "{padding}");
            assert_eq!(answer.head(), Some(head.as_bytes()));
        }
        let endless = "HTTP/1.1 200 OK\r\nA: ".to_owned() + &"x".repeat(MAX_HEAD);
        assert_eq!(Answer::new(false, Keeps::default()).feed(endless.as_bytes()), Progress::Invalid);
    }

    #[test]
    fn what_is_to_be_kept_is_kept() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for (most, body) in [(0, ""), (4, "abcd"), (100, "abcde")] {
            let mut answer = Answer::new(false, Keeps { head: true, body: most, last: false });
            let progress: Vec<_> = text.chunks(5).map(|piece| answer.feed(piece)).collect();
            assert_eq!(progress.last(), Some(&Progress::Complete));
            assert!(answer.head().is_some_and(|head| head.starts_with(b"HTTP/1.1 201 ")));
            assert_eq!(answer.body(), body.as_bytes());
        }
    }

    #[test]
    fn an_answer_that_was_seen_before_is_not_read_but_for_its_date() {
        let text = |status: u16, date: &str, length: usize| {
            format!("HTTP/1.1 {status} OK\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\nOK")
        };
        let (then, now) = ("Mon, 02 Jan 2006 15:04:05 GMT", "Tue, 03 Jan 2006 15:04:06 GMT");
        let seen = |text: &str| {
            let mut answer = Answer::new(false, Keeps::default());
            assert_eq!(answer.feed(text.as_bytes()), Progress::Complete);
            Seen::of(&answer, text.as_bytes())
        };
        let before = seen(&text(200, then, 2)).expect("it is short, and has a date");
        assert!(before.is_repeated_by(text(200, now, 2).as_bytes()));
        let alike = "HTTP/1.1 200 OK\r\nDate: Tue, 03 J\r\nContent-Length: 99\r\nContent-Length: 2\r\n\r\nOK";
        assert_eq!(alike.len(), text(200, then, 2).len(), "a head that hides in a date");
        for other in [&text(201, now, 2), &text(200, now, 3), &text(200, "now", 2), alike] {
            assert!(!before.is_repeated_by(other.as_bytes()), "{other}");
        }
        for (text, keeps, to_head) in [
            (text(200, now, 2), Keeps::default(), false),
            (text(404, now, 2), Keeps::default(), false),
            (text(200, now, 3), Keeps::default(), false),
            (text(200, now, 2), Keeps { head: true, ..Keeps::default() }, false),
            (text(200, now, 2), Keeps { body: 9, ..Keeps::default() }, false),
            (text(200, now, 2), Keeps::default(), true),
        ] {
            let [mut read, mut known] = [(); 2].map(|()| Answer::new(to_head, keeps));
            assert_eq!(known.feed_first(text.as_bytes(), Some(&before)), read.feed(text.as_bytes()), "{text}");
            assert_eq!(
                (known.status(), known.head(), known.body()),
                (read.status(), read.head(), read.body()),
                "{text}"
            );
        }
        assert!(seen("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_none());
        assert!(seen(&text(200, "now", 2)).is_none());
    }

    #[test]
    fn the_last_answer_of_a_connection_has_an_end_where_that_is_looked_for() {
        for head in ["HTTP/1.0 200 OK\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n"] {
            for (last, expected) in [(true, Progress::Last), (false, Progress::UntilClose)] {
                let mut answer = Answer::new(false, Keeps { last, ..Keeps::default() });
                assert_eq!(answer.feed(format!("{head}Content-Length: 2\r\n\r\nOK").as_bytes()), expected, "{head}");
            }
            let mut answer = Answer::new(false, Keeps { last: true, ..Keeps::default() });
            assert_eq!(answer.feed(format!("{head}\r\nOK").as_bytes()), Progress::UntilClose, "{head}");
        }
    }

    #[test]
    fn what_has_no_certain_end_is_told_apart() {
        use Progress::{Invalid, Surplus, Switched, UntilClose};
        for (text, expected) in [
            ("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n", Switched),
            ("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n", UntilClose),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK", UntilClose),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nOK", Invalid),
            ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nOK", Invalid),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nOK", Invalid),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nOK", Invalid),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Invalid),
            ("HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n", Surplus(19)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", Surplus(39)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", UntilClose),
            ("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", Invalid),
            ("HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", Invalid),
            ("SSH-2.0-x\r\n\r\n", Invalid),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Invalid),
        ] {
            let mut answer = Answer::new(false, Keeps::default());
            assert_eq!(answer.feed(text.as_bytes()), expected, "{text}");
        }
        let mut answer = Answer::new(false, Keeps::default());
        let mut progress = answer.feed(b"HTTP/1.1 200 OK\r\n");
        for _ in 0..MAX_HEAD {
            assert_eq!(progress, Progress::More);
            progress = answer.feed(b"a: bbbbbbbbbbbb\r\n");
            if progress != Progress::More {
                break;
            }
        }
        assert_eq!(progress, Progress::Invalid);
    }
}
