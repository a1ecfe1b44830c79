//! Clients that attack: time and memory stay bounded, it is counted, and others are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::client::Failure;
use testkit::{Client, Cloverleaf, Step, Upstream, wait_until};

use super::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, Flood, HEADERS, Outcome, PING, RST_STREAM, Raw,
    SETTINGS, frame,
};
use super::support::{SOON, in_front_of, ok, resident_bytes, with};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const HEALTH: &str = "GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n";

/// What the process may grow by under any attack here: a few buffers, and what an allocator keeps.
const GROWTH_BYTES_MAX: u64 = 24 * 1024 * 1024;

fn refused(gateway: &Cloverleaf, reason: &str) -> f64 {
    let name =
        format!("cloverleaf_refused_requests_total{{listener=\"default\",reason=\"{reason}\"}}");
    gateway.metric(&name).unwrap_or_default()
}

/// Ordinary clients, one request after the other, each on a connection of its own.
struct Others {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Others {
    fn of(gateway: &Cloverleaf) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (address, stopped, counter) = (gateway.address(), stop.clone(), served.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let response = Client::connect(address).timeout(SOON).request(GET);
                assert_eq!(response.expect("others are served").status, 200);
                counter.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, served, thread: Some(thread) }
    }

    /// They were served up to now, and still are.
    fn are_well(mut self) {
        let before = self.served.load(Ordering::Relaxed);
        assert!(
            wait_until(SOON, || self.served.load(Ordering::Relaxed) > before),
            "nobody is served"
        );
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("others are served");
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn slow_heads_end_with_408() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = with("timeouts: {head: 500ms}", &[upstream.address()]);
    let others = Others::of(&gateway);
    let mut clients: Vec<_> = (0..50).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    }
    // Bytes that trickle in do not prolong it.
    let mut trickling = gateway.connect();
    let trickle = || trickling.try_send("G").is_err();
    assert!(wait_until(SOON, trickle), "a head that never ends is taken for ever");
    for client in &mut clients {
        let response = client.read_response().expect("408");
        assert_eq!((response.status, response.header("connection")), (408, Some("close")));
        assert!(client.closes_within(SOON));
    }
    assert_eq!(refused(&gateway, "head_timeout"), 51.0);
    // Who says nothing at all is not answered.
    assert!(matches!(gateway.connect().read_response(), Err(Failure::Closed)));
    // A head that does not end after a good request.
    let mut second = gateway.connect();
    assert_eq!(second.request(GET).expect("an answer").status, 200);
    second.send("GET /");
    assert_eq!(second.read_response().expect("408").status, 408);
    // The beginning of HTTP/2's preface, and HTTP/2 without a request's end.
    for begun in ["PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut client = gateway.connect();
        client.send(begun);
        assert!(!matches!(client.read_to_close(), Err(Failure::TimedOut(_))), "{begun:?}");
    }
    others.are_well();
    assert!(upstream.requests().iter().all(|request| request.starts_with("GET / HTTP/1.1\r\n")));
}

#[test]
fn slow_bodies_end() {
    let upstream = Upstream::scripted(|connection| match connection {
        0..3 => vec![Step::ReadRequest, Step::send(ok("late")), Step::Repeat],
        _ => vec![Step::ReadRequest, Step::send("HTTP/1.1 200 OK\r\n\r\n"), Step::Flood(64 << 20)],
    });
    let gateway = with("timeouts: {streamIdle: 500ms}", &[upstream.address()]);
    for framing in
        ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}"));
        assert_eq!(client.read_response().expect("408").status, 408, "{framing:?}");
        assert!(client.closes_within(SOON));
        assert!(wait_until(SOON, || upstream.open_connections() == 0), "{framing:?}");
    }
    let mut h2 = Raw::connect(gateway.address());
    h2.headers(1, &frames::request("POST", "/"), false);
    h2.data(1, b"abc", false);
    assert_eq!(h2.outcome(1), Outcome::Status(408));
    assert!(wait_until(SOON, || upstream.open_connections() == 0), "HTTP/2");
    // Who does not read an answer loses it.
    let mut client = gateway.connect();
    client.send(GET);
    assert!(wait_until(SOON, || upstream.connections() == 4));
    assert!(wait_until(SOON, || upstream.open_connections() == 0), "it is kept for ever");
    assert!(!matches!(client.read_to_close(), Ok(_) | Err(Failure::TimedOut(_))), "it looks whole");
}

#[test]
fn idle_connections_end() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = with("timeouts: {idle: 400ms, head: 10s}", &[upstream.address()]);
    let mut idle = gateway.connect();
    assert_eq!(idle.request(GET).expect("an answer").status, 200);
    assert!(idle.closes_within(SOON));
    let mut idle = Raw::connect(gateway.address());
    idle.headers(1, &frames::get(&[]), true);
    assert_eq!(idle.outcome(1), Outcome::Status(200));
    assert_eq!(idle.goodbye(), Some(0));
    // A header block without an end.
    let mut begun = Raw::connect(gateway.address());
    begun
        .send(&frame(HEADERS, 0, 1, &frames::block(&frames::get(&[]))))
        .expect("an open connection");
    let _ = begun.goodbye();
    // HTTP/2 without any request, and with pings alone.
    assert_eq!(Raw::connect(gateway.address()).goodbye(), Some(0));
    let mut pinging = Raw::connect(gateway.address());
    let ping = frame(PING, 0, 0, b"12345678");
    let over = || {
        pinging.send(&ping).is_err() || pinging.next_within(Duration::from_millis(5)) == Some(None)
    };
    assert!(wait_until(SOON, over), "pings keep it for ever");
}

#[test]
fn endless_heads_end_early() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let before = resident_bytes(gateway.pid());
    let others = Others::of(&gateway);
    let line = "v".repeat(64 * 1024);
    let fields = "X-Field: v\r\n".repeat(5000);
    for (begin, more) in [
        ("", "\r\n"),
        ("GET /", line.as_str()),
        (&line[..], line.as_str()),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: ", line.as_str()),
        ("GET / HTTP/1.1\r\nHost: x\r\n", fields.as_str()),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", fields.as_str()),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", line.as_str()),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "000000000000000000000000",
        ),
    ] {
        let mut client = gateway.connect();
        client.send(begin);
        let mut sent = 0;
        while client.try_send(more).is_ok() {
            sent += more.len();
            assert!(sent < 64 * 1024 * 1024, "{begin:.60?} goes on and on");
        }
        match client.read_response() {
            Ok(response) => {
                assert!(matches!(response.status, 400 | 431), "{begin:.60?}: {response:?}")
            }
            Err(failure) => {
                assert!(!matches!(failure, Failure::TimedOut(_)), "{begin:.60?}: {failure}")
            }
        }
    }
    others.are_well();
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
    assert!(refused(&gateway, "head_too_large") >= 3.0);
}

/// A flood over HTTP/2: what comes first, what is repeated and how often, and whether the connection has to
/// end.
struct Attack {
    name: &'static str,
    first: Vec<u8>,
    repeated: Vec<u8>,
    times: usize,
    ends: bool,
}

fn attacks() -> Vec<Attack> {
    let open = |end: bool| {
        let block = frames::block(&frames::request("POST", "/"));
        frame(HEADERS, END_HEADERS | u8::from(end), 1, &block)
    };
    let begun = frame(HEADERS, 0, 1, &frames::block(&frames::get(&[])));
    let field = frames::block(&[("x-field", "v".repeat(1000))]);
    let attack = |name, first, repeated, times, ends| Attack { name, first, repeated, times, ends };
    vec![
        attack("CONTINUATION", begun.clone(), frame(CONTINUATION, 0, 1, &field), 100_000, true),
        attack("empty CONTINUATION", begun, frame(CONTINUATION, 0, 1, &[]), 1_000_000, true),
        attack("PING", vec![], frame(PING, 0, 0, b"12345678"), 100_000, false),
        attack("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), 100_000, false),
        attack("empty SETTINGS", vec![], frame(SETTINGS, 0, 0, &[]), 100_000, false),
        attack("empty DATA", open(false), frame(DATA, 0, 1, &[]), 100_000, false),
        attack("padded DATA", open(false), frame(DATA, 8, 1, &[9; 10]), 20_000, false),
        attack("PRIORITY", vec![], frame(2, 0, 1, &[0, 0, 0, 3, 9]), 100_000, false),
        attack("WINDOW_UPDATE", vec![], frame(8, 0, 0, &[0, 0, 0, 1]), 100_000, false),
        attack("unknown frames", vec![], frame(0xfa, 0, 0, &[0; 100]), 100_000, false),
        attack(
            "RST_STREAM of no stream",
            open(true),
            frame(RST_STREAM, 0, 1, &[0; 4]),
            100_000,
            false,
        ),
    ]
}

#[test]
fn floods_of_frames_are_bounded() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let before = resident_bytes(gateway.pid());
    let others = Others::of(&gateway);
    let mut unread = Vec::new();
    for attack in attacks() {
        let mut client = Raw::connect(gateway.address());
        client.send(&attack.first).expect("an open connection");
        let flood = client.flood(&attack.repeated, attack.times);
        let fine = flood == Flood::Ended || (!attack.ends && flood == Flood::Taken);
        assert!(fine, "{}: {flood:?}", attack.name);
        // Again, and what comes back is not read.
        let mut client = Raw::connect(gateway.address());
        client.send(&attack.first).expect("an open connection");
        client.pour(&attack.repeated, attack.times);
        unread.push(client);
        let grown = resident_bytes(gateway.pid()).saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{}: the gateway grew by {grown} bytes", attack.name);
    }
    // Whoever is served now waits behind all that was poured.
    others.are_well();
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
    assert!(refused(&gateway, "h2_error") >= 2.0, "it is counted");
}

/// Streams that are opened and reset at once (CVE-2023-44487).
#[test]
fn rapid_resets_end_the_connection() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let before = resident_bytes(gateway.pid());
    let others = Others::of(&gateway);
    let block = frames::block(&frames::get(&[]));
    for _ in 0..5 {
        let mut client = Raw::connect(gateway.address());
        let mut sent = Vec::new();
        for stream in (1..20_001).step_by(2) {
            sent.extend(frame(HEADERS, END_HEADERS | 1, stream, &block));
            sent.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        }
        let _ = client.send(&sent);
        let end = client.goodbye();
        // ENHANCE_YOUR_CALM, where a reset of the connection does not overtake it.
        assert!(matches!(end, Some(11) | None), "{end:?}");
    }
    others.are_well();
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
    assert!(wait_until(SOON, || refused(&gateway, "h2_error") >= 5.0), "it is counted");
}

/// A small block that decodes to a large list, by naming one large field of the dynamic table again and
/// again.
#[test]
fn a_compression_bomb_is_refused() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let before = resident_bytes(gateway.pid());
    let mut client = Raw::connect(gateway.address());
    let mut block = frames::block(&frames::get(&[]));
    let large = frames::block(&[("x", "v".repeat(3900))]);
    // The literal with incremental indexing, then its index.
    block.push(0x40);
    block.extend_from_slice(&large[1..]);
    block.extend(std::iter::repeat_n(0x80 | 62, 12_000));
    for stream in [1, 3, 5] {
        client.send(&frame(HEADERS, END_HEADERS | 1, stream, &block)).expect("an open connection");
        match client.outcome(stream) {
            Outcome::Status(431) => {}
            Outcome::GoAway(_) | Outcome::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
    assert!(upstream.requests().is_empty());
}

/// Streams whose answers are large and never taken: what waits for them is bounded, and so is the time.
#[test]
fn windows_that_never_open_hold_little() {
    let upstream = Upstream::start([
        Step::ReadRequest,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n"),
        Step::Flood(64 << 20),
    ]);
    let gateway = with("timeouts: {streamIdle: 1s}", &[upstream.address()]);
    let before = resident_bytes(gateway.pid());
    let mut client = Raw::connect(gateway.address());
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).expect("an open connection");
    for stream in (1..129).step_by(2) {
        client.headers(stream, &frames::get(&[]), true);
    }
    assert!(wait_until(SOON, || upstream.connections() == 64));
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
    assert!(wait_until(SOON, || upstream.open_connections() == 0), "streams wait for ever");
    let (_, whole) = client.body(127);
    assert!(!whole);
}

#[test]
fn connections_have_a_limit() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = with("limits: {connections: 8}", &[upstream.address()]);
    let mut first: Vec<_> = (0..8).map(|_| gateway.connect()).collect();
    for client in &mut first {
        assert_eq!(client.request(HEALTH).expect("an answer").status, 200);
    }
    let mut waiting = gateway.connect();
    waiting.send(GET);
    assert!(waiting.stays_silent_for(Duration::from_millis(200)), "more than the limit");
    drop(first.pop());
    assert_eq!(waiting.read_response().expect("an answer").status, 200);
}

/// Hundreds of connections at once that all hang within a request.
#[test]
fn many_hanging_connections_cost_little() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let before = resident_bytes(gateway.pid());
    let others = Others::of(&gateway);
    let mut hanging: Vec<_> = (0..300).map(|_| gateway.connect()).collect();
    for client in &mut hanging {
        client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    }
    others.are_well();
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the gateway grew by {grown} bytes");
}

/// An upload that stops is blamed on whoever stopped it.
#[test]
fn an_upstream_that_does_not_read_an_upload_is_too_slow() {
    let upstream = Upstream::start([Step::ReadHead, Step::Pause(Duration::from_secs(30))]);
    let gateway = with("timeouts: {streamIdle: 700ms}", &[upstream.address()]);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    let block = vec![0; 1024 * 1024];
    let mut left = 100;
    while left > 0 && client.try_send(&block).is_ok() {
        left -= 1;
    }
    assert_eq!(client.read_response().expect("an answer").status, 504);
}
