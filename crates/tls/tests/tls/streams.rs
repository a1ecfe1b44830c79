//! Bytes through an established connection: whole, bounded, and never cut without notice.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use testkit::Authority;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::common::{client, connected, runtime, server};

/// A megabyte and a bit of bytes that do not repeat soon.
fn payload() -> Vec<u8> {
    let mut state: u32 = 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..1_100_003).map(next).collect()
}

#[test]
fn bytes_arrive_whole_both_ways_and_the_end_is_seen() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    let client = client(&authority);
    runtime().block_on(async {
        let (server, client) = connected(&server, &client, "a.test").await;
        let sent = payload();
        let (mut server_read, mut server_write) = tokio::io::split(server);
        let (mut client_read, mut client_write) = tokio::io::split(client);
        async fn pour(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
            to.write_all(bytes).await.unwrap();
            to.shutdown().await.unwrap();
        }
        async fn collect(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).await.unwrap();
            bytes
        }
        let ((), (), at_server, at_client) = tokio::join!(
            pour(&mut server_write, &sent),
            pour(&mut client_write, &sent),
            collect(&mut server_read),
            collect(&mut client_read),
        );
        assert!(at_server == sent && at_client == sent);
    });
}

#[test]
fn an_end_without_close_notify_is_an_error_after_what_came() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    let client = client(&authority);
    runtime().block_on(async {
        let (mut server, mut client) = connected(&server, &client, "a.test").await;
        client.write_all(b"half a bo").await.unwrap();
        client.flush().await.unwrap();
        drop(client);
        let mut bytes = Vec::new();
        let error = server.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!((error.kind(), bytes.as_slice()), (ErrorKind::UnexpectedEof, &b"half a bo"[..]));
        // And again, for as long as anybody asks.
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn tickets_do_not_wait_for_data() {
    // A client with Nagle's algorithm holds its request back until its Finished is acknowledged, which the
    // kernel delays by 40 ms unless something is sent.
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    let client = client(&authority);
    runtime().block_on(async {
        let (_server, mut stream) = connected(&server, &client, "a.test").await;
        assert!(!stream.resumed());
        // Takes in the ticket and finds no data.
        let mut byte = [0];
        let pending = poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut stream).poll_read(cx, &mut buf).is_pending())
        });
        assert!(pending.await);
        assert!(connected(&server, &client, "a.test").await.1.resumed());
    });
}

#[test]
fn slices_go_out_together() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    let client = client(&authority);
    runtime().block_on(async {
        let (mut server, mut client) = connected(&server, &client, "a.test").await;
        assert!(server.is_write_vectored() && client.is_write_vectored());
        let slices = [IoSlice::new(b"head, "), IoSlice::new(b""), IoSlice::new(b"body")];
        assert_eq!(server.write_vectored(&slices).await.unwrap(), 10);
        server.flush().await.unwrap();
        let mut bytes = [0; 64];
        // One record: both at once.
        let count = client.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], b"head, body");
        assert_eq!(server.write(b"").await.unwrap(), 0);
    });
}

#[test]
fn a_peer_that_does_not_read_bounds_what_is_taken() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    let client = client(&authority);
    runtime().block_on(async {
        let (mut server, _client) = connected(&server, &client, "a.test").await;
        let piece = vec![0; 256 * 1024];
        let mut taken = 0;
        while let Ok(count) =
            tokio::time::timeout(Duration::from_millis(50), server.write(&piece)).await
        {
            taken += count.unwrap();
            assert!(taken <= 128 * 1024, "{taken} bytes taken for a peer that reads nothing");
        }
        assert!(taken > 0);
    });
}

#[test]
fn nothing_is_written_after_the_end() {
    let authority = Authority::new();
    let server = server(&[&authority.server(&["a.test"])]);
    let client = client(&authority);
    runtime().block_on(async {
        let (mut server, mut client) = connected(&server, &client, "a.test").await;
        server.shutdown().await.unwrap();
        assert_eq!(server.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        // The other direction lives on.
        client.write_all(b"still").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "still");
    });
}
