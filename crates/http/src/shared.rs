//! What all workers and the control side have in common: the program that is served, the counters, the dialer.
//!
//! A new program is published here; what is counted for names that only the old one had is then forgotten. Must not
//! know how a worker serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use model::Name;
use net::dial::Dialer;
use rustc_hash::FxHashSet;

use crate::access_log::AccessLog;
use crate::program::Program;
use crate::stats::{RequestKey, Stats};

/// What all workers and the control side share.
#[derive(Debug)]
pub struct Shared {
    program: ArcSwap<Program>,
    generation: AtomicU64,
    leaving: AtomicBool,
    draining: AtomicBool,
    /// Client connections open, over all workers.
    connections: AtomicUsize,
    /// What is counted.
    pub stats: Stats,
    pub(crate) dialer: Dialer,
    access_log: ArcSwap<Option<AccessLog>>,
}

impl Shared {
    /// Begins with a program, and reaches endpoints by this dialer.
    #[must_use]
    pub fn new(program: Program, dialer: Dialer) -> Arc<Self> {
        let generation = AtomicU64::new(program.generation);
        let stats = Stats::default();
        stats.requests.reserve(program.rules());
        stats.endpoints.reserve(program.endpoints());
        Arc::new(Self {
            program: ArcSwap::from_pointee(program),
            generation,
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            stats,
            dialer,
            access_log: ArcSwap::from_pointee(None),
        })
    }

    /// The program that is served now.
    #[must_use]
    pub fn program(&self) -> Arc<Program> {
        self.program.load_full()
    }

    /// Serves another program from the next request on; one that was compiled with the present one as the one
    /// before costs no more than what differs. What is counted for names that are gone is forgotten. Gives
    /// the old program, which workers let go of within about a second; whoever drops it last frees all its rules,
    /// and that had better be no worker.
    #[must_use]
    pub fn publish(&self, program: Program) -> Arc<Program> {
        let program = Arc::new(program);
        self.stats.requests.reserve(program.rules());
        let old = self.program.swap(program.clone());
        // Before anything is forgotten: see `Family::cells_while`.
        self.generation.store(program.generation, Ordering::Release);
        self.stats.endpoints.remove(&endpoints_gone(&old, &program));
        self.stats.endpoints.reserve(program.endpoints());
        if !program.has_shape(old.shape()) {
            let names = Names::of(&program);
            self.stats.requests.retain(|key| names.has(key));
            self.stats.listeners.retain(|name| names.listeners.contains(name));
            self.stats.upstreams.retain(|name| program.has_upstream(name));
        }
        tell_changes(&old, &program);
        old
    }

    /// That of the program that is served now.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a program is served now, or newer than that.
    pub(crate) fn serves(&self, program: &Program) -> bool {
        self.generation() <= program.generation
    }

    /// From now on HTTP/1 answers say that their connection ends, so that a client goes elsewhere between two
    /// requests: when draining begins, one that is idle is closed, and that may meet a request on its way.
    /// Connections are still accepted. HTTP/2 needs no such time: GOAWAY says which requests were not seen.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Whether [`Self::leave`] was called.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// From now on connections end as soon as they can: after the request under way.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Client connections open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sends access log lines there; `None` ends the log.
    pub fn set_access_log(&self, log: Option<AccessLog>) {
        self.access_log.store(Arc::new(log));
    }

    /// Ends the access log and waits until it is written. Blocks; for the end of the process.
    pub fn finish_access_log(&self) {
        if let Some(log) = Arc::into_inner(self.access_log.swap(Arc::new(None))).flatten() {
            log.finish();
        }
    }

    pub(crate) fn access_log(&self) -> Arc<Option<AccessLog>> {
        self.access_log.load_full()
    }
}

/// The names that a program's requests are counted by.
struct Names<'p> {
    program: &'p Program,
    listeners: FxHashSet<&'p Name>,
    rules: FxHashSet<&'p Name>,
}

impl<'p> Names<'p> {
    fn of(program: &'p Program) -> Self {
        let listeners = &program.snapshot.listeners;
        let scopes = listeners.iter().flat_map(|l| &l.scopes);
        Self {
            program,
            listeners: listeners.iter().map(|l| &l.name).collect(),
            rules: scopes.flat_map(|s| &s.rules.rules).map(|r| &r.name).collect(),
        }
    }

    fn has(&self, key: &RequestKey) -> bool {
        let none = |name: &Name| &**name == "-";
        self.listeners.contains(&key.listener)
            && (none(&key.rule) || self.rules.contains(&key.rule))
            && (none(&key.upstream) || self.program.has_upstream(&key.upstream))
    }
}

/// Wakes whoever waits for a change of an upstream.
fn tell_changes(old: &Program, new: &Program) {
    for (index, was) in old.upstreams().iter().enumerate() {
        let now = new.upstream_named(&was.model.name, index);
        if !now.is_some_and(|now| Arc::ptr_eq(now, was)) {
            was.changes.notify_waiters();
        }
    }
}

/// The endpoints that only the old program has, by upstream and label.
fn endpoints_gone(old: &Program, new: &Program) -> Vec<(Name, Name)> {
    let mut gone = Vec::new();
    for (index, was) in old.upstreams().iter().enumerate() {
        let name = &was.model.name;
        let now = new.upstream_named(name, index);
        if now.is_some_and(|now| Arc::ptr_eq(&now.model, &was.model)) {
            continue;
        }
        let left = now.iter().flat_map(|now| &now.model.endpoints);
        let left: FxHashSet<_> = left.map(|endpoint| &endpoint.target).collect();
        let targets = was.model.endpoints.iter().map(|endpoint| &endpoint.target);
        let targets = targets.filter(|target| !left.contains(target));
        gone.extend(targets.map(|target| (name.clone(), target.to_string().into())));
    }
    gone
}
