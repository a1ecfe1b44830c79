//! Memory that a request needs from its head to the end of its answer, kept by the thread for the next one.
//!
//! An idle connection has none. Must not know what is written in it.

use std::cell::RefCell;

use crate::head::RequestHead;

/// Room for a response head and the small body behind it.
const OUTPUT_BYTES: usize = 4 * 1024;
/// How many a thread keeps: as many requests are under way at once on a busy one.
const KEPT_MAX: usize = 256;

thread_local! {
    #[allow(clippy::vec_box, reason = "a request's task holds the pointer, so that it is small to move")]
    static KEPT: RefCell<Vec<Box<Scratch>>> = const { RefCell::new(Vec::new()) };
}

/// One request's memory.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The request's head.
    pub(crate) head: RequestHead,
    /// What waits to be written to the client.
    pub(crate) output: Vec<u8>,
}

impl Scratch {
    /// One that was used before, or a new one.
    pub(crate) fn take() -> Box<Self> {
        let kept = KEPT.with_borrow_mut(Vec::pop);
        kept.unwrap_or_else(|| {
            let output = Vec::with_capacity(OUTPUT_BYTES);
            Box::new(Self { head: RequestHead::default(), output })
        })
    }

    /// Keeps it for the next request of this thread, unless it has grown or there are enough.
    pub(crate) fn give(mut self: Box<Self>) {
        self.head.recycle();
        self.output.clear();
        if self.output.capacity() <= OUTPUT_BYTES {
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < KEPT_MAX {
                    kept.push(self);
                }
            });
        }
    }
}
