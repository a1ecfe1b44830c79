//! What a rule does beside forwarding, and what it asks of a request: answering, closing, API keys, bounds on
//! bodies, replaced paths, fallbacks.

use serde_json::Value;
use testkit::client::fetch;
use testkit::upstream::Gate;
use testkit::{Cloverleaf, Step, Upstream, wait_until};

use crate::running::{PROGRAM, answer, eventually, named, reloads, upstream_named};
use crate::support::frames::{Outcome, Raw, get, request};
use crate::support::{SOON, Tap, message};

/// A gateway with one worker, these rules and more keys, in front of an upstream `u`.
fn with_rules(upstream: &Upstream, rules: &str, more: &str) -> Cloverleaf {
    let upstreams = upstream_named("u", upstream);
    Cloverleaf::gateway(PROGRAM, &format!("workers: 1\n{more}\n{upstreams}rules:\n{rules}"))
}

fn line(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

#[test]
fn a_rule_answers_by_itself() {
    let upstream = named("u");
    let rules = "  - {path: /gone, respond: 410}\n  - {path: /ok, respond: 200}\n  \
                 - {path: /empty, respond: 204}\n  - {path: /same, respond: 304}\n  - {path: /reset, respond: 205}\n  \
                 - {path: /odd, respond: 299}\n  - {upstream: u, fallback: true}\n";
    let gateway = with_rules(&upstream, rules, "");
    let mut client = gateway.connect();
    for (path, status, text) in [
        ("/gone", 410, "410: Gone\n"),
        ("/ok", 200, "200: OK\n"),
        ("/empty", 204, ""),
        ("/same", 304, ""),
        ("/reset", 205, ""),
        ("/odd", 299, "299\n"),
        ("/", 200, "u"),
    ] {
        let response = client.request(line(path, "")).expect("an answer");
        assert_eq!((response.status, response.text().as_str()), (status, text), "{path}");
        let bare = matches!(status, 204 | 304);
        assert_eq!(response.header("content-length").is_none(), bare, "{path}");
    }
    let json = client.request(line("/gone", "Accept: application/json\r\n")).expect("an answer");
    let body: Value = serde_json::from_slice(&json.body).expect("JSON");
    assert_eq!(body, serde_json::json!({ "status": 410, "message": "410: Gone" }));
    client.send("HEAD /gone HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.read_response_to("HEAD").expect("an answer");
    assert_eq!((head.status, head.header("content-length")), (410, Some("10")));
    // A body that nobody wants does not keep the connection.
    let post =
        "POST /gone HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    let refused = client.request(post).expect("an answer");
    assert_eq!((refused.status, refused.interim.len()), (410, 0));
    assert!(client.closes_within(SOON));
    let mut h2 = Raw::connect(gateway.address());
    h2.headers(1, &request("GET", "/gone"), true);
    assert_eq!(h2.body(1), (b"410: Gone\n".to_vec(), true));
    assert_eq!(upstream.requests().len(), 1);
}

/// The metric of a rule's requests with a status class.
fn counted(gateway: &Cloverleaf, rule: &str, class: &str) -> Option<f64> {
    let (status, text) = gateway.admin_get("/metrics");
    assert_eq!(status, 200);
    let wanted = |line: &&str| {
        line.starts_with("cloverleaf_requests_total{")
            && line.contains(&format!("rule=\"{rule}\""))
            && line.contains(&format!("=\"{class}\""))
    };
    text.lines().find(wanted)?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_rule_closes_without_an_answer() {
    let upstream = named("u");
    let rules = "  - {name: quiet, path: /quiet, close: true}\n  - {upstream: u}\n";
    let gateway = with_rules(&upstream, rules, "accessLog: {path: stdout}");
    for sent in [
        line("/quiet", ""),
        // Pipelined behind it: not answered either.
        line("/quiet", "") + &line("/", ""),
        // With a body that has come, one that has not, and one that never ends.
        "POST /quiet HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST /quiet HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n".to_owned(),
        "POST /quiet HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"
            .to_owned(),
        "POST /quiet HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            .to_owned(),
    ] {
        let mut client = gateway.connect();
        client.send(&sent);
        // An orderly end: a reset would be an error here.
        assert_eq!(client.read_to_close().expect("an orderly end"), b"", "{sent:?}");
    }
    // What came before it on the connection has been answered.
    let mut client = gateway.connect();
    client.send(line("/", "") + &line("/quiet", ""));
    assert_eq!(client.read_response().expect("an answer").text(), "u");
    assert_eq!(client.read_to_close().expect("an orderly end"), b"");
    eventually("counted", || counted(&gateway, "quiet", "4xx") == Some(7.0));
    eventually("logged", || {
        let logged = |line: &&str| line.contains("\"rule\":\"quiet\"") && line.contains("444");
        gateway.stdout().lines().filter(logged).count() == 7
    });
}

/// A client that goes on sending after the connection is closed for it is not read for ever.
#[test]
fn a_closed_connection_is_let_go_of() {
    let upstream = named("u");
    let gateway = with_rules(&upstream, "  - {close: true}\n", "");
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let cut = || client.try_send(&chunk).is_err();
    assert!(wait_until(SOON, cut), "it takes everything");
}

#[test]
fn over_http_2_the_stream_alone_is_reset() {
    const CANCEL: u32 = 8;
    let gate = Gate::new();
    let steps =
        [Step::ReadRequest, Step::Wait(gate.clone()), Step::send(answer("u")), Step::Repeat];
    let upstream = Upstream::start(steps);
    let gateway = with_rules(&upstream, "  - {path: /quiet, close: true}\n  - {upstream: u}\n", "");
    let mut client = Raw::connect(gateway.address());
    client.headers(1, &get(&[]), true);
    assert!(wait_until(SOON, || upstream.requests().len() == 1));
    client.headers(3, &request("GET", "/quiet"), true);
    assert_eq!(client.outcome(3), Outcome::Reset(CANCEL));
    client.headers(5, &request("POST", "/quiet"), false);
    assert_eq!(client.outcome(5), Outcome::Reset(CANCEL));
    gate.open();
    assert_eq!(client.body(1), (b"u".to_vec(), true));
}

#[test]
fn fallbacks_decide_where_nothing_else_does() {
    let upstream = named("u");
    let rules = "  - {respond: 418, fallback: true}\n  - {upstream: u, path: /a}\n  \
                 - {upstream: gone, path: /b}\n";
    let gateway = with_rules(&upstream, rules, "");
    for (path, status) in [("/a", 200), ("/b", 503), ("/c", 418)] {
        assert_eq!(gateway.get("x", path).status, status, "{path}");
    }
}

/// D11 to D18 through the front door; the double slash of D16 is the original's.
#[test]
fn the_matched_part_is_replaced() {
    let upstream = named("u");
    let rules = "  - {upstream: u, path: /tproot, replacePath: /}\n  \
                 - {upstream: u, path: /tp, replacePath: /bar}\n  \
                 - {upstream: u, path: /keep}\n  \
                 - {upstream: u, path: /seg/, matchMode: segments, replacePath: \"/o dd/\"}\n";
    let gateway = with_rules(&upstream, rules, "redirectUncleanPaths: false");
    let mut client = gateway.connect();
    let mut tap = Tap::new(&upstream);
    for (sent, got) in [
        ("/tp/1", "/bar/1"),
        ("/tp", "/bar"),
        ("/tpx/y", "/barx/y"),
        ("/tproot/1", "/1"),
        ("/tproot/1?a=//b&c", "/1?a=//b&c"),
        ("/tp/a%2Fb%20c", "/bar/a%2Fb%20c"),
        ("/keep//x/../%41", "/keep//x/../%41"),
        ("/seg/x", "/o%20dd/x"),
        ("/seg", "/o%20dd/"),
    ] {
        assert_eq!(client.request(line(sent, "")).expect("an answer").status, 200, "{sent}");
        let reached = message::only(&tap.fresh().concat());
        assert_eq!(reached.line, format!("GET {got} HTTP/1.1"), "{sent}");
    }
}

#[test]
fn an_api_key_is_asked_for() {
    let upstream = named("u");
    let rules = "  - {upstream: u, path: /file, apiKey: {header: X-Api-Key, valueFile: key}}\n  \
                 - {respond: 200, path: /own, apiKey: {header: X-Api-Key, value: other}}\n  \
                 - {upstream: u}\n";
    let yaml = format!(
        "workers: 1\naccessLog: {{path: stdout}}\nconfigPath: true\n{}rules:\n{rules}",
        upstream_named("u", &upstream)
    );
    let gateway = testkit::Gateway::new(PROGRAM, &yaml);
    std::fs::write(gateway.dir().join("key"), "sesame-1\n").expect("a file");
    let gateway = gateway.start();
    let status = |path: &str, fields: &str| fetch(gateway.address(), line(path, fields)).status;
    for (path, fields, wanted) in [
        ("/file", "X-Api-Key: sesame-1\r\n", 200),
        ("/file", "x-api-KEY:   sesame-1  \r\n", 200),
        ("/file", "", 403),
        ("/file", "X-Api-Key: sesame-2\r\n", 403),
        ("/file", "X-Api-Key: sesame-1\r\nX-Api-Key: sesame-1\r\n", 403),
        ("/file", "X-Api-Key: sesame-1, sesame-1\r\n", 403),
        ("/own", "X-Api-Key: sesame-1\r\n", 403),
        ("/own", "X-Api-Key: other\r\n", 200),
        ("/", "", 200),
    ] {
        assert_eq!(status(path, fields), wanted, "{path} {fields:?}");
    }
    let json = fetch(gateway.address(), line("/file", "Accept: application/json\r\n"));
    let body: Value = serde_json::from_slice(&json.body).expect("JSON");
    assert_eq!((body["status"].as_u64(), body["error"].as_str()), (Some(403), Some("forbidden")));
    let text = fetch(gateway.address(), line("/file", "")).text();
    assert_eq!(text, "403: this needs a valid API key\n");
    // D22: the upstream sees it.
    assert!(upstream.requests()[0].contains("X-Api-Key: sesame-1\r\n"));

    // The file is watched.
    let (applied, _) = reloads(&gateway);
    std::fs::write(gateway.dir().join("key"), "sesame-3").expect("a file");
    eventually("a reload", || reloads(&gateway).0 > applied);
    assert_eq!(status("/file", "X-Api-Key: sesame-1\r\n"), 403);
    assert_eq!(status("/file", "X-Api-Key: sesame-3\r\n"), 200);

    let dump = gateway.get("x", "/.nanoproxy/config").text();
    assert!(dump.contains("x-api-key"), "{dump}");
    let shown = [
        dump,
        gateway.stdout(),
        gateway.stderr(),
        gateway.admin_get("/config").1,
        gateway.admin_get("/state").1,
        gateway.admin_get("/metrics").1,
    ];
    for text in shown {
        assert!(!text.contains("sesame") && !text.contains("other"), "{text}");
    }
}

/// A gateway with a bound of 10 bytes, and one of 20 on `/more`.
fn bounded(upstream: &Upstream) -> Cloverleaf {
    let rules = "  - {upstream: u, path: /more, maxRequestBody: 20}\n  - {upstream: u}\n";
    with_rules(upstream, rules, "limits: {requestBody: 10}")
}

fn post(path: &str, framing: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}")
}

#[test]
fn bodies_within_the_bound_pass_and_longer_ones_are_refused_unasked() {
    let upstream = named("u");
    let gateway = bounded(&upstream);
    for (path, length, status) in
        [("/", 10, 200), ("/", 11, 413), ("/more", 20, 200), ("/more", 21, 413)]
    {
        let said = post(path, &format!("Content-Length: {length}"), &"x".repeat(length));
        let response = fetch(gateway.address(), said);
        assert_eq!(response.status, status, "{path} {length}");
        let chunked = format!("{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length));
        let response = fetch(gateway.address(), post(path, "Transfer-Encoding: chunked", &chunked));
        assert_eq!(response.status, status, "{path} {length} chunked");
        if status == 413 {
            assert_eq!(response.header("connection"), Some("close"));
            let text = "413: the request body is larger than is allowed here\n";
            assert_eq!(response.text(), text);
        }
    }
    // Where the length was said the upstream has not been asked; where it was not, it got no whole request.
    let whole = upstream.requests().iter().filter(|r| r.contains("Content-Length: ")).count();
    assert_eq!(whole, 2);
    let huge = post("/", "Content-Length: 9999999999999999", "");
    assert_eq!(fetch(gateway.address(), huge).status, 413);
}

#[test]
fn who_asks_first_is_told_at_once() {
    let upstream = named("u");
    let gateway = bounded(&upstream);
    let asking =
        |length| post("/", &format!("Content-Length: {length}\r\nExpect: 100-continue"), "");
    let mut client = gateway.connect();
    let response = client.request(asking(11)).expect("an answer");
    assert_eq!((response.status, response.interim.len()), (413, 0));
    assert!(client.closes_within(SOON));
    assert_eq!(upstream.connections(), 0);
}

/// The bound is passed while the upstream waits for more: its connection ends without a whole request.
#[test]
fn a_stream_that_passes_the_bound_ends_at_the_upstream_too() {
    let upstream = Upstream::start([Step::ReadToEnd]);
    let gateway = bounded(&upstream);
    let mut client = gateway.connect();
    client.send(post("/", "Transfer-Encoding: chunked", "6\r\nabcdef\r\n"));
    eventually("the first part", || {
        upstream.connections() == 1 && upstream.received(0).ends_with(b"abcdef\r\n")
    });
    client.send("6\r\nghijkl\r\n0\r\n\r\n");
    let response = client.read_response().expect("an answer");
    assert_eq!((response.status, response.header("connection")), (413, Some("close")));
    assert!(client.closes_within(SOON));
    eventually("the upstream's end", || upstream.open_connections() == 0);
    let received = upstream.received(0);
    assert!(received.ends_with(b"abcdef\r\n"), "{:?}", String::from_utf8_lossy(&received));

    // Where the answer has begun the client can only be shown that it is cut.
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome";
    let upstream = Upstream::start([Step::ReadHead, Step::send(begun), Step::ReadToEnd]);
    let gateway = bounded(&upstream);
    let mut client = gateway.connect();
    client.send(post("/", "Transfer-Encoding: chunked", "6\r\nabcdef\r\n"));
    let head = client.read_some().expect("the beginning of an answer");
    assert!(head.starts_with(b"HTTP/1.1 200 OK"));
    client.send("6\r\nghijkl\r\n0\r\n\r\n");
    assert!(client.read_response().is_err());
    eventually("the upstream's end", || upstream.open_connections() == 0);
}

#[test]
fn http_2_bodies_have_the_same_bound() {
    let upstream = named("u");
    let gateway = bounded(&upstream);
    let mut client = Raw::connect(gateway.address());
    let with_length = |length| [&request("POST", "/")[..], &[("content-length", length)]].concat();
    client.headers(1, &with_length("11"), false);
    assert_eq!(client.outcome(1), Outcome::Status(413));
    client.headers(3, &request("POST", "/"), false);
    client.data(3, &[b'x'; 11], true);
    assert_eq!(client.outcome(3), Outcome::Status(413));
    client.headers(5, &with_length("10"), false);
    client.data(5, &[b'x'; 10], true);
    assert_eq!(client.body(5), (b"u".to_vec(), true));
    // A stream whose client goes on sending is told not to.
    client.headers(7, &request("POST", "/"), false);
    client.data(7, &[b'x'; 11], false);
    assert_eq!(client.outcome(7), Outcome::Status(413));
    client.data(7, b"more", true);
    client.headers(9, &get(&[]), true);
    assert_eq!(client.body(9), (b"u".to_vec(), true));
}

#[test]
fn an_upgrade_is_no_body() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let upstream = Upstream::start([Step::ReadHead, Step::send(switching), Step::Echo]);
    let gateway = bounded(&upstream);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.read_response().expect("an answer").status, 101);
    let long = [b'x'; 1000];
    client.send(long);
    assert_eq!(client.read_exactly(long.len()).expect("all of it"), long);
}

#[test]
fn the_server_field_is_added_where_it_is_wanted_and_missing() {
    let upstream = Upstream::scripted(|connection| {
        let server = if connection == 0 { "" } else { "Server: s\r\n" };
        let answer =
            format!("HTTP/1.1 200 OK\r\n{server}Content-Length: 0\r\nConnection: close\r\n\r\n");
        vec![Step::ReadRequest, Step::send(answer), Step::Close]
    });
    let rules = "  - {upstream: u, path: /u}\n";
    let gateway = with_rules(&upstream, rules, "serverHeader: true");
    for (path, server) in [("/u", "cloverleaf"), ("/u", "s"), ("/none", "cloverleaf")] {
        assert_eq!(gateway.get("x", path).header("server"), Some(server), "{path}");
    }
    // Also what is no request.
    let refused = fetch(gateway.address(), "GET / HTTP/1.1\r\n\r\n");
    assert_eq!((refused.status, refused.header("server")), (400, Some("cloverleaf")));
}

#[test]
fn check_and_explain_tell_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("gateway.yaml");
    let yaml = "limits: {requestBody: 1KiB}\nupstreams: [{name: u, host: 127.0.0.1}]\nrules:\n  \
                - {name: last, upstream: u, fallback: true}\n  \
                - {name: moved, upstream: u, path: /old, replacePath: /new, maxRequestBody: 2KiB, \
                apiKey: {header: X-Key, value: sesame}}\n  \
                - {name: gone, path: /gone, respond: 410}\n  \
                - {name: quiet, path: /quiet, close: true}\n";
    std::fs::write(&file, yaml).expect("a file");
    let file = file.to_str().expect("a path");
    let run = |arguments: &[&str]| {
        let ran = testkit::command::run(PROGRAM, arguments, dir.path(), &[]);
        assert!(!ran.stdout.contains("sesame") && !ran.stderr.contains("sesame"));
        ran.stdout
    };
    let checked = run(&["check", file]);
    for line in [
        "  last: every path (fallback) -> u",
        "  moved: /old… -> u",
        "    needs the API key in the field x-key, else 403",
        "    needs a body of at most 2048 bytes, else 413",
        "  gone: /gone… -> answers 410",
        "  quiet: /quiet… -> closes the connection",
    ] {
        assert!(checked.lines().any(|l| l == line), "{line:?} in {checked}");
    }
    let explained = run(&["explain", "-c", file, "GET http://x/old/%41?q"]);
    for part in [
        "not last (",
        "fits, but it is a fallback, which stands behind all others",
        "gets /new/%41?q",
        "needs the API key in the field x-key, else 403",
    ] {
        assert!(explained.contains(part), "{part:?} in {explained}");
    }
    let json = run(&["explain", "--output", "json", "-c", file, "GET http://x/quiet"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["closes"], &json["status"]), (&Value::Bool(true), &Value::Null));
    let json = run(&["explain", "--output", "json", "-c", file, "GET http://x/gone"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["status"], &json["closes"]), (&Value::from(410), &Value::Bool(false)));
}
