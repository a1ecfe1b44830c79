//! A connection through a server that speaks gRPC: a stream of its own on an HTTP/2 connection that others share.
//!
//! Must not know whose it is. Start at [`open`].

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::server::{self, Place, ServerError};
use super::{Client, ClientError, Protocol, To, printable};
use crate::datagrams;
use crate::grpc::{self, PacketReader, PayloadSender, StreamError};
use crate::link::{Closed, Read};
use crate::packet::{Message, Packet};
use crate::splice::Through;
use crate::{CLUSTER_MARK, FEATURES, FEATURES_FIELD};

/// How long what was written before a connection was left may take to be passed on.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// Attempts where a connection to the server turns out to be over.
const ATTEMPTS_MAX: usize = 2;

/// A connection.
#[derive(Debug)]
pub(super) struct Call {
    packets: PacketReader,
    out: PayloadSender,
    number: i64,
    half_close: bool,
    input: Input,
    output: Output,
    place: Place,
}

/// What comes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Input {
    Open,
    /// Nothing more; the connection goes on.
    Finished,
    /// The connection is over, for a reason if it has broken off.
    Closed(String),
}

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    /// The end is to follow what is on its way.
    Finishing,
    Finished,
}

/// A dial that has not been answered. Dropped, the server is told that nobody waits.
struct Dialling {
    /// None once it has been answered.
    out: Option<SendStream<Message>>,
    dial: i64,
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(out) = &mut self.out {
            // Where that cannot be said the stream's end says it.
            let message = Message::new(&Packet::CloseDial { dial: self.dial });
            let _ = out.send_data(message, true);
        }
    }
}

/// Has the server connect. Dropped, the server is told that nobody waits any more.
pub(super) async fn open(client: &Arc<Client>, to: &To) -> Result<Call, ClientError> {
    let mut attempt = 1;
    loop {
        let place = server::take(client).await?;
        let connection = place.connection.clone();
        match dial(client, to, place).await {
            Err(Failure::Lost(error)) => {
                connection.take_no_more();
                if attempt == ATTEMPTS_MAX {
                    return Err(client.failed(error));
                }
                attempt += 1;
            }
            Err(Failure::Said(error)) => return Err(error),
            Ok(call) => return Ok(call),
        }
    }
}

enum Failure {
    /// The HTTP/2 connection was of no use.
    Lost(ServerError),
    Said(ClientError),
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        Self::Lost(error.into())
    }
}

async fn dial(client: &Client, to: &To, place: Place) -> Result<Call, Failure> {
    let mut fields = HeaderMap::new();
    if client.extensions {
        fields.insert(FEATURES_FIELD, HeaderValue::from_static(FEATURES));
    }
    let request = grpc::request(grpc::PROXY, "tunnel", fields);
    let request = request.ok_or(Failure::Lost(ServerError::Closed))?;
    let mut send = place.send.clone().ready().await?;
    let (answer, mut out) = send.send_request(request, false)?;
    let dial = client.next_dial();
    let protocol = match to.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => datagrams::PROTOCOL,
    };
    let protocol = match &to.cluster {
        None => protocol.to_owned(),
        Some(cluster) => format!("{protocol}{CLUSTER_MARK}{cluster}"),
    };
    let wish = Packet::DialRequest { protocol, address: to.address.clone(), dial };
    out.send_data(Message::new(&wish), false)?;
    let mut dialling = Dialling { out: Some(out), dial };
    let (head, body) = answer.await?.into_parts();
    accepted(head.status, &head.headers).map_err(Failure::Lost)?;
    let ours = head.headers.get(FEATURES_FIELD).is_some_and(|value| value == FEATURES);
    place.connection.set_ours(ours);
    let mut packets = PacketReader::new(body);
    let answer = answered(&mut packets, dial).await?;
    let Some(out) = dialling.out.take() else { return Err(Failure::Lost(ServerError::Closed)) };
    let number = answer.map_err(|text| Failure::Said(ClientError::Refused(printable(&text))))?;
    Ok(Call {
        packets,
        out: PayloadSender::new(out),
        number,
        half_close: ours && client.extensions,
        input: Input::Open,
        output: Output::Open,
        place,
    })
}

/// The answer to a dial: the connection's number, or why there is none.
async fn answered(packets: &mut PacketReader, asked: i64) -> Result<Result<i64, String>, Failure> {
    let odd = |text: &str| Failure::Lost(ServerError::Answer(text.to_owned()));
    loop {
        let packet = match packets.next().await {
            Ok(packet) => packet,
            Err(StreamError::Http2(error)) => return Err(error.into()),
            Err(error) => return Err(odd(&error.to_string())),
        };
        match packet {
            Some(Packet::DialResponse { error, connection, dial }) if dial == asked => {
                return match connection {
                    _ if !error.is_empty() => Ok(Err(error)),
                    1.. => Ok(Ok(connection)),
                    _ => Err(odd("it gave no connection")),
                };
            }
            Some(Packet::CloseDial { .. } | Packet::CloseResponse { .. }) => {
                return Ok(Err("the agent closed the dial".to_owned()));
            }
            Some(_) => {}
            None => return Err(odd("it ended the call without an answer")),
        }
    }
}

/// Whether a call was accepted.
fn accepted(status: StatusCode, fields: &HeaderMap) -> Result<(), ServerError> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    if status != StatusCode::OK {
        return Err(ServerError::Answer(format!("status {}", status.as_u16())));
    }
    match text("grpc-status").filter(|code| *code != "0") {
        None => Ok(()),
        Some(code) => {
            let message = printable(text("grpc-message").unwrap_or_default());
            Err(ServerError::Answer(format!("gRPC status {code}: {message}")))
        }
    }
}

impl Call {
    /// Whether a new connection would go the same way.
    pub(super) fn is_current(&self) -> bool {
        self.input == Input::Open && self.place.connection.is_current()
    }

    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if matches!(self.input, Input::Closed(_)) {
                return Poll::Ready(None);
            }
            match ready!(self.packets.poll_next(cx)) {
                Ok(Some(Packet::Data { connection, bytes })) if connection == self.number => {
                    if self.input == Input::Open {
                        return Poll::Ready(Some(bytes));
                    }
                }
                Ok(Some(Packet::Finish { connection }))
                    if self.half_close && connection == self.number =>
                {
                    self.input = Input::Finished;
                    return Poll::Ready(None);
                }
                Ok(Some(Packet::CloseResponse { error, .. })) => {
                    self.input = Input::Closed(printable(&error));
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.input = Input::Closed("the tunnel's server ended the call".to_owned());
                }
                Err(error) => self.input = Input::Closed(lost(&error)),
            }
        }
    }

    /// The end that was asked for, after what is on its way.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if let Poll::Ready(error) = self.out.poll_gone(cx) {
            if !matches!(self.input, Input::Closed(_)) {
                // What has come before it may be read, and what was wrong.
                tracing::trace!(%error, "a call is over");
            }
            return Poll::Ready(Err(Closed));
        }
        ready!(self.out.poll_empty(self.number, cx, |_| {})).map_err(|_| Closed)?;
        if self.output == Output::Finishing {
            self.output = Output::Finished;
            let packet = if self.half_close {
                Packet::Finish { connection: self.number }
            } else {
                Packet::CloseRequest { connection: self.number }
            };
            self.out.stream().send_data(Message::new(&packet), false).map_err(|_| Closed)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Breaks it off.
    fn reset(mut self) {
        self.out.stream().send_reset(Reason::CANCEL);
    }

    /// Ends it in order, after what was given: in a task of its own where there is more to say.
    pub(super) fn leave(self, reset: bool) {
        let over = matches!(self.input, Input::Closed(_));
        if reset || over || tokio::runtime::Handle::try_current().is_err() {
            return self.reset();
        }
        drop(net::task::spawn("tunnel goodbye", self.say_goodbye()));
    }

    async fn say_goodbye(mut self) {
        let said = async {
            if poll_fn(|cx| self.poll_out(cx)).await.is_err() {
                return;
            }
            let message = Message::new(&Packet::CloseRequest { connection: self.number });
            if self.out.stream().send_data(message, true).is_err() {
                return;
            }
            // The server has passed everything on when it answers.
            poll_fn(|cx| self.poll_closed(cx)).await;
        };
        let _ = tokio::time::timeout(LINGER_MAX, said).await;
        self.reset();
    }
}

/// What became of a stream, for whoever reads.
fn lost(error: &StreamError) -> String {
    let mut text = format!("the tunnel's server is lost: {error}");
    if let Some(source) = std::error::Error::source(error) {
        text.push_str(&format!(": {source}"));
    }
    text
}

impl Through for Call {
    fn poll_read(&mut self, _: usize, cx: &mut Context<'_>) -> Poll<Read> {
        if self.input == Input::Finished {
            return Poll::Ready(Read::Finished);
        }
        let bytes = ready!(self.poll_packet(cx));
        Poll::Ready(match (bytes, &self.input) {
            (Some(bytes), _) => Read::Bytes(bytes),
            (None, Input::Closed(reason)) => Read::Closed(reason.clone()),
            (None, _) => Read::Finished,
        })
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        if self.output != Output::Open || matches!(self.input, Input::Closed(_)) {
            return Poll::Ready(Err(Closed));
        }
        ready!(self.poll_out(cx))?;
        Poll::Ready(Ok(grpc::PAYLOAD_BYTES_MAX))
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Closed> {
        if self.output != Output::Open {
            return Err(Closed);
        }
        self.out.give(bytes);
        Ok(())
    }

    fn finish(&mut self) {
        if self.output == Output::Open {
            self.output = Output::Finishing;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_out(cx).map(drop)
    }

    fn has_half_close(&self) -> bool {
        self.half_close
    }

    fn is_closed(&self) -> bool {
        matches!(self.input, Input::Closed(_))
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if let Input::Closed(reason) = &self.input {
                return Poll::Ready(reason.clone());
            }
            // Payload that nobody will read.
            ready!(self.poll_packet(cx));
        }
    }

    fn close(self, reason: &str) {
        self.leave(!reason.is_empty());
    }
}
