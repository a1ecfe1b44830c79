//! How connections of `tunnel forward` end where something goes: never in what looks like an end in order.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use testkit::command::run;
use testkit::{Port, wait_until};

use crate::support::{Agent, Forward, Tunnel, WITHIN, echo, local, round_trip, target};

const MODES: [&str; 2] = ["grpc", "http-connect"];

fn to(mode: &str, address: SocketAddr, more: &[&str]) -> (Tunnel, Agent, Forward, Port) {
    let (tunnel, agent) = Tunnel::with_agent(mode, &[]);
    let port = Port::reserve();
    let (listen, to) = (format!("--listen=127.0.0.1:{port}"), format!("--to={address}"));
    let forward = tunnel.forward(mode, &[&[listen.as_str(), &to], more].concat());
    (tunnel, agent, forward, port)
}

/// Tells how each of its connections ended, after one byte.
fn witness() -> (SocketAddr, mpsc::Receiver<Result<usize, ErrorKind>>) {
    // A test has a connection or two.
    const ENDS_MAX: usize = 16;
    let (tell, told) = mpsc::sync_channel(ENDS_MAX);
    let address = target(move |mut stream| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
            let _ = tell.send(stream.read(&mut byte).map_err(|error| error.kind()));
        }
    });
    (address, told)
}

fn close_with_reset(stream: std::net::TcpStream) {
    let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.unwrap();
}

#[test]
fn an_agent_or_a_server_that_is_killed_is_a_reset_for_both_sides() {
    for mode in MODES {
        for who in ["agent", "server"] {
            let (witness, told) = witness();
            let (tunnel, agent, forward, port) = to(mode, witness, &[]);
            let mut stream = local(&port);
            round_trip(&mut stream).unwrap();
            let killed = if who == "agent" { &agent.process } else { &tunnel.server };
            killed.signal("KILL");
            let ended = stream.read(&mut [0]);
            // A Unix socket whose bytes are the connection's own knows no reset.
            if (mode, who) != ("http-connect", "server") && (mode, who) != ("http-connect", "agent")
            {
                let kind = ended.map_err(|error| error.kind());
                assert_eq!(kind, Err(ErrorKind::ConnectionReset), "{mode}, {who}");
            }
            if who == "server" {
                let kind = told.recv_timeout(WITHIN).unwrap();
                assert_eq!(kind, Err(ErrorKind::ConnectionReset), "{mode}");
                assert!(wait_until(WITHIN, || forward.ready().0 == 503));
            }
        }
    }
}

#[test]
fn a_reset_is_one_on_the_other_side_too() {
    for mode in MODES {
        let resets = target(|mut stream| {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
            if stream.read(&mut byte).is_ok() {
                close_with_reset(stream);
            }
        });
        let (_tunnel, _agent, _forward, port) = to(mode, resets, &[]);
        let mut stream = local(&port);
        round_trip(&mut stream).unwrap();
        stream.write_all(b"x").unwrap();
        let ended = stream.read(&mut [0]);
        if mode == "grpc" {
            assert_eq!(ended.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
        }
    }
    let (witness, told) = witness();
    let (_tunnel, _agent, forward, port) = to("grpc", witness, &[]);
    let mut stream = local(&port);
    round_trip(&mut stream).unwrap();
    close_with_reset(stream);
    assert_eq!(told.recv_timeout(WITHIN).unwrap(), Err(ErrorKind::ConnectionReset));
    // So it is when the whole program goes.
    let mut stream = local(&port);
    round_trip(&mut stream).unwrap();
    forward.process.signal("KILL");
    assert_eq!(told.recv_timeout(WITHIN).unwrap(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_close_in_order_is_one_on_the_other_side_too() {
    for mode in MODES {
        let (witness, told) = witness();
        let (_tunnel, _agent, _forward, port) = to(mode, witness, &[]);
        let mut stream = local(&port);
        round_trip(&mut stream).unwrap();
        drop(stream);
        assert_eq!(told.recv_timeout(WITHIN).unwrap(), Ok(0), "{mode}");
    }
}

#[test]
fn a_program_that_leaves_while_its_dial_waits_is_forgotten() {
    for mode in MODES {
        let full = testkit::Deaf::listen();
        let (tunnel, _agent, _forward, port) = to(mode, full.address(), &[]);
        let stream = local(&port);
        let pending = "konnectivity_network_proxy_server_pending_backend_dials";
        assert!(wait_until(WITHIN, || tunnel.metric(pending) == 1.0));
        let start = Instant::now();
        close_with_reset(stream);
        assert!(wait_until(WITHIN, || tunnel.metric(pending) == 0.0));
        assert!(start.elapsed() < Duration::from_secs(4), "{mode}: {:?}", start.elapsed());
    }
}

#[test]
fn a_server_that_comes_later_is_waited_for_and_its_absence_said_once() {
    for mode in MODES {
        let (mut tunnel, _agent) = Tunnel::with_agent(mode, &[]);
        tunnel.server.signal("TERM");
        assert_eq!(tunnel.server.wait_exit(), Some(0));
        let port = Port::reserve();
        let (listen, to) = (format!("--listen=127.0.0.1:{port}"), format!("--to={}", echo()));
        let forward = tunnel.forward(mode, &[&listen, &to]);
        let said = "the server cannot be reached; trying on";
        assert!(forward.process.wait_log(said));
        assert_eq!(forward.ready(), (503, "the server cannot be reached".to_owned()));
        let ended = local(&port).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        std::thread::sleep(Duration::from_millis(2500));
        tunnel.restart();
        tunnel.wait_ready();
        assert!(wait_until(WITHIN, || forward.ready().0 == 200));
        round_trip(&mut local(&port)).unwrap();
        assert_eq!(forward.process.log().matches(said).count(), 1);
    }
}

#[test]
fn it_drains_as_long_as_it_may() {
    for mode in MODES {
        let (_tunnel, _agent, mut forward, port) = to(mode, echo(), &[]);
        let mut stream = local(&port);
        round_trip(&mut stream).unwrap();
        forward.process.signal("TERM");
        let refuses = || std::net::TcpStream::connect(port.address()).is_err();
        assert!(wait_until(WITHIN, refuses));
        round_trip(&mut stream).unwrap();
        drop(stream);
        assert_eq!(forward.process.wait_exit(), Some(0));
        let short = ["--graceful-shutdown-timeout=200ms"];
        let (_tunnel, _agent, mut forward, port) = to(mode, echo(), &short);
        let mut stream = local(&port);
        round_trip(&mut stream).unwrap();
        forward.process.signal("TERM");
        assert_eq!(forward.process.wait_exit(), Some(0));
        assert!(forward.process.wait_log("stopped with connections open"));
    }
}

#[test]
fn what_is_wrong_with_its_flags_is_named() {
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let used = used.local_addr().unwrap().to_string();
    let server = "--server=unix:/does/not/exist";
    let none = "--health-port=0";
    for (arguments, code, parts) in [
        (&["--listen=127.0.0.1:0"][..], 2, &["--server"][..]),
        (&["--server=hub", "--socks5=127.0.0.1:0"], 2, &["--server", "hub", "host:port, or unix:"]),
        (&["--server=a:1,a:1", "--socks5=127.0.0.1:0"], 2, &["--server", "a:1,a:1", "commas"]),
        (&[server], 2, &["no local port", "--listen", "--socks5", "--http-connect"]),
        (&[server, "--listen=127.0.0.1:0"], 2, &["--listen", "--to", "1 and 0"]),
        (&[server, "--listen=localhost", "--to=a:1"], 2, &["--listen"]),
        (&[server, "--listen=127.0.0.1:0", "--to=a"], 2, &["--to", "\"a\"", "host:port"]),
        (&[server, "--listen=127.0.0.1:0", "--to=a b/c:1"], 2, &["--to", "a b", "cluster"]),
        (&[server, "--listen=127.0.0.1:0", "--to=a:1", "--cluster=/"], 2, &["--cluster"]),
        (
            &[server, "--listen=udp://127.0.0.1:0", "--to=a:1", "--mode=http-connect"],
            2,
            &["--listen", "udp://", "--mode=grpc"],
        ),
        (&[server, "--socks5=127.0.0.1:0", "--mode=socks"], 2, &["--mode", "socks"]),
        (&[server, "--socks5=127.0.0.1:0", "--ca-cert=x"], 2, &["Unix socket", "no TLS"]),
        (
            &["--server=hub.test:1", "--socks5=127.0.0.1:0", "--client-cert=x"],
            2,
            &["--client-cert", "--client-key", "both"],
        ),
        (
            &["--server=hub.test:1", "--socks5=127.0.0.1:0", "--ca-cert=/does/not/exist"],
            2,
            &["/does/not/exist"],
        ),
        (
            &[server, "--socks5=127.0.0.1:0", "--socks5-credentials=/does/not/exist"],
            2,
            &["--socks5-credentials", "/does/not/exist"],
        ),
        (&[server, none, "--to=a:1", "--listen", &used], 1, &["--listen", &used, "in use"]),
    ] {
        let arguments: Vec<&str> = ["tunnel", "forward"].iter().chain(arguments).copied().collect();
        let ran = run(env!("CARGO_BIN_EXE_cloverleaf"), &arguments, Path::new("/"), &[]);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{arguments:?} lacks {part}: {}", ran.stderr);
        }
    }
}
