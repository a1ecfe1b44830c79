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
use crate::link::{Closed, Read};

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
    /// What its end means where TLS has not said that it is one.
    pub(crate) cut: Cut,
}

/// What an end means that TLS has not announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It has broken off.
    BreaksOff,
    /// An end like any other: clients that are not ours leave so.
    Ends,
}

/// A connection through the tunnel.
pub(crate) trait Through {
    /// Payload, or how it ended; never [`Read::Wait`].
    fn poll_read(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Read>;
    /// How much payload is taken now, at least a byte.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>>;
    /// Gives it payload, as much as there is room for.
    fn push(&mut self, bytes: Bytes) -> Result<(), Closed>;
    /// Nothing more is sent. Without half-close that ends the connection.
    fn finish(&mut self);
    /// Ready when what was given needs no further polling.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
    /// Whether the end of one direction leaves the other open.
    fn has_half_close(&self) -> bool;
    /// Whether the other side has closed it, as far as is known.
    fn is_closed(&self) -> bool;
    /// Ready when the other side has closed it, also where one direction has ended before.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<String>;
    /// Ends it after what it was given; with a reason it has broken off.
    fn close(self, reason: &str);
}

impl Through for Tunnelled {
    fn poll_read(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Read> {
        Tunnelled::poll_read(self, most, cx)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        Tunnelled::poll_room(self, cx)
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Closed> {
        Tunnelled::push(self, bytes)
    }

    fn finish(&mut self) {
        Tunnelled::finish(self);
    }

    fn has_half_close(&self) -> bool {
        Tunnelled::has_half_close(self)
    }

    fn is_closed(&self) -> bool {
        Tunnelled::is_closed(self)
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        Tunnelled::poll_closed(self, cx)
    }

    fn close(self, reason: &str) {
        Tunnelled::close(self, reason);
    }
}

/// Carries bytes until it is over. `first` has been read from the other connection already. A connection that breaks
/// off on one side is broken off on the other, so that nobody takes a part for the whole. Dropped, both connections are
/// closed.
pub(crate) async fn splice<T, S>(
    mut through: T,
    mut other: S,
    first: Bytes,
    Manners { linger, reset, cut }: Manners<S>,
) -> End
where
    T: Through,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut inward = Inward::default();
    let mut lingering = Patience::default();
    let mut stuck = Patience::default();
    let mut outward = Outward::default();
    if !first.is_empty() {
        // It is over where it does not take it; what is read next says so.
        let _ = through.push(first);
    }
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = outward.poll(&mut through, &mut other, cx) {
            return Poll::Ready(end);
        }
        let (blocked, written) = (outward.left.has_remaining(), outward.written);
        if let Some(linger) = linger.filter(|_| blocked)
            && lingering.poll(linger, || (written, through.is_closed()), cx).is_ready()
        {
            return Poll::Ready(End::Failed);
        }
        if !inward.ended
            && let Poll::Ready(how) = inward.poll(&mut through, &mut other, cx)
        {
            inward.ended = true;
            match how {
                InwardEnd::Finished if through.has_half_close() => through.finish(),
                InwardEnd::Finished => return Poll::Ready(End::Finished),
                InwardEnd::Cut if cut == Cut::Ends => return Poll::Ready(End::Finished),
                InwardEnd::Cut | InwardEnd::Failed => return Poll::Ready(End::Failed),
                // What has come from the tunnel is still to be passed on.
                InwardEnd::NotTaken => {}
            }
        }
        let is_flushed = through.poll_flush(cx).is_ready();
        if outward.stage == Stage::Ended {
            if inward.ended && is_flushed {
                return Poll::Ready(End::Finished);
            }
            if let Poll::Ready(reason) = through.poll_closed(cx) {
                return Poll::Ready(End::Closed(reason));
            }
        }
        let moved = || (written + inward.pushed, inward.ended || inward.full);
        if moved().1 && stuck.poll(STUCK_MAX, moved, cx).is_ready() {
            return Poll::Ready(End::Failed);
        }
        Poll::Pending
    })
    .await;
    leave(through, other, &end, reset).await;
    end
}

/// Ends both connections as one of them has ended.
async fn leave<T, S>(through: T, mut other: S, end: &End, reset: fn(&S))
where
    T: Through,
    S: AsyncRead + AsyncWrite + Unpin,
{
    match end {
        End::Finished => through.close(""),
        End::Failed => {
            reset(&other);
            through.close("the connection broke off");
        }
        End::Closed(reason) => {
            through.close("");
            if reason.is_empty() {
                // What was written is still to be sent, with the end after it.
                let _ = poll_fn(|cx| Pin::new(&mut other).poll_shutdown(cx)).await;
            } else {
                reset(&other);
            }
        }
    }
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
    /// The other connection ended without a word.
    Cut,
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
    fn poll<T: Through, S: AsyncRead + Unpin>(
        &mut self,
        through: &mut T,
        other: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<InwardEnd> {
        for _ in 0..STEPS_IN_A_ROW_MAX {
            let room = through.poll_room(cx);
            self.full = room.is_pending();
            let Ok(room) = ready!(room) else { return Poll::Ready(InwardEnd::NotTaken) };
            match ready!(poll_bytes(other, room, cx)) {
                Ok(bytes) if bytes.is_empty() => return Poll::Ready(InwardEnd::Finished),
                Ok(bytes) => {
                    self.pushed += bytes.len() as u64;
                    if through.push(bytes).is_err() {
                        return Poll::Ready(InwardEnd::NotTaken);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(InwardEnd::Cut);
                }
                Err(_) => return Poll::Ready(InwardEnd::Failed),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Reads what there is, at most so much; nothing is the end.
pub(crate) fn poll_bytes<S: AsyncRead + Unpin>(
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
    fn poll<T: Through, S: AsyncWrite + Unpin>(
        &mut self,
        through: &mut T,
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
            let Poll::Ready(read) = through.poll_read(OUT_BYTES_MAX, cx) else {
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
