//! HTTP/2 over a Unix socket, as gRPC's Go library speaks it: what it writes as `:authority` is the socket's path
//! (kube-apiserver's egress selector does so), which no authority may be, and the HTTP/2 library refuses the call. Here
//! it is replaced on the way in, in the header block itself; nothing else is touched.
//!
//! The new value is shorter than what it replaces. So the decoder's table of fields (RFC 7541 section 2.3.2) has all
//! that the encoder's has, under the same numbers, and perhaps some older fields that are never asked for again.
//!
//! Must not know what the calls say.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection begins with (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;
/// Before a frame's payload: length, type, flags, stream (section 4.1).
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// A longer frame of header fields passes as it is.
const HEADERS_BYTES_MAX: usize = 64 * 1024;
/// The number of `:authority` in the table that all have (RFC 7541 appendix A).
const AUTHORITY: u64 = 1;
/// In place of any other: as short as can be. With its length.
const REPLACEMENT: &[u8] = b"\x01u";

/// A client's stream, read with another `:authority` in its calls.
#[derive(Debug)]
pub(super) struct Renamed<S> {
    inner: S,
    state: State,
    /// To be given out, from `given` on.
    ready: Vec<u8>,
    given: usize,
}

#[derive(Debug)]
enum State {
    /// So many bytes pass as they are; then a frame begins.
    Passing(usize),
    /// A frame's head, as far as it has come.
    Head(Vec<u8>),
    /// A frame of header fields, as far as it has come, and how long it is.
    Fields(Vec<u8>, usize),
    /// The stream is over.
    Over,
}

impl State {
    /// So many bytes pass as they are, if any; then a frame begins.
    fn passing(left: usize) -> Self {
        match left {
            0 => Self::Head(Vec::with_capacity(FRAME_HEAD_BYTES)),
            left => Self::Passing(left),
        }
    }
}

impl<S> Renamed<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, state: State::Passing(PREFACE_BYTES), ready: Vec::new(), given: 0 }
    }

    /// What follows from what has come.
    fn advance(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Over);
        self.state = match state {
            State::Passing(left) => State::passing(left),
            State::Head(head) if head.len() == FRAME_HEAD_BYTES => {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if head[3] == HEADERS && (1..=HEADERS_BYTES_MAX).contains(&length) {
                    State::Fields(head, FRAME_HEAD_BYTES + length)
                } else {
                    self.give(head);
                    State::passing(length)
                }
            }
            State::Fields(mut frame, whole) if frame.len() == whole => {
                rename(&mut frame);
                self.give(frame);
                State::passing(0)
            }
            other => other,
        };
    }

    fn give(&mut self, bytes: Vec<u8>) {
        self.ready = bytes;
        self.given = 0;
    }
}

impl<S: AsyncRead + Unpin> Renamed<S> {
    /// Reads once, as far as the state wants.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (kept, wanted) = match &mut self.state {
            State::Passing(left) => {
                let most = buf.remaining().min(*left);
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
                let polled = Pin::new(&mut self.inner).poll_read(cx, &mut part);
                let count = part.filled().len();
                buf.advance(count);
                *left -= count;
                if count == 0 && matches!(polled, Poll::Ready(Ok(()))) {
                    self.state = State::Over;
                }
                return polled;
            }
            State::Head(head) => (head, FRAME_HEAD_BYTES),
            State::Fields(frame, whole) => (frame, *whole),
            State::Over => return Poll::Ready(Ok(())),
        };
        let from = kept.len();
        kept.resize(wanted, 0);
        let mut rest = ReadBuf::new(&mut kept[from..]);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut rest);
        let count = rest.filled().len();
        kept.truncate(from + count);
        if count == 0 && matches!(polled, Poll::Ready(Ok(()))) {
            // Cut off in the middle of a frame: whoever reads it sees that.
            let cut = std::mem::take(kept);
            self.state = State::Over;
            self.give(cut);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Renamed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            let count = buf.remaining().min(this.ready.len() - this.given);
            buf.put_slice(&this.ready[this.given..this.given + count]);
            this.given += count;
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let over = matches!(this.state, State::Over);
            match this.poll_more(cx, buf) {
                Poll::Ready(Ok(())) if over => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => this.advance(),
                // What has come is given; the next read says the rest.
                _ if buf.filled().len() > before => return Poll::Ready(Ok(())),
                other => return other,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Renamed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Gives a frame of header fields another `:authority`, if it has one. One that makes no sense stays as it is.
fn rename(frame: &mut Vec<u8>) {
    let flags = frame[4];
    let padding = flags & PADDED != 0;
    let skipped = usize::from(padding) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let begin = FRAME_HEAD_BYTES + skipped;
    let padded = if padding { frame.get(FRAME_HEAD_BYTES).copied().unwrap_or(0) } else { 0 };
    let Some(end) = frame.len().checked_sub(usize::from(padded)).filter(|end| *end >= begin) else {
        return;
    };
    let Some(value) = authority(&frame[begin..end]) else { return };
    let value = begin + value.start..begin + value.end;
    if value.len() < REPLACEMENT.len() {
        return;
    }
    frame.splice(value, REPLACEMENT.iter().copied());
    let length = u32::try_from(frame.len() - FRAME_HEAD_BYTES).unwrap_or(u32::MAX).to_be_bytes();
    frame[..3].copy_from_slice(&length[1..]);
}

/// Where the value of `:authority` stands in a header block, its length included.
fn authority(block: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        // RFC 7541 section 6.
        let (bits, has_value) = match first {
            0x80.. => (7, false),
            0x40..=0x7f => (6, true),
            0x20..=0x3f => (5, false),
            _ => (4, true),
        };
        let (number, next) = integer(block, at, bits)?;
        at = next;
        if has_value {
            let is_authority = if number == 0 {
                let name = string(block, at)?;
                at = name.end;
                block[name].ends_with(b":authority")
            } else {
                number == AUTHORITY
            };
            let value = string(block, at)?;
            at = value.end;
            if is_authority {
                return Some(value);
            }
        }
    }
    None
}

/// An integer whose first byte has so many bits of it, and what follows (section 5.1).
fn integer(block: &[u8], mut at: usize, bits: u32) -> Option<(u64, usize)> {
    let most = (1_u64 << bits) - 1;
    let mut number = u64::from(*block.get(at)?) & most;
    at += 1;
    if number < most {
        return Some((number, at));
    }
    // Four bytes are more than any frame has place for.
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(at)?;
        at += 1;
        number += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, at));
        }
    }
    None
}

/// A string literal, its length included (section 5.2).
fn string(block: &[u8], at: usize) -> Option<Range<usize>> {
    let (length, begin) = integer(block, at, 7)?;
    let end = begin.checked_add(usize::try_from(length).ok()?)?;
    (end <= block.len()).then_some(at..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        [name, &[length], value].concat()
    }

    /// Gives its bytes in pieces of so many.
    struct Pieces(Vec<u8>, usize);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let count = self.1.min(self.0.len()).min(buf.remaining());
            let piece: Vec<u8> = self.0.drain(..count).collect();
            buf.put_slice(&piece);
            Poll::Ready(Ok(()))
        }
    }

    fn read(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = Renamed::new(Pieces(bytes.to_vec(), piece));
        runtime.block_on(stream.read_to_end(&mut all)).unwrap();
        all
    }

    #[test]
    fn a_path_as_authority_is_replaced_and_nothing_else() {
        let path = b"%2Frun%2Fa.sock";
        let block = |authority: &[u8]| {
            let mut block = vec![0x83, 0x86];
            block.extend(field(&[0x44], b"/ProxyService/Proxy"));
            block.extend(authority);
            block.extend(field(&[0x5f], b"application/grpc"));
            block
        };
        let replaced = |name: &[u8]| [name, REPLACEMENT].concat();
        let padded = |block: Vec<u8>| [&[3][..], &[0; 5], &block, &[0; 3]].concat();
        let named = [&[0x40, 10][..], b":authority"].concat();
        let frames = |authority: &dyn Fn(&[u8]) -> Vec<u8>| {
            [
                vec![b'P'; PREFACE_BYTES],
                frame(4, 0, &[]),
                frame(HEADERS, 0x4, &[]),
                frame(HEADERS, 0x4, &block(&authority(&[0x41]))),
                frame(0, 0, &[HEADERS; 3000]),
                frame(HEADERS, 0x4 | PADDED | PRIORITY, &padded(block(&authority(&[0x01])))),
                frame(HEADERS, 0x4, &block(&authority(&[0x11]))),
                frame(HEADERS, 0x4, &block(&authority(&named))),
                // Another time it is in the table.
                frame(HEADERS, 0x4, &[0x83, 0x86, 0xc0, 0xbf]),
                frame(0, 1, b"end"),
            ]
            .concat()
        };
        let sent = frames(&|name| field(name, path));
        let expected = frames(&replaced);
        for piece in [1, 2, 7, 8, 9, 10, 100, 4096, usize::MAX] {
            assert!(read(&sent, piece) == expected, "in pieces of {piece}");
            assert!(read(&expected, piece) == expected, "in pieces of {piece}");
        }
    }

    /// Whatever a client writes, in whatever pieces it comes: nothing panics, what is no header block stays as it is,
    /// and nothing gets longer.
    #[test]
    fn anything_at_all_passes() {
        let mut rng = balance::Rng::new(7);
        let mut bytes = |count: usize| -> Vec<u8> {
            (0..count).map(|_| u8::try_from(rng.below(256)).unwrap()).collect()
        };
        for round in 0..300 {
            let mut sent = vec![b'P'; PREFACE_BYTES];
            let mut kept = Vec::new();
            for _ in 0..8 {
                let [flags, length, headers] = bytes(3)[..] else { unreachable!() };
                let payload = bytes(usize::from(length));
                let kind = if headers % 2 == 0 { HEADERS } else { 0 };
                if kind == 0 {
                    kept.push(frame(kind, flags, &payload));
                }
                sent.extend(frame(kind, flags, &payload));
            }
            let (whole, pieces) = (read(&sent, usize::MAX), read(&sent, 1 + round % 13));
            assert!(whole == pieces && whole.len() <= sent.len(), "{sent:?}");
            for data in kept {
                let mut places = whole.windows(data.len());
                assert!(places.any(|part| part == data), "{sent:?}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_passes_as_it_is() {
        let preface = vec![b'P'; PREFACE_BYTES];
        for payload in [
            &[][..],
            &[0x41],
            &[0x41, 0x7f],
            &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x41, 0],
            &[0x40, 5, b'a'],
        ] {
            for flags in [0, 0x4, PADDED, PRIORITY, PADDED | PRIORITY] {
                let sent = [preface.clone(), frame(HEADERS, flags, payload)].concat();
                assert!(read(&sent, 3) == sent, "{payload:?} {flags}");
                for cut in 0..sent.len() {
                    assert!(read(&sent[..cut], 5) == sent[..cut], "{payload:?} {flags} {cut}");
                }
            }
        }
        let long = [preface, frame(HEADERS, 4, &vec![0x41; HEADERS_BYTES_MAX + 1])].concat();
        assert!(read(&long, 4096) == long);
    }
}
