//! What came out: a row for each program, a column for each figure, a number for each round; and what follows from it.
//! Must not know how it was measured.

use std::{collections::BTreeMap, fmt::Write as _};

use super::Case;
use crate::bench::rows::{Bound, Columns, Target};

/// Everything that was measured, in the order of the cases.
pub(super) type Results = BTreeMap<Case, Vec<Row>>;

/// One program in one case.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) version: String,
    /// As [`Case::columns`] names them.
    pub(super) columns: Columns,
}

/// A case as a Markdown table. The last column is the first one's ratio to Cloverleaf's.
pub(super) fn table(case: Case, rows: &[Row]) -> String {
    let mut text = format!("### `{}`: {}\n\n| |", case.name(), case.title());
    let compared = rows.len() > 1;
    for column in case.columns() {
        let _ = write!(text, " {column} |");
    }
    text.push_str(if compared { " to cloverleaf's |\n|---|" } else { "\n|---|" });
    text.push_str(&"---:|".repeat(case.columns().len() + usize::from(compared)));
    let own = rows.first().and_then(|row| row.columns.median(0));
    for row in rows {
        let _ = write!(text, "\n| {} {} |", row.name, row.version);
        row.columns.cells(case.columns().len()).for_each(|cell| {
            let _ = write!(text, " {cell} |");
        });
        if let (true, Some(one), Some(own)) = (compared, row.columns.median(0), own) {
            let _ = write!(text, " {:.2} |", one / own);
        }
    }
    text.push('\n');
    text
}

/// The targets of which there are figures, as a list.
pub(super) fn targets(results: &Results) -> String {
    all_targets(results).iter().map(Target::line).collect()
}

fn all_targets(results: &Results) -> Vec<Target> {
    let figure = |case: Case, name: &str, column: usize| {
        results.get(&case)?.iter().find(|row| row.name == name)?.columns.median(column)
    };
    let own = |case, column| figure(case, "cloverleaf", column);
    let mut list = Vec::new();
    let mut add = |promise: String, value: Option<f64>, limit: Option<f64>, unit| {
        if let (Some(value), Some(limit)) = (value, limit) {
            list.push(Target { promise, value, bound: Bound::AtMost(limit), unit });
        }
    };
    for case in [Case::Bulk1, Case::Bulk16, Case::Bulk16Ten] {
        let better = ["haproxy", "envoy"].iter().filter_map(|name| figure(case, name, 0));
        let limit = better.min_by(f64::total_cmp).map(|cost| cost * 0.85);
        let promise = format!("`{}`: CPU a byte at most 0.85 of the better one's", case.name());
        add(promise, own(case, 0), limit, "CPU-s a GB");
    }
    for case in [Case::Short, Case::ShortTen] {
        let promise = format!("`{}`: CPU a connection at most haproxy's", case.name());
        add(promise, own(case, 0), figure(case, "haproxy", 0), "µs");
    }
    let whole = "the whole default range is served in under";
    add(format!("{whole} 100 ms"), own(Case::Start, 0), Some(100.0), "ms");
    add(format!("{whole} 20 MB"), own(Case::Start, 1), Some(20.0), "MB");
    for (column, host) in ["the client's host", "the pod's host"].into_iter().enumerate() {
        let promise = format!("an idle connection costs {host} less than 10 KB");
        add(promise, own(Case::Idle, column), Some(10.0), "KB");
    }
    let promise = "nine of ten hosts silent: the first connection in the time of the document";
    add(promise.to_owned(), own(Case::Silent, 0), Some(3_300.0), "ms");
    let promise = "later ones within 1 ms of the best case";
    add(
        promise.to_owned(),
        own(Case::Silent, 1),
        own(Case::Silent, 3).map(|best| best + 1.0),
        "ms",
    );
    // Threads of the blocking pool come and go.
    for (column, what, limit, unit) in
        [(1, "descriptors", 4.0, ""), (2, "threads", 2.0, ""), (3, "memory", 4.0, "MB")]
    {
        let promise = format!("1,000 connections a second leave no {what} behind");
        add(promise, own(Case::Rate, column), Some(limit), unit);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, rounds: &[&[f64]]) -> Row {
        let mut columns = Columns::default();
        rounds.iter().for_each(|round| columns.push(round));
        Row { name: name.into(), version: "1".into(), columns }
    }

    #[test]
    fn the_middle_round_stands_in_the_table_with_the_range() {
        let rows = [
            row("cloverleaf", &[&[0.5, 2.0], &[0.4, 3.0], &[0.7, 1.0]]),
            row("envoy", &[&[1.0, 1.0]]),
        ];
        let text = table(Case::Bulk1, &rows);
        assert!(
            text.contains("| cloverleaf 1 | 0.50 [0.40 .. 0.70] | 2.00 [1.00 .. 3.00] | 1.00 |"),
            "{text}"
        );
        assert!(text.contains("| envoy 1 | 1.00 | 1.00 | 2.00 |"), "{text}");
    }

    #[test]
    fn targets_need_figures_and_compare_with_the_better_one() {
        assert_eq!(targets(&Results::new()), "");
        let rows = |own: f64| {
            vec![
                row("cloverleaf", &[&[own, 1.0]]),
                row("haproxy", &[&[1.0, 1.0]]),
                row("envoy", &[&[0.5, 1.0]]),
            ]
        };
        for (own, kept) in [(0.42, true), (0.43, false)] {
            let text = targets(&Results::from([(Case::Bulk1, rows(own))]));
            assert_eq!(text.contains("(kept)"), kept, "{text}");
            assert_eq!(text.lines().count(), 1);
        }
    }
}
