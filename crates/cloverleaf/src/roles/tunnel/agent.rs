//! `tunnel agent`: flags checked, a worker started, signals followed.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::StatusCode;
use kubernetes::servers::CountStats;
use model::{Diagnostics, HostName, Target};
use net::dial::Dialer;
use net::worker::Workers;
use tunnel::agent::{Address, Agent, Settings, Token};
use tunnel::identifiers::Identifiers;

use super::certificates::{self, Named, Shown};
use super::pages::{self, Page, Pages};
use super::{cluster, metrics, name, random, socket_address};
use crate::UsageError;
use crate::cli::AgentArgs;
use crate::roles::signals::Signals;

/// Places where servers are.
const SERVERS_MAX: usize = 64;
/// A token's file is a few KiB.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// What the flags come to.
struct Plan {
    servers: Vec<Address>,
    identifiers: Identifiers,
    shown: Shown,
}

impl Plan {
    fn new(args: &AgentArgs) -> Result<Self, UsageError> {
        args.common.absent.check()?;
        let identifiers = Identifiers::parse(&args.agent_identifiers)
            .map_err(|error| UsageError(format!("flag --agent-identifiers: {error}")))?;
        Ok(Self { servers: servers(args)?, identifiers, shown: shown(args)? })
    }
}

/// What is wrong with the flags and with the files that they name, and warnings beside it; nothing is connected to.
pub(crate) fn check(args: &AgentArgs) -> Diagnostics {
    match Plan::new(args).map(|plan| plan.shown.load()) {
        Ok(Ok(loaded)) => loaded.warnings().clone(),
        Ok(Err(wrong)) => wrong,
        Err(wrong) => super::wrong_flags("tunnelAgent", wrong),
    }
}

/// Serves until told twice to stop: the first time it only says so to the servers. Exit code 2 where the flags are not
/// valid, 1 where something cannot be had.
pub(crate) fn run(args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let Plan { servers, identifiers, shown } = Plan::new(args)?;
    crate::logging::start(args.common.verbosity >= super::VERBOSE_FROM);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        tracing::debug!(descriptors = net::descriptors::raise_limit(), "limit");
        let tls = certificates::start(shown, "agent")?;
        let (count, leases) = cluster::count_servers(&args.cluster).await?;
        let settings = Settings {
            servers,
            agent_id: name(args.agent_id.clone(), "PROXY_AGENT_ID"),
            identifiers,
            tls,
            token: token(&args.service_account_token_path),
            sync_interval: args.sync_interval,
            sync_interval_cap: args.sync_interval_cap,
            sync_forever: args.sync_forever,
            count,
            keepalive: if args.common.keepalive_time.is_zero() {
                Duration::MAX
            } else {
                args.common.keepalive_time
            },
            process: random(),
            extensions: !args.no_extensions,
        };
        serve(args, settings, leases, &mut signals).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn serve(
    args: &AgentArgs,
    settings: Settings,
    leases: Arc<CountStats>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let health = socket_address(args.health_server_host, args.health_server_port);
    let health_socket = pages::bind(health, "--health-server-port")?;
    let admin = socket_address(args.common.admin_bind_address, args.admin_server_port);
    let admin_socket = pages::bind(admin, "--admin-server-port")?;
    eprintln!(
        "cloverleaf tunnel agent {}: {} for servers at {}",
        env!("CARGO_PKG_VERSION"),
        settings.agent_id,
        args.proxy_server_host.join(", ")
    );
    let agent = Agent::new(settings, Dialer::default());
    let carriers = usize::from(if args.no_extensions { 1 } else { args.carriers });
    let threads = carriers.min(std::thread::available_parallelism().map_or(1, usize::from));
    let workers = Workers::start(threads).context("starting a worker thread")?;
    for carrier in 0..carriers {
        let (running, seed) = (agent.clone(), random());
        let job = move || drop(net::task::spawn_local("agent", running.run(carrier, seed)));
        workers.run(carrier % threads, Box::new(job)).await?;
    }
    start_pages(health_socket, health_pages(&agent, leases));
    let metrics_port = args.health_server_port;
    let moved: Pages = Arc::new(move |path, _| match path {
        "/metrics" => Page::Moved(format!("http://localhost:{metrics_port}/metrics")),
        _ => Page::None,
    });
    start_pages(admin_socket, moved);
    net::pages::give_back_code();
    signals.stop().await;
    tracing::info!("draining: the servers are told, connections go on; a second signal ends them");
    agent.drain();
    signals.stop().await;
    let left = agent.stats.open_endpoints.get();
    if left > 0 {
        tracing::warn!(connections = left, "stopped with connections open");
    }
    let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
    Ok(())
}

fn servers(args: &AgentArgs) -> Result<Vec<Address>, UsageError> {
    let port = args.proxy_server_port;
    if port == 0 {
        return Err(UsageError("flag --proxy-server-port: found 0, expected a port".to_owned()));
    }
    let one = |text: &String| {
        address(text, port).ok_or_else(|| {
            UsageError(format!(
                "flag --proxy-server-host: found {text:?}, expected a name or an IP address, with or without a port"
            ))
        })
    };
    let servers: Vec<Address> = args.proxy_server_host.iter().map(one).collect::<Result<_, _>>()?;
    if servers.len() > SERVERS_MAX {
        let found = servers.len();
        return Err(UsageError(format!(
            "flag --proxy-server-host: found {found} places, expected at most {SERVERS_MAX}"
        )));
    }
    Ok(servers)
}

/// A host by its name or number, which may have a port of its own.
fn address(text: &str, port: u16) -> Option<Address> {
    let of = |ip: IpAddr, port| Address {
        target: Target::Address(SocketAddr::new(ip, port)),
        name: ip.to_string(),
    };
    if let Ok(ip) = text.parse() {
        return Some(of(ip, port));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() > 0).then(|| of(address.ip(), address.port()));
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, port),
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
    };
    let name = HostName::parse(host).ok()?;
    Some(Address { target: Target::Named(name, port), name: host.to_owned() })
}

fn shown(args: &AgentArgs) -> Result<Shown, UsageError> {
    let certificate =
        certificates::pair(("--agent-cert", &args.agent_cert), ("--agent-key", &args.agent_key))?;
    let authorities = Named::new("--ca-cert", &args.ca_cert);
    let given = args.alpn_proto.iter().filter(|name| !name.is_empty() && *name != "h2");
    let protocols: Vec<Vec<u8>> =
        given.map(|name| name.clone().into_bytes()).chain([b"h2".to_vec()]).collect();
    // RFC 7301 section 3.1.
    if protocols.iter().any(|name| name.len() > 255) {
        return Err(UsageError("flag --alpn-proto: expected at most 255 bytes a name".to_owned()));
    }
    Ok(Shown { certificate, authorities, server_name: None, protocols })
}

/// Reads the token's file each time it is asked for.
fn token(path: &str) -> Token {
    let path = path.to_owned();
    Box::new(move || {
        use std::io::Read;
        if path.is_empty() {
            return Ok(None);
        }
        let mut text = String::new();
        std::fs::File::open(&path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(text.trim().to_owned()))
    })
}

fn health_pages(agent: &Arc<Agent>, leases: Arc<CountStats>) -> Pages {
    let agent = agent.clone();
    Arc::new(move |path, query| match path {
        "/healthz" => Page::Text(StatusCode::OK, "ok".to_owned()),
        "/metrics" => Page::Metrics(metrics::of_agent(&agent, &leases)),
        "/ready" | "/readyz" => readiness(
            agent.open_servers() > 0,
            query.split('&').any(|part| part.starts_with("verbose")),
        ),
        _ => Page::None,
    })
}

/// In the original's words.
fn readiness(connected: bool, verbose: bool) -> Page {
    let server = if connected {
        "[+]server-connected ok\n"
    } else {
        "[-]server-connected failed: no servers connected\n"
    };
    let checks = format!("[+]ping ok\n{server}");
    if !connected {
        let text = format!("{checks}readyz check failed\n");
        return Page::Text(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let text = if verbose { format!("{checks}readyz check passed\n") } else { "ok".to_owned() };
    Page::Text(StatusCode::OK, text)
}

fn start_pages(listener: std::net::TcpListener, pages: Pages) {
    net::task::spawn("pages", async move {
        if let Err(error) = pages::serve(listener, pages).await {
            tracing::error!(%error, "a port for pages");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_names_and_numbers_with_and_without_a_port() {
        for (text, expected) in [
            ("10.0.0.1", Some(("10.0.0.1:8091", "10.0.0.1"))),
            ("10.0.0.1:1", Some(("10.0.0.1:1", "10.0.0.1"))),
            ("fd00::1", Some(("[fd00::1]:8091", "fd00::1"))),
            ("[fd00::1]:1", Some(("[fd00::1]:1", "fd00::1"))),
            ("hub.example", Some(("hub.example:8091", "hub.example"))),
            ("hub.example:1", Some(("hub.example:1", "hub.example"))),
            ("hub.example:0", None),
            ("hub.example:65536", None),
            ("10.0.0.1:0", None),
            ("not a name", None),
            ("", None),
        ] {
            let found = address(text, 8091).map(|found| (found.target.to_string(), found.name));
            let expected = expected.map(|(target, name)| (target.to_owned(), name.to_owned()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
