//! Upstreams that fail: the right status, retries only where they are safe, and no cut body delivered as a
//! whole one.

use std::time::{Duration, Instant};

use testkit::client::{Failure, Tls, fetch};
use testkit::upstream::Gate;
use testkit::{Client, Deaf, Port, Step, Upstream, wait_until};

use super::support::frames::{self, Outcome, Raw};
use super::support::{SOON, by_path, in_front_of, ok, over_tls, with};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// An endpoint's name that no resolver is asked for: a label has at most 63 characters.
fn unresolvable() -> String {
    format!("{}.test:80", "a".repeat(64))
}

#[test]
fn every_failure_has_its_status_and_says_so() {
    let gone = Port::reserve();
    let deaf = Deaf::listen();
    let hanging = Upstream::start([Step::ReadRequest, Step::Hang]);
    let mute = Upstream::start([Step::Hang]);
    let closing = Upstream::start([Step::ReadRequest, Step::Close]);
    let resetting = Upstream::start([Step::ReadRequest, Step::Reset]);
    let garbage = Upstream::start([Step::ReadRequest, Step::send("garbage\r\n\r\n")]);
    let at = |address: std::net::SocketAddr| vec![address.to_string()];
    let cases = [
        ("/refused", at(gone.address()), 502, "upstream_refused"),
        ("/unresolved", vec![unresolvable()], 502, "upstream_unresolved"),
        ("/deaf", at(deaf.address()), 504, "upstream_connect_timeout"),
        ("/hanging", at(hanging.address()), 504, "upstream_timeout"),
        ("/mute", at(mute.address()), 504, "upstream_timeout"),
        ("/closing", at(closing.address()), 502, "upstream_closed"),
        ("/resetting", at(resetting.address()), 502, "upstream_closed"),
        ("/garbage", at(garbage.address()), 502, "upstream_malformed"),
    ];
    let paths: Vec<_> = cases.iter().map(|(path, to, ..)| (*path, to.as_slice())).collect();
    let gateway = by_path("timeouts: {connect: 400ms, response: 400ms}", &paths);
    let mut client = gateway.connect();
    for (path, _, status, code) in &cases {
        let text = client.request(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let text = text.unwrap_or_else(|failure| panic!("{path}: {failure}"));
        assert_eq!(text.status, *status, "{path}: {text:?}");
        assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"), "{path}");
        assert!(text.text().starts_with(&format!("{status}: ")), "{path}: {:?}", text.text());
        assert!(text.header("x-proxy").is_none(), "{path}: not the upstream's answer");
        let json = "Accept: text/html, application/json";
        let json = client.request(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{json}\r\n\r\n"));
        let json = json.unwrap_or_else(|failure| panic!("{path}: {failure}"));
        let body: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
        assert_eq!(
            (json.status, &body["status"], &body["error"]),
            (*status, &(*status).into(), &(*code).into())
        );
    }
    // Over HTTP/2 it is the same, and the connection goes on.
    let mut h2 = Raw::connect(gateway.address());
    for (number, (path, _, status, _)) in (0_u32..).zip(&cases) {
        let stream = number * 2 + 1;
        h2.headers(stream, &frames::request("GET", path), true);
        assert_eq!(h2.outcome(stream), Outcome::Status(*status), "{path}");
    }
    // HEAD gets the head alone.
    let head = client.request("HEAD /refused HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
    assert_eq!((head.status, head.body.len()), (502, 0));
    assert_eq!(
        client.request("GET /closing HTTP/1.1\r\nHost: x\r\n\r\n").expect("in step").status,
        502
    );
}

#[test]
fn a_missing_upstream_is_503() {
    let yaml = "upstreams: []\nrules:\n  - upstream: nobody\n    path: /\n";
    let gateway = testkit::Cloverleaf::gateway(super::support::BINARY, yaml);
    assert_eq!(fetch(gateway.address(), GET).status, 503);
}

/// Heads that no client may get to see.
#[rustfmt::skip]
const GARBAGE: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 99 Low\r\n\r\n",
    "HTTP/1.1 1000 High\r\n\r\n",
    "HTTP/1.1 20x Letter\r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.2 200 OK\r\n\r\n",
    "ICY 200 OK\r\n\r\n",
    "200 OK\r\n\r\n",
    "SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "\x15\x03\x01\x00\x02\x02\x46",
    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
    "HTTP/1.1 2",
    "HTTP/1.1 103 Early\r\nX : a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
];

#[test]
fn garbage_is_502() {
    let mut answers: Vec<String> = GARBAGE.iter().map(|answer| (*answer).to_owned()).collect();
    let fields: String = (0..200).map(|n| format!("X-{n}: v\r\n")).collect();
    answers.push(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
    let large = "v".repeat(66 * 1024);
    answers.push(format!("HTTP/1.1 200 OK\r\nX: {large}\r\nContent-Length: 0\r\n\r\n"));
    answers.push("HTTP/1.1 102 Processing\r\n\r\n".repeat(40) + &ok("late"));
    let count = answers.len();
    let sent = answers.clone();
    let upstream = Upstream::scripted(move |connection| {
        vec![Step::ReadRequest, Step::send(sent.get(connection).map_or("", |answer| answer))]
    });
    let gateway = in_front_of(&upstream);
    let mut client = gateway.connect();
    for (number, answer) in answers.iter().enumerate() {
        let response =
            client.request(GET).unwrap_or_else(|failure| panic!("{failure}: {answer:.200}"));
        assert_eq!(response.status, 502, "{answer:.200}");
        assert_eq!(upstream.connections(), number + 1, "sent once, on a connection of its own");
    }
    assert_eq!(upstream.requests().len(), count);
}

/// Answers that begin well and do not end so, and how the upstream's connection ends.
fn cut_answers() -> Vec<(String, Step)> {
    let chunked =
        |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let length = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{body}");
    let mut answers = vec![
        (length(""), Step::Close),
        (length("abc"), Step::Close),
        (length("abc"), Step::Reset),
        (length("abcdefghi"), Step::Close),
        ("HTTP/1.1 200 OK\r\n\r\nabc".to_owned(), Step::Reset),
        ("HTTP/1.0 200 OK\r\n\r\nabc".to_owned(), Step::Reset),
    ];
    for body in [
        "",
        "3",
        "3\r\n",
        "3\r\nab",
        "3\r\nabc",
        "3\r\nabc\r\n",
        "3\r\nabc\r\n0",
        "3\r\nabc\r\n0\r\n",
        "3\r\nabc\r\n0\r\nX: y\r\n",
    ] {
        answers.push((chunked(body), Step::Close));
        answers.push((chunked(body), Step::Reset));
    }
    for body in [
        "x\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX : y\r\n\r\n",
        "3\r\nabc\r\n0\r\n y\r\n\r\n",
    ] {
        answers.push((chunked(body), Step::Hang));
    }
    answers
}

#[test]
fn what_is_cut_is_never_delivered_as_whole() {
    let answers = cut_answers();
    let script = answers.clone();
    // Each answer three times: for clients of HTTP/1.1, HTTP/1.0 and HTTP/2.
    let upstream = Upstream::scripted(move |connection| {
        let (answer, end) = script[(connection / 3) % script.len()].clone();
        // The pause lets the head arrive before a reset takes it back.
        vec![Step::ReadRequest, Step::send(answer), Step::Pause(Duration::from_millis(30)), end]
    });
    let gateway = in_front_of(&upstream);
    let mut wrong = Vec::new();
    for (answer, end) in &answers {
        // For HTTP/1.0 the end of the connection is the end of a body: only a reset tells.
        for request in [GET, "GET / HTTP/1.0\r\n\r\n"] {
            let got = gateway.connect().request(request);
            // A reset may overtake the head.
            let fine = match &got {
                Err(Failure::Cut(_) | Failure::Reset | Failure::Closed) => true,
                Ok(response) => response.status == 502 && matches!(end, Step::Reset),
                Err(_) => false,
            };
            if !fine {
                wrong.push(format!("{answer:?}, {end:?}, to {request:?}: {got:?}"));
            }
        }
        let mut h2 = Raw::connect(gateway.address());
        h2.headers(1, &frames::get(&[]), true);
        let (body, whole) = h2.body(1);
        if whole && !(matches!(end, Step::Reset) && body.starts_with(b"502")) {
            wrong.push(format!(
                "{answer:?}, {end:?} over HTTP/2: {:?}",
                String::from_utf8_lossy(&body)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Over TLS a body that ends with the connection is whole only behind a `close_notify`.
#[test]
fn what_is_cut_ends_without_close_notify() {
    let upstream = Upstream::scripted(|connection| {
        let end = if connection == 0 { "0\r\n\r\n" } else { "" };
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        vec![Step::ReadRequest, Step::send(format!("{chunk}{end}")), Step::Close]
    });
    let (gateway, authority) = over_tls(&upstream);
    let tls = Tls::trusting(authority.pem(), "127.0.0.1");
    let fetch = |request: &str| Client::connect_tls(gateway.address(), tls).request(request);
    let old = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(fetch(old).expect("a whole answer").text(), "abc");
    for request in [old, GET] {
        let cut = fetch(request);
        assert!(matches!(cut, Err(Failure::Cut(_) | Failure::Reset)), "{request:?}: {cut:?}");
    }
}

/// Bytes behind an answer are nobody's: neither of this one nor of the next.
#[test]
fn bytes_behind_an_answer_are_not_the_next_one() {
    let evil = ok("evil");
    let answers = [
        ("GET", format!("{}{evil}", ok("good"))),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n{evil}")),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody{evil}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{evil}")),
    ];
    for (method, answer) in answers {
        let sent = answer.clone();
        let upstream = Upstream::scripted(move |connection| match connection {
            0 => vec![Step::ReadRequest, Step::send(&sent), Step::Hang],
            _ => vec![Step::ReadRequest, Step::send(ok("next")), Step::Repeat],
        });
        let gateway = in_front_of(&upstream);
        let mut client = gateway.connect();
        let first =
            client.request(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n")).expect("an answer");
        assert!(!first.text().contains("evil"), "{answer:?}: {first:?}");
        let next = client.request(GET).expect("an answer");
        assert_eq!((next.status, next.text().as_str()), (200, "next"), "{answer:?}");
    }
}

/// Connection 0 answers once and closes when the first byte of a second request is there.
fn closes_when_taken() -> Upstream {
    Upstream::scripted(|connection| match connection {
        0 => vec![Step::ReadRequest, Step::send(ok("first")), Step::AwaitByte, Step::Close],
        _ => vec![Step::ReadRequest, Step::send(ok("fresh")), Step::Repeat],
    })
}

#[test]
fn an_idle_connection_that_closes_when_taken_costs_an_idempotent_request_nothing() {
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let upstream = closes_when_taken();
        let gateway = in_front_of(&upstream);
        let mut client = gateway.connect();
        assert_eq!(client.request(GET).expect("an answer").text(), "first");
        let second = client.request(format!("{method} /second HTTP/1.1\r\nHost: x\r\n\r\n"));
        let second = second.expect("an answer");
        assert_eq!((second.status, second.text().as_str()), (200, "fresh"), "{method}");
        assert_eq!(upstream.connections(), 2);
        let retries = gateway.metric("cloverleaf_retries_total{upstream=\"up\",reason=\"closed\"}");
        assert_eq!(retries, Some(1.0));
    }
}

#[test]
fn what_is_not_idempotent_or_has_a_body_is_never_sent_twice() {
    for request in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        "PATCH / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let upstream = closes_when_taken();
        let gateway = in_front_of(&upstream);
        assert_eq!(fetch(gateway.address(), GET).text(), "first");
        let second = fetch(gateway.address(), request);
        assert!(second.status == 502 || second.text() == "fresh", "{request:?}: {second:?}");
        // Where the old connection was still taken, nothing may go to a second one.
        let took_old = upstream
            .received(0)
            .windows(6)
            .any(|w| w == b"POST /" || w == b"PATCH " || w == b"PUT / ");
        assert_eq!(upstream.connections(), if took_old { 1 } else { 2 }, "{request:?}");
        assert_eq!(second.status, if took_old { 502 } else { 200 }, "{request:?}");
    }
}

#[test]
fn an_idle_connection_that_has_closed_is_not_used() {
    let gate = Gate::new();
    let closed = gate.clone();
    let upstream = Upstream::scripted(move |connection| match connection {
        0 => vec![
            Step::ReadRequest,
            Step::send(ok("first")),
            Step::Wait(closed.clone()),
            Step::Reset,
        ],
        _ => vec![Step::ReadRequest, Step::send(ok("fresh")), Step::Repeat],
    });
    let gateway = in_front_of(&upstream);
    assert_eq!(fetch(gateway.address(), GET).text(), "first");
    gate.open();
    assert!(wait_until(SOON, || upstream.open_connections() == 0));
    let post =
        fetch(gateway.address(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((post.status, post.text().as_str()), (200, "fresh"));
    let retries = gateway.metric("cloverleaf_retries_total{upstream=\"up\",reason=\"closed\"}");
    assert_eq!(retries.unwrap_or_default(), 0.0);
}

#[test]
fn an_endpoint_that_refuses_is_passed_over_for_any_request() {
    let (gone, upstream) = (Port::reserve(), Upstream::answering(ok("here")));
    let gateway = with("", &[gone.address(), upstream.address()]);
    for round in 0..4 {
        for request in [GET, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"] {
            let response = fetch(gateway.address(), request);
            assert_eq!((response.status, response.text().as_str()), (200, "here"), "round {round}");
        }
    }
    assert_eq!(upstream.requests().len(), 8);
}

#[test]
fn tries_are_bounded() {
    // A refusal costs nothing: it goes beyond the limit, but not for ever, and not where there is to be no retry.
    for (retries, endpoints, tries) in [(0, 4, 1.0), (2, 4, 4.0), (2, 20, 17.0), (10, 4, 4.0)] {
        let gone: Vec<_> = (0..endpoints).map(|_| Port::reserve()).collect();
        let addresses: Vec<_> = gone.iter().map(Port::address).collect();
        let gateway = with(&format!("limits: {{retries: {retries}}}"), &addresses);
        assert_eq!(fetch(gateway.address(), GET).status, 502);
        let name = "cloverleaf_upstream_connections_total{upstream=\"up\",result=\"refused\"}";
        assert_eq!(gateway.metric(name), Some(tries), "retries: {retries}");
    }
    // Who was reached and closes is not asked again.
    let closing = Upstream::start([Step::ReadRequest, Step::Close]);
    let gateway = with("limits: {retries: 10}", &[closing.address(), closing.address()]);
    assert_eq!(fetch(gateway.address(), GET).status, 502);
    assert_eq!(closing.connections(), 1);
}

/// An answer may come before the body is sent, from an upstream that then closes.
#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let answer =
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
    for end in [Step::Close, Step::Hang] {
        let upstream = Upstream::start([Step::ReadHead, Step::send(answer), end.clone()]);
        let gateway = in_front_of(&upstream);
        let mut client = gateway.connect();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc");
        let response = client.read_response().expect("the early answer");
        assert_eq!((response.status, response.text().as_str()), (413, "big"), "{end:?}");
        assert!(client.closes_within(SOON), "the rest of the body is nobody's");
    }
}

#[test]
fn a_slow_answer_takes_no_longer_than_the_timeout_and_a_slow_body_may() {
    let slow = Step::Drip(b"0123456789".to_vec(), Duration::from_millis(100));
    let upstream = Upstream::start([
        Step::ReadRequest,
        Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        slow,
        Step::Repeat,
    ]);
    let gateway = with("timeouts: {response: 500ms}", &[upstream.address()]);
    let response = fetch(gateway.address(), GET);
    assert_eq!((response.status, response.text().as_str()), (200, "0123456789"));

    // A head that drips is not an answer.
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Slow: ..............................".to_vec();
    let upstream =
        Upstream::start([Step::ReadRequest, Step::Drip(head, Duration::from_millis(100))]);
    let gateway = with("timeouts: {response: 500ms}", &[upstream.address()]);
    let begun = Instant::now();
    assert_eq!(fetch(gateway.address(), GET).status, 504);
    assert!(begun.elapsed() >= Duration::from_millis(450));
    let mut client = Client::connect(gateway.address());
    client.send(GET);
    drop(client);
}
