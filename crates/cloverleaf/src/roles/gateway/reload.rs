//! A changed file, or changed objects of a cluster, become what is served: whole, or not at all.
//!
//! Read, checked, compiled and bound first; published last. Whatever fails on the way changes nothing and is
//! reported. Must not touch connections: they notice by themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use config::{AdminAddress, Config};
use http_proxy::{AccessLog, Program, Shared};
use kubernetes::Output;
use kubernetes::translate::Translation;
use model::{Diagnostic, Diagnostics, Place};
use tunnel::client::way::Loaded;

use super::super::mesh::member::Reading;
use super::Gateway;
use super::provider::Applied;
use crate::cluster::merge::{self, Merge};
use crate::source::Source;

/// What a process cannot change while it runs.
#[derive(Debug, PartialEq)]
struct Fixed {
    admin: AdminAddress,
    echo: Option<std::net::SocketAddr>,
    workers: Option<usize>,
}

impl Reload {
    /// Joins a mesh that the file names now and did not before; whether what it says can be served.
    async fn join(&self, gateway: &mut Gateway, config: &Config, found: &mut Diagnostics) -> bool {
        let Some(mesh) = config.mesh.as_ref().filter(|_| gateway.mesh.is_none()) else {
            return true;
        };
        let joined = match Reading::first(&mesh.proxy_conf) {
            Ok(reading) => {
                found.0.extend(reading.found.0.iter().cloned());
                if !reading.is_usable() {
                    return false;
                }
                gateway.join(mesh, reading).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &joined {
            found.push(Diagnostic::error(self.place(), "mesh", format!("{error:#}")));
        }
        joined.is_ok()
    }
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
    /// What the file says, without the routes of a cluster.
    base: Config,
    /// The routes of a cluster, if there is one and it has been listed.
    routes: Option<Arc<Output>>,
    merge: Merge,
    /// What was found in the file when it was last read.
    said: Diagnostics,
    /// What had to be left out when routes were last compiled: said once.
    left_out: Diagnostics,
}

impl Reload {
    pub(super) fn new(source: Source, config: Config, found: Diagnostics) -> Self {
        let served = watched(&source, &config);
        Self {
            source,
            generation: 1,
            fixed: Fixed::of(&config),
            served,
            base: config,
            routes: None,
            merge: Merge::default(),
            said: found,
            left_out: Diagnostics::default(),
        }
    }

    /// Serves what a cluster's objects have come to; whether it could be done.
    pub(super) async fn objects(&mut self, gateway: &mut Gateway, output: Arc<Output>) -> bool {
        let started = Instant::now();
        let generation = self.generation + 1;
        self.routes = Some(output.clone());
        let mut found = Diagnostics::default();
        let compiled = self.compile(gateway, generation, self.base.clone(), &mut found).await;
        let applied = match compiled {
            Some((config, made)) => self.publish(gateway, &config, made, &mut found).await,
            None => false,
        };
        if applied {
            self.generation = generation;
        } else {
            let said = found.to_string();
            tracing::error!(said, "routes not served: what was served before goes on");
        }
        let outcome = Applied {
            ok: applied,
            file_ok: !self.said.has_errors(),
            took: started.elapsed(),
            at: output.changed_at,
        };
        found.0.splice(..0, self.said.0.iter().cloned());
        gateway.provider.objects_served(&outcome, &output, &found);
        applied
    }

    /// Reads the file again and serves it if it is valid.
    pub(super) async fn run(&mut self, gateway: &mut Gateway) {
        let started = Instant::now();
        let generation = self.generation + 1;
        let (config, mut found) = self.read().await;
        let (mut base, mut compiled) = (None, Diagnostics::default());
        let outcome = match config {
            Some(config) => {
                base = Some(config.clone());
                // Before they are read: whatever changes from here on is noticed, and if one of them is what is
                // wrong, its correction is.
                let files = watched(&self.source, &config).into_iter().chain(self.served.clone());
                self.watch(gateway, files.collect(), &mut found);
                self.compile(gateway, generation, config, &mut compiled).await
            }
            None => None,
        };
        if outcome.is_none() {
            found.0.append(&mut compiled.0);
        }
        let applied = match outcome {
            Some((config, made)) => {
                self.note_fixed(gateway, &config, &mut found);
                self.join(gateway, &config, &mut found).await
                    && self.apply(gateway, config, made, &mut found).await
            }
            None => false,
        };
        if applied {
            self.generation = generation;
            self.base = base.unwrap_or_else(|| self.base.clone());
        }
        // What compiling says, it says again with the next change of objects.
        self.said = found.clone();
        found.0.append(&mut compiled.0);
        found.0.iter().for_each(|problem| eprintln!("{problem}"));
        let took = started.elapsed();
        report(applied, generation, took);
        gateway.provider.reloaded(applied, took, found);
    }

    /// Reads and checks the file. Parsing a large one takes a while: the admin port goes on meanwhile.
    async fn read(&self) -> (Option<Config>, Diagnostics) {
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || load(&source)).await;
        read.unwrap_or_else(|error| (None, self.failed(&error)))
    }

    /// Compiles what was read, with the routes of the cluster if there are any; so does that.
    async fn compile(
        &mut self,
        gateway: &Gateway,
        generation: u64,
        base: Config,
        found: &mut Diagnostics,
    ) -> Option<(Config, Compiled)> {
        let before = gateway.shared.program();
        let routes = self.routes.clone();
        let mut merge = std::mem::take(&mut self.merge);
        let job = move || {
            let compiled = match &routes {
                None => compile(generation, &base, Some(&before)).map(|done| (base, done, None)),
                Some(routes) => {
                    let config = merge.apply(&base, &routes.translation);
                    isolated(generation, config, &routes.translation, &before)
                }
            };
            (merge, compiled)
        };
        let (merge, compiled) = match tokio::task::spawn_blocking(job).await {
            Ok(done) => done,
            Err(error) => (Merge::default(), Err(self.failed(&error))),
        };
        self.merge = merge;
        match compiled {
            Ok((config, (made, warnings), left_out)) => {
                self.say_left_out(left_out.unwrap_or_default());
                found.0.extend(warnings.0);
                Some((config, made))
            }
            Err(errors) => {
                found.0.extend(errors.0);
                None
            }
        }
    }

    fn say_left_out(&mut self, left_out: Diagnostics) {
        if self.left_out != left_out && !left_out.0.is_empty() {
            tracing::error!(said = left_out.to_string(), "left out of what is served");
        }
        self.left_out = left_out;
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

    /// Serves a file anew.
    async fn apply(
        &mut self,
        gateway: &mut Gateway,
        config: Config,
        made: Compiled,
        found: &mut Diagnostics,
    ) -> bool {
        if !self.publish(gateway, &config, made, found).await {
            return false;
        }
        if let Err(error) = open_access_log(&gateway.shared) {
            found.push(Diagnostic::warning(self.place(), "accessLog", format!("{error:#}")));
        }
        self.served = watched(&self.source, &config);
        self.watch(gateway, self.served.clone(), found);
        true
    }

    /// Binds what is new, publishes the program, closes what is gone.
    async fn publish(
        &self,
        gateway: &mut Gateway,
        config: &Config,
        made: Compiled,
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
        let listens_anew = opened.has_new();
        // What leads to endpoints comes before who is sent there.
        gateway.tunnels.set(made.tunnels, &gateway.dialer);
        let old = gateway.shared.publish(made.program);
        gateway.prober.follow(&gateway.shared.program());
        gateway.mesh.iter().for_each(|mesh| mesh.set_ports(config));
        net::task::spawn("retire", retire(old));
        if let Err(error) = gateway.listeners.apply(opened, &gateway.workers, &gateway.shared).await
        {
            tracing::error!(error = format!("{error:#}"), "serving the new listeners");
        }
        if let Some(mesh) = gateway.mesh.as_ref().filter(|_| listens_anew) {
            mesh.steer().await;
        }
        true
    }

    /// Says what will only be changed by a restart.
    fn note_fixed(&self, gateway: &Gateway, config: &Config, found: &mut Diagnostics) {
        let new = Fixed::of(config);
        let mesh = gateway.mesh.as_ref();
        for (key, changed) in [
            ("mesh", mesh.is_some_and(|mesh| mesh.differs(config.mesh.as_ref()))),
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
        Place::whole(self.source.name())
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

/// What the source says; with the certificates read, where objects will change more often than they do.
pub(super) fn load(source: &Source) -> (Option<Config>, Diagnostics) {
    let (config, found) = source.load();
    let reads_ahead = source.overrides.routes_elsewhere.is_some();
    let config = config.map(|c| if reads_ahead { merge::with_files_read(c) } else { c });
    (config, found)
}

/// What was compiled, its warnings, and what had to be left out.
type Isolated = (Config, (Compiled, Diagnostics), Option<Diagnostics>);

/// Compiles what a cluster's objects say. What cannot be loaded of them is left out: translation has looked at each
/// before, so this is for what only shows where all is together.
fn isolated(
    generation: u64,
    mut config: Config,
    routes: &Translation,
    before: &Program,
) -> Result<Isolated, Diagnostics> {
    match compile(generation, &config, Some(before)) {
        Ok(done) => Ok((config, done, None)),
        Err(errors) if merge::take_out(&mut config, routes, &errors) => {
            compile(generation, &config, Some(before)).map(|done| (config, done, Some(errors)))
        }
        Err(errors) => Err(errors),
    }
}

/// What a checked configuration is made into: everything that has to be read has been.
pub(super) struct Compiled {
    pub(super) program: Program,
    /// Those that endpoints are reached through.
    pub(super) tunnels: Loaded,
}

/// Of a checked configuration, which will take the place of the one before; with warnings.
pub(super) fn compile(
    generation: u64,
    config: &Config,
    before: Option<&Program>,
) -> Result<(Compiled, Diagnostics), Diagnostics> {
    let snapshot = config.snapshot.clone();
    let tunnels = Loaded::read(&snapshot.tunnels);
    let dump = snapshot.manners.config_path.then(|| config::nanoproxy_yaml(&snapshot));
    let program = Program::compile(generation, snapshot, dump.map(Arc::from), &instance(), before);
    match (program, tunnels) {
        (Ok((program, mut found)), Ok((tunnels, more))) => {
            found.0.extend(more.0);
            Ok((Compiled { program, tunnels }, found))
        }
        // All that is wrong at once.
        (program, tunnels) => {
            let mut found = program.err().unwrap_or_default();
            found.0.extend(tunnels.err().unwrap_or_default().0);
            Err(found)
        }
    }
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
    source.file().map(Path::to_owned).into_iter().chain(config.files.iter().cloned()).collect()
}
