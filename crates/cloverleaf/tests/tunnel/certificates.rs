//! Who may be an agent, and certificates that change.

use std::io::Read;
use std::time::Duration;

use crate::support::{Tunnel, WITHIN, echo, round_trip};
use testkit::certs::Wanted;
use testkit::{Authority, wait_until};

/// How many handshakes at the agents' port failed for a reason.
fn failed(tunnel: &Tunnel, reason: &str) -> f64 {
    let name = "cloverleaf_tunnel_failed_handshakes_total";
    tunnel.metric(&format!("{name}{{port=\"agents\",reason=\"{reason}\"}}"))
}

#[test]
fn agents_with_certificates_of_no_use_are_refused_counted_and_logged() {
    const BAD: &str = "bad_client_certificate";
    let tunnel = Tunnel::server("http-connect", &[]);
    let stranger = Authority::new();
    for shown in [
        stranger.issue(&Wanted::client("agent")),
        tunnel.authority.issue(&Wanted::client("agent").expired()),
        tunnel.authority.issue(&Wanted::client("agent").not_yet_valid()),
        tunnel.authority.issue(&Wanted::server(&["agent"])),
    ] {
        let before = failed(&tunnel, BAD);
        let _agent = tunnel.agent_showing(&shown, &[]);
        assert!(wait_until(WITHIN, || failed(&tunnel, BAD) > before));
        assert_eq!(tunnel.ready().0, 500);
    }
    let before = failed(&tunnel, "no_client_certificate");
    let _agent = tunnel.agent(&["--agent-cert=", "--agent-key="]);
    assert!(wait_until(WITHIN, || failed(&tunnel, "no_client_certificate") > before));
    assert_eq!(tunnel.ready().0, 500);
    let log = tunnel.server.log();
    let line = log.lines().find(|line| line.contains(BAD)).unwrap();
    assert!(line.contains("\"peer\":\"127.0.0.1:") && line.contains("Agents"), "{line}");
}

#[test]
fn an_agent_does_not_believe_a_server_whose_certificate_is_of_no_use() {
    let tunnel = Tunnel::server("http-connect", &[]);
    let other = Authority::new();
    for (shown, reason) in [
        (other.server(&["127.0.0.1"]), "unknown_issuer"),
        (tunnel.authority.issue(&Wanted::server(&["127.0.0.1"]).expired()), "expired"),
        (tunnel.authority.server(&["other.test"]), "name_mismatch"),
        (tunnel.authority.issue(&Wanted::client("127.0.0.1")), "bad_certificate"),
    ] {
        shown.replace(&tunnel.certificate);
        // One that comes before the server shows it has its stream, and keeps it.
        let is_refused = || {
            let agent = tunnel.agent(&[]);
            let says_so = || agent.process.log().contains("no stream to a server");
            let line = format!("cloverleaf_tunnel_connect_failures_total{{reason=\"{reason}\"}} ");
            wait_until(Duration::from_secs(2), says_so) && agent.metrics().contains(&line)
        };
        assert!(wait_until(WITHIN, is_refused), "{reason}");
    }
    // The server hears why.
    assert!(failed(&tunnel, "certificate_refused") > 0.0);
}

#[test]
fn agents_of_an_authority_that_is_taken_away_are_refused_and_open_tunnels_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let file = folder.path().join("agents.pem");
    std::fs::write(&file, old.pem()).unwrap();
    let tunnel =
        Tunnel::server("http-connect", &[&format!("--cluster-ca-cert={}", file.display())]);
    let of_old = old.issue(&Wanted::client("agent"));
    // It comes again and again, with tickets of its sessions.
    let _first = tunnel.agent_showing(&of_old, &["--sync-forever"]);
    tunnel.wait_ready();
    let mut open = tunnel.connected(echo());
    round_trip(&mut open).unwrap();
    assert_eq!(failed(&tunnel, "bad_client_certificate"), 0.0);
    std::fs::write(&file, new.pem()).unwrap();
    assert!(tunnel.server.wait_log("new certificates"));
    let refused = failed(&tunnel, "bad_client_certificate");
    assert!(wait_until(WITHIN, || failed(&tunnel, "bad_client_certificate") > refused + 2.0));
    let ready = "konnectivity_network_proxy_server_ready_backend_connections";
    let _late = tunnel.agent_showing(&of_old, &[]);
    let of_new = new.issue(&Wanted::client("agent"));
    let _good = tunnel.agent_showing(&of_new, &[]);
    assert!(wait_until(WITHIN, || tunnel.metric(ready) == 2.0));
    round_trip(&mut open).unwrap();
    round_trip(&mut tunnel.connected(echo())).unwrap();
}

#[test]
fn no_secret_stands_in_logs_or_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "very-secret-token").unwrap();
    let tunnel = Tunnel::server("http-connect", &[]);
    let agent = tunnel.agent(&[&format!("--service-account-token-path={}", token.display())]);
    tunnel.wait_ready();
    // One that cannot be read is named, and no more.
    let lost = tunnel.agent(&["--service-account-token-path=/does/not/exist"]);
    assert!(lost.process.wait_log("token cannot be read"));
    let key = std::fs::read_to_string(&tunnel.certificate.key_file).unwrap();
    let key = key.lines().nth(1).unwrap();
    let pages = [tunnel.metrics(), agent.metrics(), lost.metrics()];
    let logs = [tunnel.server.log(), agent.process.log(), lost.process.log()];
    for text in pages.iter().chain(&logs) {
        assert!(!text.contains("very-secret-token") && !text.contains(key), "{text}");
    }
}

#[test]
fn new_certificates_serve_new_connections_and_old_tunnels_go_on() {
    let (tunnel, _agent) = Tunnel::with_agent("http-connect", &[]);
    let echo = echo();
    let mut open = tunnel.connected(echo);
    round_trip(&mut open).unwrap();
    tunnel.authority.server(&["127.0.0.1"]).replace(&tunnel.certificate);
    assert!(tunnel.server.wait_log("new certificates"));
    round_trip(&mut open).unwrap();
    // What cannot be used leaves what is there.
    std::fs::write(&tunnel.certificate.chain_file, "nonsense").unwrap();
    assert!(tunnel.server.wait_log("the old ones stay"));
    let _second = tunnel.agent(&[]);
    let ready = "konnectivity_network_proxy_server_ready_backend_connections";
    assert!(wait_until(WITHIN, || tunnel.metric(ready) == 2.0));
    round_trip(&mut open).unwrap();
    open.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(open.read(&mut [0]).unwrap(), 0);
}
