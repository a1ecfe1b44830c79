//! The socket under an HTTP/2 connection: what was read before it was known to be one comes first, and what
//! is written is collected.
//!
//! The `h2` crate writes and flushes one DATA frame after another. Over TLS each would be a record and a
//! system call of its own; so a flush is kept until the connection's task has done all that it can, and the
//! answers of many streams go out at once. Must not know frames.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::h1::buffer::Buffer;
use crate::io::Io;

/// What is collected before it is written: one TLS record.
const COLLECTED_BYTES_MAX: usize = 16 * 1024;

/// A handle on the socket; the connection has one, its task the other.
#[derive(Debug, Clone)]
pub(super) struct Pipe(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    io: Io,
    /// Read before it was known what it is.
    prefix: Buffer,
    collected: Vec<u8>,
    /// How much of `collected` has been written.
    written: usize,
    received: u64,
    sent: u64,
}

impl Pipe {
    pub(super) fn new(io: Io, prefix: Buffer) -> Self {
        let inner = Inner { io, prefix, collected: Vec::new(), written: 0, received: 0, sent: 0 };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Writes what was collected. To be called whenever the connection has been polled.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_empty(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }

    /// Gives the memory back while nothing is under way.
    pub(super) fn rest(&self) {
        let mut inner = self.0.borrow_mut();
        if inner.collected.is_empty() {
            inner.collected = Vec::new();
        }
    }

    /// Bytes received and sent since this was last asked.
    pub(super) fn take_moved(&self) -> (u64, u64) {
        let mut inner = self.0.borrow_mut();
        (std::mem::take(&mut inner.received), std::mem::take(&mut inner.sent))
    }
}

impl Inner {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.collected.get(self.written..) {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.sent += count as u64;
        }
        self.collected.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        let before = buf.filled().len();
        if inner.prefix.is_empty() {
            ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        } else {
            let count = inner.prefix.len().min(buf.remaining());
            buf.put_slice(inner.prefix.filled().get(..count).unwrap_or_default());
            inner.prefix.consume(count);
            inner.prefix.release();
        }
        inner.received += (buf.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.collected.len() + buf.len() > COLLECTED_BYTES_MAX {
            ready!(inner.poll_empty(cx))?;
        }
        if buf.len() >= COLLECTED_BYTES_MAX {
            let count = ready!(Pin::new(&mut inner.io).poll_write(cx, buf))?;
            inner.sent += count as u64;
            return Poll::Ready(Ok(count));
        }
        inner.collected.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Later: see [`Pipe::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}
