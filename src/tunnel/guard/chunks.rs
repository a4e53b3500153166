//! Finds the end of a chunked body.

use super::refusal::Refusal;

/// The position in a chunked body (RFC 9112 section 7.1). Extensions and trailers are refused: no client sends any.
#[derive(Debug)]
pub(in crate::tunnel) enum Chunks {
    /// In the line with the size.
    Size(Vec<u8>),
    Data(u64),
    /// The bytes that must follow a chunk's data; true after the last chunk.
    End(&'static [u8], bool),
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size(Vec::new())
    }
}

impl Chunks {
    /// Returns how much of the input (which is not empty) belongs to the body, and whether the body has ended.
    ///
    /// # Errors
    /// Why the body is invalid.
    pub(in crate::tunnel) fn feed(&mut self, input: &[u8]) -> Result<(usize, bool), Refusal> {
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
