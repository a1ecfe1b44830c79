//! gRPC, as far as two methods need it, over the `h2` crate: heads of requests and answers, the packets of a stream,
//! and payload on its way into one.
//!
//! Must not know what the packets say.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
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

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The connection or the stream failed.
    #[error("HTTP/2 failed")]
    Http2(#[source] h2::Error),
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
            Self::Decode(DecodeError::TooLong { .. }) => "ResourceExhausted",
            Self::Decode(DecodeError::Compressed) => "Unimplemented",
            Self::Reset(_) | Self::Http2(_) | Self::Decode(_) => "Internal",
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
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if !message.is_empty() {
        let encoded =
            percent_encoding::utf8_percent_encode(message, percent_encoding::CONTROLS).to_string();
        if let Ok(value) = HeaderValue::from_str(&encoded) {
            trailers.insert("grpc-message", value);
        }
    }
    trailers
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
pub(crate) struct PacketReader {
    stream: RecvStream,
    decoder: Decoder,
    /// Given to the decoder, but not yet given back to the sender as window.
    held: usize,
}

impl PacketReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
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
                self.stream.flow_control().release_capacity(held).map_err(StreamError::Http2)?;
            }
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(bytes) => {
                    let bytes = bytes.map_err(StreamError::Http2)?;
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
pub(crate) struct PayloadSender {
    stream: SendStream<Message>,
    left: Bytes,
}

impl PayloadSender {
    /// Payload of a packet.
    pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

    pub(crate) fn new(stream: SendStream<Message>) -> Self {
        Self { stream, left: Bytes::new() }
    }

    /// The stream itself, for all that is no payload.
    pub(crate) fn stream(&mut self) -> &mut SendStream<Message> {
        &mut self.stream
    }

    /// Takes payload, at most [`Self::PAYLOAD_BYTES_MAX`], once [`Self::poll_empty`] is ready. More is cut off.
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
            let capacity = self.stream.capacity();
            if capacity <= Message::OVERHEAD_BYTES_MAX {
                self.stream.reserve_capacity(self.left.len() + Message::OVERHEAD_BYTES_MAX);
                match ready!(self.stream.poll_capacity(cx)) {
                    None => return Poll::Ready(Err(StreamError::Ended)),
                    Some(Err(error)) => return Poll::Ready(Err(StreamError::Http2(error))),
                    Some(Ok(_)) => continue,
                }
            }
            let most = capacity - Message::OVERHEAD_BYTES_MAX;
            let bytes = self.left.split_to(self.left.remaining().min(most));
            let packet = Packet::Data { connection, bytes };
            sent(&packet);
            let message = Message::new(&packet);
            self.stream.send_data(message, false).map_err(StreamError::Http2)?;
        }
        // What the head took less than was asked for.
        if self.stream.capacity() > 0 {
            self.stream.reserve_capacity(0);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the other side has reset the stream, or the connection below is gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let reset = ready!(self.stream.poll_reset(cx));
        Poll::Ready(reset.map_or_else(StreamError::Http2, StreamError::Reset))
    }
}
