//! The protocol of one connection at the server's end: bytes in and out, and what the ends of its calls do.
//!
//! `receive` takes in the client's bytes, `fields` and `control` do what they say, `send` makes ours; here are the
//! state and what those may do who serve calls. Must not know IO, tasks or clocks: [`Core::urgency`] says whether
//! something is to be written, and how soon.

mod control;
mod fields;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::flow::{Due, ReceiveWindow, SendWindow, WINDOW_BYTES_DEFAULT};
use crate::frame::{self, FRAME_BYTES_DEFAULT, Reason};
use crate::head::{Block, Head};
use crate::hpack;
use crate::output::Output;
use crate::streams::{Ends, Sending, Stream, Streams};
use crate::{Error, Payload};
use fields::HeaderBlock;
use receive::Place;

/// Control frames that wait to be written; beyond it nothing is read (floods of PING and SETTINGS).
const CONTROL_BYTES_MAX: usize = 16 * 1024;
/// What all streams may have queued, other than what their windows let out; beyond it each has
/// [`BEYOND_BYTES_MIN`], so that none waits for others for good.
const QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// See [`QUEUED_BYTES_MAX`].
const BEYOND_BYTES_MIN: usize = 1024;

/// How much a client may make us keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What may arrive on a stream before it is read.
    pub stream_window_bytes: u32,
    /// The same of all streams; at least 65,535.
    pub connection_window_bytes: u32,
    /// The longest frame that is taken, at least 16 KiB.
    pub frame_bytes_max: u32,
    /// What one stream may have given to be sent; it can be 16 KiB as long as others have little.
    pub send_buffer_bytes: usize,
    /// Streams at a time.
    pub streams_max: u32,
    /// The longest list of header fields.
    pub header_bytes_max: u32,
    /// What a client may have remembered of its fields once it has agreed, at most 4096: where most connections have
    /// one call, nothing.
    pub header_table_bytes: u32,
    /// Streams that were reset by us and are remembered, and those reset by the client that nobody has seen.
    pub reset_streams_max: usize,
}

/// How soon something is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It may wait a little for what goes with it: an acknowledgement for anything, a call's head for its first
    /// message.
    Held,
    /// Somebody waits for it.
    Now,
}

/// What is next of a call's payload.
#[derive(Debug)]
pub enum Read {
    /// A piece of it.
    Bytes(Bytes),
    /// Nothing now.
    Wait,
    /// The end, with trailers if there were any; told once.
    End(Option<Box<Head>>),
    /// The call is over before its end.
    Failed(Error),
}

/// One connection. `P` is what is sent as payload, `E` whom each stream tells that it can go on.
#[derive(Debug)]
pub struct Core<P, E> {
    limits: Limits,
    place: Place,
    partial: Vec<u8>,
    /// Header fields whose end has not come.
    block: Option<Box<HeaderBlock>>,
    fields: hpack::Decoder,
    streams: Streams<P, E>,
    /// The highest number that a stream had.
    last: u32,
    calls: VecDeque<(u32, Head)>,
    /// Calls that were reset before anybody has seen them.
    reset_unseen: usize,
    /// Streams that we have reset, and about which the client may not know.
    remembered: VecDeque<u32>,
    window: ReceiveWindow,
    window_due: bool,
    send_window: SendWindow,
    peer: Peer,
    useless: u32,
    /// What all streams have queued.
    queued: usize,
    /// Streams with something to send, in turn; those of them that wait for the connection's window; whose window is
    /// to be given back; whose head waits.
    round: VecDeque<u32>,
    stalled: VecDeque<u32>,
    updates: VecDeque<u32>,
    heads: Vec<u32>,
    control: Vec<u8>,
    output: Output<P>,
    urgency: Option<Urgency>,
    pong: Pong,
    /// Our settings have gone out.
    greeted: bool,
    going_away: bool,
    error: Option<Error>,
}

/// What the client has asked for.
#[derive(Debug)]
struct Peer {
    window_bytes: u32,
    window_changes: u32,
    frame_bytes_max: u32,
    /// It takes no more answers than there are.
    leaves: bool,
}

/// A question of ours whether the client lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pong {
    Idle,
    Asked,
    Answered,
}

impl<P: Payload, E: Ends> Core<P, E> {
    /// A connection of which nothing has come.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            place: Place::default(),
            partial: Vec::new(),
            block: None,
            fields: hpack::Decoder::default(),
            streams: Streams::default(),
            last: 0,
            calls: VecDeque::new(),
            reset_unseen: 0,
            remembered: VecDeque::new(),
            window: ReceiveWindow::new(limits.connection_window_bytes),
            window_due: false,
            send_window: SendWindow::new(WINDOW_BYTES_DEFAULT),
            peer: Peer {
                window_bytes: WINDOW_BYTES_DEFAULT,
                window_changes: 0,
                frame_bytes_max: FRAME_BYTES_DEFAULT,
                leaves: false,
            },
            useless: 0,
            queued: 0,
            round: VecDeque::new(),
            stalled: VecDeque::new(),
            updates: VecDeque::new(),
            heads: Vec::new(),
            control: Vec::new(),
            output: Output::default(),
            urgency: None,
            pong: Pong::Idle,
            greeted: false,
            going_away: false,
            error: None,
        }
    }

    /// The next call with its stream's number, whose two ends somebody holds from now on.
    pub fn accept(&mut self) -> Option<(u32, Head)> {
        while let Some((id, head)) = self.calls.pop_front() {
            if self.calls.is_empty() {
                self.calls = VecDeque::new();
            }
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.accepted = true;
            if stream.error.is_some() {
                self.reset_unseen = self.reset_unseen.saturating_sub(1);
                self.settle(id);
                continue;
            }
            stream.handles = 2;
            return Some((id, head));
        }
        None
    }

    /// Whether the client has shown that it speaks HTTP/2.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.greeted
    }

    /// Why the connection is over, if it is.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        self.error
    }

    /// Whether there is nothing more to do, in good order.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        (self.going_away || self.peer.leaves)
            && self.streams.is_empty()
            && self.urgency.is_none()
            && self.output.bytes() == 0
    }

    /// Whether more may be read: not while the client does not take what we answer.
    #[must_use]
    pub fn takes_input(&self) -> bool {
        self.error.is_none() && self.control.len() <= CONTROL_BYTES_MAX
    }

    /// The connection is over, and with it all its calls.
    pub fn fail(&mut self, error: Error) {
        if self.error.is_none() {
            self.error = Some(error);
            self.calls = VecDeque::new();
            self.reset_unseen = 0;
            self.round = VecDeque::new();
            self.stalled = VecDeque::new();
            self.updates = VecDeque::new();
            self.queued = 0;
            for stream in self.streams.values_mut() {
                stream.queued = 0;
                stream.fail(error);
            }
            self.streams.retain(|_, stream| stream.handles > 0);
        }
    }

    /// Takes no more calls, tells the client so, and is finished when those that are have ended (section 6.8).
    pub fn shut_down(&mut self) {
        if !std::mem::replace(&mut self.going_away, true) {
            frame::put_goaway(&mut self.control, self.last, Reason::NO_ERROR);
            self.want(Urgency::Now);
        }
    }

    /// Asks the client whether it lives, unless that was asked already.
    pub fn ask(&mut self) {
        if self.pong != Pong::Asked {
            self.pong = Pong::Asked;
            self.put_ping();
        }
    }

    /// Whether it has answered since.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        self.pong == Pong::Answered
    }

    /// Whom a stream tells that it can go on; `None` once it is gone.
    pub fn ends(&mut self, id: u32) -> Option<&mut E> {
        self.streams.get_mut(&id).map(|stream| &mut stream.ends)
    }

    /// What is next of a call's payload. It counts against the windows until it is released.
    pub fn read(&mut self, id: u32) -> Read {
        let Some(stream) = self.streams.get_mut(&id) else { return Read::Failed(self.gone()) };
        if let Some(bytes) = stream.incoming.pop_front() {
            if stream.incoming.is_empty() {
                stream.incoming = VecDeque::new();
            }
            return Read::Bytes(BytesMut::freeze(bytes));
        }
        match stream.error {
            Some(error) => Read::Failed(error),
            None if stream.receiving => Read::Wait,
            None => Read::End(stream.trailers.take()),
        }
    }

    fn gone(&self) -> Error {
        self.error.unwrap_or(Error::Closed)
    }

    /// Gives place for as much as was read.
    pub fn release(&mut self, id: u32, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(stream.held);
        stream.held -= bytes;
        if stream.receiving {
            let due = stream.window.release(bytes, self.limits.stream_window_bytes);
            if due != Due::No && !std::mem::replace(&mut stream.update_due, true) {
                self.updates.push_back(id);
            }
            self.want_update(due);
        }
        self.release_connection(bytes);
    }

    fn release_connection(&mut self, bytes: u32) {
        let due = self.window.release(bytes, self.limits.connection_window_bytes);
        self.window_due |= due != Due::No;
        self.want_update(due);
    }

    fn want_update(&mut self, due: Due) {
        match due {
            Due::No => {}
            Due::Soon => self.want(Urgency::Held),
            Due::Now => self.want(Urgency::Now),
        }
    }

    /// How much payload a call may be given now: within the windows, and up to a frame beyond them, or less where much
    /// is queued beyond them already.
    #[must_use]
    pub fn capacity(&self, id: u32) -> usize {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.error.is_none()) else {
            return 0;
        };
        let of_others = self.queued - stream.queued;
        let window =
            stream.send_window.bytes().min(self.send_window.bytes().saturating_sub(of_others));
        let beyond = match self.queued {
            ..QUEUED_BYTES_MAX => FRAME_BYTES_DEFAULT as usize,
            _ => BEYOND_BYTES_MIN,
        };
        let whole = window.min(self.limits.send_buffer_bytes).max(beyond);
        whole.saturating_sub(stream.queued)
    }

    /// Why a call is over, if it is: one that has ended in order is closed.
    #[must_use]
    pub fn over(&self, id: u32) -> Option<Error> {
        match self.streams.get(&id) {
            None => Some(self.gone()),
            Some(stream) if !stream.receiving && stream.has_ended() => {
                Some(stream.error.unwrap_or(Error::Closed))
            }
            Some(stream) => stream.error,
        }
    }

    /// The stream of a call whose answer has begun, or has not, and has not ended.
    fn answering(&mut self, id: u32, begun: bool) -> Result<&mut Stream<P, E>, Error> {
        let gone = self.gone();
        let stream = self.streams.get_mut(&id).ok_or(gone)?;
        match (stream.error, &stream.sending) {
            (Some(error), _) => Err(error),
            (None, Sending::Nothing) if !begun => Ok(stream),
            (None, Sending::Open) if begun => Ok(stream),
            (None, _) => Err(Error::Order),
        }
    }

    /// Begins an answer, and ends it where nothing follows. What begins one waits for its first message, unless it is
    /// flushed.
    ///
    /// # Errors
    /// Where the call is over, or was answered.
    pub fn send_head(&mut self, id: u32, head: Block, ends: bool) -> Result<(), Error> {
        let stream = self.answering(id, false)?;
        stream.head = Some(head);
        if ends {
            stream.sending = Sending::Ended;
            self.flush_head(id);
            self.settle(id);
            self.want(Urgency::Now);
        } else {
            stream.sending = Sending::Open;
            self.heads.push(id);
            self.want(Urgency::Held);
        }
        Ok(())
    }

    /// Payload of a call, at most [`Self::capacity`].
    ///
    /// # Errors
    /// Where the call is over, or its answer has not begun or has ended.
    pub fn send_data(&mut self, id: u32, payload: P) -> Result<(), Error> {
        let bytes = payload.remaining();
        let stream = self.answering(id, true)?;
        stream.queue.push_back(payload);
        stream.queued += bytes;
        self.queued += bytes;
        self.enter_round(id);
        Ok(())
    }

    /// Ends an answer, behind what was given of it.
    ///
    /// # Errors
    /// Where the call is over, or its answer has not begun or has ended.
    pub fn send_end(&mut self, id: u32, trailers: Option<Block>) -> Result<(), Error> {
        self.answering(id, true)?.sending = Sending::Ending(trailers);
        self.enter_round(id);
        Ok(())
    }

    /// What began an answer goes without waiting for its first message.
    pub fn flush(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|stream| stream.head.is_some()) {
            self.want(Urgency::Now);
        }
    }

    /// Ends a stream at once, in both directions.
    pub fn reset(&mut self, id: u32, reason: Reason) {
        if self.streams.get(&id).is_some_and(|stream| stream.error.is_none()) {
            self.put_reset(id, reason);
            self.fail_stream(id, Error::Refused(reason));
        }
    }

    /// Nobody reads a call any more.
    pub fn close_reader(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.handles = stream.handles.saturating_sub(1);
        stream.is_read = false;
        stream.incoming = VecDeque::new();
        let held = stream.held as usize;
        self.release(id, held);
        self.settle(id);
    }

    /// Nobody answers a call any more. One without an end is reset.
    pub fn close_writer(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.handles = stream.handles.saturating_sub(1);
        if matches!(stream.sending, Sending::Nothing | Sending::Open) {
            self.reset(id, Reason::CANCEL);
        }
        self.settle(id);
    }

    fn fail_stream(&mut self, id: u32, error: Error) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if !stream.accepted && stream.error.is_none() {
                self.reset_unseen += 1;
            }
            self.queued -= std::mem::take(&mut stream.queued);
            stream.fail(error);
            self.settle(id);
        }
    }

    /// Gives up a stream that is over and that nobody holds.
    fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get(&id) else { return };
        let failed = stream.error.is_some();
        if stream.handles > 0 || !stream.accepted || !failed && !stream.has_ended() {
            return;
        }
        if !failed && stream.receiving {
            // The answer is whole, and nobody wants the rest (section 8.1).
            self.put_reset(id, Reason::NO_ERROR);
        }
        if let Some(stream) = self.streams.remove(&id) {
            self.queued -= stream.queued;
            self.release_connection(stream.held);
        }
    }

    fn want(&mut self, urgency: Urgency) {
        self.urgency = self.urgency.max(Some(urgency));
    }

    /// Whether there is no stream: for tests.
    #[cfg(any(test, feature = "fuzzing"))]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Looks through the books.
    ///
    /// # Panics
    /// Where they are wrong: for tests.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn check(&self) {
        let queued: usize = self.streams.values().map(|stream| stream.queued).sum();
        assert_eq!(queued, self.queued, "queued");
        assert!(self.streams.len() <= self.limits.streams_max as usize, "streams");
        assert!(self.remembered.len() <= self.limits.reset_streams_max, "remembered");
        assert!(self.reset_unseen <= self.limits.reset_streams_max, "reset unseen");
        let held: u32 = self.streams.values().map(|stream| stream.held).sum();
        if self.error.is_none() {
            let whole = self.window.counted() + held;
            assert_eq!(whole, self.limits.connection_window_bytes, "the connection's window");
        }
        for (id, stream) in &self.streams {
            let kept: usize = stream.incoming.iter().map(BytesMut::len).sum();
            assert!(kept <= stream.held as usize, "{id} keeps more than it counts");
            assert!(kept <= self.limits.stream_window_bytes as usize, "{id} keeps too much");
            let queued: usize = stream.queue.iter().map(bytes::Buf::remaining).sum();
            assert_eq!(queued, stream.queued, "{id} has another queue");
            let sends = stream.has_output() && stream.error.is_none();
            let sends = sends && (stream.queued == 0 || stream.send_window.bytes() > 0);
            assert!(stream.in_round || !sends, "{id} is in nobody's round");
        }
    }
}
