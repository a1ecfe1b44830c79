//! UDP through `tunnel forward`: datagrams stay what they were.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use testkit::{Port, wait_until};

use crate::support::{Tunnel, WITHIN, pattern};

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    socket
}

/// Sends each datagram back to whom it came from.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

#[test]
fn datagrams_go_there_and_back_as_they_are() {
    let (tunnel, agent) = Tunnel::with_agent("grpc", &["--agent-identifiers=host=one"]);
    let port = Port::reserve();
    let flags = [
        format!("--listen=udp://127.0.0.1:{port}"),
        format!("--to=one/{}", echo()),
        "--udp-idle-timeout=500ms".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let forward = tunnel.forward("grpc", &flags);
    let (one, two) = (socket(), socket());
    for socket in [&one, &two] {
        socket.connect(port.address()).unwrap();
        socket.send(b"hello").unwrap();
        assert_eq!(receive(socket), b"hello");
    }
    // Of any length, nothing put together and nothing cut.
    for length in [0, 1, 1200, 9000, 60_000, 65_507] {
        one.send(&pattern(length)).unwrap();
        two.send(b"two").unwrap();
        assert!(receive(&one) == pattern(length), "{length}");
        assert_eq!(receive(&two), b"two");
    }
    let small: Vec<Vec<u8>> = (1..40_usize).map(pattern).collect();
    for datagram in &small {
        one.send(datagram).unwrap();
    }
    for datagram in &small {
        assert!(receive(&one) == *datagram);
    }
    // Who sends nothing is forgotten, at both ends.
    let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
    assert!(wait_until(WITHIN, || agent.metric(open) == 0.0));
    let senders = "cloverleaf_tunnel_forward_connections_open";
    assert!(wait_until(WITHIN, || forward.metric(senders) == 0.0));
    one.send(b"again").unwrap();
    assert_eq!(receive(&one), b"again");
}

#[test]
fn more_than_there_is_room_for_is_dropped_and_nothing_else_suffers() {
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let (port, other) = (Port::reserve(), Port::reserve());
    // A sink that nobody reads, and an echo.
    let sink = socket();
    let flags = [
        format!("--listen=udp://127.0.0.1:{port}"),
        format!("--to={}", sink.local_addr().unwrap()),
        format!("--listen=udp://127.0.0.1:{other}"),
        format!("--to={}", echo()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let forward = tunnel.forward("grpc", &flags);
    let (flood, quiet) = (socket(), socket());
    flood.connect(port.address()).unwrap();
    quiet.connect(other.address()).unwrap();
    let before = forward.process.memory_kib();
    for _ in 0..20_000 {
        let _ = flood.send(&[7; 1400]);
    }
    quiet.send(b"x").unwrap();
    assert_eq!(receive(&quiet), b"x");
    let grown = forward.process.memory_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB");
}

#[test]
fn an_agent_on_the_originals_wire_refuses() {
    let (tunnel, agent) = Tunnel::with_agent("grpc", &["--no-extensions"]);
    let port = Port::reserve();
    let (listen, to) = (format!("--listen=udp://127.0.0.1:{port}"), format!("--to={}", echo()));
    let forward = tunnel.forward("grpc", &[&listen, &to]);
    let one = socket();
    one.connect(port.address()).unwrap();
    one.send(b"x").unwrap();
    let refused = || forward.process.log().contains("unknown network");
    assert!(wait_until(WITHIN, refused));
    one.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(one.recv(&mut [0; 8]).is_err());
    let failed = "konnectivity_network_proxy_agent_endpoint_dial_failure_total{reason=\"unknown\"}";
    assert!(agent.metric(failed) >= 1.0);
}
