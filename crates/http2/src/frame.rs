//! Frames as bytes (RFC 9113 sections 4 and 6), and the codes of errors.
//!
//! Must not know streams or what a frame does.

use std::fmt;

/// What a client's connection begins with (section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Before a frame's payload.
pub(crate) const HEAD_BYTES: usize = 9;
/// What a stream depends on, and its weight: nothing to us.
pub(crate) const PRIORITY_BYTES: usize = 5;
/// What nobody has to agree to (section 6.5.2).
pub(crate) const FRAME_BYTES_DEFAULT: u32 = 16 * 1024;
/// The largest that can be agreed upon.
pub(crate) const FRAME_BYTES_MAX: u32 = (1 << 24) - 1;

pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) mod flag {
    /// Of SETTINGS and PING.
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Why a stream or a connection ends, as HTTP/2 says it (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(u32);

impl Reason {
    /// Nothing went wrong.
    pub const NO_ERROR: Self = Self(0);
    /// The protocol was broken.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Our own fault.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More came than the window had place for.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame for a stream that is over.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame's length is not allowed.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// Nobody has looked at the call.
    pub const REFUSED_STREAM: Self = Self(7);
    /// It is not wanted any more.
    pub const CANCEL: Self = Self(8);
    /// Header fields cannot be read.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// Too much of something.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);

    pub(crate) fn new(code: u32) -> Self {
        Self(code)
    }

    /// Its number.
    #[must_use]
    pub fn code(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::NO_ERROR => "NO_ERROR",
            Self::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            Self::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Self::STREAM_CLOSED => "STREAM_CLOSED",
            Self::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Self::REFUSED_STREAM => "REFUSED_STREAM",
            Self::CANCEL => "CANCEL",
            Self::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Self::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            Self(code) => return write!(f, "code {code}"),
        };
        f.write_str(name)
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHead {
    pub(crate) fn read(bytes: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The first bit says nothing.
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    pub(crate) fn written(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, s0, s1, s2, s3]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Adds a frame.
pub(crate) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let head = FrameHead { length: payload.len() as u32, kind, flags, stream };
    out.reserve(HEAD_BYTES + payload.len());
    out.extend_from_slice(&head.written());
    out.extend_from_slice(payload);
}

pub(crate) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let length = settings.len() as u32 * 6;
    let head = FrameHead { length, kind: kind::SETTINGS, flags: 0, stream: 0 };
    out.extend_from_slice(&head.written());
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn put_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    put(out, kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes());
}

pub(crate) fn put_window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

pub(crate) fn put_goaway(out: &mut Vec<u8>, last: u32, reason: Reason) {
    let payload = (u64::from(last) << 32 | u64::from(reason.0)).to_be_bytes();
    put(out, kind::GOAWAY, 0, 0, &payload);
}

/// Adds a block of header fields, in as many frames as it needs.
pub(crate) fn put_headers(out: &mut Vec<u8>, (stream, ends): (u32, bool), block: &[u8], most: u32) {
    let mut left = block;
    let mut first = true;
    loop {
        let (piece, rest) = left.split_at(left.len().min(most as usize));
        let mut flags = if rest.is_empty() { flag::END_HEADERS } else { 0 };
        if first && ends {
            flags |= flag::END_STREAM;
        }
        let kind = if first { kind::HEADERS } else { kind::CONTINUATION };
        put(out, kind, flags, stream, piece);
        (left, first) = (rest, false);
        if left.is_empty() {
            return;
        }
    }
}
