//! Endpoints that keep a request waiting before they have taken it: no request waits for one that has left, or for one
//! that is slow, while another could answer it.

use std::time::Instant;

use testkit::client::{Response, fetch};
use testkit::{Client, Cloverleaf, Deaf, Upstream};

use crate::health::Server;
use crate::running::{eventually, reloads, state};
use crate::support::{SOON, ok, with, yaml};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";

/// Far longer than any test waits: nothing comes right by itself.
const PATIENT: &str = "timeouts: {connect: 60s}\n";

/// Connections that wait for a request's answer; they have been sent one.
fn waiting(gateway: &Cloverleaf, requests: &[&str]) -> Vec<Client> {
    let send = |request: &&str| {
        let mut client = gateway.connect().timeout(SOON);
        client.send(request);
        client
    };
    requests.iter().map(send).collect()
}

/// Requests under way to the endpoint that stands there.
fn in_flight(gateway: &Cloverleaf, endpoint: usize) -> u64 {
    state(gateway)["upstreams"][0]["endpoints"][endpoint]["in_flight"].as_u64().unwrap_or_default()
}

fn counted(gateway: &Cloverleaf, name: &str, label: &str) -> f64 {
    gateway.metric(&format!("cloverleaf_{name}{{upstream=\"up\",{label}}}")).unwrap_or_default()
}

fn answers(clients: &mut [Client]) -> Vec<Response> {
    clients.iter_mut().map(|client| client.read_response().expect("an answer")).collect()
}

#[test]
fn nobody_waits_for_an_endpoint_that_has_left() {
    let (deaf, upstream) = (Deaf::listen(), Upstream::answering(ok("here")));
    let gateway = with(PATIENT, &[deaf.address()]);
    let mut clients = waiting(&gateway, &[GET, POST]);
    eventually("both wait", || in_flight(&gateway, 0) == 2);
    gateway.rewrite_in_place(&yaml(PATIENT, &[upstream.address()]));
    eventually("another is there", || reloads(&gateway).0 == 1);
    let began = Instant::now();
    for response in answers(&mut clients) {
        assert_eq!((response.status, response.text().as_str()), (200, "here"));
    }
    println!("answered {:?} after the change was live", began.elapsed());
    let bodies = upstream.requests().iter().filter(|request| request.ends_with("abc")).count();
    assert_eq!((upstream.requests().len(), bodies), (2, 1));
    assert_eq!(counted(&gateway, "upstream_connections_total", "result=\"abandoned\""), 2.0);
}

#[test]
fn nobody_waits_for_an_endpoint_that_was_found_down() {
    let (deaf, server) = (Deaf::listen(), Server::start("a", false));
    // The deaf one is found down when its first check has taken three seconds, the other one up at its second.
    let check = "    healthCheck: {path: /healthz, interval: 3s, timeout: 3s, rise: 1, fall: 1}\n";
    let yaml = crate::health::yaml(check, &[deaf.address(), server.address()]);
    let gateway = Cloverleaf::gateway(crate::support::BINARY, &format!("{PATIENT}{yaml}"));
    eventually("the other one is down", || !crate::health::is_up(&gateway, 1));
    let mut clients = waiting(&gateway, &[GET, POST]);
    eventually("both wait", || in_flight(&gateway, 0) == 2);
    server.set_healthy(true);
    for response in answers(&mut clients) {
        assert_eq!((response.status, response.text().as_str()), (200, "a"));
    }
    assert!(!crate::health::is_up(&gateway, 0));
}

#[test]
fn another_endpoint_answers_in_place_of_a_slow_one() {
    let (deaf, upstream) = (Deaf::listen(), Upstream::answering(ok("here")));
    let keys = format!("{PATIENT}accessLog: {{path: stdout}}\n");
    let gateway = with(&keys, &[deaf.address(), upstream.address()]);
    for request in [GET, POST, GET, POST] {
        let response = fetch(gateway.address(), request);
        assert_eq!((response.status, response.text().as_str()), (200, "here"));
    }
    assert_eq!(upstream.requests().len(), 4);
    // In turn: every second one was to go to the deaf one.
    assert_eq!(counted(&gateway, "retries_total", "reason=\"slow\""), 2.0);
    assert_eq!(counted(&gateway, "upstream_connections_total", "result=\"abandoned\""), 2.0);
    assert_eq!(in_flight(&gateway, 0), 0);
    let here = format!("\"endpoint\":\"{}\"", upstream.address());
    eventually("four lines", || {
        gateway.stdout().lines().filter(|l| l.contains(&here)).count() == 4
    });
    assert_eq!(gateway.stdout().matches("\"retries\":1").count(), 2);
}

#[test]
fn where_nothing_may_be_sent_twice_the_first_is_waited_for() {
    let (deaf, upstream) = (Deaf::listen(), Upstream::answering(ok("here")));
    let keys = "timeouts: {connect: 600ms}\nlimits: {retries: 0}\n";
    let gateway = with(keys, &[deaf.address(), upstream.address()]);
    let mut statuses: Vec<_> = (0..4).map(|_| fetch(gateway.address(), GET).status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 504, 504]);
    assert_eq!(counted(&gateway, "retries_total", "reason=\"slow\""), 0.0);
}

/// An endpoint that is reached and takes its time with TLS is not one that is gone: every distant one does.
#[test]
fn a_slow_handshake_is_waited_for() {
    let authority = testkit::Authority::new();
    let certificate = authority.server(&["127.0.0.1"]);
    let steps = |_| vec![testkit::Step::ReadRequest, testkit::Step::send(ok("here"))];
    let upstream = Upstream::scripted_tls(&certificate, &[], steps);
    // Takes connections, and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute = mute.local_addr().map(|address| (mute, address)).expect("an address");
    let yaml = format!(
        "workers: 1\ntimeouts: {{connect: 700ms}}\nupstreams:\n  - name: up\n    scheme: https\n    \
         tls: {{authorities: {}}}\n    endpoints: [{{address: {}}}, {{address: {}}}]\n\
         rules:\n  - {{upstream: up, path: /}}\n",
        authority.file().display(),
        mute.1,
        upstream.address()
    );
    let gateway = Cloverleaf::gateway(crate::support::BINARY, &yaml);
    for _ in 0..2 {
        let response = fetch(gateway.address(), GET);
        assert_eq!((response.status, response.text().as_str()), (200, "here"));
    }
    assert_eq!(counted(&gateway, "retries_total", "reason=\"slow\""), 0.0);
    // Where the first request began with the mute one, its turn has come again with the second.
    let retried = counted(&gateway, "retries_total", "reason=\"connect\"");
    assert!(retried == 1.0 || retried == 2.0, "{retried}");
}

#[test]
fn where_all_are_slow_few_ask_twice() {
    let deaf = [Deaf::listen(), Deaf::listen(), Deaf::listen()];
    let gateway = with("timeouts: {connect: 4s}\n", &deaf.each_ref().map(Deaf::address));
    let mut clients = waiting(&gateway, &[GET; 40]);
    eventually("as many as may", || counted(&gateway, "retries_total", "reason=\"slow\"") == 32.0);
    let all = || (0..3).map(|endpoint| in_flight(&gateway, endpoint)).sum::<u64>();
    eventually("all of them wait", || all() == 40);
    // Those that asked two have one left to try, and after that nobody.
    for response in answers(&mut clients) {
        assert_eq!(response.status, 504);
    }
}
