//! The metric families of a gateway, in the order of `docs/metrics.md`.
//!
//! Must not keep anything: each scrape reads what the data plane counted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use admin::metrics::{Family, Kind, Value};
use http_proxy::Shared;
use http_proxy::stats::{Cell, EndpointCells, ListenerCells, Stats, UpstreamCells};
use model::UpstreamId;

use super::figures::{Reloads, classes, latency, sum};

/// All of them.
pub(super) fn families(shared: &Shared, reloads: &Reloads) -> Vec<Family> {
    let stats = &shared.stats;
    let mut all = Vec::from(requests(stats));
    all.extend(listeners(stats));
    all.extend(upstreams(stats, shared));
    all.extend(endpoints(stats));
    all.extend(health(shared));
    all.extend(process(stats, reloads));
    all
}

fn requests(stats: &Stats) -> [Family; 2] {
    let mut total = Family::new(
        "cloverleaf_requests_total",
        "Requests answered, by class of their status",
        Kind::Counter,
    );
    let mut took = Family::new(
        "cloverleaf_request_duration_seconds",
        "From the complete request head to the last byte of the answer",
        Kind::Histogram,
    );
    for (key, cells) in stats.requests.read() {
        let labels = vec![
            ("listener", key.listener.to_string()),
            ("rule", key.rule.to_string()),
            ("upstream", key.upstream.to_string()),
        ];
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(classes(&cells)) {
            if count > 0 {
                let mut labels = labels.clone();
                labels.push(("class", (*class).to_owned()));
                total.push(labels, Value::Int(count));
            }
        }
        let latency = latency(&cells);
        let value = Value::Histogram {
            buckets: latency.buckets,
            sum: latency.sum_seconds,
            count: latency.count,
        };
        took.push(labels, value);
    }
    [total, took]
}

fn listeners(stats: &Stats) -> Vec<Family> {
    type Figure = (&'static str, &'static str, Kind, fn(&ListenerCells) -> &Cell);
    let figures: [Figure; 5] = [
        ("cloverleaf_connections_total", "Client connections accepted", Kind::Counter, |c| {
            &c.connections
        }),
        ("cloverleaf_connections_open", "Client connections open now", Kind::Gauge, |c| &c.open),
        ("cloverleaf_received_bytes_total", "Bytes from clients, inside TLS", Kind::Counter, |c| {
            &c.received
        }),
        ("cloverleaf_sent_bytes_total", "Bytes to clients, inside TLS", Kind::Counter, |c| &c.sent),
        ("cloverleaf_upgrades_open", "Upgraded connections open now", Kind::Gauge, |c| &c.upgrades),
    ];
    let read = stats.listeners.read();
    let mut families = Vec::new();
    for (name, help, kind, figure) in figures {
        let mut family = Family::new(name, help, kind);
        for (listener, cells) in &read {
            family.push(vec![("listener", listener.to_string())], Value::Int(sum(cells, figure)));
        }
        families.push(family);
    }
    let mut refused = Family::new(
        "cloverleaf_refused_requests_total",
        "Requests answered, or connections ended, before routing",
        Kind::Counter,
    );
    let mut handshakes = Family::new(
        "cloverleaf_tls_handshakes_total",
        "TLS handshakes with clients",
        Kind::Counter,
    );
    for (listener, cells) in &read {
        let counts = cells.iter().flat_map(|c| c.refused.read());
        push_labelled(&mut refused, ("listener", listener), "reason", counts);
        let counts = cells.iter().flat_map(|c| c.handshakes.read());
        push_labelled(&mut handshakes, ("listener", listener), "result", counts);
    }
    families.extend([refused, handshakes]);
    families
}

/// One sample for each label that was counted, summed over workers.
fn push_labelled(
    family: &mut Family,
    (key, name): (&'static str, &str),
    label: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for (value, count) in counts.filter(|(_, count)| *count > 0) {
        match sums.iter_mut().find(|(known, _)| *known == value) {
            Some((_, sum)) => *sum += count,
            None => sums.push((value, count)),
        }
    }
    for (value, count) in sums {
        family.push(vec![(key, name.to_owned()), (label, value.to_owned())], Value::Int(count));
    }
}

fn upstreams(stats: &Stats, shared: &Shared) -> [Family; 3] {
    let mut retries = Family::new("cloverleaf_retries_total", "Requests sent again", Kind::Counter);
    let mut connects = Family::new(
        "cloverleaf_upstream_connections_total",
        "Attempts to connect to an endpoint, TLS included",
        Kind::Counter,
    );
    for (upstream, cells) in stats.upstreams.read() {
        let cells: Vec<Arc<UpstreamCells>> = cells;
        let counts = cells.iter().flat_map(|c| c.retries.read());
        push_labelled(&mut retries, ("upstream", &upstream), "reason", counts);
        let counts = cells.iter().flat_map(|c| c.connects.read());
        push_labelled(&mut connects, ("upstream", &upstream), "result", counts);
    }
    let mut endpoints =
        Family::new("cloverleaf_endpoints", "Endpoints of an upstream", Kind::Gauge);
    for upstream in &shared.program().snapshot.upstreams {
        let labels = vec![("upstream", upstream.name.to_string())];
        endpoints.push(labels, Value::Int(upstream.endpoints.len() as u64));
    }
    [retries, connects, endpoints]
}

fn endpoints(stats: &Stats) -> [Family; 2] {
    let mut requests = Family::new(
        "cloverleaf_endpoint_requests_total",
        "Requests sent to an endpoint",
        Kind::Counter,
    );
    let mut idle = Family::new(
        "cloverleaf_upstream_connections_idle",
        "Connections to an upstream kept for the next request",
        Kind::Gauge,
    );
    let mut by_upstream: std::collections::BTreeMap<String, u64> =
        std::collections::BTreeMap::new();
    for ((upstream, endpoint), cells) in stats.endpoints.read() {
        let cells: Vec<Arc<EndpointCells>> = cells;
        let labels = vec![("upstream", upstream.to_string()), ("endpoint", endpoint.to_string())];
        requests.push(labels, Value::Int(sum(&cells, |c| &c.requests)));
        *by_upstream.entry(upstream.to_string()).or_default() += sum(&cells, |c| &c.idle);
    }
    for (upstream, count) in by_upstream {
        idle.push(vec![("upstream", upstream)], Value::Int(count));
    }
    [requests, idle]
}

fn health(shared: &Shared) -> [Family; 2] {
    let mut up = Family::new(
        "cloverleaf_endpoint_up",
        "1 while an endpoint passes its health check",
        Kind::Gauge,
    );
    let mut checks =
        Family::new("cloverleaf_health_checks_total", "Health checks, by result", Kind::Counter);
    let program = shared.program();
    for (index, upstream) in program.snapshot.upstreams.iter().enumerate() {
        let Some(health) = program.health(UpstreamId(index)) else { continue };
        // An endpoint that stands there twice is one series.
        let mut seen = HashSet::new();
        for (endpoint, health) in upstream.endpoints.iter().zip(health.iter()) {
            if !seen.insert(&endpoint.target) {
                continue;
            }
            let names = [
                ("upstream", upstream.name.to_string()),
                ("endpoint", endpoint.target.to_string()),
            ];
            up.push(names.to_vec(), Value::Int(u64::from(health.report().up)));
            for (result, count) in health.results().filter(|(_, count)| *count > 0) {
                let mut labels = names.to_vec();
                labels.push(("result", result.to_owned()));
                checks.push(labels, Value::Int(count));
            }
        }
    }
    [up, checks]
}

fn process(stats: &Stats, reloads: &Reloads) -> Vec<Family> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut total = Family::new(
        "cloverleaf_reloads_total",
        "Changes of the configuration, by result",
        Kind::Counter,
    );
    let mut last = Family::new(
        "cloverleaf_last_reload_timestamp_seconds",
        "When the configuration last changed, by result",
        Kind::Gauge,
    );
    for (result, count, at) in [
        ("ok", reloads.applied, reloads.last_applied),
        ("invalid", reloads.refused, reloads.last_refused),
    ] {
        total.push(vec![("result", result.to_owned())], Value::Int(count));
        if let Some(at) = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            last.push(vec![("result", result.to_owned())], Value::Float(at.as_secs_f64()));
        }
    }
    let mut build = Family::new("cloverleaf_build_info", "The program's version", Kind::Gauge);
    build.push(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], Value::Int(1));
    vec![
        total,
        Family::single(
            "cloverleaf_reload_duration_seconds",
            "How long the last change of the configuration took",
            Kind::Gauge,
            Value::Float(reloads.took.as_secs_f64()),
        ),
        last,
        Family::single(
            "cloverleaf_config_valid",
            "1 while what the configuration says is what is served",
            Kind::Gauge,
            Value::Int(u64::from(reloads.state.valid)),
        ),
        Family::single(
            "cloverleaf_access_log_dropped_total",
            "Access log lines dropped because the writer was too slow",
            Kind::Counter,
            Value::Int(stats.access_log_dropped.load(Relaxed)),
        ),
        Family::single(
            "cloverleaf_task_panics_total",
            "Tasks that panicked: each is a bug",
            Kind::Counter,
            Value::Int(net::task::panics()),
        ),
        build,
    ]
}
