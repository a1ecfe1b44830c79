//! Records that are no data: alerts, changes of keys, parts of messages, and what is none at all.

use std::io::ErrorKind;
use std::time::Duration;

use cloverleaf_tls::ServerStream;
use rustls::{AlertDescription, ContentType, Error};
use testkit::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::common::{client, runtime, server};
use crate::peer::{Peer, SealingClient, client_1_3, sealing_server_1_2};

const PIPE_BYTES: usize = 256 * 1024;
const APPLICATION_DATA: ContentType = ContentType::ApplicationData;

type Client = Peer<rustls::ClientConnection>;

async fn connected(authority: &Authority) -> (ServerStream<DuplexStream>, Client) {
    let server = server(&[&authority.server(&["a.test"])]);
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let mut peer = Peer::new(client_1_3(authority), far);
    let (server, ()) = tokio::join!(server.accept(near), peer.handshake());
    (server.unwrap(), peer)
}

async fn sealing(authority: &Authority) -> (ServerStream<DuplexStream>, SealingClient) {
    let server = server(&[&authority.server(&["a.test"])]);
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (server, client) =
        tokio::join!(server.accept(near), SealingClient::handshake(authority, far));
    (server.unwrap(), client)
}

/// Reads until it fails: what came before, and why.
async fn until_failure(stream: &mut ServerStream<DuplexStream>) -> (Vec<u8>, std::io::Error) {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes));
    let error = read.await.unwrap().unwrap_err();
    (bytes, error)
}

#[test]
fn what_is_no_record_ends_the_connection_with_an_alert() {
    let authority = Authority::new();
    let no_record = &b"GET / HTTP/1.1\r\n\r\n"[..];
    let not_sealed = [&[0x17, 3, 3, 0, 32][..], &[7; 32]].concat();
    for (garbage, alert) in
        [(no_record, AlertDescription::DecodeError), (&not_sealed, AlertDescription::BadRecordMac)]
    {
        runtime().block_on(async {
            let (mut server, mut peer) = connected(&authority).await;
            peer.send(b"before").await;
            peer.io.write_all(garbage).await.unwrap();
            let (bytes, error) = until_failure(&mut server).await;
            assert_eq!((bytes.as_slice(), error.kind()), (&b"before"[..], ErrorKind::InvalidData));
            assert_eq!(peer.receive().await, Err(Error::AlertReceived(alert)));
            // Nothing goes on, in neither direction.
            let (bytes, error) = until_failure(&mut server).await;
            assert_eq!((bytes.len(), error.kind()), (0, ErrorKind::InvalidData));
            assert_eq!(server.write(b"x").await.unwrap_err().kind(), ErrorKind::InvalidData);
            server.shutdown().await.unwrap();
        });
    }
}

#[test]
fn what_comes_after_close_notify_is_ignored_and_the_other_direction_goes_on() {
    let authority = Authority::new();
    runtime().block_on(async {
        let (mut server, mut client) = sealing(&authority).await;
        let mut bytes = client.sealer.seal(APPLICATION_DATA, b"before");
        bytes.extend(client.sealer.seal(ContentType::Alert, &[1, 0]));
        bytes.extend(client.sealer.seal(APPLICATION_DATA, b"after"));
        bytes.extend_from_slice(b"and no record");
        client.io.write_all(&bytes).await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"before");
        client.io.write_all(b"more of it").await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        server.write_all(b"still").await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        let mut sealed = Vec::new();
        client.io.read_to_end(&mut sealed).await.unwrap();
        // Tickets, data and close_notify.
        assert!(sealed.len() > b"still".len() + 3 * 22);
    });
}

#[test]
fn a_peer_changes_its_keys_and_ours() {
    let authority = Authority::new();
    runtime().block_on(async {
        let (mut server, mut peer) = connected(&authority).await;
        for round in 0..5u8 {
            peer.tls.refresh_traffic_keys().unwrap();
            peer.send(&[round; 100]).await;
            let mut heard = [0; 100];
            server.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, [round; 100]);
            // Sealed with keys of our own that are new as well, which the peer can open only if it was told.
            server.write_all(&heard).await.unwrap();
            server.flush().await.unwrap();
            assert_eq!(peer.expect(100).await, heard);
        }
    });
}

#[test]
fn half_a_message_waits_for_the_other_half_while_we_write() {
    // A KeyUpdate that asks for nothing (RFC 8446 section 4.6.3).
    const MESSAGE: [u8; 5] = [24, 0, 0, 1, 0];
    let authority = Authority::new();
    for half in 1..MESSAGE.len() {
        runtime().block_on(async {
            let (mut server, mut client) = sealing(&authority).await;
            let (first, second) = MESSAGE.split_at(half);
            let mut bytes = client.sealer.seal(APPLICATION_DATA, b"first");
            bytes.extend(client.sealer.seal(ContentType::Handshake, first));
            client.io.write_all(&bytes).await.unwrap();
            let mut heard = [0; 5];
            server.read_exact(&mut heard).await.unwrap();
            for _ in 0..3 {
                server.write_all(&[7; 40_000]).await.unwrap();
                server.flush().await.unwrap();
            }
            let mut bytes = client.sealer.seal(ContentType::Handshake, second);
            client.sealer.change(client.kernel.update_tx_secret().unwrap());
            bytes.extend(client.sealer.seal(APPLICATION_DATA, b"after"));
            client.io.write_all(&bytes).await.unwrap();
            server.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"after");
            server.shutdown().await.unwrap();
        });
    }
}

#[test]
fn a_message_without_end_is_not_collected_without_end() {
    let authority = Authority::new();
    runtime().block_on(async {
        let (mut server, mut client) = sealing(&authority).await;
        // The longest that there may be, a byte at a time: each takes a record.
        let mut bytes = client.sealer.seal(ContentType::Handshake, &[24, 0, 0xff, 0xff]);
        for _ in 0..5_000 {
            bytes.extend(client.sealer.seal(ContentType::Handshake, &[0]));
        }
        assert!(bytes.len() < PIPE_BYTES, "{}", bytes.len());
        client.io.write_all(&bytes).await.unwrap();
        let (_, error) = until_failure(&mut server).await;
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    });
}

#[test]
fn a_wish_to_negotiate_again_is_declined_and_the_second_refused() {
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let client = client(&authority);
    runtime().block_on(async {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (stream, (mut sealer, mut io)) =
            tokio::join!(client.connect(near, "a.test"), sealing_server_1_2(&issued, far));
        let mut stream = stream.unwrap();
        // HelloRequest (RFC 5246 section 7.4.1.1).
        let mut bytes = sealer.seal(ContentType::Handshake, &[0; 4]);
        bytes.extend(sealer.seal(APPLICATION_DATA, b"goes on"));
        io.write_all(&bytes).await.unwrap();
        let mut heard = [0; 7];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"goes on");
        stream.write_all(b"yes").await.unwrap();
        stream.flush().await.unwrap();
        let mut sealed = [0; 5];
        io.read_exact(&mut sealed).await.unwrap();
        assert_eq!(sealed[..3], [21, 3, 3], "an alert comes first");
        io.write_all(&sealer.seal(ContentType::Handshake, &[0; 4])).await.unwrap();
        let error = stream.read(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    });
}
