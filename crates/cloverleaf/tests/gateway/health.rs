//! Health checks: who is asked and how, what a bad answer means for requests, and what people see of it. And the
//! same endpoint for the same client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use testkit::client::fetch;
use testkit::upstream::Gate;
use testkit::{Authority, Cloverleaf, Step, Upstream, wait_until};

use crate::running::{PROGRAM, SOON, eventually, reloads, state};
use crate::support::ok;

/// A server of which a test says whether it is healthy; answers everything else with its name.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    healthy: AtomicBool,
    stopped: AtomicBool,
    /// Requests that were no checks.
    served: AtomicUsize,
    /// Connections that did not begin with a check and are open now.
    open: AtomicUsize,
    /// The checks' heads.
    checks: Mutex<Vec<String>>,
    /// Requests for `/slow` wait for it.
    released: AtomicBool,
}

impl Server {
    pub(crate) fn start(name: &str, healthy: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            healthy: AtomicBool::new(healthy),
            stopped: AtomicBool::new(false),
            served: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            checks: Mutex::default(),
            released: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, accepting.clone()) else { continue };
                std::thread::spawn(move || shared.connection(stream));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::SeqCst);
    }

    fn served(&self) -> usize {
        self.shared.served.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    fn checks(&self) -> Vec<String> {
        self.shared.checks.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connection(&self, mut stream: TcpStream) {
        let mut counted = false;
        while let Some(head) = head(&mut stream) {
            if head.starts_with("GET /healthz ") {
                self.checks.lock().expect("no panic").push(head);
                let healthy = self.healthy.load(Ordering::SeqCst);
                let status = if healthy { "200 OK" } else { "503 Service Unavailable" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
                return;
            }
            if !std::mem::replace(&mut counted, true) {
                self.open.fetch_add(1, Ordering::SeqCst);
            }
            self.served.fetch_add(1, Ordering::SeqCst);
            if head.starts_with("GET /slow ") {
                let released = || self.released.load(Ordering::SeqCst);
                let _ = wait_until(SOON, released);
            }
            if stream.write_all(ok(&self.name).as_bytes()).is_err() {
                break;
            }
        }
        if counted {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// The next head, of a request without body; `None` at the end.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// One upstream with these endpoints and further keys; one worker, so that turns are in order.
pub(crate) fn yaml(keys: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: String =
        endpoints.iter().map(|address| format!("      - address: {address}\n")).collect();
    format!(
        "workers: 1\nupstreams:\n  - name: up\n{keys}    endpoints:\n{endpoints}\
         rules:\n  - {{upstream: up, path: /}}\n"
    )
}

const SIMPLE: &str = "    healthCheck: {path: /healthz, interval: 100ms, rise: 2, fall: 3}\n";

/// What the live state says about an endpoint of the first upstream.
fn health(gateway: &Cloverleaf, endpoint: usize) -> Value {
    state(gateway)["upstreams"][0]["endpoints"][endpoint]["health"].clone()
}

pub(crate) fn is_up(gateway: &Cloverleaf, endpoint: usize) -> bool {
    health(gateway, endpoint)["up"] == true
}

fn sample(gateway: &Cloverleaf, name: &str, endpoint: SocketAddr, more: &str) -> Option<f64> {
    let (_, text) = gateway.admin_get("/metrics");
    let label = format!("endpoint=\"{endpoint}\"");
    let line = text
        .lines()
        .find(|l| l.starts_with(&format!("{name}{{")) && l.contains(&label) && l.contains(more))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The names that answer so many requests.
fn answers(gateway: &Cloverleaf, count: usize) -> String {
    (0..count).map(|_| gateway.get("x", "/").text()).collect()
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_nothing_until_it_passes_them() {
    let (a, b) = (Server::start("a", true), Server::start("b", true));
    let gateway = Cloverleaf::gateway(PROGRAM, &yaml(SIMPLE, &[a.address, b.address]));
    eventually("checks", || !a.checks().is_empty() && !b.checks().is_empty());
    let check = a.checks().remove(0);
    assert!(check.starts_with("GET /healthz HTTP/1.1\r\n"), "{check}");
    for field in [
        format!("Host: {}", a.address),
        "User-Agent: cloverleaf-health".to_owned(),
        "Connection: close".to_owned(),
    ] {
        assert!(check.contains(&format!("\r\n{field}\r\n")), "{check}");
    }
    assert_eq!(answers(&gateway, 4).matches('b').count(), 2);
    b.set_healthy(false);
    eventually("b is down", || !is_up(&gateway, 1));
    assert!(is_up(&gateway, 0));
    let (before, up) = (b.served(), "cloverleaf_endpoint_up");
    assert_eq!(answers(&gateway, 20), "a".repeat(20));
    assert_eq!(b.served(), before);
    let down = health(&gateway, 1);
    assert_eq!(down["last_error"], "the answer's status is 503");
    assert!(down["since_unix_seconds"].as_u64().is_some_and(|since| since > 1_700_000_000));
    assert_eq!(sample(&gateway, up, a.address, ""), Some(1.0));
    assert_eq!(sample(&gateway, up, b.address, ""), Some(0.0));
    let checks = "cloverleaf_health_checks_total";
    assert!(sample(&gateway, checks, b.address, "result=\"status\"").is_some_and(|n| n >= 3.0));
    assert!(sample(&gateway, checks, a.address, "result=\"ok\"").is_some_and(|n| n >= 1.0));
    assert_eq!(sample(&gateway, checks, a.address, "result=\"status\""), None);
    gateway.expect_stderr("endpoint is down", SOON);
    b.set_healthy(true);
    eventually("b is up", || is_up(&gateway, 1));
    assert_eq!(answers(&gateway, 4).matches('b').count(), 2);
    gateway.expect_stderr("endpoint is up", SOON);
}

#[test]
fn where_all_are_down_the_answer_says_so() {
    let a = Server::start("a", true);
    let gateway = Cloverleaf::gateway(PROGRAM, &yaml(SIMPLE, &[a.address]));
    assert_eq!(gateway.get("x", "/").text(), "a");
    a.set_healthy(false);
    eventually("503", || gateway.get("x", "/").status == 503);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n";
    let answer: Value = serde_json::from_str(&fetch(gateway.address(), request).text()).unwrap();
    assert_eq!(answer["error"], "endpoints_down");
    assert_eq!(answer["status"], 503);
    a.set_healthy(true);
    eventually("200", || gateway.get("x", "/").status == 200);
}

#[test]
fn one_that_was_never_seen_to_serve_goes_down_at_its_first_check() {
    let (a, gone) = (Server::start("a", true), TcpListener::bind("127.0.0.1:0").unwrap());
    let nobody = gone.local_addr().unwrap();
    drop(gone);
    // By TCP alone; a second check within the test's time is not awaited.
    let keys = "    healthCheck: {interval: 3s, fall: 100}\n";
    let gateway = Cloverleaf::gateway(PROGRAM, &yaml(keys, &[a.address, nobody]));
    eventually("it is down", || !is_up(&gateway, 1));
    assert_eq!(sample(&gateway, "cloverleaf_health_checks_total", nobody, "refused"), Some(1.0));
    let error = health(&gateway, 1)["last_error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("no connection: "), "{error}");
    assert_eq!(answers(&gateway, 6), "aaaaaa");
    assert_eq!(gateway.metric("cloverleaf_retries_total").unwrap_or_default(), 0.0);
}

#[test]
fn requests_under_way_go_on_and_idle_connections_close() {
    let (a, b) = (Server::start("a", true), Server::start("b", true));
    let gateway = Cloverleaf::gateway(PROGRAM, &yaml(SIMPLE, &[a.address, b.address]));
    // Two of each, one of which is kept idle.
    let slow = "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut clients: Vec<_> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send(slow);
    }
    eventually("both are busy", || a.open() == 1 && b.open() == 1);
    answers(&gateway, 4);
    eventually("both have a connection more", || a.open() == 2 && b.open() == 2);
    b.set_healthy(false);
    eventually("b is down", || !is_up(&gateway, 1));
    eventually("its idle connection closes", || b.open() == 1);
    assert_eq!(a.open(), 2);
    for server in [&a, &b] {
        server.shared.released.store(true, Ordering::SeqCst);
    }
    let mut bodies: Vec<String> =
        clients.iter_mut().map(|c| c.read_response().expect("an answer").text()).collect();
    bodies.sort();
    assert_eq!(bodies, ["a", "b"]);
    eventually("what was busy is not kept either", || b.open() == 0);
}

#[test]
fn what_was_found_lives_through_a_reload() {
    let (a, b) = (Server::start("a", true), Server::start("b", false));
    let both = yaml(SIMPLE, &[a.address, b.address]);
    let gateway = Cloverleaf::gateway(PROGRAM, &both);
    eventually("b is down", || !is_up(&gateway, 1));
    let before = (b.served(), health(&gateway, 1)["since_unix_seconds"].clone());
    let failed = || {
        let name = "cloverleaf_health_checks_total";
        sample(&gateway, name, b.address, "result=\"status\"").unwrap_or_default()
    };
    let counted = failed();
    // The same; other rules; another order; another check.
    let changed = [
        both.clone() + "\n",
        both.clone() + "  - {upstream: up, path: /other}\n",
        yaml(SIMPLE, &[b.address, a.address]),
        yaml(&SIMPLE.replace("rise: 2", "rise: 1"), &[a.address, b.address]),
    ];
    for (reload, yaml) in (1..).zip(changed) {
        gateway.rewrite_in_place(&yaml);
        eventually("the reload", || reloads(&gateway).0 == reload);
        assert_eq!(answers(&gateway, 8), "a".repeat(8), "after reload {reload}");
    }
    assert_eq!(b.served(), before.0);
    assert_eq!(health(&gateway, 1)["since_unix_seconds"], before.1);
    assert!(failed() >= counted);
    // Without a check it is believed to serve, and is asked no more.
    gateway.rewrite_in_place(&yaml("", &[a.address, b.address]));
    eventually("b serves", || answers(&gateway, 2).contains('b'));
    assert_eq!(health(&gateway, 1), Value::Null);
    assert_eq!(sample(&gateway, "cloverleaf_endpoint_up", b.address, ""), None);
    let asked = b.checks().len();
    answers(&gateway, 50);
    // One may have been under way.
    assert!(b.checks().len() <= asked + 1);
}

#[test]
fn a_check_asks_over_unverified_tls_at_another_port_and_by_another_host() {
    let a = Server::start("a", true);
    let issued = Authority::new().server(&["somebody.else"]);
    let asked = Upstream::scripted_tls(&issued, &["http/1.1"], |_| {
        vec![Step::ReadRequest, Step::send(ok("fine"))]
    });
    let port = asked.address().port();
    let keys = format!(
        "    healthCheck: {{path: /ready, scheme: https, port: {port}, host: app.test, \
         interval: 100ms, statuses: 200-299}}\n"
    );
    let gateway = Cloverleaf::gateway(PROGRAM, &yaml(&keys, &[a.address]));
    eventually("two checks", || asked.requests().len() >= 2);
    let check = asked.requests().remove(0);
    assert!(check.starts_with("GET /ready HTTP/1.1\r\nHost: app.test\r\n"), "{check}");
    assert!(is_up(&gateway, 0));
    assert!(a.checks().is_empty());
    drop(asked);
    eventually("it is down", || !is_up(&gateway, 0));
    assert_eq!(gateway.get("x", "/").status, 503);
}

#[test]
fn the_same_client_goes_to_the_same_endpoint_by_every_gateway() {
    let servers: Vec<Server> = (0..5).map(|n| Server::start(&n.to_string(), true)).collect();
    let mut addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let keys = SIMPLE.to_owned() + "    balance: clientAddress\n";
    let first = Cloverleaf::gateway(PROGRAM, &yaml(&keys, &addresses));
    let chosen = first.get("x", "/").text();
    assert_eq!(answers(&first, 10), chosen.repeat(10));
    addresses.reverse();
    let other = Cloverleaf::gateway(PROGRAM, &yaml(&keys, &addresses));
    assert_eq!(answers(&other, 10), chosen.repeat(10));
    // Down, it goes to one other, by both; up again, it comes back.
    let server = &servers[chosen.parse::<usize>().unwrap()];
    server.set_healthy(false);
    for gateway in [&first, &other] {
        eventually("it goes elsewhere", || gateway.get("x", "/").text() != chosen);
    }
    let next = first.get("x", "/").text();
    assert_eq!(answers(&first, 10) + &answers(&other, 10), next.repeat(20));
    server.set_healthy(true);
    for gateway in [&first, &other] {
        eventually("it comes back", || gateway.get("x", "/").text() == chosen);
    }
}

/// More pooled connections than a task's budget of polls, all dead at once: a request that may not be sent twice
/// finds none of them good.
#[test]
fn a_pool_of_dead_connections_harms_no_request() {
    const CONNECTIONS: usize = 320;
    let (all_there, end) = (Gate::new(), Gate::new());
    let gates = (all_there.clone(), end.clone());
    let upstream = Upstream::scripted(move |number| {
        if number >= CONNECTIONS {
            return vec![Step::ReadRequest, Step::send(ok("new")), Step::Repeat];
        }
        let (all_there, end) = (Step::Wait(gates.0.clone()), Step::Wait(gates.1.clone()));
        vec![Step::ReadRequest, all_there, Step::send(ok("old")), end, Step::Reset]
    });
    let keys = "    pool: {idleConnections: 1000, idleTimeout: 60s}\n";
    let gateway = Cloverleaf::gateway(PROGRAM, &yaml(keys, &[upstream.address()]));
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    eventually("each has its connection", || upstream.requests().len() == CONNECTIONS);
    all_there.open();
    for client in &mut clients {
        assert_eq!(client.read_response().expect("an answer").text(), "old");
    }
    end.open();
    eventually("all are dead", || upstream.open_connections() == 0);
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    let answer = gateway.connect().request(post).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "new"));
}
