//! What is to come of a message's body (RFC 9112 section 6).

use super::chunks::Chunks;
use super::head::Body;
use super::refusal::Refusal;

/// Where in a body the reading is.
#[derive(Debug, Default)]
pub(in crate::tunnel) enum Rest {
    /// It has ended, or there is none.
    #[default]
    Nothing,
    /// So many more bytes.
    Length(u64),
    Chunks(Chunks),
}

impl From<Body> for Rest {
    fn from(body: Body) -> Self {
        match body {
            Body::None | Body::Length(0) => Self::Nothing,
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunks(Chunks::default()),
        }
    }
}

impl Rest {
    pub(in crate::tunnel) fn has_ended(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Reads on; how much of the input, which is not empty, is of the body.
    ///
    /// # Errors
    /// What is wrong with a chunk.
    pub(in crate::tunnel) fn feed(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let (used, ended) = match self {
            Self::Nothing => (0, true),
            Self::Length(left) => {
                let used = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                (used, *left == 0)
            }
            Self::Chunks(chunks) => chunks.feed(input)?,
        };
        if ended {
            *self = Self::Nothing;
        }
        Ok(used)
    }

    /// Reads on. False: this is odd, or not only of the body.
    pub(in crate::tunnel) fn takes_all(&mut self, mut input: &[u8]) -> bool {
        while !input.is_empty() {
            match self.feed(input) {
                Ok(used @ 1..) => input = &input[used..],
                Ok(0) | Err(_) => return false,
            }
        }
        true
    }
}
