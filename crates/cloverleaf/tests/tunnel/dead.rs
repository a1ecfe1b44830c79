//! An agent that does not answer any more, though its connection stands.

use std::io::{Read, Write};

use crate::support::{Tunnel, WITHIN, echo, round_trip};
use testkit::wait_until;

const DIALS: usize = 300;
/// Much more than so many dials need.
const MEMORY_GROWTH_KIB_MAX: u64 = 32 * 1024;
const PENDING: &str = "konnectivity_network_proxy_server_pending_backend_dials";

/// The answer to a dial.
fn status(stream: &mut impl Read) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn dials_behind_a_stopped_agent_fail_in_time_and_leave_nothing() {
    let tunnel = Tunnel::server("http-connect", &["--backend-dial-timeout=2s"]);
    let agent = tunnel.agent(&[]);
    tunnel.wait_ready();
    let echo = echo();
    round_trip(&mut tunnel.connected(echo)).unwrap();
    let rest = (tunnel.server.descriptors(), tunnel.server.memory_kib());
    agent.process.stop();
    let mut waiting: Vec<_> = (0..DIALS)
        .map(|_| {
            let mut stream = tunnel.socket();
            write!(stream, "CONNECT {echo} HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for stream in &mut waiting {
        let answer = status(stream);
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    }
    assert_eq!(tunnel.metric(PENDING), 0.0);
    let grown = tunnel.server.memory_kib().saturating_sub(rest.1);
    assert!(grown < MEMORY_GROWTH_KIB_MAX, "{grown} KiB");
    drop(waiting);
    assert!(wait_until(WITHIN, || tunnel.server.descriptors() <= rest.0 + 2));
    agent.process.signal("CONT");
    // What it connects to now nobody waits for: it is told so.
    round_trip(&mut tunnel.connected(echo)).unwrap();
    let late = "konnectivity_network_proxy_server_dial_failure_count\
                {reason=\"unrecognized_response\"}";
    assert!(wait_until(WITHIN, || tunnel.metric(late) == DIALS as f64));
    let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
    assert!(wait_until(WITHIN, || agent.metric(open) == 0.0));
}

#[test]
fn an_agent_that_does_not_answer_the_keepalive_is_given_up_with_its_dials() {
    let tunnel = Tunnel::server("http-connect", &["--keepalive-time=1s"]);
    let agent = tunnel.agent(&[]);
    tunnel.wait_ready();
    let echo = echo();
    let mut open = tunnel.connected(echo);
    round_trip(&mut open).unwrap();
    agent.process.stop();
    let mut stream = tunnel.socket();
    write!(stream, "CONNECT {echo} HTTP/1.1\r\n\r\n").unwrap();
    let answer = status(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains("the agent disconnected"), "{answer}");
    let _ = open.read_to_end(&mut Vec::new());
    assert_eq!(tunnel.ready().0, 500);
    // It comes back by itself.
    agent.process.signal("CONT");
    tunnel.wait_ready();
    round_trip(&mut tunnel.connected(echo)).unwrap();
}
