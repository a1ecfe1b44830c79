//! One connection that nobody reads must not hold up another.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::{Agent, Tunnel, WITHIN, echo, pattern, round_trip, source, target};
use testkit::wait_until;

/// Far below the 8 to 40 seconds of the original, far above what a busy machine takes.
const SOON: Duration = Duration::from_secs(4);
/// Much more than every bound on the way.
const MEMORY_GROWTH_KIB_MAX: u64 = 48 * 1024;

/// By how much the memory of one of the two has grown at most, in KiB.
fn growth(before: (u64, u64), tunnel: &Tunnel, agent: &Agent) -> u64 {
    let server = tunnel.server.memory_kib().saturating_sub(before.0);
    server.max(agent.process.memory_kib().saturating_sub(before.1))
}

#[test]
fn an_unread_client_holds_up_nobody() {
    let (tunnel, agent) = Tunnel::with_agent("http-connect", &[]);
    let (echo, source) = (echo(), source());
    let mut other = tunnel.connected(echo);
    round_trip(&mut other).unwrap();
    let before = (tunnel.server.memory_kib(), agent.process.memory_kib());
    let unread: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = tunnel.connected(source);
            stream.write_all(b"go").unwrap();
            stream
        })
        .collect();
    // Every buffer on the way is full when nothing comes from the agent any more.
    let name = "konnectivity_network_proxy_server_stream_packets_total\
                {segment=\"from_agent\",packet_type=\"DATA\"}";
    let mut last = -1.0;
    let still = || {
        std::thread::sleep(Duration::from_millis(300));
        let now = tunnel.metric(name);
        std::mem::replace(&mut last, now) == now
    };
    assert!(wait_until(WITHIN, still), "what nobody reads goes on coming");
    for _ in 0..20 {
        let start = Instant::now();
        round_trip(&mut other).unwrap();
        round_trip(&mut tunnel.connected(echo)).unwrap();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
    let grown = growth(before, &tunnel, &agent);
    assert!(grown < MEMORY_GROWTH_KIB_MAX, "{grown} KiB");
    // And they are whole once somebody reads.
    for mut stream in unread {
        let mut bytes = vec![0; 1_000_000];
        stream.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn a_target_that_does_not_read_holds_up_nobody() {
    let (tunnel, agent) = Tunnel::with_agent("http-connect", &[]);
    let deaf = target(|_stream| std::thread::sleep(WITHIN));
    let before = (tunnel.server.memory_kib(), agent.process.memory_kib());
    let mut writing = tunnel.connected(deaf);
    writing.set_nonblocking(true).unwrap();
    let bytes = pattern(65_536);
    let full = || {
        std::thread::sleep(Duration::from_millis(200));
        let mut wrote = false;
        while writing.write(&bytes).is_ok() {
            wrote = true;
        }
        !wrote
    };
    assert!(wait_until(WITHIN, full));
    let grown = growth(before, &tunnel, &agent);
    assert!(grown < MEMORY_GROWTH_KIB_MAX, "{grown} KiB");
    let echo = echo();
    for _ in 0..10 {
        let start = Instant::now();
        round_trip(&mut tunnel.connected(echo)).unwrap();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn on_the_originals_wire_the_unread_connection_alone_is_closed() {
    let (tunnel, agent) = Tunnel::with_agent("http-connect", &["--no-extensions"]);
    let echo = echo();
    let mut other = tunnel.connected(echo);
    round_trip(&mut other).unwrap();
    let before = (tunnel.server.memory_kib(), agent.process.memory_kib());
    let mut unread = tunnel.connected(source());
    unread.write_all(b"go").unwrap();
    let said = "what has arrived for them was not read";
    assert!(tunnel.server.wait_log(said));
    let start = Instant::now();
    round_trip(&mut other).unwrap();
    round_trip(&mut tunnel.connected(echo)).unwrap();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let grown = growth(before, &tunnel, &agent);
    assert!(grown < MEMORY_GROWTH_KIB_MAX, "{grown} KiB");
    // What had arrived may be read; then it ends.
    let mut rest = Vec::new();
    let _ = unread.read_to_end(&mut rest);
    assert!(rest.len() < 64 * 1024 * 1024);
}

#[test]
fn on_the_originals_wire_a_slow_reader_gets_every_byte() {
    let (tunnel, _agent) = Tunnel::with_agent("http-connect", &["--no-extensions"]);
    const BYTES: usize = 6 * 1024 * 1024;
    let says_and_goes = target(|mut stream| stream.write_all(&pattern(BYTES)).unwrap());
    let mut stream = tunnel.connected(says_and_goes);
    let (mut seen, mut piece) = (Vec::new(), vec![0; 128 * 1024]);
    loop {
        let count = stream.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..count]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(seen == pattern(BYTES), "{} bytes", seen.len());
}

#[test]
fn on_the_originals_wire_a_deaf_target_alone_is_closed() {
    let (tunnel, agent) = Tunnel::with_agent("http-connect", &["--no-extensions"]);
    let (echo, deaf) = (echo(), target(|_stream| std::thread::sleep(WITHIN)));
    let mut other = tunnel.connected(echo);
    round_trip(&mut other).unwrap();
    let before = (tunnel.server.memory_kib(), agent.process.memory_kib());
    let mut writing = tunnel.connected(deaf);
    let bytes = pattern(65_536);
    // Until it is closed from the other side.
    while writing.write_all(&bytes).is_ok() {}
    assert!(agent.process.wait_log("what has arrived for them was not read"));
    let grown = growth(before, &tunnel, &agent);
    assert!(grown < MEMORY_GROWTH_KIB_MAX, "{grown} KiB");
    let start = Instant::now();
    round_trip(&mut other).unwrap();
    round_trip(&mut tunnel.connected(echo)).unwrap();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}
