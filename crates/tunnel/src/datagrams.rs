//! UDP through a tunnel: datagrams with their length before them, between a socket that keeps them apart and a
//! connection that does not.
//!
//! Only ends of ours know it: a dial for it has a protocol that an original refuses. What finds no room is dropped, as
//! on any way of UDP. Must not know whose datagrams they are. Start at [`carry`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::{Instant, Sleep};

use crate::link::Read;
use crate::splice::Through;
use crate::stats::Counter;

/// The protocol of a dial for datagrams. Not `udp`: an original would connect, and take their lengths for content.
pub(crate) const PROTOCOL: &str = "cloverleaf-udp";
/// How long neither side may send anything, where nobody says another time.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(60);
/// Of a datagram's length.
const HEAD_BYTES: usize = 2;
/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = u16::MAX as usize;
/// Datagrams in a row before others have their turn.
const IN_A_ROW_MAX: usize = 32;
/// Taken from the tunnel at once.
const READ_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where datagrams come from and go to.
pub(crate) trait Datagrams {
    /// The next one. An end is an error of the kind `UnexpectedEof`; others concern single datagrams.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;
    /// Sends one.
    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<usize>>;
}

/// One that is connected.
impl Datagrams for UdpSocket {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_recv(cx, into)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<usize>> {
        UdpSocket::poll_send(self, cx, datagram)
    }
}

/// Carries datagrams until either side ends or nothing was carried for so long. `dropped` counts what found no room.
/// Dropped, both sides are closed.
pub(crate) async fn carry<T: Through, D: Datagrams>(
    through: T,
    side: D,
    idle: Duration,
    dropped: &Counter,
) {
    let mut carrying = Carrying {
        through,
        side,
        frames: Frames::default(),
        dropped,
        idle,
        timer: Box::pin(tokio::time::sleep(idle)),
        last: Instant::now(),
    };
    poll_fn(|cx| carrying.poll(cx)).await;
    carrying.through.close("");
}

struct Carrying<'a, T, D> {
    through: T,
    side: D,
    frames: Frames,
    dropped: &'a Counter,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    last: Instant,
}

impl<T: Through, D: Datagrams> Carrying<'_, T, D> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (inward, outward) = (self.poll_inward(cx), self.poll_outward(cx));
        let _ = self.through.poll_flush(cx);
        if inward.is_ready() || outward.is_ready() {
            return Poll::Ready(());
        }
        self.poll_idle(cx)
    }

    /// From the socket into the tunnel; ready at an end.
    fn poll_inward(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..IN_A_ROW_MAX {
            let frame = BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(DATAGRAM_BYTES_MAX, 0);
                let mut into = ReadBuf::new(buffer);
                self.side.poll_receive(cx, &mut into).map(|got| got.map(|()| frame(into.filled())))
            });
            let frame = match frame {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(());
                }
                // As that nobody listens there, which may change.
                Poll::Ready(Err(_)) => continue,
                Poll::Ready(Ok(frame)) => frame,
            };
            self.last = Instant::now();
            match self.through.poll_room(cx) {
                Poll::Pending => self.dropped.add(1),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) if self.through.push(frame).is_err() => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// From the tunnel to the socket; ready at an end.
    fn poll_outward(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..IN_A_ROW_MAX {
            if let Some(datagram) = self.frames.first() {
                // One that cannot be sent is lost, as it would be anywhere.
                if self.side.poll_send(cx, datagram).is_pending() {
                    return Poll::Pending;
                }
                self.frames.next();
                self.last = Instant::now();
                continue;
            }
            match self.through.poll_read(READ_BYTES_MAX, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Read::Bytes(bytes)) => self.frames.push(bytes),
                Poll::Ready(Read::Finished | Read::Closed(_)) => return Poll::Ready(()),
                Poll::Ready(Read::Wait) => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let until = self.last + self.idle;
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}

/// A datagram with its length before it.
fn frame(datagram: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + datagram.len());
    frame.put_u16(u16::try_from(datagram.len()).unwrap_or(u16::MAX));
    frame.put_slice(datagram);
    frame.freeze()
}

/// Datagrams out of bytes, however these are cut. Holds one datagram and what came with its end.
#[derive(Debug, Default)]
struct Frames {
    partial: BytesMut,
    whole: VecDeque<Bytes>,
}

impl Frames {
    fn push(&mut self, bytes: Bytes) {
        self.partial.extend_from_slice(&bytes);
        while let Some(head) = self.partial.first_chunk::<HEAD_BYTES>() {
            let length = usize::from(u16::from_be_bytes(*head));
            if self.partial.len() < HEAD_BYTES + length {
                return;
            }
            self.partial.advance(HEAD_BYTES);
            self.whole.push_back(self.partial.split_to(length).freeze());
        }
    }

    fn first(&self) -> Option<&[u8]> {
        self.whole.front().map(|datagram| &datagram[..])
    }

    fn next(&mut self) {
        self.whole.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_survive_any_cut() {
        let sent: Vec<Vec<u8>> = [0, 1, 2, 300, DATAGRAM_BYTES_MAX, 0, 7]
            .iter()
            .map(|length| (0..*length).map(|at| (at % 251) as u8).collect())
            .collect();
        let stream: Vec<u8> = sent.iter().flat_map(|datagram| frame(datagram)).collect();
        for piece in [1, 2, 3, 1000, stream.len()] {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for chunk in stream.chunks(piece) {
                frames.push(Bytes::copy_from_slice(chunk));
                while let Some(datagram) = frames.first() {
                    seen.push(datagram.to_vec());
                    frames.next();
                }
            }
            assert!(seen == sent && frames.partial.is_empty(), "in pieces of {piece}");
        }
    }
}
