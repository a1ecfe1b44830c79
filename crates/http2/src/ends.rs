//! The two ends of a call, and the question whether its client lives: they change what they share with the connection,
//! and wake it.
//!
//! Must not know how anything is read or written.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::core::{Core, Read};
use crate::driver::{Shared, wait, with};
use crate::frame::Reason;
use crate::head::{Block, Head};
use crate::{Error, Payload};

/// What a client sends in a call.
#[derive(Debug)]
pub struct Body<P: Payload> {
    pub(crate) shared: Shared<P>,
    pub(crate) id: u32,
    pub(crate) trailers: Option<Box<Head>>,
}

impl<P: Payload> Body<P> {
    /// The next piece; `None` at the end. It counts against the client's windows until it is released.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let state = &mut *self.shared.borrow_mut();
        match state.core.read(self.id) {
            Read::Bytes(bytes) => Poll::Ready(Some(Ok(bytes))),
            Read::End(trailers) => {
                self.trailers = trailers.or(self.trailers.take());
                Poll::Ready(None)
            }
            Read::Failed(error) => Poll::Ready(Some(Err(error))),
            Read::Wait => {
                if let Some(ends) = state.core.ends(self.id) {
                    wait(&mut ends.reader, cx);
                }
                Poll::Pending
            }
        }
    }

    /// The client may send so much more.
    pub fn release(&mut self, bytes: usize) {
        with(&self.shared, |core| core.release(self.id, bytes));
    }

    /// What followed the end, if it had any fields.
    pub fn trailers(&mut self) -> Option<Head> {
        self.trailers.take().map(|head| *head)
    }
}

impl<P: Payload> Drop for Body<P> {
    fn drop(&mut self) {
        with(&self.shared, |core| core.close_reader(self.id));
    }
}

/// What a client is sent in a call. Dropped before its end, the stream is reset.
#[derive(Debug)]
pub struct Answer<P: Payload> {
    pub(crate) shared: Shared<P>,
    pub(crate) id: u32,
}

impl<P: Payload> Answer<P> {
    /// Begins the answer, and ends it where nothing follows. What begins one waits a little for the first message.
    ///
    /// # Errors
    /// Where the call is over, or was answered.
    pub fn send_head(&mut self, head: Block, ends: bool) -> Result<(), Error> {
        with(&self.shared, |core| core.send_head(self.id, head, ends))
    }

    /// What began the answer does not wait.
    pub fn flush(&mut self) {
        with(&self.shared, |core| core.flush(self.id));
    }

    /// How much payload can be given now.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.borrow().core.capacity(self.id)
    }

    /// Ready when more than `bytes` of payload can be given: how much.
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<Result<usize, Error>> {
        let capacity = self.capacity();
        if capacity > bytes {
            return Poll::Ready(Ok(capacity));
        }
        self.poll_over(cx).map(Err)
    }

    /// Sends payload, at most as much as there is capacity for.
    ///
    /// # Errors
    /// Where the call is over, or the answer has not begun or has ended.
    pub fn send_data(&mut self, payload: P) -> Result<(), Error> {
        with(&self.shared, |core| core.send_data(self.id, payload))
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Where the call is over, or the answer has not begun or has ended.
    pub fn send_end(&mut self, trailers: Option<Block>) -> Result<(), Error> {
        with(&self.shared, |core| core.send_end(self.id, trailers))
    }

    /// Ends the call at once, in both directions.
    pub fn reset(&mut self, reason: Reason) {
        with(&self.shared, |core| core.reset(self.id, reason));
    }

    /// Ready when the call is over in both directions, whether in order or not.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let state = &mut *self.shared.borrow_mut();
        if let Some(error) = state.core.over(self.id) {
            return Poll::Ready(error);
        }
        if let Some(ends) = state.core.ends(self.id) {
            wait(&mut ends.writer, cx);
        }
        Poll::Pending
    }
}

impl<P: Payload> Drop for Answer<P> {
    fn drop(&mut self) {
        with(&self.shared, |core| core.close_writer(self.id));
    }
}

/// Asks a client whether it lives.
#[derive(Debug)]
pub struct Pings<P: Payload> {
    pub(crate) shared: Shared<P>,
}

impl<P: Payload> Pings<P> {
    /// Ready when the client has answered; it is asked as often as this is called. Dropped, the answer is passed over.
    ///
    /// # Errors
    /// Where the connection is over.
    pub async fn ping(&mut self) -> Result<(), Error> {
        with(&self.shared, Core::ask);
        poll_fn(|cx| {
            let state = &mut *self.shared.borrow_mut();
            if let Some(error) = state.core.error() {
                return Poll::Ready(Err(error));
            }
            if state.core.was_answered() {
                return Poll::Ready(Ok(()));
            }
            wait(&mut state.asker, cx);
            Poll::Pending
        })
        .await
    }
}
