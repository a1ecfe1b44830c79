//! What is to be written: frames in their order, payload as it was given.
//!
//! Must not know streams or windows.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Buf;

use crate::Payload;
use crate::frame::HEAD_BYTES;

/// Frames on their way to the stream below. Empty, it holds no memory.
#[derive(Debug)]
pub(crate) struct Output<P> {
    chunks: VecDeque<Chunk<P>>,
    bytes: usize,
}

#[derive(Debug)]
enum Chunk<P> {
    /// Whole frames, sent as far as it says.
    Frames(Vec<u8>, usize),
    /// The head of a frame of payload.
    Head([u8; HEAD_BYTES], usize),
    Payload(P),
}

impl<P> Default for Output<P> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), bytes: 0 }
    }
}

impl<P: Payload> Output<P> {
    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push_frames(&mut self, frames: Vec<u8>) {
        self.bytes += frames.len();
        self.chunks.push_back(Chunk::Frames(frames, 0));
    }

    pub(crate) fn push_head(&mut self, head: [u8; HEAD_BYTES]) {
        self.bytes += head.len();
        self.chunks.push_back(Chunk::Head(head, 0));
    }

    pub(crate) fn push_payload(&mut self, payload: P) {
        self.bytes += payload.remaining();
        self.chunks.push_back(Chunk::Payload(payload));
    }

    /// What is next, in as many pieces as there is place for; how many.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for chunk in &self.chunks {
            let Some(room) = out.get_mut(count..).filter(|room| !room.is_empty()) else { break };
            count += match chunk {
                Chunk::Frames(frames, sent) => one(room, frames.get(*sent..)),
                Chunk::Head(head, sent) => one(room, head.get(*sent..)),
                Chunk::Payload(payload) => payload.chunks_vectored(room),
            };
        }
        count
    }

    /// So many bytes are written.
    pub(crate) fn advance(&mut self, mut count: usize) {
        self.bytes -= count.min(self.bytes);
        while let Some(chunk) = self.chunks.front_mut() {
            let left = match chunk {
                Chunk::Frames(frames, sent) => step(sent, frames.len(), &mut count),
                Chunk::Head(head, sent) => step(sent, head.len(), &mut count),
                Chunk::Payload(payload) => {
                    let step = count.min(payload.remaining());
                    payload.advance(step);
                    count -= step;
                    payload.remaining()
                }
            };
            if left > 0 {
                return;
            }
            self.chunks.pop_front();
        }
        self.chunks = VecDeque::new();
    }
}

fn one<'a>(room: &mut [IoSlice<'a>], bytes: Option<&'a [u8]>) -> usize {
    match (room.first_mut(), bytes) {
        (Some(first), Some(bytes)) => {
            *first = IoSlice::new(bytes);
            1
        }
        _ => 0,
    }
}

/// What is left after as much of `count` as there is.
fn step(sent: &mut usize, whole: usize, count: &mut usize) -> usize {
    let step = (*count).min(whole - *sent);
    *sent += step;
    *count -= step;
    whole - *sent
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn bytes_come_in_order_however_they_are_taken() {
        for most in [1, 2, 7, 1000] {
            let mut output = Output::default();
            output.push_frames(b"abc".to_vec());
            output.push_head(*b"123456789");
            output.push_payload(Bytes::from_static(b"payload"));
            output.push_payload(Bytes::from_static(b"x"));
            let mut seen = Vec::new();
            while output.bytes() > 0 {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = output.slices(&mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let piece = &all[..most.min(all.len())];
                seen.extend_from_slice(piece);
                let piece = piece.len();
                output.advance(piece);
            }
            assert_eq!(seen, b"abc123456789payloadx");
            assert_eq!(output.chunks.capacity(), 0);
        }
    }
}
