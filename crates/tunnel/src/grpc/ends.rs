//! What the bytes of a stream come out of and what messages go into: of the `h2` crate, and of `http2` towards a
//! server's clients.
//!
//! Must not know what the messages say.

use std::task::{Context, Poll, ready};

use ::http2::{Answer, Body};
use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::StreamError;
use crate::packet::Message;

/// What the bytes of a stream come out of.
pub(crate) trait Incoming {
    /// The next of them; `None` at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>>;

    /// The sender may send so many more.
    fn release(&mut self, bytes: usize) -> Result<(), StreamError>;
}

impl Incoming for RecvStream {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        Self::poll_data(self, cx).map_err(StreamError::Http2)
    }

    fn release(&mut self, bytes: usize) -> Result<(), StreamError> {
        self.flow_control().release_capacity(bytes).map_err(StreamError::Http2)
    }
}

impl Incoming for Body<Message> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        Self::poll_data(self, cx).map_err(StreamError::from)
    }

    fn release(&mut self, bytes: usize) -> Result<(), StreamError> {
        Self::release(self, bytes);
        Ok(())
    }
}

/// What the messages of a stream go into.
pub(crate) trait Outgoing {
    /// Ready when more than a packet's head can be given: how much. As much as is `wanted` is asked for.
    fn poll_capacity(
        &mut self,
        wanted: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamError>>;

    /// Nothing is asked for any more.
    fn want_nothing(&mut self);

    /// Gives a message.
    fn send(&mut self, message: Message) -> Result<(), StreamError>;

    /// Ready when the other side has reset the stream, or the connection below is gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<StreamError>;
}

impl Outgoing for SendStream<Message> {
    fn poll_capacity(
        &mut self,
        wanted: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        loop {
            let capacity = self.capacity();
            if capacity > Message::OVERHEAD_BYTES_MAX {
                return Poll::Ready(Ok(capacity));
            }
            self.reserve_capacity(wanted);
            match ready!(Self::poll_capacity(self, cx)) {
                None => return Poll::Ready(Err(StreamError::Ended)),
                Some(Err(error)) => return Poll::Ready(Err(StreamError::Http2(error))),
                Some(Ok(_)) => {}
            }
        }
    }

    fn want_nothing(&mut self) {
        if self.capacity() > 0 {
            self.reserve_capacity(0);
        }
    }

    fn send(&mut self, message: Message) -> Result<(), StreamError> {
        self.send_data(message, false).map_err(StreamError::Http2)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let reset = ready!(self.poll_reset(cx));
        Poll::Ready(reset.map_or_else(StreamError::Http2, StreamError::Reset))
    }
}

impl Outgoing for Answer<Message> {
    fn poll_capacity(
        &mut self,
        _wanted: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        Self::poll_capacity(self, cx, Message::OVERHEAD_BYTES_MAX).map_err(StreamError::from)
    }

    fn want_nothing(&mut self) {}

    fn send(&mut self, message: Message) -> Result<(), StreamError> {
        self.send_data(message).map_err(StreamError::from)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.poll_over(cx).map(StreamError::from)
    }
}
