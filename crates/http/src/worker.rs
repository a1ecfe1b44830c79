//! One worker thread's view: the program it serves, its upstreams' state, its connections.
//!
//! A [`Worker`] lives on one thread and shares nothing that changes on the request path; [`Shared`] is what it has in
//! common with the others. A new program is picked up at the next request: one atomic load tells whether there is
//! one. [`Local`] is a program with what the worker adds to it; what is kept by index lives on in the next program's
//! while the indices mean the same. Must not know protocols.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, SystemTime};

use balance::{Rng, WeightedChoice};
use model::{Name, UpstreamId};
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::forward::upstream::{Maker, Upstream};
use crate::program::{Program, ProgramUpstream};
use crate::shared::Shared;
use crate::stats::{RequestCells, RequestKey};

/// How often idle upstream connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Upstreams that are looked through in one go: with thousands of them, requests need not wait for all.
const SWEPT_AT_ONCE: usize = 64;
/// How long the last program that had a listener is kept at least: its socket closes after the program has changed,
/// and connections that the kernel had queued come even then.
const RETIRED_MIN: Duration = Duration::from_secs(10);

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
    /// For listeners that are gone while connections of theirs are left or may come: the last program that had them.
    retired: RefCell<FxHashMap<SocketAddr, Retired>>,
    pub(crate) rng: RefCell<Rng>,
    connections: RefCell<Vec<Weak<Handle>>>,
    date: RefCell<Date>,
}

/// The last program that had a listener.
#[derive(Debug)]
struct Retired {
    local: Rc<Local>,
    /// The listener's index in it.
    listener: usize,
    since: Instant,
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

    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let local = RefCell::new(Rc::new(Local::new(shared.program(), None)));
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
        if self.local.borrow().program.generation != self.shared.generation() {
            let before = self.local.borrow().clone();
            let fresh = Rc::new(Local::new(self.shared.program(), Some(&before)));
            self.local.replace(fresh.clone());
            self.retire(&before, &fresh);
            return fresh;
        }
        self.local.borrow().clone()
    }

    /// The last program that had a listener which is gone, and its index in it.
    pub(crate) fn last_with(&self, listener: SocketAddr) -> Option<(Rc<Local>, usize)> {
        let retired = self.retired.borrow();
        retired.get(&listener).map(|retired| (retired.local.clone(), retired.listener))
    }

    /// Keeps the old program for the connections of listeners that the new one does not have.
    fn retire(&self, old: &Rc<Local>, new: &Local) {
        if new.program.has_shape(old.program.shape()) {
            return;
        }
        let mut retired = self.retired.borrow_mut();
        let since = Instant::now();
        for (listener, model) in old.program.snapshot.listeners.iter().enumerate() {
            if new.program.listener_at(model.address).is_none() {
                let local = old.clone();
                retired.insert(model.address, Retired { local, listener, since });
            }
        }
        retired.retain(|address, _| new.program.listener_at(*address).is_none());
    }

    /// The state of an upstream, carried over from the last program where it is still the same.
    pub(crate) fn upstream(&self, local: &Local, id: UpstreamId) -> Option<Rc<Upstream>> {
        let source = local.program.upstream(id)?;
        if let Some(Some(known)) = local.carried.upstreams.borrow().get(id.0)
            && Arc::ptr_eq(&known.source, source)
        {
            return Some(known.clone());
        }
        Some(self.made_upstream(local, id, source))
    }

    /// The state of the upstream of that name in the program that is served now, if it has one.
    pub(crate) fn newest(&self, name: &Name) -> Option<Rc<Upstream>> {
        let local = self.local();
        self.upstream(&local, local.program.upstream_id(name)?)
    }

    fn made_upstream(
        &self,
        local: &Local,
        id: UpstreamId,
        source: &Arc<ProgramUpstream>,
    ) -> Rc<Upstream> {
        let name = &source.model.name;
        let mut upstreams = self.upstreams.borrow_mut();
        let upstream = match upstreams.get(name) {
            Some(known) if Arc::ptr_eq(&known.source, source) && known.is_counted() => {
                known.clone()
            }
            known => {
                let maker = Maker {
                    stats: &self.shared.stats,
                    worker: self.index,
                    // A list that changes all the time must not begin with the same endpoint all the time.
                    start: match known {
                        None => self.index,
                        Some(_) => self.rng.borrow_mut().next_u64() as usize,
                    },
                    is_served: || self.shared.serves(&local.program),
                };
                Rc::new(Upstream::new(source, known, &maker))
            }
        };
        // What a program that is no longer served makes is for its own request alone.
        if self.shared.serves(&local.program) && upstream.is_counted() {
            upstreams.insert(name.clone(), upstream.clone());
            if let Some(slot) = local.carried.upstreams.borrow_mut().get_mut(id.0) {
                *slot = Some(upstream.clone());
            }
        }
        upstream
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

    /// Forgets what is gone; gives the upstreams whose connections are to be looked through.
    pub(crate) fn sweep(&self) -> Vec<Rc<Upstream>> {
        let served = self.local();
        let mut connections = self.connections.borrow_mut();
        connections.retain(|known| known.strong_count() > 0);
        if !self.retired.borrow().is_empty() {
            let live: Vec<Rc<Handle>> = connections.iter().filter_map(Weak::upgrade).collect();
            let has_some = |a: &SocketAddr| live.iter().any(|h| h.address.get() == Some(a));
            self.retired
                .borrow_mut()
                .retain(|address, r| r.since.elapsed() < RETIRED_MIN || has_some(address));
        }
        drop(connections);
        let mut upstreams = self.upstreams.borrow_mut();
        let all = upstreams.values().cloned().collect();
        upstreams.retain(|name, _| served.program.has_upstream(name));
        all
    }
}

/// Closes idle upstream connections that are too old, and forgets upstreams that are gone.
async fn sweep(worker: Weak<Worker>) {
    let mut tick = tokio::time::interval(SWEEP_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(upstreams) = worker.upgrade().map(|worker| worker.sweep()) else { return };
        for some in upstreams.chunks(SWEPT_AT_ONCE) {
            some.iter().for_each(|upstream| upstream.sweep());
            tokio::task::yield_now().await;
        }
    }
}

/// A program with what one worker adds to it.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) program: Arc<Program>,
    carried: Rc<Carried>,
}

/// What a worker keeps by index, from one program to the next while the indices mean the same.
#[derive(Debug)]
struct Carried {
    /// Each with the source it was made for, by which is seen whether it still fits.
    upstreams: RefCell<Vec<Option<Rc<Upstream>>>>,
    cells: RefCell<FxHashMap<CellKey, Arc<RequestCells>>>,
    choices: RefCell<FxHashMap<(usize, usize, usize), WeightedChoice>>,
}

/// Listener, scope and rule (`usize::MAX` for none), and upstream, by index.
pub(crate) type CellKey = (usize, usize, usize, usize);

impl Carried {
    fn new(program: &Program) -> Self {
        // Grown at once: growing it later, entry by entry, would make requests wait.
        let cells = FxHashMap::with_capacity_and_hasher(program.rules(), rustc_hash::FxBuildHasher);
        Self {
            upstreams: RefCell::new(vec![None; program.upstreams().len()]),
            cells: RefCell::new(cells),
            choices: RefCell::default(),
        }
    }
}

impl Local {
    fn new(program: Arc<Program>, before: Option<&Self>) -> Self {
        let carried = match before {
            Some(before) if program.has_shape(before.program.shape()) => before.carried.clone(),
            _ => Rc::new(Carried::new(&program)),
        };
        Self { program, carried }
    }

    /// Cells for requests, looked up by name the first time and by index after that.
    pub(crate) fn cells(&self, worker: &Worker, key: CellKey) -> Arc<RequestCells> {
        let mut cells = self.carried.cells.borrow_mut();
        if let Some(found) = cells.get(&key) {
            return found.clone();
        }
        let is_served = || worker.shared.serves(&self.program);
        let named = self.request_key(key);
        let found = worker.shared.stats.requests.cells_while(&named, worker.index, is_served);
        // Those of a program that is no longer served may be nobody's.
        if is_served() {
            cells.insert(key, found.clone());
        }
        found
    }

    fn request_key(&self, (listener, scope, rule, upstream): CellKey) -> RequestKey {
        let snapshot = &self.program.snapshot;
        let none = self.program.none();
        let model = snapshot.listeners.get(listener);
        let rule = model.and_then(|l| l.scopes.get(scope)?.rules.rules.get(rule)).map(|r| &r.name);
        RequestKey {
            listener: model.map_or(none, |l| &l.name).clone(),
            rule: rule.unwrap_or(none).clone(),
            upstream: snapshot.upstreams.get(upstream).map_or(none, |u| &u.name).clone(),
        }
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
        let mut choices = self.carried.choices.borrow_mut();
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
