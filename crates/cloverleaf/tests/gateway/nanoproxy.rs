//! What NanoProxy did with requests, row by row, and where this gateway does otherwise on purpose
//! (`docs/nanoproxy.md` gives the reasons).

use std::time::{Duration, Instant};

use testkit::client::{Framing, fetch, get};
use testkit::upstream::Gate;
use testkit::{Client, Cloverleaf, ConfigBy, Gateway, Port, Step, Upstream, command};

use crate::running::{PROGRAM, answer, everything_to, named, upstream_named};

/// What becomes of a request.
enum Then {
    /// An upstream, `a` or `b`, gets this request line (without the version).
    Goes(char, &'static str),
    /// The gateway answers itself: a status and a part of the body.
    Says(u16, &'static str),
    /// 307 to there.
    Redirects(&'static str),
}
use Then::{Goes, Redirects, Says};

/// Two upstreams and every kind of rule that NanoProxy has.
fn rules(a: &Upstream, b: &Upstream) -> String {
    let (a, b) = (a.address().port(), b.address().port());
    format!(
        r#"
server: {{timeout: 5}}
upstreams:
  - {{name: twice, host: 127.0.0.1, port: {b}}}
  - {{name: a, host: 127.0.0.1, port: {a}}}
  - {{name: b, host: 127.0.0.1, port: {b}, scheme: http}}
  - {{name: own-host, host: 127.0.0.1, port: {a}, noHostRewrite: true}}
  - {{name: twice, host: 127.0.0.1, port: {a}}}
rules:
  - {{upstream: a, path: /plain}}
  - {{upstream: a, path: /v1, host: api.test}}
  - {{upstream: a, path: /v2, host: API2.Test}}
  - {{upstream: a, path: /, host: "*.wild.test"}}
  - {{upstream: a, path: /, host: "port.test:8080"}}
  - {{upstream: a, path: /v6, host: "2001:db8::7"}}
  - {{upstream: a, path: /strip, stripPath: true}}
  - {{upstream: a, path: /s2/, stripPath: true}}
  - {{upstream: a, path: /exact, matchMode: exact}}
  - {{upstream: a, path: /es, matchMode: exact, stripPath: true}}
  - {{upstream: a, path: /slash/, matchMode: prefix}}
  - {{upstream: a, path: /first}}
  - {{upstream: b, path: /first/longer}}
  - {{upstream: a, path: /Case}}
  - {{upstream: nobody, path: /gone}}
  - {{upstream: nobody, path: /later}}
  - {{upstream: b, path: /later/on}}
  - {{upstream: own-host, path: /own}}
  - {{upstream: a, path: /mode, matchMode: regex}}
  - {{upstream: twice, path: /twice}}
  - {{upstream: a, path: "", host: blank.test}}
  - {{upstream: a, host: absent.test}}
"#
    )
}

/// Observation, host, method and target, outcome. Those that begin with `!` are deliberate departures.
#[rustfmt::skip]
const REQUESTS: &[(&str, &str, &str, Then)] = &[
    ("P01", "x.test", "GET /plain", Goes('a', "GET /plain")),
    ("P02", "x.test", "GET /plainfoo/bar", Goes('a', "GET /plainfoo/bar")),
    ("P03", "x.test", "GET /plain/x?a=1&b=2", Goes('a', "GET /plain/x?a=1&b=2")),
    ("!P04", "x.test", "GET /plain?a=1;b=2&c=%zz&d=3", Goes('a', "GET /plain?a=1;b=2&c=%zz&d=3")),
    ("P05", "x.test", "GET /nope", Says(404, "No matching rule for host & path")),
    ("P06", "x.test", "GET /", Says(404, "No matching rule for host & path")),
    ("P07", "x.test", "GET /.nanoproxy/health", Says(200, "OK")),
    ("P08", "other", "POST /.nanoproxy/health", Says(200, "OK")),
    ("P10", "x.test", "GET /.nanoproxy/config", Says(404, "No matching rule")),
    ("P11", "api.test", "GET /v1/a", Goes('a', "GET /v1/a")),
    ("P12", "api.test:8080", "GET /v1/a", Goes('a', "GET /v1/a")),
    ("P13", "other.test", "GET /v1/a", Says(404, "")),
    ("!P14", "API.test", "GET /v1/a", Goes('a', "GET /v1/a")),
    ("!P15", "api2.test", "GET /v2/a", Goes('a', "GET /v2/a")),
    ("!P17", "x.wild.test", "GET /w", Goes('a', "GET /w")),
    ("P18", "wild.test", "GET /w", Says(404, "")),
    ("P19", "port.test:8080", "GET /w", Says(404, "")),
    ("P19", "port.test", "GET /w", Says(404, "")),
    ("!P21", "[2001:db8::7]:8080", "GET /v6", Goes('a', "GET /v6")),
    ("!P20", "api.test.", "GET /v1/a", Goes('a', "GET /v1/a")),
    ("P22", "blank.test", "GET /anything/at/all", Goes('a', "GET /anything/at/all")),
    ("P23", "absent.test", "DELETE /anything", Goes('a', "DELETE /anything")),
    ("P24", "x.test", "GET /strip", Goes('a', "GET /")),
    ("P25", "x.test", "GET /strip/", Goes('a', "GET /")),
    ("P26", "x.test", "GET /strip/a/b?q=1", Goes('a', "GET /a/b?q=1")),
    ("P27", "x.test", "GET /stripfoo", Goes('a', "GET /foo")),
    ("P28", "x.test", "GET /strip/strip/x", Goes('a', "GET /strip/x")),
    ("P29", "x.test", "GET /s2/a", Goes('a', "GET /a")),
    ("P30", "x.test", "GET /s2", Says(404, "")),
    ("!P31", "x.test", "GET /strip/a%2Fb%20c", Goes('a', "GET /a%2Fb%20c")),
    ("P32", "x.test", "GET /plain/a%2Fb%20c", Goes('a', "GET /plain/a%2Fb%20c")),
    ("P33", "x.test", "GET /pl%61in/x", Goes('a', "GET /pl%61in/x")),
    ("!P34", "x.test", "GET /str%69p/x%2Fy", Goes('a', "GET /x%2Fy")),
    ("P35", "x.test", "GET /exact", Goes('a', "GET /exact")),
    ("P36", "x.test", "GET /exact/", Says(404, "")),
    ("P37", "x.test", "GET /exact?x=1", Goes('a', "GET /exact?x=1")),
    ("P38", "x.test", "GET /es", Goes('a', "GET /")),
    ("P39", "x.test", "GET /slash", Says(404, "")),
    ("P40", "x.test", "GET /slash/", Goes('a', "GET /slash/")),
    ("P41", "x.test", "GET /first/longer/x", Goes('a', "GET /first/longer/x")),
    ("P42", "x.test", "GET /case", Says(404, "")),
    ("P42", "x.test", "GET /Case", Goes('a', "GET /Case")),
    ("P43", "x.test", "GET /mode", Says(404, "")),
    ("!P45", "x.test", "GET /gone", Says(503, "upstream that does not exist")),
    ("P46", "x.test", "GET /later/on", Goes('b', "GET /later/on")),
    ("P47", "x.test", "GET /plain//x?q=1", Redirects("/plain/x?q=1")),
    ("P48", "x.test", "POST /plain//x", Redirects("/plain/x")),
    ("P49", "x.test", "GET /plain/a/../b?q=%2F", Redirects("/plain/b?q=%2F")),
    ("P50", "x.test", "GET /plain/%2e%2e/b", Goes('a', "GET /plain/%2e%2e/b")),
    ("P51", "x.test", "GET /own", Goes('a', "GET /own")),
    ("P62", "x.test", "OPTIONS *", Says(200, "")),
    ("P63", "x.test:443", "CONNECT x.test:443", Says(404, "CONNECT")),
    ("P67", "other.test", "GET http://api.test/v1/q", Goes('a', "GET /v1/q")),
    ("R23", "x.test", "GET /twice", Goes('a', "GET /twice")),
];

#[test]
fn requests_go_where_nanoproxy_sent_them() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Cloverleaf::gateway(PROGRAM, &rules(&a, &b));
    for (row, (id, host, line, then)) in REQUESTS.iter().enumerate() {
        let mark = format!("X-Row: {row}\r\n");
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{mark}Connection: close\r\n\r\n");
        let answer = match gateway.connect().request(&request) {
            Ok(answer) => answer,
            Err(failure) => panic!("{id} {host} {line}: {failure}"),
        };
        let arrived: Vec<String> =
            [&a, &b].into_iter().filter_map(|u| request_with(u, &mark)).collect();
        match then {
            Goes(upstream, expected) => {
                assert_eq!(answer.status, 200, "{id} {host} {line}: {}", answer.text());
                assert_eq!(answer.text(), upstream.to_string(), "{id} {host} {line}");
                let [got] = arrived.as_slice() else { panic!("{id}: {arrived:?}") };
                assert!(got.starts_with(&format!("{expected} HTTP/1.1\r\n")), "{id} {line}: {got}");
            }
            Says(status, part) => {
                assert_eq!(answer.status, *status, "{id} {host} {line}: {}", answer.text());
                assert!(answer.text().contains(part), "{id} {line}: {}", answer.text());
                assert!(arrived.is_empty(), "{id} {line}: {arrived:?}");
            }
            Redirects(to) => {
                assert_eq!(
                    (answer.status, answer.header("location")),
                    (307, Some(*to)),
                    "{id} {line}"
                );
                assert!(arrived.is_empty(), "{id} {line}: {arrived:?}");
            }
        }
    }
    // What is a warning there does not keep the gateway from starting here.
    for warned in ["nobody", "regex", "port.test:8080", "server"] {
        assert!(gateway.stderr().contains(warned), "no warning about {warned}");
    }
}

/// The request with this mark in it, if it reached an upstream.
fn request_with(upstream: &Upstream, mark: &str) -> Option<String> {
    upstream.requests().into_iter().find(|request| request.contains(mark))
}

/// The fields of a request that reached an upstream, named in lower case.
fn fields(request: &str) -> Vec<(String, String)> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    head.lines().skip(1).filter_map(field).collect()
}

/// The values of one field.
fn values<'f>(fields: &'f [(String, String)], name: &str) -> Vec<&'f str> {
    fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
}

/// Sends a request through a gateway and gives what of it reached the upstream: its fields, and all of it.
struct Through {
    upstream: Upstream,
    gateway: Cloverleaf,
    sent: u32,
}

impl Through {
    fn new() -> Self {
        let (upstream, other) = (named("a"), named("b"));
        let gateway = Cloverleaf::gateway(PROGRAM, &rules(&upstream, &other));
        Self { upstream, gateway, sent: 0 }
    }

    fn reached(&mut self, request: &str) -> (Vec<(String, String)>, String) {
        self.sent += 1;
        let mark = format!("X-Sent: {}\r\n", self.sent);
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        let answer = fetch(self.gateway.address(), format!("{head}\r\n{mark}\r\n{body}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let got = request_with(&self.upstream, &mark).expect("a request with the mark");
        (fields(&got), got)
    }
}

#[test]
fn requests_carry_what_nanoproxy_made_them_carry() {
    let mut through = Through::new();
    let a = through.upstream.address();
    let mut reached = |request: &str| through.reached(request);

    // P01, P12: the host stays, with its port.
    let (got, _) = reached("GET /v1 HTTP/1.1\r\nHost: api.test:8080\r\n\r\n");
    for (name, value) in [
        ("host", "api.test:8080"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "api.test:8080"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(values(&got, name), [value], "{name}");
    }
    // No User-Agent is invented; P56: nor an Accept-Encoding.
    assert!(values(&got, "user-agent").is_empty() && values(&got, "accept-encoding").is_empty());

    // P51: the upstream's own name and port.
    let (got, _) = reached("GET /own HTTP/1.1\r\nHost: x.test\r\n\r\n");
    let own = a.to_string();
    assert_eq!(values(&got, "host"), [own.as_str()]);
    assert_eq!(values(&got, "x-forwarded-host"), ["x.test"]);

    // P67: the target's authority is the host.
    let (got, _) = reached("GET http://api.test/v1/q HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(values(&got, "host"), ["api.test"]);

    // P52: nobody is believed, but X-Real-IP passes.
    let (got, _) = reached(
        "GET /plain HTTP/1.1\r\nHost: x.test\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil.test\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 7.7.7.7\r\n\r\n",
    );
    assert_eq!(values(&got, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&got, "x-forwarded-host"), ["x.test"]);
    assert_eq!(values(&got, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&got, "x-real-ip"), ["7.7.7.7"]);
    assert!(!values(&got, "forwarded").concat().contains("6.6.6.6"), "{got:?}");

    // P53: hop by hop.
    let (got, _) = reached(
        "GET /plain HTTP/1.1\r\nHost: x.test\r\nConnection: X-Drop, keep-alive, te\r\n\
         X-Drop: 1\r\nX-Keep: 1\r\n\
         Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\
         TE: trailers, deflate\r\n\r\n",
    );
    for gone in ["x-drop", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert!(values(&got, gone).is_empty(), "{gone}: {got:?}");
    }
    assert_eq!(values(&got, "x-keep"), ["1"]);
    assert_eq!(values(&got, "te"), ["trailers"]);
}

#[test]
fn requests_without_a_host_and_with_trailers_arrive() {
    let mut through = Through::new();
    let mut reached = |request: &str| through.reached(request);

    // P68: HTTP/1.0 may leave the host out.
    let (got, _) = reached("GET /plain HTTP/1.0\r\n\r\n");
    assert_eq!(values(&got, "x-forwarded-for"), ["127.0.0.1"]);

    // P59: chunks and trailers.
    let (_, request) = reached(
        "POST /plain HTTP/1.1\r\nHost: x.test\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n",
    );
    assert!(request.contains("\r\nTrailer: X-Sum\r\n"), "{request}");
    assert!(
        request.contains("\r\nabc\r\n") && request.ends_with("0\r\nX-Sum: 9\r\n\r\n"),
        "{request}"
    );
}

#[test]
fn malformed_requests_are_refused() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Cloverleaf::gateway(PROGRAM, &rules(&a, &b));
    let huge = format!("GET /plain HTTP/1.1\r\nHost: x.test\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    for (id, request, status) in [
        // A method and a target that do not belong together (RFC 9112 section 3.2.3).
        ("!P64", "CONNECT /plain HTTP/1.1\r\nHost: x.test\r\n\r\n", 400),
        ("P69", "GET /plain HTTP/1.1\r\n\r\n", 400),
        ("P70", "GET /plain HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (
            "!P71",
            "POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "P72",
            "POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            400,
        ),
        ("P73", "GET /plain HTTP/1.1\r\nHost: x\r\nX-A : 1\r\n\r\n", 400),
        ("P87", huge.as_str(), 431),
    ] {
        let mut client = gateway.connect();
        // The gateway may answer and close before all of it is sent.
        let _ = client.try_send(request);
        let answer = client.read_response().unwrap_or_else(|failure| panic!("{id}: {failure}"));
        assert_eq!(answer.status, status, "{id}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{id}");
    }
    assert!(a.requests().is_empty());
}

#[test]
fn answers_come_back_as_nanoproxy_gave_them_back() {
    let script = |answer: &str| Upstream::answering(answer);
    let (proxied, redirect, early, trailers, zipped) = (
        script(
            "HTTP/1.1 200 OK\r\nX-Proxy: other\r\nX-Proxy-Instance: i\r\n\
             Server: s\r\nContent-Length: 0\r\n\r\n",
        ),
        script("HTTP/1.1 302 Found\r\nLocation: http://inside:81/x\r\nContent-Length: 0\r\n\r\n"),
        script(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        script(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nab\r\n0\r\nX-Sum: 5\r\n\r\n",
        ),
        script("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nzzzz"),
    );
    let mut yaml = String::from("upstreams:\n");
    let mut rules = String::from("rules:\n");
    for (name, upstream) in [
        ("proxied", &proxied),
        ("redirect", &redirect),
        ("early", &early),
        ("trailers", &trailers),
        ("zipped", &zipped),
    ] {
        let port = upstream.address().port();
        yaml += &format!("  - {{name: {name}, host: 127.0.0.1, port: {port}}}\n");
        rules += &format!("  - {{upstream: {name}, path: /{name}}}\n");
    }
    let gateway = Cloverleaf::gateway(PROGRAM, &(yaml + &rules));
    let ask = |path: &str| {
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"
        );
        fetch(gateway.address(), request)
    };

    // P55
    let answer = ask("proxied");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(answer.header("x-proxy"), Some(format!("Cloverleaf/{version}").as_str()));
    assert!(
        answer
            .header("x-proxy-instance")
            .is_some_and(|instance| instance != "i" && !instance.is_empty())
    );
    assert_eq!(answer.header("server"), Some("s"));
    let own = gateway.get("x", "/nothing");
    assert_eq!(
        (own.status, own.header("x-proxy"), own.header("x-proxy-instance")),
        (404, None, None)
    );
    // P76
    assert_eq!(ask("redirect").header("location"), Some("http://inside:81/x"));
    // P77
    let answer = ask("early");
    let hints: Vec<u16> = answer.interim.iter().map(|interim| interim.status).collect();
    assert_eq!((answer.status, hints), (200, vec![103]));
    // P78
    let answer = ask("trailers");
    assert_eq!((answer.text().as_str(), answer.framing), ("ab", Framing::Chunked));
    assert_eq!(answer.trailers, [("X-Sum".to_owned(), "5".to_owned())]);
    // !P56, P57: what the upstream sends is what the client gets.
    let answer = ask("zipped");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!((answer.header("content-length"), answer.text().as_str()), (Some("4"), "zzzz"));
}

#[test]
fn expect_100_continue_is_answered_once() {
    // P60: NanoProxy's clients saw 100 twice.
    let steps = [
        Step::ReadHead,
        Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
        Step::Read(3),
        Step::send(answer("done")),
        Step::Close,
    ];
    let upstream = Upstream::start(steps);
    let gateway = Cloverleaf::gateway(PROGRAM, &everything_to(&upstream));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    let interim = String::from_utf8(client.read_some().expect("100")).expect("text");
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    client.send("abc");
    let answer = client.read_response().expect("an answer");
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
}

#[test]
fn upstreams_that_fail_have_a_status() {
    // P80 to P82 were 502 with an empty body; P83 and P84 gave no status at all.
    let refused = Port::reserve();
    let reset = Upstream::start([Step::ReadHead, Step::Reset]);
    let hangs = Upstream::start([Step::ReadHead, Step::Hang]);
    let yaml = format!(
        "upstreams:\n  - {{name: refused, host: 127.0.0.1, port: {refused}}}\n  \
         - {{name: unknown, host: no-such-name.invalid}}\n  \
         - {{name: reset, host: 127.0.0.1, port: {}}}\n  - {{name: hangs, host: 127.0.0.1, port: {}}}\n\
         rules:\n  - {{upstream: refused, path: /refused}}\n  - {{upstream: unknown, path: /unknown}}\n  \
         - {{upstream: reset, path: /reset}}\n  - {{upstream: hangs, path: /hangs}}\n",
        reset.address().port(),
        hangs.address().port(),
    );
    let gateway = Gateway::new(PROGRAM, &yaml).env("TIMEOUT", "1").start();
    for (path, status) in [("/refused", 502), ("/unknown", 502), ("/reset", 502), ("/hangs", 504)] {
        let answer = gateway.get("x", path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().starts_with(&status.to_string()), "{path}: {}", answer.text());
    }
}

#[test]
fn timeout_bounds_waiting_and_no_stream() {
    let gate = Gate::new();
    let slow = {
        let gate = gate.clone();
        Upstream::scripted(move |_| {
            vec![
                Step::ReadHead,
                Step::send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"),
                Step::Wait(gate.clone()),
                Step::send("data: 2\n\n"),
                Step::Close,
            ]
        })
    };
    let upload = Upstream::answering(answer("uploaded"));
    let yaml = format!(
        "upstreams:\n  - {{name: slow, host: 127.0.0.1, port: {}}}\n  \
         - {{name: upload, host: 127.0.0.1, port: {}}}\n\
         rules:\n  - {{upstream: slow, path: /events}}\n  - {{upstream: upload, path: /upload}}\n",
        slow.address().port(),
        upload.address().port(),
    );
    let gateway = Gateway::new(PROGRAM, &yaml).env("TIMEOUT", "1").start();
    let began = Instant::now();
    // !P85: a stream is not cut. !R28: nor is an upload that goes on.
    let mut events = gateway.connect();
    events.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut uploading = gateway.connect();
    uploading.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n");
    // R24: idle connections end. R25: so do heads that do not come, with 408 instead of 400.
    let mut idle = gateway.connect();
    assert_eq!(
        idle.request("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer").status,
        404
    );
    let mut head = gateway.connect();
    head.send("GET / HTTP/1.1\r\nHo");
    for _ in 0..8 {
        uploading.send("x");
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(idle.closes_within(Duration::from_secs(5)), "an idle connection stays");
    assert_eq!(head.read_response().expect("an answer").status, 408);
    assert_eq!(uploading.read_response().expect("an answer").text(), "uploaded");
    assert!(began.elapsed() > Duration::from_secs(1));
    gate.open();
    assert_eq!(events.read_response().expect("the whole stream").text(), "data: 1\n\ndata: 2\n\n");
}

#[test]
fn websockets_outlive_timeout() {
    // P88, R26
    let steps = [
        Step::ReadHead,
        Step::send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ),
        Step::Echo,
    ];
    let upstream = Upstream::start(steps);
    let gateway = Gateway::new(PROGRAM, &everything_to(&upstream)).env("TIMEOUT", "1").start();
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    let answer = client.read_response().expect("an answer");
    assert_eq!(answer.status, 101);
    assert!(answer.header("x-proxy").is_some());
    std::thread::sleep(Duration::from_millis(1500));
    client.send("still here");
    assert_eq!(client.read_exactly(10).expect("the echo"), b"still here");
}

#[test]
fn the_configuration_is_shown_with_debug_alone() {
    let a = named("a");
    let yaml = format!(
        "{}  - {{name: secure, host: example.test, scheme: https, noHostRewrite: true}}\n\
         rules:\n  - {{upstream: u, path: /p, host: h.test, matchMode: exact, stripPath: true}}\n  \
         - {{upstream: secure}}\n",
        upstream_named("u", &a)
    );
    let gateway = Gateway::new(PROGRAM, &yaml).env("DEBUG", "1").start();
    let answer = gateway.get("any.test", "/.nanoproxy/config");
    assert_eq!(answer.status, 200);
    let port = a.address().port();
    // R14: upstreams first, four spaces, all keys, the default port filled in, the default scheme not.
    let expected = format!(
        "upstreams:
    - name: u
      host: 127.0.0.1
      port: {port}
      scheme: \"\"
      noHostRewrite: false
    - name: secure
      host: example.test
      port: 443
      scheme: https
      noHostRewrite: true
rules:
    - upstream: u
      path: /p
      host: h.test
      matchMode: exact
      stripPath: true
    - upstream: secure
      path: \"\"
      host: \"\"
      matchMode: \"\"
      stripPath: false
"
    );
    assert_eq!(answer.text(), expected);
    // What is shown is what is served.
    gateway.rewrite_in_place(&everything_to(&a));
    crate::running::eventually("the new configuration is shown", || {
        gateway.get("any.test", "/.nanoproxy/config").text().contains("path: /\n")
    });
}

#[test]
fn the_file_is_named_in_every_way() {
    let a = named("a");
    for by in [
        ConfigBy::Flag("-c"),
        ConfigBy::Flag("-config"),
        ConfigBy::Flag("--config"),
        ConfigBy::Environment,
        ConfigBy::WorkingDirectory,
    ] {
        let gateway = Gateway::new(PROGRAM, &everything_to(&a)).config_by(by).start();
        assert_eq!(gateway.get("x", "/").text(), "a", "{by:?}");
    }
    // The flag wins over the variable.
    let gateway =
        Gateway::new(PROGRAM, &everything_to(&a)).env("CONF_FILE", "/no/such/file").start();
    assert_eq!(gateway.get("x", "/").text(), "a");
}

#[test]
fn flags_win_over_environment_and_environment_over_file() {
    let a = named("a");
    let (file, environment, flag) = (Port::reserve(), Port::reserve(), Port::reserve());
    let yaml = format!(
        "listeners:\n  - {{name: web, address: \"{}\"}}\ntimeouts: {{idle: 1h}}\n{}",
        file.address(),
        everything_to(&a)
    );
    let gateway = Gateway::new(PROGRAM, &yaml).without_port().start();
    assert_eq!(get(file.address(), "x", "/").text(), "a");
    drop(gateway);
    let gateway = Gateway::new(PROGRAM, &yaml).env("PORT", environment.to_string()).start();
    assert_eq!(get(environment.address(), "x", "/").text(), "a");
    assert!(Client::try_connect(file.address()).is_err());
    drop(gateway);
    let gateway = Gateway::new(PROGRAM, &yaml)
        .env("PORT", environment.to_string())
        .env("TIMEOUT", "3600")
        .arg("--port")
        .arg(flag.to_string())
        .arg("--timeout")
        .arg("0.5")
        .start();
    assert!(Client::try_connect(environment.address()).is_err());
    let mut idle = Client::connect(flag.address());
    assert_eq!(idle.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer").text(), "a");
    assert!(
        idle.closes_within(Duration::from_secs(5)),
        "--timeout does not win over TIMEOUT and the file"
    );
    drop(gateway);
}

#[test]
fn variables_that_cannot_be_used_are_named() {
    let a = named("a");
    for (name, value) in [
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "0"),
        ("PORT", "http"),
        ("PORT", "65536"),
        ("CONFIG_B64", "%%%"),
    ] {
        let mut gateway =
            Gateway::new(PROGRAM, &everything_to(&a)).env(name, value).start_unready();
        assert_eq!(gateway.wait_exit(crate::running::SOON), Some(2), "{name}={value}");
        assert!(gateway.stderr().contains(name), "{name}={value}: {}", gateway.stderr());
    }
    // One PORT for two listeners is a question, not an answer.
    let ports = [Port::reserve(), Port::reserve()];
    let yaml =
        crate::running::listeners(&[("one", &ports[0]), ("two", &ports[1])]) + &everything_to(&a);
    let mut gateway = Gateway::new(PROGRAM, &yaml).start_unready();
    assert_eq!(gateway.wait_exit(crate::running::SOON), Some(2));
    assert!(
        gateway.stderr().contains("PORT") && gateway.stderr().contains("listeners"),
        "{}",
        gateway.stderr()
    );
}

/// Standard base64, for a short text.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            out.push(if digit <= group.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    out
}

#[test]
fn config_b64_is_written_over_the_file() {
    let (a, b) = (named("a"), named("b"));
    let encoded = base64(&everything_to(&b));
    // R15
    let gateway = Gateway::new(PROGRAM, &everything_to(&a)).env("CONFIG_B64", &encoded).start();
    assert_eq!(gateway.get("x", "/").text(), "b");
    let written = std::fs::read_to_string(gateway.config_file()).expect("the file");
    assert_eq!(written, everything_to(&b));
    // And the file is followed as any other.
    gateway.rewrite_by_rename(&everything_to(&a));
    crate::running::eventually("a", || gateway.get("x", "/").text() == "a");
    // Where there was no file, there is one.
    let gateway = Gateway::new(PROGRAM, "").without_file().env("CONFIG_B64", &encoded).start();
    assert_eq!(gateway.get("x", "/").text(), "b");
}

#[test]
fn mistakes_that_nanoproxy_did_not_survive_are_reported() {
    let a = named("a");
    let port = a.address().port();
    for (id, yaml, says) in [
        (
            "R10",
            format!("upstreams:\n  - {{name: u, host: h, port: {port}, scheme: ftp}}\n"),
            ":2:",
        ),
        ("R29", format!("upstreams:\n  - {{name: u, host: h, port: \"{port}\"}}\n"), "port"),
        ("R08", String::new(), "config.yaml"),
    ] {
        let mut gateway = Gateway::new(PROGRAM, &yaml).start_unready();
        assert_eq!(gateway.wait_exit(crate::running::SOON), Some(2), "{id}");
        assert!(gateway.stderr().contains(says), "{id}: {}", gateway.stderr());
    }
    // R12: a file that is not there is not made up.
    let mut gateway = Gateway::new(PROGRAM, "").without_file().start_unready();
    assert_eq!(gateway.wait_exit(crate::running::SOON), Some(2));
    assert!(
        gateway.stderr().contains("config.yaml") && !gateway.config_file().exists(),
        "{}",
        gateway.stderr()
    );
    // R31: a bare IPv6 address is a host.
    let yaml =
        "upstreams:\n  - {name: u, host: \"::1\", port: 1}\nrules:\n  - {upstream: u, path: /}\n";
    let gateway = Cloverleaf::gateway(PROGRAM, yaml);
    assert_eq!(gateway.get("x", "/").status, 502);
}

#[test]
fn without_anything_it_is_config_yaml_and_port_8080() {
    let a = named("a");
    let folder = tempfile_with("config.yaml", &everything_to(&a));
    // `explain` resolves file and port as `gateway` does, and binds nothing.
    let ran = command::run(PROGRAM, &["explain", "GET http://x/"], folder.path(), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("[::]:8080") && ran.stdout.contains("config.yaml:"),
        "{}",
        ran.stdout
    );
}

fn tempfile_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(name), text).expect("a file");
    folder
}
