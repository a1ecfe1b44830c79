//! The pipes of one worker thread, for streams that move much at a time: few, and held only while something is in them.
//!
//! Must not know who moves what.

use std::cell::RefCell;

use net::splice::Pipe;

/// Pipes of a worker that may be in use; further streams copy. Each has two descriptors. What is in them is the
/// kernel's memory, not ours: at most so many times [`net::splice::PIPE_BYTES`], where as many readers are slow.
pub const HELD_PIPES_MAX: usize = 32;
/// Free pipes that a worker keeps.
const FREE_PIPES_MAX: usize = 2;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { free: Vec::new(), held: 0, taken: 0 }) };
}

struct Pool {
    free: Vec<Pipe>,
    /// Taken, and neither given back nor dropped.
    held: usize,
    /// Taken since the thread began.
    taken: u64,
}

/// How many have been taken on this thread.
#[cfg(test)]
pub(crate) fn taken() -> u64 {
    POOL.with_borrow(|pool| pool.taken)
}

/// How many are in use on this thread.
#[cfg(test)]
pub(crate) fn held() -> usize {
    POOL.with_borrow(|pool| pool.held)
}

/// A pipe of this thread's pool. Dropped, it is closed, with what is in it.
#[derive(Debug)]
pub struct Held {
    pub(crate) pipe: Pipe,
    _counted: Counted,
}

/// Counts a pipe until it is dropped.
#[derive(Debug)]
struct Counted;

impl Held {
    /// A free one, or a new one. `None` where as many are in use as may be, or the kernel gives none.
    #[must_use]
    pub fn take() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            if pool.held >= HELD_PIPES_MAX {
                return None;
            }
            // Without one the stream copies, and nobody notices but the processor.
            let pipe = pool.free.pop().map_or_else(Pipe::new, Ok).ok()?;
            pool.held += 1;
            pool.taken += 1;
            Some(Self { pipe, _counted: Counted })
        })
    }

    /// Puts it back, for somebody else; one with something in it is closed.
    pub fn give_back(self) {
        POOL.with_borrow_mut(|pool| {
            if self.pipe.held() == 0 && pool.free.len() < FREE_PIPES_MAX {
                pool.free.push(self.pipe);
            }
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // At the end of the thread there may be no pool left.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.held = pool.held.saturating_sub(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_come_back_and_are_counted() {
        let held: Vec<Held> = std::iter::from_fn(Held::take).collect();
        assert_eq!(held.len(), HELD_PIPES_MAX);
        held.into_iter().for_each(Held::give_back);
        POOL.with_borrow(|pool| assert_eq!((pool.free.len(), pool.held), (FREE_PIPES_MAX, 0)));
        drop(Held::take());
        POOL.with_borrow(|pool| assert_eq!((pool.free.len(), pool.held), (FREE_PIPES_MAX - 1, 0)));
    }
}
