//! Connections between hosts of our kind that are used again: for whom, until when, and byte for byte.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use testkit::certs::Wanted;
use testkit::{Authority, Network, wait_until};

use crate::support::*;

const MAPPINGS: &str = "61000:30000:100:false\n";
/// Longer than a kept connection rests with who asks.
const RESTED: Duration = Duration::from_secs(8);

/// A connection of a client on host 1, which ends what it says first.
fn one(network: &Network) {
    let mut stream = client(network, 1);
    send_all(&mut stream, b"hello");
    assert_eq!(read_all(&mut stream), "p2hello");
}

fn asked_again(network: &Network, mesh: &Mesh) -> f64 {
    let host = network.address(2);
    mesh.metric(&format!("cloverleaf_mesh_host_asked_again_total{{host=\"{host}:{PEER_PORT}\"}}"))
}

#[test]
fn a_connection_to_another_host_serves_one_client_after_the_other() {
    const CLIENTS: usize = 40;
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let meshes = [Start::new(&network, 1, "").start(), Start::new(&network, 2, MAPPINGS).start()];
    let before = meshes.each_ref().map(|mesh| mesh.descriptors());
    (0..CLIENTS).for_each(|_| one(&network));
    // The first of each worker makes one.
    let again = asked_again(&network, &meshes[0]);
    assert!(again >= CLIENTS as f64 - 8.0, "{again} of {CLIENTS}");
    meshes[1].wait_metric(
        "cloverleaf_mesh_peer_requests_total{cluster_port=\"61000\",result=\"ok\"}",
        CLIENTS as f64,
    );
    // Nothing rests for long.
    for (mesh, before) in meshes.iter().zip(before) {
        assert!(wait_until(RESTED, || mesh.descriptors() <= before), "{}", mesh.descriptors());
    }
}

#[test]
fn whoever_ends_first_and_however_much_is_said_every_byte_arrives() {
    const BYTES: usize = 3 << 20;
    let Some(network) = Network::new(2) else { return };
    // It says as much as it is told, and ends.
    let _talker = Server::new(&network, 2, 30_000, |mut stream| {
        let mut wanted = [0; 4];
        stream.read_exact(&mut wanted).unwrap();
        let wanted = u32::from_be_bytes(wanted) as usize;
        let bytes: Vec<u8> = (0..wanted).map(|at| at as u8).collect();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    });
    let _pod = Server::pod(&network, 2, 30_001, "");
    let mappings = "61000:30000:1:false 61001:30001:1:false\n";
    let _meshes = [Start::new(&network, 1, "").start(), Start::new(&network, 2, mappings).start()];
    let expected: Vec<u8> = (0..BYTES).map(|at| at as u8).collect();
    for bytes in [0, 1, 65_536, 300_000, BYTES, 7].repeat(2) {
        // The server ends first; its place is free as soon as the client has ended too.
        let free = wait_until(WITHIN, || {
            let mut stream = client(&network, 1);
            let mut got = Vec::new();
            stream.write_all(&(bytes as u32).to_be_bytes()).unwrap();
            stream.read_to_end(&mut got).is_ok_and(|_| got == expected[..bytes])
        });
        assert!(free, "{bytes} bytes down");
        // The client ends first.
        let sent = wait_until(WITHIN, || {
            let mut stream = connect(&network, 1, (network.address(1), 61_001));
            let mut got = Vec::new();
            let mut writes = stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = writes.write_all(&expected[..bytes]);
                    let _ = writes.shutdown(Shutdown::Write);
                });
                stream.read_to_end(&mut got).is_ok_and(|_| got == expected[..bytes])
            })
        });
        assert!(sent, "{bytes} bytes up and down");
    }
}

#[test]
fn a_host_that_stops_waits_for_nothing_that_rests_and_nobody_notices() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let first = Start::new(&network, 1, "").start();
    let mut second = Start::new(&network, 2, MAPPINGS).start();
    for _ in 0..3 {
        (0..10).for_each(|_| one(&network));
        let begun = Instant::now();
        second.signal("TERM");
        assert_eq!(second.wait_exit(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        second = Start::new(&network, 2, MAPPINGS).start();
        one(&network);
    }
    assert!(asked_again(&network, &first) >= 20.0);
}

#[test]
fn what_is_secured_is_used_again_until_certificates_change() {
    const CLIENTS: f64 = 20.0;
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let authority = Authority::new();
    let wanted = |host| Wanted::peer(&[&network.address(host).to_string()]);
    let meshes = [(1, ""), (2, MAPPINGS)].map(|(host, mappings)| {
        let start = Start::new(&network, host, mappings).settings("SECURITY required");
        start.certified(&authority, &wanted(host)).start()
    });
    let handshakes = |mesh: &Mesh| {
        ["full", "resumed"].map(|result| {
            let labels = format!("{{direction=\"in\",result=\"{result}\"}}");
            mesh.metric(&format!("cloverleaf_mesh_handshakes_total{labels}"))
        })
    };
    let made = |mesh: &Mesh| handshakes(mesh).iter().sum::<f64>();
    (0..20).for_each(|_| one(&network));
    let (again, before) = (asked_again(&network, &meshes[0]), made(&meshes[1]));
    assert!(again >= CLIENTS - 8.0 && before <= 12.0, "{again} of {CLIENTS}, {before} handshakes");
    // Who has another certificate now shows it.
    let issued = authority.issue(&wanted(1));
    meshes[0].replace("svid_key.pem", &issued.key_pem);
    meshes[0].replace("svid.pem", &issued.chain_pem);
    let renewed = wait_until(Duration::from_secs(4), || {
        one(&network);
        made(&meshes[1]) > before
    });
    assert!(renewed, "{before} handshakes");
}

#[test]
fn frames_byte_for_byte() {
    const ANSWER: &str = "SENDPROXY=false FRAMES\r\n";
    const END: &[u8] = b"\0\0\0\0";
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mesh = Start::new(&network, 1, "61000:30000:2:false 61001:30000:1:true\n").start();
    let mut stream = ask(&network, KEEPING_REQUEST);
    let mut next = |said: &[u8], heard: &str| {
        stream.write_all(said).unwrap();
        assert_eq!(read(&mut stream, heard.len()), heard, "{said:?}");
    };
    next(b"", ANSWER);
    next(b"", "\0\0\0\x02p1");
    next(b"\0\0\0\x05hello", "\0\0\0\x05hello");
    next(END, "\0\0\0\0");
    // What it does not have it says, and hears the next question.
    next(b"PROXY TCP4 1.2.3.4 1.2.3.4 124 62000\r\n", "NONE\r\n");
    next(b"PROXY TCP4 1.2.3.4 1.2.3.4 124 61001\r\n", "SENDPROXY=true FRAMES\r\n\0\0\0\x02p1");
    // The end, and what comes with it.
    next(&[END, KEEPING_REQUEST].concat(), &format!("\0\0\0\0{ANSWER}\0\0\0\x02p1"));
    // One that keeps nothing may follow, and ends it as ever.
    next(&[END, REQUEST].concat(), "\0\0\0\0SENDPROXY=false\r\np1");
    next(b"plain", "plain");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), "");
    // From some size on there are no frames any more.
    let mut stream = ask(&network, KEEPING_REQUEST);
    assert_eq!(read(&mut stream, ANSWER.len() + 6), format!("{ANSWER}\0\0\0\x02p1"));
    stream.write_all(b"\0\0\0\x03abc\xff\xff\xff\xff\0\0\0\0raw").unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"raw") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    assert_eq!(got.iter().filter(|byte| byte.is_ascii_alphabetic()).count(), 6, "{got:?}");
    mesh.wait_metric(
        "cloverleaf_mesh_peer_requests_total{cluster_port=\"0\",result=\"none\"}",
        1.0,
    );
}

#[test]
fn what_are_no_frames_breaks_the_connection_off_and_no_other() {
    let Some(network) = Network::new(2) else { return };
    // What a pod has heard when its connection ends, and whether it ended in order.
    let (tell, told) = std::sync::mpsc::sync_channel(16);
    let _pod = Server::new(&network, 1, 30_000, move |mut stream| {
        let mut heard = Vec::new();
        let ended = stream.read_to_end(&mut heard).is_ok();
        tell.send((String::from_utf8_lossy(&heard).into_owned(), ended)).unwrap();
    });
    let mesh = Start::new(&network, 1, MAPPINGS).start();
    let beside = ask(&network, KEEPING_REQUEST);
    let behind = [b"\0\0\0\0".as_slice(), &[b'x'; 57]].concat();
    let cases: [(&[u8], &str); 4] = [
        (b"\0\x10\0\x01too long", ""),
        (b"GET / HTTP/1.1\r\n\r\n", ""),
        (b"\0\0\0\x05cut", "cut"),
        (b"\0\0\0\x05whole", "whole"),
    ];
    for (said, heard) in cases {
        let mut stream = ask(&network, KEEPING_REQUEST);
        read(&mut stream, "SENDPROXY=false FRAMES\r\n".len());
        stream.write_all(said).unwrap();
        // Without its end the direction has broken off, whatever the socket says.
        let _ = stream.shutdown(Shutdown::Write);
        let (got, ended) = told.recv_timeout(WITHIN).unwrap();
        assert!(heard.starts_with(&got) && !ended, "{said:?}: {got:?}, in order: {ended}");
    }
    let mut stream = ask(&network, KEEPING_REQUEST);
    read(&mut stream, "SENDPROXY=false FRAMES\r\n".len());
    stream.write_all(&behind).unwrap();
    told.recv_timeout(WITHIN).unwrap();
    assert!(stream.read_to_end(&mut Vec::new()).is_err());
    drop(beside);
    assert_eq!(told.recv_timeout(WITHIN).unwrap(), (String::new(), false));
    let open = "cloverleaf_mesh_pod_connections_open{cluster_port=\"61000\",host_port=\"30000\"}";
    mesh.wait_metric(open, 0.0);
}

#[test]
fn it_can_be_turned_off_on_either_side() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    for off in [1, 2] {
        let settings = |host| if host == off { "KEEPTUNNELS off" } else { "" };
        let meshes = [(1, ""), (2, MAPPINGS)].map(|(host, mappings)| {
            Start::new(&network, host, mappings).settings(settings(host)).start()
        });
        (0..10).for_each(|_| one(&network));
        assert_eq!(asked_again(&network, &meshes[0]), 0.0, "off on host {off}");
    }
}
