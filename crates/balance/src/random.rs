//! Weighted choice at random, in constant time by the alias method (Walker 1974, in Vose's form of 1991),
//! exact to the last unit of weight because it calculates in whole numbers.

use crate::Rng;

/// How often a draw that hit an excluded item is repeated before the rest is weighed item by item. Both
/// ways have the same distribution; this one is constant time while the excluded are few.
const DRAWS_MAX: usize = 4;

/// Items with weights, chosen at random in proportion. Never changes: workers may share one.
#[derive(Debug, Clone)]
pub struct RandomChoice {
    weights: Box<[u32]>,
    total: u64,
    /// One for each item; empty where all weights are equal and a plain index will do.
    columns: Box<[Column]>,
}

/// A column of the alias table: `total` units high, the lower `own` of them are the item's, the rest its
/// alias's.
#[derive(Debug, Clone, Copy)]
struct Column {
    own: u64,
    alias: u32,
}

impl RandomChoice {
    /// Items of these weights; weight 0 is never chosen.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let total = weights.iter().map(|&w| u64::from(w)).sum();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let columns = if equal || total == 0 { Box::default() } else { columns(weights, total) };
        Self { weights: weights.into(), total, columns }
    }

    /// One of the items; `None` where none has weight. Constant time.
    #[must_use]
    pub fn pick(&self, rng: &mut Rng) -> Option<usize> {
        if self.total == 0 {
            return None;
        }
        let index = rng.below(self.weights.len() as u64) as usize;
        let Some(column) = self.columns.get(index) else {
            return Some(index);
        };
        let own = rng.below(self.total) < column.own;
        Some(if own { index } else { column.alias as usize })
    }

    /// One of the items that are not excluded, in proportion to their weights; `None` where none of those
    /// has weight. Constant time while the excluded have a small part of the weight, else linear.
    #[must_use]
    pub fn pick_except(&self, rng: &mut Rng, excluded: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..DRAWS_MAX {
            let index = self.pick(rng)?;
            if !excluded(index) {
                return Some(index);
            }
        }
        weigh_except(&self.weights, rng, excluded)
    }

    /// The weights as given.
    #[must_use]
    pub fn weights(&self) -> &[u32] {
        &self.weights
    }
}

/// Chooses among the items that are not excluded, in proportion to their weights, in two passes.
pub(crate) fn weigh_except(
    weights: &[u32],
    rng: &mut Rng,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let open = || weights.iter().enumerate().filter(|&(i, &w)| w > 0 && !excluded(i));
    let total: u64 = open().map(|(_, &w)| u64::from(w)).sum();
    let mut left = rng.below(total);
    for (index, &weight) in open() {
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => return Some(index),
        }
    }
    None
}

/// Fills each column of height `total` with the item's own weight (scaled by the number of items, so that
/// all columns together are full) and, above it, with what a heavier item has too much.
fn columns(weights: &[u32], total: u64) -> Box<[Column]> {
    let count = weights.len() as u128;
    let total = u128::from(total);
    let mut left: Vec<u128> = weights.iter().map(|&w| u128::from(w) * count).collect();
    let mut columns = vec![Column { own: total as u64, alias: 0 }; weights.len()];
    let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&i| left[i] < total);
    while let (Some(low), Some(&high)) = (light.pop(), heavy.last()) {
        // Below `total`, which is a u64.
        columns[low] = Column { own: left[low] as u64, alias: high as u32 };
        left[high] -= total - left[low];
        if left[high] < total {
            heavy.pop();
            light.push(high);
        }
    }
    columns.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The units that each item has in all columns together: exactly its weight times the number of items.
    fn units(choice: &RandomChoice) -> Vec<u128> {
        let mut units = vec![0_u128; choice.weights.len()];
        for (index, column) in choice.columns.iter().enumerate() {
            units[index] += u128::from(column.own);
            units[column.alias as usize] += u128::from(choice.total - column.own);
        }
        units
    }

    #[test]
    fn the_table_holds_exactly_the_weights() {
        let cases: [&[u32]; 6] = [
            &[3, 1],
            &[1, 0, 2],
            &[0, 0, 5, 0],
            &[u32::MAX, 1, u32::MAX],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9],
            &[1_000_000, 1],
        ];
        for weights in cases {
            let choice = RandomChoice::new(weights);
            let count = weights.len() as u128;
            let wanted: Vec<u128> = weights.iter().map(|&w| u128::from(w) * count).collect();
            assert_eq!(units(&choice), wanted, "{weights:?}");
        }
    }

    #[test]
    fn nothing_is_chosen_from_nothing() {
        let mut rng = Rng::new(1);
        for weights in [&[][..], &[0], &[0, 0, 0]] {
            assert_eq!(RandomChoice::new(weights).pick(&mut rng), None);
            assert_eq!(RandomChoice::new(weights).pick_except(&mut rng, |_| false), None);
        }
        let choice = RandomChoice::new(&[1, 0, 5]);
        assert_eq!(choice.pick_except(&mut rng, |i| i != 1), None);
        assert_eq!(choice.pick_except(&mut rng, |i| i == 2), Some(0));
    }
}
