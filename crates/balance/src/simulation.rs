//! A seeded simulation: random weights, arrivals, departures, retries and changes of the list, with
//! everything that must hold checked at each step. A failure names its seed.

use std::net::{IpAddr, Ipv4Addr};

use model::Algorithm;

use crate::{Balancer, InFlight, Member, Request, Rng, Tried, identity};

const SEEDS: u64 = 256;
const STEPS: usize = 600;
const ENDPOINTS_MAX: u64 = 12;

/// The balancer beside what it should believe.
struct World {
    rng: Rng,
    balancer: Balancer,
    algorithm: Algorithm,
    weights: Vec<u32>,
    /// Which endpoints can serve.
    up: Vec<bool>,
    /// Requests under way: the endpoint's place in the present list, if it is still there.
    running: Vec<(Option<usize>, InFlight)>,
}

fn weights(rng: &mut Rng) -> Vec<u32> {
    let most = [2, 5, 300, 100_000][rng.below(4) as usize];
    (0..=rng.below(ENDPOINTS_MAX)).map(|_| rng.below(most) as u32).collect()
}

fn algorithm(rng: &mut Rng) -> Algorithm {
    let all = [Algorithm::RoundRobin, Algorithm::LeastRequests, Algorithm::ClientAddress];
    all[rng.below(3) as usize]
}

fn members(weights: &[u32]) -> Vec<Member> {
    let member = |(index, weight): (usize, &u32)| Member {
        weight: *weight,
        identity: identity(&index.to_string()),
    };
    weights.iter().enumerate().map(member).collect()
}

fn client(number: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from_bits(number))
}

/// A pick for nobody in particular, from endpoints that all serve.
fn pick(balancer: &mut Balancer, rng: &mut Rng, tried: &Tried) -> Option<usize> {
    balancer.pick(rng, Request { client: client(0), tried }, |_| true)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (weights, algorithm) = (weights(&mut rng), algorithm(&mut rng));
        let balancer = Balancer::new(algorithm, &members(&weights), seed as usize);
        let up = vec![true; weights.len()];
        Self { rng, balancer, algorithm, weights, up, running: Vec::new() }
    }

    fn counted(&self, index: usize) -> usize {
        self.running.iter().filter(|(at, _)| *at == Some(index)).count()
    }

    /// One request of up to four attempts, the last of which stays under way.
    fn arrive(&mut self) {
        let mut tried = Tried::none();
        let mut last = None;
        let client = client(self.rng.below(1 << 32) as u32);
        for _ in 0..=self.rng.below(4) {
            let able = |i: usize| self.weights[i] > 0 && self.up[i];
            let untried = (0..self.up.len()).filter(|i| able(*i) && !tried.contains(*i)).count();
            let request = Request { client, tried: &tried };
            let Some(index) = self.balancer.pick(&mut self.rng, request, |i| self.up[i]) else {
                assert!((0..self.up.len()).all(|i| !able(i)));
                return;
            };
            assert!(self.weights[index] > 0, "weight 0 was picked");
            assert!(self.up[index], "one that is down was picked");
            assert!(untried == 0 || !tried.contains(index), "a tried endpoint was picked");
            self.is_not_the_most_loaded(index, &tried, untried);
            tried.add(index);
            last = self.balancer.started(index).map(|guard| (Some(index), guard));
        }
        self.running.extend(last);
    }

    /// Of two different choices the more loaded never wins, so the one that is more loaded than every
    /// other cannot.
    fn is_not_the_most_loaded(&self, picked: usize, tried: &Tried, untried: usize) {
        if self.algorithm != Algorithm::LeastRequests || untried < 2 {
            return;
        }
        let load =
            |one: usize, other: usize| self.counted(one) as u64 * u64::from(self.weights[other]);
        let mut others = (0..self.weights.len())
            .filter(|&i| i != picked && self.weights[i] > 0 && self.up[i] && !tried.contains(i));
        let beaten = others.any(|other| load(picked, other) <= load(other, picked));
        assert!(beaten, "the most loaded of all was picked");
    }

    /// Drops some endpoints, moves the rest, adds new ones.
    fn change(&mut self) {
        let old = self.weights.len();
        self.weights = weights(&mut self.rng);
        self.algorithm = algorithm(&mut self.rng);
        let shift = self.rng.below(3) as usize;
        let previous = |new: usize| Some(new + shift).filter(|&at| at < old);
        let members = members(&self.weights);
        self.balancer = self.balancer.changed(self.algorithm, &members, 0, previous);
        self.up = vec![true; members.len()];
        let count = self.weights.len();
        for (at, _) in &mut self.running {
            *at = at.and_then(|old| old.checked_sub(shift)).filter(|&new| new < count);
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0 => self.change(),
            1..4 => {
                let index = self.rng.below(self.up.len() as u64) as usize;
                self.up[index] = !self.up[index];
            }
            4..50 => self.arrive(),
            _ if self.running.is_empty() => {}
            _ => {
                let gone = self.rng.below(self.running.len() as u64) as usize;
                drop(self.running.swap_remove(gone));
            }
        }
        for index in 0..self.weights.len() {
            let counted = self.counted(index);
            assert_eq!(self.balancer.in_flight(index) as usize, counted, "endpoint {index}");
        }
    }
}

#[test]
fn what_must_hold_holds_at_every_step() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for step in 0..STEPS {
            let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step()));
            assert!(held.is_ok(), "seed {seed}, step {step}");
        }
        world.running.clear();
        let counts = (0..world.weights.len()).map(|i| world.balancer.in_flight(i));
        assert_eq!(counts.sum::<u32>(), 0, "seed {seed}");
    }
}

/// A round robin is off its exact share by less than the number of endpoints at any time, and by nothing
/// at the end of a round.
#[test]
fn round_robin_is_fair_at_every_moment() {
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let weights: Vec<u32> = (0..=rng.below(8)).map(|_| 1 + rng.below(20) as u32).collect();
        let total: u32 = weights.iter().sum();
        let mut balancer = Balancer::new(Algorithm::RoundRobin, &members(&weights), seed as usize);
        let mut seen = vec![0_u32; weights.len()];
        for turn in 1..=3 * total {
            seen[pick(&mut balancer, &mut rng, &Tried::none()).unwrap()] += 1;
            for (index, &count) in seen.iter().enumerate() {
                let wanted = f64::from(turn) * f64::from(weights[index]) / f64::from(total);
                let off = (f64::from(count) - wanted).abs();
                assert!(off < weights.len().max(2) as f64, "seed {seed}: {weights:?} {seen:?}");
            }
        }
        let exact: Vec<u32> = weights.iter().map(|w| 3 * w).collect();
        assert_eq!(seen, exact, "seed {seed}");
    }
}

/// Idle endpoints are chosen by weight; the bound is five standard deviations of the binomial distribution.
#[test]
fn least_requests_is_fair_when_idle() {
    const PICKS: u32 = 4_000;
    for seed in 0..SEEDS {
        let mut rng = Rng::new(seed);
        let weights: Vec<u32> = (0..=rng.below(8)).map(|_| rng.below(10) as u32).collect();
        let total: u32 = weights.iter().sum();
        let mut balancer = Balancer::new(Algorithm::LeastRequests, &members(&weights), 0);
        let mut seen = vec![0_u32; weights.len()];
        for _ in 0..PICKS {
            if let Some(index) = pick(&mut balancer, &mut rng, &Tried::none()) {
                seen[index] += 1;
            }
        }
        for (index, &count) in seen.iter().enumerate().filter(|_| total > 0) {
            let share = f64::from(weights[index]) / f64::from(total);
            let deviation = (f64::from(PICKS) * share * (1.0 - share)).sqrt();
            let off = (f64::from(count) - f64::from(PICKS) * share).abs();
            assert!(off <= 5.0 * deviation, "seed {seed}: {weights:?} {seen:?}");
        }
    }
}

/// Two choices keep the fullest of many endpoints near the mean, where plain chance would not.
#[test]
fn least_requests_keeps_loads_together() {
    const ENDPOINTS: usize = 100;
    const REQUESTS: usize = 10_000;
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        let mut balancer = Balancer::new(Algorithm::LeastRequests, &members(&[1; ENDPOINTS]), 0);
        let guards: Vec<InFlight> = (0..REQUESTS)
            .map(|_| {
                let index = pick(&mut balancer, &mut rng, &Tried::none()).unwrap();
                balancer.started(index).unwrap()
            })
            .collect();
        let most = (0..ENDPOINTS).map(|i| balancer.in_flight(i)).max().unwrap();
        assert!(most as usize <= REQUESTS / ENDPOINTS + 5, "seed {seed}: {most}");
        drop(guards);
    }
}

/// By client address: removing one endpoint moves its clients and nobody else's, and each endpoint has its
/// share of many clients. The bound is five standard deviations of the binomial distribution.
#[test]
fn client_addresses_stay_and_are_shared_by_weight() {
    const CLIENTS: u32 = 4_000;
    for seed in 0..64 {
        let mut rng = Rng::new(seed);
        let weights: Vec<u32> = (0..2 + rng.below(8)).map(|_| 1 + rng.below(9) as u32).collect();
        let mut all = members(&weights);
        let mut before = Balancer::new(Algorithm::ClientAddress, &all, 0);
        let gone = rng.below(all.len() as u64) as usize;
        let lost = all.remove(gone);
        let mut after = before.changed(Algorithm::ClientAddress, &all, 0, |_| None);
        // Clients of one network, one after the other: what a hash must spread.
        let first = rng.below(1 << 32) as u32;
        let (mut seen, mut moved) = (vec![0_u32; weights.len()], vec![0_u32; all.len()]);
        for number in 0..CLIENTS {
            let tried = Tried::none();
            let request = Request { client: client(first.wrapping_add(number)), tried: &tried };
            let was = before.pick(&mut rng, request, |_| true).unwrap();
            let is = after.pick(&mut rng, request, |_| true).unwrap();
            // Down is as good as gone, and so is tried.
            let down = before.pick(&mut rng, request, |index| index != gone).unwrap();
            let mut tried = Tried::none();
            tried.add(gone);
            let retried =
                before.pick(&mut rng, Request { tried: &tried, ..request }, |_| true).unwrap();
            assert!(down == is + usize::from(is >= gone) && retried == down, "seed {seed}");
            assert!(was == gone || was == down, "seed {seed}: a client was moved needlessly");
            seen[was] += 1;
            moved[is] += u32::from(was == gone);
        }
        let fair = |count: u32, of: u32, weight: u32, total: u32| {
            let (of, share) = (f64::from(of), f64::from(weight) / f64::from(total));
            let deviation = (of * share * (1.0 - share)).sqrt();
            (f64::from(count) - of * share).abs() <= 5.0 * deviation + 1.0
        };
        let total: u32 = weights.iter().sum();
        for (count, weight) in seen.iter().zip(&weights) {
            assert!(fair(*count, CLIENTS, *weight, total), "seed {seed}: {weights:?} {seen:?}");
        }
        for (count, member) in moved.iter().zip(&all) {
            let fair = fair(*count, seen[gone], member.weight, total - lost.weight);
            assert!(fair, "seed {seed}: {weights:?} without {gone}: {moved:?}");
        }
    }
}
