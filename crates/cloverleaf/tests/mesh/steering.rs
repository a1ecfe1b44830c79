//! The whole range of cluster ports without binding it: outgoing connections work, others keep their ports, and where
//! it is not allowed it is said what is lost.

use std::io::Read;
use std::net::TcpStream;

use testkit::{Network, wait_until};

use crate::support::*;

const MAPPING: &str = "61000:30000:100:false\n";

#[test]
fn any_port_of_the_default_range_is_served_by_a_handful_of_sockets() {
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mappings =
        "1024:30000:9:false 29999:30000:9:false 32768:30000:9:false 65535:30000:9:false\n";
    let mesh = Start::new(&network, 1, mappings).settings("STEERING bpf").start();
    for port in [1024, 29_999, 32_768, 65_535] {
        let mut stream = connect(&network, 1, (network.address(1), port));
        assert_eq!(read(&mut stream, 2), "p1", "{port}");
        assert_eq!(stream.peer_addr().unwrap().port(), port);
    }
    // Not in the range, and not on this address.
    for to in [(network.address(1), 30_001), ("127.0.0.1".parse().unwrap(), 1024)] {
        let error = try_connect(&network, 1, to).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to:?}");
    }
    let fds = mesh.descriptors();
    assert!(fds < 60, "{fds} descriptors");
    println!("{} KiB", mesh.memory_kib());
}

#[test]
fn this_hosts_own_connections_find_ports_to_come_from() {
    let Some(network) = Network::new(2) else { return };
    let _server = Server::pod(&network, 2, 80, "s2");
    // Twenty-one ports to connect from, and all of them are cluster ports.
    let narrow = "echo 61000 61020 > /proc/sys/net/ipv4/ip_local_port_range";
    assert!(network.command(1, "sh").args(["-c", narrow]).status().unwrap().success());
    let settings = "CLUSTERPORTS 61000-61020";
    let come_from = || -> std::io::Result<Vec<u16>> {
        let to = (network.address(2), 80);
        let open: Vec<TcpStream> =
            (0..15).map(|_| try_connect(&network, 1, to)).collect::<Result<_, _>>()?;
        open.iter().map(|stream| Ok(stream.local_addr()?.port())).collect()
    };
    let bind = format!("{settings}\nSTEERING bind");
    let bound = Start::new(&network, 1, "").settings(&bind).unready();
    // Not even the admin port can be asked on such a host.
    assert!(bound.wait_log("admin: "));
    assert_eq!(come_from().unwrap_err().kind(), std::io::ErrorKind::AddrNotAvailable);
    assert!(bound.wait_log("outgoing connections may fail"), "{}", bound.log());
    drop(bound);
    let _steered = Start::new(&network, 1, "").settings(settings).start();
    let ports = come_from().unwrap();
    assert!(ports.iter().all(|port| (61_000..=61_020).contains(port)), "{ports:?}");
}

#[test]
fn ports_of_others_stay_theirs_and_come_back() {
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let early = Server::pod(&network, 1, 61_001, "e1");
    let mappings = "61000:30000:9:false 61001:30000:9:false\n";
    let mesh = Start::new(&network, 1, mappings).start();
    // While a listener comes or goes, a connection may find nobody for a moment.
    let greets = |port, expected: &str| {
        wait_until(WITHIN, || {
            let mut greeting = [0; 2];
            try_connect(&network, 1, (network.address(1), port))
                .and_then(|mut stream| stream.read_exact(&mut greeting))
                .is_ok_and(|()| greeting == expected.as_bytes())
        })
    };
    assert!(greets(61_000, "p1") && greets(61_001, "e1"));
    let late = Server::pod(&network, 1, 61_000, "l1");
    assert!(greets(61_000, "l1"), "its port is not left to it");
    mesh.wait_metric("cloverleaf_mesh_cluster_ports_missing", 2.0);
    drop((early, late));
    assert!(greets(61_000, "p1") && greets(61_001, "p1"));
    // The admin port is one of ours, and in the range.
    assert!(mesh.get("/healthz").is_some());
}

#[test]
fn a_dead_pod_whose_port_is_a_cluster_port_does_not_lead_back_here() {
    let Some(network) = Network::new(1) else { return };
    let mesh = Start::new(&network, 1, "61000:61000:9:false 61001:61002:9:false\n").start();
    let refused = try_connect(&network, 1, (network.address(1), 61_000));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(read_all(&mut connect(&network, 1, (network.address(1), 61_001))), "");
    let name = "cloverleaf_mesh_connections_total";
    mesh.wait_metric(&format!("{name}{{cluster_port=\"61001\",host=\"-\",result=\"none\"}}"), 1.0);
}

#[test]
fn every_address_of_the_host_and_both_families() {
    let Some(network) = Network::new(1) else { return };
    let pod = "127.0.0.1:30000".parse().unwrap();
    let _pod = Server::at(&network, 1, pod, |stream| echo(stream, "p1"));
    let settings = "HOST ::\nPODHOST 127.0.0.1\n";
    let _mesh = Start::new(&network, 1, MAPPING).file("proxy.conf", settings).start();
    let loopback = ["127.0.0.1", "::1"].map(|address| address.parse().unwrap());
    for address in [network.address(1), network.address_v6(1)].into_iter().chain(loopback) {
        let mut stream = connect(&network, 1, (address, 61_000));
        assert_eq!(read(&mut stream, 2), "p1", "{address}");
    }
}

#[test]
fn without_the_right_to_steer_ports_are_bound_with_a_warning() {
    const NO_BPF: [&str; 3] = ["setpriv", "--bounding-set=-bpf,-net_admin,-sys_admin", "--"];
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let few = "CLUSTERPORTS 61000-61063";
    for (settings, wrapper, warns) in
        [(few.to_owned(), &NO_BPF[..], true), (format!("{few}\nSTEERING bind"), &[], false)]
    {
        let mesh = Start::new(&network, 1, MAPPING).settings(&settings).by(wrapper).start();
        assert_eq!(greeting(&network, 1).as_deref(), Some("p1"));
        let warning = "cannot be steered";
        assert_eq!(mesh.log().contains(warning), warns);
        let bound = mesh.metric("cloverleaf_mesh_cluster_ports{way=\"bind\"}");
        assert!((bound - 64.0).abs() < 0.5, "{bound}");
    }
    let forced = format!("{few}\nSTEERING bpf");
    let mut mesh = Start::new(&network, 1, MAPPING).settings(&forced).by(&NO_BPF).unready();
    assert_eq!(mesh.wait_exit(), Some(1));
    assert!(mesh.wait_log("steering ports to a socket"), "{}", mesh.log());
}

#[test]
fn two_capabilities_are_enough_to_steer() {
    const TWO: [&str; 3] = ["setpriv", "--bounding-set=-all,+bpf,+net_admin", "--"];
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let mesh = Start::new(&network, 1, MAPPING).settings("STEERING bpf").by(&TWO).start();
    assert_eq!(greeting(&network, 1).as_deref(), Some("p1"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", mesh.pid())).unwrap();
    // Bits 39 (CAP_BPF) and 12 (CAP_NET_ADMIN).
    assert!(status.contains("CapEff:\t0000008000001000\n"), "{status}");
}

#[test]
fn each_capability_is_for_what_the_document_says() {
    let Some(network) = Network::new(1) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let low = "700:30000:9:false\n61000:30000:9:false\n";
    let bounded = |capabilities: &'static str, settings: &str| {
        let start = Start::new(&network, 1, low).settings(settings);
        start.by(&["setpriv", capabilities, "--"])
    };
    for one_missing in ["--bounding-set=-bpf,-sys_admin", "--bounding-set=-net_admin,-sys_admin"] {
        let mut mesh = bounded(one_missing, "STEERING bpf").unready();
        assert_eq!(mesh.wait_exit(), Some(1), "{one_missing}");
        assert!(mesh.wait_log("steering ports to a socket"), "{}", mesh.log());
    }
    let ports = "CLUSTERPORTS 700,61000";
    for (capabilities, steering, bound) in [
        ("--bounding-set=-all,+bpf,+net_admin", "bpf", true),
        ("--bounding-set=-all,+net_bind_service", "bind", true),
        ("--bounding-set=-all", "bind", false),
    ] {
        let mesh = bounded(capabilities, &format!("{ports}\nSTEERING {steering}")).start();
        assert_eq!(greeting(&network, 1).as_deref(), Some("p1"), "{capabilities}");
        let low = try_connect(&network, 1, (network.address(1), 700));
        assert_eq!(low.is_ok(), bound, "{capabilities}: {}", mesh.log());
    }
}
