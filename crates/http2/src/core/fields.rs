//! Header fields of a client: its calls, and what may follow their payload.
//!
//! Must not know what fields make a call: [`crate::head`] does.

use super::Core;
use super::receive::{Done, broken, number, protocol};
use crate::flow::{ReceiveWindow, SendWindow, WINDOW_BYTES_MAX};
use crate::frame::{FrameHead, PRIORITY_BYTES, Reason, flag};
use crate::head::{Reading, Wrong};
use crate::streams::{Ends, Stream};
use crate::{Error, Payload};

/// Frames that one list of header fields may come in.
const CONTINUATIONS_MAX: u32 = 32;
/// What padding and priority add to a frame of header fields.
pub(super) const HEADERS_EXTRA_BYTES: u32 = 1 + PRIORITY_BYTES as u32 + 255;

/// Header fields that go on in another frame.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    pub(super) stream: u32,
    ends: bool,
    /// Its priority depends on itself.
    circular: bool,
    frames: u32,
    bytes: Vec<u8>,
}

impl<P: Payload, E: Ends> Core<P, E> {
    pub(super) fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream.is_multiple_of(2) {
            return protocol("a client's stream has an odd number");
        }
        let mut fragment = payload;
        if head.has(flag::PADDED) {
            let Some((padding, rest)) = fragment.split_first() else {
                return broken(Reason::FRAME_SIZE_ERROR, "padding without a length");
            };
            let Some(end) = rest.len().checked_sub(usize::from(*padding)) else {
                return protocol("padding longer than its frame");
            };
            fragment = rest.get(..end).unwrap_or(&[]);
        }
        let mut circular = false;
        if head.has(flag::PRIORITY) {
            let Some((priority, rest)) = fragment.split_at_checked(PRIORITY_BYTES) else {
                return broken(Reason::FRAME_SIZE_ERROR, "half a priority");
            };
            (circular, fragment) = (number(priority) & WINDOW_BYTES_MAX == head.stream, rest);
        }
        let ends = head.has(flag::END_STREAM);
        let mut block =
            HeaderBlock { stream: head.stream, ends, circular, frames: 1, bytes: Vec::new() };
        if head.has(flag::END_HEADERS) {
            return self.fields_of(&block, fragment);
        }
        block.bytes = fragment.to_vec();
        self.block = Some(Box::new(block));
        Ok(())
    }

    pub(super) fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        let Some(mut block) = self.block.take() else { return protocol("nothing to be continued") };
        block.frames += 1;
        let whole = block.bytes.len() + payload.len();
        if block.frames > CONTINUATIONS_MAX || whole > self.limits.header_bytes_max as usize {
            return broken(Reason::ENHANCE_YOUR_CALM, "header fields without end");
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            let bytes = std::mem::take(&mut block.bytes);
            return self.fields_of(&block, &bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole block of header fields: a request, or what follows one. It is read in any case, since others may refer
    /// to it.
    fn fields_of(&mut self, block: &HeaderBlock, bytes: &[u8]) -> Done {
        let id = block.stream;
        let trailers = id <= self.last;
        let mut reading = Reading::new(trailers, self.limits.header_bytes_max as usize);
        if self.fields.decode(bytes, &mut |name, value| reading.take(name, value)).is_err() {
            return broken(Reason::COMPRESSION_ERROR, "header fields cannot be read");
        }
        if trailers {
            return self.trailers(block, reading);
        }
        self.last = id;
        self.useless = 0;
        if self.going_away {
            return Ok(());
        }
        if self.streams.len() >= self.limits.streams_max as usize {
            self.put_reset(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let (head, length) = match reading.finish() {
            Ok((_, Some(1..))) if block.ends => return self.malformed(id, Wrong::Malformed),
            Ok(_) if block.circular => return self.malformed(id, Wrong::Malformed),
            Ok(read) => read,
            Err(wrong) => return self.malformed(id, wrong),
        };
        let window = ReceiveWindow::new(self.limits.stream_window_bytes);
        let mut stream = Stream::new(window, SendWindow::new(self.peer.window_bytes));
        stream.length_left = length;
        stream.receiving = !block.ends;
        self.streams.insert(id, Box::new(stream));
        self.calls.push_back((id, head));
        Ok(())
    }

    fn malformed(&mut self, id: u32, wrong: Wrong) -> Done {
        let reason = match wrong {
            Wrong::Malformed => Reason::PROTOCOL_ERROR,
            Wrong::TooLong => Reason::ENHANCE_YOUR_CALM,
        };
        self.refuse(id, reason);
        Ok(())
    }

    fn trailers(&mut self, block: &HeaderBlock, reading: Reading) -> Done {
        let id = block.stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            if self.remembered.contains(&id) {
                return self.useless();
            }
            return broken(Reason::STREAM_CLOSED, "header fields of a stream that is over");
        };
        match stream.error {
            Some(Error::Reset(_)) => {
                self.put_reset(id, Reason::STREAM_CLOSED);
                return self.useless();
            }
            Some(_) => return self.useless(),
            None if !stream.receiving => {
                self.refuse(id, Reason::STREAM_CLOSED);
                return Ok(());
            }
            None => {}
        }
        match reading.finish() {
            Ok((head, _)) if block.ends && !block.circular => {
                stream.trailers = stream.is_read.then(|| Box::new(head));
                self.end(id);
            }
            Ok(_) => self.refuse(id, Reason::PROTOCOL_ERROR),
            Err(wrong) => return self.malformed(id, wrong),
        }
        Ok(())
    }
}
