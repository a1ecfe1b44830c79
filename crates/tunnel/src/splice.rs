//! Bytes both ways between a connection through the tunnel and any other one.
//!
//! Must not know what the bytes are, nor how either connection came about.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Sleep;

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
/// How long what a client sent before it closed waits for a target that takes nothing of it; at most twice as long.
pub(crate) const LINGER: Duration = Duration::from_secs(60);
/// How long a connection may be stuck: nothing is taken of what came from the one side, or one direction has ended and
/// nothing comes in the other. Whoever has gone altogether looks the same as who is slow, or only has nothing more to
/// say.
pub(crate) const STUCK_MAX: Duration = Duration::from_secs(3600);
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

/// What depends on who is on the other side.
#[derive(Debug)]
pub(crate) struct Manners<S> {
    /// How long what is left may wait for one that takes nothing, once the tunnel's side is gone; `None`: for ever.
    pub(crate) linger: Option<Duration>,
    /// Makes its close a reset, where it can: what it got is not the whole.
    pub(crate) reset: fn(&S),
}

/// Carries bytes until it is over. `first` has been read from the other connection already. A connection that breaks
/// off on one side is broken off on the other, so that nobody takes a part for the whole. Dropped, both connections are
/// closed.
pub(crate) async fn splice<S>(
    tunnelled: Tunnelled,
    mut other: S,
    first: Bytes,
    Manners { linger, reset }: Manners<S>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut inward = Inward::default();
    let mut lingering = Patience::default();
    let mut stuck = Patience::default();
    let mut outward = Outward::default();
    if !first.is_empty() {
        // It is over where it does not take it; what is read next says so.
        let _ = tunnelled.push(first);
    }
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = outward.poll(&tunnelled, &mut other, cx) {
            return Poll::Ready(end);
        }
        let (blocked, written) = (outward.left.has_remaining(), outward.written);
        if let Some(linger) = linger.filter(|_| blocked)
            && lingering.poll(linger, || (written, tunnelled.is_closed()), cx).is_ready()
        {
            return Poll::Ready(End::Failed);
        }
        if !inward.ended
            && let Poll::Ready(how) = inward.poll(&tunnelled, &mut other, cx)
        {
            inward.ended = true;
            match how {
                InwardEnd::Finished if tunnelled.has_half_close() => tunnelled.finish(),
                InwardEnd::Finished => return Poll::Ready(End::Finished),
                InwardEnd::Failed => return Poll::Ready(End::Failed),
                // What has come from the tunnel is still to be passed on.
                InwardEnd::NotTaken => {}
            }
        }
        if inward.ended && outward.stage == Stage::Ended {
            return Poll::Ready(End::Finished);
        }
        let moved = || (written + inward.pushed, inward.ended || inward.full);
        if moved().1 && stuck.poll(STUCK_MAX, moved, cx).is_ready() {
            return Poll::Ready(End::Failed);
        }
        Poll::Pending
    })
    .await;
    match &end {
        End::Finished => tunnelled.close(""),
        End::Failed => {
            reset(&other);
            tunnelled.close("the connection broke off");
        }
        End::Closed(reason) => {
            tunnelled.close("");
            if reason.is_empty() {
                // What was written is still to be sent, with the end after it.
                let _ = poll_fn(|cx| Pin::new(&mut other).poll_shutdown(cx)).await;
            } else {
                reset(&other);
            }
        }
    }
    end
}

/// Looks now and then whether bytes still move.
#[derive(Default)]
struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
    /// As it was when the timer was set.
    moved: u64,
}

impl Patience {
    /// Ready where no byte has moved for so long, at most twice, and the other thing is so as well.
    fn poll(
        &mut self,
        time: Duration,
        now: impl Fn() -> (u64, bool),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let timer = self.timer.get_or_insert_with(|| {
                self.moved = now().0;
                Box::pin(tokio::time::sleep(time))
            });
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
            if now() == (self.moved, true) {
                return Poll::Ready(());
            }
        }
    }
}

/// How the way into the tunnel ended.
enum InwardEnd {
    /// The other connection has said all.
    Finished,
    /// The other connection failed.
    Failed,
    /// The tunnel takes nothing any more.
    NotTaken,
}

/// From the other connection into the tunnel.
#[derive(Default)]
struct Inward {
    /// So far, to tell whether it goes on.
    pushed: u64,
    /// The tunnel takes nothing now.
    full: bool,
    ended: bool,
}

impl Inward {
    fn poll<S: AsyncRead + Unpin>(
        &mut self,
        tunnelled: &Tunnelled,
        other: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<InwardEnd> {
        for _ in 0..STEPS_IN_A_ROW_MAX {
            let room = tunnelled.poll_room(cx);
            self.full = room.is_pending();
            let Ok(room) = ready!(room) else { return Poll::Ready(InwardEnd::NotTaken) };
            match ready!(poll_bytes(other, room, cx)) {
                Ok(bytes) if bytes.is_empty() => return Poll::Ready(InwardEnd::Finished),
                Ok(bytes) => {
                    self.pushed += bytes.len() as u64;
                    if tunnelled.push(bytes).is_err() {
                        return Poll::Ready(InwardEnd::NotTaken);
                    }
                }
                Err(_) => return Poll::Ready(InwardEnd::Failed),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
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
    /// So far, to tell whether it goes on.
    written: u64,
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
                count => {
                    self.left.advance(count);
                    self.written += count as u64;
                }
            }
        }
        if self.stage == Stage::Ending {
            ready!(Pin::new(&mut *other).poll_shutdown(cx))?;
            self.stage = Stage::Ended;
        }
        Poll::Ready(Ok(()))
    }
}
