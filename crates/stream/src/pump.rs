//! Bytes both ways between two connections, until both directions have ended.
//!
//! Each direction reads into a buffer of the worker and writes it out at once; only what the other side does not take
//! is kept. An end of one direction is passed on as one (half-close); a connection that breaks off is broken off on the
//! other side too, so that nobody takes half a stream for a whole one. Must not know what the bytes are.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use net::timer::Timer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::buffers::{BUFFER_BYTES, Buffer, FIRST_READ_BYTES};
use crate::opening::Opening;

/// Reads in a row before other connections of the worker get their turn.
const READS_IN_A_ROW_MAX: usize = 16;

/// Is told what moves. Both are called on the worker's thread, for every read.
pub trait Meter {
    /// So many bytes came from the client.
    fn up(&self, bytes: usize);
    /// So many bytes came from the other side.
    fn down(&self, bytes: usize);
}

/// One side of a connection that is carried.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Makes the close that follows a reset, so that nobody takes what came before it for complete. Where that fails it
    /// is closed in the usual way.
    fn reset_on_close(&self);
}

impl Side for TcpStream {
    fn reset_on_close(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Side for net::dial::Stream {
    fn reset_on_close(&self) {
        Self::reset_on_close(self);
    }
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unmetered;

impl Meter for Unmetered {
    fn up(&self, _: usize) {}
    fn down(&self, _: usize) {}
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides had said all.
    Finished,
    /// A side broke off, and the other was broken off too.
    Broken,
    /// Nothing moved for too long; both were broken off.
    Idle,
}

impl End {
    /// A word for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Broken => "broken",
            Self::Idle => "idle",
        }
    }
}

/// Carries bytes between a client and a server until both have ended, one has broken off, or nothing has moved for
/// `idle`. `opening` says what becomes of the client's first bytes, with the moment that it is waited for; `first` is
/// for the client, before anything that the server sends from now on.
///
/// Dropped, it closes both connections.
pub async fn pump(
    mut client: impl Side,
    mut server: impl Side,
    opening: Option<(Opening, Duration)>,
    first: Vec<u8>,
    idle: Option<Duration>,
    meter: &impl Meter,
) -> End {
    let mut up = Half::new(Vec::new());
    let mut down = Half::new(first);
    let mut opening = opening.map(|(opening, moment)| Box::new(Opens::new(opening, moment)));
    if let Some(Some(first)) = opening.as_mut().map(|opens| opens.opening.at_once()) {
        up = Half::new(first);
        opening = None;
    }
    let timer = Timer::new();
    if let Some(idle) = idle {
        timer.set(idle);
    }
    let end = poll_fn(|cx| {
        let (mut moved_up, mut moved_down) = (0, 0);
        if let Some(opens) = &mut opening
            && let Poll::Ready(first) = opens.poll(cx, &mut client, &mut moved_up)
        {
            match first {
                Ok((bytes, ended)) => {
                    up = Half::new(bytes);
                    up.ended |= ended;
                }
                Err(_) => return Poll::Ready(End::Broken),
            }
            opening = None;
        }
        if opening.is_none() && up.poll(cx, &mut client, &mut server, &mut moved_up).is_break() {
            return Poll::Ready(End::Broken);
        }
        if down.poll(cx, &mut server, &mut client, &mut moved_down).is_break() {
            return Poll::Ready(End::Broken);
        }
        meter.up(moved_up);
        meter.down(moved_down);
        match (up.stage, down.stage) {
            (Stage::Done, Stage::Done) => return Poll::Ready(End::Finished),
            (Stage::Done | Stage::Lost, Stage::Done | Stage::Lost) => {
                return Poll::Ready(End::Broken);
            }
            // Nobody would read what the client says.
            (_, Stage::Lost) => return Poll::Ready(End::Broken),
            _ => {}
        }
        if let Some(idle) = idle.filter(|_| moved_up + moved_down > 0) {
            timer.set(idle);
        }
        timer.poll_expired(cx).map(|()| End::Idle)
    })
    .await;
    if end != End::Finished {
        client.reset_on_close();
        server.reset_on_close();
    }
    end
}

/// The beginning of what the client says.
struct Opens {
    opening: Opening,
    moment: Duration,
    timer: Timer,
    waiting: bool,
}

impl Opens {
    fn new(opening: Opening, moment: Duration) -> Self {
        Self { opening, moment, timer: Timer::new(), waiting: false }
    }

    /// Ready with what the server gets, and whether the client has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut impl Side,
        moved: &mut usize,
    ) -> Poll<io::Result<(Vec<u8>, bool)>> {
        const AT_A_TIME_BYTES: usize = 4096;
        let mut buf = [0; AT_A_TIME_BYTES];
        loop {
            let mut read = ReadBuf::new(&mut buf);
            match Pin::new(&mut *client).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    return Poll::Ready(Ok((self.opening.give_up(), true)));
                }
                Poll::Ready(Ok(())) => {
                    *moved += read.filled().len();
                    if let Some(out) = self.opening.push(read.filled()) {
                        return Poll::Ready(Ok((out, false)));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        if !self.waiting
            && let Some(patience) = self.opening.patience(self.moment)
        {
            self.waiting = true;
            self.timer.set(patience);
        }
        self.timer.poll_expired(cx).map(|()| Ok((self.opening.give_up(), false)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Bytes may come.
    Open,
    /// The source has ended, and the sink has been told.
    Done,
    /// The sink takes nothing any more.
    Lost,
}

/// One direction.
struct Half {
    stage: Stage,
    /// The source has ended; what is left over is still to be written.
    ended: bool,
    left: Left,
    /// How much to read at once.
    reads: usize,
}

/// What the sink has not taken, from the first index to the second.
enum Left {
    Nothing,
    Large(Buffer, usize, usize),
    Small(Vec<u8>, usize),
}

impl Left {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Large(buffer, from, to) => &buffer[*from..*to],
            Self::Small(bytes, from) => &bytes[*from..],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Nothing => {}
            Self::Large(_, from, _) | Self::Small(_, from) => *from += count,
        }
        if self.bytes().is_empty() {
            *self = Self::Nothing;
        }
    }
}

/// Whether the whole connection is to be broken off.
type Flow = std::ops::ControlFlow<()>;

impl Half {
    fn new(first: Vec<u8>) -> Self {
        let left = if first.is_empty() { Left::Nothing } else { Left::Small(first, 0) };
        Self { stage: Stage::Open, ended: false, left, reads: FIRST_READ_BYTES }
    }

    /// Moves what can be moved. What is left to wait for will wake the task. Breaks where the source broke off.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Side,
        sink: &mut impl Side,
        moved: &mut usize,
    ) -> Flow {
        if self.stage != Stage::Open {
            return Flow::Continue(());
        }
        match self.poll_open(cx, source, sink, moved) {
            Poll::Pending => Flow::Continue(()),
            Poll::Ready(Ok(())) => {
                self.stage = Stage::Done;
                Flow::Continue(())
            }
            Poll::Ready(Err(Failed::Sink)) => {
                // What it may still have to say is the other direction's.
                self.stage = Stage::Lost;
                self.left = Left::Nothing;
                Flow::Continue(())
            }
            Poll::Ready(Err(Failed::Source)) => Flow::Break(()),
        }
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Side,
        sink: &mut impl Side,
        moved: &mut usize,
    ) -> Poll<Result<(), Failed>> {
        for _ in 0..READS_IN_A_ROW_MAX {
            while !self.left.bytes().is_empty() {
                let wrote = ready!(Pin::new(&mut *sink).poll_write(cx, self.left.bytes()));
                self.left.advance(wrote.map_err(|_| Failed::Sink)?);
            }
            if self.ended {
                return Pin::new(sink).poll_shutdown(cx).map_err(|_| Failed::Sink);
            }
            let mut buffer = Buffer::take();
            let most = if Buffer::are_short() { FIRST_READ_BYTES } else { self.reads };
            let mut read = ReadBuf::new(&mut buffer[..most]);
            if Pin::new(&mut *source)
                .poll_read(cx, &mut read)
                .map_err(|_| Failed::Source)?
                .is_pending()
            {
                self.reads = FIRST_READ_BYTES;
                // An encrypted sink may have taken more than it could send.
                ready!(Pin::new(sink).poll_flush(cx)).map_err(|_| Failed::Sink)?;
                return Poll::Pending;
            }
            let count = read.filled().len();
            if count == 0 {
                self.ended = true;
                continue;
            }
            *moved += count;
            if count == most {
                self.reads = (self.reads * 4).min(BUFFER_BYTES);
            }
            let wrote = match Pin::new(&mut *sink).poll_write(cx, &buffer[..count]) {
                Poll::Ready(wrote) => wrote.map_err(|_| Failed::Sink)?,
                Poll::Pending => 0,
            };
            if wrote < count {
                self.left = leave(buffer, wrote, count);
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Keeps what was not taken; little of it does not hold a whole buffer.
fn leave(buffer: Buffer, from: usize, to: usize) -> Left {
    if to - from <= FIRST_READ_BYTES {
        Left::Small(buffer[from..to].to_vec(), 0)
    } else {
        Left::Large(buffer, from, to)
    }
}

/// Which side of a direction failed.
#[derive(Debug, Clone, Copy)]
enum Failed {
    Source,
    Sink,
}

#[cfg(test)]
mod tests;
