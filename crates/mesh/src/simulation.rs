//! A seeded simulation of a cluster: hosts with the real accounts, choices and memory, and between them a network of a
//! few lines. For any sequence of connections, closes, failures and reloads no pod has more connections than it may, no
//! count is lost, no connection ends because of a reload, and each goes to a pod of its cluster port or is refused only
//! if every host refused it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use balance::Rng;
use model::Target;

use crate::Millis;
use crate::files::mappings::Mapping;
use crate::hosts::{Answer, Host, Registry, Tunnel, order};
use crate::pods::{Accounts, Pick, Place, Pods};
use crate::race::{Race, Step};

const PORTS: [u16; 3] = [61_000, 61_001, 61_002];
/// As in the settings, in milliseconds.
const PATIENCE: u64 = 300;
const HOST_TIME: u64 = 3_000;
const TOTAL: u64 = 10_000;

/// One host.
struct Node {
    accounts: Accounts,
    pods: Pods,
    mappings: Vec<Mapping>,
    /// Host ports on which nobody listens although the file says so.
    dead: HashSet<u16>,
    silent: bool,
    registry: Registry,
    others: Vec<Arc<Host>>,
}

/// A live connection.
struct Connection {
    cluster_port: u16,
    node: usize,
    place: Place,
    _tunnel: Option<Tunnel>,
}

struct Cluster {
    rng: Rng,
    now: Millis,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    reached: usize,
    refused: usize,
}

fn target(node: usize) -> Target {
    let port = 32_767 + u16::try_from(node).unwrap();
    Target::Address(([127, 0, 0, 1], port).into())
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 1 + rng.below(5) as usize;
        let node = |index: usize| {
            let mut registry = Registry::default();
            let others: Vec<Target> = (0..count).filter(|n| *n != index).map(target).collect();
            let others = registry.hosts(&others);
            Node {
                accounts: Accounts::default(),
                pods: Pods::default(),
                mappings: Vec::new(),
                dead: HashSet::new(),
                silent: false,
                registry,
                others,
            }
        };
        let nodes = (0..count).map(node).collect();
        Self { rng, now: 1, nodes, connections: Vec::new(), reached: 0, refused: 0 }
    }

    fn any(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    fn step(&mut self) {
        self.now += self.rng.below(400);
        let node = self.any();
        match self.rng.below(20) {
            0 => self.reload(node),
            1 => {
                let hosts: Vec<Target> =
                    self.nodes[node].others.iter().map(|host| host.target.clone()).collect();
                self.nodes[node].others = self.nodes[node].registry.hosts(&hosts);
            }
            2 => self.nodes[node].silent = self.rng.below(3) == 0,
            3 => {
                let port = 30_000 + self.rng.below(4) as u16;
                if !self.nodes[node].dead.remove(&port) {
                    self.nodes[node].dead.insert(port);
                }
            }
            4..=9 if !self.connections.is_empty() => {
                let at = self.rng.below(self.connections.len() as u64) as usize;
                self.connections.swap_remove(at);
            }
            _ => {
                let port = PORTS[self.rng.below(3) as usize];
                self.connect(node, port);
            }
        }
    }

    fn reload(&mut self, node: usize) {
        let count = self.rng.below(6);
        let mut mapping = || Mapping {
            cluster_port: PORTS[self.rng.below(3) as usize],
            host_port: 30_000 + self.rng.below(4) as u16,
            connections_max: self.rng.below(4) as u32,
            wants_header: self.rng.below(2) == 0,
        };
        let mappings: Vec<Mapping> = (0..count).map(|_| mapping()).collect();
        let node = &mut self.nodes[node];
        node.pods = node.accounts.pods(&mappings);
        node.mappings = mappings;
    }

    /// As `serve::ask::own_pod` does it.
    fn own_pod(&mut self, node: usize, port: u16) -> Result<Place, Answer> {
        let node = &self.nodes[node];
        let mut tried = Vec::new();
        loop {
            match node.pods.pick(port, &tried, self.now, &mut self.rng) {
                Pick::Pod(place) if node.dead.contains(&place.mapping().host_port) => {
                    tried.push(place.mapping().host_port);
                    place.refused(self.now);
                }
                Pick::Pod(place) => {
                    place.taken();
                    return Ok(place);
                }
                Pick::Full => return Err(Answer::Busy),
                Pick::None => return Err(Answer::No),
            }
        }
    }

    fn connect(&mut self, node: usize, port: u16) {
        if let Ok(place) = self.own_pod(node, port) {
            return self.begin(node, port, place, None);
        }
        let began = self.now;
        let order = order(&self.nodes[node].others, port, self.now, &mut self.rng);
        let mut race = Race::new(order, self.now, PATIENCE, HOST_TIME, self.now + TOTAL);
        let mut waiting: Vec<(Millis, Arc<Host>)> = Vec::new();
        let mut asked = HashMap::new();
        loop {
            match race.step(self.now) {
                Step::Ask { host, until } => {
                    let host = self.nodes[node].others[host].clone();
                    let other = usize::from(host.target.port() - 32_767);
                    if self.nodes[other].silent {
                        assert!(asked.insert(other, Answer::Silent).is_none(), "asked twice");
                        waiting.push((until, host));
                        continue;
                    }
                    let result = self.own_pod(other, port);
                    let answer = result.as_ref().err().copied().unwrap_or(Answer::Tunnel);
                    assert!(asked.insert(other, answer).is_none(), "asked twice");
                    host.answered(port, answer, self.now);
                    match result {
                        Ok(place) => {
                            return self.begin(other, port, place, Some(Tunnel::to(&host)));
                        }
                        Err(_) => race.missed(self.now),
                    }
                }
                Step::Wait(until) => {
                    let next = waiting.iter().map(|(end, _)| *end).min().unwrap_or(until);
                    self.now = until.min(next).max(self.now);
                    let now = self.now;
                    let (over, rest) = waiting.into_iter().partition(|(end, _)| *end <= now);
                    waiting = rest;
                    let over: Vec<(Millis, Arc<Host>)> = over;
                    for (_, host) in over {
                        host.answered(port, Answer::Silent, now);
                        race.missed(now);
                    }
                }
                Step::AllSaidNo | Step::TooLate => break,
            }
        }
        assert!(self.now <= began + TOTAL);
        assert_eq!(asked.len(), self.nodes[node].others.len(), "not all were asked");
        self.refused += 1;
    }

    fn begin(&mut self, node: usize, cluster_port: u16, place: Place, tunnel: Option<Tunnel>) {
        assert_eq!(place.mapping().cluster_port, cluster_port);
        let host_port = place.mapping().host_port;
        let mut mappings = self.nodes[node].mappings.iter();
        let mapped = mappings.any(|m| (m.cluster_port, m.host_port) == (cluster_port, host_port));
        assert!(mapped, "a pod that is not in the file");
        self.reached += 1;
        self.connections.push(Connection { cluster_port, node, place, _tunnel: tunnel });
    }

    /// Counts are what there is, and where the file has not been made stricter meanwhile, within it.
    fn check(&self, most_ever: &mut HashMap<(usize, u16, u16), u64>) {
        let mut live: HashMap<(usize, u16, u16), u64> = HashMap::new();
        for connection in &self.connections {
            let mapping = connection.place.mapping();
            let key = (connection.node, connection.cluster_port, mapping.host_port);
            *live.entry(key).or_default() += 1;
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let mut counted: HashMap<(u16, u16), (u64, u64)> = HashMap::new();
            for pod in node.pods.all() {
                let mapping = pod.mapping();
                let entry = counted.entry((mapping.cluster_port, mapping.host_port)).or_default();
                entry.0 += u64::from(pod.connections());
                entry.1 += u64::from(mapping.connections_max);
            }
            for ((port, host_port), (connections, most)) in counted {
                let key = (index, port, host_port);
                let there = live.get(&key).copied().unwrap_or_default();
                assert!(connections <= there, "{key:?}: counts {connections} of {there}");
                let before = most_ever.get(&key).copied().unwrap_or_default();
                assert!(there <= most.max(before), "{key:?}: {there} connections, {most} allowed");
            }
        }
        *most_ever = live;
    }
}

#[test]
fn the_invariants_hold_for_any_sequence() {
    let (mut reached, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut cluster = Cluster::new(seed);
        for node in 0..cluster.nodes.len() {
            cluster.reload(node);
        }
        let mut before = HashMap::new();
        for _ in 0..400 {
            let live = cluster.connections.len();
            cluster.step();
            // Only a close makes them fewer, and only by one.
            assert!(cluster.connections.len() + 1 >= live);
            cluster.check(&mut before);
        }
        cluster.connections.clear();
        for node in &cluster.nodes {
            assert!(node.pods.all().all(|pod| pod.connections() == 0));
            assert!(node.others.iter().all(|host| host.tunnels() == 0));
        }
        reached += cluster.reached;
        refused += cluster.refused;
    }
    assert!(reached > 10_000 && refused > 1_000, "{reached} reached, {refused} refused");
}
