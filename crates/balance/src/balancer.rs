//! An upstream's endpoints as one worker sees them, or all of them together: what is in flight to each, and which is
//! next.

use std::cell::Cell;
use std::fmt::Debug;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use model::Algorithm;

use crate::random::weigh_except;
use crate::{RandomChoice, Rng, Tried, WeightedChoice, rendezvous};

/// An endpoint as a balancer knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its share beside the others'; 0 is never picked.
    pub weight: u32,
    /// What it is known by wherever it stands in the list: [`crate::identity`] of its target.
    pub identity: u64,
}

/// What a pick looks at.
#[derive(Debug, Clone, Copy)]
pub struct Request<'t> {
    /// Who asks.
    pub client: IpAddr,
    /// Where this request has been sent already.
    pub tried: &'t Tried,
}

/// A number that a balancer and the guards of its requests have in common.
pub trait Count: Clone + Debug + Default {
    /// The number.
    fn get(&self) -> u32;
    /// One more.
    fn add(&self);
    /// One less, and never less than 0.
    fn sub(&self);
}

/// Of one worker.
#[derive(Debug, Clone, Default)]
pub struct Local(Rc<Cell<u32>>);

/// Of all threads.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<AtomicU32>);

impl Count for Local {
    fn get(&self) -> u32 {
        self.0.get()
    }

    fn add(&self) {
        self.0.set(self.0.get().saturating_add(1));
    }

    fn sub(&self) {
        debug_assert!(self.0.get() > 0, "every guard counted itself in");
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Count for Shared {
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Chooses among an upstream's endpoints. As a rule it belongs to one worker and counts that worker's requests alone.
#[derive(Debug)]
pub struct Balancer<C: Count = Local> {
    choice: Choice,
    weights: Box<[u32]>,
    in_flight: Box<[C]>,
}

#[derive(Debug, Clone)]
enum Choice {
    RoundRobin(WeightedChoice),
    LeastRequests(RandomChoice),
    /// The members' identities.
    ClientAddress(Box<[u64]>),
}

/// A request under way to an endpoint: counted from [`Balancer::started`] until this is dropped. Dropping
/// it is right wherever the request ends, also in a cancelled future, and after the balancer was rebuilt
/// or is gone.
#[must_use = "the request counts as under way until this is dropped"]
#[derive(Debug)]
pub struct InFlight<C: Count = Local> {
    count: C,
}

impl<C: Count> InFlight<C> {
    fn new(count: &C) -> Self {
        count.add();
        Self { count: count.clone() }
    }
}

impl<C: Count> Drop for InFlight<C> {
    fn drop(&mut self) {
        self.count.sub();
    }
}

impl Choice {
    fn new(algorithm: Algorithm, members: &[Member], weights: &[u32], start: usize) -> Self {
        match algorithm {
            Algorithm::RoundRobin => Self::RoundRobin(WeightedChoice::new(weights, start)),
            Algorithm::LeastRequests => Self::LeastRequests(RandomChoice::new(weights)),
            Algorithm::ClientAddress => {
                Self::ClientAddress(members.iter().map(|member| member.identity).collect())
            }
        }
    }

    /// Whether it would be made of these in the same way.
    fn is_of(&self, algorithm: Algorithm, members: &[Member]) -> bool {
        match self {
            Self::RoundRobin(_) => algorithm == Algorithm::RoundRobin,
            Self::LeastRequests(_) => algorithm == Algorithm::LeastRequests,
            Self::ClientAddress(identities) => {
                algorithm == Algorithm::ClientAddress
                    && identities.iter().eq(members.iter().map(|member| &member.identity))
            }
        }
    }
}

impl Balancer {
    /// A worker's balancer over endpoints, known by their index. `start` moves the beginning of a round robin: give
    /// each worker another.
    #[must_use]
    pub fn new(algorithm: Algorithm, members: &[Member], start: usize) -> Self {
        Self::begin(algorithm, members, start)
    }
}

impl Balancer<Shared> {
    /// As [`Balancer::new`], for all threads together.
    #[must_use]
    pub fn shared(algorithm: Algorithm, members: &[Member]) -> Self {
        Self::begin(algorithm, members, 0)
    }
}

impl<C: Count> Balancer<C> {
    fn begin(algorithm: Algorithm, members: &[Member], start: usize) -> Self {
        let weights: Box<[u32]> = members.iter().map(|member| member.weight).collect();
        Self {
            choice: Choice::new(algorithm, members, &weights, start),
            weights,
            in_flight: members.iter().map(|_| C::default()).collect(),
        }
    }

    /// The endpoint for a request, or for its next attempt: one that `serves`, and none of those already
    /// tried while there are others. `None` where no endpoint that serves has weight. What a tried
    /// endpoint and one that does not serve would have got goes to the rest at random by weight, so that it
    /// does not all fall on a neighbour; a retry takes no turn of a round robin. By client address it goes
    /// to the next in the client's own order.
    ///
    /// Counts nothing: call [`Self::started`] when the request goes out. `serves` must be cheap and the
    /// same for an index throughout the call.
    #[must_use]
    pub fn pick(
        &mut self,
        rng: &mut Rng,
        request: Request<'_>,
        serves: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if let [only] = *self.weights {
            return (only > 0 && serves(0)).then_some(0);
        }
        let tried = request.tried;
        if tried.is_empty() {
            return self.pick_except(rng, request, true, |index| !serves(index));
        }
        self.pick_except(rng, request, false, |index| tried.contains(index) || !serves(index))
            .or_else(|| self.pick_except(rng, request, true, |index| !serves(index)))
    }

    fn pick_except(
        &mut self,
        rng: &mut Rng,
        request: Request<'_>,
        in_turn: bool,
        excluded: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match &mut self.choice {
            Choice::RoundRobin(turns) => {
                if in_turn {
                    let next = turns.pick()?;
                    if !excluded(next) {
                        return Some(next);
                    }
                }
                weigh_except(&self.weights, rng, excluded)
            }
            Choice::LeastRequests(random) => less_loaded(random, &self.in_flight, rng, excluded),
            Choice::ClientAddress(identities) => {
                rendezvous::pick(identities, &self.weights, request.client, excluded)
            }
        }
    }

    /// Counts a request to an endpoint until the guard is dropped; `None` where there is no such endpoint.
    pub fn started(&self, index: usize) -> Option<InFlight<C>> {
        self.in_flight.get(index).map(InFlight::new)
    }

    /// How many requests are under way to an endpoint from this worker; 0 where there is no such endpoint.
    #[must_use]
    pub fn in_flight(&self, index: usize) -> u32 {
        self.in_flight.get(index).map_or(0, C::get)
    }

    /// How many endpoints there are, those of weight 0 among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is no endpoint at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The balancer for a changed list of endpoints; this one may serve on for those who still have it.
    /// `previous` tells where an endpoint of the new list stood in this one: what is in flight to it
    /// counts in both. A round robin goes on where it was if algorithm and weights are the same, else it
    /// begins at `start`.
    #[must_use]
    pub fn changed(
        &self,
        algorithm: Algorithm,
        members: &[Member],
        start: usize,
        previous: impl Fn(usize) -> Option<usize>,
    ) -> Self {
        let kept = |index| previous(index).and_then(|old| self.in_flight.get(old)).cloned();
        let in_flight = (0..members.len()).map(|index| kept(index).unwrap_or_default()).collect();
        let weights: Box<[u32]> = members.iter().map(|member| member.weight).collect();
        let choice = if self.choice.is_of(algorithm, members) && *self.weights == *weights {
            self.choice.clone()
        } else {
            Choice::new(algorithm, members, &weights, start)
        };
        Self { choice, weights, in_flight }
    }
}

/// Power of two choices: of two different endpoints drawn by weight, the one with fewer requests under way
/// for its weight; the first drawn where they are equal, so that idle endpoints are chosen by weight.
fn less_loaded(
    random: &RandomChoice,
    in_flight: &[impl Count],
    rng: &mut Rng,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let first = random.pick_except(rng, &excluded)?;
    let Some(second) = random.pick_except(rng, |i| i == first || excluded(i)) else {
        return Some(first);
    };
    // requests / weight, compared without division.
    let load = |one: usize, other: usize| {
        u64::from(in_flight[one].get()) * u64::from(random.weights()[other])
    };
    Some(if load(second, first) < load(first, second) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 3] =
        [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::ClientAddress];

    fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(index, weight): (usize, &u32)| Member {
            weight: *weight,
            identity: crate::identity(&index.to_string()),
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn balancer(algorithm: Algorithm, weights: &[u32], start: usize) -> Balancer {
        Balancer::new(algorithm, &members(weights), start)
    }

    fn pick(balancer: &mut Balancer, rng: &mut Rng, tried: &Tried) -> Option<usize> {
        let client = IpAddr::from([192, 0, 2, 1]);
        balancer.pick(rng, Request { client, tried }, |_| true)
    }

    #[test]
    fn nothing_is_picked_from_nothing_and_one_always() {
        let mut rng = Rng::new(3);
        let mut tried = Tried::none();
        tried.add(0);
        for algorithm in ALL {
            assert_eq!(pick(&mut balancer(algorithm, &[], 5), &mut rng, &tried), None);
            assert_eq!(pick(&mut balancer(algorithm, &[0], 5), &mut rng, &tried), None);
            assert_eq!(pick(&mut balancer(algorithm, &[0, 0], 5), &mut rng, &tried), None);
            let mut one = balancer(algorithm, &[2], 5);
            assert_eq!(pick(&mut one, &mut rng, &Tried::none()), Some(0));
            assert_eq!(pick(&mut one, &mut rng, &tried), Some(0), "tried, but there is no other");
        }
    }

    #[test]
    fn retries_go_elsewhere_until_all_are_tried() {
        let mut rng = Rng::new(4);
        for algorithm in ALL {
            let mut balancer = balancer(algorithm, &[5, 1, 0, 1], 0);
            for _ in 0..100 {
                let mut tried = Tried::none();
                let mut seen = Vec::new();
                for _ in 0..3 {
                    let index = pick(&mut balancer, &mut rng, &tried).unwrap();
                    tried.add(index);
                    seen.push(index);
                }
                seen.sort_unstable();
                assert_eq!(seen, [0, 1, 3], "{algorithm:?}");
                assert!(pick(&mut balancer, &mut rng, &tried).is_some());
            }
        }
    }

    #[test]
    fn what_does_not_serve_is_not_picked_even_where_all_else_was_tried() {
        let client = IpAddr::from([192, 0, 2, 1]);
        let mut rng = Rng::new(9);
        for algorithm in ALL {
            let mut balancer = balancer(algorithm, &[1, 2, 1, 0], 0);
            let mut tried = Tried::none();
            for _ in 0..4 {
                for _ in 0..50 {
                    let request = Request { client, tried: &tried };
                    let picked = balancer.pick(&mut rng, request, |index| index != 1).unwrap();
                    assert!(picked != 1 && picked != 3, "{algorithm:?} picked {picked}");
                }
                tried.add(if tried.is_empty() { 0 } else { 2 });
            }
            let request = Request { client, tried: &tried };
            assert_eq!(balancer.pick(&mut rng, request, |_| false), None);
            assert_eq!(balancer.pick(&mut rng, request, |index| index == 3), None);
            let mut one = self::balancer(algorithm, &[1], 0);
            assert_eq!(one.pick(&mut rng, request, |_| false), None);
        }
    }

    /// With one of four down, the other three share its requests, and none gets twice its own.
    #[test]
    fn the_load_of_one_that_is_down_falls_on_all_others() {
        let request = Request { client: IpAddr::from([192, 0, 2, 1]), tried: &Tried::none() };
        let mut rng = Rng::new(10);
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequests] {
            let mut balancer = balancer(algorithm, &[1, 1, 1, 1], 0);
            let mut seen = [0_u32; 4];
            for _ in 0..12_000 {
                seen[balancer.pick(&mut rng, request, |index| index != 2).unwrap()] += 1;
            }
            let even = |index: usize| (3_800..4_200).contains(&seen[index]);
            assert!(even(0) && even(1) && even(3) && seen[2] == 0, "{algorithm:?}: {seen:?}");
        }
    }

    #[test]
    fn a_retry_takes_no_turn() {
        let mut rng = Rng::new(5);
        let mut balancer = balancer(Algorithm::RoundRobin, &[1, 1, 1], 0);
        let mut tried = Tried::none();
        tried.add(0);
        assert_eq!(pick(&mut balancer, &mut rng, &Tried::none()), Some(0));
        assert_ne!(pick(&mut balancer, &mut rng, &tried), Some(0));
        assert_eq!(pick(&mut balancer, &mut rng, &Tried::none()), Some(1));
    }

    #[test]
    fn the_less_loaded_of_two_wins_for_its_weight() {
        let mut rng = Rng::new(6);
        let mut balancer = balancer(Algorithm::LeastRequests, &[3, 1], 0);
        // 2/3 against 1/1: the first has more requests but less load.
        let _guards = [balancer.started(0), balancer.started(0), balancer.started(1)];
        assert!((0..50).all(|_| pick(&mut balancer, &mut rng, &Tried::none()) == Some(0)));
        let _more = [balancer.started(0), balancer.started(0)];
        assert!((0..50).all(|_| pick(&mut balancer, &mut rng, &Tried::none()) == Some(1)));
    }

    #[test]
    fn counts_follow_the_endpoint_through_a_change() {
        let old = balancer(Algorithm::LeastRequests, &[1, 1, 1], 0);
        let (gone, kept) = (old.started(0), old.started(2));
        assert!(old.started(3).is_none());
        // [a, b, c] becomes [c, d].
        let new =
            old.changed(Algorithm::RoundRobin, &members(&[1, 2]), 0, |new| (new == 0).then_some(2));
        assert_eq!((new.len(), new.in_flight(0), new.in_flight(1)), (2, 1, 0));
        drop(gone);
        assert_eq!(new.in_flight(0), 1);
        // A request that still has the old one counts in the new one.
        let late = old.started(2);
        assert_eq!(new.in_flight(0), 2);
        drop((kept, late));
        assert_eq!(new.in_flight(0), 0);
        let outlives = new.started(1);
        drop((old, new));
        drop(outlives);
    }

    #[test]
    fn one_for_all_threads_counts_what_ends_on_another() {
        let balancer = Balancer::shared(Algorithm::LeastRequests, &members(&[1, 1]));
        let guard = balancer.started(1).unwrap();
        assert_eq!((balancer.in_flight(0), balancer.in_flight(1)), (0, 1));
        std::thread::spawn(move || drop(guard)).join().unwrap();
        assert_eq!(balancer.in_flight(1), 0);
    }

    #[test]
    fn an_unchanged_round_robin_keeps_its_turn() {
        let mut rng = Rng::new(8);
        let mut turns = balancer(Algorithm::RoundRobin, &[1, 1, 1], 0);
        assert_eq!(pick(&mut turns, &mut rng, &Tried::none()), Some(0));
        let mut turns = turns.changed(Algorithm::RoundRobin, &members(&[1, 1, 1]), 0, Some);
        assert_eq!(pick(&mut turns, &mut rng, &Tried::none()), Some(1));
        let mut turns = turns.changed(Algorithm::RoundRobin, &members(&[1, 1]), 0, Some);
        assert_eq!(pick(&mut turns, &mut rng, &Tried::none()), Some(0));
    }

    #[test]
    fn by_address_follows_the_endpoints_and_not_their_places() {
        let mut rng = Rng::new(11);
        let old = members(&[1, 1, 1, 1]);
        let turned: Vec<Member> = old.iter().rev().copied().collect();
        let mut before = Balancer::new(Algorithm::ClientAddress, &old, 0);
        let mut after = before.changed(Algorithm::ClientAddress, &turned, 0, |new| Some(3 - new));
        for client in 0..=255 {
            let request =
                Request { client: IpAddr::from([10, 0, 0, client]), tried: &Tried::none() };
            let index = before.pick(&mut rng, request, |_| true).unwrap();
            assert_eq!(after.pick(&mut rng, request, |_| true), Some(3 - index));
        }
    }
}
