//! The chunked transfer coding (RFC 9112 section 7.1), sans-io and strict.
//!
//! Sizes are hexadecimal digits alone, every line ends in CR LF, extensions are bounded and dropped. Must not know
//! sockets or what the data is.

use crate::head::scan::Scan;

/// Bytes that the extensions of one chunk may have.
const EXTENSION_BYTES_MAX: usize = 256;
/// Digits that a chunk's size may have: enough for 64 bits.
const SIZE_DIGITS_MAX: u8 = 15;

/// The coding is broken: nothing after it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkError {
    /// No size, or too long a one.
    #[error("malformed chunk size")]
    Size,
    /// Something else where CR LF has to be.
    #[error("malformed end of chunk line")]
    LineEnd,
    /// Too long, or with control characters.
    #[error("malformed chunk extension")]
    Extension,
    /// Too long, or malformed.
    #[error("malformed trailer section")]
    Trailers,
}

/// Where in the coding the input stands.
#[derive(Debug, Clone, Copy)]
enum State {
    Size { digits: u8, value: u64 },
    Extension { value: u64, bytes: usize, named: bool },
    SizeLineFeed { value: u64 },
    Data { left: u64 },
    DataReturn,
    DataLineFeed,
    Trailers(Scan),
}

/// What comes next in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// After `skip` bytes of coding come `len` bytes of data; both are to be consumed.
    Data { skip: usize, len: usize },
    /// `skip` bytes of coding are to be consumed; then more input is needed.
    More { skip: usize },
    /// After `skip` bytes of coding the trailer section stands in `len` bytes, empty line included. All of it is to
    /// be consumed. The body has ended.
    End { skip: usize, len: usize },
}

/// A decoder of one body.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    trailer_bytes_max: usize,
}

impl Chunked {
    /// A decoder at the beginning of a body; trailers may have that many bytes.
    pub(crate) fn new(trailer_bytes_max: usize) -> Self {
        Self { state: State::Size { digits: 0, value: 0 }, trailer_bytes_max }
    }

    /// Looks at the input (from where the last step left off).
    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        loop {
            if let State::Data { left } = self.state {
                let available = input.len() - at;
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(available);
                if len == 0 {
                    return Ok(Step::More { skip: at });
                }
                let left = left - len as u64;
                self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                return Ok(Step::Data { skip: at, len });
            }
            if let State::Trailers(mut scan) = self.state {
                let rest = input.get(at..).unwrap_or_default();
                let end = scan
                    .find_end(rest, self.trailer_bytes_max)
                    .map_err(|_| ChunkError::Trailers)?;
                self.state = State::Trailers(scan);
                return Ok(match end {
                    Some(len) => Step::End { skip: at, len },
                    // The section is only useful whole: it stays in the input, and so does what was looked at.
                    None => {
                        self.state = State::Trailers(if at > 0 { Scan::default() } else { scan });
                        Step::More { skip: at }
                    }
                });
            }
            let Some(byte) = input.get(at) else { return Ok(Step::More { skip: at }) };
            self.state = self.coding(*byte)?;
            at += 1;
        }
    }

    /// One byte of coding.
    fn coding(&self, byte: u8) -> Result<State, ChunkError> {
        Ok(match (self.state, byte) {
            (State::Size { digits, value }, byte) => match (hex(byte), byte) {
                (Some(digit), _) if digits < SIZE_DIGITS_MAX => {
                    State::Size { digits: digits + 1, value: value * 16 + digit }
                }
                (None, b'\r') if digits > 0 => State::SizeLineFeed { value },
                (None, b';' | b' ' | b'\t') if digits > 0 => {
                    State::Extension { value, bytes: 1, named: byte == b';' }
                }
                _ => return Err(ChunkError::Size),
            },
            (State::Extension { value, .. }, b'\r') => State::SizeLineFeed { value },
            // White space alone may stand between the size and the first semicolon.
            (State::Extension { value, bytes, named }, byte) => {
                let named = named || byte == b';';
                let fine = matches!(byte, b'\t' | b' ') || (named && byte > 0x20 && byte != 0x7f);
                if !fine || bytes >= EXTENSION_BYTES_MAX {
                    return Err(ChunkError::Extension);
                }
                State::Extension { value, bytes: bytes + 1, named }
            }
            (State::SizeLineFeed { value: 0 }, b'\n') => State::Trailers(Scan::default()),
            (State::SizeLineFeed { value }, b'\n') => State::Data { left: value },
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size { digits: 0, value: 0 },
            _ => return Err(ChunkError::LineEnd),
        })
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data and the trailer section, if the body was whole.
    type Decoded = Option<(Vec<u8>, Vec<u8>)>;

    /// Decodes input that arrives in pieces of that size.
    fn decode(input: &[u8], piece: usize) -> Result<Decoded, ChunkError> {
        let mut decoder = Chunked::new(1000);
        let (mut buffer, mut data) = (Vec::new(), Vec::new());
        for part in input.chunks(piece) {
            buffer.extend_from_slice(part);
            loop {
                match decoder.step(&buffer)? {
                    Step::Data { skip, len } => {
                        data.extend_from_slice(&buffer[skip..skip + len]);
                        buffer.drain(..skip + len);
                    }
                    Step::More { skip } => {
                        buffer.drain(..skip);
                        break;
                    }
                    Step::End { skip, len } => {
                        return Ok(Some((data, buffer[skip..skip + len].to_vec())));
                    }
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn bodies_decode_in_any_pieces() {
        let body = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n000\r\nX-T: 1\r\n\r\nnext";
        for piece in 1..body.len() {
            let (data, trailers) = decode(body, piece).unwrap().unwrap();
            assert_eq!(data, b"hello0123456789");
            assert_eq!(trailers, b"X-T: 1\r\n\r\n", "pieces of {piece}");
        }
        assert_eq!(decode(b"0\r\n\r\n", 1), Ok(Some((vec![], b"\r\n".to_vec()))));
        assert_eq!(decode(b"5\r\nhel", 2), Ok(None));
    }

    #[test]
    fn sloppy_bodies_are_refused() {
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(300));
        let trailers = format!("0\r\nX: {}\r\n\r\n", "a".repeat(2000));
        for (body, error) in [
            ("\r\n", ChunkError::Size),
            ("x\r\n", ChunkError::Size),
            ("-1\r\n", ChunkError::Size),
            ("0x5\r\nhello\r\n", ChunkError::Size),
            (" 5\r\nhello\r\n", ChunkError::Size),
            ("5\nhello\r\n", ChunkError::Size),
            ("1000000000000000\r\n", ChunkError::Size),
            ("5\r\nhellox\r\n", ChunkError::LineEnd),
            ("5\r\nhello\n0\r\n\r\n", ChunkError::LineEnd),
            ("5\rhello", ChunkError::LineEnd),
            ("5;a\nb\r\nhello", ChunkError::Extension),
            ("5 a\r\nhello\r\n", ChunkError::Extension),
            (&long, ChunkError::Extension),
            ("0\r\nX: y\n\r\n", ChunkError::Trailers),
            (&trailers, ChunkError::Trailers),
        ] {
            for piece in [1, 7, 4096] {
                assert_eq!(decode(body.as_bytes(), piece), Err(error), "{body:?}");
            }
        }
    }
}
