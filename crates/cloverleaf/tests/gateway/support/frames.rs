//! HTTP/2 frame by frame, for what a client library refuses to send.
//!
//! Fields go out as HPACK literals without indexing; of answers only the status is read. Must not know what
//! a test makes of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::SOON;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a stream, or its connection, was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A final status.
    Status(u16),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// `GOAWAY` with this code (not 0).
    GoAway(u32),
    /// The connection ended.
    Closed,
}

/// What became of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// All of it was taken.
    Taken,
    /// The gateway stopped reading.
    Blocked,
    /// The gateway ended the connection.
    Ended,
}

/// A connection that takes nothing for so long is blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload of a frame");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals without indexing, names and values as they are.
pub(crate) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        string(&mut bytes, name.as_ref());
        string(&mut bytes, value.as_ref());
    }
    bytes
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        out.push(u8::try_from(text.len()).expect("below 127"));
    } else {
        out.push(127);
        let mut left = text.len() - 127;
        while left >= 128 {
            out.push(u8::try_from(left % 128).expect("below 128") | 128);
            left /= 128;
        }
        out.push(u8::try_from(left).expect("below 128"));
    }
    out.extend_from_slice(text);
}

/// `GET /` for host `x`, with more fields behind.
pub(crate) fn get<'f>(more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let mut fields = request("GET", "/");
    fields.extend_from_slice(more);
    fields
}

/// The pseudo-fields of a request for host `x`.
pub(crate) fn request<'f>(method: &'f str, path: &'f str) -> Vec<(&'f str, &'f str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")]
}

/// A client's connection.
pub(crate) struct Raw {
    socket: TcpStream,
    ahead: Vec<u8>,
    /// The code of the last `GOAWAY` that came.
    goodbye: Option<u32>,
}

impl Raw {
    /// Connects by prior knowledge; answers will not use HPACK's dynamic table.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, SOON).expect("the gateway to accept");
        socket.set_nodelay(true).expect("a socket");
        socket.set_write_timeout(Some(SOON)).expect("a socket");
        let mut raw = Self { socket, ahead: Vec::new(), goodbye: None };
        // SETTINGS_HEADER_TABLE_SIZE 0.
        let settings = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        raw.send(&[PREFACE, &settings].concat()).expect("the gateway to take the preface");
        raw
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Sends the same bytes again and again and finds out what became of all of it. What comes back is read
    /// and dropped.
    pub(crate) fn flood(mut self, bytes: &[u8], times: usize) -> Flood {
        const LAST: &[u8] = b"the last";
        self.socket.set_write_timeout(Some(BLOCKED_AFTER)).expect("a socket");
        self.socket.set_read_timeout(Some(SOON)).expect("a socket");
        let mut socket = self.socket.try_clone().expect("a socket");
        let reader = std::thread::spawn(move || {
            let mut came = Vec::new();
            let mut buf = vec![0; 64 * 1024];
            while !came.windows(LAST.len()).any(|w| w == LAST) {
                came.drain(..came.len().saturating_sub(LAST.len()));
                match socket.read(&mut buf) {
                    Ok(0) => return Flood::Ended,
                    Ok(count) => came.extend_from_slice(&buf[..count]),
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Flood::Ended,
                    Err(_) => return Flood::Blocked,
                }
            }
            Flood::Taken
        });
        self.pour(bytes, times);
        // All before it has been read when this is answered.
        let _ = self.send(&frame(PING, 0, 0, LAST));
        reader.join().expect("the reader")
    }

    /// Sends the same bytes again and again and reads nothing of what comes back.
    pub(crate) fn pour(&mut self, bytes: &[u8], times: usize) {
        // Many at once: it is to be a flood.
        let batch = (16 * 1024 / bytes.len()).clamp(1, times);
        let many = bytes.repeat(batch);
        self.socket.set_write_timeout(Some(BLOCKED_AFTER)).expect("a socket");
        for _ in 0..times.div_ceil(batch) {
            if self.send(&many).is_err() {
                return;
            }
        }
    }

    /// Sends a whole header block in one frame.
    pub(crate) fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        stream: u32,
        fields: &[(N, V)],
        end: bool,
    ) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        let bytes = frame(HEADERS, flags, stream, &block(fields));
        // One that was closed meanwhile is seen when reading.
        let _ = self.send(&bytes);
    }

    /// Sends data.
    pub(crate) fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        let _ = self.send(&frame(DATA, if end { END_STREAM } else { 0 }, stream, data));
    }

    /// The next frame; `None` when the connection has ended. Settings and pings are acknowledged.
    ///
    /// # Panics
    /// If nothing comes.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let frame = self.next_within(SOON);
        frame.unwrap_or_else(|| panic!("no frame within {SOON:?}"))
    }

    /// The next frame (or the end) if it comes within the time.
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Option<Frame>> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(found) = self.take_frame() {
                if found.kind == SETTINGS && found.flags & ACK == 0 {
                    let _ = self.send(&frame(SETTINGS, ACK, 0, &[]));
                }
                if found.kind == GOAWAY {
                    self.goodbye = found.payload.get(4..).map(code);
                }
                if found.kind == PING && found.flags & ACK == 0 {
                    let _ = self.send(&frame(PING, ACK, 0, &found.payload));
                }
                return Some(Some(found));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).expect("a socket");
            let mut buf = [0; 16 * 1024];
            match self.socket.read(&mut buf) {
                Ok(0) => return Some(None),
                Ok(count) => self.ahead.extend_from_slice(&buf[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return None,
                    io::ErrorKind::Interrupted => {}
                    _ => return Some(None),
                },
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let head = self.ahead.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let payload = self.ahead.get(9..9 + length)?.to_vec();
        self.ahead.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }

    /// Reads on until it is known how a stream is answered.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some(frame) = self.next() else { return Outcome::Closed };
            match frame.kind {
                HEADERS if frame.stream == stream => {
                    let status = status(&frame.payload);
                    if status >= 200 {
                        return Outcome::Status(status);
                    }
                }
                RST_STREAM if frame.stream == stream => {
                    return Outcome::Reset(code(&frame.payload));
                }
                GOAWAY if code(&frame.payload[4..]) != 0 => {
                    return Outcome::GoAway(code(&frame.payload[4..]));
                }
                _ => {}
            }
        }
    }

    /// Reads to the connection's end: the code of its last `GOAWAY`, if there was one.
    pub(crate) fn goodbye(mut self) -> Option<u32> {
        while self.next().is_some() {}
        self.goodbye
    }

    /// Reads a whole answer: its body, and whether it ended well.
    pub(crate) fn body(&mut self, stream: u32) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        while let Some(frame) = self.next() {
            if frame.kind == RST_STREAM && frame.stream == stream {
                return (body, false);
            }
            if frame.kind == DATA && frame.stream == stream {
                body.extend_from_slice(&frame.payload);
            }
            let carries = matches!(frame.kind, DATA | HEADERS) && frame.stream == stream;
            if carries && frame.flags & END_STREAM != 0 {
                return (body, true);
            }
        }
        (body, false)
    }
}

fn code(payload: &[u8]) -> u32 {
    payload.first_chunk::<4>().map_or(u32::MAX, |code| u32::from_be_bytes(*code))
}

/// The status at the beginning of a header block, in the ways in which an encoder without a dynamic table
/// can put it: a whole entry of the static table, or a literal behind that table's name.
pub(crate) fn status(block: &[u8]) -> u16 {
    let mut rest = block;
    // Changes of the table's size.
    while let [size, behind @ ..] = rest
        && size & 0xe0 == 0x20
    {
        rest = behind;
    }
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match rest {
        [whole, ..] if (0x88..=0x8e).contains(whole) => STATIC[usize::from(whole - 0x88)],
        [name, length, text @ ..] if matches!(name & 0x0f, 8..=14) => {
            let text = &text[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 { decimal(text.iter().copied()) } else { decimal(digits(text)) }
        }
        other => panic!("no status in {other:?}"),
    }
}

fn decimal(digits: impl Iterator<Item = u8>) -> u16 {
    digits.fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}

/// Three digits in HPACK's Huffman code: 0, 1, 2 have five bits, 3 to 9 have six.
fn digits(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1));
    (0..3).map(move |_| {
        let five = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
        if five < 3 {
            return b'0' + five;
        }
        let six = five << 1 | bits.next().unwrap_or_default();
        b'0' + 3 + (six - 0b01_1001)
    })
}
