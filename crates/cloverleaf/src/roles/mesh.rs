//! The role `mesh`: cluster ports on this host, from the files of the Simplenetes tools.
//!
//! Starts everything, then follows the files and the signals until it is told to stop. [`member`] is a host's part in
//! the mesh, in this role or in another, [`sockets`] has the ports, [`names`] finds out which host this is, [`follow`]
//! brings in what has changed, [`provider`] shows it all on the admin port. Wiring only: what happens to a connection
//! is `mesh`'s and `stream`'s.

mod follow;
pub(super) mod member;
mod metrics;
mod names;
pub(super) mod provider;
mod sockets;

use std::process::ExitCode;

use anyhow::Context;
use config::AdminAddress;
use net::dial::Dialer;
use net::worker::Workers;
use tokio::sync::watch;

use super::lifecycle::{drained, start_admin};
use super::signals::{Signal, Signals};
use crate::UsageError;
use crate::cli::MeshArgs;
use member::{Member, Reading};

/// Serves until told to stop. Exit code 2 where the files are not valid, 1 where something cannot be had.
pub(crate) fn run(args: MeshArgs) -> anyhow::Result<ExitCode> {
    let admin = admin_address(&args)?;
    crate::logging::start_at(&log_level(&args)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the files are read, so that nothing said meanwhile is missed.
        let mut signals = Signals::new()?;
        let reading = Reading::first(&args.proxy_conf)?;
        reading.found.0.iter().for_each(|problem| eprintln!("{problem}"));
        if !reading.is_usable() {
            return Ok(ExitCode::from(crate::EXIT_USAGE));
        }
        let mut mesh = Mesh::start(&args, admin, reading).await?;
        net::pages::give_back_code();
        let signal = mesh.follow(&mut signals).await;
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

/// Everything that runs.
struct Mesh {
    workers: Workers,
    member: Member,
    stop: watch::Sender<bool>,
}

impl Mesh {
    async fn start(args: &MeshArgs, admin: AdminAddress, reading: Reading) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = args.workers.map_or(cores, usize::from);
        let mut member = Member::join(reading, Dialer::default(), Some(count)).await?;
        let (stop, stopped) = watch::channel(false);
        start_admin(admin, member.provider.clone(), stopped)?;
        let workers = Workers::start(count).context("starting worker threads")?;
        member.serve(&workers).await?;
        member.announce();
        if let AdminAddress::At(at) = admin {
            eprintln!("  admin: http://{at}/   (or: cloverleaf status --admin-address {at})");
        }
        member.provider.set_ready(true);
        Ok(Self { workers, member, stop })
    }

    /// Follows the files and the signals; gives the one that says to stop.
    async fn follow(&mut self, signals: &mut Signals) -> Signal {
        loop {
            let signal = tokio::select! {
                () = self.member.run() => continue,
                signal = signals.next() => signal,
            };
            match signal {
                Signal::Reload => self.member.reload().await,
                stop => return stop,
            }
        }
    }

    /// Not ready, no new connections, then as long as the settings say for those that are open. A second signal ends
    /// it at once.
    async fn finish(mut self, signal: Signal, signals: &mut Signals) {
        let shared = self.member.shared.clone();
        let drain = shared.state().settings.times.drain;
        tracing::info!(drain_ms = drain.as_millis(), ?signal, "stopping");
        self.member.provider.set_ready(false);
        // New connections find nobody then, or whoever takes over.
        self.member.close();
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
