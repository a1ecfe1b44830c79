//! One direction of a connection that is carried: what is read is written at once, what is not taken is kept, and where
//! there is much a pipe takes the place of the buffer. Must not know of the other direction but whether it has ended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::side::Side;
use crate::buffers::{BUFFER_BYTES, Buffer, FIRST_READ_BYTES};
use crate::pipes::Held;

/// Reads in a row before other connections of the worker get their turn.
const READS_IN_A_ROW_MAX: usize = 16;
/// As much is moved at most before that.
const TURN_BYTES: usize = READS_IN_A_ROW_MAX * BUFFER_BYTES;
/// Full reads of [`BUFFER_BYTES`] in a row after which a pipe is used.
const FULL_READS: u8 = 4;
/// A stream that has less than this at once is better copied.
const PIPED_BYTES_MIN: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Bytes may come.
    Open,
    /// The source has ended, and the sink has been told.
    Done,
    /// The sink takes nothing any more.
    Lost,
}

/// One direction.
pub(super) struct Half {
    pub(super) stage: Stage,
    /// The source has ended; what is left over is still to be written.
    pub(super) ended: bool,
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
                    let sink = sink.sink().ok_or(io::ErrorKind::Unsupported)?;
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
pub(super) type Flow = std::ops::ControlFlow<()>;

impl Half {
    pub(super) fn new(first: Vec<u8>) -> Self {
        let left = if first.is_empty() { Left::Nothing } else { Left::Small(first, 0) };
        Self { stage: Stage::Open, ended: false, left, reads: FIRST_READ_BYTES, full_reads: 0 }
    }

    /// Moves what can be moved. What is left to wait for will wake the task. Breaks where the source broke off. Where
    /// `is_last`, the other direction has ended, and closing will say that this one has too.
    pub(super) fn poll(
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
            if self.ended && is_last && sink.sink().is_some() {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Pin::new(sink).poll_shutdown(cx).map_err(|_| Failed::Sink);
            }
            if *moved >= turn_ends {
                break;
            }
            let pipe = source.source().filter(|_| sink.sink().is_some()).zip(self.pipe());
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
