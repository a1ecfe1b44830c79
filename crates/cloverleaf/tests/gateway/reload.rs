//! A changed file is live soon, whole or not at all, and nobody who is connected notices.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use testkit::client::{Failure, Tls, get};
use testkit::upstream::Gate;
use testkit::{Authority, Client, Cloverleaf, Gateway, Port, Step, Upstream};

use crate::running::{
    PROGRAM, SOON, answer, eventually, everything_to, listeners, named, reloads, said, start,
    state, upstream_named,
};
use crate::support::frames::{self, Raw};

/// Waits until the gateway answers with this body and says how long it took.
fn live(gateway: &Cloverleaf, body: &str, how: &str) {
    let began = Instant::now();
    eventually(how, || gateway.get("x", "/").text() == body);
    // The promise is 200 ms; a test on a busy machine only tells.
    println!("{how}: live after {:?}", began.elapsed());
}

#[test]
fn every_way_of_changing_a_file_is_noticed() {
    let (a, b) = (named("a"), named("b"));
    let [to_a, to_b] = [&a, &b].map(everything_to);
    let gateway = Cloverleaf::gateway(PROGRAM, &to_a);
    gateway.rewrite_in_place(&to_b);
    live(&gateway, "b", "in place");
    gateway.rewrite_by_rename(&to_a);
    live(&gateway, "a", "rename over");
    gateway.rewrite_by_rename(&to_b);
    live(&gateway, "b", "a second rename over");
    // Two writes right after another: the last one counts.
    gateway.rewrite_in_place("rules: []\n");
    gateway.rewrite_in_place(&to_a);
    live(&gateway, "a", "two in a row");
    gateway.remove_config();
    eventually("the missing file is reported", || state(&gateway)["config"]["valid"] == false);
    assert_eq!(gateway.get("x", "/").text(), "a");
    gateway.rewrite_in_place(&to_b);
    live(&gateway, "b", "gone and back");
    assert_eq!(state(&gateway)["config"]["valid"], true);
}

#[test]
fn a_mounted_config_map_is_followed() {
    let (a, b) = (named("a"), named("b"));
    let [to_a, to_b] = [&a, &b].map(everything_to);
    let mut gateway = Gateway::new(PROGRAM, &to_a).config_map().start();
    for (yaml, body) in [(&to_b, "b"), (&to_a, "a"), (&to_b, "b")] {
        gateway.rewrite_by_swap(yaml);
        live(&gateway, body, "swapped folder");
    }
}

#[test]
fn sighup_reloads_even_what_has_not_changed() {
    let a = named("a");
    let gateway = Cloverleaf::gateway(PROGRAM, &everything_to(&a));
    assert_eq!(reloads(&gateway), (0, 0));
    for count in 1..=3 {
        gateway.hang_up();
        eventually("a reload", || reloads(&gateway).0 == count);
    }
    assert_eq!(state(&gateway)["generation"], 4);
    assert_eq!(gateway.get("x", "/").text(), "a");
    assert!(gateway.metric("cloverleaf_reload_duration_seconds").is_some_and(|took| took > 0.0));
}

#[test]
fn what_is_wrong_changes_nothing_and_is_reported() {
    let (a, b) = (named("a"), named("b"));
    let to_b = everything_to(&b);
    let gateway = Cloverleaf::gateway(PROGRAM, &everything_to(&a));
    let file = gateway.config_file().display().to_string();
    let bad_port = to_b.replace("port: ", "port: http, was: ");
    let bad = [
        (bad_port.as_str(), ":2:38: error: upstreams[0].port:", "found \"http\"", "1 to 65535"),
        ("rules: [\n", ":2:1: error:", "", ""),
        ("", ": error:", "", ""),
        ("upstreams: 7\n", ":1:12: error: upstreams:", "found \"7\"", "a list"),
        (
            "upstreams:\n  - {name: u, host: h, scheme: ftp}\n",
            ":2:32: error: upstreams[0].scheme:",
            "found \"ftp\"",
            "http",
        ),
    ];
    for (count, (yaml, place, found, expected)) in bad.into_iter().enumerate() {
        gateway.rewrite_in_place(yaml);
        eventually("the refusal is counted", || reloads(&gateway).1 == count as u64 + 1);
        let line = said(&gateway, &format!("{file}{place}"));
        assert!(line.contains(found) && line.contains(expected), "{line}");
        // The state says the same, in parts.
        let config = &state(&gateway)["config"];
        assert_eq!(
            (&config["valid"], &config["last_reload_result"]),
            (&false.into(), &"invalid".into())
        );
        let problem = &config["problems"][0];
        assert_eq!(problem["severity"], "error");
        let at = problem["place"].as_str().expect("a place");
        assert!(place.is_empty() || line.starts_with(at), "{at}: {line}");
        assert_eq!(gateway.metric("cloverleaf_config_valid"), Some(0.0));
        assert_eq!(gateway.get("x", "/").text(), "a", "{yaml:?}");
        assert_eq!(gateway.admin_get("/readyz").0, 200);
    }
    gateway.rewrite_in_place(&to_b);
    live(&gateway, "b", "recovery");
    eventually("the recovery is shown", || state(&gateway)["config"]["valid"] == true);
    assert_eq!(state(&gateway)["config"]["problems"], serde_json::json!([]));
    assert_eq!(gateway.metric("cloverleaf_config_valid"), Some(1.0));
    assert_eq!(
        gateway.metric("cloverleaf_last_reload_timestamp_seconds{result=\"ok\"}").map(|t| t > 1e9),
        Some(true)
    );
}

/// Tells threads to stop when dropped: also when the test fails, so that nobody waits for them for ever.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// New connections, one request each, until told to stop. How many were answered; refused ones do not count.
fn knock(address: SocketAddr, stop: &AtomicBool) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        // Accepted by the kernel, so it must be answered, unless the socket's last one came too late for it.
        if let Ok(mut client) = Client::try_connect(address) {
            match client.request("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") {
                Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
                Err(failure @ Failure::Closed) => panic!("request {count}: {failure}"),
                // A reset: the socket closed between the kernel's handshake and the last look into its queue.
                Err(_) => continue,
            }
            count += 1;
        }
    }
    count
}

/// Requests on one connection that is never allowed to close, until told to stop. How many there were.
fn hammer(address: SocketAddr, stop: &AtomicBool) -> usize {
    let mut client = Client::connect(address);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = client.request("GET /load HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = answer.unwrap_or_else(|failure| panic!("request {count}: {failure}"));
        assert_eq!(answer.status, 200, "request {count}: {}", answer.text());
        assert_eq!(answer.header("connection"), None, "request {count}");
        count += 1;
    }
    count
}

#[test]
fn no_request_fails_and_no_connection_closes() {
    const CLIENTS: usize = 6;
    const RELOADS: u64 = 20;
    let (a, b) = (named("a"), named("b"));
    let [to_a, to_b] = [&a, &b].map(everything_to);
    let gateway = Cloverleaf::gateway(PROGRAM, &to_a);
    let stop = AtomicBool::new(false);
    let total: usize = std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| hammer(gateway.address(), &stop))).collect();
        for number in 1..=RELOADS {
            let (yaml, body) = if number % 2 == 1 { (&to_b, "b") } else { (&to_a, "a") };
            if number % 3 == 0 {
                gateway.rewrite_in_place(yaml)
            } else {
                gateway.rewrite_by_rename(yaml)
            }
            eventually("live", || gateway.get("x", "/").text() == body);
        }
        drop(stops);
        clients.into_iter().map(|client| client.join().expect("a client without a failure")).sum()
    });
    println!("{total} requests on {CLIENTS} connections during {RELOADS} reloads");
    assert!(reloads(&gateway).0 >= RELOADS);
    assert!(total > CLIENTS * 20, "only {total} requests: too few to tell");
}

#[test]
fn upgrades_and_streams_live_on() {
    let gate = Gate::new();
    let a = {
        let gate = gate.clone();
        Upstream::scripted(move |number| match number {
            0 => vec![
                Step::ReadHead,
                Step::send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
                ),
                Step::Echo,
            ],
            _ => vec![
                Step::ReadHead,
                Step::send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"),
                Step::Wait(gate.clone()),
                Step::send("data: 2\n\n"),
                Step::Close,
            ],
        })
    };
    let b = named("b");
    let gateway = Cloverleaf::gateway(PROGRAM, &everything_to(&a));
    let mut upgraded = gateway.connect();
    upgraded.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(upgraded.read_response().expect("an answer").status, 101);
    let mut events = gateway.connect();
    events.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // The upstream that carries both goes, comes back, goes.
    for (yaml, count) in [(everything_to(&b), 1), (everything_to(&a), 2), (everything_to(&b), 3)] {
        gateway.rewrite_by_rename(&yaml);
        eventually("a reload", || reloads(&gateway).0 == count);
        let text = format!("after reload {count}");
        upgraded.send(&text);
        assert_eq!(upgraded.read_exactly(text.len()).expect("the echo"), text.as_bytes());
    }
    live(&gateway, "b", "beside streams");
    // The upgraded one and the stream: neither has been counted away.
    assert_eq!(state(&gateway)["listeners"][0]["upgrades_open"], 1);
    gate.open();
    assert_eq!(events.read_response().expect("all of it").text(), "data: 1\n\ndata: 2\n\n");
}

#[test]
fn a_kept_connection_sees_the_new_upstream_at_its_next_request() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Cloverleaf::gateway(PROGRAM, &everything_to(&a));
    let mut kept = gateway.connect();
    let mut ask = || kept.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer").text();
    assert_eq!(ask(), "a");
    gateway.rewrite_in_place(&everything_to(&b));
    eventually("the reload", || reloads(&gateway).0 == 1);
    assert_eq!(ask(), "b");
}

#[test]
fn http2_connections_live_on() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Cloverleaf::gateway(PROGRAM, &everything_to(&a));
    let mut kept = Raw::connect(gateway.address());
    kept.headers(1, &frames::get(&[]), true);
    assert_eq!(kept.body(1), (b"a".to_vec(), true));
    gateway.rewrite_in_place(&everything_to(&b));
    eventually("the reload", || reloads(&gateway).0 == 1);
    kept.headers(3, &frames::get(&[]), true);
    assert_eq!(kept.body(3), (b"b".to_vec(), true));
}

#[test]
fn what_only_a_restart_can_change_is_said() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Cloverleaf::gateway(PROGRAM, &everything_to(&a));
    let echo = Port::reserve();
    let more = format!("workers: 7\necho: {{address: \"{}\"}}\n", echo.address());
    gateway.rewrite_in_place(&(more + &everything_to(&b)));
    live(&gateway, "b", "beside what needs a restart");
    for key in ["workers", "echo"] {
        gateway.expect_stderr(
            &format!("warning: {key}: a change takes effect at the next start"),
            SOON,
        );
    }
    assert!(Client::try_connect(echo.address()).is_err());
}

#[test]
fn listeners_open_and_removed_ones_drain() {
    let gate = Gate::new();
    let slow = {
        let gate = gate.clone();
        Upstream::scripted(move |_| {
            vec![
                Step::ReadRequest,
                Step::Wait(gate.clone()),
                Step::send(answer("late")),
                Step::Close,
            ]
        })
    };
    let ports = [Port::reserve(), Port::reserve()];
    let rules = everything_to(&slow);
    let one = listeners(&[("one", &ports[0])]) + &rules;
    let both = listeners(&[("one", &ports[0]), ("two", &ports[1])]) + &rules;
    let two = listeners(&[("two", &ports[1])]) + &rules;
    let gateway = start(&one);
    assert!(Client::try_connect(ports[1].address()).is_err());
    gateway.rewrite_in_place(&both);
    eventually("the new listener", || Client::try_connect(ports[1].address()).is_ok());

    let mut busy = Client::connect(ports[0].address());
    busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut idle = Client::connect(ports[0].address());
    idle.send("GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.read_response().expect("an answer").status, 200);
    let mut other = Client::connect(ports[1].address());
    other.send("GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(other.read_response().expect("an answer").status, 200);
    eventually("the request is under way", || slow.requests().len() == 1);

    gateway.rewrite_in_place(&two);
    eventually("the old socket refuses", || Client::try_connect(ports[0].address()).is_err());
    assert!(idle.closes_within(SOON), "an idle connection of a removed listener stays");
    gate.open();
    let answer = busy.read_response().expect("the request under way is answered");
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("late", Some("close")));
    assert!(busy.closes_within(SOON));
    // The other listener's connections never noticed.
    let health =
        other.request("GET /.nanoproxy/health HTTP/1.1\r\nHost: x\r\n\r\n").expect("an answer");
    assert_eq!((health.status, health.header("connection")), (200, None));
}

#[test]
fn connections_that_come_while_a_listener_goes_are_answered() {
    let a = named("a");
    let ports = [Port::reserve(), Port::reserve()];
    let kept = listeners(&[("kept", &ports[0])]) + &everything_to(&a);
    let both = listeners(&[("kept", &ports[0]), ("goes", &ports[1])]) + &everything_to(&a);
    let gateway = start(&both);
    let stop = AtomicBool::new(false);
    let total: usize = std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let clients: Vec<_> =
            (0..4).map(|_| scope.spawn(|| knock(ports[1].address(), &stop))).collect();
        for reload in 1..=10 {
            gateway.rewrite_in_place(if reload % 2 == 1 { &kept } else { &both });
            eventually("the reload", || reloads(&gateway).0 == reload);
        }
        drop(stops);
        clients.into_iter().map(|client| client.join().expect("answers only")).sum()
    });
    println!("{total} connections to a listener that came and went");
    assert!(total > 0);
}

#[test]
fn a_listener_moves_also_between_overlapping_addresses() {
    let a = named("a");
    let ports = [Port::reserve(), Port::reserve()];
    let (first, second) = (ports[0].number(), ports[1].address());
    let at = |address: String| {
        format!("listeners:\n  - {{name: web, address: \"{address}\"}}\n{}", everything_to(&a))
    };
    let gateway = start(&at(format!("127.0.0.1:{first}")));
    for (reload, (address, serves)) in [
        (second.to_string(), second),
        (format!("[::]:{first}"), ports[0].address()),
        // Its own socket on every address is no reason to refuse one of them, nor the other way round.
        (format!("127.0.0.1:{first}"), ports[0].address()),
        (format!("0.0.0.0:{first}"), ports[0].address()),
    ]
    .into_iter()
    .enumerate()
    {
        gateway.rewrite_in_place(&at(address.clone()));
        eventually(&format!("the move to {address}"), || reloads(&gateway).0 == reload as u64 + 1);
        eventually("it serves", || Client::try_connect(serves).is_ok());
        assert_eq!(get(serves, "x", "/").text(), "a", "{address}");
        assert_eq!(reloads(&gateway).1, 0);
    }
    eventually("the address of before is left", || Client::try_connect(second).is_err());
}

#[test]
fn an_address_can_turn_from_http_to_https() {
    let a = named("a");
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let port = Port::reserve();
    let plain = listeners(&[("web", &port)]) + &everything_to(&a);
    let secure = plain.replace(
        &format!("\"{}\"", port.address()),
        &format!(
            "\"{}\", tls: {{certificates: [{{certificate: {}, key: {}}}]}}",
            port.address(),
            issued.chain_file.display(),
            issued.key_file.display()
        ),
    );
    let gateway = start(&plain);
    let mut kept = Client::connect(port.address());
    let health = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    assert_eq!(kept.request(health).expect("an answer").text(), "a");
    gateway.rewrite_in_place(&secure);
    let tls = Tls::trusting(authority.pem(), "a.test");
    eventually("TLS", || Client::try_connect_tls(port.address(), tls).is_ok());
    let mut client = Client::connect_tls(port.address(), tls);
    assert_eq!(client.request(health).expect("an answer").text(), "a");
    assert_eq!(get(port.address(), "a.test", "/").status, 400, "plain HTTP is served beside TLS");
    // The connection of before goes on as it began.
    assert_eq!(kept.request(health).expect("an answer").text(), "a");
    gateway.rewrite_in_place(&plain);
    eventually("plain again", || get(port.address(), "a.test", "/").status == 200);
}

#[test]
fn an_address_in_use_refuses_the_whole_reload() {
    let (a, b) = (named("a"), named("b"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_at = taken.local_addr().expect("an address");
    let ports = [Port::reserve(), Port::reserve()];
    let one = listeners(&[("one", &ports[0])]);
    let gateway = start(&(one + &everything_to(&a)));
    let two = listeners(&[("one", &ports[0]), ("free", &ports[1])]);
    let bad = format!("{two}  - {{name: bad, address: \"{taken_at}\"}}\n{}", everything_to(&b));
    gateway.rewrite_in_place(&bad);
    eventually("the refusal", || reloads(&gateway) == (0, 1));
    let place = format!("{}:4:5: error: ", gateway.config_file().display());
    let line = said(&gateway, &place);
    assert!(line.contains(&taken_at.to_string()) && line.contains("in use"), "{line}");
    assert_eq!(get(ports[0].address(), "x", "/").text(), "a", "a part was applied");
    assert!(
        Client::try_connect(ports[1].address()).is_err(),
        "a listener of a refused file is open"
    );
    // Once the address is free, SIGHUP is enough.
    drop(taken);
    gateway.hang_up();
    eventually("the reload", || reloads(&gateway).0 == 1);
    for address in [ports[0].address(), ports[1].address(), taken_at] {
        assert_eq!(get(address, "x", "/").text(), "b");
    }
}

#[test]
fn a_renewed_certificate_is_used_for_new_connections() {
    let a = named("a");
    let (old_authority, new_authority) = (Authority::new(), Authority::new());
    let (old, new) = (old_authority.server(&["a.test"]), new_authority.server(&["a.test"]));
    let port = Port::reserve();
    let gateway = start(&format!(
        "listeners:\n  - name: web\n    address: {}\n    \
         tls: {{certificates: [{{certificate: {}, key: {}}}]}}\n{}",
        port.address(),
        old.chain_file.display(),
        old.key_file.display(),
        everything_to(&a)
    ));
    let connect = |authority: &Authority| {
        Client::try_connect_tls(port.address(), Tls::trusting(authority.pem(), "a.test"))
    };
    let mut kept = connect(&old_authority).expect("the old certificate");
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    assert_eq!(kept.request(request).expect("an answer").text(), "a");
    new.replace(&old);
    eventually("the new certificate", || connect(&new_authority).is_ok());
    assert!(connect(&old_authority).is_err());
    assert_eq!(kept.request(request).expect("the old connection goes on").text(), "a");

    // A half that does not fit is refused; the good pair of before stays.
    let stray = old_authority.server(&["a.test"]);
    let (applied, _) = reloads(&gateway);
    std::fs::write(&old.key_file, &stray.key_pem).expect("the key's file");
    eventually("the refusal", || reloads(&gateway).1 > 0);
    assert!(connect(&new_authority).is_ok());
    gateway.expect_stderr("config.yaml:4:", SOON);
    assert_eq!(reloads(&gateway).0, applied);
    std::fs::write(&old.chain_file, &stray.chain_pem).expect("the certificate's file");
    eventually("the pair is whole", || connect(&old_authority).is_ok());
}

#[test]
fn a_file_that_is_named_and_comes_later_is_waited_for() {
    let a = named("a");
    let authority = Authority::new();
    let issued = authority.server(&["a.test"]);
    let ports = [Port::reserve(), Port::reserve()];
    let plain = listeners(&[("web", &ports[0])]);
    let gateway = start(&(plain.clone() + &everything_to(&a)));
    let dir = gateway.dir().join("later");
    let secure = format!(
        "{plain}  - name: secure\n    address: {}\n    \
         tls: {{certificates: [{{certificate: later/tls.crt, key: later/tls.key}}]}}\n{}",
        ports[1].address(),
        everything_to(&a)
    );
    gateway.rewrite_in_place(&secure);
    eventually("the refusal", || reloads(&gateway).1 == 1);
    // As when a Secret is mounted after the ConfigMap that names it.
    std::fs::create_dir(&dir).expect("a folder");
    std::fs::write(dir.join("tls.crt"), &issued.chain_pem).expect("a file");
    std::fs::write(dir.join("tls.key"), &issued.key_pem).expect("a file");
    let tls = Tls::trusting(authority.pem(), "a.test");
    eventually("the listener", || Client::try_connect_tls(ports[1].address(), tls).is_ok());
    assert_eq!(state(&gateway)["config"]["valid"], true);
}

#[test]
fn ten_thousand_rules_are_replaced_under_load() {
    const RULES: usize = 10_000;
    let (a, b) = (named("a"), named("b"));
    let yaml = |upstream: &Upstream| {
        let mut yaml = upstream_named("u", upstream) + "rules:\n";
        for number in 0..RULES {
            yaml += &format!("  - {{upstream: u, host: h{number}.test, path: /p}}\n");
        }
        yaml + "  - {upstream: u, path: /}\n"
    };
    let (to_a, to_b) = (yaml(&a), yaml(&b));
    let gateway = Cloverleaf::gateway(PROGRAM, &to_a);
    let stop = AtomicBool::new(false);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let load = scope.spawn(|| count.store(hammer(gateway.address(), &stop), Ordering::Relaxed));
        for (yaml, body) in [(&to_b, "b"), (&to_a, "a")] {
            let began = Instant::now();
            gateway.rewrite_by_rename(yaml);
            eventually(body, || gateway.get("h9999.test", "/p").text() == body);
            println!("{RULES} rules live after {:?} (a debug build, under load)", began.elapsed());
        }
        drop(stops);
        load.join().expect("no request fails");
    });
    assert!(count.into_inner() > 0);
    assert_eq!(gateway.get("h0.test", "/p").text(), "a");
}
