//! The role `mesh`: cluster ports on this host, from the files of the Simplenetes tools.
//!
//! Starts everything, then follows the files and the signals until it is told to stop. [`sockets`] has the ports,
//! [`names`] finds out which host this is, [`follow`] brings in what has changed, [`provider`] shows it all on the
//! admin port. Wiring only: what happens to a connection is `mesh`'s and `stream`'s.

mod follow;
mod metrics;
mod names;
mod provider;
mod sockets;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use config::{AdminAddress, Watcher};
use mesh::source::{Files, read_file};
use mesh::{Maker, Serving, Shared};
use model::{Diagnostics, HostName};
use net::worker::Workers;
use tokio::sync::{oneshot, watch};

use super::lifecycle::{drained, start_admin};
use super::signals::{Signal, Signals};
use crate::UsageError;
use crate::cli::MeshArgs;
use follow::Follow;
use names::Names;
use provider::Provider;
use sockets::{Opened, Ports};

/// Descriptors that are not for connections: listening sockets, the admin port, files.
const DESCRIPTORS_RESERVED: u64 = 256;
/// Descriptors of one connection: the client's socket, the pod's, and one for a host that is just being asked.
const DESCRIPTORS_A_CONNECTION: u64 = 3;

/// Serves until told to stop. Exit code 2 where the files are not valid, 1 where something cannot be had.
pub(crate) fn run(args: MeshArgs) -> anyhow::Result<ExitCode> {
    let admin = admin_address(&args)?;
    crate::logging::start_at(&log_level(&args)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the files are read, so that nothing said meanwhile is missed.
        let mut signals = Signals::new()?;
        let mut watcher = Watcher::new(vec![args.proxy_conf.clone()])?;
        let Some((files, found)) = first(&args.proxy_conf, &mut watcher)? else {
            return Ok(ExitCode::from(crate::EXIT_USAGE));
        };
        let mut mesh = Mesh::start(&args, admin, files, found).await?;
        let signal = mesh.follow.run(&mut watcher, &mut signals).await;
        mesh.finish(signal, &mut signals).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn admin_address(args: &MeshArgs) -> Result<AdminAddress, UsageError> {
    let Some(text) = &args.admin_address else { return Ok(AdminAddress::default()) };
    AdminAddress::parse(text).ok_or_else(|| {
        UsageError(format!("flag --admin-address: found {text:?}, expected IP:PORT or off"))
    })
}

/// `--debug`, else `LOG_LEVEL`, which is the original's.
fn log_level(args: &MeshArgs) -> Result<String, UsageError> {
    if args.debug {
        return Ok("debug".to_owned());
    }
    let level = crate::env::variable("LOG_LEVEL").filter(|level| !level.is_empty());
    let level = level.unwrap_or_else(|| "info".to_owned());
    if matches!(level.as_str(), "error" | "warn" | "info" | "debug") {
        return Ok(level);
    }
    let expected = "error, warn, info or debug";
    Err(UsageError(format!("environment variable LOG_LEVEL: found {level:?}, expected {expected}")))
}

/// Reads the files for the first time. `None` where `proxy.conf` cannot be used; it is said why. The files are
/// watched from before they are read.
fn first(proxy_conf: &Path, watcher: &mut Watcher) -> anyhow::Result<Option<(Files, Diagnostics)>> {
    let (named, _) = Files::read(proxy_conf, None, &read_file);
    watcher.set_paths(follow::watched(proxy_conf, &named))?;
    let (files, found) = Files::read(proxy_conf, None, &read_file);
    found.0.iter().for_each(|problem| eprintln!("{problem}"));
    let name = proxy_conf.display().to_string();
    let usable = !found.errors().any(|problem| *problem.place.source == *name);
    Ok(usable.then_some((files, found)))
}

/// Everything that runs.
struct Mesh {
    workers: Workers,
    serving: Vec<Serving>,
    follow: Follow,
    stop: watch::Sender<bool>,
}

impl Mesh {
    async fn start(
        args: &MeshArgs,
        admin: AdminAddress,
        files: Files,
        found: Diagnostics,
    ) -> anyhow::Result<Self> {
        let names = Names::default();
        let (listen_name, listen) = listen_address(&files, &names).await?;
        let resolved = names.resolve(&files, listen).await;
        let mut maker = Maker::default();
        let state = maker.make(&files, &resolved, &listen_name);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = args.workers.map_or(cores, usize::from);
        let limit = net::descriptors::raise_limit();
        let (stop, stopped) = watch::channel(false);
        let Opened { workers: sockets, ports } = sockets::open(&state, listen, count, limit)?;
        let own = u64::try_from(ports.sockets()).unwrap_or(u64::MAX);
        let left = limit.saturating_sub(own).saturating_sub(DESCRIPTORS_RESERVED);
        let most = usize::try_from(left / DESCRIPTORS_A_CONNECTION).unwrap_or(usize::MAX);
        let shared = Shared::new(state, most.max(1));
        let name = args.proxy_conf.display().to_string();
        let provider = Provider::new(shared.clone(), name, listen, found, ports.view());
        start_admin(admin, provider.clone(), stopped)?;
        let workers = Workers::start(count).context("starting worker threads")?;
        let serving = serve(&workers, &shared, sockets).await?;
        announce(&files, listen, &ports, admin, most);
        let mut follow = Follow {
            proxy_conf: args.proxy_conf.clone(),
            files,
            names,
            resolved,
            listen_name,
            listen,
            maker,
            shared,
            ports,
            provider,
        };
        // The admin port listens by now, and may be within the range of the cluster ports.
        follow.steer();
        follow.provider.set_ready(true);
        Ok(Self { workers, serving, follow, stop })
    }

    /// Not ready, no new connections, then as long as the settings say for those that are open. A second signal ends
    /// it at once.
    async fn finish(self, signal: Signal, signals: &mut Signals) {
        let shared = self.follow.shared.clone();
        let drain = shared.state().settings.times.drain;
        tracing::info!(drain_ms = drain.as_millis(), ?signal, "stopping");
        self.follow.provider.set_ready(false);
        shared.drain();
        // New connections find nobody then, or whoever takes over.
        drop(self.follow);
        self.serving.iter().for_each(Serving::close);
        tokio::select! {
            () = drained(|| shared.open_connections(), drain) => {}
            _ = signals.stop() => {}
        }
        let left = shared.open_connections();
        if left > 0 {
            tracing::warn!(connections = left, "stopped with connections open");
        }
        let _ = self.stop.send(true);
        let workers = self.workers;
        let _ = tokio::task::spawn_blocking(move || workers.stop()).await;
    }
}

/// `HOST`, else the host of the first line of `hosts.conf`, and its address.
async fn listen_address(files: &Files, names: &Names) -> anyhow::Result<(HostName, IpAddr)> {
    let first = || files.hosts.first().and_then(|target| HostName::parse(&target.host()).ok());
    let name = files.settings.host.clone().or_else(first).ok_or_else(|| {
        UsageError("nowhere to listen: neither HOST in proxy.conf nor a host in hosts.conf".into())
    })?;
    let address = names.address(&name).await.context("finding the address of HOST")?;
    Ok((name, address))
}

/// Has every worker serve its sockets.
async fn serve(
    workers: &Workers,
    shared: &Arc<Shared>,
    sockets: Vec<mesh::Sockets>,
) -> anyhow::Result<Vec<Serving>> {
    let mut serving = Vec::new();
    for (index, sockets) in sockets.into_iter().enumerate() {
        let (answer, answered) = oneshot::channel();
        let shared = shared.clone();
        let seed = seed(index);
        let job = Box::new(move || {
            let _ = answer.send(mesh::serve(&shared, seed, sockets));
        });
        workers.run(index, job).await?;
        serving.push(answered.await.context("a worker thread is gone")?.context("serving")?);
    }
    Ok(serving)
}

/// Another one for each worker and each start, so that hosts do not all choose alike.
fn seed(worker: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_usize(worker);
    hasher.finish()
}

/// Says on standard error what is served and how.
fn announce(files: &Files, listen: IpAddr, ports: &Ports, admin: AdminAddress, most: usize) {
    let peers = std::net::SocketAddr::new(listen, files.settings.port);
    eprintln!(
        "cloverleaf mesh {}: {} hosts, {} mappings, at most {most} connections",
        env!("CARGO_PKG_VERSION"),
        files.hosts.len(),
        files.mappings.len()
    );
    eprintln!(
        "  cluster ports: {listen} {}   ({})",
        files.settings.cluster_ports,
        ports.describe()
    );
    eprintln!("  peers: {peers}");
    if let AdminAddress::At(address) = admin {
        eprintln!("  admin: http://{address}/   (or: cloverleaf status --admin-address {address})");
    }
}
