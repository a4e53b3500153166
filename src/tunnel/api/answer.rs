//! Finds the end of an answer (RFC 9112 section 6.3).

use crate::tunnel::guard::{Body, Rest, content_length, head_end};

/// Limit of an answer's head, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// The state of an answer after some of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The answer continues.
    More,
    /// The answer has ended with the last byte read, and another request may follow.
    Complete,
    /// The end cannot be determined: the stream is raw, ends with the connection, or is invalid.
    Unframed,
    /// The answer has ended, and there is more behind it, which answers nothing.
    Surplus,
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
}

/// What of an answer is kept for later.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Keeps {
    /// Its final head.
    pub(super) head: bool,
    /// Its body, up to this number of bytes.
    pub(super) body: usize,
}

#[derive(Debug)]
enum State {
    /// In the head; holds its bytes so far.
    Head(Vec<u8>),
    Body(Rest),
}

/// What follows a head.
enum Follows {
    Body(Body),
    /// The final answer, after an interim one (1xx).
    Answer,
}

impl Answer {
    pub(super) fn new(to_head: bool, keeps: Keeps) -> Self {
        Self { state: State::Head(Vec::new()), to_head, status: None, keeps, head: None, body: Vec::new() }
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

    /// Whether it has switched to another protocol (RFC 9110 section 15.2.2). Known where the head is kept.
    pub(super) fn has_switched(&self) -> bool {
        self.head().is_some_and(|head| head.starts_with(b"HTTP/1.1 101 "))
    }

    /// Whether the answer reports success (status below 400). False until the status is known.
    pub(super) fn is_done(&self) -> bool {
        self.status.is_some_and(|status| status < 400)
    }

    /// Reads more input. Must not be called again after another result than [`Progress::More`].
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Progress {
        while !input.is_empty() {
            let used = match &mut self.state {
                State::Head(head) => {
                    let before = head.len();
                    head.extend_from_slice(&input[..input.len().min(MAX_HEAD + 1 - before)]);
                    let Some(end) = head_end(head, before) else {
                        if head.len() > MAX_HEAD {
                            return Progress::Unframed;
                        }
                        return Progress::More;
                    };
                    let read = read_head(&head[..end], self.to_head);
                    if self.keeps.head && !matches!(read, Some((_, Follows::Answer))) {
                        self.head = Some(head[..end].to_vec());
                    }
                    let Some((status, follows)) = read else { return Progress::Unframed };
                    if !matches!(follows, Follows::Answer) {
                        self.status = Some(status);
                    }
                    let used = end - before;
                    self.state = match follows {
                        Follows::Answer => State::Head(Vec::new()),
                        Follows::Body(body) => State::Body(Rest::from(body)),
                    };
                    used
                }
                State::Body(rest) => {
                    let is_data = rest.is_data();
                    let Ok(used) = rest.feed(input) else { return Progress::Unframed };
                    if is_data {
                        let room = self.keeps.body.saturating_sub(self.body.len());
                        self.body.extend_from_slice(&input[..used.min(room)]);
                    }
                    used
                }
            };
            if matches!(&self.state, State::Body(rest) if rest.has_ended()) {
                return complete(&input[used..]);
            }
            input = &input[used..];
        }
        Progress::More
    }
}

fn complete(behind: &[u8]) -> Progress {
    if behind.is_empty() { Progress::Complete } else { Progress::Surplus }
}

/// The status in a head, and what follows the head. None if that cannot be determined or nothing may follow.
fn read_head(head: &[u8], to_head: bool) -> Option<(u16, Follows)> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let line = lines.next()?.strip_prefix("HTTP/1.1 ")?;
    let digits = line.get(..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let status: u16 = digits.parse().ok().filter(|_| matches!(line.as_bytes().get(3), None | Some(b' ')))?;
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-length") {
            let new = content_length(value).filter(|_| length.is_none())?;
            length = Some(new);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case("chunked") {
                return None;
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") && !value.eq_ignore_ascii_case("keep-alive") {
            // The connection closes after this answer or switches protocols.
            return None;
        }
    }
    let follows = match (status, length, chunked) {
        (101, ..) => return None,
        (100..=199, ..) => Follows::Answer,
        _ if to_head => Follows::Body(Body::None),
        (204 | 304, ..) => Follows::Body(Body::None),
        (_, Some(_), true) | (_, None, false) => return None,
        (_, Some(length), false) => Follows::Body(Body::Length(length)),
        (_, None, true) => Follows::Body(Body::Chunked),
    };
    Some((status, follows))
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
    fn what_is_to_be_kept_is_kept() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for (most, body) in [(0, ""), (4, "abcd"), (100, "abcde")] {
            let mut answer = Answer::new(false, Keeps { head: true, body: most });
            let progress: Vec<_> = text.chunks(5).map(|piece| answer.feed(piece)).collect();
            assert_eq!(progress.last(), Some(&Progress::Complete));
            assert!(answer.head().is_some_and(|head| head.starts_with(b"HTTP/1.1 201 ")));
            assert_eq!((answer.body(), answer.has_switched()), (body.as_bytes(), false));
        }
        let mut switched = Answer::new(false, Keeps { head: true, body: 0 });
        assert_eq!(switched.feed(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\nraw"), Progress::Unframed);
        assert!(switched.has_switched());
    }

    #[test]
    fn what_has_no_certain_end_is_not_framed() {
        for text in [
            "HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nOK",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nOK",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nOK",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nOK",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ] {
            let mut answer = Answer::new(false, Keeps::default());
            let progress = answer.feed(text.as_bytes());
            assert!(matches!(progress, Progress::Unframed | Progress::Surplus), "{text}");
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
        assert_eq!(progress, Progress::Unframed);
    }
}
