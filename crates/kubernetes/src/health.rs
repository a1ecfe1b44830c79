//! How it goes with the API server: for the log (one line when it is lost, one when it is back), for metrics and
//! for the live state. Counts and remembers; decides nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{Failure, FailureKind};
use crate::objects::Kind;

/// The whole source.
#[derive(Debug)]
pub struct Health {
    /// One for each watch: a kind, in all namespaces or in one.
    pub watches: Vec<Arc<WatchHealth>>,
    /// Translations made.
    pub translations: AtomicU64,
    /// How long all of them took, in microseconds.
    pub translation_micros: AtomicU64,
    /// Objects with problems, now.
    pub problems: AtomicUsize,
    /// Whether this process is the one that writes status and Events.
    pub leader: AtomicBool,
    /// Events written.
    pub events: AtomicU64,
    /// Statuses written.
    pub statuses: AtomicU64,
    /// Writes that failed.
    pub write_failures: AtomicU64,
    /// The state on disk: times written.
    pub saves: AtomicU64,
}

/// One watch.
#[derive(Debug)]
pub struct WatchHealth {
    /// What is watched.
    pub kind: Kind,
    /// Where; empty for everywhere.
    pub namespace: String,
    listed: AtomicBool,
    connected: AtomicBool,
    objects: AtomicUsize,
    restarts: AtomicU64,
    error: Mutex<Option<String>>,
    outages: Arc<Outages>,
}

/// What all watches together have to say in the log.
#[derive(Debug, Default)]
struct Outages(Mutex<Outage>);

#[derive(Debug, Default)]
struct Outage {
    /// Watches that cannot be had.
    down: usize,
    since: Option<Instant>,
}

impl Health {
    pub(crate) fn new(watches: impl IntoIterator<Item = (Kind, String)>) -> Arc<Self> {
        let outages = Arc::<Outages>::default();
        let watches = watches
            .into_iter()
            .map(|(kind, namespace)| Arc::new(WatchHealth::new(kind, namespace, outages.clone())))
            .collect();
        Arc::new(Self {
            watches,
            translations: AtomicU64::new(0),
            translation_micros: AtomicU64::new(0),
            problems: AtomicUsize::new(0),
            leader: AtomicBool::new(false),
            events: AtomicU64::new(0),
            statuses: AtomicU64::new(0),
            write_failures: AtomicU64::new(0),
            saves: AtomicU64::new(0),
        })
    }

    /// Whether every watch is up.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.watches.iter().all(|w| w.is_connected())
    }

    /// What has not been listed yet and why, one sentence each.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.watches.iter().filter(|w| !w.is_listed()).map(|w| w.missing()).collect()
    }

    pub(crate) fn translated(&self, took: Duration, problems: usize) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.translations.fetch_add(1, Ordering::Relaxed);
        self.translation_micros.fetch_add(micros, Ordering::Relaxed);
        self.problems.store(problems, Ordering::Relaxed);
    }
}

impl WatchHealth {
    fn new(kind: Kind, namespace: String, outages: Arc<Outages>) -> Self {
        Self {
            kind,
            namespace,
            listed: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            objects: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            error: Mutex::new(None),
            outages,
        }
    }

    /// Whether it has been listed whole once.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Whether it is followed now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Objects known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.objects.load(Ordering::Relaxed)
    }

    /// How often it had to begin again after a failure.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Why it is not followed now.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn missing(&self) -> String {
        let place = if self.namespace.is_empty() {
            String::new()
        } else {
            format!(" of {}", self.namespace)
        };
        match self.error() {
            Some(error) => {
                format!("{} objects{place} cannot be listed: {error}", self.kind.as_str())
            }
            None => format!("{} objects{place} are not listed yet", self.kind.as_str()),
        }
    }

    pub(crate) fn objects(&self, count: usize) {
        self.objects.store(count, Ordering::Relaxed);
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn relisted(&self) {
        self.restarted();
        tracing::debug!(kind = self.kind.as_str(), "listing again: its version is too old");
    }

    pub(crate) fn listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    /// It is followed, and this many objects are known.
    pub(crate) fn connected(&self, objects: usize) {
        self.objects(objects);
        self.connected.store(true, Ordering::Relaxed);
        if self.error.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            self.outages.over();
        }
    }

    /// It is not. The first failure of all watches is logged, and the first of each that is somebody's to mend.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.connected.store(false, Ordering::Relaxed);
        let before = {
            let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
            error.replace(failure.reason.clone())
        };
        let first = before.is_none() && self.outages.begun();
        let (kind, namespace) = (self.kind.as_str(), &*self.namespace);
        let reason = &*failure.reason;
        if failure.kind == FailureKind::Forbidden && before.as_ref() != Some(&failure.reason) {
            tracing::warn!(
                kind,
                namespace,
                reason,
                "may not be listed and watched: a matter of RBAC"
            );
        } else if first {
            tracing::warn!(kind, namespace, reason, "API server lost; what was served goes on");
        }
    }
}

impl Outages {
    /// One watch more is down; whether it is the first.
    fn begun(&self) -> bool {
        let mut outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outage.down += 1;
        if outage.down == 1 {
            outage.since = Some(Instant::now());
        }
        outage.down == 1
    }

    /// One is back.
    fn over(&self) {
        let mut outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outage.down = outage.down.saturating_sub(1);
        if outage.down == 0
            && let Some(since) = outage.since.take()
        {
            tracing::info!(seconds = since.elapsed().as_secs(), "API server back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_of_all_watches() {
        let health = Health::new([(Kind::Ingress, String::new()), (Kind::Pod, "a".to_owned())]);
        let [ingress, pod] = health.watches.as_slice() else { panic!() };
        assert_eq!(health.missing().len(), 2);
        for watch in [ingress, pod] {
            watch.connected(3);
            watch.listed();
        }
        assert!(health.connected() && health.missing().is_empty());
        let failure = Failure::other("refused");
        ingress.failed(&failure);
        pod.failed(&failure);
        pod.failed(&failure);
        assert_eq!(ingress.outages.0.lock().unwrap().down, 2);
        assert_eq!(pod.error().as_deref(), Some("refused"));
        assert!(!health.connected() && health.missing().is_empty());
        ingress.connected(3);
        pod.connected(4);
        assert_eq!(pod.count(), 4);
        assert!(health.connected() && ingress.outages.0.lock().unwrap().since.is_none());
    }
}
