//! What a client of a cluster port sees: which pod it gets, and which bytes.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use testkit::Network;

use crate::support::*;

const MAPPING: &str = "61000:30000:100:false\n";
const HEADER_MAPPING: &str = "61000:30000:100:true\n";

#[test]
fn own_pods_come_first_and_other_hosts_share() {
    let Some(network) = Network::new(3) else { return };
    let _pods = [Server::pod(&network, 1, 30_000, "p1"), Server::pod(&network, 2, 30_000, "p2")];
    let _meshes: Vec<Mesh> = [MAPPING, MAPPING, ""]
        .into_iter()
        .zip(1..)
        .map(|(mappings, host)| Start::new(&network, host, mappings).start())
        .collect();
    for host in [1, 2] {
        for _ in 0..10 {
            assert_eq!(greeting(&network, host), Some(format!("p{host}")));
        }
    }
    let seen: Vec<String> = (0..40).map(|_| greeting(&network, 3).unwrap()).collect();
    let first = seen.iter().filter(|pod| *pod == "p1").count();
    assert!((5..=35).contains(&first), "{first} of 40");
}

#[test]
fn bytes_pass_both_ways_and_each_direction_ends_by_itself() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let _one = Start::new(&network, 1, "").start();
    let _two = Start::new(&network, 2, MAPPING).start();
    for host in [1, 2] {
        let mut stream = client(&network, host);
        let much = "0123456789abcdef".repeat(64 * 1024);
        let mut writer = stream.try_clone().unwrap();
        let sent = much.clone();
        let writes = std::thread::spawn(move || send_all(&mut writer, sent.as_bytes()));
        let got = read_all(&mut stream);
        writes.join().unwrap();
        assert!(got == format!("p2{much}"), "{} bytes", got.len());
    }
}

#[test]
fn the_host_next_door_may_be_reached_by_ipv6_alone() {
    let Some(network) = Network::new(2) else { return };
    let hosts = "[fd98::1]:32767\n[fd98::2]:32767\n";
    let pod = SocketAddr::new(network.address_v6(2), 30_000);
    let _pod = Server::at(&network, 2, pod, |stream| echo(stream, ""));
    let start = |host: u8, mappings| {
        let start = Start::new(&network, host, mappings).file("hosts.conf", hosts);
        start.file("proxy.conf", &format!("HOST fd98::{host}\n")).start()
    };
    let (_one, _two) = (start(1, ""), start(2, HEADER_MAPPING));
    let mut stream = connect(&network, 1, (network.address_v6(1), 61_000));
    let port = stream.local_addr().unwrap().port();
    send_all(&mut stream, b"hello");
    let expected = format!("PROXY TCP6 fd98::1 fd98::1 {port} 61000\r\nhello");
    assert_eq!(read_all(&mut stream), expected);
}

#[test]
fn headers_are_added_passed_and_removed() {
    let Some(network) = Network::new(3) else { return };
    // Cluster port 61000 wants a header, 61001 does not; on the own host and on an original one.
    let _pods: Vec<Server> = (30_000..30_002).map(|p| Server::pod(&network, 1, p, "")).collect();
    let own = "61000:30000:9:true 61001:30001:9:false\n";
    let _own = Start::new(&network, 1, own).start();
    let _far =
        Start::new(&network, 2, "").file("hosts.conf", &hosts_conf(&network, [2, 3])).start();
    let v2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02";
    let headers: [&[u8]; 4] = [
        b"PROXY TCP4 9.9.9.9 8.8.8.8 7 6\r\n",
        b"PROXY TCP6 ::9 ::8 7 6\r\n",
        b"PROXY UNKNOWN\r\n",
        v2,
    ];
    for wants in [true, false] {
        let answer: &[u8] = if wants { b"SENDPROXY=true\r\n" } else { b"SENDPROXY=false\r\n" };
        let _original = Original::new(&network, 3, answer, Then::Echo);
        for host in [1, 2] {
            let to = (network.address(host), if wants { 61_000 } else { 61_001 });
            for header in headers {
                for split in [0, 3, header.len()] {
                    let mut stream = connect(&network, host, to);
                    let sent = [header, b"data"].concat();
                    stream.write_all(&sent[..split]).unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                    send_all(&mut stream, &sent[split..]);
                    let expected = if wants { &sent[..] } else { b"data" };
                    assert_eq!(read_all(&mut stream).as_bytes(), expected, "{wants} host {host}");
                }
            }
            for silent in [false, true] {
                let mut stream = connect(&network, host, to);
                let (address, port) = (network.address(host), stream.local_addr().unwrap().port());
                let own = format!("PROXY TCP4 {address} {address} {port} {}\r\n", to.1);
                let own = if wants { own } else { String::new() };
                if silent {
                    // A server that speaks first gets its header though the client says nothing.
                    assert_eq!(read(&mut stream, own.len()), own);
                }
                send_all(&mut stream, b"data");
                let rest = read_all(&mut stream);
                let expected = if silent { "data".to_owned() } else { format!("{own}data") };
                assert_eq!(rest, expected, "{wants} host {host}");
            }
        }
    }
}

#[test]
fn only_trusted_clients_set_a_source_address_and_some_ports_carry_no_headers() {
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "");
    let settings = "TRUSTED 10.1.0.0/16\nNOHEADER 61001\nHEADERWAIT 10000";
    let mappings = "61000:30000:9:true 61001:30000:9:true\n";
    let _mesh = Start::new(&network, 1, mappings).settings(settings).start();
    let sent = "PROXY TCP4 9.9.9.9 8.8.8.8 7 6\r\ndata";
    for (cluster_port, payload) in [(61_000, "data"), (61_001, sent)] {
        let mut stream = connect(&network, 1, (network.address(1), cluster_port));
        let (address, port) = (network.address(1), stream.local_addr().unwrap().port());
        let own = format!("PROXY TCP4 {address} {address} {port} {cluster_port}\r\n");
        if cluster_port == 61_001 {
            // Within the read's bound only because nothing is waited for.
            assert_eq!(read(&mut stream, own.len()), own);
            send_all(&mut stream, sent.as_bytes());
            assert_eq!(read_all(&mut stream), payload);
        } else {
            send_all(&mut stream, sent.as_bytes());
            assert_eq!(read_all(&mut stream), format!("{own}{payload}"));
        }
    }
}

#[test]
fn an_original_is_asked_in_its_words_and_what_follows_its_answer_is_the_clients() {
    let Some(network) = Network::new(2) else { return };
    let original = Original::new(&network, 2, b"SENDPROXY=false\r\nSSH-2.0-pod\r\n", Then::Echo);
    let mesh = Start::new(&network, 1, "").start();
    let mut stream = client(&network, 1);
    assert_eq!(read(&mut stream, 13), "SSH-2.0-pod\r\n");
    send_all(&mut stream, b"hello");
    assert_eq!(read_all(&mut stream), "hello");
    assert_eq!(*original.requests.lock().unwrap(), [KEEPING_REQUEST.to_vec()]);
    let host = format!("{}:{PEER_PORT}", network.address(2));
    let name = "cloverleaf_mesh_connections_total";
    mesh.wait_metric(
        &format!("{name}{{cluster_port=\"61000\",host=\"{host}\",result=\"ok\"}}"),
        1.0,
    );
}

#[test]
fn whoever_says_no_is_followed_by_another_until_all_have() {
    let Some(network) = Network::new(3) else { return };
    let _mesh = Start::new(&network, 1, "").settings("HOSTTIMEOUT 600\nNEXTHOST 100").start();
    let answers: [(&[u8], Then); 5] = [
        (b"BUSY\r\n", Then::Close),
        (b"", Then::Close),
        (b"", Then::Silence),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Then::Echo),
        (b"SENDPROXY=tr", Then::Close),
    ];
    for (answer, then) in answers {
        let bad = Original::new(&network, 2, answer, then);
        let good = Original::new(&network, 3, b"SENDPROXY=false\r\n", Then::Echo);
        let mut took = Vec::new();
        for n in 0..6 {
            let mut stream = client(&network, 1);
            send_all(&mut stream, b"hello");
            assert_eq!(read_all(&mut stream), "hello", "{answer:?}");
            took.push(good.asked());
            assert_eq!(took.len(), n + 1);
        }
        // It is remembered: asked at most for the first connection that met it.
        assert!(bad.asked() <= 1, "{answer:?}: asked {} times", bad.asked());
        drop((bad, good));
        let mut stream = client(&network, 1);
        assert_eq!(read_all(&mut stream), "", "nobody is there");
    }
}

#[test]
fn nobody_has_a_pod_and_the_connection_ends_without_a_word() {
    let Some(network) = Network::new(2) else { return };
    let one = Start::new(&network, 1, "61000:30000:9:false\n").start();
    let _two = Start::new(&network, 2, "").start();
    assert_eq!(read_all(&mut client(&network, 1)), "");
    let name = "cloverleaf_mesh_connections_total";
    one.wait_metric(&format!("{name}{{cluster_port=\"61000\",host=\"-\",result=\"none\"}}"), 1.0);
    // The pod comes back, and is found at once.
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    assert_eq!(greeting(&network, 1), Some("p1".to_owned()));
}

#[test]
fn nine_silent_hosts_of_ten_are_got_round_and_then_remembered() {
    let Some(network) = Network::new(3) else { return };
    // The second accepts and says nothing; the others are nobody's addresses.
    let _silent = Original::new(&network, 2, b"", Then::Silence);
    let _good = Original::new(&network, 3, b"SENDPROXY=false\r\np3", Then::Echo);
    let hosts = hosts_conf(&network, (1..=3).chain(50..58));
    let _mesh = Start::new(&network, 1, "").file("hosts.conf", &hosts).start();
    let (first, took) = timed(|| greeting(&network, 1));
    assert_eq!(first, Some("p3".to_owned()));
    println!("the first connection took {took:?}");
    let (second, took) = timed(|| greeting(&network, 1));
    assert_eq!(second, Some("p3".to_owned()));
    println!("the second connection took {took:?}");
}

#[test]
fn a_host_that_is_lost_is_got_round_and_comes_back() {
    let Some(network) = Network::new(3) else { return };
    let _pods = [Server::pod(&network, 2, 30_000, "p2"), Server::pod(&network, 3, 30_000, "p3")];
    let settings = "NEXTHOST 100\nHOSTTIMEOUT 1000";
    let _one = Start::new(&network, 1, "").settings(settings).start();
    let _others: Vec<Mesh> = [2, 3].map(|host| Start::new(&network, host, MAPPING).start()).into();
    network.cut(2);
    for _ in 0..8 {
        assert_eq!(greeting(&network, 1), Some("p3".to_owned()));
    }
    network.mend(2);
    network.cut(3);
    for _ in 0..3 {
        assert_eq!(greeting(&network, 1), Some("p2".to_owned()));
    }
}
