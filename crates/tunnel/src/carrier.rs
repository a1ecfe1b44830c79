//! A stream of packets as it runs: the [`Link`] of its connections, and the tasks that wait for each other.
//!
//! One task sends, one receives, and each connection has one at its end; they may be on different threads. A lock is
//! held for the few instructions that move a piece of payload, never across a wait. Must not know which side it is on,
//! nor sockets. Start at [`Carrier`] and, for a connection, at [`Tunnelled`].

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;

use crate::grpc::{PacketReader, StreamError};
use crate::http2::RoundTrip;
use crate::link::{Closed, Ends, Flow, Link, LinkError, Read, STALL_MAX, Side};
use crate::packet::{Message, Packet};
use crate::splice::LINGER;

/// Payload of a packet that is sent: how long others may have to wait for their turn, and far below what originals
/// take (4 MiB).
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The stream of packets is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarrierError {
    /// What the peer did.
    #[error("the peer broke the protocol")]
    Link(#[from] LinkError),
    /// What became of the stream.
    #[error("the stream of packets ended")]
    Stream(#[from] StreamError),
}

/// The runtime's time, which a simulation may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl CarrierError {
    /// The peer wanted no more of it, and said so.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Stream(StreamError::Http2(error)) => error.reason() == Some(h2::Reason::CANCEL),
            Self::Stream(StreamError::Reset(reason)) => *reason == h2::Reason::CANCEL,
            _ => false,
        }
    }
}

/// Who waits at this end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
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

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

fn wait(waiting: &mut Option<Waker>, cx: &Context<'_>) {
    match waiting {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
}

#[derive(Debug)]
struct State {
    link: Link<Waiting>,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Carrier {
    state: Mutex<State>,
    flow: Flow,
    round_trip: RoundTrip,
}

impl Carrier {
    pub(crate) fn new(side: Side, flow: Flow, round_trip: RoundTrip) -> Arc<Self> {
        let state = State { link: Link::new(side, flow), sender: None, receiver: None };
        Arc::new(Self { state: Mutex::new(state), flow, round_trip })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks through the link's books.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.lock().link.check();
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.lock().link.len()
    }

    /// Whether nothing is read on now, because of a connection whose payload nobody takes.
    pub(crate) fn is_held_up(&self) -> bool {
        self.lock().link.is_held_up()
    }

    /// Begins a connection with this number.
    pub(crate) fn open(self: &Arc<Self>, number: i64) -> Result<Tunnelled, LinkError> {
        self.lock().link.open(number, Waiting::default())?;
        Ok(Tunnelled { carrier: self.clone(), number })
    }

    /// Queues a packet that is no connection's.
    pub(crate) fn send(&self, packet: Packet) -> Result<(), LinkError> {
        let mut state = self.lock();
        state.link.send(packet)?;
        wake(&mut state.sender);
        Ok(())
    }

    /// A packet about a connection has come.
    pub(crate) fn receive(&self, packet: Packet) -> Result<(), LinkError> {
        let mut state = self.lock();
        state.link.receive(packet, now())?;
        if state.link.has_next() {
            wake(&mut state.sender);
        }
        Ok(())
    }

    /// The stream is over: so are its connections.
    pub(crate) fn end(&self, reason: &str) {
        self.lock().link.end(reason);
    }

    /// Sends what is to be sent, for ever. Dropped, what was not sent yet can be sent by another call.
    pub(crate) async fn run_sender(
        &self,
        out: &mut SendStream<Message>,
        sent: impl Fn(&Packet),
    ) -> StreamError {
        poll_fn(|cx| self.poll_sender(out, &sent, cx)).await
    }

    fn poll_sender(
        &self,
        out: &mut SendStream<Message>,
        sent: &impl Fn(&Packet),
        cx: &mut Context<'_>,
    ) -> Poll<StreamError> {
        if let Poll::Ready(reset) = out.poll_reset(cx) {
            return Poll::Ready(reset.map_or_else(StreamError::Http2, StreamError::Reset));
        }
        loop {
            if out.capacity() <= Message::OVERHEAD_BYTES_MAX {
                {
                    let mut state = self.lock();
                    if !state.link.has_next() {
                        wait(&mut state.sender, cx);
                        return Poll::Pending;
                    }
                }
                // Only what is wanted now: the rest is for other streams of the connection.
                out.reserve_capacity(PAYLOAD_BYTES_MAX + Message::OVERHEAD_BYTES_MAX);
                match ready!(out.poll_capacity(cx)) {
                    None => return Poll::Ready(StreamError::Ended),
                    Some(Err(error)) => return Poll::Ready(StreamError::Http2(error)),
                    Some(Ok(_)) => continue,
                }
            }
            let most = (out.capacity() - Message::OVERHEAD_BYTES_MAX).min(PAYLOAD_BYTES_MAX);
            let packet = {
                let mut state = self.lock();
                let Some(packet) = state.link.next(most) else {
                    wait(&mut state.sender, cx);
                    return Poll::Pending;
                };
                packet
            };
            sent(&packet);
            if let Err(error) = out.send_data(Message::new(&packet), false) {
                return Poll::Ready(StreamError::Http2(error));
            }
        }
    }

    /// Forgets, for ever, what clients that have gone sent to targets that take nothing. Dropped, nothing is lost.
    pub(crate) async fn run_expiry(&self) -> StreamError {
        loop {
            tokio::time::sleep(LINGER).await;
            let mut state = self.lock();
            let closed = state.link.close_lingering();
            if closed > 0 {
                tracing::debug!(connections = closed, "closed: the target took nothing any more");
                wake(&mut state.sender);
            }
        }
    }

    /// The next packet of the stream, once no connection holds it up; `None` at its end. Dropped, nothing is lost.
    pub(crate) async fn next(
        &self,
        packets: &mut PacketReader,
    ) -> Result<Option<Packet>, StreamError> {
        if let Some(packet) = packets.ready()? {
            return Ok(Some(packet));
        }
        while self.lock().link.is_held_up() {
            if tokio::time::timeout(STALL_MAX / 4, self.free()).await.is_err() {
                let mut state = self.lock();
                let closed = state.link.close_stalled(now());
                if closed > 0 {
                    tracing::warn!(
                        connections = closed,
                        "closed: what has arrived for them was not read"
                    );
                    wake(&mut state.sender);
                }
            }
        }
        packets.next().await
    }

    async fn free(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if !state.link.is_held_up() {
                return Poll::Ready(());
            }
            wait(&mut state.receiver, cx);
            Poll::Pending
        })
        .await;
    }
}

/// One connection through the tunnel, as its end has it. Dropped, it is closed after the payload that it was given.
#[derive(Debug)]
pub(crate) struct Tunnelled {
    carrier: Arc<Carrier>,
    number: i64,
}

impl Tunnelled {
    /// Its number on its stream.
    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    /// Whether the end of one direction leaves the other open.
    pub(crate) fn has_half_close(&self) -> bool {
        self.carrier.flow == Flow::Credit
    }

    /// Payload, or how it ended; never [`Read::Wait`].
    pub(crate) fn poll_read(&self, most: usize, cx: &mut Context<'_>) -> Poll<Read> {
        let mut state = self.carrier.lock();
        let held_up = state.link.is_held_up();
        state.link.set_round_trip(self.carrier.round_trip.get());
        match state.link.read(self.number, most, now()) {
            Read::Wait => {
                if let Some(waiting) = state.link.ends_mut(self.number) {
                    wait(&mut waiting.reader, cx);
                }
                Poll::Pending
            }
            read => {
                if held_up && !state.link.is_held_up() {
                    wake(&mut state.receiver);
                }
                if state.link.has_next() {
                    wake(&mut state.sender);
                }
                Poll::Ready(read)
            }
        }
    }

    /// Whether the other side has closed it: nothing comes but what has arrived.
    pub(crate) fn is_closed(&self) -> bool {
        self.carrier.lock().link.is_closed(self.number)
    }

    /// How much payload is taken now, at least a byte.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        let mut state = self.carrier.lock();
        match state.link.room(self.number) {
            Ok(0) => {
                if let Some(waiting) = state.link.ends_mut(self.number) {
                    wait(&mut waiting.writer, cx);
                }
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    /// Gives it payload; more than there is room for is taken too.
    pub(crate) fn push(&self, bytes: Bytes) -> Result<(), Closed> {
        let mut state = self.carrier.lock();
        state.link.push(self.number, bytes)?;
        wake(&mut state.sender);
        Ok(())
    }

    /// Nothing more is sent. Without half-close that ends the connection.
    pub(crate) fn finish(&self) {
        let mut state = self.carrier.lock();
        state.link.finish(self.number);
        wake(&mut state.sender);
    }

    /// Ready when the other side has closed it, with the reason if there is one. What has arrived may still be read.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<String> {
        let mut state = self.carrier.lock();
        if let Some(reason) = state.link.closed(self.number) {
            return Poll::Ready(reason.to_owned());
        }
        if let Some(waiting) = state.link.ends_mut(self.number) {
            wait(&mut waiting.reader, cx);
        }
        Poll::Pending
    }

    /// Takes it out of the stream without a word: the other side has never heard of it.
    pub(crate) fn forget(self) {
        self.carrier.lock().link.forget(self.number);
    }

    /// Ends it. With a reason it has broken off: the other end had better reset what is behind it.
    pub(crate) fn close(self, reason: &str) {
        self.end(reason);
    }

    fn end(&self, reason: &str) {
        let mut state = self.carrier.lock();
        let held_up = state.link.is_held_up();
        state.link.close(self.number, reason.to_owned());
        if held_up && !state.link.is_held_up() {
            wake(&mut state.receiver);
        }
        wake(&mut state.sender);
    }
}

impl Drop for Tunnelled {
    fn drop(&mut self) {
        self.end("");
    }
}
