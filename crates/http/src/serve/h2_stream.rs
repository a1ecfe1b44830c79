//! One HTTP/2 stream as a head, a body and an answer.
//!
//! Must not know connections or rules.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll};

use balance::Rng;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::forward::reply::{Reply, Signature, goes_on, own_fields};
use crate::h1::body::is_trailer;
use crate::head::{Fields, Framing, HeadError, RequestHead, ResponseHead};
use crate::stream::{BodyError, Piece, Sink, Source};

/// A stream's head in the form that all requests have. What HTTP/1.1 cannot carry in one unambiguous form is
/// refused (RFC 9113 section 8.2.1).
pub(super) fn request_head(
    parts: &http::request::Parts,
    recv: &RecvStream,
    fields_max: usize,
    rng: &RefCell<Rng>,
) -> Result<RequestHead, HeadError> {
    if parts.headers.len() > fields_max {
        return Err(HeadError::TooManyFields);
    }
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    // `OPTIONS *` comes as an empty path with some clients.
    let target =
        if target.is_empty() && parts.method == http::Method::OPTIONS { "*" } else { target };
    let mut head = RequestHead::from_parts(
        parts.method.as_str().as_bytes(),
        target.as_bytes(),
        authority(parts)?,
    )?;
    push_fields(&mut head.fields, &parts.headers);
    let lengths = parts.headers.get_all(http::header::CONTENT_LENGTH).iter().count();
    // The library takes a length that is said twice, and one where there is no body (RFC 8441): HTTP/1
    // cannot.
    if lengths > 1 || (lengths > 0 && protocol.is_some()) {
        return Err(HeadError::Length);
    }
    for expectation in parts.headers.get_all(http::header::EXPECT) {
        if !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(HeadError::Expectation);
        }
        head.expects_continue = true;
    }
    head.framing = if recv.is_end_stream() {
        Framing::None
    } else {
        match parts.headers.get(http::header::CONTENT_LENGTH) {
            None => Framing::Chunked,
            Some(length) => {
                let length =
                    length.to_str().ok().and_then(|l| l.parse().ok()).ok_or(HeadError::Length)?;
                Framing::Length(length)
            }
        }
    };
    if let Some(protocol) = protocol {
        head.framing = Framing::None;
        head.set_extended_connect(protocol.as_str().as_bytes())?;
        if protocol.as_str().eq_ignore_ascii_case("websocket") {
            // RFC 8441 section 5 leaves it out; RFC 6455 wants it.
            head.fields.push(b"Sec-WebSocket-Key", &websocket_key(&mut rng.borrow_mut()));
        }
    }
    Ok(head)
}

/// `:authority`, else the only `host`.
fn authority(parts: &http::request::Parts) -> Result<&[u8], HeadError> {
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.as_str().as_bytes());
    }
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => Ok(b""),
        (Some(host), None) => Ok(host.as_bytes()),
        _ => Err(HeadError::Host),
    }
}

/// All fields, the crumbs of `cookie` joined again (RFC 9113 section 8.2.3).
fn push_fields(fields: &mut Fields, headers: &HeaderMap) {
    let mut cookie = Vec::new();
    for (name, value) in headers {
        if name == http::header::COOKIE {
            if !cookie.is_empty() {
                cookie.extend_from_slice(b"; ");
            }
            cookie.extend_from_slice(value.as_bytes());
        } else {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !cookie.is_empty() {
        fields.push(b"cookie", &cookie);
    }
}

/// Sixteen random bytes in base64: the last of the 22 digits carries two bits.
fn websocket_key(rng: &mut Rng) -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = *b"AAAAAAAAAAAAAAAAAAAAAA==";
    for (at, to) in key.iter_mut().enumerate().take(22) {
        let mask = if at == 21 { 0x30 } else { 0x3f };
        *to = DIGITS.get((rng.next_u64() & mask) as usize).copied().unwrap_or(b'A');
    }
    key
}

/// A request's body.
pub(super) struct H2Body {
    recv: RecvStream,
    current: Bytes,
    /// What was handed out of `current` and not yet given back to the client's window.
    given: bool,
    end: Option<Option<Box<Fields>>>,
}

impl H2Body {
    pub(super) fn new(recv: RecvStream) -> Self {
        Self { recv, current: Bytes::new(), given: false, end: None }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match std::task::ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => {
                self.current = data;
                return Poll::Ready(Ok(()));
            }
            Some(Err(_)) => return Poll::Ready(Err(BodyError::Reset)),
            None => {}
        }
        let trailers =
            std::task::ready!(self.recv.poll_trailers(cx)).map_err(|_| BodyError::Reset)?;
        self.end = Some(trailers.map(|headers| {
            let mut fields = Fields::default();
            push_fields(&mut fields, &headers);
            Box::new(fields)
        }));
        Poll::Ready(Ok(()))
    }
}

impl Source for H2Body {
    fn try_next(&mut self) -> Result<Option<Piece<'_>>, BodyError> {
        if std::mem::take(&mut self.given) {
            let done = std::mem::take(&mut self.current).len();
            self.recv.flow_control().release_capacity(done).map_err(|_| BodyError::Reset)?;
        }
        if !self.current.is_empty() {
            self.given = true;
            return Ok(Some(Piece::Data(&self.current)));
        }
        Ok(self.end.as_mut().map(|trailers| Piece::End(trailers.take())))
    }

    async fn wait(&mut self) -> Result<(), BodyError> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    /// A stream's data is what it is.
    fn switch_to_raw(&mut self) {}
}

/// The way back on a stream. In a cell, because a reset is watched for while an answer is written.
pub(super) enum Out {
    /// No final answer has begun.
    Waiting(SendResponse<Bytes>),
    /// The answer has begun; `ended` when everything has been said.
    Answering { send: SendStream<Bytes>, ended: bool },
}

impl Out {
    /// Ready when the client has reset the stream.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Waiting(respond) => respond.poll_reset(cx).map(|_| ()),
            Self::Answering { send, ended: false } => send.poll_reset(cx).map(|_| ()),
            Self::Answering { .. } => Poll::Pending,
        }
    }

    /// Answers with nothing but a status.
    pub(super) fn refuse(&mut self, status: u16) {
        let Self::Waiting(respond) = self else { return };
        let mut response = http::Response::new(());
        *response.status_mut() =
            http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
        let _ = respond.send_response(response, true);
    }

    /// Tells the client that there is no answer, or that it is not whole.
    pub(super) fn break_off(&mut self, reason: Reason) {
        match self {
            Self::Waiting(respond) => respond.send_reset(reason),
            Self::Answering { send, ended: false } => send.send_reset(reason),
            Self::Answering { .. } => {}
        }
    }

    fn sending(&mut self) -> Result<&mut SendStream<Bytes>, BodyError> {
        match self {
            Self::Answering { send, ended: false } => Ok(send),
            _ => Err(BodyError::Malformed),
        }
    }
}

/// An answer on a stream.
pub(super) struct H2Reply<'o> {
    out: &'o RefCell<Out>,
}

impl<'o> H2Reply<'o> {
    pub(super) fn new(out: &'o RefCell<Out>) -> Self {
        Self { out }
    }

    /// Waits until the client takes more, at most that much.
    async fn capacity(&self, wanted: usize) -> Result<usize, BodyError> {
        self.out.borrow_mut().sending()?.reserve_capacity(wanted);
        poll_fn(|cx| {
            let mut out = self.out.borrow_mut();
            let send = out.sending()?;
            let ready = send.capacity();
            if ready > 0 {
                return Poll::Ready(Ok(ready));
            }
            match std::task::ready!(send.poll_capacity(cx)) {
                Some(Ok(count)) if count > 0 => Poll::Ready(Ok(count)),
                Some(Ok(_)) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(Err(_)) | None => Poll::Ready(Err(BodyError::Reset)),
            }
        })
        .await
    }
}

impl Reply for H2Reply<'_> {
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), BodyError> {
        if let Out::Waiting(respond) = &mut *self.out.borrow_mut() {
            let mut response = http::Response::new(());
            *response.status_mut() =
                http::StatusCode::from_u16(head.status).map_err(|_| BodyError::Malformed)?;
            head.fields.iter().for_each(|f| insert(response.headers_mut(), f.name, f.value));
            respond.send_informational(response).map_err(|_| BodyError::Reset)?;
        }
        Ok(())
    }

    fn begin(&mut self, head: &ResponseHead, signature: Signature<'_>) -> Result<(), BodyError> {
        let mut out = self.out.borrow_mut();
        let Out::Waiting(respond) = &mut *out else { return Err(BodyError::Malformed) };
        let mut response = http::Response::new(());
        // RFC 8441 section 5: what HTTP/1.1 says with 101 is 200 here.
        let upgraded = head.status == 101;
        let status = if upgraded { 200 } else { head.status };
        *response.status_mut() =
            http::StatusCode::from_u16(status).map_err(|_| BodyError::Malformed)?;
        let mut put = |name: &[u8], value: &[u8]| {
            let of_http1 = upgraded
                && (name.eq_ignore_ascii_case(b"connection")
                    || name.eq_ignore_ascii_case(b"upgrade")
                    || name.eq_ignore_ascii_case(b"sec-websocket-accept"));
            if !of_http1 {
                insert(response.headers_mut(), name, value);
            }
        };
        for field in head.fields.iter().filter(|f| goes_on(head, f.known, signature)) {
            put(field.name, field.value);
        }
        own_fields(head, signature, put);
        let ends = head.framing == Framing::None && !upgraded;
        let send = respond.send_response(response, ends).map_err(|_| BodyError::Reset)?;
        *out = Out::Answering { send, ended: ends };
        Ok(())
    }

    fn has_begun(&self) -> bool {
        !matches!(&*self.out.borrow(), Out::Waiting(_))
    }
}

/// Adds a field; one that HTTP/2 cannot carry is left out.
fn insert(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}

impl Sink for H2Reply<'_> {
    async fn data(&mut self, mut data: &[u8]) -> Result<(), BodyError> {
        while !data.is_empty() {
            let room = self.capacity(data.len()).await?;
            let (now, later) = data.split_at(room.min(data.len()));
            let piece = Bytes::copy_from_slice(now);
            self.out
                .borrow_mut()
                .sending()?
                .send_data(piece, false)
                .map_err(|_| BodyError::Reset)?;
            data = later;
        }
        Ok(())
    }

    /// The connection's task writes what it has.
    async fn flush(&mut self) -> Result<(), BodyError> {
        Ok(())
    }

    async fn end(&mut self, trailers: Option<&Fields>) -> Result<(), BodyError> {
        let mut out = self.out.borrow_mut();
        let Out::Answering { send, ended } = &mut *out else { return Err(BodyError::Malformed) };
        if std::mem::replace(ended, true) {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        for f in trailers.iter().flat_map(|t| t.iter()).filter(|f| is_trailer(f.known)) {
            insert(&mut headers, f.name, f.value);
        }
        let sent = if headers.is_empty() {
            send.send_data(Bytes::new(), true)
        } else {
            send.send_trailers(headers)
        };
        sent.map_err(|_| BodyError::Reset)
    }

    fn switch_to_raw(&mut self) {}
}
