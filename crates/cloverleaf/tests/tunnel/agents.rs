//! Agents that come, go, and are chosen from.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::support::{Tunnel, WITHIN, echo, get, round_trip, target};
use testkit::wait_until;

#[test]
fn an_agent_that_goes_ends_its_connections_and_dials() {
    let (tunnel, mut agent) = Tunnel::with_agent("http-connect", &[]);
    let echo = echo();
    let mut open = tunnel.connected(echo);
    round_trip(&mut open).unwrap();
    let full = testkit::Deaf::listen();
    let mut waiting = tunnel.socket();
    write!(waiting, "CONNECT {} HTTP/1.1\r\n\r\n", full.address()).unwrap();
    let pending = "konnectivity_network_proxy_server_pending_backend_dials";
    assert!(wait_until(WITHIN, || tunnel.metric(pending) == 1.0));
    agent.process.signal("KILL");
    agent.process.wait_exit();
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains("the agent disconnected"), "{answer}");
    let gone = || tunnel.ready() == (500, "no connection to any proxy agent".to_owned());
    assert!(wait_until(WITHIN, gone));
    let _next = tunnel.agent(&[]);
    tunnel.wait_ready();
    round_trip(&mut tunnel.connected(echo)).unwrap();
}

#[test]
fn dials_of_an_agent_that_goes_are_asked_of_another() {
    const DIALS: usize = 8;
    let (tunnel, mut first) = Tunnel::with_agent("http-connect", &[]);
    let mut second = tunnel.agent(&[]);
    let agents = || tunnel.metric("konnectivity_network_proxy_server_ready_backend_connections");
    assert!(wait_until(WITHIN, || agents() == 2.0));
    let full = testkit::Deaf::listen();
    let mut waiting: Vec<_> = (0..DIALS).map(|_| tunnel.socket()).collect();
    for stream in &mut waiting {
        write!(stream, "CONNECT {} HTTP/1.1\r\n\r\n", full.address()).unwrap();
    }
    let pending = || tunnel.metric("konnectivity_network_proxy_server_pending_backend_dials");
    assert!(wait_until(WITHIN, || pending() == DIALS as f64));
    for (agent, left) in [(&mut first, DIALS), (&mut second, 0)] {
        let before = agents();
        agent.process.signal("KILL");
        agent.process.wait_exit();
        assert!(wait_until(WITHIN, || agents() == before - 1.0));
        assert!(wait_until(WITHIN, || pending() == left as f64), "{} wait", pending());
    }
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("the agent disconnected"), "{answer}");
    }
}

#[test]
fn an_agent_that_drains_serves_on_and_gets_nothing_new() {
    let (tunnel, mut first) = Tunnel::with_agent("http-connect", &["--agent-id=first"]);
    let echo = echo();
    let mut open = tunnel.connected(echo);
    round_trip(&mut open).unwrap();
    first.process.signal("TERM");
    assert!(tunnel.server.wait_log("an agent is about to go"));
    // It is all there is.
    round_trip(&mut tunnel.connected(echo)).unwrap();
    let second = tunnel.agent(&["--agent-id=second"]);
    let ready = "konnectivity_network_proxy_server_ready_backend_connections";
    assert!(wait_until(WITHIN, || tunnel.metric(ready) == 2.0));
    let mut kept: Vec<_> = (0..10).map(|_| tunnel.connected(echo)).collect();
    kept.iter_mut().for_each(|stream| round_trip(stream).unwrap());
    let opened = "konnectivity_network_proxy_agent_open_endpoint_connections";
    assert_eq!(second.metric(opened), 10.0);
    round_trip(&mut open).unwrap();
    first.process.signal("TERM");
    assert_eq!(first.process.wait_exit(), Some(0));
    kept.iter_mut().for_each(|stream| round_trip(stream).unwrap());
}

#[test]
fn a_server_that_comes_back_gets_its_agent_back() {
    let (mut tunnel, agent) = Tunnel::with_agent("http-connect", &[]);
    tunnel.server.signal("TERM");
    assert_eq!(tunnel.server.wait_exit(), Some(0));
    let ready = |path| get(agent.health(), path).unwrap();
    assert!(wait_until(WITHIN, || ready("/readyz").0 == 503));
    assert!(ready("/readyz").1.contains("[-]server-connected"));
    tunnel.restart();
    tunnel.wait_ready();
    round_trip(&mut tunnel.connected(echo())).unwrap();
    assert!(wait_until(WITHIN, || ready("/readyz").0 == 200));
    assert!(ready("/readyz?verbose").1.contains("[+]server-connected ok"));
}

#[test]
fn the_host_that_is_dialled_chooses_the_agent() {
    let tunnel = Tunnel::server("http-connect", &["--proxy-strategies=destHost,defaultRoute"]);
    let one = tunnel.agent(&["--agent-id=one", "--agent-identifiers=host=localhost&host=one"]);
    let rest = tunnel.agent(&["--agent-id=rest", "--agent-identifiers=default-route=true"]);
    let ready = "konnectivity_network_proxy_server_ready_backends";
    for strategy in ["destHost", "defaultRoute"] {
        let name = format!("{ready}{{proxy_strategy=\"{strategy}\"}}");
        assert!(wait_until(WITHIN, || tunnel.metric(&name) == 1.0), "{strategy}");
    }
    let port = echo().port();
    let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
    let mut by_name = tunnel.connected(format!("localhost:{port}"));
    round_trip(&mut by_name).unwrap();
    assert_eq!((one.metric(open), rest.metric(open)), (1.0, 0.0));
    let mut by_address = tunnel.connected(format!("127.0.0.1:{port}"));
    round_trip(&mut by_address).unwrap();
    assert_eq!((one.metric(open), rest.metric(open)), (1.0, 1.0));
}

#[test]
fn two_agents_of_one_name_do_not_take_each_others_connections() {
    let (tunnel, _first) = Tunnel::with_agent("http-connect", &["--agent-id=same"]);
    // Numbers of connections begin at 1 on both.
    let mut on_first = tunnel.connected(echo());
    round_trip(&mut on_first).unwrap();
    let mut second = tunnel.agent(&["--agent-id=same"]);
    let ready = "konnectivity_network_proxy_server_ready_backend_connections";
    assert!(wait_until(WITHIN, || tunnel.metric(ready) == 2.0));
    second.process.signal("KILL");
    second.process.wait_exit();
    assert!(wait_until(WITHIN, || tunnel.metric(ready) == 1.0));
    round_trip(&mut on_first).unwrap();
}

#[test]
fn a_server_that_ends_waits_as_long_as_it_may() {
    let mut tunnel = Tunnel::server("http-connect", &["--graceful-shutdown-timeout=20s"]);
    let _agent = tunnel.agent(&[]);
    tunnel.wait_ready();
    let slow = target(|mut stream| {
        let mut asked = [0; 3];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"at last").unwrap();
        let _ = stream.shutdown(Shutdown::Write);
    });
    let mut stream = tunnel.connected(slow);
    tunnel.server.signal("TERM");
    assert!(tunnel.server.wait_log("stopping"));
    stream.write_all(b"now").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "at last");
    drop(stream);
    assert_eq!(tunnel.server.wait_exit(), Some(0));
}

#[test]
fn metrics_are_those_that_are_documented() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let (tunnel, agent) = Tunnel::with_agent("http-connect", &[]);
    let page = std::fs::read_to_string(PAGE).unwrap();
    let ours =
        |name: &str| name.starts_with("konnectivity_") || name.starts_with("cloverleaf_tunnel_");
    let families = testkit::metrics::documented(&page).into_iter();
    let documented: Vec<_> = families.filter(|family| ours(&family.name)).collect();
    let forward = tunnel.forward("http-connect", &["--socks5=127.0.0.1:0"]);
    let scraped = [tunnel.metrics(), agent.metrics(), forward.metrics()].concat();
    let typed: Vec<(&str, &str)> =
        scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for family in &documented {
        let (name, kind) = (family.name.as_str(), family.kind.as_str());
        assert!(typed.contains(&(name, kind)), "{name} {kind}: {scraped}");
        // Leases are kept and counted elsewhere: `leases`.
        for label in family.labels.iter().filter(|_| !name.contains("_lease_")) {
            let has = |line: &str| line.starts_with(name) && line.contains(&format!("{label}=\""));
            assert!(scraped.lines().any(has), "{name} {label}");
        }
    }
    for (name, _) in typed.iter().filter(|(name, _)| ours(name)) {
        assert!(documented.iter().any(|family| family.name == *name), "{name} is not documented");
    }
}
