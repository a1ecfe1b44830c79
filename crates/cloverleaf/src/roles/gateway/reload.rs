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
}

impl Reload {
    pub(super) fn new(source: Source, config: &Config) -> Self {
        Self { source, generation: 1, fixed: Fixed::of(config) }
    }

    /// Reads the file again and serves it if it is valid.
    pub(super) async fn run(&mut self, gateway: &mut Gateway) {
        let started = Instant::now();
        let generation = self.generation + 1;
        let source = self.source.clone();
        // Parsing and compiling a large file takes a while: the admin port goes on meanwhile.
        let loaded = tokio::task::spawn_blocking(move || load(&source, generation)).await;
        let (outcome, mut found) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let problem = format!("reading it failed: {error}");
                (None, Diagnostics(vec![Diagnostic::error(self.place(), "", problem)]))
            }
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

    /// Binds what is new, publishes the program, closes what is gone.
    async fn apply(
        &self,
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
        gateway.shared.publish(program);
        if let Err(error) = open_access_log(&gateway.shared) {
            found.push(Diagnostic::warning(self.place(), "accessLog", format!("{error:#}")));
        }
        if let Err(error) = gateway.watcher.set_paths(watched(&self.source, &config)) {
            found.push(Diagnostic::warning(self.place(), "", format!("cannot watch its files: {error}")));
        }
        if let Err(error) = gateway.listeners.apply(opened, &gateway.workers, &gateway.shared).await {
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
                found.push(Diagnostic::warning(self.place(), key, "a change takes effect at the next start"));
            }
        }
    }

    fn place(&self) -> Place {
        Place::whole(self.source.path.display().to_string())
    }
}

fn report(applied: bool, generation: u64, took: Duration) {
    let took_ms = took.as_millis();
    if applied {
        tracing::info!(generation, took_ms, "configuration reloaded");
    } else {
        tracing::error!(took_ms, "configuration not reloaded: what was served before goes on");
    }
}

fn load(source: &Source, generation: u64) -> (Option<(Config, Program)>, Diagnostics) {
    let (config, mut found) = source.load();
    let Some(config) = config else { return (None, found) };
    match compile(generation, &config) {
        Ok((program, warnings)) => {
            found.0.extend(warnings.0);
            (Some((config, program)), found)
        }
        Err(errors) => {
            found.0.extend(errors.0);
            (None, found)
        }
    }
}

/// A program of a checked configuration.
pub(super) fn compile(generation: u64, config: &Config) -> Result<(Program, Diagnostics), Diagnostics> {
    let dump = config.snapshot.manners.config_path.then(|| config::nanoproxy_yaml(&config.snapshot));
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
