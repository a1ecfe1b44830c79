//! A connection over a byte stream, and the two ends of each of its calls, all on one thread.
//!
//! [`Connection`] reads and writes while somebody waits for its next call; the ends of calls only change the state that
//! they share with it, and wake it. They may outlive it: then their calls are over. What is read lands in a buffer of
//! the thread, so that a connection on which nothing happens has none. Must not know what calls say.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::core::{Core, Limits, Read, Urgency};
use crate::frame::Reason;
use crate::head::{Block, Head};
use crate::streams::Ends;
use crate::{Error, Payload};

/// How long acknowledgements wait for something that goes with them.
const ACK_HOLD: Duration = Duration::from_millis(1);
/// How long the head of an answer waits for its first message. A client that waits for the head is not kept for long.
const HEAD_HOLD: Duration = Duration::from_millis(10);
/// Read at once, and how often in a row before others have their turn.
const READ_BYTES: usize = 64 * 1024;
const READS_IN_A_ROW: u8 = 8;
/// Written in one call.
const SLICES: usize = 64;

thread_local! {
    /// Between reads it belongs to nobody.
    static READ_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Who waits for a stream.
#[derive(Debug, Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Ends for Waiting {
    fn readable(&mut self) {
        wake(&mut self.reader);
    }

    fn writable(&mut self) {
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn wait(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// What a connection has in common with the ends of its calls.
#[derive(Debug)]
struct State<P> {
    core: Core<P, Waiting>,
    /// Who drives the connection, and who waits for the answer to a PING.
    driver: Option<Waker>,
    asker: Option<Waker>,
}

type Shared<P> = Rc<RefCell<State<P>>>;

/// Does something to a connection, and wakes it if something is to be written sooner than before.
fn with<P: Payload, T>(shared: &Shared<P>, act: impl FnOnce(&mut Core<P, Waiting>) -> T) -> T {
    let state = &mut *shared.borrow_mut();
    let before = state.core.urgency();
    let done = act(&mut state.core);
    if state.core.urgency() > before {
        wake(&mut state.driver);
    }
    done
}

/// A client's connection. Nothing is read or written of it but in [`Self::ready`] and [`Self::accept`]; dropped, its
/// calls are over.
#[derive(Debug)]
pub struct Connection<S, P: Payload> {
    io: S,
    shared: Shared<P>,
    /// Until when what is held back may wait, and why.
    hold: Option<(Urgency, Pin<Box<Sleep>>)>,
    flushing: bool,
    reads: u8,
}

/// One call of a client.
#[derive(Debug)]
pub struct Call<P: Payload> {
    /// What is asked for.
    pub head: Head,
    /// What the client sends.
    pub body: Body<P>,
    /// What it is sent.
    pub answer: Answer<P>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, P: Payload> Connection<S, P> {
    /// Over a stream of which nothing was read.
    pub fn new(io: S, limits: Limits) -> Self {
        let state = State { core: Core::new(limits), driver: None, asker: None };
        let shared = Rc::new(RefCell::new(state));
        Self { io, shared, hold: None, flushing: false, reads: 0 }
    }

    /// Waits until the client has shown that it speaks HTTP/2. Dropped, nothing is lost.
    ///
    /// # Errors
    /// [`Error`] where it does not.
    pub async fn ready(&mut self) -> Result<(), Error> {
        poll_fn(|cx| {
            loop {
                if self.shared.borrow().core.is_open() {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_drive(cx))?;
            }
        })
        .await
    }

    /// The client's next call, while all calls before it go on; `None` when the connection has ended. Dropped, nothing
    /// is lost.
    pub async fn accept(&mut self) -> Option<Result<Call<P>, Error>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Call<P>, Error>>> {
        loop {
            let next = self.shared.borrow_mut().core.accept();
            if let Some((id, head)) = next {
                let body = Body { shared: self.shared.clone(), id, trailers: None };
                let answer = Answer { shared: self.shared.clone(), id };
                return Poll::Ready(Some(Ok(Call { head, body, answer })));
            }
            match ready!(self.poll_drive(cx)) {
                Ok(()) => {}
                Err(Error::Closed) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Asks the client whether it lives.
    pub fn pings(&self) -> Pings<P> {
        Pings { shared: self.shared.clone() }
    }

    /// Takes no more calls and ends when those that are have ended.
    pub fn shut_down(&mut self) {
        self.shared.borrow_mut().core.shut_down();
    }

    /// Looks through the books.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.shared.borrow().core.check();
    }

    /// Writes and reads once. Ready when something has come, or with why the connection is over.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.write_what_is_due(cx);
        if let Some(over) = self.over(cx) {
            return Poll::Ready(Err(over));
        }
        let taken = self.shared.borrow().core.takes_input();
        if taken && self.reads < READS_IN_A_ROW {
            if let Poll::Ready(count) = self.poll_read(cx) {
                self.reads += 1;
                return Poll::Ready(count.map(|_| ()));
            }
        } else if taken {
            cx.waker().wake_by_ref();
        }
        self.reads = 0;
        wait(&mut self.shared.borrow_mut().driver, cx);
        Poll::Pending
    }

    /// Whether the connection is over, when all is written of it that can be.
    fn over(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        let (error, finished) = {
            let core = &self.shared.borrow().core;
            (core.error(), core.is_finished() && !self.flushing)
        };
        if finished || matches!(error, Some(Error::Broken(..))) {
            // As far as the stream takes it at once: nobody waits for it.
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
        }
        error.or(finished.then_some(Error::Closed))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut buffer = READ_BUFFER.take();
        buffer.resize(READ_BYTES, 0);
        let mut read = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut read);
        let state = &mut *self.shared.borrow_mut();
        let read = polled.map(|done| match done {
            Ok(()) if read.filled().is_empty() => Err(Error::Closed),
            Ok(()) => {
                state.core.receive(read.filled());
                Ok(())
            }
            Err(error) => Err(Error::Io(error.kind())),
        });
        if let Poll::Ready(Err(error)) = read {
            state.core.fail(error);
        }
        if state.core.was_answered() || state.core.error().is_some() {
            wake(&mut state.asker);
        }
        READ_BUFFER.set(buffer);
        read
    }

    /// Writes what somebody waits for, and what was held back for long enough; with it goes everything.
    fn write_what_is_due(&mut self, cx: &mut Context<'_>) {
        let (urgency, full) = {
            let core = &self.shared.borrow().core;
            (core.urgency(), !core.takes_input())
        };
        let waited = self.hold.as_mut().is_some_and(|(_, hold)| hold.as_mut().poll(cx).is_ready());
        if waited {
            self.hold = None;
        }
        let due = match urgency {
            None => self.flushing,
            Some(Urgency::Now) => true,
            Some(urgency) => full || waited || self.hold(urgency, cx),
        };
        if due && let Poll::Ready(Err(error)) = self.poll_write(cx) {
            self.shared.borrow_mut().core.fail(Error::Io(error.kind()));
        }
    }

    /// Begins to wait, unless that has begun already; whether it was long enough.
    fn hold(&mut self, urgency: Urgency, cx: &mut Context<'_>) -> bool {
        let hold = match &mut self.hold {
            Some((known, _)) if *known >= urgency => return false,
            other => {
                let hold = if urgency == Urgency::Later { HEAD_HOLD } else { ACK_HOLD };
                other.insert((urgency, Box::pin(tokio::time::sleep(hold))))
            }
        };
        hold.1.as_mut().poll(cx).is_ready()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.shared.borrow_mut();
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = state.core.output(&mut slices);
            let Some(some @ [_, ..]) = slices.get(..count) else { break };
            self.flushing = true;
            let written = match Pin::new(&mut self.io).poll_write_vectored(cx, some) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                other => ready!(other)?,
            };
            state.core.advance(written);
        }
        if self.flushing {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushing = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, P: Payload> Drop for Connection<S, P> {
    fn drop(&mut self) {
        let state = &mut *self.shared.borrow_mut();
        state.core.fail(Error::Closed);
        wake(&mut state.asker);
    }
}

/// What a client sends in a call.
#[derive(Debug)]
pub struct Body<P: Payload> {
    shared: Shared<P>,
    id: u32,
    trailers: Option<Box<Head>>,
}

impl<P: Payload> Body<P> {
    /// The next piece; `None` at the end. It counts against the client's windows until it is released.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let state = &mut *self.shared.borrow_mut();
        match state.core.read(self.id) {
            Read::Bytes(bytes) => Poll::Ready(Some(Ok(bytes))),
            Read::End(trailers) => {
                self.trailers = trailers.or(self.trailers.take());
                Poll::Ready(None)
            }
            Read::Failed(error) => Poll::Ready(Some(Err(error))),
            Read::Wait => {
                if let Some(ends) = state.core.ends(self.id) {
                    wait(&mut ends.reader, cx);
                }
                Poll::Pending
            }
        }
    }

    /// The client may send so much more.
    pub fn release(&mut self, bytes: usize) {
        with(&self.shared, |core| core.release(self.id, bytes));
    }

    /// What followed the end, if it had any fields.
    pub fn trailers(&mut self) -> Option<Head> {
        self.trailers.take().map(|head| *head)
    }
}

impl<P: Payload> Drop for Body<P> {
    fn drop(&mut self) {
        with(&self.shared, |core| core.close_reader(self.id));
    }
}

/// What a client is sent in a call. Dropped before its end, the stream is reset.
#[derive(Debug)]
pub struct Answer<P: Payload> {
    shared: Shared<P>,
    id: u32,
}

impl<P: Payload> Answer<P> {
    /// Begins the answer, and ends it where nothing follows. What begins one waits a little for the first message.
    ///
    /// # Errors
    /// Where the call is over, or was answered.
    pub fn send_head(&mut self, head: Block, ends: bool) -> Result<(), Error> {
        with(&self.shared, |core| core.send_head(self.id, head, ends))
    }

    /// What began the answer does not wait.
    pub fn flush(&mut self) {
        with(&self.shared, |core| core.flush(self.id));
    }

    /// How much payload can be given now.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.borrow().core.capacity(self.id)
    }

    /// Ready when more than `bytes` of payload can be given: how much.
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> Poll<Result<usize, Error>> {
        let capacity = self.capacity();
        if capacity > bytes {
            return Poll::Ready(Ok(capacity));
        }
        self.poll_over(cx).map(Err)
    }

    /// Sends payload, at most as much as there is capacity for.
    ///
    /// # Errors
    /// Where the call is over, or the answer has not begun or has ended.
    pub fn send_data(&mut self, payload: P) -> Result<(), Error> {
        with(&self.shared, |core| core.send_data(self.id, payload))
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Where the call is over, or the answer has not begun or has ended.
    pub fn send_end(&mut self, trailers: Option<Block>) -> Result<(), Error> {
        with(&self.shared, |core| core.send_end(self.id, trailers))
    }

    /// Ends the call at once, in both directions.
    pub fn reset(&mut self, reason: Reason) {
        with(&self.shared, |core| core.reset(self.id, reason));
    }

    /// Ready when the call is over in both directions, whether in order or not.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let state = &mut *self.shared.borrow_mut();
        if let Some(error) = state.core.over(self.id) {
            return Poll::Ready(error);
        }
        if let Some(ends) = state.core.ends(self.id) {
            wait(&mut ends.writer, cx);
        }
        Poll::Pending
    }
}

impl<P: Payload> Drop for Answer<P> {
    fn drop(&mut self) {
        with(&self.shared, |core| core.close_writer(self.id));
    }
}

/// Asks a client whether it lives.
#[derive(Debug)]
pub struct Pings<P: Payload> {
    shared: Shared<P>,
}

impl<P: Payload> Pings<P> {
    /// Ready when the client has answered; it is asked as often as this is called. Dropped, the answer is passed over.
    ///
    /// # Errors
    /// Where the connection is over.
    pub async fn ping(&mut self) -> Result<(), Error> {
        with(&self.shared, Core::ask);
        poll_fn(|cx| {
            let state = &mut *self.shared.borrow_mut();
            if let Some(error) = state.core.error() {
                return Poll::Ready(Err(error));
            }
            if state.core.was_answered() {
                return Poll::Ready(Ok(()));
            }
            wait(&mut state.asker, cx);
            Poll::Pending
        })
        .await
    }
}
