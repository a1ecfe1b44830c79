//! Bodies in motion: a [`Source`] on one side, a [`Sink`] on the other, and the [`pump`] between them.
//!
//! A source is asked for more only when the sink has taken what there was: back-pressure, with one buffer's worth
//! under way. Must not know protocols; each has its own sources and sinks.

use std::cell::Cell;
use std::time::Duration;

use net::timer::Timer;

use crate::head::Fields;

/// What a body consists of.
#[derive(Debug)]
pub(crate) enum Piece<'b> {
    /// Some bytes.
    Data(&'b [u8]),
    /// The end, with the trailer section if there was one.
    End(Option<Box<Fields>>),
}

/// A body did not go well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It ended before it was complete.
    #[error("the body was cut off")]
    Cut,
    /// Its coding is broken, or it is longer than was said.
    #[error("the body is malformed")]
    Malformed,
    /// It is longer than is allowed here.
    #[error("the body is too large")]
    TooLarge,
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
    /// The other side gave the stream up (HTTP/2).
    #[error("the stream was reset")]
    Reset,
}

impl From<crate::h1::chunked::ChunkError> for BodyError {
    fn from(_: crate::h1::chunked::ChunkError) -> Self {
        Self::Malformed
    }
}

/// Where a body comes from.
pub(crate) trait Source {
    /// The next piece, if one is there without waiting. What it gave before is done with.
    fn try_next(&mut self) -> Result<Option<Piece<'_>>, BodyError>;

    /// Waits until [`Self::try_next`] has more to say. Dropped, nothing is lost.
    async fn wait(&mut self) -> Result<(), BodyError>;

    /// From here on the body is everything until the other side ends: the protocol was changed.
    fn switch_to_raw(&mut self);
}

/// Where a body goes.
pub(crate) trait Sink {
    /// Takes some bytes; may keep them until [`Self::flush`]. Dropped, a part may have gone.
    async fn data(&mut self, data: &[u8]) -> Result<(), BodyError>;

    /// Sends what was kept. Dropped, a part may have gone.
    async fn flush(&mut self) -> Result<(), BodyError>;

    /// Ends the body and sends everything. An error where it is not complete.
    async fn end(&mut self, trailers: Option<&Fields>) -> Result<(), BodyError>;

    /// From here on the body ends with the connection's direction: the protocol was changed.
    fn switch_to_raw(&mut self);
}

/// Which end of a pump failed.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The source.
    Source(BodyError),
    /// The sink.
    Sink(BodyError),
}

/// Which end of a pump is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The source has nothing.
    Source,
    /// The sink takes nothing.
    Sink,
}

/// Watches a pump: every piece moves the deadline, and whoever it waits for is known when the deadline passes.
#[derive(Debug)]
pub(crate) struct Progress<'t> {
    timer: &'t Timer,
    idle: Duration,
    waiting_for: Cell<End>,
}

impl<'t> Progress<'t> {
    /// Nothing may stand still for longer than `idle`.
    pub(crate) fn new(timer: &'t Timer, idle: Duration) -> Self {
        Self { timer, idle, waiting_for: Cell::new(End::Source) }
    }

    /// Who is waited for.
    pub(crate) fn waiting_for(&self) -> End {
        self.waiting_for.get()
    }

    fn moved(&self) {
        self.timer.set(self.idle);
    }
}

/// Moves a whole body. Gives the number of data bytes. Dropped, a part has gone and the sink's message is unfinished.
pub(crate) async fn pump(
    source: &mut impl Source,
    sink: &mut impl Sink,
    progress: &Progress<'_>,
) -> Result<u64, PumpError> {
    let mut bytes = 0;
    loop {
        match source.try_next().map_err(PumpError::Source)? {
            Some(Piece::Data(data)) => {
                bytes += data.len() as u64;
                progress.waiting_for.set(End::Sink);
                sink.data(data).await.map_err(PumpError::Sink)?;
                progress.moved();
            }
            Some(Piece::End(trailers)) => {
                progress.waiting_for.set(End::Sink);
                sink.end(trailers.as_deref()).await.map_err(PumpError::Sink)?;
                progress.moved();
                return Ok(bytes);
            }
            None => {
                progress.waiting_for.set(End::Sink);
                sink.flush().await.map_err(PumpError::Sink)?;
                progress.waiting_for.set(End::Source);
                source.wait().await.map_err(PumpError::Source)?;
            }
        }
    }
}
