//! The metrics of a tunnel's ends, under the original's names.
//!
//! Must not know how they are counted.

use admin::metrics::{Family, Format, Kind, Value, encode};
use tunnel::agent::{Agent, Stats as AgentStats};
use tunnel::server::Hub;
use tunnel::stats::{BOUNDS_MICROS, Durations, Packets};

/// A server's page.
pub(super) fn of_server(hub: &Hub) -> String {
    let stats = &hub.stats;
    let gauge = |name, help, value| Family::single(name, help, Kind::Gauge, Value::Int(value));
    let mut families = vec![
        durations(
            "konnectivity_network_proxy_server_dial_duration_seconds",
            "From a client's wish for a connection to the answer.",
            &stats.dial_duration,
        ),
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
    ];
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
    families.push(Family::single(
        "cloverleaf_tunnel_failed_handshakes_total",
        "TLS handshakes of clients and agents that failed.",
        Kind::Counter,
        Value::Int(stats.failed_handshakes.get()),
    ));
    page(families)
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
        ("backend_close", &stats.agent_gone),
        ("backend_dial_timeout", &stats.dial_timeouts),
        ("frontend_close", &stats.dials_closed),
    ] {
        failures.push(vec![("reason", reason.to_owned())], Value::Int(counter.get()));
    }
    failures
}

/// An agent's page.
pub(super) fn of_agent(agent: &Agent) -> String {
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
        &[("from_server", &agent.stats.from_server), ("to_server", &agent.stats.to_server)],
    );
    page(vec![
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
            "Servers there are, as they say.",
            agent.known_servers() as u64,
        ),
        gauge(
            "konnectivity_network_proxy_agent_open_endpoint_connections",
            "Connections to targets.",
            open_endpoints.get(),
        ),
        Family::single(
            "cloverleaf_tunnel_connect_failures_total",
            "Streams to servers that could not be had.",
            Kind::Counter,
            Value::Int(agent.stats.connect_failures.get()),
        ),
        packets,
    ])
}

fn page(mut families: Vec<Family>) -> String {
    families.extend(admin::process::families());
    encode(families, Format::Prometheus)
}

fn durations(name: &'static str, help: &'static str, durations: &Durations) -> Family {
    let (counts, sum) = durations.get();
    let count = counts.iter().sum();
    let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6);
    let buckets = bounds.zip(counts).collect();
    Family::single(name, help, Kind::Histogram, Value::Histogram { buckets, sum, count })
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
