//! Figures of several rounds in the columns of a table, and promises held against them. Must not know what was
//! measured.

use serde::{Deserialize, Serialize};

/// The figures of one row of a table: by column, each with a number a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Columns(Vec<Vec<f64>>);

impl Columns {
    /// Adds a round.
    pub(crate) fn push(&mut self, round: &[f64]) {
        self.0.resize(round.len(), Vec::new());
        self.0.iter_mut().zip(round).for_each(|(column, figure)| column.push(*figure));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn median(&self, column: usize) -> Option<f64> {
        self.0.get(column).and_then(|figures| median(figures))
    }

    /// So many cells of a table: the middle round, and the range of all where there are several.
    pub(crate) fn cells(&self, count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|column| cell(self.0.get(column).map_or(&[], Vec::as_slice)))
    }
}

/// The middle one; of an even number the lower of the two.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// As many digits as say something.
pub(crate) fn number(figure: f64) -> String {
    match figure.abs() {
        1000.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// The middle one, and the range of all where there are several.
pub(crate) fn cell(figures: &[f64]) -> String {
    let Some(middle) = median(figures) else { return "–".to_owned() };
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match figures.len() {
        1 => number(middle),
        _ => format!("{} [{} .. {}]", number(middle), number(least), number(most)),
    }
}

/// A promise, what was measured, and what it may be.
#[derive(Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) promise: String,
    pub(crate) value: f64,
    pub(crate) bound: Bound,
    pub(crate) unit: &'static str,
}

/// What a figure may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    /// A line of a list.
    pub(crate) fn line(&self) -> String {
        let (kept, bound) = match self.bound {
            Bound::AtMost(limit) => (self.value <= limit, format!("at most {}", number(limit))),
            Bound::AtLeast(limit) => (self.value >= limit, format!("at least {}", number(limit))),
        };
        let mark = if kept { "kept" } else { "**missed**" };
        let value = format!("{} {}", number(self.value), self.unit);
        format!("- {}: {}, {bound} ({mark})\n", self.promise, value.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_round_stands_in_a_cell_with_the_range() {
        let mut columns = Columns::default();
        [[0.5, 2.0], [0.4, 3.0], [0.7, 1.0]].iter().for_each(|round| columns.push(round));
        let cells: Vec<String> = columns.cells(3).collect();
        assert_eq!(cells, ["0.50 [0.40 .. 0.70]", "2.00 [1.00 .. 3.00]", "–"]);
        assert_eq!(columns.median(2), None);
    }

    #[test]
    fn a_promise_is_kept_up_to_its_bound() {
        let line =
            |value, bound| Target { promise: "p".to_owned(), value, bound, unit: "ms" }.line();
        assert_eq!(line(2.0, Bound::AtMost(2.0)), "- p: 2.00 ms, at most 2.00 (kept)\n");
        assert_eq!(line(2.0, Bound::AtLeast(2.1)), "- p: 2.00 ms, at least 2.10 (**missed**)\n");
    }
}
