//! The buffers of one worker thread: large, few, and held only between a read and the write that takes it all, or for
//! as long as a slow reader leaves something over. An idle connection has none.
//!
//! Must not know what is in them.

use std::cell::RefCell;

/// A buffer: beyond this size, larger ones move no more bytes a CPU second.
pub const BUFFER_BYTES: usize = 256 * 1024;
/// What is read at first, and while too many buffers are held.
pub const FIRST_READ_BYTES: usize = 16 * 1024;
/// Buffers of a worker that slow readers may hold; beyond it every connection reads only [`FIRST_READ_BYTES`] at once.
pub const HELD_BUFFERS_MAX: usize = 128;
/// Free buffers that a worker keeps.
const FREE_BUFFERS_MAX: usize = 4;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), held: 0 }) };
}

struct Pool {
    free: Vec<Box<[u8]>>,
    /// Taken and not given back.
    held: usize,
}

/// A buffer of [`BUFFER_BYTES`], given back to this thread's pool when dropped.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A free one, or a new one.
    #[must_use]
    pub fn take() -> Self {
        POOL.with_borrow_mut(|pool| {
            pool.held += 1;
            Self(pool.free.pop().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()))
        })
    }

    /// Whether as many are held as may be.
    #[must_use]
    pub fn are_short() -> bool {
        POOL.with_borrow(|pool| pool.held >= HELD_BUFFERS_MAX)
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // At the end of the thread there may be no pool left.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.held = pool.held.saturating_sub(1);
            if pool.free.len() < FREE_BUFFERS_MAX {
                pool.free.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_counted() {
        assert!(!Buffer::are_short());
        let held: Vec<Buffer> = (0..HELD_BUFFERS_MAX).map(|_| Buffer::take()).collect();
        assert!(Buffer::are_short());
        assert_eq!(held[0].len(), BUFFER_BYTES);
        drop(held);
        assert!(!Buffer::are_short());
        POOL.with_borrow(|pool| assert_eq!(pool.free.len(), FREE_BUFFERS_MAX));
    }
}
