//! The client's bytes taken in: frames cut out of them, and what each of them does.
//!
//! Payload is passed on as it comes; of any other frame what has come is kept until it is whole. Must not know who
//! serves calls.

use std::borrow::Cow;

use super::{Core, Pong, USELESS_FRAMES_MAX, Urgency, WINDOW_CHANGES_MAX};
use crate::flow::{ReceiveWindow, SendWindow, WINDOW_BYTES_MAX};
use crate::frame::{
    FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX, FrameHead, HEAD_BYTES, PREFACE, Reason, flag, kind,
    setting,
};
use crate::head::{Reading, Wrong};
use crate::streams::{Ends, Stream};
use crate::{Error, Payload};

/// Frames that one list of header fields may come in.
const CONTINUATIONS_MAX: u32 = 32;
/// What padding and priority add to a frame of header fields.
const HEADERS_EXTRA_BYTES: u32 = 1 + 5 + 255;
const PRIORITY_BYTES: usize = 5;

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

/// Header fields that go on in another frame.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    stream: u32,
    ends: bool,
    /// Its priority depends on itself.
    circular: bool,
    frames: u32,
    bytes: Vec<u8>,
}

impl Default for Place {
    fn default() -> Self {
        Self::Preface(0)
    }
}

/// The client has broken the protocol.
struct Broken(Reason, &'static str);

/// What to do with a stream's frame.
type Done = Result<(), Broken>;

fn broken<T>(reason: Reason, why: &'static str) -> Result<T, Broken> {
    Err(Broken(reason, why))
}

fn protocol<T>(why: &'static str) -> Result<T, Broken> {
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
    fn useless(&mut self) -> Done {
        self.useless += 1;
        if self.useless > USELESS_FRAMES_MAX {
            return broken(Reason::ENHANCE_YOUR_CALM, "too many frames that bring nothing");
        }
        Ok(())
    }

    /// Whether a stream never was.
    fn is_idle(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    /// A stream's own mistake.
    fn refuse(&mut self, id: u32, reason: Reason) {
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
    fn end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.receiving && stream.length_left.is_some_and(|left| left > 0) {
            return self.refuse(id, Reason::PROTOCOL_ERROR);
        }
        stream.receiving = false;
        stream.ends.readable();
        stream.ends.writable();
        self.settle(id);
    }

    fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Done {
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

    fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Done {
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

    /// Who should go first is ours to say; only what makes no sense has an effect.
    fn priority(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream == 0 {
            return protocol("a priority of no stream");
        }
        if payload.len() != PRIORITY_BYTES {
            self.refuse(head.stream, Reason::FRAME_SIZE_ERROR);
        } else if number(payload) & WINDOW_BYTES_MAX == head.stream {
            self.refuse(head.stream, Reason::PROTOCOL_ERROR);
        }
        self.useless()
    }

    fn reset_by_client(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if self.is_idle(head.stream) {
            return protocol("a reset of no stream");
        }
        if payload.len() != 4 {
            return broken(Reason::FRAME_SIZE_ERROR, "a reset of another length");
        }
        let Some(stream) = self.streams.get_mut(&head.stream) else { return self.useless() };
        if stream.error.is_some() {
            return self.useless();
        }
        self.fail_stream(head.stream, Error::Reset(Reason::new(number(payload))));
        Ok(())
    }

    fn settings(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream != 0 {
            return protocol("settings of a stream");
        }
        if !payload.len().is_multiple_of(6) || head.has(flag::ACK) && !payload.is_empty() {
            return broken(Reason::FRAME_SIZE_ERROR, "settings of another length");
        }
        if head.has(flag::ACK) {
            self.fields.limit(self.limits.header_table_bytes as usize);
            return self.useless();
        }
        for one in payload.chunks_exact(6) {
            if let [n0, n1, value @ ..] = one {
                self.set(u16::from_be_bytes([*n0, *n1]), number(value))?;
            }
        }
        self.put_settings_ack();
        Ok(())
    }

    fn set(&mut self, name: u16, value: u32) -> Done {
        match name {
            setting::INITIAL_WINDOW_SIZE if value > WINDOW_BYTES_MAX => {
                broken(Reason::FLOW_CONTROL_ERROR, "a window is too large")
            }
            setting::INITIAL_WINDOW_SIZE => self.change_windows(value),
            setting::MAX_FRAME_SIZE => {
                if !(FRAME_BYTES_DEFAULT..=FRAME_BYTES_MAX).contains(&value) {
                    return protocol("a frame's length is not allowed");
                }
                self.peer.frame_bytes_max = value;
                Ok(())
            }
            setting::ENABLE_PUSH if value > 1 => protocol("push is on or off"),
            // What concerns what we send that way: nothing is pushed, and no field is to be remembered.
            _ => Ok(()),
        }
    }

    /// Section 6.9.2.
    fn change_windows(&mut self, to: u32) -> Done {
        let by = i64::from(to) - i64::from(self.peer.window_bytes);
        if by == 0 {
            return Ok(());
        }
        self.peer.window_changes += 1;
        if self.peer.window_changes > WINDOW_CHANGES_MAX {
            return broken(Reason::ENHANCE_YOUR_CALM, "windows change all the time");
        }
        self.peer.window_bytes = to;
        let mut open = Vec::new();
        for (id, stream) in &mut self.streams {
            if stream.send_window.grow(by).is_err() {
                return broken(Reason::FLOW_CONTROL_ERROR, "a window is too large");
            }
            if by > 0 {
                open.push(*id);
            }
        }
        open.into_iter().for_each(|id| self.window_opened(id));
        Ok(())
    }

    /// A stream's window has grown.
    fn window_opened(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.ends.writable();
        if stream.queued > 0 {
            self.enter_round(id);
        }
    }

    fn ping(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream != 0 {
            return protocol("a ping of a stream");
        }
        let Ok(opaque) = <[u8; 8]>::try_from(payload) else {
            return broken(Reason::FRAME_SIZE_ERROR, "a ping of another length");
        };
        if !head.has(flag::ACK) {
            self.put_pong(opaque);
        } else if self.pong == Pong::Asked {
            self.pong = Pong::Answered;
        } else {
            return self.useless();
        }
        Ok(())
    }

    fn goaway(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream != 0 {
            return protocol("a goodbye of a stream");
        }
        if payload.len() < 8 {
            return broken(Reason::FRAME_SIZE_ERROR, "a goodbye of another length");
        }
        self.peer.leaves = true;
        self.useless()
    }

    fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        let id = head.stream;
        if id != 0 && self.is_idle(id) {
            return protocol("a window of no stream");
        }
        if payload.len() != 4 {
            return broken(Reason::FRAME_SIZE_ERROR, "a window of another length");
        }
        let by = i64::from(number(payload) & WINDOW_BYTES_MAX);
        if id == 0 {
            if by == 0 {
                return protocol("a window that does not grow");
            }
            if self.send_window.grow(by).is_err() {
                return broken(Reason::FLOW_CONTROL_ERROR, "a window is too large");
            }
            if !self.stalled.is_empty() {
                self.want(Urgency::Now);
            }
        } else if let Some(stream) = self.streams.get_mut(&id) {
            if by == 0 {
                self.refuse(id, Reason::PROTOCOL_ERROR);
            } else if stream.send_window.grow(by).is_err() {
                self.refuse(id, Reason::FLOW_CONTROL_ERROR);
            } else {
                self.window_opened(id);
            }
        }
        self.useless()
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
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}
