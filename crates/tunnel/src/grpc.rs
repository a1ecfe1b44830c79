//! gRPC, as far as two methods need it, over the `h2` crate: heads of requests and answers, and the packets of a
//! stream.
//!
//! Must not know what the packets say.

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
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
        loop {
            if let Some(packet) = self.decoder.next_packet()? {
                return Ok(Some(packet));
            }
            let held = std::mem::take(&mut self.held);
            if held > 0 {
                self.stream.flow_control().release_capacity(held).map_err(StreamError::Http2)?;
            }
            match self.stream.data().await {
                None => return Ok(None),
                Some(bytes) => {
                    let bytes = bytes.map_err(StreamError::Http2)?;
                    self.held += bytes.len();
                    self.decoder.push(bytes);
                }
            }
        }
    }
}
