//! The rest of a message's body (RFC 9112 section 6).

use super::chunks::Chunks;
use super::head::Body;
use super::refusal::Refusal;

/// The position in a body.
#[derive(Debug, Default)]
pub(in crate::tunnel) enum Rest {
    /// The body has ended, or there is none.
    #[default]
    Nothing,
    /// This many bytes remain.
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

    /// Whether the next bytes are the body's own, and none of its framing.
    pub(in crate::tunnel) fn is_data(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Chunks(Chunks::Data(_)))
    }

    /// Returns how much of the input (which is not empty) belongs to the body.
    ///
    /// # Errors
    /// Why a chunk is invalid.
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

    /// Takes the whole input. False if it is invalid or extends beyond the body.
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
