//! HTTP/1 with a client: one request after another on one connection.
//!
//! Between requests the connection holds no buffer. Whatever leaves it unclear where the next request
//! begins closes it. Must not know rules or upstreams.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use model::Snapshot;
use net::timer::Timer;

use crate::client::Client;
use crate::forward::reply::{OwnAnswer, Reply, Signature, goes_on, own_fields};
use crate::forward::{Ending, Exchange};
use crate::h1::body::{BodyReader, BodyWriter, TrailerLimits};
use crate::h1::buffer::Buffer;
use crate::h1::scratch::Scratch;
use crate::h1::wire::{Sign, Wire};
use crate::h1::{ReadHeadError, read_head, write};
use crate::head::{Fields, Framing, HeadError, ResponseHead, Version};
use crate::io::Io;
use crate::stream::{BodyError, Piece, Sink, Source};
use crate::worker::Local;

/// What an HTTP/2 client says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long, and for how many bytes, a connection that is about to close is still read, so that the client
/// gets the answer before a reset (RFC 9112 section 9.6).
pub(super) const LINGER: Duration = Duration::from_secs(1);
pub(super) const LINGER_BYTES_MAX: u64 = 256 * 1024;
/// How long a connection that was made just before draining began may take to send its request.
const FIRST_REQUEST_WHILE_DRAINING: Duration = Duration::from_secs(1);

/// How the serving of a connection ended.
#[allow(clippy::large_enum_variant, reason = "made once a connection, taken apart at once")]
pub(super) enum Served {
    /// It is over.
    Over,
    /// The client speaks HTTP/2; what it has sent so far is in `input`.
    Http2 { io: Io, input: Buffer, client: Client },
}

/// What happens after a request.
enum Next {
    Keep,
    Close,
    /// Closed in a way that tells the client that the answer is not whole.
    Break,
}

/// Serves a connection until it ends. `sniff`: it may turn out to be HTTP/2. Dropped, the socket closes.
pub(super) async fn serve(wire: Wire, client: Client, timer: Timer, sniff: bool) -> Served {
    let mut input = Buffer::default();
    let mut served: u64 = 0;
    loop {
        if !await_request(&wire, &mut input, &client, &timer, served).await {
            return Served::Over;
        }
        if sniff && served == 0 && is_preface(&wire, &mut input, &timer).await {
            return Served::Http2 { io: wire.into_io(), input, client };
        }
        let Some(program) = client.program() else { return Served::Over };
        served += 1;
        let one = Request { wire: &wire, client: &client, timer: &timer, served };
        let next = Box::pin(one.serve(program, &mut input)).await;
        client.cells.received.add(wire.take_received());
        client.cells.sent.add(wire.take_sent());
        match next {
            Next::Keep => {}
            Next::Close => {
                close(&wire, &mut input, &timer).await;
                return Served::Over;
            }
            Next::Break => {
                wire.reset_on_close();
                return Served::Over;
            }
        }
    }
}

/// Waits for the first byte of a request. `false`: the connection is over, or should be.
async fn await_request(
    wire: &Wire,
    input: &mut Buffer,
    client: &Client,
    timer: &Timer,
    served: u64,
) -> bool {
    if !input.is_empty() {
        return true;
    }
    input.release();
    let timeouts = client.worker.local().program.snapshot.timeouts;
    timer.set(if served == 0 { timeouts.head } else { timeouts.idle });
    let mut hurried = false;
    poll_fn(|cx| {
        if let Poll::Ready(result) = wire.poll_read(cx, input) {
            return Poll::Ready(matches!(result, Ok(count) if count > 0));
        }
        input.release();
        // While draining, an idle connection is not kept; one that has just been made may still bring its
        // request.
        if client.is_closing() {
            if served > 0 {
                return Poll::Ready(false);
            }
            if !std::mem::replace(&mut hurried, true) {
                timer.set(timeouts.head.min(FIRST_REQUEST_WHILE_DRAINING));
            }
        }
        client.handle.wake_me(cx.waker());
        timer.poll_expired(cx).map(|()| false)
    })
    .await
}

/// Whether the client begins with HTTP/2's preface; waits for as much of it as it takes to tell.
async fn is_preface(wire: &Wire, input: &mut Buffer, timer: &Timer) -> bool {
    loop {
        let filled = input.filled();
        let compared = filled.len().min(PREFACE.len());
        if filled.get(..compared) != PREFACE.get(..compared) {
            return false;
        }
        if compared == PREFACE.len() {
            return true;
        }
        match timer.guard(wire.read(input)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return false,
        }
    }
}

/// Closes in order: says that nothing more comes, then reads what is still under way, within bounds.
async fn close(wire: &Wire, input: &mut Buffer, timer: &Timer) {
    timer.set(LINGER);
    let linger = async {
        if wire.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        input.consume(input.len());
        while let Ok(count) = wire.read(input).await {
            input.consume(count);
            left = left.saturating_sub(count as u64);
            if count == 0 || left == 0 {
                return;
            }
        }
    };
    let _ = timer.guard(linger).await;
}

/// Tells a client that speaks plain HTTP to a TLS port what it did.
pub(super) async fn tell_plain_http(stream: tokio::net::TcpStream) {
    const BODY: &str = "400: this is an HTTPS port; the request was plain HTTP\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let wire = Wire::new(stream.into());
    let _ = wire.write_all(answer.as_bytes(), &[]).await;
    let _ = wire.shutdown().await;
}

/// One request on a connection.
struct Request<'r> {
    wire: &'r Wire,
    client: &'r Client,
    timer: &'r Timer,
    /// Which one it is on this connection, from 1.
    served: u64,
}

impl Request<'_> {
    async fn serve(&self, program: (Rc<Local>, usize), input: &mut Buffer) -> Next {
        let Snapshot { limits, timeouts, ref manners, .. } = program.0.program.snapshot;
        let abort_on_close = manners.abort_on_close;
        self.timer.set(timeouts.head);
        let mut scratch = Scratch::take();
        let Scratch { head, output } = &mut *scratch;
        let read = async {
            let len = read_head(self.wire, input, limits.head_bytes).await?;
            let text = input.filled().get(..len).unwrap_or_default();
            let parsed = head.parse(text, limits.head_fields);
            input.consume(len);
            parsed.map_err(ReadHeadError::from)
        };
        let read = {
            let read = pin!(read);
            self.timer.guard(read).await
        };
        match read {
            Ok(Ok(())) => {}
            Ok(Err(ReadHeadError::Head(error))) => {
                return self.refuse(error.status(), error.reason(), &error.to_string()).await;
            }
            Ok(Err(_)) => return Next::Close,
            Err(_) => {
                return self
                    .refuse(408, "head_timeout", "the request head did not arrive in time")
                    .await;
            }
        }
        let limit = limits.requests_per_connection;
        let mut close =
            head.closes || self.client.is_leaving() || (limit > 0 && self.served >= limit);
        let trailers = TrailerLimits { bytes: limits.head_bytes, fields: limits.head_fields };
        let mut body = BodyReader::new(self.wire, input, head.framing, trailers);
        let read_whole = Cell::new(body.is_done());
        let mut watched = Watched { body: &mut body, read_whole: &read_whole };
        let mut reply = H1Reply {
            writer: BodyWriter::new(self.wire, output, Framing::None),
            version: head.version,
            close: &mut close,
            closing: self.client,
            begun: false,
            read_whole: &read_whole,
        };
        let exchange = Exchange { client: self.client, timer: self.timer };
        let watch = head.upgrade().is_none().then_some(abort_on_close);
        let mut ahead = Buffer::default();
        // Pinned here and lent: an exchange that was handed on by value would stand in this task twice.
        let ending = {
            let answer = pin!(exchange.answer(program, head, &mut watched, &mut reply));
            self.unless_gone(answer, &read_whole, watch, &mut ahead).await
        };
        let upgraded = head.upgrade().is_some() && !body.is_done();
        let whole = body.is_done();
        drop(body);
        input.append(&mut ahead);
        scratch.give();
        match ending {
            Ending::Broken => Next::Break,
            Ending::Closed => Next::Close,
            Ending::Complete if close || !whole || upgraded => Next::Close,
            Ending::Complete => Next::Keep,
        }
    }

    /// Runs an exchange until it ends or the client has gone. Whether one that has only said that it will send
    /// nothing more (FIN) has gone cannot be told on this protocol: `watch` says how that is taken; `None` does not
    /// look. What the client sends meanwhile may come to be in `ahead`.
    async fn unless_gone(
        &self,
        mut answer: Pin<&mut impl Future<Output = Ending>>,
        read_whole: &Cell<bool>,
        mut watch: Option<bool>,
        ahead: &mut Buffer,
    ) -> Ending {
        poll_fn(|cx| {
            if let Poll::Ready(ending) = answer.as_mut().poll(cx) {
                return Poll::Ready(ending);
            }
            // Until then the body's reader notices.
            if let Some(abort_on_close) = watch
                && read_whole.get()
            {
                match self.wire.poll_sign(cx, ahead) {
                    Poll::Ready(Sign::Reset) => return Poll::Ready(Ending::Broken),
                    Poll::Ready(Sign::End) if abort_on_close => return Poll::Ready(Ending::Broken),
                    Poll::Ready(Sign::End | Sign::More) => watch = None,
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Answers what is no request, and closes: nobody knows where the next one would begin.
    async fn refuse(&self, status: u16, reason: &'static str, message: &str) -> Next {
        self.client.cells.refused.add(reason);
        tracing::debug!(status, reason, client = %self.client.ip, "refused a request");
        let mut output = Vec::new();
        let mut close = true;
        let mut reply = H1Reply {
            writer: BodyWriter::new(self.wire, &mut output, Framing::None),
            version: Version::Http11,
            close: &mut close,
            closing: self.client,
            begun: false,
            read_whole: &Cell::new(true),
        };
        let signature = Signature::own(&self.client.worker);
        self.timer.set(LINGER);
        let answer = OwnAnswer::text(status, format!("{status}: {message}\n"));
        let _ = self.timer.guard(answer.send(&mut reply, false, signature)).await;
        Next::Close
    }
}

impl From<ReadHeadError> for HeadError {
    fn from(error: ReadHeadError) -> Self {
        match error {
            ReadHeadError::Head(error) => error,
            _ => Self::StartLine,
        }
    }
}

/// A request's body that notes when it has been read to its end.
struct Watched<'w, 'c> {
    body: &'w mut BodyReader<'c>,
    read_whole: &'w Cell<bool>,
}

impl Source for Watched<'_, '_> {
    fn try_next(&mut self) -> Result<Option<Piece<'_>>, BodyError> {
        let piece = self.body.try_next()?;
        if matches!(piece, Some(Piece::End(_))) {
            self.read_whole.set(true);
        }
        Ok(piece)
    }

    async fn wait(&mut self) -> Result<(), BodyError> {
        self.body.wait().await
    }

    fn switch_to_raw(&mut self) {
        self.body.switch_to_raw();
    }
}

/// An answer on an HTTP/1 connection.
struct H1Reply<'c> {
    writer: BodyWriter<'c>,
    /// The client's.
    version: Version,
    /// The connection ends with this answer.
    close: &'c mut bool,
    closing: &'c Client,
    begun: bool,
    /// Nothing of the request's body is left on the connection.
    read_whole: &'c Cell<bool>,
}

impl Reply for H1Reply<'_> {
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), BodyError> {
        if self.version < Version::Http11 {
            return Ok(());
        }
        let out = self.writer.output();
        write::status_line(out, head.status, head.reason());
        write::fields(out, &head.fields, |_| true);
        out.extend_from_slice(b"\r\n");
        self.writer.flush().await
    }

    fn begin(&mut self, head: &ResponseHead, signature: Signature<'_>) -> Result<(), BodyError> {
        self.begun = true;
        // RFC 9112 section 9.6: who will close says so, and an unread body leaves nothing else.
        *self.close |= self.closing.is_leaving() || !self.read_whole.get();
        let framing = match head.framing {
            Framing::Chunked | Framing::UntilClose if self.version < Version::Http11 => {
                *self.close = true;
                Framing::UntilClose
            }
            Framing::UntilClose => Framing::Chunked,
            known => known,
        };
        let out = self.writer.output();
        write::status_line(out, head.status, head.reason());
        write::fields(out, &head.fields, |field| goes_on(head, field.known, signature));
        own_fields(head, signature, |name, value| write::field(out, name, value));
        if framing == Framing::Chunked {
            write::framing(out, framing);
        }
        match (*self.close, self.version) {
            _ if head.status == 101 => {}
            (true, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (false, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
        self.writer.set_framing(framing);
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.begun
    }
}

impl Sink for H1Reply<'_> {
    async fn data(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.writer.data(data).await
    }

    async fn flush(&mut self) -> Result<(), BodyError> {
        self.writer.flush().await
    }

    async fn end(&mut self, trailers: Option<&Fields>) -> Result<(), BodyError> {
        self.writer.end(trailers).await
    }

    fn switch_to_raw(&mut self) {
        self.writer.switch_to_raw();
    }
}
