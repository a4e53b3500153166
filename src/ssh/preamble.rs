//! What a login shell's files print before a command on the host begins.

use bytes::Bytes;
use memchr::memmem;

/// The line with which such a command begins its output.
pub const BEGIN: &str = "dtunnel:begin";
/// Most bytes looked at. A host that prints more is taken by its word.
const MOST: usize = 64 << 10;
/// How an Engine begins that another command leads to: one that the server has forced on the login prints no line.
const OF_ENGINE: &[u8] = b"HTTP/1.";

/// The bytes before [`BEGIN`], which nobody gets.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    bytes: Vec<u8>,
}

impl Preamble {
    /// Takes the next bytes. What is behind the line, once it has come; it may be nothing.
    pub(super) fn pass(&mut self, data: &[u8]) -> Option<Bytes> {
        let from = self.bytes.len().saturating_sub(BEGIN.len() + 1);
        self.bytes.extend_from_slice(data);
        let line = [BEGIN, "\n"].concat();
        if let Some(at) = memmem::find(&self.bytes[from..], line.as_bytes()) {
            let begun = Bytes::from(std::mem::take(&mut self.bytes));
            return Some(begun.slice(from + at + line.len()..));
        }
        let is_over = self.bytes.starts_with(OF_ENGINE) || self.bytes.len() > MOST;
        is_over.then(|| std::mem::take(&mut self.bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes of these pieces.
    fn passes<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
        let mut preamble = Preamble::default();
        let mut passed: Option<Vec<u8>> = None;
        for piece in pieces {
            match &mut passed {
                Some(passed) => passed.extend_from_slice(piece),
                None => passed = preamble.pass(piece).map(|rest| rest.to_vec()),
            }
        }
        passed
    }

    #[test]
    fn what_is_printed_before_the_command_begins_is_dropped_however_it_is_cut() {
        let text = b"Welcome!\ndtunnel:\ndtunnel:begin\nHTTP/1.1 200 OK\n";
        for size in 1..text.len() {
            assert_eq!(passes(text.chunks(size)).expect("begun"), b"HTTP/1.1 200 OK\n", "{size}");
        }
        assert_eq!(passes([&b"dtunnel:begin\n"[..]]).expect("begun"), b"");
        assert_eq!(passes([&b"Welcome!\n"[..]]), None);
    }

    #[test]
    fn an_engine_behind_a_forced_command_is_heard_and_endless_noise_is_not_kept() {
        assert_eq!(passes([&b"HTT"[..], b"P/1.1 400 Bad Request"]).expect("an Engine"), b"HTTP/1.1 400 Bad Request");
        let noise = vec![b'x'; MOST + 1];
        assert_eq!(passes([&noise[..]]).expect("given up").len(), noise.len());
    }
}
