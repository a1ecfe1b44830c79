//! A cluster port whose pods are behind a tunnel: `mesh.ports` with an upstream that has `via: {tunnel: …}`.

use std::process::Stdio;

use testkit::certs::Wanted;
use testkit::{Authority, Network, wait_until};

use crate::beside::Running;
use crate::support::*;

const BINARY: &str = env!("CARGO_BIN_EXE_cloverleaf");

/// A tunnel's server and agent on a host, for clients on a Unix socket.
fn tunnel(network: &Network, host: u8, dir: &std::path::Path) -> (Running, Running) {
    let authority = Authority::new();
    let (own, agent) =
        (authority.server(&["127.0.0.1"]), authority.issue(&Wanted::client("agent")));
    let start = |arguments: &[String]| {
        let mut command = network.command(host, BINARY);
        command.arg("tunnel").args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    };
    let flag = |name: &str, file: &std::path::Path| format!("--{name}={}", file.display());
    let server = start(&[
        "server".to_owned(),
        "--server-port=0".to_owned(),
        flag("uds-name", &dir.join("hub.sock")),
        flag("cluster-cert", &own.chain_file),
        flag("cluster-key", &own.key_file),
        flag("cluster-ca-cert", &authority.file()),
    ]);
    let agent = start(&[
        "agent".to_owned(),
        "--agent-identifiers=host=far".to_owned(),
        "--sync-interval=100ms".to_owned(),
        flag("agent-cert", &agent.chain_file),
        flag("agent-key", &agent.key_file),
        flag("ca-cert", &authority.file()),
    ]);
    // The files may go once they are read.
    let ready = || {
        let mut curl = network.command(host, "curl");
        curl.args(["-sf", "http://127.0.0.1:8092/readyz"]).stdout(Stdio::null());
        curl.status().is_ok_and(|status| status.success())
    };
    assert!(wait_until(WITHIN, ready), "no agent has come");
    (server, agent)
}

#[test]
fn a_cluster_port_leads_through_a_tunnel_to_where_nobody_gets_in() {
    let Some(network) = Network::new(3) else { return };
    let dir = tempfile::tempdir().unwrap();
    let _tunnel = tunnel(&network, 2, dir.path());
    let _far = Server::pod(&network, 2, 30_001, "p2");
    let gateway = format!(
        "
tunnels: [{{name: hub, server: 'unix:{}'}}]
mesh: {{config: proxy.conf, serve: true, ports: [{{port: 61000, upstream: db}}]}}
listeners: [{{name: web, address: '@:8080'}}]
upstreams:
  - name: db
    via: {{tunnel: hub, cluster: far}}
    endpoints: [{{address: '{}:30001'}}]
rules: []
shutdown: {{grace: 0s, drain: 1s}}
",
        dir.path().join("hub.sock").display(),
        network.address(2)
    );
    let gateway = Start::new(&network, 1, "").gateway(&gateway).start();
    let _other = Start::new(&network, 3, "").start();
    // From the gateway's host and, through its mesh, from another one.
    for host in [1, 3] {
        assert_eq!(greeting(&network, host).as_deref(), Some("p2"), "host {host}");
        let mut long = client(&network, host);
        read(&mut long, 2);
        let bytes = "x".repeat(300_000);
        let mut sender = long.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(&mut sender, bytes.as_bytes()));
            assert_eq!(read_all(&mut long), bytes);
        });
    }
    let dials = "cloverleaf_tunnel_client_dial_duration_seconds_count{tunnel=\"hub\"}";
    assert!(gateway.metric(dials) >= 4.0);
    let open = "cloverleaf_tunnel_client_connections_open{tunnel=\"hub\"}";
    gateway.wait_metric(open, 0.0);
}
