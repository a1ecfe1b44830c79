//! What we send: control frames before payload, and payload of all streams in turn.
//!
//! Must not know what has come.

use std::io::IoSlice;

use super::{Core, Urgency};
use crate::Payload;
use crate::flow::WINDOW_BYTES_DEFAULT;
use crate::frame::{self, FrameHead, Reason, flag, kind, setting};
use crate::streams::{Ends, Sending};

/// Made ready at once: beyond it more waits, so that control frames do not wait for long.
const BATCH_BYTES: usize = 64 * 1024;
/// What our PING says.
const OPAQUE: [u8; 8] = *b"clovrlf?";

impl<P: Payload, E: Ends> Core<P, E> {
    /// Whether something is to be written, and how soon.
    #[must_use]
    pub fn urgency(&self) -> Option<Urgency> {
        if self.output.bytes() > 0 { Some(Urgency::Now) } else { self.urgency }
    }

    /// Makes ready what is to be written, also what might wait, in so many slices.
    pub fn output<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        while self.urgency.is_some() && self.output.bytes() < BATCH_BYTES {
            self.fill();
        }
        self.output.slices(slices)
    }

    /// So many bytes of the output are written.
    pub fn advance(&mut self, bytes: usize) {
        self.output.advance(bytes);
    }

    fn fill(&mut self) {
        self.urgency = None;
        self.put_updates();
        for id in std::mem::take(&mut self.heads) {
            self.flush_head(id);
        }
        if !self.control.is_empty() {
            self.output.push_frames(std::mem::take(&mut self.control));
        }
        while self.output.bytes() < BATCH_BYTES {
            let stalled = match self.send_window.bytes() {
                0 => None,
                _ => self.stalled.pop_front(),
            };
            let Some(id) = stalled.or_else(|| self.round.pop_front()) else { break };
            self.take_turn(id);
        }
        let waits = !self.stalled.is_empty() && self.send_window.bytes() > 0;
        if waits || !self.round.is_empty() {
            self.want(Urgency::Now);
        } else {
            self.round.shrink_to(0);
            self.stalled.shrink_to(0);
        }
    }

    /// One frame of a stream's payload, and its end if nothing more comes.
    fn take_turn(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.in_round = false;
        if stream.error.is_some() {
            return;
        }
        if stream.queued > 0 {
            let (own, all) = (stream.send_window.bytes(), self.send_window.bytes());
            if own == 0 {
                return;
            }
            if all == 0 {
                stream.in_round = true;
                return self.stalled.push_back(id);
            }
            let most = own.min(all).min(self.peer.frame_bytes_max as usize);
            self.put_data(id, most);
        }
        self.put_end(id);
    }

    fn put_data(&mut self, id: u32, most: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let count = stream.queued.min(most);
        stream.queued -= count;
        self.queued -= count;
        stream.send_window.take(count);
        self.send_window.take(count);
        self.useless = 0;
        let ends = stream.queued == 0 && matches!(stream.sending, Sending::Ending(None));
        let flags = if ends { flag::END_STREAM } else { 0 };
        let head = FrameHead { length: count as u32, kind: kind::DATA, flags, stream: id };
        self.output.push_head(head.written());
        let mut left = count;
        while left > 0
            && let Some(first) = stream.queue.front_mut()
        {
            let piece = if first.remaining() > left {
                first.split_to(left)
            } else {
                match stream.queue.pop_front() {
                    Some(whole) => whole,
                    None => break,
                }
            };
            left -= piece.remaining();
            self.output.push_payload(piece);
        }
        if stream.queue.is_empty() {
            stream.queue.shrink_to(0);
        }
        stream.ends.writable();
        if ends {
            stream.sending = Sending::Ended;
            self.settle(id);
        } else if stream.queued > 0 {
            stream.in_round = true;
            self.round.push_back(id);
        }
    }

    /// The end of a stream, once nothing is queued.
    fn put_end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.queued > 0 || !matches!(stream.sending, Sending::Ending(_)) {
            return;
        }
        let mut frames = Vec::new();
        match std::mem::replace(&mut stream.sending, Sending::Ended) {
            Sending::Ending(Some(trailers)) => {
                let most = self.peer.frame_bytes_max;
                frame::put_headers(&mut frames, (id, true), trailers.as_bytes(), most);
            }
            _ => frame::put(&mut frames, kind::DATA, flag::END_STREAM, id, &[]),
        }
        stream.ends.writable();
        self.output.push_frames(frames);
        self.settle(id);
    }

    /// A stream has something to send. Its head goes before it.
    pub(super) fn enter_round(&mut self, id: u32) {
        self.flush_head(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !std::mem::replace(&mut stream.in_round, true) {
            self.round.push_back(id);
        }
        self.want(Urgency::Now);
    }

    pub(super) fn flush_head(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Some(head) = stream.head.take() {
            let ends = stream.has_ended();
            let most = self.peer.frame_bytes_max;
            frame::put_headers(&mut self.control, (id, ends), head.as_bytes(), most);
        }
    }

    /// Gives windows back.
    fn put_updates(&mut self) {
        for id in std::mem::take(&mut self.updates) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.update_due = false;
            if stream.receiving {
                let bytes = stream.window.update();
                frame::put_window_update(&mut self.control, id, bytes);
            }
        }
        if std::mem::take(&mut self.window_due) {
            frame::put_window_update(&mut self.control, 0, self.window.update());
        }
    }

    /// The answer to the client's settings, before the first one our own: all in one piece.
    pub(super) fn put_settings_ack(&mut self) {
        if !std::mem::replace(&mut self.greeted, true) {
            let limits = self.limits;
            let settings = [
                (setting::HEADER_TABLE_SIZE, limits.header_table_bytes),
                (setting::MAX_CONCURRENT_STREAMS, limits.streams_max),
                (setting::INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (setting::MAX_FRAME_SIZE, limits.frame_bytes_max),
                (setting::MAX_HEADER_LIST_SIZE, limits.header_bytes_max),
            ];
            frame::put_settings(&mut self.control, &settings);
            let more = limits.connection_window_bytes.saturating_sub(WINDOW_BYTES_DEFAULT);
            if more > 0 {
                frame::put_window_update(&mut self.control, 0, more);
            }
            self.want(Urgency::Now);
        }
        frame::put(&mut self.control, kind::SETTINGS, flag::ACK, 0, &[]);
        self.want(Urgency::Held);
    }

    pub(super) fn put_ping(&mut self) {
        frame::put(&mut self.control, kind::PING, 0, 0, &OPAQUE);
        self.want(Urgency::Now);
    }

    pub(super) fn put_pong(&mut self, opaque: [u8; 8]) {
        frame::put(&mut self.control, kind::PING, flag::ACK, 0, &opaque);
        self.want(Urgency::Held);
    }

    /// Ends a stream; what the client still sends of it is passed over.
    pub(super) fn put_reset(&mut self, id: u32, reason: Reason) {
        frame::put_reset(&mut self.control, id, reason);
        if self.remembered.len() >= self.limits.reset_streams_max {
            self.remembered.pop_front();
        }
        self.remembered.push_back(id);
        self.want(Urgency::Now);
    }

    /// The last that the client hears.
    pub(super) fn put_goodbye(&mut self, reason: Reason) {
        frame::put_goaway(&mut self.control, self.last, reason);
        self.want(Urgency::Now);
    }
}
