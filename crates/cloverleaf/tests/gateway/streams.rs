//! Bodies in motion: upgrades, events as they come, back-pressure both ways, large bodies intact.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;
use testkit::client::fetch;
use testkit::upstream::Gate;
use testkit::{Client, Cloverleaf, Gateway, Step, Upstream, wait_until};

use super::support::frames::{self, DATA, END_STREAM, Outcome, Raw};
use super::support::{
    BINARY, SOON, in_front_of, message, ok, resident_bytes, under_way_bytes_max, yaml,
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// With NanoProxy's `TIMEOUT` of one second, which no stream is cut by.
fn impatient(upstream: &Upstream) -> Cloverleaf {
    Gateway::new(BINARY, &yaml("", &[upstream.address()])).env("TIMEOUT", "1").start()
}

fn upgrades_open(gateway: &Cloverleaf) -> f64 {
    gateway.metric("cloverleaf_upgrades_open{listener=\"default\"}").unwrap_or_default()
}

fn upgraded(gateway: &Cloverleaf) -> Client {
    let mut client = gateway.connect();
    let response = client.request(UPGRADE).expect("an answer");
    assert_eq!(response.status, 101);
    assert_eq!(response.header("connection"), Some("Upgrade"));
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client
}

#[test]
fn an_upgrade_carries_bytes_both_ways_and_outlives_timeouts() {
    let upstream = Upstream::start([
        Step::ReadHead,
        Step::send(format!("{SWITCHING}first")),
        Step::Read(4),
        Step::send("pong"),
        Step::Echo,
    ]);
    let gateway = impatient(&upstream);
    let mut client = upgraded(&gateway);
    assert_eq!(client.read_exactly(5).expect("what came with the head"), b"first");
    assert_eq!(upgrades_open(&gateway), 1.0);
    let head = message::only(&upstream.received(0));
    assert_eq!(head.line, "GET /chat HTTP/1.1");
    assert_eq!((head.one("connection"), head.one("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!(head.one("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(client.stays_silent_for(Duration::from_millis(1300)), "longer than TIMEOUT");
    client.send("ping");
    assert_eq!(client.read_exactly(4).expect("an answer"), b"pong");
    // Nothing of this is HTTP any more.
    client.send("GET / HTTP/1.1\r\n\r\n\0\x01");
    assert_eq!(client.read_exactly(20).expect("the echo"), b"GET / HTTP/1.1\r\n\r\n\0\x01");
    client.finish();
    assert_eq!(client.read_to_close().expect("an orderly end"), b"");
    assert!(wait_until(SOON, || upgrades_open(&gateway) == 0.0 && upstream.open_connections() == 0));
}

#[test]
fn each_direction_of_an_upgrade_ends_on_its_own() {
    // The client first.
    let upstream = Upstream::start([
        Step::ReadHead,
        Step::send(SWITCHING),
        Step::ReadToEnd,
        Step::send("after"),
    ]);
    let gateway = in_front_of(&upstream);
    let mut client = upgraded(&gateway);
    client.send("before");
    client.finish();
    assert_eq!(client.read_to_close().expect("the rest"), b"after");
    assert!(upstream.received(0).ends_with(b"before"));
    // The upstream first.
    let upstream =
        Upstream::start([Step::ReadHead, Step::send(SWITCHING), Step::send("bye"), Step::Close]);
    let gateway = in_front_of(&upstream);
    let mut client = upgraded(&gateway);
    assert_eq!(client.read_to_close().expect("all of it"), b"bye");
    client.send("still here");
    assert!(wait_until(SOON, || upstream.received(0).ends_with(b"still here")));
    client.finish();
    assert!(wait_until(SOON, || upgrades_open(&gateway) == 0.0));
    // A reset of one is the end of both.
    let upstream =
        Upstream::start([Step::ReadHead, Step::send(SWITCHING), Step::Read(1), Step::Reset]);
    let gateway = in_front_of(&upstream);
    let mut client = upgraded(&gateway);
    client.send("x");
    assert!(client.closes_within(SOON));
}

#[test]
fn an_upgrade_may_be_refused() {
    let upstream = Upstream::answering(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nno",
    );
    let gateway = in_front_of(&upstream);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let response = client.request(UPGRADE).expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (426, "no"));
    }
    assert_eq!(upstream.connections(), 1, "the connection is as good as before");
    // What follows is a request then, and waits until it is known.
    client.send([UPGRADE, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    for _ in 0..2 {
        assert_eq!(client.read_response().expect("an answer").status, 426);
    }
    assert!(upstream.requests()[3].starts_with("GET /next HTTP/1.1\r\n"));
    // Or the beginning of what is not HTTP.
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::start([
        Step::ReadHead,
        Step::Wait(opened),
        Step::send(SWITCHING),
        Step::Read(5),
        Step::send("got it"),
    ]);
    let gateway = in_front_of(&upstream);
    let mut client = gateway.connect();
    client.send([UPGRADE, "early"].concat());
    assert!(wait_until(SOON, || upstream.requests().len() == 1));
    assert!(client.stays_silent_for(Duration::from_millis(50)));
    assert!(upstream.received(0).ends_with(b"\r\n\r\n"), "not before the upstream agrees");
    gate.open();
    assert_eq!(client.read_response().expect("101").status, 101);
    assert_eq!(client.read_exactly(6).expect("an answer"), b"got it");
}

/// Reads data of a stream until so much has come.
fn data(client: &mut Raw, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let frame = client.next().expect("an open connection");
        if frame.kind == DATA {
            all.extend_from_slice(&frame.payload);
        }
    }
    all
}

#[test]
fn websocket_over_http2_reaches_an_http1_upstream() {
    let upstream = Upstream::start([
        Step::ReadHead,
        Step::send(SWITCHING),
        Step::Read(4),
        Step::send("pong"),
        Step::ReadToEnd,
        Step::send("bye"),
    ]);
    let gateway = in_front_of(&upstream);
    let mut client = Raw::connect(gateway.address());
    let mut fields = frames::request("CONNECT", "/chat?a=b");
    fields.insert(1, (":protocol", "websocket"));
    fields.push(("sec-websocket-version", "13"));
    client.headers(1, &fields, false);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    client.data(1, b"ping", false);
    assert_eq!(data(&mut client, 4), b"pong");
    client.data(1, b"last", true);
    assert_eq!(client.body(1), (b"bye".to_vec(), true));
    let received = upstream.received(0);
    assert!(received.ends_with(b"\r\n\r\npinglast"));
    let head = message::only(&received[..received.len() - 8]);
    assert_eq!(head.line, "GET /chat?a=b HTTP/1.1");
    assert_eq!((head.one("connection"), head.one("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!(head.one("sec-websocket-version"), Some("13"));
    let key = head.one("sec-websocket-key").expect("RFC 6455 wants one");
    assert!(key.len() == 24 && key.ends_with("=="), "{key:?}");
    assert!(wait_until(SOON, || upgrades_open(&gateway) == 0.0));

    let refusing = Upstream::answering("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    let gateway = in_front_of(&refusing);
    let mut client = Raw::connect(gateway.address());
    client.headers(1, &fields, false);
    assert_eq!(client.outcome(1), Outcome::Status(404));
}

/// Events with a gate before each but the first, then a pause longer than the timeout, then the end.
fn events(gates: &[Gate], framing: &'static str) -> Upstream {
    let gates = gates.to_vec();
    Upstream::scripted(move |_| {
        let event = |n: usize| match framing {
            "" => format!("data: {n}\n\n"),
            _ => format!("9\r\ndata: {n}\n\n\r\n"),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n");
        let mut steps = vec![Step::ReadRequest, Step::send(head), Step::send(event(0))];
        for (gate, n) in gates.iter().zip(1..) {
            steps.extend([Step::Wait(gate.clone()), Step::send(event(n))]);
        }
        steps.extend([Step::Pause(Duration::from_millis(1300)), Step::send(event(9))]);
        steps.push(Step::send(if framing.is_empty() { "" } else { "0\r\n\r\n" }));
        steps
    })
}

#[test]
fn events_arrive_one_by_one_and_beyond_the_timeout() {
    for framing in ["", "Transfer-Encoding: chunked\r\n"] {
        let gates = [Gate::new(), Gate::new()];
        let upstream = events(&gates, framing);
        let gateway = impatient(&upstream);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n");
        let mut seen = String::new();
        let mut until = |client: &mut Client, text: &str| {
            while !seen.contains(text) {
                seen += &String::from_utf8(client.read_some().expect("an event")).expect("text");
            }
        };
        until(&mut client, "data: 0\n\n");
        // Each event opens the gate for the next: none may be kept back.
        for (gate, n) in gates.iter().zip(1..) {
            gate.open();
            until(&mut client, &format!("data: {n}\n\n"));
        }
        until(&mut client, "data: 9\n\n");
        until(&mut client, "0\r\n\r\n");
    }
    let gates = [Gate::new(), Gate::new()];
    let upstream = events(&gates, "");
    let gateway = impatient(&upstream);
    let mut client = Raw::connect(gateway.address());
    client.headers(1, &frames::get(&[]), true);
    assert_eq!(data(&mut client, 9), b"data: 0\n\n");
    for (gate, n) in gates.iter().zip(1..) {
        gate.open();
        assert_eq!(data(&mut client, 9), format!("data: {n}\n\n").as_bytes());
    }
    assert_eq!(client.body(1), (b"data: 9\n\n".to_vec(), true));
}

#[test]
fn uploads_are_passed_on_as_they_come() {
    let upstream = Upstream::answering(ok("all"));
    let gateway = in_front_of(&upstream);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for n in 0..5 {
        let piece = format!("piece {n}");
        client.send(format!("7\r\n{piece}\r\n"));
        let arrived = || upstream.received(0).windows(7).any(|w| w == piece.as_bytes());
        assert!(wait_until(SOON, arrived), "{piece}");
    }
    assert_eq!(client.request("0\r\n\r\n").expect("an answer").text(), "all");
}

/// What the peers below move in all.
const MOVED_BYTES: usize = 64 * 1024 * 1024;
/// What the kernel holds for each socket of the peers: so much, and not what it would let them grow to.
const PEER_BUFFER_BYTES: usize = 256 * 1024;
/// What the gateway itself may have taken for it.
const GROWTH_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Without progress for so long, a stream is stuck.
const STUCK_AFTER: Duration = Duration::from_millis(700);

/// Blocks of bytes that repeat nowhere.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let bytes = (self.0 ^ (self.0 >> 29)).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

/// Writes so many bytes of noise, counting them; their hash.
fn pour(mut to: impl Write, count: usize, poured: &AtomicUsize) -> u64 {
    let (mut noise, mut hash) = (Noise(7), DefaultHasher::new());
    let mut block = [0; 64 * 1024];
    let mut left = count;
    while left > 0 {
        let block = &mut block[..left.min(64 * 1024)];
        noise.fill(block);
        if to.write_all(block).is_err() {
            break;
        }
        hash.write(block);
        left -= block.len();
        poured.fetch_add(block.len(), Ordering::Relaxed);
    }
    hash.finish()
}

/// Reads so many bytes; their hash, in the same blocks.
fn drain(mut from: impl Read, count: usize) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut block = vec![0; 64 * 1024];
    let mut left = count;
    while left > 0 {
        let block = &mut block[..left.min(64 * 1024)];
        from.read_exact(block).expect("the rest of the body");
        hash.write(block);
        left -= block.len();
    }
    hash.finish()
}

/// Reads up to the empty line.
fn skip_head(mut from: impl Read) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
}

/// What peers move where one of them does not read: more than all that may be under way.
fn more_than_fits() -> usize {
    MOVED_BYTES.max(under_way_bytes_max() + MOVED_BYTES / 4)
}

/// With buffers of a size that is known. Connections have those of their listener.
fn bounded<'s>(socket: impl Into<SockRef<'s>>) {
    let socket = socket.into();
    socket.set_recv_buffer_size(PEER_BUFFER_BYTES).expect("a socket");
    socket.set_send_buffer_size(PEER_BUFFER_BYTES).expect("a socket");
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(SOON * 2)).expect("a socket");
    stream.set_write_timeout(Some(SOON * 2)).expect("a socket");
}

/// A server for one connection.
fn serve_once<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    bounded(&listener);
    let address = listener.local_addr().expect("a bound socket");
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        patient(&stream);
        serve(stream)
    });
    (address, thread)
}

fn connect(gateway: &Cloverleaf, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).expect("the gateway");
    bounded(&stream);
    patient(&stream);
    stream.write_all(head.as_bytes()).expect("a head");
    stream
}

/// Waits until a count stands still; the count.
fn settled(counter: &AtomicUsize) -> usize {
    let deadline = Instant::now() + SOON;
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < STUCK_AFTER || last == 0 {
        assert!(Instant::now() < deadline, "nothing stops it: {last} bytes");
        std::thread::sleep(Duration::from_millis(20));
        let now = counter.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream() {
    let moved = more_than_fits();
    let poured = Arc::new(AtomicUsize::new(0));
    let counter = poured.clone();
    let (address, server) = serve_once(move |mut stream| {
        skip_head(&stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {moved}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a head");
        pour(stream, moved, &counter)
    });
    let gateway = super::support::with("", &[address]);
    let before = resident_bytes(gateway.pid());
    let client = connect(&gateway, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let stuck = settled(&poured);
    assert!(stuck < under_way_bytes_max(), "{stuck} bytes are under way");
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
    // Others are served meanwhile, and then the rest comes.
    assert_eq!(
        fetch(gateway.address(), "GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n").status,
        200
    );
    skip_head(&client);
    assert_eq!(drain(&client, moved), server.join().expect("the server"));
}

#[test]
fn an_upstream_that_does_not_read_stops_the_client() {
    let moved = more_than_fits();
    let gate = Arc::new(AtomicUsize::new(0));
    let opened = gate.clone();
    let (address, server) = serve_once(move |mut stream| {
        skip_head(&stream);
        assert!(wait_until(SOON * 2, || opened.load(Ordering::Relaxed) > 0));
        let hash = drain(&stream, moved);
        stream.write_all(ok("thanks").as_bytes()).expect("an answer");
        hash
    });
    let gateway = super::support::with("", &[address]);
    let before = resident_bytes(gateway.pid());
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {moved}\r\n\r\n");
    let mut client = connect(&gateway, &head);
    let poured = Arc::new(AtomicUsize::new(0));
    let (counter, writing) = (poured.clone(), client.try_clone().expect("a socket"));
    let sent = std::thread::spawn(move || pour(writing, moved, &counter));
    let stuck = settled(&poured);
    assert!(stuck < under_way_bytes_max(), "{stuck} bytes are under way");
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
    gate.store(1, Ordering::Relaxed);
    assert_eq!(server.join().expect("the server"), sent.join().expect("the client"));
    let mut answer = [0; 12];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn http2_windows_hold_the_upstream_back() {
    let moved = more_than_fits();
    let poured = Arc::new(AtomicUsize::new(0));
    let counter = poured.clone();
    let (address, _server) = serve_once(move |mut stream| {
        skip_head(&stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {moved}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a head");
        pour(stream, moved, &counter)
    });
    let gateway = super::support::with("", &[address]);
    let mut client = Raw::connect(gateway.address());
    client.headers(1, &frames::get(&[]), true);
    let stuck = settled(&poured);
    assert!(stuck < under_way_bytes_max(), "{stuck} bytes are under way");
    // The window that RFC 9113 section 6.9.2 begins with, and not a byte more.
    assert_eq!(data(&mut client, 65_535).len(), 65_535);
    loop {
        match client.next_within(Duration::from_millis(300)) {
            Some(Some(frame)) => assert!(frame.kind != DATA && frame.flags & END_STREAM == 0),
            Some(None) => panic!("the connection ended"),
            None => break,
        }
    }
}

#[test]
fn large_bodies_arrive_intact_both_ways_at_once() {
    // An echo that begins to answer while it still reads.
    let (address, server) = serve_once(|mut stream| {
        skip_head(&stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MOVED_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a head");
        let mut from = stream.try_clone().expect("a socket");
        let mut left = MOVED_BYTES;
        let mut block = vec![0; 64 * 1024];
        while left > 0 {
            let count = from.read(&mut block).expect("the body");
            assert!(count > 0, "the body is cut");
            stream.write_all(&block[..count]).expect("the echo");
            left -= count;
        }
    });
    let gateway = super::support::with("", &[address]);
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {MOVED_BYTES}\r\n\r\n");
    let client = connect(&gateway, &head);
    let writing = client.try_clone().expect("a socket");
    let sent = std::thread::spawn(move || pour(writing, MOVED_BYTES, &AtomicUsize::new(0)));
    skip_head(&client);
    let received = drain(&client, MOVED_BYTES);
    assert_eq!(received, sent.join().expect("the client"));
    server.join().expect("the server");
}

#[test]
fn large_chunked_bodies_arrive_intact() {
    const BYTES: usize = 8 * 1024 * 1024;
    let mut body = vec![0; BYTES];
    Noise(3).fill(&mut body);
    let mut chunked = Vec::new();
    let mut rest = body.as_slice();
    // Chunks of all sizes, so that their borders fall everywhere.
    let mut size = 1;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
        (rest, size) = (behind, size * 3 % 100_003 + 1);
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let upstream = Upstream::answering([head, chunked.as_slice()].concat());
    let gateway = in_front_of(&upstream);
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = gateway.connect().timeout(SOON * 2);
    let response = client.request([request, chunked.as_slice()].concat()).expect("an answer");
    assert!(response.body == body, "the answer's body was changed");
    assert!(message::only(&upstream.received(0)).body == body, "the request's body was changed");
}
