//! What can happen to a connection, one thing after the other as the bytes say: a client's frames, good ones and
//! others, and whatever the ends of calls do. After each the books are right; what is sent keeps to the client's
//! windows and is in order; and in the end nothing is left.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Fuzzed, LIMITS, written};
use crate::frame::{
    FrameHead, HEAD_BYTES, PREFACE, Reason, flag, kind, put, put_settings, setting,
};
use crate::hpack::put_field;
use crate::{Block, Core, Error, Read};

/// Things that happen in one input.
const ACTIONS_MAX: usize = 2048;
/// Sizes that a byte stands for: around the bounds.
const SIZES: [usize; 12] = [0, 1, 2, 9, 100, 1999, 4097, 16_383, 16_384, 20_000, 35_000, 65_535];
/// Streams: few, so that they meet.
const STREAMS: [u32; 8] = [0, 1, 3, 5, 7, 9, 11, 2];

/// How far a stream has come.
#[derive(Debug, Default)]
struct Place {
    given: usize,
    sent: usize,
    /// What the client has added to the window.
    granted: i64,
    reader: bool,
    writer: bool,
    /// We have ended it.
    over: bool,
}

struct Run<'a> {
    input: &'a [u8],
    core: Fuzzed,
    places: BTreeMap<u32, Place>,
    granted: i64,
    sent: usize,
    /// The client's settings.
    window: i64,
    frame_max: usize,
}

/// Payload that tells its place.
fn payload(from: usize, count: usize) -> Bytes {
    (from..from + count).map(|at| (at % 251) as u8).collect()
}

/// Does what the bytes say.
///
/// # Panics
/// Where the connection breaks one of its promises: that is its purpose.
pub fn actions(data: &[u8]) {
    let core = Core::new(LIMITS);
    let mut run = Run {
        input: data,
        core,
        places: BTreeMap::new(),
        granted: 65_535,
        sent: 0,
        window: 65_535,
        frame_max: 16_384,
    };
    let mut hello = PREFACE.to_vec();
    put(&mut hello, kind::SETTINGS, 0, 0, &[]);
    run.core.receive(&hello);
    for _ in 0..ACTIONS_MAX {
        let Some(action) = run.byte() else { break };
        run.act(action);
        run.core.check();
    }
    run.finish();
}

impl Run<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*first)
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte().unwrap_or(0))
    }

    fn size(&mut self) -> usize {
        SIZES[self.number() % SIZES.len()]
    }

    fn act(&mut self, action: u8) {
        let id = STREAMS[self.number() % STREAMS.len()];
        match action % 16 {
            0 | 1 => self.request(id, action),
            2 => self.data(id, action),
            3 => self.grow(id),
            4 => self.settings(action),
            5 => self.any_frame(id),
            6 => {
                while let Some((id, _)) = self.core.accept() {
                    self.places
                        .insert(id, Place { reader: true, writer: true, ..Place::default() });
                }
            }
            7 => self.read(id),
            8 if self.writes(id) => {
                let _ = self.core.send_head(id, Block::answer(200), action > 240);
            }
            9 | 10 if self.writes(id) => self.send(id),
            11 if self.writes(id) => {
                let trailers = (action > 127).then(|| Block::trailers().field("a", b"b"));
                let _ = self.core.send_end(id, trailers);
            }
            12 => self.close(id, action),
            13 => match action {
                0..=100 => self.core.flush(id),
                101..=200 => self.core.ask(),
                201..=250 => self.core.reset(id, Reason::CANCEL),
                251..=253 => self.core.shut_down(),
                _ => self.core.fail(Error::Closed),
            },
            _ => self.write(),
        }
    }

    fn writes(&self, id: u32) -> bool {
        self.places.get(&id).is_some_and(|place| place.writer)
    }

    /// As the driver: it reads no more while what was answered is not written.
    fn receive(&mut self, bytes: &[u8]) {
        if self.core.takes_input() {
            self.core.receive(bytes);
        }
    }

    fn request(&mut self, id: u32, action: u8) {
        let mut block = Vec::new();
        for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", "/a")] {
            put_field(&mut block, name.as_bytes(), value.as_bytes());
        }
        let mut frame = Vec::new();
        let ends = if action > 200 { flag::END_STREAM } else { 0 };
        put(&mut frame, kind::HEADERS, flag::END_HEADERS | ends, id, &block);
        self.receive(&frame);
    }

    fn data(&mut self, id: u32, action: u8) {
        let size = self.size().min(LIMITS.frame_bytes_max as usize);
        let ends = if action > 200 { flag::END_STREAM } else { 0 };
        let mut frame = Vec::new();
        put(&mut frame, kind::DATA, ends, id, &vec![0; size]);
        // In two pieces, and something may happen in between.
        let middle = frame.len() / 2;
        self.receive(&frame[..middle]);
        if action.is_multiple_of(3) {
            self.core.reset(id, Reason::CANCEL);
        }
        self.receive(&frame[middle..]);
    }

    fn grow(&mut self, id: u32) {
        let by = self.size() as u32;
        let mut frame = Vec::new();
        put(&mut frame, kind::WINDOW_UPDATE, 0, id, &by.to_be_bytes());
        if !self.core.takes_input() {
            return;
        }
        self.receive(&frame);
        if id == 0 {
            self.granted += i64::from(by);
        } else if let Some(place) = self.places.get_mut(&id) {
            place.granted += i64::from(by);
        }
    }

    fn settings(&mut self, action: u8) {
        if !self.core.takes_input() {
            return;
        }
        let value = self.size() as u32;
        let mut frame = Vec::new();
        if action < 128 {
            put_settings(&mut frame, &[(setting::INITIAL_WINDOW_SIZE, value)]);
            self.window = i64::from(value);
        } else {
            let value = value.max(16_384);
            put_settings(&mut frame, &[(setting::MAX_FRAME_SIZE, value)]);
            self.frame_max = value as usize;
        }
        self.receive(&frame);
    }

    /// Whatever a frame may be, but for what the books here count.
    fn any_frame(&mut self, id: u32) {
        let (kind, flags, length) = (self.number() as u8, self.number() as u8, self.number());
        let length = length.min(self.input.len());
        let (bytes, rest) = self.input.split_at(length);
        self.input = rest;
        let kind = match kind % 12 {
            kind::SETTINGS | kind::WINDOW_UPDATE => kind::PING,
            kind => kind,
        };
        let mut frame = Vec::new();
        put(&mut frame, kind, flags, id, bytes);
        self.receive(&frame);
    }

    fn read(&mut self, id: u32) {
        if !self.places.get(&id).is_some_and(|place| place.reader) {
            return;
        }
        if let Read::Bytes(bytes) = self.core.read(id) {
            self.core.release(id, bytes.len());
        }
    }

    fn send(&mut self, id: u32) {
        let size = self.size().min(self.core.capacity(id));
        let Some(place) = self.places.get_mut(&id) else { return };
        if size > 0 && self.core.send_data(id, payload(place.given, size)).is_ok() {
            place.given += size;
        }
    }

    fn close(&mut self, id: u32, action: u8) {
        let Some(place) = self.places.get_mut(&id) else { return };
        if action < 128 && std::mem::take(&mut place.reader) {
            self.core.close_reader(id);
        } else if std::mem::take(&mut place.writer) {
            self.core.close_writer(id);
        }
    }

    /// Writes all, and looks at each frame.
    fn write(&mut self) {
        let all = written(&mut self.core);
        let mut rest = &all[..];
        while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::read(*head);
            assert!(head.length as usize <= self.frame_max, "a frame of {} bytes", head.length);
            let (bytes, after) = after.split_at(head.length as usize);
            rest = after;
            self.look(head, bytes);
        }
        assert!(rest.is_empty(), "half a frame");
    }

    fn look(&mut self, head: FrameHead, bytes: &[u8]) {
        let Some(place) = self.places.get_mut(&head.stream) else { return };
        let ends = head.has(flag::END_STREAM);
        match head.kind {
            kind::DATA => {
                assert!(!place.over, "payload behind the end of {}", head.stream);
                assert!(payload(place.sent, bytes.len()) == bytes, "out of order");
                place.sent += bytes.len();
                self.sent += bytes.len();
                let (own, all) = (self.window + place.granted, self.granted);
                let kept = place.sent as i64 <= own && self.sent as i64 <= all;
                assert!(bytes.is_empty() || kept, "more than the windows of {}", head.stream);
                place.over = ends;
            }
            kind::HEADERS => {
                assert!(!place.over, "fields behind the end of {}", head.stream);
                place.over = ends;
            }
            kind::RST_STREAM => place.over = true,
            _ => {}
        }
    }

    /// Everybody closes, and the client gives all windows: nothing is left.
    fn finish(&mut self) {
        while let Some((id, _)) = self.core.accept() {
            self.places.insert(id, Place { reader: true, writer: true, ..Place::default() });
        }
        self.write();
        for id in STREAMS {
            self.close(id, 0);
            self.close(id, 255);
            self.core.check();
        }
        self.write();
        if self.core.error().is_none() {
            // What was given before the end still goes out.
            let mut all = Vec::new();
            put_settings(&mut all, &[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]);
            put(&mut all, kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
            (self.window, self.granted) = (1 << 30, self.granted + (1 << 30));
            self.core.receive(&all);
            self.write();
        }
        self.core.check();
        assert!(self.core.is_empty() || self.core.error().is_some(), "something is left");
    }
}
