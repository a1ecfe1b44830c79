//! Clients that speak gRPC, packet by packet.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use tokio::net::UnixStream;
use tunnel::packet::{Decoder, Message, Packet};

use crate::support::{Tunnel, WITHIN, echo, pattern, source, target};
use testkit::wait_until;

/// A client's connection.
struct Client(SendRequest<Message>);

/// One of its calls.
struct Call {
    out: SendStream<Message>,
    incoming: RecvStream,
    decoder: Decoder,
}

impl Client {
    async fn new(tunnel: &Tunnel) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16 << 20).initial_connection_window_size(16 << 20);
        Self::with(tunnel, &builder).await
    }

    async fn with(tunnel: &Tunnel, builder: &h2::client::Builder) -> Self {
        let stream = tunnel.socket();
        stream.set_nonblocking(true).unwrap();
        let stream = UnixStream::from_std(stream).unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        net::task::spawn("connection", connection);
        Self(send)
    }

    async fn call(&self) -> Call {
        let request = http::Request::post("http://localhost/ProxyService/Proxy")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (answer, out) =
            self.0.clone().ready().await.unwrap().send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        Call { out, incoming: answer.into_body(), decoder: Decoder::default() }
    }

    /// A call with a connection, and its number.
    async fn connected(&self, address: impl ToString) -> (Call, i64) {
        let mut call = self.call().await;
        call.dial(address, 77);
        match call.next().await {
            Some(Packet::DialResponse { error, connection, dial: 77 }) if error.is_empty() => {
                (call, connection)
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Call {
    fn send(&mut self, packet: &Packet) {
        self.out.send_data(Message::new(packet), false).unwrap();
    }

    fn dial(&mut self, address: impl ToString, dial: i64) {
        let address = address.to_string();
        self.send(&Packet::DialRequest { protocol: "tcp".to_owned(), address, dial });
    }

    /// The next packet; `None` at the end of the call.
    async fn next(&mut self) -> Option<Packet> {
        let next = async {
            loop {
                if let Some(packet) = self.decoder.next_packet().unwrap() {
                    return Some(packet);
                }
                let bytes = self.incoming.data().await?.unwrap();
                self.incoming.flow_control().release_capacity(bytes.len()).unwrap();
                self.decoder.push(bytes);
            }
        };
        tokio::time::timeout(WITHIN, next).await.expect("a packet in time")
    }

    /// So many bytes of payload.
    async fn payload(&mut self, connection: i64, bytes: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while seen.len() < bytes {
            match self.next().await {
                Some(Packet::Data { connection: found, bytes }) if found == connection => {
                    seen.extend_from_slice(&bytes);
                }
                other => panic!("{other:?} after {} bytes", seen.len()),
            }
        }
        seen
    }

    /// gRPC's status at the end.
    async fn status(&mut self) -> String {
        let trailers = tokio::time::timeout(WITHIN, self.incoming.trailers()).await.unwrap();
        let trailers = trailers.unwrap().expect("trailers");
        trailers["grpc-status"].to_str().unwrap().to_owned()
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn a_connection_lives_from_its_dial_to_its_close() {
    for flags in [&[][..], &["--no-extensions"]] {
        let (tunnel, agent) = Tunnel::with_agent("grpc", flags);
        let to = echo();
        run(async {
            let client = Client::new(&tunnel).await;
            let (mut call, connection) = client.connected(to).await;
            let sent = Bytes::from(pattern(3_000_000));
            let mut left = sent.clone();
            while !left.is_empty() {
                let bytes = left.split_to(left.len().min(100_000));
                call.send(&Packet::Data { connection, bytes });
            }
            assert!(call.payload(connection, sent.len()).await == sent);
            call.send(&Packet::CloseRequest { connection });
            let closed = Packet::CloseResponse { error: String::new(), connection };
            assert_eq!(call.next().await, Some(closed));
            assert_eq!(call.next().await, None);
            assert_eq!(call.status().await, "0");
            // The same connection to the server takes the next call.
            client.connected(to).await;
        });
        let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
        assert!(wait_until(WITHIN, || agent.metric(open) == 0.0), "{flags:?}");
    }
}

#[test]
fn one_message_of_any_length_is_taken() {
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let to = echo();
    run(async {
        let client = Client::new(&tunnel).await;
        let (mut other, number) = client.connected(to).await;
        let (mut call, connection) = client.connected(to).await;
        let sent = Bytes::from(pattern(20 * 1024 * 1024));
        call.send(&Packet::Data { connection, bytes: sent.clone() });
        assert!(call.payload(connection, sent.len()).await == sent);
        other.send(&Packet::Data { connection: number, bytes: Bytes::from_static(b"x") });
        assert_eq!(other.payload(number, 1).await, b"x");
    });
}

#[test]
fn a_call_that_is_not_read_holds_up_no_other_of_its_connection() {
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let (echo, source) = (echo(), source());
    run(async {
        let mut builder = h2::client::Builder::new();
        // Room for many such calls.
        builder.initial_window_size(256 << 10).initial_connection_window_size(16 << 20);
        let client = Client::with(&tunnel, &builder).await;
        let mut unread = Vec::new();
        for _ in 0..8 {
            let (mut call, connection) = client.connected(source).await;
            call.send(&Packet::Data { connection, bytes: Bytes::from_static(b"go") });
            unread.push(call);
        }
        for _ in 0..20 {
            let (mut call, connection) = client.connected(echo).await;
            let sent = Bytes::from(pattern(300_000));
            call.send(&Packet::Data { connection, bytes: sent.clone() });
            assert!(call.payload(connection, sent.len()).await == sent);
        }
    });
}

#[test]
fn what_has_no_connection_is_answered_as_the_original_does() {
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let to = echo();
    run(async {
        let client = Client::new(&tunnel).await;
        let mut call = client.call().await;
        call.send(&Packet::Data { connection: 5, bytes: Bytes::from_static(b"x") });
        let error = "backend not initialized".to_owned();
        assert_eq!(call.next().await, Some(Packet::CloseResponse { error, connection: 5 }));
        // Another connection's number ends the call, and says so.
        let (mut call, connection) = client.connected(to).await;
        call.send(&Packet::Data { connection: connection + 1, bytes: Bytes::from_static(b"x") });
        let closed = Packet::CloseResponse { error: String::new(), connection };
        assert_eq!(call.next().await, Some(closed));
        // What is no packet ends the call alone.
        let (mut good, number) = client.connected(to).await;
        let (mut call, _) = client.connected(to).await;
        let mut bad = Message::new(&Packet::Drain);
        bytes::Buf::advance(&mut bad, 4);
        call.out.send_data(bad, false).unwrap();
        call.send(&Packet::Drain);
        call.send(&Packet::Drain);
        assert_eq!(call.next().await, None);
        assert_eq!(call.status().await, "2");
        good.send(&Packet::Data { connection: number, bytes: Bytes::from_static(b"x") });
        assert_eq!(good.payload(number, 1).await, b"x");
    });
}

#[test]
fn dials_end_with_an_error_or_when_the_client_wants_no_more() {
    let tunnel = Tunnel::server("grpc", &["--backend-dial-timeout=2s"]);
    let failures = "konnectivity_network_proxy_server_dial_failure_count";
    run(async {
        let client = Client::new(&tunnel).await;
        let mut call = client.call().await;
        call.dial("127.0.0.1:1", 3);
        let error = "No agent available".to_owned();
        let refused = Packet::DialResponse { error, connection: 0, dial: 3 };
        assert_eq!(call.next().await, Some(refused));
        assert_eq!(call.next().await, None);
        let _agent = tunnel.agent(&[]);
        tunnel.wait_ready();
        let full = testkit::Deaf::listen();
        let mut waiting = client.call().await;
        waiting.dial(full.address(), 4);
        let mut unwanted = client.call().await;
        unwanted.dial(full.address(), 4);
        unwanted.send(&Packet::CloseDial { dial: 4 });
        assert_eq!(unwanted.next().await, None);
        let Some(Packet::DialResponse { error, dial: 4, .. }) = waiting.next().await else {
            panic!()
        };
        assert!(error.contains("timeout"), "{error}");
    });
    for reason in ["no_agent", "backend_dial_timeout", "frontend_close"] {
        assert_eq!(tunnel.metric(&format!("{failures}{{reason=\"{reason}\"}}")), 1.0, "{reason}");
    }
}

#[test]
fn an_agent_that_goes_fails_the_dials_that_wait_for_it() {
    let (tunnel, mut agent) = Tunnel::with_agent("grpc", &[]);
    run(async {
        let client = Client::new(&tunnel).await;
        let full = testkit::Deaf::listen();
        let mut waiting = client.call().await;
        waiting.dial(full.address(), 1);
        let (mut open, connection) = client.connected(echo()).await;
        agent.process.signal("KILL");
        agent.process.wait_exit();
        let Some(Packet::DialResponse { error, connection: 0, dial: 1 }) = waiting.next().await
        else {
            panic!()
        };
        assert!(error.contains("disconnected"), "{error}");
        let Some(Packet::CloseResponse { connection: found, .. }) = open.next().await else {
            panic!()
        };
        assert_eq!(found, connection);
    });
}

#[test]
fn a_call_that_is_cancelled_closes_its_connection_at_the_target() {
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let (ended, ends) = std::sync::mpsc::sync_channel(1);
    let to = target(move |mut stream| {
        let _ = stream.write_all(b"x");
        let end = stream.read(&mut [0]);
        ended.send(matches!(end, Ok(0) | Err(_))).unwrap();
    });
    run(async {
        let client = Client::new(&tunnel).await;
        let (mut call, connection) = client.connected(to).await;
        assert_eq!(call.payload(connection, 1).await, b"x");
        call.out.send_reset(h2::Reason::CANCEL);
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    assert!(ends.recv_timeout(WITHIN).unwrap());
}

#[test]
fn a_connection_that_breaks_off_on_one_side_breaks_off_on_the_other() {
    let (tunnel, mut agent) = Tunnel::with_agent("grpc", &[]);
    let (ended, ends) = std::sync::mpsc::sync_channel(1);
    let listens = target(move |mut stream| {
        let _ = stream.write_all(b"x");
        let mut heard = Vec::new();
        let end = stream.read_to_end(&mut heard).map_err(|error| error.kind());
        let _ = ended.try_send((heard, end.map(|_| ())));
    });
    let resets = target(|mut stream| {
        let _ = stream.write_all(b"half of it");
        let _ = stream.read(&mut [0]);
        // What is left unread makes its close a reset.
    });
    run(async {
        let client = Client::new(&tunnel).await;
        // A client that cancels has not said all.
        let (mut call, connection) = client.connected(listens).await;
        assert_eq!(call.payload(connection, 1).await, b"x");
        call.send(&Packet::Data { connection, bytes: Bytes::from_static(b"part") });
        tokio::time::sleep(Duration::from_millis(100)).await;
        call.out.send_reset(h2::Reason::CANCEL);
        tokio::time::sleep(Duration::from_millis(50)).await;
        // One that closes has.
        let (mut call, connection) = client.connected(resets).await;
        assert_eq!(call.payload(connection, 10).await, b"half of it");
        call.send(&Packet::Data { connection, bytes: Bytes::from(vec![b'y'; 100_000]) });
        match call.next().await {
            Some(Packet::CloseResponse { error, .. }) => {
                assert_eq!(error, "the connection broke off")
            }
            other => panic!("{other:?}"),
        }
    });
    let (heard, end) = ends.recv_timeout(WITHIN).unwrap();
    assert_eq!((heard, end), (b"part".to_vec(), Err(std::io::ErrorKind::ConnectionReset)));
    // An agent whose server is gone.
    let (ended, ends) = std::sync::mpsc::sync_channel(1);
    let listens = target(move |mut stream| {
        let _ = stream.write_all(b"x");
        let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        let _ = ended.try_send(end.map(|_| ()));
    });
    run(async {
        let client = Client::new(&tunnel).await;
        let (mut call, connection) = client.connected(listens).await;
        assert_eq!(call.payload(connection, 1).await, b"x");
        tunnel.server.signal("KILL");
        while call.incoming.data().await.is_some_and(|data| data.is_ok()) {}
    });
    assert_eq!(ends.recv_timeout(WITHIN).unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    assert!(agent.process.try_exit().is_none());
}

#[test]
fn other_methods_are_unknown() {
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    run(async {
        let client = Client::new(&tunnel).await;
        for path in ["/AgentService/Connect", "/grpc.health.v1.Health/Check"] {
            let request = http::Request::post(format!("http://localhost{path}")).body(()).unwrap();
            let send = client.0.clone().ready().await.unwrap();
            let (answer, _) = { send }.send_request(request, true).unwrap();
            assert_eq!(answer.await.unwrap().headers()["grpc-status"], "12", "{path}");
        }
    });
}

/// As gRPC's Go library connects to a Unix socket by a dialer of its user's, which kube-apiserver has: the authority is
/// the socket's path, which none may be.
#[test]
fn a_call_whose_authority_is_the_sockets_path_is_served() {
    use std::io::Write;
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let mut stream = tunnel.socket();
    let field = |name: &[u8], value: &[u8]| [name, &[value.len() as u8], value].concat();
    let headers = |block: &[u8], stream: u8| {
        let frame = [0, 0, block.len() as u8, 1, 4, 0, 0, 0, stream];
        [&frame[..], block].concat()
    };
    let path = tunnel.grpc_address().trim_start_matches("unix:").replace('/', "%2F");
    // POST and http by number, then a path, an authority and a content type that are to be remembered.
    let first = [
        vec![0x83, 0x86],
        field(&[0x44], b"/ProxyService/Proxy"),
        field(&[0x41], path.as_bytes()),
        field(&[0x5f], b"application/grpc"),
    ];
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    stream.write_all(&headers(&first.concat(), 1)).unwrap();
    // The next call has them by number: the table must not have lost count.
    stream.write_all(&headers(&[0x83, 0x86, 0xc0, 0xbf, 0xbe], 3)).unwrap();
    let mut answered = Vec::new();
    while answered.len() < 2 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        assert!(head[3] != 3, "the call was reset: {payload:?}");
        if head[3] == 1 {
            // 200 by its number.
            assert_eq!(payload[0], 0x88);
            answered.push(head[8]);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

/// Sends a beginning, and then the same again and again until the server has had enough; its reason.
fn flooded(tunnel: &Tunnel, begin: &[u8], again: &[u8]) -> Option<u32> {
    const FLOOD_BYTES_MAX: usize = 4 * 1024 * 1024;
    let mut stream = tunnel.socket();
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..], begin].concat();
    stream.write_all(&hello).unwrap();
    let many = again.repeat(1000);
    for _ in 0..FLOOD_BYTES_MAX / many.len() {
        if stream.write_all(&many).is_err() {
            break;
        }
    }
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        if head[3] == 7 {
            return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
}

#[test]
fn a_client_that_floods_loses_its_connection_alone() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let to = echo();
    let path = b"/ProxyService/Proxy";
    let call = [&[0x83, 0x86, 0x44, path.len() as u8][..], path].concat();
    let opened = frame(1, 4, 1, &call);
    let floods = [
        (opened.clone(), frame(0, 0, 1, &[])),
        (frame(1, 0, 1, &call), frame(9, 0, 1, &[])),
        (opened.clone(), frame(2, 0, 1, &[0; 5])),
        (opened, frame(8, 0, 1, &[0, 0, 0, 1])),
    ];
    run(async {
        let client = Client::new(&tunnel).await;
        let (mut good, connection) = client.connected(to).await;
        for (begin, again) in floods {
            assert_eq!(flooded(&tunnel, &begin, &again), Some(ENHANCE_YOUR_CALM), "{again:?}");
            good.send(&Packet::Data { connection, bytes: Bytes::from_static(b"x") });
            assert_eq!(good.payload(connection, 1).await, b"x");
        }
    });
    assert!(tunnel.server.wait_log("header fields without end"));
}
