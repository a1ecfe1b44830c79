//! SIGTERM and SIGINT: readiness off, grace, drain, and an end that nobody with a request under way notices.

use std::time::{Duration, Instant};

use testkit::upstream::Gate;
use testkit::{Client, Cloverleaf, Gateway, Step, Upstream};

use crate::running::{PROGRAM, SOON, answer, eventually, everything_to};
use crate::support::frames::{self, Raw};

/// Longer than any test waits.
const NEVER: &str = "10m";

/// A gateway with these times, and an upstream whose answers wait for a gate.
fn behind_a_gate(grace: &str, drain: &str) -> (Cloverleaf, Upstream, Gate) {
    let gate = Gate::new();
    let upstream = {
        let gate = gate.clone();
        Upstream::scripted(move |_| {
            let late = Step::send(answer("late"));
            vec![Step::ReadRequest, Step::Wait(gate.clone()), late, Step::Repeat]
        })
    };
    let yaml =
        format!("shutdown: {{grace: {grace}, drain: {drain}}}\n{}", everything_to(&upstream));
    (Gateway::new(PROGRAM, &yaml).start(), upstream, gate)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const HEALTH: &str = "GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn sigterm_is_not_ready_then_drains() {
    let (mut gateway, upstream, gate) = behind_a_gate(NEVER, NEVER);
    let mut busy = gateway.connect();
    busy.send(GET);
    let (mut idle, mut used) = (gateway.connect(), gateway.connect());
    for connection in [&mut idle, &mut used] {
        let kept = connection.request(HEALTH).expect("an answer");
        assert_eq!((kept.status, kept.header("connection")), (200, None));
    }
    eventually("the request is under way", || upstream.requests().len() == 1);

    gateway.terminate();
    eventually("/readyz is 503", || gateway.admin_get("/readyz").0 == 503);
    assert_eq!(gateway.admin_get("/healthz").0, 200);
    // The grace period: everything is served, on old connections and new ones. Whoever uses an old one
    // hears that it ends; who does not may keep it for now.
    let last = used.request(HEALTH).expect("an answer in the grace period");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(used.closes_within(SOON), "it ends as was said");
    assert_eq!(gateway.get("x", "/.nanoproxy/health").status, 200);
    assert!(gateway.try_exit().is_none());

    // A second signal ends the grace period, not what is under way.
    gateway.terminate();
    eventually("new connections are refused", || Client::try_connect(gateway.address()).is_err());
    assert!(idle.closes_within(SOON), "an idle connection stays");
    assert_eq!(gateway.admin_get("/readyz"), (503, "not ready\ndraining\n".to_owned()));
    assert!(gateway.try_exit().is_none());
    gate.open();
    let answer = busy.read_response().expect("the request under way is answered");
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("late", Some("close")));
    assert!(busy.closes_within(SOON));
    assert_eq!(gateway.wait_exit(SOON), Some(0));
}

#[test]
fn the_grace_period_ends_by_itself() {
    let (mut gateway, _upstream, _gate) = behind_a_gate("500ms", NEVER);
    let began = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.wait_exit(SOON), Some(0));
    assert!(began.elapsed() >= Duration::from_millis(500), "no grace period");
}

#[test]
fn sigint_skips_the_grace_period() {
    let (mut gateway, upstream, gate) = behind_a_gate(NEVER, NEVER);
    let mut busy = gateway.connect();
    busy.send(GET);
    eventually("the request is under way", || upstream.requests().len() == 1);
    gateway.interrupt();
    eventually("new connections are refused", || Client::try_connect(gateway.address()).is_err());
    gate.open();
    assert_eq!(busy.read_response().expect("an answer").text(), "late");
    assert_eq!(gateway.wait_exit(SOON), Some(0));
}

#[test]
fn a_further_signal_ends_the_draining() {
    let (mut gateway, upstream, _gate) = behind_a_gate(NEVER, NEVER);
    let mut busy = gateway.connect();
    busy.send(GET);
    eventually("the request is under way", || upstream.requests().len() == 1);
    gateway.interrupt();
    eventually("draining", || Client::try_connect(gateway.address()).is_err());
    gateway.interrupt();
    assert_eq!(gateway.wait_exit(SOON), Some(0));
    assert!(busy.closes_within(SOON), "no answer is made up");
    assert!(gateway.stderr().contains("connections open"), "{}", gateway.stderr());
}

#[test]
fn a_request_whose_body_still_comes_is_answered() {
    let (mut gateway, _upstream, gate) = behind_a_gate("0s", NEVER);
    gate.open();
    let mut slow = gateway.connect();
    slow.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    eventually("the connection is open", || {
        gateway
            .metric("cloverleaf_connections_open{listener=\"default\"}")
            .is_some_and(|n| n >= 1.0)
    });
    gateway.terminate();
    eventually("draining", || Client::try_connect(gateway.address()).is_err());
    slow.send("cd");
    let answer = slow.read_response().expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(gateway.wait_exit(SOON), Some(0));
}

/// The next frame; pings are answered, as a client must.
fn next(connection: &mut Raw) -> Option<frames::Frame> {
    let frame = connection.next()?;
    if frame.kind == frames::PING && frame.flags & frames::ACK == 0 {
        let _ = connection.send(&frames::frame(frames::PING, frames::ACK, 0, &frame.payload));
    }
    Some(frame)
}

/// Whether GOAWAY comes, without an error and with stream 1 among those that are answered.
fn goes_away(connection: &mut Raw) -> bool {
    while let Some(frame) = next(connection) {
        if frame.kind == frames::GOAWAY {
            // The ping by which the gateway learns that it was seen.
            next(connection);
            let (last, code) = frame.payload.split_at(4);
            return code == [0; 4] && last != [0; 4];
        }
    }
    false
}

#[test]
fn http2_gets_goaway_and_its_streams_finish() {
    let (mut gateway, upstream, gate) = behind_a_gate("0s", NEVER);
    let mut busy = Raw::connect(gateway.address());
    busy.headers(1, &frames::get(&[]), true);
    let mut idle = Raw::connect(gateway.address());
    idle.headers(1, &frames::request("GET", "/.nanoproxy/health"), true);
    assert_eq!(idle.body(1), (b"OK".to_vec(), true));
    eventually("the request is under way", || upstream.requests().len() == 1);
    gateway.terminate();
    assert!(goes_away(&mut idle), "an idle connection ends without GOAWAY");
    while next(&mut idle).is_some() {}
    assert!(goes_away(&mut busy), "a busy connection gets no GOAWAY");
    gate.open();
    assert_eq!(busy.body(1), (b"late".to_vec(), true));
    while next(&mut busy).is_some() {}
    assert_eq!(gateway.wait_exit(SOON), Some(0));
}

#[test]
fn upgraded_connections_are_cut_when_the_draining_ends() {
    let steps = [
        Step::ReadHead,
        Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        Step::Echo,
    ];
    let upstream = Upstream::start(steps);
    let yaml = format!("shutdown: {{grace: 0s, drain: 2s}}\n{}", everything_to(&upstream));
    let mut gateway = Gateway::new(PROGRAM, &yaml).start();
    let mut upgraded = gateway.connect();
    upgraded.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(upgraded.read_response().expect("an answer").status, 101);
    let began = Instant::now();
    gateway.terminate();
    eventually("draining", || Client::try_connect(gateway.address()).is_err());
    upgraded.send("still");
    assert_eq!(upgraded.read_exactly(5).expect("the echo"), b"still");
    assert!(upgraded.closes_within(SOON), "an upgraded connection is not cut");
    assert!(began.elapsed() >= Duration::from_millis(1900), "cut after {:?}", began.elapsed());
    assert_eq!(gateway.wait_exit(SOON), Some(0));
}

#[test]
fn a_gateway_that_waits_for_its_file_ends_when_told_to() {
    let upstream = Upstream::answering(answer("a"));
    let mut gateway =
        Gateway::new(PROGRAM, "").without_file().arg("--wait-for-config").start_unready();
    gateway.expect_stderr("waiting for a valid configuration", SOON);
    assert!(gateway.try_exit().is_none());
    gateway.terminate();
    assert_eq!(gateway.wait_exit(SOON), Some(0));

    // And one that gets it begins.
    let gateway = Gateway::new(PROGRAM, "rules: 7\n").arg("--wait-for-config").start_unready();
    gateway.expect_stderr("rules: ", SOON);
    gateway.rewrite_by_rename(&everything_to(&upstream));
    eventually("it serves", || Client::try_connect(gateway.address()).is_ok());
    assert_eq!(gateway.get("x", "/").text(), "a");
}
