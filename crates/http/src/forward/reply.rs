//! The answer to a client, whatever protocol it speaks, and the answers that are the gateway's own.
//!
//! Must not know upstreams.

use std::borrow::Cow;

use crate::head::{Fields, Framing, Known, ResponseHead};
use crate::program::Identity;
use crate::stream::{BodyError, Sink};
use crate::worker::Worker;

/// What the gateway adds to every answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature<'s> {
    pub(crate) worker: &'s Worker,
    /// `X-Proxy` and `X-Proxy-Instance`, for answers that came from an upstream.
    pub(crate) identity: Option<&'s Identity>,
    /// `Server` where the answer has none.
    pub(crate) server: bool,
}

impl<'s> Signature<'s> {
    /// That of an answer of the gateway's own.
    pub(crate) fn own(worker: &'s Worker) -> Self {
        let server = worker.local().program.snapshot.manners.server_header;
        Self { worker, identity: None, server }
    }
}

/// Where an answer goes.
pub(crate) trait Reply: Sink {
    /// Passes on an interim answer. Dropped, a part may have gone.
    async fn interim(&mut self, head: &ResponseHead) -> Result<(), BodyError>;

    /// Begins the final answer. It may be kept until the next flush.
    fn begin(&mut self, head: &ResponseHead, signature: Signature<'_>) -> Result<(), BodyError>;

    /// Whether [`Self::begin`] was called: from then on nothing else can be answered.
    fn has_begun(&self) -> bool;
}

/// An answer of the gateway's own.
#[derive(Debug, Clone)]
pub(crate) struct OwnAnswer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Cow<'static, [u8]>,
    pub(crate) location: Option<Vec<u8>>,
}

impl OwnAnswer {
    /// A short text.
    pub(crate) fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { status, content_type: "text/plain; charset=utf-8", body, location: None }
    }

    /// An error: JSON for those who ask for it, a line of text for everybody else. `code` is the metric
    /// label and the access log's `error`, so that a user's report can be found there.
    pub(crate) fn error(
        status: u16,
        code: &'static str,
        message: &'static str,
        json: bool,
    ) -> Self {
        if json {
            let body = serde_json::json!({ "status": status, "error": code, "message": message });
            let body = Cow::Owned(body.to_string().into_bytes());
            return Self { status, content_type: "application/json", body, location: None };
        }
        Self::text(status, format!("{message}\n"))
    }

    /// What a rule says: JSON for those who ask for it, a line of text for everybody else.
    pub(crate) fn respond(status: u16, json: bool) -> Self {
        // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5: these have no content.
        if matches!(status, 204 | 205 | 304) {
            return Self::text(status, "");
        }
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
        let message = reason.map_or_else(|| status.to_string(), |r| format!("{status}: {r}"));
        if json {
            let body = serde_json::json!({ "status": status, "message": message });
            let body = Cow::Owned(body.to_string().into_bytes());
            return Self { status, content_type: "application/json", body, location: None };
        }
        Self::text(status, format!("{message}\n"))
    }

    /// Sends it. `to_head`: without the body.
    pub(crate) async fn send(
        self,
        reply: &mut impl Reply,
        to_head: bool,
        signature: Signature<'_>,
    ) -> Result<u64, BodyError> {
        let mut head = ResponseHead::own(self.status);
        let length = self.body.len() as u64;
        // Their heads say nothing of a body, not even of an empty one.
        let bodiless = matches!(self.status, 204 | 304);
        if !bodiless {
            head.fields.push(b"Content-Type", self.content_type.as_bytes());
            head.fields.push(b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
        }
        if let Some(location) = &self.location {
            head.fields.push(b"Location", location);
        }
        let has_body = !to_head && !bodiless && length > 0;
        head.framing = if has_body { Framing::Length(length) } else { Framing::None };
        reply.begin(&head, Signature { identity: None, ..signature })?;
        if has_body {
            reply.data(&self.body).await?;
        }
        reply.end(None).await?;
        Ok(if has_body { length } else { 0 })
    }
}

/// Whether a field of an answer goes further.
pub(crate) fn goes_on(head: &ResponseHead, field: Known, signature: Signature<'_>) -> bool {
    match field {
        Known::XProxy | Known::XProxyInstance => signature.identity.is_none(),
        // RFC 9110 section 8.6: none in 204 and 1xx.
        Known::ContentLength => head.status != 204 && head.status >= 200,
        _ => true,
    }
}

/// Hands the gateway's own fields of an answer to `put`.
pub(crate) fn own_fields(
    head: &ResponseHead,
    signature: Signature<'_>,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let (mut dated, mut named) = (false, false);
    for field in head.fields.iter() {
        dated |= field.known == Known::Date;
        named |= field.known == Known::Server;
    }
    let is_final = head.status >= 200;
    if is_final && !dated {
        let mut date = Vec::with_capacity(32);
        signature.worker.date(&mut date);
        put(b"Date", &date);
    }
    if is_final && !named && signature.server {
        put(b"Server", b"cloverleaf");
    }
    // 101 is the last answer of HTTP on its connection.
    if let Some(identity) = signature.identity.filter(|_| is_final || head.status == 101) {
        put(b"X-Proxy", identity.proxy.as_bytes());
        put(b"X-Proxy-Instance", identity.instance.as_bytes());
    }
}

/// Whether a client asks for JSON before text.
pub(crate) fn wants_json(fields: &Fields) -> bool {
    fields
        .by_name(b"accept")
        .is_some_and(|v| memchr::memmem::find(v, b"application/json").is_some())
}
