//! A connection's socket, read and written by two directions at once within one task.
//!
//! The socket stands in a cell that is borrowed only while it is polled, never across a wait. Must not know what
//! the bytes mean.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;

use super::buffer::Buffer;
use crate::io::Io;

/// What the other side did while nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It has reset the connection, or broken its protocol.
    Reset,
    /// It has closed its side.
    End,
    /// It has sent more, behind which nothing can be seen.
    More,
}

/// A socket and what has gone over it.
#[derive(Debug)]
pub(crate) struct Wire {
    io: RefCell<Io>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Wire {
    pub(crate) fn new(io: Io) -> Self {
        Self { io: RefCell::new(io), received: Cell::new(0), sent: Cell::new(0) }
    }

    /// The socket, for another protocol.
    pub(crate) fn into_io(self) -> Io {
        self.io.into_inner()
    }

    /// Bytes received since this was last asked.
    pub(crate) fn take_received(&self) -> u64 {
        self.received.take()
    }

    /// Bytes sent since this was last asked.
    pub(crate) fn take_sent(&self) -> u64 {
        self.sent.take()
    }

    /// Reads what is there into the buffer; 0 is the end.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
    ) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(buffer.room());
        ready!(Pin::new(&mut *self.io.borrow_mut()).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        buffer.arrived(count);
        self.received.set(self.received.get() + count as u64);
        Poll::Ready(Ok(count))
    }

    /// Reads what is there into the buffer; 0 is the end. An empty buffer holds no memory while this waits.
    /// Dropped, nothing is lost.
    pub(crate) async fn read(&self, buffer: &mut Buffer) -> io::Result<usize> {
        poll_fn(|cx| {
            let result = self.poll_read(cx, buffer);
            if result.is_pending() {
                buffer.release();
            }
            result
        })
        .await
    }

    /// Whether the other side has neither sent anything nor closed, as far as is known here without waiting. An idle
    /// connection that fails this is of no more use.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let mut room = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        let read = poll_fn(|cx| Pin::new(&mut *self.io.borrow_mut()).poll_read(cx, &mut room));
        // Outside the task's budget: once that is used up, every socket would seem quiet.
        pin!(unconstrained(read)).poll(&mut cx).is_pending()
    }

    /// Whether it goes where a new connection would go.
    pub(crate) fn is_current(&self) -> bool {
        self.io.borrow().is_current()
    }

    /// Whether it may be kept without being used.
    pub(crate) fn may_rest(&self) -> bool {
        self.io.borrow().may_rest()
    }

    /// Ready when the other side has done something while nothing is read. What it has sent by then stays where it is,
    /// but over TLS, where an end is known only when it is read: there it may come to be in `ahead`. Never where no
    /// socket of ours is below, as with some upstreams.
    pub(crate) fn poll_sign(&self, cx: &mut Context<'_>, ahead: &mut Buffer) -> Poll<Sign> {
        let peeked = {
            let io = self.io.borrow();
            let mut byte = [0; 1];
            let Some(tcp) = io.tcp() else { return Poll::Pending };
            ready!(tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte)))
        };
        let encrypted = !matches!(&*self.io.borrow(), Io::Plain(_));
        match peeked {
            Err(_) => Poll::Ready(Sign::Reset),
            Ok(0) => Poll::Ready(Sign::End),
            Ok(_) if !encrypted => Poll::Ready(Sign::More),
            Ok(_) => {
                let read = self.poll_read(cx, ahead);
                ahead.release();
                read.map(|read| match read {
                    Ok(0) => Sign::End,
                    Ok(_) => Sign::More,
                    Err(_) => Sign::Reset,
                })
            }
        }
    }

    /// Writes all of both, the first before the second. Dropped, a part may have been written.
    pub(crate) async fn write_all(&self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        while !first.is_empty() || !second.is_empty() {
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            let count = poll_fn(|cx| {
                let mut io = self.io.borrow_mut();
                let io = Pin::new(&mut *io);
                match (first.is_empty(), second.is_empty()) {
                    (false, true) => io.poll_write(cx, first),
                    (true, _) => io.poll_write(cx, second),
                    (false, false) => io.poll_write_vectored(cx, &slices),
                }
            })
            .await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent.set(self.sent.get() + count as u64);
            let of_first = count.min(first.len());
            first = first.get(of_first..).unwrap_or_default();
            second = second.get(count - of_first..).unwrap_or_default();
        }
        poll_fn(|cx| Pin::new(&mut *self.io.borrow_mut()).poll_flush(cx)).await
    }

    /// Says that nothing more will be written. Dropped, it may not have been said.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.io.borrow_mut()).poll_shutdown(cx)).await
    }

    /// Makes the close that follows a reset, so that nobody takes what was sent for complete.
    pub(crate) fn reset_on_close(&self) {
        self.io.borrow().reset_on_close();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// More than a task's budget of polls, looked at in one go as a request does with its pool.
    #[tokio::test]
    async fn no_dead_connection_seems_quiet_however_many_there_are() {
        const CONNECTIONS: usize = 400;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut wires = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..CONNECTIONS {
            wires.push(Wire::new(TcpStream::connect(address).await.unwrap().into()));
            peers.push(listener.accept().await.unwrap().0);
        }
        assert!(wires.iter().all(Wire::is_quiet));
        drop(peers);
        for wire in &wires {
            poll_fn(|cx| wire.io.borrow().tcp().unwrap().poll_read_ready(cx)).await.unwrap();
        }
        tokio::task::yield_now().await;
        let quiet = wires.iter().filter(|wire| wire.is_quiet()).count();
        assert_eq!(quiet, 0);
    }
}
