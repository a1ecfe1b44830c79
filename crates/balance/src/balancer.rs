//! An upstream's endpoints as one worker sees them: what is in flight to each, and which is next.

use std::cell::Cell;
use std::rc::Rc;

use model::Algorithm;

use crate::random::weigh_except;
use crate::{RandomChoice, Rng, Tried, WeightedChoice};

/// Chooses among an upstream's endpoints. Belongs to one worker and counts that worker's requests alone.
#[derive(Debug)]
pub struct Balancer {
    choice: Choice,
    weights: Box<[u32]>,
    in_flight: Box<[Rc<Cell<u32>>]>,
}

#[derive(Debug)]
enum Choice {
    RoundRobin(WeightedChoice),
    LeastRequests(RandomChoice),
}

/// A request under way to an endpoint: counted from [`Balancer::started`] until this is dropped. Dropping
/// it is right wherever the request ends, also in a cancelled future, and after the balancer was rebuilt
/// or is gone.
#[must_use = "the request counts as under way until this is dropped"]
#[derive(Debug)]
pub struct InFlight {
    count: Rc<Cell<u32>>,
}

impl InFlight {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get().saturating_add(1));
        Self { count: Rc::clone(count) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        debug_assert!(self.count.get() > 0, "every guard counted itself in");
        self.count.set(self.count.get().saturating_sub(1));
    }
}

impl Choice {
    fn new(algorithm: Algorithm, weights: &[u32], start: usize) -> Self {
        match algorithm {
            Algorithm::RoundRobin => Self::RoundRobin(WeightedChoice::new(weights, start)),
            Algorithm::LeastRequests => Self::LeastRequests(RandomChoice::new(weights)),
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::RoundRobin(_) => Algorithm::RoundRobin,
            Self::LeastRequests(_) => Algorithm::LeastRequests,
        }
    }
}

impl Balancer {
    /// A balancer over endpoints of these weights, known by their index; weight 0 is never picked. `start`
    /// moves the beginning of a round robin: give each worker another.
    #[must_use]
    pub fn new(algorithm: Algorithm, weights: &[u32], start: usize) -> Self {
        Self {
            choice: Choice::new(algorithm, weights, start),
            weights: weights.into(),
            in_flight: weights.iter().map(|_| Rc::default()).collect(),
        }
    }

    /// The endpoint for a request, or for its next attempt: none of those already tried, while there are
    /// others. `None` where no endpoint has weight. An attempt after the first takes no turn of a round
    /// robin; it goes to one of the rest at random by weight, so that a dead endpoint's load does not all
    /// fall on its neighbour.
    ///
    /// Counts nothing: call [`Self::started`] when the request goes out.
    #[must_use]
    pub fn pick(&mut self, rng: &mut Rng, tried: &Tried) -> Option<usize> {
        if let [only] = *self.weights {
            return (only > 0).then_some(0);
        }
        match &mut self.choice {
            Choice::RoundRobin(turns) => {
                if !tried.is_empty() {
                    let other = weigh_except(&self.weights, rng, |i| tried.contains(i));
                    if other.is_some() {
                        return other;
                    }
                }
                turns.pick()
            }
            Choice::LeastRequests(random) => {
                less_loaded(random, &self.in_flight, rng, |i| tried.contains(i))
                    .or_else(|| less_loaded(random, &self.in_flight, rng, |_| false))
            }
        }
    }

    /// Counts a request to an endpoint until the guard is dropped; `None` where there is no such endpoint.
    pub fn started(&self, index: usize) -> Option<InFlight> {
        self.in_flight.get(index).map(InFlight::new)
    }

    /// How many requests are under way to an endpoint from this worker; 0 where there is no such endpoint.
    #[must_use]
    pub fn in_flight(&self, index: usize) -> u32 {
        self.in_flight.get(index).map_or(0, |count| count.get())
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

    /// Takes over a changed list of endpoints. `previous` tells where an endpoint of the new list stood in
    /// the old one: what is in flight to it still counts. A round robin goes on where it was if algorithm
    /// and weights are the same, else it begins at `start`.
    pub fn rebuild(
        &mut self,
        algorithm: Algorithm,
        weights: &[u32],
        start: usize,
        previous: impl Fn(usize) -> Option<usize>,
    ) {
        let kept = |index| previous(index).and_then(|old| self.in_flight.get(old)).cloned();
        self.in_flight = (0..weights.len()).map(|index| kept(index).unwrap_or_default()).collect();
        if self.choice.algorithm() != algorithm || *self.weights != *weights {
            self.choice = Choice::new(algorithm, weights, start);
            self.weights = weights.into();
        }
    }
}

/// Power of two choices: of two different endpoints drawn by weight, the one with fewer requests under way
/// for its weight; the first drawn where they are equal, so that idle endpoints are chosen by weight.
fn less_loaded(
    random: &RandomChoice,
    in_flight: &[Rc<Cell<u32>>],
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

    const BOTH: [Algorithm; 2] = [Algorithm::RoundRobin, Algorithm::LeastRequests];

    #[test]
    fn nothing_is_picked_from_nothing_and_one_always() {
        let mut rng = Rng::new(3);
        let mut tried = Tried::none();
        tried.add(0);
        for algorithm in BOTH {
            assert_eq!(Balancer::new(algorithm, &[], 5).pick(&mut rng, &tried), None);
            assert_eq!(Balancer::new(algorithm, &[0], 5).pick(&mut rng, &tried), None);
            let mut one = Balancer::new(algorithm, &[2], 5);
            assert_eq!(one.pick(&mut rng, &Tried::none()), Some(0));
            assert_eq!(one.pick(&mut rng, &tried), Some(0), "tried, but there is no other");
        }
    }

    #[test]
    fn retries_go_elsewhere_until_all_are_tried() {
        let mut rng = Rng::new(4);
        for algorithm in BOTH {
            let mut balancer = Balancer::new(algorithm, &[5, 1, 0, 1], 0);
            for _ in 0..100 {
                let mut tried = Tried::none();
                let mut seen = Vec::new();
                for _ in 0..3 {
                    let index = balancer.pick(&mut rng, &tried).unwrap();
                    tried.add(index);
                    seen.push(index);
                }
                seen.sort_unstable();
                assert_eq!(seen, [0, 1, 3], "{algorithm:?}");
                assert!(balancer.pick(&mut rng, &tried).is_some());
            }
        }
    }

    #[test]
    fn a_retry_takes_no_turn() {
        let mut rng = Rng::new(5);
        let mut balancer = Balancer::new(Algorithm::RoundRobin, &[1, 1, 1], 0);
        let mut tried = Tried::none();
        tried.add(0);
        assert_eq!(balancer.pick(&mut rng, &Tried::none()), Some(0));
        assert_ne!(balancer.pick(&mut rng, &tried), Some(0));
        assert_eq!(balancer.pick(&mut rng, &Tried::none()), Some(1));
    }

    #[test]
    fn the_less_loaded_of_two_wins_for_its_weight() {
        let mut rng = Rng::new(6);
        let mut balancer = Balancer::new(Algorithm::LeastRequests, &[3, 1], 0);
        // 2/3 against 1/1: the first has more requests but less load.
        let _guards = [balancer.started(0), balancer.started(0), balancer.started(1)];
        assert!((0..50).all(|_| balancer.pick(&mut rng, &Tried::none()) == Some(0)));
        let _more = [balancer.started(0), balancer.started(0)];
        assert!((0..50).all(|_| balancer.pick(&mut rng, &Tried::none()) == Some(1)));
    }

    #[test]
    fn counts_follow_the_endpoint_through_a_rebuild() {
        let mut balancer = Balancer::new(Algorithm::LeastRequests, &[1, 1, 1], 0);
        let (gone, kept) = (balancer.started(0), balancer.started(2));
        assert!(balancer.started(3).is_none());
        // [a, b, c] becomes [c, d].
        balancer.rebuild(Algorithm::RoundRobin, &[1, 2], 0, |new| (new == 0).then_some(2));
        assert_eq!((balancer.len(), balancer.in_flight(0), balancer.in_flight(1)), (2, 1, 0));
        drop(gone);
        assert_eq!(balancer.in_flight(0), 1);
        drop(kept);
        assert_eq!(balancer.in_flight(0), 0);
        let outlives = balancer.started(1);
        drop(balancer);
        drop(outlives);
    }

    #[test]
    fn an_unchanged_round_robin_keeps_its_turn() {
        let mut rng = Rng::new(8);
        let mut balancer = Balancer::new(Algorithm::RoundRobin, &[1, 1, 1], 0);
        assert_eq!(balancer.pick(&mut rng, &Tried::none()), Some(0));
        balancer.rebuild(Algorithm::RoundRobin, &[1, 1, 1], 0, Some);
        assert_eq!(balancer.pick(&mut rng, &Tried::none()), Some(1));
        balancer.rebuild(Algorithm::RoundRobin, &[1, 1], 0, Some);
        assert_eq!(balancer.pick(&mut rng, &Tried::none()), Some(0));
    }
}
