//! Caddy: one processor for its Go runtime, no admin port, hosts as routes.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Plan, UPSTREAM_POOL};

pub(super) fn command(command: &mut Command, plan: &Plan<'_>) -> Result<()> {
    let file = plan.write("caddy.json", &file(plan).to_string())?;
    command.args(["run", "--config"]).arg(file);
    command.env("GOMAXPROCS", "1").env("HOME", plan.folder);
    command.env("XDG_CONFIG_HOME", plan.folder).env("XDG_DATA_HOME", plan.folder);
    Ok(())
}

fn file(plan: &Plan<'_>) -> Value {
    let handle = json!([{
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": format!("127.0.0.1:{}", plan.upstream) }],
        "transport": { "protocol": "http", "compression": false, "keep_alive": {
            "max_idle_conns_per_host": UPSTREAM_POOL,
        }},
    }]);
    let routes: Vec<Value> = if plan.hosts.is_empty() {
        vec![json!({ "handle": handle })]
    } else {
        plan.hosts
            .iter()
            .map(|host| json!({ "match": [{ "host": [host] }], "handle": handle }))
            .collect()
    };
    let mut server = json!({
        "listen": [format!("127.0.0.1:{}", plan.port)],
        "routes": routes,
        "automatic_https": { "disable": true },
        "protocols": ["h1", "h2"],
        "idle_timeout": "300s",
    });
    let mut apps = json!({});
    if let Some(folder) = plan.certificate {
        server["tls_connection_policies"] = json!([{ "protocol_min": "tls1.3" }]);
        apps["tls"] = json!({
            "certificates": { "load_files": [{
                "certificate": folder.join("cert.pem"),
                "key": folder.join("key.pem"),
            }]},
        });
    }
    apps["http"] = json!({ "servers": { "front": server } });
    json!({
        "admin": { "disabled": true, "config": { "persist": false } },
        "logging": { "logs": { "default": { "level": "ERROR" } } },
        "apps": apps,
    })
}
