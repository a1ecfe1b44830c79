//! nginx, as a proxy and as the backend that all proxies forward to.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{Plan, UPSTREAM_POOL};

pub(super) fn command(command: &mut Command, plan: &Plan<'_>) -> Result<()> {
    let file = plan.write("nginx.conf", &proxy(plan))?;
    in_foreground(command, plan.folder, &file);
    Ok(())
}

/// The backend: 1 KiB from memory at /1k, a file of 1 MiB at /1m.
pub(crate) fn backend(command: &mut Command, folder: &Path, port: u16) -> Result<()> {
    fs::write(folder.join("1m"), vec![b'x'; 1024 * 1024]).context("write the large reply")?;
    let body = "x".repeat(1024);
    let text = format!(
        "{}    open_file_cache max=10;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {};
        location = /1k {{ return 200 {body}; }}
    }}
}}
",
        head(folder, 4096),
        folder.display(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).context("write the configuration of the backend")?;
    in_foreground(command, folder, &file);
    Ok(())
}

fn in_foreground(command: &mut Command, folder: &Path, file: &Path) {
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
    command.args(["-g", "daemon off;"]);
}

/// What proxy and backend have in common, up to the first line inside of `http`.
fn head(folder: &Path, connections: usize) -> String {
    let folder = folder.display();
    format!(
        "user root;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"
    )
}

fn proxy(plan: &Plan<'_>) -> String {
    let mut text = head(plan.folder, plan.clients + 2 * UPSTREAM_POOL);
    let _ = write!(
        text,
        "    upstream backend {{
        server 127.0.0.1:{};
        keepalive {UPSTREAM_POOL};
        keepalive_requests 1000000000;
    }}
",
        plan.upstream
    );
    text.push_str(&map(plan.hosts));
    let (tls, certificate) =
        plan.certificate.map_or(("", String::new()), |folder| (" ssl http2", certificate(folder)));
    let target = if plan.hosts.is_empty() { "backend" } else { "$pool" };
    let _ = write!(
        text,
        "    server {{
        listen 127.0.0.1:{}{tls} backlog=4096;
{certificate}        location / {{
            proxy_pass http://{target};
            proxy_http_version 1.1;
            proxy_buffers 16 32k;
            proxy_max_temp_file_size 0;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto {};
        }}
    }}
}}
",
        plan.port,
        plan.scheme(),
    );
    text
}

/// A hash from host to upstream: nginx's cheapest way to hold many hosts.
fn map(hosts: &[String]) -> String {
    if hosts.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "    map_hash_max_size {};\n    map_hash_bucket_size 128;\n    map $host $pool {{\n",
        (hosts.len() * 2).max(2048)
    );
    for host in hosts {
        let _ = writeln!(text, "        {host} backend;");
    }
    text + "    }\n"
}

fn certificate(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.3;
"
    )
}
