//! A changed file becomes what is served: whole, or not at all.
//!
//! Read, checked, compiled and bound first; published last. Whatever fails on the way changes nothing and is
//! reported. Must not touch connections: they notice by themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use config::{AdminAddress, Config};
use http_proxy::{AccessLog, Program, Shared};
use model::{Diagnostic, Diagnostics, Place};

use super::Gateway;
use crate::source::Source;

/// What a process cannot change while it runs.
#[derive(Debug, PartialEq)]
struct Fixed {
    admin: AdminAddress,
    echo: Option<std::net::SocketAddr>,
    workers: Option<usize>,
}

impl Fixed {
    fn of(config: &Config) -> Self {
        Self { admin: config.admin, echo: config.echo, workers: config.workers }
    }
}

/// Brings in changes, one after another.
#[derive(Debug)]
pub(super) struct Reload {
    source: Source,
    generation: u64,
    fixed: Fixed,
    /// The files that what is served was made from.
    served: Vec<PathBuf>,
}

impl Reload {
    pub(super) fn new(source: Source, config: &Config) -> Self {
        let served = watched(&source, config);
        Self { source, generation: 1, fixed: Fixed::of(config), served }
    }

    /// Reads the file again and serves it if it is valid.
    pub(super) async fn run(&mut self, gateway: &mut Gateway) {
        let started = Instant::now();
        let generation = self.generation + 1;
        let (config, mut found) = self.read().await;
        let outcome = match config {
            Some(config) => {
                // Before they are read: whatever changes from here on is noticed, and if one of them is what is
                // wrong, its correction is.
                let files = watched(&self.source, &config).into_iter().chain(self.served.clone());
                self.watch(gateway, files.collect(), &mut found);
                self.compile(generation, config, &mut found).await
            }
            None => None,
        };
        let applied = match outcome {
            Some((config, program)) => {
                self.note_fixed(&config, &mut found);
                self.apply(gateway, config, program, &mut found).await
            }
            None => false,
        };
        if applied {
            self.generation = generation;
        }
        found.0.iter().for_each(|problem| eprintln!("{problem}"));
        let took = started.elapsed();
        report(applied, generation, took);
        gateway.provider.reloaded(applied, took, found);
    }

    /// Reads and checks the file. Parsing a large one takes a while: the admin port goes on meanwhile.
    async fn read(&self) -> (Option<Config>, Diagnostics) {
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.load()).await;
        read.unwrap_or_else(|error| (None, self.failed(&error)))
    }

    /// Compiles what was read; so does that.
    async fn compile(
        &self,
        generation: u64,
        config: Config,
        found: &mut Diagnostics,
    ) -> Option<(Config, Program)> {
        let job = move || compile(generation, &config).map(|done| (config, done));
        let compiled = tokio::task::spawn_blocking(job).await;
        match compiled.unwrap_or_else(|error| Err(self.failed(&error))) {
            Ok((config, (program, warnings))) => {
                found.0.extend(warnings.0);
                Some((config, program))
            }
            Err(errors) => {
                found.0.extend(errors.0);
                None
            }
        }
    }

    fn failed(&self, error: &tokio::task::JoinError) -> Diagnostics {
        let problem = format!("reading it failed: {error}");
        Diagnostics(vec![Diagnostic::error(self.place(), "", problem)])
    }

    fn watch(&self, gateway: &mut Gateway, files: Vec<PathBuf>, found: &mut Diagnostics) {
        if let Err(error) = gateway.watcher.set_paths(files) {
            found.push(Diagnostic::warning(
                self.place(),
                "",
                format!("cannot watch its files: {error}"),
            ));
        }
    }

    /// Binds what is new, publishes the program, closes what is gone.
    async fn apply(
        &mut self,
        gateway: &mut Gateway,
        config: Config,
        program: Program,
        found: &mut Diagnostics,
    ) -> bool {
        let opened = match gateway.listeners.open(&config.snapshot, gateway.workers.count()) {
            Ok(opened) => opened,
            Err(error) => {
                let at = config.snapshot.listeners.iter().find(|l| l.address == error.address);
                let place = at.map_or_else(|| self.place(), |l| l.place.clone());
                let problem = format!("cannot listen: {}", error.source);
                found.push(Diagnostic::error(place, "", problem).value(error.address.to_string()));
                return false;
            }
        };
        let old = gateway.shared.publish(program);
        net::task::spawn("retire", retire(old));
        if let Err(error) = open_access_log(&gateway.shared) {
            found.push(Diagnostic::warning(self.place(), "accessLog", format!("{error:#}")));
        }
        self.served = watched(&self.source, &config);
        self.watch(gateway, self.served.clone(), found);
        if let Err(error) = gateway.listeners.apply(opened, &gateway.workers, &gateway.shared).await
        {
            tracing::error!(error = format!("{error:#}"), "serving the new listeners");
        }
        true
    }

    /// Says what will only be changed by a restart.
    fn note_fixed(&self, config: &Config, found: &mut Diagnostics) {
        let new = Fixed::of(config);
        for (key, changed) in [
            ("admin", new.admin != self.fixed.admin),
            ("echo", new.echo != self.fixed.echo),
            ("workers", new.workers != self.fixed.workers),
        ] {
            if changed {
                found.push(Diagnostic::warning(
                    self.place(),
                    key,
                    "a change takes effect at the next start",
                ));
            }
        }
    }

    fn place(&self) -> Place {
        Place::whole(self.source.path.display().to_string())
    }
}

/// Keeps an old program until no worker has it any more, and frees it where nobody waits: a hundred thousand rules
/// take a while.
async fn retire(old: Arc<Program>) {
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    while Arc::strong_count(&old) > 1 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let _ = tokio::task::spawn_blocking(move || drop(old)).await;
}

fn report(applied: bool, generation: u64, took: Duration) {
    let took_ms = took.as_millis();
    if applied {
        tracing::info!(generation, took_ms, "configuration reloaded");
    } else {
        tracing::error!(took_ms, "configuration not reloaded: what was served before goes on");
    }
}

/// A program of a checked configuration.
pub(super) fn compile(
    generation: u64,
    config: &Config,
) -> Result<(Program, Diagnostics), Diagnostics> {
    let dump =
        config.snapshot.manners.config_path.then(|| config::nanoproxy_yaml(&config.snapshot));
    Program::compile(generation, config.snapshot.clone(), dump.map(Arc::from), &instance())
}

/// The host's name, as `X-Proxy-Instance` says it.
fn instance() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    name.trim().chars().filter(|c| fine(*c)).collect()
}

/// Opens the access log of the program that is served.
pub(super) fn open_access_log(shared: &Shared) -> anyhow::Result<()> {
    let program = shared.program();
    let log = program.snapshot.manners.access_log.as_ref().map(AccessLog::open).transpose();
    shared.set_access_log(log.context("opening the access log (key accessLog)")?);
    Ok(())
}

/// The files that a reload looks at.
pub(super) fn watched(source: &Source, config: &Config) -> Vec<PathBuf> {
    std::iter::once(&source.path).chain(&config.files).cloned().collect()
}
