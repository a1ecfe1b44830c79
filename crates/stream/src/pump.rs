//! Bytes both ways between two connections, until both directions have ended.
//!
//! Each direction reads into a buffer of the worker and writes it out at once; only what the other side does not take
//! is kept. Where reads go on being full, the kernel moves the bytes through a pipe instead, without copying them. An
//! end of one direction is passed on as one (half-close); a connection that breaks off is broken off on the other side
//! too, so that nobody takes half a stream for a whole one. Must not know what the bytes are.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use net::timer::Timer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::buffers::{BUFFER_BYTES, Buffer, FIRST_READ_BYTES};
use crate::keep_alive;
use crate::opening::Opening;
use crate::pipes::Held;

/// Reads in a row before other connections of the worker get their turn.
const READS_IN_A_ROW_MAX: usize = 16;
/// As much is moved at most before that.
const TURN_BYTES: usize = READS_IN_A_ROW_MAX * BUFFER_BYTES;
/// Full reads of [`BUFFER_BYTES`] in a row after which a pipe is used.
const FULL_READS: u8 = 4;
/// A connection is new for so long.
const NEW_FOR: Duration = Duration::from_secs(10);
/// A stream that has less than this at once is better copied.
const PIPED_BYTES_MIN: usize = 64 * 1024;

/// Is told what moves. Both are called on the worker's thread, for every read.
pub trait Meter {
    /// So many bytes came from the client.
    fn up(&self, bytes: usize);
    /// So many bytes came from the other side.
    fn down(&self, bytes: usize);
}

/// One side of a connection that is carried.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The socket, where nothing stands between it and the bytes: what is read from the one is read from the other.
    fn tcp(&self) -> Option<&TcpStream>;

    /// The socket below it, for its options, whatever stands in between.
    fn socket(&self) -> Option<&TcpStream> {
        self.tcp()
    }

    /// Makes the close that follows a reset, so that nobody takes what came before it for complete. Where that fails it
    /// is closed in the usual way.
    fn reset_on_close(&self);
}

impl Side for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn reset_on_close(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Side for net::dial::Stream {
    fn tcp(&self) -> Option<&TcpStream> {
        Self::tcp(self)
    }

    fn socket(&self) -> Option<&TcpStream> {
        Self::socket(self)
    }

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
    let mut silence = Silence::new(idle);
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
        let is_last = down.stage == Stage::Done;
        if opening.is_none()
            && up.poll(cx, &mut client, &mut server, is_last, &mut moved_up).is_break()
        {
            return Poll::Ready(End::Broken);
        }
        let is_last = up.stage == Stage::Done;
        if down.poll(cx, &mut server, &mut client, is_last, &mut moved_down).is_break() {
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
        if moved_up + moved_down > 0 {
            silence.is_broken();
        }
        silence.poll(cx, &server).map(|()| End::Idle)
    })
    .await;
    if end != End::Finished {
        client.reset_on_close();
        server.reset_on_close();
    }
    end
}

/// How long nothing has moved, and what follows from it.
struct Silence {
    idle: Option<Duration>,
    timer: Timer,
    /// When something moved, while the connection is new.
    last: Instant,
    is_new: bool,
}

impl Silence {
    fn new(idle: Option<Duration>) -> Self {
        let timer = Timer::new();
        timer.set(idle.unwrap_or(NEW_FOR).min(NEW_FOR));
        Self { idle, timer, last: Instant::now(), is_new: true }
    }

    /// Something has moved.
    fn is_broken(&mut self) {
        match (self.is_new, self.idle) {
            (true, _) => self.last = Instant::now(),
            (false, Some(idle)) => self.timer.set(idle),
            (false, None) => {}
        }
    }

    /// Ready when it has lasted too long. A server that is no longer new is asked from now on whether it lives: most
    /// connections end before, and save the system calls.
    fn poll(&mut self, cx: &mut Context<'_>, server: &impl Side) -> Poll<()> {
        ready!(self.timer.poll_expired(cx));
        if self.is_new {
            self.is_new = false;
            if let Some(server) = server.socket() {
                let _ = keep_alive(server);
            }
            let Some(idle) = self.idle else {
                self.timer.clear();
                return Poll::Pending;
            };
            self.timer.set(idle.saturating_sub(self.last.elapsed()));
            ready!(self.timer.poll_expired(cx));
        }
        Poll::Ready(())
    }
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
        let mut buffer = Buffer::take();
        loop {
            let mut read = ReadBuf::new(&mut buffer[..AT_A_TIME_BYTES]);
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
    /// Reads of [`BUFFER_BYTES`] in a row that were full, as far as [`FULL_READS`].
    full_reads: u8,
}

/// What the sink has not taken, from the first index to the second.
enum Left {
    Nothing,
    Large(Buffer, usize, usize),
    Small(Vec<u8>, usize),
    Piped(Held),
}

impl Left {
    /// Writes it out. Ready when nothing is left.
    fn poll_write(&mut self, cx: &mut Context<'_>, sink: &mut impl Side) -> Poll<io::Result<()>> {
        loop {
            let bytes = match self {
                Self::Nothing => return Poll::Ready(Ok(())),
                Self::Large(buffer, from, to) => &buffer[*from..*to],
                Self::Small(bytes, from) => &bytes[*from..],
                Self::Piped(held) => {
                    // Only what goes to a socket is taken into a pipe.
                    let sink = sink.tcp().ok_or(io::ErrorKind::Unsupported)?;
                    while held.pipe.held() > 0 {
                        ready!(held.pipe.poll_drain(cx, sink))?;
                    }
                    &[]
                }
            };
            if bytes.is_empty() {
                if let Self::Piped(held) = std::mem::replace(self, Self::Nothing) {
                    held.give_back();
                }
                return Poll::Ready(Ok(()));
            }
            let wrote = ready!(Pin::new(&mut *sink).poll_write(cx, bytes))?;
            if let Self::Large(_, from, _) | Self::Small(_, from) = self {
                *from += wrote;
            }
        }
    }
}

/// Whether the whole connection is to be broken off.
type Flow = std::ops::ControlFlow<()>;

impl Half {
    fn new(first: Vec<u8>) -> Self {
        let left = if first.is_empty() { Left::Nothing } else { Left::Small(first, 0) };
        Self { stage: Stage::Open, ended: false, left, reads: FIRST_READ_BYTES, full_reads: 0 }
    }

    /// Moves what can be moved. What is left to wait for will wake the task. Breaks where the source broke off. Where
    /// `is_last`, the other direction has ended, and closing will say that this one has too.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Side,
        sink: &mut impl Side,
        is_last: bool,
        moved: &mut usize,
    ) -> Flow {
        if self.stage != Stage::Open {
            return Flow::Continue(());
        }
        match self.poll_open(cx, source, sink, is_last, moved) {
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
        is_last: bool,
        moved: &mut usize,
    ) -> Poll<Result<(), Failed>> {
        let turn_ends = *moved + TURN_BYTES;
        for _ in 0..READS_IN_A_ROW_MAX {
            ready!(self.left.poll_write(cx, sink)).map_err(|_| Failed::Sink)?;
            if self.ended && is_last && sink.tcp().is_some() {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Pin::new(sink).poll_shutdown(cx).map_err(|_| Failed::Sink);
            }
            if *moved >= turn_ends {
                break;
            }
            let pipe = source.tcp().filter(|_| sink.tcp().is_some()).zip(self.pipe());
            let count = match pipe {
                Some((source, pipe)) => ready!(self.poll_splice(cx, pipe, source))?,
                None => ready!(self.poll_copy(cx, source, sink))?,
            };
            *moved += count;
            self.ended = count == 0;
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// A pipe, where it pays and there is one.
    fn pipe(&mut self) -> Option<Held> {
        if self.full_reads < FULL_READS {
            return None;
        }
        let pipe = Held::take();
        if pipe.is_none() {
            // Not asked for again with every read.
            self.full_reads = 0;
        }
        pipe
    }

    /// Takes what the source has into a pipe, to be written next: so many bytes.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        mut held: Held,
        source: &TcpStream,
    ) -> Poll<Result<usize, Failed>> {
        let filled = held.pipe.poll_fill(cx, source).map_err(|_| Failed::Source)?;
        let Poll::Ready(count) = filled else {
            held.give_back();
            return Poll::Pending;
        };
        if count < PIPED_BYTES_MIN {
            self.full_reads = 0;
        }
        self.left = Left::Piped(held);
        Poll::Ready(Ok(count))
    }

    /// Reads into a buffer and writes it out as far as the sink takes it: so many bytes were read.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Side,
        sink: &mut impl Side,
    ) -> Poll<Result<usize, Failed>> {
        let mut buffer = Buffer::take();
        let most = if Buffer::are_short() { FIRST_READ_BYTES } else { self.reads };
        let mut read = ReadBuf::new(&mut buffer[..most]);
        let polled = Pin::new(source).poll_read(cx, &mut read).map_err(|_| Failed::Source)?;
        if polled.is_pending() {
            // An encrypted sink may have taken more than it could send.
            ready!(Pin::new(sink).poll_flush(cx)).map_err(|_| Failed::Sink)?;
            return Poll::Pending;
        }
        let count = read.filled().len();
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        self.learn(count, most);
        let wrote = match Pin::new(sink).poll_write(cx, &buffer[..count]) {
            Poll::Ready(wrote) => wrote.map_err(|_| Failed::Sink)?,
            Poll::Pending => 0,
        };
        if wrote < count {
            self.left = leave(buffer, wrote, count);
        }
        Poll::Ready(Ok(count))
    }

    /// How much to read the next time, after a read of `count` bytes of `most`.
    fn learn(&mut self, count: usize, most: usize) {
        let full = count == most;
        self.full_reads = match full && most == BUFFER_BYTES {
            true => self.full_reads.saturating_add(1),
            false => 0,
        };
        if full {
            self.reads = (self.reads * 4).min(BUFFER_BYTES);
        } else if count < self.reads / 4 {
            self.reads = (self.reads / 4).max(FIRST_READ_BYTES);
        }
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
