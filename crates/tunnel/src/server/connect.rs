//! Clients that speak HTTP/1.1 CONNECT: a head, an answer, then bytes both ways.
//!
//! Must not know how the other clients speak.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::hub::{DialError, Hub, Wish};
use crate::splice::{Cut, Manners, splice};
use crate::{CLUSTER_FIELD, FEATURES, FEATURES_FIELD, is_cluster};

/// The longest head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of a head.
const HEAD_FIELDS_MAX: usize = 64;
/// What a client sends ahead of the answer; beyond it the rest stays in the socket.
const EARLY_BYTES_MAX: usize = 64 * 1024;
/// How long a head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What a client sent first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// CONNECT to an address, with what came after the head.
    Connect { wish: Wish, ours: bool, rest: Bytes },
    /// Another method, or no HTTP.
    Refused { status: &'static str, text: &'static str },
}

/// Serves a connection until it ends. Dropped, both sides are closed.
pub(super) async fn serve<S>(hub: &Hub, mut io: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(Ok(head)) = tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut io)).await else { return };
    let (wish, ours, rest) = match head {
        Head::Connect { wish, ours, rest } => (wish, ours, rest),
        Head::Refused { status, text } => return answer(io, status, text).await,
    };
    let _open = hub.stats.http_connections.count();
    let mut early = BytesMut::from(rest);
    let dialled = {
        // It goes with its memory.
        let dial = Box::pin(hub.dial(wish));
        tokio::select! {
            dialled = dial => dialled,
            () = gone(&mut io, &mut early) => {
                hub.stats.dials_closed.add(1);
                return;
            }
        }
    };
    match dialled {
        Err(error) => answer(io, status_of(&error), &text_of(&error)).await,
        Ok(tunnelled) => {
            let _life = hub.stats.establish();
            let known =
                if ours { format!("{FEATURES_FIELD}: {FEATURES}\r\n") } else { String::new() };
            let head = format!("HTTP/1.1 200 Connection Established\r\n{known}\r\n");
            let answered = async {
                io.write_all(head.as_bytes()).await?;
                io.flush().await
            };
            if answered.await.is_err() {
                hub.stats.unsent_responses.add(1);
            } else {
                // Without TLS's word of goodbye, and without the kernel's where something was not read.
                let cut = if ours { Cut::BreaksOff } else { Cut::Ends };
                let manners = Manners { linger: None, reset: |_| {}, cut };
                let end = splice(tunnelled, io, early.freeze(), manners).await;
                tracing::debug!(?end, "a connection has ended");
            }
        }
    }
}

/// Ready when the client has gone. What it sends before it has an answer is kept, up to a bound.
async fn gone<S: AsyncRead + Unpin>(io: &mut S, early: &mut BytesMut) {
    while early.len() < EARLY_BYTES_MAX {
        if !matches!(io.read_buf(early).await, Ok(1..)) {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Reads what a client sends first, within the bounds of a head. Dropped, what was read is lost.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(io: &mut S) -> std::io::Result<Head> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if io.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((head, length)) = parse(&read) {
            return Ok(match head {
                // A copy, mostly of nothing: the head's memory is not the connection's.
                Head::Connect { wish, ours, .. } => {
                    Head::Connect { wish, ours, rest: Bytes::copy_from_slice(&read[length..]) }
                }
                refused @ Head::Refused { .. } => refused,
            });
        }
    }
}

/// The head, and how long it is; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Option<(Head, usize)> {
    let refused = |status, text| Some((Head::Refused { status, text }, 0));
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return None,
        Ok(httparse::Status::Partial) => {
            return refused("431 Request Header Fields Too Large", "the head is too long");
        }
        Err(_) => return refused("400 Bad Request", "the request is not HTTP/1.1"),
    };
    if request.method != Some("CONNECT") {
        return refused("405 Method Not Allowed", "this proxy only supports CONNECT passthrough");
    }
    let address = request.path.unwrap_or_default();
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !has_port {
        return refused("400 Bad Request", "CONNECT wants host:port");
    }
    let field = |name: &str| {
        let mut fields = request.headers.iter();
        fields.find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let ours = field(FEATURES_FIELD) == Some(FEATURES.as_bytes());
    let cluster = match field(CLUSTER_FIELD).map(std::str::from_utf8) {
        None => None,
        Some(Ok(cluster)) if is_cluster(cluster) => Some(cluster.to_owned()),
        Some(_) => return refused("400 Bad Request", "the cluster's name is none"),
    };
    let wish = Wish { protocol: "tcp".to_owned(), address: address.to_owned(), cluster };
    Some((Head::Connect { wish, ours, rest: Bytes::new() }, length))
}

/// As the original has them.
fn status_of(error: &DialError) -> &'static str {
    match error {
        DialError::NoAgent | DialError::NoCluster(_) => "500 Internal Server Error",
        DialError::Timeout(_) => "504 Gateway Timeout",
        DialError::Address(_) => "400 Bad Request",
        DialError::AgentGone => "502 Bad Gateway",
        DialError::Refused(text) => {
            let has = |part: &str| text.contains(part);
            if has("timeout") || has("deadline exceeded") {
                "504 Gateway Timeout"
            } else if has("too many open files") {
                "503 Service Unavailable"
            } else {
                "502 Bad Gateway"
            }
        }
    }
}

fn text_of(error: &DialError) -> String {
    match error {
        DialError::NoAgent => format!("currently no tunnels available: {error}"),
        other => other.to_string(),
    }
}

/// Answers with a refusal, and ends the connection.
pub(crate) async fn answer<S: AsyncWrite + Unpin>(mut io: S, status: &str, text: &str) {
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    // A client that has gone hears nothing.
    let _ = io.write_all(reply.as_bytes()).await;
    let _ = io.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_apart() {
        let connect = |address: &str| Some(("200", address.to_owned()));
        for (bytes, expected) in [
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", connect("a.test:443")),
            ("CONNECT [::1]:1 HTTP/1.1\r\n\r\n", connect("[::1]:1")),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a", None),
            ("GET / HTTP/1.1\r\n\r\n", Some(("405", String::new()))),
            ("CONNECT a.test HTTP/1.1\r\n\r\n", Some(("400", String::new()))),
            ("CONNECT a:0 HTTP/1.1\r\n\r\n", Some(("400", String::new()))),
            ("\x16\x03\x01", Some(("400", String::new()))),
            (&"x".repeat(HEAD_BYTES_MAX), Some(("431", String::new()))),
        ] {
            let found = parse(bytes.as_bytes()).map(|(head, _)| match head {
                Head::Connect { wish, .. } => ("200", wish.address),
                Head::Refused { status, .. } => (&status[..3], String::new()),
            });
            assert_eq!(found, expected, "{bytes:.40}");
        }
    }

    #[test]
    fn errors_have_the_originals_statuses() {
        for (error, status) in [
            (DialError::Refused("dial tcp 1.2.3.4:5: i/o timeout".into()), "504"),
            (DialError::Refused("context deadline exceeded".into()), "504"),
            (DialError::Refused("socket: too many open files".into()), "503"),
            (DialError::Refused("connect: connection refused".into()), "502"),
            (DialError::NoAgent, "500"),
            (DialError::AgentGone, "502"),
        ] {
            assert!(status_of(&error).starts_with(status), "{error}");
        }
        assert!(text_of(&DialError::NoAgent).starts_with("currently no tunnels available: "));
    }
}
