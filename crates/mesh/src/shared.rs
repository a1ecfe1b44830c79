//! What all workers and the control side have in common: the state that is served, the counters, the dialer.
//!
//! A new state is published whole; a connection uses the one that it began with. Must not know how it is served.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use model::{HostName, Target};
use net::dial::Dialer;

use crate::Millis;
use crate::asking::Asker;
use crate::files::settings::Settings;
use crate::hosts::{Host, Registry};
use crate::kept;
use crate::pods::{Accounts, Pods};
use crate::security::{Counts, Secured};
use crate::source::Files;
use crate::stats::Family;

/// What is served.
#[derive(Debug)]
pub struct State {
    /// How many there have been, this one included.
    pub generation: u64,
    /// `proxy.conf`
    pub settings: Arc<Settings>,
    /// The other hosts.
    pub hosts: Vec<Arc<Host>>,
    /// The pods of this one.
    pub pods: Pods,
    /// The addresses of all hosts, canonical.
    pub addresses: HashSet<IpAddr>,
    /// Where host ports are.
    pub pod_host: HostName,
    /// The same, where it is an address.
    pod_address: Option<IpAddr>,
    /// How connections between hosts are secured.
    pub secured: Secured,
}

impl State {
    /// Where a pod's host port is.
    #[must_use]
    pub fn pod_target(&self, host_port: u16) -> Target {
        match self.pod_address {
            Some(ip) => Target::Address(SocketAddr::new(ip, host_port)),
            None => Target::Named(self.pod_host.clone(), host_port),
        }
    }
}

/// "Every address" is none that one connects to: this host's own then.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}

/// Makes states of files, and keeps what outlives them: counts of connections, and what is known of hosts.
#[derive(Debug, Default)]
pub struct Maker {
    accounts: Accounts,
    registry: Registry,
    generation: u64,
    secured: Secured,
}

/// What is known of the hosts beyond their file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Which of the targets are this host.
    pub own: HashSet<Target>,
    /// The addresses of all, canonical.
    pub addresses: HashSet<IpAddr>,
}

impl Maker {
    /// Connections between hosts are secured like this in the states made from now on; not at all in those before.
    pub fn secure(&mut self, secured: Secured) {
        self.secured = secured;
    }

    /// How they are.
    #[must_use]
    pub fn secured(&self) -> &Secured {
        &self.secured
    }

    /// The state that files make. `listen` is where this host listens, for pods without a host of their own.
    #[must_use]
    pub fn make(&mut self, files: &Files, resolved: &Resolved, listen: &HostName) -> State {
        self.generation += 1;
        let others = files.hosts.iter().filter(|target| !resolved.own.contains(*target));
        let pod_host = files.settings.pod_host.clone().unwrap_or_else(|| listen.clone());
        State {
            generation: self.generation,
            settings: files.settings.clone(),
            hosts: self.registry.hosts(others),
            pods: self.accounts.pods(&files.mappings),
            addresses: resolved.addresses.clone(),
            pod_address: pod_host.as_str().parse().ok().map(reachable),
            pod_host,
            secured: self.secured.clone(),
        }
    }
}

/// Counts the time from when the process began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn now(self) -> Millis {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(Millis::MAX).saturating_add(1)
    }
}

/// What this host has in place of a pod of a cluster port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandIn {
    /// What is dialled.
    pub target: Target,
    /// It is no cluster port in its turn. Else only clients of this host get there.
    pub ends_here: bool,
}

/// By cluster port.
pub type StandIns = BTreeMap<u16, StandIn>;

/// What all share.
#[derive(Debug)]
pub struct Shared {
    state: ArcSwap<State>,
    pub(crate) clock: Clock,
    stand_ins: ArcSwap<StandIns>,
    draining: AtomicBool,
    connections: AtomicUsize,
    connections_max: usize,
    /// Connections of peers of which nothing is asked now.
    resting: AtomicUsize,
    pub(crate) dialer: Dialer,
    /// Connections of clients.
    pub clients: Family,
    /// Requests of peers.
    pub peers: Family,
    /// Connections between hosts, as to their security.
    pub security: Arc<Counts>,
}

impl Shared {
    /// Begins with a state, and reaches hosts and pods by this dialer; at most `connections_max` connections are served
    /// at a time, further ones wait in the kernel's queues.
    #[must_use]
    pub fn new(state: State, connections_max: usize, dialer: Dialer) -> Arc<Self> {
        Arc::new(Self {
            state: ArcSwap::from_pointee(state),
            clock: Clock(Instant::now()),
            stand_ins: ArcSwap::default(),
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            connections_max,
            resting: AtomicUsize::new(0),
            dialer,
            clients: Family::default(),
            peers: Family::default(),
            security: Arc::default(),
        })
    }

    /// What asks other hosts, in this state.
    pub(crate) fn asker(&self, state: &State) -> Asker {
        Asker {
            dialer: self.dialer.clone(),
            secured: state.secured.clone(),
            counts: self.security.clone(),
            clock: self.clock,
            keeps: state.settings.keeps && kept::is_begun(),
        }
    }

    /// What is served now.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Serves another state from the next connection on.
    pub fn publish(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// What this host has in place of pods.
    #[must_use]
    pub fn stand_ins(&self) -> Arc<StandIns> {
        self.stand_ins.load_full()
    }

    /// Dials these in place of pods of their cluster ports from the next connection on.
    pub fn set_stand_ins(&self, stand_ins: StandIns) {
        self.stand_ins.store(Arc::new(stand_ins));
    }

    pub(crate) fn stand_in(&self, cluster_port: u16) -> Option<StandIn> {
        self.stand_ins.load().get(&cluster_port).cloned()
    }

    /// The time, for what is remembered.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Connections of clients and peers now, over all workers.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many there may be.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Says that the end has begun; shown by the admin port.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open_connections() >= self.connections_max
    }
}

/// One in so many connections may be a peer's that rests.
const RESTING_SHARE: usize = 8;

/// A connection of a peer that rests, until dropped.
#[derive(Debug)]
pub(crate) struct Resting<'s>(&'s Shared);

impl<'s> Resting<'s> {
    /// `None` where others need the room.
    pub(crate) fn begin(shared: &'s Shared) -> Option<Self> {
        let most = shared.connections_max / RESTING_SHARE;
        let begun = Self(shared);
        let there = shared.resting.fetch_add(1, Ordering::Relaxed);
        (there < most && !shared.is_full()).then_some(begun)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.resting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection until dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
