//! An upstream as one worker has it: its endpoints, whose turn it is, and the idle connections to each.
//!
//! Must not know requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balance::{Balancer, InFlight, Member, Request, Rng, Tried};
use model::{HostHeader, Name, Target};
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::connection::Connection;
use crate::program::ProgramUpstream;
use crate::stats::{Cells, EndpointCells, Stats, UpstreamCells};

/// A connection older than this since its last use is not given to a request that may not be sent twice: the server
/// may be closing it right now.
const UNSAFE_REUSE_IDLE_MAX: Duration = Duration::from_secs(2);
/// Up to this many endpoints are looked through one by one.
const FEW_ENDPOINTS_MAX: usize = 8;
/// Requests of one worker to one upstream that may ask a second endpoint beside a slow one, at once: where all are
/// slow, asking twice as many makes nothing better.
const SECOND_DIALS_MAX: u32 = 32;

/// One upstream's state on one worker.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// What it was made for; the same pointer in a later program: nothing has changed.
    pub(crate) source: Arc<ProgramUpstream>,
    pub(crate) cells: Arc<UpstreamCells>,
    balancer: RefCell<Balancer>,
    endpoints: Vec<Rc<Endpoint>>,
    second_dials: Rc<Cell<u32>>,
}

/// One endpoint's state on one worker.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    pub(crate) label: Name,
    /// What `Host` says where the client's is not kept.
    pub(crate) host_header: Option<Box<str>>,
    pub(crate) cells: Arc<EndpointCells>,
    /// What it is known by to everybody who balances by client address.
    identity: u64,
    idle: RefCell<VecDeque<Idle>>,
    limits: model::PoolLimits,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Who makes the state: a worker, for a program.
pub(crate) struct Maker<'m, S: Fn() -> bool> {
    pub(crate) stats: &'m Stats,
    pub(crate) worker: usize,
    /// Where a round robin begins.
    pub(crate) start: usize,
    /// Whether the program is the one that is served, or a newer one.
    pub(crate) is_served: S,
}

impl Upstream {
    /// The state for an upstream of a program; endpoints that the old state has too keep their connections, if they
    /// are still spoken to in the same way, and what is in flight to them still counts.
    pub(crate) fn new<S: Fn() -> bool>(
        source: &Arc<ProgramUpstream>,
        old: Option<&Rc<Self>>,
        maker: &Maker<'_, S>,
    ) -> Self {
        let model = &source.model;
        let known = old.map_or_else(Known::default, |old| Known::of(&old.endpoints));
        let keeps = old.is_some_and(|old| {
            let was = &old.source.model;
            was.tls == model.tls && was.pool == model.pool && was.host_header == model.host_header
        });
        let mut previous = Vec::with_capacity(model.endpoints.len());
        let mut endpoints = Vec::with_capacity(model.endpoints.len());
        for (index, endpoint) in model.endpoints.iter().enumerate() {
            let before = known.find(&endpoint.target, index);
            let kept = before.map(|(_, known)| known);
            // Its key may have been removed and come back: then others are read.
            let kept = kept.filter(|known| keeps && !known.cells.is_forgotten()).cloned();
            previous.push(before.map(|(index, _)| index));
            endpoints.push(kept.unwrap_or_else(|| Rc::new(Endpoint::new(model, endpoint, maker))));
        }
        let weighted = model.endpoints.iter().zip(&endpoints);
        let members: Vec<Member> =
            weighted.map(|(e, own)| Member { weight: e.weight, identity: own.identity }).collect();
        let balancer = match old {
            None => Balancer::new(model.algorithm, &members, maker.start),
            Some(old) => {
                let previous = |index: usize| previous.get(index).copied().flatten();
                let old = old.balancer.borrow();
                old.changed(model.algorithm, &members, maker.start, previous)
            }
        };
        let cells = old.map(|old| &old.cells).filter(|cells| !cells.is_forgotten()).cloned();
        let cells = cells.unwrap_or_else(|| {
            maker.stats.upstreams.cells_while(&model.name, maker.worker, &maker.is_served)
        });
        let (source, balancer) = (source.clone(), RefCell::new(balancer));
        let second_dials = old.map(|old| old.second_dials.clone()).unwrap_or_default();
        Self { source, cells, balancer, endpoints, second_dials }
    }

    /// Whether everything that it counts is read.
    pub(crate) fn is_counted(&self) -> bool {
        !self.cells.is_forgotten() && !self.endpoints.iter().any(|e| e.cells.is_forgotten())
    }

    /// The endpoint whose turn it is, among those that can serve, and among those not tried if there are any; counted
    /// as busy until the guard goes.
    pub(crate) fn pick(
        &self,
        rng: &mut Rng,
        client: IpAddr,
        tried: &Tried,
    ) -> Option<(usize, Rc<Endpoint>, InFlight)> {
        let mut balancer = self.balancer.borrow_mut();
        let index = balancer.pick(rng, Request { client, tried }, |index| self.is_up(index))?;
        let guard = balancer.started(index)?;
        Some((index, self.endpoints.get(index)?.clone(), guard))
    }

    #[cfg(test)]
    pub(crate) fn endpoint(&self, index: usize) -> Option<Rc<Endpoint>> {
        self.endpoints.get(index).cloned()
    }

    fn is_up(&self, index: usize) -> bool {
        match &self.source.health {
            None => true,
            Some(health) => health.get(index).is_none_or(|health| health.is_up()),
        }
    }

    /// Whether no endpoint can serve, though there are some.
    pub(crate) fn is_down(&self) -> bool {
        !self.endpoints.is_empty() && !(0..self.endpoints.len()).any(|index| self.is_up(index))
    }

    /// Whether a request that waits for an endpoint of an older state had better not: it has left or is down, and here
    /// is another one that was not tried.
    pub(crate) fn replaces(&self, old: &Self, endpoint: &Endpoint, tried: &Tried) -> bool {
        let is_it =
            |index: usize| self.endpoints.get(index).map(|e| &e.target) == Some(&endpoint.target);
        let mut indices = 0..self.endpoints.len();
        if indices.clone().any(|index| is_it(index) && self.is_up(index)) {
            return false;
        }
        let tried = self.renewed(old, tried);
        indices.any(|index| self.is_up(index) && !is_it(index) && !tried.contains(index))
    }

    /// What was tried of an older state, by where it stands in this one.
    pub(crate) fn renewed(&self, old: &Self, tried: &Tried) -> Tried {
        let mut renewed = Tried::none();
        for was in tried.indices().filter_map(|index| old.endpoints.get(index)) {
            let here = self.endpoints.iter().position(|e| e.target == was.target);
            here.into_iter().for_each(|index| renewed.add(index));
        }
        renewed
    }

    /// Closes idle connections that are too old or were closed by the other side, and those to endpoints that cannot
    /// serve.
    pub(crate) fn sweep(&self) {
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            endpoint.sweep(self.is_up(index));
        }
    }
}

/// A second endpoint being asked beside a slow one: counted until dropped.
pub(crate) struct SecondDial(Rc<Cell<u32>>);

impl SecondDial {
    /// `None` where there are too many.
    pub(crate) fn begin(upstream: &Upstream) -> Option<Self> {
        let count = &upstream.second_dials;
        (count.get() < SECOND_DIALS_MAX).then(|| {
            count.set(count.get() + 1);
            Self(count.clone())
        })
    }
}

impl Drop for SecondDial {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The endpoints of an old state, found by target: at the same place at once, else with one look.
#[derive(Default)]
struct Known<'o> {
    list: &'o [Rc<Endpoint>],
    by_target: FxHashMap<&'o Target, usize>,
}

impl<'o> Known<'o> {
    fn of(list: &'o [Rc<Endpoint>]) -> Self {
        let few = list.len() <= FEW_ENDPOINTS_MAX;
        let indexed = if few { &[] } else { list };
        let by_target = indexed.iter().enumerate().map(|(i, e)| (&e.target, i)).collect();
        Self { list, by_target }
    }

    /// Index and endpoint; `near` is where it probably stands.
    fn find(&self, target: &Target, near: usize) -> Option<(usize, &'o Rc<Endpoint>)> {
        let is_it = |index: &usize| self.list.get(*index).is_some_and(|e| e.target == *target);
        let index = Some(near).filter(is_it).or_else(|| {
            if self.list.len() <= FEW_ENDPOINTS_MAX {
                return (0..self.list.len()).find(is_it);
            }
            self.by_target.get(target).copied()
        })?;
        Some((index, self.list.get(index)?))
    }
}

impl Endpoint {
    fn new<S: Fn() -> bool>(
        model: &model::Upstream,
        endpoint: &model::Endpoint,
        maker: &Maker<'_, S>,
    ) -> Self {
        let label: Name = endpoint.target.to_string().into();
        let default_port = if model.tls.is_some() { 443 } else { 80 };
        let host_header = (model.host_header == HostHeader::Endpoint)
            .then(|| endpoint.target.authority(default_port).into_boxed_str());
        let key = (model.name.clone(), label.clone());
        Self {
            target: endpoint.target.clone(),
            host_header,
            cells: maker.stats.endpoints.cells_while(&key, maker.worker, &maker.is_served),
            identity: balance::identity(&label),
            label,
            idle: RefCell::default(),
            limits: model.pool,
        }
    }

    /// An idle connection that looks alive, the one used last. `replayable` says that the request may be sent again
    /// if the connection turns out to be dead.
    pub(crate) fn take_idle(&self, replayable: bool) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, since }) = idle.pop_back() {
            self.cells.idle.sub(1);
            let young = replayable || since.elapsed() < UNSAFE_REUSE_IDLE_MAX;
            if young && connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, if there is room and it takes nobody else's.
    pub(crate) fn put_idle(&self, mut connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.limits.idle_connections && connection.may_rest() {
            connection.rest();
            idle.push_back(Idle { connection, since: Instant::now() });
            self.cells.idle.add(1);
        }
    }

    fn sweep(&self, is_up: bool) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        if before == 0 {
            return;
        }
        let now = Instant::now();
        idle.retain(|i| {
            let young = now - i.since < self.limits.idle_timeout;
            is_up && young && i.connection.may_rest() && i.connection.is_usable()
        });
        self.cells.idle.sub((before - idle.len()) as u64);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.cells.idle.sub(self.idle.borrow().len() as u64);
    }
}
