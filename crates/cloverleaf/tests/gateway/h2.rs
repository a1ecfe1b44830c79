//! HTTP/2 by prior knowledge: streams side by side, trailers, flow control, resets, and the conformance
//! suite.

use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use testkit::client::fetch;
use testkit::upstream::Gate;
use testkit::{Client, Cloverleaf, Port, Step, Upstream, wait_until};

use super::running::{everything_to, start};
use super::support::frames::{self, END_STREAM, HEADERS, Outcome, RST_STREAM, Raw, frame};
use super::support::{
    SOON, Tap, in_front_of, message, ok, over_tls, resident_bytes, under_way_bytes_max, with,
};

/// Runs a client of the `h2` crate on a connection, with a bound.
fn run(
    gateway: &Cloverleaf,
    builder: &h2::client::Builder,
    work: impl AsyncFnOnce(SendRequest<Bytes>),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let connecting = async {
        let socket = tokio::net::TcpStream::connect(gateway.address()).await.expect("the gateway");
        let (send, connection) = builder.handshake(socket).await.expect("a handshake");
        tokio::select! {
            () = work(send) => {}
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    };
    runtime.expect("a runtime").block_on(async {
        tokio::time::timeout(SOON * 2, connecting).await.expect("the work to end");
    });
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://x{path}")).body(()).expect("a request")
}

/// A whole body and what stands behind it; windows are given back as it comes.
async fn whole(response: Response<h2::RecvStream>) -> (u16, Vec<u8>, Option<HeaderMap>) {
    let status = response.status().as_u16();
    let mut stream = response.into_body();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.expect("data");
        stream.flow_control().release_capacity(data.len()).expect("a window");
        body.extend_from_slice(&data);
    }
    (status, body, stream.trailers().await.expect("trailers or none"))
}

async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn streams_run_side_by_side() {
    const STREAMS: usize = 100;
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::start([
        Step::ReadRequest,
        Step::Wait(opened),
        Step::send(ok("fine")),
        Step::Repeat,
    ]);
    let gateway = in_front_of(&upstream);
    run(&gateway, &h2::client::Builder::new(), async |send| {
        let mut send = send.ready().await.expect("a connection");
        let mut answers = Vec::new();
        for number in 0..STREAMS {
            answers.push(
                send.send_request(request("GET", &format!("/{number}")), true).expect("a stream").0,
            );
        }
        until(|| upstream.requests().len() == STREAMS).await;
        gate.open();
        for answer in answers {
            let (status, body, _) = whole(answer.await.expect("an answer")).await;
            assert_eq!((status, body.as_slice()), (200, &b"fine"[..]));
        }
    });
    let mut paths: Vec<_> =
        upstream.requests().iter().map(|r| r.lines().next().map(str::to_owned)).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), STREAMS);
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let upstream = Upstream::start([Step::ReadRequest, Step::Hang]);
    let gateway = with("limits: {h2Streams: 4}", &[upstream.address()]);
    let mut client = Raw::connect(gateway.address());
    for stream in [1, 3, 5, 7, 9] {
        client.headers(stream, &frames::get(&[]), true);
    }
    // REFUSED_STREAM: it may be sent again.
    assert_eq!(client.outcome(9), Outcome::Reset(7));
    assert!(wait_until(SOON, || upstream.requests().len() == 4));
    // When one ends there is room for another.
    client.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).expect("an open connection");
    client.headers(11, &frames::get(&[]), true);
    assert!(wait_until(SOON, || upstream.requests().len() == 5));
}

#[test]
fn heads_bodies_and_trailers_change_form_and_nothing_else() {
    let answer = "HTTP/1.1 201 Made\r\nX-Answer: 1\r\nX-ANSWER: 2\r\nKeep-Alive: 5\r\n\
                  Connection: X-Hop\r\nX-Hop: 1\r\n\
                  Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nContent-Length: 1\r\n\r\n";
    let upstream = Upstream::answering(answer);
    let gateway = in_front_of(&upstream);
    run(&gateway, &h2::client::Builder::new(), async |send| {
        let mut send = send.ready().await.expect("a connection");
        let (mut head, ()) = request("POST", "/a%2Fb?c=d").into_parts();
        for (name, value) in
            [("x-a", "1"), ("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")]
        {
            head.headers.append(name, value.parse().expect("a value"));
        }
        let (answer, mut body) =
            send.send_request(Request::from_parts(head, ()), false).expect("a stream");
        body.send_data(Bytes::from_static(b"hello"), false).expect("data");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "yes".parse().expect("a value"));
        body.send_trailers(trailers).expect("trailers");
        let response = answer.await.expect("an answer");
        let values: Vec<_> = response.headers().get_all("x-answer").iter().collect();
        assert_eq!(values, ["1", "2"]);
        for name in ["keep-alive", "connection", "x-hop", "transfer-encoding"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        assert!(response.headers().contains_key("date"));
        let (status, body, trailers) = whole(response).await;
        assert_eq!((status, body.as_slice()), (201, &b"abc"[..]));
        let trailers = trailers.expect("trailers");
        assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"7".parse().expect("a value")));
    });
    let reached = message::only(&upstream.received(0));
    assert_eq!(reached.line, "POST /a%2Fb?c=d HTTP/1.1");
    assert_eq!(
        (reached.one("host"), reached.one("x-a"), reached.one("te")),
        (Some("x"), Some("1"), Some("trailers"))
    );
    assert_eq!(reached.one("cookie"), Some("a=1; b=2"));
    assert_eq!(reached.one("transfer-encoding"), Some("chunked"));
    assert_eq!(reached.one("forwarded"), Some("for=127.0.0.1;host=x;proto=http"));
    assert_eq!((reached.text().as_str(), reached.trailers[0].1.as_str()), ("hello", "yes"));
}

/// Method and the upstream's answer; status, body, and whether the head is all there is.
#[rustfmt::skip]
const ANSWERS: &[(&str, &str, u16, &str, bool)] = &[
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, "abc", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", true),
    ("GET", "HTTP/1.0 200 OK\r\n\r\nabc", 200, "abc", false),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
    ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, "", true),
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, "", true),
    ("GET", "HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\n\
      x", 404, "x", false),
    ("GET", "HTTP/1.1 599 Odd\r\nContent-Length: 1\r\n\r\nx", 599, "x", false),
];

#[test]
fn answers_end_with_their_stream() {
    let upstream = Upstream::scripted(|connection| {
        vec![
            Step::ReadRequest,
            Step::send(ANSWERS.get(connection).map_or("", |case| case.1)),
            Step::Close,
        ]
    });
    let gateway = in_front_of(&upstream);
    for (number, (method, answer, status, body, head_only)) in ANSWERS.iter().enumerate() {
        let mut client = Raw::connect(gateway.address());
        client.headers(1, &frames::request(method, "/"), true);
        let mut heads = Vec::new();
        let mut data = Vec::new();
        loop {
            let frame = client.next().expect("an open connection");
            match frame.kind {
                HEADERS => heads.push(frame.flags & END_STREAM != 0),
                frames::DATA => data.extend_from_slice(&frame.payload),
                RST_STREAM => panic!("{answer:?} is reset"),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | frames::DATA) && frame.flags & END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(String::from_utf8_lossy(&data), *body, "{answer:?}");
        assert_eq!(heads.last(), Some(head_only), "{answer:?}");
        assert_eq!(heads.len(), if answer.contains(" 103 ") { 2 } else { 1 }, "{answer:?}");
        let upstream_gone =
            || upstream.connections() == number + 1 && upstream.open_connections() <= 1;
        assert!(wait_until(SOON, upstream_gone), "{answer:?} {status}");
    }
    for (number, (method, answer, status, ..)) in ANSWERS.iter().enumerate() {
        let upstream = Upstream::answering(answer);
        if answer.starts_with("HTTP/1.0") {
            continue;
        }
        let gateway = in_front_of(&upstream);
        let mut client = Raw::connect(gateway.address());
        client.headers(1, &frames::request(method, "/"), true);
        assert_eq!(client.outcome(1), Outcome::Status(*status), "{number}: {answer:?}");
    }
}

#[test]
fn flow_control_is_kept_both_ways() {
    const BYTES: usize = 256 * 1024;
    let body: Vec<u8> = (0..BYTES).map(|n| u8::try_from(n * 7 % 251).expect("below 256")).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
    let upstream = Upstream::answering([head.as_bytes(), &body].concat());
    let gateway = in_front_of(&upstream);
    let mut narrow = h2::client::Builder::new();
    narrow.initial_window_size(1000).initial_connection_window_size(70_000).max_frame_size(16_384);
    run(&gateway, &narrow, async |send| {
        let mut send = send.ready().await.expect("a connection");
        let (answer, mut upload) =
            send.send_request(request("POST", "/"), false).expect("a stream");
        let sending = async {
            let mut left = body.as_slice();
            while !left.is_empty() {
                upload.reserve_capacity(left.len());
                let room = std::future::poll_fn(|cx| upload.poll_capacity(cx)).await;
                let room = room.expect("an open stream").expect("capacity").min(left.len());
                let (now, later) = left.split_at(room);
                upload.send_data(Bytes::copy_from_slice(now), later.is_empty()).expect("data");
                left = later;
            }
        };
        let receiving = async { whole(answer.await.expect("an answer")).await };
        let ((), (status, received, _)) = tokio::join!(sending, receiving);
        assert!(status == 200 && received == body, "the answer's body was changed");
    });
    assert!(message::only(&upstream.received(0)).body == body, "the request's body was changed");
}

#[test]
fn a_reset_stream_ends_its_request_and_no_other() {
    let upstream = Upstream::scripted(|connection| match connection {
        0 => vec![Step::ReadRequest, Step::Hang],
        1 => vec![
            Step::ReadRequest,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            Step::Hang,
        ],
        _ => vec![Step::ReadRequest, Step::send(ok("fine")), Step::Repeat],
    });
    let gateway = in_front_of(&upstream);
    let mut client = Raw::connect(gateway.address());
    for stream in [1, 3] {
        // One without an answer yet, one within it.
        client.headers(stream, &frames::get(&[]), true);
        assert!(wait_until(SOON, || upstream.open_connections() == 1
            && !upstream.requests().is_empty()));
        if stream == 3 {
            assert_eq!(client.outcome(3), Outcome::Status(200));
        }
        client.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).expect("an open connection");
        assert!(wait_until(SOON, || upstream.open_connections() == 0), "stream {stream} goes on");
    }
    client.headers(5, &frames::get(&[]), true);
    assert_eq!(client.outcome(5), Outcome::Status(200));
}

/// An answer may come before the body is sent: it is whole, and the rest is not wanted.
#[test]
fn an_early_answer_ends_its_stream_alone() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    let upstream = Upstream::scripted(move |connection| match connection {
        0 => vec![Step::ReadHead, Step::send(refusal), Step::Hang],
        _ => vec![Step::ReadRequest, Step::send(ok("fine")), Step::Repeat],
    });
    let gateway = in_front_of(&upstream);
    let mut client = Raw::connect(gateway.address());
    client.headers(1, &frames::request("POST", "/"), false);
    client.data(1, b"the beginning", false);
    assert_eq!(client.outcome(1), Outcome::Status(413));
    assert_eq!(client.body(1), (b"big".to_vec(), true));
    client.data(1, b"the end", true);
    client.headers(3, &frames::get(&[]), true);
    assert_eq!(client.outcome(3), Outcome::Status(200));
    let (whole, incomplete) = message::requests(&upstream.received(0)).expect("one form");
    assert!(whole.is_empty() && incomplete, "{whole:?}");
    assert_eq!(upstream.connections(), 2, "a connection with half a request is not used again");
}

#[test]
fn a_client_that_goes_away_ends_its_requests() {
    let upstream = Upstream::start([Step::ReadRequest, Step::Hang]);
    let gateway = in_front_of(&upstream);
    let mut client = Raw::connect(gateway.address());
    for stream in [1, 3, 5] {
        client.headers(stream, &frames::get(&[]), true);
    }
    assert!(wait_until(SOON, || upstream.requests().len() == 3));
    drop(client);
    assert!(wait_until(SOON, || upstream.open_connections() == 0));
}

#[test]
fn large_heads_are_refused() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = with("limits: {headBytes: 8192, headFields: 20}", &[upstream.address()]);
    let mut tap = Tap::new(&upstream);
    let large = "v".repeat(9000);
    let many: Vec<_> = (0..30).map(|n| format!("x-{n}")).collect();
    let mut heads = vec![frames::get(&[("x", &large)])];
    heads.push(frames::get(&many.iter().map(|name| (name.as_str(), "v")).collect::<Vec<_>>()));
    for head in heads {
        let mut client = Raw::connect(gateway.address());
        client.headers(1, &head, true);
        assert_eq!(client.outcome(1), Outcome::Status(431));
        assert!(tap.fresh().is_empty());
        // The connection is as good as before.
        client.headers(3, &frames::get(&[("x", "v")]), true);
        assert_eq!(client.outcome(3), Outcome::Status(200));
        tap.fresh();
    }
}

/// Memory for uploads that an upstream does not take: all streams' windows, and what an allocator keeps.
const UPLOADS_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[test]
fn an_upstream_that_does_not_read_stops_a_stream() {
    let upstream = Upstream::start([Step::ReadHead, Step::Pause(SOON * 3)]);
    let gateway = in_front_of(&upstream);
    let before = resident_bytes(gateway.pid());
    run(&gateway, &h2::client::Builder::new(), async |send| {
        let mut send = send.ready().await.expect("a connection");
        let (_answer, mut upload) =
            send.send_request(request("POST", "/"), false).expect("a stream");
        let mut sent = 0;
        loop {
            upload.reserve_capacity(64 * 1024);
            let capacity = std::future::poll_fn(|cx| upload.poll_capacity(cx));
            let Ok(room) = tokio::time::timeout(Duration::from_millis(700), capacity).await else {
                break;
            };
            let room = room.expect("an open stream").expect("capacity");
            upload.send_data(Bytes::from(vec![0; room]), false).expect("data");
            sent += room;
            assert!(sent < under_way_bytes_max(), "nothing stops it");
        }
        // Other streams go on: the gateway's own answer needs no upstream.
        let health =
            send.send_request(request("GET", "/.nanoproxy/health"), true).expect("a stream").0;
        assert_eq!(whole(health.await.expect("an answer")).await.1, b"OK");
    });
    let grown = resident_bytes(gateway.pid()).saturating_sub(before);
    assert!(grown < UPLOADS_BYTES_MAX, "the gateway grew by {grown} bytes");
}

/// The suite takes seconds for what it expects not to be answered.
const H2SPEC_WITHIN: Duration = Duration::from_secs(120);

/// `h2spec` is named by the environment variable `H2SPEC`, which `cargo xtask test` sets.
#[test]
fn h2spec_passes() {
    let variable =
        |name: &str| std::env::vars_os().find(|(n, _)| n == name).map(|(_, value)| value);
    let Some(tool) = variable("H2SPEC") else {
        assert_ne!(variable("CI"), Some(OsString::from("true")), "H2SPEC names no h2spec");
        eprintln!(
            "skipped: H2SPEC does not name the h2spec program; `cargo xtask test` installs it"
        );
        return;
    };
    let upstream = Upstream::answering(ok("an answer with a body of some length"));
    let (tls, _authority) = over_tls(&upstream);
    let report = h2spec(&tool, &tls, &["--tls", "--insecure"]);
    assert_eq!(failures(&report), Vec::<&str>::new(), "{report}");

    // Without ALPN the port also speaks HTTP/1, and a preface that is none is answered by a 400 of that:
    // the suite takes it for a frame that is cut off.
    let plain = in_front_of(&upstream);
    let report = h2spec(&tool, &plain, &[]);
    assert_eq!(failures(&report), ["2: Sends invalid connection preface"], "{report}");

    let port = Port::reserve();
    let only = http2_alone(&port, &upstream);
    let report = h2spec_at(&tool, port.address(), &[]);
    assert_eq!(failures(&report), Vec::<&str>::new(), "{report}");
    drop(only);
}

/// A gateway whose one listener speaks HTTP/2 and nothing else.
fn http2_alone(port: &Port, upstream: &Upstream) -> Cloverleaf {
    let address = port.address();
    start(&format!(
        "workers: 1\nlisteners: [{{name: a, address: \"{address}\", protocols: [h2]}}]\n{}",
        everything_to(upstream)
    ))
}

#[test]
fn a_listener_speaks_the_versions_it_says() {
    let upstream = Upstream::answering(ok("fine"));
    let ports = [Port::reserve(), Port::reserve()];
    let _only = http2_alone(&ports[0], &upstream);
    let mut client = Raw::connect(ports[0].address());
    client.headers(1, &frames::get(&[]), true);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    // What begins otherwise is closed: with HTTP/2's own words at most, and never an answer of HTTP/1.
    for sent in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "\r\n"] {
        let mut client = Client::connect(ports[0].address());
        client.send(sent);
        client.finish();
        let read = client.read_to_close().expect("an orderly end");
        assert!(!read.starts_with(b"HTTP/"), "{sent:?}: {read:?}");
    }
    let yaml = format!(
        "listeners: [{{name: a, address: \"{}\", protocols: [http/1.1]}}]\n{}",
        ports[1].address(),
        everything_to(&upstream)
    );
    let _older = start(&yaml);
    let answer = fetch(ports[1].address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
    let preface = fetch(ports[1].address(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(preface.status, 505);
}

/// Runs the suite; its report.
fn h2spec(tool: &OsString, gateway: &Cloverleaf, more: &[&str]) -> String {
    h2spec_at(tool, gateway.address(), more)
}

/// As [`h2spec`], at one of several listeners.
fn h2spec_at(tool: &OsString, address: SocketAddr, more: &[&str]) -> String {
    let mut suite = Command::new(tool)
        .args(["--strict", "--timeout", "3", "--host", "127.0.0.1", "--port"])
        .arg(address.port().to_string())
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("h2spec to start");
    let mut pipe = suite.stdout.take().expect("a pipe");
    let reading = std::thread::spawn(move || {
        let mut report = String::new();
        let _ = pipe.read_to_string(&mut report);
        report
    });
    let ended = wait_until(H2SPEC_WITHIN, || suite.try_wait().is_ok_and(|status| status.is_some()));
    let _ = suite.kill();
    let _ = suite.wait();
    let report = reading.join().expect("the reader");
    assert!(ended, "h2spec is not done after {H2SPEC_WITHIN:?}:\n{report}");
    report
}

/// What failed: the summary's count, `146 tests, 145 passed, 0 skipped, 1 failed`, holds the list of
/// failures.
fn failures(report: &str) -> Vec<&str> {
    let summary = report.lines().rev().find(|line| line.contains(" tests, ")).unwrap_or_default();
    let count = |word: &str| {
        let part = summary.split(", ").find_map(|part| part.trim().strip_suffix(word));
        part.and_then(|number| number.trim().parse::<usize>().ok())
    };
    assert!(count("passed").is_some_and(|passed| passed > 100), "{report}");
    let listed = report.split("Failures:").nth(1).unwrap_or_default();
    let failed: Vec<_> = listed.lines().filter_map(|line| line.trim().strip_prefix("× ")).collect();
    assert_eq!(count("failed"), Some(failed.len()), "{report}");
    failed
}
