//! gRPC, as far as two methods need it, over the `h2` crate and, towards a server's clients, over `http2`: heads of
//! requests and answers, the packets of a stream, and payload on its way into one.
//!
//! Must not know what the packets say.

mod ends;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use ::http2::{Answer, Block};
use bytes::{Buf, Bytes};
pub(crate) use ends::{Incoming, Outgoing};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};

use crate::packet::{DecodeError, Decoder, Message, Packet};

/// The method by which clients ask for connections.
pub(crate) const PROXY: &str = "/ProxyService/Proxy";
/// The method by which agents offer themselves.
pub(crate) const CONNECT: &str = "/AgentService/Connect";
/// The longest list of header fields.
pub(crate) const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// gRPC's code for success, and some of its codes for errors.
pub(crate) const OK: u8 = 0;
pub(crate) const UNKNOWN: u8 = 2;
pub(crate) const PERMISSION_DENIED: u8 = 7;
pub(crate) const UNIMPLEMENTED: u8 = 12;
pub(crate) const UNAVAILABLE: u8 = 14;
pub(crate) const UNAUTHENTICATED: u8 = 16;

/// The fields of an answer's end.
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The connection or the stream failed.
    #[error("HTTP/2 failed")]
    Http2(#[source] h2::Error),
    /// The connection to a client is over.
    #[error("HTTP/2 failed")]
    Client(#[source] ::http2::Error),
    /// The other side has cancelled it.
    #[error("the other side reset the stream ({0})")]
    Reset(Reason),
    /// Nothing can be sent any more.
    #[error("the stream is closed")]
    Ended,
    /// What came is not understood.
    #[error("what came is no packet")]
    Decode(#[from] DecodeError),
}

impl StreamError {
    /// gRPC's name of the code that says the most about it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Reset(Reason::CANCEL) => "Canceled",
            Self::Reset(Reason::REFUSED_STREAM) | Self::Ended => "Unavailable",
            Self::Http2(error) if error.reason() == Some(Reason::CANCEL) => "Canceled",
            Self::Http2(error) if error.is_io() || error.is_go_away() => "Unavailable",
            Self::Client(::http2::Error::Closed | ::http2::Error::Io(_)) => "Unavailable",
            Self::Decode(DecodeError::TooLong { .. }) => "ResourceExhausted",
            Self::Decode(DecodeError::Compressed) => "Unimplemented",
            Self::Reset(_) | Self::Http2(_) | Self::Client(_) | Self::Decode(_) => "Internal",
        }
    }
}

impl From<::http2::Error> for StreamError {
    fn from(error: ::http2::Error) -> Self {
        match error {
            ::http2::Error::Reset(reason) => Self::Reset(Reason::from(reason.code())),
            ::http2::Error::Order => Self::Ended,
            other => Self::Client(other),
        }
    }
}

/// The head of a call.
pub(crate) fn request(path: &str, authority: &str, fields: HeaderMap) -> Option<Request<()>> {
    let mut request = Request::builder()
        .method("POST")
        .uri(format!("http://{authority}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("cloverleaf/", env!("CARGO_PKG_VERSION")))
        .body(())
        .ok()?;
    request.headers_mut().extend(fields);
    Some(request)
}

/// The head of an answer.
pub(crate) fn response() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// The end of an answer.
pub(crate) fn trailers(code: u8, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(u16::from(code)));
    if !message.is_empty()
        && let Ok(value) = HeaderValue::from_str(&encoded(message))
    {
        trailers.insert(MESSAGE, value);
    }
    trailers
}

fn encoded(message: &str) -> String {
    percent_encoding::utf8_percent_encode(message, percent_encoding::CONTROLS).to_string()
}

/// The head of an answer to a server's client.
pub(crate) fn client_head() -> Block {
    Block::answer(200).field("content-type", b"application/grpc")
}

/// The end of one.
pub(crate) fn client_end(code: u8, message: &str) -> Block {
    put_status(Block::trailers(), code, message)
}

fn put_status(block: Block, code: u8, message: &str) -> Block {
    let block = block.field(STATUS, code.to_string().as_bytes());
    if message.is_empty() { block } else { block.field(MESSAGE, encoded(message).as_bytes()) }
}

/// Answers a call of a server's client with an error alone.
pub(crate) fn refuse_client(answer: &mut Answer<Message>, code: u8, message: &str) {
    // Where the caller is gone there is nobody to be told.
    let _ = answer.send_head(put_status(client_head(), code, message), true);
}

/// Answers a call with an error alone.
pub(crate) fn refuse(respond: &mut SendResponse<Message>, code: u8, message: &str) {
    let mut answer = response();
    answer.headers_mut().extend(trailers(code, message));
    // Where the caller is gone there is nobody to be told.
    let _ = respond.send_response(answer, true);
}

/// The packets of a stream.
#[derive(Debug)]
pub(crate) struct PacketReader<R = RecvStream> {
    stream: R,
    decoder: Decoder,
    /// Given to the decoder, but not yet given back to the sender as window.
    held: usize,
}

impl<R: Incoming> PacketReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, decoder: Decoder::default(), held: 0 }
    }

    /// The next packet of what has arrived.
    pub(crate) fn ready(&mut self) -> Result<Option<Packet>, StreamError> {
        Ok(self.decoder.next_packet()?)
    }

    /// The next packet; `None` at the end of the stream. The sender may send more once everything that has arrived
    /// was asked for. Dropped, nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Packet>, StreamError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Self::next`].
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Packet>, StreamError>> {
        loop {
            if let Some(packet) = self.decoder.next_packet()? {
                return Poll::Ready(Ok(Some(packet)));
            }
            let held = std::mem::take(&mut self.held);
            if held > 0 {
                self.stream.release(held)?;
            }
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(bytes) => {
                    let bytes = bytes?;
                    self.held += bytes.len();
                    self.decoder.push(bytes);
                }
            }
        }
    }
}

/// Payload of one connection on its way into a stream that is that connection's alone. It asks for as much of the
/// windows as it has payload: a stream that has nothing to send holds nothing that others wait for.
#[derive(Debug)]
pub(crate) struct PayloadSender<S = SendStream<Message>> {
    stream: S,
    left: Bytes,
}

/// Payload of a packet at most.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

impl<S: Outgoing> PayloadSender<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, left: Bytes::new() }
    }

    /// The stream itself, for all that is no payload.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Takes payload, at most [`PAYLOAD_BYTES_MAX`], once [`Self::poll_empty`] is ready. More is cut off.
    pub(crate) fn give(&mut self, payload: Bytes) {
        self.left = payload;
    }

    /// Sends what was given; ready when nothing is left. `sent` hears of each packet.
    pub(crate) fn poll_empty(
        &mut self,
        connection: i64,
        cx: &mut Context<'_>,
        sent: impl Fn(&Packet),
    ) -> Poll<Result<(), StreamError>> {
        while !self.left.is_empty() {
            let wanted = self.left.len() + Message::OVERHEAD_BYTES_MAX;
            let capacity = ready!(self.stream.poll_capacity(wanted, cx))?;
            let most = capacity - Message::OVERHEAD_BYTES_MAX;
            let bytes = self.left.split_to(self.left.remaining().min(most));
            let packet = Packet::Data { connection, bytes };
            sent(&packet);
            let message = Message::new(&packet);
            self.stream.send(message)?;
        }
        // What the head took less than was asked for.
        self.stream.want_nothing();
        Poll::Ready(Ok(()))
    }

    /// Ready when the other side has reset the stream, or the connection below is gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.stream.poll_gone(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_clients_call_has_a_name() {
        use ::http2::Error;
        let cases = [
            (Error::Reset(::http2::Reason::CANCEL), "Canceled"),
            (Error::Reset(::http2::Reason::REFUSED_STREAM), "Unavailable"),
            (Error::Reset(::http2::Reason::INTERNAL_ERROR), "Internal"),
            (Error::Closed, "Unavailable"),
            (Error::Io(std::io::ErrorKind::ConnectionReset), "Unavailable"),
            (Error::Order, "Unavailable"),
            (Error::Broken(::http2::Reason::PROTOCOL_ERROR, "why"), "Internal"),
            (Error::Refused(::http2::Reason::PROTOCOL_ERROR), "Internal"),
        ];
        for (error, expected) in cases {
            assert_eq!(StreamError::from(error).code(), expected, "{error:?}");
        }
    }
}
