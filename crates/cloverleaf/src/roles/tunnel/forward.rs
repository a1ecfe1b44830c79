//! `tunnel forward`: flags checked, local ports bound, workers started, signals followed.
//!
//! `ports` are what is asked for.

mod ports;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use hyper::StatusCode;
use model::{Diagnostics, HostName, TunnelServers};
use net::dial::Dialer;
use net::worker::Workers;
use tokio::sync::oneshot;
use tunnel::client::{Client, Settings, way};
use tunnel::forward::{Forward, serve, udp};
use tunnel::server::Mode;

use super::certificates::{self, Named, Shown};
use super::pages::{self, Page, Pages};
use super::{metrics, server, socket_address};
use crate::UsageError;
use crate::cli::ForwardArgs;
use crate::roles::lifecycle::drained;
use crate::roles::signals::{Signal, Signals};
use ports::{LocalPort, Serves, Socket};

/// How often it is looked whether the server is there.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// The same while it is not.
const CHECK_ABSENT_EVERY: Duration = Duration::from_secs(1);
/// How long that may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// What is wrong with the flags and with the files that they name, and warnings beside it; nothing is bound.
pub(crate) fn check(args: &ForwardArgs) -> Diagnostics {
    match Plan::new(args).map(|plan| plan.shown.map(|shown| shown.load())) {
        Ok(None) => Diagnostics::default(),
        Ok(Some(Ok(loaded))) => loaded.warnings().clone(),
        Ok(Some(Err(wrong))) => wrong,
        Err(wrong) => super::wrong_flags("tunnelForward", wrong),
    }
}

/// Serves until told to stop. Exit code 2 where the flags are not valid, 1 where something cannot be had.
pub(crate) fn run(args: &ForwardArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args)?;
    crate::logging::start(args.verbosity >= super::VERBOSE_FROM);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let running = Running::start(args, plan).await?;
        net::pages::give_back_code();
        let signal = signals.stop().await;
        running.finish(signal, args.graceful_shutdown_timeout, &mut signals).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// What the flags come to.
struct Plan {
    servers: TunnelServers,
    mode: Mode,
    /// `None` for Unix sockets.
    shown: Option<Shown>,
    ports: Vec<LocalPort>,
}

impl Plan {
    fn new(args: &ForwardArgs) -> Result<Self, UsageError> {
        let (servers, mode) = (servers_of(&args.server)?, server::mode(&args.mode)?);
        let shown = shown(args, &servers, mode)?;
        let ports = ports::ports(args)?;
        let carries_udp = mode == Mode::Grpc && !args.no_extensions;
        if !carries_udp && ports.iter().any(|port| matches!(port.serves, Serves::Udp(..))) {
            let text = "flag --listen: udp:// is for --mode=grpc, and not with --no-extensions";
            return Err(UsageError(text.to_owned()));
        }
        Ok(Self { servers, mode, shown, ports })
    }
}

fn servers_of(text: &str) -> Result<TunnelServers, UsageError> {
    TunnelServers::parse(text).ok_or_else(|| {
        let expected = TunnelServers::EXPECTED;
        let found = if text.is_empty() { "missing".to_owned() } else { format!("found {text:?}") };
        UsageError(format!("flag --server: {found}, expected {expected}"))
    })
}

fn shown(
    args: &ForwardArgs,
    servers: &TunnelServers,
    mode: Mode,
) -> Result<Option<Shown>, UsageError> {
    let certificate = certificates::pair(
        ("--client-cert", &args.client_cert),
        ("--client-key", &args.client_key),
    )?;
    let authorities = Named::new("--ca-cert", &args.ca_cert);
    if !servers.have_tls() {
        if certificate.is_some() || authorities.is_some() || !args.server_name.is_empty() {
            let text = "flags --ca-cert, --client-cert, --client-key and --server-name: a Unix \
                        socket has no TLS";
            return Err(UsageError(text.to_owned()));
        }
        return Ok(None);
    }
    let server_name = match args.server_name.as_str() {
        "" => None,
        name => Some(HostName::parse(name).map_err(|_| {
            UsageError(format!("flag --server-name: found {name:?}, expected a host name"))
        })?),
    };
    let protocols = vec![way::protocol(mode).to_vec()];
    Ok(Some(Shown { certificate, authorities, server_name, protocols }))
}

/// Everything that runs.
struct Running {
    forward: Arc<Forward>,
    workers: Workers,
    accepting: Vec<oneshot::Sender<()>>,
}

impl Running {
    async fn start(args: &ForwardArgs, plan: Plan) -> anyhow::Result<Self> {
        tracing::debug!(descriptors = net::descriptors::raise_limit(), "limit");
        let Plan { servers, mode, shown, ports } = plan;
        let tls = shown.map(|shown| certificates::start(shown, "client")).transpose()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = args.workers.map_or(cores, usize::from);
        let mut sockets = Vec::new();
        for port in ports {
            sockets.push((port.bind(count)?, port.serves));
        }
        let health = socket_address(args.health_bind_address, args.health_port);
        let health = (args.health_port > 0).then(|| pages::bind(health, "--health-port"));
        let health = health.transpose()?;
        let settings = Settings { servers, mode, tls, extensions: !args.no_extensions };
        let forward = Forward::new(Client::new(settings, Dialer::default()));
        announce(&forward, &sockets)?;
        let workers = Workers::start(count).context("starting worker threads")?;
        let mut accepting = Vec::new();
        for (bound, serves) in sockets {
            for (index, socket) in bound.into_iter().enumerate() {
                let port = (socket, serves.clone());
                accepting.push(start_port(&workers, index, &forward, port).await?);
            }
        }
        let up = Arc::new(AtomicBool::new(false));
        let watching = watch_server(forward.client().clone(), up.clone());
        let job = || drop(net::task::spawn_local("watching the server", watching));
        workers.run(0, Box::new(job)).await?;
        if let Some(listener) = health {
            show(&forward, up, listener);
        }
        Ok(Self { forward, workers, accepting })
    }

    /// No new connections, then as long as was allowed for those that are open. A second signal ends it at once.
    async fn finish(self, signal: Signal, grace: Duration, signals: &mut Signals) {
        tracing::info!(?signal, grace_ms = grace.as_millis(), "stopping");
        drop(self.accepting);
        let open = || usize::try_from(self.forward.stats.open.get()).unwrap_or(usize::MAX);
        tokio::select! {
            () = drained(open, grace) => {}
            _ = signals.stop() => {}
        }
        let left = open();
        if left > 0 {
            tracing::warn!(connections = left, "stopped with connections open");
        }
        let workers = self.workers;
        let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
    }
}

/// Says on standard error which ports there are.
fn announce(forward: &Forward, sockets: &[(Vec<Socket>, Serves)]) -> anyhow::Result<()> {
    let servers = forward.client().servers();
    eprintln!("cloverleaf tunnel forward {}: through {servers}", env!("CARGO_PKG_VERSION"));
    for (bound, serves) in sockets {
        let address = bound.first().context("no socket")?.address()?;
        eprintln!("  {address} {serves}");
    }
    Ok(())
}

/// Has a worker serve a local port until what is returned is dropped.
async fn start_port(
    workers: &Workers,
    index: usize,
    forward: &Arc<Forward>,
    (socket, serves): (Socket, Serves),
) -> anyhow::Result<oneshot::Sender<()>> {
    let (started, begun) = oneshot::channel::<std::io::Result<()>>();
    let (stop, stopped) = oneshot::channel::<()>();
    let forward = forward.clone();
    let job = Box::new(move || {
        let accepting = match (socket, &serves) {
            (Socket::Tcp(socket), Serves::Tcp(port)) => serve(&forward, socket, port),
            (Socket::Udp(socket), Serves::Udp(to, idle)) => udp::serve(&forward, socket, to, *idle),
            // Each was bound for what it serves.
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        };
        let _ = started.send(accepting.map(|accepting| {
            drop(net::task::spawn_local("accepting", async move {
                let _ = stopped.await;
                drop(accepting);
            }));
        }));
    });
    workers.run(index, job).await?;
    begun.await.context("a worker thread is gone")?.context("serving")?;
    Ok(stop)
}

/// Looks again and again whether the server is there, and says when that changes. For ever.
async fn watch_server(client: Arc<Client>, up: Arc<AtomicBool>) {
    let mut said_down = false;
    loop {
        match client.check(CHECK_TIMEOUT).await {
            Ok(()) => {
                if !up.swap(true, Ordering::Relaxed) {
                    tracing::info!(server = %client.servers(), "the server is there");
                }
                said_down = false;
                tokio::time::sleep(CHECK_EVERY).await;
            }
            Err(error) => {
                up.store(false, Ordering::Relaxed);
                if !std::mem::replace(&mut said_down, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the server cannot be reached; trying on");
                }
                tokio::time::sleep(CHECK_ABSENT_EVERY).await;
            }
        }
    }
}

/// Starts the health port.
fn show(forward: &Arc<Forward>, up: Arc<AtomicBool>, listener: std::net::TcpListener) {
    let forward = forward.clone();
    let pages: Pages = Arc::new(move |path, _| match path {
        "/metrics" => Page::Metrics(metrics::of_forward(&forward, up.load(Ordering::Relaxed))),
        "/healthz" => Page::Text(StatusCode::OK, "ok".to_owned()),
        "/ready" | "/readyz" => {
            if up.load(Ordering::Relaxed) {
                Page::Text(StatusCode::OK, "ok".to_owned())
            } else {
                let text = "the server cannot be reached".to_owned();
                Page::Text(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        }
        _ => Page::None,
    });
    net::task::spawn("pages", async move {
        if let Err(error) = pages::serve(listener, pages).await {
            tracing::error!(%error, "a port for pages");
        }
    });
}
