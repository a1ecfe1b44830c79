//! The metric families of a mesh, in the order of `docs/metrics.md`. Must not keep anything.

use std::time::SystemTime;

use admin::metrics::{Family, Kind, Value};
use mesh::Shared;
use mesh::files::security::Mode;
use mesh::hosts::Speaks;
use mesh::security::Direction;
use mesh::stats::{CLIENT_RESULTS, Cells, PEER_RESULTS};

use super::provider::Changing;
use super::sockets::View;

/// Those of cluster ports, hosts and pods.
pub(super) fn of_the_mesh(shared: &Shared, changing: &Changing) -> Vec<Family> {
    let mut all = connections(shared);
    all.extend(hosts(shared));
    all.extend(security(shared));
    all.extend(pods(shared));
    all.extend(changing.ports.iter().flat_map(ports));
    all
}

/// Those that every role has.
pub(super) fn of_the_role(changing: &Changing) -> Vec<Family> {
    let mut all = Vec::from(config(changing));
    all.extend(program());
    all
}

fn connections(shared: &Shared) -> Vec<Family> {
    let mut total = Family::new(
        "cloverleaf_mesh_connections_total",
        "Connections to cluster ports, by the host of the pod that took them and by result",
        Kind::Counter,
    );
    let mut requests = Family::new(
        "cloverleaf_mesh_peer_requests_total",
        "Requests of other hosts for a pod of this one, by result",
        Kind::Counter,
    );
    let mut open = Family::new(
        "cloverleaf_mesh_connections_open",
        "Connections to cluster ports open now",
        Kind::Gauge,
    );
    let mut peers_open = Family::new(
        "cloverleaf_mesh_peer_connections_open",
        "Connections of other hosts to pods of this one open now",
        Kind::Gauge,
    );
    let mut received = Family::new(
        "cloverleaf_mesh_received_bytes_total",
        "Bytes from clients of cluster ports",
        Kind::Counter,
    );
    let mut sent = Family::new(
        "cloverleaf_mesh_sent_bytes_total",
        "Bytes to clients of cluster ports",
        Kind::Counter,
    );
    for (key, cells) in shared.clients.read() {
        let labels =
            vec![("cluster_port", key.cluster_port.to_string()), ("host", key.host.to_string())];
        push_results(&mut total, &labels, &CLIENT_RESULTS, &cells);
        open.push(labels.clone(), Value::Int(cells.open.get()));
        received.push(labels.clone(), Value::Int(cells.received.get()));
        sent.push(labels, Value::Int(cells.sent.get()));
    }
    for (key, cells) in shared.peers.read() {
        let labels = vec![("cluster_port", key.cluster_port.to_string())];
        push_results(&mut requests, &labels, &PEER_RESULTS, &cells);
        peers_open.push(labels, Value::Int(cells.open.get()));
    }
    vec![total, open, received, sent, requests, peers_open]
}

fn push_results(
    family: &mut Family,
    labels: &[(&'static str, String)],
    results: &[&str],
    cells: &Cells,
) {
    for (result, cell) in results.iter().zip(&cells.results) {
        if cell.get() > 0 {
            let mut labels = labels.to_vec();
            labels.push(("result", (*result).to_owned()));
            family.push(labels, Value::Int(cell.get()));
        }
    }
}

fn hosts(shared: &Shared) -> Vec<Family> {
    let mut up = Family::new(
        "cloverleaf_mesh_host_up",
        "1 unless the host did not answer when it was last asked, less than 10 s ago",
        Kind::Gauge,
    );
    let mut answers = Family::new(
        "cloverleaf_mesh_host_answers_total",
        "What other hosts answered when they were asked for a pod",
        Kind::Counter,
    );
    let mut again = Family::new(
        "cloverleaf_mesh_host_asked_again_total",
        "How often other hosts were asked over a connection that had been kept",
        Kind::Counter,
    );
    let now = shared.now();
    for host in &shared.state().hosts {
        let label = ("host", host.name.to_string());
        up.push(vec![label.clone()], Value::Int(host.is_up(now).into()));
        again.push(vec![label.clone()], Value::Int(host.times_asked_again()));
        for (answer, count) in host.answers().filter(|(_, count)| *count > 0) {
            let labels = vec![label.clone(), ("answer", answer.to_owned())];
            answers.push(labels, Value::Int(count));
        }
    }
    vec![up, answers, again]
}

fn security(shared: &Shared) -> [Family; 4] {
    let mut tunnels = Family::new(
        "cloverleaf_mesh_tunnels_total",
        "Tunnels between this host and others, by who asked and whether they are secured",
        Kind::Counter,
    );
    let mut handshakes = Family::new(
        "cloverleaf_mesh_handshakes_total",
        "TLS handshakes with other hosts, by who dialled and by result",
        Kind::Counter,
    );
    let mut speaks = Family::new(
        "cloverleaf_mesh_host_secured",
        "1 if the host was last spoken to in TLS, else 0",
        Kind::Gauge,
    );
    let mut expiry = Family::new(
        "cloverleaf_mesh_certificate_expiry_timestamp_seconds",
        "When the certificate for connections between hosts expires",
        Kind::Gauge,
    );
    for direction in Direction::ALL {
        let label = ("direction", direction.as_str().to_owned());
        for (security, count) in shared.security.tunnels(direction) {
            let labels = vec![label.clone(), ("security", security.to_owned())];
            tunnels.push(labels, Value::Int(count));
        }
        for (result, count) in shared.security.handshakes(direction).filter(|(_, n)| *n > 0) {
            let labels = vec![label.clone(), ("result", result.to_owned())];
            handshakes.push(labels, Value::Int(count));
        }
    }
    let state = shared.state();
    for host in &state.hosts {
        let secured = state.secured.mode() != Mode::Off && host.speaks() == Speaks::Tls;
        speaks.push(vec![("host", host.name.to_string())], Value::Int(secured.into()));
    }
    if let Some(mutual) = state.secured.mutual() {
        let since = mutual.expires().duration_since(SystemTime::UNIX_EPOCH);
        expiry.push(Vec::new(), Value::Int(since.map_or(0, |since| since.as_secs())));
    }
    [tunnels, handshakes, speaks, expiry]
}

fn pods(shared: &Shared) -> Vec<Family> {
    let mut open = Family::new(
        "cloverleaf_mesh_pod_connections_open",
        "Connections to a pod of this host, of clients and of other hosts",
        Kind::Gauge,
    );
    let mut most = Family::new(
        "cloverleaf_mesh_pod_connections_max",
        "Connections that a pod of this host may have",
        Kind::Gauge,
    );
    for pod in shared.state().pods.all() {
        let mapping = pod.mapping();
        let labels = vec![
            ("cluster_port", mapping.cluster_port.to_string()),
            ("host_port", mapping.host_port.to_string()),
        ];
        open.push(labels.clone(), Value::Int(pod.connections().into()));
        most.push(labels, Value::Int(mapping.connections_max.into()));
    }
    vec![open, most]
}

fn ports(ports: &View) -> [Family; 2] {
    let way = if ports.steered { "bpf" } else { "bind" };
    let mut served = Family::new(
        "cloverleaf_mesh_cluster_ports",
        "Cluster ports that are listened on",
        Kind::Gauge,
    );
    served.push(vec![("way", way.to_owned())], Value::Int(ports.ports as u64));
    let left = Family::single(
        "cloverleaf_mesh_cluster_ports_missing",
        "Cluster ports that are left to another program, or cannot be bound",
        Kind::Gauge,
        Value::Int(ports.left as u64),
    );
    [served, left]
}

fn config(changing: &Changing) -> [Family; 3] {
    let valid = Family::single(
        "cloverleaf_config_valid",
        "Whether what the files say is what is served",
        Kind::Gauge,
        Value::Int(changing.config.valid.into()),
    );
    let mut reloads = Family::new("cloverleaf_reloads_total", "Reloads", Kind::Counter);
    for (result, count) in [("ok", changing.reloads_ok), ("invalid", changing.reloads_invalid)] {
        reloads.push(vec![("result", result.to_owned())], Value::Int(count));
    }
    let took = Family::single(
        "cloverleaf_reload_duration_seconds",
        "How long the last reload took",
        Kind::Gauge,
        Value::Float(changing.took.as_secs_f64()),
    );
    [valid, reloads, took]
}

fn program() -> [Family; 2] {
    let mut build = Family::new("cloverleaf_build_info", "The program", Kind::Gauge);
    build.push(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], Value::Int(1));
    let panics = Family::single(
        "cloverleaf_task_panics_total",
        "Tasks that ended in a panic, which is a bug",
        Kind::Counter,
        Value::Int(net::task::panics()),
    );
    [build, panics]
}
