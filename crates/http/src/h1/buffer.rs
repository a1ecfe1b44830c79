//! Memory for bytes that have arrived: borrowed from a thread's pool while in use, none while a connection idles.
//!
//! Must not know what the bytes mean.

use std::cell::RefCell;

/// An ordinary buffer's size: a head, or a body's beginning.
pub(crate) const SMALL_BYTES: usize = 16 * 1024;
/// A bulk body's buffer: fewer system calls for a byte.
pub(crate) const LARGE_BYTES: usize = 128 * 1024;
/// Small buffers that a thread keeps for later; more are given back to the allocator.
const SMALL_KEPT_MAX: usize = 256;
/// Large buffers that a thread keeps for later.
const LARGE_KEPT_MAX: usize = 8;
/// Reads in a row that fill a small buffer before it becomes a large one.
const FULL_READS_TO_GROW: u8 = 2;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { small: Vec::new(), large: Vec::new() }) };
}

struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

fn take(size: usize) -> Vec<u8> {
    POOL.with_borrow_mut(|pool| {
        let kept = if size == SMALL_BYTES { pool.small.pop() } else { pool.large.pop() };
        kept.unwrap_or_else(|| vec![0; size])
    })
}

fn give(memory: Vec<u8>) {
    POOL.with_borrow_mut(|pool| match memory.len() {
        SMALL_BYTES if pool.small.len() < SMALL_KEPT_MAX => pool.small.push(memory),
        LARGE_BYTES if pool.large.len() < LARGE_KEPT_MAX => pool.large.push(memory),
        _ => {}
    });
}

/// Bytes that have arrived and not been used yet. Empty, it holds no memory once [`Buffer::release`]d.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    end: usize,
    full_reads: u8,
}

impl Buffer {
    /// What has arrived.
    pub(crate) fn filled(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// How much has arrived.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Done with that many bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into; never empty. Takes memory if there is none, moves what is left to the front if it is full,
    /// and doubles it if it is full of one unfinished head, whose limit the reader of heads holds.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.memory.is_empty() {
            self.memory = take(SMALL_BYTES);
        } else if self.is_empty()
            && self.full_reads >= FULL_READS_TO_GROW
            && self.memory.len() == SMALL_BYTES
        {
            give(std::mem::replace(&mut self.memory, take(LARGE_BYTES)));
        }
        let room = self.memory.len() - self.end;
        if self.start > 0 && room < self.memory.len() / 4 {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else if room == 0 {
            self.memory.resize(self.memory.len() * 2, 0);
        }
        self.memory.get_mut(self.end..).unwrap_or_default()
    }

    /// That many bytes have been read into [`Self::room`].
    pub(crate) fn arrived(&mut self, count: usize) {
        let filled_up = self.end + count >= self.memory.len();
        self.full_reads = if filled_up { self.full_reads.saturating_add(1) } else { 0 };
        self.end = (self.end + count).min(self.memory.len());
    }

    /// Takes what has arrived in another behind what is here.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
        }
        while !other.is_empty() {
            let room = self.room();
            let count = room.len().min(other.len());
            let (here, bytes) = (room.get_mut(..count), other.filled().get(..count));
            here.zip(bytes).into_iter().for_each(|(here, bytes)| here.copy_from_slice(bytes));
            self.arrived(count);
            other.consume(count);
        }
        other.release();
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && !self.memory.is_empty() {
            give(std::mem::take(&mut self.memory));
            self.full_reads = 0;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            let memory = std::mem::take(&mut self.memory);
            // The pool may be gone at the end of its thread.
            let _ = POOL.try_with(|_| ()).map(|()| give(memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            let room = buffer.room();
            let count = room.len().min(left.len());
            room[..count].copy_from_slice(&left[..count]);
            buffer.arrived(count);
            left = &left[count..];
        }
    }

    #[test]
    fn what_arrives_comes_out_in_order() {
        let mut buffer = Buffer::default();
        let mut expected = std::collections::VecDeque::new();
        for round in 0..200_u32 {
            let bytes: Vec<u8> = (0..(round * 37) % 900).map(|i| (i + round) as u8).collect();
            put(&mut buffer, &bytes);
            expected.extend(bytes);
            let take = buffer.len() / 3;
            let taken: Vec<u8> = expected.drain(..take).collect();
            assert_eq!(&buffer.filled()[..take], taken);
            buffer.consume(take);
        }
        assert!(buffer.filled().iter().eq(expected.iter()));
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back() {
        let mut buffer = Buffer::default();
        put(&mut buffer, b"abc");
        buffer.release();
        assert_eq!(buffer.filled(), b"abc");
        buffer.consume(3);
        buffer.release();
        assert!(buffer.memory.is_empty());
    }

    #[test]
    fn bulk_reads_get_a_large_buffer() {
        let mut buffer = Buffer::default();
        for _ in 0..3 {
            let room = buffer.room().len();
            buffer.arrived(room);
            buffer.consume(room);
        }
        assert_eq!(buffer.room().len(), LARGE_BYTES);
    }
}
