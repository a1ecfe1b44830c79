//! What is counted. Workers meet in relaxed atomic numbers; each keeps the ones that it has used, so that the lock is
//! taken once for each name and worker.
//!
//! Must not know any exposition format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

/// Names that are counted apart; the rest is counted together under [`Key::OTHERS`].
pub const SERIES_MAX: usize = 4096;

/// How a connection from a client ended its search for a pod.
pub const CLIENT_RESULTS: [&str; 5] = ["ok", "busy", "none", "timeout", "not_a_cluster_port"];
/// How a request of a peer was answered.
pub const PEER_RESULTS: [&str; 10] = [
    "ok",
    "busy",
    "none",
    "unreachable",
    "malformed",
    "timeout",
    "denied",
    "insecure",
    "handshake",
    "tls",
];

/// What a count is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The cluster port; 0 where none is known.
    pub cluster_port: u16,
    /// For connections of clients: the host of the pod, `own` for this one, [`Self::UPSTREAM`], `-` for none. For
    /// requests of peers: empty.
    pub host: Arc<str>,
}

impl Key {
    /// The host of what an upstream of this process took in place of a pod.
    pub const UPSTREAM: &'static str = "upstream";
    /// The host of what is counted together.
    pub const OTHERS: &'static str = "other";
}

/// A number.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// What has been counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connections of one kind.
#[derive(Debug, Default)]
pub struct Cells {
    /// By result, in the order of [`CLIENT_RESULTS`] or [`PEER_RESULTS`].
    pub results: [Cell; PEER_RESULTS.len()],
    /// Open now.
    pub open: Cell,
    /// Bytes from the one who connected.
    pub received: Cell,
    /// Bytes to the one who connected.
    pub sent: Cell,
}

impl stream::Meter for Cells {
    fn up(&self, bytes: usize) {
        if bytes > 0 {
            self.received.add(bytes as u64);
        }
    }

    fn down(&self, bytes: usize) {
        if bytes > 0 {
            self.sent.add(bytes as u64);
        }
    }
}

impl Cells {
    /// Counts a result; one that is not in the list is not counted.
    pub(crate) fn result(&self, all: &[&str], result: &str) {
        let at = all.iter().position(|one| *one == result);
        if let Some(cell) = at.and_then(|at| self.results.get(at)) {
            cell.add(1);
        }
    }
}

/// Counts one open connection until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<Cells>);

impl Open {
    pub(crate) fn count(cells: &Arc<Cells>) -> Self {
        cells.open.add(1);
        Self(cells.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.sub(1);
    }
}

/// Cells by what they are about.
#[derive(Debug, Default)]
pub struct Family(Mutex<FxHashMap<Key, Arc<Cells>>>);

impl Family {
    /// Takes the lock: for what does not come by the thousand a second and worker.
    pub(crate) fn cells(&self, key: &Key) -> Arc<Cells> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cells) = all.get(key) {
            return cells.clone();
        }
        let key = match all.len() < SERIES_MAX {
            true => key.clone(),
            false => Key { cluster_port: 0, host: Key::OTHERS.into() },
        };
        all.entry(key).or_default().clone()
    }

    /// All that has been counted, in order.
    #[must_use]
    pub fn read(&self) -> Vec<(Key, Arc<Cells>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read: Vec<_> =
            all.iter().map(|(key, cells)| (key.clone(), cells.clone())).collect();
        read.sort_by(|a, b| a.0.cmp(&b.0));
        read
    }
}

/// The cells of a [`Family`] that one worker has used.
#[derive(Debug, Default)]
pub(crate) struct Used(FxHashMap<Key, Arc<Cells>>);

impl Used {
    pub(crate) fn cells(&mut self, family: &Family, key: Key) -> Arc<Cells> {
        if let Some(cells) = self.0.get(&key) {
            return cells.clone();
        }
        let cells = family.cells(&key);
        // Beyond it the family gives the same cells for everything new.
        if self.0.len() >= SERIES_MAX {
            self.0.clear();
        }
        self.0.insert(key, cells.clone());
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_all_is_counted_together() {
        let family = Family::default();
        let mut used = Used::default();
        for n in 0..u16::try_from(SERIES_MAX).unwrap() + 100 {
            let key = Key { cluster_port: n, host: "own".into() };
            used.cells(&family, key).result(&CLIENT_RESULTS, "ok");
        }
        let read = family.read();
        assert_eq!(read.len(), SERIES_MAX + 1);
        let others = read.iter().find(|(key, _)| &*key.host == Key::OTHERS).unwrap();
        assert_eq!(others.1.results[0].get(), 100);
    }
}
