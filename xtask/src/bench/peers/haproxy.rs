//! HAProxy: one thread, connections to the upstream always reused, hosts in a map file (a balanced tree).

use std::{fmt::Write as _, process::Command};

use anyhow::Result;

use super::{Plan, UPSTREAM_POOL};

pub(super) fn command(command: &mut Command, plan: &Plan<'_>) -> Result<()> {
    if !plan.hosts.is_empty() {
        let mut map = String::new();
        for host in plan.hosts {
            let _ = writeln!(map, "{host} backend");
        }
        plan.write("hosts.map", &map)?;
    }
    let file = plan.write("haproxy.cfg", &file(plan))?;
    command.arg("-db").arg("-f").arg(file);
    Ok(())
}

fn file(plan: &Plan<'_>) -> String {
    let tls = plan.certificate.map_or(String::new(), |folder| {
        format!(" ssl crt {}/both.pem alpn h2,http/1.1", folder.display())
    });
    let route = if plan.hosts.is_empty() {
        "default_backend backend".to_owned()
    } else {
        let map = plan.folder.join("hosts.map");
        format!("use_backend %[req.hdr(host),lower,map_str({})]", map.display())
    };
    format!(
        "global
    nbthread 1
    maxconn {clients}
    no strict-limits
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    maxconn {clients}
    timeout connect 5s
    timeout client 300s
    timeout http-keep-alive 300s
    timeout server 60s
    option http-keep-alive
    http-reuse always
    option splice-response
frontend front
    bind 127.0.0.1:{port}{tls} backlog 4096
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto {scheme}
    {route}
backend backend
    server s 127.0.0.1:{upstream} pool-max-conn {UPSTREAM_POOL}
",
        clients = plan.clients,
        port = plan.port,
        scheme = plan.scheme(),
        upstream = plan.upstream,
    )
}
