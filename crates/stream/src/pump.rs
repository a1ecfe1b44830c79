//! Bytes both ways between two connections, until both directions have ended.
//!
//! Each direction reads into a buffer of the worker and writes it out at once; only what the other side does not take
//! is kept. Where reads go on being full, the kernel moves the bytes through a pipe instead, without copying them. An
//! end of one direction is passed on as one (half-close); a connection that breaks off is broken off on the other side
//! too, so that nobody takes half a stream for a whole one. Must not know what the bytes are. [`half`] is one
//! direction.

mod half;
mod side;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use net::timer::Timer;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use self::half::{Half, Stage};
pub use self::side::Side;
use crate::buffers::Buffer;
use crate::keep_alive;
use crate::opening::Opening;

/// A connection is new for so long.
const NEW_FOR: Duration = Duration::from_secs(10);

/// Is told what moves. Both are called on the worker's thread, for every read.
pub trait Meter {
    /// So many bytes came from the client.
    fn up(&self, bytes: usize);
    /// So many bytes came from the other side.
    fn down(&self, bytes: usize);
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

#[cfg(test)]
mod tests;
