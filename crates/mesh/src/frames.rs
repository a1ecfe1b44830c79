//! What goes over a connection between two hosts that is kept for further requests: each direction in frames, so that
//! it can end without the connection. Sans-io, both sides.
//!
//! A frame is [`HEAD_BYTES`] that say how many bytes of payload follow, the most significant first, and these; none:
//! the direction has ended. Where much is sent, the head [`RAW`] says that all the rest is payload, until the
//! connection ends this way; such a connection is not kept.

/// What each frame begins with.
pub const HEAD_BYTES: usize = 4;
/// A frame has no more payload.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The head of what says that its direction has ended.
pub const END: [u8; HEAD_BYTES] = [0; HEAD_BYTES];
/// What comes after it is payload without frames.
pub const RAW: [u8; HEAD_BYTES] = [0xff; HEAD_BYTES];

/// What may have come behind the end: whoever asks waits for the answer.
pub const BEHIND_BYTES_MAX: usize = crate::peer::REQUEST_BYTES_MAX;

/// What the other side sent are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A frame says that it is longer than it may be.
    #[error("a frame of {0} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(u32),
    /// There is more behind the end than a question.
    #[error("{0} bytes follow the end, at most {BEHIND_BYTES_MAX} are allowed")]
    Behind(usize),
}

/// The head of a frame with so much payload, or of as much of it as a frame may have; and how much that is.
#[must_use]
pub fn head(payload: usize) -> ([u8; HEAD_BYTES], usize) {
    let bytes = payload.min(FRAME_BYTES_MAX);
    (u32::try_from(bytes).unwrap_or_default().to_be_bytes(), bytes)
}

/// What was in some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// So much payload, which is at their beginning now.
    pub payload: usize,
    /// So many of them were frames. The rest is behind the end.
    pub used: usize,
}

/// Takes frames apart.
#[derive(Debug, Default)]
pub struct Reader {
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many bytes of the next head are known.
    Head([u8; HEAD_BYTES], usize),
    /// So many bytes of a frame are still to come.
    Payload(usize),
    Raw,
    Ended,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Head([0; HEAD_BYTES], 0)
    }
}

impl Reader {
    /// Takes the heads out of bytes as they came: what is payload moves to the front.
    ///
    /// # Errors
    /// [`Malformed`]: break the connection off.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, Malformed> {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            let there = bytes.len() - from;
            match self.stage {
                Stage::Ended if there > BEHIND_BYTES_MAX => return Err(Malformed::Behind(there)),
                Stage::Ended => break,
                Stage::Head(known, count) => {
                    let (known, count, used) = more_of_head(known, count, &bytes[from..]);
                    self.stage = Stage::Head(known, count);
                    if count == HEAD_BYTES {
                        self.stage = begin(known)?;
                    }
                    from += used;
                }
                Stage::Payload(left) => {
                    let count = left.min(there);
                    bytes.copy_within(from..from + count, to);
                    (from, to) = (from + count, to + count);
                    self.stage = match left - count {
                        0 => Stage::default(),
                        left => Stage::Payload(left),
                    };
                }
                Stage::Raw => {
                    bytes.copy_within(from.., to);
                    (from, to) = (bytes.len(), to + there);
                }
            }
        }
        Ok(Taken { payload: to, used: from })
    }

    /// Whether the direction has ended, and the connection has not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether there are no frames any more.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.stage == Stage::Raw
    }
}

/// A head of which `count` bytes are known, with what else of it is there, and how much that was.
fn more_of_head(
    mut known: [u8; HEAD_BYTES],
    count: usize,
    bytes: &[u8],
) -> ([u8; HEAD_BYTES], usize, usize) {
    let used = bytes.len().min(HEAD_BYTES - count);
    known[count..count + used].copy_from_slice(&bytes[..used]);
    (known, count + used, used)
}

fn begin(head: [u8; HEAD_BYTES]) -> Result<Stage, Malformed> {
    let bytes = u32::from_be_bytes(head);
    match (head, usize::try_from(bytes)) {
        (END, _) => Ok(Stage::Ended),
        (RAW, _) => Ok(Stage::Raw),
        (_, Ok(bytes)) if bytes <= FRAME_BYTES_MAX => Ok(Stage::Payload(bytes)),
        _ => Err(Malformed::TooLong(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use balance::Rng;

    use super::*;

    /// Payload, and what is behind the end.
    type Parts = (Vec<u8>, Vec<u8>);

    /// What is read of a stream that comes in pieces, what is behind its end, and the reader.
    fn read(stream: &[u8], mut piece: impl FnMut() -> usize) -> (Result<Parts, Malformed>, Reader) {
        let (mut reader, mut rest) = (Reader::default(), stream);
        let (mut all, mut behind) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
            let mut now = now.to_vec();
            match reader.take(&mut now) {
                Ok(Taken { payload, used }) => {
                    all.extend_from_slice(&now[..payload]);
                    behind.extend_from_slice(&now[used..]);
                }
                Err(error) => return (Err(error), reader),
            }
            rest = later;
        }
        (Ok((all, behind)), reader)
    }

    /// Payload in frames of chance's lengths.
    fn framed(payload: &[u8], rng: &mut Rng) -> Vec<u8> {
        let (mut stream, mut rest) = (Vec::new(), payload);
        while !rest.is_empty() {
            let (head, count) = head(rest.len().min(1 + rng.below(40) as usize));
            let (now, later) = rest.split_at(count);
            stream.extend_from_slice(&head);
            stream.extend_from_slice(now);
            rest = later;
        }
        stream
    }

    #[test]
    fn payload_comes_out_as_it_went_in_however_it_is_cut() {
        const MORE: &[u8] = b"\0\0\0\0 and anything";
        for seed in 0..2_000 {
            let mut rng = Rng::new(seed);
            let payload: Vec<u8> = (0..rng.below(300)).map(|_| rng.next_u64() as u8).collect();
            let more = &MORE[..rng.below(MORE.len() as u64 + 1) as usize];
            for last in [END, RAW] {
                let stream = [&framed(&payload, &mut rng), &last[..], more].concat();
                let (read, reader) = read(&stream, || 1 + rng.below(50) as usize);
                let expected = match last {
                    END => (payload.clone(), more.to_vec()),
                    _ => ([&payload, more].concat(), Vec::new()),
                };
                assert_eq!(read.unwrap(), expected);
                assert_eq!((reader.has_ended(), reader.is_raw()), (last == END, last == RAW));
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
        for (stream, expected) in [
            (too_long.to_be_bytes().to_vec(), Malformed::TooLong(too_long)),
            (b"GET / HTTP/1.1\r\n".to_vec(), Malformed::TooLong(0x4745_5420)),
        ] {
            for piece in 1..6 {
                assert_eq!(read(&stream, || piece).0, Err(expected), "{stream:?} by {piece}");
            }
        }
        let behind = [&b"\0\0\0\x01x\0\0\0\0"[..], &[7; BEHIND_BYTES_MAX + 1]].concat();
        assert_eq!(read(&behind, || 100).0, Err(Malformed::Behind(BEHIND_BYTES_MAX + 1)));
        assert_eq!(read(b"\0\0\0\x02x", || 9).0, Ok((b"x".to_vec(), Vec::new())));
        assert_eq!(head(usize::MAX), ((1_u32 << 20).to_be_bytes(), FRAME_BYTES_MAX));
        assert_eq!(head(1), ([0, 0, 0, 1], 1));
    }
}
