//! The metrics of a tunnel's ends, under the original's names, and those of clients, under ours.
//!
//! Must not know how they are counted.

mod leases;

use std::collections::BTreeMap;

use admin::metrics::{Family, Format, Kind, Value, encode};
use kubernetes::servers::{CountStats, KeepStats};
use tls::AcceptErrorKind;
use tunnel::agent::{Agent, Stats as AgentStats};
use tunnel::client::{ERRORS, Stats as ClientStats};
use tunnel::forward::Forward;
use tunnel::server::{Hub, Stats as ServerStats};
use tunnel::stats::{Bounds, Durations, Named, Packets, StreamErrors};

/// A server's page.
pub(super) fn of_server(hub: &Hub, kept: &KeepStats) -> String {
    let stats = &hub.stats;
    let gauge = |name, help, value| Family::single(name, help, Kind::Gauge, Value::Int(value));
    let mut families = server_durations(stats);
    families.extend([
        gauge(
            "konnectivity_network_proxy_server_pending_backend_dials",
            "Dials that agents have not answered.",
            stats.pending_dials.get(),
        ),
        gauge(
            "konnectivity_network_proxy_server_established_connections",
            "Connections through the tunnel.",
            stats.established.get(),
        ),
        gauge(
            "konnectivity_network_proxy_server_http_connections",
            "Clients that speak HTTP CONNECT.",
            stats.http_connections.get(),
        ),
    ]);
    let mut streams = Family::new(
        "konnectivity_network_proxy_server_grpc_connections",
        "Calls now, by method.",
        Kind::Gauge,
    );
    for (method, gauge) in [("Proxy", &stats.proxy_streams), ("Connect", &stats.connect_streams)] {
        streams.push(vec![("service_method", method.to_owned())], Value::Int(gauge.get()));
    }
    families.push(streams);
    let ready = hub.ready();
    let mut backends = Family::new(
        "konnectivity_network_proxy_server_ready_backends",
        "Agents' streams that a strategy can choose from.",
        Kind::Gauge,
    );
    for (strategy, count) in &ready {
        let label = vec![("proxy_strategy", strategy.name().to_owned())];
        backends.push(label, Value::Int(*count as u64));
    }
    families.push(backends);
    families.push(gauge(
        "konnectivity_network_proxy_server_ready_backend_connections",
        "The same for the first strategy.",
        ready.first().map_or(0, |(_, count)| *count as u64),
    ));
    families.push(dial_failures(hub));
    families.push(packets(
        "konnectivity_network_proxy_server_stream_packets_total",
        &[
            ("from_client", &stats.from_client),
            ("to_client", &stats.to_client),
            ("from_agent", &stats.from_agent),
            ("to_agent", &stats.to_agent),
        ],
    ));
    families.push(full_channels(hub));
    families.push(stream_errors(
        "konnectivity_network_proxy_server_stream_errors_total",
        &["from_client", "to_client", "from_agent", "to_agent"],
        &stats.stream_errors,
    ));
    families.push(failed_handshakes(stats));
    families.push(refused_agents(stats));
    families.extend(leases::of_lease(kept));
    page(families)
}

fn failed_handshakes(stats: &ServerStats) -> Family {
    let reasons = AcceptErrorKind::ALL.map(AcceptErrorKind::as_str).into_iter();
    let begin = reasons.flat_map(|reason| [["clients", reason], ["agents", reason]]);
    named(
        (
            "cloverleaf_tunnel_failed_handshakes_total",
            "TLS handshakes of clients and agents that failed.",
        ),
        ["port", "reason"],
        &stats.failed_handshakes,
        begin,
    )
}

fn refused_agents(stats: &ServerStats) -> Family {
    let mut refused = Family::new(
        "cloverleaf_tunnel_refused_agents_total",
        "Agents that were refused, by reason.",
        Kind::Counter,
    );
    for (reason, count) in stats.refused_agents.get() {
        refused.push(vec![("reason", reason.to_owned())], Value::Int(count));
    }
    refused
}

fn server_durations(stats: &ServerStats) -> Vec<Family> {
    vec![
        durations(
            "konnectivity_network_proxy_server_dial_duration_seconds",
            "From a client's wish for a connection to the answer.",
            &stats.dial_duration,
        ),
        durations(
            "konnectivity_network_proxy_server_frontend_write_duration_seconds",
            "How long clients that speak gRPC made payload for them wait.",
            &stats.frontend_write,
        ),
        durations(
            "konnectivity_network_proxy_server_connection_duration_seconds",
            "Connections through the tunnel that have ended.",
            &stats.connection_duration,
        ),
    ]
}

/// The original has channels between its threads; here a stream is as good as full while it is not read.
fn full_channels(hub: &Hub) -> Family {
    let mut family = Family::new(
        "konnectivity_network_proxy_server_full_receive_channels",
        "Streams that are not read on now, since nobody takes what has arrived.",
        Kind::Gauge,
    );
    let counts = [("Proxy", hub.stats.full_calls.get()), ("Connect", hub.held_up() as u64)];
    for (method, count) in counts {
        family.push(vec![("service_method", method.to_owned())], Value::Int(count));
    }
    family
}

fn dial_failures(hub: &Hub) -> Family {
    let stats = &hub.stats;
    let mut failures = Family::new(
        "konnectivity_network_proxy_server_dial_failure_count",
        "Dials that led to no connection.",
        // It only grows, but a counter's name would get an end that the original's does not have.
        Kind::Gauge,
    );
    for (reason, counter) in [
        ("no_agent", &stats.no_agent),
        ("error_response", &stats.refused),
        ("unrecognized_response", &stats.unrecognized_responses),
        ("send_rsp", &stats.unsent_responses),
        ("backend_close", &stats.agent_gone),
        ("backend_dial_timeout", &stats.dial_timeouts),
        ("frontend_close", &stats.dials_closed),
    ] {
        failures.push(vec![("reason", reason.to_owned())], Value::Int(counter.get()));
    }
    failures
}

/// An agent's page.
pub(super) fn of_agent(agent: &Agent, counted: &CountStats) -> String {
    let AgentStats { dial_duration, dial_timeouts, dial_failures, open_endpoints, .. } =
        &agent.stats;
    let gauge = |name, help, value| Family::single(name, help, Kind::Gauge, Value::Int(value));
    let mut failures = Family::new(
        "konnectivity_network_proxy_agent_endpoint_dial_failure_total",
        "Targets that could not be connected to.",
        Kind::Counter,
    );
    for (reason, counter) in [("timeout", dial_timeouts), ("unknown", dial_failures)] {
        failures.push(vec![("reason", reason.to_owned())], Value::Int(counter.get()));
    }
    let packets = packets(
        "konnectivity_network_proxy_agent_stream_packets_total",
        &[("to_agent", &agent.stats.from_server), ("from_agent", &agent.stats.to_server)],
    );
    let mut families = vec![
        durations(
            "konnectivity_network_proxy_agent_dial_duration_seconds",
            "Connecting to targets.",
            dial_duration,
        ),
        failures,
        gauge(
            "konnectivity_network_proxy_agent_open_server_connections",
            "Servers there are streams to.",
            agent.open_servers() as u64,
        ),
        gauge(
            "konnectivity_network_proxy_agent_known_server_count",
            "Servers there are, as far as is known.",
            agent.known_servers() as u64,
        ),
        gauge(
            "konnectivity_network_proxy_agent_open_endpoint_connections",
            "Connections to targets.",
            open_endpoints.get(),
        ),
        server_failures(&agent.stats),
        stream_errors(
            "konnectivity_network_proxy_agent_stream_errors_total",
            &["to_agent", "from_agent"],
            &agent.stats.stream_errors,
        ),
        named(
            (
                "cloverleaf_tunnel_connect_failures_total",
                "Streams to servers that could not be had.",
            ),
            ["reason"],
            &agent.stats.connect_failures,
            [["unreachable"], ["unknown_issuer"], ["answer"]],
        ),
        dropped(agent.stats.datagrams_dropped.get()),
        packets,
    ];
    families.extend(leases::of_counting(counted));
    page(families)
}

fn server_failures(stats: &AgentStats) -> Family {
    let what = (
        "konnectivity_network_proxy_agent_server_connection_failure_count",
        "Streams to servers that failed.",
    );
    let begin = [["from_server"], ["to_server"]];
    // It only grows; see `dial_failures`.
    Family { kind: Kind::Gauge, ..named(what, ["direction"], &stats.server_failures, begin) }
}

fn dropped(count: u64) -> Family {
    Family::single(
        "cloverleaf_tunnel_datagrams_dropped_total",
        "Datagrams for which there was no room on the way into the tunnel.",
        Kind::Counter,
        Value::Int(count),
    )
}

/// The page of local ports.
pub(super) fn of_forward(forward: &Forward, reachable: bool) -> String {
    let tunnel = forward.client().servers().to_string();
    let mut families = of_clients(&[(tunnel, &forward.client().stats)]);
    families.extend([
        Family::single(
            "cloverleaf_tunnel_forward_connections_open",
            "Connections of programs to local ports.",
            Kind::Gauge,
            Value::Int(forward.stats.open.get()),
        ),
        Family::single(
            "cloverleaf_tunnel_forward_unasked_total",
            "Programs that did not say where they want to go, or said it wrongly.",
            Kind::Counter,
            Value::Int(forward.stats.unasked.get()),
        ),
        dropped(forward.stats.datagrams_dropped.get()),
        Family::single(
            "cloverleaf_tunnel_forward_server_up",
            "Whether the server could be reached when it was last tried.",
            Kind::Gauge,
            Value::Int(u64::from(reachable)),
        ),
    ]);
    page(families)
}

/// What clients of tunnels count, each under a name.
pub(in crate::roles) fn of_clients(clients: &[(String, &ClientStats)]) -> Vec<Family> {
    let label = |name: &String| ("tunnel", name.clone());
    let mut dials = Family::new(
        "cloverleaf_tunnel_client_dial_duration_seconds",
        "From the wish for a connection through the tunnel to the answer.",
        Kind::Histogram,
    );
    let mut failures = Family::new(
        "cloverleaf_tunnel_client_dial_failures_total",
        "Connections through the tunnel that did not come about.",
        Kind::Counter,
    );
    let mut connections = Family::new(
        "cloverleaf_tunnel_client_connections_open",
        "Connections through the tunnel.",
        Kind::Gauge,
    );
    let mut servers = Family::new(
        "cloverleaf_tunnel_client_server_connections_open",
        "Connections to the tunnel's server that others share.",
        Kind::Gauge,
    );
    for (name, stats) in clients {
        dials.push(vec![label(name)], histogram(&stats.dial_duration));
        for (reason, counter) in ERRORS.iter().zip(&stats.failures) {
            let labels = vec![label(name), ("reason", (*reason).to_owned())];
            failures.push(labels, Value::Int(counter.get()));
        }
        connections.push(vec![label(name)], Value::Int(stats.established.get()));
        servers.push(vec![label(name)], Value::Int(stats.server_connections.get()));
    }
    vec![dials, failures, connections, servers]
}

fn page(mut families: Vec<Family>) -> String {
    families.extend(admin::process::families());
    encode(families, Format::Prometheus)
}

fn durations<B: Bounds>(
    name: &'static str,
    help: &'static str,
    durations: &Durations<B>,
) -> Family {
    Family::single(name, help, Kind::Histogram, histogram(durations))
}

fn histogram<B: Bounds>(durations: &Durations<B>) -> Value {
    let (bounds, counts, sum) = durations.get();
    let count = counts.iter().sum();
    Value::Histogram { buckets: bounds.into_iter().zip(counts).collect(), sum, count }
}

/// A counter by names; those of `begin` are there from the start, with 0.
fn named<const NAMES: usize>(
    (name, help): (&'static str, &'static str),
    labels: [&'static str; NAMES],
    counted: &Named<NAMES>,
    begin: impl IntoIterator<Item = [&'static str; NAMES]>,
) -> Family {
    let mut all: BTreeMap<_, _> = begin.into_iter().map(|names| (names, 0)).collect();
    all.extend(counted.get());
    let mut family = Family::new(name, help, Kind::Counter);
    for (names, count) in all {
        let pairs = labels.into_iter().zip(names.map(str::to_owned)).collect();
        family.push(pairs, Value::Int(count));
    }
    family
}

/// Streams of packets that failed.
fn stream_errors(name: &'static str, segments: &[&'static str], counted: &StreamErrors) -> Family {
    let begin = segments.iter().map(|segment| [*segment, "Canceled", "Unknown"]);
    let what = (name, "Streams of packets that failed, by direction, gRPC code and packet.");
    named(what, ["segment", "code", "packet_type"], counted, begin)
}

fn packets(name: &'static str, segments: &[(&str, &Packets)]) -> Family {
    let mut family = Family::new(name, "Packets, by direction and type.", Kind::Counter);
    for (segment, packets) in segments {
        for (kind, count) in packets.get() {
            let labels = vec![("segment", (*segment).to_owned()), ("packet_type", kind.to_owned())];
            family.push(labels, Value::Int(count));
        }
    }
    family
}
