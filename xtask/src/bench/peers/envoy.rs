//! Envoy: one worker, no request ids, no headers of its own, hosts as virtual hosts (a hash).

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::Plan;

pub(super) fn command(command: &mut Command, plan: &Plan<'_>) -> Result<()> {
    let file = plan.write("envoy.json", &file(plan).to_string())?;
    command
        .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"])
        .arg(file);
    Ok(())
}

fn file(plan: &Plan<'_>) -> Value {
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": connection_manager(plan),
    }]});
    if plan.certificate.is_some() {
        chain["transport_socket"] = tls(plan);
    }
    json!({ "static_resources": {
        "listeners": [{
            "address": address(plan.port),
            "filter_chains": [chain],
            "tcp_backlog_size": 4096,
        }],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": "backend",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(plan.upstream) } }] }],
            },
        }],
    }})
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn connection_manager(plan: &Plan<'_>) -> Value {
    let hosts: Vec<Value> = if plan.hosts.is_empty() {
        vec![virtual_host("all", "*")]
    } else {
        plan.hosts.iter().map(|host| virtual_host(host, host)).collect()
    };
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                  HttpConnectionManager",
        "stat_prefix": "front",
        "codec_type": "AUTO",
        "use_remote_address": true,
        "generate_request_id": false,
        // ab speaks HTTP/1.0.
        "http_protocol_options": { "accept_http_10": true },
        "route_config": {
            "name": "routes",
            "virtual_hosts": hosts,
            "request_headers_to_add": [{
                "header": { "key": "x-forwarded-host", "value": "%REQ(:authority)%" },
            }],
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": true,
            },
        }],
    })
}

fn virtual_host(name: &str, domain: &str) -> Value {
    json!({
        "name": name,
        "domains": [domain],
        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend" } }],
    })
}

fn tls(plan: &Plan<'_>) -> Value {
    let file = |name| plan.certificate.map(|folder| folder.join(name).display().to_string());
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
                "tls_certificates": [{
                    "certificate_chain": { "filename": file("cert.pem") },
                    "private_key": { "filename": file("key.pem") },
                }],
            },
        },
    })
}
