//! Secured connections that must not come about: what is sent, what is refused, and what is said about it.

use std::io::Write;
use std::time::Duration;

use testkit::certs::Wanted;
use testkit::{Authority, Network, wait_until};

use crate::support::*;

/// A fatal alert: insufficient_security.
const DEMANDS_TLS: &[u8] = &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x47];
const TWO: &str = "61000:30000:9:false\n";

fn address(network: &Network, host: u8) -> Wanted {
    Wanted::peer(&[&network.address(host).to_string()])
}

fn peer_result(result: &str) -> String {
    format!("cloverleaf_mesh_peer_requests_total{{cluster_port=\"0\",result=\"{result}\"}}")
}

fn handshake(direction: &str, result: &str) -> String {
    let labels = format!("{{direction=\"{direction}\",result=\"{result}\"}}");
    format!("cloverleaf_mesh_handshakes_total{labels}")
}

fn bytes(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    match std::io::Read::read_to_end(stream, &mut got) {
        Ok(_) => got,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => got,
        Err(error) => panic!("not closed: {error}"),
    }
}

#[test]
fn what_a_host_sends_that_is_not_secured_is_refused() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 1, 30_000, "p1");
    let authority = Authority::new();
    let mesh = Start::new(&network, 1, TWO)
        .certified(&authority, &address(&network, 1))
        .settings("SECURITY required\nPEERTIMEOUT 500")
        .start();
    let ask = |bytes: &[u8]| {
        let mut stream = connect(&network, 2, (network.address(1), PEER_PORT));
        stream.write_all(bytes).unwrap();
        stream
    };
    // What is known, and hosts that are not of the cluster: the words of the plain protocol, and nothing else.
    for (plain, count) in [(REQUEST, 1.0), (b"GET / HTTP/1.1\r\n\r\n", 2.0), (b"\r\n", 3.0)] {
        assert_eq!(bytes(&mut ask(plain)), DEMANDS_TLS);
        mesh.wait_metric(&peer_result("insecure"), count);
    }
    assert!(mesh.wait_log("a host asks in plain where SECURITY is required"));
    // The beginning of a hello, and then nothing.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let mut stream = ask(hello);
    let (got, took) = timed(|| bytes(&mut stream));
    assert!(got.is_empty() && took >= Duration::from_millis(400), "{got:?} after {took:?}");
    mesh.wait_metric(&handshake("in", "timeout"), 1.0);
    mesh.wait_metric(&peer_result("timeout"), 1.0);
    // Nothing at all, from the beginning.
    let (got, _) = timed(|| bytes(&mut ask(b"")));
    assert!(got.is_empty());
    mesh.wait_metric(&peer_result("timeout"), 2.0);
    // What is no TLS after its first byte.
    for (number, garbage) in
        [&b"\x16\x03\x01\x00\x04oops"[..], b"\x16PROXY TCP4 x\r\n"].iter().enumerate()
    {
        let got = bytes(&mut ask(garbage));
        assert!(got.is_empty() || got[0] == 0x15, "{got:?}");
        mesh.wait_metric(&handshake("in", "handshake"), number as f64 + 1.0);
    }
    assert_eq!(greeting(&network, 1).as_deref(), Some("p1"), "and it goes on");
}

#[test]
fn a_host_that_must_be_secured_is_asked_in_tls_alone() {
    let Some(network) = Network::new(2) else { return };
    let authority = Authority::new();
    let original = Original::new(&network, 2, b"SENDPROXY=false\r\np2", Then::Echo);
    let mesh = Start::new(&network, 1, "")
        .certified(&authority, &address(&network, 1))
        .settings("SECURITY required")
        .start();
    assert_eq!(greeting(&network, 1), None);
    let requests = original.requests.lock().unwrap().clone();
    assert!(!requests.is_empty() && requests.iter().all(|first| first == &[0x16]), "{requests:?}");
    let host = format!("{}:{PEER_PORT}", network.address(2));
    mesh.wait_metric(
        &format!("cloverleaf_mesh_host_answers_total{{host=\"{host}\",answer=\"insecure\"}}"),
        1.0,
    );
    assert!(mesh.get("/state").unwrap().contains("\"security\": \"none: closed\""));
    assert!(mesh.wait_log("a host cannot be spoken to securely"));
}

#[test]
fn a_secured_host_that_meets_one_without_is_told() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let authority = Authority::new();
    let off = Start::new(&network, 1, "").start();
    let required = Start::new(&network, 2, TWO)
        .certified(&authority, &address(&network, 2))
        .settings("SECURITY required")
        .start();
    assert_eq!(greeting(&network, 1), None);
    assert!(off.wait_log("a host demands a secured connection"), "{}", off.log());
    required.wait_metric(&peer_result("insecure"), 1.0);
    // It has looked whether this one speaks TLS.
    assert!(off.metric(&peer_result("tls")) > 0.5);
    required.wait_metric(&handshake("out", "closed"), off.metric(&peer_result("tls")));
}

/// One whose certificate has expired does not get ready.
fn up(start: Start<'_>) -> Mesh<'_> {
    let mesh = start.unready();
    assert!(wait_until(WITHIN, || mesh.get("/healthz").is_some()));
    mesh
}

/// Host 1 dials with a certificate that host 2 does not accept, or the other way round.
fn refused(network: &Network, dialler: Start<'_>, acceptor: Start<'_>, reasons: (&str, &str)) {
    let (dials, accepts) = (up(dialler), up(acceptor));
    assert_eq!(greeting(network, 1), None, "{reasons:?}");
    let (out, within) = (handshake("out", reasons.0), handshake("in", reasons.1));
    for (mesh, name) in [(&dials, out), (&accepts, within)] {
        let counted = wait_until(WITHIN, || mesh.metric(&name) > 0.5);
        assert!(counted, "{reasons:?}: {}", mesh.get("/metrics").unwrap());
    }
    assert!(dials.metric(&handshake("out", "full")) < 0.5);
    assert!(dials.wait_log("a host cannot be spoken to securely"));
    assert!(accepts.wait_log("a secured connection of a host failed"));
}

#[test]
fn certificates_that_are_not_acceptable_are_refused_on_either_side() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let host = |number: u8, authority: &Authority, wanted: Wanted| {
        Start::new(&network, number, if number == 2 { TWO } else { "" })
            .certified(authority, &wanted)
            .file("bundle.pem", ours.pem())
            .settings("SECURITY required")
    };
    let good = |number| host(number, &ours, address(&network, number));
    let bad = |number: u8, which: &str| match which {
        "untrusted" => host(number, &theirs, address(&network, number)),
        "expired" => host(number, &ours, address(&network, number).expired()),
        _ => host(number, &ours, Wanted::peer(&["10.98.0.77"])),
    };
    for which in ["untrusted", "expired", "wrong_peer"] {
        refused(&network, bad(1, which), good(2), ("refused", which));
        refused(&network, good(1), bad(2, which), (which, "refused"));
    }
}

#[test]
fn workloads_are_known_by_their_spiffe_ids() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let authority = Authority::new();
    let host = |number: u8, id: &str| {
        let wanted = Wanted::peer(&[]).uri(id);
        Start::new(&network, number, if number == 2 { TWO } else { "" })
            .certified(&authority, &wanted)
            .settings("SECURITY required\nIDENTITIES spiffe://cluster.test/mesh/*")
    };
    {
        let mesh = host(1, "spiffe://cluster.test/mesh/1").start();
        let _other = host(2, "spiffe://cluster.test/mesh/2").start();
        assert_eq!(greeting(&network, 1).as_deref(), Some("p2"));
        assert!(mesh.get("/config").unwrap().contains("spiffe://cluster.test/mesh/1"));
    }
    let (wrong, good) = ("spiffe://cluster.test/other", "spiffe://cluster.test/mesh/2");
    refused(&network, host(1, wrong), host(2, good), ("refused", "wrong_peer"));
}

#[test]
fn where_it_is_offered_a_bad_certificate_costs_security_and_no_connection() {
    let Some(network) = Network::new(2) else { return };
    let _pod = Server::pod(&network, 2, 30_000, "p2");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let host = |number: u8, authority: &Authority| {
        Start::new(&network, number, if number == 2 { TWO } else { "" })
            .certified(authority, &address(&network, number))
            .settings("SECURITY offered")
            .start()
    };
    let (mesh, _other) = (host(1, &ours), host(2, &theirs));
    assert_eq!(greeting(&network, 1).as_deref(), Some("p2"));
    assert!(mesh.wait_log("a host is spoken to without security"));
    assert!(mesh.get("/state").unwrap().contains("\"security\": \"plain: untrusted\""));
}

#[test]
fn a_start_that_cannot_be_secured_ends_with_the_reason() {
    let Some(network) = Network::new(1) else { return };
    let authority = Authority::new();
    let clients = Wanted::client("x");
    let start = |wanted: &Wanted| {
        Start::new(&network, 1, "").certified(&authority, wanted).settings("SECURITY required")
    };
    let good = address(&network, 1);
    for (start, said) in [
        (Start::new(&network, 1, "").settings("SECURITY offered"), "cannot read certificates from"),
        (start(&clients), "cannot be used in both directions"),
        (start(&good).file("svid_key.pem", ""), "no private key in"),
        (start(&good).settings("SECURITY on"), "expected off, offered or required"),
    ] {
        let mut mesh = start.unready();
        assert_eq!(mesh.wait_exit(), Some(2), "{said}");
        assert!(mesh.wait_log(said), "{said}: {}", mesh.log());
    }
    // One that has expired is told, and where it is required the host is not ready.
    let expired = address(&network, 1).expired();
    let mesh = start(&expired).unready();
    assert!(mesh.wait_log("expired"));
    let told =
        wait_until(WITHIN, || mesh.get("/readyz").is_some_and(|page| page.contains("has expired")));
    assert!(told, "{:?}", mesh.get("/readyz"));
}
