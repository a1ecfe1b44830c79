//! Start lines and fields to bytes.
//!
//! Must not know what to send; the callers decide, this spells it.

use crate::head::{Field, Fields, Framing};

/// A status line with the reason phrase given, or the usual one.
pub(crate) fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(if reason.is_empty() { usual_reason(status).as_bytes() } else { reason });
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase that goes with a status.
pub(crate) fn usual_reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default()
}

/// One field.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The fields that `keep` takes, in order. Neighbours that came as we write them are copied in one piece.
pub(crate) fn fields(out: &mut Vec<u8>, fields: &Fields, mut keep: impl FnMut(Field<'_>) -> bool) {
    let mut run = 0..0;
    for (f, line) in fields.lines() {
        if !keep(f) {
            continue;
        }
        match line {
            Some(line) if line.start == run.end => run.end = line.end,
            Some(line) => {
                out.extend_from_slice(fields.raw(run));
                run = line;
            }
            None => {
                out.extend_from_slice(fields.raw(std::mem::take(&mut run)));
                field(out, f.name, f.value);
            }
        }
    }
    out.extend_from_slice(fields.raw(run));
}

/// The field that says how the body ends, if one does.
pub(crate) fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            field(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
        }
        Framing::Chunked => field(out, b"Transfer-Encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// The line before a chunk of that many bytes.
pub(crate) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(DIGITS.get((size >> (place * 4)) & 15).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for size in [0, 1, 9, 15, 16, 255, 4096, 0x12_3456, usize::MAX] {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn status_lines_have_a_reason() {
        let mut out = Vec::new();
        status_line(&mut out, 404, b"");
        status_line(&mut out, 299, b"");
        status_line(&mut out, 200, b"Fine");
        assert_eq!(out, b"HTTP/1.1 404 Not Found\r\nHTTP/1.1 299 \r\nHTTP/1.1 200 Fine\r\n");
    }
}
