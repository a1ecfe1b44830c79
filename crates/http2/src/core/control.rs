//! What a client says of a connection and of streams, other than calls and their payload.
//!
//! Must not know what calls are.

use super::receive::{Done, broken, number, protocol};
use super::{Core, Pong, Urgency};
use crate::flow::WINDOW_BYTES_MAX;
use crate::frame::{
    FRAME_BYTES_DEFAULT, FRAME_BYTES_MAX, FrameHead, PRIORITY_BYTES, Reason, flag, setting,
};
use crate::streams::Ends;
use crate::{Error, Payload};

/// How often a client may change the windows of all its streams, which costs time for each.
const WINDOW_CHANGES_MAX: u32 = 1024;

impl<P: Payload, E: Ends> Core<P, E> {
    /// Who should go first is ours to say; only what makes no sense has an effect.
    pub(super) fn priority(&mut self, head: FrameHead, payload: &[u8]) -> Done {
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

    pub(super) fn reset_by_client(&mut self, head: FrameHead, payload: &[u8]) -> Done {
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

    pub(super) fn settings(&mut self, head: FrameHead, payload: &[u8]) -> Done {
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

    pub(super) fn ping(&mut self, head: FrameHead, payload: &[u8]) -> Done {
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

    pub(super) fn goaway(&mut self, head: FrameHead, payload: &[u8]) -> Done {
        if head.stream != 0 {
            return protocol("a goodbye of a stream");
        }
        if payload.len() < 8 {
            return broken(Reason::FRAME_SIZE_ERROR, "a goodbye of another length");
        }
        self.peer.leaves = true;
        self.useless()
    }

    pub(super) fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Done {
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
