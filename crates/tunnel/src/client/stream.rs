//! A connection through a tunnel, for whoever has asked for one: bytes both ways.
//!
//! One that is dropped ends in order, after what was written, unless [`Duplex::reset_on_close`] was called. One that
//! the tunnel has lost, or that the target has reset, fails with `ConnectionReset`, never with an end. Must not know
//! how the server is spoken to beyond the two kinds that there are.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use net::dial::Duplex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Stats;
use super::call::Call;
use super::connect::Tube;
use crate::grpc;
use crate::link::{Closed, Read};
use crate::splice::{Through, poll_bytes};

/// See the module.
#[derive(Debug)]
pub struct Connection {
    /// None once it has been left.
    inner: Option<Inner>,
    /// Payload that has come and does not fit where it was wanted.
    left: Bytes,
    /// Given to a [`Tube`], and not yet written.
    given: Bytes,
    resets: AtomicBool,
    /// How it counts.
    open: Option<Open>,
}

#[derive(Debug)]
enum Inner {
    Call(Box<Call>),
    Tube(Box<Tube>),
}

/// One of the connections that are counted.
#[derive(Debug)]
struct Open(Arc<Stats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.established.sub();
    }
}

impl Connection {
    pub(super) fn of_call(call: Call) -> Self {
        Self::new(Inner::Call(Box::new(call)))
    }

    pub(super) fn of_connect(tube: Tube) -> Self {
        Self::new(Inner::Tube(Box::new(tube)))
    }

    fn new(inner: Inner) -> Self {
        let (left, given, resets) = (Bytes::new(), Bytes::new(), AtomicBool::new(false));
        Self { inner: Some(inner), left, given, resets, open: None }
    }

    /// Counts it until it is dropped.
    pub(super) fn counted(mut self, stats: &Arc<Stats>) -> Self {
        stats.established.add();
        self.open = Some(Open(stats.clone()));
        self
    }

    /// Writes what a tube was given.
    fn poll_given(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Inner::Tube(tube)) = &mut self.inner else { return Poll::Ready(Ok(())) };
        while !self.given.is_empty() {
            let count = ready!(Pin::new(&mut tube.io).poll_write(cx, &self.given))?;
            if count == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.given.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes as much of the slices as one packet carries.
    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(Inner::Call(call)) = &mut self.inner else { return Poll::Ready(Err(over())) };
        let Ok(room) = ready!(call.poll_room(cx)) else { return Poll::Ready(Err(over())) };
        let all: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut bytes = BytesMut::with_capacity(all.min(room));
        for buf in bufs {
            let count = buf.len().min(room - bytes.len());
            bytes.extend_from_slice(&buf[..count]);
        }
        let count = bytes.len();
        if count > 0 && call.push(bytes.freeze()).is_err() {
            return Poll::Ready(Err(over()));
        }
        // As much as there is room for is on its way at once.
        let _ = call.poll_flush(cx);
        Poll::Ready(Ok(count))
    }
}

fn over() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the connection through the tunnel is over")
}

fn broken(reason: String) -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, reason)
}

impl Drop for Connection {
    fn drop(&mut self) {
        let reset = self.resets.load(Ordering::Relaxed);
        match self.inner.take() {
            None => {}
            Some(Inner::Call(call)) => call.leave(reset),
            Some(Inner::Tube(tube)) => tube.leave(reset),
        }
    }
}

impl Duplex for Connection {
    fn is_current(&self) -> bool {
        match &self.inner {
            Some(Inner::Call(call)) => call.is_current(),
            Some(Inner::Tube(_)) => true,
            None => false,
        }
    }

    fn reset_on_close(&self) {
        self.resets.store(true, Ordering::Relaxed);
    }

    fn socket(&self) -> Option<&TcpStream> {
        match &self.inner {
            Some(Inner::Tube(tube)) => tube.io.tcp(),
            _ => None,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.inner {
            None => return Poll::Ready(Err(over())),
            Some(Inner::Tube(tube)) => {
                if tube.first.is_empty() {
                    return Pin::new(&mut tube.io).poll_read(cx, buf);
                }
                buf.put_slice(&tube.take_first(buf.remaining()));
                return Poll::Ready(Ok(()));
            }
            Some(Inner::Call(call)) => {
                if this.left.is_empty() {
                    match ready!(call.poll_read(usize::MAX, cx)) {
                        Read::Bytes(bytes) => this.left = bytes,
                        Read::Closed(reason) if !reason.is_empty() => {
                            return Poll::Ready(Err(broken(reason)));
                        }
                        Read::Closed(_) | Read::Finished | Read::Wait => {
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            }
        }
        let count = this.left.len().min(buf.remaining());
        buf.put_slice(&this.left.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.inner {
            Some(Inner::Tube(tube)) => Pin::new(&mut tube.io).poll_write_vectored(cx, bufs),
            _ => this.poll_take(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.inner {
            Some(Inner::Tube(tube)) => tube.poll_flush(cx),
            // Where it is over, whoever reads hears why.
            Some(Inner::Call(call)) => call.poll_flush(cx).map(Ok),
            None => Poll::Ready(Err(over())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.inner {
            Some(Inner::Tube(tube)) => {
                ready!(Pin::new(&mut tube.io).poll_shutdown(cx))?;
                tube.set_ended();
                Poll::Ready(Ok(()))
            }
            Some(Inner::Call(call)) => {
                call.finish();
                call.poll_flush(cx).map(Ok)
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Without a copy where it is a call; through the thread's buffer where it is a tube.
impl Through for Connection {
    fn poll_read(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Read> {
        match &mut self.inner {
            None => Poll::Ready(Read::Closed(String::new())),
            Some(Inner::Call(call)) => call.poll_read(most, cx),
            Some(Inner::Tube(tube)) if !tube.first.is_empty() => {
                Poll::Ready(Read::Bytes(tube.take_first(most)))
            }
            Some(Inner::Tube(tube)) => {
                Poll::Ready(match ready!(poll_bytes(&mut tube.io, most, cx)) {
                    Ok(bytes) if bytes.is_empty() => Read::Finished,
                    Ok(bytes) => Read::Bytes(bytes),
                    Err(error) => Read::Closed(error.to_string()),
                })
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        if let Some(Inner::Call(call)) = &mut self.inner {
            return call.poll_room(cx);
        }
        let written = ready!(self.poll_given(cx)).map_err(|_| Closed);
        Poll::Ready(written.map(|()| grpc::PAYLOAD_BYTES_MAX))
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Closed> {
        match &mut self.inner {
            None => Err(Closed),
            Some(Inner::Call(call)) => call.push(bytes),
            Some(Inner::Tube(_)) => {
                self.given = bytes;
                Ok(())
            }
        }
    }

    fn finish(&mut self) {
        match &mut self.inner {
            Some(Inner::Call(call)) => call.finish(),
            Some(Inner::Tube(tube)) => tube.finishing = true,
            None => {}
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Inner::Call(call)) = &mut self.inner {
            return call.poll_flush(cx);
        }
        if ready!(self.poll_given(cx)).is_err() {
            return Poll::Ready(());
        }
        match &mut self.inner {
            Some(Inner::Tube(tube)) => tube.poll_sent(cx),
            _ => Poll::Ready(()),
        }
    }

    fn has_half_close(&self) -> bool {
        match &self.inner {
            Some(Inner::Call(call)) => call.has_half_close(),
            Some(Inner::Tube(_)) => true,
            None => false,
        }
    }

    fn is_closed(&self) -> bool {
        match &self.inner {
            Some(Inner::Call(call)) => call.is_closed(),
            Some(Inner::Tube(_)) => false,
            None => true,
        }
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        match &mut self.inner {
            Some(Inner::Call(call)) => call.poll_closed(cx),
            // It has said that nothing more comes; what is wrong shows where something is written.
            Some(Inner::Tube(_)) => Poll::Pending,
            None => Poll::Ready(String::new()),
        }
    }

    fn close(self, reason: &str) {
        if !reason.is_empty() {
            self.reset_on_close();
        }
    }
}
