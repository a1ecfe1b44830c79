//! Weighted choice in turn, interleaved: of weights 3 and 1 the order is A A B A, not A A A B (the smooth
//! weighted round robin of nginx). Over every `total` picks each item is chosen exactly as often as its
//! weight says.

/// The longest order that is remembered, in picks (of 4 bytes). Weights whose sum, after division by their
/// greatest common divisor, is larger are weighed anew at each pick.
pub const SCHEDULE_SLOTS_MAX: usize = 4096;

/// How many picks the first one may lie into the order: they are made when the choice is built.
const START_PICKS_MAX: usize = 64;

/// Items with weights, chosen in turn. Belongs to one worker.
#[derive(Debug, Clone)]
pub struct WeightedChoice(Order);

#[derive(Debug, Clone)]
enum Order {
    /// No item has weight.
    Empty,
    /// Equal weights: a plain turn.
    Turn { count: usize, next: usize },
    /// Different weights.
    Weighted(Weighted),
}

/// Each step adds every item's weight to its credit, takes the item with the most and subtracts the total
/// from it. All credits are 0 again after `total` steps: they are then multiples of the total above
/// `-total` whose sum is 0. So the order repeats, is recorded during its first round and replayed from
/// then on.
#[derive(Debug, Clone)]
struct Weighted {
    weights: Box<[u32]>,
    credits: Box<[i64]>,
    total: i64,
    /// As many slots are reserved as the order has; none where those are too many.
    schedule: Vec<u32>,
    /// The next slot, once the schedule is complete.
    next: usize,
}

impl WeightedChoice {
    /// Items of these weights; weight 0 is never chosen. `start` moves the beginning, so that workers do
    /// not all begin with the same item.
    #[must_use]
    pub fn new(weights: &[u32], start: usize) -> Self {
        let divisor = weights.iter().fold(0, |a, &b| gcd(a, b));
        if divisor == 0 {
            return Self(Order::Empty);
        }
        if weights.iter().all(|&w| w == divisor) {
            return Self(Order::Turn { count: weights.len(), next: start % weights.len() });
        }
        Self(Order::Weighted(Weighted::new(weights, divisor, start)))
    }

    /// The next in turn; `None` where none has weight. Constant time for equal weights and, after the
    /// first round, where the order is remembered ([`SCHEDULE_SLOTS_MAX`]); else linear. Never allocates.
    #[must_use]
    pub fn pick(&mut self) -> Option<usize> {
        match &mut self.0 {
            Order::Empty => None,
            Order::Turn { count, next } => {
                let index = *next;
                *next = if index + 1 == *count { 0 } else { index + 1 };
                Some(index)
            }
            Order::Weighted(weighted) => Some(weighted.pick()),
        }
    }
}

impl Weighted {
    fn new(weights: &[u32], divisor: u32, start: usize) -> Self {
        let weights: Box<[u32]> = weights.iter().map(|w| w / divisor).collect();
        let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        let slots = usize::try_from(total).unwrap_or(usize::MAX);
        let remembered = if slots <= SCHEDULE_SLOTS_MAX { slots } else { 0 };
        let mut weighted = Self {
            credits: vec![0; weights.len()].into(),
            weights,
            total: total as i64,
            schedule: Vec::with_capacity(remembered),
            next: 0,
        };
        for _ in 0..(start % slots.min(START_PICKS_MAX)) {
            weighted.step();
        }
        weighted
    }

    fn pick(&mut self) -> usize {
        if self.schedule.len() as i64 == self.total {
            let index = self.schedule[self.next];
            self.next = if self.next + 1 == self.schedule.len() { 0 } else { self.next + 1 };
            return index as usize;
        }
        let index = self.step();
        if self.total <= SCHEDULE_SLOTS_MAX as i64 {
            self.schedule.push(index as u32);
        }
        index
    }

    /// Ties go to the first.
    fn step(&mut self) -> usize {
        let mut best = 0;
        let mut most = i64::MIN;
        for (index, (credit, &weight)) in self.credits.iter_mut().zip(&self.weights).enumerate() {
            *credit = credit.saturating_add(i64::from(weight));
            if weight > 0 && *credit > most {
                (best, most) = (index, *credit);
            }
        }
        self.credits[best] = most.saturating_sub(self.total);
        best
    }
}

/// The greatest common divisor; that of 0 and a number is the number.
fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(weights: &[u32], start: usize, picks: usize) -> String {
        let mut choice = WeightedChoice::new(weights, start);
        (0..picks)
            .map(|_| choice.pick().map_or('-', |i| char::from(b'A' + u8::try_from(i).unwrap())))
            .collect()
    }

    #[test]
    fn orders_are_interleaved_and_repeat() {
        let cases: [(&[u32], usize, &str); 13] = [
            (&[3, 1], 0, "AABAAABAAABA"),
            (&[6, 2], 0, "AABAAABAAABA"),
            (&[3, 1], 1, "ABAAABAAABAA"),
            (&[3, 1], 5, "ABAAABAAABAA"),
            (&[5, 1, 1], 0, "AABACAAAABACAA"),
            (&[1, 1, 1], 0, "ABCABC"),
            (&[7, 7, 7], 2, "CABCAB"),
            (&[1, 0, 1], 0, "ACACAC"),
            (&[0, 0, 4], 9, "CCC"),
            (&[9], 0, "AAA"),
            (&[], 0, "---"),
            (&[0, 0], 3, "--"),
            (&[1, 2], 0, "BABBAB"),
        ];
        for (weights, start, wanted) in cases {
            assert_eq!(order(weights, start, wanted.len()), wanted, "{weights:?} from {start}");
        }
    }

    #[test]
    fn orders_too_long_to_remember_keep_their_shares() {
        let weights = [100_000, 1, 30_000];
        let mut choice = WeightedChoice::new(&weights, 0);
        let mut seen = [0_u32; 3];
        for _ in 0..130_001 {
            seen[choice.pick().unwrap()] += 1;
        }
        assert_eq!(seen, weights);
        let Order::Weighted(weighted) = &choice.0 else { panic!("{choice:?}") };
        assert!(weighted.schedule.capacity() == 0 && weighted.credits.iter().all(|&c| c == 0));
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let mut choice = WeightedChoice::new(&[u32::MAX, u32::MAX, u32::MAX - 1], usize::MAX);
        for _ in 0..1_000 {
            assert!(choice.pick().is_some());
        }
    }
}
