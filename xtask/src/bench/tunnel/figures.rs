//! What came out: for each case rows of figures, a number for each round; and what follows from it. Must not know how
//! it was measured.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use super::{
    Way,
    case::{
        self, ANSWERS, AWAKE, BESIDE_BULK, BOTH_DOWN, BOTH_UP, Case, DOWNLOAD, DOWNLOAD_1,
        GREETINGS, IDLE, UNREAD_CLIENT, UNREAD_TARGET, UPLOAD, UPLOAD_1, WORKERS_32,
    },
    original,
};
use crate::bench::rows::{self, Bound, Columns, Target};

/// All cases that were measured so far; one that is measured again replaces what was there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) cases: BTreeMap<String, CaseResult>,
}

/// One case.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct CaseResult {
    /// Date, machine and effort.
    pub(super) conditions: String,
    /// Ours.
    pub(super) version: String,
    /// How many cores did other work, at each load.
    pub(super) foreign: Vec<f64>,
    pub(super) rows: Vec<Row>,
    /// Ways that did not stand a round, and why.
    pub(super) failed: Vec<String>,
}

/// What was asked through one way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) through: String,
    /// As [`Case::columns`] names them.
    pub(super) columns: Columns,
}

impl CaseResult {
    /// Adds a round to a row. Rows of the same question stand together.
    pub(super) fn push(&mut self, what: &str, through: &str, figures: &[f64]) {
        let known = self.rows.iter().position(|row| row.what == what && row.through == through);
        let at = known.unwrap_or_else(|| {
            let last = self.rows.iter().rposition(|row| row.what == what);
            let at = last.map_or(self.rows.len(), |last| last + 1);
            let (what, through) = (what.to_owned(), through.to_owned());
            self.rows.insert(at, Row { what, through, columns: Columns::default() });
            at
        });
        self.rows[at].columns.push(figures);
    }

    fn median(&self, what: &str, through: &str, column: usize) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.what == what && row.through == through)?;
        row.columns.median(column)
    }
}

impl Results {
    fn figure(&self, case: Case, what: &str, way: Way, column: usize) -> Option<f64> {
        self.cases.get(case.name())?.median(what, way.name(), column)
    }
}

/// One case as a Markdown table.
pub(super) fn table(case: Case, results: &Results) -> String {
    let Some(result) = results.cases.get(case.name()) else { return String::new() };
    let mut text = format!("### `{}`: {}\n\n| | way |", case.name(), case.title());
    for column in case.columns() {
        let _ = write!(text, " {column} |");
    }
    let ratio = case.is_compared();
    text.push_str(if ratio {
        " to direct's | the original, then |\n"
    } else {
        " the original, then |\n"
    });
    text.push_str("|---|---|");
    text.push_str(&"---:|".repeat(case.columns().len() + usize::from(ratio)));
    text.push_str("---|");
    for row in &result.rows {
        let _ = write!(text, "\n| {} | {} |", row.what, row.through);
        row.columns.cells(case.columns().len()).for_each(|cell| {
            let _ = write!(text, " {cell} |");
        });
        if ratio {
            let direct = result.median(&row.what, Way::Direct.name(), 0);
            let share = row.columns.median(0).zip(direct).map(|(own, direct)| own / direct);
            let _ = write!(text, " {} |", share.map_or("–".to_owned(), |it| format!("{it:.2}")));
        }
        let then = original::beside(case, &row.what, &row.through).unwrap_or("–");
        let _ = write!(text, " {then} |");
    }
    text.push('\n');
    for failed in &result.failed {
        let _ = write!(text, "\n**Failed**: {failed}.\n");
    }
    let foreign = rows::cell(&result.foreign);
    let _ = write!(
        text,
        "\ncloverleaf {}, {}. Other work used {foreign} of the cores meanwhile.\n",
        result.version, result.conditions
    );
    text
}

/// What stands in the page.
pub(super) fn page(results: &Results) -> String {
    let tables = case::ALL.iter().map(|case| table(*case, results));
    let tables: Vec<String> = tables.filter(|table| !table.is_empty()).collect();
    format!("### Targets\n\n{}\n{}", targets(results), tables.join("\n"))
}

/// The targets of which there are figures, as a list.
pub(super) fn targets(results: &Results) -> String {
    let mut list = Vec::new();
    link(results, &mut list);
    bulk(results, &mut list);
    latency(results, &mut list);
    connections(results, &mut list);
    behaviour(results, &mut list);
    list.iter().map(Target::line).collect()
}

/// The ways of an official client.
const OFFICIAL: [Way; 2] = [Way::Grpc, Way::HttpConnect];

fn add(
    list: &mut Vec<Target>,
    promise: String,
    value: Option<f64>,
    bound: Bound,
    unit: &'static str,
) {
    list.extend(value.map(|value| Target { promise, value, bound, unit }));
}

fn link(results: &Results, list: &mut Vec<Target>) {
    for way in OFFICIAL {
        for what in [UPLOAD, DOWNLOAD, BOTH_UP, BOTH_DOWN] {
            let rate = |way| results.figure(Case::Link, what, way, 0);
            let share = rate(way).zip(rate(Way::Direct)).map(|(own, direct)| own / direct * 100.0);
            let promise = format!("`link`, {what}, {}: share of direct", way.name());
            add(list, promise, share, Bound::AtLeast(95.0), "%");
        }
    }
}

/// At most half of the original's processor time in gRPC mode, at each end.
fn bulk(results: &Results, list: &mut Vec<Target>) {
    for (what, server, agent) in [(UPLOAD_1, 2.26, 1.93), (DOWNLOAD_1, 2.71, 2.58)] {
        for (end, column, original) in [("server", 2, server), ("agent", 3, agent)] {
            let value = results.figure(Case::Bulk, what, Way::Grpc, column);
            let promise = format!("`bulk`, {what}, grpc: CPU of the {end}, half of the original's");
            add(list, promise, value, Bound::AtMost(original / 2.0), "CPU-s a GB");
        }
    }
    for what in [UPLOAD, DOWNLOAD] {
        let value = results.figure(Case::Forward, what, Way::Forward, 0);
        add(list, format!("`forward`, {what}"), value, Bound::AtLeast(3.0), "Gbit/s");
    }
}

fn latency(results: &Results, list: &mut Vec<Target>) {
    for way in OFFICIAL {
        for (what, limit) in [(AWAKE, 120.0), (BESIDE_BULK, 2_000.0)] {
            let value = results.figure(Case::Rtt, what, way, 0);
            let promise = format!("`rtt`, {what}, {}: p50", way.name());
            add(list, promise, value, Bound::AtMost(limit), "µs");
        }
    }
}

fn connections(results: &Results, list: &mut Vec<Target>) {
    let rate = |way| results.figure(Case::Conn, WORKERS_32, way, 0);
    for (way, limit) in [(Way::Grpc, 1_400.0), (Way::GrpcReuse, 6_000.0)] {
        let promise = format!("`conn`, {WORKERS_32}, {}", way.name());
        add(list, promise, rate(way), Bound::AtLeast(limit), "connections a second");
    }
    // Of the same run: a machine that is slower today is slower for both.
    let share = rate(Way::Grpc).zip(rate(Way::GoRelay)).map(|(own, relay)| own / relay);
    let promise = format!("`conn`, {WORKERS_32}, grpc: times go-relay's");
    add(list, promise, share, Bound::AtLeast(1.0), "");
    for way in OFFICIAL {
        for (end, column) in [("server", 0), ("agent", 1)] {
            let value = results.figure(Case::Idle, IDLE, way, column);
            let promise = format!("`idle`, {IDLE}, {}: RSS of the {end}", way.name());
            add(list, promise, value, Bound::AtMost(25.0), "MB");
        }
    }
}

/// What a busy machine may take for a round trip; whoever is held up by another waits for seconds.
const UNREAD_MS_MAX: f64 = 1_000.0;

fn behaviour(results: &Results, list: &mut Vec<Target>) {
    for way in [Way::Grpc, Way::GrpcReuse, Way::HttpConnect, Way::Forward] {
        for what in [UNREAD_CLIENT, UNREAD_TARGET] {
            let value = results.figure(Case::Unread, what, way, 1);
            let promise =
                format!("`unread`, {what}, {}: the longest round trip beside it", way.name());
            add(list, promise, value, Bound::AtMost(UNREAD_MS_MAX), "ms");
        }
        let value = results.figure(Case::First, GREETINGS, way, 0);
        add(list, format!("`first`, {}", way.name()), value, Bound::AtLeast(300.0), "greetings");
        let value = results.figure(Case::Half, ANSWERS, way, 0);
        add(list, format!("`half`, {}", way.name()), value, Bound::AtLeast(65_536.0), "bytes back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(case: Case, rows: &[(&str, Way, &[f64])]) -> Results {
        let mut result = CaseResult::default();
        rows.iter().for_each(|(what, way, figures)| result.push(what, way.name(), figures));
        Results { cases: BTreeMap::from([(case.name().to_owned(), result)]) }
    }

    #[test]
    fn rows_of_one_question_stand_together_with_what_the_original_did() {
        let results = results(
            Case::Rtt,
            &[
                (AWAKE, Way::Direct, &[15.0, 40.0, 0.0]),
                (BESIDE_BULK, Way::Direct, &[20.0, 80.0, 9000.0]),
                (AWAKE, Way::Grpc, &[90.0, 200.0, 0.0]),
                (AWAKE, Way::Grpc, &[120.0, 300.0, 0.0]),
            ],
        );
        let text = table(Case::Rtt, &results);
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("| direct |") || line.contains("| grpc |"))
            .collect();
        assert_eq!(rows.len(), 3, "{text}");
        let grpc = "| cores kept awake | grpc | 90.0 [90.0 .. 120.0] | 200.0 [200.0 .. 300.0] | 0.00 \
                    [0.00 .. 0.00] | 6.00 | 216; 532 |";
        assert_eq!(text.lines().nth(5), Some(grpc), "{text}");
    }

    #[test]
    fn only_what_was_measured_is_judged() {
        assert_eq!(targets(&Results::default()), "");
        let link = [(BOTH_UP, Way::Direct, &[950.0][..]), (BOTH_UP, Way::Grpc, &[900.0, 0.2, 0.3])];
        let text = targets(&results(Case::Link, &link));
        let line = "- `link`, both at once, up, grpc: share of direct: 94.7 %, at least 95.0 (**missed**)\n";
        assert_eq!(text, line);
    }

    #[test]
    fn connections_are_also_held_against_the_relay_of_the_same_run() {
        let rows = [(WORKERS_32, Way::Grpc, &[900.0][..]), (WORKERS_32, Way::GoRelay, &[600.0])];
        let text = targets(&results(Case::Conn, &rows));
        let lines = "- `conn`, 32 workers, grpc: 900.0 connections a second, at least 1400 (**missed**)\n\
                     - `conn`, 32 workers, grpc: times go-relay's: 1.50, at least 1.00 (kept)\n";
        assert_eq!(text, lines);
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let written = results(Case::Half, &[(ANSWERS, Way::HttpConnect, &[65_536.0])]);
        let text = serde_json::to_string(&written).unwrap();
        let read: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(table(Case::Half, &read), table(Case::Half, &written));
    }
}
