//! A body in chunks, told from what comes behind it.

use super::refusal::Refusal;

/// Where in a body of chunks the reading is (RFC 9112 section 7.1). Extensions and trailers are refused: nobody sends any.
#[derive(Debug)]
pub(in crate::tunnel) enum Chunks {
    /// In the line that gives the size.
    Size(Vec<u8>),
    Data(u64),
    /// What must follow the data of a chunk, or of the last one.
    End(&'static [u8], bool),
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size(Vec::new())
    }
}

impl Chunks {
    /// How much of the input it takes, and whether the body has ended. The input is not empty.
    ///
    /// # Errors
    /// What is wrong with it.
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
