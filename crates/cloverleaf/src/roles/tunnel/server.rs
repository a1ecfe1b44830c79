//! `tunnel server`: flags checked, sockets bound, workers started, signals followed.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use config::Watcher;
use hyper::StatusCode;
use model::{Diagnostic, Diagnostics, HttpVersions, Place, TlsVersion};
use net::worker::Workers;
use tls::{CipherSuites, Termination};
use tokio::sync::oneshot;
use tunnel::server::listen::{Accepting, Certificates, Clients, serve};
use tunnel::server::{Admission, Hub, Mode, Settings, Strategy};

use super::certificates::{self, Named, Served};
use super::cluster::{ServerCluster, ServerPlan};
use super::pages::{self, Page, Pages};
use super::{metrics, name, policy, random, socket_address};
use crate::UsageError;
use crate::cli::ServerArgs;
use crate::roles::lifecycle::drained;
use crate::roles::signals::{Signal, Signals};

/// Who may connect to the Unix socket, as the original has it: its owner and its group.
const SOCKET_MODE: u32 = 0o770;

/// What is said of cipher suites that Go has and we do not.
const LEFT_OUT: &str = "not offered: it is weak";

/// Serves until told to stop. Exit code 2 where the flags are not valid, 1 where something cannot be had.
pub(crate) fn run(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args)?;
    crate::logging::start(args.common.verbosity >= super::VERBOSE_FROM);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let server = Server::start(args, plan).await?;
        net::pages::give_back_code();
        let signal = signals.stop().await;
        server.finish(signal, args.graceful_shutdown_timeout, &mut signals).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// What is wrong with the flags and with the files that they name, and warnings beside it; nothing is bound.
pub(crate) fn check(args: &ServerArgs) -> Diagnostics {
    let place = || Place::whole("tunnelServer");
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(wrong) => return super::wrong_flags("tunnelServer", wrong),
    };
    let mut found = Diagnostics::default();
    for name in &plan.agents.suites.left_out {
        found.push(Diagnostic::warning(place(), "cipherSuites", LEFT_OUT).value(name));
    }
    for served in [Some(&plan.agents), plan.clients.as_ref()].into_iter().flatten() {
        match served.load() {
            Ok(loaded) => found.0.extend(loaded.warnings().0.clone()),
            Err(wrong) => found.0.extend(wrong.0),
        }
    }
    if let Some(policy) = &args.cluster.agent_policy
        && let Err(wrong) = config::load_agent_policy(policy.as_ref())
    {
        found.0.extend(wrong.0);
    }
    found
}

/// What the flags come to.
struct Plan {
    settings: Settings,
    /// `None` for a Unix socket.
    clients: Option<Served>,
    agents: Served,
    cluster: ServerPlan,
}

impl Plan {
    fn new(args: &ServerArgs) -> Result<Self, UsageError> {
        args.common.absent.check()?;
        let tls = Tls::new(args)?;
        let mode = mode(&args.mode)?;
        let clients = clients(args, mode, &tls)?;
        let pair = certificates::pair(
            ("--cluster-cert", &args.cluster_cert),
            ("--cluster-key", &args.cluster_key),
        )?;
        let Some((certificate, key)) = pair else {
            let text = "flags --cluster-cert and --cluster-key: expected a certificate for agents";
            return Err(UsageError(text.to_owned()));
        };
        let authorities = Named::new("--cluster-ca-cert", &args.cluster_ca_cert);
        let settings = settings(args, mode)?;
        let asks_certificates = authorities.is_some();
        let cluster = ServerPlan::new(&args.cluster, &settings.server_id, asks_certificates)?;
        if args.cluster.agent_policy.is_some() && !asks_certificates && !cluster.asks_tokens() {
            let text = "flag --agent-policy: agents show nothing to know them by: expected --cluster-ca-cert, or \
                        --agent-namespace and its like";
            return Err(UsageError(text.to_owned()));
        }
        let versions = HttpVersions::Http2;
        let agents = tls.served((certificate, key), authorities, versions);
        Ok(Self { settings, clients, agents, cluster })
    }
}

/// How clients speak.
pub(super) fn mode(text: &str) -> Result<Mode, UsageError> {
    match text {
        "grpc" => Ok(Mode::Grpc),
        "http-connect" => Ok(Mode::HttpConnect),
        other => {
            let text = format!("flag --mode: found {other:?}, expected grpc or http-connect");
            Err(UsageError(text))
        }
    }
}

fn settings(args: &ServerArgs, mode: Mode) -> Result<Settings, UsageError> {
    let strategy = |name: &str| {
        Strategy::parse(name.trim()).ok_or_else(|| {
            UsageError(format!(
                "flag --proxy-strategies: found {name:?}, expected default, destHost or defaultRoute"
            ))
        })
    };
    let strategies = args.proxy_strategies.split(',').map(strategy).collect::<Result<_, _>>()?;
    if args.server_count == 0 {
        return Err(UsageError("flag --server-count: found 0, expected at least 1".to_owned()));
    }
    let or_never = |time: Duration| if time.is_zero() { Duration::MAX } else { time };
    Ok(Settings {
        mode,
        server_id: name(args.server_id.clone(), "PROXY_SERVER_ID"),
        server_count: args.server_count,
        strategies,
        backend_dial_timeout: Some(args.backend_dial_timeout).filter(|time| !time.is_zero()),
        keepalive: or_never(args.common.keepalive_time),
        frontend_keepalive: or_never(args.frontend_keepalive_time),
    })
}

/// What both ports have in common.
struct Tls {
    min_version: TlsVersion,
    suites: CipherSuites,
}

impl Tls {
    fn new(args: &ServerArgs) -> Result<Self, UsageError> {
        let min_version = match args.tls_min_version.as_str() {
            "" | "VersionTLS12" => TlsVersion::V1_2,
            "VersionTLS13" => TlsVersion::V1_3,
            other => {
                return Err(UsageError(format!(
                    "flag --tls-min-version: found {other:?}, expected VersionTLS12 or VersionTLS13"
                )));
            }
        };
        let names: Vec<&str> = args.cipher_suites.split(',').map(str::trim).collect();
        let names = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>();
        let suites = if names.is_empty() {
            CipherSuites::default()
        } else {
            CipherSuites::named(names.into_iter())
                .map_err(|error| UsageError(format!("flag --cipher-suites: {error}")))?
        };
        Ok(Self { min_version, suites })
    }

    fn served(
        &self,
        (certificate, key): (Named, Named),
        authorities: Option<Named>,
        versions: HttpVersions,
    ) -> Served {
        let Self { min_version, suites } = self;
        let (min_version, suites) = (*min_version, suites.clone());
        Served { certificate, key, authorities, versions, min_version, suites }
    }
}

/// What is shown to clients over TCP, and asked of them; `None` for a Unix socket, which has no TLS.
fn clients(args: &ServerArgs, mode: Mode, tls: &Tls) -> Result<Option<Served>, UsageError> {
    let authorities = Named::new("--server-ca-cert", &args.server_ca_cert);
    let pair = certificates::pair(
        ("--server-cert", &args.server_cert),
        ("--server-key", &args.server_key),
    )?;
    let wrong = |text: &str| Err(UsageError(text.to_owned()));
    if !args.uds_name.is_empty() {
        if args.server_port != 0 {
            return wrong("flag --server-port: expected 0 where --uds-name is given");
        }
        if pair.is_some() || authorities.is_some() {
            return wrong(
                "flags --server-cert, --server-key and --server-ca-cert: a Unix socket has no TLS",
            );
        }
        return Ok(None);
    }
    if args.server_port == 0 {
        return wrong("flag --server-port: found 0, expected a port, or --uds-name");
    }
    let Some((certificate, key)) = pair else {
        return wrong("flags --server-cert and --server-key: expected a certificate for clients");
    };
    if authorities.is_none() {
        return wrong("flag --server-ca-cert: expected the authorities of clients' certificates");
    }
    let versions = match mode {
        Mode::Grpc => HttpVersions::Http2,
        Mode::HttpConnect => HttpVersions::Http1,
    };
    Ok(Some(tls.served((certificate, key), authorities, versions)))
}

/// Everything that runs.
struct Server {
    hub: Arc<Hub>,
    workers: Workers,
    accepting: Vec<oneshot::Sender<()>>,
    cluster: ServerCluster,
}

impl Server {
    async fn start(args: &ServerArgs, plan: Plan) -> anyhow::Result<Self> {
        tracing::debug!(descriptors = net::descriptors::raise_limit(), "limit");
        let policy = args.cluster.agent_policy.as_deref().map(policy::follow).transpose()?;
        for name in &plan.agents.suites.left_out {
            tracing::warn!(name, "a cipher suite is {LEFT_OUT}");
        }
        let agents = certificates(&plan.agents, "agents' port")?;
        let clients = plan.clients.as_ref().map(|served| certificates(served, "clients' port"));
        let clients = clients.transpose()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = args.workers.map_or(cores, usize::from);
        let agent_address = socket_address(args.agent_bind_address, args.agent_port);
        let agent_sockets = net::listen::bind(agent_address, count).context("flag --agent-port")?;
        let client_sockets = client_sockets(args, clients, count)?;
        let health = socket_address(args.health_bind_address, args.health_port);
        let health = pages::bind(health, "--health-port")?;
        let admin = socket_address(args.common.admin_bind_address, args.admin_port);
        let admin = pages::bind(admin, "--admin-port")?;
        let cluster = plan.cluster.start(&args.cluster.kubeconfig).await?;
        let admission = Admission::new(cluster.tokens.clone(), policy);
        let hub = Hub::new(plan.settings, admission, random());
        let workers = Workers::start(count).context("starting worker threads")?;
        let mut accepting = Vec::new();
        for (index, (agent, client)) in agent_sockets.into_iter().zip(client_sockets).enumerate() {
            let sockets = (client, (agent, agents.clone()));
            accepting.push(start_worker(&workers, index, &hub, sockets).await?);
        }
        show(&hub, &cluster, health, true);
        show(&hub, &cluster, admin, false);
        eprintln!(
            "cloverleaf tunnel server {}: clients at {}, agents at {agent_address}",
            env!("CARGO_PKG_VERSION"),
            client_place(args),
        );
        Ok(Self { hub, workers, accepting, cluster })
    }

    /// No new connections, then as long as was allowed for those that are open. A second signal ends it at once.
    async fn finish(mut self, signal: Signal, grace: Duration, signals: &mut Signals) {
        tracing::info!(?signal, grace_ms = grace.as_millis(), "stopping");
        // Agents need not look for it any more.
        self.cluster.end();
        drop(self.accepting);
        let open = || usize::try_from(self.hub.stats.established.get()).unwrap_or(usize::MAX);
        if !grace.is_zero() {
            tokio::select! {
                () = drained(open, grace) => {}
                _ = signals.stop() => {}
            }
        }
        let left = open();
        if left > 0 {
            tracing::warn!(connections = left, "stopped with connections open");
        }
        self.cluster.ended().await;
        let workers = self.workers;
        let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
    }
}

/// Where clients connect, for a person.
fn client_place(args: &ServerArgs) -> String {
    if args.uds_name.is_empty() {
        socket_address(args.server_bind_address, args.server_port).to_string()
    } else {
        args.uds_name.clone()
    }
}

/// Loads certificates and follows their files.
fn certificates(served: &Served, what: &'static str) -> anyhow::Result<Certificates> {
    // Watched from before they are read.
    let watcher = Watcher::new(served.files())?;
    let loaded = served.load().map_err(usage)?;
    for warning in loaded.warnings().warnings() {
        tracing::warn!(%warning, what);
    }
    let place = Arc::new(ArcSwap::from_pointee(loaded));
    let served = served.clone();
    let load = move || -> Result<Termination, Diagnostics> { served.load() };
    net::task::spawn("certificates", certificates::follow(watcher, what, place.clone(), load));
    Ok(place)
}

/// What is wrong with files that flags name.
pub(super) fn usage(problems: Diagnostics) -> UsageError {
    let texts: Vec<String> = problems.errors().map(ToString::to_string).collect();
    UsageError(texts.join("\n"))
}

/// One for each worker.
fn client_sockets(
    args: &ServerArgs,
    certificates: Option<Certificates>,
    count: usize,
) -> anyhow::Result<Vec<Clients>> {
    if let Some(certificates) = certificates {
        let address = socket_address(args.server_bind_address, args.server_port);
        let sockets = net::listen::bind(address, count).context("flag --server-port")?;
        let clients = |socket| Clients::Tcp(socket, certificates.clone());
        return Ok(sockets.into_iter().map(clients).collect());
    }
    let path = Path::new(&args.uds_name);
    let failed = || format!("flag --uds-name: listening on {}", path.display());
    if args.delete_existing_uds_file {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(failed);
            }
            _ => {}
        }
    }
    let socket = UnixListener::bind(path).with_context(failed)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE)).with_context(failed)?;
    socket.set_nonblocking(true).with_context(failed)?;
    (0..count).map(|_| Ok(Clients::Unix(socket.try_clone().with_context(failed)?))).collect()
}

type Sockets = (Clients, (std::net::TcpListener, Certificates));

/// Has a worker serve its sockets until what is returned is dropped.
async fn start_worker(
    workers: &Workers,
    index: usize,
    hub: &Arc<Hub>,
    (clients, agents): Sockets,
) -> anyhow::Result<oneshot::Sender<()>> {
    let (started, begun) = oneshot::channel::<std::io::Result<()>>();
    let (stop, stopped) = oneshot::channel::<()>();
    let hub = hub.clone();
    let job = Box::new(move || {
        let accepting: std::io::Result<Accepting> = serve(&hub, Some(clients), agents);
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

/// Starts the health port or the admin port.
fn show(hub: &Arc<Hub>, cluster: &ServerCluster, listener: std::net::TcpListener, health: bool) {
    let (hub, leases) = (hub.clone(), cluster.lease_stats());
    let pages: Pages = Arc::new(move |path, _| match path {
        "/metrics" => Page::Metrics(metrics::of_server(&hub, &leases)),
        "/healthz" if health => Page::Text(StatusCode::OK, "ok".to_owned()),
        "/ready" | "/readyz" if health => {
            if hub.is_ready() {
                Page::Text(StatusCode::OK, "ok".to_owned())
            } else {
                let text = "no connection to any proxy agent".to_owned();
                Page::Text(StatusCode::INTERNAL_SERVER_ERROR, text)
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
