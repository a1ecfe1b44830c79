//! The metrics of Leases: what keeping a server's own, and counting those of all servers, came to.

use admin::metrics::{Family, Kind, Value};
use kubernetes::servers::{BOUNDS_SECONDS, Calls, CountStats, KeepStats};

/// What keeping a server's Lease came to.
pub(super) fn of_lease(stats: &KeepStats) -> Vec<Family> {
    let lists = "konnectivity_network_proxy_server_lease_list_total";
    let list_latency = "konnectivity_network_proxy_server_lease_list_latency_seconds";
    let deletes = "konnectivity_network_proxy_server_lease_delete_total";
    let delete_latency = "konnectivity_network_proxy_server_lease_delete_latency_seconds";
    vec![
        answers(lists, "Lists of the servers' Leases, by the answer.", &stats.lists),
        latencies(list_latency, "How long they took.", &stats.lists),
        answers(deletes, "Deletions of others' Leases, by the answer.", &stats.deletes),
        latencies(delete_latency, "How long they took.", &stats.deletes),
        Family::single(
            "konnectivity_network_proxy_server_culled_leases_count",
            "Leases of servers that had gone, which this one deleted.",
            // As with failed dials: the original's name has no end.
            Kind::Gauge,
            Value::Int(stats.culled()),
        ),
    ]
}

/// What counting the servers came to.
pub(super) fn of_counting(stats: &CountStats) -> Vec<Family> {
    let lists = "konnectivity_network_proxy_agent_lease_lists_total";
    let latency = "konnectivity_network_proxy_agent_lease_list_latency_seconds";
    let watches = "konnectivity_network_proxy_agent_lease_watches_total";
    vec![
        answers(lists, "Lists of the servers' Leases, by the answer.", &stats.lists),
        latencies(latency, "How long they took.", &stats.lists),
        answers(watches, "Watches of the servers' Leases, by the answer.", &stats.watches),
    ]
}

/// Requests by the answer's code and reason.
fn answers(name: &'static str, help: &'static str, calls: &Calls) -> Family {
    let mut family = Family::new(name, help, Kind::Counter);
    for (code, reason, count) in calls.answers() {
        let labels = vec![("http_response_code", code.to_string()), ("reason", reason)];
        family.push(labels, Value::Int(count));
    }
    family
}

/// How long requests took, by the answer's code.
fn latencies(name: &'static str, help: &'static str, calls: &Calls) -> Family {
    let mut family = Family::new(name, help, Kind::Histogram);
    for (code, latency) in calls.latencies() {
        let count = latency.buckets.iter().sum();
        let buckets = BOUNDS_SECONDS.into_iter().zip(latency.buckets).collect();
        let value = Value::Histogram { buckets, sum: latency.sum, count };
        family.push(vec![("http_response_code", code.to_string())], value);
    }
    family
}
