//! The client's bytes taken in: frames cut out of them, and payload passed on as it comes. Of any other frame what has
//! come is kept until it is whole.
//!
//! Must not know what those do: `fields` has those that begin calls, `control` the others.

use std::borrow::Cow;

use super::Core;
use super::fields::HEADERS_EXTRA_BYTES;
use crate::frame::{FRAME_BYTES_DEFAULT, FrameHead, HEAD_BYTES, PREFACE, Reason, flag, kind};
use crate::streams::Ends;
use crate::{Error, Payload};

/// Frames in a row that bring nothing: empty DATA, PRIORITY, unknown ones, small windows.
pub(super) const USELESS_FRAMES_MAX: u32 = 10_000;

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The preface, of which so much has come.
    Preface(usize),
    /// The head of the first frame, and of any other.
    First,
    Head,
    /// What follows this head, other than payload.
    Frame(FrameHead),
    Data(Data),
    /// So much that nobody wants.
    Skip(u32),
}

/// A frame of payload of which something is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Data {
    stream: u32,
    left: u32,
    /// The length of its padding is still to come.
    padded: bool,
    padding: u32,
    ends: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self::Preface(0)
    }
}

/// The client has broken the protocol.
pub(super) struct Broken(Reason, &'static str);

/// What to do with a stream's frame.
pub(super) type Done = Result<(), Broken>;

pub(super) fn broken<T>(reason: Reason, why: &'static str) -> Result<T, Broken> {
    Err(Broken(reason, why))
}

pub(super) fn protocol<T>(why: &'static str) -> Result<T, Broken> {
    broken(Reason::PROTOCOL_ERROR, why)
}

impl<P: Payload, E: Ends> Core<P, E> {
    /// Takes in what has come, all of it. Where it breaks the protocol the connection is over, and the client is told.
    pub fn receive(&mut self, mut input: &[u8]) {
        while !input.is_empty() && self.error.is_none() {
            if let Err(Broken(reason, why)) = self.step(&mut input).and_then(|()| self.unseen()) {
                self.fail(Error::Broken(reason, why));
                self.put_goodbye(reason);
            }
        }
    }

    /// Rapid reset, CVE-2023-44487.
    fn unseen(&self) -> Done {
        if self.reset_unseen > self.limits.reset_streams_max {
            return broken(Reason::ENHANCE_YOUR_CALM, "too many calls begun and reset");
        }
        Ok(())
    }

    fn step(&mut self, input: &mut &[u8]) -> Done {
        match self.place {
            Place::Preface(had) => {
                let wanted = PREFACE.get(had..).unwrap_or(&[]);
                let (begin, rest) = input.split_at(wanted.len().min(input.len()));
                if !wanted.starts_with(begin) {
                    return protocol("no preface of HTTP/2");
                }
                *input = rest;
                let had = had + begin.len();
                self.place = if had == PREFACE.len() { Place::First } else { Place::Preface(had) };
                Ok(())
            }
            Place::First | Place::Head => {
                let Some(bytes) = whole(&mut self.partial, input, HEAD_BYTES) else {
                    return Ok(());
                };
                let Ok(bytes) = <[u8; HEAD_BYTES]>::try_from(&bytes[..]) else { return Ok(()) };
                self.begin(FrameHead::read(bytes))
            }
            Place::Frame(head) => {
                let mut partial = std::mem::take(&mut self.partial);
                let payload = whole(&mut partial, input, head.length as usize);
                if let Some(payload) = payload {
                    self.place = Place::Head;
                    return self.take(head, &payload);
                }
                self.partial = partial;
                Ok(())
            }
            Place::Data(data) => self.data(data, input),
            Place::Skip(left) => {
                let count = input.len().min(left as usize);
                *input = input.get(count..).unwrap_or(&[]);
                self.skip(left - count as u32);
                Ok(())
            }
        }
    }

    fn skip(&mut self, left: u32) {
        self.place = if left == 0 { Place::Head } else { Place::Skip(left) };
    }

    /// A frame begins.
    fn begin(&mut self, head: FrameHead) -> Done {
        let first = self.place == Place::First;
        if first && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return protocol("the first frame is not SETTINGS");
        }
        if let Some(block) = &self.block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return protocol("another frame among header fields");
        }
        if head.length > self.limits.frame_bytes_max {
            return broken(Reason::FRAME_SIZE_ERROR, "a frame is too long");
        }
        let most = match head.kind {
            kind::DATA => return self.begin_data(head),
            kind::HEADERS | kind::CONTINUATION => {
                self.limits.header_bytes_max + HEADERS_EXTRA_BYTES
            }
            kind::PRIORITY..=kind::WINDOW_UPDATE => FRAME_BYTES_DEFAULT,
            // Section 5.5.
            _ => {
                self.skip(head.length);
                return self.useless();
            }
        };
        if head.length > most {
            return broken(Reason::ENHANCE_YOUR_CALM, "a frame is longer than anybody needs");
        }
        self.place = if head.length > 0 { Place::Frame(head) } else { Place::Head };
        if head.length == 0 { self.take(head, &[]) } else { Ok(()) }
    }

    /// A whole frame, other than of payload.
    fn take(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        match head.kind {
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::RST_STREAM => self.reset_by_client(head, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY => self.goaway(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            _ => protocol("a client has pushed"),
        }
    }

    /// Counts what brings nothing.
    pub(super) fn useless(&mut self) -> Done {
        self.useless += 1;
        if self.useless > USELESS_FRAMES_MAX {
            return broken(Reason::ENHANCE_YOUR_CALM, "too many frames that bring nothing");
        }
        Ok(())
    }

    /// Whether a stream never was.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    /// A stream's own mistake.
    pub(super) fn refuse(&mut self, id: u32, reason: Reason) {
        if self.streams.contains_key(&id) {
            self.reset(id, reason);
        } else {
            self.put_reset(id, reason);
        }
    }

    fn begin_data(&mut self, head: FrameHead) -> Done {
        let (id, length) = (head.stream, head.length);
        if self.is_idle(id) {
            return protocol("payload of no stream");
        }
        if !self.window.take(length) {
            return broken(Reason::FLOW_CONTROL_ERROR, "more than the connection's window");
        }
        let (padded, ends) = (head.has(flag::PADDED), head.has(flag::END_STREAM));
        if padded && length == 0 {
            return broken(Reason::FRAME_SIZE_ERROR, "padding without a length");
        }
        match self.streams.get_mut(&id) {
            Some(stream) if stream.receiving => {
                if !stream.window.take(length) {
                    return broken(Reason::FLOW_CONTROL_ERROR, "more than the stream's window");
                }
                stream.held += length;
            }
            stream => {
                let over = stream.and_then(|stream| stream.error);
                self.release_connection(length);
                if matches!(over, Some(Error::Reset(_))) {
                    self.put_reset(id, Reason::STREAM_CLOSED);
                } else if over.is_none() && !self.remembered.contains(&id) {
                    self.refuse(id, Reason::STREAM_CLOSED);
                }
                self.skip(length);
                return self.useless();
            }
        }
        if length > 0 {
            self.useless = 0;
        } else if !ends {
            self.place = Place::Head;
            return self.useless();
        }
        let data = Data { stream: id, left: length, padded, padding: 0, ends };
        self.place = Place::Data(data);
        if length == 0 { self.data(data, &mut &[][..]) } else { Ok(()) }
    }

    fn data(&mut self, mut data: Data, input: &mut &[u8]) -> Done {
        if data.padded {
            let Some((padding, rest)) = input.split_first() else { return Ok(()) };
            *input = rest;
            (data.padded, data.padding) = (false, u32::from(*padding));
            data.left -= 1;
            let Some(left) = data.left.checked_sub(data.padding) else {
                return protocol("padding longer than its frame");
            };
            data.left = left;
            self.release(data.stream, 1 + data.padding as usize);
        }
        let (piece, rest) = input.split_at(input.len().min(data.left as usize));
        *input = rest;
        data.left -= piece.len() as u32;
        self.body(data.stream, piece);
        if data.left > 0 {
            self.place = Place::Data(data);
            return Ok(());
        }
        if data.ends {
            self.end(data.stream);
        }
        self.skip(data.padding);
        Ok(())
    }

    /// Payload of a stream that may have gone meanwhile.
    fn body(&mut self, id: u32, piece: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if piece.is_empty() || !stream.receiving {
            return;
        }
        if let Some(left) = &mut stream.length_left {
            match left.checked_sub(piece.len() as u64) {
                Some(rest) => *left = rest,
                None => return self.refuse(id, Reason::PROTOCOL_ERROR),
            }
        }
        if stream.is_read {
            stream.push(piece);
        } else {
            self.release(id, piece.len());
        }
    }

    /// Nothing more comes of a stream.
    pub(super) fn end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.receiving && stream.length_left.is_some_and(|left| left > 0) {
            return self.refuse(id, Reason::PROTOCOL_ERROR);
        }
        stream.receiving = false;
        stream.ends.readable();
        stream.ends.writable();
        self.settle(id);
    }
}

/// So many bytes, out of what was kept and of what has come; `None` until they are there.
fn whole<'a>(partial: &mut Vec<u8>, input: &mut &'a [u8], wanted: usize) -> Option<Cow<'a, [u8]>> {
    let count = input.len().min(wanted.saturating_sub(partial.len()));
    let (piece, rest) = input.split_at(count);
    *input = rest;
    if partial.is_empty() && count == wanted {
        return Some(Cow::Borrowed(piece));
    }
    partial.extend_from_slice(piece);
    (partial.len() >= wanted).then(|| Cow::Owned(std::mem::take(partial)))
}

/// The first four bytes as a number.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}
