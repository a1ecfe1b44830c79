//! Reading ahead: one system call for much, where what reads takes little at a time, as TLS does.
//!
//! Must not know what the bytes are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// A stream whose reads are bundled. Writes go through as they are. While nothing is read ahead it holds no buffer.
#[derive(Debug)]
pub(crate) struct Buffered<S> {
    inner: S,
    buffer: Vec<u8>,
    from: usize,
}

impl<S> Buffered<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, buffer: Vec::new(), from: 0 }
    }
}

thread_local! {
    /// Between reads it belongs to nobody: idle connections need none.
    static SPARE: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
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
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            let mut spare = SPARE.take();
            spare.resize(READ_BYTES_MAX, 0);
            let mut read = ReadBuf::new(&mut spare);
            let polled = Pin::new(&mut this.inner).poll_read(cx, &mut read);
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
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
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
}
