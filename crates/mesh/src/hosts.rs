//! The other hosts: which is asked first for a pod, and which said no, or nothing, lately.
//!
//! A miss is remembered for one cluster port (no pod of it there, or all are full), or for the host as a whole (it does
//! not answer), in a table of fixed size; where two ports meet in one place of it, the later one counts, since what is
//! forgotten only costs a question. A host with a miss is asked after the others, never left out. One that has not been
//! heard, or not since it was silent, comes after those that have been. Sans-io and without locks: workers share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use balance::Rng;
use model::Target;
use rustc_hash::FxHashMap;
use tls::MutualErrorKind;

use crate::Millis;
use crate::security;

/// Misses that are remembered of one host.
const MISSES_MAX: usize = 512;
const MILLIS_BITS: u32 = 48;
/// For how long a host that does not answer counts as gone.
const GONE_MILLIS: Millis = 10_000;
/// How soon a host that does not speak TLS is found out about again.
const PROBE_EVERY_MILLIS: Millis = 30_000;

/// How asking a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is a tunnel to a pod.
    Tunnel,
    /// It has no pod of this cluster port, or none that answers.
    No,
    /// Its pods are full.
    Busy,
    /// Nobody listens there, or the way is closed.
    Refused,
    /// It did not answer in time.
    Silent,
    /// It answered something else.
    NotAPeer,
    /// It and we do not trust each other, or only one side can be secured.
    Insecure,
}

impl Answer {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Tunnel,
        Self::No,
        Self::Busy,
        Self::Refused,
        Self::Silent,
        Self::NotAPeer,
        Self::Insecure,
    ];

    /// A word for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "ok",
            Self::No => "no",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::NotAPeer => "not_a_peer",
            Self::Insecure => "insecure",
        }
    }

    /// How long it is remembered.
    fn lasts_millis(self) -> u64 {
        match self {
            Self::Tunnel => 0,
            Self::No => 5_000,
            Self::Busy => 1_000,
            Self::Refused | Self::Silent | Self::NotAPeer | Self::Insecure => GONE_MILLIS,
        }
    }

    /// Whether the host counts as gone then, for all cluster ports.
    fn is_gone(self) -> bool {
        matches!(self, Self::Refused | Self::Silent | Self::NotAPeer | Self::Insecure)
    }
}

/// What is known of a host as to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Nothing yet.
    Unknown,
    /// It does not, or does not trust us, or we do not trust it.
    Plain,
    /// It does, and each side trusts the other.
    Tls,
}

/// Another host.
#[derive(Debug)]
pub struct Host {
    /// Where its proxy listens.
    pub target: Target,
    /// The same as text, as it stands in `hosts.conf`.
    pub name: Arc<str>,
    /// Cluster port and time until which it counts, packed into one number.
    misses: Box<[AtomicU64]>,
    /// Until then it counts as gone.
    gone_until: AtomicU64,
    /// It answered when something was last asked of it.
    heard: AtomicBool,
    /// Somebody is finding out whether it is there.
    knocked_at: AtomicBool,
    /// When it was last found to be gone, or back; 0 before that.
    changed: AtomicU64,
    /// Connections that go there now.
    tunnels: AtomicU32,
    /// A [`Speaks`].
    speaks: AtomicU8,
    /// Why it does not speak TLS, by its number in [`security`]; 0 where it does, or nothing is known.
    failure: AtomicU8,
    /// When it is to be found out again.
    probe_at: AtomicU64,
    answers: [AtomicU64; Answer::ALL.len()],
    /// How often one of these came over a connection that had been kept.
    asked_again: AtomicU64,
}

impl Host {
    fn new(target: Target) -> Self {
        let name = target.to_string().into();
        Self {
            target,
            name,
            misses: (0..MISSES_MAX).map(|_| AtomicU64::new(0)).collect(),
            gone_until: AtomicU64::new(0),
            heard: AtomicBool::new(false),
            knocked_at: AtomicBool::new(false),
            changed: AtomicU64::new(0),
            tunnels: AtomicU32::new(0),
            speaks: AtomicU8::new(Speaks::Unknown as u8),
            failure: AtomicU8::new(0),
            probe_at: AtomicU64::new(0),
            answers: std::array::from_fn(|_| AtomicU64::new(0)),
            asked_again: AtomicU64::new(0),
        }
    }

    /// Notes an answer. A host is gone when it does not answer, and back as soon as it says anything.
    pub fn answered(&self, cluster_port: u16, answer: Answer, now: Millis) {
        self.answers[answer as usize].fetch_add(1, Ordering::Relaxed);
        self.is_there(!answer.is_gone(), now);
        let place = &self.misses[usize::from(cluster_port) % MISSES_MAX];
        match answer {
            Answer::Refused | Answer::Silent | Answer::NotAPeer | Answer::Insecure => {}
            Answer::No | Answer::Busy => {
                let until = now + answer.lasts_millis();
                let packed = u64::from(cluster_port) << MILLIS_BITS | until;
                place.store(packed, Ordering::Relaxed);
            }
            Answer::Tunnel => {
                if place.load(Ordering::Relaxed) >> MILLIS_BITS == u64::from(cluster_port) {
                    place.store(0, Ordering::Relaxed);
                }
            }
        }
    }

    /// Notes whether it is there, for all cluster ports.
    fn is_there(&self, heard: bool, now: Millis) {
        let until = if heard { 0 } else { now + GONE_MILLIS };
        let was_gone = self.gone_until.swap(until, Ordering::Relaxed) > 0;
        self.heard.store(heard, Ordering::Relaxed);
        if heard == was_gone {
            self.changed.store(now, Ordering::Relaxed);
        }
    }

    /// The right to find out whether it is there; `None` where that is known, or somebody is at it.
    pub(crate) fn knock(self: &Arc<Self>, now: Millis) -> Option<Knock> {
        if self.heard.load(Ordering::Relaxed) || !self.is_up(now) {
            return None;
        }
        let mine = !self.knocked_at.swap(true, Ordering::Relaxed);
        mine.then(|| Knock(self.clone()))
    }

    /// Until when it is asked after the others for this cluster port, and whether that is because it is gone.
    fn missed_until(&self, cluster_port: u16, now: Millis) -> Option<(bool, Millis)> {
        let gone = self.gone_until.load(Ordering::Relaxed);
        if gone > now {
            return Some((true, gone));
        }
        let packed = self.misses[usize::from(cluster_port) % MISSES_MAX].load(Ordering::Relaxed);
        let until = packed & ((1 << MILLIS_BITS) - 1);
        (packed >> MILLIS_BITS == u64::from(cluster_port) && until > now).then_some((false, until))
    }

    /// Whether it answered when it was last asked, or was not asked lately.
    #[must_use]
    pub fn is_up(&self, now: Millis) -> bool {
        self.gone_until.load(Ordering::Relaxed) <= now
    }

    /// Since when it is as it is.
    #[must_use]
    pub fn changed(&self) -> Millis {
        self.changed.load(Ordering::Relaxed)
    }

    /// Connections that go there now.
    #[must_use]
    pub fn tunnels(&self) -> u32 {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// What is known of it as to TLS.
    #[must_use]
    pub fn speaks(&self) -> Speaks {
        match self.speaks.load(Ordering::Relaxed) {
            tls if tls == Speaks::Tls as u8 => Speaks::Tls,
            plain if plain == Speaks::Plain as u8 => Speaks::Plain,
            _ => Speaks::Unknown,
        }
    }

    /// Why there is no TLS with it, in a word of [`security::HANDSHAKE_RESULTS`].
    #[must_use]
    pub fn why_not_tls(&self) -> Option<&'static str> {
        security::word(self.failure.load(Ordering::Relaxed))
    }

    /// Notes a handshake in which each side trusted the other. Whether that is news.
    pub(crate) fn speaks_tls(&self, now: Millis) -> bool {
        self.failure.store(0, Ordering::Relaxed);
        self.probe_at(now + PROBE_EVERY_MILLIS);
        self.speaks.swap(Speaks::Tls as u8, Ordering::Relaxed) != Speaks::Tls as u8
    }

    /// Notes a handshake that failed. Whether that, or its reason, is news.
    pub(crate) fn failed(&self, kind: MutualErrorKind, now: Millis) -> bool {
        self.probe_at(now + PROBE_EVERY_MILLIS);
        let number = security::number(kind);
        let other = self.failure.swap(number, Ordering::Relaxed) != number;
        self.speaks.swap(Speaks::Plain as u8, Ordering::Relaxed) != Speaks::Plain as u8 || other
    }

    /// Says when it is to be found out again.
    pub(crate) fn probe_at(&self, at: Millis) {
        self.probe_at.store(at, Ordering::Relaxed);
    }

    /// Whether it is time to find out. What speaks TLS tells by itself when it does so no more.
    pub(crate) fn is_probe_due(&self, now: Millis) -> bool {
        self.speaks() != Speaks::Tls && self.probe_at.load(Ordering::Relaxed) <= now
    }

    /// Notes that it was asked over a connection that had been kept.
    pub(crate) fn asked_again(&self) {
        self.asked_again.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was asked over a connection that had been kept.
    #[must_use]
    pub fn times_asked_again(&self) -> u64 {
        self.asked_again.load(Ordering::Relaxed)
    }

    /// How often it was asked, by what it answered.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Answer::ALL.iter().map(|a| (a.as_str(), self.answers[*a as usize].load(Ordering::Relaxed)))
    }
}

/// Somebody finds out whether a host is there. Dropped, somebody else may.
#[derive(Debug)]
pub(crate) struct Knock(Arc<Host>);

impl Knock {
    pub(crate) fn host(&self) -> &Host {
        &self.0
    }

    /// It was reached, or why not.
    pub(crate) fn answered(self, reached: Result<(), Answer>, now: Millis) {
        // Meanwhile it may have answered somebody who asked for something.
        if !self.0.heard.load(Ordering::Relaxed) {
            self.0.is_there(reached.is_ok(), now);
        }
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        self.0.knocked_at.store(false, Ordering::Relaxed);
    }
}

/// A connection that goes to a host, counted until this is dropped.
#[derive(Debug)]
pub struct Tunnel(Arc<Host>);

impl Tunnel {
    /// Counts one.
    #[must_use]
    pub fn to(host: &Arc<Host>) -> Self {
        host.tunnels.fetch_add(1, Ordering::Relaxed);
        Self(host.clone())
    }

    /// Whether it goes to this host.
    #[must_use]
    pub fn goes_to(&self, host: &Arc<Host>) -> bool {
        Arc::ptr_eq(&self.0, host) || self.0.target == host.target
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// In which order hosts are asked for a pod of a cluster port: all of them, each once. First those that have been heard
/// and of which nothing bad is known, at random but that of the first two the one with fewer of our connections leads;
/// then those of which nothing is known, likewise; then those that said no or were full, then those that are gone, each
/// group by whose miss is forgotten soonest.
#[must_use]
pub fn order(hosts: &[Arc<Host>], cluster_port: u16, now: Millis, rng: &mut Rng) -> Vec<usize> {
    let mut fresh = Vec::with_capacity(hosts.len());
    let mut missed = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        match host.missed_until(cluster_port, now) {
            None => fresh.push(index),
            Some(miss) => missed.push((miss, index)),
        }
    }
    for last in (1..fresh.len()).rev() {
        let other = rng.below(last as u64 + 1) as usize;
        fresh.swap(last, other);
    }
    let is_unheard = |index: &usize| !hosts[*index].heard.load(Ordering::Relaxed);
    fresh.sort_by_key(is_unheard);
    if let [first, second, ..] = fresh[..]
        && is_unheard(&first) == is_unheard(&second)
        && hosts[second].tunnels() < hosts[first].tunnels()
    {
        fresh.swap(0, 1);
    }
    missed.sort_unstable();
    fresh.extend(missed.into_iter().map(|(_, index)| index));
    fresh
}

/// Hosts by name, so that what is known of one outlives a reload.
#[derive(Debug, Default)]
pub struct Registry(FxHashMap<Target, Arc<Host>>);

impl Registry {
    /// The hosts of a file. Those that are no longer in it are forgotten.
    #[must_use]
    pub fn hosts<'t>(&mut self, targets: impl IntoIterator<Item = &'t Target>) -> Vec<Arc<Host>> {
        let known = std::mem::take(&mut self.0);
        let host = |target: &Target| {
            known.get(target).cloned().unwrap_or_else(|| Arc::new(Host::new(target.clone())))
        };
        let hosts: Vec<Arc<Host>> = targets.into_iter().map(host).collect();
        self.0 = hosts.iter().map(|host| (host.target.clone(), host.clone())).collect();
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(count: u8) -> (Registry, Vec<Target>, Vec<Arc<Host>>) {
        let target = |n: u8| Target::Address(([10, 0, 0, n], 32_767).into());
        let targets: Vec<Target> = (0..count).map(target).collect();
        let mut registry = Registry::default();
        let hosts = registry.hosts(&targets);
        (registry, targets, hosts)
    }

    #[test]
    fn every_host_is_asked_once_and_each_may_be_the_first() {
        let (_, _, hosts) = hosts(5);
        let mut rng = Rng::new(1);
        let mut first = [0; 5];
        for _ in 0..1_000 {
            let order = order(&hosts, 1, 0, &mut rng);
            first[order[0]] += 1;
            let mut all = order;
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4]);
        }
        assert!(first.iter().all(|n| (150..250).contains(n)), "{first:?}");
    }

    #[test]
    fn misses_count_for_their_port_and_their_time() {
        let (mut registry, targets, hosts) = hosts(4);
        let mut rng = Rng::new(2);
        hosts[0].answered(1, Answer::Silent, 100);
        hosts[1].answered(1, Answer::No, 100);
        hosts[2].answered(1, Answer::Busy, 100);
        for (port, now, end) in [
            (1, 100, &[3, 2, 1, 0][..]),
            (1, 1_100, &[1, 0]),
            (1, 5_100, &[0]),
            (2, 100, &[0]),
            (1 + 512, 100, &[0]),
            (1, 10_100, &[]),
        ] {
            let order = order(&hosts, port, now, &mut rng);
            assert!(order.ends_with(end), "{port} at {now}: {order:?}");
        }
        assert!(!hosts[0].is_up(100) && hosts[0].is_up(10_100) && hosts[1].is_up(100));
        // What is known outlives a reload, and ends with a better answer.
        let hosts = registry.hosts(&targets);
        assert!(order(&hosts, 1, 100, &mut rng).ends_with(&[3, 2, 1, 0]));
        hosts[0].answered(1, Answer::No, 100);
        hosts[1].answered(1, Answer::Tunnel, 100);
        assert!(order(&hosts, 1, 100, &mut rng).ends_with(&[2, 0]));
        assert!(hosts[0].is_up(100));
    }

    #[test]
    fn who_has_been_heard_comes_first_and_others_are_found_out_once() {
        let (_, _, hosts) = hosts(4);
        let mut rng = Rng::new(4);
        hosts[2].answered(1, Answer::Tunnel, 100);
        assert!((0..50).all(|_| order(&hosts, 1, 100, &mut rng)[0] == 2));
        assert!(hosts[2].knock(100).is_none(), "it is known");
        let knock = hosts[0].knock(100).unwrap();
        assert!(hosts[0].knock(100).is_none(), "one is at it");
        knock.answered(Ok(()), 101);
        let mut first: Vec<usize> = (0..50).map(|_| order(&hosts, 1, 101, &mut rng)[0]).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first, [0, 2]);
        hosts[1].knock(101).unwrap().answered(Err(Answer::Silent), 3_101);
        assert_eq!(order(&hosts, 1, 3_101, &mut rng)[3], 1);
        assert!(hosts[1].knock(13_100).is_none() && hosts[1].knock(13_101).is_some());
        // What one who asked has heard meanwhile counts.
        let knock = hosts[3].knock(101).unwrap();
        hosts[3].answered(1, Answer::No, 102);
        knock.answered(Err(Answer::Silent), 3_101);
        assert!(hosts[3].is_up(3_101));
        drop(hosts[1].knock(13_101));
        assert!(hosts[1].knock(13_101).is_some(), "one that was given up");
    }

    #[test]
    fn what_a_host_speaks_is_remembered_until_it_tells_otherwise() {
        let (mut registry, targets, hosts) = hosts(1);
        let host = &hosts[0];
        assert!(host.speaks() == Speaks::Unknown && host.is_probe_due(1));
        host.probe_at(30_001);
        assert!(!host.is_probe_due(30_000) && host.is_probe_due(30_001));
        assert!(host.speaks_tls(1) && !host.speaks_tls(2), "news once");
        assert!(host.speaks() == Speaks::Tls && !host.is_probe_due(1_000_000));
        assert!(
            host.failed(MutualErrorKind::Closed, 5) && !host.failed(MutualErrorKind::Closed, 5)
        );
        assert!(host.failed(MutualErrorKind::Expired, 5), "another reason is news");
        assert_eq!((host.speaks(), host.why_not_tls()), (Speaks::Plain, Some("expired")));
        assert!(!host.is_probe_due(30_004) && host.is_probe_due(30_005));
        assert_eq!(registry.hosts(&targets)[0].speaks(), Speaks::Plain, "it outlives a reload");
        assert!(host.speaks_tls(6) && host.why_not_tls().is_none());
    }

    #[test]
    fn connections_spread_over_hosts() {
        let (_, _, hosts) = hosts(3);
        let mut rng = Rng::new(3);
        let mut tunnels = Vec::new();
        for _ in 0..300 {
            let order = order(&hosts, 1, 0, &mut rng);
            tunnels.push(Tunnel::to(&hosts[order[0]]));
        }
        assert!(hosts.iter().all(|h| (95..=105).contains(&h.tunnels())), "{hosts:?}");
        drop(tunnels);
        assert!(hosts.iter().all(|h| h.tunnels() == 0));
    }
}
