//! What the admin port shows of the cluster that routes come from.
//!
//! Reads what the source counts; must not change anything of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use admin::metrics::{Family, Kind, Value};
use admin::state::{KubernetesState, PROBLEMS_MAX, Problem, WatchState};
use kubernetes::Output;
use kubernetes::health::{Health, WatchHealth};
use kubernetes::translate;

/// Upper bounds of the buckets of `cloverleaf_kubernetes_update_seconds`, in milliseconds.
const BOUNDS_MS: [u64; 10] = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// A cluster, for the admin port.
#[derive(Debug)]
pub(crate) struct ClusterView {
    health: Arc<Health>,
    server: String,
    served: Mutex<Served>,
}

/// What has been served of it.
#[derive(Debug, Default)]
struct Served {
    applied: u64,
    refused: u64,
    buckets: [u64; BOUNDS_MS.len()],
    /// From the change being seen to its being served, all added up.
    sum: Duration,
    from_state: bool,
    rules: usize,
    upstreams: usize,
    certificates: usize,
    at: Option<SystemTime>,
    /// Of the last output, served or not.
    problems: Arc<Vec<translate::Problem>>,
}

impl ClusterView {
    pub(crate) fn new(health: Arc<Health>, server: &str) -> Self {
        Self { health, server: server.to_owned(), served: Mutex::default() }
    }

    /// Why there is nothing to serve yet.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.health.missing()
    }

    /// Notes that an output was served, that long after its oldest change was seen, or that it could not be.
    pub(crate) fn served(&self, applied: bool, after: Duration, output: &Output) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let routes = &output.translation;
        served.problems = routes.problems.clone();
        if !applied {
            served.refused += 1;
            return;
        }
        served.applied += 1;
        served.sum += after;
        served.from_state = output.from_state;
        served.at = Some(SystemTime::now());
        served.rules = routes.rules.rules.len();
        if !Arc::ptr_eq(&routes.rules, &routes.tls_rules) {
            served.rules += routes.tls_rules.rules.len();
        }
        served.upstreams = routes.upstreams.len();
        served.certificates = routes.certificates.len();
        let at = BOUNDS_MS.iter().position(|bound| after <= Duration::from_millis(*bound));
        if let Some(bucket) = at.and_then(|at| served.buckets.get_mut(at)) {
            *bucket += 1;
        }
    }

    /// For `/metrics`, in the order of `docs/metrics.md`.
    pub(crate) fn families(&self) -> Vec<Family> {
        let mut all = self.watches();
        all.extend(self.outcomes());
        all.extend(self.writes());
        all
    }

    fn watches(&self) -> Vec<Family> {
        let mut objects = Family::new(
            "cloverleaf_kubernetes_objects",
            "Objects of the cluster that are followed",
            Kind::Gauge,
        );
        let mut restarts = Family::new(
            "cloverleaf_kubernetes_watch_restarts_total",
            "Watches that had to begin again after a failure",
            Kind::Counter,
        );
        let mut kinds: Vec<&'static str> =
            self.health.watches.iter().map(|watch| watch.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of_kind = || self.health.watches.iter().filter(|w| w.kind.as_str() == kind);
            let labels = || vec![("kind", kind.to_owned())];
            let count: usize = of_kind().map(|watch| watch.count()).sum();
            objects.push(labels(), Value::Int(count as u64));
            restarts.push(labels(), Value::Int(of_kind().map(|watch| watch.restarts()).sum()));
        }
        let connected = Family::single(
            "cloverleaf_kubernetes_connected",
            "1 while every watch is up",
            Kind::Gauge,
            Value::Int(u64::from(self.health.connected())),
        );
        vec![objects, restarts, connected]
    }

    fn outcomes(&self) -> Vec<Family> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let mut updates = Family::new(
            "cloverleaf_kubernetes_updates_total",
            "Changes of objects brought to the data plane, by result",
            Kind::Counter,
        );
        for (result, count) in [("ok", served.applied), ("invalid", served.refused)] {
            updates.push(vec![("result", result.to_owned())], Value::Int(count));
        }
        let bounds = BOUNDS_MS.iter().map(|ms| Duration::from_millis(*ms).as_secs_f64());
        let latency = Value::Histogram {
            buckets: bounds.zip(served.buckets).collect(),
            sum: served.sum.as_secs_f64(),
            count: served.applied,
        };
        let health = &self.health;
        let took = Duration::from_micros(health.translation_micros.load(Relaxed));
        vec![
            Family::single(
                "cloverleaf_kubernetes_translations_total",
                "Times that objects were translated into routes",
                Kind::Counter,
                Value::Int(health.translations.load(Relaxed)),
            ),
            Family::single(
                "cloverleaf_kubernetes_translation_seconds_total",
                "Time spent on that",
                Kind::Counter,
                Value::Float(took.as_secs_f64()),
            ),
            updates,
            Family::single(
                "cloverleaf_kubernetes_update_seconds",
                "From a change of an object being seen to its being served",
                Kind::Histogram,
                latency,
            ),
            Family::single(
                "cloverleaf_kubernetes_problems",
                "Things that are wrong with objects",
                Kind::Gauge,
                Value::Int(health.problems.load(Relaxed) as u64),
            ),
            Family::single(
                "cloverleaf_kubernetes_from_state",
                "1 while the state on disk is served in place of the API server's",
                Kind::Gauge,
                Value::Int(u64::from(served.from_state)),
            ),
        ]
    }

    fn writes(&self) -> Vec<Family> {
        let health = &self.health;
        let mut writes = Family::new(
            "cloverleaf_kubernetes_writes_total",
            "What was written to the cluster",
            Kind::Counter,
        );
        for (what, count) in [("status", &health.statuses), ("event", &health.events)] {
            writes.push(vec![("what", what.to_owned())], Value::Int(count.load(Relaxed)));
        }
        vec![
            Family::single(
                "cloverleaf_kubernetes_leader",
                "1 while this process is the one that writes to the cluster",
                Kind::Gauge,
                Value::Int(u64::from(health.leader.load(Relaxed))),
            ),
            writes,
            Family::single(
                "cloverleaf_kubernetes_write_failures_total",
                "Writes to the cluster that failed; they are tried again",
                Kind::Counter,
                Value::Int(health.write_failures.load(Relaxed)),
            ),
        ]
    }

    /// For `/state`.
    pub(crate) fn state(&self) -> KubernetesState {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = |watch: &Arc<WatchHealth>| WatchState {
            kind: watch.kind.as_str().to_owned(),
            namespace: watch.namespace.clone(),
            listed: watch.is_listed(),
            connected: watch.is_connected(),
            objects: watch.count(),
            restarts: watch.restarts(),
            error: watch.error().unwrap_or_default(),
        };
        KubernetesState {
            server: self.server.clone(),
            connected: self.health.connected(),
            leader: self.health.leader.load(Relaxed),
            from_state: served.from_state,
            rules: served.rules,
            upstreams: served.upstreams,
            certificates: served.certificates,
            last_change_unix_seconds: served.at.map(unix_seconds),
            problems: served.problems.len(),
            objects_with_problems: served.problems.iter().take(PROBLEMS_MAX).map(problem).collect(),
            watches: self.health.watches.iter().map(watch).collect(),
        }
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// An object's problem as a file's is shown.
fn problem(problem: &translate::Problem) -> Problem {
    Problem {
        severity: "warning".to_owned(),
        place: problem.object.to_string(),
        key: problem.reason.to_owned(),
        problem: problem.message.clone(),
        ..Problem::default()
    }
}
