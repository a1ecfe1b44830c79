//! A connection over a byte stream, on one thread with the ends of its calls.
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

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::core::{Core, Limits, Urgency};
use crate::ends::{Answer, Body, Pings};
use crate::head::Head;
use crate::streams::Ends;
use crate::{Error, Payload};

/// How long acknowledgements wait for something that goes with them, and the head of an answer for its first message.
/// As long as what a call asks for is under way, mostly; a client that waits for them is not kept for long.
const HOLD: Duration = Duration::from_millis(10);
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
pub(crate) struct Waiting {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
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

pub(crate) fn wait(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// What a connection has in common with the ends of its calls.
#[derive(Debug)]
pub(crate) struct State<P> {
    pub(crate) core: Core<P, Waiting>,
    /// Who drives the connection, and who waits for the answer to a PING.
    driver: Option<Waker>,
    pub(crate) asker: Option<Waker>,
}

pub(crate) type Shared<P> = Rc<RefCell<State<P>>>;

/// Does something to a connection, and wakes it if something is to be written sooner than before.
pub(crate) fn with<P: Payload, T>(
    shared: &Shared<P>,
    act: impl FnOnce(&mut Core<P, Waiting>) -> T,
) -> T {
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
    /// Until when what is held back may wait.
    hold: Option<Pin<Box<Sleep>>>,
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
        if buffer.is_empty() {
            // Of fresh memory only what is written to counts.
            buffer = vec![0; READ_BYTES];
        }
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
        let waited = self.hold.as_mut().is_some_and(|hold| hold.as_mut().poll(cx).is_ready());
        if waited {
            self.hold = None;
        }
        let due = match urgency {
            None => self.flushing,
            Some(Urgency::Now) => true,
            Some(Urgency::Held) => full || waited || self.hold(cx),
        };
        if due {
            match self.poll_write(cx) {
                // Nobody need be woken for what has gone with the rest.
                Poll::Ready(Ok(())) => self.hold = None,
                Poll::Ready(Err(error)) => {
                    self.shared.borrow_mut().core.fail(Error::Io(error.kind()));
                }
                Poll::Pending => {}
            }
        }
    }

    /// Begins to wait, unless that has begun already; whether it was long enough.
    fn hold(&mut self, cx: &mut Context<'_>) -> bool {
        let begin = || Box::pin(tokio::time::sleep(HOLD));
        self.hold.is_none() && self.hold.insert(begin()).as_mut().poll(cx).is_ready()
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::Block;
    use crate::frame::Reason;
    use crate::simulation::LIMITS;
    use bytes::Bytes;
    use tokio::io::DuplexStream;
    use tokio::task::LocalSet;

    type Client = h2::client::SendRequest<Bytes>;
    type Tested = Connection<DuplexStream, Bytes>;

    /// A connection and its client, on a clock of their own.
    fn with_client<F: Future<Output = ()>>(test: impl FnOnce(Tested, Client) -> F) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (near, far) = tokio::io::duplex(10_000);
            let handshake = h2::client::handshake(near);
            let (client, connection) = handshake.await.unwrap();
            drop(net::task::spawn_local("client", async move { drop(connection.await) }));
            let mut served = Connection::new(far, LIMITS);
            served.ready().await.unwrap();
            let all = tokio::time::timeout(Duration::from_secs(60), test(served, client));
            all.await.expect("it ends");
        });
    }

    fn request() -> http::Request<()> {
        http::Request::post("http://localhost/").body(()).unwrap()
    }

    #[test]
    fn a_client_that_waits_for_the_head_gets_it() {
        with_client(|mut served, mut client| async move {
            let (answer, _out) = client.send_request(request(), false).unwrap();
            let mut call = served.accept().await.unwrap().unwrap();
            call.answer.send_head(Block::answer(204), false).unwrap();
            let begun = Instant::now();
            tokio::select! {
                answer = answer => assert_eq!(answer.unwrap().status(), 204),
                _ = served.accept() => panic!("there is no other call"),
            }
            assert!((HOLD..HOLD * 2).contains(&begun.elapsed()));
        });
    }

    #[test]
    fn what_outlives_its_connection_is_over() {
        with_client(|mut served, mut client| async move {
            let _call = client.send_request(request(), false).unwrap();
            let mut call = served.accept().await.unwrap().unwrap();
            call.answer.send_head(Block::answer(200), false).unwrap();
            let mut pings = served.pings();
            drop(served);
            let read = poll_fn(|cx| call.body.poll_data(cx)).await;
            assert_eq!(read, Some(Err(Error::Closed)));
            assert_eq!(poll_fn(|cx| call.answer.poll_over(cx)).await, Error::Closed);
            assert_eq!(call.answer.send_data(Bytes::new()), Err(Error::Closed));
            assert_eq!(pings.ping().await, Err(Error::Closed));
            call.answer.reset(Reason::CANCEL);
        });
    }

    #[test]
    fn a_client_is_asked_whether_it_lives() {
        with_client(|mut served, client| async move {
            let mut pings = served.pings();
            for _ in 0..3 {
                tokio::select! {
                    answer = pings.ping() => assert_eq!(answer, Ok(())),
                    _ = served.accept() => panic!("there is no call"),
                }
            }
            let (ended, ()) = tokio::join!(served.accept(), async {
                drop(client);
                // The first may be answered before the client has left.
                while pings.ping().await.is_ok() {}
            });
            assert!(ended.is_none_or(|end| end.is_err()));
        });
    }

    #[test]
    fn a_connection_that_is_shut_down_ends_with_its_last_call() {
        with_client(|mut served, client| async move {
            let mut client = client.ready().await.unwrap();
            let (answer, mut out) = client.send_request(request(), false).unwrap();
            let mut call = served.accept().await.unwrap().unwrap();
            served.shut_down();
            let serve = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                call.answer.send_head(Block::answer(200), false).unwrap();
                call.answer.send_end(None).unwrap();
                drop(call);
            };
            let ask = async {
                assert_eq!(answer.await.unwrap().status(), 200);
                let _ = out.send_data(Bytes::new(), true);
                assert!(client.ready().await.is_err(), "no further call");
            };
            let (ended, (), ()) = tokio::join!(served.accept(), serve, ask);
            assert!(ended.is_none());
        });
    }
}
