//! Payload that waits, in the pieces that it came in.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces shorter than this are put together.
const SMALL_BYTES: usize = 2048;
/// What they are put together to.
const JOINED_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    /// The sum is right, and no piece is empty.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn check(&self) {
        assert_eq!(self.bytes, self.pieces.iter().map(Bytes::len).sum::<usize>());
        assert!(self.pieces.iter().all(|piece| !piece.is_empty()));
    }

    /// Empties it; how much there was.
    pub(super) fn clear(&mut self) -> usize {
        self.pieces = VecDeque::new();
        std::mem::take(&mut self.bytes)
    }

    /// The first piece, at most so long; several small ones as one. `None` where there is nothing, or nothing is
    /// wanted.
    pub(super) fn take(&mut self, most: usize) -> Option<Bytes> {
        if most == 0 {
            return None;
        }
        let first = self.pieces.front_mut()?;
        let bytes =
            if first.len() <= most { self.pieces.pop_front()? } else { first.split_to(most) };
        self.bytes -= bytes.len();
        if bytes.len() < SMALL_BYTES && bytes.len() < most && !self.pieces.is_empty() {
            return Some(self.join(bytes, most.min(JOINED_BYTES)));
        }
        if self.pieces.is_empty() {
            // An idle connection holds nothing.
            self.pieces = VecDeque::new();
        }
        Some(bytes)
    }

    /// A small piece with what follows, copied.
    fn join(&mut self, first: Bytes, most: usize) -> Bytes {
        let mut joined = BytesMut::with_capacity(most.min(first.len() + self.bytes));
        joined.extend_from_slice(&first);
        while joined.len() < most {
            let Some(next) = self.pieces.front_mut() else { break };
            let piece = next.split_to(next.len().min(most - joined.len()));
            if next.is_empty() {
                self.pieces.pop_front();
            }
            self.bytes -= piece.len();
            joined.extend_from_slice(&piece);
        }
        joined.freeze()
    }
}
