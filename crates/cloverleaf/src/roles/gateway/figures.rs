//! Figures that the metrics and the live state have in common: what workers counted, added up.
//!
//! Must not know how either is shown.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use admin::state::{ConfigState, Latency};
use http_proxy::stats::{self, RequestCells};

/// What became of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Reloads {
    pub(super) applied: u64,
    pub(super) refused: u64,
    pub(super) took: Duration,
    pub(super) last_applied: Option<SystemTime>,
    pub(super) last_refused: Option<SystemTime>,
    pub(super) state: ConfigState,
}

/// The sum of one cell over all workers.
pub(super) fn sum<C>(cells: &[Arc<C>], cell: impl Fn(&C) -> &stats::Cell) -> u64 {
    cells.iter().map(|c| cell(c).get()).fold(0, u64::wrapping_add)
}

/// Requests by class, over all workers.
pub(super) fn classes(cells: &[Arc<RequestCells>]) -> [u64; 5] {
    let mut classes = [0; 5];
    for worker in cells {
        classes.iter_mut().zip(&worker.classes).for_each(|(sum, cell)| *sum += cell.get());
    }
    classes
}

/// Latency in the admin port's form, over all workers.
pub(super) fn latency(cells: &[Arc<RequestCells>]) -> Latency {
    let mut latency = Latency::default();
    for (at, bound) in stats::LATENCY_BOUNDS_MICROS.iter().enumerate() {
        let count = cells.iter().filter_map(|c| c.latency.get(at)).map(stats::Cell::get).sum();
        latency.buckets.push((Duration::from_micros(*bound).as_secs_f64(), count));
    }
    latency.count = cells.iter().flat_map(|c| &c.latency).map(stats::Cell::get).sum();
    latency.sum_seconds = Duration::from_micros(sum(cells, |c| &c.latency_micros)).as_secs_f64();
    latency
}
