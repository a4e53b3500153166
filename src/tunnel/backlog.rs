//! What has come from the host and the client has not taken yet: bounded, and counted in bytes.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// Bytes that may wait for one client. Enough that a client which pauses does not pause the
/// host at once; beyond it the host is.
const BOUND: usize = 4 << 20;

/// Pieces of a stream, in order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pieces: VecDeque<Bytes>,
    size: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, piece: Bytes) {
        self.size += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The first piece.
    pub(super) fn front(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    /// The client has taken this many bytes of the first piece.
    pub(super) fn advance(&mut self, taken: usize) {
        self.size -= taken;
        if let Some(piece) = self.pieces.front_mut() {
            piece.advance(taken);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// No more is taken from the host.
    pub(super) fn is_full(&self) -> bool {
        self.size >= BOUND
    }

    /// Enough room to take from the host again: not at once, or a client that is a little slow
    /// would have its connection stop and go with every piece.
    pub(super) fn has_room(&self) -> bool {
        self.size <= BOUND / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_at_its_bound_and_has_room_at_half() {
        let mut backlog = Backlog::default();
        backlog.push(Bytes::new());
        assert!(backlog.is_empty());
        while !backlog.is_full() {
            backlog.push(Bytes::from(vec![1; 1 << 20]));
        }
        assert_eq!(backlog.size, BOUND);
        backlog.advance(1);
        assert!(!backlog.is_full() && !backlog.has_room());
        backlog.advance((1 << 20) - 1);
        backlog.advance(1 << 20);
        assert!(backlog.has_room() && !backlog.is_empty());
        assert_eq!(backlog.front().len(), 1 << 20);
    }
}
