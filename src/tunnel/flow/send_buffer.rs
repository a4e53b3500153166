//! Buffers data from the host until the client takes it: in memory up to a limit, then in a file. The order is kept:
//! first the data in memory, then that in the file, then that gathered for the file.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};

use super::spill::{BLOCK, Outcome, Spill};

/// Limit of bytes in memory per client. Large enough that a client's short pause does not pause the host at once.
const BOUND: usize = 4 << 20;
/// Pieces smaller than this are merged: an allocation for a few bytes costs more than the bytes.
const SMALL: usize = 4 << 10;

/// The pieces of a stream, in order.
#[derive(Debug)]
pub(in crate::tunnel) struct SendBuffer {
    pieces: VecDeque<Bytes>,
    size: usize,
    /// Limit of bytes beyond memory.
    limit: u64,
    /// Whether new bytes go beyond memory. Set when memory is full, cleared when the file is empty.
    spilling: bool,
    spill: Spill,
    /// The newest bytes, gathered for the next block.
    gathered: Vec<u8>,
    /// The last block's memory, for reuse.
    spare: Vec<u8>,
    /// The error after which no more blocks are stored.
    broken: Option<String>,
}

impl SendBuffer {
    /// An empty buffer with at most `limit` bytes in a file.
    pub(in crate::tunnel) fn new(limit: u64) -> Self {
        Self {
            pieces: VecDeque::new(),
            size: 0,
            limit,
            spilling: false,
            spill: Spill::default(),
            gathered: Vec::new(),
            spare: Vec::new(),
            broken: None,
        }
    }

    pub(in crate::tunnel) fn push(&mut self, piece: Bytes) {
        self.spilling |= self.size >= BOUND && self.limit > 0;
        if self.spilling {
            self.gathered.extend_from_slice(&piece);
        } else {
            self.keep(piece);
        }
        self.begin();
    }

    fn keep(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.size += piece.len();
        match self.pieces.pop_back() {
            Some(last) if last.len() + piece.len() <= SMALL && !self.pieces.is_empty() => {
                let mut both = match last.try_into_mut() {
                    Ok(both) => both,
                    Err(last) => bytes::BytesMut::from(&last[..]),
                };
                both.extend_from_slice(&piece);
                self.pieces.push_back(both.freeze());
            }
            Some(last) => self.pieces.extend([last, piece]),
            None => self.pieces.push_back(piece),
        }
    }

    /// The next piece for the client; empty if none is in memory.
    pub(in crate::tunnel) fn front(&self) -> Bytes {
        self.pieces.front().cloned().unwrap_or_default()
    }

    /// Removes `taken` bytes from the first piece, which the client has taken.
    pub(in crate::tunnel) fn advance(&mut self, taken: usize) {
        self.size -= taken;
        if let Some(piece) = self.pieces.front_mut() {
            piece.advance(taken);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.begin();
    }

    /// Whether no bytes wait, in memory or on disk.
    pub(in crate::tunnel) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && !self.spilling
    }

    /// Whether memory is full.
    pub(in crate::tunnel) fn is_full(&self) -> bool {
        self.size >= BOUND
    }

    /// Whether there is room in memory to read from the host again. The gap to [`is_full`](Self::is_full) prevents a
    /// slightly slow client from stopping and starting its connection with every piece.
    pub(in crate::tunnel) fn has_room(&self) -> bool {
        self.size <= BOUND / 2 && !self.spilling
    }

    /// Number of bytes beyond memory.
    pub(in crate::tunnel) fn spilled(&self) -> u64 {
        self.spill.bytes() + self.gathered.len() as u64
    }

    /// Whether no more bytes can be stored beyond memory. With a limit of 0: whether memory is full.
    pub(in crate::tunnel) fn is_at_limit(&self) -> bool {
        match self.limit {
            0 => self.is_full(),
            limit => self.broken.is_some() || self.spilled() >= limit,
        }
    }

    /// Whether more than half of the limit is used.
    pub(in crate::tunnel) fn is_past_half(&self) -> bool {
        self.limit > 0 && self.spilled() >= self.limit / 2
    }

    /// Whether a disk access is in progress or due.
    pub(in crate::tunnel) fn needs_disk(&self) -> bool {
        self.spill.is_busy()
    }

    /// Whether the disk must be waited for before more is pushed.
    pub(in crate::tunnel) fn is_behind(&self) -> bool {
        self.spill.is_busy() && self.gathered.len() >= 2 * BLOCK
    }

    /// Why no more bytes can be stored.
    pub(in crate::tunnel) fn limit_reason(&self) -> String {
        match (&self.broken, self.limit) {
            (Some(reason), _) => format!("its unread data cannot be kept on disk ({reason})"),
            (None, 0) => "nothing is kept on disk for it (spill = 0)".into(),
            (None, limit) => format!("{} are kept for it (spill)", crate::config::Size(limit)),
        }
    }

    /// Begins a disk access if one is due: a load or a store.
    fn begin(&mut self) {
        if !self.spilling || self.spill.is_busy() {
            return;
        }
        if self.size <= BOUND / 2 {
            if self.spill.has_stored() {
                return self.spill.load();
            }
            let gathered = std::mem::take(&mut self.gathered);
            (self.spilling, self.broken, self.spare) = (false, None, Vec::new());
            self.keep(gathered.into());
        } else if self.gathered.len() >= BLOCK && self.broken.is_none() {
            let mut rest = std::mem::take(&mut self.spare);
            rest.clear();
            rest.extend_from_slice(&self.gathered[BLOCK..]);
            let mut block = std::mem::replace(&mut self.gathered, rest);
            block.truncate(BLOCK);
            self.spill.store(block);
        }
    }

    /// Waits for the end of a disk access; never returns if there is none. Cancel safe.
    ///
    /// # Errors
    /// Stored bytes are lost.
    pub(in crate::tunnel) async fn disk(&mut self) -> io::Result<()> {
        // On the heap: most clients never need it.
        match Box::pin(self.spill.accessed()).await? {
            Outcome::Stored(memory) => self.spare = memory,
            Outcome::Failed(error, mut block) => {
                self.broken = Some(error.to_string());
                block.append(&mut self.gathered);
                self.gathered = block;
            }
            Outcome::Loaded(block) => self.keep(block.into()),
        }
        self.begin();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_at_its_bound_and_has_room_at_half() {
        let mut buffer = SendBuffer::new(0);
        buffer.push(Bytes::new());
        assert!(buffer.is_empty());
        while !buffer.is_full() {
            buffer.push(Bytes::from(vec![1; 1 << 20]));
        }
        assert_eq!(buffer.size, BOUND);
        assert!(buffer.is_at_limit());
        buffer.advance(1);
        assert!(!buffer.is_full() && !buffer.has_room() && !buffer.is_at_limit());
        buffer.advance((1 << 20) - 1);
        buffer.advance(1 << 20);
        assert!(buffer.has_room() && !buffer.is_empty());
        assert_eq!(buffer.front().len(), 1 << 20);
    }

    #[test]
    fn many_small_pieces_are_put_together() {
        let mut buffer = SendBuffer::new(0);
        for n in 0..100_000_u32 {
            buffer.push(Bytes::copy_from_slice(&n.to_le_bytes()));
        }
        assert!(buffer.pieces.len() < 200, "{} pieces", buffer.pieces.len());
        for n in 0..100_000_u32 {
            let mut word = [0; 4];
            for byte in &mut word {
                *byte = buffer.front()[0];
                buffer.advance(1);
            }
            assert_eq!(u32::from_le_bytes(word), n);
        }
        assert!(buffer.is_empty());
    }

    /// Whatever the sizes and whichever side is faster, the output equals the input.
    #[tokio::test]
    async fn bytes_keep_their_order_through_memory_and_file() {
        let mut random = 1_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        let mut buffer = SendBuffer::new(1 << 30);
        let (mut sent, mut taken, mut most) = (0_u64, 0_u64, 0);
        let all = 120_u64 << 20;
        while taken < all {
            // First the buffer fills, then the client catches up.
            let fast = sent < all && (sent - taken < 30 << 20 || next(3) == 0);
            if fast && !buffer.is_behind() {
                let size = (next(70_000) + 1).min((all - sent) as usize);
                buffer.push((sent..sent + size as u64).map(byte_at).collect());
                sent += size as u64;
            } else if !buffer.front().is_empty() && next(4) > 0 {
                let size = buffer.front().len().min(next(100_000) + 1);
                assert!(buffer.front()[..size].iter().zip(taken..).all(|(byte, at)| *byte == byte_at(at)));
                buffer.advance(size);
                taken += size as u64;
            } else if buffer.spill.is_busy() {
                buffer.disk().await.expect("a disk");
            }
            most = most.max(buffer.spilled());
            assert!(buffer.size <= BOUND + BLOCK + 70_000, "{} bytes in memory", buffer.size);
        }
        assert!(most > 20 << 20, "only {most} bytes were in the file");
        assert!(buffer.is_empty() && buffer.has_room());
    }

    fn byte_at(at: u64) -> u8 {
        ((at.wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 56) as u8
    }
}
