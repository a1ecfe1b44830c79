//! What the admin port shows of a gateway.
//!
//! Reads what the data plane counts; must not change anything of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use admin::Readiness;
use admin::metrics::Family;
use admin::state::{
    ByClass, ConfigState, EndpointState, HealthState, Latency, ListenerState, PROBLEMS_MAX,
    RuleState, State, UpstreamState,
};
use http_proxy::health::EndpointHealth;
use http_proxy::stats::{self, ListenerCells, RequestCells};
use http_proxy::{Program, Shared};
use kubernetes::Output;
use model::{Diagnostics, Name, UpstreamId};
use tunnel::client::way::Tunnels;

use super::super::mesh;
use super::super::tunnel::metrics::of_clients;
use super::figures::{Reloads, classes, latency, sum};
use super::metrics;
use crate::cluster::view::ClusterView;
use crate::commands::explain::algorithm;
use crate::source::Source;

/// A gateway, for the admin port.
#[derive(Debug)]
pub(super) struct Provider {
    shared: Arc<Shared>,
    ready: AtomicBool,
    started: SystemTime,
    reloads: Mutex<Reloads>,
    cluster: OnceLock<ClusterView>,
    mesh: OnceLock<Arc<mesh::provider::Provider>>,
    tunnels: Arc<Tunnels>,
}

/// What became of one change of a cluster's objects.
#[derive(Debug)]
pub(super) struct Applied {
    /// It is served.
    pub(super) ok: bool,
    /// The file's last state is served, too.
    pub(super) file_ok: bool,
    /// From its being translated to that.
    pub(super) took: Duration,
    /// When its oldest part was seen.
    pub(super) at: Instant,
}

impl Provider {
    /// With where the configuration is from, and what was found in it.
    pub(super) fn new(
        shared: Arc<Shared>,
        tunnels: Arc<Tunnels>,
        (source, found): (&Source, &Diagnostics),
    ) -> Arc<Self> {
        let mut state =
            ConfigState { source: source.name(), valid: true, ..ConfigState::default() };
        state.set_problems(found);
        let reloads = Reloads { state, ..Reloads::default() };
        Arc::new(Self {
            shared,
            ready: AtomicBool::new(false),
            started: SystemTime::now(),
            reloads: Mutex::new(reloads),
            cluster: OnceLock::new(),
            mesh: OnceLock::new(),
            tunnels,
        })
    }

    /// Routes come from this cluster. Said once.
    pub(super) fn set_cluster(&self, view: ClusterView) {
        let _ = self.cluster.set(view);
    }

    /// There is this mesh beside it. Said once.
    pub(super) fn set_mesh(&self, mesh: Arc<mesh::provider::Provider>) {
        let _ = self.mesh.set(mesh);
    }

    /// Notes that a change of a cluster's objects was served, or could not be.
    /// `found`: what is wrong with the configuration; of objects the output tells.
    pub(super) fn objects_served(&self, applied: &Applied, output: &Output, found: &Diagnostics) {
        if let Some(cluster) = self.cluster.get() {
            cluster.served(applied.ok, applied.at.elapsed(), output);
        }
        tracing::debug!(ok = applied.ok, took_us = applied.took.as_micros(), "objects served");
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        reloads.state.valid = applied.ok && applied.file_ok;
        reloads.state.set_problems(found);
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Notes the outcome of a reload.
    pub(super) fn reloaded(&self, applied: bool, took: Duration, found: Diagnostics) {
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        if applied {
            reloads.applied += 1;
            reloads.last_applied = Some(now);
        } else {
            reloads.refused += 1;
            reloads.last_refused = Some(now);
        }
        reloads.took = took;
        reloads.state.valid = applied;
        reloads.state.last_reload_unix_seconds = Some(unix_seconds(now));
        reloads.state.last_reload_result = if applied { "ok" } else { "invalid" }.to_owned();
        reloads.state.set_problems(&found);
    }

    /// With what is wrong with the mesh's files, if there are any.
    fn reloads(&self) -> Reloads {
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(files) = self.mesh.get().map(|mesh| mesh.files()) {
            reloads.state.valid &= files.valid;
            let problems = files.problems.into_iter();
            let room = PROBLEMS_MAX.saturating_sub(reloads.state.problems.len());
            reloads.state.problems.extend(problems.take(room));
        }
        reloads
    }
}

impl admin::Provider for Provider {
    fn readiness(&self) -> Readiness {
        if self.ready.load(Ordering::Acquire) {
            Readiness::Ready
        } else if self.shared.is_draining() {
            Readiness::NotReady(vec!["draining".to_owned()])
        } else {
            let missing = self.cluster.get().map(ClusterView::missing).unwrap_or_default();
            let usual = vec!["not serving, or about to stop".to_owned()];
            Readiness::NotReady(if missing.is_empty() { usual } else { missing })
        }
    }

    fn metrics(&self) -> Vec<Family> {
        let mut all = metrics::families(&self.shared, &self.reloads());
        all.extend(self.cluster.get().map(ClusterView::families).unwrap_or_default());
        all.extend(self.mesh.get().map(|mesh| mesh.own_families()).unwrap_or_default());
        let tunnels = self.tunnels.stats();
        if !tunnels.is_empty() {
            let tunnels = tunnels.iter().map(|(name, stats)| (name.to_string(), &**stats));
            all.extend(of_clients(&tunnels.collect::<Vec<_>>()));
        }
        all
    }

    fn config(&self) -> serde_json::Value {
        config::snapshot_json(&self.shared.program().snapshot)
    }

    fn state(&self) -> serde_json::Value {
        let program = self.shared.program();
        let ready = admin::Provider::readiness(self);
        let mut state = State {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_seconds: unix_seconds(self.started),
            uptime_seconds: self.started.elapsed().unwrap_or_default().as_secs(),
            generation: program.generation,
            ready: ready == Readiness::Ready,
            not_ready_reasons: match ready {
                Readiness::Ready => Vec::new(),
                Readiness::NotReady(reasons) => reasons,
            },
            config: self.reloads().state,
            ..State::default()
        };
        let rules = rules(&self.shared.stats);
        state.latency = total_latency(&self.shared.stats);
        state.listeners = listeners(&program, &self.shared.stats, &rules);
        let mut upstreams = upstreams(&program, &self.shared.stats);
        if let Some(mesh) = self.mesh.get() {
            state.listeners.extend(mesh.listeners());
            upstreams.extend(mesh.upstreams());
        }
        state.set_upstreams(upstreams);
        state.set_rules(rules);
        state.kubernetes = self.cluster.get().map(ClusterView::state);
        state.to_json()
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn rules(stats: &stats::Stats) -> Vec<RuleState> {
    let rule = |(key, cells): (stats::RequestKey, Vec<Arc<RequestCells>>)| RuleState {
        listener: key.listener.to_string(),
        name: key.rule.to_string(),
        upstream: key.upstream.to_string(),
        requests: ByClass::from_counts(classes(&cells)),
        latency: latency(&cells),
    };
    stats.requests.read().into_iter().map(rule).collect()
}

fn total_latency(stats: &stats::Stats) -> Latency {
    let all: Vec<Arc<RequestCells>> =
        stats.requests.read().into_iter().flat_map(|(_, c)| c).collect();
    latency(&all)
}

fn listeners(program: &Program, stats: &stats::Stats, rules: &[RuleState]) -> Vec<ListenerState> {
    let mut requests: HashMap<&str, [u64; 5]> = HashMap::new();
    for rule in rules {
        let sums = requests.entry(&rule.listener).or_default();
        sums.iter_mut().zip(rule.requests.counts()).for_each(|(sum, count)| *sum += count);
    }
    let cells: HashMap<Name, Vec<Arc<ListenerCells>>> =
        stats.listeners.read().into_iter().collect();
    let listener = |l: &model::Listener| {
        let cells = cells.get(&l.name).map(Vec::as_slice).unwrap_or_default();
        let failed = |c: &Arc<ListenerCells>| {
            c.handshakes.read().filter(|(result, _)| *result != "ok").map(|(_, n)| n).sum::<u64>()
        };
        let refused = |c: &Arc<ListenerCells>| c.refused.read().map(|(_, n)| n).sum::<u64>();
        ListenerState {
            name: l.name.to_string(),
            address: l.address.to_string(),
            protocol: l.protocol.scheme().to_owned(),
            state: "serving".to_owned(),
            connections_open: sum(cells, |c| &c.open),
            connections_total: sum(cells, |c| &c.connections),
            requests: ByClass::from_counts(requests.get(&*l.name).copied().unwrap_or_default()),
            received_bytes: sum(cells, |c| &c.received),
            sent_bytes: sum(cells, |c| &c.sent),
            upgrades_open: sum(cells, |c| &c.upgrades),
            refused_requests: cells.iter().map(refused).sum(),
            tls_handshakes_failed: cells.iter().map(failed).sum(),
        }
    };
    program.snapshot.listeners.iter().map(listener).collect()
}

fn upstreams(program: &Program, stats: &stats::Stats) -> Vec<UpstreamState> {
    let endpoints: HashMap<_, _> = stats.endpoints.read().into_iter().collect();
    let retries: HashMap<_, _> = stats.upstreams.read().into_iter().collect();
    let upstream = |(index, u): (usize, &Arc<model::Upstream>)| {
        let health = program.health(UpstreamId(index));
        let endpoint = |(at, e): (usize, &model::Endpoint)| {
            let target = e.target.to_string();
            let key = (u.name.clone(), Name::from(target.as_str()));
            let cells = endpoints.get(&key).map(Vec::as_slice).unwrap_or_default();
            EndpointState {
                target,
                weight: e.weight,
                health: health.and_then(|health| health.get(at)).map(|h| health_state(h)),
                requests: sum(cells, |c| &c.requests),
                in_flight: sum(cells, |c| &c.in_flight),
                connect_failures: sum(cells, |c| &c.connect_failures),
                idle_connections: sum(cells, |c| &c.idle),
                security: String::new(),
            }
        };
        let retries = retries.get(&u.name).into_iter().flatten();
        UpstreamState {
            name: u.name.to_string(),
            algorithm: algorithm(u).to_owned(),
            tls: u.tls.is_some(),
            endpoints: u.endpoints.iter().enumerate().map(endpoint).collect(),
            retries: retries.flat_map(|c| c.retries.read().map(|(_, n)| n)).sum(),
        }
    };
    program.snapshot.upstreams.iter().enumerate().map(upstream).collect()
}

fn health_state(health: &EndpointHealth) -> HealthState {
    let report = health.report();
    HealthState {
        up: report.up,
        since_unix_seconds: unix_seconds(report.since),
        last_error: report.last_error.as_deref().unwrap_or_default().to_owned(),
    }
}
