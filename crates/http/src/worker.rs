//! One worker thread's view: the program it serves, its upstreams' state, its connections.
//!
//! [`Shared`] is what all workers and the control side have in common; a [`Worker`] lives on one thread and shares
//! nothing that changes on the request path. A new program is picked up at the next request: one atomic load tells
//! whether there is one. Must not know protocols.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use balance::{Rng, WeightedChoice};
use model::{Name, UpstreamId};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::access_log::AccessLog;
use crate::forward::upstream::Upstream;
use crate::program::Program;
use crate::stats::{RequestCells, RequestKey, Stats};

/// How often idle upstream connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What all workers and the control side share.
#[derive(Debug)]
pub struct Shared {
    program: ArcSwap<Program>,
    generation: AtomicU64,
    draining: AtomicBool,
    /// Client connections open, over all workers.
    connections: AtomicUsize,
    /// What is counted.
    pub stats: Stats,
    pub(crate) dialer: net::dial::Dialer,
    access_log: ArcSwap<Option<AccessLog>>,
}

impl Shared {
    /// Begins with a program.
    #[must_use]
    pub fn new(program: Program) -> Arc<Self> {
        let generation = AtomicU64::new(program.generation);
        let stats = Stats::default();
        stats.requests.reserve(program.rules());
        Arc::new(Self {
            program: ArcSwap::from_pointee(program),
            generation,
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            stats,
            dialer: net::dial::Dialer::default(),
            access_log: ArcSwap::from_pointee(None),
        })
    }

    /// The program that is served now.
    #[must_use]
    pub fn program(&self) -> Arc<Program> {
        self.program.load_full()
    }

    /// Serves another program from the next request on. What is counted for names that are gone is forgotten. Gives
    /// the old program, which workers let go of within about a second; whoever drops it last frees all its rules,
    /// and that had better be no worker.
    #[must_use]
    pub fn publish(&self, program: Program) -> Arc<Program> {
        let generation = program.generation;
        let names = Names::of(&program);
        self.stats.requests.reserve(program.rules());
        let old = self.program.swap(Arc::new(program));
        self.generation.store(generation, Ordering::Release);
        self.stats.requests.retain(|key| names.has(key));
        self.stats.listeners.retain(|name| names.listeners.contains(name));
        self.stats.upstreams.retain(|name| names.upstreams.contains(name));
        self.stats.endpoints.retain(|endpoint| names.endpoints.contains(endpoint));
        old
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

/// The names that a program has.
struct Names {
    listeners: FxHashSet<Name>,
    upstreams: FxHashSet<Name>,
    endpoints: FxHashSet<(Name, Name)>,
    rules: FxHashSet<Name>,
}

impl Names {
    fn of(program: &Program) -> Self {
        let snapshot = &program.snapshot;
        let scopes = snapshot.listeners.iter().flat_map(|l| &l.scopes);
        Self {
            listeners: snapshot.listeners.iter().map(|l| l.name.clone()).collect(),
            upstreams: snapshot.upstreams.iter().map(|u| u.name.clone()).collect(),
            endpoints: snapshot
                .upstreams
                .iter()
                .flat_map(|u| {
                    u.endpoints.iter().map(|e| (u.name.clone(), e.target.to_string().into()))
                })
                .collect(),
            rules: scopes.flat_map(|s| &s.rules.rules).map(|r| r.name.clone()).collect(),
        }
    }

    fn has(&self, key: &RequestKey) -> bool {
        let known = |set: &FxHashSet<Name>, name: &Name| &**name == "-" || set.contains(name);
        self.listeners.contains(&key.listener)
            && known(&self.rules, &key.rule)
            && known(&self.upstreams, &key.upstream)
    }
}

thread_local! {
    static CURRENT: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

/// One worker thread's state.
#[derive(Debug)]
pub struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    local: RefCell<Rc<Local>>,
    /// Kept from one program to the next, so that connections and counts live on.
    upstreams: RefCell<FxHashMap<Name, Rc<Upstream>>>,
    /// For listeners that are gone while connections of theirs are left: the last program that had them.
    retired: RefCell<FxHashMap<SocketAddr, (Rc<Local>, usize)>>,
    pub(crate) rng: RefCell<Rng>,
    connections: RefCell<Vec<Weak<Handle>>>,
    date: RefCell<Date>,
}

/// Wakes an idle connection when it should end.
#[derive(Debug, Default)]
pub(crate) struct Handle {
    waker: RefCell<Option<Waker>>,
    /// The listener's socket is gone: end after the request under way.
    closing: Cell<bool>,
    address: OnceLock<SocketAddr>,
}

impl Handle {
    pub(crate) fn wake_me(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn close(&self) {
        self.closing.set(true);
        self.wake();
    }
}

impl Worker {
    /// This thread's worker. The first call on a thread makes it.
    pub fn on_this_thread(index: usize, shared: &Arc<Shared>) -> Rc<Self> {
        CURRENT.with(|current| {
            let make = || {
                let worker = Self::new(index, shared.clone());
                net::task::spawn_local("sweep", sweep(Rc::downgrade(&worker)));
                worker
            };
            current.get_or_init(make).clone()
        })
    }

    fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let local = RefCell::new(Rc::new(Local::new(shared.program())));
        let seed =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let seed = u64::try_from(seed & u128::from(u64::MAX)).unwrap_or(0) ^ ((index as u64) << 56);
        Rc::new(Self {
            index,
            shared,
            local,
            upstreams: RefCell::default(),
            retired: RefCell::default(),
            rng: RefCell::new(Rng::new(seed)),
            connections: RefCell::default(),
            date: RefCell::default(),
        })
    }

    /// The program as this worker serves it; the newest.
    pub(crate) fn local(&self) -> Rc<Local> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if self.local.borrow().program.generation != generation {
            let fresh = Rc::new(Local::new(self.shared.program()));
            let old = self.local.replace(fresh.clone());
            self.retire(&old, &fresh);
            return fresh;
        }
        self.local.borrow().clone()
    }

    /// The last program that had a listener which is gone, and its index in it.
    pub(crate) fn last_with(&self, listener: SocketAddr) -> Option<(Rc<Local>, usize)> {
        self.retired.borrow().get(&listener).cloned()
    }

    /// Keeps the old program for the connections of listeners that the new one does not have.
    fn retire(&self, old: &Rc<Local>, new: &Local) {
        let mut retired = self.retired.borrow_mut();
        for (index, listener) in old.program.snapshot.listeners.iter().enumerate() {
            if new.program.listener_at(listener.address).is_none() {
                retired.insert(listener.address, (old.clone(), index));
            }
        }
        retired.retain(|address, _| new.program.listener_at(*address).is_none());
    }

    /// The state of an upstream, carried over from the last program where it is still the same.
    pub(crate) fn upstream(&self, local: &Local, id: UpstreamId) -> Option<Rc<Upstream>> {
        let slot = local.upstreams.get(id.0)?;
        if let Some(upstream) = slot.get() {
            return Some(upstream.clone());
        }
        let model = local.program.snapshot.upstream(id)?;
        let mut upstreams = self.upstreams.borrow_mut();
        let upstream = match upstreams.get(&model.name) {
            Some(known) if known.model == *model => known.clone(),
            known => Rc::new(Upstream::new(model, known, &self.shared.stats, self.index)),
        };
        upstreams.insert(model.name.clone(), upstream.clone());
        Some(slot.get_or_init(|| upstream).clone())
    }

    /// Notes a connection, so that it can be told to end. The handle lives as long as the connection.
    pub(crate) fn register(&self, address: SocketAddr) -> Rc<Handle> {
        let handle = Rc::new(Handle::default());
        let _ = handle.address.set(address);
        let mut connections = self.connections.borrow_mut();
        // Amortised: the list never grows beyond twice what is open.
        if connections.len() == connections.capacity() {
            connections.retain(|known| known.strong_count() > 0);
        }
        connections.push(Rc::downgrade(&handle));
        handle
    }

    /// Tells connections to end after the request under way: those of one listener's address, or all.
    pub(crate) fn close_connections(&self, of: Option<SocketAddr>) {
        let handles: Vec<_> = self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        for handle in handles {
            if of.is_none() || handle.address.get().copied() == of {
                handle.close();
            }
        }
    }

    /// Tells all of this thread's connections to end as soon as they can.
    pub fn drain(&self) {
        self.close_connections(None);
    }

    /// The `Date` field's value, made once a second.
    pub(crate) fn date(&self, out: &mut Vec<u8>) {
        self.date.borrow_mut().append(out);
    }

    fn sweep(&self) {
        let served = self.local();
        let mut connections = self.connections.borrow_mut();
        connections.retain(|known| known.strong_count() > 0);
        if !self.retired.borrow().is_empty() {
            let live: Vec<Rc<Handle>> = connections.iter().filter_map(Weak::upgrade).collect();
            let has_some = |a: &SocketAddr| live.iter().any(|h| h.address.get() == Some(a));
            self.retired.borrow_mut().retain(|address, _| has_some(address));
        }
        drop(connections);
        let mut upstreams = self.upstreams.borrow_mut();
        upstreams.retain(|name, upstream| {
            upstream.sweep();
            served.names.contains(name)
        });
    }
}

/// Closes idle upstream connections that are too old, and forgets upstreams that are gone.
async fn sweep(worker: Weak<Worker>) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match worker.upgrade() {
            Some(worker) => worker.sweep(),
            None => return,
        }
    }
}

/// A program with what one worker adds to it.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) program: Arc<Program>,
    upstreams: Vec<OnceCell<Rc<Upstream>>>,
    names: FxHashSet<Name>,
    cells: RefCell<FxHashMap<CellKey, Arc<RequestCells>>>,
    choices: RefCell<FxHashMap<(usize, usize, usize), WeightedChoice>>,
}

/// Listener, scope and rule (`usize::MAX` for none), and upstream, by index.
pub(crate) type CellKey = (usize, usize, usize, usize);

impl Local {
    fn new(program: Arc<Program>) -> Self {
        let count = program.snapshot.upstreams.len();
        let names = program.snapshot.upstreams.iter().map(|u| u.name.clone()).collect();
        // Grown at once: growing it later, entry by entry, would make requests wait.
        let cells = FxHashMap::with_capacity_and_hasher(program.rules(), rustc_hash::FxBuildHasher);
        Self {
            program,
            upstreams: (0..count).map(|_| OnceCell::new()).collect(),
            names,
            cells: RefCell::new(cells),
            choices: RefCell::default(),
        }
    }

    /// Cells for requests, looked up by name the first time and by index after that.
    pub(crate) fn cells(&self, worker: &Worker, key: CellKey) -> Arc<RequestCells> {
        let mut cells = self.cells.borrow_mut();
        let found = cells.entry(key).or_insert_with(|| {
            let (listener, scope, rule, upstream) = key;
            let snapshot = &self.program.snapshot;
            let none = self.program.none();
            let model = snapshot.listeners.get(listener);
            let rule =
                model.and_then(|l| l.scopes.get(scope)?.rules.rules.get(rule)).map(|r| &r.name);
            let key = RequestKey {
                listener: model.map_or(none, |l| &l.name).clone(),
                rule: rule.unwrap_or(none).clone(),
                upstream: snapshot.upstreams.get(upstream).map_or(none, |u| &u.name).clone(),
            };
            worker.shared.stats.requests.cells(&key, worker.index)
        });
        found.clone()
    }

    /// Which of a rule's upstreams is next.
    pub(crate) fn choose(
        &self,
        worker: &Worker,
        rule: (usize, usize, usize),
        upstreams: &[model::UpstreamRef],
    ) -> Option<UpstreamId> {
        if let [only] = upstreams {
            return (only.weight > 0).then_some(only.upstream);
        }
        let mut choices = self.choices.borrow_mut();
        let choice = choices.entry(rule).or_insert_with(|| {
            let weights: Vec<u32> = upstreams.iter().map(|u| u.weight).collect();
            WeightedChoice::new(&weights, worker.index)
        });
        upstreams.get(choice.pick()?).map(|u| u.upstream)
    }
}

/// The current date as HTTP writes it.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn append(&mut self, out: &mut Vec<u8>) {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        out.extend_from_slice(self.text.as_bytes());
    }
}
