//! HTTP/2 with a client: each stream is a request in a task of its own.
//!
//! Framing, flow control and the bounds on floods are the `h2` crate's; this turns its streams into heads
//! and bodies and back. Must not know rules or upstreams.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use model::Snapshot;
use net::timer::Timer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::h1::{LINGER, LINGER_BYTES_MAX};
use super::h2_pipe::Pipe;
use super::h2_stream::{H2Body, H2Reply, Out, request_head};
use crate::client::Client;
use crate::forward::{Ending, Exchange};
use crate::h1::buffer::Buffer;
use crate::io::Io;
use crate::worker::Local;

/// What a client may send on one stream before it is read.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a client may send on all streams of a connection before it is read.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What waits in memory for one stream's client to take it.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that were reset and are still remembered, and resets that may wait unseen: beyond it the
/// connection is closed with ENHANCE_YOUR_CALM (rapid reset, CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 32;
/// How long a connection may take to end after GOAWAY when no stream is left.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves a connection until it ends; `input` is what has been read of it already. Dropped, the socket
/// closes and its streams' exchanges end.
pub(super) async fn serve(io: Io, input: Buffer, client: Client) {
    let Snapshot { limits, timeouts, .. } = client.worker.local().program.snapshot;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .enable_connect_protocol();
    let timer = Timer::new();
    timer.set(timeouts.head);
    let pipe = Pipe::new(io, input);
    let connection = match timer.guard(builder.handshake::<_, Bytes>(pipe.clone())).await {
        Ok(Ok(connection)) => connection,
        // No preface (RFC 9113 section 3.4), or none in time.
        Ok(Err(_)) | Err(_) => {
            client.cells.refused.add("h2_error");
            return Box::pin(close(pipe, &timer)).await;
        }
    };
    let client = Rc::new(client);
    let requests_left = match limits.requests_per_connection {
        0 => u64::MAX,
        limit => limit,
    };
    let streams = Streams { client: client.clone(), open: Rc::default() };
    drive(connection, &pipe, &streams, &timer, (timeouts.idle, requests_left)).await;
    streams.count(&pipe);
}

/// Closes in order what has not become a connection: says that nothing more comes, then reads what is still
/// under way, within bounds, so that the client does not see a reset.
async fn close(mut pipe: Pipe, timer: &Timer) {
    const PIECE_BYTES: usize = 2048;
    timer.set(LINGER);
    let linger = async {
        if pipe.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let mut piece = [0; PIECE_BYTES];
        while let Ok(count) = pipe.read(&mut piece).await {
            left = left.saturating_sub(count as u64);
            if count == 0 || left == 0 {
                return;
            }
        }
    };
    let _ = timer.guard(linger).await;
}

/// What the streams of a connection share.
struct Streams {
    client: Rc<Client>,
    open: Rc<Cell<usize>>,
}

/// Accepts streams until the client is gone, has been idle for too long or has had its number of requests,
/// or the gateway wants to end.
async fn drive(
    mut connection: Connection<Pipe, Bytes>,
    pipe: &Pipe,
    streams: &Streams,
    timer: &Timer,
    (idle, mut requests_left): (Duration, u64),
) {
    let client = &streams.client;
    let mut saying_goodbye = false;
    let mut was_open = usize::MAX;
    loop {
        let accepted = poll_fn(|cx| {
            let accepted = connection.poll_accept(cx);
            if accepted.is_ready() {
                return accepted;
            }
            if let Poll::Ready(Err(_)) = pipe.poll_send(cx) {
                return Poll::Ready(None);
            }
            // What ended streams have left behind may take a slow client a while; answers to its pings do
            // not count.
            let sending = streams.count(pipe) && connection.has_streams();
            client.handle.wake_me(cx.waker());
            if (client.is_closing() || requests_left == 0) && !saying_goodbye {
                saying_goodbye = true;
                timer.set(GOODBYE);
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            let open = streams.open.get();
            if open != was_open || sending {
                was_open = open;
                timer.set(if saying_goodbye { GOODBYE } else { idle });
            }
            if open == 0 {
                pipe.rest();
            }
            if open == 0 && timer.poll_expired(cx).is_ready() {
                if saying_goodbye {
                    return Poll::Ready(None);
                }
                saying_goodbye = true;
                timer.set(GOODBYE);
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        });
        match accepted.await {
            Some(Ok((request, respond))) => {
                requests_left = requests_left.saturating_sub(1);
                streams.start(request, respond);
            }
            Some(Err(error)) => {
                if !error.is_io() {
                    client.cells.refused.add("h2_error");
                    tracing::debug!(%error, client = %client.ip, "HTTP/2 connection");
                }
                return;
            }
            None => return,
        }
    }
}

impl Streams {
    /// Counts what has moved; whether anything was sent.
    fn count(&self, pipe: &Pipe) -> bool {
        let (received, sent) = pipe.take_moved();
        self.client.cells.received.add(received);
        self.client.cells.sent.add(sent);
        sent > 0
    }

    fn start(&self, request: http::Request<h2::RecvStream>, respond: SendResponse<Bytes>) {
        let Some(program) = self.client.program() else { return };
        let open = Open::new(self.open.clone(), self.client.clone());
        net::task::spawn_local("stream", stream(open, program, request, respond));
    }
}

/// Counts a stream as open until dropped; then its connection looks whether it is idle.
struct Open {
    count: Rc<Cell<usize>>,
    client: Rc<Client>,
}

impl Open {
    fn new(count: Rc<Cell<usize>>, client: Rc<Client>) -> Self {
        count.set(count.get() + 1);
        Self { count, client }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
        self.client.handle.wake();
    }
}

/// One request. Ends early when the client resets the stream.
async fn stream(
    open: Open,
    program: (Rc<Local>, usize),
    request: http::Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let client = open.client.clone();
    let out = RefCell::new(Out::Waiting(respond));
    let limits = program.0.program.snapshot.limits;
    let (parts, recv) = request.into_parts();
    let mut head = match request_head(&parts, &recv, limits.head_fields, &client.worker.rng) {
        Ok(head) => head,
        Err(error) => {
            client.cells.refused.add(error.reason());
            return out.borrow_mut().refuse(error.status());
        }
    };
    let mut body = H2Body::new(recv);
    let mut reply = H2Reply::new(&out);
    let timer = Timer::new();
    let exchange = Exchange { client: &client, timer: &timer };
    let mut answer = pin!(exchange.answer(program, &mut head, &mut body, &mut reply));
    let ending = poll_fn(|cx| {
        if let Poll::Ready(ending) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(ending));
        }
        out.borrow_mut().poll_reset(cx).map(|()| None)
    })
    .await;
    match ending {
        Some(Ending::Broken) => out.borrow_mut().break_off(Reason::INTERNAL_ERROR),
        Some(Ending::Closed) => out.borrow_mut().break_off(Reason::CANCEL),
        Some(Ending::Complete) | None => {}
    }
}
