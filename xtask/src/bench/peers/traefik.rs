//! Traefik: one processor for its Go runtime, a file as provider, hosts as routers.

use std::{path::Path, process::Command};

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{Plan, UPSTREAM_POOL};

pub(super) fn command(command: &mut Command, plan: &Plan<'_>) -> Result<()> {
    let routes = plan.write("routes.yml", &routes(plan).to_string())?;
    let file = plan.write("traefik.yml", &file(plan, &routes).to_string())?;
    command.arg(format!("--configFile={}", file.display())).env("GOMAXPROCS", "1");
    Ok(())
}

/// JSON is YAML too.
fn file(plan: &Plan<'_>, routes: &Path) -> Value {
    json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "log": { "level": "ERROR" },
        "entryPoints": { "web": {
            "address": format!("127.0.0.1:{}", plan.port),
            "transport": { "respondingTimeouts": { "idleTimeout": "300s" } },
        }},
        "serversTransport": { "maxIdleConnsPerHost": UPSTREAM_POOL },
        "providers": { "file": { "filename": routes, "watch": false } },
    })
}

fn routes(plan: &Plan<'_>) -> Value {
    let mut routers = Map::new();
    let mut router = |name: String, rule: String| {
        let mut router = json!({ "rule": rule, "service": "backend", "entryPoints": ["web"] });
        if plan.certificate.is_some() {
            router["tls"] = json!({});
        }
        routers.insert(name, router);
    };
    if plan.hosts.is_empty() {
        router("all".to_owned(), "PathPrefix(`/`)".to_owned());
    }
    for (index, host) in plan.hosts.iter().enumerate() {
        router(format!("h{index}"), format!("Host(`{host}`)"));
    }
    let url = format!("http://127.0.0.1:{}", plan.upstream);
    let mut file = json!({ "http": {
        "routers": routers,
        "services": { "backend": { "loadBalancer": { "servers": [{ "url": url }] } } },
    }});
    if let Some(folder) = plan.certificate {
        file["tls"] = json!({
            "certificates": [{ "certFile": folder.join("cert.pem"), "keyFile": folder.join("key.pem") }],
            "options": { "default": { "minVersion": "VersionTLS13" } },
        });
    }
    file
}
