//! Clients that speak HTTP CONNECT.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::{Duration, Instant};

use crate::support::{Tunnel, WITHIN, echo, head, pattern, round_trip, source, target};
use testkit::wait_until;

const BOTH: [&[&str]; 2] = [&[], &["--no-extensions"]];

#[test]
fn every_byte_arrives_in_both_directions() {
    for flags in BOTH {
        let (tunnel, _agent) = Tunnel::with_agent("http-connect", flags);
        let mut stream = tunnel.connected(echo());
        let sent = pattern(8 * 1024 * 1024 + 17);
        let mut writer = stream.try_clone().unwrap();
        let bytes = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
        let mut seen = vec![0; sent.len()];
        stream.read_exact(&mut seen).unwrap();
        writing.join().unwrap();
        assert!(seen == sent, "{flags:?}");
    }
}

#[test]
fn a_half_closed_connection_still_gets_its_reply() {
    let (tunnel, agent) = Tunnel::with_agent("http-connect", &[]);
    let after_end = target(|mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"hello");
        stream.write_all(&pattern(65_536)).unwrap();
    });
    let mut stream = tunnel.connected(after_end);
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert!(reply == pattern(65_536), "{} bytes", reply.len());
    let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
    assert!(wait_until(WITHIN, || agent.metric(open) == 0.0));
}

#[test]
fn the_end_of_the_target_is_the_clients() {
    for flags in BOTH {
        let (tunnel, _agent) = Tunnel::with_agent("http-connect", flags);
        let says_and_goes = target(|mut stream| stream.write_all(&pattern(1_000_000)).unwrap());
        let mut stream = tunnel.connected(says_and_goes);
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).unwrap();
        assert!(seen == pattern(1_000_000), "{flags:?}: {} bytes", seen.len());
    }
}

#[test]
fn a_target_that_speaks_first_is_heard_after_the_answer() {
    for flags in BOTH {
        let (tunnel, _agent) = Tunnel::with_agent("http-connect", flags);
        let greets = target(|mut stream| {
            stream.write_all(b"220 hello\r\n").unwrap();
            let _ = stream.read(&mut [0]);
        });
        for _ in 0..100 {
            let mut stream = tunnel.connected(greets);
            let mut greeting = [0; 11];
            stream.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"220 hello\r\n");
        }
    }
}

#[test]
fn what_comes_with_the_head_or_before_the_answer_is_not_lost() {
    let (tunnel, _agent) = Tunnel::with_agent("http-connect", &[]);
    let to = echo();
    let mut stream = tunnel.socket();
    write!(stream, "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\nearly").unwrap();
    stream.write_all(b" bird").unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 200 Connection Established\r\n"));
    let mut seen = [0; 10];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"early bird");
}

#[test]
fn what_cannot_be_done_is_answered_as_the_original_does() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let tunnel = Tunnel::server("http-connect", &[]);
    let answer = |request: &str| {
        let mut stream = tunnel.socket();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    };
    let connect = format!("CONNECT {nobody} HTTP/1.1\r\n\r\n");
    let reply = answer(&connect);
    assert!(reply.starts_with("HTTP/1.1 500 "), "{reply}");
    assert!(reply.ends_with("currently no tunnels available: No agent available"), "{reply}");
    let failures = "konnectivity_network_proxy_server_dial_failure_count";
    assert_eq!(tunnel.metric(&format!("{failures}{{reason=\"no_agent\"}}")), 1.0);
    let _agent = tunnel.agent(&[]);
    tunnel.wait_ready();
    let reply = answer(&connect);
    assert!(reply.starts_with("HTTP/1.1 502 ") && reply.contains("onnection refused"), "{reply}");
    assert_eq!(tunnel.metric(&format!("{failures}{{reason=\"error_response\"}}")), 1.0);
    for (request, status, text) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "405",
            "this proxy only supports CONNECT passthrough",
        ),
        ("CONNECT nowhere HTTP/1.1\r\n\r\n", "400", "host:port"),
        ("\x16\x03\x01\x02\x00", "400", "not HTTP"),
    ] {
        let reply = answer(request);
        assert_eq!(reply.split(' ').nth(1), Some(status), "{reply}");
        assert!(reply.contains(text), "{reply}");
    }
    let reply = answer("CONNECT does-not-exist.invalid:1 HTTP/1.1\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 50"), "{reply}");
}

#[test]
fn two_thousand_connections_leave_nothing_behind() {
    let (tunnel, agent) = Tunnel::with_agent("http-connect", &[]);
    let (echo, source) = (echo(), source());
    round_trip(&mut tunnel.connected(echo)).unwrap();
    let at_rest = (tunnel.server.descriptors(), agent.process.descriptors());
    let threads: Vec<_> = (0..4).collect();
    std::thread::scope(|scope| {
        for _ in &threads {
            scope.spawn(|| {
                for number in 0..500 {
                    // Some are left in order, some in the middle of what they get.
                    let mut stream = tunnel.connected(if number % 4 == 0 { source } else { echo });
                    stream.write_all(b"x").unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                }
            });
        }
    });
    let quiet = || {
        tunnel.server.descriptors() <= at_rest.0 + 2 && agent.process.descriptors() <= at_rest.1 + 2
    };
    assert!(wait_until(WITHIN, quiet), "{at_rest:?}");
    let established = "konnectivity_network_proxy_server_established_connections";
    assert!(wait_until(WITHIN, || tunnel.metric(established) == 0.0));
}

#[test]
fn a_client_that_leaves_while_its_dial_waits_is_forgotten() {
    let (tunnel, _agent) = Tunnel::with_agent("http-connect", &[]);
    // Nobody answers there, not even with a refusal: its backlog is full.
    let full = testkit::Deaf::listen();
    let mut stream = tunnel.socket();
    write!(stream, "CONNECT {} HTTP/1.1\r\n\r\n", full.address()).unwrap();
    let pending = "konnectivity_network_proxy_server_pending_backend_dials";
    assert!(wait_until(WITHIN, || tunnel.metric(pending) == 1.0));
    let start = Instant::now();
    drop(stream);
    assert!(wait_until(WITHIN, || tunnel.metric(pending) == 0.0));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
