//! Sealed bytes, until the stream below has taken them.
//!
//! They are sealed into a buffer that belongs to the thread. A connection holds one only while the stream below does
//! not take all: a small rest in a buffer of its own size, a large one where it stands. Must not know what is sealed.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::unbuffered::{EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError};
use tokio::io::AsyncWrite;

/// Sealed bytes kept for a peer that reads slowly; beyond it writes wait.
pub(crate) const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// What sealing adds to that at most, with an alert or a message between.
const OVERHEAD_BYTES: usize = 1024;

/// A buffer of the thread.
const BUFFER_BYTES: usize = SEND_BUFFER_BYTES_MAX + OVERHEAD_BYTES;

/// A rest up to this is copied, so that the large buffer can go back; nothing is put behind a larger one.
const SMALL_REST_BYTES: usize = 16 * 1024;

thread_local! {
    /// Between two writes it belongs to nobody.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a connection has to send: a part of its buffer.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Outgoing {
    /// Bytes to send.
    pub(crate) fn len(&self) -> usize {
        self.to - self.from
    }

    /// How much more payload may be sealed. Nothing behind a large rest, so that a slow reader gets few large records
    /// instead of many that are as small as what it takes.
    pub(crate) fn room(&self) -> usize {
        match self.len() {
            rest if rest > SMALL_REST_BYTES => 0,
            rest => SEND_BUFFER_BYTES_MAX - rest,
        }
    }

    /// Makes room for so much payload, sealed.
    pub(crate) fn reserve_for(&mut self, payload: usize) {
        if self.buffer.len() - self.to < payload + OVERHEAD_BYTES {
            self.make_room(payload + OVERHEAD_BYTES);
        }
    }

    /// Appends what is sealed into the place that this gets, which is as large as it asks for.
    pub(crate) fn append(
        &mut self,
        mut seal: impl FnMut(&mut [u8]) -> Result<usize, Unsealed>,
    ) -> io::Result<()> {
        loop {
            match seal(&mut self.buffer[self.to..]) {
                Ok(count) => {
                    self.to += count;
                    return Ok(());
                }
                Err(Unsealed::NeedsBytes(needed)) if self.buffer.len() - self.to < needed => {
                    self.make_room(needed);
                }
                Err(_) => return Err(io::Error::other("the keys of this connection are used up")),
            }
        }
    }

    /// Appends a message of the handshake, or an alert.
    pub(crate) fn append_message<D>(
        &mut self,
        message: &mut EncodeTlsData<'_, D>,
    ) -> io::Result<()> {
        self.append(|place| message.encode(place).map_err(Unsealed::from))
    }

    fn make_room(&mut self, bytes: usize) {
        let needed = self.len() + bytes;
        let mut larger = SPARE.take();
        if larger.len() < needed {
            // Anew: of fresh memory only what is written to counts.
            larger = vec![0; needed.max(BUFFER_BYTES)];
        }
        larger[..self.len()].copy_from_slice(&self.buffer[self.from..self.to]);
        *self = Self { buffer: larger, from: 0, to: self.len() };
    }

    /// Hands all to the stream below.
    pub(crate) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let sent = self.poll_send_all(io, cx);
        self.release();
        sent
    }

    fn poll_send_all<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.from < self.to {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.buffer[self.from..self.to]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.from += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the large buffer back, unless much is left in it.
    pub(crate) fn release(&mut self) {
        let rest = self.buffer.get(self.from..self.to).unwrap_or_default();
        if rest.len() > SMALL_REST_BYTES
            || self.buffer.len() <= SMALL_REST_BYTES && !rest.is_empty()
        {
            return;
        }
        let rest = rest.to_vec();
        let to = rest.len();
        let buffer = std::mem::replace(self, Self { buffer: rest, from: 0, to }).buffer;
        if buffer.len() >= BUFFER_BYTES {
            SPARE.set(buffer);
        }
    }
}

/// Why nothing was sealed.
pub(crate) enum Unsealed {
    /// The place has to be so large.
    NeedsBytes(usize),
    /// It never will be.
    Refused,
}

impl From<InsufficientSizeError> for Unsealed {
    fn from(error: InsufficientSizeError) -> Self {
        Self::NeedsBytes(error.required_size)
    }
}

impl From<EncodeError> for Unsealed {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => size.into(),
            EncodeError::AlreadyEncoded => Self::Refused,
        }
    }
}

impl From<EncryptError> for Unsealed {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => size.into(),
            EncryptError::EncryptExhausted => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes, then nothing for now.
    struct Slow {
        takes: usize,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = buf.len().min(self.takes);
            if count == 0 {
                return Poll::Pending;
            }
            self.takes -= count;
            self.taken.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn append(outgoing: &mut Outgoing, bytes: &[u8]) {
        let seal = |place: &mut [u8]| match place.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(bytes.len())
            }
            None => Err(Unsealed::NeedsBytes(bytes.len())),
        };
        outgoing.append(seal).unwrap();
    }

    #[test]
    fn only_what_the_stream_does_not_take_is_held() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut outgoing = Outgoing::default();
        let mut sent = Vec::new();
        let mut slow = Slow { takes: 0, taken: Vec::new() };
        for (size, takes, held_max) in [
            (10, 10, 0),
            // A small rest, which grows.
            (30_000, 25_000, SMALL_REST_BYTES),
            (1_000, 0, SMALL_REST_BYTES),
            // A large one, of which nothing is taken, then a part, then all.
            (60_000, 0, BUFFER_BYTES),
            (0, 30_000, BUFFER_BYTES),
            (0, 80_000, 0),
        ] {
            let bytes: Vec<u8> = (0..size).map(|n: u32| n.to_be_bytes()[3]).collect();
            append(&mut outgoing, &bytes);
            sent.extend(bytes);
            slow.takes = takes;
            let done = outgoing.poll_send(&mut slow, &mut cx).is_ready();
            assert_eq!((done, outgoing.len()), (slow.taken == sent, sent.len() - slow.taken.len()));
            assert!(outgoing.buffer.len() <= held_max, "{}", outgoing.buffer.len());
            let large = outgoing.len() > SMALL_REST_BYTES;
            let room = if large { 0 } else { SEND_BUFFER_BYTES_MAX - outgoing.len() };
            assert_eq!(outgoing.room(), room);
        }
        assert_eq!(slow.taken, sent);
    }

    #[test]
    fn what_cannot_be_sealed_is_an_error_once() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.append(|_| Err(Unsealed::Refused)).is_err());
        // Whoever asks for less than there is will never have enough.
        outgoing.reserve_for(100);
        assert!(outgoing.append(|_| Err(Unsealed::NeedsBytes(50))).is_err());
    }
}
