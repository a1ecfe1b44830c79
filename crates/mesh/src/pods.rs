//! The pods of this host: which there are for a cluster port, how many connections each has, and which gets the next.
//!
//! A place with a pod is reserved before it is connected to and given back when the connection ends, so that a pod
//! never has more than it may; the count belongs to the mapping's identity and outlives every reload. No lock: workers
//! meet in one atomic number a pod. Sans-io; time and chance are arguments. Start at [`Pods`].

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use balance::Rng;
use rustc_hash::FxHashMap;

use crate::Millis;
use crate::files::mappings::Mapping;

/// How long a pod that refused a connection comes after the others.
const REFUSED_FOR_MILLIS: u64 = 3_000;

/// By what a pod is known again after a reload: cluster port and host port.
type Identity = (u16, u16);

/// What outlives a reload.
#[derive(Debug, Default)]
struct Count {
    connections: AtomicU32,
    /// Until then it comes after the others.
    refused_until: AtomicU64,
}

/// A pod's port, reached by one cluster port.
#[derive(Debug)]
pub struct Pod {
    mapping: Mapping,
    count: Arc<Count>,
}

impl Pod {
    /// The item of the file.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Connections now, those that are just being made included.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.count.connections.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        self.connections() < self.mapping.connections_max
    }

    fn is_sound(&self, now: Millis) -> bool {
        self.count.refused_until.load(Ordering::Relaxed) <= now
    }

    fn reserve(self: &Arc<Self>) -> Option<Place> {
        let most = self.mapping.connections_max;
        let counted = self.count.connections.fetch_update(
            Ordering::Relaxed,
            Ordering::Relaxed,
            |connections| (connections < most).then(|| connections + 1),
        );
        counted.is_ok().then(|| Place(self.clone()))
    }

    /// Whether it has less to do than another, for what each may have.
    fn is_freer_than(&self, other: &Self) -> bool {
        let load = |one: &Self, most: &Self| {
            u64::from(one.connections()) * u64::from(most.mapping.connections_max)
        };
        load(self, other) < load(other, self)
    }
}

/// One connection to a pod, counted until this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Pod>);

impl Place {
    /// Which pod.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        self.0.mapping
    }

    /// Whether the pod may have another connection beside this and the others.
    #[must_use]
    pub fn has_another(&self) -> bool {
        self.0.has_room()
    }

    /// The pod did not take the connection: others come first for a while.
    pub fn refused(self, now: Millis) {
        self.0.count.refused_until.store(now + REFUSED_FOR_MILLIS, Ordering::Relaxed);
    }

    /// The pod took the connection.
    pub fn taken(&self) {
        self.0.count.refused_until.store(0, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which pod gets a connection.
#[derive(Debug)]
pub enum Pick {
    /// This one; it is reserved.
    Pod(Place),
    /// There are pods, and all that were not tried have as many connections as they may.
    Full,
    /// There is none that was not tried.
    None,
}

/// The pods of a host.
#[derive(Debug, Default)]
pub struct Pods(FxHashMap<u16, Vec<Arc<Pod>>>);

impl Pods {
    /// All pods.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.0.values().flatten()
    }

    /// Whether a cluster port has pods here.
    #[must_use]
    pub fn serve(&self, cluster_port: u16) -> bool {
        self.0.contains_key(&cluster_port)
    }

    /// Whether a pod is among them, whatever it may have.
    #[must_use]
    pub fn have(&self, mapping: Mapping) -> bool {
        let of_port = self.0.get(&mapping.cluster_port);
        of_port.is_some_and(|pods| pods.iter().any(|p| p.mapping.host_port == mapping.host_port))
    }

    /// Whether one of a cluster port may have another connection, and has not refused one lately.
    #[must_use]
    pub fn have_room(&self, cluster_port: u16, now: Millis) -> bool {
        let fit = |pod: &Arc<Pod>| pod.has_room() && pod.is_sound(now);
        self.0.get(&cluster_port).is_some_and(|pods| pods.iter().any(fit))
    }

    /// Chooses and reserves: of two at random the one that has less to do, for what each may have. Pods that refused a
    /// connection lately come after the others. `tried` has the host ports that refused this connection.
    #[must_use]
    pub fn pick(&self, cluster_port: u16, tried: &[u16], now: Millis, rng: &mut Rng) -> Pick {
        let Some(pods) = self.0.get(&cluster_port) else { return Pick::None };
        let untried = || pods.iter().filter(|pod| !tried.contains(&pod.mapping.host_port));
        let sound = |pod: &&Arc<Pod>| pod.is_sound(now);
        // Somebody else may take the last place in between; then it is looked for again, with one pod less.
        while untried().any(|pod| pod.has_room()) {
            let open = || untried().filter(|pod| pod.has_room());
            let chosen = if open().any(|pod| sound(&pod)) {
                freer_of_two(|| open().filter(sound), rng)
            } else {
                freer_of_two(open, rng)
            };
            if let Some(place) = chosen.and_then(Pod::reserve) {
                return Pick::Pod(place);
            }
        }
        if untried().next().is_some() { Pick::Full } else { Pick::None }
    }
}

/// Of two at random, the one with less to do.
fn freer_of_two<'p, I: Iterator<Item = &'p Arc<Pod>>>(
    pods: impl Fn() -> I,
    rng: &mut Rng,
) -> Option<&'p Arc<Pod>> {
    let count = pods().count() as u64;
    let mut any = || pods().nth(rng.below(count) as usize);
    let (one, other) = (any()?, any()?);
    Some(if other.is_freer_than(one) { other } else { one })
}

/// Who counts: hands out the pods of each new file, with the counts that they had.
#[derive(Debug, Default)]
pub struct Accounts {
    counts: FxHashMap<Identity, Weak<Count>>,
}

impl Accounts {
    /// The pods of a file. One that was there before keeps its count, also where it was gone in between while
    /// connections to it went on. Items with the same ports are one pod, which may have the connections of all.
    #[must_use]
    pub fn pods(&mut self, mappings: &[Mapping]) -> Pods {
        let mut pods: FxHashMap<u16, Vec<Arc<Pod>>> = FxHashMap::default();
        for mapping in merged(mappings) {
            let known = self.counts.entry((mapping.cluster_port, mapping.host_port)).or_default();
            let count = known.upgrade().unwrap_or_default();
            *known = Arc::downgrade(&count);
            pods.entry(mapping.cluster_port).or_default().push(Arc::new(Pod { mapping, count }));
        }
        // Pods that are in no file any more have a count as long as they have a connection.
        self.counts.retain(|_, count| count.strong_count() > 0);
        Pods(pods)
    }
}

/// One item for each pair of ports, in their order.
fn merged(mappings: &[Mapping]) -> Vec<Mapping> {
    let mut at: FxHashMap<Identity, usize> = FxHashMap::default();
    let mut merged: Vec<Mapping> = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        match at.entry((mapping.cluster_port, mapping.host_port)) {
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(*mapping);
            }
            Entry::Occupied(place) => {
                let most = &mut merged[*place.get()].connections_max;
                *most = most.saturating_add(mapping.connections_max);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(cluster_port: u16, host_port: u16, connections_max: u32) -> Mapping {
        Mapping { cluster_port, host_port, connections_max, wants_header: false }
    }

    fn take(pods: &Pods, port: u16) -> Option<Place> {
        match pods.pick(port, &[], 0, &mut Rng::new(1)) {
            Pick::Pod(place) => Some(place),
            _ => None,
        }
    }

    #[test]
    fn the_count_outlives_reloads_and_absence() {
        let mut accounts = Accounts::default();
        let mut pods = accounts.pods(&[mapping(61_000, 1, 2)]);
        let first = take(&pods, 61_000).unwrap();
        pods = accounts.pods(&[]);
        assert!(take(&pods, 61_000).is_none());
        pods = accounts.pods(&[mapping(61_001, 1, 9), mapping(61_000, 1, 2)]);
        let second = take(&pods, 61_000).unwrap();
        assert!(matches!(pods.pick(61_000, &[], 0, &mut Rng::new(1)), Pick::Full));
        pods = accounts.pods(&[mapping(61_000, 1, 1)]);
        drop(first);
        assert!(take(&pods, 61_000).is_none());
        drop(second);
        assert!(take(&pods, 61_000).is_some());
        drop(pods);
        let _ = accounts.pods(&[]);
        assert!(accounts.counts.is_empty());
    }

    #[test]
    fn an_item_that_stands_there_twice_counts_twice() {
        let mut accounts = Accounts::default();
        let twice = [mapping(1, 2, 1), mapping(1, 2, 1)];
        let pods = accounts.pods(&twice);
        let held = [take(&pods, 1).unwrap(), take(&pods, 1).unwrap()];
        let pods = accounts.pods(&twice);
        assert!(take(&pods, 1).is_none());
        drop(held);
        assert!(take(&pods, 1).is_some());
    }

    #[test]
    fn pods_get_what_they_can_take() {
        let pods = Accounts::default().pods(&[mapping(1, 2, 300), mapping(1, 3, 100)]);
        let mut rng = Rng::new(3);
        let mut places = Vec::new();
        for _ in 0..200 {
            let Pick::Pod(place) = pods.pick(1, &[], 0, &mut rng) else { panic!() };
            places.push(place);
        }
        let of_large = places.iter().filter(|p| p.mapping().host_port == 2).count();
        assert!((140..=160).contains(&of_large), "{of_large}");
    }

    #[test]
    fn a_pod_that_refused_comes_last_for_a_while() {
        let pods = Accounts::default().pods(&[mapping(1, 2, 10), mapping(1, 3, 10)]);
        let mut rng = Rng::new(4);
        let Pick::Pod(place) = pods.pick(1, &[3], 0, &mut rng) else { panic!() };
        place.refused(0);
        for _ in 0..10 {
            let Pick::Pod(place) = pods.pick(1, &[], 0, &mut rng) else { panic!() };
            assert_eq!(place.mapping().host_port, 3);
        }
        let Pick::Pod(place) = pods.pick(1, &[3], 0, &mut rng) else { panic!() };
        assert_eq!(place.mapping().host_port, 2);
        assert!(matches!(pods.pick(1, &[2, 3], 0, &mut rng), Pick::None));
        let later = (0..50).any(|_| match pods.pick(1, &[], REFUSED_FOR_MILLIS, &mut rng) {
            Pick::Pod(place) => place.mapping().host_port == 2,
            _ => false,
        });
        assert!(later);
    }
}
