//! Bytes both ways between a connection through the tunnel and any other one.
//!
//! Must not know what the bytes are, nor how either connection came about.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::carrier::Tunnelled;
use crate::link::Read;

/// Read at once.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Taken from the tunnel at once.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// A thread's buffer: several reads fit, so that it is seldom made anew.
const BUFFER_BYTES: usize = 256 * 1024;
/// What is shorter than this is copied out of the buffer, which it would hold otherwise.
const SMALL_BYTES: usize = 4096;
/// Steps in a row before others have their turn.
const STEPS_IN_A_ROW_MAX: usize = 4;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides have said all, or the tunnel's side has closed it in order.
    Finished,
    /// The other connection failed.
    Failed,
    /// The tunnel's side closed it, for a reason if there is one.
    Closed(String),
}

/// Carries bytes until it is over. `first` has been read from the other connection already. Dropped, both connections
/// are closed.
pub(crate) async fn splice<S>(tunnelled: Tunnelled, mut other: S, first: Bytes) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut inward_ended = false;
    let mut outward = Outward::default();
    if !first.is_empty() {
        // It is over where it does not take it; what is read next says so.
        let _ = tunnelled.push(first);
    }
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = outward.poll(&tunnelled, &mut other, cx) {
            return Poll::Ready(end);
        }
        if !inward_ended && let Poll::Ready(how) = poll_inward(&tunnelled, &mut other, cx) {
            inward_ended = true;
            match how {
                Inward::Finished if tunnelled.has_half_close() => tunnelled.finish(),
                Inward::Finished => return Poll::Ready(End::Finished),
                Inward::Failed => return Poll::Ready(End::Failed),
                // What has come from the tunnel is still to be passed on.
                Inward::NotTaken => {}
            }
        }
        if inward_ended && outward.stage == Stage::Ended {
            return Poll::Ready(End::Finished);
        }
        Poll::Pending
    })
    .await;
    tunnelled.close("");
    if matches!(end, End::Closed(_)) {
        // What was written is still to be sent, with the end after it.
        let _ = poll_fn(|cx| Pin::new(&mut other).poll_shutdown(cx)).await;
    }
    end
}

/// How the way into the tunnel ended.
enum Inward {
    /// The other connection has said all.
    Finished,
    /// The other connection failed.
    Failed,
    /// The tunnel takes nothing any more.
    NotTaken,
}

/// From the other connection into the tunnel.
fn poll_inward<S: AsyncRead + Unpin>(
    tunnelled: &Tunnelled,
    other: &mut S,
    cx: &mut Context<'_>,
) -> Poll<Inward> {
    for _ in 0..STEPS_IN_A_ROW_MAX {
        let Ok(room) = ready!(tunnelled.poll_room(cx)) else {
            return Poll::Ready(Inward::NotTaken);
        };
        match ready!(poll_bytes(other, room, cx)) {
            Ok(bytes) if bytes.is_empty() => return Poll::Ready(Inward::Finished),
            Ok(bytes) => {
                if tunnelled.push(bytes).is_err() {
                    return Poll::Ready(Inward::NotTaken);
                }
            }
            Err(_) => return Poll::Ready(Inward::Failed),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Reads what there is, at most so much; nothing is the end.
fn poll_bytes<S: AsyncRead + Unpin>(
    from: &mut S,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < READ_BYTES_MAX {
            buffer.reserve(BUFFER_BYTES);
        }
        let mut limited = (&mut *buffer).limit(most.min(READ_BYTES_MAX));
        let count = ready!(pin!(from.read_buf(&mut limited)).poll(cx))?;
        if count >= SMALL_BYTES {
            return Poll::Ready(Ok(buffer.split().freeze()));
        }
        let bytes = Bytes::copy_from_slice(buffer);
        buffer.clear();
        Poll::Ready(Ok(bytes))
    })
}

/// From the tunnel to the other connection.
#[derive(Default)]
struct Outward {
    left: Bytes,
    stage: Stage,
    flushed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Open,
    /// The end is being passed on.
    Ending,
    Ended,
}

impl Outward {
    /// Ready where both directions are over.
    fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        tunnelled: &Tunnelled,
        other: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        for _ in 0..STEPS_IN_A_ROW_MAX {
            if ready!(self.poll_write(other, cx)).is_err() {
                return Poll::Ready(End::Failed);
            }
            if self.stage == Stage::Ended {
                return Poll::Pending;
            }
            let Poll::Ready(read) = tunnelled.poll_read(OUT_BYTES_MAX, cx) else {
                if !self.flushed && ready!(Pin::new(&mut *other).poll_flush(cx)).is_err() {
                    return Poll::Ready(End::Failed);
                }
                self.flushed = true;
                return Poll::Pending;
            };
            match read {
                Read::Bytes(bytes) => (self.left, self.flushed) = (bytes, false),
                Read::Closed(reason) => return Poll::Ready(End::Closed(reason)),
                Read::Finished => self.stage = Stage::Ending,
                // `poll_read` waits itself.
                Read::Wait => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is left, and the end after it.
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        other: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.has_remaining() {
            match ready!(Pin::new(&mut *other).poll_write(cx, &self.left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.left.advance(count),
            }
        }
        if self.stage == Stage::Ending {
            ready!(Pin::new(&mut *other).poll_shutdown(cx))?;
            self.stage = Stage::Ended;
        }
        Poll::Ready(Ok(()))
    }
}
