//! Active health checks: endpoints are asked whether they can serve, and those that cannot get no requests.
//!
//! An [`EndpointHealth`] is what the asking side and the workers share: one flag, read by every pick without a lock,
//! and for people since when and why. It outlives programs while upstream, target and check stay the same.
//! [`Prober`] asks, on the control runtime; [`probe`] is one question. When a flag changes is decided by
//! [`balance::Health`]. Must not know requests.

mod probe;
mod prober;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use balance::Health;
use model::{HealthCheck, Name, Target, Upstream};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::stats::{HEALTH_RESULTS, Labelled};
use probe::ProbeError;
pub use prober::Prober;

/// The health of an upstream's endpoints, in their order.
pub type UpstreamHealth = Arc<[Arc<EndpointHealth>]>;

/// Whether one endpoint can serve, as its checks found.
#[derive(Debug)]
pub struct EndpointHealth {
    up: AtomicBool,
    upstream: Name,
    target: Target,
    check: HealthCheck,
    /// Checks made, by result. Shared with what follows on a change of the check, so that no count is lost.
    results: Arc<Labelled<{ HEALTH_RESULTS.len() }>>,
    standing: Mutex<Standing>,
    /// Woken when it goes up or down.
    changes: Arc<Notify>,
}

#[derive(Debug)]
struct Standing {
    health: Health,
    report: Report,
}

/// An endpoint's health, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// It gets requests.
    pub up: bool,
    /// Since when; where it was never otherwise, when it was first known.
    pub since: SystemTime,
    /// Why the last check that failed did, in one line; `None` where none has failed yet.
    pub last_error: Option<Arc<str>>,
}

impl EndpointHealth {
    /// An endpoint that has not been asked yet; it can serve until its first check says otherwise.
    fn new(upstream: &Upstream, target: Target, check: HealthCheck, changes: Arc<Notify>) -> Self {
        Self {
            up: AtomicBool::new(true),
            upstream: upstream.name.clone(),
            target,
            results: Arc::new(Labelled::new(&HEALTH_RESULTS)),
            standing: Mutex::new(Standing {
                health: Health::new(true, check.rise, check.fall),
                report: Report { up: true, since: SystemTime::now(), last_error: None },
            }),
            check,
            changes,
        }
    }

    /// The same endpoint under another check: what was found so far holds until that one decides.
    fn under(&self, check: HealthCheck) -> Self {
        let report = self.report();
        Self {
            up: AtomicBool::new(report.up),
            upstream: self.upstream.clone(),
            target: self.target.clone(),
            results: self.results.clone(),
            standing: Mutex::new(Standing {
                health: Health::new(report.up, check.rise, check.fall),
                report,
            }),
            check,
            changes: self.changes.clone(),
        }
    }

    /// Whether it can serve.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// As it is now, for people.
    #[must_use]
    pub fn report(&self) -> Report {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).report.clone()
    }

    /// Checks made, by result.
    pub fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.results.read()
    }

    /// Notes how a check ended, and logs where that changes anything. Only the task that asks calls it.
    fn note(&self, outcome: Result<(), ProbeError>) {
        self.results.add(outcome.as_ref().map_or_else(ProbeError::label, |()| "ok"));
        let error = outcome.err().map(|error| Arc::from(error.in_one_line()));
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let change = standing.health.note(error.is_none());
        if error.is_some() {
            standing.report.last_error.clone_from(&error);
        }
        if let Some(up) = change {
            standing.report.up = up;
            standing.report.since = SystemTime::now();
            self.up.store(up, Ordering::Relaxed);
        }
        drop(standing);
        if change.is_some() {
            self.changes.notify_waiters();
        }
        let (upstream, endpoint) = (&*self.upstream, &self.target);
        match (change, error) {
            (Some(true), _) => tracing::info!(upstream, %endpoint, "endpoint is up"),
            (Some(false), error) => {
                let error = error.as_deref().unwrap_or_default();
                tracing::info!(upstream, %endpoint, error, "endpoint is down");
            }
            (None, Some(error)) => {
                tracing::debug!(upstream, %endpoint, error = &*error, "health check failed");
            }
            (None, None) => {}
        }
    }
}

/// The health of an upstream's endpoints, taken over from before as far as target and check are the same; the same
/// list where all of it is; `changes` is woken when one goes up or down. `None` without a check.
pub(crate) fn of(
    upstream: &Upstream,
    before: Option<&UpstreamHealth>,
    changes: &Arc<Notify>,
) -> Option<UpstreamHealth> {
    let check = upstream.health_check.as_ref()?;
    let endpoints = &upstream.endpoints;
    if let Some(same) = before
        && same.len() == endpoints.len()
        && same.iter().zip(endpoints).all(|(h, e)| h.target == e.target && h.check == *check)
    {
        return Some(same.clone());
    }
    let known = before.iter().flat_map(|before| before.iter());
    let mut known: FxHashMap<&Target, Arc<EndpointHealth>> =
        known.map(|health| (&health.target, health.clone())).collect();
    let mut list = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let health = match known.get(&endpoint.target) {
            Some(known) if known.check == *check => known.clone(),
            Some(known) => Arc::new(known.under(check.clone())),
            None => {
                let (target, check) = (endpoint.target.clone(), check.clone());
                Arc::new(EndpointHealth::new(upstream, target, check, changes.clone()))
            }
        };
        // An endpoint that stands there twice is asked once.
        known.insert(&endpoint.target, health.clone());
        list.push(health);
    }
    Some(list.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Probe;
    use std::time::Duration;

    fn upstream(endpoints: &[&str], interval: u64) -> Upstream {
        let check = HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
        };
        crate::tests::upstream("u", endpoints, Some(check))
    }

    fn of(upstream: &Upstream, before: Option<&UpstreamHealth>) -> Option<UpstreamHealth> {
        super::of(upstream, before, &Arc::default())
    }

    fn failed() -> Result<(), ProbeError> {
        Err(ProbeError::Status(500))
    }

    #[test]
    fn health_outlives_changes_of_the_list_and_of_the_check() {
        let first = of(&upstream(&["10.0.0.1:80", "10.0.0.2:80"], 1), None).unwrap();
        first[1].note(failed());
        assert!(first[0].is_up() && !first[1].is_up());
        assert_eq!(first[1].report().last_error.as_deref(), Some("the answer's status is 500"));
        let same = of(&upstream(&["10.0.0.1:80", "10.0.0.2:80"], 1), Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&same, &first));
        let shorter = of(&upstream(&["10.0.0.2:80", "10.0.0.3:80"], 1), Some(&same)).unwrap();
        assert!(Arc::ptr_eq(&shorter[0], &first[1]) && shorter[1].is_up());
        // Another check: still down until it decides, which it does at once.
        let other = of(&upstream(&["10.0.0.2:80"], 5), Some(&shorter)).unwrap();
        assert!(!other[0].is_up());
        other[0].note(Ok(()));
        assert!(other[0].is_up() && !first[1].is_up());
        let count = |label| other[0].results().find(|(l, _)| *l == label).unwrap().1;
        assert_eq!((count("status"), count("ok")), (1, 1));
        let none = Upstream { health_check: None, ..upstream(&["10.0.0.2:80"], 1) };
        assert!(of(&none, Some(&other)).is_none());
    }

    #[test]
    fn an_endpoint_that_stands_there_twice_has_one_health() {
        let health = of(&upstream(&["10.0.0.1:80", "10.0.0.1:80"], 1), None).unwrap();
        assert!(Arc::ptr_eq(&health[0], &health[1]));
    }
}
