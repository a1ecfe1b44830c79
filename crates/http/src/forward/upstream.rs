//! An upstream as one worker has it: its endpoints, whose turn it is, and the idle connections to each.
//!
//! Must not know requests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balance::{Balancer, InFlight, Rng, Tried};
use model::{HostHeader, Name, Target};
use tokio::time::Instant;

use super::connection::Connection;
use crate::stats::{EndpointCells, Stats, UpstreamCells};

/// A connection older than this since its last use is not given to a request that may not be sent twice: the server
/// may be closing it right now.
const UNSAFE_REUSE_IDLE_MAX: Duration = Duration::from_secs(2);

/// One upstream's state on one worker.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) model: model::Upstream,
    pub(crate) cells: Arc<UpstreamCells>,
    balancer: RefCell<Balancer>,
    endpoints: Vec<Rc<Endpoint>>,
}

/// One endpoint's state on one worker.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    pub(crate) label: Name,
    /// What `Host` says where the client's is not kept.
    pub(crate) host_header: Option<Box<str>>,
    pub(crate) cells: Arc<EndpointCells>,
    idle: RefCell<VecDeque<Idle>>,
    limits: model::PoolLimits,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Upstream {
    /// The state for a model; endpoints that the old state has too keep their connections, if they are still spoken
    /// to in the same way.
    pub(crate) fn new(
        model: &model::Upstream,
        old: Option<&Rc<Self>>,
        stats: &Stats,
        worker: usize,
    ) -> Self {
        let weights: Vec<u32> = model.endpoints.iter().map(|e| e.weight).collect();
        let keep = old.filter(|old| {
            old.model.tls == model.tls
                && old.model.pool == model.pool
                && old.model.host_header == model.host_header
        });
        let endpoint = |e: &model::Endpoint| {
            let known = keep.and_then(|old| old.endpoints.iter().find(|o| o.target == e.target));
            known.cloned().unwrap_or_else(|| Rc::new(Endpoint::new(model, e, stats, worker)))
        };
        Self {
            cells: stats.upstreams.cells(&model.name, worker),
            balancer: RefCell::new(Balancer::new(model.algorithm, &weights, worker)),
            endpoints: model.endpoints.iter().map(endpoint).collect(),
            model: model.clone(),
        }
    }

    /// The endpoint whose turn it is, among those not tried if there are any; counted as busy until the guard goes.
    pub(crate) fn pick(
        &self,
        rng: &mut Rng,
        tried: &Tried,
    ) -> Option<(usize, Rc<Endpoint>, InFlight)> {
        let mut balancer = self.balancer.borrow_mut();
        let index = balancer.pick(rng, tried)?;
        let guard = balancer.started(index)?;
        Some((index, self.endpoints.get(index)?.clone(), guard))
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Closes idle connections that are too old or were closed by the other side.
    pub(crate) fn sweep(&self) {
        for endpoint in &self.endpoints {
            endpoint.sweep();
        }
    }
}

impl Endpoint {
    fn new(
        model: &model::Upstream,
        endpoint: &model::Endpoint,
        stats: &Stats,
        worker: usize,
    ) -> Self {
        let label: Name = endpoint.target.to_string().into();
        let default_port = if model.tls.is_some() { 443 } else { 80 };
        let host_header =
            (model.host_header == HostHeader::Endpoint).then(|| match &endpoint.target {
                Target::Named(name, port) if *port == default_port => name.as_str().into(),
                target => target.to_string().into_boxed_str(),
            });
        Self {
            target: endpoint.target.clone(),
            host_header,
            cells: stats.endpoints.cells(&(model.name.clone(), label.clone()), worker),
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
            if young && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, if there is room.
    pub(crate) fn put_idle(&self, mut connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.limits.idle_connections {
            connection.rest();
            idle.push_back(Idle { connection, since: Instant::now() });
            self.cells.idle.add(1);
        }
    }

    fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        let now = Instant::now();
        idle.retain(|i| now - i.since < self.limits.idle_timeout && i.connection.is_quiet());
        self.cells.idle.sub((before - idle.len()) as u64);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.cells.idle.sub(self.idle.borrow().len() as u64);
    }
}
