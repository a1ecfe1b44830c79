//! What an original proxy sees that asks this program for a pod, byte for byte.

use std::io::Read;
use std::net::TcpStream;

use testkit::Network;

use crate::support::*;

#[test]
fn a_pod_is_given_in_the_words_of_the_original() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mappings = "61000:30000:9:false 61001:30000:9:true\n";
    let mesh = Start::new(&network, 1, mappings).start();
    for (request, answer) in [
        (REQUEST, "SENDPROXY=false\r\np1"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 123 61001\r\n", "SENDPROXY=true\r\np1"),
        // The addresses mean nothing.
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 61000\r\n", "SENDPROXY=false\r\np1"),
    ] {
        let mut stream = ask(&network, request);
        assert_eq!(read(&mut stream, answer.len()), answer);
        // A tunnel, to the end of each direction.
        send_all(&mut stream, b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\nhello");
        assert_eq!(read_all(&mut stream), "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\nhello");
    }
    // In pieces, and with payload right behind it.
    let mut stream = ask(&network, &REQUEST[..20]);
    std::thread::sleep(std::time::Duration::from_millis(30));
    send_all(&mut stream, &[&REQUEST[20..], b"early"].concat());
    let mut got: Vec<char> = read_all(&mut stream).chars().collect();
    // The answer and the pod's first words may cross, but not here: the pod is asked first.
    let expected = "SENDPROXY=false\r\np1early";
    assert_eq!(got.drain(..).collect::<String>(), expected);
    let name = "cloverleaf_mesh_peer_requests_total";
    mesh.wait_metric(&format!("{name}{{cluster_port=\"61000\",result=\"ok\"}}"), 3.0);
}

#[test]
fn what_is_no_request_or_asks_for_nothing_here_is_closed_without_a_word() {
    let Some(network) = Network::new(2) else { return };
    let settings = "PEERTIMEOUT 500";
    let mesh = Start::new(&network, 1, "61000:30000:9:false\n").settings(settings).start();
    let long = [b'x'; 80];
    let cases: [(&[u8], u16, &str); 8] = [
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 123 62000\r\n", 0, "none"),
        (REQUEST, 61_000, "unreachable"),
        (b"PROXY TCP6 ::1 ::1 123 61000\r\n", 0, "malformed"),
        (b"PROXY UNKNOWN\r\n", 0, "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", 0, "malformed"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 123 0\r\n", 0, "malformed"),
        (&long, 0, "malformed"),
        (b"PROXY TCP4 1.2", 0, "timeout"),
    ];
    let mut counts = std::collections::HashMap::new();
    for (request, port, result) in cases {
        assert_eq!(read_all(&mut ask(&network, request)), "", "{result}");
        *counts.entry((port, result)).or_insert(0.0) += 1.0;
    }
    for ((port, result), count) in counts {
        let name = "cloverleaf_mesh_peer_requests_total";
        mesh.wait_metric(&format!("{name}{{cluster_port=\"{port}\",result=\"{result}\"}}"), count);
    }
}

#[test]
fn strangers_are_refused_unless_the_settings_say_otherwise() {
    let Some(network) = Network::new(3) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mesh = Start::new(&network, 1, "61000:30000:9:false\n")
        .file("hosts.conf", &hosts_conf(&network, [1, 3]))
        .start();
    assert_eq!(read_all(&mut ask(&network, REQUEST)), "");
    let name = "cloverleaf_mesh_peer_requests_total";
    mesh.wait_metric(&format!("{name}{{cluster_port=\"0\",result=\"denied\"}}"), 1.0);
    let settings = format!("HOST {}\nPEERS hosts,10.98.0.2\n", network.address(1));
    mesh.replace("proxy.conf", &settings);
    let allowed = testkit::wait_until(WITHIN, || {
        let mut stream = ask(&network, REQUEST);
        let mut first = [0; 1];
        stream.read(&mut first).is_ok_and(|count| count == 1)
    });
    assert!(allowed);
}

#[test]
fn no_pod_ever_has_more_connections_than_it_may_and_reloads_change_nothing() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mesh = Start::new(&network, 1, "61000:30000:10:false\n").start();
    let answer = |stream: &mut TcpStream| read(stream, 6);
    let streams: Vec<TcpStream> = (0..16).map(|_| ask(&network, REQUEST)).collect();
    let (mut open, mut busy) = (Vec::new(), 0);
    for mut stream in streams {
        match answer(&mut stream).as_str() {
            "SENDPR" => open.push(stream),
            "BUSY\r\n" => {
                assert_eq!(read_all(&mut stream), "");
                busy += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((open.len(), busy), (10, 6));
    // The original forgot all counts every five seconds, when it read its files again.
    for most in [10, 9, 11] {
        mesh.replace("portmappings.conf", &format!("61000:30000:{most}:false\n61001:1:1:true\n"));
        let max = "cloverleaf_mesh_pod_connections_max{cluster_port=\"61000\",host_port=\"30000\"}";
        mesh.wait_metric(max, f64::from(most));
        if most < 11 {
            assert_eq!(answer(&mut ask(&network, REQUEST)), "BUSY\r\n");
        }
    }
    let mut eleventh = ask(&network, REQUEST);
    assert_eq!(answer(&mut eleventh), "SENDPR");
    assert_eq!(answer(&mut ask(&network, REQUEST)), "BUSY\r\n");
    // A client of this host counts too, and finds no place; one that leaves makes room.
    assert_eq!(greeting(&network, 1), None);
    drop(eleventh);
    let now = "cloverleaf_mesh_pod_connections_open{cluster_port=\"61000\",host_port=\"30000\"}";
    mesh.wait_metric(now, 10.0);
    assert_eq!(greeting(&network, 1), Some("p1".to_owned()));
    drop(open);
    mesh.wait_metric(now, 0.0);
}

#[test]
fn a_pod_that_refuses_is_followed_by_another() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 1, 30_003, "p1");
    let mappings = "61000:30000:9:true 61000:30001:9:true 61000:30002:9:true 61000:30003:9:false\n";
    let _mesh = Start::new(&network, 1, mappings).start();
    for _ in 0..10 {
        let mut stream = ask(&network, REQUEST);
        assert_eq!(read(&mut stream, 19), "SENDPROXY=false\r\np1");
    }
}

/// The others are compared in the tests of the gateway.
#[test]
fn metrics_of_the_mesh_are_those_that_are_documented() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mesh = Start::new(&network, 1, "61000:30000:9:false\n").start();
    let answer = "SENDPROXY=false\r\np1";
    assert_eq!(read(&mut ask(&network, REQUEST), answer.len()), answer);
    let scraped = mesh.get("/metrics").unwrap();
    let page = std::fs::read_to_string(PAGE).unwrap();
    let families = testkit::metrics::documented(&page).into_iter();
    let documented: Vec<_> = families.filter(|f| f.name.starts_with("cloverleaf_mesh_")).collect();
    assert!(documented.len() >= 12, "the table of {PAGE} is not understood");
    let served: Vec<(&str, &str)> = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("cloverleaf_mesh_"))
        .collect();
    for family in &documented {
        let found = served.iter().find(|(other, _)| family.is(other));
        let kind = found.map(|(_, kind)| *kind);
        assert_eq!(kind, Some(family.kind.as_str()), "{}: {scraped}", family.name);
    }
    for (name, _) in &served {
        assert!(documented.iter().any(|family| family.is(name)), "{name} is not documented");
    }
}
