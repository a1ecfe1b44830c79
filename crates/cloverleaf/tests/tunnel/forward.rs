//! `tunnel forward`: bytes through a local port, a server and an agent, in both modes, with ends of ours and on the
//! original's wire.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::certs::Wanted;
use testkit::{Authority, Port, wait_until};

use crate::support::{
    Agent, Forward, Tunnel, WITHIN, echo, head, local, pattern, round_trip, source, target,
};

const MODES: [&str; 2] = ["grpc", "http-connect"];

/// A tunnel and a local port that leads to an address.
fn to(
    mode: &str,
    address: SocketAddr,
    flags: (&[&str], &[&str]),
) -> (Tunnel, Agent, Forward, Port) {
    let (tunnel, agent) = Tunnel::with_agent(mode, flags.0);
    let port = Port::reserve();
    let (listen, to) = (format!("--listen=127.0.0.1:{port}"), format!("--to={address}"));
    let flags: Vec<&str> = [&[listen.as_str(), &to], flags.1].concat();
    let forward = tunnel.forward(mode, &flags);
    (tunnel, agent, forward, port)
}

/// With ends of ours, with an agent, and with a client on the original's wire.
const WIRES: [(&[&str], &[&str]); 3] =
    [(&[], &[]), (&["--no-extensions"], &[]), (&[], &["--no-extensions"])];

#[test]
fn every_byte_arrives_in_both_directions() {
    for mode in MODES {
        for wire in WIRES {
            let (_tunnel, _agent, _forward, port) = to(mode, echo(), wire);
            let mut stream = local(&port);
            let sent = pattern(4 * 1024 * 1024 + 17);
            let mut writer = stream.try_clone().unwrap();
            let bytes = sent.clone();
            let writing = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
            let mut seen = vec![0; sent.len()];
            stream.read_exact(&mut seen).unwrap();
            writing.join().unwrap();
            assert!(seen == sent, "{mode} {wire:?}");
        }
    }
}

#[test]
fn a_server_that_goes_is_missed_by_no_new_connection_where_there_is_another() {
    for mode in MODES {
        let authority = Arc::new(Authority::new());
        let server = |id: &str| {
            let id = format!("--server-id={id}");
            Tunnel::server_of(authority.clone(), mode, &[&id, "--graceful-shutdown-timeout=20s"])
        };
        let (mut one, mut two) = (server("one"), server("two"));
        let hosts = format!(
            "--proxy-server-host={},{}",
            one.agent_port.address(),
            two.agent_port.address()
        );
        let _agent = one.agent(&[&hosts]);
        [&one, &two].into_iter().for_each(Tunnel::wait_ready);
        let port = Port::reserve();
        let flags = vec![
            "forward".to_owned(),
            format!("--server={},{}", one.grpc_address(), two.grpc_address()),
            format!("--mode={mode}"),
            format!("--listen=127.0.0.1:{port}"),
            format!("--to={}", echo()),
        ];
        let forward = one.forward_with(flags, Port::reserve());
        let all_go = || (0..10).for_each(|_| round_trip(&mut local(&port)).unwrap());
        all_go();
        // A roll-out: what is open goes on, what is new goes elsewhere.
        let mut kept = local(&port);
        round_trip(&mut kept).unwrap();
        one.server.signal("TERM");
        assert!(one.server.wait_log("stopping"));
        all_go();
        round_trip(&mut kept).unwrap();
        drop(kept);
        assert_eq!(one.server.wait_exit(), Some(0));
        all_go();
        assert!(forward.process.log().contains("connections go through this server"), "{mode}");
        one.restart();
        one.wait_ready();
        // What is there again is not gone back to, until it is needed: now at once.
        two.server.signal("KILL");
        two.server.wait_exit();
        all_go();
        assert!(wait_until(WITHIN, || forward.ready().0 == 200));
    }
}

#[test]
fn a_half_closed_connection_still_gets_its_reply() {
    for mode in MODES {
        let after_end = target(|mut stream| {
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            assert_eq!(heard.len(), 300_000);
            stream.write_all(&pattern(300_000)).unwrap();
        });
        let (tunnel, agent, forward, port) = to(mode, after_end, (&[], &[]));
        let mut stream = local(&port);
        stream.write_all(&pattern(300_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert!(reply == pattern(300_000), "{mode}: {} bytes", reply.len());
        // Everybody has forgotten it.
        let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
        assert!(wait_until(WITHIN, || agent.metric(open) == 0.0));
        let established = "konnectivity_network_proxy_server_established_connections";
        assert!(wait_until(WITHIN, || tunnel.metric(established) == 0.0));
        let open = "cloverleaf_tunnel_forward_connections_open";
        assert!(wait_until(WITHIN, || forward.metric(open) == 0.0));
    }
}

#[test]
fn a_target_that_speaks_first_is_heard_at_once() {
    for mode in MODES {
        let greets = target(|mut stream| {
            stream.write_all(b"220 hello\r\n").unwrap();
            let _ = stream.read(&mut [0]);
        });
        let (_tunnel, _agent, _forward, port) = to(mode, greets, (&[], &[]));
        let mut quickest = Duration::MAX;
        for _ in 0..50 {
            let start = Instant::now();
            let mut stream = local(&port);
            let mut greeting = [0; 11];
            stream.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"220 hello\r\n");
            quickest = quickest.min(start.elapsed());
        }
        // The server keeps greetings for clients of the original's library for 25 ms.
        assert!(quickest < Duration::from_millis(20), "{mode}: {quickest:?}");
    }
}

#[test]
fn over_tls_with_certificates_that_may_change() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let tunnel = Tunnel::over_tls(mode, &[]);
        let _agent = tunnel.agent(&[]);
        tunnel.wait_ready();
        let own = tunnel.clients().issue(&Wanted::client("client"));
        let (chain, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(&chain, &own.chain_pem).unwrap();
        std::fs::write(&key, &own.key_pem).unwrap();
        let port = Port::reserve();
        let arguments = vec![
            "forward".to_owned(),
            format!("--server={}", tunnel.grpc_address()),
            format!("--mode={mode}"),
            format!("--ca-cert={}", tunnel.authority.file().display()),
            format!("--client-cert={}", chain.display()),
            format!("--client-key={}", key.display()),
            "--server-name=localhost".to_owned(),
            format!("--listen=127.0.0.1:{port}"),
            format!("--to={}", echo()),
        ];
        let forward = tunnel.forward_with(arguments, Port::reserve());
        assert!(wait_until(WITHIN, || forward.ready().0 == 200));
        let mut before = local(&port);
        round_trip(&mut before).unwrap();
        // A certificate that the server does not accept.
        let other = testkit::Authority::new().issue(&Wanted::client("stranger"));
        std::fs::write(&chain, &other.chain_pem).unwrap();
        std::fs::write(&key, &other.key_pem).unwrap();
        let loaded = || forward.process.log().contains("new certificates");
        assert!(wait_until(WITHIN, loaded));
        let refused = || round_trip(&mut local(&port)).is_err();
        assert!(wait_until(WITHIN, refused), "{mode}: {}", forward.metrics());
        assert!(wait_until(WITHIN, || forward.ready().0 == 503));
        // What was there goes on, and the right one is right again.
        round_trip(&mut before).unwrap();
        std::fs::write(&chain, &own.chain_pem).unwrap();
        std::fs::write(&key, &own.key_pem).unwrap();
        assert!(wait_until(WITHIN, || round_trip(&mut local(&port)).is_ok()));
        round_trip(&mut before).unwrap();
        let reason = "reason=\"server\"";
        let failures = |line: &str| line.contains(reason) && !line.ends_with(" 0");
        assert!(forward.metrics().lines().any(failures), "{}", forward.metrics());
    }
}

#[test]
fn what_nobody_reads_holds_up_nobody() {
    for mode in MODES {
        let (tunnel, _agent) = Tunnel::with_agent(mode, &[]);
        let (to_echo, to_source, to_deaf) = (Port::reserve(), Port::reserve(), Port::reserve());
        let deaf = target(|_stream| std::thread::sleep(WITHIN));
        let mut flags = Vec::new();
        for (port, to) in [(&to_echo, echo()), (&to_source, source()), (&to_deaf, deaf)] {
            flags.extend([format!("--listen=127.0.0.1:{port}"), format!("--to={to}")]);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let forward = tunnel.forward(mode, &flags);
        let mut other = local(&to_echo);
        round_trip(&mut other).unwrap();
        let before = forward.process.memory_kib();
        let unread: Vec<_> = (0..12)
            .map(|_| {
                let mut stream = local(&to_source);
                stream.write_all(b"go").unwrap();
                stream
            })
            .collect();
        let mut writing = local(&to_deaf);
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
        for _ in 0..10 {
            let start = Instant::now();
            round_trip(&mut other).unwrap();
            round_trip(&mut local(&to_echo)).unwrap();
            assert!(start.elapsed() < Duration::from_secs(2), "{mode}: {:?}", start.elapsed());
        }
        let grown = forward.process.memory_kib().saturating_sub(before);
        assert!(grown < 64 * 1024, "{mode}: {grown} KiB");
        for mut stream in unread {
            let mut bytes = vec![0; 1_000_000];
            stream.read_exact(&mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 7));
        }
    }
}

#[test]
fn many_connections_at_once_and_nothing_left_behind() {
    for mode in MODES {
        let (tunnel, agent, forward, port) = to(mode, echo(), (&[], &[]));
        round_trip(&mut local(&port)).unwrap();
        let at_rest = forward.process.descriptors();
        // More than share one connection to the server.
        let mut streams: Vec<_> = (0..300).map(|_| local(&port)).collect();
        for stream in &mut streams {
            round_trip(stream).unwrap();
        }
        drop(streams);
        let open = "konnectivity_network_proxy_agent_open_endpoint_connections";
        assert!(wait_until(WITHIN, || agent.metric(open) == 0.0), "{}", agent.metrics());
        let established = "konnectivity_network_proxy_server_established_connections";
        assert!(wait_until(WITHIN, || tunnel.metric(established) == 0.0));
        // A few connections to the server are kept for a minute.
        let quiet = || forward.process.descriptors() <= at_rest + 4;
        assert!(
            wait_until(WITHIN, quiet),
            "{mode}: {} of {at_rest}",
            forward.process.descriptors()
        );
    }
}

#[test]
fn socks5_and_http_connect_lead_anywhere_that_the_agent_can_reach() {
    let (tunnel, _agent) = Tunnel::with_agent("grpc", &[]);
    let (socks, locked, http) = (Port::reserve(), Port::reserve(), Port::reserve());
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "leaf:green\n").unwrap();
    let (socks_flag, locked_flag) =
        (format!("--socks5=127.0.0.1:{socks}"), format!("--socks5=127.0.0.1:{locked}"));
    let http_flag = format!("--http-connect=127.0.0.1:{http}");
    let credentials = format!("--socks5-credentials={}", secret.path().display());
    let _forward = tunnel.forward("grpc", &[&socks_flag, &http_flag]);
    let with_login = tunnel.forward("grpc", &[&locked_flag, &credentials]);
    let to = echo();
    let name = format!("localhost:{}", to.port());
    let [high, low] = to.port().to_be_bytes();
    let request = [&b"\x05\x01\x00\x03\x09localhost"[..], &[high, low]].concat();

    let mut stream = local(&socks);
    stream.write_all(b"\x05\x01\x00").unwrap();
    stream.write_all(&request).unwrap();
    let mut replies = [0; 12];
    stream.read_exact(&mut replies).unwrap();
    assert_eq!(replies, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    round_trip(&mut stream).unwrap();

    let mut stream = local(&locked);
    stream.write_all(b"\x05\x01\x02\x01\x04leaf\x05green").unwrap();
    stream.write_all(&request).unwrap();
    let mut replies = [0; 14];
    stream.read_exact(&mut replies).unwrap();
    assert_eq!(replies[..6], [5, 2, 1, 0, 5, 0]);
    round_trip(&mut stream).unwrap();
    let mut stream = local(&locked);
    stream.write_all(b"\x05\x01\x02\x01\x04leaf\x04blue").unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    assert_eq!(replies, [5, 2, 1, 1]);
    assert_eq!(with_login.metric("cloverleaf_tunnel_forward_unasked_total"), 1.0);
    assert!(!with_login.process.log().contains("green"));

    // What cannot be reached has its code.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [high, low] = nobody.port().to_be_bytes();
    let mut stream = local(&socks);
    stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low]).unwrap();
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).unwrap();
    assert_eq!(replies[..4], [5, 0, 5, 5]);

    let mut stream = local(&http);
    write!(stream, "CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\nx").unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 200 Connection Established\r\n"));
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    round_trip(&mut stream).unwrap();
    for (request, status) in [
        (format!("CONNECT {nobody} HTTP/1.1\r\n\r\n"), "502"),
        ("GET http://a.test/ HTTP/1.1\r\n\r\n".to_owned(), "405"),
    ] {
        let mut stream = local(&http);
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert_eq!(reply.split(' ').nth(1), Some(status), "{reply}");
    }
}

#[test]
fn a_cluster_is_its_agents_whatever_the_strategies_say() {
    for mode in MODES {
        let tunnel = Tunnel::server(mode, &[]);
        let _one = tunnel.agent(&["--agent-identifiers=host=one"]);
        let _two = tunnel.agent(&["--agent-identifiers=host=two"]);
        let ready = "konnectivity_network_proxy_server_ready_backend_connections";
        assert!(wait_until(WITHIN, || tunnel.metric(ready) == 2.0));
        let to = echo();
        let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
        let mut flags = Vec::new();
        for (port, cluster) in ports.iter().zip(["one/", "nowhere/", ""]) {
            flags.extend([format!("--listen=127.0.0.1:{port}"), format!("--to={cluster}{to}")]);
        }
        flags.push("--cluster=two".to_owned());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let forward = tunnel.forward(mode, &flags);
        let count = |agent: &Agent| {
            let dials = "konnectivity_network_proxy_agent_dial_duration_seconds_count";
            agent.metric(dials)
        };
        for _ in 0..5 {
            round_trip(&mut local(&ports[0])).unwrap();
            round_trip(&mut local(&ports[2])).unwrap();
        }
        assert_eq!((count(&_one), count(&_two)), (5.0, 5.0));
        assert!(round_trip(&mut local(&ports[1])).is_err());
        let failed = |line: &str| line.contains("reason=\"no_agent\"") && line.ends_with(" 1");
        assert!(forward.metrics().lines().any(failed), "{}", forward.metrics());
    }
}
