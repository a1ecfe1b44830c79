//! Bytes that have arrived, until rustls has used them up.
//!
//! They are read into a buffer that belongs to the thread, and a connection keeps only what rustls cannot use before
//! more has come: a part of a record, or of a message of the handshake. rustls counts positions from the beginning of
//! what is kept, so that nothing leaves it but what rustls says. Must not know what the bytes mean.

use std::cell::RefCell;
use std::io;
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Kept at most: beyond it nobody's handshake is that long, and a record never is.
pub(crate) const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The payload of the largest record (RFC 8446 section 5.1).
pub(crate) const RECORD_PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// The same sealed by TLS 1.3, with a header, the type inside and a tag.
const RECORD_BYTES: usize = RECORD_PAYLOAD_BYTES_MAX + 22;

/// Full records read at once where a reader has place for less: to keep the second costs less than another call into
/// the kernel.
const RECORDS_READ_MIN: usize = 2;

/// Full records read at once, at most.
const RECORDS_READ_MAX: usize = 4;

/// Read at once at least: records may be small.
const READ_BYTES_MIN: usize = 4 * 1024;

thread_local! {
    /// Between two reads it belongs to nobody.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a connection keeps of what has arrived.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    kept: Vec<u8>,
}

/// What was kept and what has come behind it, in the thread's buffer, until it is given to [`Incoming::keep`].
pub(crate) struct Arrived {
    buffer: Vec<u8>,
    end: usize,
}

impl Arrived {
    fn new(kept: &[u8], more: usize) -> Self {
        let mut buffer = SPARE.take();
        if buffer.len() < kept.len() + more {
            // Anew: of fresh memory only what is written to counts.
            buffer = vec![0; kept.len() + more];
        }
        Self { buffer, end: kept.len() }
    }
}

impl std::ops::Deref for Arrived {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.end]
    }
}

impl DerefMut for Arrived {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.end]
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // At the end of the thread there may be no place left.
        let _ = SPARE.try_with(|spare| spare.replace(buffer));
    }
}

impl Incoming {
    /// What is kept, for rustls to look at again.
    pub(crate) fn kept(&mut self) -> &mut [u8] {
        &mut self.kept
    }

    /// What has come of itself, behind what is kept.
    pub(crate) fn with(&self, bytes: &[u8]) -> Arrived {
        let mut arrived = Arrived::new(&self.kept, bytes.len());
        arrived.end += bytes.len();
        arrived[..self.kept.len()].copy_from_slice(&self.kept);
        arrived[self.kept.len()..].copy_from_slice(bytes);
        arrived
    }

    /// Reads what makes about so much payload, or two records; and how much it is, 0 at the end of the stream.
    pub(crate) fn poll_read<S: AsyncRead + Unpin>(
        &self,
        io: &mut S,
        cx: &mut Context<'_>,
        payload: usize,
    ) -> Poll<io::Result<(Arrived, usize)>> {
        let more = bytes_to_read(payload, self.kept.len());
        let mut arrived = Arrived::new(&self.kept, more);
        let mut read = ReadBuf::new(&mut arrived.buffer[self.kept.len()..self.kept.len() + more]);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        let count = read.filled().len();
        arrived.end += count;
        arrived[..self.kept.len()].copy_from_slice(&self.kept);
        Poll::Ready(Ok((arrived, count)))
    }

    /// Keeps what was not used up. `false` where that is more than may be kept.
    pub(crate) fn keep(&mut self, arrived: &Arrived, used: usize) -> bool {
        let rest = arrived.get(used..).unwrap_or_default();
        if rest.len() > KEPT_BYTES_MAX {
            self.kept = Vec::new();
            return false;
        }
        // Exactly as much as it is: many connections may have to wait for the other part.
        self.kept = rest.to_vec();
        true
    }
}

/// How much makes whole records of the payload and of what is kept, where the peer sends full ones: then nothing is
/// left over.
fn bytes_to_read(payload: usize, kept: usize) -> usize {
    let records =
        payload.div_ceil(RECORD_PAYLOAD_BYTES_MAX).clamp(RECORDS_READ_MIN, RECORDS_READ_MAX);
    let least = (kept + READ_BYTES_MIN).div_ceil(RECORD_BYTES);
    records.max(least) * RECORD_BYTES - kept
}

/// What was opened, and is more than its reader had place for.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    bytes: Vec<u8>,
    from: usize,
}

impl Unread {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Gives a reader as much as it has place for. Once all is given nothing is held.
    pub(crate) fn give(&mut self, reader: &mut ReadBuf<'_>) {
        let rest = &self.bytes[self.from..];
        let count = rest.len().min(reader.remaining());
        reader.put_slice(&rest[..count]);
        self.from += count;
        if self.from == self.bytes.len() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_over_is_held_and_as_long_as_it_is() {
        let mut incoming = Incoming::default();
        let arrived = incoming.with(b"used up, kept");
        assert!(incoming.keep(&arrived, 9));
        drop(arrived);
        assert_eq!((incoming.kept.as_slice(), incoming.kept.capacity()), (&b"kept"[..], 4));
        let arrived = incoming.with(b" and more");
        assert_eq!(&arrived[..], b"kept and more");
        assert!(incoming.keep(&arrived, arrived.len()));
        assert_eq!(incoming.kept.capacity(), 0);
    }

    #[test]
    fn whole_records_are_read() {
        for (payload, kept, read) in [
            (0, 0, 2 * RECORD_BYTES),
            (1, 100, 2 * RECORD_BYTES - 100),
            (RECORD_PAYLOAD_BYTES_MAX, 0, 2 * RECORD_BYTES),
            (2 * RECORD_PAYLOAD_BYTES_MAX, RECORD_BYTES - 10, RECORD_BYTES + 10),
            (2 * RECORD_PAYLOAD_BYTES_MAX + 1, 0, 3 * RECORD_BYTES),
            (64 * 1024, 0, 4 * RECORD_BYTES),
            (64 * 1024, RECORD_BYTES - 10, 3 * RECORD_BYTES + 10),
            (usize::MAX, 0, 4 * RECORD_BYTES),
        ] {
            assert_eq!(bytes_to_read(payload, kept), read, "{payload} and {kept}");
        }
        let all = bytes_to_read(1, KEPT_BYTES_MAX);
        assert!((READ_BYTES_MIN..READ_BYTES_MIN + RECORD_BYTES).contains(&all), "{all}");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut incoming = Incoming::default();
        let arrived = incoming.with(&[0; KEPT_BYTES_MAX + 1]);
        assert!(incoming.keep(&arrived, 1));
        assert!(!incoming.keep(&arrived, 0));
        assert_eq!(incoming.kept.capacity(), 0);
    }

    #[test]
    fn what_was_read_stands_behind_what_is_kept() {
        let mut incoming = Incoming::default();
        assert!(incoming.keep(&incoming.with(b"first, "), 0));
        let mut io = &b"second"[..];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Ok((arrived, count))) = incoming.poll_read(&mut io, &mut cx, 1) else {
            panic!("there is something to read");
        };
        assert_eq!((&arrived[..], count), (&b"first, second"[..], 6));
    }

    #[test]
    fn what_was_given_is_not_held() {
        let mut unread = Unread::default();
        unread.append(b"abc");
        unread.append(b"de");
        let mut place = [0; 4];
        let mut reader = ReadBuf::new(&mut place);
        unread.give(&mut reader);
        assert_eq!(reader.filled(), b"abcd");
        reader.clear();
        unread.give(&mut reader);
        assert_eq!((reader.filled(), unread.bytes.capacity()), (&b"e"[..], 0));
    }
}
