//! The echo through real sockets.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::*;

const WAIT_MAX: Duration = Duration::from_secs(20);

/// A running echo; it ends when this is dropped.
struct Echo {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<anyhow::Result<()>>,
}

fn start() -> Echo {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = net::task::spawn("echo", serve(listener, async { drop(stopped.await) }));
    Echo { address, stop: Some(stop), task }
}

impl Echo {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends all of `request` and reads until the connection closes: head and body.
    async fn exchange(&self, request: &[u8]) -> (String, String) {
        let mut stream = self.connect().await;
        let mut reply = Vec::new();
        timeout(WAIT_MAX, async {
            stream.write_all(request).await.unwrap();
            stream.read_to_end(&mut reply).await.unwrap();
        })
        .await
        .unwrap();
        let reply = String::from_utf8(reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn get(&self, target: &str) -> (String, String) {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        self.exchange(head.as_bytes()).await
    }
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        let byte = timeout(WAIT_MAX, stream.read_u8()).await.unwrap().unwrap();
        seen.push(byte);
    }
    seen
}

#[tokio::test]
async fn a_request_is_told_in_full() {
    let echo = start();
    let request = b"POST /a%20b?x=1&y HTTP/1.1\r\nHost: a.test:80\r\nX-B: 2\r\nx-a: 1\r\nX-B: 3\r\n\
        Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: t\r\n\r\n";
    let (head, body) = echo.exchange(request).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let seen: Value = serde_json::from_str(&body).unwrap();
    for (key, expected) in [
        ("method", json!("POST")),
        ("path", json!("/a%20b")),
        ("query", json!("x=1&y")),
        ("version", json!("HTTP/1.1")),
        ("host", json!("a.test:80")),
        ("local_address", json!(echo.address.to_string())),
        ("body", json!({"length": 5, "text": "abcde", "truncated": false})),
        ("trailers", json!([["x-t", "t"]])),
        (
            "headers",
            json!([
                ["host", "a.test:80"],
                ["x-b", "2"],
                ["x-b", "3"],
                ["x-a", "1"],
                ["connection", "close"],
                ["transfer-encoding", "chunked"]
            ]),
        ),
    ] {
        assert_eq!(seen[key], expected, "{key}");
    }
    assert!(seen["remote_address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(!seen["instance"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn knobs_shape_the_answer() {
    let echo = start();
    for (target, head_parts, body_part) in [
        ("/?status=503", &["HTTP/1.1 503 Service Unavailable"][..], "\"status=503\""),
        ("/?size=70000", &["HTTP/1.1 200", "content-length: 70000"], "cloverleaf echo"),
        ("/?size=0", &["content-length: 0"], ""),
        ("/?headers=X-A:1&headers=X-A:2", &["x-a: 1\r\nx-a: 2"], "\"path\": \"/\""),
        ("/?status=204", &["HTTP/1.1 204"], ""),
        ("/?status=abc", &["HTTP/1.1 400"], "expected a number from 200 to 599\n"),
        (
            "/?chunks=2&every=1ms",
            &["content-type: text/event-stream", "transfer-encoding: chunked"],
            "id: 2\ndata: event 2 of 2\n\n",
        ),
    ] {
        let (head, body) = echo.get(target).await;
        for part in head_parts {
            assert!(head.contains(part), "{target} lacks {part}: {head}");
        }
        assert!(body.contains(body_part), "{target}: {body}");
    }
    let (_, body) = echo.get("/?size=70000").await;
    assert_eq!(body.len(), 70_000);
}

#[tokio::test]
async fn a_delay_is_kept() {
    let echo = start();
    let began = std::time::Instant::now();
    echo.get("/?delay=120ms").await;
    assert!(began.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn a_large_body_is_counted() {
    const LENGTH: usize = 3 << 20;
    let echo = start();
    let mut request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + LENGTH, b'z');
    let (_, body) = echo.exchange(&request).await;
    let seen: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(seen["body"]["length"], LENGTH);
    assert_eq!(seen["body"]["truncated"], true);
    assert_eq!(seen["body"]["text"].as_str().unwrap().len(), 4096);
}

#[tokio::test]
async fn http_2_by_prior_knowledge() {
    let echo = start();
    let io = TokioIo::new(echo.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(Executor, io).await.unwrap();
    drop(net::task::spawn("client", async { drop(connection.await) }));
    let request = Request::get("http://h2.test/x?chunks=2&every=0ms").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"id: 2\ndata: event 2 of 2\n\n"));
    let request = Request::get("http://h2.test/y").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let seen: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&seen["version"], &seen["host"]), (&json!("HTTP/2.0"), &json!("h2.test")));
}

#[tokio::test]
async fn websocket_messages_come_back() {
    let echo = start();
    let url = format!("ws://{}/ws", echo.address);
    let (mut socket, response) = client_async(url, echo.connect().await).await.unwrap();
    assert_eq!(response.status(), 101);
    let large = Message::binary(vec![7; 300_000]);
    for message in [Message::text("héllo"), Message::text(""), large] {
        socket.send(message.clone()).await.unwrap();
        let back = timeout(WAIT_MAX, socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(back, message);
    }
    socket.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
    let pong = timeout(WAIT_MAX, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"p")));
    socket.close(None).await.unwrap();
    let closed = timeout(WAIT_MAX, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(closed.is_close());
}

#[tokio::test]
async fn a_too_large_websocket_message_ends_the_connection() {
    let echo = start();
    let url = format!("ws://{}/ws", echo.address);
    let (mut socket, _) = client_async(url, echo.connect().await).await.unwrap();
    // The server may have gone before all of it is written.
    let _ = socket.send(Message::binary(vec![7; (1 << 20) + 1])).await;
    let end = timeout(WAIT_MAX, socket.next()).await.unwrap();
    assert!(!matches!(end, Some(Ok(Message::Binary(_)))), "{end:?}");
}

#[tokio::test]
async fn other_protocols_get_their_bytes_back() {
    let echo = start();
    let mut stream = echo.connect().await;
    // Bytes that follow the head at once belong to the new protocol.
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly";
    stream.write_all(request).await.unwrap();
    let head = String::from_utf8(read_until(&mut stream, b"\r\n\r\n").await).unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: echo"), "{head}");
    assert_eq!(read_until(&mut stream, b"early").await, b"early");
    stream.write_all(b"later").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(WAIT_MAX, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"later");
}

#[tokio::test]
async fn a_status_refuses_an_upgrade() {
    let echo = start();
    let (head, _) = echo
        .exchange(
            b"GET /?status=403 HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: echo\r\n\r\n",
        )
        .await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[tokio::test]
async fn the_end_closes_idle_and_upgraded_connections() {
    let mut echo = start();
    let mut idle = echo.connect().await;
    idle.write_all(b"GET /?size=1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, b"\r\n\r\nc").await;
    let mut upgraded = echo.connect().await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    upgraded.write_all(request).await.unwrap();
    read_until(&mut upgraded, b"\r\n\r\n").await;
    echo.stop.take().unwrap().send(()).unwrap();
    timeout(WAIT_MAX, &mut echo.task).await.unwrap().unwrap().unwrap();
    for mut stream in [idle, upgraded] {
        let mut rest = Vec::new();
        let end = timeout(WAIT_MAX, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(end.is_err() || rest.is_empty(), "{rest:?}");
    }
}
