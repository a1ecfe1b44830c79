//! A connection through a server that speaks HTTP CONNECT: a connection of its own, whose bytes are the target's after
//! the head.
//!
//! Must not know whose it is. Start at [`open`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::io::{self, Io};
use super::server::ServerError;
use super::{Client, ClientError, Protocol, To, printable};
use crate::{CLUSTER_FIELD, FEATURES, FEATURES_FIELD};

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of such a head.
const HEAD_FIELDS_MAX: usize = 64;
/// What is read of a refusal's text.
const TEXT_BYTES_MAX: u64 = 4 * 1024;
/// How long that may take.
const TEXT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the end of a connection may take to be said.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub(super) struct Tube {
    pub(super) io: Io,
    /// What came with the head.
    pub(super) first: Bytes,
    /// The end is to follow what was written.
    pub(super) finishing: bool,
    ended: bool,
}

/// What a server answers.
struct Answer {
    status: u16,
    ours: bool,
    length: usize,
}

/// Has the server connect. Dropped, the connection to it is closed, by which it knows.
pub(super) async fn open(client: &Client, to: &To) -> Result<Tube, ClientError> {
    if to.protocol == Protocol::Udp {
        let text = "HTTP CONNECT carries no datagrams; the mode gRPC does";
        return Err(ClientError::Refused(text.to_owned()));
    }
    let failed = |error: ServerError| client.failed(error);
    let mut io = reach(client).await.map_err(failed)?;
    let read = ask(client, &mut io, to).await.map_err(failed)?;
    let (answer, mut rest) = read;
    if answer.status != 200 {
        rest.advance(answer.length);
        return Err(ClientError::Refused(refusal(answer.status, rest, &mut io).await));
    }
    if to.cluster.is_some() && !answer.ours {
        // It may have connected anywhere. Nothing was said there.
        io.reset_on_close();
        let text = "the server is not ours, and knows no clusters; leave the cluster out";
        return Err(ClientError::Refused(text.to_owned()));
    }
    rest.advance(answer.length);
    Ok(Tube { io, first: rest.freeze(), finishing: false, ended: false })
}

/// Has the server answer: to what it refuses, so that nobody is connected to. Dropped, nothing has happened.
pub(super) async fn check(client: &Client) -> Result<(), ServerError> {
    let mut io = reach(client).await?;
    exchange(&mut io, "GET / HTTP/1.1\r\nHost: tunnel\r\nConnection: close\r\n\r\n").await?;
    Ok(())
}

/// A connection to a server that can be reached, within a time. Dropped, it is closed.
async fn reach(client: &Client) -> Result<Io, ServerError> {
    let reached = client.servers.first_of_use(|server| io::open(client, server));
    let reached = tokio::time::timeout(io::CONNECT_TIMEOUT, reached).await;
    Ok(reached.unwrap_or(Err(ServerError::Timeout))?.0)
}

/// Sends the wish and reads the answer's head, with what comes behind it.
async fn ask(client: &Client, io: &mut Io, to: &To) -> Result<(Answer, BytesMut), ServerError> {
    let address = &to.address;
    let mut head = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n");
    if client.extensions {
        head.push_str(&format!("{FEATURES_FIELD}: {FEATURES}\r\n"));
    }
    if let Some(cluster) = &to.cluster {
        head.push_str(&format!("{CLUSTER_FIELD}: {cluster}\r\n"));
    }
    head.push_str("\r\n");
    exchange(io, &head).await
}

/// Sends a head and reads that of the answer, with what comes behind it.
async fn exchange(io: &mut Io, head: &str) -> Result<(Answer, BytesMut), ServerError> {
    io.write_all(head.as_bytes()).await?;
    io.flush().await?;
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if io.read_buf(&mut read).await? == 0 {
            return Err(ServerError::Closed);
        }
        if let Some(answer) = parse(&read)? {
            return Ok((answer, read));
        }
    }
}

/// The head of an answer; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, ServerError> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let status = response.code.unwrap_or_default();
            let is_ours = |field: &&mut httparse::Header<'_>| {
                field.name.eq_ignore_ascii_case(FEATURES_FIELD)
                    && field.value == FEATURES.as_bytes()
            };
            let ours = response.headers.iter_mut().any(|field| is_ours(&field));
            Ok(Some(Answer { status, ours, length }))
        }
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => Ok(None),
        Ok(httparse::Status::Partial) => {
            Err(ServerError::Answer("the head of its answer is too long".to_owned()))
        }
        Err(error) => Err(ServerError::Answer(error.to_string())),
    }
}

/// The words of a refusal.
async fn refusal(status: u16, rest: BytesMut, io: &mut Io) -> String {
    let mut text = rest.to_vec();
    let mut bounded = io.take(TEXT_BYTES_MAX);
    let reading = bounded.read_to_end(&mut text);
    // Whatever has come by then.
    let _ = tokio::time::timeout(TEXT_TIMEOUT, reading).await;
    match printable(&String::from_utf8_lossy(&text)) {
        text if text.is_empty() => format!("status {status}"),
        text => text,
    }
}

impl Tube {
    /// Notes that the way there has been closed.
    pub(super) fn set_ended(&mut self) {
        self.ended = true;
    }

    /// Takes of what came with the head.
    pub(super) fn take_first(&mut self, most: usize) -> Bytes {
        self.first.split_to(self.first.len().min(most))
    }

    /// Ends it: in order, in a task of its own, where that has not been done.
    pub(super) fn leave(mut self, reset: bool) {
        if reset {
            return self.io.reset_on_close();
        }
        if self.ended || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        drop(net::task::spawn("tunnel goodbye", async move {
            let _ = tokio::time::timeout(GOODBYE_MAX, self.io.shutdown()).await;
        }));
    }

    /// Ready when everything that was written is on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Ready when that is, and the end behind it where there is one, or the way there is closed.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.finishing && !self.ended {
            let ended = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.ended = ended.is_ok();
            self.finishing = self.ended;
            return Poll::Ready(());
        }
        self.poll_flush(cx).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let ok = b"HTTP/1.1 200 Connection Established\r\n\r\nhello";
        let answer = parse(ok).unwrap().unwrap();
        assert_eq!((answer.status, answer.ours, &ok[answer.length..]), (200, false, &b"hello"[..]));
        let ours = b"HTTP/1.1 200 OK\r\nCloverleaf-Tunnel: 1\r\n\r\n";
        assert!(parse(ours).unwrap().unwrap().ours);
        assert!(parse(b"HTTP/1.1 200 OK\r\n").unwrap().is_none());
        assert!(parse(b"\x15\x03\x01").is_err());
        assert!(parse(&[b"HTTP/1.1 200 OK\r\nA: ", &[b'x'; HEAD_BYTES_MAX][..]].concat()).is_err());
    }
}
