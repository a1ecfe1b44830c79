//! HTTP/1 as it should be: versions, framing, interim answers, trailers, and what a request and an answer
//! become on their way.

use std::time::Duration;

use testkit::client::{Fields, Framing, Tls, fetch};
use testkit::upstream::Gate;
use testkit::{Client, Cloverleaf, Step, Upstream, wait_until};

use super::support::frames::{self, Outcome, Raw};
use super::support::{BINARY, SOON, Tap, in_front_of, message, ok, over_tls, with};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// One request; what reached the upstream.
fn forwarded(tap: &mut Tap<'_>, gateway: &Cloverleaf, request: &str) -> message::Message {
    assert_eq!(fetch(gateway.address(), request).status, 200, "{request:?}");
    let fresh = tap.fresh();
    assert_eq!(fresh.len(), 1, "one connection for {request:?}");
    message::only(&fresh[0])
}

fn pairs(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn versions_decide_who_closes() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let endpoint = upstream.address().to_string();
    // Request, `Connection` of the answer, the host that reaches the upstream.
    for (request, connection, host) in [
        ("GET / HTTP/1.0\r\n\r\n", Some("close"), endpoint.as_str()),
        ("GET / HTTP/1.0\r\nHost: y\r\n\r\n", Some("close"), "y"),
        ("GET / HTTP/1.0\r\nHost: y\r\nConnection: keep-alive\r\n\r\n", Some("keep-alive"), "y"),
        ("GET / HTTP/1.0\r\nHost: y\r\nConnection: keep-alive, close\r\n\r\n", Some("close"), "y"),
        ("GET / HTTP/1.1\r\nHost: y\r\n\r\n", None, "y"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", None, endpoint.as_str()),
        ("GET / HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n", Some("close"), "y"),
        ("GET / HTTP/1.1\r\nHost: y\r\nConnection: CLOSE\r\n\r\n", Some("close"), "y"),
        ("GET / HTTP/1.1\r\nHost: y\r\nConnection: x, close\r\n\r\n", Some("close"), "y"),
        ("GET http://z:81 HTTP/1.1\r\nHost: y\r\n\r\n", None, "z:81"),
        ("GET http://z?q HTTP/1.0\r\n\r\n", Some("close"), "z"),
    ] {
        let mut tap = Tap::new(&upstream);
        tap.fresh();
        let mut client = gateway.connect();
        let response = client.request(request).expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (200, "fine"), "{request:?}");
        assert_eq!(response.version, "HTTP/1.1", "the server's own (RFC 9110 section 2.5)");
        assert_eq!(response.header("connection"), connection, "{request:?}");
        let reached = message::only(&tap.fresh()[0]);
        assert_eq!(reached.one("host"), Some(host), "{request:?}");
        if connection == Some("close") {
            assert!(client.closes_within(SOON), "{request:?}");
        } else {
            assert_eq!(client.request(GET).expect("a second answer").status, 200, "{request:?}");
        }
    }
}

#[test]
fn own_answers() {
    let upstream = Upstream::answering(ok("fine"));
    let yaml = format!(
        "upstreams:\n  - name: up\n    host: 127.0.0.1\n    port: {}\n\
         rules:\n  - upstream: up\n    path: /\n    host: here.test\n",
        upstream.address().port()
    );
    let gateway = Cloverleaf::gateway(BINARY, &yaml);
    for (request, status, text) in [
        ("OPTIONS * HTTP/1.1\r\nHost: here.test\r\n\r\n", 200, ""),
        (
            "CONNECT here.test:443 HTTP/1.1\r\nHost: here.test:443\r\n\r\n",
            404,
            "404: CONNECT is not served here\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n",
            404,
            "No matching rule for host & path\n",
        ),
        // The target's authority decides, not the field.
        (
            "GET http://elsewhere.test/ HTTP/1.1\r\nHost: here.test\r\n\r\n",
            404,
            "No matching rule for host & path\n",
        ),
        ("GET http://here.test/ HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n", 200, "fine"),
        ("GET / HTTP/1.0\r\n\r\n", 404, "No matching rule for host & path\n"),
        ("GET / HTTP/1.1\r\nHost: a:b:c\r\n\r\n", 400, "400: the host is malformed\n"),
        (
            "GET /%zz HTTP/1.1\r\nHost: here.test\r\n\r\n",
            400,
            "400: the path has a malformed percent escape\n",
        ),
        ("POST /.nanoproxy/health HTTP/1.1\r\nHost: y\r\nContent-Length: 0\r\n\r\n", 200, "OK"),
    ] {
        let response = fetch(gateway.address(), request);
        assert_eq!((response.status, response.text().as_str()), (status, text), "{request:?}");
        assert!(response.header("date").is_some() && response.header("server").is_none());
    }
    let head = fetch(gateway.address(), "HEAD / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n");
    assert_eq!((head.status, head.header("content-length")), (404, Some("33")));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::scripted(|_| {
        let mut steps = Vec::new();
        for number in 0..8 {
            steps.extend([Step::ReadRequest, Step::send(ok(&format!("answer {number}")))]);
        }
        steps
    });
    let gateway = in_front_of(&upstream);
    let mut client = gateway.connect();
    let all = [
        "GET /0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        "\r\nPUT /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n",
        "DELETE /3 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /5 HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    client.send(all.concat());
    for expected in ["answer 0", "answer 1", "answer 2", "OK", "answer 3", "answer 4"] {
        assert_eq!(client.read_response().expect("an answer").text(), expected);
    }
    assert!(client.closes_within(SOON));
    let reached = upstream.requests();
    let lines: Vec<_> = reached.iter().filter_map(|request| request.lines().next()).collect();
    let expected =
        ["GET /0", "POST /1", "PUT /2", "DELETE /3", "GET /4"].map(|l| format!("{l} HTTP/1.1"));
    assert_eq!(lines, expected);

    // The same in single bytes.
    let mut client = gateway.connect();
    for byte in all[..3].concat().as_bytes() {
        client.send([*byte]);
    }
    for _ in 0..3 {
        assert_eq!(client.read_response().expect("an answer").status, 200);
    }
}

/// Method and version of a request, the upstream's answer, and what the client sees.
#[rustfmt::skip]
const FRAMINGS: &[(&str, &str, &str, u16, Framing, &str)] = &[
    ("GET", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, Framing::Length, "abc"),
    ("GET", "1.0", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, Framing::Length, "abc"),
    ("GET", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, Framing::Length, ""),
    ("GET", "1.1", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, Framing::Length, "abc"),
    ("GET", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
     200, Framing::Length, "abc"),
    ("GET", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
     200, Framing::Chunked, "abc"),
    ("GET", "1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
     200, Framing::Close, "abc"),
    ("GET", "1.1", "HTTP/1.1 200 OK\r\n\r\nabc", 200, Framing::Chunked, "abc"),
    ("GET", "1.0", "HTTP/1.1 200 OK\r\n\r\nabc", 200, Framing::Close, "abc"),
    ("GET", "1.1", "HTTP/1.0 200 OK\r\n\r\n", 200, Framing::Chunked, ""),
    ("GET", "1.1", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", 200, Framing::Length, "abc"),
    ("GET", "1.1", "\r\nHTTP/1.1 299 Own Words\r\nContent-Length: 3\r\n\r\nabc", 299, Framing::Length, "abc"),
    ("GET", "1.1", "HTTP/1.1 204 No Content\r\n\r\n", 204, Framing::None, ""),
    ("GET", "1.1", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", 204, Framing::None, ""),
    ("GET", "1.1", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204, Framing::None, ""),
    ("GET", "1.1", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, Framing::None, ""),
    ("GET", "1.1", "HTTP/1.1 304 Not Modified\r\n\r\n", 304, Framing::None, ""),
    ("HEAD", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, Framing::None, ""),
    ("HEAD", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, Framing::None, ""),
    ("HEAD", "1.1", "HTTP/1.1 200 OK\r\n\r\n", 200, Framing::None, ""),
    ("HEAD", "1.0", "HTTP/1.1 404 Gone Fishing\r\nContent-Length: 9\r\n\r\n", 404, Framing::None, ""),
];

#[test]
fn answers_end_as_their_client_can_tell() {
    let upstream = Upstream::scripted(|connection| {
        let answer = FRAMINGS.get(connection).map_or("", |case| case.2);
        vec![Step::ReadRequest, Step::send(answer), Step::Close]
    });
    let gateway = in_front_of(&upstream);
    for (number, (method, version, answer, status, framing, body)) in FRAMINGS.iter().enumerate() {
        let mut client = gateway.connect();
        let request = format!("{method} / HTTP/{version}\r\nHost: x\r\n\r\n");
        let response = client.request(request).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
        assert_eq!((response.status, response.text().as_str()), (*status, *body), "{answer:?}");
        assert_eq!(response.framing, *framing, "{answer:?}");
        let lengths = response.headers_named("content-length").count();
        let coded = response.headers_named("transfer-encoding").count();
        assert!(lengths + coded <= 1, "{answer:?}: {response:?}");
        if *status == 204 {
            assert_eq!(lengths + coded, 0, "{answer:?}");
        }
        if *version == "1.0" {
            assert!(coded == 0 && client.closes_within(SOON), "{answer:?}");
        } else {
            // Still in step: the gateway's own answer comes next.
            let health = "GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n";
            assert_eq!(client.request(health).expect("in step").text(), "OK", "{answer:?}");
        }
        // Whatever the upstream does, the next request needs a connection of its own.
        assert!(wait_until(SOON, || upstream.open_connections() <= 1), "{number}");
    }
    // A reason is passed on, where there is one.
    let upstream = Upstream::answering("HTTP/1.1 299 Own Words\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(fetch(in_front_of(&upstream).address(), GET).reason, "Own Words");
}

#[test]
fn chunks_and_trailers_go_through_both_ways() {
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n0\r\nX-Sum: 7\r\nx-sum: 8\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n";
    let upstream = Upstream::answering(answer);
    let gateway = in_front_of(&upstream);
    let request = "POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: X-End\r\n\
                   Transfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n6;e=1\r\n world\r\n0\r\nX-End: yes\r\nHost: y\r\nContent-Length: 3\r\n\r\n";
    let response = fetch(gateway.address(), request);
    assert_eq!((response.text().as_str(), response.header("trailer")), ("abc", Some("X-Sum")));
    assert_eq!(pairs(&response.trailers), [("X-Sum", "7"), ("x-sum", "8")]);
    let reached = message::only(&upstream.received(0));
    assert_eq!(reached.text(), "hello world");
    assert_eq!((reached.one("te"), reached.one("trailer")), (Some("trailers"), Some("X-End")));
    assert_eq!(pairs(&reached.trailers), [("X-End", "yes")]);
    assert_eq!(reached.one("transfer-encoding"), Some("chunked"));
}

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn expect_continue_waits_for_the_upstream() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::start([
        Step::ReadHead,
        Step::Wait(opened),
        Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::Read(5),
        Step::send(ok("thanks")),
    ]);
    let gateway = in_front_of(&upstream);
    let mut client = gateway.connect();
    client.send(EXPECTING);
    assert!(client.stays_silent_for(Duration::from_millis(100)), "nobody has asked for the body");
    gate.open();
    assert_eq!(client.read_some().expect("100"), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    let response = client.read_response().expect("an answer");
    assert_eq!((response.text().as_str(), response.interim.len()), ("thanks", 0), "100 comes once");
    let reached = message::only(&upstream.received(0));
    assert_eq!((reached.text().as_str(), reached.one("expect")), ("hello", Some("100-continue")));
}

#[test]
fn expect_continue_may_be_refused_or_ignored() {
    for status in ["413 Content Too Large", "401 Unauthorized", "417 Expectation Failed"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
        let upstream = Upstream::start([Step::ReadHead, Step::send(answer), Step::Hang]);
        let gateway = in_front_of(&upstream);
        let mut client = gateway.connect();
        let response = client.request(EXPECTING).expect("an answer");
        assert_eq!((response.text().as_str(), response.interim.len()), ("no", 0), "{status}");
        // Nobody knows whether the body still comes: what follows is not taken for a request.
        let _ = client.try_send("hello");
        assert!(client.closes_within(SOON), "{status}");
        let received = String::from_utf8(upstream.received(0)).expect("text");
        assert!(!received.contains("hello"), "{received:?}");
    }
    // An upstream that says nothing gets the body when the client stops waiting.
    let upstream = Upstream::answering(ok("late"));
    let gateway = in_front_of(&upstream);
    let mut client = gateway.connect();
    client.send(EXPECTING);
    assert!(client.stays_silent_for(Duration::from_millis(50)));
    assert_eq!(client.request("hello").expect("an answer").text(), "late");
    // HTTP/1.0 has no expectations, and who does not wait is not told to go on.
    for plain in [
        "POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let upstream = Upstream::answering(format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("fine")));
        let response = fetch(in_front_of(&upstream).address(), plain);
        assert_eq!((response.status, response.interim.len()), (200, 0), "{plain:?}");
    }
}

#[test]
fn early_hints_reach_who_can_read_them() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nKeep-Alive: x\r\nConnection: X-Hop\r\n\
                 X-Hop: 1\r\n\r\n\
                 HTTP/1.1 102 Processing\r\n\r\n";
    let upstream = Upstream::answering(format!("{hints}{}", ok("fine")));
    let gateway = in_front_of(&upstream);
    let new = fetch(gateway.address(), GET);
    let seen: Vec<_> = new.interim.iter().map(|i| (i.status, pairs(&i.headers))).collect();
    assert_eq!(seen, [(103, vec![("Link", "</a.css>")]), (102, vec![])]);
    assert_eq!(new.text(), "fine");
    let old = fetch(gateway.address(), "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((old.text().as_str(), old.interim.len()), ("fine", 0));
}

#[test]
fn what_belongs_to_a_hop_stays_there() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Drop, x-also\r\nKeep-Alive: timeout=9\r\n\
                  X-Drop: 1\r\nX-Also: 1\r\n\
                  Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTE: x\r\n\
                  X-Stay: 1\r\n\
                  Content-Length: 0\r\n\r\n";
    let upstream = Upstream::answering(answer);
    let gateway = in_front_of(&upstream);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: X-Drop, keep-alive, x-forwarded-for, te\r\n\
                   X-Drop: 1\r\n\
                   Connection: x-Also\r\nX-Also: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: secret\r\n\
                   Proxy-Connection: keep-alive\r\nTE: gzip, trailers;q=0.5, trailers\r\nUpgrade: x\r\n\
                   X-Stay: 1\r\n\r\n";
    let response = fetch(gateway.address(), request);
    let names: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["X-Stay", "Content-Length", "Date", "X-Proxy", "X-Proxy-Instance"];
    assert_eq!(names, expected);
    let reached = message::only(&upstream.received(0));
    let names: Vec<_> = reached.fields.iter().map(|(name, _)| name.as_str()).collect();
    let forwarding =
        ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "traceparent"];
    assert_eq!(names, [&["Host", "X-Stay", "Connection", "TE"][..], &forwarding].concat());
    // RFC 9110 section 10.1.4: what TE says is for the next hop, and Connection says that.
    assert_eq!((reached.one("connection"), reached.one("te")), (Some("TE"), Some("trailers")));
}

const SPOOFED: &str = "GET / HTTP/1.1\r\nHost: shop.test:8080\r\nX-Forwarded-For: 1.1.1.1\r\n\
                       X-Forwarded-Host: evil\r\n\
     X-Forwarded-Proto: https\r\nForwarded: for=1.1.1.1;proto=https\r\nX-Real-IP: 1.1.1.1\r\n\
     X-Forwarded-For: 2.2.2.2\r\nforwarded: for=2.2.2.2\r\n\r\n";

#[test]
fn forwarding_fields_are_set_anew_unless_the_sender_is_trusted() {
    let upstream = Upstream::answering(ok("fine"));
    let mut tap = Tap::new(&upstream);
    for (keys, for_, host, proto, forwarded) in [
        (
            "",
            "127.0.0.1",
            "shop.test:8080",
            "http",
            "for=127.0.0.1;host=\"shop.test:8080\";proto=http",
        ),
        (
            "trustedHops: [10.0.0.0/8]",
            "127.0.0.1",
            "shop.test:8080",
            "http",
            "for=127.0.0.1;host=\"shop.test:8080\";proto=http",
        ),
        (
            "trustedHops: [127.0.0.0/8]",
            "1.1.1.1, 2.2.2.2, 127.0.0.1",
            "evil",
            "https",
            "for=1.1.1.1;proto=https, for=2.2.2.2, for=127.0.0.1;host=\"shop.test:8080\";proto=http",
        ),
    ] {
        let gateway = with(keys, &[upstream.address()]);
        let reached = forwarded_by(&mut tap, &gateway, SPOOFED);
        assert_eq!(reached.all("x-forwarded-for"), [for_], "{keys}");
        assert_eq!(reached.all("x-forwarded-host"), [host], "{keys}");
        assert_eq!(reached.all("x-forwarded-proto"), [proto], "{keys}");
        assert_eq!(reached.all("forwarded"), [forwarded], "{keys}");
        assert_eq!(reached.all("x-real-ip"), ["1.1.1.1"], "{keys}");
        assert_eq!(reached.all("host"), ["shop.test:8080"], "{keys}");
    }
}

fn forwarded_by(tap: &mut Tap<'_>, gateway: &Cloverleaf, request: &str) -> message::Message {
    forwarded(tap, gateway, request)
}

#[test]
fn order_case_and_repetition_are_kept_to_the_byte() {
    let answer = "HTTP/1.1 200 Fine\r\nset-cookie: a=1\r\nX-UPPER: 1\r\nSet-Cookie: b=2\r\n\
                  Date: then\r\nserver: other\r\n\
                  x-empty:\r\nX-Proxy: me\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::answering(answer);
    let gateway = in_front_of(&upstream);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = format!(
        "get /a%2Fb?c=%zz;d HTTP/1.1\r\nx-B: 2\r\nhost: Shop.Test\r\nX-a:   1  \r\nx-b: \r\nX-Long: {}\r\n\
         traceparent: {trace}\r\ntracestate: a=b\r\nX-Obs: \u{e9}\r\n\r\n",
        "l".repeat(9000)
    );
    let mut client = gateway.connect();
    client.send(request);
    let response = client.read_response().expect("an answer");
    let (own, theirs): (Vec<_>, Vec<_>) =
        pairs(&response.headers).into_iter().partition(|(name, _)| name.starts_with("X-Proxy"));
    let expected = [
        ("set-cookie", "a=1"),
        ("X-UPPER", "1"),
        ("Set-Cookie", "b=2"),
        ("Date", "then"),
        ("server", "other"),
        ("x-empty", ""),
        ("Content-Length", "0"),
    ];
    assert_eq!(theirs, expected);
    assert_eq!(own.len(), 2);
    let expected = format!(
        "get /a%2Fb?c=%zz;d HTTP/1.1\r\nHost: Shop.Test\r\nx-B: 2\r\nX-a: 1\r\nx-b: \r\nX-Long: {}\r\n\
         traceparent: {trace}\r\ntracestate: a=b\r\nX-Obs: \u{e9}\r\nX-Forwarded-For: 127.0.0.1\r\n\
         X-Forwarded-Host: Shop.Test\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=127.0.0.1;host=Shop.Test;proto=http\r\n\r\n",
        "l".repeat(9000)
    );
    assert_eq!(String::from_utf8(upstream.received(0)).expect("UTF-8"), expected);
}

#[test]
fn traces_are_begun_where_there_is_none() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let mut tap = Tap::new(&upstream);
    let mut seen = std::collections::HashSet::new();
    for sent in ["", "traceparent: x\r\n", "traceparent: 00-0000-0000-00\r\n"] {
        let reached =
            forwarded(&mut tap, &gateway, &format!("GET / HTTP/1.1\r\nHost: x\r\n{sent}\r\n"));
        let trace = reached.one("traceparent").expect("one traceparent").to_owned();
        let parts: Vec<_> = trace.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{trace}");
        assert!(trace.starts_with("00-") && seen.insert(trace));
    }
}

#[test]
fn endpoints_take_turns_by_weight() {
    let (a, b) = (Upstream::answering(ok("A")), Upstream::answering(ok("B")));
    let yaml = format!(
        "workers: 1\nupstreams:\n  - name: up\n    endpoints:\n      - {{address: {}, weight: 3}}\n      \
         - {{address: {}, weight: 1}}\nrules:\n  - {{upstream: up, path: /}}\n",
        a.address(),
        b.address()
    );
    let gateway = Cloverleaf::gateway(BINARY, &yaml);
    let mut client = gateway.connect();
    let seen: String = (0..12).map(|_| client.request(GET).expect("an answer").text()).collect();
    assert_eq!(seen, "AABAAABAAABA");
}

#[test]
fn the_less_busy_endpoint_gets_the_request() {
    let busy = Upstream::start([Step::ReadRequest, Step::Hang]);
    let free = Upstream::answering(ok("free"));
    let yaml = format!(
        "workers: 1\n\
         upstreams:\n  - name: up\n    balance: leastRequests\n    endpoints:\n      - address: {}\n      \
         - address: {}\nrules:\n  - {{upstream: up, path: /}}\n",
        busy.address(),
        free.address()
    );
    let gateway = Cloverleaf::gateway(BINARY, &yaml);
    // As soon as one request hangs, all others go to the other endpoint. One after the other: a tie is drawn.
    let mut waiting: Vec<Client> = Vec::new();
    for answered in 0.. {
        let mut client = gateway.connect();
        client.send(GET);
        let reached = || busy.requests().len() == 1 || free.requests().len() > answered;
        assert!(wait_until(SOON, reached) && answered < 100);
        if busy.requests().len() == 1 {
            waiting.push(client);
            break;
        }
        assert_eq!(client.read_response().expect("an answer").text(), "free");
    }
    for _ in 0..20 {
        assert_eq!(fetch(gateway.address(), GET).text(), "free");
    }
    assert_eq!(busy.requests().len(), 1);
}

#[test]
fn upstream_connections_are_used_again() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    for _ in 0..10 {
        assert_eq!(
            fetch(gateway.address(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .status,
            200
        );
        let upload =
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(fetch(gateway.address(), upload).status, 200);
    }
    assert_eq!((upstream.connections(), upstream.requests().len()), (1, 20));
    for close in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let upstream = Upstream::answering(close);
        let gateway = in_front_of(&upstream);
        let mut client = gateway.connect();
        for _ in 0..3 {
            let response = client.request(GET).expect("the client's connection is another matter");
            assert_eq!((response.status, response.header("connection")), (200, None), "{close:?}");
        }
        assert_eq!(upstream.connections(), 3, "{close:?}");
    }
}

#[test]
fn heads_have_a_size() {
    const LIMIT: usize = 4096;
    let upstream = Upstream::answering(ok("fine"));
    let gateway = with("limits: {headBytes: 4096, headFields: 20}", &[upstream.address()]);
    let empty = "GET / HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n".len();
    for (bytes, status) in [(LIMIT, 200), (LIMIT + 1, 431), (LIMIT * 10, 431)] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "v".repeat(bytes - empty));
        let mut client = gateway.connect();
        assert_eq!(client.request(request).expect("an answer").status, status, "{bytes} bytes");
        assert_eq!(
            client.closes_within(Duration::from_millis(if status == 431 { 15_000 } else { 100 })),
            status == 431
        );
    }
    for (fields, status) in [(20, 200), (21, 431), (100, 431)] {
        let more: String = (1..fields).map(|n| format!("X-{n}: v\r\n")).collect();
        let response = fetch(gateway.address(), format!("GET / HTTP/1.1\r\nHost: x\r\n{more}\r\n"));
        assert_eq!(response.status, status, "{fields} fields");
    }
    let target = "t".repeat(LIMIT);
    assert_eq!(
        fetch(gateway.address(), format!("GET /{target} HTTP/1.1\r\nHost: x\r\n\r\n")).status,
        431
    );
    let name = "cloverleaf_refused_requests_total{listener=\"default\",reason=\"head_too_large\"}";
    assert_eq!(gateway.metric(name), Some(5.0));
}

/// An answer that leaves a body unread is the last on its connection, and says so (RFC 9112 section 9.6).
#[test]
fn a_body_that_nobody_wants_ends_the_connection() {
    let upstream = Upstream::answering(ok("fine"));
    let paths =
        "  - {upstream: nobody, path: /nobody}\n  - {upstream: up, path: /, host: here.test}\n";
    let yaml = format!(
        "upstreams:\n  - name: up\n    host: 127.0.0.1\n    port: {}\nrules:\n{paths}",
        upstream.address().port()
    );
    let gateway = Cloverleaf::gateway(BINARY, &yaml);
    for (path, status) in [("/elsewhere", 404), ("/nobody", 503), ("/.nanoproxy/health", 200)] {
        let mut client = gateway.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc");
        let response = client.request(head).expect("an answer");
        assert_eq!(
            (response.status, response.header("connection")),
            (status, Some("close")),
            "{path}"
        );
        assert!(client.closes_within(SOON), "{path}");
    }
}

#[test]
fn a_trace_has_one_parent() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = in_front_of(&upstream);
    let mut tap = Tap::new(&upstream);
    let good = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    for sent in [
        format!("{good}{good}tracestate: a=b\r\n"),
        "traceparent: x\r\ntracestate: a=b\r\n".to_owned(),
        "tracestate: a=b\r\n".to_owned(),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{sent}\r\n");
        let reached = forwarded(&mut tap, &gateway, &request);
        assert_eq!(reached.all("traceparent").len(), 1, "{sent:?}");
        // A state belongs to the trace that it came with (W3C Trace Context section 3.3).
        assert_eq!(reached.all("tracestate").len(), 0, "{sent:?}");
    }
}

#[test]
fn connections_carry_a_number_of_requests() {
    let upstream = Upstream::answering(ok("fine"));
    let gateway = with("limits: {requestsPerConnection: 3}", &[upstream.address()]);
    let mut client = gateway.connect();
    for connection in [None, None, Some("close")] {
        let response = client.request(GET).expect("an answer");
        assert_eq!(response.header("connection"), connection);
    }
    assert!(client.closes_within(SOON));
    // Over HTTP/2 GOAWAY says the same, and what is under way is still answered.
    let mut client = Raw::connect(gateway.address());
    for stream in [1, 3, 5] {
        client.headers(stream, &frames::get(&[]), true);
        assert_eq!(client.outcome(stream), Outcome::Status(200));
    }
    assert_eq!(client.goodbye(), Some(0));
}

#[test]
fn idle_upstream_connections_are_kept_as_configured() {
    let upstream = Upstream::answering(ok("fine"));
    let yaml = |more: &str| {
        format!(
            "workers: 1\nupstreams:\n  - {{name: up, host: 127.0.0.1, port: {}, {more}}}\n\
             rules:\n  - {{upstream: up, path: /}}\n",
            upstream.address().port()
        )
    };
    let gateway = Cloverleaf::gateway(BINARY, &yaml("idleConnections: 0"));
    for _ in 0..3 {
        assert_eq!(fetch(gateway.address(), GET).status, 200);
    }
    assert_eq!(upstream.connections(), 3);
    assert!(wait_until(SOON, || upstream.open_connections() == 0));
    let gateway = Cloverleaf::gateway(BINARY, &yaml("idleTimeout: 300ms"));
    assert_eq!(fetch(gateway.address(), GET).status, 200);
    assert!(wait_until(SOON, || upstream.open_connections() == 0), "kept for ever");
}

/// Nobody waits for the answer any more: the upstream is told by the end of its connection.
#[test]
fn a_client_that_goes_away_ends_its_request() {
    let upstream = Upstream::start([
        Step::ReadRequest,
        Step::send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"),
        Step::Hang,
    ]);
    let silent = Upstream::start([Step::ReadRequest, Step::Hang]);
    let stays = "abortOnClose: false";
    let ways: [fn(Client); 2] = [Client::reset, drop];
    for (keys, ways) in [("", &ways[..]), (stays, &ways[..1])] {
        for upstream in [&upstream, &silent] {
            let gateway = with(keys, &[upstream.address()]);
            for go in ways {
                let before = upstream.requests().len();
                let mut client = gateway.connect();
                client.send(GET);
                assert!(wait_until(SOON, || upstream.requests().len() > before));
                go(client);
                assert!(wait_until(Duration::from_secs(5), || upstream.open_connections() == 0));
            }
            if upstream.address() == silent.address() {
                let labels = "listener=\"default\",rule=\"rules[0]\",upstream=\"up\",class=\"4xx\"";
                let name = format!("cloverleaf_requests_total{{{labels}}}");
                let counted = || gateway.metric(&name) == Some(ways.len() as f64);
                assert!(wait_until(SOON, counted), "recorded as 499");
            }
        }
    }
    // Over TLS the end is a message, which has to be read to be known.
    let (gateway, authority) = over_tls(&silent);
    let tls = Tls::trusting(authority.pem(), "127.0.0.1");
    let before = silent.requests().len();
    let mut client = Client::connect_tls(gateway.address(), tls);
    client.send(GET);
    assert!(wait_until(SOON, || silent.requests().len() > before));
    drop(client);
    assert!(wait_until(Duration::from_secs(5), || silent.open_connections() == 0));
}

/// With `abortOnClose: false` one that has only said that it will send nothing more gets its answer.
#[test]
fn a_client_that_only_closes_its_side_may_get_its_answer() {
    let gate = Gate::new();
    let steps = [Step::ReadRequest, Step::Wait(gate.clone()), Step::send(ok("late"))];
    let upstream = Upstream::start(steps);
    let gateway = with("abortOnClose: false", &[upstream.address()]);
    let mut client = gateway.connect();
    client.send(GET);
    client.finish();
    assert!(wait_until(SOON, || upstream.requests().len() == 1));
    gate.open();
    assert_eq!(client.read_response().expect("an answer").text(), "late");
}

/// Requests that come while another is answered are read early over TLS, and not lost.
#[test]
fn what_is_pipelined_meanwhile_is_answered() {
    const PIPELINED: usize = 300;
    for encrypted in [true, false] {
        let gate = Gate::new();
        let waiting = gate.clone();
        let upstream = Upstream::scripted(move |connection| {
            let first = [Step::ReadRequest, Step::Wait(waiting.clone()), Step::send(ok("first"))];
            let rest = [Step::ReadRequest, Step::send(ok("rest")), Step::Repeat];
            if connection == 0 { first.to_vec() } else { rest.to_vec() }
        });
        let (gateway, authority) = over_tls(&upstream);
        let plain = in_front_of(&upstream);
        let tls = Tls::trusting(authority.pem(), "127.0.0.1");
        let client = match encrypted {
            true => Client::connect_tls(gateway.address(), tls),
            false => plain.connect(),
        };
        let mut client = client.timeout(SOON);
        client.send(GET);
        assert!(wait_until(SOON, || upstream.requests().len() == 1));
        let filler = "x".repeat(100);
        for number in 0..PIPELINED {
            client.send(format!("GET /{number} HTTP/1.1\r\nHost: x\r\nX: {filler}\r\n\r\n"));
        }
        gate.open();
        for number in 0..=PIPELINED {
            let answer = client.read_response().unwrap_or_else(|e| panic!("{number}: {e}"));
            assert_eq!(answer.text(), if number == 0 { "first" } else { "rest" });
        }
        let requests = upstream.requests();
        assert_eq!(requests.len(), PIPELINED + 1);
        for (number, request) in requests.iter().skip(1).enumerate() {
            assert!(request.starts_with(&format!("GET /{number} ")), "{number}: {request}");
        }
    }
}
