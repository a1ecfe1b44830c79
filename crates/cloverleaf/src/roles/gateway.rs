//! The role `gateway`: HTTP and HTTPS from a YAML file, or from a cluster.
//!
//! Starts everything, then follows the file, the cluster and the signals until it is told to stop. [`listeners`] opens
//! and closes sockets, [`reload`] brings in what has changed, [`beside`] is the mesh that upstreams may be reached
//! through, [`provider`] shows it all on the admin port. Wiring only: what happens to a request is `http_proxy`'s.

mod beside;
mod figures;
mod listeners;
mod metrics;
mod provider;
mod reload;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::{AdminAddress, Config, MeshConfig, Watcher};
use http_proxy::{Prober, Shared, Upstreams};
use kubernetes::Cluster;
use model::{Diagnostics, Shutdown};
use net::dial::Dialer;
use net::worker::Workers;
use tokio::sync::watch;
use tokio::time::Instant;
use tunnel::client::way::Tunnels;

use super::lifecycle::{drained, start_admin};
use super::mesh::member::{Reading, seed};
use super::signals::{Signal, Signals};
use crate::UsageError;
use crate::cli::GatewayArgs;
use crate::cluster::ClusterSetup;
use crate::cluster::view::ClusterView;
use crate::source::Source;
use beside::Beside;
use listeners::Listeners;
use provider::Provider;
use reload::{Compiled, Reload, compile};

/// Serves until told to stop. Exit code 2 where the configuration is not valid, 1 where something cannot be had.
pub(crate) fn run(args: GatewayArgs) -> anyhow::Result<ExitCode> {
    let mut source = Source::resolve(&args.source)?
        .with_process_flags(args.admin_address.as_deref(), args.workers)?;
    let cluster = cluster(&args, &source)?;
    if let Some(setup) = &cluster {
        source = source.with_cluster(&args.source, setup, args.https_port)?;
        setup.warnings().iter().for_each(|warning| eprintln!("{warning}"));
    }
    crate::logging::start(source.overrides.debug);
    source.write_config_b64()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the file is read, so that nothing said meanwhile is missed.
        let mut signals = Signals::new()?;
        let mut watcher = Watcher::new(source.file().map(Path::to_owned).into_iter().collect())?;
        loop {
            let problem = match first(&source, &mut watcher)? {
                Ok(begun) => {
                    let objects = match cluster {
                        Some(setup) => Some(connect(setup, &args, &begun.config).await?),
                        None => None,
                    };
                    return serve(source, begun, objects, watcher, signals).await;
                }
                Err(problem) => problem,
            };
            eprintln!("{problem}");
            if !args.wait_for_config {
                return Ok(ExitCode::from(crate::EXIT_USAGE));
            }
            tracing::info!(file = %source.path.display(), "waiting for a valid configuration");
            tokio::select! {
                () = watcher.changed() => {}
                signal = signals.next() => if signal != Signal::Reload {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    })
}

/// The cluster that routes come from, if flags ask for one.
fn cluster(args: &GatewayArgs, source: &Source) -> anyhow::Result<Option<ClusterSetup>> {
    if !args.kubernetes {
        let asked = args.cluster.is_given() || args.report.is_given();
        if asked || args.kubernetes_state.is_some() || args.https_port.is_some() {
            return Err(UsageError("flags about Kubernetes without --kubernetes".to_owned()).into());
        }
        return Ok(None);
    }
    Ok(Some(ClusterSetup::resolve(&args.cluster, source.overrides.tls_skip_verify)?))
}

/// Reaches the cluster.
async fn connect(
    mut setup: ClusterSetup,
    args: &GatewayArgs,
    config: &Config,
) -> anyhow::Result<(Cluster, kubernetes::Options)> {
    setup.set_tls(config.snapshot.listeners.iter().any(|l| l.protocol.scheme() == "https"));
    setup.connect(&args.report, args.kubernetes_state.clone()).await
}

/// A configuration to begin with.
struct Begun {
    config: Config,
    compiled: Compiled,
    /// The mesh's files, if there is a mesh.
    mesh: Option<Reading>,
    /// Warnings.
    found: Diagnostics,
}

/// Reads and compiles the file for the first time; else all that is wrong with it. Its files are watched from
/// before they are read.
fn first(source: &Source, watcher: &mut Watcher) -> anyhow::Result<Result<Begun, Diagnostics>> {
    let (config, mut found) = reload::load(source);
    let Some(config) = config else { return Ok(Err(found)) };
    let settings = config.mesh.iter().map(|mesh| mesh.proxy_conf.clone());
    let files = reload::watched(source, &config);
    watcher.set_paths(files.iter().cloned().chain(settings).collect())?;
    let mesh = config.mesh.as_ref().map(|mesh| Reading::first(&mesh.proxy_conf)).transpose()?;
    if let Some(reading) = &mesh {
        found.0.extend(reading.found.0.iter().cloned());
        if !reading.is_usable() {
            return Ok(Err(found));
        }
    }
    // From here on it is followed by itself.
    watcher.set_paths(files)?;
    Ok(match compile(1, &config, None) {
        Ok((compiled, warnings)) => {
            found.0.extend(warnings.0);
            Ok(Begun { config, compiled, mesh, found })
        }
        Err(errors) => {
            found.0.extend(errors.0);
            Err(found)
        }
    })
}

/// Everything that runs.
struct Gateway {
    workers: Workers,
    shared: Arc<Shared>,
    listeners: Listeners,
    /// Asks the endpoints that have a health check.
    prober: Prober,
    provider: Arc<Provider>,
    /// What cluster ports are reached through.
    mesh: Option<Beside>,
    /// What endpoints behind tunnels are reached through.
    tunnels: Arc<Tunnels>,
    dialer: Dialer,
    watcher: Watcher,
    stop: watch::Sender<bool>,
}

/// What changes what is served.
struct Sources {
    reload: Reload,
    /// The cluster that routes come from, if there is one.
    objects: Option<kubernetes::Source>,
}

impl Sources {
    /// The next output of the cluster; without one never. Dropped, none is lost.
    async fn next(&mut self) -> Arc<kubernetes::Output> {
        let Some(objects) = &mut self.objects else { return std::future::pending().await };
        loop {
            if objects.output.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(output) = objects.output.borrow_and_update().clone() {
                return output;
            }
        }
    }
}

async fn serve(
    source: Source,
    begun: Begun,
    objects: Option<(Cluster, kubernetes::Options)>,
    watcher: Watcher,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let Begun { config, compiled, mesh, found } = begun;
    found.0.iter().for_each(|problem| eprintln!("{problem}"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers =
        Workers::start(config.workers.unwrap_or(cores)).context("starting worker threads")?;
    let dialer = Dialer::default();
    let tunnels = Arc::new(Tunnels::default());
    tunnels.set(compiled.tunnels, &dialer);
    let shared = Shared::new(compiled.program, dialer.clone());
    dialer.add_way_to_upstreams(Arc::new(Upstreams::new(shared.clone(), seed(0))));
    dialer.add_way_through_tunnels(tunnels.clone());
    reload::open_access_log(&shared)?;
    let (stop, stopped) = watch::channel(false);
    start_echo(&config, stopped.clone())?;
    let provider = Provider::new(shared.clone(), tunnels.clone(), (&source, &found));
    start_admin(config.admin, provider.clone(), stopped)?;
    let mut prober = Prober::new(&shared).context("setting up health checks")?;
    prober.follow(&shared.program());
    let objects = objects.map(|(cluster, options)| {
        let source = kubernetes::Source::start(&cluster, options);
        let view = ClusterView::new(source.health.clone(), cluster.server());
        provider.set_cluster(view);
        source
    });
    let reload = Reload::new(source.clone(), config.clone(), found);
    let mut sources = Sources { reload, objects };
    let listeners = Listeners::default();
    let mut gateway = Gateway {
        workers,
        shared,
        listeners,
        prober,
        provider,
        mesh: None,
        tunnels,
        dialer,
        watcher,
        stop,
    };
    if let (Some(mesh), Some(reading)) = (&config.mesh, mesh) {
        gateway.join(mesh, reading).await?;
        gateway.mesh.iter().for_each(|mesh| mesh.set_ports(&config));
    }
    let signal = match gateway.begin(&config, &mut sources, &mut signals).await? {
        Some(early) => early,
        None => {
            // The listeners may be within the range of the cluster ports.
            if let Some(mesh) = &gateway.mesh {
                mesh.steer().await;
            }
            announce(&source, &config, &gateway.listeners);
            gateway.provider.set_ready(true);
            net::pages::give_back_code();
            gateway.follow(&mut sources, &mut signals).await
        }
    };
    gateway.finish(signal, sources, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error where to send the first request.
fn announce(source: &Source, config: &Config, listeners: &Listeners) {
    eprintln!("cloverleaf gateway {}: serving {}", env!("CARGO_PKG_VERSION"), source.name());
    for (listener, address) in listeners.addresses(&config.snapshot) {
        let scheme = listener.protocol.scheme();
        let host = match address.ip() {
            ip if ip.is_unspecified() => format!("127.0.0.1:{}", address.port()),
            _ => address.to_string(),
        };
        let insecure = if scheme == "https" { "-k " } else { "" };
        eprintln!(
            "  listener {}: {scheme}://{address}   try: curl {insecure}{scheme}://{host}/",
            listener.name
        );
    }
    if let Some(echo) = config.echo {
        eprintln!("  echo upstream: http://{echo}");
    }
    if let AdminAddress::At(address) = config.admin {
        eprintln!("  admin: http://{address}/   (or: cloverleaf status --admin-address {address})");
    }
}

fn start_echo(config: &Config, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let Some(address) = config.echo else { return Ok(()) };
    let socket =
        super::echo::bind(address).context("starting the echo upstream (key echo.address)")?;
    net::task::spawn("echo", async move {
        let end = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        if let Err(error) = super::echo::serve(socket, end).await {
            tracing::error!(error = format!("{error:#}"), "echo upstream");
        }
    });
    Ok(())
}

impl Gateway {
    /// Reaches cluster ports from now on.
    async fn join(&mut self, mesh: &MeshConfig, reading: Reading) -> anyhow::Result<()> {
        let (workers, provider) = (&self.workers, &self.provider);
        self.mesh = Some(Beside::start(mesh, reading, &self.dialer, workers, provider).await?);
        Ok(())
    }

    /// Opens the listeners; where routes come from a cluster, with the first of them, so that nobody is told that there
    /// are none. Gives the signal that came before that, if one did.
    async fn begin(
        &mut self,
        config: &Config,
        sources: &mut Sources,
        signals: &mut Signals,
    ) -> anyhow::Result<Option<Signal>> {
        if sources.objects.is_none() {
            let opened = self.listeners.open(&config.snapshot, self.workers.count())?;
            self.listeners.apply(opened, &self.workers, &self.shared).await?;
            return Ok(None);
        }
        // A port in use ends the start at once.
        drop(self.listeners.open(&config.snapshot, self.workers.count())?);
        loop {
            let output = tokio::select! {
                output = sources.next() => output,
                signal = signals.stop() => return Ok(Some(signal)),
            };
            if sources.reload.objects(self, output).await {
                return Ok(None);
            }
        }
    }

    /// Follows the file, the cluster and the signals; gives the one that says to stop.
    async fn follow(&mut self, sources: &mut Sources, signals: &mut Signals) -> Signal {
        loop {
            tokio::select! {
                () = self.watcher.changed() => sources.reload.run(self).await,
                output = sources.next() => {
                    sources.reload.objects(self, output).await;
                }
                signal = signals.next() => match signal {
                    Signal::Reload => {
                        self.mesh.iter().for_each(Beside::reload);
                        sources.reload.run(self).await;
                    }
                    stop => return stop,
                },
            }
        }
    }

    /// Not ready, still accepting for the grace period, then draining, then over. A second signal shortens each.
    async fn finish(mut self, signal: Signal, mut sources: Sources, signals: &mut Signals) {
        let Shutdown { grace, drain } = self.shared.program().snapshot.shutdown;
        self.provider.set_ready(false);
        self.shared.leave();
        if let Some(objects) = &sources.objects {
            objects.resign();
        }
        let grace = if signal == Signal::Terminate { grace } else { Duration::ZERO };
        tracing::info!(grace_ms = grace.as_millis(), drain_ms = drain.as_millis(), "stopping");
        let accepting_until = Instant::now() + grace;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(accepting_until) => break,
                _ = signals.stop() => break,
                // Endpoints go on changing while others still send requests here.
                output = sources.next() => {
                    sources.reload.objects(&mut self, output).await;
                }
            }
        }
        self.listeners.close_all();
        self.mesh.iter_mut().for_each(Beside::close);
        self.shared.drain();
        self.close_connections().await;
        let open = || {
            let of_mesh = self.mesh.as_ref().map_or(0, Beside::open_connections);
            self.shared.open_connections() + of_mesh
        };
        tokio::select! {
            () = drained(open, drain) => {}
            _ = signals.stop() => {}
        }
        let left = open();
        if left > 0 {
            tracing::warn!(connections = left, "stopped with connections open");
        }
        if let Some(objects) = sources.objects {
            objects.stop().await;
        }
        let _ = self.stop.send(true);
        let (workers, shared) = (self.workers, self.shared.clone());
        let end = move || {
            workers.stop();
            shared.finish_access_log();
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }

    /// Tells all connections to end as soon as they can.
    async fn close_connections(&self) {
        for index in 0..self.workers.count() {
            let shared = self.shared.clone();
            let job = Box::new(move || http_proxy::Worker::on_this_thread(index, &shared).drain());
            let _ = self.workers.run(index, job).await;
        }
    }
}
