//! Who may be an agent, and certificates that change.

use std::io::Read;
use std::time::Duration;

use crate::support::{Tunnel, WITHIN, echo, round_trip};
use testkit::certs::Wanted;
use testkit::{Authority, wait_until};

#[test]
fn agents_with_certificates_of_no_use_are_refused_counted_and_logged() {
    let tunnel = Tunnel::server("http-connect", &[]);
    let stranger = Authority::new();
    let failed = || tunnel.metric("cloverleaf_tunnel_failed_handshakes_total");
    for shown in [
        stranger.issue(&Wanted::client("agent")),
        tunnel.authority.issue(&Wanted::client("agent").expired()),
        tunnel.authority.issue(&Wanted::server(&["agent"])),
    ] {
        let before = failed();
        let _agent = tunnel.agent_showing(&shown, &[]);
        assert!(wait_until(WITHIN, || failed() > before));
        assert_eq!(tunnel.ready().0, 500);
    }
    assert!(tunnel.server.log().contains("bad_client_certificate"));
}

#[test]
fn an_agent_does_not_believe_a_server_of_another_authority() {
    let tunnel = Tunnel::server("http-connect", &[]);
    let other = Authority::new();
    let agent = tunnel.agent(&[&format!("--ca-cert={}", other.file().display())]);
    drop(agent);
    let name = other.server(&["other.test"]);
    name.replace(&tunnel.certificate);
    // One that comes before the server shows it has its stream, and keeps it.
    let is_refused = || {
        let agent = tunnel.agent(&[]);
        let says_so = || agent.process.log().contains("no stream to a server");
        wait_until(Duration::from_secs(2), says_so)
            && agent.metric("cloverleaf_tunnel_connect_failures_total") > 0.0
    };
    assert!(wait_until(WITHIN, is_refused));
}

#[test]
fn new_certificates_serve_new_connections_and_old_tunnels_go_on() {
    let (tunnel, _agent) = Tunnel::with_agent("http-connect", &[]);
    let echo = echo();
    let mut open = tunnel.connected(echo);
    round_trip(&mut open).unwrap();
    tunnel.authority.server(&["127.0.0.1"]).replace(&tunnel.certificate);
    assert!(wait_until(WITHIN, || tunnel.server.log().contains("new certificates")));
    round_trip(&mut open).unwrap();
    // What cannot be used leaves what is there.
    std::fs::write(&tunnel.certificate.chain_file, "nonsense").unwrap();
    assert!(wait_until(WITHIN, || tunnel.server.log().contains("the old ones stay")));
    let _second = tunnel.agent(&[]);
    let ready = "konnectivity_network_proxy_server_ready_backend_connections";
    assert!(wait_until(WITHIN, || tunnel.metric(ready) == 2.0));
    round_trip(&mut open).unwrap();
    open.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(open.read(&mut [0]).unwrap(), 0);
}
