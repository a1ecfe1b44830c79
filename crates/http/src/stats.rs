//! What is counted on the data path: cells that one worker thread writes and anybody reads.
//!
//! A cell has a single writer, so counting is a load and a store without a locked instruction. A [`Family`] hands
//! each worker its own cells for a key and sums them when read. Must not know any exposition format.

use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Name;
use rustc_hash::FxHashMap;

/// Upper bounds of the latency histogram's buckets in microseconds; a last bucket has no bound.
pub const LATENCY_BOUNDS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Reasons why a request is answered before it is routed, and a connection ends before one.
pub const REFUSED_REASONS: [&str; 9] = [
    "bad_request",
    "head_too_large",
    "head_timeout",
    "version",
    "transfer_coding",
    "expectation",
    "plain_http_on_tls",
    "h2_error",
    "other",
];
/// How TLS handshakes with clients end: well, too late, or as [`tls::AcceptErrorKind`] has it.
pub const HANDSHAKE_RESULTS: [&str; 17] = [
    "ok",
    "timeout",
    "plain_http",
    "not_tls",
    "bad_client_hello",
    "no_shared_version",
    "no_shared_cipher",
    "no_shared_protocol",
    "unrecognized_name",
    "no_client_certificate",
    "bad_client_certificate",
    "certificate_refused",
    "alert",
    "eof",
    "io",
    "internal",
    "other",
];
/// How attempts to connect to an endpoint end.
pub const CONNECT_RESULTS: [&str; 11] = [
    "ok",
    "refused",
    "unreachable",
    "timeout",
    "resolve",
    "busy",
    "nobody",
    "tunnel",
    "tls",
    "abandoned",
    "other",
];
/// How health checks end: well, without a connection, as [`CONNECT_RESULTS`] has it, or without an answer that says
/// that the endpoint can serve.
pub const HEALTH_RESULTS: [&str; 12] = [
    "ok",
    "refused",
    "unreachable",
    "timeout",
    "resolve",
    "nobody",
    "tunnel",
    "tls",
    "closed",
    "malformed",
    "status",
    "other",
];
/// Why another endpoint was asked, or the same one again.
pub const RETRY_REASONS: [&str; 3] = ["connect", "slow", "closed"];

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Counts up. Only ever called by the one thread that the cell was handed to.
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Counts down; see [`Self::add`].
    pub(crate) fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// What has been counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Cells for a fixed set of labels, the last of which takes whatever is not among them.
#[derive(Debug)]
pub struct Labelled<const N: usize> {
    labels: &'static [&'static str; N],
    cells: [Cell; N],
}

impl<const N: usize> Labelled<N> {
    pub(crate) fn new(labels: &'static [&'static str; N]) -> Self {
        Self { labels, cells: std::array::from_fn(|_| Cell::default()) }
    }

    pub(crate) fn add(&self, label: &str) {
        let at = self.labels.iter().position(|l| *l == label).unwrap_or(N - 1);
        if let Some(cell) = self.cells.get(at) {
            cell.add(1);
        }
    }

    /// Labels and counts.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.labels.iter().zip(&self.cells).map(|(label, cell)| (*label, cell.get()))
    }
}

/// What a metric of requests is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey {
    /// The listener's name.
    pub listener: Name,
    /// The rule's name; `-` where none was found.
    pub rule: Name,
    /// The upstream's name; `-` where none was chosen.
    pub upstream: Name,
}

/// Requests by status class, and how long they took.
#[derive(Debug, Default)]
pub struct RequestCells {
    /// 1xx (upgrades: 101) to 5xx.
    pub classes: [Cell; 5],
    /// One more than [`LATENCY_BOUNDS_MICROS`]; not cumulative.
    pub latency: [Cell; LATENCY_BOUNDS_MICROS.len() + 1],
    /// Sum of all latencies.
    pub latency_micros: Cell,
}

impl RequestCells {
    pub(crate) fn record(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let (Some(class), Some(bucket)) = (self.classes.get(class), self.latency.get(bucket)) {
            class.add(1);
            bucket.add(1);
            self.latency_micros.add(micros);
        }
    }
}

/// What happens at a listener.
#[derive(Debug)]
pub struct ListenerCells {
    /// Connections accepted.
    pub connections: Cell,
    /// Connections open now.
    pub open: Cell,
    /// Bytes from clients, inside TLS.
    pub received: Cell,
    /// Bytes to clients, inside TLS.
    pub sent: Cell,
    /// Requests answered before they were routed.
    pub refused: Labelled<{ REFUSED_REASONS.len() }>,
    /// TLS handshakes.
    pub handshakes: Labelled<{ HANDSHAKE_RESULTS.len() }>,
    /// Upgraded connections (WebSocket) open now.
    pub upgrades: Cell,
}

impl Default for ListenerCells {
    fn default() -> Self {
        Self {
            connections: Cell::default(),
            open: Cell::default(),
            received: Cell::default(),
            sent: Cell::default(),
            refused: Labelled::new(&REFUSED_REASONS),
            handshakes: Labelled::new(&HANDSHAKE_RESULTS),
            upgrades: Cell::default(),
        }
    }
}

/// What happens at an upstream.
#[derive(Debug)]
pub struct UpstreamCells {
    forgotten: AtomicBool,
    /// Attempts to connect.
    pub connects: Labelled<{ CONNECT_RESULTS.len() }>,
    /// Requests sent again.
    pub retries: Labelled<{ RETRY_REASONS.len() }>,
}

impl Default for UpstreamCells {
    fn default() -> Self {
        Self {
            forgotten: AtomicBool::new(false),
            connects: Labelled::new(&CONNECT_RESULTS),
            retries: Labelled::new(&RETRY_REASONS),
        }
    }
}

/// What happens at an endpoint.
#[derive(Debug, Default)]
pub struct EndpointCells {
    forgotten: AtomicBool,
    /// Requests sent to it.
    pub requests: Cell,
    /// Requests under way.
    pub in_flight: Cell,
    /// Connections that did not come about.
    pub connect_failures: Cell,
    /// Idle connections kept.
    pub idle: Cell,
}

/// Cells that a [`Family`] hands out.
pub trait Cells: Default {
    /// Notes that nobody reads them any more: the family has forgotten their key, or never knew it.
    fn forget(&self) {}

    /// Whether nobody reads them any more. Who keeps cells from one program to the next must ask: a key that was
    /// removed and came back has others.
    fn is_forgotten(&self) -> bool {
        false
    }
}

impl Cells for RequestCells {}
impl Cells for ListenerCells {}

impl Cells for UpstreamCells {
    fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }
}

impl Cells for EndpointCells {
    fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }
}

/// The cells of all workers for each key.
#[derive(Debug)]
pub struct Family<K, C>(Mutex<FxHashMap<K, Vec<Option<Arc<C>>>>>);

impl<K, C> Default for Family<K, C> {
    fn default() -> Self {
        Self(Mutex::new(FxHashMap::default()))
    }
}

impl<K: Hash + Eq + Clone, C: Cells> Family<K, C> {
    /// The worker's own cells for a key; the same each time, so that nobody loses a count.
    pub(crate) fn cells(&self, key: &K, worker: usize) -> Arc<C> {
        self.cells_while(key, worker, || true)
    }

    /// As [`Self::cells`], for a key that is only known while `is_served` says so, which is asked under the lock
    /// that also [`Self::retain`] and [`Self::remove`] take: who forgets a key first makes `is_served` false. After
    /// that the cells are forgotten ones, so that a worker that comes late brings no key back for ever.
    pub(crate) fn cells_while(
        &self,
        key: &K,
        worker: usize,
        is_served: impl Fn() -> bool,
    ) -> Arc<C> {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !families.contains_key(key) {
            if !is_served() {
                let cells = C::default();
                cells.forget();
                return Arc::new(cells);
            }
            families.insert(key.clone(), Vec::new());
        }
        let Some(workers) = families.get_mut(key) else { return Arc::default() };
        if workers.len() <= worker {
            workers.resize_with(worker + 1, || None);
        }
        workers.get_mut(worker).map(|c| c.get_or_insert_default().clone()).unwrap_or_default()
    }

    /// Every key with the cells of the workers that have some.
    #[must_use]
    pub fn read(&self) -> Vec<(K, Vec<Arc<C>>)> {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        families
            .iter()
            .map(|(k, cells)| (k.clone(), cells.iter().flatten().cloned().collect()))
            .collect()
    }

    /// Makes room for that many keys, so that no worker has to wait while the table grows.
    pub(crate) fn reserve(&self, keys: usize) {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more = keys.saturating_sub(families.len());
        families.reserve(more);
    }

    /// Forgets keys, so that changes of configuration do not make the process grow for ever.
    pub(crate) fn retain(&self, keep: impl Fn(&K) -> bool) {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        families.retain(|key, cells| {
            let kept = keep(key);
            if !kept {
                cells.iter().flatten().for_each(|cells| cells.forget());
            }
            kept
        });
    }

    /// Forgets these keys; in time proportional to their number alone.
    pub(crate) fn remove(&self, keys: &[K]) {
        if keys.is_empty() {
            return;
        }
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let cells = families.remove(key).unwrap_or_default();
            cells.iter().flatten().for_each(|cells| cells.forget());
        }
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Stats {
    /// By listener, rule and upstream.
    pub requests: Family<RequestKey, RequestCells>,
    /// By listener.
    pub listeners: Family<Name, ListenerCells>,
    /// By upstream.
    pub upstreams: Family<Name, UpstreamCells>,
    /// By upstream and endpoint.
    pub endpoints: Family<(Name, Name), EndpointCells>,
    /// Access log lines that the writer was too slow for.
    pub access_log_dropped: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_bucket_that_it_does_not_exceed() {
        let cells = RequestCells::default();
        cells.record(200, Duration::from_micros(100));
        cells.record(503, Duration::from_micros(101));
        cells.record(101, Duration::from_secs(3600));
        let buckets: Vec<u64> = cells.latency.iter().map(Cell::get).collect();
        assert_eq!((buckets[0], buckets[1], buckets[16]), (1, 1, 1));
        assert_eq!(cells.classes.each_ref().map(Cell::get), [1, 1, 0, 0, 1]);
    }

    #[test]
    fn every_way_in_which_a_handshake_fails_has_its_label() {
        for kind in tls::AcceptErrorKind::ALL {
            assert!(HANDSHAKE_RESULTS.contains(&kind.as_str()), "{kind:?}");
        }
    }

    #[test]
    fn each_worker_has_its_cells_and_all_are_read() {
        let family: Family<Name, EndpointCells> = Family::default();
        let key: Name = "k".into();
        family.cells(&key, 0).requests.add(1);
        family.cells(&key, 3).requests.add(2);
        family.cells(&key, 0).requests.add(4);
        let read = family.read();
        assert_eq!(read[0].1.iter().map(|c| c.requests.get()).sum::<u64>(), 7);
        family.retain(|_| false);
        assert!(family.read().is_empty());
    }

    #[test]
    fn forgotten_cells_say_so_and_late_keys_stay_away() {
        let family: Family<Name, EndpointCells> = Family::default();
        let keys: [Name; 2] = ["a".into(), "b".into()];
        let old = keys.each_ref().map(|key| family.cells(key, 0));
        family.remove(&keys[..1]);
        family.retain(|key| **key != *"b");
        assert!(old.iter().all(|cells| cells.is_forgotten()) && family.read().is_empty());
        assert!(family.cells_while(&keys[0], 0, || false).is_forgotten());
        assert!(family.read().is_empty(), "a late worker brought a key back");
        let new = family.cells(&keys[0], 0);
        assert!(!new.is_forgotten() && !Arc::ptr_eq(&new, &old[0]));
        // Known, so still served as far as the family can tell.
        assert!(Arc::ptr_eq(&new, &family.cells_while(&keys[0], 0, || false)));
    }
}
