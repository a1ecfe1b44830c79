//! One request on one connection to an endpoint: the head, then both bodies at once.
//!
//! Says of each failure whether the request may be sent again. [`super::dialling`] gets the connection. Must not know
//! rules or how an endpoint is chosen.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use model::Limits;
use net::timer::Timer;

use super::connection::Connection;
use super::failure::Failure;
use super::record::Record;
use super::reply::{Reply, Signature};
use super::request::{self, Outgoing};
use super::upstream::{Endpoint, Upstream};
use crate::h1::body::{BodyReader, BodyWriter, TrailerLimits};
use crate::h1::{ReadHeadError, read_head};
use crate::head::{Framing, Known, ResponseHead};
use crate::stats;
use crate::stream::{BodyError, End, Progress, PumpError, Sink, Source, pump};
use crate::worker::Worker;

/// Interim answers that an endpoint may send for one request.
const INTERIM_MAX: u32 = 16;
/// How long an endpoint that stopped reading the request may take to answer it.
const ANSWER_AFTER_REFUSED_BODY: Duration = Duration::from_secs(2);

/// Where a failed request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// To another endpoint: this one was not reached.
    Elsewhere,
    /// On a new connection: the idle one had been closed.
    Fresh,
}

impl Retry {
    /// One of `stats::RETRY_REASONS`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Elsewhere => "connect",
            Self::Fresh => "closed",
        }
    }
}

/// A failure, and whether to try again.
pub(crate) type Failed = (Failure, Option<Retry>);

/// What stays the same over the attempts of a request.
pub(crate) struct Attempt<'a> {
    pub(crate) worker: &'a Worker,
    /// The newest: a request that goes elsewhere does not go to where a change has left nobody.
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) outgoing: &'a Outgoing<'a>,
    pub(crate) timer: &'a Timer,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) stream_idle: Duration,
    pub(crate) limits: Limits,
    pub(crate) signature: Signature<'a>,
    pub(crate) upgrades: &'a stats::Cell,
}

/// How far an exchange has come; tells what a passed deadline means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client's body is going out.
    Sending,
    /// The whole request is out.
    Waiting,
    /// The answer has begun.
    Answering,
}

impl Attempt<'_> {
    /// Sends the request on a connection to an endpoint, and its answer to the client. Dropped, the connection is
    /// closed.
    pub(crate) async fn run<B: Source, R: Reply>(
        &self,
        endpoint: &Endpoint,
        mut connection: Box<Connection>,
        (body, reply): (&mut B, &mut R),
        record: &mut Record,
    ) -> Result<(), Failed> {
        let reused = connection.reused;
        request::write(
            &mut connection.output,
            self.outgoing,
            endpoint.host_header.as_deref(),
            &endpoint.label,
        );
        let phase = Cell::new(Phase::Sending);
        let sending = self.progress();
        self.timer.set(self.stream_idle);
        let ended = {
            // Pinned here and lent: handed on by value it would stand in this task twice.
            let exchange =
                pin!(self.exchange(&mut connection, body, reply, record, (&phase, &sending)));
            self.timer.guard(exchange).await
        };
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(_) => Err(match phase.get() {
                Phase::Sending if sending.waiting_for() == End::Source => Failure::Stalled,
                // The endpoint does not take the request.
                Phase::Sending => Failure::ResponseTimeout,
                Phase::Waiting => Failure::ResponseTimeout,
                Phase::Answering => Failure::Cut(BodyError::Cut),
            }),
        };
        match outcome {
            Ok(true) => {
                endpoint.put_idle(connection);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(failure) => {
                let closed = matches!(failure, Failure::Closed(_));
                Err((failure, (closed && reused && self.is_replayable()).then_some(Retry::Fresh)))
            }
        }
    }

    fn progress(&self) -> Progress<'_> {
        Progress::new(self.timer, self.stream_idle)
    }

    /// Nothing of a request without a body is gone after a failure, so an idempotent one may be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.outgoing.head.is_idempotent() && self.outgoing.head.framing == Framing::None
    }

    /// The request out and the answer back, at once where there is a body. `true`: the connection can be used again.
    async fn exchange<B: Source, R: Reply>(
        &self,
        connection: &mut Connection,
        body: &mut B,
        reply: &mut R,
        record: &mut Record,
        (phase, sending): (&Cell<Phase>, &Progress<'_>),
    ) -> Result<bool, Failure> {
        let Connection { wire, input, output, response, .. } = connection;
        let framing = self.outgoing.head.framing;
        let upgrading = self.outgoing.head.upgrade().is_some();
        let mut out =
            BodyWriter::new(wire, output, if upgrading { Framing::None } else { framing });
        if framing == Framing::None || upgrading {
            out.flush().await.map_err(sending_failed)?;
            self.sent(phase);
            self.read_answer_head(wire, input, response, reply).await?;
            if response.status == 101 {
                record.status = 101;
                self.begin(response, reply, phase)?;
                Box::pin(self.tunnel(body, reply, (input, wire), &mut out)).await;
                return Ok(false);
            }
            return self.relay((wire, input, response), reply, record, phase).await;
        }
        let answer = async {
            self.read_answer_head(wire, input, response, reply).await?;
            self.relay((wire, input, response), reply, record, phase).await
        };
        let sent = Cell::new(false);
        let request = async {
            let result = pump(body, &mut out, sending).await;
            sent.set(result.is_ok());
            result
        };
        let reusable = Box::pin(self.both(request, answer, phase)).await?;
        Ok(reusable && sent.get())
    }

    /// Runs the request's body and the answer at once, until the answer is over. A body that the endpoint does not
    /// take to its end is no failure if it answers all the same.
    async fn both(
        &self,
        request: impl Future<Output = Result<u64, PumpError>>,
        answer: impl Future<Output = Result<bool, Failure>>,
        phase: &Cell<Phase>,
    ) -> Result<bool, Failure> {
        let (mut request, mut answer) = (pin!(request), pin!(answer));
        let mut sending = true;
        poll_fn(|cx| {
            if sending && let Poll::Ready(result) = request.as_mut().poll(cx) {
                sending = false;
                match result {
                    Ok(_) if phase.get() == Phase::Sending => self.sent(phase),
                    Ok(_) => {}
                    Err(PumpError::Source(BodyError::Malformed)) => {
                        return Poll::Ready(Err(Failure::BadBody));
                    }
                    Err(PumpError::Source(BodyError::TooLarge)) => {
                        return Poll::Ready(Err(Failure::BodyTooLarge));
                    }
                    Err(PumpError::Source(error)) => {
                        return Poll::Ready(Err(Failure::ClientGone(error)));
                    }
                    Err(PumpError::Sink(_)) if phase.get() == Phase::Sending => {
                        phase.set(Phase::Waiting);
                        self.timer.set(ANSWER_AFTER_REFUSED_BODY.min(self.response_timeout));
                    }
                    Err(PumpError::Sink(_)) => {}
                }
            }
            answer.as_mut().poll(cx)
        })
        .await
    }

    fn sent(&self, phase: &Cell<Phase>) {
        phase.set(Phase::Waiting);
        self.timer.set(self.response_timeout);
    }

    /// Reads heads until the final one; passes interim ones on.
    async fn read_answer_head<R: Reply>(
        &self,
        wire: &crate::h1::wire::Wire,
        input: &mut crate::h1::buffer::Buffer,
        response: &mut ResponseHead,
        reply: &mut R,
    ) -> Result<(), Failure> {
        let head = self.outgoing.head;
        for before in 0..=INTERIM_MAX {
            let read = read_head(wire, input, self.limits.head_bytes).await;
            let len = read.map_err(|error| match error {
                ReadHeadError::Head(_) => Failure::Garbage,
                // A part of an answer came: the endpoint did act on the request.
                _ if before > 0 || !input.is_empty() => Failure::Garbage,
                ReadHeadError::Closed => Failure::Closed(std::io::ErrorKind::UnexpectedEof.into()),
                ReadHeadError::Io(error) => Failure::Closed(error),
            })?;
            let text = input.filled().get(..len).unwrap_or_default();
            let parsed = response.parse(text, self.limits.head_fields, head.is_head());
            input.consume(len);
            parsed.map_err(|_| Failure::Garbage)?;
            if response.status == 101 && head.upgrade().is_none() {
                return Err(Failure::Garbage);
            }
            // RFC 8441 section 5: to the client a 2xx would say that the tunnel is open.
            if head.extended_connect && (200..300).contains(&response.status) {
                return Err(Failure::Garbage);
            }
            if !response.is_interim() {
                return Ok(());
            }
            if response.status != 100 || head.expects_continue {
                response.fields.remove_hop_by_hop();
                response.fields.remove(Known::ContentLength);
                reply.interim(response).await.map_err(Failure::ClientGone)?;
            }
        }
        Err(Failure::Garbage)
    }

    /// Begins the answer to the client.
    fn begin<R: Reply>(
        &self,
        response: &mut ResponseHead,
        reply: &mut R,
        phase: &Cell<Phase>,
    ) -> Result<(), Failure> {
        let upgrade = (response.status == 101)
            .then(|| response.fields.get(Known::Upgrade).map(<[u8]>::to_vec));
        response.fields.remove_hop_by_hop();
        if let Some(Some(protocol)) = upgrade {
            response.fields.push(b"Connection", b"Upgrade");
            response.fields.push(b"Upgrade", &protocol);
        }
        phase.set(Phase::Answering);
        self.timer.set(self.stream_idle);
        reply.begin(response, self.signature).map_err(Failure::ClientGone)
    }

    /// The final answer to the client. `true`: the connection can be used again.
    async fn relay<R: Reply>(
        &self,
        (wire, input, response): (
            &crate::h1::wire::Wire,
            &mut crate::h1::buffer::Buffer,
            &mut ResponseHead,
        ),
        reply: &mut R,
        record: &mut Record,
        phase: &Cell<Phase>,
    ) -> Result<bool, Failure> {
        record.status = response.status;
        self.begin(response, reply, phase)?;
        let limits = self.trailer_limits();
        let mut source = BodyReader::new(wire, input, response.framing, limits);
        match pump(&mut source, reply, &self.progress()).await {
            Ok(bytes) => record.body_bytes = bytes,
            Err(PumpError::Source(error)) => return Err(Failure::Cut(error)),
            Err(PumpError::Sink(error)) => return Err(Failure::ClientGone(error)),
        }
        drop(source);
        Ok(!response.closes && input.is_empty())
    }

    fn trailer_limits(&self) -> TrailerLimits {
        TrailerLimits { bytes: self.limits.head_bytes, fields: self.limits.head_fields }
    }

    /// After an upgrade: bytes both ways, each direction ending on its own, until both have.
    async fn tunnel<B: Source, R: Reply>(
        &self,
        body: &mut B,
        reply: &mut R,
        (input, wire): (&mut crate::h1::buffer::Buffer, &crate::h1::wire::Wire),
        out: &mut BodyWriter<'_>,
    ) {
        let _open = Open::new(self.upgrades);
        body.switch_to_raw();
        reply.switch_to_raw();
        out.switch_to_raw();
        let mut source = BodyReader::new(wire, input, Framing::UntilClose, self.trailer_limits());
        let progress = self.progress();
        let mut up = pin!(pump(body, out, &progress));
        let mut down = pin!(pump(&mut source, reply, &progress));
        let (mut up_open, mut down_open) = (true, true);
        poll_fn(|cx| {
            if up_open && let Poll::Ready(result) = up.as_mut().poll(cx) {
                up_open = false;
                // One direction failed: the connection is of no use to the other.
                if result.is_err() {
                    return Poll::Ready(());
                }
            }
            if down_open && let Poll::Ready(result) = down.as_mut().poll(cx) {
                down_open = false;
                if result.is_err() {
                    return Poll::Ready(());
                }
            }
            if up_open || down_open { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// Counts an upgraded connection as open until dropped.
struct Open<'c>(&'c stats::Cell);

impl<'c> Open<'c> {
    fn new(cell: &'c stats::Cell) -> Self {
        cell.add(1);
        Self(cell)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

fn sending_failed(error: BodyError) -> Failure {
    match error {
        BodyError::Io(error) => Failure::Closed(error),
        other => Failure::Cut(other),
    }
}
