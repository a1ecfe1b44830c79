//! What a case makes of what was seen: rows, and their figures in the order of its columns. Pure.

use anyhow::Result;

use super::{
    Way,
    case::{BOTH_DOWN, BOTH_UP, Case},
    load::{Asked, Seen},
};

/// What a row is called beside the way, and its figures.
pub(super) type Reading = (&'static str, Vec<f64>);

/// The rows that come of one load.
pub(super) fn read(case: Case, asked: &Asked, seen: &Seen, way: Way) -> Result<Vec<Reading>> {
    let one = |figures| vec![(asked.what, figures)];
    Ok(match case {
        Case::Link | Case::Bulk | Case::Forward => moved(asked, seen)?
            .into_iter()
            .map(|moved| (moved.what, moved.figures(case, seen, way)))
            .collect(),
        Case::Rtt => {
            let beside = megabits(seen.said("beside_bytes")?, seen.said("seconds")?);
            one(vec![seen.said("p50_us")?, seen.said("p99_us")?, beside])
        }
        Case::Conn => one(connections(seen, way)?),
        Case::Idle => one(memory(seen, way)?),
        Case::Unread => {
            let milliseconds = |name| Ok::<f64, anyhow::Error>(seen.said(name)? / 1e3);
            one(vec![seen.said("p50_us")?, milliseconds("max_us")?, milliseconds("dial_us")?])
        }
        Case::First => one(vec![seen.said("count")?, seen.said("p50_us")? / 1e3]),
        Case::Half => one(vec![seen.said("bytes")?]),
    })
}

/// Bytes that went one way.
struct Moved {
    what: &'static str,
    megabits: f64,
    /// Together with those that went the other way meanwhile.
    gigabytes: f64,
}

fn moved(asked: &Asked, seen: &Seen) -> Result<Vec<Moved>> {
    let (up, down) = (seen.said("up_bytes")?, seen.said("down_bytes")?);
    let seconds = seen.said("seconds")?;
    let (up_rate, down_rate) = (megabits(up, seconds), megabits(down, seconds));
    let moved = |what, megabits| Moved { what, megabits, gigabytes: (up + down) / 1e9 };
    Ok(match asked.what {
        BOTH_UP => vec![moved(BOTH_UP, up_rate), moved(BOTH_DOWN, down_rate)],
        what => vec![moved(what, up_rate + down_rate)],
    })
}

impl Moved {
    fn figures(&self, case: Case, seen: &Seen, way: Way) -> Vec<f64> {
        let each = |cpu: f64| cpu / self.gigabytes;
        match (case, way) {
            (Case::Link, Way::Direct) => vec![self.megabits],
            (Case::Link, _) => {
                vec![self.megabits, seen.server / seen.seconds, seen.agent / seen.seconds]
            }
            (Case::Forward, Way::Direct) => vec![self.megabits / 1e3],
            (Case::Forward, _) => {
                let (server, agent) = (each(seen.server), each(seen.agent));
                let front = (way == Way::Forward).then(|| each(seen.front));
                let all = server + agent + front.unwrap_or_default();
                [self.megabits / 1e3, all, server, agent].into_iter().chain(front).collect()
            }
            (_, Way::Direct) => vec![self.megabits, each(seen.client)],
            _ => vec![self.megabits, each(seen.client), each(seen.server), each(seen.agent)],
        }
    }
}

fn megabits(bytes: f64, seconds: f64) -> f64 {
    bytes * 8.0 / 1e6 / seconds
}

fn connections(seen: &Seen, way: Way) -> Result<Vec<f64>> {
    let count = seen.said("count")?;
    let each = |cpu: f64| cpu * 1e6 / count;
    let mut figures = vec![
        count / seen.said("seconds")?,
        seen.said("p50_us")? / 1e3,
        seen.said("p99_us")? / 1e3,
        each(seen.client),
    ];
    if way != Way::Direct {
        figures.extend([each(seen.server), each(seen.agent)]);
    }
    if way == Way::Forward {
        figures.push(each(seen.front));
    }
    Ok(figures)
}

fn memory(seen: &Seen, way: Way) -> Result<Vec<f64>> {
    let count = seen.said("count")?;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let [server, agent, front] = seen.held;
    let rest = seen.rest.map(|memory| megabytes(memory.resident));
    let grown = |end: usize| (megabytes(seen.held[end].resident) - rest[end]) * 1e3 / count;
    let held = [server.resident, agent.resident, server.anonymous, agent.anonymous].map(megabytes);
    let mut figures = [&held[..], &rest[..2], &[grown(0), grown(1)]].concat();
    if way == Way::Forward {
        figures.extend([megabytes(front.resident), grown(2)]);
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn seen(said: &[(&str, f64)]) -> Seen {
        let said: BTreeMap<String, f64> =
            said.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect();
        Seen { said, seconds: 2.0, client: 1.0, server: 3.0, agent: 2.0, ..Seen::default() }
    }

    fn asked(case: Case, what: &str) -> Asked {
        case.asked().into_iter().find(|asked| asked.what == what).unwrap()
    }

    #[test]
    fn both_directions_are_two_rows_that_share_what_was_used() {
        let seen = seen(&[("up_bytes", 1e9), ("down_bytes", 1e9), ("seconds", 2.0)]);
        let asked = asked(Case::Forward, BOTH_UP);
        let rows = read(Case::Forward, &asked, &seen, Way::Rathole).unwrap();
        let figures = vec![4.0, 2.5, 1.5, 1.0];
        assert_eq!(rows, [(BOTH_UP, figures.clone()), (BOTH_DOWN, figures)]);
    }

    #[test]
    fn no_row_has_more_figures_than_its_table_columns() {
        let names = ["up_bytes", "down_bytes", "seconds", "beside_bytes", "count", "bytes"];
        let names = names.iter().chain(&["p50_us", "p99_us", "max_us", "dial_us"]);
        let seen = seen(&names.map(|name| (*name, 1.0)).collect::<Vec<_>>());
        for case in super::super::case::ALL {
            for way in case.ways() {
                for asked in case.asked() {
                    for (_, figures) in read(case, &asked, &seen, *way).unwrap() {
                        assert!(figures.len() <= case.columns().len(), "{case:?} {way:?}");
                    }
                }
            }
        }
    }
}
