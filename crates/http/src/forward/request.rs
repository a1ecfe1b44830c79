//! The request as the upstream gets it: target, `Host`, forwarding fields, and what the client sent beside them.
//!
//! Must not know connections or which endpoint was chosen beyond its `Host`.

use crate::client::Client;
use crate::forward::trace::TraceParent;
use crate::h1::write;
use crate::head::{Framing, Known, RequestHead};

/// What a request becomes on its way, beside its own head.
#[derive(Debug)]
pub(crate) struct Outgoing<'r> {
    pub(crate) head: &'r RequestHead,
    /// Path and query.
    pub(crate) target: &'r [u8],
    /// The client's forwarding fields are believed and appended to.
    pub(crate) trusted: bool,
    pub(crate) client: &'r Client,
    /// A trace of our own where the client brought none.
    pub(crate) trace: &'r TraceParent,
    /// The client takes trailers (`TE: trailers`).
    pub(crate) takes_trailers: bool,
}

/// Writes the whole head. `host` is the endpoint's, where the client's is not kept or there is none.
pub(crate) fn write(
    out: &mut Vec<u8>,
    request: &Outgoing<'_>,
    host: Option<&str>,
    fallback_host: &str,
) {
    let head = request.head;
    let method = if head.extended_connect { b"GET" } else { head.method() };
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(request.target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = head.authority();
    let host = match host {
        Some(host) => host.as_bytes(),
        None if authority.is_empty() => fallback_host.as_bytes(),
        None => authority,
    };
    write::field(out, b"Host", host);
    let mut forwarded = Received::default();
    write::fields(out, &head.fields, |field| match field.known {
        Known::Host => false,
        Known::XForwardedFor
        | Known::XForwardedHost
        | Known::XForwardedProto
        | Known::Forwarded => {
            forwarded.note(field.known, field.value, request.trusted);
            false
        }
        Known::Traceparent | Known::Tracestate => !request.trace.begun,
        _ => true,
    });
    // RFC 9110 sections 7.8 and 10.1.4: both are for the next hop alone, and say so.
    out.extend_from_slice(match (head.upgrade().is_some(), request.takes_trailers) {
        (true, true) => b"Connection: Upgrade, TE\r\n".as_slice(),
        (true, false) => b"Connection: Upgrade\r\n",
        (false, true) => b"Connection: TE\r\n",
        (false, false) => b"",
    });
    if request.takes_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    if let Some(protocol) = head.upgrade() {
        write::field(out, b"Upgrade", protocol);
    }
    if head.framing == Framing::Chunked && !head.extended_connect {
        write::framing(out, Framing::Chunked);
    }
    forwarded.write(out, request.client, authority);
    if request.trace.begun {
        write::field(out, b"traceparent", request.trace.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// The forwarding fields of a trusted hop. Several of a kind become one.
#[derive(Debug, Default)]
struct Received {
    for_: Vec<u8>,
    host: Vec<u8>,
    proto: Vec<u8>,
    forwarded: Vec<u8>,
}

impl Received {
    fn note(&mut self, known: Known, value: &[u8], trusted: bool) {
        if !trusted || value.is_empty() {
            return;
        }
        let list = match known {
            Known::XForwardedFor => &mut self.for_,
            Known::XForwardedHost => &mut self.host,
            Known::XForwardedProto => &mut self.proto,
            _ => &mut self.forwarded,
        };
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(value);
    }

    /// `X-Forwarded-*` and `Forwarded` (RFC 7239): this hop at the end; host and scheme of the first hop stay.
    fn write(mut self, out: &mut Vec<u8>, client: &Client, authority: &[u8]) {
        self.note(Known::XForwardedFor, client.ip_text.as_bytes(), true);
        write::field(out, b"X-Forwarded-For", &self.for_);
        let host = if self.host.is_empty() { authority } else { &self.host };
        if !host.is_empty() {
            write::field(out, b"X-Forwarded-Host", host);
        }
        let proto = if self.proto.is_empty() { client.scheme.as_bytes() } else { &self.proto };
        write::field(out, b"X-Forwarded-Proto", proto);
        out.extend_from_slice(b"Forwarded: ");
        if !self.forwarded.is_empty() {
            out.extend_from_slice(&self.forwarded);
            out.extend_from_slice(b", ");
        }
        self::forwarded(out, client, authority);
        out.extend_from_slice(b"\r\n");
    }
}

/// This hop's element of `Forwarded`: IPv6 addresses and hosts with a port are quoted (RFC 7239 section 4).
fn forwarded(out: &mut Vec<u8>, client: &Client, authority: &[u8]) {
    out.extend_from_slice(b"for=");
    if client.ip.is_ipv6() {
        out.extend_from_slice(b"\"[");
        out.extend_from_slice(client.ip_text.as_bytes());
        out.extend_from_slice(b"]\"");
    } else {
        out.extend_from_slice(client.ip_text.as_bytes());
    }
    if !authority.is_empty() {
        let quoted =
            !authority.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        out.extend_from_slice(if quoted { b";host=\"" } else { b";host=" });
        out.extend_from_slice(authority);
        if quoted {
            out.push(b'"');
        }
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(client.scheme.as_bytes());
}
