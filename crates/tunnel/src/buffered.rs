//! One system call for much, where little is read or written at a time, as TLS and HTTP/2 do.
//!
//! Must not know what the bytes are.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Read in a row before others have their turn.
const READ_IN_A_ROW_BYTES_MAX: usize = 256 * 1024;

/// Kept of what is written, until it is flushed or full.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// How many times others have their turn before what is to be flushed is sent. HTTP/2 answers a PING before anybody has
/// looked at the payload that came with it: so the payload goes first, and what others add goes in the same call.
const FLUSHES_PUT_OFF: u8 = 3;

/// A stream whose reads are bundled, and whose writes are from [`Self::bundle_writes`] on until they are flushed. While
/// nothing waits it holds no buffer.
#[derive(Debug)]
pub(crate) struct Buffered<S> {
    inner: S,
    buffer: Vec<u8>,
    from: usize,
    /// Read since it last had nothing, or others had their turn.
    in_a_row: usize,
    put_off: u8,
    bundles_writes: Cell<bool>,
    written: Vec<u8>,
    sent: usize,
}

impl<S> Buffered<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            from: 0,
            in_a_row: 0,
            put_off: 0,
            bundles_writes: Cell::new(false),
            written: Vec::new(),
            sent: 0,
        }
    }

    /// The stream below.
    pub(crate) fn inner(&self) -> &S {
        &self.inner
    }

    /// From now on whoever writes flushes. TLS does not, for the alert with which a handshake fails.
    pub(crate) fn bundle_writes(&self) {
        self.bundles_writes.set(true);
    }
}

impl<S: AsyncWrite + Unpin> Buffered<S> {
    /// Sends what was kept.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.written.len() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.written[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        if self.sent > 0 {
            self.written.clear();
            self.sent = 0;
            SPARE_WRITE.set(std::mem::take(&mut self.written));
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps as much as there is place for.
    fn poll_keep(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.written.len() >= WRITE_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        if self.written.capacity() == 0 {
            self.written = SPARE_WRITE.take();
            self.written.clear();
            self.written.reserve(WRITE_BYTES_MAX);
        }
        let count = buf.len().min(WRITE_BYTES_MAX - self.written.len());
        self.written.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }
}

thread_local! {
    /// Between reads it belongs to nobody: idle connections need none.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The same between writes.
    static SPARE_WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<S: AsyncRead + Unpin> Buffered<S> {
    /// Reads what there is; `Pending` now and then although there is more, so that no connection keeps a thread.
    fn poll_inner(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.in_a_row >= READ_IN_A_ROW_BYTES_MAX {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, into);
        self.in_a_row = match polled {
            Poll::Ready(Ok(())) => self.in_a_row + into.filled().len() - before,
            _ => 0,
        };
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Buffered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.from == this.buffer.len() {
            if buf.remaining() >= READ_BYTES_MAX {
                return this.poll_inner(cx, buf);
            }
            let mut spare = SPARE.take();
            if spare.capacity() == 0 {
                // Of fresh memory only what is written to counts.
                spare = vec![0; READ_BYTES_MAX];
            }
            spare.resize(READ_BYTES_MAX, 0);
            let mut read = ReadBuf::new(&mut spare);
            let polled = this.poll_inner(cx, &mut read);
            let count = read.filled().len();
            if !matches!(polled, Poll::Ready(Ok(()))) || count <= buf.remaining() {
                buf.put_slice(&spare[..count]);
                SPARE.set(spare);
                return polled;
            }
            spare.truncate(count);
            (this.buffer, this.from) = (spare, 0);
            ready!(polled)?;
        }
        let count = buf.remaining().min(this.buffer.len() - this.from);
        buf.put_slice(&this.buffer[this.from..this.from + count]);
        this.from += count;
        if this.from == this.buffer.len() {
            SPARE.set(std::mem::take(&mut this.buffer));
            this.from = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Buffered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.bundles_writes.get() {
            return self.poll_keep(cx, buf);
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.bundles_writes.get() {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let mut kept = 0;
        for buf in bufs {
            match self.poll_keep(cx, buf) {
                Poll::Ready(Ok(count)) => kept += count,
                // What was kept counts; the rest comes again.
                other if kept == 0 => return other,
                _ => break,
            }
            if self.written.len() >= WRITE_BYTES_MAX {
                break;
            }
        }
        Poll::Ready(Ok(kept))
    }

    fn is_write_vectored(&self) -> bool {
        self.bundles_writes.get() || self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.written.is_empty() && self.put_off < FLUSHES_PUT_OFF {
            self.put_off += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_send(cx))?;
        self.put_off = 0;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn reads_of_any_size_give_the_same_bytes() {
        let (mut writer, reader) = tokio::io::duplex(100_000);
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let bytes = sent.clone();
        let writing = net::task::spawn("writer", async move {
            writer.write_all(&bytes).await.unwrap();
        });
        let mut reader = Buffered::new(reader);
        let (mut seen, mut size) = (Vec::new(), 1);
        loop {
            let mut piece = vec![0; size];
            let count = reader.read(&mut piece).await.unwrap();
            if count == 0 {
                break;
            }
            seen.extend_from_slice(&piece[..count]);
            size = (size * 3) % 100_003;
        }
        writing.await.unwrap();
        assert!(seen == sent && reader.buffer.capacity() == 0);
    }

    #[tokio::test]
    async fn writes_of_any_size_are_sent_when_they_are_flushed_or_many() {
        let (writer, mut reader) = tokio::io::duplex(10_000);
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let reading = net::task::spawn("reader", async move {
            let mut seen = Vec::new();
            reader.read_to_end(&mut seen).await.unwrap();
            seen
        });
        let mut writer = Buffered::new(writer);
        writer.bundle_writes();
        let (mut from, mut size) = (0, 1);
        while from < sent.len() {
            let to = sent.len().min(from + size);
            let middle = from + (to - from) / 3;
            let slices = [IoSlice::new(&sent[from..middle]), IoSlice::new(&sent[middle..to])];
            from += writer.write_vectored(&slices).await.unwrap();
            if size % 2 == 0 {
                writer.flush().await.unwrap();
                assert_eq!(writer.written.capacity(), 0);
            }
            size = (size * 3) % 100_003;
        }
        writer.shutdown().await.unwrap();
        drop(writer);
        assert!(reading.await.unwrap() == sent);
    }
}
