//! Connections that stop being HTTP: `WebSockets`, whose messages are sent back, and any other
//! protocol, whose bytes are.
//!
//! Each runs in a task of its own, which ends when nothing moves for some minutes or the role ends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::stream::EchoBody;
use super::{Peer, text};

/// How long an upgraded connection may stand still.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Greatest message and frame of a WebSocket; a greater one ends it.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes waiting to be written to a WebSocket: one message and its header, beside the library's own
/// 128 KiB.
const WRITE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 256 * 1024;
/// Bytes of a raw connection on their way back.
const RAW_BUFFER_BYTES: usize = 16 * 1024;

/// What a request wants to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// RFC 6455.
    WebSocket,
    /// The protocol's name as the client gave it.
    Raw(HeaderValue),
}

/// What a request wants to become, if anything. `h2c` is passed over, as RFC 9113 section 3.1 has
/// it: curl asks for it and is content with HTTP/1.1.
pub(super) fn wanted(request: &Request<Incoming>) -> Option<Kind> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    kind(request.headers())
}

fn kind(headers: &HeaderMap) -> Option<Kind> {
    if !tokens(headers, &header::CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let protocol = tokens(headers, &header::UPGRADE).find(|t| !t.eq_ignore_ascii_case("h2c"))?;
    if protocol.eq_ignore_ascii_case("websocket") {
        return Some(Kind::WebSocket);
    }
    HeaderValue::from_str(protocol).ok().map(Kind::Raw)
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|t| !t.is_empty())
}

/// Answers 101 and starts the echo, or says what the request lacks.
pub(super) fn answer(
    request: &mut Request<Incoming>,
    kind: Kind,
    peer: Peer,
) -> Response<EchoBody> {
    let response = match &kind {
        Kind::WebSocket => websocket_answer(request.method(), request.headers()),
        Kind::Raw(protocol) => Ok(switch(protocol.clone())),
    };
    match response {
        Ok(response) => {
            let upgrade = hyper::upgrade::on(request);
            drop(net::task::spawn("echo upgrade", run(upgrade, kind, peer)));
            response
        }
        Err(refusal) => *refusal,
    }
}

/// RFC 6455 section 4.2.
fn websocket_answer(
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<EchoBody>, Box<Response<EchoBody>>> {
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        let mut refusal = text(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 only\n".into());
        let version = HeaderValue::from_static("13");
        refusal.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
        return Err(Box::new(refusal));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| method == Method::GET);
    let accept = key.map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = accept.and_then(|text| HeaderValue::try_from(text).ok()) else {
        let problem = "a WebSocket begins with GET and a Sec-WebSocket-Key\n".to_owned();
        return Err(Box::new(text(StatusCode::BAD_REQUEST, problem)));
    };
    let mut response = switch(HeaderValue::from_static("websocket"));
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    // Of the subprotocols offered the first: some clients insist on one.
    let first = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).next();
    if let Some(protocol) = first.and_then(|p| HeaderValue::from_str(p).ok()) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

fn switch(protocol: HeaderValue) -> Response<EchoBody> {
    let mut response = Response::new(EchoBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    response
}

async fn run(upgrade: OnUpgrade, kind: Kind, peer: Peer) {
    let echo = async {
        let Ok(upgraded) = upgrade.await else { return };
        let ended = match kind {
            Kind::WebSocket => echo_messages(upgraded).await,
            Kind::Raw(_) => echo_bytes(upgraded).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an upgraded echo connection failed");
        }
    };
    tokio::select! {
        () = echo => {}
        () = peer.gone() => {}
    }
    drop(peer.place);
}

async fn echo_messages(upgraded: Upgraded) -> anyhow::Result<()> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .max_write_buffer_size(WRITE_BYTES_MAX);
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    // The library answers pings and the closing handshake while it is read.
    while let Some(message) = timeout(IDLE_TIMEOUT, socket.next()).await? {
        let message = message?;
        if message.is_text() || message.is_binary() {
            timeout(IDLE_TIMEOUT, socket.send(message)).await??;
        }
    }
    Ok(())
}

async fn echo_bytes(upgraded: Upgraded) -> anyhow::Result<()> {
    let mut io = TokioIo::new(upgraded);
    let mut buffer = vec![0; RAW_BUFFER_BYTES];
    loop {
        match timeout(IDLE_TIMEOUT, io.read(&mut buffer)).await?? {
            0 => break,
            n => timeout(IDLE_TIMEOUT, io.write_all(&buffer[..n])).await??,
        }
        timeout(IDLE_TIMEOUT, io.flush()).await??;
    }
    timeout(IDLE_TIMEOUT, io.shutdown()).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_for_it_is_upgraded() {
        let raw = |name: &'static str| Some(Kind::Raw(HeaderValue::from_static(name)));
        for (connection, upgrade, expected) in [
            ("Upgrade", "websocket", Some(Kind::WebSocket)),
            ("keep-alive, upgrade", "WebSocket", Some(Kind::WebSocket)),
            ("keep-alive", "websocket", None),
            ("upgrade", "", None),
            ("upgrade, HTTP2-Settings", "h2c", None),
            ("upgrade", "h2c, echo", raw("echo")),
            ("upgrade", "spdy/3.1", raw("spdy/3.1")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
            headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
            assert_eq!(kind(&headers), expected, "{connection} / {upgrade}");
        }
    }

    #[test]
    fn the_websocket_answer_is_that_of_the_rfc() {
        let mut headers = HeaderMap::new();
        let status = |headers: &HeaderMap| match websocket_answer(&Method::GET, headers) {
            Ok(response) => response.status(),
            Err(refusal) => refusal.status(),
        };
        assert_eq!(status(&headers), StatusCode::UPGRADE_REQUIRED);
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert_eq!(status(&headers), StatusCode::BAD_REQUEST);
        // The example of RFC 6455 section 1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat, superchat"));
        let response = websocket_answer(&Method::GET, &headers).unwrap();
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        assert!(websocket_answer(&Method::POST, &headers).is_err());
    }
}
