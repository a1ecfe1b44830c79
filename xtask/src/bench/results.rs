//! The figures: one row for each case and proxy, kept as JSON in `bench/out` between runs.
//! Medians and targets are decided here; how they look is in `report` and `svg`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    case::{self, Case},
    peers::{self, Proxy},
};

/// Everything that is known, by the name of the case.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) cases: BTreeMap<String, CaseResult>,
}

/// One case, all of its proxies measured in the same run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct CaseResult {
    /// When and where, for people.
    pub(crate) conditions: String,
    pub(crate) rows: Vec<Row>,
}

/// One proxy in one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) proxy: String,
    pub(crate) version: String,
    pub(crate) figures: Figures,
}

/// What was measured, by the kind of case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Figures {
    Load(Load),
    Idle { bytes_each: f64, resident_bytes: u64 },
    Reload(Reload),
    NotRun(String),
}

/// Figures of a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    pub(crate) requests_a_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) resident_bytes: u64,
}

impl Load {
    /// User and system together.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// Figures of reloads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reload {
    /// From the write to the first answer of the new file: the median and the slowest.
    pub(crate) applied_ms: f64,
    pub(crate) slowest_ms: f64,
    pub(crate) p99_before_us: f64,
    pub(crate) p99_during_us: f64,
}

/// The middle round of each proxy. Rounds are compared by processor time, and the whole round is kept, so
/// that its figures belong together.
pub(crate) fn median(mut rounds: Vec<Figures>) -> Option<Figures> {
    let weight = |figures: &Figures| match figures {
        Figures::Load(load) => load.cpu_us(),
        Figures::Idle { bytes_each, .. } => *bytes_each,
        Figures::Reload(reload) => reload.applied_ms,
        Figures::NotRun(_) => 0.0,
    };
    rounds.sort_by(|a, b| weight(a).total_cmp(&weight(b)));
    let middle = rounds.len().saturating_sub(1) / 2;
    (!rounds.is_empty()).then(|| rounds.swap_remove(middle))
}

impl Results {
    fn figures(&self, case: Case, proxy: Proxy) -> Option<&Figures> {
        let rows = &self.cases.get(case.name())?.rows;
        rows.iter().find(|row| row.proxy == proxy.name()).map(|row| &row.figures)
    }

    /// The figures of a load.
    pub(crate) fn load(&self, case: Case, proxy: Proxy) -> Option<Load> {
        match self.figures(case, proxy)? {
            Figures::Load(load) => Some(*load),
            _ => None,
        }
    }

    fn idle_bytes(&self, proxy: Proxy) -> Option<f64> {
        match self.figures(Case::Idle, proxy)? {
            Figures::Idle { bytes_each, .. } => Some(*bytes_each),
            _ => None,
        }
    }
}

/// A promise and whether these figures keep it.
#[derive(Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) promise: String,
    pub(crate) measured: String,
    pub(crate) kept: bool,
}

impl Target {
    fn at_most(promise: String, value: f64, limit: f64, unit: &str) -> Target {
        let measured = format!("{value:.1} {unit}, at most {limit:.1}");
        Target { promise, measured, kept: value <= limit }
    }
}

/// Every target whose figures are there.
pub(crate) fn targets(results: &Results) -> Vec<Target> {
    let cpu = |case, proxy| results.load(case, proxy).map(|load| load.cpu_us());
    let own = |case| cpu(case, Proxy::Cloverleaf);
    let mut list = Vec::new();
    for case in [Case::Plain, Case::Tls, Case::TlsNew] {
        for peer in [Proxy::Haproxy, Proxy::Nginx] {
            if let (Some(own), Some(limit)) = (own(case), cpu(case, peer)) {
                let promise = format!("`{}`: CPU a request at most {}'s", case.name(), peer.name());
                list.push(Target::at_most(promise, own, limit, "µs"));
            }
        }
    }
    for case in case::ALL {
        if let (Some(own), Some(envoy)) = (own(case), cpu(case, Proxy::Envoy)) {
            let promise = format!("`{}`: CPU a request at most half of envoy's", case.name());
            list.push(Target::at_most(promise, own, envoy / 2.0, "µs"));
        }
    }
    if let (Some(few), Some(many)) = (own(Case::Rules10), own(Case::Rules100000)) {
        let promise = "100,000 rules cost at most 10 % more a request than 10".to_owned();
        list.push(Target::at_most(promise, many, few * 1.1, "µs"));
    }
    if let (Some(own), Some(peer)) =
        (results.idle_bytes(Proxy::Cloverleaf), results.idle_bytes(Proxy::Haproxy))
    {
        let promise = "memory of an idle connection at most haproxy's plus 4 KiB".to_owned();
        list.push(Target::at_most(promise, own / 1024.0, peer / 1024.0 + 4.0, "KiB"));
    }
    if let Some(Figures::Reload(reload)) = results.figures(Case::Reload, Proxy::Cloverleaf) {
        let promise = "a reload of 10,000 rules is live in under 100 ms".to_owned();
        list.push(Target::at_most(promise, reload.applied_ms, 100.0, "ms"));
        let promise = "such a reload does not raise p99 above twice its level".to_owned();
        let limit = reload.p99_before_us * 2.0 / 1000.0;
        list.push(Target::at_most(promise, reload.p99_during_us / 1000.0, limit, "ms"));
    }
    list
}

/// The proxies of a case in the order of the table.
pub(crate) fn in_order(rows: &[Row]) -> Vec<&Row> {
    peers::ALL
        .iter()
        .filter_map(|proxy| rows.iter().find(|row| row.proxy == proxy.name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cpu: f64) -> Figures {
        let system_us = cpu - 1.0;
        Figures::Load(Load {
            user_us: 1.0,
            system_us,
            requests_a_second: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            resident_bytes: 1,
        })
    }

    fn results(figures: &[(Case, Proxy, Figures)]) -> Results {
        let mut results = Results::default();
        for (case, proxy, figures) in figures {
            let row = Row {
                proxy: proxy.name().to_owned(),
                version: "1".to_owned(),
                figures: figures.clone(),
            };
            results.cases.entry(case.name().to_owned()).or_default().rows.push(row);
        }
        results
    }

    #[test]
    fn the_middle_round_counts() {
        assert_eq!(median(vec![load(9.0), load(5.0), load(7.0)]), Some(load(7.0)));
        assert_eq!(median(vec![load(9.0), load(5.0)]), Some(load(5.0)));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn targets_compare_rows_of_one_case() {
        let list = targets(&results(&[
            (Case::Plain, Proxy::Cloverleaf, load(12.0)),
            (Case::Plain, Proxy::Haproxy, load(13.0)),
            (Case::Plain, Proxy::Nginx, load(11.0)),
            (Case::Plain, Proxy::Envoy, load(30.0)),
            (Case::Rules10, Proxy::Cloverleaf, load(10.0)),
            (Case::Rules100000, Proxy::Cloverleaf, load(11.5)),
        ]));
        assert_eq!(
            list.iter().map(|target| target.kept).collect::<Vec<_>>(),
            [true, false, true, false]
        );
    }

    #[test]
    fn a_target_without_figures_is_not_judged() {
        assert_eq!(targets(&results(&[(Case::Plain, Proxy::Nginx, load(1.0))])), []);
    }
}
