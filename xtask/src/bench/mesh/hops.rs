//! The proxies of a run, one on each host: what stands in their files and how they are started. The one on host 1 takes
//! the clients' connections and brings them to the others, each of which brings them to the pods of its host.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::load::{Field, GATEWAY, HTTP, PORTS};
use crate::bench::{
    hosts,
    measure::{self, Ticks},
    peers::Proxy,
    process::{PROXY_CORE, Server},
};

/// From start until a connection gets through.
const SERVED_WITHIN: Duration = Duration::from_secs(20);
/// Connections that HAProxy sets room aside for.
const HAPROXY_CONNECTIONS: usize = 8_000;
/// What HAProxy and Envoy listen on for the proxy of host 1: that much below the host port.
const BELOW_HOST_PORT: u16 = 10_000;

/// A program that is measured.
#[derive(Clone)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) proxy: Proxy,
    pub(super) program: PathBuf,
    pub(super) version: String,
}

/// The proxies on all hosts.
pub(super) struct Hops {
    pub(super) servers: Vec<Server>,
}

impl Hops {
    /// Starts one on each of these hosts, the first of which is host 1, all on one core, and waits until a connection
    /// gets through.
    pub(super) fn start(
        contender: &Contender,
        field: &Field,
        hosts: &[u8],
        folder: &Path,
    ) -> Result<Hops> {
        let servers = hosts.iter().map(|host| {
            let folder = folder.join(format!("{}-{host}", contender.name));
            start(contender, field, *host, &folder)
        });
        let hops = Hops { servers: servers.collect::<Result<_>>()? };
        field.wait_until_served(SERVED_WITHIN).with_context(|| hops.last_words())?;
        Ok(hops)
    }

    /// Processor time of all so far.
    pub(super) fn cpu(&self) -> Ticks {
        self.servers.iter().map(|server| measure::cpu(server.pid())).fold(
            Ticks::default(),
            |sum, one| Ticks { user: sum.user + one.user, system: sum.system + one.system },
        )
    }

    /// Resident memory of each.
    pub(super) fn resident_bytes(&self) -> Vec<u64> {
        self.servers.iter().map(|server| measure::resident_bytes(server.pid())).collect()
    }

    pub(super) fn last_words(&self) -> String {
        let words = self.servers.iter().map(Server::last_words);
        let words: Vec<String> = words.filter(|words| !words.is_empty()).collect();
        match words.is_empty() {
            true => "the proxies said nothing".to_owned(),
            false => format!("the proxies said: {}", words.join("\n")),
        }
    }
}

/// Starts the proxy of one host and waits for nothing.
pub(super) fn start(
    contender: &Contender,
    field: &Field,
    host: u8,
    folder: &Path,
) -> Result<Server> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let program = contender.program.to_str().context("the path of a program")?;
    let mut command = field.network.command(host, program);
    match contender.proxy {
        Proxy::Cloverleaf => cloverleaf(&mut command, field, host, folder, "off")?,
        Proxy::Haproxy => {
            let file = written(folder, "haproxy.cfg", &haproxy(field, host))?;
            command.arg("-db").arg("-f").arg(file);
        }
        Proxy::Envoy => {
            let file = written(folder, "envoy.json", &envoy(field, host).to_string())?;
            command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]);
            command.arg("-c").arg(file);
        }
        other => bail!("{} is no part of this benchmark", other.name()),
    }
    Server::spawn(&command, PROXY_CORE, &folder.join("log"))
}

/// Starts a mesh on host 1 and waits until it says that it is ready; how long that took.
pub(super) fn start_timed(
    contender: &Contender,
    field: &Field,
    folder: &Path,
) -> Result<(Server, Duration)> {
    const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let program = contender.program.to_str().context("the path of a program")?;
    let mut command = field.network.command(1, program);
    cloverleaf(&mut command, field, 1, folder, &ADMIN.to_string())?;
    let begun = Instant::now();
    // Not by the thread within: a program ends with the thread that started it.
    let server = Server::spawn(&command, PROXY_CORE, &folder.join("log"))?;
    field.network.on(1, || {
        // The admin port listens before the rest does, and says when all of it is there.
        while !hosts::is_ready(ADMIN) {
            if begun.elapsed() > SERVED_WITHIN {
                bail!("not ready: {}", server.last_words());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?;
    Ok((server, begun.elapsed()))
}

fn written(folder: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let file = folder.join(name);
    fs::write(&file, content).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// A mesh with its admin port.
fn cloverleaf(
    command: &mut Command,
    field: &Field,
    host: u8,
    folder: &Path,
    admin: &str,
) -> Result<()> {
    let file = mesh(field, host, folder)?;
    command.arg("mesh").arg(file).args(["--workers", "1", "--admin-address", admin]);
    Ok(())
}

/// The files of a mesh: the default range, every host of the network, and the pods where there are some.
fn mesh(field: &Field, host: u8, folder: &Path) -> Result<PathBuf> {
    let address = |host| field.network.address(host);
    let hosts = (1..=field.network.hosts()).fold(String::new(), |mut text, host| {
        let _ = writeln!(text, "{}:32767", address(host));
        text
    });
    written(folder, "hosts.conf", &hosts)?;
    let mappings = PORTS.map(|(cluster, pod)| format!("{cluster}:{pod}:100000:false\n")).concat();
    let mappings = if host == 1 { "" } else { &mappings };
    written(folder, "portmappings.conf", mappings)?;
    let file = format!("HOST {}\nKEEPEMPTY none\nDRAIN 0\n", address(host));
    written(folder, "proxy.conf", &file)
}

/// How a gateway on host 1 reaches the pod on host 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// By its address.
    Straight,
    /// By its cluster port, of which it asks the mesh on host 2 itself.
    ViaMesh,
}

impl Hops {
    /// Starts a gateway on host 1, and a mesh on host 2 where that is on the way, all on one core, and waits until a
    /// request gets through.
    pub(super) fn gateway(
        contender: &Contender,
        field: &Field,
        reach: Reach,
        folder: &Path,
    ) -> Result<Hops> {
        let folder = |host: u8| folder.join(format!("{}-{host}", contender.name));
        let own = folder(1);
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(&own).with_context(|| format!("make {}", own.display()))?;
        let (upstream, mesh) = match reach {
            Reach::Straight => {
                let pod = PORTS.iter().find(|(cluster, _)| *cluster == HTTP).context("a pod")?;
                (format!("host: {}, port: {}", field.network.address(2), pod.1), String::new())
            }
            Reach::ViaMesh => {
                let file = mesh(field, 1, &own)?;
                let mesh = format!("mesh: {{ config: {} }}\n", file.display());
                (format!("via: mesh, port: {HTTP}"), mesh)
            }
        };
        let (address, port) = field.front(GATEWAY);
        let file = format!(
            "{mesh}listeners: [{{ name: front, address: \"{address}:{port}\" }}]
upstreams: [{{ name: pod, {upstream} }}]
rules: [{{ path: /, upstream: pod }}]
"
        );
        let file = written(&own, "gateway.yaml", &file)?;
        let program = contender.program.to_str().context("the path of a program")?;
        let mut command = field.network.command(1, program);
        command.arg("gateway").arg("-c").arg(file);
        command.args(["--workers", "1", "--admin-address", "off"]);
        let mut servers = vec![Server::spawn(&command, PROXY_CORE, &own.join("log"))?];
        if reach == Reach::ViaMesh {
            servers.push(start(contender, field, 2, &folder(2))?);
        }
        let hops = Hops { servers };
        field.wait_until_answered(SERVED_WITHIN).with_context(|| hops.last_words())?;
        Ok(hops)
    }
}

/// For each port: where the proxy of a host listens, and where it goes.
fn forwards(field: &Field, host: u8) -> [(u16, Vec<(IpAddr, u16)>); PORTS.len()] {
    PORTS.map(|(cluster, pod)| match host {
        1 => {
            let others = 2..=field.network.hosts();
            let to = others.map(|other| (field.network.address(other), pod - BELOW_HOST_PORT));
            (cluster, to.collect())
        }
        _ => (pod - BELOW_HOST_PORT, vec![(field.network.address(host), pod)]),
    })
}

fn haproxy(field: &Field, host: u8) -> String {
    let mut text = format!(
        "global
    nbthread 1
    maxconn {HAPROXY_CONNECTIONS}
    no strict-limits
defaults
    mode tcp
    maxconn {HAPROXY_CONNECTIONS}
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option splice-auto
"
    );
    for (port, to) in forwards(field, host) {
        let address = field.network.address(host);
        let _ = writeln!(text, "listen p{port}\n    bind {address}:{port} backlog 4096");
        let _ = writeln!(text, "    balance roundrobin");
        for (number, (to, port)) in to.into_iter().enumerate() {
            let _ = writeln!(text, "    server s{number} {to}:{port}");
        }
    }
    text
}

fn envoy(field: &Field, host: u8) -> Value {
    let address = |ip: IpAddr, port: u16| {
        let ip = ip.to_string();
        json!({ "socket_address": { "address": ip, "port_value": port } })
    };
    let listener = |port: u16| {
        json!({
            "address": address(field.network.address(host), port),
            "tcp_backlog_size": 4096,
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "p",
                    "cluster": format!("p{port}"),
                },
            }]}],
        })
    };
    let cluster = |port: u16, to: &[(IpAddr, u16)]| {
        let endpoint =
            |(ip, port): &(IpAddr, u16)| json!({ "endpoint": { "address": address(*ip, *port) } });
        let endpoints: Vec<Value> = to.iter().map(endpoint).collect();
        json!({
            "name": format!("p{port}"),
            "type": "STATIC",
            // The default of 1024 would refuse the idle ones.
            "circuit_breakers": {
                "thresholds": [{ "max_connections": 100_000, "max_pending_requests": 100_000 }],
            },
            "load_assignment": {
                "cluster_name": format!("p{port}"),
                "endpoints": [{ "lb_endpoints": endpoints }],
            },
        })
    };
    let forwards = forwards(field, host);
    json!({ "static_resources": {
        "listeners": forwards.iter().map(|(port, _)| listener(*port)).collect::<Vec<_>>(),
        "clusters": forwards.iter().map(|(port, to)| cluster(*port, to)).collect::<Vec<_>>(),
    }})
}
